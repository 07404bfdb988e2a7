// Command connect-personalize runs, lints and tests personalization pipelines:
// Redpanda Connect with the plugins of this project.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"

	// Only components that shipped configs use, under the Apache-2.0 license or a more
	// permissive one: licence_test.go reads the header of every file.
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	_ "github.com/redpanda-data/connect/v4/public/components/prometheus"

	_ "github.com/connect-personalize/connect-personalize/plugins/all"
	"github.com/connect-personalize/connect-personalize/plugins/command/deleteprofiles"
	"github.com/connect-personalize/connect-personalize/plugins/command/lint"
	"github.com/connect-personalize/connect-personalize/plugins/command/plandiff"
	"github.com/connect-personalize/connect-personalize/plugins/command/restrict"
	"github.com/connect-personalize/connect-personalize/plugins/command/signurl"
	"github.com/connect-personalize/connect-personalize/plugins/command/suggestsuite"
	"github.com/connect-personalize/connect-personalize/plugins/command/whatif"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

const (
	name    = "connect-personalize"
	summary = "turns raw customer events into live profiles for email personalization"
	docsURL = "https://github.com/connect-personalize/connect-personalize/tree/main/docs"
	// engineDocsURL has the pages to which the engine's help texts refer (unit
	// testing, streams mode).
	engineDocsURL = "https://docs.redpanda.com/redpanda-connect"
)

// configPaths are tried in this order if no config is given.
var configPaths = []string{
	"connect-personalize.yaml",
	"/connect-personalize.yaml",
	"/etc/connect-personalize/config.yaml",
	"/etc/connect-personalize.yaml",
}

func main() {
	if len(os.Args) == 2 && (os.Args[1] == "--version" || os.Args[1] == "-v") {
		fmt.Print(versionText())
		return
	}
	tuneMemory()
	restrict.Umask()
	cli.AppHelpTemplate = helpTemplate
	code, err := service.RunCLIToCode(context.Background(), append(options(),
		service.CLIOptAddCommand(lint.Command(name, stockLint, lint.Kinds()...)),
		service.CLIOptAddCommand(plandiff.Command(name)),
		service.CLIOptAddCommand(deleteprofiles.Command(name)),
		service.CLIOptAddCommand(suggestsuite.Command(name)),
		service.CLIOptAddCommand(signurl.Command(name)),
		service.CLIOptAddCommand(whatif.Command(name)))...)
	profiles.CloseProvided()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// tuneMemory sets GOGC to 300 unless GOGC or GOMEMLIMIT is set. A pipeline creates many
// small, short-lived objects on a heap of some tens of megabytes; with Go's default of
// 100 the garbage collector takes a large share of the CPU.
func tuneMemory() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(300)
	}
}

func options() []service.CLIOptFunc {
	version, date := buildVersion()
	env, err := restrict.Environment(service.GlobalEnvironment(), os.Args)
	if err != nil {
		panic(err)
	}
	var guard restrict.Guard
	return []service.CLIOptFunc{
		service.CLIOptSetBinaryName(name),
		service.CLIOptSetProductName(name),
		service.CLIOptSetVersion(version, date),
		service.CLIOptSetDocumentationURL(engineDocsURL),
		service.CLIOptSetDefaultConfigPaths(configPaths...),
		service.CLIOptSetEnvironment(env),
		// The default schema lacks custom resource types such as `profiles`.
		service.CLIOptSetMainSchemaFrom(func() *service.ConfigSchema {
			schema := env.FullConfigSchema(version, date)
			schema.SetFieldDefault(map[string]any{"@service": name}, "logger", "static_fields")
			schema.SetFieldDefault(restrict.Address, "http", "address")
			return schema
		}),
		service.CLIOptCustomRunFlags(restrict.Flags(), func(c *cli.Context) error {
			if c.Command.Name == "test" {
				profiles.UseMemory()
			}
			return guard.Prepare(c)
		}),
		service.CLIOptOnConfigParse(func(conf *service.ParsedConfig) error {
			if err := guard.Check(conf); err != nil {
				return err
			}
			// Streams mode parses the custom resources of its root config but does not
			// create them.
			return profiles.Provide(conf)
		}),
	}
}

// stockLint runs the engine's own lint command, which lint.Command replaces, and
// returns its exit code.
func stockLint(ctx context.Context, args []string) (int, error) {
	args = append([]string{name, "lint"}, args...)
	return service.RunCLIToCode(ctx, append(options(), service.CLIOptSetArgs(args...))...)
}
