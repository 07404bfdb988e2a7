package profiledefinition

import (
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
)

func init() {
	// A config is linted together with the definition that it names. Lint rules
	// are compiled with the spec, so the function must be registered first.
	err := bloblang.RegisterFunctionV2("lint_profile_definition",
		bloblang.NewPluginSpec().
			Description("Returns the mistakes in a profile definition file, as an array of strings. It is empty for a correct file.").
			Param(bloblang.NewStringParam("path").Description("Path of the file.")),
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
