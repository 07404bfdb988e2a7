package trackingplan

import (
	"bytes"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/valyala/fastjson"
)

// program is a compiled JSON Schema. It exists in two forms. The library's form (lib)
// defines the meaning of the schema and can explain what is wrong with a value, but it
// works on generic maps and is slow. Our form (fast) is a tree of nodes, one for each
// schema, that validates an event as parsed by fastjson, without allocation. It answers
// "certainly valid" or "ask the library", so only invalid or unusual events pay for the
// library.
//
// For example, this schema
//
//	{ "type": "object", "required": ["total"],
//	  "properties": { "total": { "type": "number", "minimum": 0 } } }
//
// compiles to two nodes:
//
//	node{ types: object, required: ["total"], few: [{ "total", → }] }
//	node{ types: number, bounds: [{ opMin, 0 }] }
//
// The event {"total": 12.5} is checked in three steps: the type of the root, the
// presence of total, and the type and bound of 12.5, which is compared as a decimal
// (12.5 is 125 × 10^-1) and not as a float64. A number of more than 18 digits is
// compared with math/big.
//
// A node supports the keywords of the drafts 7, 2019-09 and 2020-12 with exactly the
// library's meaning; program_test.go compares the two on the official suite and on
// random schemas. A schema that uses an unsupported keyword anywhere
// (unevaluatedProperties, $dynamicRef, ...), or that refers to itself for the same
// value, has no fast form at all.
type program struct {
	lib  *jsonschema.Schema
	fast *node
	// emptyValid is set if {} is valid. An event without the member counts as {}.
	emptyValid bool
}

func newProgram(schema *jsonschema.Schema) *program {
	ignoreBesideRef(schema)
	p := &program{lib: schema, emptyValid: schema.Validate(map[string]any{}) == nil}
	b := nodeBuilder{nodes: map[*jsonschema.Schema]*node{}, supported: true}
	if root := b.build(schema); b.supported && !b.cyclic() {
		p.fast = root
	}
	return p
}

// valid reports whether v is certainly valid. If not, the library has to decide.
func (p *program) valid(e *evaluator, v *fastjson.Value) bool {
	if p.fast == nil {
		return false
	}
	e.unsure = false
	return e.valid(p.fast, v) && !e.unsure
}

// types is a set of JSON types.
type types uint8

const (
	typeNull types = 1 << iota
	typeBoolean
	typeInteger
	typeNumber
	typeString
	typeArray
	typeObject
)

var typeByName = map[string]types{
	"null": typeNull, "boolean": typeBoolean, "integer": typeInteger, "number": typeNumber,
	"string": typeString, "array": typeArray, "object": typeObject,
}

// typeOf is the type of a value; it does not distinguish integers from numbers.
var typeOf = [...]types{
	fastjson.TypeNull: typeNull, fastjson.TypeTrue: typeBoolean, fastjson.TypeFalse: typeBoolean, fastjson.TypeNumber: typeNumber,
	fastjson.TypeString: typeString, fastjson.TypeArray: typeArray, fastjson.TypeObject: typeObject,
}

// node is one schema. Keywords that the schema does not use are zero.
type node struct {
	constant *bool // set for the schemas true and false

	types   types
	plain   bool // the schema has only types
	logic   bool // the schema has any of not, allOf, anyOf, oneOf and if
	alias   bool // the schema has only a ref
	isConst bool
	consts  literal
	isEnum  bool
	enum    []literal
	strings map[string]struct{} // the strings of an enum with many values
	format  *jsonschema.Format

	ref     *node
	refOnly bool // before 2019-09, $ref excludes all other keywords

	// objects
	hasObject     bool // any of the following is used
	minProperties int
	maxProperties int // -1 for none
	required      []string
	few           []namedNode // properties, if no other keyword is about members
	properties    propertyTable
	requiredBits  uint64 // one bit for each required property, set during the visit
	patterns      []patternProperty
	additional    *node
	noAdditional  bool
	propertyNames *node
	dependencies  []dependency
	visits        bool // the members have to be visited one by one

	// arrays
	hasArray    bool
	minItems    int
	maxItems    int // -1 for none
	unique      bool
	prefix      []*node
	rest        *node
	noRest      bool
	contains    *node
	minContains int
	maxContains int // -1 for none

	// strings
	hasString bool
	minLength int
	maxLength int // -1 for none
	pattern   jsonschema.Regexp

	// numbers
	hasNumber bool
	bounds    []bound

	not             *node
	allOf           []*node
	anyOf           []*node
	oneOf           []*node
	cond            *node
	then, otherwise *node
}

