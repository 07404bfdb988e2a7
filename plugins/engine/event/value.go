package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/valyala/fastjson"
)

// Kind is the type of a Value.
type Kind uint8

// The kinds of value. Missing stands for an absent property and for null.
const (
	Missing Kind = iota
	Number
	String
	True
	False
	// JSON is an object or an array, kept as its text.
	JSON
)

// Value is the value of a property or trait. Text belongs to the event's
// parser.
type Value struct {
	Kind   Kind
	Number float64
	Text   []byte
}

func valueOf(v *fastjson.Value) Value {
	if v == nil {
		return Value{}
	}
	switch v.Type() {
	case fastjson.TypeString:
		return Value{Kind: String, Text: v.GetStringBytes()}
	case fastjson.TypeNumber:
		return numberOf(v)
	case fastjson.TypeTrue:
		return Value{Kind: True}
	case fastjson.TypeFalse:
		return Value{Kind: False}
	case fastjson.TypeObject, fastjson.TypeArray:
		// The parser accepts nan, inf and malformed numbers. In an event they are
		// an error; inside other JSON such a value is missing.
		if text := appendJSON(nil, v, false); json.Valid(text) {
			return Value{Kind: JSON, Text: text}
		}
	}
	return Value{}
}

// numberOf parses a number. The parser's own conversion is off by one digit
// for many literals with an exponent.
func numberOf(v *fastjson.Value) Value {
	var buffer [32]byte
	text := v.MarshalTo(buffer[:0])
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return Value{} // out of range
	}
	if math.Abs(f) >= maxExact {
		if n, ok := Integer(text); ok {
			n.Text = bytes.Clone(n.Text)
			return n
		}
	}
	return Value{Kind: Number, Number: f}
}

// Integer returns the number with the given digits, which must be the literal
// of an integer that a float cannot represent; ok is false for any other text.
func Integer(digits []byte) (n Value, ok bool) {
	f, err := strconv.ParseFloat(string(digits), 64)
	if err != nil || math.Abs(f) < maxExact || !isDigits(digits) || !isNumber(digits) {
		return Value{}, false
	}
	var buffer [32]byte
	if string(strconv.AppendFloat(buffer[:0], f, 'f', -1, 64)) == string(digits) {
		return Value{}, false
	}
	return Value{Kind: Number, Number: f, Text: digits}, true
}

// Path is the path of a value in an event: keys joined by dots, such as
// properties.total. One key may end in []; the path then addresses a value in
// every element of that array, as in properties.products[].category.
type Path struct {
	text         string
	keys         []string // up to the array, or to the value
	throughArray bool
	rest         []string // from an element of the array to the value
}

// ParsePath parses the text of a path.
func ParsePath(text string) (Path, error) {
	p := Path{text: text}
	for key := range strings.SplitSeq(text, ".") {
		name, each := strings.CutSuffix(key, "[]")
		switch {
		case name == "" || strings.ContainsAny(name, "[]*"):
			return Path{}, fmt.Errorf("path %q must be keys joined by dots, such as properties.total or properties.products[].category", text)
		case p.throughArray && each:
			return Path{}, fmt.Errorf("path %q may go through one array only", text)
		case p.throughArray:
			p.rest = append(p.rest, name)
		default:
			p.keys = append(p.keys, name)
			p.throughArray = each
		}
	}
	return p, nil
}

// String returns the text of the path.
func (p Path) String() string { return p.text }

// IsZero reports whether the path is unset.
func (p Path) IsZero() bool { return p.text == "" }

// ThroughArray reports whether the path contains [], so that it may address
// any number of values.
func (p Path) ThroughArray() bool { return p.throughArray }

// Array returns the path of the array in a path with [].
func (p Path) Array() string { return strings.Join(p.keys, ".") }

var errNoEach = errors.New("event: Get of a path through an array")

// Get returns the value at a path without [].
func (e *Event) Get(p Path) Value {
	if p.throughArray {
		panic(errNoEach)
	}
	return valueOf(e.root.Get(p.keys...))
}

// VisitEach calls fn for every element of the array that the paths share, with
// the values at the paths. A path without [] has the same value for every
// element. If the array is absent, fn is not called.
func (e *Event) VisitEach(paths []Path, fn func(values []Value)) {
	var array []*fastjson.Value
	for _, p := range paths {
		if p.throughArray {
			array = e.root.GetArray(p.keys...)
			break
		}
	}
	var buffer [4]Value
	values := buffer[:0]
	for _, element := range array {
		values = values[:0]
		for _, p := range paths {
			switch {
			case !p.throughArray:
				values = append(values, e.Get(p))
			case len(p.rest) == 0:
				values = append(values, valueOf(element))
			default:
				values = append(values, valueOf(element.Get(p.rest...)))
			}
		}
		fn(values)
	}
}

// Visit calls fn for every value that the path addresses in a JSON value: one,
// which may be Missing, or one for each element of the array. It reports
// whether that array, if any, is present. Texts belong to the parser.
func (p Path) Visit(root *fastjson.Value, fn func(Value)) bool {
	v := root.Get(p.keys...)
	if !p.throughArray {
		fn(valueOf(v))
		return true
	}
	if v == nil || v.Type() != fastjson.TypeArray {
		return false
	}
	for _, element := range v.GetArray() {
		if len(p.rest) > 0 {
			element = element.Get(p.rest...)
		}
		fn(valueOf(element))
	}
	return true
}

// Keys calls fn with the name of every member of the object at the path, or of
// root if the path is unset.
func (p Path) Keys(root *fastjson.Value, fn func(name []byte)) {
	v := root
	if !p.IsZero() {
		v = root.Get(p.keys...)
	}
	if v == nil || v.Type() != fastjson.TypeObject {
		return
	}
	v.GetObject().Visit(func(name []byte, _ *fastjson.Value) { fn(name) })
}
