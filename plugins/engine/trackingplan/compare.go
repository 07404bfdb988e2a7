package trackingplan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"sort"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Affects names the party that a difference between two plans may break.
type Affects string

// The parties that a difference affects.
const (
	// Readers: features, segments, triggers and everything else downstream find a
	// different value in events, or none.
	Readers Affects = "readers"
	// Senders: events that were valid are now invalid. They become dead letters, so
	// readers lose them, too.
	Senders Affects = "senders"
	// Compatible: the plan only allows more than before.
	Compatible Affects = "nobody"
)

// Difference is one difference between two plans.
type Difference struct {
	Event   string  `json:"event"` // empty for all events
	Version string  `json:"version,omitempty"`
	Path    string  `json:"path,omitempty"` // in the form that features use
	Rule    string  `json:"rule"`
	Affects Affects `json:"affects"`
	Message string  `json:"message"`
}

// Breaking reports whether senders or readers have to be changed.
func (d Difference) Breaking() bool { return d.Affects != Compatible }

// String describes the difference in one line.
func (d Difference) String() string {
	where := "every event"
	if d.Event != "" {
		where = fmt.Sprintf("event %q", d.Event)
	}
	if d.Version != "" {
		where += ", version " + d.Version
	}
	if d.Path != "" {
		where += ": " + d.Path
	}
	return where + ": " + d.Message
}

// Compare returns the differences between two versions of a plan, breaking and
// compatible ones, in the order of events.
func Compare(before, after *Plan) []Difference {
	c := comparison{}
	c.at("", "")
	if before.onUnplanned != RejectUnplanned && after.onUnplanned == RejectUnplanned {
		c.add("", "unplanned", Senders, "events that are not planned are rejected now")
	}
	c.checks(before.envelope, after.envelope)
	names := slices.Concat(before.names, after.names)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		c.event(name, before, after)
	}
	return c.found
}

type comparison struct {
	name, version string
	found         []Difference
	// pairs holds the pairs of schemas under comparison, to stop where they refer to
	// themselves.
	pairs map[[2]*jsonschema.Schema]bool
}

func (c *comparison) at(event, version string) {
	c.name, c.version, c.pairs = event, version, map[[2]*jsonschema.Schema]bool{}
}

func (c *comparison) add(path, rule string, affects Affects, format string, args ...any) {
	c.found = append(c.found, Difference{c.name, c.version, path, rule, affects, fmt.Sprintf(format, args...)})
}

func (c *comparison) event(name string, before, after *Plan) {
	c.at(name, "")
	prev, next := before.events[name], after.events[name]
	switch {
	case next == nil:
		hint := ""
		if n := spelling.Nearest(name, after.names); n != "" && before.events[n] == nil {
			hint = fmt.Sprintf("; is it %q now?", n)
		}
		c.add("", "event_removed", Readers, "is gone%s", hint)
		return
	case prev == nil:
		c.add("", "event_added", Compatible, "is new")
		return
	}
	if prev.onViolation != next.onViolation && (prev.onViolation.Pass && !next.onViolation.Pass || prev.onViolation.Coerce && !next.onViolation.Coerce || prev.onViolation.Strip && !next.onViolation.Strip) {
		c.add("", "on_violation", Senders, "events that break the schema were let through or repaired, and are rejected now")
	}
	c.checks(prev.checks, next.checks)
	for _, version := range sortedKeys(prev.versions) {
		c.at(name, version)
		if next.versions == nil || next.versions[version] == nil {
			c.add("", "version_removed", Senders, "is gone, and events of it are rejected")
			continue
		}
		c.checks(prev.versions[version], next.versions[version])
	}
	for _, version := range sortedKeys(next.versions) {
		if _, ok := prev.versions[version]; !ok {
			c.at(name, version)
			c.add("", "version_added", Compatible, "is new")
		}
	}
}

