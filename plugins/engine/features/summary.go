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
	// partNumbers: the count of numbers, their sum, minimum and maximum.
	partNumbers parts = 1 << iota
	// partSpread: mean and squared deviations of the numbers.
	partSpread
	// partEnds: the first and the last value.
	partEnds
	// partRecent: the latest values.
	partRecent
	// partDistinct: the number of distinct values.
	partDistinct
	// partGroups: one summary for each value of the last column.
	partGroups
	// partGaps: mean and squared deviations of the times between occurrences.
	partGaps
	// partDays: the days with an occurrence.
	partDays
	// partHoursOnly: occurrences by hour of the UTC week, in old records; partHours
	// replaces it.
	partHoursOnly
	// partDecay: decayed sums, one per half-life.
	partDecay
	// partFirstDay: the sum of the numbers of the first day.
	partFirstDay
	// partEvents: the number of events, for series over arrays, where count is
	// the number of elements.
	partEvents
	// partHours: occurrences by quarter of an hour of the UTC week.
	partHours

	partsAll = 1<<iota - 1
	// partsBulky are the parts that need much more memory than the others.
	partsBulky = partDistinct | partGroups | partDays | partHours
)

const (
	millisPerDay     = int64(24 * time.Hour / time.Millisecond)
	millisPerHour    = int64(time.Hour / time.Millisecond)
	millisPerQuarter = millisPerHour / 4
	hoursPerWeek     = 7 * 24
	quartersPerWeek  = 4 * hoursPerWeek
	// maxRecent is the maximum number of latest values in a summary.
	maxRecent = 100
	// maxGroups is the maximum number of groups in a stored summary; the
	// largest groups are kept.
	maxGroups = 48
)

// A summary aggregates a set of occurrences of a series. It has the parts that
// the features of the series are computed from, and can be extended by one
// occurrence (add) or by the summary of other occurrences (merge); apart from
// rounding both give the same result. Evaluation adds the stored occurrences of
// a window to one summary; a tile is a summary that is stored.
//
// Example: orders at 10:00 (20.00), 10:30 (5.00) and 11:30 (11.00) of a series
// with the parts numbers and gaps give
//
//	count 3, first 10:00, last 11:30
//	numbers: 3, sum 36.00, least 5.00, most 20.00
//	gaps:    n 2, mean 45m, squares 2*(15m)^2
//
// A decayed sum stores its value as of the time of the last occurrence. A value
// v at time t contributes v * 2^-((now-t)/halfLife), so the sum at any later
// time is the stored one times one power of two: adding an occurrence first
// multiplies the sum by 2^-(gap/halfLife). Example, half-life 7d: a view of
// weight 1, then a purchase of weight 5 seven days later, is 1*0.5 + 5 = 5.5 at
// the purchase, and 2.75 seven days after it.
type summary struct {
	parts parts
	count int
	// first and last are the times of the earliest and the latest.
	first, last int64

	numbers     int
	sum         total
	least, most float64
	spread      spread

	firstValue, lastValue timedValue
	recent                []timedValue // sorted by time
	distinct              sketch
	groups                map[string]*summary
	gaps                  spread  // of the times between neighbours, in ms
	days                  []int64 // days since 1970 in UTC, sorted
	quarters              []int   // by quarter of an hour of the UTC week; nil if all are 0
	decays                []decay
	firstDay              total // sum of the numbers of the day of first
	events                int
	lastID                uint64 // ID of the last occurrence added, 0 after merge

	spare []*summary // groups of earlier uses, for reuse
}

// spread is the mean and the deviation of numbers, updated by the method of
// Welford (1962), which avoids cancellation.
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

// timedValue is a value and its time.
type timedValue struct {
	time  int64
	value event.Value
}

// decay is a decayed sum.
type decay struct {
	halfLife int64   // in milliseconds
	sum      float64 // as of the summary's last
}

// wants are the requirements on a summary.
type wants struct {
	parts parts
	// recent is the number of latest values.
	recent int
	// halfLives of the decayed sums, in milliseconds.
	halfLives []int64
	// inner are the parts of the summary of a group.
	inner parts
	// split is true if the series has two columns, so that the second is the
	// group; otherwise the first is.
	split bool
	// bare is true if the series has no columns; an occurrence has the value 1.
	bare bool
}

// reset empties the summary and prepares it for the parts of w.
func (s *summary) reset(w *wants) {
	for _, g := range s.groups {
		s.spare = append(s.spare, g)
	}
	clear(s.groups)
	distinct := s.distinct
	distinct.reset()
	clear(s.quarters)
	*s = summary{
		parts: w.parts, recent: s.recent[:0], distinct: distinct, groups: s.groups,
		days: s.days[:0], quarters: s.quarters, decays: s.decays[:0], spare: s.spare,
	}
	for _, h := range w.halfLives {
		s.decays = append(s.decays, decay{halfLife: h})
	}
}