type namedNode struct {
	name string
	node *node
}

type patternProperty struct {
	pattern jsonschema.Regexp
	node    *node
}

// dependency is a requirement of an object that has a certain property.
type dependency struct {
	property string
	required []string
	node     *node
}

// bound is a number with which a value is compared.
type bound struct {
	op  boundOp
	rat *big.Rat
	dec decimal
	ok  bool // dec is exact
}

type boundOp uint8

const (
	opMin boundOp = iota
	opMax
	opMore
	opLess
	opMultiple
)

// literal is a value in a schema.
type literal struct {
	value any
	dec   decimal
	ok    bool // value is a number, and dec is exact
}

func newLiteral(v any) literal {
	l := literal{value: v}
	if n, ok := v.(json.Number); ok {
		l.dec, l.ok = parseDecimal([]byte(n))
	}
	return l
}

type nodeBuilder struct {
	nodes     map[*jsonschema.Schema]*node
	supported bool
}

func (b *nodeBuilder) build(s *jsonschema.Schema) *node {
	if s == nil {
		return nil
	}
	if n, ok := b.nodes[s]; ok {
		return n
	}
	n := &node{}
	b.nodes[s] = n
	if s.Bool != nil {
		n.constant = s.Bool
		return n
	}
	switch s.DraftVersion {
	case 7, 2019, 2020:
	default:
		b.supported = false
	}
	if s.RecursiveRef != nil || s.DynamicRef != nil || s.UnevaluatedProperties != nil || s.UnevaluatedItems != nil ||
		s.ContentEncoding != nil || s.ContentMediaType != nil || s.ContentSchema != nil || len(s.Extensions) > 0 {
		b.supported = false
	}
	if !b.supported {
		return n
	}

	if s.Types != nil {
		for _, name := range s.Types.ToStrings() {
			n.types |= typeByName[name]
		}
	}
	if s.Const != nil {
		n.isConst, n.consts = true, newLiteral(*s.Const)
	}
	if s.Enum != nil {
		b.enum(n, s.Enum.Values)
	}
	n.format = s.Format
	n.ref = b.build(s.Ref)
	if n.ref != nil && s.DraftVersion < 2019 {
		n.refOnly = true
		return n
	}
	b.object(n, s)
	b.array(n, s)
	b.scalar(n, s)
	n.not = b.build(s.Not)
	n.allOf, n.anyOf, n.oneOf = b.list(s.AllOf), b.list(s.AnyOf), b.list(s.OneOf)
	n.cond = b.build(s.If)
	if n.cond != nil {
		n.then, n.otherwise = b.build(s.Then), b.build(s.Else)
	}
	n.logic = n.not != nil || n.cond != nil || len(n.allOf)+len(n.anyOf)+len(n.oneOf) > 0
	bare := !n.logic && !n.isConst && !n.isEnum && n.format == nil && !n.hasObject && !n.hasArray && !n.hasString && !n.hasNumber
	n.plain = bare && n.ref == nil
	n.alias = bare && n.ref != nil && n.types == 0
	return n
}

func (b *nodeBuilder) list(schemas []*jsonschema.Schema) []*node {
	var list []*node
	for _, s := range schemas {
		list = append(list, b.build(s))
	}
	return list
}

