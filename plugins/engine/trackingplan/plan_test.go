package trackingplan

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// writePlan writes a plan and the files beside it, and returns the path of the plan.
func writePlan(t testing.TB, plan string, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "plan.yaml")
	require.NoError(t, os.WriteFile(path, []byte(plan), 0o600))
	for i := 0; i+1 < len(files); i += 2 {
		name := filepath.Join(dir, files[i])
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte(files[i+1]), 0o600))
	}
	return path
}

func loadPlan(t testing.TB, plan string, files ...string) *Plan {
	t.Helper()
	p, err := Load(writePlan(t, plan, files...))
	require.NoError(t, err)
	return p
}

func track(event, properties string) string {
	return `{"type":"track","event":"` + event + `","properties":` + properties + `}`
}

// summary formats a result on one line for tables.
func summary(r Result) string {
	words := []string{map[Status]string{Valid: "valid", Repaired: "repaired", Passed: "passed", Rejected: "rejected"}[r.Status]}
	if r.Mark && r.Status != Rejected {
		words = append(words, "marked")
	}
	for _, v := range r.Violations {
		words = append(words, v.Pointer+"="+v.Rule)
	}
	return strings.Join(words, " ")
}

const policyPlan = `
name: test
version: 1
events:
  Strict:
    properties: &schema
      type: object
      required: [total]
      additionalProperties: false
      properties:
        total: { type: number, minimum: 0 }
        paid: { type: boolean }
        id: { type: [string, "null"] }
        count: { type: integer }
        products:
          type: array
          items:
            type: object
            additionalProperties: false
            properties: { sku: { type: string } }
  Coerced: { on_violation: coerce, properties: *schema }
  Stripped: { on_violation: [strip], properties: *schema }
  Both: { on_violation: [coerce, strip, pass], properties: *schema }
  Passed: { on_violation: pass, properties: *schema }
  Bare:
`

func TestPolicies(t *testing.T) {
	plan := loadPlan(t, policyPlan)
	for _, test := range []struct{ event, properties, want, body string }{
		{"Strict", `{"total":1}`, "valid", ""},
		{"Strict", `{"total":"1"}`, "rejected /properties/total=type", ""},
		{"Strict", `{"total":1,"x":2}`, "rejected /properties=additionalProperties", ""},
		{"Passed", `{"total":"1"}`, "passed /properties/total=type", ""},
		{"Bare", `{"anything":["goes"]}`, "valid", ""},

		{"Coerced", `{"total":"12.50"}`, "repaired /properties/total=type", `{"total":12.50}`},
		{"Coerced", `{"total":" 3 ","count":"4"}`, "repaired /properties/count=type /properties/total=type", `{"count":4,"total":3}`},
		{"Coerced", `{"total":1,"paid":"true","id":17}`, "repaired /properties/id=type /properties/paid=type", `{"id":"17","paid":true,"total":1}`},
		{"Coerced", `{"total":1,"products":[{"sku":7},{"sku":"8"}]}`, "repaired /properties/products/0/sku=type", `{"products":[{"sku":"7"},{"sku":"8"}],"total":1}`},
		// A value that cannot be coerced without loss, or is wrong in another way,
		// rejects the whole event.
		{"Coerced", `{"total":"12,50"}`, "rejected /properties/total=type", ""},
		{"Coerced", `{"total":""}`, "rejected /properties/total=type", ""},
		{"Coerced", `{"total":"007"}`, "rejected /properties/total=type", ""},
		{"Coerced", `{"total":"1e999"}`, "rejected /properties/total=type", ""},
		{"Coerced", `{"total":true}`, "rejected /properties/total=type", ""},
		{"Coerced", `{"total":null}`, "rejected /properties/total=type", ""},
		{"Coerced", `{"total":1,"count":"1.5"}`, "rejected /properties/count=type", ""},
		{"Coerced", `{"total":1,"paid":"yes"}`, "rejected /properties/paid=type", ""},
		{"Coerced", `{"total":"-5"}`, "rejected /properties/total=type", ""},
		{"Coerced", `{"total":"5","x":1}`, "rejected /properties=additionalProperties /properties/total=type", ""},

		{"Stripped", `{"total":1,"x":2,"products":[{"sku":"1","y":3}]}`, "repaired /properties=additionalProperties /properties/products/0=additionalProperties", `{"products":[{"sku":"1"}],"total":1}`},
		{"Stripped", `{"total":"1","x":2}`, "rejected /properties=additionalProperties /properties/total=type", ""},

		{"Both", `{"total":"1","x":2}`, "repaired /properties=additionalProperties /properties/total=type", `{"total":1}`},
		{"Both", `{"x":2}`, "passed /properties=additionalProperties /properties=required", ""},
	} {
		event := track(test.event, test.properties)
		r := plan.Check([]byte(event))
		require.Equal(t, test.want, summary(r), event)
		if test.body == "" {
			require.Empty(t, r.Body)
			require.Empty(t, r.Changes)
			continue
		}
		var got struct{ Properties json.RawMessage }
		require.NoError(t, json.Unmarshal(r.Body, &got))
		require.Equal(t, test.body, string(got.Properties))
		require.Equal(t, "valid", summary(plan.Check(r.Body)), "a repaired event is valid: %s", r.Body)
	}
}

