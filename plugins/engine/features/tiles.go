package features

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Tiles summarise the occurrences of a series that a record no longer keeps one
// by one: a few summaries of spans of time, short ones for recent times and
// longer ones further back.
//
// # Bound
//
// Where the edge of a feature's window falls into a tile, the tile counts whole
// if its middle is inside the window, and not at all otherwise. A tile that can
// meet the edge of a window W spans at most W/32 (W/16 for series that count
// different values, groups, days or hours), so the result is exactly that of a
// window that begins earlier or later by at most W/64 (W/32).
//
// Besides, different values are counted with a standard error of 4.6% once a
// tile has more than 48 of them; a tile keeps its 48 largest groups; days and
// hours are told in UTC; and the deviation of intervals takes a late event to
// split no interval.
type Tiles struct {
	list []*summary // in order of first
}

const (
	tilesPerWindow      = 32
	tilesPerWindowBulky = 16
)

// Empty tells that nothing was folded.
func (t *Tiles) Empty() bool { return len(t.list) == 0 }

// Reset drops everything.
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

// Fold takes an occurrence of a series. Compact must follow.
func (t *Tiles) Fold(s *Series, o *Occurrence) {
	if n := len(t.list); n > 0 {
		if tile := t.list[n-1]; tile.last <= o.Time && tile.parts == s.wants.parts && s.wants.covers(tile) &&
			o.Time-tile.first <= s.span(0) {
			tile.add(&s.wants, o)
			return
		}
	}
	tile := &summary{}
	tile.reset(&s.wants)
	tile.add(&s.wants, o)
	t.insert(s, tile)
}

// Merge takes the tiles of another record for the same series. Compact must
// follow.
func (t *Tiles) Merge(s *Series, o *Tiles) {
	for _, tile := range o.list {
		t.insert(s, tile)
	}
}

func (t *Tiles) insert(s *Series, tile *summary) {
	// A late occurrence belongs to the tile whose span it is in.
	for _, into := range t.list {
		if into.first <= tile.first && tile.last <= into.last && into.parts == tile.parts && s.wants.covers(into) && s.wants.covers(tile) {
			into.merge(&s.wants, tile)
			return
		}
	}
	at, _ := slices.BinarySearchFunc(t.list, tile.first, func(o *summary, first int64) int { return cmp.Compare(o.first, first) })
	t.list = slices.Insert(t.list, at, tile)
}

// covers tells whether a tile has all of w.
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

// Compact joins tiles as far as the bound allows and drops those that are
// older than every window, for a customer whose latest event is at newest.
func (t *Tiles) Compact(s *Series, newest int64) {
	kept := t.list[:0]
	for _, tile := range t.list {
		if !s.forever && newest-tile.last >= s.longest() {
			continue
		}
		if n := len(kept); n > 0 {
			before := kept[n-1]
			last := max(before.last, tile.last)
			if before.parts == tile.parts && s.wants.covers(before) && s.wants.covers(tile) && last-before.first <= s.span(newest-last) {
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

// span returns how much time a tile may span whose end has an age: it can meet
// the edge of the windows that are longer than that.
func (s *Series) span(age int64) int64 {
	per := int64(tilesPerWindow)
	if s.wants.parts&partsBulky != 0 {
		per = tilesPerWindowBulky
	}
	for _, w := range s.windows {
		if w > age {
			return w / per
		}
	}
	return math.MaxInt64
}

// longest returns the longest window, in milliseconds.
func (s *Series) longest() int64 {
	if len(s.windows) == 0 {
		return 0
	}
	return s.windows[len(s.windows)-1]
}

// within tells whether a tile counts for a window (0 for none) as of a time.
func (s *summary) within(window, asOf int64) bool {
	middle := s.first + (s.last-s.first)/2
	return middle <= asOf && (window == 0 || middle > asOf-window)
}

// Stored form: a tile is
//
//	parts(uvarint) count(uvarint) first(varint) span(uvarint)
//
// followed by the parts it has, in the order of their bits:
//
//	numbers   n(uvarint), and if n > 0: micros(varint) rest(8) lost(8)
//	          least(value) most(value)
//	spread    n(uvarint) mean(8) squares(8)
//	ends      0, or 1 then time after first(uvarint) value, time before
//	          last(uvarint) value
//	recent    n(uvarint) { time before last(uvarint) value }
//	distinct  see sketch
//	groups    n(uvarint) { length(uvarint) name tile }
//	gaps      as spread
//	days      n(uvarint) first(varint) { distance(uvarint) }
//	hours     n(uvarint) { hour(1) count(uvarint) }
//	decay     n(uvarint) { half life(uvarint) sum(8) }
//	first day micros(varint) rest(8) lost(8)
//
// Tiles are their number (uvarint) and each of them.

// Append appends the stored form.
func (t *Tiles) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(t.list)))
	for _, tile := range t.list {
		dst = tile.append(dst)
	}
	return dst
}

// Read makes the tiles what src says, which must hold nothing else; an empty
// src stands for no tiles. They keep parts of src.
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
	return appendFloat(appendFloat(binary.AppendVarint(dst, t.micros), t.rest), t.lost)
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
	if s.parts&partHours != 0 {
		n := 0
		for _, c := range s.hours {
			if c > 0 {
				n++
			}
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		for hour, c := range s.hours {
			if c > 0 {
				dst = binary.AppendUvarint(append(dst, byte(hour)), uint64(c))
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
	return dst
}

// tileReader reads the stored form; bad tells that it is none, and then the
// rest is zeros.
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

// length reads the length of something of which each part takes a byte or
// more.
func (r *tileReader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.src)) {
		r.fail()
		return 0
	}
	return int(n)
}

// distance reads a time span that keeps sums of times in range.
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
	if math.IsNaN(f) || math.IsInf(f, 0) {
		r.fail()
	}
	return f
}

func (r *tileReader) total() total {
	return total{micros: r.varint(), rest: r.float(), lost: r.float()}
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
		s.firstValue = moment{s.first + r.distance(), r.value()}
		s.lastValue = moment{s.last - r.distance(), r.value()}
	}
	if s.parts&partRecent != 0 {
		n := r.length()
		if n > maxRecent {
			r.fail()
		}
		for range n {
			s.recent = append(s.recent, moment{s.last - r.distance(), r.value()})
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
	if s.parts&partHours != 0 {
		for range r.length() {
			hour := int(r.byte())
			if hour >= hoursPerWeek {
				r.fail()
				return s
			}
			s.addHours(hour, int(r.uvarint()&math.MaxInt64))
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
	return s
}
