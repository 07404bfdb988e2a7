package profiledefinition

import (
	"errors"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
)

const (
	fieldSegments       = "segments"
	fieldValues         = "parameters"
	fieldParametersFile = "parameters_file"
)

// segmentFields describes the part of a definition that is about segments.
func segmentFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewObjectListField(fieldSegments,
			service.NewStringField(fieldName).
				Description("What the segment is called: letters, digits and underscores, beginning with a letter.").
				Example("high_value").
				LintRule(`root = if !this.re_match("^[A-Za-z][A-Za-z0-9_]*$") { [ "name must be letters, digits and underscores and begin with a letter, such as high_value" ] }`),
			service.NewBloblangField(fieldWhen).
				Description("A Bloblang query that tells whether a customer is in the segment. It reads `features.NAME`, `traits.NAME`, `segments.NAME` (whether the customer is in another segment), `parameters.NAME` and `as_of`, the moment it is judged. A customer for whom it does not evaluate to true, such as by comparing a feature that is null, is not in the segment.").
				Example(`features.revenue_90d > parameters.high_value_revenue`).
				Example(`segments.high_value && features.days_since_order > 60`).
				Example(`traits.country == "DE" && features.orders == 0`),
		).Description("Named rules by which customers are in segments. Entering and leaving is told by the `profile_changes` input.").
			Default([]any{}).
			Example([]any{map[string]any{"name": "high_value", "when": "features.revenue_90d > 500"}}),
		service.NewAnyMapField(fieldValues).
			Description("Thresholds by name, for segments to read as `parameters.NAME`: numbers, texts and booleans.").
			Default(map[string]any{}).
			Example(map[string]any{"high_value_revenue": 500}),
		service.NewStringField(fieldParametersFile).
			Description("The path of a file of such parameters, which take the place of those of the same name above. When the file changes they are taken without a restart, and customers are judged anew; while it is wrong the last good ones are kept.").
			Default("").
			Example("./configs/retail/parameters.yaml"),
	}
}

// parseSegments reads what segmentFields describes; nil if there are none.
func parseSegments(conf *service.ParsedConfig, features *features.Definition, files *[]definition.ParameterFile) (*segments.Set, error) {
	parameters, err := parseParameters(conf, files)
	if err != nil {
		return nil, err
	}
	items, err := conf.FieldObjectList(fieldSegments)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	specs := make([]segments.Spec, len(items))
	for i, item := range items {
		if specs[i].Name, err = item.FieldString(fieldName); err != nil {
			return nil, err
		}
		if specs[i].When, err = item.FieldString(fieldWhen); err != nil {
			return nil, err
		}
	}
	set, err := segments.New(specs, features, parameters, compileRule)
	if err != nil {
		return nil, err
	}
	path, err := conf.FieldString(fieldParametersFile)
	set.Lasting = set.Lasting && path == ""
	return set, err
}

func parseParameters(conf *service.ParsedConfig, files *[]definition.ParameterFile) (current func() *segments.Parameters, err error) {
	items, err := conf.FieldAnyMap(fieldValues)
	if err != nil {
		return nil, err
	}
	values := make(map[string]any, len(items))
	for name, item := range items {
		if values[name], err = item.FieldAny(); err != nil {
			return nil, err
		}
	}
	written, err := segments.NewParameters(values)
	if err != nil {
		return nil, err
	}
	path, err := conf.FieldString(fieldParametersFile)
	if err != nil {
		return nil, err
	}
	if path == "" {
		return func() *segments.Parameters { return written }, nil
	}
	file, err := segments.OpenFile(path, written)
	if err != nil {
		return nil, err
	}
	*files = append(*files, file)
	return file.Current, nil
}

func hasSegment(def *record.Definition, name string) bool {
	if def.Segments == nil {
		return false
	}
	_, ok := def.Segments.Lookup(name)
	return ok
}

// compileRule makes a rule of a Bloblang query. One of comparisons is judged by
// a program, which is faster by far and gives the same.
func compileRule(text string, names segments.Names) (segments.Rule, error) {
	query, err := bloblang.GlobalEnvironment().Parse(text)
	if err != nil {
		return nil, err
	}
	byQuery := func(in segments.Inputs) bool {
		result, err := query.Query(in.Document())
		holds, ok := result.(bool)
		return err == nil && ok && holds
	}
	program, err := segments.CompileProgram(text, names)
	if err != nil {
		return byQuery, nil
	}
	return func(in segments.Inputs) bool {
		if holds, known := program.Holds(in); known {
			return holds
		}
		return byQuery(in)
	}, nil
}

// segmentOf returns the position of the segment that an error is about.
func segmentOf(err error) (at int, ok bool) {
	var spec *segments.SpecError
	if errors.As(err, &spec) {
		return spec.Segment, true
	}
	return 0, false
}