// checks compares the schemas of each member of an event.
func (c *comparison) checks(prev, next []check) {
	members := map[string][2][]*jsonschema.Schema{}
	for i, list := range [2][]check{prev, next} {
		for _, check := range list {
			pair := members[check.member]
			pair[i] = append(pair[i], check.schema.lib)
			members[check.member] = pair
		}
	}
	for _, member := range sortedKeys(members) {
		c.schemas(member, members[member][0], members[member][1], 0)
	}
}

// deepest bounds the comparison of schemas that refer to themselves through ever new
// copies.
const deepest = 40

func (c *comparison) schemas(path string, before, after []*jsonschema.Schema, depth int) {
	if depth > deepest {
		return
	}
	if len(before) == 1 && len(after) == 1 {
		pair := [2]*jsonschema.Schema{before[0], after[0]}
		if c.pairs[pair] {
			return
		}
		c.pairs[pair] = true
	}
	prev, next := formOf(before), formOf(after)
	c.types(path, prev, next)
	c.values(path, prev, next)
	c.bounds(path, prev, next)
	for _, rule := range sortedKeys(next.exact) {
		if old := prev.exact[rule]; !slices.Equal(old, next.exact[rule]) {
			c.add(path, rule, Senders, "%s has changed, and was not taken apart; look whether what was valid still is", rule)
		}
	}
	for _, text := range next.patterns {
		if !slices.Contains(prev.patterns, text) {
			c.add(path, "pattern", Senders, "must match %q now", text)
		}
	}
	for _, name := range next.formats {
		if !slices.Contains(prev.formats, name) {
			c.add(path, "format", Senders, "must be in the format %s now", name)
		}
	}

	for _, name := range next.required {
		if !slices.Contains(prev.required, name) {
			c.add(dotted(path, name), "required", Senders, "is required now")
		}
	}
	for _, name := range prev.required {
		if !slices.Contains(next.required, name) && next.properties[name] != nil {
			c.add(dotted(path, name), "optional", Readers, "is not required any more, and may be missing")
		}
	}
	for _, name := range sortedKeys(prev.properties) {
		if next.properties[name] != nil || next.closedTo(name) {
			continue
		}
		hint := ""
		if n := spelling.Nearest(name, sortedKeys(next.properties)); n != "" && prev.properties[n] == nil {
			hint = fmt.Sprintf("; is it %s now?", dotted(path, n))
		}
		c.add(dotted(path, name), "property_removed", Readers, "is gone%s", hint)
	}
	for _, name := range sortedKeys(next.properties) {
		switch {
		case prev.properties[name] != nil:
			c.schemas(dotted(path, name), prev.properties[name], next.properties[name], depth+1)
		case !prev.closed && len(prev.properties) > 0:
			c.add(dotted(path, name), "property_added", Compatible, "is new")
		}
	}
	if next.closed && !prev.closed {
		c.add(path, "additional_properties", Senders, "takes no properties but those named now")
	}
	for name := range prev.properties {
		if next.properties[name] == nil && next.closedTo(name) {
			c.add(dotted(path, name), "property_removed", Readers, "is gone, and events that have it are rejected")
		}
	}
	if len(prev.items) > 0 || len(next.items) > 0 {
		c.schemas(path+elements, prev.items, next.items, depth+1)
	}
}