// manyStrings is the size of an enum from which a map is faster than comparisons.
const manyStrings = 8

func (b *nodeBuilder) enum(n *node, list []any) {
	n.isEnum = true
	for _, v := range list {
		n.enum = append(n.enum, newLiteral(v))
	}
	if len(list) < manyStrings {
		return
	}
	n.strings = map[string]struct{}{}
	for _, v := range list {
		if s, ok := v.(string); ok {
			n.strings[s] = struct{}{}
		}
	}
}

func orElse(p *int, none int) int {
	if p == nil {
		return none
	}
	return *p
}

func (b *nodeBuilder) object(n *node, s *jsonschema.Schema) {
	n.minProperties, n.maxProperties = orElse(s.MinProperties, 0), orElse(s.MaxProperties, -1)
	n.required = s.Required
	for re, sub := range s.PatternProperties {
		n.patterns = append(n.patterns, patternProperty{re, b.build(sub)})
	}
	switch a := s.AdditionalProperties.(type) {
	case bool:
		n.noAdditional = !a
	case *jsonschema.Schema:
		n.additional = b.build(a)
	}
	n.propertyNames = b.build(s.PropertyNames)
	for name, dep := range s.Dependencies {
		switch dep := dep.(type) {
		case []string:
			n.dependencies = append(n.dependencies, dependency{property: name, required: dep})
		case *jsonschema.Schema:
			n.dependencies = append(n.dependencies, dependency{property: name, node: b.build(dep)})
		}
	}
	for name, sub := range s.DependentSchemas {
		n.dependencies = append(n.dependencies, dependency{property: name, node: b.build(sub)})
	}
	for name, list := range s.DependentRequired {
		n.dependencies = append(n.dependencies, dependency{property: name, required: list})
	}

	others := len(n.patterns) > 0 || n.noAdditional || n.additional != nil || n.propertyNames != nil
	switch {
	case len(s.Properties) == 0 && !others:
	case len(s.Properties) <= fewProperties && !others:
		for name, sub := range s.Properties {
			n.few = append(n.few, namedNode{name, b.build(sub)})
		}
	default:
		n.visits = true
		properties := map[string]property{}
		for name, sub := range s.Properties {
			properties[name] = property{node: b.build(sub)}
		}
		// The visit records which required members it meets, so they need no lookup.
		if len(n.required) <= 64 {
			for i, name := range n.required {
				p := properties[name]
				p.bit = 1 << i
				n.requiredBits |= p.bit
				properties[name] = p
			}
			n.required = nil
		}
		n.properties = newPropertyTable(properties)
	}
	n.hasObject = n.visits || len(n.few) > 0 || len(n.required) > 0 || len(n.dependencies) > 0 || n.minProperties > 0 || n.maxProperties >= 0
}

// fewProperties is the number of properties up to which lookups are faster than a visit
// of all members.
const fewProperties = 3

func (b *nodeBuilder) array(n *node, s *jsonschema.Schema) {
	n.minItems, n.maxItems = orElse(s.MinItems, 0), orElse(s.MaxItems, -1)
	n.unique = s.UniqueItems
	if s.DraftVersion < 2020 {
		switch items := s.Items.(type) {
		case *jsonschema.Schema:
			n.rest = b.build(items)
		case []*jsonschema.Schema:
			n.prefix = b.list(items)
			switch a := s.AdditionalItems.(type) {
			case bool:
				n.noRest = !a
			case *jsonschema.Schema:
				n.rest = b.build(a)
			}
		}
	} else {
		n.prefix = b.list(s.PrefixItems)
		n.rest = b.build(s.Items2020)
	}
	n.contains = b.build(s.Contains)
	n.minContains, n.maxContains = orElse(s.MinContains, 1), orElse(s.MaxContains, -1)
	n.hasArray = n.minItems > 0 || n.maxItems >= 0 || n.unique || len(n.prefix) > 0 || n.rest != nil || n.noRest || n.contains != nil
}

