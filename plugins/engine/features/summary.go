package features

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// parts is a set of the parts of a summary. The bits are stored.
type parts uint16

const (
	// partNumbers: how many numbers, their sum, the smallest and the largest.
	partNumbers parts = 1 << iota
	// partSpread: mean and squared deviations of the numbers.
	partSpread
	// partEnds: the first and the last value.
	partEnds
	// partRecent: the latest values.
	partRecent
	// partDistinct: how many different values.
	partDistinct
	// partGroups: a summary for each value of the last column.
	partGroups
	// partGaps: the squared times between occurrences.
	partGaps
	// partDays: the days with an occurrence.
	partDays
	// partHours: occurrences by hour of the week.
	partHours
	// partDecay: values weighted by their age.
	partDecay
	// partFirstDay: the sum of the numbers of the first day.
	partFirstDay

	partsAll = 1<<iota - 1
	// partsBulky take much more room than the rest.
	partsBulky = partDistinct | partGroups | partDays | partHours
)

const (
	millisPerDay  = int64(24 * time.Hour / time.Millisecond)
	millisPerHour = int64(time.Hour / time.Millisecond)
	hoursPerWeek  = 7 * 24
	// maxRecent is the number of latest values a summary holds.
	maxRecent = 100
	// maxGroups is the number of groups a stored summary holds, the largest.
	maxGroups = 48
)

// summary is what is known of a set of occurrences of a series, enough for the
// features that need its parts.
type summary struct {
	parts parts
	count int
	// first and last are the times of the earliest and the latest.
	first, last int64

	numbers     int
	sum         total
	least, most float64
	spread      spread

	firstValue, lastValue moment
	recent                []moment // in order of time
	distinct              sketch
	groups                map[string]*summary
	gaps                  spread  // of the times between neighbours, in ms
	days                  []int64 // days since 1970, UTC, in order
	hours                 []int   // by hour of the UTC week; nil if all are 0
	decays                []decay
	firstDay              total // of the day of first

	spare []*summary // groups of an earlier use
}

// spread is the mean and the deviation of numbers, kept up by the method of
// Welford (1962), which loses nothing to cancellation.
type spread struct {
	n       float64
	mean    float64
	squares float64 // the sum of squares about the mean
}

func (s *spread) add(f float64) {
	s.n++
	delta := f - s.mean
	s.mean += delta / s.n
	s.squares += delta * (f - s.mean)
}

// merge is the parallel form (Chan et al. 1979).
func (s *spread) merge(o spread) {
	if o.n == 0 {
		return
	}
	n := s.n + o.n
	delta := o.mean - s.mean
	s.mean += delta * o.n / n
	s.squares += o.squares + delta*delta*s.n*o.n/n
	s.n = n
}

// deviation is that of the population.
func (s *spread) deviation() float64 { return math.Sqrt(s.squares / s.n) }

// moment is a value at a time.
type moment struct {
	time  int64
	value event.Value
}

// decay is a sum of values that each halve in every half life.
type decay struct {
	halfLife int64   // in milliseconds
	sum      float64 // as of the summary's last
}

// wants says what a summary is to hold.
type wants struct {
	parts parts
	// recent is how many of the latest values.
	recent int
	// halfLives are those of the decaying sums, in milliseconds.
	halfLives []int64
	// inner is what the summary of a group is to hold.
	inner parts
	// split tells that groups have a value: the group is the second column
	// and not the first.
	split bool
	// bare tells that the series has no columns: an occurrence stands for 1.
	bare bool
}

// reset makes the summary that of nothing yet.
func (s *summary) reset(w *wants) {
	for _, g := range s.groups {
		s.spare = append(s.spare, g)
	}
	clear(s.groups)
	distinct := s.distinct
	distinct.reset()
	clear(s.hours)
	*s = summary{
		parts: w.parts, recent: s.recent[:0], distinct: distinct, groups: s.groups,
		days: s.days[:0], hours: s.hours, decays: s.decays[:0], spare: s.spare,
	}
	for _, h := range w.halfLives {
		s.decays = append(s.decays, decay{halfLife: h})
	}
}

