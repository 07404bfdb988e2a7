package main

import (
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/command/lint"
	"github.com/connect-personalize/connect-personalize/plugins/contentblocks"
	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
	"github.com/connect-personalize/connect-personalize/plugins/expectationsuite"
	"github.com/connect-personalize/connect-personalize/plugins/profileapi"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// fileKinds lists the YAML files, other than pipelines, that a folder of
// configs holds.
func fileKinds() []lint.Kind {
	return []lint.Kind{
		{
			Name:      "profile definition",
			Recognise: func(keys lint.Keys) bool { return keys.Any("features") },
			Lint:      lintDefinition,
		},
		{
			Name:      "tracking plan",
			Recognise: func(keys lint.Keys) bool { return keys.Any("events") },
			Lint:      lintPlan,
		},
		{
			Name:      "model parameter",
			Recognise: func(keys lint.Keys) bool { return keys.Any("model") },
			Lint:      lintModel,
		},
		{
			Name:      "expectation suite",
			Recognise: func(keys lint.Keys) bool { return keys.Any("expectations") },
			Lint:      lintSuite,
		},
		{
			Name:      "token",
			Recognise: func(keys lint.Keys) bool { return keys.Any("tokens", "signing_keys") },
			Lint:      lintCredentials,
		},
		{
			Name:      "content block",
			Recognise: func(keys lint.Keys) bool { return keys.Any("template") },
			Lint:      lintBlock,
		},
		lint.JSONSchema(),
	}
}

func lintDefinition(path string) ([]lint.Lint, error) {
	found, err := profiledefinition.Lint(path)
	return at(path, found), err
}

func lintSuite(path string) ([]lint.Lint, error) {
	found, err := expectationsuite.Lint(path)
	return at(path, found), err
}

// at says which file lints are of.
func at(path string, found []service.Lint) []lint.Lint {
	lints := make([]lint.Lint, len(found))
	for i, l := range found {
		lints[i] = lint.Lint{Path: path, Lint: l}
	}
	return lints
}

func lintCredentials(path string) ([]lint.Lint, error) {
	found, err := profileapi.LintCredentials(path)
	lints := make([]lint.Lint, len(found))
	for i, l := range found {
		lints[i] = lint.Lint{Path: path, Lint: l}
	}
	return lints, err
}

func lintPlan(path string) ([]lint.Lint, error) {
	var lints []lint.Lint
	for _, l := range trackingplan.LintFile(path) {
		lints = append(lints, lint.Lint{
			Path: l.File,
			Lint: service.Lint{Line: l.Line, Column: 1, Type: service.LintCustom, What: l.Message},
		})
	}
	return lints, nil
}

func lintModel(path string) ([]lint.Lint, error) {
	problems, err := models.Lint(path)
	lints := make([]lint.Lint, len(problems))
	for i, p := range problems {
		lints[i] = lint.Lint{
			Path: p.File,
			Lint: service.Lint{Line: p.Line, Column: 1, Type: service.LintCustom, What: p.Message},
		}
	}
	return lints, err
}

func lintBlock(path string) ([]lint.Lint, error) {
	_, problems, err := content.Load(path, contentblocks.ContentNames)
	lints := make([]lint.Lint, len(problems))
	for i, p := range problems {
		lints[i] = lint.Lint{
			Path: p.File,
			Lint: service.Lint{Line: p.Line, Column: 1, Type: service.LintCustom, What: p.Message},
		}
	}
	return lints, err
}

// prepare is called once the flags of a command are parsed, before it acts.
func prepare(c *cli.Context) error {
	if c.Command.Name == "test" {
		profiles.UseMemory()
	}
	return nil
}