func (b *nodeBuilder) scalar(n *node, s *jsonschema.Schema) {
	n.minLength, n.maxLength, n.pattern = orElse(s.MinLength, 0), orElse(s.MaxLength, -1), s.Pattern
	n.hasString = n.minLength > 0 || n.maxLength >= 0 || n.pattern != nil
	add := func(r *big.Rat, op boundOp) {
		if r != nil {
			d, ok := decimalOf(r)
			n.bounds = append(n.bounds, bound{op, r, d, ok})
		}
	}
	add(s.Minimum, opMin)
	add(s.Maximum, opMax)
	add(s.ExclusiveMinimum, opMore)
	add(s.ExclusiveMaximum, opLess)
	add(s.MultipleOf, opMultiple)
	n.hasNumber = len(n.bounds) > 0
}

// cyclic reports whether a schema reaches itself without descending into the value.
// Evaluating it would not end; the library detects that during validation.
func (b *nodeBuilder) cyclic() bool {
	const visiting, done = 1, 2
	state := make(map[*node]int, len(b.nodes))
	var walk func(n *node) bool
	walk = func(n *node) bool {
		switch {
		case n == nil || state[n] == done:
			return false
		case state[n] == visiting:
			return true
		}
		state[n] = visiting
		same := slices.Concat([]*node{n.ref, n.not, n.cond, n.then, n.otherwise}, n.allOf, n.anyOf, n.oneOf)
		for _, dep := range n.dependencies {
			same = append(same, dep.node)
		}
		if slices.ContainsFunc(same, walk) {
			return true
		}
		state[n] = done
		return false
	}
	for _, n := range b.nodes {
		if walk(n) {
			return true
		}
	}
	return false
}

// evaluator runs programs, one at a time.
type evaluator struct {
	buf   []byte
	arena fastjson.Arena
	// unsure is set if the result is not reliable and the library has to decide.
	unsure bool
}

func (e *evaluator) valid(n *node, v *fastjson.Value) bool {
	for n.alias {
		n = n.ref
	}
	if n.constant != nil {
		return *n.constant
	}
	t := v.Type()
	if n.types != 0 && n.types&typeOf[t] == 0 &&
		(t != fastjson.TypeNumber || n.types&typeInteger == 0 || !e.isInteger(v)) {
		return false
	}
	if n.plain {
		return true
	}
	if n.isConst && !e.equalLiteral(v, t, &n.consts) {
		return false
	}
	if n.isEnum && !e.inEnum(n, v, t) {
		return false
	}
	if n.format != nil && t == fastjson.TypeString && !validFormat(n.format, v.GetStringBytes()) {
		return false
	}
	if n.ref != nil {
		ok := e.valid(n.ref, v)
		if n.refOnly || !ok {
			return ok
		}
	}
	switch t {
	case fastjson.TypeObject:
		if n.hasObject && !e.validObject(n, v) {
			return false
		}
	case fastjson.TypeArray:
		if n.hasArray && !e.validArray(n, v.GetArray()) {
			return false
		}
	case fastjson.TypeString:
		if n.hasString && !validString(n, v.GetStringBytes()) {
			return false
		}
	case fastjson.TypeNumber:
		if n.hasNumber && !e.validNumber(n, v) {
			return false
		}
	}
	return !n.logic || e.validLogic(n, v)
}

func (e *evaluator) validLogic(n *node, v *fastjson.Value) bool {
	if n.not != nil && e.valid(n.not, v) {
		return false
	}
	for _, sub := range n.allOf {
		if !e.valid(sub, v) {
			return false
		}
	}
	if len(n.anyOf) > 0 && !e.anyOf(n.anyOf, v) {
		return false
	}
	if len(n.oneOf) > 0 && !e.oneOf(n.oneOf, v) {
		return false
	}
	if n.cond != nil {
		if e.valid(n.cond, v) {
			return n.then == nil || e.valid(n.then, v)
		}
		return n.otherwise == nil || e.valid(n.otherwise, v)
	}
	return true
}

