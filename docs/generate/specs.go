package main

import (
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/expectationsuite"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// otherSpec is a spec that is not a component's.
type otherSpec struct {
	kind, name string
	spec       *service.ConfigSpec
}

// otherSpecs lists the custom resources, and the files that configs refer to.
func otherSpecs() []otherSpec {
	return []otherSpec{
		{"resource", profiles.ResourceType, profiles.Spec()},
		{"file", "profile_definition", service.NewConfigSpec().
			Stable().
			Version("0.1.0").
			Summary("The file that says what a profile is made of. The `profiles` resource names it.").
			Fields(profiledefinition.Fields()...)},
		{"file", "expectation_suite", service.NewConfigSpec().
			Stable().
			Version("0.1.0").
			Summary("The file that says what is expected of a stream's data. The `expect` processor names it, and `connect-personalize suggest-suite` writes one from data.").
			Fields(expectationsuite.Fields()...)},
	}
}
