package features

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Tiles summarise the occurrences of a series that a record no longer stores one
// by one: a few summaries of time spans, short for recent times and longer
// further back. A customer with a million events has some dozens of tiles.
//
// # Example
//
// A series has features with the windows 1d and 32d. A tile with an end younger
// than 1d can contain the start of the 1d window, so it spans at most 1d/32 = 45
// minutes. A tile older than 1d can contain only the start of the 32d window,
// and spans at most 1d. Compact merges neighbours up to these spans and drops
// tiles older than 32d:
//
//	-32d                                 -1d              now
//	  |....1d....|....1d....|....1d....|..45m..|..45m..|..| occurrences
//	   tile                             tile
//
// # Error bound
//
// A tile that contains the start of a window counts entirely if its middle is
// inside the window, and not at all otherwise. A tile that can contain the start
// of a window W spans at most W/32 (W/16 for series with distinct values,
// groups, days or hours). The result is therefore the exact result of a window
// that starts earlier or later by at most W/64 (W/32).
//
// In addition, distinct values are counted with a standard error of 4.6% once a
// tile has more than 48 of them; a tile keeps its 48 largest groups; days are
// those of UTC; hours are converted to the customer's time zone with the offset
// at their time, except for those older than five years, and those that were
// folded under another time zone with other changes of the offset; and a late
// event does not split an interval for the deviation of intervals.
type Tiles struct {
	// Zone is the customer's time zone, nil if it is unknown. A tile with hours
	// does not extend over a change of its offset from UTC, so that every hour
	// can be converted with the offset at its time.
	Zone *time.Location

	list []*summary // sorted by first
}

const (
	tilesPerWindow      = 32
	tilesPerWindowBulky = 16
)

// Empty reports whether there are no tiles.
func (t *Tiles) Empty() bool { return len(t.list) == 0 }

// Reset removes all tiles.
func (t *Tiles) Reset() { t.list = t.list[:0] }

// Last returns the time of the latest occurrence, -1 if there is none.
func (t *Tiles) Last() int64 {
	last := int64(-1)
	for _, s := range t.list {
		last = max(last, s.last)
	}
	return last
}

// First returns the time of the earliest occurrence, -1 if there is none.
func (t *Tiles) First() int64 {
	first := int64(-1)
	for _, s := range t.list {
		if first < 0 || s.first < first {
			first = s.first
		}
	}
	return first
}

// Fold adds the occurrences of one event of a series. Call Compact after the last
// event.
func (t *Tiles) Fold(s *Series, event []Occurrence) {
	if n := len(t.list); n > 0 {
		ms := event[0].Time
		if tile := t.list[n-1]; tile.last <= ms && tile.parts == s.wants.parts && s.wants.covers(tile) &&
			ms-tile.first <= s.span(0) && !t.separates(s, tile.first, ms) {
			tile.addAll(&s.wants, event)
			return
		}
	}
	tile := &summary{}
	tile.reset(&s.wants)
	tile.addAll(&s.wants, event)
	t.insert(s, tile)
}

// Merge adds the tiles of another record for the same series. Call Compact
// afterwards.
func (t *Tiles) Merge(s *Series, o *Tiles) {
	for _, tile := range o.list {
		t.insert(s, tile)
	}
}

func (t *Tiles) insert(s *Series, tile *summary) {
	// A late occurrence belongs to the tile with a span that contains it.
	for _, into := range t.list {
		if into.first <= tile.first && tile.last <= into.last && into.parts == tile.parts && s.wants.covers(into) && s.wants.covers(tile) {
			into.merge(&s.wants, tile)
			return
		}
	}
	i, _ := slices.BinarySearchFunc(t.list, tile.first, func(o *summary, first int64) int { return cmp.Compare(o.first, first) })
	t.list = slices.Insert(t.list, i, tile)
}

// maxSeparated is the age in milliseconds beyond which tiles with hours are merged
// over changes of the offset.
const maxSeparated = 5 * 365 * millisPerDay

// separates reports whether a tile of the series must not extend from first to
// last, because the offset of the time zone changes between them.
func (t *Tiles) separates(s *Series, first, last int64) bool {
	if s.wants.parts&partHours == 0 {
		return false
	}
	zones := usualZones
	if t.Zone != nil {
		zones = []*time.Location{t.Zone}
	}
	for _, zone := range zones {
		if _, end := time.UnixMilli(first).In(zone).ZoneBounds(); !end.IsZero() && end.UnixMilli() <= last {
			return true
		}
	}
	return false
}

