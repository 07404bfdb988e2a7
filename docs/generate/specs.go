package main

import (
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/expectationsuite"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// otherSpec is a spec of something other than a component.
type otherSpec struct {
	kind, name string
	spec       *service.ConfigSpec
}

// otherSpecs returns the custom resources and the files that configs refer to.
func otherSpecs() []otherSpec {
	return []otherSpec{
		{"resource", profiles.ResourceType, profiles.Spec()},
		{"file", "profile_definition", service.NewConfigSpec().
			Stable().
			Version("0.1.0").
			Summary("The file that defines features, segments and triggers. The `profiles` resource refers to it.").
			Fields(profiledefinition.Fields()...)},
		{"file", "expectation_suite", service.NewConfigSpec().
			Stable().
			Version("0.1.0").
			Summary("The file with the data-quality rules for a stream. The `expect` processor refers to it, and `connect-personalize suggest-suite` suggests one from data.").
			Fields(expectationsuite.Fields()...)},
	}
}
