package trackingplan

import "github.com/connect-personalize/connect-personalize/plugins/engine/finding"

// Lint reads the plan at path and the schema files it refers to, and returns their
// mistakes in the order of lines. A plan without findings, or with advice only, loads.
func Lint(path string) []finding.Finding {
	_, _, lints := load(path)
	return lints
}
