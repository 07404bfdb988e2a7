package triggers

import (
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Customer is the input of rules: one customer's id, series, traits and
// segment membership.
type Customer interface {
	// ID returns the id without its kind.
	ID() string
	// Anonymous reports whether the customer has no userId.
	Anonymous() bool
	// Zone returns the customer's time zone, nil if it is not known.
	Zone() *time.Location
	// Series returns the events of a series.
	Series(i int) *features.State
	// Trait returns a trait, Missing if there is none, and when it was stated.
	Trait(name string) (v event.Value, stated int64)
	// Segment reports whether the customer is in a segment, and since when.
	Segment(name string) (since int64, member bool)
	// Left reports whether the customer left a segment without entering it
	// again, and when.
	Left(name string) (at int64, left bool)
}

// Firing is one pending message of a rule for a customer. Times are Unix
// milliseconds.
type Firing struct {
	// Rule is the position of the rule.
	Rule int
	// CauseTime is the time of the cause. The firing is due at Due. Expires is
	// the last moment at which it is not too late.
	CauseTime, Due, Expires int64

	key  uint64 // distinguishes the causes of a rule
	mark int64  // orders the causes of a rule: a time, or the year of a date
}

// Pending appends the pending firings of a customer.
func (s *Set) Pending(dst []Firing, c Customer, state *State) []Firing {
	anonymous := c.Anonymous()
	for i := range s.Rules {
		if r := &s.Rules[i]; !anonymous || r.Anonymous {
			dst = s.pending(dst, i, c, state)
		}
	}
	return dst
}

// NextDue returns when the first pending firing is due.
func (s *Set) NextDue(c Customer, state *State) (due int64, ok bool) {
	var buffer [16]Firing
	for _, f := range s.Pending(buffer[:0], c, state) {
		if !ok || f.Due < due {
			due, ok = f.Due, true
		}
	}
	return due, ok
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
			// The elements of one event are one cause.
			if i > 0 && o.ID == causes.Occurrences[i-1].ID {
				continue
			}
			dst = s.wait(dst, Firing{Rule: rule, CauseTime: o.Time, key: eachKey(o.Time, o.ID), mark: o.Time}, c, state, rs)
		}
	}
	return dst
}

// eachKey returns a key for an event that differs from the key of another
// event at the same time.
func eachKey(at int64, id uint64) uint64 {
	const golden = 0x9E3779B97F4A7C15
	return id ^ uint64(at)*golden
}

// wait appends a firing with rule and cause set, unless it is cancelled,
// decided or over.
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
	return s.schedule(dst, f, f.CauseTime+r.After.Milliseconds(), c, rs, 0, state.EvaluatedAt)
}

// schedule sets when a firing is due and expires, and appends it, unless it was
// due before the moment stated or expired before the moment over.
func (s *Set) schedule(dst []Firing, f Firing, due int64, c Customer, rs *ruleState, stated, over int64) []Firing {
	r := &s.Rules[f.Rule]
	if quiet := s.Channels[r.Channel].Quiet; quiet.From != quiet.To && !r.Urgent {
		due = quiet.End(due, s.zone(c))
	}
	if due < stated {
		return dst
	}
	expire := r.Expire.Milliseconds()
	f.Due, f.Expires = due, due+expire
	if rs != nil && f.Due < rs.deferredUntil && f.Expires >= rs.deferredAt {
		f.Due, f.Expires = rs.deferredUntil, rs.deferredUntil+expire
	}
	if f.Expires < over {
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
	over := max(state.EvaluatedAt, stated)
	first, last := d.year, d.year
	if r.On.Yearly {
		// With Days, the message may belong to the year before or after the
		// date.
		first = max(d.year, time.UnixMilli(over).UTC().Year()-2)
		last = first + 5
	}
	for year := first; year <= last; year++ {
		// The key is the year, not the day: correcting a date causes no second
		// message in the same year.
		f := Firing{Rule: rule, key: uint64(year), mark: int64(year)}
		if rs.settled(&f) {
			continue
		}
		wall := d.in(year) + int64(r.On.Days)*day + int64(r.On.TimeOfDay)*minute
		f.CauseTime = instant(wall, s.zone(c))
		before := len(dst)
		if dst = s.schedule(dst, f, f.CauseTime, c, rs, stated, over); len(dst) > before {
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
