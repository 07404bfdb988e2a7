package content

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// The grammar of expressions, as in Liquid:
//
//	filtered   = value { "|" filter [ ":" argument { "," argument } ] }
//	argument   = [ name ":" ] value
//	value      = text | number | true | false | nil | blank | empty | range | path
//	range      = "(" value ".." value ")"
//	path       = ( name | "[" value "]" ) { "." name | "[" value "]" }
//	condition  = comparison [ ( "and" | "or" ) condition ]
//	comparison = value [ ( "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" | contains ) value ]
//
// and and or have the same precedence and are evaluated from the right: "a or b and
// c" is "a or (b and c)", and "a and b or c" is "a and (b or c)".

// expression is a compiled expression.
type expression interface {
	evaluate(r *run) (any, error)
}

type (
	literal struct{ value any }
	// path reads a variable and members of it.
	path struct {
		name string     // "" if root is set
		root expression // the computed name of [ … ]
		keys []pathKey
		// isProfile is set if the name is a part of the profile, so that an absent
		// member is missing instead of nil.
		isProfile bool
		// isAmount is set for a feature that is not a count.
		isAmount bool
	}
	pathKey struct {
		name  string     // of .name
		index expression // of [ … ], nil for .name
	}
	rangeOf    struct{ from, to expression }
	filterCall struct {
		input expression
		// filter is the implementation.
		filter *filter
		name   string
		args   []expression
		// allowFalse is the only keyword argument, of default.
		allowFalse expression
	}
	comparison struct {
		operator    string
		left, right expression
	}
	junction struct {
		isOr        bool
		left, right expression
	}
	negation struct{ of expression }
)

func (e literal) evaluate(*run) (any, error) { return e.value, nil }

func (e *path) evaluate(r *run) (any, error) {
	name := e.name
	if e.root != nil {
		v, err := e.root.evaluate(r)
		if err != nil {
			return nil, err
		}
		name = plain(v)
	}
	v := r.variable(name)
	for i := range e.keys {
		if v == nil && e.isProfile {
			v = missing{}
		}
		k := &e.keys[i]
		var key any = k.name
		if k.index != nil {
			var err error
			if key, err = k.index.evaluate(r); err != nil {
				return nil, err
			}
			v = indexOf(v, key)
			continue
		}
		v = property(v, k.name)
	}
	if e.isProfile && v == nil {
		return missing{}, nil
	}
	if n, ok := v.(int64); ok && e.isAmount {
		return amount(n), nil
	}
	return v, nil
}

// property returns v.name. size, first and last are computed if v has no member of
// that name.
func property(v any, name string) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		if value, ok := lookup(v, name); ok {
			return value
		}
		switch name {
		case "size":
			return int64(len(v))
		case "first":
			if len(v) > 0 {
				return []any{v[0].Key, v[0].Value}
			}
		}
	case *loop:
		return v.member(name)
	case []any:
		switch name {
		case "size":
			return int64(len(v))
		case "first":
			return indexOf(v, int64(0))
		case "last":
			return indexOf(v, int64(-1))
		}
	case span:
		switch name {
		case "size":
			return int64(v.length())
		case "first":
			return v.from
		case "last":
			return v.to
		}
	case string, markup, missing:
		if name == "size" {
			return sizeOf(v)
		}
	}
	return nil
}

// indexOf returns v[key].
func indexOf(v, key any) any {
	if list, ok := v.([]any); ok {
		if _, isNumber := number(key); isNumber {
			i := asInt(key)
			if i < 0 {
				i += int64(len(list))
			}
			if i >= 0 && i < int64(len(list)) {
				return list[i]
			}
			return nil
		}
	}
	if s, ok := key.(string); ok {
		return property(v, s)
	}
	return member(v, plain(key))
}

func (e rangeOf) evaluate(r *run) (any, error) {
	from, err := e.from.evaluate(r)
	if err != nil {
		return nil, err
	}
	to, err := e.to.evaluate(r)
	return span{asInt(from), asInt(to)}, err
}

