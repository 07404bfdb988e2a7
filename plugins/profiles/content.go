package profiles

import (
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// ContentNames tells content blocks what the profiles of a definition file
// have, nothing if the path is empty.
func ContentNames(path string) (content.Names, error) {
	if path == "" {
		return content.Names{}, nil
	}
	def, err := ReadDefinition(path)
	if err != nil {
		return content.Names{}, fmt.Errorf("%s cannot be read, or is not correct; lint it by itself", path)
	}
	return NamesOf(def.Definition), nil
}

// NamesOf tells content blocks what the profiles of a definition have.
func NamesOf(def *record.Definition) content.Names {
	names := content.Names{Features: []string{}}
	for i := range def.Features.Features {
		names.Features = append(names.Features, def.Features.Features[i].Name)
	}
	if def.Segments != nil {
		names.Segments = def.Segments.Names()
	}
	return names
}

func init() {
	// The blocks are linted with the config that names their folder.
	err := bloblang.RegisterFunctionV2("lint_content_blocks",
		bloblang.NewPluginSpec().
			Description("Returns what is wrong with the content blocks of a folder, an array of strings that is empty for correct ones, and for an empty path.").
			Param(bloblang.NewStringParam("path").Description("The path of the folder.")),
		func(args *bloblang.ParsedParams) (bloblang.Function, error) {
			path, err := args.GetString("path")
			if err != nil {
				return nil, err
			}
			return func() (any, error) { return lintBlocks(path), nil }, nil
		})
	if err != nil {
		panic(err)
	}
}

func lintBlocks(path string) []any {
	out := []any{}
	if path == "" {
		return out
	}
	problems, err := content.Lint(path, ContentNames)
	if err != nil {
		return append(out, fmt.Sprintf("%v; write the path of a folder of content blocks, relative to the folder the command runs in", err))
	}
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}