func TestRepairIsRecordedInTheEvent(t *testing.T) {
	plan := loadPlan(t, policyPlan)
	r := plan.Check([]byte(`{"type":"track","event":"Both","context":{"ip":"192.0.2.1","protocols":{"event_version":1}},"properties":{"total":"12.50","x":"<a> "}}`))
	require.Equal(t, Repaired, r.Status)
	require.Equal(t, []Change{{Pointer: "/properties/total", From: "string", To: "number"}, {Pointer: "/properties/x"}}, r.Changes)
	require.Equal(t, `{"context":{"ip":"192.0.2.1","protocols":{"event_version":1,"repaired":{"plan":"test","version":"1",`+
		`"coerced":[{"pointer":"/properties/total","from":"string","to":"number"}],"omitted":["/properties/x"]}}},`+
		`"event":"Both","properties":{"total":12.50},"type":"track"}`, string(r.Body))

	// A context that is not an object cannot hold the note, and stays.
	r = plan.Check([]byte(`{"type":"track","event":"Both","context":7,"properties":{"total":"1"}}`))
	require.Equal(t, `{"context":7,"event":"Both","properties":{"total":1},"type":"track"}`, string(r.Body))
}

func TestEventNames(t *testing.T) {
	plan := loadPlan(t, `
name: test
version: 1
on_violation: pass
on_unplanned: dead_letter
envelope: { required: [messageId] }
events:
  Order Completed: { properties: { required: [total] } }
  identify: { traits: { properties: { email: { type: string } } } }
  page: { on_violation: dead_letter, envelope: { required: [name] } }
`)
	for event, want := range map[string]string{
		`{"messageId":"1","type":"track","event":"Order Completed","properties":{"total":1}}`: "valid",
		`{"type":"track","event":"Order Completed","properties":{"total":1}}`:                 "passed =required",
		// A missing member counts as an empty object; null does not.
		`{"messageId":"1","type":"track","event":"Order Completed"}`:                   "passed /properties=required",
		`{"messageId":"1","type":"track","event":"Order Completed","properties":null}`: "valid",
		`{"messageId":"1","type":"identify"}`:                                          "valid",
		`{"messageId":"1","type":"identify","traits":{"email":1}}`:                     "passed /traits/email=type",
		`{"messageId":"1","type":"identify","event":"Order Completed"}`:                "valid",
		`{"messageId":"1","type":"page","name":"x"}`:                                   "valid",
		`{"messageId":"1","type":"page"}`:                                              "rejected =required",
		`{"type":"page"}`:                                                              "rejected =required =required",
		`{"messageId":"1","type":"track","event":"Order Complete"}`:                    "rejected /event=unplanned",
		`{"messageId":"1","type":"alias"}`:                                             "rejected /type=unplanned",
		`{"messageId":"1","type":"track"}`:                                             "passed /event=required",
		`{"messageId":"1","type":"track","event":""}`:                                  "passed /event=required",
		`{"messageId":"1","type":"track","event":7}`:                                   "passed /event=required",
		`{"messageId":"1"}`:                                                            "passed /type=required",
		`{}`:                                                                           "passed =required /type=required",
		`[]`:                                                                           "rejected =type",
		`7`:                                                                            "rejected =type",
	} {
		require.Equal(t, want, summary(plan.Check([]byte(event))), event)
	}
	r := plan.Check([]byte(`{"type":"track","event":"Order Complete"}`))
	require.Equal(t, `the plan has no event of this name; the nearest it has is "Order Completed"`, r.Violations[0].Message)
	require.True(t, r.Unplanned)
}

