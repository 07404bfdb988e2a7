package configspec

import (
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// RegisterLintFunction registers the Bloblang function name(path), which a field's lint
// rule calls so that a file is linted together with the config that names it. kind names
// the kind of file in messages, such as "an expectation suite". Findings that are advice
// are left out, because a lint of a config stops it.
//
// Lint rules are compiled when a spec is built, so it must be called before that.
func RegisterLintFunction(name, kind string, spec *bloblang.PluginSpec, lint func(path string) ([]finding.Finding, error)) {
	err := bloblang.RegisterFunctionV2(name, spec, func(args *bloblang.ParsedParams) (bloblang.Function, error) {
		path, err := args.GetString("path")
		if err != nil {
			return nil, err
		}
		return func() (any, error) {
			messages := []any{}
			findings, err := lint(path)
			if err != nil {
				return append(messages, fmt.Sprintf("%v; write the path of %s, relative to the folder the command runs in", err, kind)), nil
			}
			for _, f := range findings {
				if !f.Advice {
					messages = append(messages, f.String())
				}
			}
			return messages, nil
		}, nil
	})
	if err != nil {
		panic(err)
	}
}
