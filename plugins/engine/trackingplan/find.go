package trackingplan

import (
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// fields are the members of every event that need no schema: those of Segment's spec
// and our own source.
var fields = []string{
	"type", "event", "messageId", "userId", "anonymousId", "previousId", "groupId", "timestamp", "originalTimestamp",
	"sentAt", "receivedAt", "source", "name", "category", "channel", "version", "integrations", "context", keyProperties, keyTraits,
}

// Find reports whether an event can have a value at path. Keys in the path are joined
// by dots and end in [] for the elements of an array. Inside an object that the plan
// does not describe, any path is possible. hint is the nearest existing path for one
// that is not found, empty if none is near.
func (p *Plan) Find(event, path string) (found bool, hint string) {
	_, found, hint = p.find(event, path)
	return found, hint
}

// Types returns the JSON types that an event's value at path can have by its schemas,
// none if they do not restrict the type.
func (p *Plan) Types(event, path string) []string {
	schemas, _, _ := p.find(event, path)
	var types []string
	for _, s := range applied(schemas) {
		if s.Types != nil {
			types = append(types, s.Types.ToStrings()...)
		}
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// find returns the schemas of the value at path, none where the plan does not describe
// it, and what Find returns.
func (p *Plan) find(event, path string) (schemas []*jsonschema.Schema, found bool, hint string) {
	tokens := pathTokens(path)
	if len(tokens) == 0 {
		return nil, true, ""
	}
	first := tokens[0]
	if first == "context" {
		return nil, true, "" // the SDKs define its members
	}
	members, whole := p.schemasOf(event)
	// A schema of a member applies in addition to the schema of the envelope.
	start := []*jsonschema.Schema{}
	for _, s := range whole {
		next, _, _ := step([]*jsonschema.Schema{s}, first)
		start = append(start, next...)
	}
	for member, list := range members {
		if member == first {
			start = append(start, list...)
		}
	}
	if !slices.Contains(fields, first) && len(start) == 0 {
		if n := spelling.Nearest(first, fields); n != "" {
			return nil, false, strings.Join(append([]string{n}, written(tokens[1:])...), ".")
		}
		return nil, false, ""
	}
	if (first == keyProperties || first == keyTraits) && len(members[first]) == 0 {
		return nil, true, "" // planned, without a schema
	}
	current := start
	for i, token := range tokens[1:] {
		next, names, open := step(current, token)
		if len(next) == 0 {
			if open {
				return nil, true, ""
			}
			if n := spelling.Nearest(token, names); n != "" {
				hint = join(slices.Concat(tokens[:i+1], []string{n}, tokens[i+2:]))
			}
			return nil, false, hint
		}
		current = next
	}
	return current, true, ""
}

// schemasOf returns the schemas of an event by the member they apply to, and the
// schemas that apply to the whole event.
func (p *Plan) schemasOf(event string) (members map[string][]*jsonschema.Schema, whole []*jsonschema.Schema) {
	members = map[string][]*jsonschema.Schema{}
	add := func(checks []check) {
		for _, c := range checks {
			if c.member == "" {
				whole = append(whole, c.schema.lib)
			} else {
				members[c.member] = append(members[c.member], c.schema.lib)
			}
		}
	}
	add(p.envelope)
	if e := p.events[event]; e != nil {
		add(e.checks)
		for _, version := range sortedKeys(e.versions) {
			add(e.versions[version])
		}
	}
	return members, whole
}

// elements is the path token for the elements of an array.
const elements = "[]"

func pathTokens(path string) []string {
	var tokens []string
	for _, key := range strings.Split(path, ".") {
		arrays := 0
		for strings.HasSuffix(key, elements) {
			key, arrays = strings.TrimSuffix(key, elements), arrays+1
		}
		if key != "" {
			tokens = append(tokens, key)
		}
		for range arrays {
			tokens = append(tokens, elements)
		}
	}
	return tokens
}

func join(tokens []string) string {
	return strings.ReplaceAll(strings.Join(tokens, "."), "."+elements, elements)
}

func written(tokens []string) []string {
	if len(tokens) == 0 {
		return nil
	}
	return []string{join(tokens)}
}

// step descends from schemas to the schemas of a member or of the elements. names are
// the members that the schemas define; open reports whether other members are allowed.
func step(from []*jsonschema.Schema, token string) (next []*jsonschema.Schema, names []string, open bool) {
	all := applied(from)
	says, typed, object, array := false, false, false, false
	for _, s := range all {
		if s.Types != nil && !s.Types.IsEmpty() {
			types := s.Types.ToStrings()
			typed = true
			object = object || slices.Contains(types, "object")
			array = array || slices.Contains(types, "array")
		}
		if token == elements {
			add := func(v any) {
				switch v := v.(type) {
				case *jsonschema.Schema:
					if v != nil {
						next = append(next, v)
					}
				case []*jsonschema.Schema:
					next = append(next, v...)
				}
			}
			add(s.Items)
			add(s.Items2020)
			add(s.PrefixItems)
			add(s.AdditionalItems)
			continue
		}
		if len(s.Properties) > 0 || len(s.PatternProperties) > 0 {
			says = true
		}
		for _, name := range sortedKeys(s.Properties) {
			names = append(names, name)
			if name == token {
				next = append(next, s.Properties[name])
			}
		}
		for pattern, member := range s.PatternProperties {
			if pattern.MatchString(token) {
				next = append(next, member)
			}
		}
		if rest, ok := s.AdditionalProperties.(*jsonschema.Schema); ok {
			next = append(next, rest)
		}
	}
	if token == elements {
		return next, nil, array || !typed
	}
	return next, names, !says && (object || !typed)
}

// applied returns the schemas together with all schemas that they refer to or combine
// for the same value.
func applied(from []*jsonschema.Schema) []*jsonschema.Schema {
	var all []*jsonschema.Schema
	seen := map[*jsonschema.Schema]bool{}
	var add func(list ...*jsonschema.Schema)
	add = func(list ...*jsonschema.Schema) {
		for _, s := range list {
			if s == nil || seen[s] {
				continue
			}
			seen[s] = true
			all = append(all, s)
			add(s.Ref, s.RecursiveRef, s.If, s.Then, s.Else)
			if s.DynamicRef != nil {
				add(s.DynamicRef.Ref)
			}
			add(s.AllOf...)
			add(s.AnyOf...)
			add(s.OneOf...)
			for _, name := range sortedKeys(s.DependentSchemas) {
				add(s.DependentSchemas[name])
			}
		}
	}
	add(from...)
	return all
}