// add takes an occurrence that is not earlier than any taken before.
func (s *summary) add(w *wants, o *Occurrence) {
	before := s.last
	s.count++
	if s.count == 1 {
		s.first, before = o.Time, o.Time
	}
	s.last = o.Time
	if w.parts == 0 {
		return
	}
	v := o.First
	if w.bare {
		v = number(1)
	}
	if w.parts&partNumbers != 0 && v.Kind == event.Number {
		s.addNumber(v.Number, w.parts&partSpread != 0)
	}
	if w.parts&partFirstDay != 0 && v.Kind == event.Number && sameDay(o.Time, s.first) {
		s.firstDay.add(v.Number)
	}
	if w.parts&partEnds != 0 && v.Kind != event.Missing {
		if s.firstValue.value.Kind == event.Missing {
			s.firstValue = moment{o.Time, v}
		}
		s.lastValue = moment{o.Time, v}
	}
	if w.parts&partRecent != 0 && v.Kind != event.Missing {
		s.recent = append(s.recent, moment{o.Time, v})
		s.cutRecent(w.recent)
	}
	if w.parts&partDistinct != 0 && v.Kind != event.Missing {
		var room [64]byte
		s.distinct.add(xxhash.Sum64(AppendValue(room[:0], v)))
	}
	if w.parts&partGaps != 0 {
		if s.count > 1 {
			s.gaps.add(float64(o.Time - before))
		}
	}
	if w.parts&partDays != 0 {
		s.addDay(floorDiv(o.Time, millisPerDay))
	}
	if w.parts&partHours != 0 {
		s.addHours(hourOfWeek(o.Time), 1)
	}
	if w.parts&partDecay != 0 {
		for i := range s.decays {
			d := &s.decays[i]
			d.sum *= halved(o.Time-before, d.halfLife)
			if v.Kind == event.Number {
				d.sum += v.Number
			}
		}
	}
	if w.parts&partGroups != 0 {
		group := o.First
		if w.split {
			group = o.Second
		}
		var room [32]byte
		if name, ok := groupName(room[:0], group); ok {
			inner := wants{parts: w.inner}
			s.group(name, &inner).add(&inner, o)
		}
	}
}

func (s *summary) addNumber(f float64, spread bool) {
	if s.numbers == 0 {
		s.least, s.most = f, f
	}
	s.numbers++
	s.sum.add(f)
	s.least, s.most = min(s.least, f), max(s.most, f)
	if spread {
		s.spread.add(f)
	}
}

func (s *summary) addDay(day int64) {
	if n := len(s.days); n == 0 || s.days[n-1] < day {
		s.days = append(s.days, day)
		return
	}
	if at, found := slices.BinarySearch(s.days, day); !found {
		s.days = slices.Insert(s.days, at, day)
	}
}

func (s *summary) addHours(hour, n int) {
	if s.hours == nil {
		s.hours = make([]int, hoursPerWeek)
	}
	s.hours[hour] += n
}

func (s *summary) cutRecent(keep int) {
	if over := len(s.recent) - min(keep, maxRecent); over > 0 {
		s.recent = slices.Delete(s.recent, 0, over)
	}
}

// group returns the summary of a group, made if it is new.
func (s *summary) group(name []byte, inner *wants) *summary {
	g := s.groups[string(name)]
	if g == nil {
		if s.groups == nil {
			s.groups = map[string]*summary{}
		}
		if n := len(s.spare); n > 0 {
			g, s.spare = s.spare[n-1], s.spare[:n-1]
		} else {
			g = &summary{}
		}
		g.reset(inner)
		s.groups[string(name)] = g
	}
	return g
}

