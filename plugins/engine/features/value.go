package features

import (
	"encoding/binary"
	"math"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// The first byte of a stored value is its tag. Decimals with few places, such as
// amounts of money, are stored as an integer and its scale: 1299.99 is 129999 at
// scale 2, four bytes instead of nine.
const (
	storedMissing = iota
	storedTrue
	storedFalse
	storedFloat
	storedString
	storedJSON
	storedScale0 // the integer itself; the next three count hundredths and so on
	storedScale2
	storedScale4
	storedScale6
	storedInteger // the digits of an integer that a float cannot represent
)

var scales = [...]float64{1, 1e2, 1e4, 1e6}

// maxExact is the largest integer up to which every integer is a float64.
const maxExact = 1 << 53

// decimal returns f as an integer at the smallest scale that represents it
// exactly; ok is false if there is none.
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
		if len(v.Text) > 0 {
			dst = binary.AppendUvarint(append(dst, storedInteger), uint64(len(v.Text)))
			return append(dst, v.Text...)
		}
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

// ReadValue decodes a stored value and returns the bytes after it. The value's
// Text aliases src.
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
	case storedString, storedJSON, storedInteger:
		n, width := binary.Uvarint(src)
		if width <= 0 || n > uint64(len(src)-width) {
			return v, nil, ErrCorrupt
		}
		kind := event.String
		if tag == storedJSON {
			kind = event.JSON
		}
		end := width + int(n)
		if tag == storedInteger {
			v, ok := event.Integer(src[width:end:end])
			if !ok {
				return v, nil, ErrCorrupt
			}
			return v, src[end:], nil
		}
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

// total is a sum of numbers. Decimals of up to six places are added exactly, as
// integers of millionths, while the sum stays below about 4.6 trillion: prices
// add up to the cent, in any order. Other numbers are added as floats with
// Neumaier's compensation of the rounding error.
//
// Example: 0.1 + 0.2 + 1e300 has micros 300000 and floats 1e300.
type total struct {
	micros int64
	floats float64
	// compensation is the rounding error of floats so far.
	compensation float64
}

const maxMicros = 1 << 62

func (t *total) add(f float64) {
	if n, scale, ok := decimal(f); ok {
		unit := int64(scales[len(scales)-1] / scales[scale])
		if m := n * unit; m/unit == n && m < maxMicros && m > -maxMicros && t.fits(m) {
			t.micros += m
			return
		}
	}
	t.addFloat(f)
}

// fits reports whether m can be added to micros.
func (t *total) fits(m int64) bool {
	sum := t.micros + m
	return sum < maxMicros && sum > -maxMicros
}

func (t *total) addFloat(f float64) {
	sum := t.floats + f
	if math.Abs(t.floats) >= math.Abs(f) {
		t.compensation += (t.floats - sum) + f
	} else {
		t.compensation += (f - sum) + t.floats
	}
	t.floats = sum
}

func (t *total) merge(o total) {
	if t.fits(o.micros) {
		t.micros += o.micros
	} else {
		t.addFloat(float64(o.micros) / 1e6)
	}
	t.addFloat(o.floats)
	t.compensation += o.compensation
}

func (t *total) value() float64 {
	exact := float64(t.micros) / 1e6
	if t.floats == 0 && t.compensation == 0 {
		return exact
	}
	return exact + (t.floats + t.compensation)
}
