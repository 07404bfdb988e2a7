package profiledefinition

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// The fields of features that are computed from other features.
const (
	fieldTo              = "to"
	fieldRecency         = "recency"
	fieldFrequency       = "frequency"
	fieldMonetary        = "monetary"
	fieldRecencyScores   = "recency_scores"
	fieldFrequencyScores = "frequency_scores"
	fieldMonetaryScores  = "monetary_scores"
)

func derivedFields() []*service.ConfigField {
	name := func(field, role, example string) *service.ConfigField {
		return service.NewStringField(field).Description("Name of the feature " + role + ".").Example(example)
	}
	scores := func(field, description string, example ...any) *service.ConfigField {
		return service.NewFloatListField(field).Description(description).Example(example)
	}
	return []*service.ConfigField{
		service.NewObjectField(string(features.Ratio),
			name(fieldOf, "that is divided", "emails_clicked_30d"),
			name(fieldTo, "that it is divided by", "emails_opened_30d"),
		).Description("One feature divided by another, null if either is null or the second is 0.").Optional(),
		service.NewObjectField(string(features.RFM),
			name(fieldRecency, "for the time since the last purchase; less is better", "days_since_order"),
			name(fieldFrequency, "for the number of purchases; more is better", "orders"),
			name(fieldMonetary, "for the amount spent; more is better", "revenue"),
			scores(fieldRecencyScores, "Four ascending bounds: a value up to the first scores 5, up to the second 4, and so on; beyond the last it scores 1.", 30, 60, 120, 365),
			scores(fieldFrequencyScores, "Four ascending bounds: a value below the first scores 1, from the last on it scores 5.", 2, 3, 5, 10),
			scores(fieldMonetaryScores, "Four ascending bounds: a value below the first scores 1, from the last on it scores 5.", 50, 100, 250, 1000),
		).Description("Recency, frequency and monetary scores from 1 (worst) to 5: an object of `recency`, `frequency`, `monetary` and `score`, the three digits together such as `\"543\"`. Null while recency is null.").Optional(),
		service.NewBloblangField(string(features.Expression)).
			Description("Bloblang query over `features` and `traits`. Features are written `features.NAME`. The result is null if the query fails, for example when it computes with a feature that is null.").
			Example(`features.revenue_90d / 3`).
			Example(`if features.orders > 0 && traits.country == "DE" { "buyer" } else { "prospect" }`).
			Optional(),
	}
}

// parseDerived parses the kinds that derivedFields describes.
func parseDerived(spec *features.Spec, item *service.ParsedConfig) (err error) {
	switch spec.Kind {
	case features.Ratio:
		spec.Derived, err = parseRatio(item.Namespace(string(spec.Kind)))
	case features.RFM:
		spec.Derived, err = parseRFM(item.Namespace(string(spec.Kind)))
	case features.Expression:
		var text string
		if text, err = item.FieldString(string(spec.Kind)); err == nil {
			spec.Derived, err = compileExpression(text)
		}
	}
	return err
}

func parseRatio(conf *service.ParsedConfig) (*features.Derived, error) {
	dividend, err := conf.FieldString(fieldOf)
	if err != nil {
		return nil, err
	}
	divisor, err := conf.FieldString(fieldTo)
	if err != nil {
		return nil, err
	}
	return &features.Derived{
		Needs: []string{dividend, divisor},
		Compute: func(in features.Inputs) features.Result {
			above, ok := in.Feature(dividend).Number()
			below, known := in.Feature(divisor).Number()
			if !ok || !known || below == 0 {
				return features.Result{}
			}
			return features.Result{Value: features.ValueOf(above / below)}
		},
	}, nil
}

// score maps a feature to a score from 1 to 5 by four ascending bounds.
type score struct {
	feature     string
	bounds      []float64
	lowerBetter bool
}

func (s score) compute(in features.Inputs) (float64, bool) {
	n, ok := in.Feature(s.feature).Number()
	i, exact := slices.BinarySearch(s.bounds, n)
	if s.lowerBetter {
		return float64(5 - i), ok
	}
	if exact { // a number equal to a bound has reached it
		i++
	}
	return float64(1 + i), ok
}

func parseRFM(conf *service.ParsedConfig) (*features.Derived, error) {
	parts := [3]score{{lowerBetter: true}}
	for i, fields := range [3][2]string{
		{fieldRecency, fieldRecencyScores}, {fieldFrequency, fieldFrequencyScores}, {fieldMonetary, fieldMonetaryScores},
	} {
		var err error
		if parts[i].feature, err = conf.FieldString(fields[0]); err != nil {
			return nil, err
		}
		list, err := conf.FieldFloatList(fields[1])
		if err != nil {
			return nil, err
		}
		if len(list) != 4 || !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != 4 {
			return nil, fmt.Errorf("%s must be four ascending numbers, such as [30, 60, 120, 365]", fields[1])
		}
		parts[i].bounds = list
	}
	return &features.Derived{
		Needs: []string{parts[0].feature, parts[1].feature, parts[2].feature},
		Compute: func(in features.Inputs) features.Result {
			r, known := parts[0].compute(in)
			if !known {
				return features.Result{}
			}
			f, _ := parts[1].compute(in)
			m, _ := parts[2].compute(in)
			return features.Result{Shape: features.Object, Entries: []features.Entry{
				{Name: fieldRecency, Value: features.ValueOf(r)},
				{Name: fieldFrequency, Value: features.ValueOf(f)},
				{Name: fieldMonetary, Value: features.ValueOf(m)},
				{Name: "score", Value: event.Value{Kind: event.String, Text: fmt.Appendf(nil, "%.0f%.0f%.0f", r, f, m)}},
			}}
		},
	}, nil
}

var featureName = regexp.MustCompile(`\bfeatures\b(\.[A-Za-z_][A-Za-z0-9_]*)?`)

// compileExpression compiles a query to a derived feature. The features that it
// needs are those that its text names.
func compileExpression(text string) (*features.Derived, error) {
	query, err := bloblang.GlobalEnvironment().Parse(text)
	if err != nil {
		return nil, err
	}
	var needs []string
	for _, m := range featureName.FindAllStringSubmatch(text, -1) {
		if m[1] == "" {
			return nil, errors.New("an expression must name each feature it reads as features.NAME")
		}
		if name := m[1][1:]; !slices.Contains(needs, name) {
			needs = append(needs, name)
		}
	}
	return &features.Derived{
		Needs: needs,
		Compute: func(in features.Inputs) features.Result {
			values := make(map[string]any, len(needs))
			for _, name := range needs {
				values[name] = in.Feature(name).Any()
			}
			result, err := query.Query(map[string]any{"features": values, "traits": in.Traits()})
			if err != nil {
				return features.Result{}
			}
			return features.Result{Value: features.ValueOf(result)}
		},
	}, nil
}
