package lint

import (
	"github.com/connect-personalize/connect-personalize/plugins/contentblocks"
	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
	"github.com/connect-personalize/connect-personalize/plugins/expectationsuite"
	"github.com/connect-personalize/connect-personalize/plugins/profileapi"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
)

// Kinds lists the kinds of YAML files, other than pipelines, that a folder of
// configs contains.
func Kinds() []Kind {
	return []Kind{
		{Name: "profile definition", Keys: []string{"features"}, Lint: profiledefinition.Lint},
		{Name: "tracking plan", Keys: []string{"events"}, Lint: func(path string) ([]finding.Finding, error) { return trackingplan.Lint(path), nil }},
		{Name: "model parameter", Keys: []string{"model"}, Lint: models.Lint},
		{Name: "expectation suite", Keys: []string{"expectations"}, Lint: expectationsuite.Lint},
		{Name: "token", Keys: []string{"tokens", "signing_keys"}, Lint: profileapi.LintCredentials},
		{Name: "content block", Keys: []string{"template"}, Lint: func(path string) ([]finding.Finding, error) {
			_, findings, err := content.Load(path, contentblocks.ContentNames)
			return findings, err
		}},
		{Name: "JSON Schema", Keys: []string{"$schema", "$id"}, Lint: lintJSONSchema},
	}
}
