package trackingplan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// everyKeyword is a plan with an event that uses every keyword our evaluator supports.
const everyKeyword = `
name: fuzz
version: 1
on_violation: [coerce, strip]
envelope: { required: [type] }
events:
  A:
    properties: &all
      type: [object, array, string, number, "null"]
      properties:
        s: { type: string, minLength: 1, maxLength: 3, pattern: "^[a-zé😀]*$" }
        n: { type: number, minimum: 0.5, exclusiveMaximum: 100, multipleOf: 0.25 }
        i: { type: integer }
        e: { enum: [a, b, 1, 2.5, null, true, [1], { x: 1 }] }
        many: { enum: [a, b, c, d, e, f, g, h] }
        c: { const: { x: [1, "y"] } }
        at: { format: date-time }
        on: { format: date }
        email: { format: email }
        nested: { $ref: "#/$defs/all" }
      patternProperties: { "^p": { type: boolean } }
      additionalProperties: { type: [string, number, object, array] }
      propertyNames: { maxLength: 8 }
      maxProperties: 12
      dependentRequired: { i: [n] }
      dependentSchemas: { e: { required: [s] } }
      prefixItems: [{ type: string }, { type: number }]
      items: { not: { type: boolean } }
      contains: { type: number }
      maxContains: 3
      uniqueItems: true
      maxLength: 5
      if: { required: [s] }
      then: { required: [n] }
      else: { anyOf: [{ type: object, oneOf: [{ required: [n] }, { required: [i] }] }, { allOf: [{ type: [array, string, "null"] }] }] }
  B: { properties: { additionalProperties: { type: number } } }
  C: { on_violation: pass, properties: { unevaluatedProperties: false, properties: { a: {} } } }
$defs: { all: *all }
`

// FuzzCheck compares the parser with the standard library, and the validation with the
// JSON Schema library.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{
		orderEvent, "", "{}", "[]", `{"type":"track"}`, "\xef\xbb\xbf{}",
		track("A", `{"s":"é","n":12.5,"i":1e2,"e":{"x":1.0},"c":{"x":[1,"y"]},"at":"2026-01-31T08:30:00Z","on":"2026-01-31","email":"a@b.c","px":true}`),
		track("A", `["a",1,"b",{"a":[1.0]}]`), track("A", `"\ud83d\ude00\\\"\u0041"`), track("A", `{"nested":{"nested":{"n":-1e-7}}}`),
		track("B", `{"a":"12.50","b":"-0","c":"1E5","d":true}`), track("C", `{"a":1,"b":2}`),
		track("A", `{"a":1,"\u0061":2}`), track("A", `"\udc00"`), track("A", `[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]`),
		track("A", `1e400`), track("A", `123456789012345678901234567890.5`), track("A", "\"\t\""), track("A", "\"\x1c\\b\""), track("A", "\"\xff\""), track("A", `NaN`),
	} {
		f.Add([]byte(seed))
	}
	plan := loadPlan(f, everyKeyword)
	shopPlan, err := Load(shopPlan)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, event []byte) {
		kept := bytes.Clone(event)
		for _, p := range []*Plan{plan, shopPlan} {
			r := p.Check(event)
			require.Equal(t, kept, event, "the event is not changed")
			require.Equal(t, r.Status == Valid, len(r.Violations) == 0)
			for _, v := range r.Violations {
				require.NotEqual(t, RuleInternal, v.Rule)
				require.True(t, utf8.ValidString(v.Pointer+v.Message))
			}
			if r.Status == Repaired {
				again := p.Check(r.Body)
				require.Equal(t, Valid, again.Status, "%s: %v", r.Body, again.Violations)
			}
			var rd reader
			v, fault := rd.read(event, DefaultMaxDepth)
			require.Equal(t, readable(event), fault == nil, "%v", fault)
			if fault != nil {
				require.Equal(t, Rejected, r.Status)
				continue
			}
			for _, planned := range p.events {
				for _, c := range planned.checks {
					target, generic := v, mustUnmarshal(t, event)
					if c.member != "" {
						root, ok := generic.(map[string]any)
						if !ok || root[c.member] == nil {
							continue
						}
						target, generic = v.Get(c.member), root[c.member]
					}
					s := &scratch{}
					got := c.schema.valid(&s.evaluator, target)
					if c.schema.fast != nil && !s.evaluator.unsure {
						require.Equal(t, c.schema.lib.Validate(generic) == nil, got, "%s", planned.name)
					}
				}
			}
		}
	})
}

