package record_test

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
)

const day = int64(24 * time.Hour / time.Millisecond)

// zone has an offset of half hours, and a change of daylight saving time in
// these days.
var zone, _ = time.LoadLocation("Australia/Adelaide")

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// genEvent draws an event within 100 days with properties of every type, or
// absent.
func genEvent(t *rapid.T, i int) []byte {
	properties := map[string]any{}
	if v := rapid.SampledFrom([]any{nil, 12.5, 29.99, 0.1, 1e-7, -3.0, 100000.01, "19.90", true}).Draw(t, "total"); v != nil {
		properties["total"] = v
	}
	if v := rapid.SampledFrom([]any{nil, "shoes", "hats", "Größe/\"9\"", 7.0, false, map[string]any{"a": []any{1.0}}}).Draw(t, "category"); v != nil {
		properties["category"] = v
	}
	if rapid.Bool().Draw(t, "hasProducts") {
		products := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "products") {
			products = append(products, map[string]any{
				"sku":   rapid.SampledFrom([]any{"s1", "s2", "s3", nil}).Draw(t, "sku"),
				"price": rapid.SampledFrom([]any{9.99, 5.0, nil, "5"}).Draw(t, "price"),
			})
		}
		properties["products"] = products
	}
	e := map[string]any{
		"messageId":  fmt.Sprintf("m%d", i),
		"userId":     "u1",
		"timestamp":  time.UnixMilli(epoch + rapid.Int64Range(0, 100).Draw(t, "day")*day + rapid.Int64Range(0, 3).Draw(t, "ms")).UTC().Format(time.RFC3339Nano),
		"properties": properties,
	}
	if name := rapid.SampledFrom([]string{"Order Completed", "Product Viewed", "page", "identify"}).Draw(t, "name"); name == "page" || name == "identify" {
		e["type"] = name
	} else {
		e["type"], e["event"] = "track", name
	}
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const wherePaid = "paid"

func paid(e map[string]any) bool {
	p, _ := e["properties"].(map[string]any)
	total, ok := p["total"].(float64)
	return ok && total > 10
}

func compilePaid(text string) (features.Predicate, error) {
	if text != wherePaid {
		return nil, fmt.Errorf("unknown condition %q", text)
	}
	return func(e *event.Event) (bool, error) { return paid(e.Structured().(map[string]any)), nil }, nil
}

// genFeatures draws a definition for the engine and the same for the oracle.
func genFeatures(t *rapid.T) ([]features.Spec, []oracle.Feature) {
	var specs []features.Spec
	var naive []oracle.Feature
	for i := range rapid.IntRange(1, 12).Draw(t, "features") {
		kind := rapid.SampledFrom(features.Kinds()).Draw(t, "kind")
		s := features.Spec{
			Name:   fmt.Sprintf("f%d", i),
			Kind:   kind,
			Events: rapid.SampledFrom([][]string{nil, {"Order Completed"}, {"page", "Product Viewed"}}).Draw(t, "events"),
			Where:  rapid.SampledFrom([]string{"", "", wherePaid}).Draw(t, "where"),
			Window: rapid.SampledFrom([]time.Duration{0, 24 * time.Hour, 30 * 24 * time.Hour, time.Millisecond}).Draw(t, "window"),
			Unit:   rapid.SampledFrom([]time.Duration{time.Second, 24 * time.Hour}).Draw(t, "unit"),
			Limit:  rapid.SampledFrom([]int{2, 50}).Draw(t, "limit"),
		}
		by := []string{"", "", "properties.category", "properties.products[].sku"}
		switch kind {
		case features.Count:
			s.GroupPath = rapid.SampledFrom(by).Draw(t, "by")
		case features.Sum, features.Avg, features.Min, features.Max:
			s.ValuePath = rapid.SampledFrom([]string{"properties.total", "properties.products[].price"}).Draw(t, "of")
			s.GroupPath = rapid.SampledFrom(by).Draw(t, "by")
		case features.DistinctCount:
			s.ValuePath = rapid.SampledFrom([]string{"properties.category", "properties.products[].sku", "properties.total"}).Draw(t, "of")
			s.GroupPath = rapid.SampledFrom(by).Draw(t, "by")
		case features.First, features.Last:
			s.ValuePath = rapid.SampledFrom([]string{"timestamp", "properties.category", "properties.products[].sku"}).Draw(t, "of")
			s.GroupPath = rapid.SampledFrom(by).Draw(t, "by")
			if s.ValuePath == "properties.products[].sku" && s.GroupPath == "properties.category" || s.GroupPath != "" && s.ValuePath == "timestamp" {
				s.GroupPath = ""
			}
		case features.Stddev:
			s.ValuePath = "properties.total"
			s.GroupPath = rapid.SampledFrom(by).Draw(t, "by")
		case features.LastK:
			s.ValuePath = rapid.SampledFrom([]string{"timestamp", "properties.category", "properties.products[].sku"}).Draw(t, "of")
			s.K = rapid.IntRange(1, 5).Draw(t, "k")
		case features.TopK, features.UniqueValues:
			s.ValuePath = rapid.SampledFrom([]string{"properties.category", "properties.products[].sku"}).Draw(t, "of")
			s.K = rapid.IntRange(1, 5).Draw(t, "k")
		case features.TimeSinceFirst, features.TimeSinceLast, features.IntervalMean, features.IntervalStddev:
			s.GroupPath = rapid.SampledFrom(by).Draw(t, "by")
		case features.DecayedSum:
			s.HalfLife = rapid.SampledFrom([]time.Duration{time.Hour, 7 * 24 * time.Hour}).Draw(t, "halfLife")
			switch rapid.IntRange(0, 2).Draw(t, "values") {
			case 0:
				s.ValuePath = "properties.total"
			case 1:
				s.Events = nil
				s.Weights = map[string]float64{"Order Completed": 5, "page": 0.5}
			}
		}
		specs = append(specs, s)
		o := oracle.Feature{Name: s.Name, Kind: string(kind), Events: s.Events, Of: s.ValuePath, By: s.GroupPath, Window: s.Window, Unit: s.Unit, Limit: s.Limit, K: s.K, HalfLife: s.HalfLife, Weights: s.Weights, Zone: zone}
		if s.Where != "" {
			o.Where = paid
		}
		naive = append(naive, o)
	}
	return specs, naive
}

