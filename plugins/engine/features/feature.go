// Package features holds the mathematics of features: what a feature is, which
// events count for it, what has to be kept of them, and its value at a moment.
//
// Features that read the same things of the same events share a Series. A
// customer's record keeps, for every event that matters, which series it
// belongs to and the values they read; a feature is evaluated over the
// occurrences of its series, as of any moment, when somebody asks.
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

// The kinds of feature of events, by the names they have in a definition.
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
	// Purchases is the history that purchase models read: spec.Model makes its
	// value of it.
	Purchases Kind = "purchases"
)

// kinds says what each kind needs and takes.
var kinds = map[Kind]struct {
	// parts are what it needs of a summary.
	parts parts
	// of tells that the kind reads a value of each event.
	of bool
	// time tells that the value may be the event's timestamp.
	time bool
	// by tells that the kind can be split by a second value.
	by bool
	// derived tells that the kind is computed from other features.
	derived bool
}{
	Ratio:          {derived: true},
	RFM:            {derived: true},
	Expression:     {derived: true},
	Propensity:     {derived: true},
	Purchases:      {parts: partNumbers | partDays | partFirstDay},
	Count:          {by: true},
	Sum:            {parts: partNumbers, of: true, by: true},
	Avg:            {parts: partNumbers, of: true, by: true},
	Min:            {parts: partNumbers, of: true, by: true},
	Max:            {parts: partNumbers, of: true, by: true},
	Stddev:         {parts: partNumbers | partSpread, of: true, by: true},
	First:          {parts: partEnds, of: true, time: true, by: true},
	Last:           {parts: partEnds, of: true, time: true, by: true},
	LastK:          {parts: partRecent, of: true, time: true},
	DistinctCount:  {parts: partDistinct, of: true, by: true},
	TopK:           {parts: partGroups, of: true},
	UniqueValues:   {parts: partGroups, of: true},
	DaysActive:     {parts: partDays},
	TimeSinceFirst: {by: true},
	TimeSinceLast:  {by: true},
	IntervalMean:   {by: true},
	IntervalStddev: {parts: partGaps, by: true},
	DecayedSum:     {parts: partDecay},
	HourHistogram:  {parts: partHours},
	BestSendHour:   {parts: partHours},
}

// Kinds lists the kinds that are computed from events, in order of name.
func Kinds() []Kind {
	names := make([]Kind, 0, len(kinds))
	for k, takes := range kinds {
		if !takes.derived && k != Purchases {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	return names
}

// Spec is a feature as somebody wrote it.
type Spec struct {
	// Name is what the feature is called in a profile.
	Name string
	Kind Kind
	// Events are the names of the events that count; none means all events.
	Events []string
	// Where is a condition on the event, empty for none.
	Where string
	// ValuePath is the path of the value read, GroupPath that of the value to split by.
	ValuePath, GroupPath string
	// Window is how far back events count, zero for ever.
	Window time.Duration
	// Unit divides the result of kinds that are durations; zero is a second.
	Unit time.Duration
	// Limit bounds the number of groups of a feature with By.
	Limit int
	// K is how many values kinds that list some give.
	K int
	// HalfLife is the time in which a value of a decaying sum halves.
	HalfLife time.Duration
	// Weights are the values of a decaying sum by name of event; an event that
	// is not listed has weight 1. Of takes their place.
	Weights map[string]float64
	// Derived computes kinds that follow from other features.
	Derived *Derived
	// Model computes a value of kind Purchases.
	Model func(PurchaseHistory) Result
}

// PurchaseHistory is what models of repeat buying know of a customer. Purchases
// of one day (UTC) are one.
type PurchaseHistory struct {
	// Repeat is the number of days with a purchase after the first, -1 if there
	// was none at all.
	Repeat int
	// Recency is the time from the first such day to the last, Age that to the
	// moment of evaluation.
	Recency, Age time.Duration
	// MeanSpend is the mean amount of the repeat purchases, 0 if there is none.
	MeanSpend float64
}

// Predicate decides whether an event counts.
type Predicate func(*event.Event) (bool, error)

// PredicateCompiler makes a predicate of its text.
type PredicateCompiler func(text string) (Predicate, error)

// SpecError is what is wrong with one feature of a definition.
type SpecError struct {
	// Feature is the position of the feature in the definition.
	Feature int
	// Name is its name, which may be empty or doubled: that may be the error.
	Name string
	Err  error
}

func (e *SpecError) Error() string { return fmt.Sprintf("feature %q: %v", e.Name, e.Err) }

func (e *SpecError) Unwrap() error { return e.Err }

// Feature is a checked Spec with the series it is computed from.
type Feature struct {
	Spec
	// Series is the position of its series in the definition, -1 for a derived
	// feature.
	Series int

	position int // in the definition as it was written
	wants    wants
	needs    []int
}

// Needs returns the positions of the features a derived one is computed from.
func (f *Feature) Needs() []int { return f.needs }

// Definition is a set of features and the series they need. It is immutable
// and safe for concurrent use.
type Definition struct {
	Features []Feature
	Series   []Series
	// Selectors are the positions of the series of the selectors it was made
	// with.
	Selectors []int

	byName  map[string]int
	byEvent map[string][]int
	always  []int
	wheres  []Predicate
}

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// DefaultLimit is the number of groups kept in the result of a feature with
// By when its Limit is zero.
const DefaultLimit = 50

// DefaultK is the K of a feature that lists values when it is zero.
const DefaultK = 10

const maxLimit = 1000

// Selector is events whose times are wanted for something else than a feature.
type Selector struct {
	// Events and Where choose the events, as those of a feature do.
	Events []string
	Where  string
	// Lookback is how far back the times are wanted.
	Lookback time.Duration
}

// SelectorError is what is wrong with an interest.
type SelectorError struct {
	// Selector is its position among those that were given.
	Selector int
	Err      error
}

func (e *SelectorError) Error() string { return e.Err.Error() }

func (e *SelectorError) Unwrap() error { return e.Err }

// New checks specs and makes a definition of them, and of series for selectors
// besides. The error joins a *SpecError or *SelectorError for everything that
// is wrong.
func New(specs []Spec, compile PredicateCompiler, selectors ...Selector) (*Definition, error) {
	d := &Definition{byName: map[string]int{}, byEvent: map[string][]int{}}
	b := builder{Definition: d, compile: compile, series: map[string]int{}, where: map[string]int{}}
	for i, spec := range specs {
		b.add(i, spec)
	}
	b.order()
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
			d.always = append(d.always, i)
		}
	}
	for i, s := range d.Series {
		for _, name := range s.Events {
			d.byEvent[name] = append(d.byEvent[name], i)
		}
	}
	for name, at := range d.byEvent {
		at = append(at, d.always...)
		slices.Sort(at)
		d.byEvent[name] = at
	}
	return d, nil
}

