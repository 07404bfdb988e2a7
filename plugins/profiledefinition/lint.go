package profiledefinition

import (
	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
)

func init() {
	configspec.RegisterLintFunction("lint_profile_definition", "a profile definition",
		bloblang.NewPluginSpec().
			Description("Returns the mistakes in a profile definition file, as an array of strings. It is empty for a correct file.").
			Param(bloblang.NewStringParam("path").Description("Path of the file.")), Lint)
}
