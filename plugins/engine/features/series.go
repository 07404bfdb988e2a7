package features

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Series is what features of the same events, condition and values share.
type Series struct {
	// Events and Where choose the events; no Events means all.
	Events []string
	Where  string
	// Fingerprint identifies the series in stored records: it is a hash of
	// everything above and below, and of nothing else, so that a series keeps
	// its history when features are renamed, reordered or given other windows.
	Fingerprint uint64
	Layout      Layout

	text    string
	where   int
	columns []column
	each    bool

	// What the features of the series want of folded occurrences.
	wants   wants
	windows []int64 // in milliseconds, in order
	forever bool    // a feature has no window
}

// Layout tells how the values of an occurrence are stored, for readers that do
// not know the series.
type Layout uint8

const (
	layoutColumns Layout = 0b011 // how many values, 0 to 2
	layoutEach    Layout = 0b100 // any number of times, counted
)

// Valid tells whether the layout is one this version writes.
func (l Layout) Valid() bool { return l <= layoutEach|2 && l&layoutColumns != 3 }

// column is one value read of an event: that at a path, or a weight by name of
// event.
type column struct {
	text    string
	path    event.Path
	weights map[string]float64
}

// timestampPath reads the event's own time, which needs no column.
const timestampPath = "timestamp"

func newSeries(spec *Spec) (*Series, error) {
	s := &Series{Where: spec.Where, where: -1}
	s.Events = slices.Clone(spec.Events)
	slices.Sort(s.Events)
	s.Events = slices.Compact(s.Events)
	array := ""
	for _, text := range []string{spec.ValuePath, spec.GroupPath} {
		if text == "" || text == timestampPath {
			continue
		}
		path, err := event.ParsePath(text)
		if err != nil {
			return nil, err
		}
		if path.Each() {
			if array != "" && array != path.Array() {
				return nil, fmt.Errorf("of and by go through different arrays, %s and %s; use one", array, path.Array())
			}
			array = path.Array()
			s.each = true
		}
		s.columns = append(s.columns, column{text: "path " + text, path: path})
	}
	if len(spec.Weights) > 0 {
		text, err := json.Marshal(spec.Weights)
		if err != nil {
			return nil, err
		}
		s.columns = append(s.columns, column{text: "weights " + string(text), weights: spec.Weights})
	}
	s.Layout = Layout(len(s.columns))
	if s.each {
		s.Layout |= layoutEach
	}
	var b strings.Builder
	b.WriteString("series/1")
	for _, e := range s.Events {
		fmt.Fprintf(&b, " event %q", e)
	}
	fmt.Fprintf(&b, " where %q", s.Where)
	for _, c := range s.columns {
		fmt.Fprintf(&b, " column %q", c.text)
	}
	s.text = b.String()
	s.Fingerprint = xxhash.Sum64String(s.text)
	return s, nil
}

// want notes what a feature of the series needs of folded occurrences.
func (s *Series) want(w *wants, window time.Duration) {
	s.wants.parts |= w.parts
	s.wants.inner |= w.inner
	s.wants.split, s.wants.bare = w.split, w.bare
	s.wants.recent = max(s.wants.recent, w.recent)
	for _, h := range w.halfLives {
		if !slices.Contains(s.wants.halfLives, h) {
			s.wants.halfLives = append(s.wants.halfLives, h)
		}
	}
	if window == 0 {
		s.forever = true
	} else {
		s.windows = append(s.windows, window.Milliseconds())
	}
}

// maxText is how long a text or JSON value may be to be kept with an event.
const maxText = 1 << 10

// appendBounded appends a value, missing if it is too long to keep.
func appendBounded(dst []byte, v event.Value) []byte {
	if len(v.Text) > maxText {
		v = event.Value{}
	}
	return AppendValue(dst, v)
}

