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
			Description("Ids that do not identify a customer, such as those of test accounts. They are added to the usual placeholders (`null`, `undefined`, `[object Object]`, `guest` and similar words, zeros, blanks). Upper and lower case are equal, and brackets or quotes around a placeholder are ignored, as in `(null)`, `<nil>` and `\"undefined\"`. An event without another id is rejected.").
			Default([]any{}).
			Example([]any{"shop-kiosk", "demo"}),
		service.NewBoolField(fieldIgnoreAddresses).
			Description("Whether e-mail addresses used as ids are ignored like placeholders. Disable it if addresses are your customer ids.").
			Default(true),
		service.NewIntField(fieldMaxMerged).
			Description("Maximum number of anonymous ids that are merged into one customer; 0 means no limit. The event of a further id counts for that anonymous id alone. Known customers that alias events name do not use it up, whether they are merged (`merge_known`) or not; the anonymous ids that were merged into such a customer before do.").
			Default(200).
			Advanced(),
		service.NewIntField(fieldMaxShared).
			Description("Maximum number of customers, besides its owner, that an anonymous id may be seen with. An id that reaches this number, such as that of a shared device in a shop, no longer identifies a customer: events without another id are rejected. 0 means no limit.").
			Default(20).
			Advanced(),
		service.NewBoolField(fieldMergeKnown).
			Description("Whether an alias event may merge one known customer into another, if its `previousId` is a userId. Enable it only if every source of events is trusted: with it, any source can merge any two customers.").
			Default(false).
			Advanced(),
	).Description("Identity resolution: which ids identify a customer, and limits for merging anonymous profiles into known ones. An anonymous id belongs to the first customer that it is identified with: by an identify event with both ids, or by an alias event with it as `previousId`. A later event with another customer only counts for `max_shared`. If the `previousId` of an alias is the userId of a known customer, that customer is merged with `merge_known` and nothing is merged without it. A merged customer's later events count for the customer it was merged into.")
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