func TestUnplanned(t *testing.T) {
	for policy, want := range map[string]string{
		"": "valid marked", "on_unplanned: mark": "valid marked", "on_unplanned: allow": "valid", "on_unplanned: dead_letter": "rejected /event=unplanned",
	} {
		plan := loadPlan(t, "name: test\nversion: 1\n"+policy+"\nevents: { Known: {} }\nenvelope: { required: [type] }")
		r := plan.Check([]byte(track("Other", "{}")))
		require.Equal(t, want, summary(r), policy)
		require.True(t, r.Unplanned)
		require.Empty(t, r.Event)
	}
}

func TestVersions(t *testing.T) {
	plan := loadPlan(t, `
name: test
version: 1
events:
  Own:
    properties: { required: [a] }
    versions:
      "2": { properties: { required: [b] } }
      "3.10": { properties: { required: [c] } }
  Default:
    default_version: "2"
    versions:
      "1": { properties: { required: [a] } }
      "2": { properties: { required: [b] } }
  Only:
    versions: { "1": { properties: { required: [a] } } }
  None:
    properties: { required: [a] }
`)
	for _, test := range []struct{ event, version, properties, want string }{
		{"Own", ``, `{"a":1}`, "valid"},
		{"Own", `null`, `{"a":1}`, "valid"},
		{"Own", `"2"`, `{"b":1}`, "valid"},
		{"Own", `2`, `{"b":1}`, "valid"},
		{"Own", `2`, `{"a":1}`, "rejected /properties=required"},
		{"Own", `3.10`, `{"c":1}`, "valid"},
		{"Own", `"4"`, `{"a":1}`, "rejected /context/protocols/event_version=event_version"},
		{"Own", `{}`, `{"a":1}`, "rejected /context/protocols/event_version=event_version"},
		{"Default", ``, `{"b":1}`, "valid"},
		{"Default", `1`, `{"a":1}`, "valid"},
		{"Default", `3`, `{"a":1}`, "rejected /context/protocols/event_version=event_version"},
		{"Only", ``, `{"a":1}`, "valid"},
		{"Only", ``, `{}`, "rejected /properties=required"},
		{"None", `9`, `{"a":1}`, "valid"},
	} {
		event := track(test.event, test.properties)
		if test.version != "" {
			event = strings.TrimSuffix(event, "}") + `,"context":{"protocols":{"event_version":` + test.version + `}}}`
		}
		require.Equal(t, test.want, summary(plan.Check([]byte(event))), event)
	}

	elsewhere := loadPlan(t, `
name: test
version: 1
event_version: properties.v
events: { A: { versions: { "1": {}, "2": { properties: { required: [b] } } }, default_version: "1" } }
`)
	require.Equal(t, "valid", summary(elsewhere.Check([]byte(track("A", `{}`)))))
	require.Equal(t, "rejected /properties=required", summary(elsewhere.Check([]byte(track("A", `{"v":2}`)))))
}