// readable is a slow model of reader.read, based on the standard library.
func readable(data []byte) bool {
	if !utf8.Valid(data) || !json.Valid(data) || loneSurrogateSlowly(data) {
		return false
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var value func(depth int) error
	value = func(depth int) error {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case json.Delim:
			if depth >= DefaultMaxDepth {
				return fmt.Errorf("too deep")
			}
			keys := map[string]bool{}
			for dec.More() {
				if token == '{' {
					key, err := dec.Token()
					if err != nil {
						return err
					}
					if keys[key.(string)] {
						return fmt.Errorf("twice")
					}
					keys[key.(string)] = true
				}
				if err := value(depth + 1); err != nil {
					return err
				}
			}
			_, err = dec.Token()
			return err
		case json.Number:
			f, err := strconv.ParseFloat(string(token), 64)
			if err != nil || math.IsInf(f, 0) {
				return fmt.Errorf("too big")
			}
			if len(token) > maxNumberLength || exponentSlowly(string(token)) > maxExponent {
				return fmt.Errorf("too long")
			}
		}
		return nil
	}
	return value(0) == nil
}

func exponentSlowly(number string) int {
	i := bytes.IndexAny([]byte(number), "eE")
	if i < 0 {
		return 0
	}
	e, err := strconv.Atoi(number[i+1:])
	if err != nil {
		return math.MaxInt
	}
	return max(e, -e)
}

// loneSurrogateSlowly decodes every code unit of an escape.
func loneSurrogateSlowly(data []byte) bool {
	high := false
	for i := 0; i < len(data); i++ {
		unit := -1
		if data[i] == '\\' {
			if i++; data[i] == 'u' {
				n, _ := strconv.ParseUint(string(data[i+1:i+5]), 16, 16)
				unit, i = int(n), i+4
			}
		}
		low := unit >= 0xDC00 && unit <= 0xDFFF
		if high != low {
			return true
		}
		high = unit >= 0xD800 && unit <= 0xDBFF
	}
	return high
}

// FuzzPlan parses any text as a plan, and uses the plan if it is valid.
func FuzzPlan(f *testing.F) {
	for _, seed := range []string{
		everyKeyword, policyPlan, watchedPlan, "", "name: a", "a: &a [*a]", "- ? {a: b}\n  : c", "events: {A: {<<: [{properties: {}}]}}",
		head + "events: { A: { versions: { 1: {}, 0x2: {} }, default_version: 2 } }", head + "$defs: {a: {$anchor: a, $id: x}}\nevents: { A: { properties: { $ref: '#a' } } }",
		head + "events: { A: { properties: { $ref: 'plan.yaml#/events/A/properties' } } }", head + "events: { A: { properties: { $id: 'http://[' } } }",
		head + "events: { A: { properties: { minimum: 1e400, maximum: .inf, multipleOf: 0x10, const: 2026-01-01, enum: [1_000, ~, .5] } } }",
		head + "$schema: http://json-schema.org/draft-07/schema#\ndefinitions: { d: {} }\nevents: { A: { envelope: { $ref: '#/definitions/d' } } }",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "plan.yaml")
		plan, lints := build(path, text, sources{})
		require.Equal(t, finding.ToError(lints) == nil, plan != nil)
		for _, l := range lints {
			require.NotZero(t, l.Line)
			require.LessOrEqual(t, l.Line, bytes.Count(text, []byte("\n"))+bytes.Count(text, []byte("\r"))+2)
			require.NotEmpty(t, l.Message)
			require.NotContains(t, l.Message, "cannot be compiled")
		}
		if plan == nil {
			return
		}
		for _, name := range plan.EventNames() {
			plan.Properties(name)
			quoted, err := json.Marshal(name)
			require.NoError(t, err)
			for _, properties := range []string{`{}`, `{"a":1,"b":"x"}`, `[1,"2",null]`, `0`} {
				r := plan.Check([]byte(`{"type":"track","event":` + string(quoted) + `,"properties":` + properties + `}`))
				for _, v := range r.Violations {
					require.NotEqual(t, RuleInternal, v.Rule)
				}
			}
		}
	})
}

// TestLibraryOverrulesTheEvaluator checks that an event that our evaluator rejects by
// mistake is still valid.
func TestLibraryOverrulesTheEvaluator(t *testing.T) {
	plan := loadPlan(t, "name: test\nversion: 1\nevents: { A: { properties: { required: [a] } } }\n")
	no := false
	plan.events["A"].checks[0].schema.fast = &node{constant: &no}
	require.Equal(t, "valid", summary(plan.Check([]byte(track("A", `{"a":1}`)))))
	require.Equal(t, "rejected /properties=required", summary(plan.Check([]byte(track("A", `{}`)))))
	require.IsType(t, &jsonschema.Schema{}, plan.events["A"].checks[0].schema.lib)
}