// value returns what a column reads of an event.
func (c *column) value(e *event.Event) event.Value {
	if c.weights == nil {
		return e.Get(c.path)
	}
	weight, listed := c.weights[string(e.Name)]
	if !listed {
		weight = 1
	}
	return number(weight)
}

// Extract appends what records keep of an event under this definition: a bit
// set of the series it belongs to and, for each of them, its values. It appends
// nothing if the event belongs to none. Conditions that fail to evaluate do
// not hold; how many did is returned.
func (d *Definition) Extract(dst []byte, e *event.Event) (_ []byte, failed int) {
	candidates, ok := d.byEvent[string(e.Name)]
	if !ok {
		candidates = d.always
	}
	if len(candidates) == 0 {
		return dst, 0
	}
	var room [4]uint64
	set := bitset(room[:0])
	const unknown, yes, no = 0, 1, 2
	var outcomeRoom [16]uint8
	outcomes := outcomeRoom[:0]
	if len(d.wheres) > 0 {
		outcomes = append(outcomes, make([]uint8, len(d.wheres))...)
	}
	for _, i := range candidates {
		if w := d.Series[i].where; w >= 0 {
			if outcomes[w] == unknown {
				holds, err := d.wheres[w](e)
				if err != nil {
					failed++
				}
				outcomes[w] = no
				if err == nil && holds {
					outcomes[w] = yes
				}
			}
			if outcomes[w] == no {
				continue
			}
		}
		set = set.with(i)
	}
	if len(set) == 0 {
		return dst, failed
	}
	dst = set.append(dst)
	for _, i := range candidates {
		if !set.has(i) {
			continue
		}
		s := &d.Series[i]
		if !s.each {
			for c := range s.columns {
				dst = appendBounded(dst, s.columns[c].value(e))
			}
			continue
		}
		var pathRoom [2]event.Path
		paths := pathRoom[:0]
		for c := range s.columns {
			paths = append(paths, s.columns[c].path)
		}
		// The count goes before the values and is known after them: values are
		// written behind it and moved if it takes more than one byte.
		countAt := len(dst)
		dst = append(dst, 0)
		n := uint64(0)
		e.VisitEach(paths, func(values []event.Value) {
			n++
			for _, v := range values {
				dst = appendBounded(dst, v)
			}
		})
		if n < 0x80 {
			dst[countAt] = byte(n)
			continue
		}
		var count [binary.MaxVarintLen64]byte
		width := binary.PutUvarint(count[:], n)
		dst = append(dst, count[1:width]...)
		copy(dst[countAt+width:], dst[countAt+1:len(dst)-width+1])
		copy(dst[countAt:], count[:width])
	}
	return dst, failed
}

// Occurrence is one event, or one element of its array, as a series sees it.
type Occurrence struct {
	// Time is the event's time in Unix milliseconds, ID the hash of its
	// messageId. Occurrences are ordered by both.
	Time int64
	ID   uint64
	// First and Second are the values read, in the order the feature names
	// them (of, by), Missing where the series reads fewer. Their Text belongs
	// to the record.
	First, Second event.Value
}

// ErrCorrupt is returned for stored bytes that are not what was written.
var ErrCorrupt = errors.New("stored events are corrupt")

// Visit reads what Extract wrote: fn is called for each series the event
// belongs to, once per element for a series over an array. layouts tells the
// layout of each series by position. The time and ID given to fn are zero.
func Visit(extract []byte, layouts []Layout, fn func(series int, o Occurrence)) error {
	var room [4]uint64
	set, rest, err := readBits(room[:0], extract)
	if err != nil {
		return err
	}
	for i := range set.all() {
		if i >= len(layouts) {
			return ErrCorrupt
		}
		layout := layouts[i]
		times := uint64(1)
		if layout&layoutEach != 0 {
			n, width := binary.Uvarint(rest)
			if width <= 0 || n > uint64(len(rest)) {
				return ErrCorrupt
			}
			times, rest = n, rest[width:]
		}
		for range times {
			var o Occurrence
			for c := range layout & layoutColumns {
				v, after, err := ReadValue(rest)
				if err != nil {
					return err
				}
				rest = after
				if c == 0 {
					o.First = v
				} else {
					o.Second = v
				}
			}
			fn(i, o)
		}
	}
	if len(rest) != 0 {
		return ErrCorrupt
	}
	return nil
}

