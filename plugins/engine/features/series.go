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

// A Series is a selection of events together with the values that are stored of
// each: up to two columns. Features with the same events, condition and values
// share a series; windows, groups and names do not matter.
//
// Extract evaluates the plan that New compiled. It looks up the candidate series
// by event name, evaluates each distinct condition at most once, and appends a
// bit set of the series that select the event, followed by the values of each
// of them. Example, for a definition with these series:
//
//	0  Order Completed                      no columns   (orders_30d, orders_90d)
//	1  Order Completed  properties.total    1 column     (revenue_90d)
//	2  all events       no columns                       (last_seen)
//	3  Order Completed  properties.products[].price, .category   2 columns, each
//
//	Product Viewed               -> {2}
//	Order Completed, 2 products  -> {0,1,2,3} 49.90 | 2 19.90 "shoes" 30 "bags"
//
// A series over an array stores the number of elements before their values.
// Visit decodes an extract into occurrences, one per event or array element.
type Series struct {
	// Events and Where select the events; empty Events means all.
	Events []string
	Where  string
	// Fingerprint identifies the series in stored records. It is a hash of the
	// events, the condition and the columns alone, so that a series keeps its
	// history when features are renamed, reordered or get other windows.
	Fingerprint uint64
	Layout      Layout

	text    string
	where   int // position of the condition, -1 for none
	columns []column
	amount  *amount // derives the first column, nil for none
	each    bool    // one occurrence per element of an array

	// wants is the union of the requirements of the series' features on tiles.
	wants   wants
	windows []int64 // in milliseconds, sorted
	forever bool    // a feature has no window
}

// Layout is the stored form of an occurrence's values. It is stored with a
// record, so that values of an unknown series can be skipped.
type Layout uint8

const (
	layoutColumns Layout = 0b011 // number of values, 0 to 2
	layoutEach    Layout = 0b100 // repeated, after the number of repetitions
)

// Valid reports whether this version writes the layout.
func (l Layout) Valid() bool { return l <= layoutEach|2 && l&layoutColumns != 3 }

// column is one value of an event: the value at a path, or a weight by event
// name.
type column struct {
	text    string
	path    event.Path
	weights map[string]float64
}

// timestampPath is the path of the event's own time, which needs no column.
const timestampPath = "timestamp"

