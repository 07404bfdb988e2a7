package lint

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// write creates a folder with the given files and makes it the working directory.
func write(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
	}
}

func TestExpand(t *testing.T) {
	write(t, map[string]string{
		"a.yaml": "", "b.yml": "", "c.txt": "", "odd[1].yaml": "",
		"sub/d.yaml": "", "sub/deep/e.yaml": "", "sub/deep/f.md": "",
	})
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"a name", []string{"a.yaml"}, []string{"a.yaml"}},
		{"a missing name stays, for the linter to report", []string{"none.yaml"}, []string{"none.yaml"}},
		{"a pattern", []string{"*.yaml"}, []string{"a.yaml", "odd[1].yaml"}},
		{"a pattern without a match", []string{"x*.yaml"}, nil},
		{"every folder below", []string{"./..."}, []string{"a.yaml", "b.yml", "odd[1].yaml", "sub/d.yaml", "sub/deep/e.yaml"}},
		{"bare dots", []string{"..."}, []string{"a.yaml", "b.yml", "odd[1].yaml", "sub/d.yaml", "sub/deep/e.yaml"}},
		{"one folder and below", []string{"sub/..."}, []string{"sub/d.yaml", "sub/deep/e.yaml"}},
		{"double star", []string{"sub/**/*.yaml"}, []string{"sub/d.yaml", "sub/deep/e.yaml"}},
		{"double star at the end", []string{"sub/**"}, []string{"sub/d.yaml", "sub/deep/e.yaml", "sub/deep/f.md"}},
		{"no file twice", []string{"a.yaml", "*.yaml", "a.yaml"}, []string{"a.yaml", "odd[1].yaml"}},
		{"nothing", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := expand(test.args)
			require.NoError(t, err)
			require.ElementsMatch(t, test.want, got)
		})
	}

	_, err := expand([]string{"absent/..."})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestEscapeGlobMatchesOnlyTheName(t *testing.T) {
	write(t, map[string]string{"odd[1].yaml": "", "odd1.yaml": "", "a*b.yaml": "", "axb.yaml": ""})
	for _, name := range []string{"odd[1].yaml", "a*b.yaml", "axb.yaml"} {
		got, err := expand([]string{escapeGlob(name)})
		require.NoError(t, err)
		require.Equal(t, []string{name}, got)
	}
}

// run lints with a stock linter that records its arguments.
func run(t *testing.T, args []string, stockCode int, kinds ...Kind) (ok bool, stockArgs []string, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	command := Command("program", func(_ context.Context, args []string) (int, error) {
		stockArgs = args
		return stockCode, nil
	}, kinds...)
	command.Action = func(c *cli.Context) (err error) {
		ok, err = lint(c, func(_ context.Context, args []string) (int, error) {
			stockArgs = args
			return stockCode, nil
		}, kinds, &out, &errOut)
		return err
	}
	app := &cli.App{
		Flags:    []cli.Flag{&cli.StringFlag{Name: flagConfig, Aliases: []string{"c"}}},
		Commands: []*cli.Command{command},
	}
	require.NoError(t, app.Run(append([]string{"program"}, args...)))
	return ok, stockArgs, out.String(), errOut.String()
}

var shoes = Kind{
	Name: "shoe",
	Keys: []string{"laces"},
	Lint: func(path string) ([]finding.Finding, error) {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		switch {
		case bytes.Contains(raw, []byte("untied")):
			return []finding.Finding{{File: path, Line: 3, Column: 5, Message: "tie them"}}, nil
		case bytes.Contains(raw, []byte("gone")):
			return nil, errors.New("no shoe here")
		}
		return nil, nil
	},
}

func TestFilesAreLintedByTheirKind(t *testing.T) {
	write(t, map[string]string{
		"configs/good.yaml":     "laces: tied",
		"configs/bad.yaml":      "laces: untied",
		"configs/unread.yaml":   "laces: gone",
		"configs/pipeline.yaml": "input: {}\n",
		"configs/list.yaml":     "- laces\n",
		"configs/empty.yaml":    "",
		"configs/broken.yaml":   "a: [",
	})

	ok, stockArgs, stdout, stderr := run(t, []string{"lint", "--verbose", "configs/..."}, 0, shoes)
	require.False(t, ok)
	require.Equal(t, []string{"--verbose", "--",
		"configs/empty.yaml", "configs/list.yaml", "configs/pipeline.yaml"}, stockArgs)
	require.Equal(t, "configs/broken.yaml(1,1) a value or the end of a bracket is missing: close each [ and {\nconfigs/bad.yaml(3,5) tie them\nconfigs/unread.yaml(1,1) no shoe here\n", stderr)
	require.Equal(t, "configs/broken.yaml: FAILED\nconfigs/bad.yaml: FAILED\nconfigs/good.yaml: OK\nconfigs/unread.yaml: FAILED\n", stdout)

	ok, _, stdout, stderr = run(t, []string{"lint", "configs/good.yaml"}, 0, shoes)
	require.True(t, ok)
	require.Empty(t, stdout+stderr)

	ok, _, _, _ = run(t, []string{"lint", "configs/good.yaml"}, 1, shoes)
	require.False(t, ok, "what the engine finds counts")
}