// add adds an occurrence that is not earlier than any added before.
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
	sameEvent := s.count > 1 && o.Time == before && o.ID == s.lastID
	s.lastID = o.ID
	if w.parts&partEvents != 0 && !sameEvent {
		s.events++
	}
	v := o.First
	if w.bare {
		v = number(1)
	}
	if w.parts&partNumbers != 0 && v.Kind == event.Number {
		s.addNumber(v.Number, w.parts&partSpread != 0)
	}
	if w.parts&partFirstDay != 0 && v.Kind == event.Number && v.Number >= 0 && sameDay(o.Time, s.first) {
		s.firstDay.add(v.Number)
	}
	if w.parts&partEnds != 0 && v.Kind != event.Missing {
		if s.firstValue.value.Kind == event.Missing {
			s.firstValue = timedValue{o.Time, v}
		}
		s.lastValue = timedValue{o.Time, v}
	}
	if w.parts&partRecent != 0 && v.Kind != event.Missing {
		s.recent = append(s.recent, timedValue{o.Time, v})
		s.cutRecent(w.recent)
	}
	if w.parts&partDistinct != 0 && v.Kind != event.Missing {
		var buffer [64]byte
		s.distinct.add(xxhash.Sum64(AppendValue(buffer[:0], v)))
	}
	if w.parts&partGaps != 0 && s.count > 1 && !sameEvent {
		s.gaps.add(float64(o.Time - before))
	}
	// In a purchase history a negative amount is a refund, not a purchase.
	isRefund := w.parts&partFirstDay != 0 && v.Kind == event.Number && v.Number < 0
	if w.parts&partDays != 0 && !isRefund {
		s.addDay(floorDiv(o.Time, millisPerDay))
	}
	if w.parts&partHours != 0 {
		s.addQuarters(slotOfWeek(o.Time, millisPerQuarter), 1)
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
		var buffer [32]byte
		if name, ok := groupName(buffer[:0], group); ok {
			inner := wants{parts: w.inner}
			s.group(name, &inner).add(&inner, o)
		}
	}
}

func (s *summary) addAll(w *wants, occurrences []Occurrence) {
	for i := range occurrences {
		s.add(w, &occurrences[i])
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
	if i, found := slices.BinarySearch(s.days, day); !found {
		s.days = slices.Insert(s.days, i, day)
	}
}

func (s *summary) addQuarters(quarter, n int) {
	if s.quarters == nil {
		s.quarters = make([]int, quartersPerWeek)
	}
	s.quarters[quarter] += n
}

func (s *summary) cutRecent(keep int) {
	if over := len(s.recent) - min(keep, maxRecent); over > 0 {
		s.recent = slices.Delete(s.recent, 0, over)
	}
}

// group returns the summary of a group, which it creates if needed.
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

// merge adds the parts that w requires from a summary of other occurrences,
// which must have them. If the two interleave in time, the gaps are those within
// each summary: the gaps between them are no longer known.
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
		slices.SortStableFunc(s.recent, func(a, b timedValue) int { return cmp.Compare(a.time, b.time) })
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
		for quarter, n := range o.quarters {
			if n > 0 {
				s.addQuarters(quarter, n)
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
	s.events += o.events
	s.first, s.last, s.lastID = min(s.first, o.first), last, 0
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

// compact bounds the stored size of the summary.
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

// groupNames returns the groups sorted by size, largest first, then by name.
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

// halved returns the factor by which a decayed sum shrinks in ms milliseconds.
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

// hourOfWeek returns the hour of the week of a time in Unix milliseconds; 0 is
// Monday from 00:00.
func hourOfWeek(ms int64) int { return slotOfWeek(ms, millisPerHour) }

// slotOfWeek returns the slot of a time in Unix milliseconds, if a week is divided
// into slots of the given length from Monday 00:00.
func slotOfWeek(ms, length int64) int {
	slots := floorDiv(ms+3*millisPerDay, length) // 1970 began on a Thursday
	perWeek := 7 * millisPerDay / length
	return int(slots - floorDiv(slots, perWeek)*perWeek)
}

// groupName returns the name of the group of a value, false for a missing value.
// The name may be appended to buffer.
func groupName(buffer []byte, v event.Value) ([]byte, bool) {
	switch v.Kind {
	case event.String, event.JSON:
		return v.Text, true
	case event.Number:
		return AppendJSON(buffer, v), true
	case event.True:
		return append(buffer, "true"...), true
	case event.False:
		return append(buffer, "false"...), true
	}
	return nil, false
}