func newSeries(spec *Spec) (*Series, error) {
	s := &Series{Where: spec.Where, where: -1}
	s.Events = slices.Concat(spec.Events, spec.Amount.Subtract)
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
		if path.ThroughArray() {
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
	amount, text, err := spec.Amount.compile()
	if err != nil {
		return nil, err
	}
	if amount != nil {
		s.amount = amount
		s.columns[0].text += text
		for _, path := range amount.paths {
			if !path.ThroughArray() {
				continue
			}
			if !s.each || path.Array() != array {
				return nil, fmt.Errorf("%s goes through an array that of and by do not go through; use the same array", path)
			}
		}
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

// want adds the requirements of a feature of the series.
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

// maxText is the maximum length in bytes of a stored text or JSON value.
const maxText = 1 << 10

// appendBounded appends a value; a value longer than maxText becomes missing.
func appendBounded(dst []byte, v event.Value) []byte {
	if len(v.Text) > maxText {
		v = event.Value{}
	}
	return AppendValue(dst, v)
}

// value returns the column's value of an event.
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

// Extract appends the stored extract of an event: a bit set of the series that
// select it and, for each of them, its values. It appends nothing if no series
// selects the event. A condition that fails to evaluate counts as false, and an
// amount in a currency without a rate is missing; failed is the number of these.
func (d *Definition) Extract(dst []byte, e *event.Event) (_ []byte, failed int) {
	candidates, ok := d.byEvent[string(e.Name)]
	if !ok {
		candidates = d.matchAll
	}
	if len(candidates) == 0 {
		return dst, 0
	}
	var setBuffer [4]uint64
	set := bitset(setBuffer[:0])
	const unknown, yes, no = 0, 1, 2
	var outcomeBuffer [16]uint8
	outcomes := outcomeBuffer[:0]
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
				v := s.columns[c].value(e)
				if c == 0 && s.amount != nil {
					var ok bool
					if v, ok = s.amount.of(e, v); !ok {
						failed++
					}
				}
				dst = appendBounded(dst, v)
			}
			continue
		}
		var pathBuffer [4]event.Path
		paths := pathBuffer[:0]
		for c := range s.columns {
			paths = append(paths, s.columns[c].path)
		}
		if s.amount != nil {
			paths = append(paths, s.amount.paths...)
		}
		// The count precedes the values but is known only after them: values are
		// written after one byte, and moved if the count takes more.
		countAt := len(dst)
		dst = append(dst, 0)
		n := uint64(0)
		e.VisitEach(paths, func(values []event.Value) {
			n++
			if columns := len(s.columns); s.amount != nil {
				var ok bool
				if values[0], ok = s.amount.apply(values[0], values[columns:], e.Name); !ok {
					failed++
				}
				values = values[:columns]
			}
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

// Occurrence is one event of a series, or one element of an event's array.
type Occurrence struct {
	// Time is the event's time in Unix milliseconds, ID the hash of its
	// messageId. Occurrences are ordered by both.
	Time int64
	ID   uint64
	// First and Second are the values, in the order ValuePath, GroupPath;
	// Missing where the series has fewer columns. Their Text aliases the record.
	First, Second event.Value
}

// ErrCorrupt is returned for stored bytes that this package cannot have written.
var ErrCorrupt = errors.New("stored events are corrupt")

// Visit decodes an extract: it calls fn for each series that selected the event,
// once per element for a series over an array. layouts has the layout of each
// series by position. The Time and ID of the occurrences are zero.
func Visit(extract []byte, layouts []Layout, fn func(series int, o Occurrence)) error {
	var buffer [4]uint64
	set, rest, err := readBits(buffer[:0], extract)
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

// Renumber appends an extract with its series at other positions: to[i] is the
// new position of series i. The values are reordered accordingly.
func Renumber(dst, extract []byte, layouts []Layout, to []int) ([]byte, error) {
	set, rest, err := readBits(nil, extract)
	if err != nil {
		return dst, err
	}
	type part struct {
		series int
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
	for series := range moved.all() {
		for _, p := range parts {
			if p.series == series {
				dst = append(dst, p.values...)
			}
		}
	}
	return dst, nil
}

// IsTooLate reports whether an event arrived too late for at least one of its
// series: behind, its distance in milliseconds to the customer's latest event,
// is not less than the longest window.
func (d *Definition) IsTooLate(extract []byte, behind int64) bool {
	var buffer [4]uint64
	set, _, err := readBits(buffer[:0], extract)
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

// all returns the members in increasing order.
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

// append encodes the set as groups of seven bits, lowest first; the high bit of
// a byte means that more groups follow: an unsigned varint of any length.
func (b bitset) append(dst []byte) []byte {
	if len(b) == 1 {
		return binary.AppendUvarint(dst, b[0])
	}
	top := 0
	for i := range b.all() {
		top = i
	}
	for begin := 0; begin <= top; begin += 7 {
		var group byte
		for i := range 7 {
			if b.has(begin + i) {
				group |= 1 << i
			}
		}
		if begin+7 <= top {
			group |= 0x80
		}
		dst = append(dst, group)
	}
	return dst
}

// maxSeries bounds the set that readBits builds from a corrupt record.
const maxSeries = 1 << 13

// readBits decodes a set into buffer and returns the bytes after it.
func readBits(buffer bitset, src []byte) (bitset, []byte, error) {
	if word, width := binary.Uvarint(src); width > 0 {
		return append(buffer, word), src[width:], nil
	}
	b := buffer
	for n := 0; n < len(src) && n < maxSeries/7; n++ {
		for i := range 7 {
			if src[n]&(1<<i) != 0 {
				b = b.with(n*7 + i)
			}
		}
		if src[n]&0x80 == 0 {
			return b, src[n+1:], nil
		}
	}
	return nil, nil, ErrCorrupt
}
