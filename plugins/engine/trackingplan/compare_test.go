package trackingplan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
		{"bounds loosened", `{ properties: { a: { minimum: 1, maxItems: 3 } } }`, `{ properties: { a: { minimum: 0 } } }`, `nobody maxItems properties.a: maxItems is no more, and was 3|nobody minimum properties.a: minimum is 0 now, and was 1`},
		{"pattern and format", `{ properties: { a: { type: string, pattern: "^a" } } }`, `{ properties: { a: { type: string, pattern: "^b", format: email } } }`, `senders pattern properties.a: must match "^b" now|senders format properties.a: must be in the format email now`},
		{"closed", `{ properties: { a: {} } }`, `{ properties: { a: {} }, additionalProperties: false }`, `senders additional_properties properties: takes no properties but those named now`},
		{"closed without one", `{ properties: { a: {}, b: {} }, additionalProperties: false }`, `{ properties: { a: {} }, additionalProperties: false }`, `readers property_removed properties.b: is gone, and events that have it are rejected`},
		{"alternatives", `{ anyOf: [ { required: [a] }, { required: [b] } ] }`, `{ anyOf: [ { required: [a] } ] }`, `senders anyOf properties: anyOf has changed, and was not taken apart; look whether what was valid still is`},
		{"the same alternatives", `{ anyOf: [ { required: [a] }, { required: [b] } ] }`, `{ anyOf: [ { required: [a] }, { required: [b] } ] }`, ``},
		{"property of an alternative removed", `{ anyOf: [ { properties: { a: {} } }, { properties: { b: {} } } ] }`, `{ properties: { a: {} } }`, `readers property_removed properties.b: is gone`},
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
