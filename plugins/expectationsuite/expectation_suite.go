// Package expectationsuite parses and lints the YAML files that describe an
// expectation suite, which the expect processor applies.
package expectationsuite

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// The fields of a suite file. The fields of an expectation have the names of the
// arguments in Great Expectations.
const (
	fieldName         = "name"
	fieldExpectations = "expectations"
	fieldEvents       = "events"
	fieldRowCondition = "row_condition"

	fieldColumn         = "column"
	fieldMostly         = "mostly"
	fieldMinValue       = "min_value"
	fieldMaxValue       = "max_value"
	fieldStrictMin      = "strict_min"
	fieldStrictMax      = "strict_max"
	fieldValueSet       = "value_set"
	fieldRegex          = "regex"
	fieldRanges         = "quantile_ranges"
	fieldQuantiles      = "quantiles"
	fieldValueRanges    = "value_ranges"
	fieldColumnSet      = "column_set"
	fieldExactMatch     = "exact_match"
	fieldMaxAge         = "max_age"
	fieldPartition      = "partition_object"
	fieldValues         = "values"
	fieldBins           = "bins"
	fieldWeights        = "weights"
	fieldThreshold      = "threshold"
	fieldTailWeight     = "tail_weight_holdout"
	fieldInternalWeight = "internal_weight_holdout"
	fieldType           = "type_"
	fieldTypeList       = "type_list"
	fieldMinRows        = "min_rows"
)

func columnField() *service.ConfigField {
	return service.NewStringField(fieldColumn).
		Description("The path of the values: keys joined by dots. A key that ends in `[]` is an array; each of its elements counts.").
		Example("properties.total").
		Example("properties.products[].price")
}

func mostlyField() *service.ConfigField {
	return service.NewFloatField(fieldMostly).
		Description("Minimum share of the values that must meet the expectation.").
		Default(1.0).
		Example(0.99).
		LintRule(`root = if this <= 0 || this > 1 { [ "mostly must be a share above 0 and at most 1, such as 0.99" ] }`)
}

func boundFields(what string) []*service.ConfigField {
	return []*service.ConfigField{
		service.NewFloatField(fieldMinValue).Description("The minimum " + what + ".").Optional().Example(1.0),
		service.NewFloatField(fieldMaxValue).Description("The maximum " + what + ".").Optional().Example(1000.0),
		service.NewBoolField(fieldStrictMin).Description("Whether the " + what + " must be greater than `min_value`, not equal to it.").Default(false).Advanced(),
		service.NewBoolField(fieldStrictMax).Description("Whether the " + what + " must be less than `max_value`, not equal to it.").Default(false).Advanced(),
	}
}

