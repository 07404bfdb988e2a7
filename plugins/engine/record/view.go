package record

import (
	"bytes"
	"slices"
	"sync"
	"time"
	_ "time/tzdata" // zones must be known on hosts without a zone database

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
)

// Selection selects the parts of a profile.
type Selection struct {
	// Traits, Features and Segments select single ones; AllTraits, AllFeatures
	// and AllSegments select all. Features and Segments are positions in the
	// definition.
	Traits      []string
	Features    []int
	Segments    []int
	AllTraits   bool
	AllFeatures bool
	AllSegments bool
}

// Everything selects the whole profile.
var Everything = Selection{AllTraits: true, AllFeatures: true, AllSegments: true}

// Viewer evaluates records and reuses its memory. It is not safe for
// concurrent use; the zero value is ready.
type Viewer struct {
	evaluator features.Evaluator
	states    []features.State
	wanted    []bool
	chosen    []int
	values    []value

	// State of the evaluation in progress.
	record *Record
	moment features.Moment
	traits map[string]any

	// rendering collects how long the profile is valid, nil outside Render.
	rendering *Rendering

	// State of the segment evaluation in progress.
	membership []bool // by position of the segment
	parameters *segments.Parameters
	document   map[string]any

	pinned *segments.Parameters
}

// value is the value of a feature, if known.
type value struct {
	known  bool
	result features.Result
	since  int64
	motion features.Trajectory
}

// AppendJSON appends the profile as of a time in Unix milliseconds:
//
//	{"id":…,"traits":{…},"features":{…},"segments":{…},"as_of":…,"updated_at":…}
//
// segments is present if the definition has segments. It is an object of the
// segments that the customer is in, each with since: when the record entered
// the segment, null if the stored membership does not contain it yet.
//
// features_since is added if the record lacks early events for some features:
// an object of the times, by feature, from which events are complete.
func (w *Viewer) AppendJSON(dst []byte, r *Record, id string, asOf int64, sel *Selection) ([]byte, error) {
	w.evaluator.Reset()
	dst = append(dst, `{"id":`...)
	dst = jsontext.AppendString(dst, id)
	var err error
	if sel.AllTraits || len(sel.Traits) > 0 {
		dst = append(dst, `,"traits":{`...)
		if dst, err = w.appendTraits(dst, r, sel); err != nil {
			return dst, err
		}
		dst = append(dst, '}')
	}
	withFeatures := sel.AllFeatures || len(sel.Features) > 0
	withSegments := r.def.Segments != nil && (sel.AllSegments || len(sel.Segments) > 0)
	if withFeatures || withSegments {
		w.chosen = w.chosen[:0]
		if sel.AllFeatures {
			for i := range r.def.Features.Features {
				w.chosen = append(w.chosen, i)
			}
		} else {
			w.chosen = append(w.chosen, sel.Features...)
		}
		shown := len(w.chosen)
		if withSegments && !sel.AllFeatures {
			w.chosen = append(w.chosen, r.def.Segments.Features...)
		}
		if err := w.prepare(r, asOf); err != nil {
			return dst, err
		}
		w.chosen = w.chosen[:shown]
	}
	if withFeatures {
		dst = w.appendFeatures(dst, r)
	}
	if withSegments {
		if dst, err = w.appendSegments(dst, r, asOf, sel); err != nil {
			return dst, err
		}
	}
	dst = append(dst, `,"as_of":"`...)
	if w.rendering != nil {
		w.rendering.asOfOffset = len(dst)
	}
	dst = event.AppendTime(dst, asOf)
	if r.updatedAt == 0 {
		return append(dst, `","updated_at":null}`...), nil
	}
	dst = append(dst, `","updated_at":"`...)
	dst = event.AppendTime(dst, r.updatedAt)
	return append(dst, `"}`...), nil
}

// IsWithinBound reports whether the features of the last profile are within the
// documented error bound. They may not be for a customer with folded events as
// of a time in the past.
func (w *Viewer) IsWithinBound() bool { return w.evaluator.IsWithinBound() }

// TakeOverflows returns the number of features since the last call whose value
// is null because it overflows.
func (w *Viewer) TakeOverflows() int { return w.evaluator.TakeOverflows() }

func (w *Viewer) appendTraits(dst []byte, r *Record, sel *Selection) ([]byte, error) {
	if err := r.parseTraits(); err != nil {
		return dst, err
	}
	first := true
	for _, t := range r.traits {
		if t.value.Kind == event.Missing || !sel.AllTraits && !contains(sel.Traits, t.name) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = jsontext.AppendString(dst, t.name)
		dst = append(dst, ':')
		dst = features.AppendJSON(dst, t.value)
	}
	return dst, nil
}

func contains(names []string, name []byte) bool {
	for _, n := range names {
		if n == string(name) {
			return true
		}
	}
	return false
}

// prepare begins an evaluation of the chosen features.
func (w *Viewer) prepare(r *Record, asOf int64) error {
	if err := w.gather(r); err != nil {
		return err
	}
	w.evaluator.Reset()
	w.record, w.moment = r, features.Moment{AsOf: asOf}
	w.traits = nil
	for _, i := range w.chosen {
		if r.def.Features.Features[i].UsesTimeZone() {
			zone, err := r.zone()
			if err != nil {
				return err
			}
			w.moment.Zone = zone // nil, for an unknown zone, is UTC
			break
		}
	}
	return nil
}

