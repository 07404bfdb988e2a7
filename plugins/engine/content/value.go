package content

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v2"
)

// Values of a template have these Go types:
//
//	nil            nil, or an undefined name
//	missing        an absent or empty value of the profile
//	bool, string
//	int64, float64 numbers as in Liquid: 25.0 is written "25.0"
//	amount         a real number of the profile: 25 is written "25", and 25 / 2 is 12.5
//	[]any          list
//	yaml.MapSlice  object, in its order
//	span           range of integers
//	markup         text with an escaping that is already done
//	special        the literals blank and empty
//	*loop          the forloop object

// missing is an absent or empty value of the profile: null, a text of white space,
// an empty list or object, or a name that the profile does not have. It is false in
// a condition and equal to nil, "", blank and empty.
type missing struct{}

// amount is a number of the profile that is not a count. Liquid divides integers as
// integers, so revenue 25 over 2 orders would be 12.
type amount float64

// special is a literal that stands for a class of values.
type special uint8

const (
	blank special = iota + 1
	empty
)

// span is a range of integers, both ends included.
type span struct{ from, to int64 }

func (s span) length() int {
	if s.to < s.from {
		return 0
	}
	if n := uint64(s.to) - uint64(s.from); n < math.MaxInt {
		return int(n) + 1
	}
	return math.MaxInt
}

// isTrue reports whether a value is true in a condition. As in Liquid only nil and
// false are not, and additionally missing values of the profile.
func isTrue(v any) bool {
	switch v := v.(type) {
	case nil, missing:
		return false
	case bool:
		return v
	}
	return true
}

func isNil(v any) bool {
	switch v.(type) {
	case nil, missing:
		return true
	}
	return false
}

// isEmpty reports whether v == empty, and isBlank whether v == blank.
func isEmpty(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case yaml.MapSlice:
		return len(v) == 0
	case missing:
		return true
	}
	return false
}

func isBlank(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return strings.TrimSpace(v) == ""
	}
	return isEmpty(v)
}

// equal compares two values as == does.
func equal(a, b any) bool {
	if s, ok := b.(special); ok {
		a, b = s, a
	}
	switch a := a.(type) {
	case special:
		if other, ok := b.(special); ok {
			return a == other
		}
		if a == blank {
			return isBlank(b)
		}
		return isEmpty(b)
	case missing:
		return isNil(b) || b == ""
	case markup:
		return equal(a.text, b)
	}
	switch b := b.(type) {
	case missing:
		return equal(b, a)
	case markup:
		return equal(a, b.text)
	}
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case nil, bool, string, span, *loop:
		return a == b
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case yaml.MapSlice:
		b, ok := b.(yaml.MapSlice)
		if !ok || len(a) != len(b) {
			return false
		}
		for _, item := range a {
			value, ok := lookup(b, item.Key)
			if !ok || !equal(item.Value, value) {
				return false
			}
		}
		return true
	}
	return false
}

// number returns the value of a number. A text is not a number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case amount:
		return float64(v), true
	}
	return 0, false
}

var (
	integerForm = regexp.MustCompile(`^[+-]?[0-9]+$`)
	decimalForm = regexp.MustCompile(`^[+-]?[0-9]+\.[0-9]+$`)
)

// numeric converts a value to a number, as the arithmetic filters do: a text with a
// number counts as that number, everything else as 0. ok is false for the latter.
func numeric(v any) (n any, ok bool) {
	switch v := v.(type) {
	case int64, float64, amount:
		return v, true
	case markup:
		return numeric(v.text)
	case string:
		s := strings.TrimSpace(v)
		if integerForm.MatchString(s) {
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				return n, true
			}
		}
		if integerForm.MatchString(s) || decimalForm.MatchString(s) {
			if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsInf(f, 0) {
				return f, true
			}
		}
	}
	return int64(0), false
}

// asFloat is numeric for functions that do not distinguish the types of numbers.
func asFloat(v any) (float64, bool) {
	n, ok := numeric(v)
	f, _ := number(n)
	return f, ok
}

// asInt converts a value to an integer: numbers are truncated, a text counts with
// its leading digits, everything else is 0.
func asInt(v any) int64 {
	if m, ok := v.(markup); ok {
		v = m.text
	}
	if s, ok := v.(string); ok {
		s = strings.TrimSpace(s)
		end := 0
		for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[0] == '-' || s[0] == '+')) {
			end++
		}
		n, err := strconv.ParseInt(s[:end], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	if n, ok := v.(int64); ok {
		return n
	}
	f, _ := number(v)
	if math.IsNaN(f) || math.Abs(f) >= 1<<62 {
		return 0
	}
	return int64(f)
}

// smallInt is asInt within ±1e9, the range of counts and lengths.
func smallInt(v any) int { return int(min(max(asInt(v), -1e9), 1e9)) }

// plain returns a value as text.
func plain(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return v.text
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case amount:
		return formatNumber(float64(v))
	case float64:
		s := formatNumber(v)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	case []any:
		var b strings.Builder
		for _, item := range v {
			b.WriteString(plain(item))
		}
		return b.String()
	case yaml.MapSlice:
		return string(appendJSON(nil, v))
	case span:
		return strconv.FormatInt(v.from, 10) + ".." + strconv.FormatInt(v.to, 10)
	}
	return ""
}

// formatNumber writes a number without exponent, rounded to six decimals.
func formatNumber(f float64) string {
	if math.Abs(f) < 1e9 {
		f = math.Round(f*1e6) / 1e6
	}
	if f == 0 {
		return "0" // not -0
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// lookup returns the member of an object.
func lookup(m yaml.MapSlice, key any) (any, bool) {
	for _, item := range m {
		if item.Key == key {
			return item.Value, true
		}
	}
	return nil, false
}

// member returns the member of an object, and nil for anything else.
func member(v any, name string) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		value, _ := lookup(v, name)
		return value
	case *loop:
		return v.member(name)
	}
	return nil
}

// items returns the number of items of a value in a loop, and a function that
// returns each of them. The items of an object are pairs of name and value; a text
// is one item.
func items(v any) (int, func(int) any) {
	switch v := v.(type) {
	case []any:
		return len(v), func(i int) any { return v[i] }
	case yaml.MapSlice:
		return len(v), func(i int) any { return []any{v[i].Key, v[i].Value} }
	case span:
		return v.length(), func(i int) any { return v.from + int64(i) }
	case string, markup:
		if plain(v) != "" {
			return 1, func(int) any { return v }
		}
	}
	return 0, nil
}

// holdsObjects reports whether v is a list with an object in it. Written as text,
// such a list is JSON, which is never intended.
func holdsObjects(v any) bool {
	list, ok := v.([]any)
	if !ok {
		return false
	}
	for _, item := range list {
		if _, ok := item.(yaml.MapSlice); ok || holdsObjects(item) {
			return true
		}
	}
	return false
}

// appendJSON appends a value as JSON, objects in their order.
func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case yaml.MapSlice:
		dst = append(dst, '{')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, item.Key)
			dst = append(dst, ':')
			dst = appendJSON(dst, item.Value)
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, item)
		}
		return append(dst, ']')
	case nil, missing:
		return append(dst, "null"...)
	case bool, int64, float64, amount:
		return append(dst, plain(v)...)
	}
	text, err := json.Marshal(plain(v))
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, text...)
}
