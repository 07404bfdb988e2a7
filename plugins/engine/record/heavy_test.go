package record_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
)

// heavySpecs returns features with bounds that the oracle can compute: totals
// of non-negative values grow with the window.
func heavySpecs() []features.Spec {
	const days = 24 * time.Hour
	var specs []features.Spec
	add := func(s features.Spec) {
		s.Name = fmt.Sprintf("f%d", len(specs))
		specs = append(specs, s)
	}
	for _, w := range []time.Duration{0, 7 * days, 30 * days, 90 * days} {
		add(features.Spec{Kind: features.Count, Window: w})
		add(features.Spec{Kind: features.Count, Window: w, GroupPath: "properties.category"})
		add(features.Spec{Kind: features.Sum, ValuePath: "properties.total", Events: []string{"Order Completed"}, Window: w})
		add(features.Spec{Kind: features.Sum, ValuePath: "properties.products[].price", GroupPath: "properties.products[].sku", Window: w})
		add(features.Spec{Kind: features.Max, ValuePath: "properties.total", Window: w})
		add(features.Spec{Kind: features.Last, ValuePath: "properties.category", Window: w})
		add(features.Spec{Kind: features.LastK, ValuePath: "properties.category", K: 5, Window: w})
		add(features.Spec{Kind: features.TimeSinceLast, Window: w, Unit: time.Second})
		add(features.Spec{Kind: features.DistinctCount, ValuePath: "properties.category", Window: w})
	}
	for _, k := range []features.Kind{features.Avg, features.Min, features.Stddev, features.First} {
		add(features.Spec{Kind: k, ValuePath: "properties.total"})
	}
	add(features.Spec{Kind: features.First, ValuePath: "timestamp"})
	add(features.Spec{Kind: features.TimeSinceFirst, Unit: time.Hour})
	add(features.Spec{Kind: features.IntervalMean, Unit: time.Hour})
	add(features.Spec{Kind: features.IntervalMean, Unit: time.Hour, GroupPath: "properties.products[].sku"})
	add(features.Spec{Kind: features.Sum, ValuePath: "properties.products[].price"})
	add(features.Spec{Kind: features.DaysActive})
	add(features.Spec{Kind: features.TopK, ValuePath: "properties.category", K: 3})
	add(features.Spec{Kind: features.UniqueValues, ValuePath: "properties.category", K: 5})
	add(features.Spec{Kind: features.DecayedSum, Weights: map[string]float64{"page": 2}, HalfLife: 5 * days})
	return specs
}

func naiveOf(s features.Spec) oracle.Feature {
	return oracle.Feature{
		Name: s.Name, Kind: string(s.Kind), Events: s.Events, Of: s.ValuePath, By: s.GroupPath, Window: s.Window, Unit: s.Unit,
		Limit: features.DefaultLimit, K: s.K, HalfLife: s.HalfLife, Weights: s.Weights, Zone: time.UTC,
	}
}

// genHeavy returns a history of n events over 120 days, without negative
// totals.
func genHeavy(r *rand.Rand, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		at := time.UnixMilli(epoch + int64(i)*120*day/int64(n) + r.Int64N(day)).UTC().Format(time.RFC3339Nano)
		name := `"type":"track","event":"Order Completed"`
		if r.IntN(3) > 0 {
			name = `"type":"page"`
		}
		out[i] = fmt.Appendf(nil, `{%s,"messageId":"m%d","userId":"u1","timestamp":"%s","properties":{"total":%d.%02d,"category":"c%d","products":[{"sku":"s%d","price":%d.5},{"sku":"s%d","price":2}]}}`,
			name, i, at, r.IntN(100), r.IntN(100), r.IntN(8), r.IntN(5), r.IntN(50), r.IntN(5))
	}
	return out
}

