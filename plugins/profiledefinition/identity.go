package profiledefinition

import (
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

const (
	fieldIdentity        = "identity"
	fieldIgnore          = "ignore"
	fieldIgnoreAddresses = "ignore_addresses"
	fieldMaxMerged       = "max_merged"
	fieldMaxShared       = "max_shared"
	fieldMergeKnown      = "merge_known"
)

// identityField describes the part of a definition that is about ids and merges.
func identityField() *service.ConfigField {
	return service.NewObjectField(fieldIdentity,
		service.NewStringListField(fieldIgnore).
			Description("Ids that stand for no customer, besides what programs write where they have none (`null`, `undefined`, `[object Object]`, `guest` and the like, zeros, blanks). Upper and lower case are the same. An event with no other id is refused.").
			Default([]any{}).
			Example([]any{"shop-kiosk", "demo"}),
		service.NewBoolField(fieldIgnoreAddresses).
			Description("Whether an e-mail address in place of an id stands for no customer. Turn it off if addresses are your ids.").
			Default(true),
		service.NewIntField(fieldMaxMerged).
			Description("How many anonymous ids may be merged into one customer; 0 for no limit.").
			Default(200).
			Advanced(),
		service.NewIntField(fieldMaxShared).
			Description("With how many customers besides its own an anonymous id may be identified. An id that reaches this, such as that of a device in a shop, identifies nobody: events with no other id are refused. 0 for no limit.").
			Default(20).
			Advanced(),
		service.NewBoolField(fieldMergeKnown).
			Description("Whether an alias event may merge a known customer, whose userId is its `previousId`, into another. Whoever can send events can then merge any two customers.").
			Default(false).
			Advanced(),
	).Description("Which ids make customers, and how far anonymous ones are merged into known ones. The first customer an anonymous id is identified as keeps it.")
}

func parseIdentity(conf *service.ParsedConfig, ids *record.Identity) (err error) {
	ignore, err := conf.FieldStringList(fieldIgnore)
	if err != nil {
		return err
	}
	ids.Ignored = map[string]bool{}
	for _, id := range append(ignore, record.DefaultIgnored...) {
		ids.Ignored[strings.ToLower(strings.TrimSpace(id))] = true
	}
	if ids.IgnoreAddresses, err = conf.FieldBool(fieldIgnoreAddresses); err != nil {
		return err
	}
	if ids.MaxMerged, err = conf.FieldInt(fieldMaxMerged); err != nil {
		return err
	}
	if ids.MaxShared, err = conf.FieldInt(fieldMaxShared); err != nil {
		return err
	}
	ids.MergeKnown, err = conf.FieldBool(fieldMergeKnown)
	return err
}
