package profiledefinition

import (
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

const (
	fieldTraits       = "traits"
	fieldMaxTraits    = "max_traits"
	fieldMaxNameSize  = "max_name_bytes"
	fieldMaxValueSize = "max_value_bytes"
)

// traitsField describes the part of a definition that limits traits.
func traitsField() *service.ConfigField {
	limit := func(name, description string, value int) *service.ConfigField {
		return service.NewIntField(name).
			Description(description).
			Default(value).
			LintRule(`root = if this < 1 { [ "` + name + ` must be 1 or more" ] }`)
	}
	return service.NewObjectField(fieldTraits,
		limit(fieldMaxTraits, "Maximum number of traits of a customer, including removed ones. An event that would exceed it is rejected.", 500),
		limit(fieldMaxNameSize, "Maximum length of the name of a trait, in bytes.", 128),
		limit(fieldMaxValueSize, "Maximum size of the value of a trait, in bytes; of arrays and objects, that of their JSON.", 16<<10),
	).Description("Limits on traits, so that no source of events can make profiles arbitrarily large. An event with a trait above a limit is marked as failed, for the dead letters.").Advanced()
}

func parseTraits(conf *service.ParsedConfig) (limits record.TraitLimits, err error) {
	for _, f := range []struct {
		name string
		into *int
	}{{fieldMaxTraits, &limits.Count}, {fieldMaxNameSize, &limits.NameSize}, {fieldMaxValueSize, &limits.ValueSize}} {
		if *f.into, err = conf.FieldInt(f.name); err != nil {
			return limits, err
		}
	}
	return limits, nil
}
