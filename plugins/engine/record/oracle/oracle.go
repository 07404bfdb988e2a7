// Package oracle computes features naively: it keeps every raw event as
// generic JSON and applies each definition to the whole history, without code
// of the feature engine. Tests compare the engine with it.
package oracle

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"sort"
	"strings"
	"time"
)

// Feature is a definition in the oracle's form.
type Feature struct {
	Name   string
	Kind   string
	Events []string
	Where  func(event map[string]any) bool
	Of, By string
	Window time.Duration
	Unit   time.Duration
	Limit  int
	K      int
	// HalfLife and Weights are those of a decayed_sum.
	HalfLife time.Duration
	Weights  map[string]float64
	// Zone is the customer's time zone.
	Zone *time.Location
}

// Event is a raw event with its sort keys.
type Event struct {
	Time int64
	// Order is the hash of the messageId, which orders events of the same
	// time.
	Order uint64
	ID    string
	Raw   map[string]any
}

// Parse parses an event. order is the hash function of messageIds.
func Parse(raw []byte, order func(messageID []byte) uint64) Event {
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		panic(err)
	}
	t, err := time.Parse(time.RFC3339Nano, m["timestamp"].(string))
	if err != nil {
		panic(err)
	}
	id := m["messageId"].(string)
	return Event{Time: t.UnixMilli(), Order: order([]byte(id)), ID: id, Raw: m}
}

// Evaluate applies a feature to a history, in any order and with repetitions,
// as of a time in Unix milliseconds. The value has the types of encoding/json:
// float64, string, nil, or a map of these.
func Evaluate(f Feature, history []Event, asOf int64) any {
	var events []Event
	seen := map[string]bool{}
	for _, e := range history {
		if seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		if len(f.Events) > 0 && !slices.Contains(f.Events, name(e.Raw)) {
			continue
		}
		if f.Where != nil && !f.Where(e.Raw) {
			continue
		}
		if e.Time > asOf || f.Window > 0 && e.Time <= asOf-f.Window.Milliseconds() {
			continue
		}
		events = append(events, e)
	}
	sort.Slice(events, func(i, j int) bool {
		if events[i].Time != events[j].Time {
			return events[i].Time < events[j].Time
		}
		return events[i].Order < events[j].Order
	})

	var rows []row
	for _, e := range events {
		rows = append(rows, expand(f, e)...)
	}
	if f.By == "" {
		return compute(f, rows, asOf)
	}
	groups := map[string][]row{}
	for _, r := range rows {
		if r.by != nil {
			groups[text(r.by)] = append(groups[text(r.by)], r)
		}
	}
	names := make([]string, 0, len(groups))
	for n := range groups {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := groups[names[i]], groups[names[j]]
		if len(a) != len(b) {
			return len(a) > len(b)
		}
		return names[i] < names[j]
	})
	if f.Limit > 0 && len(names) > f.Limit {
		names = names[:f.Limit]
	}
	out := map[string]any{}
	for _, n := range names {
		out[n] = compute(f, groups[n], asOf)
	}
	return out
}

type row struct {
	time   int64
	of, by any
	name   string
	event  string // its messageId
}

func name(raw map[string]any) string {
	if raw["type"] == "track" {
		return raw["event"].(string)
	}
	return raw["type"].(string)
}

// expand returns one row for the event, or one for each element of the array
// in its paths.
func expand(f Feature, e Event) []row {
	of, by := values(f.Of, e.Raw), values(f.By, e.Raw)
	n := 1
	if strings.Contains(f.Of, "[]") {
		n = len(of)
	} else if strings.Contains(f.By, "[]") {
		n = len(by)
	}
	rows := make([]row, n)
	for i := range rows {
		rows[i].time, rows[i].name, rows[i].event = e.Time, name(e.Raw), e.ID
		rows[i].of, rows[i].by = pick(of, i), pick(by, i)
	}
	return rows
}

func pick(vs []any, i int) any {
	switch {
	case len(vs) == 0:
		return nil
	case i < len(vs):
		return vs[i]
	}
	return vs[0]
}

func values(path string, raw map[string]any) []any {
	if path == "" {
		return nil
	}
	head, tail, each := strings.Cut(path, "[]")
	v := dig(raw, head)
	if !each {
		return []any{v}
	}
	list, _ := v.([]any)
	out := []any{}
	for _, item := range list {
		if tail == "" {
			out = append(out, item)
		} else {
			out = append(out, dig(item, strings.TrimPrefix(tail, ".")))
		}
	}
	return out
}

func dig(v any, path string) any {
	for _, key := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	default:
		b, _ := json.Marshal(v)
		return string(b)
	}
}

