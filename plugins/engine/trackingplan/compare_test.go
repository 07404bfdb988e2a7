package trackingplan

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// planOf loads a plan with an event A and a schema for its properties.
func planOf(t *testing.T, schema string) *Plan {
	return planText(t, "name: shop\nversion: 1.0.0\n$defs:\n  money: { type: number, minimum: 0 }\n  node: { properties: { next: { $ref: \"#/$defs/node\" } } }\nevents:\n  A: { properties: "+schema+" }\n")
}

func planText(t *testing.T, text string) *Plan {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plan.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	plan, err := Load(path)
	require.NoError(t, err)
	return plan
}

func TestCompareSchemas(t *testing.T) {
	for _, test := range []struct{ name, before, after, want string }{
		{"nothing", `{ properties: { a: { $ref: "#/$defs/money" } } }`, `{ properties: { a: { $ref: "#/$defs/money" } } }`, ``},
		{"the same by other words", `{ properties: { a: { $ref: "#/$defs/money" } } }`, `{ allOf: [ { properties: { a: { type: number, minimum: 0 } } } ] }`, ``},
		{"property removed", `{ properties: { a: {}, b: {} } }`, `{ properties: { a: {} } }`, `readers property_removed properties.b: is gone`},
		{"property renamed", `{ properties: { total: {} } }`, `{ properties: { totals: {} } }`, `readers property_removed properties.total: is gone; is it properties.totals now?|nobody property_added properties.totals: is new`},
		{"property added", `{ properties: { a: {} } }`, `{ properties: { a: {}, b: {} } }`, `nobody property_added properties.b: is new`},
		{"nested in an array", `{ properties: { p: { type: array, items: { properties: { x: {}, y: {} } } } } }`, `{ properties: { p: { type: array, items: { properties: { x: {} } } } } }`, `readers property_removed properties.p[].y: is gone`},
		{"type narrowed", `{ properties: { a: { type: [string, integer] } } }`, `{ properties: { a: { type: string } } }`, `senders type_narrowed properties.a: was integer or string and is string now`},
		{"number to integer", `{ properties: { a: { type: number } } }`, `{ properties: { a: { type: integer } } }`, `senders type_narrowed properties.a: was number and is integer now`},
		{"type widened", `{ properties: { a: { type: number } } }`, `{ properties: { a: { type: [number, string] } } }`, `readers type_widened properties.a: was number and may be string now`},
		{"integer to number", `{ properties: { a: { type: integer } } }`, `{ properties: { a: { type: number } } }`, `readers type_widened properties.a: was integer and may be number now`},
		{"type changed", `{ properties: { a: { type: number } } }`, `{ properties: { a: { type: string } } }`, `senders type_narrowed properties.a: was number and is string now|readers type_widened properties.a: was number and may be string now`},
		{"type stated", `{ properties: { a: {} } }`, `{ properties: { a: { type: string } } }`, `senders type_narrowed properties.a: was anything and is string now`},
		{"required", `{ properties: { a: {} } }`, `{ required: [a], properties: { a: {} } }`, `senders required properties.a: is required now`},
		{"optional", `{ required: [a], properties: { a: {} } }`, `{ properties: { a: {} } }`, `readers optional properties.a: is not required any more, and may be missing`},
		{"enum", `{ properties: { a: { enum: [x, y] } } }`, `{ properties: { a: { enum: [y, z] } } }`, `senders enum properties.a: may not be "x" any more|nobody enum_widened properties.a: may be "z", too`},
		{"enum stated", `{ properties: { a: {} } }`, `{ properties: { a: { const: 1 } } }`, `senders enum properties.a: must be one of 1 now`},
		{"bounds tightened", `{ properties: { a: { minimum: 0, maxLength: 9 } } }`, `{ properties: { a: { minimum: 0.5, maxLength: 8, maximum: 7 } } }`, `senders maxLength properties.a: maxLength is 8 now, and was 9|senders maximum properties.a: maximum is 7 now|senders minimum properties.a: minimum is 0.5 now, and was 0`},
		{"bounds loosened", `{ properties: { a: { minimum: 1, maxItems: 3 } } }`, `{ properties: { a: { minimum: 0 } } }`, ``},
		{"pattern and format", `{ properties: { a: { type: string, pattern: "^a" } } }`, `{ properties: { a: { type: string, pattern: "^b", format: email } } }`, `senders pattern properties.a: must match "^b" now|senders format properties.a: must be in the format email now`},
		{"bounds by other keywords", `{ properties: { a: { exclusiveMinimum: 0, maximum: 5 } } }`, `{ properties: { a: { minimum: 0, exclusiveMaximum: 6 } } }`, ``},
		{"bounds of another type", `{ properties: { a: { type: string } } }`, `{ properties: { a: { type: string, minimum: 3, maxItems: 1 } } }`, ``},
		{"pattern removed", `{ properties: { a: { type: string, pattern: "^a" } } }`, `{ properties: { a: { type: string } } }`, `readers pattern properties.a: need not match "^a" any more`},
		{"format removed", `{ properties: { a: { type: string, format: date-time } } }`, `{ properties: { a: { type: string } } }`, `readers format properties.a: need not be in the format date-time any more`},
		{"pattern properties removed", `{ properties: { a: {} }, patternProperties: { "^x_": { type: string } } }`, `{ properties: { a: {} } }`, `readers patternProperties properties: patternProperties is gone, and other values than before are possible`},
		{"pattern properties removed from a closed object", `{ properties: { a: {} }, patternProperties: { "^x_": {} }, additionalProperties: false }`, `{ properties: { a: {} }, additionalProperties: false }`, `senders patternProperties properties: patternProperties is gone, and events with such properties are rejected`},
		{"alternatives removed", `{ properties: { a: { anyOf: [ { type: string }, { type: "null" } ] } } }`, `{ properties: { a: {} } }`, `readers anyOf properties.a: anyOf is gone, and other values than before are possible`},
		{"oneOf, not and if removed", `{ oneOf: [ {} ], not: { required: [b] }, if: { required: [c] }, then: { required: [d] } }`, `{}`, `readers if properties: if is gone, and other values than before are possible|readers not properties: not is gone, and other values than before are possible|readers oneOf properties: oneOf is gone, and other values than before are possible`},
		{"unevaluated properties restricted", `{ properties: { a: {} } }`, `{ properties: { a: {} }, unevaluatedProperties: { type: string } }`, `senders unevaluatedProperties properties: unevaluatedProperties has changed and is only compared as a whole; check whether valid events stay valid`},
		{"property of a type added", `{ properties: { a: {} } }`, `{ properties: { a: {}, b: { type: number } } }`, `senders property_added properties.b: is new, and events that had it with another value are rejected`},
		{"property of a type added to a closed object", `{ properties: { a: {} }, additionalProperties: false }`, `{ properties: { a: {}, b: { type: number } }, additionalProperties: false }`, ``},
		{"property of an alternative described for all", `{ anyOf: [ { properties: { a: { type: string } } }, {} ] }`, `{ anyOf: [ { properties: { a: { type: string } } }, {} ], properties: { a: { type: string } } }`, `senders property_added properties.a: is described for every event now, and events that had it with another value are rejected`},
		{"closed", `{ properties: { a: {} } }`, `{ properties: { a: {} }, additionalProperties: false }`, `senders additional_properties properties: takes no properties but those named now`},
		{"closed without one", `{ properties: { a: {}, b: {} }, additionalProperties: false }`, `{ properties: { a: {} }, additionalProperties: false }`, `readers property_removed properties.b: is gone, and events that have it are rejected`},
		{"alternatives", `{ anyOf: [ { required: [a] }, { required: [b] } ] }`, `{ anyOf: [ { required: [a] } ] }`, `senders anyOf properties: anyOf has changed and is only compared as a whole; check whether valid events stay valid`},
		{"the same alternatives", `{ anyOf: [ { required: [a] }, { required: [b] } ] }`, `{ anyOf: [ { required: [a] }, { required: [b] } ] }`, ``},
		{"property of an alternative removed", `{ anyOf: [ { properties: { a: {} } }, { properties: { b: {} } } ] }`, `{ properties: { a: {} } }`, `readers anyOf properties: anyOf is gone, and other values than before are possible|readers property_removed properties.b: is gone`},
		{"a schema that refers to itself", `{ properties: { n: { $ref: "#/$defs/node" } } }`, `{ properties: { n: { $ref: "#/$defs/node" } } }`, ``},
		{"no schema any more", `{ properties: { a: { type: string } } }`, `{}`, `readers property_removed properties.a: is gone`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, d := range Compare(planOf(t, test.before), planOf(t, test.after)) {
				require.Equal(t, "A", d.Event)
				got = append(got, string(d.Affects)+" "+d.Rule+" "+d.Path+": "+d.Message)
			}
			require.Equal(t, test.want, strings.Join(got, "|"))
		})
	}
}

