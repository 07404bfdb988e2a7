package profiledefinition

import (
	"fmt"
	"slices"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

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
)

// featuresField describes the part of a definition that is about features.
func featuresField() *service.ConfigField {
	return service.NewObjectListField(fieldFeatures,
		append([]*service.ConfigField{
			service.NewStringField(fieldName).
				Description("What the feature is called in a profile: letters, digits and underscores, beginning with a letter.").
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

// The fields that kinds of feature share.
func eventsField() *service.ConfigField {
	return service.NewStringListField(fieldEvents).
		Description("The events that count: the name of a track event, or `page`, `screen`, `identify`, `group`, `alias`. Empty means every event.").
		Default([]any{}).
		Example([]any{"Order Completed"})
}

func whereField() *service.ConfigField {
	return service.NewBloblangField(fieldWhere).
		Description("A Bloblang query over the event that tells whether it counts. An event for which it fails to evaluate, such as by comparing a property that is not there, does not count.").
		Default("").
		Example(`this.properties.currency == "EUR"`).
		Example(`this.properties.total.number(0) > 100`)
}

func ofField(what string) *service.ConfigField {
	return service.NewStringField(fieldOf).
		Description("The path of the value " + what + ": keys joined by dots. A key that ends in `[]` is an array, each element of which counts. A text or object of more than 1,024 bytes is as good as missing.").
		Example("properties.total").
		Example("properties.products[].category")
}

func byField() *service.ConfigField {
	return service.NewStringField(fieldBy).
		Description("The path of a value to split by: the feature becomes an object with a key for each value. Events that lack it are left out.").
		Default("").
		Example("properties.category")
}

func limitField() *service.ConfigField {
	return service.NewIntField(fieldLimit).
		Description("With `by`, how many groups the result has: those with the most events.").
		Default(features.DefaultLimit).
		LintRule(`root = if this < 1 || this > 1000 { [ "limit must be between 1 and 1000" ] }`).
		Advanced()
}

func windowField() *service.ConfigField {
	return service.NewStringField(fieldWindow).
		Description("How far back events count at the moment of reading, such as `30d`; units are s, m, h, d and w. Empty means since the beginning.").
		Default("").
		Example("30d").
		LintRule(DurationRule("window"))
}

// kindFields returns the field of each kind of feature of events.
func kindFields() []*service.ConfigField {
	field := func(kind features.Kind, description string, fields ...*service.ConfigField) *service.ConfigField {
		all := append([]*service.ConfigField{eventsField(), whereField(), windowField()}, fields...)
		return service.NewObjectField(string(kind), all...).Description(description).Optional()
	}
	const ofNumber = "to use; events where it is no number are left out"
	split := func(fields ...*service.ConfigField) []*service.ConfigField {
		return append(fields, byField(), limitField())
	}
	ofValue := func(what string) *service.ConfigField {
		return ofField(what + "; `timestamp` gives the time of the event")
	}
	unit := func() *service.ConfigField {
		return service.NewStringEnumField(fieldUnit, "seconds", "minutes", "hours", "days").
			Description("The unit of the result, which may have a fraction.").
			Default("seconds")
	}
	k := func() *service.ConfigField {
		return service.NewIntField(fieldK).
			Description("How many to give at most, up to 100.").
			Default(features.DefaultK)
	}
	return []*service.ConfigField{
		field(features.Count, "How many events there were.", split()...),
		field(features.Sum, "The sum of a number, 0 if there is none. Decimals of up to six places add up exactly.", split(ofField(ofNumber))...),
		field(features.Avg, "The mean of a number, null if there is none.", split(ofField(ofNumber))...),
		field(features.Min, "The smallest number, null if there is none.", split(ofField(ofNumber))...),
		field(features.Max, "The largest number, null if there is none.", split(ofField(ofNumber))...),
		field(features.Stddev, "The standard deviation of a number (of the population: the root of the mean squared deviation), null if there is none.", split(ofField(ofNumber))...),
		field(features.First, "The value at the earliest event that has one, null if none has.", split(ofValue("to give"))...),
		field(features.Last, "The value at the latest event that has one, null if none has.", split(ofValue("to give"))...),
		field(features.LastK, "The values at the latest events that have one, the latest first.", ofValue("to give"), k()),
		field(features.DistinctCount, "How many different values there were: exactly for customers whose events are all kept, by HyperLogLog beyond.", split(ofField("to tell apart"))...),
		field(features.TopK, "The most frequent values, as text, with how often each occurred.", ofField("to count"), k()),
		field(features.UniqueValues, "The different values, as text, the one seen last first.", ofField("to list"), k()),
		field(features.DaysActive, "On how many days (UTC) there were events."),
		field(features.TimeSinceFirst, "The time since the earliest event at the moment of reading, null if there was none.", split(unit())...),
		field(features.TimeSinceLast, "The time since the latest event at the moment of reading, null if there was none.", split(unit())...),
		field(features.IntervalMean, "The mean time from one event to the next, null if there are fewer than two.", split(unit())...),
		field(features.IntervalStddev, "The standard deviation (of the population) of the time from one event to the next, null if there are fewer than two.", split(unit())...),
		field(features.DecayedSum, "A score of recent activity: a sum in which every value halves in every `half_life` of its age at the moment of reading.",
			service.NewStringField(fieldHalfLife).
				Description("The time in which a value halves, such as `7d`.").
				Example("7d").
				LintRule(DurationRule("half_life")),
			service.NewFloatMapField(fieldWeights).
				Description("The value of an event by its name; an event that is not listed has 1.").
				Default(map[string]any{}).
				Example(map[string]any{"page": 1, "Product Added": 5, "Order Completed": 20}),
			service.NewStringField(fieldOf).
				Description("The path of a number to use as the value, in place of `weights`.").
				Default("").
				Example("properties.total")),
		field(features.HourHistogram, "How many events there were in each hour of the week: an array of 168 numbers, beginning with Monday 00:00, in the time zone named by the customer's trait `timezone` (such as `Europe/Berlin`), in UTC without it."),
		field(features.BestSendHour, "The hour of the week with the most events, in the customer's time zone: an object of `weekday` (1 is Monday) and `hour` (0 to 23); the earliest of several; null without events."),
	}
}

// kindNames are the kinds a definition can name.
var kindNames = append(features.Kinds(), features.Ratio, features.RFM, features.Expression, kindBGNBD, kindGammaGamma, kindCLV, features.Propensity)

func parseFeature(item *service.ParsedConfig, written *yaml.Node, files *[]definition.ParameterFile) (spec features.Spec, err error) {
	if spec.Name, err = item.FieldString(fieldName); err != nil {
		return spec, err
	}
	// A parsed config has every kind whose fields all have defaults, so which
	// kind was meant is told by what was written.
	for at := 0; at+1 < len(written.Content); at += 2 {
		kind := features.Kind(written.Content[at].Value)
		if !slices.Contains(kindNames, kind) {
			continue
		}
		if spec.Kind != "" {
			return spec, fmt.Errorf("it has two kinds, %s and %s; make two features of it", spec.Kind, kind)
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

// parseEvents reads which events a feature is computed from and what of them.
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
	return nil
}

// compileWhere makes a predicate of a Bloblang query.
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
			return false, fmt.Errorf("where gave %T, not a boolean", result)
		}
		return holds, nil
	}, nil
}