// merge takes what w wants of a summary of other occurrences, which must have
// those parts. Where the two interleave, the times between neighbours are those
// within each: what lies between them is not known any more.
func (s *summary) merge(w *wants, o *summary) {
	if o.count == 0 {
		return
	}
	if s.count == 0 {
		s.first, s.last = o.first, o.last
	}
	if w.parts&partNumbers != 0 && o.numbers > 0 {
		s.mergeNumbers(o)
	}
	if w.parts&partEnds != 0 && o.firstValue.value.Kind != event.Missing {
		if s.firstValue.value.Kind == event.Missing || o.firstValue.time < s.firstValue.time {
			s.firstValue = o.firstValue
		}
		if s.lastValue.value.Kind == event.Missing || o.lastValue.time >= s.lastValue.time {
			s.lastValue = o.lastValue
		}
	}
	if w.parts&partRecent != 0 {
		s.recent = append(s.recent, o.recent...)
		slices.SortStableFunc(s.recent, func(a, b moment) int { return cmp.Compare(a.time, b.time) })
		s.cutRecent(w.recent)
	}
	if w.parts&partDistinct != 0 {
		s.distinct.merge(&o.distinct)
	}
	if w.parts&partGaps != 0 {
		s.gaps.merge(o.gaps)
		if s.count > 0 && o.first >= s.last {
			s.gaps.add(float64(o.first - s.last))
		} else if s.count > 0 && s.first >= o.last {
			s.gaps.add(float64(s.first - o.last))
		}
	}
	if w.parts&partDays != 0 {
		for _, d := range o.days {
			s.addDay(d)
		}
	}
	if w.parts&partHours != 0 {
		for hour, n := range o.hours {
			if n > 0 {
				s.addHours(hour, n)
			}
		}
	}
	if w.parts&partFirstDay != 0 {
		switch {
		case s.count > 0 && sameDay(s.first, o.first):
			s.firstDay.merge(o.firstDay)
		case s.count == 0 || o.first < s.first:
			s.firstDay = o.firstDay
		}
	}
	last := max(s.last, o.last)
	if w.parts&partDecay != 0 {
		for i := range s.decays {
			d := &s.decays[i]
			d.sum *= halved(last-s.last, d.halfLife)
			for _, other := range o.decays {
				if other.halfLife == d.halfLife {
					d.sum += other.sum * halved(last-o.last, d.halfLife)
				}
			}
		}
	}
	if w.parts&partGroups != 0 {
		inner := wants{parts: w.inner}
		for name, g := range o.groups {
			s.group([]byte(name), &inner).merge(&inner, g)
		}
	}
	s.count += o.count
	s.first, s.last = min(s.first, o.first), last
}

func (s *summary) mergeNumbers(o *summary) {
	if s.numbers == 0 {
		s.least, s.most = o.least, o.most
	}
	s.least, s.most = min(s.least, o.least), max(s.most, o.most)
	s.spread.merge(o.spread)
	s.numbers += o.numbers
	s.sum.merge(o.sum)
}

// compact bounds the room the summary takes in a record.
func (s *summary) compact() {
	s.distinct.compact()
	for _, g := range s.groups {
		g.distinct.compact()
	}
	if len(s.groups) <= maxGroups {
		return
	}
	for _, name := range s.groupNames()[maxGroups:] {
		delete(s.groups, name)
	}
}

// groupNames lists the groups, the largest first, those of a size by name.
func (s *summary) groupNames() []string {
	names := make([]string, 0, len(s.groups))
	for name := range s.groups {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(s.groups[b].count, s.groups[a].count), cmp.Compare(a, b))
	})
	return names
}

// halved returns the factor by which a value shrinks in a time.
func halved(ms, halfLife int64) float64 {
	if ms == 0 {
		return 1
	}
	return math.Exp2(-float64(ms) / float64(halfLife))
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func sameDay(a, b int64) bool { return floorDiv(a, millisPerDay) == floorDiv(b, millisPerDay) }

// hourOfWeek returns the hour of the week a time in Unix milliseconds is in, 0
// being Monday from 00:00.
func hourOfWeek(ms int64) int {
	hours := floorDiv(ms, millisPerHour) + 3*24 // 1970 began on a Thursday
	return int(hours - floorDiv(hours, hoursPerWeek)*hoursPerWeek)
}

// groupName returns the text of a value that names a group, in room where it
// needs any.
func groupName(room []byte, v event.Value) ([]byte, bool) {
	switch v.Kind {
	case event.String, event.JSON:
		return v.Text, true
	case event.Number:
		return appendNumber(room, v.Number), true
	case event.True:
		return append(room, "true"...), true
	case event.False:
		return append(room, "false"...), true
	}
	return nil, false
}
