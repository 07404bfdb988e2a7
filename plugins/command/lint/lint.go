// Package lint implements the lint command of the distribution. The engine's linter
// checks pipelines. The files that pipelines refer to (profile definitions, tracking
// plans, JSON Schemas, ...) are recognised by their top-level keys and checked by the
// linter of their kind. A last step checks that the files of a pipeline agree.
package lint

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fatih/color"
	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// Kind is a kind of YAML file other than a pipeline.
type Kind struct {
	// Name names the kind in messages.
	Name string
	// Keys identify the kind: a file is of this kind if it has one of these keys at
	// the top level.
	Keys []string
	// Lint returns the mistakes in the file and in the files it refers to. The error
	// is for a file that cannot be read.
	Lint func(path string) ([]finding.Finding, error)
}

// StockLint runs the engine's own lint command with flags and targets and returns its
// exit code.
type StockLint func(ctx context.Context, args []string) (exitCode int, err error)

// The flags are those of the engine's lint command; TestFlags compares them.
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

// Command returns the lint command of the program named binary. stock lints the files
// that are of none of the kinds: the pipelines.
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

	red, green := color.New(color.FgRed), color.New(color.FgGreen)
	type ownTarget struct {
		path string
		kind Kind
	}
	var own []ownTarget
	var pipelines []string
	var broken []finding.Finding // files that are not YAML
	for _, target := range targets {
		if hasYAMLName(target) {
			if findings := unparsable(target); len(findings) > 0 {
				broken = append(broken, findings...)
				if c.Bool(flagVerbose) {
					fmt.Fprintf(stdout, "%v: %v\n", target, red.Sprint("FAILED"))
				}
				continue
			}
		}
		if kind, found := kindOf(target, kinds); found {
			own = append(own, ownTarget{target, kind})
		} else {
			args = append(args, escapeGlob(target))
			pipelines = append(pipelines, target)
		}
	}

	// The engine's linter runs first, even without a pipeline: it loads the files of
	// --env-file into the environment, which other files may refer to.
	code, err := stock(c.Context, args)
	if err != nil {
		return false, err
	}
	ok = report(stderr, broken) && code == 0
	if code != 0 {
		for _, path := range pipelines {
			report(stderr, advice(path))
		}
	}

	for _, target := range own {
		findings, err := target.kind.Lint(target.path)
		if err != nil {
			findings = append(findings, finding.Finding{File: target.path, Line: 1, Message: err.Error()})
		}
		if c.Bool(flagVerbose) {
			result := green.Sprint("OK")
			if len(findings) > 0 {
				result = red.Sprint("FAILED")
			}
			fmt.Fprintf(stdout, "%v: %v\n", target.path, result)
		}
		ok = report(stderr, findings) && ok
	}
	for _, path := range pipelines {
		ok = report(stderr, references(path)) && ok
	}
	return report(stderr, agreement(pipelines)) && ok, nil
}

// report prints findings in the form of the engine's linter and reports whether there
// are none.
func report(stderr io.Writer, findings []finding.Finding) bool {
	for _, f := range findings {
		fmt.Fprint(stderr, color.YellowString("%s\n", line(f)))
	}
	return len(findings) == 0
}

func line(f finding.Finding) string {
	return fmt.Sprintf("%s(%d,%d) %s", f.File, f.Line, max(f.Column, 1), f.Message)
}

// kindOf returns the kind of a file by its top-level keys. A file that cannot be read
// or parsed has no kind: the engine's linter reports the cause.
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
	for _, kind := range kinds {
		for _, key := range kind.Keys {
			if child(doc.Content[0], key) != nil {
				return kind, true
			}
		}
	}
	return Kind{}, false
}
