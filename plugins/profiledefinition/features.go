package profiledefinition

import (
	"fmt"
	"slices"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

const (
	fieldFeatures = "features"
	fieldName     = "name"
	fieldEvents   = "events"
	fieldWhere    = "where"
	fieldOf       = "of"
	fieldBy       = "by"
	fieldWindow   = "window"
	fieldUnit     = "unit"
	fieldLimit    = "limit"
	fieldK        = "k"
	fieldHalfLife = "half_life"
	fieldWeights  = "weights"
	fieldTimes    = "times"
	fieldSubtract = "subtract"
	fieldCurrency = "currency"
	fieldRates    = "rates"
)

// featuresField describes the part of a definition that is about features.
func featuresField() *service.ConfigField {
	return service.NewObjectListField(fieldFeatures,
		append([]*service.ConfigField{
			service.NewStringField(fieldName).
				Description("Name of the feature in a profile: letters, digits and underscores, beginning with a letter.").
				Example("orders_30d").
				LintRule(`root = if !this.re_match("^[A-Za-z][A-Za-z0-9_]*$") { [ "name must be letters, digits and underscores and begin with a letter, such as orders_30d" ] }`),
		}, slices.Concat(kindFields(), derivedFields(), modelFields())...)...,
	).Description("The features of a profile. Each has a name and exactly one kind.").
		Example([]any{
			map[string]any{"name": "orders_30d", "count": map[string]any{"events": []any{"Order Completed"}, "window": "30d"}},
			map[string]any{"name": "revenue", "sum": map[string]any{"events": []any{"Order Completed"}, "of": "properties.total"}},
		})
}

var units = map[string]time.Duration{
	"seconds": time.Second, "minutes": time.Minute, "hours": time.Hour, "days": 24 * time.Hour,
}

func eventsField() *service.ConfigField {
	return service.NewStringListField(fieldEvents).
		Description("Events that count: names of track events, or `page`, `screen`, `identify`, `group`, `alias`. Empty means all events.").
		Default([]any{}).
		Example([]any{"Order Completed"})
}

func whereField() *service.ConfigField {
	return service.NewBloblangField(fieldWhere).
		Description("Bloblang query over the event; only events for which it returns true count. An event for which it fails, for example because a property is missing, does not count.").
		Default("").
		Example(`this.properties.currency == "EUR"`).
		Example(`this.properties.total.number(0) > 100`).
		LintRule(configspec.LintCondition)
}

func ofField(purpose string) *service.ConfigField {
	return service.NewStringField(fieldOf).
		Description("Path of the value " + purpose + ": keys joined by dots. A key that ends in `[]` is an array, and each of its elements counts. A text or object of more than 1,024 bytes counts as missing.").
		Example("properties.total").
		Example("properties.products[].category")
}

func byField() *service.ConfigField {
	return service.NewStringField(fieldBy).
		Description("Path of a value to group by: the feature becomes an object with one key for each value. Events without the value are ignored.").
		Default("").
		Example("properties.category")
}

// subtractField describes events that reduce an amount.
func subtractField() *service.ConfigField {
	return service.NewStringListField(fieldSubtract).
		Description("Events with a value that is subtracted, such as refunds and cancellations; they need not be among `events`. The value is at `of`, and its sign does not matter. An event without the value subtracts nothing.").
		Default([]any{}).
		Example([]any{"Order Refunded", "Order Cancelled"})
}

// amountFields describe how an amount is derived from a number.
func amountFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewStringField(fieldTimes).
			Description("Path of a number that multiplies the value, such as the quantity of a product. A missing number counts as 1.").
			Default("").
			Example("properties.products[].quantity"),
		currencyField(),
	}
}

func currencyField() *service.ConfigField {
	return service.NewObjectField(fieldCurrency,
		service.NewStringField(fieldOf).
			Description("Path of the currency code. Without a code the amount is in the currency `to`.").
			Default("properties.currency"),
		service.NewStringField(fieldTo).
			Description("Code of the target currency.").
			Example("EUR"),
		service.NewFloatMapField(fieldRates).
			Description("Value of one unit of each other currency in `to`. The rates apply when an event is stored: after a change, rebuild profiles from the topic to convert old events anew. An amount in a currency without a rate does not count, and is counted by the metric `profiles_where_failures`.").
			Default(map[string]any{}).
			Example(map[string]any{"GBP": 1.15, "USD": 0.9}),
	).Description("Converts amounts to one currency. Without it amounts of different currencies are added as they are; to keep currencies apart instead, set `by: properties.currency`.").
		Optional().
		Example(map[string]any{"to": "EUR", "rates": map[string]any{"USD": 0.9}})
}

