package profiledefinition

import (
	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
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

// segmentFields returns the fields for segments and their parameters.
func segmentFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewObjectListField(fieldSegments,
			service.NewStringField(fieldName).
				Description("Name of the segment: letters, digits and underscores, beginning with a letter.").
				Example("high_value").
				LintRule(`root = if !this.re_match("^[A-Za-z][A-Za-z0-9_]*$") { [ "name must be letters, digits and underscores and begin with a letter, such as high_value" ] }`),
			service.NewBloblangField(fieldWhen).
				Description("Bloblang query for the membership of a customer. It reads `features.NAME`, `traits.NAME`, `segments.NAME` (membership in another segment), `parameters.NAME` and `as_of`, the time of evaluation. A customer for whom it does not return true, for example because a feature is null, is not in the segment.").
				Example(`features.revenue_90d > parameters.high_value_revenue`).
				Example(`segments.high_value && features.days_since_order > 60`).
				Example(`traits.country == "DE" && features.orders == 0`).
				LintRule(configspec.LintCondition),
		).Description("Named rules for the membership of customers. The `profile_changes` input emits an event when a customer enters or leaves a segment.").
			Default([]any{}).
			Example([]any{map[string]any{"name": "high_value", "when": "features.revenue_90d > 500"}}),
		service.NewAnyMapField(fieldValues).
			Description("Thresholds by name that segments read as `parameters.NAME`: numbers, texts and booleans.").
			Default(map[string]any{}).
			Example(map[string]any{"high_value_revenue": 500}),
		service.NewStringField(fieldParametersFile).
			Description("Path of a file of parameters, which override those of the same name above. The file is reloaded when it changes, without a restart, and all customers are evaluated again. If a new version is invalid, the last valid one stays in use.").
			Default("").
			Example("./configs/retail/parameters.yaml"),
	}
}

// parseSegments parses the segments of a definition. It returns nil if there are
// none.
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
	set.FeaturesOnly = set.FeaturesOnly && path == ""
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

// compileRule compiles a Bloblang query to a rule. A query that consists of
// comparisons is compiled to a program, which is much faster and has the same
// result.
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