func newDefinition(t require.TestingT, specs []features.Spec) *record.Definition {
	def, err := features.New(specs, compilePaid)
	require.NoError(t, err)
	return &record.Definition{Features: def}
}

// applyRaw applies an event to a record as update_profile does.
func applyRaw(t require.TestingT, def *record.Definition, p *event.Parser, r *record.Record, raw []byte) {
	e, err := p.Parse(raw)
	require.NoError(t, err)
	extract, failed := def.Features.Extract(nil, e)
	require.Zero(t, failed)
	if len(extract) > 0 || e.Type == event.TypeIdentify {
		_, err := r.Apply(record.Fact{Time: e.Time, ReceivedAt: e.ReceivedAt, ID: record.HashID(e.MessageID), Extract: extract})
		require.NoError(t, err)
	}
}

// reload encodes and decodes a record.
func reload(t require.TestingT, def *record.Definition, r *record.Record) *record.Record {
	stored := r.Encode(nil, "uu1")
	again := &record.Record{}
	require.NoError(t, again.Decode(def, "uu1", stored))
	require.Equal(t, stored, again.Encode(nil, "uu1"), "a decoded record encodes to the same bytes")
	return again
}

func featuresOf(t require.TestingT, r *record.Record, asOf int64) map[string]any {
	var w record.Viewer
	raw, err := w.AppendJSON(nil, r, "u1", asOf, &record.Everything)
	require.NoError(t, err)
	var view struct {
		Features map[string]any `json:"features"`
	}
	require.NoError(t, json.Unmarshal(raw, &view), "%s", raw)
	return view.Features
}

func requireSame(t require.TestingT, want, got any, what string) {
	if w, ok := want.(map[string]any); ok {
		g, ok := got.(map[string]any)
		require.True(t, ok, "%s: want groups, got %v", what, got)
		require.Len(t, g, len(w), what)
		for k := range w {
			requireSame(t, w[k], g[k], what+"."+k)
		}
		return
	}
	if w, ok := want.([]any); ok {
		g, ok := got.([]any)
		require.True(t, ok, "%s: want a list, got %v", what, got)
		require.Len(t, g, len(w), what)
		for i := range w {
			requireSame(t, w[i], g[i], fmt.Sprintf("%s[%d]", what, i))
		}
		return
	}
	w, number := want.(float64)
	g, ok := got.(float64)
	if !number || !ok {
		require.Equal(t, want, got, what)
		return
	}
	// Money is exact; other numbers agree except for the last digits of a
	// float.
	require.LessOrEqual(t, math.Abs(w-g), 1e-9*math.Max(1, math.Abs(w)), "%s: want %v, got %v", what, w, g)
}

