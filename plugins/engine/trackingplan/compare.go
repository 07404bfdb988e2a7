package trackingplan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
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

func (c *comparison) reported(path, rule string) bool {
	return slices.ContainsFunc(c.found, func(d Difference) bool {
		return d.Event == c.name && d.Version == c.version && d.Path == path && d.Rule == rule
	})
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
	c.wholes(path, prev, next)
	if prev.allows("string") {
		c.texts(path, "pattern", "must match %s now", "need not match %s any more", prev.patterns, next.patterns)
		c.texts(path, "format", "must be in the format %s now", "need not be in the format %s any more", prev.formats, next.formats)
	}
	if prev.allows("object") {
		c.object(path, prev, next, depth)
	}
	if prev.allows("array") && (len(prev.items) > 0 || len(next.items) > 0) {
		c.schemas(path+elements, prev.items, next.items, depth+1)
	}
}

// wholes compares the keywords that are only compared for equality.
func (c *comparison) wholes(path string, prev, next form) {
	for _, rule := range sortedKeys(next.exact) {
		if !slices.Equal(prev.exact[rule], next.exact[rule]) {
			c.add(path, rule, Senders, "%s has changed and is only compared as a whole; check whether valid events stay valid", rule)
		}
	}
	for _, rule := range sortedKeys(prev.exact) {
		switch {
		case len(next.exact[rule]) > 0 || rule == "multipleOf" || rule == "uniqueItems":
		case rule == "patternProperties" && len(next.closers) > 0:
			c.add(path, rule, Senders, "patternProperties is gone, and events with such properties are rejected")
		default:
			c.add(path, rule, Readers, "%s is gone, and other values than before are possible", rule)
		}
	}
}

// texts compares keywords with a text of which several can apply together.
func (c *comparison) texts(path, rule, added, removed string, prev, next []string) {
	gained := slices.DeleteFunc(slices.Clone(next), func(text string) bool { return slices.Contains(prev, text) })
	for _, text := range gained {
		c.add(path, rule, Senders, added, quoted(rule, text))
	}
	for _, text := range prev {
		if len(gained) == 0 && !slices.Contains(next, text) {
			c.add(path, rule, Readers, removed, quoted(rule, text))
		}
	}
}

func quoted(rule, text string) string {
	if rule == "pattern" {
		return fmt.Sprintf("%q", text)
	}
	return text
}

func (c *comparison) object(path string, prev, next form, depth int) {
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
	for _, name := range sortedKeys(prev.known()) {
		switch {
		case next.closedTo(name) && !prev.closedTo(name):
			c.add(dotted(path, name), "property_removed", Readers, "is gone, and events that have it are rejected")
		case next.closedTo(name) || next.known()[name]:
		default:
			hint := ""
			if n := spelling.Nearest(name, sortedKeys(next.properties)); n != "" && !prev.known()[n] {
				hint = fmt.Sprintf("; is it %s now?", dotted(path, n))
			}
			c.add(dotted(path, name), "property_removed", Readers, "is gone%s", hint)
		}
	}
	for _, name := range sortedKeys(next.properties) {
		if prev.properties[name] != nil {
			c.schemas(dotted(path, name), prev.properties[name], next.properties[name], depth+1)
			continue
		}
		if prev.closedTo(name) {
			continue // an event could not have it
		}
		switch isNew, open := !prev.known()[name], accepts(next.properties[name]); {
		case isNew && open:
			c.add(dotted(path, name), "property_added", Compatible, "is new")
		case isNew:
			c.add(dotted(path, name), "property_added", Senders, "is new, and events that had it with another value are rejected")
		case !open:
			c.add(dotted(path, name), "property_added", Senders, "is described for every event now, and events that had it with another value are rejected")
		}
	}
	for _, s := range next.closers {
		if c.reported(path, "patternProperties") {
			break // the cause is reported already
		}
		if !slices.ContainsFunc(prev.closers, func(old closer) bool { return old.covers(s) }) {
			c.add(path, "additional_properties", Senders, "takes no properties but those named now")
			break
		}
	}
}

