// Package shop makes up a shop and everything that happens in it: an endless
// stream of customer events that is the same, to the byte, for the same
// settings.
//
// The events are those of Segment's e-commerce and email vocabulary as they
// are once the collector has completed them. Visitors arrive unknown, look
// around, fill carts, sign in or not, order or leave; members get mail, open
// it, come back by its links, buy at the till and rise in the loyalty
// programme. On request a share of the events is broken, late or repeated,
// and each of those says so.
//
// Nobody in it exists: names are combined from lists, addresses are under
// example.com and its like, and IP addresses are those reserved for
// documentation.
package shop

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Settings are what a shop depends on, and all it depends on.
type Settings struct {
	// Seed chooses the shop.
	Seed uint64
	// Start is when the collector receives the first event. It is cut to the
	// whole millisecond.
	Start time.Time
	// Rate is how many events a second the collector receives. Zero leaves
	// it to the customers: then DailyEvents and the time of day decide.
	Rate float64
	// Customers is how many people there are.
	Customers int
	// DailyEvents is how many events the average customer causes in a day.
	// It is used only if Rate is zero.
	DailyEvents float64
	// Invalid, Late and Duplicated are the shares of the events that are
	// broken or unknown, that arrive late, and that have been there before.
	// Together they are at most 1.
	Invalid, Late, Duplicated float64
	// MaxLateness is how much later than it happened a late event arrives, at
	// most. One second is the least, if there are any.
	MaxLateness time.Duration
}

// Limits of the settings.
const (
	MaxCustomers = 100_000_000
	MaxRate      = 1e9
)

// Times are written with four digits for the year: a shop begins by latest,
// and its clock stops at the end of time.
var (
	earliest  = time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)
	latest    = time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMicro()
)

// Check says which setting is wrong, if one is.
func (s Settings) Check() error {
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case s.Customers < 1 || s.Customers > MaxCustomers:
		return fmt.Errorf("customers is %d: a shop has from 1 to %d", s.Customers, MaxCustomers)
	case !(s.Rate >= 0 && s.Rate <= MaxRate):
		return fmt.Errorf("rate is %v: it must be from 0 to %v events a second", s.Rate, float64(MaxRate))
	case s.Rate == 0 && !(s.DailyEvents > 0 && s.DailyEvents <= 100_000):
		return fmt.Errorf("daily events is %v: it must be more than 0 and at most 100000 if there is no rate", s.DailyEvents)
	case !share(s.Invalid) || !share(s.Late) || !share(s.Duplicated):
		return errors.New("the shares of invalid, late and duplicated events must each be from 0 to 1")
	case s.Invalid+s.Late+s.Duplicated > 1:
		return errors.New("the shares of invalid, late and duplicated events must not add up to more than 1")
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
	// Data is a JSON object, but for some faults. It must not be changed:
	// events share their memory.
	Data []byte
	// Received is when the collector receives the event: its place on the
	// shop's clock, which never goes back.
	Received time.Time
	// Fault is what is wrong with the event, if anything.
	Fault Fault
}

const (
	hourMicros = int64(time.Hour / time.Microsecond)

	// chunk is how much memory is asked for at once, and roomy what the
	// largest event fits in.
	chunk = 64 << 10
	roomy = 4 << 10

	// visitPace is how far apart the events of one visit are, about.
	visitPace = 20 * time.Second
	maxVisits = 50_000

	// recentEvents is how many events a duplicate is chosen from.
	recentEvents = 64
)

// Shop generates events. It is for one goroutine.
type Shop struct {
	settings Settings

	// life decides what people do, and trouble what goes wrong: apart, so
	// that the shares do not change what happens in the shop.
	life, trouble random
	// Below these a draw of trouble means invalid, late, duplicated.
	invalidBelow, lateBelow, duplicateBelow uint64

	people []person
	visits []visit

	// clock is microseconds since 1970 of the present event; events is how
	// many there were.
	start, clock int64
	events       int64
	period       float64   // microseconds from event to event, with a rate
	steps        [24]int64 // the same for each hour of the day, without

	idSeed   uint64
	messages uint64
	orders   uint64

	buf    []byte
	recent [recentEvents][]byte
	kept   int
	dates  dateCache
}

// New opens a shop, or says which setting is wrong.
func New(settings Settings) (*Shop, error) {
	if err := settings.Check(); err != nil {
		return nil, err
	}
	settings.Start = settings.Start.UTC().Truncate(time.Millisecond)
	s := &Shop{
		settings: settings,
		life:     random{facts(settings.Seed, 3, 0)},
		trouble:  random{facts(settings.Seed, 4, 0)},
		people:   make([]person, settings.Customers),
		start:    settings.Start.UnixMicro(),
	}
	s.clock = s.start
	// A shop that is opened again at another time has other messages, or
	// they would be taken for repetitions.
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

// hourlySteps spreads events over the day as the people of all places
// together are active, keeping the average step.
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

// localHour is the hour of the day so many minutes east, minutes after
// midnight UTC.
func localHour(minutes, offset int) int {
	const day = 24 * 60
	return (minutes + offset + day) % day / 60
}

func (s *Shop) facts(customer int) uint64 { return facts(s.settings.Seed, 2, customer) }

// Next is the next event that the collector receives.
func (s *Shop) Next() Event {
	s.tick()
	received := time.UnixMicro(s.clock).UTC()

	draw := s.trouble.next()
	switch {
	case draw < s.invalidBelow:
		s.write(0)
		data, fault := spoil(s.cut(), &s.trouble)
		return Event{Data: data, Received: received, Fault: fault}
	case draw < s.lateBelow:
		s.write(1 + int64(s.trouble.below(int(s.settings.MaxLateness.Milliseconds()))))
		return Event{Data: s.cut(), Received: received, Fault: Late}
	case draw < s.duplicateBelow && s.kept > 0:
		again := s.recent[s.trouble.below(min(s.kept, recentEvents))]
		return Event{Data: again, Received: received, Fault: Duplicate}
	}
	s.write(0)
	data := s.cut()
	s.recent[s.kept%recentEvents] = data
	s.kept++
	return Event{Data: data, Received: received}
}

// tick moves the clock to the next event.
func (s *Shop) tick() {
	if s.period > 0 {
		s.clock = s.start + int64(min(float64(s.events)*s.period, float64(endOfTime-s.start)))
	} else if s.events > 0 {
		step := s.steps[s.clock/hourMicros%24]
		// Between half and one and a half times the step.
		s.clock = min(s.clock+step/2+int64(s.life.below(int(step)+1)), endOfTime)
	}
	s.events++
	if cap(s.buf)-len(s.buf) < roomy {
		s.buf = make([]byte, 0, chunk)
	}
}

// cut takes what was written as an event of its own.
func (s *Shop) cut() []byte {
	data := s.buf[:len(s.buf):len(s.buf)]
	s.buf = s.buf[len(s.buf):]
	return data
}
