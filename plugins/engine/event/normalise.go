package event

import (
	"slices"

	"github.com/valyala/fastjson"

	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// inspector walks the values of an event. The parser accepts more than JSON
// and returns the first of two members with the same name, while other readers
// of the same event use the last. For example,
//
//	{"total":1,"total":2}
//
// is a total of 2 everywhere.
type inspector struct {
	keys   [][]byte // of the objects that contain the present value
	number []byte   // buffer
	// hasDuplicates is set if an object has two members with the same name.
	hasDuplicates bool
	// invalid is set if a number is not a number of JSON, such as nan or 01.
	invalid bool
}

// manyKeys is the size from which a map finds duplicates faster than
// comparisons, and without quadratic cost for large objects.
const manyKeys = 32

func (n *inspector) inspect(v *fastjson.Value) {
	switch v.Type() {
	case fastjson.TypeObject:
		obj := v.GetObject()
		first := len(n.keys)
		var seen map[string]bool
		if obj.Len() > manyKeys {
			seen = make(map[string]bool, obj.Len())
		}
		obj.Visit(func(key []byte, member *fastjson.Value) {
			if seen != nil {
				n.hasDuplicates = n.hasDuplicates || seen[string(key)]
				seen[string(key)] = true
			} else {
				for _, other := range n.keys[first:] {
					n.hasDuplicates = n.hasDuplicates || string(other) == string(key)
				}
				n.keys = append(n.keys, key)
			}
			n.inspect(member)
		})
		n.keys = n.keys[:first]
	case fastjson.TypeArray:
		for _, element := range v.GetArray() {
			n.inspect(element)
		}
	case fastjson.TypeNumber:
		n.number = v.MarshalTo(n.number[:0])
		n.invalid = n.invalid || !isNumber(n.number)
	}
}

// isNumber reports whether text is a number by the grammar of JSON.
func isNumber(text []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(text) && text[n] >= '0' && text[n] <= '9' {
			n++
		}
		text = text[n:]
		return n > 0
	}
	accept := func(chars string) bool {
		if len(text) > 0 && slices.Contains([]byte(chars), text[0]) {
			text = text[1:]
			return true
		}
		return false
	}
	accept("-")
	if !accept("0") && !digits() {
		return false
	}
	if accept(".") && !digits() {
		return false
	}
	if accept("eE") {
		accept("+-")
		if !digits() {
			return false
		}
	}
	return len(text) == 0
}

// appendJSON appends a value as JSON. If dedupe is set, it appends only the last
// of several members of an object with the same name.
func appendJSON(dst []byte, v *fastjson.Value, dedupe bool) []byte {
	switch v.Type() {
	case fastjson.TypeObject:
		obj := v.GetObject()
		var last map[string]*fastjson.Value
		if dedupe {
			last = make(map[string]*fastjson.Value, obj.Len())
			obj.Visit(func(key []byte, member *fastjson.Value) { last[string(key)] = member })
		}
		dst = append(dst, '{')
		start := len(dst)
		obj.Visit(func(key []byte, member *fastjson.Value) {
			if dedupe && last[string(key)] != member {
				return
			}
			if len(dst) > start {
				dst = append(dst, ',')
			}
			dst = append(jsontext.AppendString(dst, key), ':')
			dst = appendJSON(dst, member, dedupe)
		})
		return append(dst, '}')
	case fastjson.TypeArray:
		dst = append(dst, '[')
		for i, element := range v.GetArray() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, element, dedupe)
		}
		return append(dst, ']')
	case fastjson.TypeString:
		return jsontext.AppendString(dst, v.GetStringBytes())
	}
	return v.MarshalTo(dst) // numbers keep their text
}

// maxExact is the largest integer below which floats represent every integer.
const maxExact = 1 << 53

// isDigits reports whether the text of a number is an integer literal.
func isDigits(number []byte) bool {
	for i, c := range number {
		if (c < '0' || c > '9') && (i > 0 || c != '-') {
			return false
		}
	}
	return true
}