func dotted(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

var jsonTypes = []string{"array", "boolean", "null", "number", "object", "string"}

func (c *comparison) types(path string, prev, next form) {
	// A type of which the other side has only a part (integer of number) is neither
	// lost nor new.
	has := func(types []string, t string) bool {
		return slices.Contains(types, t) || t == "integer" && slices.Contains(types, "number")
	}
	var removed, gained []string
	for _, t := range prev.types {
		if !has(next.types, t) {
			removed = append(removed, t)
		}
	}
	for _, t := range next.types {
		if !has(prev.types, t) {
			gained = append(gained, t)
		}
	}
	if len(removed) > 0 {
		c.add(path, "type_narrowed", Senders, "was %s and is %s now", orOf(prev.types), orOf(next.types))
	}
	if len(gained) > 0 && prev.typed {
		c.add(path, "type_widened", Readers, "was %s and may be %s now", orOf(prev.types), orOf(gained))
	}
}

func orOf(types []string) string {
	if len(types) >= len(jsonTypes) {
		return "anything"
	}
	if len(types) == 0 {
		return "nothing"
	}
	return strings.Join(types, " or ")
}

func (c *comparison) values(path string, prev, next form) {
	if next.enum == nil {
		if prev.enum != nil {
			c.add(path, "enum_widened", Readers, "was one of %s and may be anything now", listOf(prev.enum))
		}
		return
	}
	if prev.enum == nil {
		c.add(path, "enum", Senders, "must be one of %s now", listOf(next.enum))
		return
	}
	var removed, gained []string
	for _, v := range prev.enum {
		if !slices.Contains(next.enum, v) {
			removed = append(removed, v)
		}
	}
	for _, v := range next.enum {
		if !slices.Contains(prev.enum, v) {
			gained = append(gained, v)
		}
	}
	if len(removed) > 0 {
		c.add(path, "enum", Senders, "may not be %s any more", listOf(removed))
	}
	if len(gained) > 0 {
		c.add(path, "enum_widened", Compatible, "may be %s, too", listOf(gained))
	}
}

func listOf(values []string) string {
	const most = 10
	if len(values) > most {
		return strings.Join(values[:most], ", ") + fmt.Sprintf(" and %d more", len(values)-most)
	}
	return strings.Join(values, ", ")
}

func (c *comparison) bounds(path string, prev, next form) {
	for _, rule := range sortedKeys(next.upper) {
		if old := prev.upper[rule]; old == nil || next.upper[rule].Cmp(old) < 0 {
			c.add(path, rule, Senders, "%s is %s now%s", rule, plainNumber(next.upper[rule]), before(old))
		}
	}
	for _, rule := range sortedKeys(next.lower) {
		if old := prev.lower[rule]; old == nil || next.lower[rule].Cmp(old) > 0 {
			c.add(path, rule, Senders, "%s is %s now%s", rule, plainNumber(next.lower[rule]), before(old))
		}
	}
	for _, rule := range slices.Concat(sortedKeys(prev.upper), sortedKeys(prev.lower)) {
		old, current := prev.upper[rule], next.upper[rule]
		looser := old != nil && (current == nil || current.Cmp(old) > 0)
		if old == nil {
			old, current = prev.lower[rule], next.lower[rule]
			looser = current == nil || current.Cmp(old) < 0
		}
		switch {
		case looser && current == nil:
			c.add(path, rule, Compatible, "%s is no more%s", rule, before(old))
		case looser:
			c.add(path, rule, Compatible, "%s is %s now%s", rule, plainNumber(current), before(old))
		}
	}
}

func plainNumber(r *big.Rat) string {
	if r.IsInt() {
		return r.RatString()
	}
	return strings.TrimRight(r.FloatString(10), "0")
}

func before(r *big.Rat) string {
	if r == nil {
		return ""
	}
	return ", and was " + plainNumber(r)
}

// form is the combination of all schemas that apply to one value, as far as they can be
// combined.
type form struct {
	types      []string // sorted; all types if typed is false
	typed      bool
	enum       []string // as JSON, nil for any
	upper      map[string]*big.Rat
	lower      map[string]*big.Rat
	patterns   []string
	formats    []string
	required   []string
	properties map[string][]*jsonschema.Schema
	others     []jsonschema.Regexp // patternProperties
	closed     bool
	items      []*jsonschema.Schema
	// exact holds, by keyword, fingerprints of values that can only be compared for
	// equality.
	exact map[string][]string
}

// closedTo reports whether a member of this name is not allowed.
func (f form) closedTo(name string) bool {
	return f.closed && f.properties[name] == nil && !slices.ContainsFunc(f.others, func(re jsonschema.Regexp) bool { return re.MatchString(name) })
}

func formOf(schemas []*jsonschema.Schema) form {
	f := form{types: jsonTypes, upper: map[string]*big.Rat{}, lower: map[string]*big.Rat{}, properties: map[string][]*jsonschema.Schema{}, exact: map[string][]string{}}
	together := conjunction(schemas)
	for _, s := range together {
		f.take(s)
	}
	// A member that only one alternative names exists for readers.
	for _, s := range applied(schemas) {
		if !slices.Contains(together, s) {
			for name, member := range s.Properties {
				if f.properties[name] == nil {
					f.properties[name] = []*jsonschema.Schema{member}
				}
			}
		}
	}
	slices.Sort(f.required)
	f.required = slices.Compact(f.required)
	return f
}

func (f *form) take(s *jsonschema.Schema) {
	if s.Bool != nil && !*s.Bool {
		f.types, f.typed = []string{}, true
	}
	if s.Types != nil && !s.Types.IsEmpty() {
		types := s.Types.ToStrings()
		sort.Strings(types)
		f.types, f.typed = common(f.types, types), true
	}
	var allowed []string
	if s.Const != nil {
		allowed = []string{jsonOf(*s.Const)}
	}
	if s.Enum != nil {
		for _, v := range s.Enum.Values {
			allowed = append(allowed, jsonOf(v))
		}
	}
	if allowed != nil {
		if f.enum != nil {
			allowed = slices.DeleteFunc(allowed, func(v string) bool { return !slices.Contains(f.enum, v) })
		}
		f.enum = allowed
	}
	upper := func(rule string, v *big.Rat) {
		if v != nil && (f.upper[rule] == nil || v.Cmp(f.upper[rule]) < 0) {
			f.upper[rule] = v
		}
	}
	lower := func(rule string, v *big.Rat) {
		if v != nil && (f.lower[rule] == nil || v.Cmp(f.lower[rule]) > 0) {
			f.lower[rule] = v
		}
	}
	upper("maximum", s.Maximum)
	upper("exclusiveMaximum", s.ExclusiveMaximum)
	upper("maxLength", ratio(s.MaxLength))
	upper("maxItems", ratio(s.MaxItems))
	upper("maxProperties", ratio(s.MaxProperties))
	upper("maxContains", ratio(s.MaxContains))
	lower("minimum", s.Minimum)
	lower("exclusiveMinimum", s.ExclusiveMinimum)
	lower("minLength", ratio(s.MinLength))
	lower("minItems", ratio(s.MinItems))
	lower("minProperties", ratio(s.MinProperties))
	lower("minContains", ratio(s.MinContains))
	if s.Pattern != nil {
		f.patterns = append(f.patterns, s.Pattern.String())
	}
	if s.Format != nil {
		f.formats = append(f.formats, s.Format.Name)
	}
	f.required = append(f.required, s.Required...)
	for name, member := range s.Properties {
		f.properties[name] = append(f.properties[name], member)
	}
	for re := range s.PatternProperties {
		f.others = append(f.others, re)
	}
	if closed, ok := s.AdditionalProperties.(bool); ok && !closed {
		f.closed = true
	}
	if s.UnevaluatedProperties != nil && s.UnevaluatedProperties.Bool != nil && !*s.UnevaluatedProperties.Bool {
		f.closed = true
	}
	if s.Items2020 != nil {
		f.items = append(f.items, s.Items2020)
	}
	if items, ok := s.Items.(*jsonschema.Schema); ok && items != nil {
		f.items = append(f.items, items)
	}
	f.fingerprint(s)
}

// fingerprint records the keywords that are compared as a whole.
func (f *form) fingerprint(s *jsonschema.Schema) {
	note := func(rule string, schemas ...*jsonschema.Schema) {
		var all []string
		for _, schema := range schemas {
			if schema != nil {
				all = append(all, printOf(schema, 0))
			}
		}
		if len(all) > 0 {
			f.exact[rule] = append(f.exact[rule], strings.Join(all, "|"))
		}
	}
	note("anyOf", s.AnyOf...)
	note("oneOf", s.OneOf...)
	note("not", s.Not)
	note("if", s.If, s.Then, s.Else)
	note("contains", s.Contains)
	note("propertyNames", s.PropertyNames)
	note("prefixItems", s.PrefixItems...)
	if tuple, ok := s.Items.([]*jsonschema.Schema); ok {
		note("items", tuple...)
	}
	if rest, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
		note("additionalProperties", rest)
	}
	if s.MultipleOf != nil {
		f.exact["multipleOf"] = append(f.exact["multipleOf"], plainNumber(s.MultipleOf))
	}
	if s.UniqueItems {
		f.exact["uniqueItems"] = append(f.exact["uniqueItems"], "true")
	}
	for _, name := range sortedKeys(s.DependentRequired) {
		f.exact["dependentRequired"] = append(f.exact["dependentRequired"], name+fmt.Sprint(s.DependentRequired[name]))
	}
	for _, name := range sortedKeys(s.DependentSchemas) {
		note("dependentSchemas", s.DependentSchemas[name])
	}
	for re, member := range s.PatternProperties {
		f.exact["patternProperties"] = append(f.exact["patternProperties"], re.String()+printOf(member, 0))
	}
	slices.Sort(f.exact["patternProperties"])
	if len(f.exact["patternProperties"]) == 0 {
		delete(f.exact, "patternProperties")
	}
}