func TestSchemaFiles(t *testing.T) {
	plan := `
name: test
version: 1
$schema: http://json-schema.org/draft-07/schema#
schema_urls: { "https://schemas.example.com/v1/": "by url" }
events:
  A: { properties: { $ref: "schemas/a b.json" } }
  B: { properties: { $ref: "https://schemas.example.com/v1/b.yaml#/definitions/b" } }
definitions:
  id: { type: string, minLength: 2 }
`
	p := loadPlan(t, plan,
		"schemas/a b.json", `{"properties":{"id":{"$ref":"../plan.yaml#/definitions/id"},"again":{"$ref":"#"}},"dependencies":{"x":["y"]}}`,
		"by url/b.yaml", "definitions:\n  b: { properties: { id: { const: 1 } } }\n",
	)
	require.Equal(t, "valid", summary(p.Check([]byte(track("A", `{"id":"ab","again":{"id":"cd"}}`)))))
	require.Equal(t, "rejected /properties/again/id=minLength", summary(p.Check([]byte(track("A", `{"id":"ab","again":{"id":"c"}}`)))))
	require.Equal(t, "rejected /properties=dependency", summary(p.Check([]byte(track("A", `{"x":1}`)))))
	require.Equal(t, "valid", summary(p.Check([]byte(track("B", `{"id":1.0}`)))))
	require.Equal(t, "rejected /properties/id=const", summary(p.Check([]byte(track("B", `{"id":2}`)))))
}

func TestFormats(t *testing.T) {
	plan := "name: test\nversion: 1\nevents: { A: { properties: { properties: { email: { format: email }, at: { format: date-time } } } } }\n"
	asserts, annotates := loadPlan(t, plan), loadPlan(t, plan+"formats: annotate\n")
	for _, wrong := range []string{`{"email":"nobody"}`, `{"email":"@example.com"}`, `{"at":"2026-02-30T00:00:00Z"}`, `{"at":"2026-01-31"}`} {
		require.Equal(t, Rejected, asserts.Check([]byte(track("A", wrong))).Status, wrong)
		require.Equal(t, Valid, annotates.Check([]byte(track("A", wrong))).Status, wrong)
	}
	for _, right := range []string{`{"email":"a.b+c@mail.example.com"}`, `{"email":"\"quo ted\"@example.com"}`, `{"at":"2024-02-29T23:59:60Z"}`, `{"at":"2026-01-31T08:30:00.123+05:30"}`, `{"email":7}`} {
		require.Equal(t, Valid, asserts.Check([]byte(track("A", right))).Status, right)
	}
}

