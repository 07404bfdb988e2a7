package profile_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/event"
	"github.com/connect-personalize/connect-personalize/plugins/feature"
	"github.com/connect-personalize/connect-personalize/plugins/profile"
	"github.com/connect-personalize/connect-personalize/plugins/segment"
)

// half is a feature computed from another.
func half(of string) *feature.Derived {
	return &feature.Derived{Needs: []string{of}, Compute: func(in feature.Inputs) feature.Result {
		n, _ := in.Feature(of).Number()
		return feature.Result{Value: feature.Of(n / 2)}
	}}
}

// TestRenderingsAreTheProfile: a rendering gives, for every moment it holds
// for, the very bytes that the record gives.
func TestRenderingsAreTheProfile(t *testing.T) {
	const ms, longest = int64(1), 140 * day
	rapid.Check(t, func(t *rapid.T) {
		specs, _ := genFeatures(t)
		if rapid.Bool().Draw(t, "derived") {
			specs = append(specs, feature.Spec{Name: "half", Kind: feature.Ratio, Derived: half(specs[0].Name)})
		}
		if rapid.Bool().Draw(t, "model") {
			specs = append(specs, feature.Spec{Name: "model", Kind: feature.Purchases, Events: []string{"Order Completed"}, Of: "properties.total",
				Model: func(h feature.PurchaseHistory) feature.Result {
					return feature.Result{Value: feature.Of(float64(h.Repeat) + h.Age.Hours() + h.MeanSpend)}
				}})
		}
		def := newDefinition(t, specs)
		if rapid.Bool().Draw(t, "segments") {
			def.Segments = segmentsOf(t, def, segment.Spec{Name: "some", When: "features." + specs[0].Name + " > 1"})
		}
		var p event.Parser
		r := &profile.Record{}
		r.Reset(def)
		_, err := r.SetTrait([]byte("timezone"), event.Value{Kind: event.String, Text: []byte(zone.String())}, 1, nil)
		require.NoError(t, err)
		for i := range rapid.IntRange(0, 30).Draw(t, "events") {
			applyRaw(t, def, &p, r, genEvent(t, i))
		}
		r = reload(t, def, r)

		var w profile.Viewer
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
			want, err := w.AppendJSON([]byte("before"), r, "u1", from+after, &profile.Everything)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), "%d ms later", after)
		}
		_, ok := v.AppendJSON(nil, from)
		require.True(t, ok, "it holds when it is made")
		_, ok = v.AppendJSON(nil, from-1)
		require.False(t, ok, "it does not hold before")
	})
}

// TestRenderingsLast: the ordinary definition of a shop gets renderings, which
// hold until the first event leaves a window.
// segmentsOf makes segments of comparisons.
func segmentsOf(t require.TestingT, def *profile.Definition, specs ...segment.Spec) *segment.Set {
	none := &segment.Parameters{}
	set, err := segment.New(specs, def.Features, func() *segment.Parameters { return none }, func(text string, names segment.Names) (segment.Rule, error) {
		program, err := segment.CompileProgram(text, names)
		return func(in segment.Inputs) bool {
			holds, _ := program.Holds(in)
			return holds
		}, err
	})
	require.NoError(t, err)
	return set
}

func TestRenderingsLast(t *testing.T) {
	orders := func(name string, kind feature.Kind, window time.Duration) feature.Spec {
		return feature.Spec{Name: name, Kind: kind, Events: []string{"Order Completed"}, Window: window, Unit: time.Hour}
	}
	def := newDefinition(t, []feature.Spec{orders("count", feature.Count, 30*24*time.Hour), orders("since", feature.TimeSinceLast, 0)})
	var p event.Parser
	r := &profile.Record{}
	r.Reset(def)
	applyRaw(t, def, &p, r, []byte(`{"type":"track","event":"Order Completed","messageId":"1","userId":"u1","timestamp":"2026-01-01T00:00:00Z"}`))
	var w profile.Viewer
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

	query := feature.Spec{Name: "query", Kind: feature.Expression, Derived: half("count")}
	r.Reset(newDefinition(t, []feature.Spec{orders("count", feature.Count, 0), query}))
	v, err = w.Render(r, "u1", epoch)
	require.NoError(t, err)
	require.Nil(t, v, "a query may ask for the time")
}