func (e *filterCall) evaluate(r *run) (any, error) {
	v, err := e.input.evaluate(r)
	if err != nil {
		return nil, err
	}
	var buffer [4]any
	args := buffer[:0]
	for _, arg := range e.args {
		a, err := arg.evaluate(r)
		if err != nil {
			return nil, err
		}
		args = append(args, a)
	}
	if e.allowFalse != nil {
		allow, err := e.allowFalse.evaluate(r)
		if err != nil {
			return nil, err
		}
		if v == false && isTrue(allow) {
			return v, nil
		}
	}
	v, err = e.filter.apply(r, v, args)
	if err != nil {
		var failure *renderError
		if errors.As(err, &failure) && failure.reason == Failed {
			return nil, &renderError{Failed, failure.line, "filter " + e.name + ": " + failure.message}
		}
	}
	return v, err
}

func (e *comparison) evaluate(r *run) (any, error) {
	a, err := e.left.evaluate(r)
	if err != nil {
		return nil, err
	}
	b, err := e.right.evaluate(r)
	if err != nil {
		return nil, err
	}
	switch e.operator {
	case "==":
		return equal(a, b), nil
	case "!=", "<>":
		return !equal(a, b), nil
	case "contains":
		return contains(a, b), nil
	}
	return order(e.operator, a, b)
}

// order compares two numbers or two texts. A comparison with nil, blank or empty is
// false; any other one is an error.
func order(operator string, a, b any) (any, error) {
	var c int
	x, isNumber := number(a)
	y, areNumbers := number(b)
	switch {
	case isNumber && areNumbers:
		switch {
		case x < y:
			c = -1
		case x > y:
			c = 1
		}
	case isNil(a), isNil(b):
		return false, nil
	default:
		if _, ok := a.(special); ok {
			return false, nil
		}
		if _, ok := b.(special); ok {
			return false, nil
		}
		if !isText(a) || !isText(b) {
			return nil, wrong("a comparison by " + operator + " needs two numbers or two texts")
		}
		c = strings.Compare(plain(a), plain(b))
	}
	switch operator {
	case "<":
		return c < 0, nil
	case "<=":
		return c <= 0, nil
	case ">":
		return c > 0, nil
	}
	return c >= 0, nil
}

func isText(v any) bool {
	switch v.(type) {
	case string, markup:
		return true
	}
	return false
}

func contains(a, b any) bool {
	if !isTrue(b) {
		return false
	}
	switch a := a.(type) {
	case string, markup:
		return strings.Contains(plain(a), plain(b))
	case []any:
		for _, item := range a {
			if equal(item, b) {
				return true
			}
		}
	case yaml.MapSlice:
		_, ok := lookup(a, plain(b))
		return ok
	case span:
		f, ok := number(b)
		return ok && f == float64(int64(f)) && f >= float64(a.from) && f <= float64(a.to)
	}
	return false
}

func (e *junction) evaluate(r *run) (any, error) {
	v, err := e.left.evaluate(r)
	if err != nil || isTrue(v) == e.isOr {
		return e.isOr, err
	}
	v, err = e.right.evaluate(r)
	return isTrue(v), err
}

func (e negation) evaluate(r *run) (any, error) {
	v, err := e.of.evaluate(r)
	return !isTrue(v), err
}

// lexeme is a token of an expression.
type lexeme struct {
	kind lexemeKind
	text string
	line int
}

type lexemeKind uint8

const (
	endLexeme lexemeKind = iota
	nameLexeme
	textLexeme // without its quotes
	numberLexeme
	symbolLexeme
)

// is reports whether the lexeme is a symbol or a word.
func (l lexeme) is(text string) bool {
	return (l.kind == symbolLexeme || l.kind == nameLexeme) && l.text == text
}

