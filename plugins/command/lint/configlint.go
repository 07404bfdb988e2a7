// Package lint is the lint command of the distribution. It lints every
// YAML file of a configuration by what the file is: pipelines by the engine's
// own linter, and the files that pipelines refer to (profile definitions,
// tracking plans, JSON Schemas) each by the linter of its kind.
package lint

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fatih/color"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"
)

// Kind is a sort of YAML file that is not a pipeline.
type Kind struct {
	// Name is what messages call such a file.
	Name string
	// Recognise tells by its top-level keys whether a file is of this kind.
	Recognise func(keys Keys) bool
	// Lint returns what is wrong with the file and with those it refers to. An
	// error means that it could not be read at all.
	Lint func(path string) ([]Lint, error)
}

// Lint is one thing wrong with a file.
type Lint struct {
	Path string
	service.Lint
}

// Keys are the top-level keys of a YAML file.
type Keys map[string]struct{}

// Any tells whether at least one of names is there.
func (k Keys) Any(names ...string) bool {
	for _, name := range names {
		if _, ok := k[name]; ok {
			return true
		}
	}
	return false
}

// StockLint runs the engine's own lint command with the given flags and
// targets and returns its exit code.
type StockLint func(ctx context.Context, args []string) (exitCode int, err error)

// The flags are those of the command it replaces. TestFlags compares them.
const (
	flagDeprecated = "deprecated"
	flagLabels     = "labels"
	flagSkipEnv    = "skip-env-var-check"
	flagVerbose    = "verbose"
	flagResources  = "resources"
	flagEnvFile    = "env-file"
	flagTemplates  = "templates"
	flagConfig     = "config" // of the root command
)

// Command returns the lint command of the program called binary. Files that
// are of none of the kinds are pipelines, and left to stock.
func Command(binary string, stock StockLint, kinds ...Kind) *cli.Command {
	return &cli.Command{
		Name:  "lint",
		Usage: fmt.Sprintf("Parse %s configs and report any linting errors", binary),
		Description: fmt.Sprintf(`
Exits with a status code 1 if any linting errors are detected:

  %[1]s lint ./configs/*.yaml
  %[1]s lint ./foo.yaml ./bar.yaml
  %[1]s lint ./configs/...

If a path ends with '...' then %[1]s will walk the target and lint any
files with the .yaml or .yml extension: pipelines, and the %[2]s
files that they refer to.`, binary, listNames(kinds))[1:],
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name:  flagDeprecated,
				Usage: "Print linting errors for the presence of deprecated fields.",
			},
			&cli.BoolFlag{
				Name:  flagLabels,
				Usage: "Print linting errors when components do not have labels.",
			},
			&cli.BoolFlag{
				Name:  flagSkipEnv,
				Usage: "Do not produce lint errors when environment interpolations exist without defaults within configs but aren't defined.",
			},
			&cli.BoolFlag{
				Name:  flagVerbose,
				Usage: "Print the lint result for each target file.",
			},
			&cli.StringSliceFlag{
				Name:    flagResources,
				Aliases: []string{"r"},
				Usage:   "pull in extra resources from a file, which can be referenced the same as resources defined in the main config, supports glob patterns (requires quotes)",
			},
			&cli.StringSliceFlag{
				Name:    flagEnvFile,
				Aliases: []string{"e"},
				Usage:   "import environment variables from a dotenv file",
			},
			&cli.StringSliceFlag{
				Name:    flagTemplates,
				Aliases: []string{"t"},
				Usage:   fmt.Sprintf("EXPERIMENTAL: import %s templates, supports glob patterns (requires quotes)", binary),
			},
		},
		Action: func(c *cli.Context) error {
			ok, err := lint(c, stock, kinds, os.Stdout, os.Stderr)
			if err != nil {
				return err
			}
			if !ok {
				return cli.Exit("", 1)
			}
			return nil
		},
	}
}

func listNames(kinds []Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func lint(c *cli.Context, stock StockLint, kinds []Kind, stdout, stderr io.Writer) (ok bool, err error) {
	named := c.Args().Slice()
	if conf := c.String(flagConfig); conf != "" {
		named = append(named, conf)
	}
	named = append(named, c.StringSlice(flagResources)...)
	targets, err := expand(named)
	if err != nil {
		return false, fmt.Errorf("lint paths error: %w", err)
	}

	var args []string
	for _, flag := range []string{flagDeprecated, flagLabels, flagSkipEnv, flagVerbose} {
		if c.Bool(flag) {
			args = append(args, "--"+flag)
		}
	}
	for _, flag := range []string{flagEnvFile, flagTemplates} {
		for _, value := range c.StringSlice(flag) {
			args = append(args, "--"+flag, value)
		}
	}
	args = append(args, "--")

	type ownTarget struct {
		path string
		kind Kind
	}
	var own []ownTarget
	var pipelines []string
	for _, target := range targets {
		if kind, found := kindOf(target, kinds); found {
			own = append(own, ownTarget{target, kind})
		} else {
			args = append(args, escapeGlob(target))
			pipelines = append(pipelines, target)
		}
	}

	// First the engine, whatever is left for it: it reads the files named by
	// --env-file into the environment, which ours may refer to.
	code, err := stock(c.Context, args)
	if err != nil {
		return false, err
	}
	ok = code == 0

	red, green := color.New(color.FgRed), color.New(color.FgGreen)
	for _, target := range own {
		lints, err := target.kind.Lint(target.path)
		if err != nil {
			lints = append(lints, Lint{target.path, service.Lint{Line: 1, Type: service.LintFailedRead, What: err.Error()}})
		}
		if c.Bool(flagVerbose) {
			result := green.Sprint("OK")
			if len(lints) > 0 {
				result = red.Sprint("FAILED")
			}
			fmt.Fprintf(stdout, "%v: %v\n", target.path, result)
		}
		ok = report(stderr, lints) && ok
	}
	return report(stderr, agreement(pipelines)) && ok, nil
}

// report writes lints, and tells whether there are none.
func report(stderr io.Writer, lints []Lint) bool {
	red, yellow := color.New(color.FgRed), color.New(color.FgYellow)
	for _, l := range lints {
		text := fmt.Sprintf("%v%v\n", l.Path, l.Error())
		if l.Type == service.LintFailedRead || l.Type == service.LintComponentMissing {
			text = red.Sprint(text)
		} else {
			text = yellow.Sprint(text)
		}
		fmt.Fprint(stderr, text)
	}
	return len(lints) == 0
}

// kindOf reads as much of a file as tells what it is. A file that cannot be
// read or parsed is of no kind: the engine's linter says why.
func kindOf(path string, kinds []Kind) (Kind, bool) {
	if !hasYAMLName(path) {
		return Kind{}, false
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Kind{}, false
	}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(raw)).Decode(&doc); err != nil || len(doc.Content) == 0 {
		return Kind{}, false
	}
	keys := Keys{}
	if root := doc.Content[0]; root.Kind == yaml.MappingNode {
		for i := 0; i < len(root.Content); i += 2 {
			keys[root.Content[i].Value] = struct{}{}
		}
	}
	for _, kind := range kinds {
		if kind.Recognise(keys) {
			return kind, true
		}
	}
	return Kind{}, false
}
