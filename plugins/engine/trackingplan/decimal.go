package trackingplan

import (
	"math/big"
	"math/bits"
)

// decimal is the number mant × 10^exp, negated if neg. It is normalised (mant does not
// end in 0, zero has one form), so equal numbers are equal structs, and a number is an
// integer exactly if exp is not negative. Any literal of up to 18 significant digits is
// exact, so the usual numbers of events are compared without math/big.
type decimal struct {
	mant uint64
	exp  int
	neg  bool
}

const (
	decimalDigits = 18
	maxExponent   = 400
)

var pow10 = [...]uint64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
	1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// parseDecimal parses a JSON number. It returns false for a number with too many digits
// and for one that scanNumber rejects.
func parseDecimal(lit []byte) (decimal, bool) {
	var d decimal
	i := 0
	if i < len(lit) && lit[i] == '-' {
		d.neg = true
		i++
	}
	digits, point := 0, -1
	for ; i < len(lit); i++ {
		c := lit[i]
		if c == '.' {
			point = i
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		if d.mant != 0 || c != '0' {
			if digits++; digits > decimalDigits {
				return decimal{}, false
			}
		}
		d.mant = d.mant*10 + uint64(c-'0')
		if point >= 0 {
			d.exp--
		}
	}
	if i < len(lit) {
		e, ok := exponent(lit[i+1:])
		if !ok {
			return decimal{}, false
		}
		d.exp += e
	}
	if d.mant == 0 {
		return decimal{}, true
	}
	for d.mant%10 == 0 {
		d.mant /= 10
		d.exp++
	}
	return d, true
}

// exponent parses the part of a number after its e. It returns false beyond
// maxExponent.
func exponent(lit []byte) (int, bool) {
	neg := false
	if len(lit) > 0 && (lit[0] == '-' || lit[0] == '+') {
		neg = lit[0] == '-'
		lit = lit[1:]
	}
	e := 0
	for _, c := range lit {
		e = e*10 + int(c-'0')
		if e > maxExponent {
			return 0, false
		}
	}
	if neg {
		e = -e
	}
	return e, true
}

// decimalOf returns the decimal equal to r, false if there is none.
func decimalOf(r *big.Rat) (decimal, bool) {
	places, exact := r.FloatPrec()
	if !exact || places > maxExponent || r.Num().BitLen() > 4*maxExponent {
		return decimal{}, false
	}
	return parseDecimal([]byte(r.FloatString(places)))
}

// rat returns the exact value of a number that scanNumber accepts.
func rat(lit []byte) *big.Rat {
	r, ok := new(big.Rat).SetString(string(lit))
	if !ok {
		return nil
	}
	return r
}

// isInteger reports whether the number has no fraction; 1.0 and 1e2 have none.
func (d decimal) isInteger() bool { return d.exp >= 0 }

// compare returns -1, 0 or 1 if d is less than, equal to or greater than o.
func (d decimal) compare(o decimal) int {
	if d == o {
		return 0
	}
	if d.neg != o.neg {
		if d.neg {
			return -1
		}
		return 1
	}
	c := d.compareMagnitude(o)
	if d.neg {
		return -c
	}
	return c
}

func (d decimal) compareMagnitude(o decimal) int {
	switch {
	case d.mant == 0:
		return -1 // o is not zero, otherwise the two would be equal
	case o.mant == 0:
		return 1
	}
	shift := d.exp - o.exp
	switch {
	// A mantissa has at most 18 digits: beyond that, the exponent decides.
	case shift >= decimalDigits:
		return 1
	case shift <= -decimalDigits:
		return -1
	}
	var dhi, ohi uint64
	dlo, olo := d.mant, o.mant
	if shift > 0 {
		dhi, dlo = bits.Mul64(dlo, pow10[shift])
	} else {
		ohi, olo = bits.Mul64(olo, pow10[-shift])
	}
	switch {
	case dhi != ohi:
		if dhi < ohi {
			return -1
		}
		return 1
	case dlo < olo:
		return -1
	case dlo > olo:
		return 1
	}
	return 0
}

// multipleOf reports whether d is an integer multiple of m, which is positive. known is
// false if the answer needs more than 128 bits.
func (d decimal) multipleOf(m decimal) (is, known bool) {
	if d.mant == 0 {
		return true, true
	}
	shift := d.exp - m.exp
	if shift >= 0 {
		if shift >= len(pow10) {
			return false, false
		}
		hi, lo := bits.Mul64(d.mant, pow10[shift])
		return bits.Rem64(hi, lo, m.mant) == 0, true
	}
	if -shift >= len(pow10) {
		return false, false
	}
	hi, lo := bits.Mul64(m.mant, pow10[-shift])
	if hi != 0 {
		// m is larger than d
		return false, true
	}
	return d.mant%lo == 0, true
}