// kindFields returns the field of each kind of expectation.
func kindFields() []*service.ConfigField {
	field := func(kind expectations.Kind, description string, fields ...*service.ConfigField) *service.ConfigField {
		return service.NewObjectField(string(kind), fields...).Description(description).Optional()
	}
	bounded := func(what string) []*service.ConfigField {
		return append([]*service.ConfigField{columnField()}, boundFields(what)...)
	}
	const numbers = " A value that is not a number, such as `\"12.50\"`, fails the expectation; missing values are ignored."
	types := []string{"string", "number", "integer", "boolean", "object", "array"}
	return []*service.ConfigField{
		field(expectations.RowCount, "The number of rows of a window.", boundFields("number of rows")...),
		field(expectations.ColumnSet, "The members of rows.",
			service.NewStringListField(fieldColumnSet).Description("The names of which each must occur in at least one row.").Example([]any{"order_id", "total"}),
			service.NewBoolField(fieldExactMatch).Description("Whether other names are unexpected.").Default(true),
			service.NewStringField(fieldColumn).Description("The path of the object with the members, such as `properties`; empty means the row itself.").Default("").Example("properties")),
		field(expectations.Fresh, "The age of the latest row of all windows at the end of a window.",
			service.NewStringField(fieldColumn).Description("The path of the time of a row, in RFC 3339.").Default("timestamp").Example("receivedAt"),
			service.NewDurationField(fieldMaxAge).Description("The maximum age.").Example("10m")),
		field(expectations.NotNull, "Values are not missing and not null.", columnField(), mostlyField()),
		field(expectations.InSet, "Values belong to a set. Missing values are ignored, as in all expectations below.", columnField(),
			service.NewAnyListField(fieldValueSet).Description("The values: strings, numbers, booleans.").Example([]any{"EUR", "USD"}), mostlyField()),
		field(expectations.OfType, "Values have a JSON type.", columnField(),
			service.NewStringEnumField(fieldType, types...).Description("The type, as in Great Expectations with a trailing underscore. `integer` is a number without a fraction.").Example("number"), mostlyField()),
		field(expectations.InTypeList, "Values have one of several JSON types.", columnField(),
			service.NewStringListField(fieldTypeList).Description("The types: `string`, `number`, `integer`, `boolean`, `object`, `array`.").Example([]any{"string", "integer"}), mostlyField()),
		field(expectations.MatchRegex, "A part of each value matches a pattern; `^` and `$` anchor it to the ends.", columnField(),
			service.NewStringField(fieldRegex).Description("The pattern, in RE2 syntax.").Example("^o-[0-9]+$"), mostlyField()),
		field(expectations.Between, "Values are numbers within bounds.", append(bounded("value"), mostlyField())...),
		field(expectations.Unique, "No value occurs twice in a window, for up to 262,144 distinct values.", columnField(), mostlyField()),
		field(expectations.Min, "The minimum of the values."+numbers, bounded("minimum")...),
		field(expectations.Max, "The maximum of the values."+numbers, bounded("maximum")...),
		field(expectations.Sum, "The sum of the values."+numbers, bounded("sum")...),
		field(expectations.Mean, "The mean of the values."+numbers, bounded("mean")...),
		field(expectations.Stdev, "The sample standard deviation of the values."+numbers, bounded("standard deviation")...),
		field(expectations.Median, "The median of the values; beyond 10,000 values within 1%."+numbers, bounded("median")...),
		field(expectations.Quantiles, "Quantiles of the values: the value nearest to the position, as in Great Expectations (of 1, 2, 3 and 4 the quantile 0.3 is 2); beyond 10,000 values within 1%."+numbers, columnField(),
			service.NewObjectField(fieldRanges,
				service.NewFloatListField(fieldQuantiles).Description("The quantiles, from 0 to 1.").Example([]any{0.5, 0.95}),
				service.NewAnyListField(fieldValueRanges).Description("The minimum and the maximum of each quantile; `null` means no bound.").Example([]any{[]any{10, 40}, []any{nil, 200}}),
			).Description("The quantiles and their bounds.")),
		field(expectations.ProportionUnique, "The number of distinct values, divided by the number of values.", bounded("proportion")...),
		field(expectations.ProportionNotNull, "The share of values that are not missing.", bounded("proportion")...),
		field(expectations.KLDivergence, "The Kullback-Leibler divergence of the distribution of the values from an expected one, in nats; 0 means equal. The definition is that of Great Expectations. Two defaults differ: `tail_weight_holdout` is 0.01 instead of 0, so that a single new value does not make the divergence infinite, and windows with fewer than `min_rows` values are not evaluated. Example: for the expected shares web 0.6 and app 0.4, the values 50 web, 40 app and 10 till have a divergence of 0.148, and an infinite one with `tail_weight_holdout: 0`. Numbers of bins must be numbers.", columnField(),
			service.NewObjectField(fieldPartition,
				service.NewAnyListField(fieldValues).Description("The values of a distribution of strings, numbers or booleans.").Default([]any{}),
				service.NewFloatListField(fieldBins).Description("The increasing edges of the intervals of a distribution of numbers, one more than `weights`.").Default([]any{}),
				service.NewFloatListField(fieldWeights).Description("The share of each value or interval; they add up to 1.").Example([]any{0.7, 0.3}),
			).Description("The expected distribution. `suggest-suite` proposes one from data."),
			service.NewFloatField(fieldThreshold).Description("The maximum divergence.").Default(0.1),
			service.NewFloatField(fieldTailWeight).Description("Share of the expected distribution that is reserved for other values, or for numbers outside the bins. With 0 such a value makes the divergence infinite.").Default(expectations.DefaultTailWeight).Advanced(),
			service.NewFloatField(fieldInternalWeight).Description("Share of the expected distribution that is reserved for bins of the weight 0.").Default(0.0).Advanced(),
			service.NewIntField(fieldMinRows).Description("Minimum number of values in a window for an evaluation.").Default(expectations.DefaultMinRows).
				LintRule(`root = if this < 1 { [ "min_rows must be at least 1" ] }`)),
	}
}

