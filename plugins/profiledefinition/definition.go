// Package profiledefinition parses and lints profile definition files. Each of
// its files parses the part of a definition that it is named for.
package profiledefinition

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
)

// The fields of a definition file.
const (
	fieldSources  = "sources"
	fieldIdentity = "identity"
	fieldEventsOf = "events"
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

	fieldIgnore          = "ignore"
	fieldIgnoreAddresses = "ignore_addresses"
	fieldMaxMerged       = "max_merged"
	fieldMaxShared       = "max_shared"
	fieldMergeKnown      = "merge_known"
	fieldKeep            = "keep"
	fieldMaxFuture       = "max_future"
)

// duration is the form of a time span in definitions; lint rules and parsing
// agree on it.
const durationForm = `^([0-9]+)(s|m|h|d|w)$`

func DurationRule(what string) string {
	return fmt.Sprintf(`root = if this != "" && !this.string().re_match("%s") { [ "%s must be a whole number and a unit (s, m, h, d or w), such as 30d" ] }`, durationForm, what)
}

// parseDuration reads a time span such as 30d. Empty is zero.
func ParseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	unit, ok := units[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if !ok || err != nil || n == 0 || time.Duration(n) > maxDuration/unit {
		return 0, fmt.Errorf("%q is not a time span; write a whole number above 0 and a unit (s, m, h, d or w), such as 30d, at most 100 years", text)
	}
	return time.Duration(n) * unit, nil
}

const maxDuration = 100 * 366 * 24 * time.Hour

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

// Fields describes a definition file.
func Fields() []*service.ConfigField {
	return append([]*service.ConfigField{
		service.NewStringListField(fieldSources).
			Description("Sources of traits, the most trusted first. When two sources state a trait at the same time the one listed earlier holds; sources that are not listed come last.").
			Default([]any{}).
			Example([]any{"crm", "pos", "web"}),
		service.NewObjectField(fieldIdentity,
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
		).Description("Which ids make customers, and how far anonymous ones are merged into known ones. The first customer an anonymous id is identified as keeps it."),
		service.NewObjectField(fieldEventsOf,
			service.NewIntField(fieldKeep).
				Description("How many events of a customer are kept one by one. Features of customers with fewer are exact; of those with more they are within the bounds that the documentation gives.").
				Default(record.DefaultEvents).
				LintRule(`root = if this < 16 || this > 100000 { [ "keep must be between 16 and 100000" ] }`),
			service.NewStringField(fieldMaxFuture).
				Description("How far the timestamp of an event may lie after the time it was received, for clocks that are fast. Events from further in the future are refused.").
				Default("1h").
				LintRule(DurationRule("max_future")),
		).Description("How events are kept.").Advanced(),
		service.NewObjectListField(fieldFeatures,
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
			}),
	}, slices.Concat(identifierFields(), segmentFields(), triggerFields())...)
}

// definitionFile says what a definition file is made of.
var definitionFile = configspec.New("definition", Fields)

// Read reads a definition file. Its error lists everything that is
// wrong, each as file:line: message.
func Read(path string) (*definition.Definition, error) {
	def, lints, err := read(path)
	if err == nil {
		err = finding.ToError(lints)
	}
	if err != nil {
		return nil, err
	}
	return def, nil
}

// Lint returns what is wrong with a definition file, with the line
// of each. The error is for a file that cannot be read.
func Lint(path string) ([]finding.Finding, error) {
	_, lints, err := read(path)
	return lints, err
}

func read(path string) (*definition.Definition, []finding.Finding, error) {
	file, lints, err := definitionFile.Read(path)
	if file == nil {
		return nil, lints, err
	}
	written, writtenTriggers := file.Items(fieldFeatures), file.Items(fieldTriggers)
	def, err := parseDefinition(file.Conf, written)
	return def, configspec.Findings(path, err, func(err error) int {
		var spec *features.SpecError
		if errors.As(err, &spec) {
			return written[spec.Feature].Line
		}
		var rule *triggers.RuleError
		if errors.As(err, &rule) && rule.Rule >= 0 {
			return writtenTriggers[rule.Rule].Line
		}
		var id *identifierError
		if errors.As(err, &id) {
			return file.Items(fieldIdentifiers)[id.at].Line
		}
		if at, ok := segmentOf(err); ok {
			return file.Items(fieldSegments)[at].Line
		}
		return 1
	}), nil
}

func parseDefinition(conf *service.ParsedConfig, written []*yaml.Node) (*definition.Definition, error) {
	def := &definition.Definition{Definition: &record.Definition{}}
	sources, err := conf.FieldStringList(fieldSources)
	if err != nil {
		return nil, err
	}
	def.Sources = sources
	if err := parseIdentity(conf.Namespace(fieldIdentity), &def.Identity); err != nil {
		return nil, err
	}
	if def.Events, err = conf.FieldInt(fieldEventsOf, fieldKeep); err != nil {
		return nil, err
	}
	future, err := conf.FieldString(fieldEventsOf, fieldMaxFuture)
	if err != nil {
		return nil, err
	}
	maxFuture, err := ParseDuration(future)
	if err != nil {
		return nil, fmt.Errorf("max_future: %w", err)
	}
	def.MaxFuture = maxFuture.Milliseconds()
	if def.Identifiers, err = parseIdentifiers(conf); err != nil {
		return nil, err
	}
	items, err := conf.FieldObjectList(fieldFeatures)
	if err != nil {
		return nil, err
	}
	var specs []features.Spec
	var errs []error
	for i, item := range items {
		spec, err := parseFeature(item, written[i], &def.ParameterFiles)
		if err != nil {
			errs = append(errs, &features.SpecError{Feature: i, Name: spec.Name, Err: err})
		}
		specs = append(specs, spec)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	triggers, err := parseTriggers(conf)
	if err != nil {
		return nil, err
	}
	if def.Features, err = features.New(specs, compileWhere, triggers.interests...); err != nil {
		return nil, triggers.blame(err)
	}
	if def.Segments, err = parseSegments(conf, def.Features, &def.ParameterFiles); err != nil {
		return nil, err
	}
	if def.Messaging, err = triggers.finish(def.Definition); err != nil {
		return nil, err
	}
	if def.Messaging != nil {
		def.Triggers = def.Messaging.Set
	}
	return def, nil
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