func (e *evaluator) anyOf(list []*node, v *fastjson.Value) bool {
	for _, sub := range list {
		if e.valid(sub, v) {
			return true
		}
	}
	return false
}

func (e *evaluator) oneOf(list []*node, v *fastjson.Value) bool {
	matched := 0
	for _, sub := range list {
		if e.valid(sub, v) {
			if matched++; matched > 1 {
				return false
			}
		}
	}
	return matched == 1
}

func (e *evaluator) number(v *fastjson.Value) []byte {
	e.buf = v.MarshalTo(e.buf[:0])
	return e.buf
}

func (e *evaluator) isInteger(v *fastjson.Value) bool {
	lit := e.number(v)
	if d, ok := parseDecimal(lit); ok {
		return d.isInteger()
	}
	r := rat(lit)
	return r != nil && r.IsInt()
}

func (e *evaluator) validNumber(n *node, v *fastjson.Value) bool {
	lit := e.number(v)
	d, exact := parseDecimal(lit)
	var r *big.Rat
	for i := range n.bounds {
		b := &n.bounds[i]
		if exact && b.ok {
			if b.op == opMultiple {
				if is, known := d.multipleOf(b.dec); known {
					if !is {
						return false
					}
					continue
				}
			} else {
				if !b.allows(d.compare(b.dec)) {
					return false
				}
				continue
			}
		}
		if r == nil {
			if r = rat(lit); r == nil {
				e.unsure = true
				return false
			}
		}
		if b.op == opMultiple {
			if !new(big.Rat).Quo(r, b.rat).IsInt() {
				return false
			}
		} else if !b.allows(r.Cmp(b.rat)) {
			return false
		}
	}
	return true
}

// allows reports whether a number is within the bound. cmp is the result of comparing
// the number with the bound.
func (b *bound) allows(cmp int) bool {
	switch b.op {
	case opMin:
		return cmp >= 0
	case opMax:
		return cmp <= 0
	case opMore:
		return cmp > 0
	default:
		return cmp < 0
	}
}

// text returns a string that shares the memory of b. It is valid as long as the event.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func validString(n *node, s []byte) bool {
	if n.minLength > 0 || n.maxLength >= 0 {
		// A code point has one to four bytes, so most strings need no counting.
		if len(s) < n.minLength || n.maxLength >= 0 && len(s) > 4*n.maxLength {
			return false
		}
		if len(s) < 4*n.minLength-3 || n.maxLength >= 0 && len(s) > n.maxLength {
			length := utf8.RuneCount(s)
			if length < n.minLength || n.maxLength >= 0 && length > n.maxLength {
				return false
			}
		}
	}
	return n.pattern == nil || n.pattern.MatchString(text(s))
}

func (e *evaluator) validObject(n *node, v *fastjson.Value) bool {
	obj := v.GetObject()
	size := obj.Len()
	if size < n.minProperties || n.maxProperties >= 0 && size > n.maxProperties {
		return false
	}
	for _, name := range n.required {
		if obj.Get(name) == nil {
			return false
		}
	}
	for i := range n.dependencies {
		dep := &n.dependencies[i]
		if obj.Get(dep.property) == nil {
			continue
		}
		for _, name := range dep.required {
			if obj.Get(name) == nil {
				return false
			}
		}
		if dep.node != nil && !e.valid(dep.node, v) {
			return false
		}
	}
	for i := range n.few {
		if member := obj.Get(n.few[i].name); member != nil && !e.valid(n.few[i].node, member) {
			return false
		}
	}
	if !n.visits {
		return true
	}
	ok := true
	var seen uint64
	obj.Visit(func(key []byte, member *fastjson.Value) {
		if !ok {
			return
		}
		p := n.properties.get(key)
		seen |= p.bit
		evaluated := p.node != nil
		if evaluated && !e.valid(p.node, member) {
			ok = false
			return
		}
		for i := range n.patterns {
			if n.patterns[i].pattern.MatchString(text(key)) {
				evaluated = true
				if !e.valid(n.patterns[i].node, member) {
					ok = false
					return
				}
			}
		}
		if !evaluated && (n.noAdditional || n.additional != nil && !e.valid(n.additional, member)) {
			ok = false
			return
		}
		if n.propertyNames != nil && !e.valid(n.propertyNames, e.arena.NewStringBytes(key)) {
			ok = false
		}
	})
	return ok && seen == n.requiredBits
}

