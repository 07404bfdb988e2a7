package triggers

import (
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Customer is what rules read of a customer.
type Customer interface {
	// ID is the id, without its kind.
	ID() string
	// Anonymous tells that the customer is not known by a userId.
	Anonymous() bool
	// Zone is where the customer lives, nil if that is not known.
	Zone() *time.Location
	// Series is what there is of a series.
	Series(i int) *features.State
	// Trait is a trait, Missing if there is none, and when it was stated.
	Trait(name string) (v event.Value, stated int64)
	// Segment tells whether the customer is in a segment, and since when.
	Segment(name string) (since int64, member bool)
	// Left tells when the customer left a segment they are not in again.
	Left(name string) (at int64, left bool)
}

// Firing is a rule that waits for a customer. Times are Unix milliseconds.
type Firing struct {
	// Rule is the position of the rule.
	Rule int
	// At is when the cause happened, Due when the rule fires, and Expires the
	// first moment at which that is too late.
	CauseTime, Due, Expires int64

	key  uint64 // tells causes of a rule apart
	mark int64  // and orders them: a time, or the year of a date
}

// Pending appends what waits for a customer.
func (s *Set) Pending(dst []Firing, c Customer, state *State) []Firing {
	anonymous := c.Anonymous()
	for i := range s.Rules {
		if r := &s.Rules[i]; !anonymous || r.Anonymous {
			dst = s.pending(dst, i, c, state)
		}
	}
	return dst
}

// NextDue returns when the first of what waits for a customer is due.
func (s *Set) NextDue(c Customer, state *State) (due int64, some bool) {
	var room [16]Firing
	for _, f := range s.Pending(room[:0], c, state) {
		if !some || f.Due < due {
			due, some = f.Due, true
		}
	}
	return due, some
}

func (s *Set) pending(dst []Firing, rule int, c Customer, state *State) []Firing {
	r := &s.Rules[rule]
	rs := state.rule(r.hash)
	switch r.On.Kind {
	case Enter:
		since, member := c.Segment(r.On.Segment)
		if !member {
			return dst
		}
		return s.wait(dst, Firing{Rule: rule, CauseTime: since, key: uint64(since), mark: since}, c, state, rs)
	case Leave:
		at, left := c.Left(r.On.Segment)
		if !left {
			return dst
		}
		return s.wait(dst, Firing{Rule: rule, CauseTime: at, key: uint64(at), mark: at}, c, state, rs)
	case Date:
		return s.pendingDate(dst, rule, c, state, rs)
	}
	causes := c.Series(r.On.Series)
	switch r.On.Repeat {
	case Latest:
		if last := lastTime(causes); last >= 0 {
			dst = s.wait(dst, Firing{Rule: rule, CauseTime: last, key: uint64(last), mark: last}, c, state, rs)
		}
	case First:
		first := causes.Tiles.First()
		if len(causes.Occurrences) > 0 && (first < 0 || causes.Occurrences[0].Time < first) {
			first = causes.Occurrences[0].Time
		}
		if first >= 0 {
			dst = s.wait(dst, Firing{Rule: rule, CauseTime: first, mark: first}, c, state, rs)
		}
	case Each:
		for i := range causes.Occurrences {
			o := &causes.Occurrences[i]
			// Elements of one event are one cause.
			if i > 0 && o.ID == causes.Occurrences[i-1].ID {
				continue
			}
			dst = s.wait(dst, Firing{Rule: rule, CauseTime: o.Time, key: eachKey(o.Time, o.ID), mark: o.Time}, c, state, rs)
		}
	}
	return dst
}

// eachKey tells two events apart, also of the same moment.
func eachKey(at int64, id uint64) uint64 {
	const golden = 0x9E3779B97F4A7C15
	return id ^ uint64(at)*golden
}

// wait appends a firing of which rule and cause are known, unless it is
// cancelled, settled or over.
func (s *Set) wait(dst []Firing, f Firing, c Customer, state *State, rs *ruleState) []Firing {
	r := &s.Rules[f.Rule]
	if rs.settled(&f) {
		return dst
	}
	for _, series := range r.Unless {
		if u := c.Series(series); lastTime(u) > f.CauseTime {
			return dst
		}
	}
	return s.schedule(dst, f, f.CauseTime+r.After.Milliseconds(), c, state, rs, state.EvaluatedAt)
}

// schedule appends a firing that would be due at a moment, unless it is over
// at another.
func (s *Set) schedule(dst []Firing, f Firing, due int64, c Customer, state *State, rs *ruleState, over int64) []Firing {
	r := &s.Rules[f.Rule]
	if quiet := s.Channels[r.Channel].Quiet; quiet.From != quiet.To && !r.Urgent {
		due = quiet.End(due, s.zone(c))
	}
	expire := r.Expire.Milliseconds()
	f.Due, f.Expires = due, due+expire
	if rs != nil && f.Due < rs.deferredUntil && f.Expires > rs.deferredAt {
		f.Due, f.Expires = rs.deferredUntil, rs.deferredUntil+expire
	}
	if f.Expires <= over {
		return dst
	}
	return append(dst, f)
}

// pendingDate appends the first day of a date rule that is not over.
func (s *Set) pendingDate(dst []Firing, rule int, c Customer, state *State, rs *ruleState) []Firing {
	r := &s.Rules[rule]
	v, stated := c.Trait(r.On.Trait)
	if v.Kind != event.String {
		return dst
	}
	d, ok := parseDate(v.Text)
	if !ok || !r.On.Yearly && d.year == 0 {
		return dst
	}
	// What was over when the date was stated is not made up for.
	over := max(state.EvaluatedAt, stated)
	first, last := d.year, d.year
	if r.On.Yearly {
		// The day may lie in the year before or after its date.
		first = max(d.year, time.UnixMilli(over).UTC().Year()-2)
		last = first + 5
	}
	for year := first; year <= last; year++ {
		// Years are told apart, days are not: a date that is corrected gives
		// no second day in the same year.
		f := Firing{Rule: rule, key: uint64(year), mark: int64(year)}
		if rs.settled(&f) {
			continue
		}
		wall := d.in(year) + int64(r.On.Days)*day + int64(r.On.TimeOfDay)*minute
		f.CauseTime = instant(wall, s.zone(c))
		before := len(dst)
		if dst = s.schedule(dst, f, f.CauseTime, c, state, rs, over); len(dst) > before {
			return dst
		}
	}
	return dst
}

func lastTime(state *features.State) int64 {
	last := state.Tiles.Last()
	if n := len(state.Occurrences); n > 0 {
		last = max(last, state.Occurrences[n-1].Time)
	}
	return last
}
