package record

import (
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
)

// TriggerIndex contains the customers with a pending trigger; the value is the
// time at which the first is due, in the form of FormatTime.
const TriggerIndex = "triggers"

// TriggersDue returns when the first trigger is due, as of the last write.
func (r *Record) TriggersDue() (due int64, ok bool) { return r.triggers.Due() }

// mergeTriggers adds the trigger state of a merged record and reports whether
// anything changed.
func (r *Record) mergeTriggers(o *Record) bool {
	before := string(r.triggers.Append(nil))
	r.triggers.Merge(&o.triggers)
	return before != string(r.triggers.Append(nil))
}

// TriggerEvaluator evaluates the triggers of records and reuses its memory. It
// is not safe for concurrent use; the zero value is ready.
type TriggerEvaluator struct {
	states []features.State
	wanted []bool
	subject
}

// subject adapts a record to triggers.Customer.
type subject struct {
	record *Record
	key    string
	states *[]features.State
	zone   *time.Location
}

// Schedule stores in the record when its first trigger is due. Call it before
// writing a record under key.
func (w *TriggerEvaluator) Schedule(r *Record, key string) error {
	rules := r.def.Triggers
	if rules == nil || len(r.link) > 0 || r.Erased() {
		r.triggers.SetDue(0, false)
		return nil
	}
	if err := w.read(r, key); err != nil {
		return err
	}
	r.triggers.SetDue(rules.NextDue(&w.subject, &r.triggers))
	return nil
}

// Decide decides the triggers that are due at a time in Unix milliseconds,
// appends the decisions and stores them in the record.
func (w *TriggerEvaluator) Decide(dst []triggers.Decision, r *Record, key string, now int64, conditions triggers.Conditions) ([]triggers.Decision, error) {
	rules := r.def.Triggers
	if rules == nil || len(r.link) > 0 || r.Erased() {
		return dst, nil
	}
	if err := w.read(r, key); err != nil {
		return dst, err
	}
	return rules.Decide(dst, &w.subject, &r.triggers, now, conditions), nil
}

// Preview is a pending firing and the outcome that it would have now.
type Preview struct {
	triggers.Firing
	Outcome triggers.Outcome
}

// Preview appends every pending firing, with the outcome that it would have at
// a time in Unix milliseconds. It changes nothing.
func (w *TriggerEvaluator) Preview(dst []Preview, r *Record, key string, now int64, conditions triggers.Conditions) ([]Preview, error) {
	rules := r.def.Triggers
	if rules == nil || len(r.link) > 0 {
		return dst, nil
	}
	if err := w.read(r, key); err != nil {
		return dst, err
	}
	for _, f := range rules.Pending(nil, &w.subject, &r.triggers) {
		dst = append(dst, Preview{f, rules.Preview(&f, &w.subject, &r.triggers, now, conditions)})
	}
	return dst, nil
}

// read prepares the parts of a record that triggers read.
func (w *TriggerEvaluator) read(r *Record, key string) error {
	w.subject = subject{record: r, key: key, states: &w.states}
	zone, err := r.zone()
	if err != nil {
		return err
	}
	w.zone = zone
	w.wanted = append(w.wanted[:0], make([]bool, len(r.series))...)
	for _, i := range r.def.Features.Selectors {
		w.wanted[i] = true
	}
	return r.gather(&w.states, w.wanted)
}

func (s *subject) ID() string { return KeyID(s.key) }

func (s *subject) Anonymous() bool { return s.key[0] == Anonymous }

func (s *subject) Zone() *time.Location { return s.zone }

func (s *subject) Series(i int) *features.State { return &(*s.states)[i] }

func (s *subject) Trait(name string) (event.Value, int64) {
	for i := range s.record.traits {
		if t := &s.record.traits[i]; string(t.name) == name {
			return t.value, t.time
		}
	}
	return event.Value{}, 0
}

func (s *subject) Segment(name string) (int64, bool) { return s.record.MemberSince(name) }

func (s *subject) Left(name string) (int64, bool) { return s.record.LeftAt(name) }
