package profiledefinition

import (
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
)

// inputs are the values that a rule reads.
type inputs struct {
	features []features.Result
	names    []string
	traits   map[string]event.Value
	in       bool
}

func (i *inputs) FeatureAt(n int) features.Result { return i.features[n] }
func (i *inputs) Trait(name string) event.Value   { return i.traits[name] }
func (i *inputs) InSegment(int) bool              { return i.in }
func (i *inputs) Parameter(string) any            { return 2.5 }

func (i *inputs) Document() map[string]any {
	values, traits := map[string]any{}, map[string]any{}
	for n, name := range i.names {
		values[name] = i.features[n].Any()
	}
	for name, v := range i.traits {
		if v.Kind != event.Missing {
			traits[name] = features.Any(v)
		}
	}
	return map[string]any{"features": values, "traits": traits, "segments": map[string]any{"s": i.in}, "parameters": map[string]any{"p": 2.5}}
}

// TestProgramsAgreeWithQueries compares rules that are compiled to a program with
// the same rules as Bloblang queries.
func TestProgramsAgreeWithQueries(t *testing.T) {
	value := rapid.SampledFrom([]event.Value{
		{}, {Kind: event.True}, {Kind: event.False}, {Kind: event.Number, Number: 2.5}, {Kind: event.Number, Number: 3}, {Kind: event.Number},
		{Kind: event.String, Text: []byte("a b")}, {Kind: event.String, Text: []byte("3")}, {Kind: event.JSON, Text: []byte(`{"x":3}`)}, {Kind: event.JSON, Text: []byte(`[3]`)},
	})
	names := segments.Names{
		Feature: func(name string) (int, bool) { return int(name[0] - 'f'), name == "f" || name == "g" },
		Segment: func(name string) (int, bool) { return 0, name == "s" },
	}
	programs, queries := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		operand := rapid.SampledFrom([]string{"features.f", "features.g", "features.g.x", "this.features.f", "traits.t", "traits.none", "segments.s", "parameters.p", "3", "2.5", `"a b"`, `"3"`, "true", "false", "null", "traits.t.or(3)", "features.f + 1"})
		var expression func(depth int) string
		expression = func(depth int) string {
			switch kind := rapid.IntRange(0, 5).Draw(t, "kind"); {
			case kind <= 2 || depth > 3:
				return operand.Draw(t, "left") + rapid.SampledFrom([]string{" == ", " != ", ">", " < ", " >= ", "<="}).Draw(t, "operator") + operand.Draw(t, "right")
			case kind == 3:
				return rapid.SampledFrom([]string{"", "!"}).Draw(t, "not") + operand.Draw(t, "operand")
			case kind == 4:
				return rapid.SampledFrom([]string{"", "!"}).Draw(t, "not") + "(" + expression(depth+1) + ")"
			}
			return expression(depth+1) + rapid.SampledFrom([]string{" && ", " || "}).Draw(t, "join") + expression(depth+1)
		}
		text := expression(0)
		query, err := bloblang.GlobalEnvironment().Parse(text)
		program, other := segments.CompileProgram(text, names)
		if err != nil || other != nil {
			queries++
			return
		}
		programs++
		require.NotContains(t, text, ".or(")
		in := &inputs{names: []string{"f", "g"}, traits: map[string]event.Value{"t": value.Draw(t, "t")}, in: rapid.Bool().Draw(t, "in")}
		in.features = []features.Result{{Value: value.Draw(t, "f")}, {Shape: features.Object, Entries: []features.Entry{{Name: "x", Value: value.Draw(t, "x")}}}}
		if rapid.IntRange(0, 3).Draw(t, "none") == 0 {
			in.features[1] = features.Result{}
		}
		result, err := query.Query(in.Document())
		want, ok := result.(bool)
		got, known := program.Holds(in)
		if known {
			require.Equal(t, err == nil && ok && want, got, "%s of %v: %v %v", text, in.Document(), result, err)
		}
	})
	require.Greater(t, programs, queries/4, "most are programs")
	for _, text := range []string{`features.f > 3 && !segments.s`, `traits.t == "a b"`, `(features.g.x >= parameters.p || segments.s) && features.f == 3`} {
		_, err := segments.CompileProgram(text, names)
		require.NoError(t, err, text)
	}
	for _, text := range []string{`features.f.round() > 3`, `features.f + 1 > 3`, `-1 < features.f`, `traits.t == "a\"b"`, `# all
true`, `root = true`, ``, `features.f >`, `!features.f > 3`, strings.Repeat("(", 10)} {
		_, err := segments.CompileProgram(text, names)
		require.ErrorIs(t, err, segments.ErrUnsupported, text)
	}
}
