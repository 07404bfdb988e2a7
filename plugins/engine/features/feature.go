// Package features defines features and evaluates them: which events count for
// a feature, which values of them are stored, and its value at a moment.
//
// Features that read the same values of the same events share a Series. A
// customer's record stores, for every relevant event, the series it belongs to
// and the values they read. A feature is evaluated at read time, as of any
// moment, over the occurrences of its series.
//
// Example: orders_30d (count of Order Completed in 30d) and orders_90d (the same
// in 90d) share one series, which has no values; revenue_90d (sum of
// properties.total) has another series with one value per event. Each order is
// stored once, with the set {0, 1} of series and the value of series 1:
//
//	event            stored extract
//	Order Completed  series 0 and 1; total = 49.90
//	Product Viewed   nothing: no series selects it
//
// The files of the package:
//
//	feature.go   checked specs, and the definition they are compiled into
//	series.go    series, and the stored extract of an event
//	summary.go   aggregates of a set of occurrences
//	tiles.go     summaries of time spans, for customers with many events
//	sketch.go    approximate distinct counts
//	evaluate.go  the value of a feature as of a moment
//	validity.go  until when a value stays valid, and how it changes with time
//	derived.go   features that are computed from other features
package features

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Kind is what a feature computes.
type Kind string

// The kinds of feature that are computed from events, by their names in a
// definition.
const (
	Count          Kind = "count"
	Sum            Kind = "sum"
	Avg            Kind = "avg"
	Min            Kind = "min"
	Max            Kind = "max"
	Stddev         Kind = "stddev"
	First          Kind = "first"
	Last           Kind = "last"
	LastK          Kind = "last_k"
	DistinctCount  Kind = "distinct_count"
	TopK           Kind = "top_k"
	UniqueValues   Kind = "unique_values"
	DaysActive     Kind = "days_active"
	TimeSinceFirst Kind = "time_since_first"
	TimeSinceLast  Kind = "time_since_last"
	IntervalMean   Kind = "interval_mean"
	IntervalStddev Kind = "interval_stddev"
	DecayedSum     Kind = "decayed_sum"
	HourHistogram  Kind = "hour_histogram"
	BestSendHour   Kind = "best_send_hour"
	// Purchases is the history that purchase models read: Spec.Model computes
	// the value from it.
	Purchases Kind = "purchases"
)

// kinds has the requirements of each kind.
var kinds = map[Kind]struct {
	// parts of a summary that the kind is computed from.
	parts parts
	// readsValue is true for kinds that read a value of each event.
	readsValue bool
	// acceptsTime is true for kinds that accept the event's timestamp.
	acceptsTime bool
	// acceptsGroups is true for kinds that can be split by a second value.
	acceptsGroups bool
	// derived is true for kinds that are computed from other features.
	derived bool
}{
	Ratio:          {derived: true},
	RFM:            {derived: true},
	Expression:     {derived: true},
	Propensity:     {derived: true},
	Purchases:      {parts: partNumbers | partDays | partFirstDay},
	Count:          {acceptsGroups: true},
	Sum:            {parts: partNumbers, readsValue: true, acceptsGroups: true},
	Avg:            {parts: partNumbers, readsValue: true, acceptsGroups: true},
	Min:            {parts: partNumbers, readsValue: true, acceptsGroups: true},
	Max:            {parts: partNumbers, readsValue: true, acceptsGroups: true},
	Stddev:         {parts: partNumbers | partSpread, readsValue: true, acceptsGroups: true},
	First:          {parts: partEnds, readsValue: true, acceptsTime: true, acceptsGroups: true},
	Last:           {parts: partEnds, readsValue: true, acceptsTime: true, acceptsGroups: true},
	LastK:          {parts: partRecent, readsValue: true, acceptsTime: true},
	DistinctCount:  {parts: partDistinct, readsValue: true, acceptsGroups: true},
	TopK:           {parts: partGroups, readsValue: true},
	UniqueValues:   {parts: partGroups, readsValue: true},
	DaysActive:     {parts: partDays},
	TimeSinceFirst: {acceptsGroups: true},
	TimeSinceLast:  {acceptsGroups: true},
	IntervalMean:   {acceptsGroups: true},
	IntervalStddev: {parts: partGaps, acceptsGroups: true},
	DecayedSum:     {parts: partDecay},
	HourHistogram:  {parts: partHours},
	BestSendHour:   {parts: partHours},
}

