package features

import (
	"math"
	"sort"
	"strconv"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// Shape is the form of a Result.
type Shape uint8

const (
	// Single is one value, which may be Missing for null.
	Single Shape = iota
	// Object is a map from names to values.
	Object
	// List is a sequence of values.
	List
	// Ranked is a sequence of values, each with its number of occurrences.
	Ranked
)

// Result is the value of a feature at a moment.
type Result struct {
	Shape Shape
	// Value is set for Single.
	Value event.Value
	// Entries is set for Object and Ranked.
	Entries []Entry
	// Values is set for List.
	Values []event.Value
}

// Entry is a name and a value.
type Entry struct {
	Name  string
	Value event.Value
}

// State is the stored history of a series: the tiles of folded occurrences, and
// the other occurrences sorted by time.
type State struct {
	Tiles       Tiles
	Occurrences []Occurrence
}

// Moment is the time as of which features are evaluated, and the time zone.
type Moment struct {
	// AsOf is the time in Unix milliseconds.
	AsOf int64
	// Zone is the customer's time zone; nil is UTC.
	Zone *time.Location
}

// Evaluator evaluates features. It reuses its memory: a result is valid until
// Reset. The zero value is ready to use; it is not safe for concurrent use.
type Evaluator struct {
	sum     summary
	entries []Entry
	values  []event.Value
	text    []byte
	// overflows is the number of values that were not finite.
	overflows int
	// exceedsBound is true after a value outside the error bound of Tiles.
	exceedsBound bool
	trajectory   Trajectory // of the value evaluated last
}

// IsWithinBound reports whether all values since Reset are within the error bound
// of Tiles.
func (e *Evaluator) IsWithinBound() bool { return !e.exceedsBound }

// TakeOverflows returns the number of values since the last call that were not
// finite numbers, such as the sum of two numbers near the largest float64. Such
// a value is null.
func (e *Evaluator) TakeOverflows() int {
	n := e.overflows
	e.overflows = 0
	return n
}

// finite returns a number, null if it is not finite.
func (e *Evaluator) finite(f float64) event.Value {
	v := number(f)
	if v.Kind == event.Missing {
		e.overflows++
	}
	return v
}

// Reset invalidates all results.
func (e *Evaluator) Reset() {
	e.entries, e.values, e.text, e.exceedsBound = e.entries[:0], e.values[:0], e.text[:0], false
}

// Evaluate returns the value of a feature of events at a moment, from the state
// of its series. An occurrence at time t counts if asOf-window < t <= asOf. from
// is the time since which the state is complete for the feature: 0 unless
// occurrences were folded before the feature was defined.
//
// Example: three orders of 20, 30 and 40 at days 1, 20 and 40. A sum with a
// window of 30d is 50 as of day 20 (orders 1 and 2), 70 as of day 40 (orders 2
// and 3; day 10 to 40) and 40 as of day 60, without any new event.
func (e *Evaluator) Evaluate(f *Feature, state *State, m Moment) (_ Result, from int64) {
	s := &e.sum
	e.trajectory = Trajectory{}
	window := f.Window.Milliseconds()
	if state.Tiles.Empty() {
		if v, ok := e.simple(f, within(state.Occurrences, window, m.AsOf), m); ok {
			return Result{Value: v}, 0
		}
	}
	if f.UsesTimeZone() {
		return e.hours(f, state, m)
	}
	s.reset(&f.wants)
	for _, tile := range state.Tiles.list {
		e.exceedsBound = e.exceedsBound || tile.exceedsBound(f, m.AsOf)
		switch {
		case !tile.within(window, m.AsOf):
		case f.wants.covers(tile):
			s.merge(&f.wants, tile)
		default:
			from = max(from, tile.last+1)
		}
	}
	recent := within(state.Occurrences, window, m.AsOf)
	for i := range recent {
		s.add(&f.wants, &recent[i])
	}
	if f.GroupPath != "" {
		begin := len(e.entries)
		names := s.groupNames()
		for _, name := range names[:min(len(names), f.Limit)] {
			e.entries = append(e.entries, Entry{name, e.single(f, s.groups[name], m)})
		}
		return Result{Shape: Object, Entries: e.entries[begin:]}, from
	}
	switch f.Kind {
	case TopK:
		begin := len(e.entries)
		names := s.groupNames()
		for _, name := range names[:min(len(names), f.K)] {
			e.entries = append(e.entries, Entry{name, number(float64(s.groups[name].count))})
		}
		return Result{Shape: Ranked, Entries: e.entries[begin:]}, from
	case UniqueValues:
		return Result{Shape: List, Values: e.latest(s, f.K)}, from
	case Purchases:
		return f.Model(s.purchases(m.AsOf)), from
	case LastK:
		begin := len(e.values)
		for i := len(s.recent) - 1; i >= 0; i-- {
			v := s.recent[i].value
			if f.ValuePath == timestampPath {
				v = e.time(true, s.recent[i].time)
			}
			e.values = append(e.values, v)
		}
		return Result{Shape: List, Values: e.values[begin:]}, from
	}
	return Result{Value: e.single(f, s, m)}, from
}

// simple evaluates the common features that depend only on the number of
// occurrences and on the first and the last one, without a pass over all.
func (e *Evaluator) simple(f *Feature, o []Occurrence, m Moment) (_ event.Value, ok bool) {
	switch {
	case f.wants.parts == 0:
		s := &e.sum
		if s.count = len(o); s.count > 0 {
			s.first, s.last = o[0].Time, o[len(o)-1].Time
		}
		return e.single(f, s, m), true
	case f.Kind == Last && f.GroupPath == "":
		for i := len(o) - 1; i >= 0; i-- {
			if o[i].First.Kind != event.Missing {
				return o[i].First, true
			}
		}
		return event.Value{}, true
	case f.Kind == First && f.GroupPath == "":
		for i := range o {
			if o[i].First.Kind != event.Missing {
				return o[i].First, true
			}
		}
		return event.Value{}, true
	}
	return event.Value{}, false
}

// purchases returns the summary as a history of purchases.
func (s *summary) purchases(asOf int64) PurchaseHistory {
	if len(s.days) == 0 {
		return PurchaseHistory{Repeat: -1}
	}
	const day = 24 * time.Hour
	first, last := s.days[0], s.days[len(s.days)-1]
	h := PurchaseHistory{
		Repeat:  len(s.days) - 1,
		Recency: time.Duration(last-first) * day,
		Age:     time.Duration(floorDiv(asOf, millisPerDay)-first) * day,
	}
	if h.Repeat > 0 {
		h.MeanSpend = max(0, s.sum.value()-s.firstDay.value()) / float64(h.Repeat)
	}
	return h
}

// single returns the value of a feature of shape Single, or of one group.
func (e *Evaluator) single(f *Feature, s *summary, m Moment) event.Value {
	switch f.Kind {
	case Count:
		return number(float64(s.count))
	case Sum:
		return e.finite(s.sum.value())
	case DistinctCount:
		return number(s.distinct.estimate())
	case DaysActive:
		return number(float64(len(s.days)))
	case DecayedSum:
		if s.count == 0 {
			return number(0)
		}
		e.trajectory = Trajectory{varies: true, since: s.last, sum: s.decays[0].sum, halfLife: s.decays[0].halfLife}
		return e.finite(e.trajectory.number(m.AsOf))
	case Avg:
		if s.numbers > 0 {
			return e.finite(s.sum.value() / float64(s.numbers))
		}
	case Min:
		if s.numbers > 0 {
			return number(s.least)
		}
	case Max:
		if s.numbers > 0 {
			return number(s.most)
		}
	case Stddev:
		if s.numbers > 0 {
			return e.finite(s.spread.deviation())
		}
	case First:
		if f.ValuePath == timestampPath {
			return e.time(s.count > 0, s.first)
		}
		return s.firstValue.value
	case Last:
		if f.ValuePath == timestampPath {
			return e.time(s.count > 0, s.last)
		}
		return s.lastValue.value
	case TimeSinceFirst:
		if s.count > 0 {
			return e.elapsed(f, s.first, m)
		}
	case TimeSinceLast:
		if s.count > 0 {
			return e.elapsed(f, s.last, m)
		}
	case IntervalMean:
		events := s.count
		if s.parts&partEvents != 0 {
			events = s.events
		}
		if events > 1 {
			return number(f.inUnit(s.last-s.first) / float64(events-1))
		}
	case IntervalStddev:
		if s.gaps.n > 0 {
			return e.finite(s.gaps.deviation() / float64(f.Unit.Milliseconds()))
		}
	}
	return event.Value{}
}

// elapsed returns the time since another time, in the feature's unit.
func (e *Evaluator) elapsed(f *Feature, since int64, m Moment) event.Value {
	e.trajectory = Trajectory{varies: true, elapsed: true, since: since, unit: float64(f.Unit.Milliseconds())}
	return e.trajectory.At(m.AsOf)
}

func (f *Feature) inUnit(ms int64) float64 { return float64(ms) / float64(f.Unit.Milliseconds()) }

// time returns a time as text, Missing if it is unknown.
func (e *Evaluator) time(known bool, ms int64) event.Value {
	if !known {
		return event.Value{}
	}
	start := len(e.text)
	e.text = event.AppendTime(e.text, ms)
	return event.Value{Kind: event.String, Text: e.text[start:]}
}

// latest returns up to k groups, the most recent first.
func (e *Evaluator) latest(s *summary, k int) []event.Value {
	names := s.groupNames()
	sort.SliceStable(names, func(i, j int) bool {
		a, b := s.groups[names[i]], s.groups[names[j]]
		return a.last > b.last || a.last == b.last && names[i] < names[j]
	})
	begin := len(e.values)
	for _, name := range names[:min(len(names), k)] {
		e.values = append(e.values, event.Value{Kind: event.String, Text: []byte(name)})
	}
	return e.values[begin:]
}

// UsesTimeZone reports whether the value depends on the customer's time zone.
func (f *Feature) UsesTimeZone() bool { return f.wants.parts&partHours != 0 }

// hours evaluates the features of hours of the week in the customer's time zone,
// with its offset from UTC at the time of each event. For folded events that is
// the offset in the middle of their tile, which is the same throughout: see
// Tiles.Zone.
func (e *Evaluator) hours(f *Feature, state *State, m Moment) (_ Result, from int64) {
	zone := m.Zone
	if zone == nil {
		zone = time.UTC
	}
	offset := func(ms int64) int64 {
		_, seconds := time.UnixMilli(ms).In(zone).Zone()
		return int64(seconds) * 1000
	}
	const monday = 4 * millisPerDay // the first since 1970
	window := f.Window.Milliseconds()
	var local [hoursPerWeek]int
	for _, tile := range state.Tiles.list {
		e.exceedsBound = e.exceedsBound || tile.exceedsBound(f, m.AsOf)
		switch {
		case !tile.within(window, m.AsOf):
		case f.wants.covers(tile):
			shift := monday + offset(tile.middle())
			for quarter, n := range tile.quarters {
				local[hourOfWeek(shift+int64(quarter)*millisPerQuarter)] += n
			}
		default:
			from = max(from, tile.last+1)
		}
	}
	for _, o := range within(state.Occurrences, window, m.AsOf) {
		local[hourOfWeek(o.Time+offset(o.Time))]++
	}
	if f.Kind == HourHistogram {
		begin := len(e.values)
		for _, n := range local {
			e.values = append(e.values, number(float64(n)))
		}
		return Result{Shape: List, Values: e.values[begin:]}, from
	}
	best := 0
	for hour, n := range local {
		if n > local[best] {
			best = hour
		}
	}
	if local[best] == 0 {
		return Result{}, from
	}
	begin := len(e.entries)
	e.entries = append(e.entries, Entry{"weekday", number(float64(best/24 + 1))}, Entry{"hour", number(float64(best % 24))})
	return Result{Shape: Object, Entries: e.entries[begin:]}, from
}

// within returns the occurrences with asOf-window < Time <= asOf.
func within(o []Occurrence, window, asOf int64) []Occurrence {
	if n := len(o); n > 0 && o[n-1].Time > asOf {
		o = o[:sort.Search(n, func(i int) bool { return o[i].Time > asOf })]
	}
	if window > 0 {
		from := asOf - window
		if len(o) > 0 && o[0].Time <= from {
			o = o[sort.Search(len(o), func(i int) bool { return o[i].Time > from }):]
		}
	}
	return o
}

// number returns a number, Missing if it is not finite: JSON has no other numbers.
func number(f float64) event.Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return event.Value{}
	}
	return event.Value{Kind: event.Number, Number: f}
}

