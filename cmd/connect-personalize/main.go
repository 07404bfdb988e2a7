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

	// Only what shipped configs use, and only what is under the Apache-2.0
	// license or a freer one: licence_test.go reads the header of every file.
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	_ "github.com/redpanda-data/connect/v4/public/components/prometheus"

	_ "github.com/connect-personalize/connect-personalize/plugins/all"
	"github.com/connect-personalize/connect-personalize/plugins/command/lint"
	"github.com/connect-personalize/connect-personalize/plugins/command/suggestsuite"
	"github.com/connect-personalize/connect-personalize/plugins/command/whatif"
	"github.com/connect-personalize/connect-personalize/plugins/profileapi"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

const (
	name    = "connect-personalize"
	summary = "turns raw customer events into live profiles for email personalization"
	docsURL = "https://github.com/connect-personalize/connect-personalize/tree/main/docs"
	// engineDocsURL is where the pages that the engine's own help texts name
	// (unit testing, streams mode) really are.
	engineDocsURL = "https://docs.redpanda.com/redpanda-connect"
)

// configPaths are tried in this order when no config is named.
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
	cli.AppHelpTemplate = helpTemplate
	code, err := service.RunCLIToCode(context.Background(), append(options(),
		service.CLIOptAddCommand(lint.Command(name, stockLint, fileKinds()...)), service.CLIOptAddCommand(lint.PlanDiffCommand(name)),
		service.CLIOptAddCommand(suggestsuite.Command(name)),
		service.CLIOptAddCommand(profileapi.SignCommand()),
		service.CLIOptAddCommand(whatif.Command(name)))...)
	profiles.CloseProvided()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// tuneMemory lets garbage grow to three times what is in use before it is
// collected. What a stream leaves behind is many small and short-lived things: at
// Go's own setting collecting them takes a good part of the processor, for a heap
// of some tens of megabytes. Whoever sets GOGC or GOMEMLIMIT knows better.
func tuneMemory() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(300)
	}
}

func options() []service.CLIOptFunc {
	version, date := buildVersion()
	return []service.CLIOptFunc{
		service.CLIOptSetBinaryName(name),
		service.CLIOptSetProductName(name),
		service.CLIOptSetVersion(version, date),
		service.CLIOptSetDocumentationURL(engineDocsURL),
		service.CLIOptSetDefaultConfigPaths(configPaths...),
		// The default schema lacks custom resource types such as `profiles`.
		service.CLIOptSetMainSchemaFrom(func() *service.ConfigSchema {
			schema := service.GlobalEnvironment().FullConfigSchema(version, date)
			schema.SetFieldDefault(map[string]any{"@service": name}, "logger", "static_fields")
			return schema
		}),
		service.CLIOptCustomRunFlags(nil, prepare),
		// Streams mode parses the resources of its root config and leaves them
		// at that.
		service.CLIOptOnConfigParse(profiles.Provide),
	}
}

// stockLint runs the engine's own lint command, the one that
// configlint.Command replaces, and returns its exit code.
func stockLint(ctx context.Context, args []string) (int, error) {
	args = append([]string{name, "lint"}, args...)
	return service.RunCLIToCode(ctx, append(options(), service.CLIOptSetArgs(args...))...)
}
