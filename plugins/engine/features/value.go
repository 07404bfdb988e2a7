package features

import (
	"encoding/binary"
	"math"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// The first byte of a stored value. Numbers that are decimals of few places,
// as money is, are stored as the integer they are at that scale.
const (
	storedMissing = iota
	storedTrue
	storedFalse
	storedFloat
	storedString
	storedJSON
	storedScale0 // the integer itself; the next three are hundredths and so on
	storedScale2
	storedScale4
	storedScale6
)

var scales = [...]float64{1, 1e2, 1e4, 1e6}

// maxExact is the largest integer up to which floats are exact.
const maxExact = 1 << 53

// decimal returns the integer that f is at the smallest of our scales that
// holds it without loss.
func decimal(f float64) (n int64, scale int, ok bool) {
	for i, s := range scales {
		scaled := math.Round(f * s)
		if math.Abs(scaled) > maxExact {
			return 0, 0, false
		}
		if scaled/s == f {
			return int64(scaled), i, true
		}
	}
	return 0, 0, false
}

// AppendValue appends the stored form of a value.
func AppendValue(dst []byte, v event.Value) []byte {
	switch v.Kind {
	case event.Number:
		if n, scale, ok := decimal(v.Number); ok {
			return binary.AppendVarint(append(dst, storedScale0+byte(scale)), n)
		}
		return binary.LittleEndian.AppendUint64(append(dst, storedFloat), math.Float64bits(v.Number))
	case event.String:
		dst = binary.AppendUvarint(append(dst, storedString), uint64(len(v.Text)))
		return append(dst, v.Text...)
	case event.JSON:
		dst = binary.AppendUvarint(append(dst, storedJSON), uint64(len(v.Text)))
		return append(dst, v.Text...)
	case event.True:
		return append(dst, storedTrue)
	case event.False:
		return append(dst, storedFalse)
	}
	return append(dst, storedMissing)
}

// ReadValue reads a stored value and returns what follows it. The value's Text
// is part of src.
func ReadValue(src []byte) (v event.Value, rest []byte, err error) {
	if len(src) == 0 {
		return v, nil, ErrCorrupt
	}
	tag, src := src[0], src[1:]
	switch tag {
	case storedMissing:
		return v, src, nil
	case storedTrue:
		return event.Value{Kind: event.True}, src, nil
	case storedFalse:
		return event.Value{Kind: event.False}, src, nil
	case storedFloat:
		if len(src) < 8 {
			return v, nil, ErrCorrupt
		}
		f := math.Float64frombits(binary.LittleEndian.Uint64(src))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return v, nil, ErrCorrupt
		}
		return event.Value{Kind: event.Number, Number: f}, src[8:], nil
	case storedString, storedJSON:
		n, width := binary.Uvarint(src)
		if width <= 0 || n > uint64(len(src)-width) {
			return v, nil, ErrCorrupt
		}
		kind := event.String
		if tag == storedJSON {
			kind = event.JSON
		}
		end := width + int(n)
		return event.Value{Kind: kind, Text: src[width:end:end]}, src[end:], nil
	case storedScale0, storedScale2, storedScale4, storedScale6:
		n, width := binary.Varint(src)
		if width <= 0 {
			return v, nil, ErrCorrupt
		}
		return event.Value{Kind: event.Number, Number: float64(n) / scales[tag-storedScale0]}, src[width:], nil
	}
	return v, nil, ErrCorrupt
}

// total adds numbers. Decimals of up to six places are added exactly as long
// as the sum stays under nine trillion, so that prices add up to the cent and
// the order of addition does not matter; the rest is added in floats with the
// error carried along.
type total struct {
	micros int64
	rest   float64
	lost   float64
}

const maxMicros = 1 << 62

func (t *total) add(f float64) {
	if n, scale, ok := decimal(f); ok {
		unit := int64(scales[len(scales)-1] / scales[scale])
		if m := n * unit; m/unit == n && m < maxMicros && m > -maxMicros && t.room(m) {
			t.micros += m
			return
		}
	}
	t.addFloat(f)
}

func (t *total) room(m int64) bool {
	sum := t.micros + m
	return sum < maxMicros && sum > -maxMicros
}

func (t *total) addFloat(f float64) {
	sum := t.rest + f
	if math.Abs(t.rest) >= math.Abs(f) {
		t.lost += (t.rest - sum) + f
	} else {
		t.lost += (f - sum) + t.rest
	}
	t.rest = sum
}

func (t *total) merge(o total) {
	if t.room(o.micros) {
		t.micros += o.micros
	} else {
		t.addFloat(float64(o.micros) / 1e6)
	}
	t.addFloat(o.rest)
	t.lost += o.lost
}

func (t *total) value() float64 {
	exact := float64(t.micros) / 1e6
	if t.rest == 0 && t.lost == 0 {
		return exact
	}
	return exact + (t.rest + t.lost)
}
