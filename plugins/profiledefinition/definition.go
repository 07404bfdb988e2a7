// Package profiledefinition parses and lints profile definition files. Each of
// its files parses the part of a definition that it is named for.
package profiledefinition

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
)

const (
	fieldSources   = "sources"
	fieldEventLog  = "events"
	fieldKeep      = "keep"
	fieldMaxFuture = "max_future"
)

// durationForm is the form of a duration in definitions, for lint rules and parsing.
const durationForm = `^([0-9]+)(s|m|h|d|w)$`

// DurationRule returns a lint rule for a field that contains a duration.
func DurationRule(field string) string {
	return fmt.Sprintf(`root = if this != "" && !this.string().re_match("%s") { [ "%s must be a whole number and a unit (s, m, h, d or w), such as 30d" ] }`, durationForm, field)
}

// ParseDuration parses a duration such as 30d. The empty text is zero.
func ParseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	unit, ok := units[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if !ok || err != nil || n == 0 || time.Duration(n) > maxDuration/unit {
		return 0, fmt.Errorf("%q is not a duration; write a whole number above 0 and a unit (s, m, h, d or w), such as 30d, at most 100 years", text)
	}
	return time.Duration(n) * unit, nil
}

const maxDuration = 100 * 366 * 24 * time.Hour

// Fields returns the fields of a definition file.
func Fields() []*service.ConfigField {
	return append([]*service.ConfigField{
		service.NewStringListField(fieldSources).
			Description("Sources of traits, the most trusted first. The later statement of a trait wins, to the nanosecond of `timestamp`. If two sources set a trait with the same timestamp, the source that is listed first wins. Unlisted sources come last. Among equal sources the value that is later in byte order wins, so that the order of arrival does not matter.").
			Default([]any{}).
			Example([]any{"crm", "pos", "web"}),
		identityField(),
		traitsField(),
		service.NewObjectField(fieldEventLog,
			service.NewIntField(fieldKeep).
				Description("Maximum number of events that are kept individually for each customer. Features of customers with fewer events are exact. For customers with more events they are approximate, within documented bounds. A higher number makes large profiles larger.").
				Default(record.DefaultEvents).
				LintRule(`root = if this < 16 || this > 100000 { [ "keep must be between 16 and 100000" ] }`),
			service.NewStringField(fieldMaxFuture).
				Description("Maximum time by which the timestamp of an event may be after the time it was received, to tolerate fast clocks. Events from further in the future are rejected.").
				Default("1h").
				LintRule(DurationRule("max_future")),
		).Description("How many events are kept, and which are rejected.").Advanced(),
		featuresField(),
	}, slices.Concat(identifierFields(), segmentFields(), triggerFields())...)
}

// definitionFile is the spec of a definition file.
var definitionFile = configspec.New("definition", Fields)

// Read parses a definition file. The error lists all mistakes, each as
// file:line: message.
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

// Lint returns the mistakes in a definition file, with their lines. The error is
// non-nil if the file cannot be read.
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
			return file.Items(fieldIdentifiers)[id.identifier].Line
		}
		var segment *segments.SpecError
		if errors.As(err, &segment) {
			return file.Items(fieldSegments)[segment.Segment].Line
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
	if def.Events, err = conf.FieldInt(fieldEventLog, fieldKeep); err != nil {
		return nil, err
	}
	future, err := conf.FieldString(fieldEventLog, fieldMaxFuture)
	if err != nil {
		return nil, err
	}
	maxFuture, err := ParseDuration(future)
	if err != nil {
		return nil, fmt.Errorf("max_future: %w", err)
	}
	def.MaxFuture = maxFuture.Milliseconds()
	if def.Traits, err = parseTraits(conf.Namespace(fieldTraits)); err != nil {
		return nil, err
	}
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
	if def.Features, err = features.New(specs, compileWhere, triggers.selectors...); err != nil {
		return nil, triggers.attribute(err)
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