// usualZones are used while the customer's time zone is unknown: their offsets
// change on the same days as those of most zones.
var usualZones = func() (zones []*time.Location) {
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Sydney"} {
		if zone, err := time.LoadLocation(name); err == nil {
			zones = append(zones, zone)
		}
	}
	return zones
}()

// covers reports whether a tile has everything that w requires.
func (w *wants) covers(tile *summary) bool {
	if tile.parts&w.parts != w.parts {
		return false
	}
	for _, h := range w.halfLives {
		if !slices.ContainsFunc(tile.decays, func(d decay) bool { return d.halfLife == h }) {
			return false
		}
	}
	if w.parts&partGroups != 0 {
		for _, g := range tile.groups {
			if g.parts&w.inner != w.inner {
				return false
			}
		}
	}
	return true
}

// Compact merges neighbouring tiles as far as the error bound allows, and drops
// tiles older than every window. newest is the time of the customer's latest
// event.
func (t *Tiles) Compact(s *Series, newest int64) {
	kept := t.list[:0]
	for _, tile := range t.list {
		if !s.forever && newest-tile.last >= s.longest() {
			continue
		}
		if n := len(kept); n > 0 {
			before := kept[n-1]
			last := max(before.last, tile.last)
			if before.parts == tile.parts && s.wants.covers(before) && s.wants.covers(tile) && last-before.first <= s.span(newest-last) &&
				(newest-last > maxSeparated || !t.separates(s, before.first, last)) {
				before.merge(&s.wants, tile)
				continue
			}
		}
		kept = append(kept, tile)
	}
	clear(t.list[len(kept):])
	t.list = kept
	for _, tile := range t.list {
		tile.compact()
	}
}

// span returns the maximum span of a tile with an end of the given age. Such a
// tile can contain the start of the windows that are longer than age; the
// shortest of them limits its span.
func (s *Series) span(age int64) int64 {
	for _, w := range s.windows {
		if w > age {
			return w / s.tilesPerWindow()
		}
	}
	return math.MaxInt64
}

func (s *Series) tilesPerWindow() int64 {
	if s.wants.parts&partsBulky != 0 {
		return tilesPerWindowBulky
	}
	return tilesPerWindow
}

// longest returns the longest window, in milliseconds.
func (s *Series) longest() int64 {
	if len(s.windows) == 0 {
		return 0
	}
	return s.windows[len(s.windows)-1]
}

// exceedsBound reports whether the value of f as of a time may be outside the
// error bound because of this tile: it contains that time, or it contains the
// start of the window and is too long. That happens for a time in the past,
// because spans are bounded relative to the latest event, and for a window that
// is new.
func (s *summary) exceedsBound(f *Feature, asOf int64) bool {
	contains := func(t int64) bool { return s.first <= t && t < s.last }
	return contains(asOf) || f.Window > 0 && contains(asOf-f.Window.Milliseconds()) && s.last-s.first > f.maxTileSpan
}

// middle returns the middle of the time span.
func (s *summary) middle() int64 { return s.first + (s.last-s.first)/2 }

// within reports whether a tile counts for a window (0 for none) as of a time.
func (s *summary) within(window, asOf int64) bool {
	middle := s.middle()
	return middle <= asOf && (window == 0 || middle > asOf-window)
}

// Stored form of a tile:
//
//	parts(uvarint) count(uvarint) first(varint) span(uvarint)
//
// followed by the parts it has, in the order of their bits:
//
//	numbers   n(uvarint), and if n > 0: micros(varint) floats(8)
//	          compensation(8) least(value) most(value)
//	spread    n(uvarint) mean(8) squares(8)
//	ends      0, or 1 then time after first(uvarint) value, time before
//	          last(uvarint) value
//	recent    n(uvarint) { time before last(uvarint) value }
//	distinct  see sketch
//	groups    n(uvarint) { length(uvarint) name tile }
//	gaps      as spread
//	days      n(uvarint) first(varint) { distance(uvarint) }
//	hours     n(uvarint) { hour(1) count(uvarint) }, no longer written
//	decay     n(uvarint) { half life(uvarint) sum(8) }
//	first day micros(varint) floats(8) compensation(8)
//	events    n(uvarint)
//	quarters  n(uvarint) { quarter of an hour(uvarint) count(uvarint) }
//
// Tiles are stored as their number (uvarint), followed by each tile.