// TestHeavyCustomersStayWithinBounds compares features of folded events with
// the oracle. A feature without a window equals its definition; a feature with
// a window lies between its values for the narrowest and the widest window of
// the documented bound.
func TestHeavyCustomersStayWithinBounds(t *testing.T) {
	specs := heavySpecs()
	def := newDefinition(t, specs)
	def.Events = 64
	for seed := range heavyCases(t) {
		r := rand.New(rand.NewPCG(seed, 0))
		raw := genHeavy(r, 1000)
		// Events are up to 40 places late, and some are repeated.
		arrivals := slices.Clone(raw)
		for i := range arrivals {
			j := min(len(raw)-1, i+r.IntN(40))
			arrivals[i], arrivals[j] = arrivals[j], arrivals[i]
			if r.IntN(10) == 0 {
				arrivals = append(arrivals, arrivals[i])
			}
		}
		var history []oracle.Event
		for _, e := range raw {
			history = append(history, oracle.Parse(e, record.HashID))
		}
		var p event.Parser
		rec := &record.Record{}
		rec.Reset(def)
		for i, e := range arrivals[:len(raw)] {
			applyRaw(t, def, &p, rec, e)
			if i%97 == 0 {
				rec = reload(t, def, rec)
			}
		}
		for _, e := range arrivals[max(0, len(arrivals)-60):] {
			applyRaw(t, def, &p, rec, e) // remembered events, which change nothing
		}
		rec = reload(t, def, rec)

		asOf := rec.LastEventAt() + r.Int64N(40*day)
		got := featuresOf(t, rec, asOf)
		for _, s := range specs {
			f := naiveOf(s)
			if s.Window == 0 {
				requireSame(t, oracle.Evaluate(f, history, asOf), got[s.Name], fmt.Sprintf("%+v", f))
				continue
			}
			slack := s.Window / 32 // series with groups, distinct values or days
			if s.Kind == features.Sum && s.GroupPath == "" {
				slack = s.Window / 64
			}
			narrow, wide := f, f
			narrow.Window -= slack
			wide.Window += slack
			requireBetween(t, oracle.Evaluate(narrow, history, asOf), oracle.Evaluate(wide, history, asOf), got[s.Name], fmt.Sprintf("%+v", f))
		}
	}
}

// heavyCases returns the number of long histories: a thousandth of CASES,
// because each has a thousand events.
func heavyCases(t *testing.T) uint64 {
	text := os.Getenv("CASES")
	if text == "" {
		return 5
	}
	n, err := strconv.ParseUint(text, 10, 32)
	require.NoError(t, err)
	return max(5, n/1000)
}

func requireBetween(t require.TestingT, low, high, got any, what string) {
	switch h := high.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		require.True(t, ok, "%s: %v", what, got)
		l := low.(map[string]any)
		for name := range h {
			lowest, there := l[name]
			if !there {
				lowest = 0.0
			}
			value, there := g[name]
			if !there {
				value = 0.0
			}
			requireBetween(t, lowest, h[name], value, what+"."+name)
		}
		require.LessOrEqual(t, len(g), len(h), what)
	case float64:
		l, _ := low.(float64)
		g, ok := got.(float64)
		if !ok {
			require.Nil(t, low, "%s: %v", what, got)
			return
		}
		require.True(t, l-1e-6 <= g && g <= h+1e-6, "%s: %v is not in [%v, %v]", what, g, l, h)
	default:
		if fmt.Sprint(low) == fmt.Sprint(high) {
			require.Equal(t, high, got, what)
		}
	}
}