func TestComparePlans(t *testing.T) {
	before := planText(t, `
name: shop
version: 1.0.0
envelope: { required: [type] }
events:
  Order Completed: { on_violation: pass }
  Order Canceled:
  Product Viewed:
    default_version: "1"
    versions: { "1": { properties: { properties: { total: {} } } }, "2": { properties: {} } }
`)
	after := planText(t, `
name: shop
version: 2.0.0
on_unplanned: dead_letter
envelope: { required: [type, messageId] }
events:
  Order Completed:
  Order Cancelled:
  Product Viewed:
    default_version: "1"
    versions: { "1": { properties: { properties: { brand: {} } } }, "3": { properties: {} } }
`)
	var got []string
	for _, d := range Compare(before, after) {
		got = append(got, string(d.Affects)+": "+d.String())
	}
	require.Equal(t, []string{
		`senders: every event: events that are not planned are rejected now`,
		`senders: every event: messageId: is required now`,
		`readers: event "Order Canceled": is gone; is it "Order Cancelled" now?`,
		`nobody: event "Order Cancelled": is new`,
		`senders: event "Order Completed": events that break the schema were let through or repaired, and are rejected now`,
		`readers: event "Product Viewed": properties.total: is gone`,
		`nobody: event "Product Viewed": properties.brand: is new`,
		`readers: event "Product Viewed", version 1: properties.total: is gone`,
		`nobody: event "Product Viewed", version 1: properties.brand: is new`,
		`senders: event "Product Viewed", version 2: is gone, and events of it are rejected`,
		`nobody: event "Product Viewed", version 3: is new`,
	}, got)
	require.Empty(t, Compare(before, before))
}

