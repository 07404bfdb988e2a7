package segments

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// Program is a compiled rule that consists of comparisons of features, traits,
// segments, parameters and literals, joined by && and ||, such as
//
//	features.orders_30d >= 3 && traits.country == "DE" || segments.vip
//
// Most rules have this form. A Program gives the same result as the Bloblang
// query of the same text, without building maps for it. A rule of another form
// is left to Bloblang, and so is a single evaluation on values that only
// Bloblang compares: Holds then returns known = false.
type Program struct{ root node }

// ErrUnsupported is returned for a rule that is not of a Program's form.
var ErrUnsupported = errors.New("the rule is more than comparisons")

// truth is the result of an expression. It is failed where the query fails
// because two values cannot be compared, and unknown where only the query can
// compare them.
type truth uint8

const (
	no truth = iota
	yes
	failed
	unknown
)

// node is a boolean expression.
type node func(in Inputs) truth

// operand returns a value; ok is false for objects and arrays.
type operand func(in Inputs) (v event.Value, ok bool)

// Holds reports whether the rule is true; known is false if only its query can
// decide.
func (p *Program) Holds(in Inputs) (holds, known bool) {
	t := p.root(in)
	return t == yes, t != unknown
}

// CompileProgram compiles the text of a rule, or returns ErrUnsupported.
func CompileProgram(text string, names Names) (*Program, error) {
	p := parser{tokens: token.FindAllString(text, -1), names: names}
	if noSpaces(strings.Join(p.tokens, "")) != strings.Join(strings.Fields(token.ReplaceAllStringFunc(text, noSpaces)), "") {
		return nil, ErrUnsupported
	}
	root := p.expression()
	if p.failed || p.pos != len(p.tokens) {
		return nil, ErrUnsupported
	}
	return &Program{root}, nil
}

var token = regexp.MustCompile(`"[^"\\]*"|&&|\|\||==|!=|>=|<=|>|<|!|\(|\)|[0-9]+(\.[0-9]+)?\b|[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*`)

// noSpaces protects the blanks inside a literal while white space is removed.
func noSpaces(s string) string { return strings.ReplaceAll(s, " ", "\x00") }

type parser struct {
	tokens []string
	pos    int
	names  Names
	failed bool
}

func (p *parser) peek() string {
	if p.pos < len(p.tokens) {
		return p.tokens[p.pos]
	}
	return ""
}

func (p *parser) next() string {
	t := p.peek()
	p.pos++
	return t
}

// expression parses a chain of && and ||. In Bloblang both have the same
// precedence and are evaluated from left to right.
func (p *parser) expression() node {
	left := p.comparison()
	for !p.failed && (p.peek() == "&&" || p.peek() == "||") {
		ends := no // the left result that ends the evaluation
		if p.next() == "||" {
			ends = yes
		}
		l, r := left, p.comparison()
		left = func(in Inputs) truth {
			if t := l(in); t == ends || t > yes {
				return t
			}
			return r(in)
		}
	}
	return left
}

func (p *parser) comparison() node {
	switch p.peek() {
	case "(":
		p.pos++
		inner := p.expression()
		if p.next() != ")" {
			p.failed = true
		}
		if _, more := comparisons[p.peek()]; more {
			p.failed = true
		}
		return inner
	case "!":
		p.pos++
		var inner node
		if p.peek() == "(" {
			inner = p.comparison()
		} else {
			inner = asTruth(p.operand())
			if _, more := comparisons[p.peek()]; more {
				p.failed = true
			}
		}
		return func(in Inputs) truth {
			switch t := inner(in); t {
			case yes:
				return no
			case no:
				return yes
			default:
				return t
			}
		}
	}
	left := p.operand()
	compare, more := comparisons[p.peek()]
	if !more {
		return asTruth(left)
	}
	p.pos++
	right := p.operand()
	if _, more := comparisons[p.peek()]; more || p.failed {
		p.failed = true
		return nil
	}
	return func(in Inputs) truth {
		l, ok := left(in)
		r, fine := right(in)
		if !ok || !fine {
			return unknown
		}
		return compare(l, r)
	}
}

func asTruth(o operand) node {
	return func(in Inputs) truth {
		v, ok := o(in)
		switch {
		case !ok, v.Kind == event.Number:
			return unknown
		case v.Kind == event.True:
			return yes
		case v.Kind == event.False:
			return no
		}
		return failed
	}
}

