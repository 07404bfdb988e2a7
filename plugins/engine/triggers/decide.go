package triggers

import (
	"encoding/binary"
	"slices"
)

// Outcome is the result of deciding a firing.
type Outcome uint8

const (
	// Fired: the message is sent.
	Fired Outcome = iota
	// ControlGroup: everything else allows the message, but the customer
	// belongs to the control group.
	ControlGroup
	// Expired: the firing was evaluated too late.
	Expired
	// Predates: the firing was due before the trigger was created, or its cause is
	// from before the store was created.
	Predates
	// NoConsent: the customer does not consent to the channel.
	NoConsent
	// Unmet: the trigger's condition is false.
	Unmet
	// Failed: the condition or the consent cannot be evaluated.
	Failed
	// Capped: a frequency cap is reached.
	Capped
)

var outcomes = [...]string{"fired", "held_out", "expired", "predates", "no_consent", "condition", "failed", "capped"}

func (o Outcome) String() string { return outcomes[o] }

// Decision is a decided firing.
type Decision struct {
	Firing
	Outcome Outcome
}

// Conditions evaluates the conditions of a firing for one customer at one
// moment.
type Conditions interface {
	// Consent reports whether the customer consents to a channel.
	Consent(channel int) (bool, error)
	// When reports whether the condition of a rule is true.
	When(rule int) (bool, error)
	// Introduced returns when the present version of a rule was introduced.
	// Earlier firings are skipped.
	Introduced(rule int) int64
	// CausesFrom returns the time before which causes are skipped, 0 for none.
	CausesFrom() int64
}

// Decide decides every due firing of a customer, appends the decisions and
// records them in the state. A firing inside quiet hours is deferred to their
// end. The result depends only on the customer, the state and the moment.
func (s *Set) Decide(dst []Decision, c Customer, state *State, now int64, conditions Conditions) []Decision {
	pending := s.Pending(nil, c, state)
	pending = slices.DeleteFunc(pending, func(f Firing) bool { return f.Due > now })
	slices.SortFunc(pending, s.compareFirings)
	for i := range pending {
		f := &pending[i]
		r := &s.Rules[f.Rule]
		if end := s.quietUntil(r, c, now); f.Expires >= now && !predates(f, conditions) && end > now {
			state.ensure(r.hash).deferUntil(now, end)
			continue
		}
		outcome := s.decide(f, c, state, now, conditions)
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

// Preview returns the outcome that a firing would have at a moment. It changes
// nothing.
func (s *Set) Preview(f *Firing, c Customer, state *State, now int64, conditions Conditions) Outcome {
	return s.decide(f, c, state, now, conditions)
}

// quietUntil returns the end of the quiet hours that contain now, or now if
// there are none.
func (s *Set) quietUntil(r *Rule, c Customer, now int64) int64 {
	if quiet := s.Channels[r.Channel].Quiet; quiet.From != quiet.To && !r.Urgent {
		return quiet.End(now, s.zone(c))
	}
	return now
}

func (s *Set) decide(f *Firing, c Customer, state *State, now int64, conditions Conditions) Outcome {
	r := &s.Rules[f.Rule]
	if f.Expires < now {
		return Expired
	}
	if predates(f, conditions) {
		return Predates
	}
	switch consents, err := conditions.Consent(r.Channel); {
	case err != nil:
		return Failed
	case !consents:
		return NoConsent
	}
	switch holds, err := conditions.When(f.Rule); {
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

// predates reports whether a firing was due before its trigger existed, or has a
// cause from before the store existed.
func predates(f *Firing, conditions Conditions) bool {
	return f.Due < conditions.Introduced(f.Rule) || f.CauseTime < conditions.CausesFrom()
}

// reached reports whether one more message exceeds any of the limits.
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

// prune deletes state that cannot affect a later decision.
func (s *Set) prune(state *State, now int64) {
	state.EvaluatedAt = max(state.EvaluatedAt, now)
	state.sent = slices.DeleteFunc(state.sent, func(m message) bool { return m.time <= now-s.longest })
	state.boundMessages()
	for i := range state.rules {
		rs := &state.rules[i]
		rs.boundCauses()
		if rs.deferredUntil > now {
			continue // a deferred firing may have a cause older than the lookback
		}
		rs.deferredAt, rs.deferredUntil = 0, 0
		if at, known := s.byHash[rs.hash]; known && s.Rules[at].On.Kind == Events && s.Rules[at].On.Repeat == Each {
			// A cause older than the rule's lookback is over, decided or not.
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