// Kinds returns the kinds that are computed from events, sorted by name.
func Kinds() []Kind {
	names := make([]Kind, 0, len(kinds))
	for k, requirement := range kinds {
		if !requirement.derived && k != Purchases {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	return names
}

// Spec is the definition of one feature, before it is checked.
type Spec struct {
	// Name is the name of the feature in a profile.
	Name string
	Kind Kind
	// Events are the names of the events that count; empty means all events.
	Events []string
	// Where is a condition on the event; empty means none.
	Where string
	// ValuePath is the path of the value read, GroupPath that of the value to split by.
	ValuePath, GroupPath string
	// Window is the length of the sliding window; zero means that all events
	// count.
	Window time.Duration
	// Unit divides the result of kinds that are durations; zero means a second.
	Unit time.Duration
	// Limit is the maximum number of groups in the result of a feature with
	// GroupPath.
	Limit int
	// K is the number of values in the result of kinds that list values.
	K int
	// HalfLife is the half-life of a decayed sum.
	HalfLife time.Duration
	// Weights are the values of a decayed sum by event name; an event that is
	// not listed has weight 1. They exclude ValuePath.
	Weights map[string]float64
	// Amount derives the value from the number at ValuePath.
	Amount Amount
	// Derived computes kinds that are computed from other features.
	Derived *Derived
	// Model computes a value of kind Purchases.
	Model func(PurchaseHistory) Result
}

// PurchaseHistory is the input of purchase models: purchases of one day (UTC)
// count as one.
type PurchaseHistory struct {
	// Repeat is the number of days with a purchase after the first such day; -1
	// means that there is no purchase.
	Repeat int
	// Recency is the time from the first such day to the last, Age the time from
	// the first to the moment of evaluation.
	Recency, Age time.Duration
	// MeanSpend is the mean amount of the repeat purchases less all refunds, 0 if
	// there is none.
	MeanSpend float64
}

// Predicate reports whether an event counts.
type Predicate func(*event.Event) (bool, error)

// PredicateCompiler compiles the text of a predicate.
type PredicateCompiler func(text string) (Predicate, error)

// SpecError is an error in one feature of a definition.
type SpecError struct {
	// Feature is the position of the feature in the definition.
	Feature int
	// Name is its name, which may be empty or a duplicate.
	Name string
	Err  error
}

func (e *SpecError) Error() string { return fmt.Sprintf("feature %q: %v", e.Name, e.Err) }

func (e *SpecError) Unwrap() error { return e.Err }

// Feature is a checked Spec and the series it is computed from.
type Feature struct {
	Spec
	// Series is the position of its series in the definition, -1 for a derived
	// feature.
	Series int

	// maxTileSpan is the maximum span of a tile that contains the start of the
	// window, by the error bound of Tiles.
	maxTileSpan int64

	position int // in the list of specs
	wants    wants
	needs    []int
}

// Needs returns the positions of the features that a derived feature is
// computed from.
func (f *Feature) Needs() []int { return f.needs }

// Definition is a set of features and their series. It is immutable and safe
// for concurrent use.
type Definition struct {
	Features []Feature
	Series   []Series
	// Selectors are the positions of the series of the selectors, in the order
	// in which New received them.
	Selectors []int

	byName  map[string]int
	byEvent map[string][]int // series by event name, including matchAll
	// matchAll are the series that select every event name.
	matchAll []int
	wheres   []Predicate
}

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// DefaultLimit is the Limit of a feature with GroupPath when its Limit is zero.
const DefaultLimit = 50

// DefaultK is the K of a feature that lists values when its K is zero.
const DefaultK = 10

const maxLimit = 1000

// Selector requests that the times of events are stored although no feature
// counts them, for example for the conditions of a trigger.
type Selector struct {
	// Events and Where select the events, like those of a feature.
	Events []string
	Where  string
	// Lookback is how long the times are kept.
	Lookback time.Duration
}

// SelectorError is an error in one selector.
type SelectorError struct {
	// Selector is its position in the arguments of New.
	Selector int
	Err      error
}

func (e *SelectorError) Error() string { return e.Err.Error() }

func (e *SelectorError) Unwrap() error { return e.Err }

// New checks specs and selectors and compiles them into a definition. The error
// joins a *SpecError or *SelectorError for every mistake.
func New(specs []Spec, compile PredicateCompiler, selectors ...Selector) (*Definition, error) {
	d := &Definition{byName: map[string]int{}, byEvent: map[string][]int{}}
	b := builder{Definition: d, compile: compile, series: map[string]int{}, where: map[string]int{}}
	for i, spec := range specs {
		b.add(i, spec)
	}
	b.resolve()
	for i := range selectors {
		b.addSelector(i, &selectors[i])
	}
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	for i := range d.Series {
		s := &d.Series[i]
		slices.Sort(s.windows)
		s.windows = slices.Compact(s.windows)
		if len(s.Events) == 0 {
			d.matchAll = append(d.matchAll, i)
		}
	}
	for i, s := range d.Series {
		for _, name := range s.Events {
			d.byEvent[name] = append(d.byEvent[name], i)
		}
	}
	for i := range d.Features {
		if f := &d.Features[i]; f.Series >= 0 {
			f.maxTileSpan = f.Window.Milliseconds() / d.Series[f.Series].tilesPerWindow()
		}
	}
	for name, series := range d.byEvent {
		series = append(series, d.matchAll...)
		slices.Sort(series)
		d.byEvent[name] = series
	}
	return d, nil
}

// builder collects a definition and its errors.
type builder struct {
	*Definition
	compile PredicateCompiler
	series  map[string]int
	where   map[string]int
	errs    []error
}

func (b *builder) add(i int, spec Spec) {
	isValid := true
	fail := func(format string, args ...any) {
		isValid = false
		b.errs = append(b.errs, &SpecError{i, spec.Name, fmt.Errorf(format, args...)})
	}
	if !nameForm.MatchString(spec.Name) {
		fail("a name consists of letters, digits and underscores and starts with a letter, such as orders_30d")
	}
	if j, taken := b.byName[spec.Name]; taken {
		fail("feature %d has this name already; give each feature a name of its own", j+1)
	}
	requirement, known := kinds[spec.Kind]
	if !known {
		fail("kind %q is not known; use one of %v", spec.Kind, Kinds())
		return
	}
	if requirement.derived {
		if isValid {
			b.byName[spec.Name] = len(b.Features)
			b.Features = append(b.Features, Feature{Spec: spec, Series: -1, position: i})
		}
		return
	}
	spec.check(fail)
	if !isValid {
		return
	}

	index, err := b.seriesOf(&spec)
	if err != nil {
		fail("%v", err)
		return
	}
	series := &b.Series[index]
	w := wants{parts: requirement.parts, recent: spec.K, split: len(series.columns) == 2, bare: len(series.columns) == 0}
	if spec.ValuePath == timestampPath {
		w.parts &^= partEnds // only the times
	}
	if spec.Kind == IntervalMean && series.each {
		w.parts |= partEvents
	}
	if spec.GroupPath != "" {
		w.parts, w.inner = partGroups, w.parts
	}
	if spec.HalfLife > 0 {
		w.halfLives = []int64{spec.HalfLife.Milliseconds()}
	}
	b.byName[spec.Name] = len(b.Features)
	b.Features = append(b.Features, Feature{Spec: spec, Series: index, position: i, wants: w})
	series.want(&w, spec.Window)
}

// addSelector adds the series of a selector.
func (b *builder) addSelector(i int, in *Selector) {
	if slices.Contains(in.Events, "") {
		b.errs = append(b.errs, &SelectorError{i, errors.New("events has an empty name; remove it")})
		return
	}
	series, err := b.seriesOf(&Spec{Events: in.Events, Where: in.Where})
	if err != nil {
		b.errs = append(b.errs, &SelectorError{i, err})
		return
	}
	b.Selectors = append(b.Selectors, series)
	b.Series[series].want(&wants{bare: true}, in.Lookback)
}

// seriesOf returns the position of the series of a spec. Specs with the same
// events, condition and values share one series.
func (b *builder) seriesOf(spec *Spec) (int, error) {
	s, err := newSeries(spec)
	if err != nil {
		return 0, err
	}
	if s.Where != "" {
		w, ok := b.where[s.Where]
		if !ok {
			predicate, err := b.compile(s.Where)
			if err != nil {
				return 0, fmt.Errorf("where: %w", err)
			}
			w = len(b.wheres)
			b.wheres = append(b.wheres, predicate)
			b.where[s.Where] = w
		}
		s.where = w
	}
	if i, ok := b.series[s.text]; ok {
		return i, nil
	}
	if slices.ContainsFunc(b.Series, func(o Series) bool { return o.Fingerprint == s.Fingerprint }) {
		return 0, errors.New("its fingerprint collides with that of another feature; add an event name that never occurs to events")
	}
	i := len(b.Series)
	b.series[s.text] = i
	b.Series = append(b.Series, *s)
	return i, nil
}

// check reports the mistakes in a spec that do not depend on other specs, and
// fills in defaults.
func (s *Spec) check(fail func(format string, args ...any)) {
	requirement := kinds[s.Kind]
	switch {
	case requirement.readsValue && s.ValuePath == "":
		fail("%s needs of, the path of the value to read, such as properties.total", s.Kind)
	case !requirement.readsValue && s.ValuePath != "" && s.Kind != DecayedSum && s.Kind != Purchases:
		fail("%s reads no value; remove of", s.Kind)
	case s.ValuePath == timestampPath && !requirement.acceptsTime:
		fail("%s cannot read timestamp; name a property, such as properties.total", s.Kind)
	}
	if !requirement.acceptsGroups && s.GroupPath != "" {
		fail("%s cannot be split; remove by", s.Kind)
	}
	if len(s.Amount.Subtract) > 0 && s.Kind != Sum && s.Kind != Purchases {
		fail("%s cannot subtract; use sum", s.Kind)
	}
	if len(s.Amount.Subtract) > 0 && len(s.Events) == 0 {
		fail("subtract needs events, the names of the events that are added, such as Order Completed")
	}
	for _, name := range s.Amount.Subtract {
		if name == "" || slices.Contains(s.Events, name) {
			fail("subtract names %q, which is empty or among events; remove it from one of them", name)
		}
	}
	if s.ValuePath == "" && (s.Amount.FactorPath != "" || len(s.Amount.Subtract) > 0 || s.Amount.Currency != nil) {
		fail("times, subtract and currency need of, the path of the value, such as properties.total")
	}
	if s.GroupPath == timestampPath {
		fail("a feature cannot be split by timestamp; name a property, such as properties.category")
	}
	if slices.Contains(s.Events, "") {
		fail("events has an empty name; remove it")
	}
	if s.Window < 0 {
		fail("window must be positive, such as 30d")
	}
	if s.Limit < 0 || s.Limit > maxLimit {
		fail("limit must be between 1 and %d", maxLimit)
	}
	if s.K < 0 || s.K > maxRecent {
		fail("k must be between 1 and %d", maxRecent)
	}
	if s.Limit == 0 {
		s.Limit = DefaultLimit
	}
	if s.K == 0 {
		s.K = DefaultK
	}
	if s.Unit == 0 {
		s.Unit = time.Second
	}
	if s.Kind != DecayedSum {
		return
	}
	if s.HalfLife <= 0 {
		fail("decayed_sum needs half_life, such as 7d")
	}
	if s.ValuePath != "" && len(s.Weights) > 0 {
		fail("decayed_sum takes its values from of or from weights; remove one of the two")
	}
	for name := range s.Weights {
		if len(s.Events) > 0 && !slices.Contains(s.Events, name) {
			fail("weights names %q, which is not among events; add it there or remove it", name)
		}
	}
}

// Lookup returns the position of the feature with the given name.
func (d *Definition) Lookup(name string) (int, bool) {
	i, ok := d.byName[name]
	return i, ok
}
