package trackingplan

import "github.com/santhosh-tekuri/jsonschema/v6"

// Before draft 2019-09 a $ref excludes all keywords beside it. The library ignores most
// of them, but not those that the drafts 6 and 7 added:
//
//	{ "$ref": "#/$defs/any", "const": 1 }    accepts every value in draft 7

// refOnly reports whether a schema is a reference whose other keywords have no effect.
func refOnly(s *jsonschema.Schema) bool { return s.Ref != nil && s.DraftVersion < 2019 }

// ignoreBesideRef removes the keywords without effect from all schemas that root can
// reach.
func ignoreBesideRef(root *jsonschema.Schema) {
	seen := map[*jsonschema.Schema]bool{}
	var visit func(schemas ...*jsonschema.Schema)
	visitAny := func(v any) {
		switch v := v.(type) {
		case *jsonschema.Schema:
			visit(v)
		case []*jsonschema.Schema:
			visit(v...)
		}
	}
	visit = func(schemas ...*jsonschema.Schema) {
		for _, s := range schemas {
			if s == nil || seen[s] {
				continue
			}
			seen[s] = true
			if refOnly(s) {
				s.Const, s.Contains, s.PropertyNames = nil, nil, nil
				s.If, s.Then, s.Else = nil, nil, nil
				s.ContentEncoding, s.ContentMediaType = nil, nil
			}
			visit(s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else, s.PropertyNames, s.UnevaluatedProperties,
				s.Contains, s.Items2020, s.UnevaluatedItems, s.ContentSchema)
			if s.DynamicRef != nil {
				visit(s.DynamicRef.Ref)
			}
			visit(s.AllOf...)
			visit(s.AnyOf...)
			visit(s.OneOf...)
			visit(s.PrefixItems...)
			visitAny(s.AdditionalProperties)
			visitAny(s.Items)
			visitAny(s.AdditionalItems)
			for _, sub := range s.Properties {
				visit(sub)
			}
			for _, sub := range s.PatternProperties {
				visit(sub)
			}
			for _, sub := range s.DependentSchemas {
				visit(sub)
			}
			for _, sub := range s.Dependencies {
				visitAny(sub)
			}
		}
	}
	visit(root)
}