// AppendJSON appends the result as JSON: a value or null; an object; an array
// of values; or an array of {"value":…,"count":…}.
func (r Result) AppendJSON(dst []byte) []byte {
	switch r.Shape {
	case Object:
		dst = append(dst, '{')
		for i := range r.Entries {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = jsontext.AppendString(dst, r.Entries[i].Name)
			dst = append(dst, ':')
			dst = AppendJSON(dst, r.Entries[i].Value)
		}
		return append(dst, '}')
	case Ranked:
		dst = append(dst, '[')
		for i := range r.Entries {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"value":`...)
			dst = jsontext.AppendString(dst, r.Entries[i].Name)
			dst = append(dst, `,"count":`...)
			dst = AppendJSON(dst, r.Entries[i].Value)
			dst = append(dst, '}')
		}
		return append(dst, ']')
	case List:
		dst = append(dst, '[')
		for i := range r.Values {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendJSON(dst, r.Values[i])
		}
		return append(dst, ']')
	}
	return AppendJSON(dst, r.Value)
}

// AppendJSON appends a value as JSON.
func AppendJSON(dst []byte, v event.Value) []byte {
	switch v.Kind {
	case event.Number:
		if len(v.Text) > 0 {
			return append(dst, v.Text...)
		}
		return appendNumber(dst, v.Number)
	case event.String:
		return jsontext.AppendString(dst, v.Text)
	case event.JSON:
		return append(dst, v.Text...)
	case event.True:
		return append(dst, "true"...)
	case event.False:
		return append(dst, "false"...)
	}
	return append(dst, "null"...)
}

// appendNumber appends a number as the shortest JSON that parses to the same
// float64.
func appendNumber(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	if f == math.Trunc(f) && math.Abs(f) < maxExact {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	if abs := math.Abs(f); abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	return strconv.AppendFloat(dst, f, 'e', -1, 64)
}
