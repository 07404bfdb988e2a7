package trackingplan

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/valyala/fastjson"
)

// The rules that text can violate before any schema applies. Such an event is rejected
// regardless of the plan's policies, because two readers could interpret it
// differently.
const (
	// RuleJSON: the text is not one JSON value (RFC 8259).
	RuleJSON = "json"
	// RuleEncoding: the bytes are not UTF-8, or an escape is half of a surrogate pair,
	// which UTF-8 cannot encode.
	RuleEncoding = "encoding"
	// RuleDuplicate: an object has two members of one name. Some readers use the first
	// and some the last.
	RuleDuplicate = "duplicate_key"
	// RuleDepth: objects and arrays are nested deeper than allowed.
	RuleDepth = "depth"
	// RuleNumber: a number exceeds the range of a 64-bit float.
	RuleNumber = "number"
)

// DefaultMaxDepth is the default limit for the nesting of objects and arrays in an
// event.
const DefaultMaxDepth = 32

// MaxMaxDepth is the largest limit that can be configured. The parser has a limit of
// its own that is slightly larger.
const MaxMaxDepth = 256

// maxNumberLength is far more than any float64 needs, and small enough to keep exact
// arithmetic cheap.
const maxNumberLength = 400

// manyKeys is the size of an object from which duplicates are found with a map instead
// of comparisons.
const manyKeys = 48

// reader parses events strictly with a lenient but fast parser and reuses its memory. A
// value is valid until the next read.
type reader struct {
	parser fastjson.Parser
	buf    []byte
	keys   [][]byte
	fault  *Violation
}

// read parses one event, or returns the violation that prevents it.
func (r *reader) read(data []byte, maxDepth int) (*fastjson.Value, *Violation) {
	plain, ascii := scanBytes(data)
	if !ascii && !utf8.Valid(data) {
		return nil, &Violation{Rule: RuleEncoding, Message: "is not valid UTF-8 at byte " + strconv.Itoa(invalidUTF8(data))}
	}
	// Counting brackets is almost free and lets nearly every event skip the exact
	// measurement.
	if bytes.Count(data, []byte{'{'})+bytes.Count(data, []byte{'['}) > maxDepth && nesting(data) > maxDepth {
		return nil, &Violation{Rule: RuleDepth, Message: "is nested more than " + strconv.Itoa(maxDepth) + " levels deep"}
	}
	v, err := r.parser.ParseBytes(data)
	if err != nil {
		return nil, malformed(data)
	}
	// The parser accepts any escape and control character inside strings. Text without
	// backslashes and control characters needs no further check.
	if !plain {
		if fault := checkStrings(data); fault != nil {
			return nil, fault
		}
	}
	r.fault = nil
	r.keys = r.keys[:0]
	if !r.strict(v) {
		if r.fault.Rule == RuleJSON {
			return nil, malformed(data)
		}
		return nil, r.fault
	}
	return v, nil
}

// strict checks every number and the keys of every object, and sets r.fault to the
// first violation.
func (r *reader) strict(v *fastjson.Value) bool {
	switch v.Type() {
	case fastjson.TypeNumber:
		r.buf = v.MarshalTo(r.buf[:0])
		switch scanNumber(r.buf) {
		case numberMalformed:
			r.fault = &Violation{Rule: RuleJSON}
			return false
		case numberTooBig:
			r.fault = &Violation{Rule: RuleNumber, Message: "has a number beyond the range of a 64-bit float"}
			return false
		}
	case fastjson.TypeArray:
		for i, item := range v.GetArray() {
			if !r.strict(item) {
				r.fault.Pointer = "/" + strconv.Itoa(i) + r.fault.Pointer
				return false
			}
		}
	case fastjson.TypeObject:
		obj := v.GetObject()
		base := len(r.keys)
		many := obj.Len() > manyKeys
		var seen uint64
		obj.Visit(func(key []byte, item *fastjson.Value) {
			if r.fault != nil {
				return
			}
			if !many && len(key) > 0 {
				bit := uint64(1) << ((uint(key[0]) + 7*uint(key[len(key)-1]) + 13*uint(len(key))) & 63)
				if seen&bit != 0 && r.hasKey(base, key) {
					r.fault = &Violation{Rule: RuleDuplicate, Message: "has two members of one name"}
					return
				}
				seen |= bit
			} else if !many && r.hasKey(base, key) {
				r.fault = &Violation{Rule: RuleDuplicate, Message: "has two members of one name"}
				return
			}
			r.keys = append(r.keys, key)
			switch item.Type() {
			case fastjson.TypeNumber, fastjson.TypeArray, fastjson.TypeObject:
				if !r.strict(item) {
					r.fault.Pointer = "/" + escapePointer(string(key)) + r.fault.Pointer
				}
			}
		})
		if many && r.fault == nil {
			names := make(map[string]struct{}, obj.Len())
			for _, key := range r.keys[base:] {
				names[string(key)] = struct{}{}
			}
			if len(names) != obj.Len() {
				r.fault = &Violation{Rule: RuleDuplicate, Message: "has two members of one name"}
			}
		}
		r.keys = r.keys[:base]
		return r.fault == nil
	}
	return true
}