// Renumber appends an extract with its series moved to other positions:
// to[i] is the new position of series i. The values are ordered anew.
func Renumber(dst, extract []byte, layouts []Layout, to []int) ([]byte, error) {
	set, rest, err := readBits(nil, extract)
	if err != nil {
		return dst, err
	}
	type part struct {
		at     int
		values []byte
	}
	var parts []part
	var moved bitset
	for i := range set.all() {
		if i >= len(layouts) || i >= len(to) {
			return dst, ErrCorrupt
		}
		begin := rest
		layout := layouts[i]
		times := uint64(1)
		if layout&layoutEach != 0 {
			n, width := binary.Uvarint(rest)
			if width <= 0 || n > uint64(len(rest)) {
				return dst, ErrCorrupt
			}
			times, rest = n, rest[width:]
		}
		for range times * uint64(layout&layoutColumns) {
			if _, rest, err = ReadValue(rest); err != nil {
				return dst, err
			}
		}
		moved = moved.with(to[i])
		parts = append(parts, part{to[i], begin[:len(begin)-len(rest)]})
	}
	dst = moved.append(dst)
	for at := range moved.all() {
		for _, p := range parts {
			if p.at == at {
				dst = append(dst, p.values...)
			}
		}
	}
	return dst, nil
}

// Late tells whether an event that is some milliseconds older than a customer's
// latest came too late for a series it belongs to, being older than all of its
// windows.
func (d *Definition) IsTooLate(extract []byte, behind int64) bool {
	var room [4]uint64
	set, _, err := readBits(room[:0], extract)
	if err != nil {
		return false
	}
	for i := range set.all() {
		if s := &d.Series[i]; !s.forever && behind >= s.longest() {
			return true
		}
	}
	return false
}

// bitset is a set of small numbers.
type bitset []uint64

func (b bitset) with(i int) bitset {
	for len(b) <= i/64 {
		b = append(b, 0)
	}
	b[i/64] |= 1 << (i % 64)
	return b
}

func (b bitset) has(i int) bool { return i/64 < len(b) && b[i/64]&(1<<(i%64)) != 0 }

// all yields the members in increasing order.
func (b bitset) all() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for w, word := range b {
			for ; word != 0; word &= word - 1 {
				if !yield(w*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}

// append writes the set as groups of seven bits, lowest first, the high bit of
// a byte telling that more follow: an unsigned varint of any length.
func (b bitset) append(dst []byte) []byte {
	if len(b) == 1 {
		return binary.AppendUvarint(dst, b[0])
	}
	top := 0
	for i := range b.all() {
		top = i
	}
	for at := 0; at <= top; at += 7 {
		var group byte
		for i := range 7 {
			if b.has(at + i) {
				group |= 1 << i
			}
		}
		if at+7 <= top {
			group |= 0x80
		}
		dst = append(dst, group)
	}
	return dst
}

// maxSeries bounds what a damaged record can make readBits build.
const maxSeries = 1 << 13

func readBits(room bitset, src []byte) (bitset, []byte, error) {
	if word, width := binary.Uvarint(src); width > 0 {
		return append(room, word), src[width:], nil
	}
	b := room
	for at := 0; at < len(src) && at < maxSeries/7; at++ {
		for i := range 7 {
			if src[at]&(1<<i) != 0 {
				b = b.with(at*7 + i)
			}
		}
		if src[at]&0x80 == 0 {
			return b, src[at+1:], nil
		}
	}
	return nil, nil, ErrCorrupt
}