// TestAMillionEventsFitIn64KiB uses the feature set of the shop.
func TestAMillionEventsFitIn64KiB(t *testing.T) {
	const days = 24 * time.Hour
	orders, views, pages, mails := []string{"Order Completed"}, []string{"Product Viewed"}, []string{"page"}, []string{"Email Opened"}
	specs := []features.Spec{
		{Name: "orders", Kind: features.Count, Events: orders},
		{Name: "orders_30d", Kind: features.Count, Events: orders, Window: 30 * days},
		{Name: "revenue", Kind: features.Sum, Events: orders, ValuePath: "properties.total"},
		{Name: "revenue_90d", Kind: features.Sum, Events: orders, ValuePath: "properties.total", Window: 90 * days},
		{Name: "average", Kind: features.Avg, Events: orders, ValuePath: "properties.total"},
		{Name: "largest", Kind: features.Max, Events: orders, ValuePath: "properties.total"},
		{Name: "first_order", Kind: features.First, Events: orders, ValuePath: "timestamp"},
		{Name: "last_order", Kind: features.Last, Events: orders, ValuePath: "timestamp"},
		{Name: "since_order", Kind: features.TimeSinceLast, Events: orders},
		{Name: "by_category", Kind: features.Sum, Events: orders, ValuePath: "properties.products[].price", GroupPath: "properties.products[].sku"},
		{Name: "views_7d", Kind: features.Count, Events: views, Window: 7 * days},
		{Name: "products_30d", Kind: features.DistinctCount, Events: views, ValuePath: "properties.product_id", Window: 30 * days},
		{Name: "last_product", Kind: features.Last, Events: views, ValuePath: "properties.product_id"},
		{Name: "views_by_category", Kind: features.Count, Events: views, GroupPath: "properties.category", Window: 30 * days},
		{Name: "adds", Kind: features.Count, Events: []string{"Product Added"}, Window: 7 * days},
		{Name: "pages", Kind: features.Count, Events: pages, Window: days},
		{Name: "opened", Kind: features.Count, Events: mails, Window: 30 * days},
		{Name: "clicked", Kind: features.Count, Events: []string{"Email Link Clicked"}, Window: 30 * days},
		{Name: "last_open", Kind: features.Last, Events: mails, ValuePath: "timestamp"},
		{Name: "active", Kind: features.Last, ValuePath: "timestamp"},
	}
	def := newDefinition(t, specs)
	r := rand.New(rand.NewPCG(1, 1))
	var p event.Parser
	var extracts [][]byte
	different := map[int]bool{}
	for range 20_000 {
		product := r.IntN(1500)
		name := []string{`"type":"track","event":"Order Completed"`, `"type":"track","event":"Product Viewed"`, `"type":"track","event":"Email Opened"`, `"type":"page"`}[r.IntN(4)]
		e, err := p.Parse(fmt.Appendf(nil, `{%s,"messageId":"m","userId":"u1","timestamp":"2026-01-01T00:00:00Z","properties":{"total":%d.%02d,"category":"category-%d","product_id":"product-%d","products":[{"sku":"sku-%d","price":%d.5}]}}`,
			name, r.IntN(100), r.IntN(100), r.IntN(12), product, r.IntN(300), r.IntN(50)))
		require.NoError(t, err)
		if string(e.Name) == "Product Viewed" {
			different[product] = true
		}
		extract, _ := def.Features.Extract(nil, e)
		extracts = append(extracts, extract)
	}
	events := uint64(1_000_000)
	if raceDetector {
		events /= 20
	}
	rec := &record.Record{}
	rec.Reset(def)
	size, largest := 0, 0
	for i := range events {
		at := epoch + int64(i)*365*day/int64(events)
		_, err := rec.Apply(record.Fact{Time: at, ReceivedAt: at, ID: i*0x9e3779b97f4a7c15 + 1, Extract: extracts[r.IntN(len(extracts))]})
		require.NoError(t, err)
		if i%10_000 == 0 {
			size = len(rec.Encode(nil, "uu1"))
			largest = max(largest, size)
		}
	}
	require.Less(t, largest, 64<<10)
	t.Logf("largest record %d bytes, last %d", largest, size)
	got := featuresOf(t, rec, rec.LastEventAt())
	require.InEpsilon(t, float64(events)/4, got["orders"], 0.05)
	require.InEpsilon(t, float64(events)/4*30/365, got["orders_30d"], 0.05)
	if !raceDetector { // fewer events do not contain every product in 30 days
		// Four standard errors of the sketch.
		require.InEpsilon(t, float64(len(different)), got["products_30d"], 4*0.046)
	}
	require.False(t, math.IsNaN(got["revenue"].(float64)))
}

// TestPastValuesAreWithinTheBoundOrRefused: tiles are bounded relative to the
// latest event, so that a window that ended long before it can begin inside a
// tile that is too long. The viewer reports such a value.
func TestPastValuesAreWithinTheBoundOrRefused(t *testing.T) {
	const hours = 3000
	def := newDefinition(t, []features.Spec{
		{Name: "all", Kind: features.Count},
		{Name: "week", Kind: features.Count, Window: 7 * 24 * time.Hour},
	})
	rec := &record.Record{}
	rec.Reset(def)
	var p event.Parser
	e, err := p.Parse([]byte(`{"type":"page","messageId":"m","userId":"u1","timestamp":"2026-01-01T00:00:00Z"}`))
	require.NoError(t, err)
	extract, _ := def.Features.Extract(nil, e)
	for i := range int64(hours) {
		_, err := rec.Apply(record.Fact{Time: epoch + i*day/24, ReceivedAt: epoch + i*day/24, ID: uint64(i) + 1, Extract: extract})
		require.NoError(t, err)
	}
	refused := 0
	for asOf := rec.FoldedTo(); asOf <= rec.LastEventAt()+day; asOf += day / 2 {
		var w record.Viewer
		raw, err := w.AppendJSON(nil, rec, "u1", asOf, &record.Everything)
		require.NoError(t, err)
		if !w.IsWithinBound() {
			refused++
			require.Less(t, asOf, rec.LastEventAt(), "the present is never refused")
			continue
		}
		var view struct{ Features map[string]float64 }
		require.NoError(t, json.Unmarshal(raw, &view))
		want := 168.0 - max(0, float64(asOf-rec.LastEventAt())/float64(day/24))
		require.InDelta(t, want, view.Features["week"], 3, "as of %d", asOf)
	}
	require.Positive(t, refused)
}