func (r *reader) hasKey(base int, key []byte) bool {
	for _, k := range r.keys[base:] {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

// scanBytes reports whether data has neither backslashes nor control characters, and
// whether it is ASCII.
func scanBytes(data []byte) (plain, ascii bool) {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	var odd, high uint64
	for len(data) >= 8 {
		w := binary.LittleEndian.Uint64(data)
		x := w ^ '\\'*ones
		// Eight bytes at a time: the high bit of a byte is set if the byte is below a
		// space or is a backslash.
		odd |= (w-' '*ones)&^w | (x-ones)&^x
		high |= w
		data = data[8:]
	}
	plain, ascii = odd&highs == 0, high&highs == 0
	for _, c := range data {
		plain = plain && c >= ' ' && c != '\\'
		ascii = ascii && c < utf8.RuneSelf
	}
	return plain, ascii
}

// nesting returns the maximum depth of brackets outside of strings.
func nesting(data []byte) int {
	depth, deepest := 0, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		}
	}
	return deepest
}

// checkStrings checks the escapes and control characters in the strings of text that is
// well-formed otherwise.
func checkStrings(data []byte) *Violation {
	inside := false
	for i := 0; i < len(data); {
		switch c := data[i]; {
		case c == '"':
			inside = !inside
			i++
		case !inside:
			i++
		case c < ' ':
			return malformed(data)
		case c != '\\':
			i++
		default:
			size, ok := escape(data[i:])
			switch {
			case size == 0:
				return malformed(data)
			case !ok:
				return &Violation{Rule: RuleEncoding, Message: "has half a surrogate pair at byte " + strconv.Itoa(i) + ", which is no character"}
			}
			i += size
		}
	}
	return nil
}

// escape returns the length of the escape, or of the surrogate pair, at the start of
// data, and 0 if there is none. ok is false for half of a pair.
func escape(data []byte) (size int, ok bool) {
	if len(data) < 2 {
		return 0, false
	}
	if data[1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), data[1]) < 0 {
			return 0, false
		}
		return 2, true
	}
	switch unit := codeUnit(data); {
	case unit < 0:
		return 0, false
	case unit < 0xD800 || unit > 0xDFFF:
		return 6, true
	case unit > 0xDBFF:
		return 6, false
	}
	low := codeUnit(data[6:])
	return 12, low >= 0xDC00 && low <= 0xDFFF
}

// codeUnit parses a \uXXXX escape. It returns -1 if there is none.
func codeUnit(data []byte) int {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return -1
	}
	unit := 0
	for _, c := range data[2:6] {
		switch {
		case c-'0' <= 9:
			unit = unit<<4 | int(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			unit = unit<<4 | int(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return unit
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
	return len(data)
}

// malformed describes text that is not JSON, in the words of the standard library,
// whose messages contain at most one character of it.
func malformed(data []byte) *Violation {
	message := "is not valid JSON"
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		message += ": it is empty"
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		message += ": it begins with a byte order mark"
	default:
		var any json.RawMessage
		var syntax *json.SyntaxError
		if errors.As(json.Unmarshal(data, &any), &syntax) {
			message += " at byte " + strconv.FormatInt(syntax.Offset, 10) + ": " + syntax.Error()
		}
	}
	return &Violation{Rule: RuleJSON, Message: message}
}

type numberForm int

const (
	numberFine numberForm = iota
	numberMalformed
	numberTooBig
)

// scanNumber checks the grammar of RFC 8259, and that the number fits a 64-bit float
// and its arithmetic has bounded cost.
func scanNumber(lit []byte) numberForm {
	i := 0
	if i < len(lit) && lit[i] == '-' {
		i++
	}
	start := i
	for i < len(lit) && '0' <= lit[i] && lit[i] <= '9' {
		i++
	}
	whole := i - start
	if whole == 0 || whole > 1 && lit[start] == '0' {
		return numberMalformed
	}
	if i < len(lit) && lit[i] == '.' {
		i++
		start = i
		for i < len(lit) && '0' <= lit[i] && lit[i] <= '9' {
			i++
		}
		if i == start {
			return numberMalformed
		}
	}
	simple := i == len(lit)
	if !simple && (lit[i] == 'e' || lit[i] == 'E') {
		i++
		if i < len(lit) && (lit[i] == '+' || lit[i] == '-') {
			i++
		}
		start = i
		for i < len(lit) && '0' <= lit[i] && lit[i] <= '9' {
			i++
		}
		if i == start {
			return numberMalformed
		}
	}
	switch {
	case i < len(lit):
		return numberMalformed
	case len(lit) > maxNumberLength:
		return numberTooBig
	case simple && whole <= 300:
		return numberFine
	}
	if e := bytes.LastIndexAny(lit, "eE"); e >= 0 {
		if _, ok := exponent(lit[e+1:]); !ok {
			return numberTooBig
		}
	}
	if _, err := strconv.ParseFloat(string(lit), 64); err != nil {
		return numberTooBig
	}
	return numberFine
}