// printOf returns a text that is equal for schemas with equal content, wherever they
// are.
func printOf(s *jsonschema.Schema, depth int) string {
	if depth > 6 {
		return "..."
	}
	f := formOf([]*jsonschema.Schema{s})
	var b strings.Builder
	fmt.Fprint(&b, f.types, f.typed, f.enum, f.patterns, f.formats, f.required, f.closed)
	for _, rule := range sortedKeys(f.upper) {
		fmt.Fprint(&b, rule, f.upper[rule])
	}
	for _, rule := range sortedKeys(f.lower) {
		fmt.Fprint(&b, rule, f.lower[rule])
	}
	for _, name := range sortedKeys(f.properties) {
		fmt.Fprintf(&b, "%q:", name)
		for _, member := range f.properties[name] {
			b.WriteString(printOf(member, depth+1))
		}
	}
	for _, item := range f.items {
		b.WriteString("items:" + printOf(item, depth+1))
	}
	for _, rule := range sortedKeys(f.exact) {
		fmt.Fprint(&b, rule, f.exact[rule])
	}
	return "{" + b.String() + "}"
}

// conjunction returns the schemas that apply together to one value.
func conjunction(from []*jsonschema.Schema) []*jsonschema.Schema {
	var all []*jsonschema.Schema
	seen := map[*jsonschema.Schema]bool{}
	var add func(list ...*jsonschema.Schema)
	add = func(list ...*jsonschema.Schema) {
		for _, s := range list {
			if s != nil && !seen[s] {
				seen[s] = true
				all = append(all, s)
				add(s.Ref, s.RecursiveRef)
				add(s.AllOf...)
			}
		}
	}
	add(from...)
	return all
}

// common returns the types in both lists; integer is a part of number.
func common(a, b []string) []string {
	both := []string{}
	for _, t := range b {
		switch {
		case slices.Contains(a, t):
			both = append(both, t)
		case t == "integer" && slices.Contains(a, "number"), t == "number" && slices.Contains(a, "integer"):
			both = append(both, "integer")
		}
	}
	slices.SortFunc(both, cmp.Compare[string])
	return slices.Compact(both)
}

func ratio(n *int) *big.Rat {
	if n == nil {
		return nil
	}
	return new(big.Rat).SetInt64(int64(*n))
}

func jsonOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
