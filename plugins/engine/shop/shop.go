// Package shop simulates a shop and generates the events of its customers: an
// endless stream, identical to the byte for identical settings.
//
// The events use Segment's e-commerce and email vocabulary, in the form that the
// collector gives them. Visitors arrive anonymous, browse, fill carts, sign in or
// not, order or leave; members receive mail, open it, return through its links,
// buy at the till and rise in the loyalty programme. On request a share of the
// events is invalid, late or duplicated, and labelled so.
//
// Everything is fictional: names are combined from lists, email addresses are
// under example.com, example.org and example.net, and phone numbers and IP
// addresses come from ranges reserved for fiction and documentation.
//
// visits.go is the state machine of a visit, encode.go writes events, faults.go
// breaks them, people.go and catalogue.go hold the data, random.go is the
// generator of random numbers.
package shop

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Settings determine a shop completely.
type Settings struct {
	// Seed selects the shop.
	Seed uint64
	// Start is the time at which the collector receives the first event, cut to
	// whole milliseconds.
	Start time.Time
	// Rate is the number of events that the collector receives in a second. With
	// 0 the rate follows from Customers, DailyEvents and the time of day.
	Rate float64
	// Customers is the number of customers.
	Customers int
	// DailyEvents is the number of events of the average customer in a day. It
	// applies only if Rate is 0.
	DailyEvents float64
	// Invalid, Late and Duplicated are shares of all events: broken or unknown
	// events, events that arrive late, and repeated events. Their sum is at most 1.
	Invalid, Late, Duplicated float64
	// MaxLateness is the maximum delay of a late event: at least 1 s if there are
	// late events.
	MaxLateness time.Duration
}

// Limits of the settings.
const (
	maxCustomers = 100_000_000
	maxRate      = 1e9
)

// Timestamps have four digits for the year, so a shop starts no later than latest
// and its clock stops at endOfTime.
var (
	earliest  = time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)
	latest    = time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMicro()
)

// Validate returns an error that names the first invalid setting.
func (s Settings) Validate() error {
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case s.Customers < 1 || s.Customers > maxCustomers:
		return fmt.Errorf("customers is %d: a shop has from 1 to %d", s.Customers, maxCustomers)
	case !(s.Rate >= 0 && s.Rate <= maxRate):
		return fmt.Errorf("rate is %v: it must be from 0 to %v events a second", s.Rate, float64(maxRate))
	case s.Rate == 0 && !(s.DailyEvents > 0 && s.DailyEvents <= 100_000):
		return fmt.Errorf("daily events is %v: it must be more than 0 and at most 100000 if there is no rate", s.DailyEvents)
	case !share(s.Invalid) || !share(s.Late) || !share(s.Duplicated):
		return errors.New("the shares of invalid, late and duplicated events must each be from 0 to 1")
	case s.Invalid+s.Late+s.Duplicated > 1:
		return errors.New("the shares of invalid, late and duplicated events must not exceed 1 together")
	case s.Late > 0 && s.MaxLateness < time.Second:
		return fmt.Errorf("max lateness is %v: it must be 1s or more if there are late events", s.MaxLateness)
	case s.MaxLateness > 365*24*time.Hour:
		return fmt.Errorf("max lateness is %v: it must be a year or less", s.MaxLateness)
	case s.Start.Before(earliest.Add(s.MaxLateness)) || s.Start.After(latest):
		return fmt.Errorf("start is %s: it must be after 1970 and before the year 9000", s.Start.Format(time.RFC3339))
	}
	return nil
}

// Event is one message.
type Event struct {
	// Data is a JSON object, except with some faults. Do not change it: events
	// share memory.
	Data []byte
	// Received is the time at which the collector receives the event. It never
	// decreases from event to event.
	Received time.Time
	// Fault labels an event with a fault; None otherwise.
	Fault Fault
}

const (
	hourMicros = int64(time.Hour / time.Microsecond)

	// chunk is the size of one allocation; maxEventBytes bounds one event.
	chunk         = 64 << 10
	maxEventBytes = 4 << 10

	// visitPace is the approximate interval between the events of one visit.
	visitPace = 20 * time.Second
	maxVisits = 50_000

	// recentEvents is the number of last events that duplicates are chosen from.
	recentEvents = 64
)

// Shop generates events. It is not safe for concurrent use.
type Shop struct {
	settings Settings

	// behaviour decides the actions of customers, faults the faults. They are
	// separate generators, so the shares of faults do not change the actions.
	behaviour, faults random
	// Thresholds of a draw from faults for an invalid, late or duplicated event.
	invalidBelow, lateBelow, duplicateBelow uint64

	people []person
	visits []visit

	// clock is the time of the current event in microseconds since 1970; events
	// counts the events.
	start, clock int64
	events       int64
	period       float64   // microseconds from event to event, with a rate
	steps        [24]int64 // without a rate: the same for each hour of the day

	idSeed   uint64
	messages uint64
	orders   uint64

	buf    []byte
	recent [recentEvents][]byte
	kept   int
	dates  dateCache
}

