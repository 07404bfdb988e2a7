// Package triggers decides which message a customer receives after an event, a
// date or a segment change, and when.
//
// # No timers
//
// Pending firings are computed from the record, they are not stored. A rule
// such as
//
//	on: { events: [Product Added] }, after: 1h, unless: [Order Completed]
//
// with the events
//
//	10:00 Product Added    10:20 Product Added    10:50 Order Completed
//
// has one pending firing at 10:20 (due at 11:20), and none from 10:50 on.
// Pending computes it from the times of the causes and of the cancelling
// events, from traits, segments and earlier decisions. The result therefore
// does not depend on the order or repetition of events, on the time of a
// merge, or on the process. Only decisions are stored: see State.
//
// # Causes
//
// Repeat selects the latest event, each event, or the first event. A
// cancelling event counts if it is later than the cause and known at the
// moment of firing. Entering a segment is a cause while the customer is in it,
// so leaving it cancels the firing. Leaving a segment is a cause until the
// customer enters it again. A date is a cause once, or every year.
//
// # Deciding
//
// A firing is due After its cause, or at the end of the channel's quiet hours.
// Decide decides it once, with an Outcome: the message is sent, or not, for a
// reason that is counted. A decided cause never fires again. A firing that is
// evaluated later than Expire after it was due has expired.
package triggers

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Kind is the kind of a cause.
type Kind uint8

const (
	// Events: an event of the customer.
	Events Kind = iota
	// Enter: the customer entered a segment and is still in it.
	Enter
	// Leave: the customer left a segment and has not entered it again.
	Leave
	// Date: the day stated by a trait.
	Date
)

// Repeat selects which of several events are causes.
type Repeat uint8

const (
	// Latest: each event restarts the wait (debounce).
	Latest Repeat = iota
	// Each: every event is a separate cause.
	Each
	// First: only the first event ever.
	First
)

// Cause starts the wait of a rule.
type Cause struct {
	Kind   Kind
	Series int // for Events: position in the definition's series
	Repeat Repeat
	// Segment is the name of the segment, for Enter and Leave.
	Segment string
	// Trait is the name of the trait, for Date. Days are added to its date.
	// TimeOfDay is the time on that day, in minutes after midnight. If Yearly
	// is set, every anniversary is a cause.
	Trait     string
	Days      int
	TimeOfDay int
	Yearly    bool
}

// Limit is a frequency cap: at most Count messages in a sliding window of
// length Per.
type Limit struct {
	Count int
	Per   time.Duration
}

// Rule is one trigger.
type Rule struct {
	Name string
	On   Cause
	// After is the delay between cause and message.
	After time.Duration
	// Unless are the series with the events that cancel a firing.
	Unless []int
	// Channel is the position of the message's channel.
	Channel int
	// Limits are frequency caps of one customer for this rule.
	Limits []Limit
	// ControlGroup is the share of customers, from 0 to below 1, that never
	// receive this message.
	ControlGroup float64
	// Priority orders rules that are due at the same time: the highest first.
	Priority int
	// Expire is the longest delay after which a firing is not yet too late.
	Expire time.Duration
	// Anonymous allows firings for customers without a userId.
	Anonymous bool
	// Urgent allows firings in quiet hours.
	Urgent bool

	hash uint32
}

// Channel is a means of reaching customers, such as email.
type Channel struct {
	Name   string
	Quiet  Quiet
	Limits []Limit

	hash uint32
}

// Set is all rules of a definition. It is immutable and safe for concurrent
// use.
type Set struct {
	Rules    []Rule
	Channels []Channel
	// Limits are frequency caps of one customer for all rules together.
	Limits []Limit
	// ControlGroup is the share of customers, from 0 to below 1, that receive
	// no triggered message (global control group).
	ControlGroup float64
	// Zone is the time zone of customers without a known one; nil means
	// UTC.
	Zone *time.Location

	byHash  map[uint32]int
	longest int64 // the longest window of any limit, in milliseconds
}

// Bounds of the configuration.
const (
	MaxLimit  = 100
	maxExpire = 30 * 24 * time.Hour
	maxAfter  = 2 * 366 * 24 * time.Hour
	maxPer    = 366 * 24 * time.Hour
)

// RuleError is a mistake in one rule or, if Rule is -1, in the settings of all
// rules.
type RuleError struct {
	Rule int
	Name string
	Err  error
}

func (e *RuleError) Error() string {
	if e.Rule < 0 {
		return "messages: " + e.Err.Error()
	}
	return fmt.Sprintf("trigger %q: %v", e.Name, e.Err)
}

func (e *RuleError) Unwrap() error { return e.Err }

var nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// New validates the rules and prepares them for use. The error joins a
// *RuleError for every mistake.
func New(s Set) (*Set, error) {
	var errs []error
	at := -1
	fail := func(format string, args ...any) {
		name := ""
		if at >= 0 {
			name = s.Rules[at].Name
		}
		errs = append(errs, &RuleError{at, name, fmt.Errorf(format, args...)})
	}
	limits := func(list []Limit) {
		for _, l := range list {
			if l.Count < 1 || l.Count > MaxLimit || l.Per <= 0 || l.Per > maxPer {
				fail("a limit is a count from 1 to %d and a span of at most a year, such as { count: 1, per: 7d }", MaxLimit)
			}
			s.longest = max(s.longest, l.Per.Milliseconds())
		}
	}
	share := func(f float64) {
		if !(f >= 0 && f < 1) {
			fail("holdout must be from 0 to below 100 percent, such as 10")
		}
	}
	limits(s.Limits)
	share(s.ControlGroup)
	names := map[string]bool{}
	for i := range s.Channels {
		c := &s.Channels[i]
		if !nameForm.MatchString(c.Name) || names[c.Name] {
			fail("channel %q needs a name of its own of letters, digits and underscores, such as email", c.Name)
		}
		names[c.Name] = true
		c.hash = uint32(xxhash.Sum64String("channel " + c.Name))
		limits(c.Limits)
		if q := c.Quiet; q.From < 0 || q.From >= 24*60 || q.To < 0 || q.To >= 24*60 {
			fail("channel %q: quiet_hours are from 00:00 to 23:59", c.Name)
		}
	}
	s.byHash = map[uint32]int{}
	for i := range s.Rules {
		at = i
		r := &s.Rules[i]
		r.hash = uint32(xxhash.Sum64String("trigger " + r.Name))
		switch other, taken := s.byHash[r.hash]; {
		case !nameForm.MatchString(r.Name):
			fail("a name is letters, digits and underscores and begins with a letter, such as cart_abandoned")
		case taken:
			fail("its name is, or looks in a record, like that of trigger %d; give it another", other+1)
		}
		s.byHash[r.hash] = i
		if r.Channel < 0 || r.Channel >= len(s.Channels) {
			fail("it needs a channel")
		}
		if r.After < 0 || r.After > maxAfter {
			fail("after must be at most two years")
		}
		if r.Expire <= 0 || r.Expire > maxExpire {
			fail("expire must be above 0 and at most 30d, such as 6h")
		}
		if r.On.Kind == Date && r.After != 0 {
			fail("a date takes days, before it if negative, and no after")
		}
		if days := r.On.Days; days < -366 || days > 366 {
			fail("days must be from -366 to 366")
		}
		if r.On.TimeOfDay < 0 || r.On.TimeOfDay >= 24*60 {
			fail("at must be from 00:00 to 23:59")
		}
		limits(r.Limits)
		share(r.ControlGroup)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &s, nil
}

// Lookback returns the maximum age of a cause that can still fire.
func (r *Rule) Lookback() time.Duration {
	const quiet = 2 * 24 * time.Hour
	return r.After + r.Expire + quiet
}

// zone returns the time zone that applies to a customer.
func (s *Set) zone(c Customer) *time.Location {
	if zone := c.Zone(); zone != nil {
		return zone
	}
	if s.Zone != nil {
		return s.Zone
	}
	return time.UTC
}

// InControlGroup reports whether a customer belongs to the control group of a
// rule or to the global one. Membership is a hash of the id; each rule has an
// independent group.
func (s *Set) InControlGroup(rule int, id string) bool {
	return inControlGroup("", id, s.ControlGroup) || inControlGroup(s.Rules[rule].Name, id, s.Rules[rule].ControlGroup)
}

func inControlGroup(salt, id string, share float64) bool {
	if share <= 0 {
		return false
	}
	h := xxhash.Sum64String(salt + "\x00" + id)
	return float64(h>>11)/(1<<53) < share
}

// ID returns the idempotency key of a firing: the same rule, customer and
// cause always give the same key.
func (s *Set) ID(f *Firing, customer string) [16]byte {
	text := make([]byte, 0, 128)
	text = append(append(text, s.Rules[f.Rule].Name...), 0)
	text = append(append(text, customer...), 0)
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(text, f.key))
	return [16]byte(sum[:])
}

// compareFirings orders firings that are decided together.
func (s *Set) compareFirings(a, b Firing) int {
	ra, rb := &s.Rules[a.Rule], &s.Rules[b.Rule]
	return cmp.Or(
		cmp.Compare(rb.Priority, ra.Priority),
		cmp.Compare(a.Due, b.Due),
		cmp.Compare(ra.Name, rb.Name),
		cmp.Compare(a.CauseTime, b.CauseTime),
		cmp.Compare(a.key, b.key),
	)
}

// LeaveRetention returns how long a customer's leaving of a segment must be
// stored, 0 if no rule uses it.
func (s *Set) LeaveRetention(segment string) (long time.Duration) {
	for i := range s.Rules {
		if r := &s.Rules[i]; r.On.Kind == Leave && r.On.Segment == segment {
			long = max(long, r.Lookback())
		}
	}
	return long
}

// SkipEntry marks a segment entry as decided without a message, for example
// because the segment's rule changed.
func (s *Set) SkipEntry(state *State, segment string, at int64) {
	for i := range s.Rules {
		if r := &s.Rules[i]; r.On.Kind == Enter && r.On.Segment == segment {
			state.ensure(r.hash).settle(Latest, &Firing{mark: at})
		}
	}
}

// Lookup returns the position of the rule with a name.
func (s *Set) Lookup(name string) (int, bool) {
	i := slices.IndexFunc(s.Rules, func(r Rule) bool { return r.Name == name })
	return i, i >= 0
}