// builder gathers a definition and what is wrong with it.
type builder struct {
	*Definition
	compile PredicateCompiler
	series  map[string]int
	where   map[string]int
	errs    []error
}

func (b *builder) add(i int, spec Spec) {
	good := true
	fail := func(format string, args ...any) {
		good = false
		b.errs = append(b.errs, &SpecError{i, spec.Name, fmt.Errorf(format, args...)})
	}
	if !nameForm.MatchString(spec.Name) {
		fail("a name is letters, digits and underscores and starts with a letter, such as orders_30d")
	}
	if j, taken := b.byName[spec.Name]; taken {
		fail("the name is already that of feature %d; give each feature a name of its own", j+1)
	}
	takes, known := kinds[spec.Kind]
	if !known {
		fail("kind %q is not known; use one of %v", spec.Kind, Kinds())
		return
	}
	if takes.derived {
		if good {
			b.byName[spec.Name] = len(b.Features)
			b.Features = append(b.Features, Feature{Spec: spec, Series: -1, position: i})
		}
		return
	}
	spec.check(fail)
	if !good {
		return
	}

	at, err := b.seriesOf(&spec)
	if err != nil {
		fail("%v", err)
		return
	}
	w := wants{parts: takes.parts, recent: spec.K, split: len(b.Series[at].columns) == 2, bare: len(b.Series[at].columns) == 0}
	if spec.ValuePath == timestampPath {
		w.parts &^= partEnds // the times alone
	}
	if spec.GroupPath != "" {
		w.parts, w.inner = partGroups, w.parts
	}
	if spec.HalfLife > 0 {
		w.halfLives = []int64{spec.HalfLife.Milliseconds()}
	}
	b.byName[spec.Name] = len(b.Features)
	b.Features = append(b.Features, Feature{Spec: spec, Series: at, position: i, wants: w})
	b.Series[at].want(&w, spec.Window)
}

// interest adds the series of an interest.
func (b *builder) addSelector(i int, in *Selector) {
	if slices.Contains(in.Events, "") {
		b.errs = append(b.errs, &SelectorError{i, errors.New("events has an empty name; remove it")})
		return
	}
	at, err := b.seriesOf(&Spec{Events: in.Events, Where: in.Where})
	if err != nil {
		b.errs = append(b.errs, &SelectorError{i, err})
		return
	}
	b.Selectors = append(b.Selectors, at)
	b.Series[at].want(&wants{bare: true}, in.Lookback)
}

// seriesOf returns the position of the series of a spec, which is added unless
// another has the same.
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
	if at, ok := b.series[s.text]; ok {
		return at, nil
	}
	if slices.ContainsFunc(b.Series, func(o Series) bool { return o.Fingerprint == s.Fingerprint }) {
		return 0, errors.New("its fingerprint is by chance that of another; add an event name that never occurs to events")
	}
	at := len(b.Series)
	b.series[s.text] = at
	b.Series = append(b.Series, *s)
	return at, nil
}

// check reports what is wrong with a spec by itself and fills in defaults.
func (s *Spec) check(fail func(format string, args ...any)) {
	takes := kinds[s.Kind]
	switch {
	case takes.of && s.ValuePath == "":
		fail("%s needs of, the path of the value to read, such as properties.total", s.Kind)
	case !takes.of && s.ValuePath != "" && s.Kind != DecayedSum && s.Kind != Purchases:
		fail("%s reads no value; remove of", s.Kind)
	case s.ValuePath == timestampPath && !takes.time:
		fail("%s cannot read timestamp; name a property, such as properties.total", s.Kind)
	}
	if !takes.by && s.GroupPath != "" {
		fail("%s cannot be split; remove by", s.Kind)
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
		fail("decayed_sum takes its values either from of or from weights; remove one")
	}
	for name := range s.Weights {
		if len(s.Events) > 0 && !slices.Contains(s.Events, name) {
			fail("weights names %q, which is not among events; add it there or remove it", name)
		}
	}
}

// Lookup returns the position of the feature with a name.
func (d *Definition) Lookup(name string) (int, bool) {
	i, ok := d.byName[name]
	return i, ok
}
