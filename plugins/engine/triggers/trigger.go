// Package triggers says which customer is to be told what, and when: a cause and
// a delay, what cancels it, and what must hold at the moment of telling.
//
// # Nothing is kept running
//
// There are no timers. What is pending for a customer, and when it is due,
// follows from the customer's record: the times of the events that are causes
// and of those that cancel, the customer's traits and segments, and what was
// settled before. So it does not depend on the order in which events arrived,
// on how often they did, on when two customers were merged, or on which
// process looks. All that is kept is what was settled: see State.
//
// # Causes
//
// A rule over events looks, by Repeat, at the latest of its causes, at each, or
// at the first. An event that cancels does so if it is later than the cause and
// known at the moment of firing. Having entered a segment is a cause as long as
// the customer is in it: leaving it cancels. Having left one is a cause as long
// as they are not in it again. A date is a cause once, or every year.
//
// # Firing
//
// A firing is due After its cause, or when the quiet hours of its channel end.
// It is decided once: it fires, or it is settled in another way for a reason
// that is told, and never comes back. One that is found later than Expire after
// it was due is stale and only counted.
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

// The kinds of cause.
const (
	// Events: something the customer did.
	Events Kind = iota
	// Enter: the customer is in a segment, since they entered it.
	Enter
	// Leave: the customer has left a segment, since they left it.
	Leave
	// Date: a day that a trait names.
	Date
)

// Repeat says which of many events are causes.
type Repeat uint8

// What Repeat may be.
const (
	// Latest: the wait begins anew with each event.
	Latest Repeat = iota
	// Each: every event is a cause of its own.
	Each
	// First: only the first event there ever was.
	First
)

// Cause is what begins the wait.
type Cause struct {
	Kind   Kind
	Series int // of Events: their series in the definition
	Repeat Repeat
	// Segment is the name of the segment of Enter and Leave.
	Segment string
	// Trait is the name of the trait of Date; Days are added to what it says,
	// and At is the time of that day, in minutes after midnight. Yearly makes
	// every anniversary a cause.
	Trait     string
	Days      int
	TimeOfDay int
	Yearly    bool
}

// Limit is how many messages there may be in a span of time.
type Limit struct {
	Count int
	Per   time.Duration
}

// Rule is one trigger.
type Rule struct {
	Name string
	On   Cause
	// After is how long after its cause it fires.
	After time.Duration
	// Unless are the series of events that cancel.
	Unless []int
	// Channel is the position of the channel it goes by.
	Channel int
	// Limits are per customer, for this rule alone.
	Limits []Limit
	// Holdout is the share of customers, of 1, that are never told.
	ControlGroup float64
	// Priority decides between rules that are due at once: the higher first.
	Priority int
	// Expire is how late it may fire.
	Expire time.Duration
	// Anonymous lets it fire for customers who are not known.
	Anonymous bool
	// Urgent lets it fire in quiet hours.
	Urgent bool

	hash uint32
}

// Channel is a way to tell customers something.
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
	// Limits are per customer, for all rules together.
	Limits []Limit
	// Holdout is the share of customers, of 1, that no rule tells anything.
	ControlGroup float64
	// Zone is where customers live who do not say; nil is UTC.
	Zone *time.Location

	byHash  map[uint32]int
	longest int64 // span of any limit
}

// Bounds of what may be set.
const (
	MaxLimit  = 100
	MaxExpire = 30 * 24 * time.Hour
	MaxAfter  = 2 * 366 * 24 * time.Hour
	MaxPer    = 366 * 24 * time.Hour
)

// RuleError is what is wrong with one rule, or, if Rule is -1, with what holds
// for all of them.
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

// New checks the rules of a set and makes them ready. The error joins a
// *RuleError for everything that is wrong.
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
			if l.Count < 1 || l.Count > MaxLimit || l.Per <= 0 || l.Per > MaxPer {
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
		if r.After < 0 || r.After > MaxAfter {
			fail("after must be at most two years")
		}
		if r.Expire <= 0 || r.Expire > MaxExpire {
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

// Reach returns how far back, from the moment of firing, a rule looks.
func (r *Rule) Lookback() time.Duration {
	const quiet = 2 * 24 * time.Hour
	return r.After + r.Expire + quiet
}

// zone returns where a customer lives.
func (s *Set) zone(c Customer) *time.Location {
	if zone := c.Zone(); zone != nil {
		return zone
	}
	if s.Zone != nil {
		return s.Zone
	}
	return time.UTC
}

// HeldOut tells whether a customer is in the share of a rule, or of all rules,
// that is told nothing: an even share of ids, another for each rule.
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

// ID identifies a firing: the same rule, customer and cause give the same one,
// whoever fires and however often.
func (s *Set) ID(f *Firing, customer string) [16]byte {
	text := make([]byte, 0, 128)
	text = append(append(text, s.Rules[f.Rule].Name...), 0)
	text = append(append(text, customer...), 0)
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(text, f.key))
	return [16]byte(sum[:])
}

// order is that in which firings that are due at once are decided.
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

// AfterLeaving returns for how long it matters that a customer left a segment,
// 0 if no rule asks.
func (s *Set) LeaveRetention(segment string) (long time.Duration) {
	for i := range s.Rules {
		if r := &s.Rules[i]; r.On.Kind == Leave && r.On.Segment == segment {
			long = max(long, r.Lookback())
		}
	}
	return long
}

// Pass settles that a customer entered a segment at a moment, for a reason that
// is nothing to be told of.
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