// Fields describes a suite file.
func Fields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewStringField(fieldName).
			Description("The name of the suite in reports and metrics.").
			Example("shop").
			LintRule(`root = if this == "" { [ "give the suite a name, such as shop" ] }`),
		service.NewObjectListField(fieldExpectations, append([]*service.ConfigField{
			service.NewStringField(fieldName).
				Description("The name of the expectation in reports and metrics. The default consists of its kind, column and events.").
				Default("").
				Example("orders_have_a_total"),
			service.NewStringListField(fieldEvents).
				Description("The events to which the expectation applies: the name of a track event, or `page`, `screen`, `identify`, `group`, `alias`. Empty means every row.").
				Default([]any{}).
				Example([]any{"Order Completed"}),
			service.NewBloblangField(fieldRowCondition).
				Description("A Bloblang query that selects the rows to which the expectation applies. A row is not selected if the query fails.").
				Default("").
				Example(`this.properties.currency == "EUR"`),
		}, kindFields()...)...).
			Description("The expectations. Each has exactly one kind.").
			Example([]any{
				map[string]any{"events": []any{"Order Completed"}, string(expectations.Between): map[string]any{"column": "properties.total", "min_value": 0, "max_value": 10000, "mostly": 0.999}},
			}),
	}
}

// fileSpec is the config spec of a suite file.
var fileSpec = configspec.New("suite", Fields)

// Read parses a suite file. Its error lists every mistake as file:line: message.
func Read(path string) (*expectations.Suite, error) {
	suite, lints, err := read(path)
	if err == nil {
		err = finding.ToError(lints)
	}
	if err != nil {
		return nil, err
	}
	return suite, nil
}

// Lint returns the mistakes in a suite file with their lines. An error means that
// the file cannot be read.
func Lint(path string) ([]finding.Finding, error) {
	_, lints, err := read(path)
	return lints, err
}

func read(path string) (*expectations.Suite, []finding.Finding, error) {
	file, lints, err := fileSpec.Read(path)
	if file == nil {
		return nil, lints, err
	}
	written := file.Items(fieldExpectations)
	suite, err := parse(file.Conf, written)
	return suite, configspec.Findings(path, err, func(err error) int {
		var spec *expectations.SpecError
		if errors.As(err, &spec) {
			return written[spec.Expectation].Line
		}
		return 1
	}), nil
}