// scan splits an expression into lexemes. It returns the text that it cannot
// split, or "".
func scan(source string, line int) (out []lexeme, unexpected string) {
	for i := 0; i < len(source); {
		c := source[i]
		add := func(kind lexemeKind, end int) {
			out = append(out, lexeme{kind, source[i:end], line})
			i = end
		}
		switch {
		case c == '\n':
			line++
			i++
		case strings.IndexByte(whiteSpace, c) >= 0:
			i++
		case c == '"' || c == '\'':
			length := strings.IndexByte(source[i+1:], c)
			if length < 0 {
				return out, "a quote without its end"
			}
			out = append(out, lexeme{textLexeme, source[i+1 : i+1+length], line})
			line += strings.Count(source[i:i+length+2], "\n")
			i += length + 2
		case isDigit(c) || c == '-' && i+1 < len(source) && isDigit(source[i+1]):
			end := i + 1
			for end < len(source) && isDigit(source[end]) {
				end++
			}
			if end+1 < len(source) && source[end] == '.' && isDigit(source[end+1]) {
				for end++; end < len(source) && isDigit(source[end]); {
					end++
				}
			}
			add(numberLexeme, end)
		case isNameStart(c):
			end := i + 1
			for end < len(source) && (isNameStart(source[end]) || isDigit(source[end]) || source[end] == '-') {
				end++
			}
			if end < len(source) && source[end] == '?' {
				end++
			}
			add(nameLexeme, end)
		default:
			end := i + 1
			if end < len(source) {
				switch source[i : i+2] {
				case "==", "!=", "<>", "<=", ">=", "..":
					end++
				}
			}
			if end == i+1 && strings.IndexByte("|:,.[]()<>=", c) < 0 {
				return out, fmt.Sprintf("%q", firstRune(source[i:]))
			}
			add(symbolLexeme, end)
		}
	}
	return out, ""
}