// TestViolationMessages checks the wording of violations: the message states what to do and never
// contains the value.
func TestViolationMessages(t *testing.T) {
	const secret = "5ecret"
	for _, test := range []struct{ schema, properties, want string }{
		{`{ type: [integer, "null"] }`, `"5ecret"`, `/properties type: must be an integer or null, not a string`},
		{`{ required: [a, b] }`, `{"b":1}`, `/properties required: lacks "a"`},
		{`{ enum: [1, x, null, [1]] }`, `"5ecret"`, `/properties enum: must be one of 1, "x", null, an array`},
		{`{ const: yes }`, `"5ecret"`, `/properties const: must be "yes"`},
		{`{ format: email }`, `"5ecret"`, `/properties format: is not in the format email`},
		{`{ pattern: "^x" }`, `"5ecret"`, `/properties pattern: does not match the pattern ^x`},
		{`{ minLength: 10 }`, `"5ecret"`, `/properties minLength: must be at least 10 characters long, not 6`},
		{`{ maxLength: 1 }`, `"5ecret"`, `/properties maxLength: must be at most 1 character long, not 6`},
		{`{ minimum: 0.5 }`, `0.25`, `/properties minimum: must be at least 0.5`},
		{`{ exclusiveMaximum: 3 }`, `3`, `/properties exclusiveMaximum: must be less than 3`},
		{`{ multipleOf: 0.01 }`, `0.001`, `/properties multipleOf: must be a multiple of 0.01`},
		{`{ minItems: 2 }`, `["5ecret"]`, `/properties minItems: must have at least 2 items, not 1`},
		{`{ uniqueItems: true }`, `["5ecret",1,"5ecret"]`, `/properties uniqueItems: has equal items, number 0 and number 2`},
		{`{ contains: { type: number } }`, `["5ecret"]`, `/properties contains: has no item such as it must contain`},
		{`{ additionalProperties: false }`, `{"y":"5ecret","x":1}`, `/properties additionalProperties: may not have "x", "y"`},
		{`{ unevaluatedProperties: false }`, `{"y":"5ecret"}`, `/properties/y unevaluatedProperties: is not allowed here`},
		{`{ propertyNames: { maxLength: 1 } }`, `{"yy":"5ecret"}`, `/properties propertyNames: may not have a member named "yy"`},
		{`{ dependentRequired: { a: [b] } }`, `{"a":"5ecret"}`, `/properties dependentRequired: lacks "b", needed beside "a"`},
		{`{ not: { type: string } }`, `"5ecret"`, `/properties not: is of a kind that is not allowed`},
		{`{ properties: { "a/b": false } }`, `{"a/b":"5ecret"}`, `/properties/a~1b false: is not allowed here`},
		{`{ anyOf: [{ required: [a] }, { properties: { b: { type: number } }, required: [c] }] }`, `{"b":"5ecret"}`,
			`/properties anyOf: matches none of the alternatives: lacks "a"; or /b must be a number, not a string and lacks "c"`},
		{`{ oneOf: [true, { type: string }] }`, `"5ecret"`, `/properties oneOf: matches more than one alternative; it must match exactly one`},
		{`{ allOf: [{ required: [a] }, { $ref: "#/$defs/d" }] }`, `{"b":"5ecret"}`, "/properties required: lacks \"a\"\n/properties/b type: must be a number, not a string"},
	} {
		plan := loadPlan(t, "name: test\nversion: 1\n$defs: { d: { properties: { b: { type: number } } } }\nevents: { A: { properties: "+test.schema+" } }\n")
		r := plan.Check([]byte(track("A", test.properties)))
		require.Equal(t, Rejected, r.Status, test.schema)
		var got []string
		for _, v := range r.Violations {
			got = append(got, v.Pointer+" "+v.Rule+": "+v.Message)
		}
		require.Equal(t, test.want, strings.Join(got, "\n"))
		require.NotContains(t, test.want, secret)
	}
}

func TestManyViolations(t *testing.T) {
	plan := loadPlan(t, "name: test\nversion: 1\nevents: { A: { properties: { items: { type: string } } } }\n")
	r := plan.Check([]byte(track("A", "["+strings.Repeat("1,", 999)+"1]")))
	require.Len(t, r.Violations, maxViolations)
	require.Equal(t, "breaks 981 more rules", r.Violations[maxViolations-1].Message)
}

