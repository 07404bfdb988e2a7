package record_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// everyKind has a feature of every kind of events, with and without groups and
// windows, over a value of any type.
func everyKind() []features.Spec {
	var specs []features.Spec
	for _, kind := range features.Kinds() {
		for _, s := range []features.Spec{
			{Kind: kind},
			{Kind: kind, ValuePath: "properties.v"},
			{Kind: kind, ValuePath: "properties.list[].v"},
			{Kind: kind, ValuePath: "properties.v", GroupPath: "properties.g", Window: 48 * time.Hour},
			{Kind: kind, GroupPath: "properties.g"},
			{Kind: kind, ValuePath: "timestamp"},
		} {
			if kind == features.DecayedSum {
				s.HalfLife = time.Hour
			}
			s.Name = "f"
			if _, err := features.New([]features.Spec{s}, nil); err != nil {
				continue // the kind does not accept it
			}
			s.Name = fmt.Sprintf("f%d", len(specs))
			specs = append(specs, s)
		}
	}
	return specs
}

// Every reader of a record returns valid JSON in UTF-8 for every accepted event,
// whether it is stored individually or folded.
func TestEveryReaderReturnsValidJSON(t *testing.T) {
	values := rapid.OneOf(
		rapid.SampledFrom([]string{
			"1e308", "-1e308", "1.7976931348623157e308", "1e155", "5e-324", "1e999", "nan", "NaN", "inf", "-Infinity", "-0", "007", "1e",
			`"\ud83d"`, `"\ud83d\ude00"`, "\"\xff\"", "\"\x01\"", `"</script>"`, `{"a":1e999}`, `{"a":nan}`, "{\"a\xff\":\"\xfe\"}", "[1e400,\"\\udc00\"]", "null", "true",
		}),
		rapid.Map(rapid.Float64(), func(f float64) string { return fmt.Sprint(f) }),
		rapid.Map(rapid.String(), func(s string) string { return `"` + s + `"` }),
	)
	def := newDefinition(t, everyKind())
	def.Events = 4
	rapid.Check(t, func(t *rapid.T) {
		rec := &record.Record{}
		rec.Reset(def)
		var p event.Parser
		for i := range rapid.IntRange(1, 12).Draw(t, "events") {
			v, g := values.Draw(t, "v"), values.Draw(t, "g")
			raw := fmt.Appendf(nil, `{"messageId":"m%d","userId":"u1","type":"track","event":"E","timestamp":"2026-01-%02dT00:00:00Z","properties":{"v":%s,"g":%s,"list":[{"v":%s},{"v":%s}]}}`,
				i, 1+i, v, g, v, g)
			e, err := p.Parse(raw)
			if err != nil {
				continue
			}
			extract, _ := def.Features.Extract(nil, e)
			_, err = rec.Apply(record.Fact{Time: e.Time, ReceivedAt: e.Time, ID: record.HashID(e.MessageID), Extract: extract})
			require.NoError(t, err)
			encoded := rec.Encode(nil, "uu1")
			rec = &record.Record{}
			require.NoError(t, rec.Decode(def, "uu1", encoded))
		}
		asOf := time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC).UnixMilli()
		requireJSON := func(reader string, text []byte, err error) {
			require.NoError(t, err, reader)
			require.True(t, json.Valid(text) && utf8.Valid(text), "%s: %q", reader, text)
		}
		var w record.Viewer
		profile, err := w.AppendJSON(nil, rec, "u1", asOf, &record.Everything)
		requireJSON("profile", profile, err)
		export, err := rec.AppendExport(nil, "uu1")
		requireJSON("export", export, err)
		explained, err := w.Explain(rec, "u1", asOf)
		require.NoError(t, err)
		text, err := json.Marshal(explained)
		requireJSON("explain", text, err)
		rendering, err := w.Render(rec, "u1", asOf)
		require.NoError(t, err)
		if rendering != nil {
			later, ok := rendering.AppendJSON(nil, asOf+1)
			require.True(t, ok)
			requireJSON("rendering", later, nil)
		}
	})
}