// manyItems is the size of an array from which the library checks uniqueItems, because
// it hashes the items.
const manyItems = 64

func (e *evaluator) validArray(n *node, items []*fastjson.Value) bool {
	if len(items) < n.minItems || n.maxItems >= 0 && len(items) > n.maxItems {
		return false
	}
	if n.unique {
		if len(items) > manyItems {
			e.unsure = true
			return false
		}
		for i, item := range items {
			for _, other := range items[:i] {
				if e.equal(item, other) {
					return false
				}
			}
		}
	}
	for i, item := range items {
		switch {
		case i < len(n.prefix):
			if !e.valid(n.prefix[i], item) {
				return false
			}
		case n.noRest:
			return false
		case n.rest != nil:
			if !e.valid(n.rest, item) {
				return false
			}
		}
	}
	if n.contains != nil {
		found := 0
		for _, item := range items {
			if e.valid(n.contains, item) {
				found++
			}
		}
		if found < n.minContains || n.maxContains >= 0 && found > n.maxContains {
			return false
		}
	}
	return true
}

func (e *evaluator) inEnum(n *node, v *fastjson.Value, t fastjson.Type) bool {
	if n.strings != nil && t == fastjson.TypeString {
		_, ok := n.strings[string(v.GetStringBytes())]
		return ok
	}
	for i := range n.enum {
		if e.equalLiteral(v, t, &n.enum[i]) {
			return true
		}
	}
	return false
}

func (e *evaluator) equalLiteral(v *fastjson.Value, t fastjson.Type, l *literal) bool {
	switch want := l.value.(type) {
	case string:
		return t == fastjson.TypeString && string(v.GetStringBytes()) == want
	case json.Number:
		if t != fastjson.TypeNumber {
			return false
		}
		lit := e.number(v)
		if l.ok {
			if d, ok := parseDecimal(lit); ok {
				return d == l.dec
			}
		}
		a, b := rat(lit), rat([]byte(want))
		return a != nil && b != nil && a.Cmp(b) == 0
	case nil:
		return t == fastjson.TypeNull
	case bool:
		return want && t == fastjson.TypeTrue || !want && t == fastjson.TypeFalse
	case []any:
		items := v.GetArray()
		if t != fastjson.TypeArray || len(items) != len(want) {
			return false
		}
		for i, item := range items {
			l := newLiteral(want[i])
			if !e.equalLiteral(item, item.Type(), &l) {
				return false
			}
		}
		return true
	case map[string]any:
		if t != fastjson.TypeObject || v.GetObject().Len() != len(want) {
			return false
		}
		obj := v.GetObject()
		for name, value := range want {
			member := obj.Get(name)
			l := newLiteral(value)
			if member == nil || !e.equalLiteral(member, member.Type(), &l) {
				return false
			}
		}
		return true
	}
	e.unsure = true
	return false
}

