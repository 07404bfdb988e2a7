package trackingplan

import (
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Properties returns the sorted paths that the plan describes in an event, in the form
// properties.total or properties.products[].sku. It returns nil for an event that the
// plan does not have. A schema may allow more than it describes.
func (p *Plan) Properties(event string) []string {
	planned := p.events[event]
	if planned == nil {
		return nil
	}
	s := shape{paths: map[string]struct{}{}, seen: map[visit]struct{}{}}
	s.addAll(p.envelope)
	s.addAll(planned.checks)
	for _, checks := range planned.versions {
		s.addAll(checks)
	}
	return sortedKeys(s.paths)
}

// HasProperty reports whether the plan describes a path in an event.
func (p *Plan) HasProperty(event, path string) bool {
	_, found := slices.BinarySearch(p.Properties(event), path)
	return found
}

// maxPathKeys bounds paths into a schema that contains itself. It is deeper than any
// real path.
const maxPathKeys = 8

// shape collects the paths that schemas describe.
type shape struct {
	paths map[string]struct{}
	seen  map[visit]struct{}
}

type visit struct {
	schema *jsonschema.Schema
	path   string
}

func (s *shape) addAll(checks []check) {
	for _, c := range checks {
		if c.member != "" {
			s.paths[c.member] = struct{}{}
		}
		s.add(c.schema.lib, c.member, 0)
	}
}

func (s *shape) add(schema *jsonschema.Schema, path string, keys int) {
	if schema == nil || schema.Bool != nil || keys > maxPathKeys {
		return
	}
	current := visit{schema, path}
	if _, ok := s.seen[current]; ok {
		return
	}
	s.seen[current] = struct{}{}

	for name, sub := range schema.Properties {
		if name == "" || strings.ContainsAny(name, ".[]") || sub.Bool != nil && !*sub.Bool {
			continue
		}
		next := name
		if path != "" {
			next = path + "." + name
		}
		s.paths[next] = struct{}{}
		s.add(sub, next, keys+1)
	}
	same := slices.Concat(schema.AllOf, schema.AnyOf, schema.OneOf)
	same = append(same, schema.Ref, schema.If, schema.Then, schema.Else)
	for _, sub := range schema.DependentSchemas {
		same = append(same, sub)
	}
	for _, sub := range schema.Dependencies {
		if sub, ok := sub.(*jsonschema.Schema); ok {
			same = append(same, sub)
		}
	}
	for _, sub := range same {
		s.add(sub, path, keys)
	}
	if path == "" {
		return
	}
	items := append(slices.Clone(schema.PrefixItems), schema.Items2020)
	switch old := schema.Items.(type) {
	case *jsonschema.Schema:
		items = append(items, old)
	case []*jsonschema.Schema:
		items = append(items, old...)
	}
	for _, sub := range items {
		s.add(sub, path+"[]", keys+1)
	}
}
