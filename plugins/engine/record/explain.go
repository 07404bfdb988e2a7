package record

import (
	"encoding/json"
	"slices"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Explanation describes, for a human reader, the data behind a profile.
type Explanation struct {
	ID        string `json:"id"`
	AsOf      string `json:"as_of"`
	UpdatedAt string `json:"updated_at,omitempty"`
	// Complete is false if features at AsOf may be inexact, because events of
	// that time were folded into tiles.
	Complete bool `json:"complete"`
	// Merged is the number of other ids merged into the customer.
	Merged   int                  `json:"merged"`
	Traits   []TraitExplanation   `json:"traits"`
	Features []FeatureExplanation `json:"features"`
	Events   EventsExplanation    `json:"events"`
}

// TraitExplanation is a trait with its provenance.
type TraitExplanation struct {
	Name string `json:"name"`
	// Value is null for a trait that was unset.
	Value  json.RawMessage `json:"value"`
	Source string          `json:"source"`
	Time   string          `json:"time"`
}

// FeatureExplanation is a feature's value and the occurrences behind it.
type FeatureExplanation struct {
	Name  string          `json:"name"`
	Value json.RawMessage `json:"value"`
	Kind  string          `json:"kind"`
	// Events, Where, Of, By and Window are those of the definition.
	Events []string `json:"events,omitempty"`
	Where  string   `json:"where,omitempty"`
	Of     string   `json:"of,omitempty"`
	By     string   `json:"by,omitempty"`
	Window string   `json:"window,omitempty"`
	// Needs are the features from which a derived feature is computed.
	Needs []string `json:"needs,omitempty"`
	// Since is the start of the feature's data, if it does not cover the whole
	// history.
	Since string `json:"since,omitempty"`
	// Counted is the number of occurrences, kept individually, that the
	// feature counts. Folded is set if it counts folded events as well.
	Counted int  `json:"counted"`
	Folded  bool `json:"folded,omitempty"`
	// Occurrences are the latest of the counted ones, the latest first.
	Occurrences []OccurrenceExplanation `json:"occurrences,omitempty"`
}

// OccurrenceExplanation is a counted event, or a counted element of its array.
type OccurrenceExplanation struct {
	Time   string                     `json:"time"`
	Values map[string]json.RawMessage `json:"values,omitempty"`
}

// EventsExplanation describes the customer's stored events.
type EventsExplanation struct {
	// Kept is the number of events kept individually, up to AsOf.
	Kept int `json:"kept"`
	// FoldedTo is the time of the latest folded event.
	FoldedTo string `json:"folded_to,omitempty"`
	// Latest are the latest events kept individually, the latest first.
	Latest []EventExplanation `json:"latest"`
}

// EventExplanation is an event kept individually.
type EventExplanation struct {
	Time string `json:"time"`
	// Names are the possible names of the event: a record stores for which
	// features an event counts, not its name.
	Names []string `json:"names,omitempty"`
	// Features are those for which it may count.
	Features []string `json:"features,omitempty"`
}

// Maximum lengths of the lists in an explanation.
const (
	maxExplainedOccurrences = 20
	maxExplainedEvents      = 50
)

// Explain explains the profile as of a time in Unix milliseconds.
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
	x.Complete = x.Complete && w.IsWithinBound()
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
	// The log was validated when it was decoded.
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