// Append encodes the tiles.
func (t *Tiles) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(t.list)))
	for _, tile := range t.list {
		dst = tile.append(dst)
	}
	return dst
}

// Read decodes tiles from src, all of which must be used; an empty src means no
// tiles. The tiles alias src.
func (t *Tiles) Read(src []byte) error {
	t.Reset()
	if len(src) == 0 {
		return nil
	}
	r := tileReader{src: src}
	for range r.length() {
		t.list = append(t.list, r.tile(0))
		if r.bad {
			return ErrCorrupt
		}
	}
	if r.bad || len(r.src) > 0 {
		return ErrCorrupt
	}
	return nil
}

func appendFloat(dst []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f))
}

func (t *total) append(dst []byte) []byte {
	return appendFloat(appendFloat(binary.AppendVarint(dst, t.micros), t.floats), t.compensation)
}

func (s *spread) append(dst []byte) []byte {
	return appendFloat(appendFloat(binary.AppendUvarint(dst, uint64(s.n)), s.mean), s.squares)
}

func (s *summary) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.parts))
	dst = binary.AppendUvarint(dst, uint64(s.count))
	dst = binary.AppendVarint(dst, s.first)
	dst = binary.AppendUvarint(dst, uint64(s.last-s.first))
	if s.parts&partNumbers != 0 {
		dst = binary.AppendUvarint(dst, uint64(s.numbers))
		if s.numbers > 0 {
			dst = s.sum.append(dst)
			dst = AppendValue(AppendValue(dst, number(s.least)), number(s.most))
		}
	}
	if s.parts&partSpread != 0 {
		dst = s.spread.append(dst)
	}
	if s.parts&partEnds != 0 {
		if s.firstValue.value.Kind == event.Missing {
			dst = append(dst, 0)
		} else {
			dst = binary.AppendUvarint(append(dst, 1), uint64(s.firstValue.time-s.first))
			dst = AppendValue(dst, s.firstValue.value)
			dst = binary.AppendUvarint(dst, uint64(s.last-s.lastValue.time))
			dst = AppendValue(dst, s.lastValue.value)
		}
	}
	if s.parts&partRecent != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(s.recent)))
		for _, m := range s.recent {
			dst = binary.AppendUvarint(dst, uint64(s.last-m.time))
			dst = AppendValue(dst, m.value)
		}
	}
	if s.parts&partDistinct != 0 {
		dst = s.distinct.append(dst)
	}
	if s.parts&partGroups != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(s.groups)))
		for _, name := range s.groupNames() {
			dst = binary.AppendUvarint(dst, uint64(len(name)))
			dst = append(dst, name...)
			dst = s.groups[name].append(dst)
		}
	}
	if s.parts&partGaps != 0 {
		dst = s.gaps.append(dst)
	}
	if s.parts&partDays != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(s.days)))
		for i, d := range s.days {
			if i == 0 {
				dst = binary.AppendVarint(dst, d)
			} else {
				dst = binary.AppendUvarint(dst, uint64(d-s.days[i-1]))
			}
		}
	}
	if s.parts&partDecay != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(s.decays)))
		for _, d := range s.decays {
			dst = appendFloat(binary.AppendUvarint(dst, uint64(d.halfLife)), d.sum)
		}
	}
	if s.parts&partFirstDay != 0 {
		dst = s.firstDay.append(dst)
	}
	if s.parts&partEvents != 0 {
		dst = binary.AppendUvarint(dst, uint64(s.events))
	}
	if s.parts&partHours != 0 {
		n := 0
		for _, c := range s.quarters {
			if c > 0 {
				n++
			}
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		for quarter, c := range s.quarters {
			if c > 0 {
				dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(quarter)), uint64(c))
			}
		}
	}
	return dst
}

// tileReader decodes the stored form. After an error bad is true, and every
// further value is zero.
type tileReader struct {
	src []byte
	bad bool
}

func (r *tileReader) uvarint() uint64 {
	n, width := binary.Uvarint(r.src)
	if width <= 0 {
		r.fail()
		return 0
	}
	r.src = r.src[width:]
	return n
}

func (r *tileReader) varint() int64 {
	n, width := binary.Varint(r.src)
	if width <= 0 {
		r.fail()
		return 0
	}
	r.src = r.src[width:]
	return n
}

// length reads the number of elements that take at least one byte each, which
// bounds it by the remaining length of src.
func (r *tileReader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.src)) {
		r.fail()
		return 0
	}
	return int(n)
}