func TestMalformedEventsAreRejected(t *testing.T) {
	plan := loadPlan(t, "name: test\nversion: 1\non_violation: [coerce, strip, pass]\nevents: { A: {} }\n")
	plan.SetMaxDepth(5)
	valid := func(properties string) string { return track("A", properties) }
	for _, test := range []struct{ event, want string }{
		{"", ": json: is not valid JSON: it is empty"},
		{" \n", ": json: is not valid JSON: it is empty"},
		{"\xef\xbb\xbf{}", ": json: is not valid JSON: it begins with a byte order mark"},
		{`{"type":"track"`, ": json: is not valid JSON at byte 15: unexpected end of JSON input"},
		{valid(`{}`) + "x", ": json: is not valid JSON at byte 45: invalid character 'x' after top-level value"},
		{valid(`{}`) + valid(`{}`), ": json: is not valid JSON at byte 45: invalid character '{' after top-level value"},
		{valid(`NaN`), ": json: is not valid JSON at byte 42: invalid character 'N' looking for beginning of value"},
		{valid(`nan`), ": json: is not valid JSON at byte 43: invalid character 'a' in literal null (expecting 'u')"},
		{valid(`+1`), ": json: is not valid JSON at byte 42: invalid character '+' looking for beginning of value"},
		{valid(`01`), ": json: is not valid JSON at byte 43: invalid character '1' after object key:value pair"},
		{valid(`1.`), ": json: is not valid JSON at byte 44: invalid character '}' after decimal point in numeric literal"},
		{valid(`.5`), ": json: is not valid JSON at byte 42: invalid character '.' looking for beginning of value"},
		{valid(`1e`), ": json: is not valid JSON at byte 44: invalid character '}' in exponent of numeric literal"},
		{valid(`--1`), ": json: is not valid JSON at byte 43: invalid character '-' in numeric literal"},
		{valid(`[1,]`), ": json: is not valid JSON at byte 45: invalid character ']' looking for beginning of value"},
		{valid("\"a\nb\""), `: json: is not valid JSON at byte 44: invalid character '\n' in string literal`},
		{valid("\"\x1c\\n\""), `: json: is not valid JSON at byte 43: invalid character '\x1c' in string literal`},
		{valid(`"\x"`), `: json: is not valid JSON at byte 44: invalid character 'x' in string escape code`},
		{valid(`"\u12G4"`), `: json: is not valid JSON at byte 47: invalid character 'G' in \u hexadecimal character escape`},
		{valid("\"\xff\""), ": encoding: is not valid UTF-8 at byte 42"},
		{valid("\"\xed\xa0\x80\""), ": encoding: is not valid UTF-8 at byte 42"},
		{valid(`"\ud83d"`), ": encoding: has half a surrogate pair at byte 42, which is no character"},
		{valid(`"\\\ud83d\u0041"`), ": encoding: has half a surrogate pair at byte 44, which is no character"},
		{valid(`"\udc00\ud83d"`), ": encoding: has half a surrogate pair at byte 42, which is no character"},
		{valid(`{"a":1,"a":1}`), "/properties: duplicate_key: has two members of one name"},
		{valid(`{"a":1,"\u0061":1}`), "/properties: duplicate_key: has two members of one name"},
		{valid(`[{"":1,"":1}]`), "/properties/0: duplicate_key: has two members of one name"},
		{valid(manyMembers(200) + `,"k7":1}`), "/properties: duplicate_key: has two members of one name"},
		{valid(`[[[[[]]]]]`), ": depth: is nested more than 5 levels deep"},
		{valid(`1e400`), "/properties: number: has a number beyond the range of a 64-bit float"},
		{valid(`{"a/b":[-1e999999999]}`), "/properties/a~1b/0: number: has a number beyond the range of a 64-bit float"},
		{valid(strings.Repeat("9", 310)), "/properties: number: has a number beyond the range of a 64-bit float"},
		{valid("0." + strings.Repeat("0", 400)), "/properties: number: has a number beyond the range of a 64-bit float"},
	} {
		r := plan.Check([]byte(test.event))
		require.Equal(t, Rejected, r.Status, test.event)
		require.Len(t, r.Violations, 1)
		v := r.Violations[0]
		require.Equal(t, test.want, v.Pointer+": "+v.Rule+": "+v.Message, test.event)
	}
	for _, event := range []string{
		valid(`[[[[]]]]`), valid(`"[[[[[[[[{{{{{{"`), " \t\r\n" + valid(`{ "a" : [ ] }`) + "\n", valid(`"\ud83d\ude00 \\ud83d \"[["`),
		valid(manyMembers(200) + "}"), valid(strings.Repeat("9", 308)), valid(`-0.0e-300`), valid(`"ü€😀"`), valid("\"\u007f\""),
	} {
		require.Equal(t, Valid, plan.Check([]byte(event)).Status, event)
	}
}