// Two loads of the shipped plan are equal.
func TestComparingAPlanWithItselfFindsNothing(t *testing.T) {
	a, err := Load("../../../configs/retail/plan.yaml")
	require.NoError(t, err)
	b, err := Load("../../../configs/retail/plan.yaml")
	require.NoError(t, err)
	require.Empty(t, Compare(a, b))
}

// TestComparisonReportsEveryBreakingChange compares random pairs of schemas, most of
// which differ in few keywords: if a value is valid before and invalid after, the
// comparison has a breaking difference.
func TestComparisonReportsEveryBreakingChange(t *testing.T) {
	broken := 0
	rapid.Check(t, func(t *rapid.T) {
		draft7 := rapid.Bool().Draw(t, "draft-07")
		draft := jsonschema.Draft2020
		if draft7 {
			draft = jsonschema.Draft7
		}
		old, ok := drawSchema(t, 3, draft7).(map[string]any)
		if !ok {
			old = map[string]any{}
		}
		changed := mutate(t, old, draft7)
		var schemas [2]*jsonschema.Schema
		for i, root := range []map[string]any{old, changed} {
			root = maps.Clone(root)
			root["definitions"] = map[string]any{"d": true, "e": map[string]any{"type": "string"}}
			text, err := json.Marshal(root)
			require.NoError(t, err)
			t.Logf("schema: %s", text)
			p, err := compileSchema(t, mustUnmarshal(t, text), draft)
			if err != nil {
				t.Skip("not a valid schema")
			}
			schemas[i] = p.lib
		}
		c := comparison{}
		c.at("", "")
		c.schemas("", schemas[:1], schemas[1:], 0)
		reported := slices.ContainsFunc(c.found, Difference.Breaking)
		for range 12 {
			value, err := json.Marshal(genValue(3).Draw(t, "value"))
			require.NoError(t, err)
			v := mustUnmarshal(t, value)
			if schemas[0].Validate(v) == nil && schemas[1].Validate(v) != nil {
				broken++
				require.True(t, reported, "%s is valid before and invalid after; reported: %v", value, c.found)
			}
		}
	})
	require.NotZero(t, broken)
}

// mutate returns a schema with some keywords removed, added or replaced, here or in a
// schema inside it.
func mutate(t *rapid.T, schema map[string]any, draft7 bool) map[string]any {
	changed := maps.Clone(schema)
	for range rapid.IntRange(1, 2).Draw(t, "mutations") {
		k := rapid.SampledFrom(append(sortedKeys(changed), sortedKeys(keywords)...)).Draw(t, "keyword")
		inner, isObject := changed[k].(map[string]any)
		_, exists := changed[k]
		switch {
		case isObject && slices.Contains([]string{"not", "if", "then", "else", "items", "contains", "additionalProperties"}, k):
			changed[k] = mutate(t, inner, draft7)
		case isObject && slices.Contains([]string{"properties", "patternProperties", "dependentSchemas"}, k):
			copied := maps.Clone(inner)
			for _, name := range sortedKeys(copied) {
				if s, ok := copied[name].(map[string]any); ok && rapid.Bool().Draw(t, "descend") {
					copied[name] = mutate(t, s, draft7)
				}
			}
			changed[k] = copied
		case exists && rapid.Bool().Draw(t, "remove"):
			delete(changed, k)
		default:
			changed[k] = keywords[k](t, 2, draft7)
		}
	}
	return changed
}
