package trackingapi

import (
	"encoding/json"
	"math/bits"
)

// span is a range of positions in the body.
type span struct{ start, end int }

// syntaxError is a position where the bytes are not JSON, and the reason, which
// never quotes the bytes.
type syntaxError struct {
	offset int
	reason string
}

func (e *syntaxError) Error() string { return e.reason }

const (
	reasonTruncated = "ends before its last value is complete"
	reasonNonFinite = "has NaN or Infinity, which JSON does not have"
)

// scanner walks over JSON text and returns the spans of its values, so that they
// can be copied byte for byte. It accepts exactly the grammar of RFC 8259; the
// caller checks that the text is UTF-8. It does not recurse: a level of nesting
// costs one bit.
type scanner struct {
	text []byte
	pos  int
	// lenient accepts NaN, Infinity and -Infinity, which Python's json module
	// writes. literals counts them; firstLiteral is the position of the first.
	lenient      bool
	literals     int
	firstLiteral int
	// objects has one bit for every open container, set for an object.
	objects []uint64
}

func (s *scanner) fail(reason string) error {
	if s.pos >= len(s.text) {
		return &syntaxError{len(s.text), reasonTruncated}
	}
	return &syntaxError{s.pos, reason}
}

// space skips white space and returns the next byte, 0 at the end. A zero byte in
// the text is not JSON either, so callers need no distinction.
func (s *scanner) space() byte {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; c {
		case ' ', '\n', '\r', '\t':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// value consumes one value and returns its nesting: 0 for a scalar, 1 for an array
// or object of scalars.
func (s *scanner) value() (deepest int, err error) {
	depth := 0
	for {
		// A value must begin here.
		switch c := s.space(); {
		case c == '"':
			err = s.str()
		case c == '{' || c == '[':
			s.push(depth, c == '{')
			depth++
			deepest = max(deepest, depth)
			s.pos++
			// '{' and '[' are two below their closing brackets in ASCII.
			if s.space() == c+2 {
				break // an empty container, closed below
			}
			if c == '{' {
				if err = s.name(); err != nil {
					return 0, err
				}
			}
			continue
		case c == '-' || c >= '0' && c <= '9':
			err = s.number()
		case c == 't':
			err = s.literal("true")
		case c == 'f':
			err = s.literal("false")
		case c == 'n':
			err = s.literal("null")
		case s.lenient && c == 'N':
			err = s.nonFinite("NaN")
		case s.lenient && c == 'I':
			err = s.nonFinite("Infinity")
		default:
			err = s.fail("has something other than a value where a value must be")
		}
		if err != nil {
			return 0, err
		}
		// A value has ended here: close the containers that end with it.
		for {
			if depth == 0 {
				return deepest, nil
			}
			object := s.inObject(depth - 1)
			c := s.space()
			if object && c == '}' || !object && c == ']' {
				s.pos++
				depth--
				continue
			}
			if c != ',' {
				if object {
					return 0, s.fail(`has something other than "," or "}" after a member of an object`)
				}
				return 0, s.fail(`has something other than "," or "]" after an element of an array`)
			}
			s.pos++
			if object {
				if err = s.name(); err != nil {
					return 0, err
				}
			}
			break
		}
	}
}

func (s *scanner) push(depth int, object bool) {
	word, bit := depth/bits.UintSize, uint(depth%bits.UintSize)
	if word == len(s.objects) {
		s.objects = append(s.objects, 0)
	}
	s.objects[word] &^= 1 << bit
	if object {
		s.objects[word] |= 1 << bit
	}
}

func (s *scanner) inObject(depth int) bool {
	return s.objects[depth/bits.UintSize]>>uint(depth%bits.UintSize)&1 == 1
}

// name consumes the name of a member and the colon after it.
func (s *scanner) name() error {
	if s.space() != '"' {
		return s.fail("has something other than a name in double quotes where a member of an object must begin")
	}
	if err := s.str(); err != nil {
		return err
	}
	if s.space() != ':' {
		return s.fail(`has something other than ":" after the name of a member`)
	}
	s.pos++
	return nil
}

// plain marks the bytes that stand for themselves inside a string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\'
	}
	return t
}()

// str consumes a string.
func (s *scanner) str() error {
	text, i := s.text, s.pos+1
	for {
		for i < len(text) && plain[text[i]] {
			i++
		}
		s.pos = i
		if i == len(text) {
			return s.fail("")
		}
		switch text[i] {
		case '"':
			s.pos++
			return nil
		case '\\':
			i++
			s.pos = i
			if i == len(text) {
				return s.fail("")
			}
			switch text[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i++
			case 'u':
				for range 4 {
					i++
					s.pos = i
					if i == len(text) || !isHex(text[i]) {
						return s.fail(`has "\u" without four hexadecimal digits in a string`)
					}
				}
				i++
			default:
				return s.fail("has an unknown escape in a string")
			}
		default:
			return s.fail("has a control character in a string, which must be escaped")
		}
	}
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *scanner) number() error {
	if s.text[s.pos] == '-' {
		s.pos++
	}
	switch c := s.peek(); {
	case s.lenient && c == 'I':
		return s.nonFinite("Infinity")
	case c == '0':
		s.pos++
	case c >= '1' && c <= '9':
		s.digits()
	default:
		return s.fail("has a number without digits")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return s.fail("has a number without digits after the decimal point")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return s.fail("has a number without digits in the exponent")
		}
	}
	return nil
}

func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) digits() bool {
	start := s.pos
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.peek() != word[i] {
			return s.fail("has something other than a value where a value must be")
		}
		s.pos++
	}
	return nil
}

// nonFinite consumes a number that JSON does not have.
func (s *scanner) nonFinite(word string) error {
	if s.literals == 0 {
		s.firstLiteral = s.pos
	}
	s.literals++
	return s.literal(word)
}

// member is one name and value of an object.
type member struct {
	name  span // without the quotes
	value span
}

// object consumes the object at the current position and appends its members.
// It also returns the nesting of the object, itself included.
func (s *scanner) object(members []member) (_ []member, deepest int, err error) {
	deepest = 1
	s.pos++
	if s.space() == '}' {
		s.pos++
		return members, deepest, nil
	}
	for {
		s.space()
		name := span{start: s.pos + 1}
		if err := s.name(); err != nil {
			return members, 0, err
		}
		name.end = s.nameEnd()
		s.space()
		value := span{start: s.pos}
		depth, err := s.value()
		if err != nil {
			return members, 0, err
		}
		value.end = s.pos
		deepest = max(deepest, depth+1)
		members = append(members, member{name, value})
		switch s.space() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return members, deepest, nil
		default:
			return members, 0, s.fail(`has something other than "," or "}" after a member of an object`)
		}
	}
}

// nameEnd returns the end of the last name, after its colon has been consumed.
func (s *scanner) nameEnd() int {
	i := s.pos - 2
	for s.text[i] != '"' {
		i--
	}
	return i
}

// unquoted decodes a JSON string. raw is its text between the quotes.
func unquoted(raw []byte) []byte {
	for i := range raw {
		if raw[i] == '\\' {
			quoted := make([]byte, 0, len(raw)+2)
			quoted = append(append(append(quoted, '"'), raw...), '"')
			var text string
			if json.Unmarshal(quoted, &text) != nil {
				return raw // not reached: the scanner accepted the string
			}
			return []byte(text)
		}
	}
	return raw
}
