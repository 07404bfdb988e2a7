package profiles

import (
	"context"
	"errors"
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/store"
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
func parseSegments(conf *service.ParsedConfig, features *features.Definition, files *[]follower) (*segments.Set, error) {
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

func parseParameters(conf *service.ParsedConfig, files *[]follower) (current func() *segments.Parameters, err error) {
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

func (d *Definition) hasSegment(name string) bool {
	if d.Segments == nil {
		return false
	}
	_, ok := d.Segments.Lookup(name)
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

// UnknownSegmentError is returned for a segment that is not defined.
type UnknownSegmentError struct {
	Name string
	hint string
}

func (e *UnknownSegmentError) Error() string {
	return fmt.Sprintf("there is no segment %q%s", e.Name, e.hint)
}

func (p *Profiles) knowSegment(name string) error {
	if p.def.Segments == nil {
		return &UnknownSegmentError{name, "; the definition has no segments"}
	}
	if _, ok := p.def.Segments.Lookup(name); !ok {
		return &UnknownSegmentError{name, spelling.Hint(name, p.def.Segments.Names())}
	}
	return nil
}

// Segments returns the names of the segments, in order.
func (p *Profiles) Segments() []string {
	if p.def.Segments == nil {
		return nil
	}
	return p.def.Segments.Names()
}

// Member is a customer in a segment.
type Member struct {
	ID        string
	Anonymous bool
}

// Key is the name the customer's record has in the store, to continue a list
// of members after.
func (m Member) Key() string {
	if m.Anonymous {
		return record.Key(record.Anonymous, []byte(m.ID))
	}
	return record.Key(record.User, []byte(m.ID))
}

// SegmentMembers lists the customers in a segment, anonymous ones first, in
// order of id: at most limit of those after the one with a key, which is empty
// to begin. An empty page is the end. A customer enters and leaves the list in
// the same write in which that is told.
func (p *Profiles) SegmentMembers(ctx context.Context, name, after string, limit int) ([]Member, error) {
	if err := p.knowSegment(name); err != nil {
		return nil, err
	}
	entries, err := p.store.ScanIndex(ctx, record.SegmentIndex+name, "", "", store.IndexEntry{Key: after}, limit)
	if err != nil {
		return nil, err
	}
	members := make([]Member, len(entries))
	for i, e := range entries {
		members[i] = Member{ID: record.KeyID(e.Key), Anonymous: e.Key[0] == record.Anonymous}
	}
	return members, nil
}

// SegmentCount returns how many customers are in a segment.
func (p *Profiles) SegmentCount(ctx context.Context, name string) (int64, error) {
	if err := p.knowSegment(name); err != nil {
		return 0, err
	}
	return p.store.CountIndex(ctx, record.SegmentIndex+name, "", "")
}

// segmentOf returns the position of the segment that an error is about.
func segmentOf(err error) (at int, ok bool) {
	var spec *segments.SpecError
	if errors.As(err, &spec) {
		return spec.Segment, true
	}
	return 0, false
}