// TestFeaturesEqualOracle compares every feature at every moment with the
// oracle, for any history, order, repetition and batches.
func TestFeaturesEqualOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		specs, naive := genFeatures(t)
		def := newDefinition(t, specs)
		var history []oracle.Event
		var arrivals [][]byte
		for i := range rapid.IntRange(0, 30).Draw(t, "events") {
			raw := genEvent(t, i)
			history = append(history, oracle.Parse(raw, record.HashID))
			for range rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(t, "copies") {
				arrivals = append(arrivals, raw)
			}
		}
		arrivals = rapid.Permutation(arrivals).Draw(t, "order")

		var p event.Parser
		r := &record.Record{}
		r.Reset(def)
		_, err := r.SetTrait([]byte("timezone"), event.Value{Kind: event.String, Text: []byte(zone.String())}, record.Statement{Time: 1})
		require.NoError(t, err)
		for _, raw := range arrivals {
			applyRaw(t, def, &p, r, raw)
			if rapid.IntRange(0, 4).Draw(t, "store") == 0 {
				r = reload(t, def, r)
			}
		}
		r = reload(t, def, r)

		for range 4 {
			asOf := epoch + rapid.Int64Range(-1, 140).Draw(t, "asOfDay")*day + rapid.Int64Range(-2, 2).Draw(t, "asOfMs")
			got := featuresOf(t, r, asOf)
			for _, f := range naive {
				requireSame(t, oracle.Evaluate(f, history, asOf), got[f.Name], fmt.Sprintf("%+v as of %d", f, asOf))
			}
		}
	})
}

// TestOrderAndRepetitionKeepBytes shows that every order of arrival gives the
// same stored bytes, and that applying everything again changes nothing.
func TestOrderAndRepetitionKeepBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		specs, _ := genFeatures(t)
		def := newDefinition(t, specs)
		var arrivals [][]byte
		for i := range rapid.IntRange(0, 20).Draw(t, "events") {
			arrivals = append(arrivals, genEvent(t, i))
		}
		var p event.Parser
		var one, other record.Record
		one.Reset(def)
		for _, raw := range arrivals {
			applyRaw(t, def, &p, &one, raw)
		}
		other.Reset(def)
		for _, raw := range rapid.Permutation(arrivals).Draw(t, "order") {
			applyRaw(t, def, &p, &other, raw)
		}
		stored := one.Encode(nil, "uu1")
		require.Equal(t, stored, other.Encode(nil, "uu1"))
		for _, raw := range arrivals {
			applyRaw(t, def, &p, &one, raw)
		}
		require.Equal(t, stored, one.Encode(nil, "uu1"))
	})
}

// TestMergeEqualsOneCustomer splits a history over two customers. The merged
// record equals, to the byte, the record of one customer with the whole
// history, and repeating the merge changes nothing.
func TestMergeEqualsOneCustomer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		specs, _ := genFeatures(t)
		def := newDefinition(t, specs)
		var p event.Parser
		var whole, known, anonymous record.Record
		for _, r := range []*record.Record{&whole, &known, &anonymous} {
			r.Reset(def)
		}
		for i := range rapid.IntRange(0, 20).Draw(t, "events") {
			raw := genEvent(t, i)
			applyRaw(t, def, &p, &whole, raw)
			side := rapid.IntRange(0, 2).Draw(t, "side")
			if side != 0 {
				applyRaw(t, def, &p, &known, raw)
			}
			if side != 1 {
				applyRaw(t, def, &p, &anonymous, raw)
			}
		}
		_, err := known.Merge("aa1", &anonymous)
		require.NoError(t, err)
		require.True(t, known.Merged("aa1"))
		for _, at := range []int64{epoch + 50*day, epoch + 120*day} {
			require.Equal(t, featuresOf(t, &whole, at), featuresOf(t, &known, at))
		}
		stored := known.Encode(nil, "uu1")
		changed, err := known.Merge("aa1", &anonymous)
		require.NoError(t, err)
		require.False(t, changed)
		require.Equal(t, stored, known.Encode(nil, "uu1"))
	})
}
