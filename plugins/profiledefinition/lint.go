package profiledefinition

import (
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
)

func init() {
	// A file named by a field is linted with the config that names it. Lint
	// rules are compiled with the spec, so the function comes first.
	err := bloblang.RegisterFunctionV2("lint_profile_definition",
		bloblang.NewPluginSpec().
			Description("Returns what is wrong with a profile definition file, an array of strings that is empty for a correct file.").
			Param(bloblang.NewStringParam("path").Description("The path of the file.")),
		func(args *bloblang.ParsedParams) (bloblang.Function, error) {
			path, err := args.GetString("path")
			if err != nil {
				return nil, err
			}
			return func() (any, error) { return lintForConfig(path), nil }, nil
		})
	if err != nil {
		panic(err)
	}
}

func lintForConfig(path string) []any {
	lints, err := Lint(path)
	if err != nil {
		return []any{fmt.Sprintf("%v; write the path of a profile definition, relative to the folder the command runs in", err)}
	}
	out := []any{}
	for _, l := range lints {
		out = append(out, l.String())
	}
	return out
}