func compute(f Feature, rows []row, asOf int64) any {
	var numbers []float64
	var present []any
	for _, r := range rows {
		if n, ok := r.of.(float64); ok {
			numbers = append(numbers, n)
		}
		if r.of != nil {
			present = append(present, r.of)
		}
	}
	switch f.Kind {
	case "count":
		return float64(len(rows))
	case "sum":
		return sum(numbers)
	case "avg":
		if len(numbers) == 0 {
			return nil
		}
		return sum(numbers) / float64(len(numbers))
	case "min":
		if len(numbers) == 0 {
			return nil
		}
		return slices.Min(numbers)
	case "max":
		if len(numbers) == 0 {
			return nil
		}
		return slices.Max(numbers)
	case "first", "last":
		if f.Of == "timestamp" {
			present = nil
			for _, r := range rows {
				present = append(present, written(r.time))
			}
		}
		if len(present) == 0 {
			return nil
		}
		if f.Kind == "first" {
			return present[0]
		}
		return present[len(present)-1]
	case "distinct_count":
		different := map[string]bool{}
		for _, v := range present {
			different[fmt.Sprintf("%T %s", v, text(v))] = true
		}
		return float64(len(different))
	case "time_since_last":
		if len(rows) == 0 {
			return nil
		}
		return float64(asOf-rows[len(rows)-1].time) / float64(f.Unit.Milliseconds())
	}
	unit := float64(f.Unit.Milliseconds())
	switch f.Kind {
	case "time_since_first":
		if len(rows) == 0 {
			return nil
		}
		return float64(asOf-rows[0].time) / unit
	case "stddev":
		if len(numbers) == 0 {
			return nil
		}
		return deviation(numbers)
	case "last_k":
		if f.Of == "timestamp" {
			present = nil
			for _, r := range rows {
				present = append(present, written(r.time))
			}
		}
		out := []any{}
		for i := len(present) - 1; i >= 0 && len(out) < f.K; i-- {
			out = append(out, present[i])
		}
		return out
	case "top_k":
		counts := map[string]float64{}
		for _, v := range present {
			counts[text(v)]++
		}
		values := keys(counts)
		sort.SliceStable(values, func(i, j int) bool { return counts[values[i]] > counts[values[j]] })
		out := []any{}
		for _, v := range values[:min(len(values), f.K)] {
			out = append(out, map[string]any{"value": v, "count": counts[v]})
		}
		return out
	case "unique_values":
		latest := map[string]float64{}
		for _, r := range rows {
			if r.of != nil {
				latest[text(r.of)] = float64(r.time)
			}
		}
		values := keys(latest)
		sort.SliceStable(values, func(i, j int) bool { return latest[values[i]] > latest[values[j]] })
		out := []any{}
		for _, v := range values[:min(len(values), f.K)] {
			out = append(out, v)
		}
		return out
	case "days_active":
		days := map[string]bool{}
		for _, r := range rows {
			days[time.UnixMilli(r.time).UTC().Format(time.DateOnly)] = true
		}
		return float64(len(days))
	case "interval_mean", "interval_stddev":
		var gaps []float64
		for i := 1; i < len(rows); i++ {
			if rows[i].event != rows[i-1].event {
				gaps = append(gaps, float64(rows[i].time-rows[i-1].time)/unit)
			}
		}
		if len(gaps) == 0 {
			return nil
		}
		if f.Kind == "interval_mean" {
			return mean(gaps)
		}
		return deviation(gaps)
	case "decayed_sum":
		total := 0.0
		for _, r := range rows {
			weight := 1.0
			if w, listed := f.Weights[r.name]; listed {
				weight = w
			}
			if f.Of != "" {
				weight, _ = r.of.(float64)
			}
			total += weight * math.Pow(0.5, float64(asOf-r.time)/float64(f.HalfLife.Milliseconds()))
		}
		return total
	case "hour_histogram", "best_send_hour":
		hours := make([]any, 7*24)
		for i := range hours {
			hours[i] = 0.0
		}
		best := 0
		for _, r := range rows {
			at := time.UnixMilli(r.time).In(f.Zone)
			i := (int(at.Weekday())+6)%7*24 + at.Hour()
			hours[i] = hours[i].(float64) + 1
		}
		if f.Kind == "hour_histogram" {
			return hours
		}
		for i := range hours {
			if hours[i].(float64) > hours[best].(float64) {
				best = i
			}
		}
		if len(rows) == 0 {
			return nil
		}
		return map[string]any{"weekday": float64(best/24 + 1), "hour": float64(best % 24)}
	}
	panic("oracle: unknown kind " + f.Kind)
}

func written(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

func keys(m map[string]float64) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func mean(xs []float64) float64 {
	total := 0.0
	for _, x := range xs {
		total += x
	}
	return total / float64(len(xs))
}

func deviation(xs []float64) float64 {
	m, total := mean(xs), 0.0
	for _, x := range xs {
		total += (x - m) * (x - m)
	}
	return math.Sqrt(total / float64(len(xs)))
}

// sum adds decimals exactly.
func sum(numbers []float64) float64 {
	total := new(big.Rat)
	for _, n := range numbers {
		written, _ := json.Marshal(n)
		r, ok := new(big.Rat).SetString(string(written))
		if !ok {
			panic("oracle: not a number: " + string(written))
		}
		total.Add(total, r)
	}
	f, _ := total.Float64()
	return f
}