var comparisons = map[string]func(l, r event.Value) truth{
	"==": func(l, r event.Value) truth { return equality(l, r, true) },
	"!=": func(l, r event.Value) truth { return equality(l, r, false) },
	">":  ordering(func(c int) bool { return c > 0 }),
	"<":  ordering(func(c int) bool { return c < 0 }),
	">=": ordering(func(c int) bool { return c >= 0 }),
	"<=": ordering(func(c int) bool { return c <= 0 }),
}

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func equality(l, r event.Value, want bool) truth {
	if isBool(l) != isBool(r) && (l.Kind == event.Number || r.Kind == event.Number) {
		return unknown // Bloblang treats some numbers as booleans
	}
	return truthOf(equal(l, r) == want)
}

func isBool(v event.Value) bool { return v.Kind == event.True || v.Kind == event.False }

func equal(l, r event.Value) bool {
	if l.Kind != r.Kind {
		return false
	}
	switch l.Kind {
	case event.Number:
		return l.Number == r.Number
	case event.String:
		return string(l.Text) == string(r.Text)
	}
	return true
}

func ordering(holds func(c int) bool) func(l, r event.Value) truth {
	return func(l, r event.Value) truth {
		switch {
		case l.Kind == event.Number && r.Kind == event.Number:
			switch {
			case l.Number < r.Number:
				return truthOf(holds(-1))
			case l.Number > r.Number:
				return truthOf(holds(1))
			}
			return truthOf(holds(0))
		case l.Kind == event.String && r.Kind == event.String:
			return truthOf(holds(strings.Compare(string(l.Text), string(r.Text))))
		}
		return failed
	}
}

func (p *parser) operand() operand {
	t := p.next()
	switch {
	case t == "":
		p.failed = true
	case t[0] == '"':
		return constant(event.Value{Kind: event.String, Text: []byte(t[1 : len(t)-1])})
	case t[0] >= '0' && t[0] <= '9':
		n, err := strconv.ParseFloat(t, 64)
		if err != nil {
			p.failed = true
		}
		return constant(event.Value{Kind: event.Number, Number: n})
	case t == "true" || t == "false" || t == "null":
		return constant(map[string]event.Value{"true": {Kind: event.True}, "false": {Kind: event.False}, "null": {}}[t])
	}
	path := strings.Split(strings.TrimPrefix(t, "this."), ".")
	if o := p.path(path); o != nil {
		return o
	}
	p.failed = true
	return func(Inputs) (event.Value, bool) { return event.Value{}, false }
}

func constant(v event.Value) operand {
	return func(Inputs) (event.Value, bool) { return v, true }
}

// path returns the operand for a dotted name, nil if a program cannot read it.
func (p *parser) path(path []string) operand {
	// A name followed by a parenthesis is a method call.
	if p.peek() == "(" || len(path) < 2 || len(path) > 3 || len(path) == 3 && path[0] != "features" {
		return nil
	}
	name := path[1]
	switch path[0] {
	case "features":
		at, ok := p.names.Feature(name)
		if !ok {
			return nil
		}
		if len(path) == 3 {
			return func(in Inputs) (event.Value, bool) { return entry(in.FeatureAt(at), path[2]) }
		}
		return func(in Inputs) (event.Value, bool) {
			r := in.FeatureAt(at)
			return r.Value, r.Shape == features.Single && r.Value.Kind != event.JSON
		}
	case "traits":
		return func(in Inputs) (event.Value, bool) {
			v := in.Trait(name)
			return v, v.Kind != event.JSON && (v.Kind != event.Number || len(v.Text) == 0)
		}
	case "segments":
		at, ok := p.names.Segment(name)
		if !ok {
			return nil
		}
		return func(in Inputs) (event.Value, bool) {
			if in.InSegment(at) {
				return event.Value{Kind: event.True}, true
			}
			return event.Value{Kind: event.False}, true
		}
	case "parameters":
		return func(in Inputs) (event.Value, bool) { return parameterValue(in.Parameter(name)), true }
	}
	return nil
}

// entry returns a member of an object. It is Missing if the object is null.
func entry(r features.Result, name string) (event.Value, bool) {
	switch {
	case r.Shape == features.Object:
		for i := range r.Entries {
			if r.Entries[i].Name == name {
				v := r.Entries[i].Value
				return v, v.Kind != event.JSON
			}
		}
		return event.Value{}, true
	case r.Shape == features.Single && r.Value.Kind == event.Missing:
		return event.Value{}, true
	}
	return event.Value{}, false
}

func parameterValue(v any) event.Value {
	switch v := v.(type) {
	case float64:
		return event.Value{Kind: event.Number, Number: v}
	case string:
		return event.Value{Kind: event.String, Text: []byte(v)}
	case bool:
		if v {
			return event.Value{Kind: event.True}
		}
		return event.Value{Kind: event.False}
	}
	return event.Value{}
}