func limitField() *service.ConfigField {
	return service.NewIntField(fieldLimit).
		Description("Maximum number of groups in the result, with `by`. Groups with the most events are kept.").
		Default(features.DefaultLimit).
		LintRule(`root = if this < 1 || this > 1000 { [ "limit must be between 1 and 1000" ] }`).
		Advanced()
}

func windowField() *service.ConfigField {
	return service.NewStringField(fieldWindow).
		Description("Sliding window before the time of the read, such as `30d`; units are s, m, h, d and w. Empty means all time.").
		Default("").
		Example("30d").
		LintRule(DurationRule("window"))
}

// kindFields returns one field for each kind of feature that is computed from
// events.
func kindFields() []*service.ConfigField {
	field := func(kind features.Kind, description string, fields ...*service.ConfigField) *service.ConfigField {
		all := append([]*service.ConfigField{eventsField(), whereField(), windowField()}, fields...)
		return service.NewObjectField(string(kind), all...).Description(description).Optional()
	}
	const ofNumber = "to use; events for which it is not a number are ignored"
	split := func(fields ...*service.ConfigField) []*service.ConfigField {
		return append(fields, byField(), limitField())
	}
	ofAmount := func() []*service.ConfigField {
		return split(append([]*service.ConfigField{ofField(ofNumber)}, amountFields()...)...)
	}
	ofValue := func(purpose string) *service.ConfigField {
		return ofField(purpose + "; `timestamp` is the time of the event")
	}
	unit := func() *service.ConfigField {
		return service.NewStringEnumField(fieldUnit, "seconds", "minutes", "hours", "days").
			Description("Unit of the result, which may have a fraction.").
			Default("seconds")
	}
	k := func() *service.ConfigField {
		return service.NewIntField(fieldK).
			Description("Maximum number of values in the result, up to 100.").
			Default(features.DefaultK)
	}
	return []*service.ConfigField{
		field(features.Count, "Number of events.", split()...),
		field(features.Sum, "Sum of a number, 0 without any. Decimals of up to six places are added exactly. As for every feature, a result beyond the range of a 64-bit float is null; the metric `profiles_feature_overflows` counts these when profiles are read.", append(ofAmount(), subtractField())...),
		field(features.Avg, "Mean of a number, null without any.", ofAmount()...),
		field(features.Min, "Smallest number, null without any.", ofAmount()...),
		field(features.Max, "Largest number, null without any.", ofAmount()...),
		field(features.Stddev, "Population standard deviation of a number, null without any.", ofAmount()...),
		field(features.First, "Value of the earliest event that has one, null without any.", split(ofValue("to return"))...),
		field(features.Last, "Value of the latest event that has one, null without any.", split(ofValue("to return"))...),
		field(features.LastK, "Values of the latest events that have one, the latest first.", ofValue("to return"), k()),
		field(features.DistinctCount, "Number of distinct values: exact while all events of a customer are kept, otherwise estimated by HyperLogLog.", split(ofField("to count"))...),
		field(features.TopK, "Most frequent values, as text, with the number of occurrences of each.", ofField("to count"), k()),
		field(features.UniqueValues, "Distinct values, as text, the most recent first.", ofField("to list"), k()),
		field(features.DaysActive, "Number of days (UTC) with events."),
		field(features.TimeSinceFirst, "Time since the earliest event at the time of the read, null without events.", split(unit())...),
		field(features.TimeSinceLast, "Time since the latest event at the time of the read, null without events.", split(unit())...),
		field(features.IntervalMean, "Mean time from one event to the next, null with fewer than two events. With `by` through an array, an event with several elements of a group counts once.", split(unit())...),
		field(features.IntervalStddev, "Population standard deviation of the time from one event to the next, null with fewer than two events. With `by` through an array, an event with several elements of a group counts once. For customers with more events than `events.keep`, an event that arrives after later ones were summarised does not split the interval that contains it.", split(unit())...),
		field(features.DecayedSum, "Score of recent activity: a sum with exponential decay, in which each value halves every `half_life` of its age at the time of the read.",
			service.NewStringField(fieldHalfLife).
				Description("Time in which a value halves, such as `7d`.").
				Example("7d").
				LintRule(DurationRule("half_life")),
			service.NewFloatMapField(fieldWeights).
				Description("Value of an event by its name. An event that is not listed has the value 1.").
				Default(map[string]any{}).
				Example(map[string]any{"page": 1, "Product Added": 5, "Order Completed": 20}),
			service.NewStringField(fieldOf).
				Description("Path of a number to use as the value, instead of `weights`.").
				Default("").
				Example("properties.total")),
		field(features.HourHistogram, "Number of events in each hour of the week: an array of 168 numbers, beginning with Monday 00:00. The time zone is the customer's trait `timezone` (such as `Europe/Berlin`), or UTC without it."),
		field(features.BestSendHour, "Hour of the week with the most events, in the customer's time zone: an object with `weekday` (1 is Monday) and `hour` (0 to 23). With several such hours it is the earliest; without events it is null."),
	}
}