func (w *Viewer) appendFeatures(dst []byte, r *Record) []byte {
	all := r.def.Features.Features
	dst = append(dst, `,"features":{`...)
	incomplete := false
	for n, i := range w.chosen {
		if n > 0 {
			dst = append(dst, ',')
		}
		v := w.value(i)
		dst = append(dst, '"')
		dst = append(dst, all[i].Name...)
		dst = append(dst, '"', ':')
		begin := len(dst)
		dst = v.result.AppendJSON(dst)
		if w.rendering != nil && v.motion.Varies() {
			w.rendering.moving = append(w.rendering.moving, moving{begin, len(dst), v.motion})
		}
		incomplete = incomplete || v.since > 0
	}
	dst = append(dst, '}')
	if !incomplete {
		return dst
	}
	dst = append(dst, `,"features_since":{`...)
	for _, i := range w.chosen {
		if since := w.value(i).since; since > 0 {
			dst = append(dst, '"')
			dst = append(dst, all[i].Name...)
			dst = append(dst, '"', ':', '"')
			dst = event.AppendTime(dst, since)
			dst = append(dst, '"', ',')
		}
	}
	dst[len(dst)-1] = '}'
	return dst
}

// gather collects the events and tiles of the series that the chosen features
// need.
func (w *Viewer) gather(r *Record) error {
	w.wanted = append(w.wanted[:0], make([]bool, len(r.series))...)
	w.values = append(w.values[:0], make([]value, len(r.def.Features.Features))...)
	for _, i := range w.chosen {
		w.want(&r.def.Features.Features[i], r.def.Features.Features)
	}
	return r.gather(&w.states, w.wanted)
}

// gather collects the events and tiles of the wanted series, by position.
func (r *Record) gather(into *[]features.State, wanted []bool) error {
	for len(*into) < len(r.series) {
		*into = append(*into, features.State{})
	}
	states := *into
	for i := range r.series {
		state := &states[i]
		state.Occurrences = state.Occurrences[:0]
		state.Tiles.Reset()
		if tiles := r.tilesOf(i); wanted[i] && len(tiles) > 0 {
			if err := state.Tiles.Read(tiles); err != nil {
				return ErrCorrupt
			}
		}
	}
	var failed error
	err := r.walk(func(_ int, at logPosition, extract []byte) bool {
		if len(extract) == 0 {
			return true
		}
		failed = features.Visit(extract, r.layouts, func(series int, o features.Occurrence) {
			if wanted[series] {
				o.Time, o.ID = at.time, at.id
				states[series].Occurrences = append(states[series].Occurrences, o)
			}
		})
		return failed == nil
	})
	if err != nil || failed != nil {
		return ErrCorrupt
	}
	return nil
}

// want marks the series that a feature and its inputs need.
func (w *Viewer) want(f *features.Feature, all []features.Feature) {
	if f.Series >= 0 {
		w.wanted[f.Series] = true
	}
	for _, i := range f.Needs() {
		w.want(&all[i], all)
	}
}

// value evaluates the feature at a position, after its inputs.
func (w *Viewer) value(i int) *value {
	v := &w.values[i]
	if v.known {
		return v
	}
	v.known = true
	f := &w.record.def.Features.Features[i]
	if f.Derived == nil {
		v.result, v.since = w.evaluator.Evaluate(f, &w.states[f.Series], w.moment)
		if w.rendering != nil {
			outlook := w.evaluator.Validity(f, &w.states[f.Series], w.moment)
			v.motion = outlook.Trajectory
			w.rendering.until = min(w.rendering.until, outlook.Until)
			w.rendering.unstable = w.rendering.unstable || !outlook.Known
		}
		v.since = max(v.since, w.record.series[f.Series].since)
		return v
	}
	for _, j := range f.Needs() {
		v.since = max(v.since, w.value(j).since)
	}
	if w.rendering != nil {
		w.rendering.unstable = w.rendering.unstable || !f.DependsOnInputsOnly() ||
			slices.ContainsFunc(f.Needs(), func(j int) bool { return w.value(j).motion.Varies() })
	}
	v.result = f.Derived.Compute(w)
	return v
}

// Feature implements features.Inputs.
func (w *Viewer) Feature(name string) features.Result {
	i, ok := w.record.def.Features.Lookup(name)
	if !ok {
		return features.Result{}
	}
	return w.value(i).result
}

// Traits implements features.Inputs.
func (w *Viewer) Traits() map[string]any {
	if w.traits != nil {
		return w.traits
	}
	w.traits = map[string]any{}
	// A record with corrupt traits makes the view fail elsewhere.
	if w.record.parseTraits() == nil {
		for _, t := range w.record.traits {
			if t.value.Kind != event.Missing {
				w.traits[string(t.name)] = features.Any(t.value)
			}
		}
	}
	return w.traits
}

// zoneTrait is the trait with the customer's time zone, such as Europe/Berlin.
const zoneTrait = "timezone"

// zone returns the customer's time zone, nil if it is not known.
func (r *Record) zone() (*time.Location, error) {
	if err := r.parseTraits(); err != nil {
		return nil, err
	}
	return loadZone(string(bytes.TrimSpace(r.trait(zoneTrait).Text))), nil
}

// zones caches *time.Location by name, because loading one parses its whole
// history.
var zones sync.Map

func loadZone(name string) *time.Location {
	if zone, ok := zones.Load(name); ok {
		return zone.(*time.Location)
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" || name == "" { // time.LoadLocation("") is UTC
		// Unknown names are not cached: their number is not bounded.
		return nil
	}
	zones.Store(name, zone)
	return zone
}

// Key returns the key of a customer's record: the kind of id and the id.
func Key(kind byte, id []byte) string {
	b := make([]byte, 1, 1+len(id))
	b[0] = kind
	return string(append(b, id...))
}

// The kinds of key.
const (
	User      = 'u'
	Anonymous = 'a'
)

// KeyID returns the id in a key.
func KeyID(key string) string { return key[1:] }
