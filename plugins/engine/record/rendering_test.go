package record_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
)

// half is a feature derived from another.
func half(of string) *features.Derived {
	return &features.Derived{Needs: []string{of}, Compute: func(in features.Inputs) features.Result {
		n, _ := in.Feature(of).Number()
		return features.Result{Value: features.ValueOf(n / 2)}
	}}
}

// TestRenderingEqualsProfile compares a rendering with the profile of the
// record, for every moment for which it is valid.
func TestRenderingEqualsProfile(t *testing.T) {
	const ms, longest = int64(1), 140 * day
	rapid.Check(t, func(t *rapid.T) {
		specs, _ := genFeatures(t)
		if rapid.Bool().Draw(t, "derived") {
			specs = append(specs, features.Spec{Name: "half", Kind: features.Ratio, Derived: half(specs[0].Name)})
		}
		if rapid.Bool().Draw(t, "model") {
			specs = append(specs, features.Spec{Name: "model", Kind: features.Purchases, Events: []string{"Order Completed"}, ValuePath: "properties.total",
				Model: func(h features.PurchaseHistory) features.Result {
					return features.Result{Value: features.ValueOf(float64(h.Repeat) + h.Age.Hours() + h.MeanSpend)}
				}})
		}
		def := newDefinition(t, specs)
		if rapid.Bool().Draw(t, "segments") {
			def.Segments = segmentsOf(t, def, segments.Spec{Name: "some", When: "features." + specs[0].Name + " > 1"})
		}
		var p event.Parser
		r := &record.Record{}
		r.Reset(def)
		_, err := r.SetTrait([]byte("timezone"), event.Value{Kind: event.String, Text: []byte(zone.String())}, record.Statement{Time: 1})
		require.NoError(t, err)
		for i := range rapid.IntRange(0, 30).Draw(t, "events") {
			applyRaw(t, def, &p, r, genEvent(t, i))
		}
		r = reload(t, def, r)

		var w record.Viewer
		from := epoch + rapid.Int64Range(-1, 140).Draw(t, "fromDay")*day + rapid.Int64Range(-2, 2).Draw(t, "fromMs")
		v, err := w.Render(r, "u1", from)
		require.NoError(t, err)
		if v == nil {
			return
		}
		holds := 0
		for range 12 {
			after := rapid.OneOf(rapid.Just(int64(0)), rapid.Just(ms), rapid.Int64Range(0, 5), rapid.Int64Range(0, day), rapid.Int64Range(0, longest)).Draw(t, "after")
			got, ok := v.AppendJSON([]byte("before"), from+after)
			if !ok {
				require.Equal(t, "before", string(got))
				continue
			}
			holds++
			want, err := w.AppendJSON([]byte("before"), r, "u1", from+after, &record.Everything)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), "%d ms later", after)
		}
		_, ok := v.AppendJSON(nil, from)
		require.True(t, ok, "it holds when it is made")
		_, ok = v.AppendJSON(nil, from-1)
		require.False(t, ok, "it does not hold before")
	})
}

// segmentsOf compiles segments that consist of comparisons.
func segmentsOf(t require.TestingT, def *record.Definition, specs ...segments.Spec) *segments.Set {
	none := &segments.Parameters{}
	set, err := segments.New(specs, def.Features, func() *segments.Parameters { return none }, func(text string, names segments.Names) (segments.Rule, error) {
		program, err := segments.CompileProgram(text, names)
		return func(in segments.Inputs) bool {
			holds, _ := program.Holds(in)
			return holds
		}, err
	})
	require.NoError(t, err)
	return set
}

// TestRenderingsOfTheShopExist shows that the ordinary definition of a shop has
// renderings, which are valid until the first event leaves a window.
func TestRenderingsOfTheShopExist(t *testing.T) {
	orders := func(name string, kind features.Kind, window time.Duration) features.Spec {
		return features.Spec{Name: name, Kind: kind, Events: []string{"Order Completed"}, Window: window, Unit: time.Hour}
	}
	def := newDefinition(t, []features.Spec{orders("count", features.Count, 30*24*time.Hour), orders("since", features.TimeSinceLast, 0)})
	var p event.Parser
	r := &record.Record{}
	r.Reset(def)
	applyRaw(t, def, &p, r, []byte(`{"type":"track","event":"Order Completed","messageId":"1","userId":"u1","timestamp":"2026-01-01T00:00:00Z"}`))
	var w record.Viewer
	v, err := w.Render(r, "u1", epoch)
	require.NoError(t, err)
	require.NotNil(t, v)
	got, ok := v.AppendJSON(nil, epoch+day/2)
	require.True(t, ok)
	require.JSONEq(t, `{"id":"u1","traits":{},"features":{"count":1,"since":12},"as_of":"2026-01-01T12:00:00.000Z","updated_at":"2026-01-01T00:00:00.000Z"}`, string(got))
	_, ok = v.AppendJSON(nil, epoch+30*day-1)
	require.True(t, ok)
	_, ok = v.AppendJSON(nil, epoch+30*day)
	require.False(t, ok)

	query := features.Spec{Name: "query", Kind: features.Expression, Derived: half("count")}
	r.Reset(newDefinition(t, []features.Spec{orders("count", features.Count, 0), query}))
	v, err = w.Render(r, "u1", epoch)
	require.NoError(t, err)
	require.Nil(t, v, "a query may ask for the time")
}