// kindNames are the kinds of feature that a definition can contain.
var kindNames = append(features.Kinds(), features.Ratio, features.RFM, features.Expression, kindBGNBD, kindGammaGamma, kindCLV, features.Propensity)

func parseFeature(item *service.ParsedConfig, written *yaml.Node, files *[]definition.ParameterFile) (spec features.Spec, err error) {
	if spec.Name, err = item.FieldString(fieldName); err != nil {
		return spec, err
	}
	// A parsed config contains every kind that has only fields with defaults. Only the
	// YAML shows which kind is in the file.
	for i := 0; i+1 < len(written.Content); i += 2 {
		kind := features.Kind(written.Content[i].Value)
		if !slices.Contains(kindNames, kind) {
			continue
		}
		if spec.Kind != "" {
			return spec, fmt.Errorf("it has two kinds, %s and %s; write two features", spec.Kind, kind)
		}
		spec.Kind = kind
	}
	if spec.Kind == "" {
		return spec, fmt.Errorf("it needs a kind, one of %v", kindNames)
	}
	switch spec.Kind {
	case kindBGNBD, kindGammaGamma, kindCLV, features.Propensity:
		return spec, parseModel(&spec, item, files)
	case features.Ratio, features.RFM, features.Expression:
		return spec, parseDerived(&spec, item)
	}
	conf := item.Namespace(string(spec.Kind))
	if err := parseEvents(&spec, conf); err != nil {
		return spec, err
	}
	window, err := conf.FieldString(fieldWindow)
	if err != nil {
		return spec, err
	}
	if spec.Window, err = ParseDuration(window); err != nil {
		return spec, fmt.Errorf("window: %w", err)
	}
	if conf.Contains(fieldUnit) {
		unit, err := conf.FieldString(fieldUnit)
		if err != nil {
			return spec, err
		}
		spec.Unit = units[unit]
	}
	if conf.Contains(fieldHalfLife) {
		text, err := conf.FieldString(fieldHalfLife)
		if err != nil {
			return spec, err
		}
		if spec.HalfLife, err = ParseDuration(text); err != nil {
			return spec, fmt.Errorf("half_life: %w", err)
		}
		if spec.Weights, err = conf.FieldFloatMap(fieldWeights); err != nil {
			return spec, err
		}
	}
	if conf.Contains(fieldK) {
		if spec.K, err = conf.FieldInt(fieldK); err != nil {
			return spec, err
		}
	}
	if conf.Contains(fieldLimit) {
		if spec.Limit, err = conf.FieldInt(fieldLimit); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

// parseEvents parses which events a feature is computed from, and which value of
// them.
func parseEvents(spec *features.Spec, conf *service.ParsedConfig) (err error) {
	if spec.Events, err = conf.FieldStringList(fieldEvents); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		into *string
	}{{fieldWhere, &spec.Where}, {fieldOf, &spec.ValuePath}, {fieldBy, &spec.GroupPath}} {
		if conf.Contains(f.name) {
			if *f.into, err = conf.FieldString(f.name); err != nil {
				return err
			}
		}
	}
	return parseAmount(&spec.Amount, conf)
}

// parseAmount parses the fields that amountFields and subtractField describe.
func parseAmount(a *features.Amount, conf *service.ParsedConfig) (err error) {
	if conf.Contains(fieldTimes) {
		if a.FactorPath, err = conf.FieldString(fieldTimes); err != nil {
			return err
		}
	}
	if conf.Contains(fieldSubtract) {
		if a.Subtract, err = conf.FieldStringList(fieldSubtract); err != nil {
			return err
		}
	}
	if !conf.Contains(fieldCurrency) {
		return nil
	}
	c := &features.Currency{}
	currency := conf.Namespace(fieldCurrency)
	if c.Path, err = currency.FieldString(fieldOf); err != nil {
		return err
	}
	if c.To, err = currency.FieldString(fieldTo); err != nil {
		return err
	}
	if c.Rates, err = currency.FieldFloatMap(fieldRates); err != nil {
		return err
	}
	a.Currency = c
	return nil
}

// compileWhere compiles a Bloblang query to a predicate.
func compileWhere(text string) (features.Predicate, error) {
	query, err := bloblang.GlobalEnvironment().Parse(text)
	if err != nil {
		return nil, err
	}
	return func(e *event.Event) (bool, error) {
		result, err := query.Query(e.Structured())
		if err != nil {
			return false, err
		}
		holds, ok := result.(bool)
		if !ok {
			return false, fmt.Errorf("where returned %T, not a boolean", result)
		}
		return holds, nil
	}, nil
}