// equal reports whether two values are equal according to JSON Schema.
func (e *evaluator) equal(a, b *fastjson.Value) bool {
	t := a.Type()
	if t != b.Type() {
		return false
	}
	switch t {
	case fastjson.TypeString:
		return bytes.Equal(a.GetStringBytes(), b.GetStringBytes())
	case fastjson.TypeNumber:
		x, xok := parseDecimal(e.number(a))
		y, yok := parseDecimal(e.number(b))
		if xok && yok {
			return x == y
		}
		p, q := rat(e.number(a)), rat(e.number(b))
		return p != nil && q != nil && p.Cmp(q) == 0
	case fastjson.TypeArray:
		as, bs := a.GetArray(), b.GetArray()
		if len(as) != len(bs) {
			return false
		}
		for i := range as {
			if !e.equal(as[i], bs[i]) {
				return false
			}
		}
		return true
	case fastjson.TypeObject:
		ao, bo := a.GetObject(), b.GetObject()
		if ao.Len() != bo.Len() {
			return false
		}
		same := true
		ao.Visit(func(key []byte, member *fastjson.Value) {
			if !same {
				return
			}
			other := bo.Get(text(key))
			same = other != nil && e.equal(member, other)
		})
		return same
	}
	return true // null, true and false
}

// validFormat calls the library, which allocates, only for strings without the plain
// form that almost all strings have.
func validFormat(f *jsonschema.Format, s []byte) bool {
	switch f.Name {
	case "date-time":
		if plainDateTime(s) {
			return true
		}
	case "date":
		if len(s) == len("2006-01-02") && plainDate(s) {
			return true
		}
	case "email":
		if plainEmail(s) {
			return true
		}
	}
	return f.Validate(strings.Clone(text(s))) == nil
}

func twoDigits(s []byte) int {
	a, b := s[0]-'0', s[1]-'0'
	if a > 9 || b > 9 {
		return 1000
	}
	return int(a)*10 + int(b)
}

// plainDate rejects leap days, which the library then accepts.
func plainDate(s []byte) bool {
	const days = "\x00\x1f\x1c\x1f\x1e\x1f\x1e\x1f\x1f\x1e\x1f\x1e\x1f"
	month, day := twoDigits(s[5:]), twoDigits(s[8:])
	return twoDigits(s) < 100 && twoDigits(s[2:]) < 100 && s[4] == '-' && s[7] == '-' &&
		month < len(days) && day >= 1 && day <= int(days[month])
}

// plainDateTime rejects leap seconds, which the library then accepts.
func plainDateTime(s []byte) bool {
	if len(s) < len("2006-01-02T15:04:05Z") || !plainDate(s) || s[10] != 'T' || s[13] != ':' || s[16] != ':' ||
		twoDigits(s[11:]) > 23 || twoDigits(s[14:]) > 59 || twoDigits(s[17:]) > 59 {
		return false
	}
	s = s[19:]
	if s[0] == '.' {
		i := 1
		for i < len(s) && s[i]-'0' <= 9 {
			i++
		}
		if i == 1 {
			return false
		}
		s = s[i:]
	}
	if len(s) == 1 {
		return s[0] == 'Z'
	}
	return len(s) == len("+01:00") && (s[0] == '+' || s[0] == '-') && twoDigits(s[1:]) <= 23 && s[3] == ':' && twoDigits(s[4:]) <= 59
}

// plainEmail accepts addresses of letters, digits and the most common punctuation.
func plainEmail(s []byte) bool {
	at := bytes.IndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > 254 || len(s)-at < 2 {
		return false
	}
	previous := byte('.')
	for _, c := range s[:at] {
		switch {
		case alphanumeric(c), c == '_', c == '-', c == '+':
		case c == '.' && previous != '.':
		default:
			return false
		}
		previous = c
	}
	if previous == '.' {
		return false
	}
	previous = '.'
	label := 0
	for _, c := range s[at+1:] {
		switch {
		case alphanumeric(c):
			label++
		case c == '-' && previous != '.':
			label++
		case c == '.' && previous != '.' && previous != '-':
			label = 0
		default:
			return false
		}
		if label > 63 {
			return false
		}
		previous = c
	}
	return alphanumeric(previous)
}

func alphanumeric(c byte) bool {
	return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'z'
}