func TestFlagsArePassedToTheEngine(t *testing.T) {
	write(t, map[string]string{"p.yaml": "input: {}", "r.yaml": "laces: untied", "q.yaml": "input: {}"})
	ok, stockArgs, _, stderr := run(t, []string{"-c", "q.yaml", "lint", "--deprecated", "--labels", "--skip-env-var-check",
		"-e", "one.env,two.env", "-t", "t.yaml", "-r", "r.yaml", "p.yaml"}, 0, shoes)
	require.False(t, ok, "a file given by -r is linted too")
	require.Contains(t, stderr, "r.yaml(3,5)")
	require.Equal(t, []string{"--deprecated", "--labels", "--skip-env-var-check",
		"--env-file", "one.env", "--env-file", "two.env", "--templates", "t.yaml", "--", "p.yaml", "q.yaml"}, stockArgs)
}

// The command replaces that of the engine. It must have the same flags, also with a new
// version of the engine.
func TestFlagsEqualThoseOfTheEngine(t *testing.T) {
	var help bytes.Buffer
	ours := Command("program", nil, shoes)
	set := flag.NewFlagSet("", flag.ContinueOnError)
	for _, f := range ours.Flags {
		require.NoError(t, f.Apply(set))
	}

	stdout := os.Stdout
	read, write, err := os.Pipe()
	require.NoError(t, err)
	os.Stdout = write
	code, err := service.RunCLIToCode(t.Context(), service.CLIOptSetArgs("program", "lint", "--help"))
	os.Stdout = stdout
	require.NoError(t, err)
	require.Zero(t, code)
	require.NoError(t, write.Close())
	_, err = help.ReadFrom(read)
	require.NoError(t, err)

	_, options, _ := strings.Cut(help.String(), "OPTIONS:")
	names := regexp.MustCompile(`(?m)^\s+--([a-z-]+)`).FindAllStringSubmatch(options, -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		if name[1] != "help" {
			require.NotNil(t, set.Lookup(name[1]), "the engine's lint command has a flag --%s", name[1])
		}
	}
	require.Len(t, ours.Flags, len(names)-1, "all but --help")
}

func TestJSONSchema(t *testing.T) {
	for _, test := range []struct {
		name, schema, want string
	}{
		{name: "good", schema: "$schema: https://json-schema.org/draft/2020-12/schema\ntype: object\n"},
		{name: "old draft", schema: "$schema: http://json-schema.org/draft-07/schema#\ndefinitions: {a: {type: string}}\n"},
		{name: "refers to its neighbour", schema: "$schema: https://json-schema.org/draft/2020-12/schema\n$ref: other.yaml\n"},
		{name: "no such type", schema: "$schema: https://json-schema.org/draft/2020-12/schema\nproperties: {total: {type: nmber}}\n", want: "/properties/total/type"},
		{name: "refers to nothing", schema: "$schema: https://json-schema.org/draft/2020-12/schema\n$ref: absent.yaml\n", want: "absent.yaml"},
		{name: "refers to the network", schema: "$schema: https://json-schema.org/draft/2020-12/schema\n$ref: https://127.0.0.1:1/x.json\n", want: "https"},
	} {
		t.Run(test.name, func(t *testing.T) {
			write(t, map[string]string{"schema.yaml": test.schema, "other.yaml": "type: string\n"})
			ok, stockArgs, _, stderr := run(t, []string{"lint", "schema.yaml"}, 0, Kind{Keys: []string{"$schema", "$id"}, Lint: lintJSONSchema})
			require.Equal(t, []string{"--"}, stockArgs)
			require.Equal(t, test.want == "", ok, stderr)
			if test.want != "" {
				require.Contains(t, stderr, "schema.yaml(1,1) ")
				require.Contains(t, stderr, test.want)
			}
		})
	}
}