// New returns a shop, or an error that names the first invalid setting.
func New(settings Settings) (*Shop, error) {
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	settings.Start = settings.Start.UTC().Truncate(time.Millisecond)
	s := &Shop{
		settings:  settings,
		behaviour: random{facts(settings.Seed, 3, 0)},
		faults:    random{facts(settings.Seed, 4, 0)},
		people:    make([]person, settings.Customers),
		start:     settings.Start.UnixMicro(),
	}
	s.clock = s.start
	// Another start has other message ids; otherwise its events would be
	// deduplicated as repetitions.
	s.idSeed = facts(settings.Seed, 5, int(settings.Start.UnixMilli()))

	for i := range s.people {
		if f := s.facts(i); memberFromTheStart(f) {
			s.people[i].flags = member
			if f>>32%2 == 0 {
				s.people[i].flags |= browserKnown | phoneKnown
			}
		}
	}

	bound := func(share float64) uint64 {
		if share >= 1 {
			return math.MaxUint64
		}
		return uint64(share * (1 << 63) * 2)
	}
	s.invalidBelow = bound(settings.Invalid)
	s.lateBelow = bound(settings.Invalid + settings.Late)
	s.duplicateBelow = bound(settings.Invalid + settings.Late + settings.Duplicated)

	var pace float64 // events a second
	if settings.Rate > 0 {
		pace = settings.Rate
		s.period = 1e6 / settings.Rate
	} else {
		pace = float64(settings.Customers) * settings.DailyEvents / (24 * 60 * 60)
		s.steps = hourlySteps(1e6 / pace)
	}
	visits := int(pace * visitPace.Seconds())
	s.visits = make([]visit, max(1, min(visits, (settings.Customers+7)/8, maxVisits)))
	return s, nil
}

// hourlySteps returns the interval between events for each hour of the day (UTC),
// from the activity of all places together, with the given average.
func hourlySteps(average float64) (steps [24]int64) {
	var weights [24]int
	total := 0
	for hour := range weights {
		for _, p := range places {
			weights[hour] += activity[localHour(hour*60, p.offset)]
		}
		total += weights[hour]
	}
	for hour, weight := range weights {
		steps[hour] = max(1, int64(min(average*float64(total)/float64(24*weight), 1e15)))
	}
	return steps
}

// localHour returns the hour of the day at an offset in minutes east of UTC, for a
// time in minutes after midnight UTC.
func localHour(minutes, offset int) int {
	const day = 24 * 60
	return (minutes + offset + day) % day / 60
}

func (s *Shop) facts(customer int) uint64 { return facts(s.settings.Seed, 2, customer) }

// Next returns the next event that the collector receives.
func (s *Shop) Next() Event {
	s.tick()
	received := time.UnixMicro(s.clock).UTC()

	draw := s.faults.next()
	switch {
	case draw < s.invalidBelow:
		s.write(0)
		data, fault := injectFault(s.cut(), &s.faults)
		return Event{Data: data, Received: received, Fault: fault}
	case draw < s.lateBelow:
		s.write(1 + int64(s.faults.below(int(s.settings.MaxLateness.Milliseconds()))))
		return Event{Data: s.cut(), Received: received, Fault: Late}
	case draw < s.duplicateBelow && s.kept > 0:
		earlier := s.recent[s.faults.below(min(s.kept, recentEvents))]
		return Event{Data: earlier, Received: received, Fault: Duplicate}
	}
	s.write(0)
	data := s.cut()
	s.recent[s.kept%recentEvents] = data
	s.kept++
	return Event{Data: data, Received: received}
}

// tick advances the clock to the next event.
func (s *Shop) tick() {
	if s.period > 0 {
		s.clock = s.start + int64(min(float64(s.events)*s.period, float64(endOfTime-s.start)))
	} else if s.events > 0 {
		step := s.steps[s.clock/hourMicros%24]
		// 0.5 to 1.5 times the step.
		s.clock = min(s.clock+step/2+int64(s.behaviour.below(int(step)+1)), endOfTime)
	}
	s.events++
	if cap(s.buf)-len(s.buf) < maxEventBytes {
		s.buf = make([]byte, 0, chunk)
	}
}

// cut returns the bytes written since the last cut as one event.
func (s *Shop) cut() []byte {
	data := s.buf[:len(s.buf):len(s.buf)]
	s.buf = s.buf[len(s.buf):]
	return data
}
