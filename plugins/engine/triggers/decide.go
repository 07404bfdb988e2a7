package triggers

import (
	"encoding/binary"
	"slices"
)

// Outcome is how a firing was decided.
type Outcome uint8

// The outcomes.
const (
	// Fired: the customer is told.
	Fired Outcome = iota
	// HeldOut: everything held, but the customer is in the share that is told
	// nothing.
	ControlGroup
	// Expired: it was found too late.
	Expired
	// Predates: it was due before the rule was there.
	Predates
	// NoConsent: the customer does not want the channel.
	NoConsent
	// Unmet: the rule's condition did not hold.
	Unmet
	// Failed: the condition, or the channel's consent, could not be evaluated.
	Failed
	// Capped: a limit was reached.
	Capped
)

var outcomes = [...]string{"fired", "held_out", "expired", "predates", "no_consent", "condition", "failed", "capped"}

func (o Outcome) String() string { return outcomes[o] }

// Outcomes lists the names of all outcomes.
func Outcomes() []string { return outcomes[:] }

// Decision is a firing that was decided.
type Decision struct {
	Firing
	Outcome Outcome
}

// Conditions are what must hold at the moment of firing.
type Conditions interface {
	// Consent tells whether the customer wants to be told by a channel.
	Consent(channel int) (bool, error)
	// When tells whether the condition of a rule holds.
	When(rule int) (bool, error)
	// Introduced is when a rule came to be as it is. What was due before is not
	// made up for.
	Introduced(rule int) int64
}

// Decide decides everything that is due for a customer, appends the decisions,
// and notes them in the state. What is due in quiet hours is put off. The same
// customer, state and moment give the same decisions.
func (s *Set) Decide(dst []Decision, c Customer, state *State, now int64, must Conditions) []Decision {
	pending := s.Pending(nil, c, state)
	pending = slices.DeleteFunc(pending, func(f Firing) bool { return f.Due > now })
	slices.SortFunc(pending, s.compareFirings)
	for i := range pending {
		f := &pending[i]
		r := &s.Rules[f.Rule]
		if end := s.quietUntil(r, c, now); f.Expires > now && f.Due >= must.Introduced(f.Rule) && end > now {
			state.ensure(r.hash).deferUntil(now, end)
			continue
		}
		outcome := s.decide(f, c, state, now, must)
		repeat := r.On.Repeat
		if r.On.Kind != Events {
			repeat = Latest
		}
		state.ensure(r.hash).settle(repeat, f)
		if outcome == Fired || outcome == ControlGroup {
			id := s.ID(f, c.ID())
			state.addMessage(message{now, r.hash, s.Channels[r.Channel].hash, binary.LittleEndian.Uint32(id[:]), outcome == ControlGroup})
		}
		dst = append(dst, Decision{*f, outcome})
	}
	s.prune(state, now)
	return dst
}

// Try tells how a firing would be decided if it were due at a moment, and
// changes nothing.
func (s *Set) Preview(f *Firing, c Customer, state *State, now int64, must Conditions) Outcome {
	return s.decide(f, c, state, now, must)
}

// quietUntil returns when the quiet hours that a moment is in end, the moment
// if there are none.
func (s *Set) quietUntil(r *Rule, c Customer, now int64) int64 {
	if quiet := s.Channels[r.Channel].Quiet; quiet.From != quiet.To && !r.Urgent {
		return quiet.End(now, s.zone(c))
	}
	return now
}

func (s *Set) decide(f *Firing, c Customer, state *State, now int64, must Conditions) Outcome {
	r := &s.Rules[f.Rule]
	if f.Expires <= now {
		return Expired
	}
	if f.Due < must.Introduced(f.Rule) {
		return Predates
	}
	switch consents, err := must.Consent(r.Channel); {
	case err != nil:
		return Failed
	case !consents:
		return NoConsent
	}
	switch holds, err := must.When(f.Rule); {
	case err != nil:
		return Failed
	case !holds:
		return Unmet
	}
	channel := s.Channels[r.Channel].hash
	if state.reached(r.Limits, now, func(m message) bool { return m.rule == r.hash }) ||
		state.reached(s.Channels[r.Channel].Limits, now, func(m message) bool { return m.channel == channel && !m.control }) ||
		state.reached(s.Limits, now, func(m message) bool { return !m.control }) {
		return Capped
	}
	if s.InControlGroup(f.Rule, c.ID()) {
		return ControlGroup
	}
	return Fired
}

// reached tells whether one more message would be above one of some limits.
func (s *State) reached(limits []Limit, now int64, counts func(message) bool) bool {
	for _, l := range limits {
		from, n := now-l.Per.Milliseconds(), 0
		for _, m := range s.sent {
			if m.time > from && counts(m) {
				n++
			}
		}
		if n >= l.Count {
			return true
		}
	}
	return false
}

// prune forgets what can no longer matter.
func (s *Set) prune(state *State, now int64) {
	state.EvaluatedAt = max(state.EvaluatedAt, now)
	state.sent = slices.DeleteFunc(state.sent, func(m message) bool { return m.time <= now-s.longest })
	state.boundMessages()
	for i := range state.rules {
		rs := &state.rules[i]
		rs.boundCauses()
		if rs.deferredUntil > now {
			continue // it has causes that would be over by now
		}
		rs.deferredAt, rs.deferredUntil = 0, 0
		if at, known := s.byHash[rs.hash]; known && s.Rules[at].On.Kind == Events && s.Rules[at].On.Repeat == Each {
			// A cause from before the rule's reach is over, whether settled or
			// not.
			n := 0
			for before := now - s.Rules[at].Lookback().Milliseconds(); n < len(rs.causes) && rs.causes[n].mark < before; n++ {
			}
			if n > 0 {
				rs.settleThrough(rs.causes[n-1].mark)
			}
		}
	}
	state.rules = slices.DeleteFunc(state.rules, func(r ruleState) bool { return r.through < 0 && r.deferredUntil == 0 && len(r.causes) == 0 })
}