// distance reads a time span, bounded so that sums of times do not overflow.
func (r *tileReader) distance() int64 {
	n := r.uvarint()
	if n > 1<<50 {
		r.fail()
		return 0
	}
	return int64(n)
}

func (r *tileReader) float() float64 {
	if len(r.src) < 8 {
		r.fail()
		return 0
	}
	f := math.Float64frombits(binary.LittleEndian.Uint64(r.src))
	r.src = r.src[8:]
	return f // not finite after an overflow
}

func (r *tileReader) total() total {
	return total{micros: r.varint(), floats: r.float(), compensation: r.float()}
}

func (r *tileReader) spread() spread {
	return spread{float64(r.uvarint() & math.MaxInt64), r.float(), max(0, r.float())}
}

func (r *tileReader) byte() byte {
	if len(r.src) == 0 {
		r.fail()
		return 0
	}
	b := r.src[0]
	r.src = r.src[1:]
	return b
}

func (r *tileReader) value() event.Value {
	v, rest, err := ReadValue(r.src)
	if err != nil {
		r.fail()
		return event.Value{}
	}
	r.src = rest
	return v
}

func (r *tileReader) fail() { r.bad, r.src = true, nil }

func (r *tileReader) tile(depth int) *summary {
	s := &summary{}
	have := r.uvarint()
	if have&^partsAll != 0 || depth > 1 {
		r.fail()
		return s
	}
	s.parts = parts(have)
	s.count = int(r.uvarint() & math.MaxInt64)
	s.first = r.varint()
	if s.first < -(1<<50) || s.first > 1<<50 || s.count == 0 {
		r.fail()
	}
	s.last = s.first + r.distance()
	if s.parts&partNumbers != 0 {
		if s.numbers = int(r.uvarint() & math.MaxInt64); s.numbers > 0 {
			s.sum = r.total()
			s.least, s.most = r.value().Number, r.value().Number
		}
	}
	if s.parts&partSpread != 0 {
		s.spread = r.spread()
	}
	if s.parts&partEnds != 0 && r.byte() != 0 {
		s.firstValue = timedValue{s.first + r.distance(), r.value()}
		s.lastValue = timedValue{s.last - r.distance(), r.value()}
	}
	if s.parts&partRecent != 0 {
		n := r.length()
		if n > maxRecent {
			r.fail()
		}
		for range n {
			s.recent = append(s.recent, timedValue{s.last - r.distance(), r.value()})
			if r.bad {
				return s
			}
		}
	}
	if s.parts&partDistinct != 0 {
		rest, err := s.distinct.read(r.src)
		if err != nil {
			r.fail()
		}
		r.src = rest
	}
	if s.parts&partGroups != 0 {
		n := r.length()
		s.groups = map[string]*summary{}
		for range n {
			size := r.length()
			if r.bad {
				return s
			}
			name := string(r.src[:size])
			r.src = r.src[size:]
			s.groups[name] = r.tile(depth + 1)
			if r.bad {
				return s
			}
		}
		if len(s.groups) != n {
			r.fail()
		}
	}
	if s.parts&partGaps != 0 {
		s.gaps = r.spread()
	}
	if s.parts&partDays != 0 {
		for i := range r.length() {
			if i == 0 {
				s.days = append(s.days, r.varint())
			} else {
				s.days = append(s.days, s.days[i-1]+r.distance())
			}
			if r.bad {
				return s
			}
		}
	}
	if s.parts&partHoursOnly != 0 {
		s.parts = s.parts&^partHoursOnly | partHours
		for range r.length() {
			hour := int(r.byte())
			if hour >= hoursPerWeek {
				r.fail()
				return s
			}
			s.addQuarters(4*hour, int(r.uvarint()&math.MaxInt64))
		}
	}
	if s.parts&partDecay != 0 {
		for range r.length() {
			h := int64(r.uvarint() & math.MaxInt64)
			if h == 0 {
				r.fail()
			}
			s.decays = append(s.decays, decay{h, r.float()})
			if r.bad {
				return s
			}
		}
	}
	if s.parts&partFirstDay != 0 {
		s.firstDay = r.total()
	}
	if s.parts&partEvents != 0 {
		s.events = int(r.uvarint() & math.MaxInt64)
	}
	if have&uint64(partHours) != 0 {
		for range r.length() {
			quarter := r.uvarint()
			if quarter >= quartersPerWeek {
				r.fail()
				return s
			}
			s.addQuarters(int(quarter), int(r.uvarint()&math.MaxInt64))
		}
	}
	return s
}
