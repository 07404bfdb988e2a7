package record

import (
	"encoding/json"
	"slices"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Explanation is how a profile came to be, for people to read.
type Explanation struct {
	ID        string `json:"id"`
	AsOf      string `json:"as_of"`
	UpdatedAt string `json:"updated_at,omitempty"`
	// Complete is false if features at AsOf may be off, because events of
	// around it are no longer kept one by one.
	Complete bool `json:"complete"`
	// Merged is how many other ids were merged into the customer.
	Merged   int                  `json:"merged"`
	Traits   []TraitExplanation   `json:"traits"`
	Features []FeatureExplanation `json:"features"`
	Events   EventsExplanation    `json:"events"`
}

// TraitExplanation is a trait, and who stated it when.
type TraitExplanation struct {
	Name string `json:"name"`
	// Value is null for a trait that was unset.
	Value  json.RawMessage `json:"value"`
	Source string          `json:"source"`
	Time   string          `json:"time"`
}

// FeatureExplanation is a feature's value and what it was computed from.
type FeatureExplanation struct {
	Name  string          `json:"name"`
	Value json.RawMessage `json:"value"`
	Kind  string          `json:"kind"`
	// Events, Where, Of, By and Window are those of its definition.
	Events []string `json:"events,omitempty"`
	Where  string   `json:"where,omitempty"`
	Of     string   `json:"of,omitempty"`
	By     string   `json:"by,omitempty"`
	Window string   `json:"window,omitempty"`
	// Needs are the features that a derived one is computed from.
	Needs []string `json:"needs,omitempty"`
	// Since is from when it has data, if it has not all.
	Since string `json:"since,omitempty"`
	// Counted is how many occurrences count that are kept one by one; Folded
	// tells that others count as well.
	Counted int  `json:"counted"`
	Folded  bool `json:"folded,omitempty"`
	// Occurrences are the latest of those that count, the latest first.
	Occurrences []OccurrenceExplanation `json:"occurrences,omitempty"`
}

// OccurrenceExplanation is an event, or an element of its array, that counts.
type OccurrenceExplanation struct {
	Time   string                     `json:"time"`
	Values map[string]json.RawMessage `json:"values,omitempty"`
}

// EventsExplanation is what is kept of the customer's events.
type EventsExplanation struct {
	// Kept is how many are kept one by one, up to the moment asked for.
	Kept int `json:"kept"`
	// FoldedTo is the time of the latest event that no longer is.
	FoldedTo string `json:"folded_to,omitempty"`
	// Latest are the latest of those kept, the latest first.
	Latest []EventExplanation `json:"latest"`
}

// EventExplanation is an event that is kept.
type EventExplanation struct {
	Time string `json:"time"`
	// Names are what the event may be called: a record keeps which features it
	// counts for, not its name.
	Names []string `json:"names,omitempty"`
	// Features are those it may count for.
	Features []string `json:"features,omitempty"`
}

// The most that an explanation lists.
const (
	maxExplainedOccurrences = 20
	maxExplainedEvents      = 50
)

// Explain tells how the record gives a profile as of a time in Unix
// milliseconds.
func (w *Viewer) Explain(r *Record, id string, asOf int64) (*Explanation, error) {
	all := r.def.Features.Features
	w.chosen = w.chosen[:0]
	for i := range all {
		w.chosen = append(w.chosen, i)
	}
	if err := w.prepare(r, asOf); err != nil {
		return nil, err
	}
	if err := r.parseTraits(); err != nil {
		return nil, err
	}
	x := &Explanation{
		ID: id, AsOf: formatTime(asOf), Complete: asOf >= r.FoldedTo(), Merged: len(r.merged),
		Traits: []TraitExplanation{}, Features: []FeatureExplanation{},
	}
	if r.updatedAt > 0 {
		x.UpdatedAt = formatTime(r.updatedAt)
	}
	for _, t := range r.traits {
		x.Traits = append(x.Traits, TraitExplanation{string(t.name), features.AppendJSON(nil, t.value), string(t.source), formatTime(t.time)})
	}
	for i := range all {
		x.Features = append(x.Features, w.explain(i))
	}
	x.Events = r.explainEvents(asOf)
	return x, nil
}

func (w *Viewer) explain(i int) FeatureExplanation {
	all := w.record.def.Features.Features
	f, v := &all[i], w.value(i)
	x := FeatureExplanation{
		Name: f.Name, Kind: string(f.Kind), Value: v.result.AppendJSON(nil),
		Events: f.Events, Where: f.Where, Of: f.ValuePath, By: f.GroupPath,
	}
	if f.Window > 0 {
		x.Window = features.FormatSpan(f.Window)
	}
	if v.since > 0 {
		x.Since = formatTime(v.since)
	}
	for _, j := range f.Needs() {
		x.Needs = append(x.Needs, all[j].Name)
	}
	if f.Series < 0 {
		return x
	}
	counted, folded := f.CountedOccurrences(&w.states[f.Series], w.moment)
	x.Counted, x.Folded = len(counted), folded
	reads := f.ValuePaths()
	for n, o := range slices.Backward(counted) {
		if len(counted)-n > maxExplainedOccurrences {
			break
		}
		e := OccurrenceExplanation{Time: formatTime(o.Time)}
		for c, value := range []event.Value{o.First, o.Second} {
			if c < len(reads) {
				if e.Values == nil {
					e.Values = map[string]json.RawMessage{}
				}
				e.Values[reads[c]] = features.AppendJSON(nil, value)
			}
		}
		x.Occurrences = append(x.Occurrences, e)
	}
	return x
}

func (r *Record) explainEvents(asOf int64) EventsExplanation {
	x := EventsExplanation{Latest: []EventExplanation{}}
	if r.folded != never {
		x.FoldedTo = formatTime(r.folded.time)
	}
	type entry struct {
		time    int64
		extract []byte
	}
	var latest []entry
	// The log was checked when it was read.
	_ = r.walk(func(_ int, at logPosition, extract []byte) bool {
		if at.time > asOf {
			return false
		}
		x.Kept++
		if latest = append(latest, entry{at.time, extract}); len(latest) > maxExplainedEvents {
			latest = latest[1:]
		}
		return true
	})
	for _, e := range slices.Backward(latest) {
		known := slices.DeleteFunc(features.SeriesOf(e.extract), func(i int) bool { return i >= len(r.def.Features.Series) })
		item := EventExplanation{Time: formatTime(e.time), Names: r.def.Features.EventsOf(known)}
		for i := range r.def.Features.Features {
			if f := &r.def.Features.Features[i]; f.Series >= 0 && slices.Contains(known, f.Series) {
				item.Features = append(item.Features, f.Name)
			}
		}
		x.Latest = append(x.Latest, item)
	}
	return x
}

func formatTime(ms int64) string { return string(event.AppendTime(nil, ms)) }