// TestReplayOfAHeavyCustomerCountsNothing: a repeated history changes nothing,
// however long it is, and a late event counts while its time is remembered.
func TestReplayOfAHeavyCustomerCountsNothing(t *testing.T) {
	def := newDefinition(t, []features.Spec{{Name: "all", Kind: features.Count}})
	for _, test := range []struct{ keep, events int }{{16, 1037}, {16, 1100}, {512, 1416}, {512, 3000}} {
		def.Events = test.keep
		rec := &record.Record{}
		rec.Reset(def)
		var p event.Parser
		apply := func(i int) {
			applyRaw(t, def, &p, rec, fmt.Appendf(nil, `{"type":"page","messageId":"m%d","userId":"u1","timestamp":%q}`,
				i, time.UnixMilli(epoch+int64(i/2)*60_000).UTC().Format(time.RFC3339Nano)))
		}
		count := func() any { return featuresOf(t, rec, epoch+day*400)["all"] }
		late := test.events - test.keep - 500
		for i := range test.events {
			if i != late {
				apply(i)
			}
		}
		rec = reload(t, def, rec)
		once := rec.Encode(nil, "uu1")
		require.Equal(t, float64(test.events-1), count())
		for i := range test.events {
			if i != late {
				apply(i)
			}
		}
		require.Equal(t, once, rec.Encode(nil, "uu1"), "keep %d, %d events", test.keep, test.events)
		apply(late)
		require.Equal(t, float64(test.events), count(), "a late event of a remembered time counts")
	}
}

// TestHoursOfFoldedEvents: each folded event counts in its local hour, with the
// offset from UTC at its time, also if the time zone is set after folding.
func TestHoursOfFoldedEvents(t *testing.T) {
	specs := []features.Spec{{Name: "hours", Kind: features.HourHistogram}, {Name: "best", Kind: features.BestSendHour}}
	def := newDefinition(t, specs)
	def.Events = 16
	for seed, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Sydney", "Asia/Kolkata", "Asia/Kathmandu", "UTC"} {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		for _, before := range []bool{true, false} {
			r := rand.New(rand.NewPCG(uint64(seed), 0))
			rec := &record.Record{}
			rec.Reset(def)
			setZone := func() {
				_, err := rec.SetTrait([]byte("timezone"), event.Value{Kind: event.String, Text: []byte(name)}, record.Statement{Time: 1})
				require.NoError(t, err)
			}
			if before {
				setZone()
			}
			var p event.Parser
			var history []oracle.Event
			for i := range 600 { // over two years
				at := time.UnixMilli(epoch + int64(i)*730*day/600 + r.Int64N(2*day)).UTC().Format(time.RFC3339Nano)
				raw := fmt.Appendf(nil, `{"type":"page","messageId":"m%d","userId":"u1","timestamp":%q}`, i, at)
				history = append(history, oracle.Parse(raw, record.HashID))
				applyRaw(t, def, &p, rec, raw)
			}
			if !before {
				setZone()
			}
			got := featuresOf(t, reload(t, def, rec), epoch+800*day)
			for _, s := range specs {
				f := naiveOf(s)
				f.Zone = zone
				requireSame(t, oracle.Evaluate(f, history, epoch+800*day), got[s.Name], fmt.Sprintf("%s, set before folding: %v", name, before))
			}
		}
	}
}

// TestIntervalsAreBetweenEvents: there is no interval between the elements of one
// event's array, whether the event is stored individually or folded.
func TestIntervalsAreBetweenEvents(t *testing.T) {
	for _, keep := range []int{0, 1} {
		def := newDefinition(t, []features.Spec{
			{Name: "mean", Kind: features.IntervalMean, GroupPath: "properties.products[].category"},
			{Name: "stddev", Kind: features.IntervalStddev, GroupPath: "properties.products[].category"},
		})
		def.Events = keep
		var p event.Parser
		rec := &record.Record{}
		rec.Reset(def)
		add := func(id string, second int) map[string]any {
			applyRaw(t, def, &p, rec, fmt.Appendf(nil, `{"type":"track","event":"A","messageId":%q,"userId":"u1","timestamp":"2026-11-01T10:00:%02d.000Z","properties":{"products":[{"category":"a"},{"category":"a"}]}}`, id, second))
			rec = reload(t, def, rec)
			return featuresOf(t, rec, rec.LastEventAt()+day)
		}
		got := add("m1", 0)
		require.Equal(t, map[string]any{"a": nil}, got["mean"])
		require.Equal(t, map[string]any{"a": nil}, got["stddev"])
		add("m2", 10)
		got = add("m3", 30)
		require.Equal(t, map[string]any{"a": 15.0}, got["mean"])
		require.Equal(t, map[string]any{"a": 5.0}, got["stddev"])
	}
}