// manyMembers is an object without its closing brace.
func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	return "{" + b.String()[1:]
}

func TestProperties(t *testing.T) {
	plan := loadPlan(t, `
name: test
version: 1
envelope: { properties: { messageId: {}, context: { properties: { ip: {} } } } }
events:
  A:
    properties:
      $ref: '#/$defs/tree'
      properties: { never: false, "dotted.name": {} }
    versions:
      "2": { properties: { if: { required: [x] }, then: { properties: { x: {} } } } }
  B:
$defs:
  tree:
    properties:
      products: { type: array, items: { anyOf: [{ properties: { sku: {} } }, { properties: { id: {} } }] } }
      child: { $ref: '#/$defs/leaf' }
  leaf: { properties: { end: {} } }
`)
	require.Equal(t, []string{
		"context", "context.ip", "messageId", "properties", "properties.child", "properties.child.end", "properties.products",
		"properties.products[].id", "properties.products[].sku", "properties.x",
	}, plan.Properties("A"))
	require.Equal(t, []string{"context", "context.ip", "messageId"}, plan.Properties("B"))
	require.Nil(t, plan.Properties("C"))
	require.True(t, plan.HasProperty("A", "properties.products[].sku"))
	require.False(t, plan.HasProperty("A", "properties.total"))
	require.Equal(t, []string{"A", "B"}, plan.EventNames())
	require.True(t, plan.HasEvent("B"))
	require.False(t, plan.HasEvent("C"))
}

// TestRecursiveShape checks that a schema that contains itself gives a finite list.
func TestRecursiveShape(t *testing.T) {
	plan := loadPlan(t, `
name: test
version: 1
events: { A: { properties: { $ref: '#/$defs/node' } } }
$defs: { node: { properties: { left: { $ref: '#/$defs/node' }, right: { items: { $ref: '#/$defs/node' } } } } }
`)
	require.True(t, plan.HasProperty("A", "properties.left.left.right[].left"))
	require.Less(t, len(plan.Properties("A")), 2000)
}

// In draft 7 the keywords beside a $ref have no effect, and in draft 2020-12 they have.
func TestKeywordsBesideARef(t *testing.T) {
	for draft, want := range map[string]Status{"http://json-schema.org/draft-07/schema": Valid, "https://json-schema.org/draft/2020-12/schema": Rejected} {
		for _, keyword := range []string{"const: 1", "enum: [1]", "if: {}, then: false", "not: {}", "maximum: 1", "type: string"} {
			plan := planText(t, "$schema: "+draft+"\nname: p\nversion: 1\n$defs: { any: {} }\nevents:\n  E: { properties: { properties: { a: { $ref: \"#/$defs/any\", "+keyword+" } } } }\n")
			result := plan.Check([]byte(`{"type":"track","event":"E","properties":{"a":2}}`))
			require.Equal(t, want, result.Status, "%s %s: %v", draft, keyword, result.Violations)
		}
		for _, keyword := range []string{"contains: false", "propertyNames: false"} {
			plan := planText(t, "$schema: "+draft+"\nname: p\nversion: 1\n$defs: { any: {} }\nevents:\n  E: { properties: { properties: { a: { $ref: \"#/$defs/any\", "+keyword+" }, b: { $ref: \"#/$defs/any\", "+keyword+" } } } }\n")
			result := plan.Check([]byte(`{"type":"track","event":"E","properties":{"a":[1],"b":{"x":1}}}`))
			require.Equal(t, want, result.Status, "%s %s: %v", draft, keyword, result.Violations)
		}
	}
}