func parse(conf *service.ParsedConfig, written []*yaml.Node) (*expectations.Suite, error) {
	name, err := conf.FieldString(fieldName)
	if err != nil {
		return nil, err
	}
	items, err := conf.FieldObjectList(fieldExpectations)
	if err != nil {
		return nil, err
	}
	var specs []expectations.Spec
	var errs []error
	for i, item := range items {
		spec, err := parseExpectation(item, written[i])
		if err != nil {
			errs = append(errs, &expectations.SpecError{Expectation: i, Name: spec.Name, Err: err})
		}
		specs = append(specs, spec)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return expectations.New(name, specs, compileCondition)
}

func compileCondition(text string) (expectations.Predicate, error) {
	query, err := bloblang.GlobalEnvironment().Parse(text)
	if err != nil {
		return nil, err
	}
	return func(row any) (bool, error) {
		result, err := query.Query(row)
		if err != nil {
			return false, err
		}
		holds, _ := result.(bool)
		return holds, nil
	}, nil
}

func parseExpectation(item *service.ParsedConfig, written *yaml.Node) (s expectations.Spec, err error) {
	if s.Name, err = item.FieldString(fieldName); err != nil {
		return s, err
	}
	if s.Events, err = item.FieldStringList(fieldEvents); err != nil {
		return s, err
	}
	if s.Condition, err = item.FieldString(fieldRowCondition); err != nil {
		return s, err
	}
	// The YAML node determines the kind: the parsed config contains every kind
	// with defaults for all fields.
	var args *yaml.Node
	for at := 0; at+1 < len(written.Content); at += 2 {
		kind := written.Content[at].Value
		if !strings.HasPrefix(kind, "expect_") {
			continue
		}
		if s.Kind != "" {
			return s, fmt.Errorf("it has two kinds, %s and %s; split it into two expectations", s.Kind, kind)
		}
		s.Kind, args = expectations.Kind(kind), written.Content[at+1]
	}
	if s.Kind == "" {
		return s, fmt.Errorf("it needs a kind, one of %v", expectations.Kinds())
	}
	return s, parseArguments(&s, item.Namespace(string(s.Kind)), args)
}

func parseArguments(s *expectations.Spec, conf *service.ParsedConfig, args *yaml.Node) (err error) {
	for _, f := range []struct {
		name string
		into *string
	}{{fieldColumn, &s.Column}, {fieldRegex, &s.Regex}} {
		if conf.Contains(f.name) {
			if *f.into, err = conf.FieldString(f.name); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		name string
		into *bool
	}{{fieldStrictMin, &s.StrictMin}, {fieldStrictMax, &s.StrictMax}, {fieldExactMatch, &s.Exact}} {
		if conf.Contains(f.name) {
			if *f.into, err = conf.FieldBool(f.name); err != nil {
				return err
			}
		}
	}
	for _, f := range []struct {
		name string
		into **float64
	}{{fieldMinValue, &s.Min}, {fieldMaxValue, &s.Max}} {
		if conf.Contains(f.name) {
			n, err := conf.FieldFloat(f.name)
			if err != nil {
				return err
			}
			*f.into = &n
		}
	}
	if conf.Contains(fieldMostly) {
		if s.Mostly, err = conf.FieldFloat(fieldMostly); err != nil {
			return err
		}
	}
	if conf.Contains(fieldColumnSet) {
		if s.Columns, err = conf.FieldStringList(fieldColumnSet); err != nil {
			return err
		}
	}
	if conf.Contains(fieldType) {
		name, err := conf.FieldString(fieldType)
		if err != nil {
			return err
		}
		s.Types = []string{name}
	}
	if conf.Contains(fieldTypeList) {
		if s.Types, err = conf.FieldStringList(fieldTypeList); err != nil {
			return err
		}
	}
	if conf.Contains(fieldMaxAge) {
		if s.MaxAge, err = conf.FieldDuration(fieldMaxAge); err != nil {
			return err
		}
	}
	if conf.Contains(fieldValueSet) {
		if s.Set, err = scalars(args, fieldValueSet); err != nil {
			return err
		}
	}
	if conf.Contains(fieldRanges) {
		if err := parseRanges(s, conf.Namespace(fieldRanges), configspec.Member(args, fieldRanges)); err != nil {
			return err
		}
	}
	if conf.Contains(fieldPartition) {
		return parsePartition(s, conf, configspec.Member(args, fieldPartition))
	}
	return nil
}

func parseRanges(s *expectations.Spec, conf *service.ParsedConfig, args *yaml.Node) (err error) {
	if s.Quantiles, err = conf.FieldFloatList(fieldQuantiles); err != nil {
		return err
	}
	var ranges [][]*float64
	if node := configspec.Member(args, fieldValueRanges); node == nil || node.Decode(&ranges) != nil {
		return errors.New("value_ranges must be a list of pairs of numbers, such as [[10, 40], [null, 200]]")
	}
	for _, r := range ranges {
		if len(r) != 2 {
			return errors.New("each of value_ranges must be a minimum and a maximum, such as [10, 40] or [null, 200]")
		}
		s.Ranges = append(s.Ranges, [2]*float64{r[0], r[1]})
	}
	return nil
}

func parsePartition(s *expectations.Spec, conf *service.ParsedConfig, args *yaml.Node) (err error) {
	p := conf.Namespace(fieldPartition)
	if s.Partition.Values, err = scalars(args, fieldValues); err != nil {
		return err
	}
	if s.Partition.Bins, err = p.FieldFloatList(fieldBins); err != nil {
		return err
	}
	if s.Partition.Weights, err = p.FieldFloatList(fieldWeights); err != nil {
		return err
	}
	if s.Threshold, err = conf.FieldFloat(fieldThreshold); err != nil {
		return err
	}
	if s.TailWeight, err = conf.FieldFloat(fieldTailWeight); err != nil {
		return err
	}
	if s.InternalWeight, err = conf.FieldFloat(fieldInternalWeight); err != nil {
		return err
	}
	s.MinRows, err = conf.FieldInt(fieldMinRows)
	return err
}

// scalars returns a list of values with their YAML types; the parsed config
// converts all of them to texts.
func scalars(args *yaml.Node, key string) ([]any, error) {
	node := configspec.Member(args, key)
	if node == nil {
		return nil, nil
	}
	var list []any
	if err := node.Decode(&list); err != nil {
		return nil, fmt.Errorf("%s must be a list", key)
	}
	for i, v := range list {
		switch v := v.(type) {
		case string, bool, int:
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("%s has an invalid number at position %d", key, i+1)
			}
		default:
			return nil, fmt.Errorf("%s must hold strings, numbers and booleans; put item %d in quotes", key, i+1)
		}
	}
	return list, nil
}