// accepts reports whether schemas accept every value.
func accepts(schemas []*jsonschema.Schema) bool {
	probe := comparison{}
	probe.at("", "")
	probe.schemas("", nil, schemas, 0)
	return !slices.ContainsFunc(probe.found, Difference.Breaking)
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
		if prev.enum != nil && !prev.never() {
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

// boundedType returns the type of the values that a bound restricts.
func boundedType(rule string) string {
	switch {
	case strings.HasSuffix(rule, "Length"):
		return "string"
	case strings.HasSuffix(rule, "Items"), strings.HasSuffix(rule, "Contains"):
		return "array"
	case strings.HasSuffix(rule, "Properties"):
		return "object"
	}
	return "number"
}

// bounds reports tighter bounds. A relaxed bound breaks nothing and is not reported.
func (c *comparison) bounds(path string, prev, next form) {
	for _, rule := range sortedKeys(next.upper) {
		if prev.allows(boundedType(rule)) && !implied(rule, next.upper[rule], prev.upper, -1) {
			c.add(path, rule, Senders, "%s is %s now%s", rule, plainNumber(next.upper[rule]), formerly(prev.upper[rule]))
		}
	}
	for _, rule := range sortedKeys(next.lower) {
		if prev.allows(boundedType(rule)) && !implied(rule, next.lower[rule], prev.lower, 1) {
			c.add(path, rule, Senders, "%s is %s now%s", rule, plainNumber(next.lower[rule]), formerly(prev.lower[rule]))
		}
	}
}

// implied reports whether former bounds already ensured a bound. sign is 1 for lower and
// -1 for upper bounds.
func implied(rule string, bound *big.Rat, former map[string]*big.Rat, sign int) bool {
	if old := former[rule]; old != nil && sign*old.Cmp(bound) >= 0 {
		return true
	}
	// An exclusive bound implies an equal inclusive one; the reverse needs a strict bound.
	switch rule {
	case "minimum", "maximum":
		old := former["exclusiveM"+rule[1:]]
		return old != nil && sign*old.Cmp(bound) >= 0
	case "exclusiveMinimum", "exclusiveMaximum":
		old := former["m"+rule[len("exclusiveM"):]]
		return old != nil && sign*old.Cmp(bound) > 0
	}
	return bound.Sign() == 0 && sign > 0 // such as minLength: 0
}

func plainNumber(r *big.Rat) string {
	if r.IsInt() {
		return r.RatString()
	}
	return strings.TrimRight(r.FloatString(10), "0")
}

func formerly(r *big.Rat) string {
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
	// alternatives are the names of members that only an alternative describes.
	alternatives map[string]bool
	closers      []closer
	items        []*jsonschema.Schema
	// exact holds, by keyword, fingerprints of values that can only be compared for
	// equality.
	exact map[string][]string
}

// closer is a schema that allows only certain members.
type closer struct {
	names    map[string]bool
	patterns []string
	regexps  []jsonschema.Regexp
}

func (c closer) allows(name string) bool {
	return c.names[name] || slices.ContainsFunc(c.regexps, func(re jsonschema.Regexp) bool { return re.MatchString(name) })
}

// covers reports whether the closer allows no members except those that other allows, not
// counting the members that it names.
func (c closer) covers(other closer) bool {
	for _, pattern := range c.patterns {
		if !slices.Contains(other.patterns, pattern) {
			return false
		}
	}
	return true
}

// closedTo reports whether a member of this name is not allowed.
func (f form) closedTo(name string) bool {
	return slices.ContainsFunc(f.closers, func(c closer) bool { return !c.allows(name) })
}

// known returns the names of the members that are described.
func (f form) known() map[string]bool {
	names := map[string]bool{}
	for name := range f.properties {
		names[name] = true
	}
	for name := range f.alternatives {
		names[name] = true
	}
	return names
}

// allows reports whether values of a type can be valid.
func (f form) allows(kind string) bool {
	return slices.Contains(f.types, kind) || kind == "number" && slices.Contains(f.types, "integer")
}

// never reports whether no value is valid.
func (f form) never() bool { return len(f.types) == 0 }

func formOf(schemas []*jsonschema.Schema) form {
	f := form{types: jsonTypes, upper: map[string]*big.Rat{}, lower: map[string]*big.Rat{}, properties: map[string][]*jsonschema.Schema{}, alternatives: map[string]bool{}, exact: map[string][]string{}}
	together := conjunction(schemas)
	for _, s := range together {
		f.take(s)
	}
	// A member that only an alternative describes exists for readers.
	for _, s := range applied(schemas) {
		if !slices.Contains(together, s) {
			for name := range s.Properties {
				f.alternatives[name] = f.properties[name] == nil
			}
		}
	}
	maps.DeleteFunc(f.alternatives, func(_ string, only bool) bool { return !only })
	for _, s := range together {
		f.close(s)
	}
	slices.Sort(f.required)
	f.required = slices.Compact(f.required)
	return f
}

func (f *form) take(s *jsonschema.Schema) {
	if refOnly(s) {
		return
	}
	if s.Bool != nil && !*s.Bool {
		f.types, f.typed = []string{}, true
	}
	if s.Types != nil && !s.Types.IsEmpty() {
		types := s.Types.ToStrings()
		sort.Strings(types)
		f.types, f.typed = common(f.types, types), true
	}
	only := func(values ...any) {
		allowed := make([]string, 0, len(values))
		for _, v := range values {
			if text := jsonOf(v); f.enum == nil || slices.Contains(f.enum, text) {
				allowed = append(allowed, text)
			}
		}
		f.enum = allowed
	}
	if s.Const != nil {
		only(*s.Const)
	}
	if s.Enum != nil {
		only(s.Enum.Values...)
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
	if one := 1; s.Contains != nil && s.MinContains == nil {
		lower("minContains", ratio(&one))
	}
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
	if s.Items2020 != nil {
		f.items = append(f.items, s.Items2020)
	}
	if items, ok := s.Items.(*jsonschema.Schema); ok && items != nil {
		f.items = append(f.items, items)
	}
	f.fingerprint(s)
}

// close records a schema that allows only certain members.
func (f *form) close(s *jsonschema.Schema) {
	isFalse := func(v any) bool {
		switch v := v.(type) {
		case bool:
			return !v
		case *jsonschema.Schema:
			return v != nil && v.Bool != nil && !*v.Bool
		}
		return false
	}
	own, all := isFalse(s.AdditionalProperties), isFalse(s.UnevaluatedProperties)
	if refOnly(s) || !own && !all {
		return
	}
	c := closer{names: map[string]bool{}}
	scope := []*jsonschema.Schema{s}
	if !own {
		// unevaluatedProperties also counts the members of the schemas it is combined with.
		scope = applied(scope)
	}
	for _, s := range scope {
		for name := range s.Properties {
			c.names[name] = true
		}
		for re := range s.PatternProperties {
			c.patterns = append(c.patterns, re.String())
			c.regexps = append(c.regexps, re)
		}
	}
	f.closers = append(f.closers, c)
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
	if rest, ok := s.AdditionalItems.(*jsonschema.Schema); ok {
		note("additionalItems", rest)
	}
	if open, ok := s.AdditionalItems.(bool); ok && !open {
		f.exact["additionalItems"] = append(f.exact["additionalItems"], "false")
	}
	if rest, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
		note("additionalProperties", rest)
	}
	note("unevaluatedItems", s.UnevaluatedItems)
	note("unevaluatedProperties", s.UnevaluatedProperties)
	if s.DynamicRef != nil {
		note("$dynamicRef", s.DynamicRef.Ref)
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
		f.exact["dependentSchemas"] = append(f.exact["dependentSchemas"], name+printOf(s.DependentSchemas[name], 0))
	}
	for _, name := range sortedKeys(s.Dependencies) {
		text := fmt.Sprint(s.Dependencies[name])
		if schema, ok := s.Dependencies[name].(*jsonschema.Schema); ok {
			text = printOf(schema, 0)
		}
		f.exact["dependencies"] = append(f.exact["dependencies"], name+text)
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
	if depth > deepest {
		return "..."
	}
	f := formOf([]*jsonschema.Schema{s})
	var b strings.Builder
	fmt.Fprintf(&b, "%q%t%t%q%q%q%q", f.types, f.typed, f.enum != nil, f.enum, f.patterns, f.formats, f.required)
	for _, c := range f.closers {
		slices.Sort(c.patterns)
		fmt.Fprintf(&b, "only%q%q", sortedKeys(c.names), c.patterns)
	}
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
		fmt.Fprintf(&b, "%s%q", rule, f.exact[rule])
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
				if !refOnly(s) {
					add(s.AllOf...)
				}
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