func firstRune(s string) string {
	for i := range s {
		if i > 0 {
			return s[:i]
		}
	}
	return s
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isNameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// parser parses the arguments of a tag, or an output.
type parser struct {
	c       *compiler
	line    int
	lexemes []lexeme
	pos     int
	// failed is set after the first problem, so that only one is reported.
	failed bool
}

func (c *compiler) parser(source string, line int) *parser {
	p := &parser{c: c, line: line}
	lexemes, unexpected := scan(source, line)
	p.lexemes = lexemes
	if unexpected != "" {
		p.fail("%s is not expected in an expression", unexpected)
	}
	return p
}

func (p *parser) fail(format string, args ...any) {
	if !p.failed {
		p.c.fail(p.peek().line, format, args...)
	}
	p.failed = true
}

func (p *parser) peek() lexeme {
	if p.pos < len(p.lexemes) {
		return p.lexemes[p.pos]
	}
	line := p.line
	if n := len(p.lexemes); n > 0 {
		line = p.lexemes[n-1].line
	}
	return lexeme{line: line}
}

func (p *parser) next() lexeme {
	l := p.peek()
	p.pos++
	return l
}

// accept skips a symbol or word if it is next.
func (p *parser) accept(text string) bool {
	if p.peek().is(text) {
		p.pos++
		return true
	}
	return false
}

// end reports a problem if there is more than the expression.
func (p *parser) end() {
	if l := p.peek(); l.kind != endLexeme {
		switch {
		case l.is("and") || l.is("or") || isOperator(l):
			p.fail("%q is only for the conditions of if, elsif and unless", l.text)
		case l.is("("):
			p.fail("conditions have no parentheses; use assign or nested if tags")
		default:
			p.fail("%q is not expected here; a text needs quotes, and filters begin with |", l.text)
		}
	}
}

func isOperator(l lexeme) bool {
	switch l.text {
	case "==", "!=", "<>", "<", "<=", ">", ">=":
		return l.kind == symbolLexeme
	case "contains":
		return l.kind == nameLexeme
	}
	return false
}

// value parses a value without filters.
func (p *parser) value() expression {
	l := p.peek()
	switch {
	case l.kind == textLexeme:
		p.pos++
		return literal{l.text}
	case l.kind == numberLexeme:
		p.pos++
		return p.number(l)
	case l.is("("):
		p.pos++
		from := p.value()
		if !p.accept("..") {
			p.fail("parentheses are only for ranges such as (1..5)")
			return literal{}
		}
		to := p.value()
		if !p.accept(")") {
			p.fail("a range ends with )")
		}
		return rangeOf{from, to}
	case l.kind == nameLexeme:
		p.pos++
		switch l.text {
		case "true":
			return literal{true}
		case "false":
			return literal{false}
		case "nil", "null":
			return literal{}
		case "blank":
			return literal{blank}
		case "empty":
			return literal{empty}
		}
		return p.path(&path{name: l.text}, l.line)
	case l.is("["):
		p.pos++
		root := p.value()
		if !p.accept("]") {
			p.fail("[ needs its ]")
		}
		if name, ok := root.(literal); ok {
			return p.path(&path{name: plain(name.value)}, l.line)
		}
		if !p.c.names.open {
			p.fail("a name cannot be computed; write it after a dot, such as traits.firstName")
		}
		return p.path(&path{root: root}, l.line)
	case l.kind == endLexeme:
		p.fail("a value is missing at the end of the expression")
	default:
		p.fail("a value is expected instead of %q", l.text)
	}
	p.pos++
	return literal{}
}

func (p *parser) number(l lexeme) expression {
	if strings.Contains(l.text, ".") {
		f, err := strconv.ParseFloat(l.text, 64)
		if err != nil {
			p.fail("the number %s is too large", l.text)
		}
		return literal{f}
	}
	n, err := strconv.ParseInt(l.text, 10, 64)
	if err != nil {
		p.fail("the number %s is too large", l.text)
	}
	return literal{n}
}

// path parses the members of a path, and checks its names.
func (p *parser) path(e *path, line int) expression {
	for {
		switch {
		case p.accept("."):
			l := p.next()
			if l.kind != nameLexeme {
				p.fail("a name is expected after the dot; an item of a list is list[0]")
				return e
			}
			e.keys = append(e.keys, pathKey{name: l.text})
			continue
		case p.accept("["):
			index := p.value()
			if !p.accept("]") {
				p.fail("[ needs its ]")
			}
			if name, ok := index.(literal); ok {
				if s, isName := name.value.(string); isName {
					e.keys = append(e.keys, pathKey{name: s})
					continue
				}
			}
			e.keys = append(e.keys, pathKey{index: index})
			continue
		}
		break
	}
	if e.root == nil && !p.failed {
		p.c.names.check(p.c, line, e)
	}
	return e
}

// filtered parses a value with its filters up to the end.
func (p *parser) filtered() expression {
	e := p.value()
	for !p.failed && p.accept("|") {
		e = p.filter(e)
	}
	p.end()
	return e
}

func (p *parser) filter(input expression) expression {
	l := p.next()
	if l.kind != nameLexeme {
		p.fail("the name of a filter is expected after |")
		return input
	}
	f, ok := filters[l.text]
	if !ok {
		p.fail("there is no filter %q%s", l.text, spelling.Hint(l.text, filterList))
		return input
	}
	call := &filterCall{input: input, filter: f, name: l.text}
	if p.accept(":") {
		for !p.failed {
			name := p.peek()
			if name.kind == nameLexeme && p.pos+1 < len(p.lexemes) && p.lexemes[p.pos+1].is(":") {
				p.pos += 2
				if name.text != "allow_false" || l.text != "default" {
					p.fail("the filter %s has no argument %q", l.text, name.text)
				}
				call.allowFalse = p.value()
			} else {
				call.args = append(call.args, p.value())
			}
			if !p.accept(",") {
				break
			}
		}
	}
	if n := len(call.args); !p.failed && (n < f.least || n > f.most) {
		p.fail("the filter %s %s, and has %d", l.text, f.arity(), n)
	}
	if !p.failed && f.check != nil {
		if problem := f.check(call.args); problem != "" {
			p.fail("%s", problem)
		}
	}
	if !p.failed {
		p.c.names.checkFilter(p.c, l.line, call)
	}
	return call
}

// condition parses comparisons joined by and and or, from the right.
func (p *parser) condition() expression {
	left := p.comparison()
	switch {
	case p.accept("and"):
		return &junction{false, left, p.condition()}
	case p.accept("or"):
		return &junction{true, left, p.condition()}
	}
	p.end()
	return left
}

func (p *parser) comparison() expression {
	left := p.value()
	if !isOperator(p.peek()) {
		return left
	}
	operator := p.next().text
	right := p.value()
	if isSegments(left) && operator == "contains" {
		if name, ok := right.(literal); ok {
			p.c.names.member(p.c, p.line, "segment", plain(name.value), p.c.names.known.Segments)
		}
	}
	return &comparison{operator, left, right}
}

func isSegments(e expression) bool {
	p, ok := e.(*path)
	return ok && p.name == "segments" && len(p.keys) == 0
}
