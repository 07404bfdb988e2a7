package trackingplan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// lintText lints a plan and returns the findings without the folder, advice in
// brackets.
func lintText(t *testing.T, plan string, files ...string) string {
	t.Helper()
	path := writePlan(t, plan, files...)
	var lines []string
	hard := false
	for _, l := range Lint(path) {
		rel, err := filepath.Rel(filepath.Dir(path), l.File)
		require.NoError(t, err)
		l.File = filepath.ToSlash(rel)
		line := l.String()
		if l.Advice {
			line = "[" + line + "]"
		}
		hard = hard || !l.Advice
		lines = append(lines, line)
	}
	_, err := Load(path)
	require.Equal(t, hard, err != nil, "a plan loads unless more than advice is given on it")
	return strings.Join(lines, "\n")
}

const head = "name: test\nversion: 1\n"

func TestLint(t *testing.T) {
	for _, test := range []struct {
		name, plan, want string
		files            []string
	}{
		{name: "fine", plan: head + "events: { A: }"},
		{
			name: "nothing", plan: "", want: "plan.yaml:1: the file is empty",
		},
		{
			name: "no mapping", plan: "- a\n- b",
			want: `plan.yaml:1: a tracking plan is a mapping; begin with "name: shop"`,
		},
		{
			name: "not YAML", plan: head + "events: [\n",
			want: "plan.yaml:3: is not valid YAML: did not find expected node content",
		},
		{
			name: "two documents", plan: head + "events: { A: }\n---\nname: b",
			want: "plan.yaml:4: holds a second YAML document; write one document a file",
		},
		{
			name: "what every plan needs", plan: "on_violation: pass",
			want: `plan.yaml:1: a plan needs events; write "events:" with the name of each event under it
plan.yaml:1: a tracking plan needs a name; write "name: shop"
plan.yaml:1: a tracking plan needs a version; write "version: 1.0.0"`,
		},
		{
			name: "misspelt keys",
			plan: head + "on_unplaned: mark\ncolour: red\nevents:\n  A:\n    propertys: {}\n    versions: { \"1\": { trait: {} } }",
			want: `plan.yaml:3: a tracking plan has no "on_unplaned"; did you mean "on_unplanned"?
plan.yaml:4: a tracking plan has no "colour"; write one of $schema, name, version, description, on_violation, on_unplanned, event_version, formats, schema_urls, $defs, definitions, envelope, events
plan.yaml:7: event "A" has no "propertys"; did you mean "properties"?
plan.yaml:8: event "A", version "1" has no "trait"; did you mean "traits"?`,
		},
		{
			name: "policies",
			plan: head + "on_violation: dead-letter\non_unplanned: drop\nevents:\n  A: { on_violation: [pass, strip] }\n  B: { on_violation: [coerce, 7] }\n  C: { on_violation: [] }",
			want: `plan.yaml:3: on_violation: dead-letter is not a policy; did you mean "dead_letter"?
plan.yaml:4: on_unplanned: drop is not a policy; write allow, mark or dead_letter
plan.yaml:6: on_violation: nothing can come after pass; write repairs first, such as [coerce, strip, pass]
plan.yaml:7: on_violation: 7 is not a policy; write dead_letter, pass, or the repairs coerce and strip with one of these after them, such as [coerce, pass]
plan.yaml:8: on_violation: is empty; write dead_letter, pass, coerce or strip`,
		},
		{
			name: "settings",
			plan: head + "$schema: http://json-schema.org/draft-04/schema#\nformats: yes\nevent_version: context..v\nschema_urls: { \"file:///x\": x, \"https://x\": ../up }\nevents: { A: }",
			want: `plan.yaml:3: $schema: write https://json-schema.org/draft/2020-12/schema or http://json-schema.org/draft-07/schema
plan.yaml:4: formats: write assert, so that a format such as email is checked, or annotate, so that it is only a note
plan.yaml:5: event_version must be the path of the version in an event, keys joined by dots, such as context.protocols.event_version
plan.yaml:6: schema_urls: write a folder inside the plan's own, such as schemas
plan.yaml:6: schema_urls: write the beginning of an http or https URL, such as https://example.com/schemas/`,
		},
		{
			name: "names", plan: head + "events:\n  Order Completed:\n  order  completed:\n  ' A':\n  Order Completed:\n",
			want: `plan.yaml:7: "Order Completed" stands here and on line 4; write it once`,
		},
		{
			name: "names alike", plan: head + "events:\n  Order Completed:\n  order  completed:\n  ' A':\n",
			want: `plan.yaml:5: event "order  completed" differs from "Order Completed" on line 4 by case or spaces only; keep one of them
plan.yaml:6: event " A": a name may neither be empty nor begin or end with a space`,
		},
		{
			name: "sections",
			plan: head + "events:\n  identify: { properties: {} }\n  Order Completed: { traits: {} }\n  B: [1]\n",
			want: `plan.yaml:4: event "identify": this event has no properties; write the schema under traits, or under envelope if it is about the whole event
plan.yaml:5: event "Order Completed": this event has no traits; write the schema under properties, or under envelope if it is about the whole event
plan.yaml:6: event "B": must be a mapping with a schema under properties, traits or envelope`,
		},
		{
			name: "versions",
			plan: head + "events:\n  A:\n    versions: { \"1\": {}, \"2\": {} }\n  B: { properties: {}, default_version: \"1\", versions: { \"1\": {} } }\n  C: { default_version: \"3\", versions: { \"1\": {} } }\n  D: { versions: [] }\n  E: { versions: { \"1\": 7 } }",
			want: `plan.yaml:5: event "A": has several versions; say which one events without a version are by "default_version: 1"
plan.yaml:6: event "B": has schemas of its own for events that state no version; remove default_version, or move the schemas under versions
plan.yaml:7: event "C": default_version is not one of its versions; write one of 1
plan.yaml:8: event "D": versions must map a version, such as "2", to its schemas
plan.yaml:9: event "E", version "1": must be a mapping with a schema under properties, traits or envelope`,
		},
		{
			name: "schemas",
			plan: head + `events:
  A:
    properties:
      type: int
      required: total
      properties:
        total: { minimum: "3" }
        id: { pattern: "(?=x)" }
`,
			want: `plan.yaml:6: event "A": type must be one of string, number, integer, boolean, object, array, null, or a list of these
plan.yaml:7: event "A": required must be an array, not a string
plan.yaml:9: event "A": minimum must be a number, not a string
plan.yaml:10: event "A": pattern cannot be used: invalid or unsupported Perl syntax: ` + "`(?=`" + `; RE2 has no look-around: write the condition as a pattern of its own, for example under allOf`,
		},
		{
			name: "misspelt keywords",
			plan: head + `events:
  A:
    properties:
      requird: [total]
      required: [totl]
      x-note: fine
      owner: fine
      properties: { total: { minimun: 3, example: 4 }, items: {} }
$defs:
  d: { typ: string }
`,
			want: `[plan.yaml:6: event "A": "requird" is no keyword of JSON Schema and has no effect; did you mean "required"?]
[plan.yaml:7: event "A": "totl" is required but not among the properties; did you mean "total"?]
[plan.yaml:10: event "A": "minimun" is no keyword of JSON Schema and has no effect; did you mean "minimum"?]
[plan.yaml:12: "typ" is no keyword of JSON Schema and has no effect; did you mean "type"?]`,
		},
		{
			name: "a draft inside a plan",
			plan: head + "events:\n  A:\n    properties:\n      $schema: http://json-schema.org/draft-07/schema#\n      type: object\n",
			want: `plan.yaml:6: event "A": $schema has no effect here; write it at the top of the plan, or move this schema into a file of its own`,
		},
		{
			name: "references",
			plan: head + `events:
  A: { properties: { $ref: '#/$defs/produkt' } }
  B: { properties: { $ref: schemas/none.json } }
  C: { properties: { $ref: https://example.com/x.json } }
  D: { properties: { $ref: ../outside.json } }
  E: { properties: { $ref: '#nowhere' } }
  F: { properties: { $ref: 'schemas/a.json#/$defs/itm' } }
$defs:
  product: {}
`,
			files: []string{"schemas/a.json", `{"$defs":{"item":{}}}`},
			want: `plan.yaml:4: event "A": $ref: there is nothing at #/$defs/produkt; did you mean "product"?
plan.yaml:5: event "B": $ref: there is no file schemas/none.json
plan.yaml:6: event "C": $ref: schemas are not fetched from the network; copy the file into the plan's folder, and name the folder under schema_urls
plan.yaml:7: event "D": $ref: a schema must be in the plan's folder or below it; copy the file there
plan.yaml:8: event "E": $ref: there is no $anchor #nowhere
plan.yaml:9: event "F": $ref: there is nothing at schemas/a.json#/$defs/itm; did you mean "item"?`,
		},
		{
			name: "schema files",
			plan: head + `events:
  A: { properties: { $ref: a.json } }
  B: { properties: { $ref: b.json } }
  C: { properties: { $ref: c.yaml } }
`,
			files: []string{
				"a.json", "{\n  \"minLenth\": 1,\n  \"properties\": {\n    \"a\": {\n      \"type\": 7\n    }\n  }\n}",
				"b.json", "{\n  \"type\":\n    \"object\",,\n}",
				"c.yaml", "type: object\nproperties:\n  a: { minLength: -1 }\n",
			},
			want: `[a.json:2: "minLenth" is no keyword of JSON Schema and has no effect; did you mean "minLength"?]
a.json:5: type must be one of string, number, integer, boolean, object, array, null, or a list of these
b.json:3: is not valid JSON: invalid character ',' looking for beginning of object key string
c.yaml:3: minLength must be at least 0`,
		},
		{
			name: "a bomb of aliases",
			plan: head + "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]",
			want: "plan.yaml:3: the file unfolds to more than 200000 values; are its aliases nested?",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, lintText(t, test.plan, test.files...))
		})
	}
}

func TestLintReportsAMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	require.Equal(t, []finding.Finding{{
		File: path, Line: 1,
		Message: "there is no such file; write the path of the plan, relative to the folder that connect-personalize runs in",
	}}, Lint(path))
	_, err := Load(path)
	require.ErrorContains(t, err, path+":1: there is no such file")
}

// TestLintReportsLinesOfMergedKeys checks that merge keys and aliases keep their lines.
func TestLintReportsLinesOfMergedKeys(t *testing.T) {
	require.Equal(t, `plan.yaml:7: event "B": minimum must be a number, not a string
plan.yaml:8: event "C": minimum must be a number, not a string`, lintText(t, head+`events:
  A:
    properties: &a
      type: object
  B: { properties: { <<: *a, minimum: x } }
  C: { properties: { <<: [*a, { maximum: 3 }], minimum: x, maximum: 4 } }
`))
}

func TestLintReportsAnUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "plan.yaml"), 0o700))
	lints := Lint(filepath.Join(dir, "plan.yaml"))
	require.Len(t, lints, 1)
	require.Contains(t, lints[0].Message, "is a directory")
}

func TestLintSaysWhyAPatternCannotBeUsed(t *testing.T) {
	for pattern, want := range map[string]string{
		`(?=a)`:         "RE2 has no look-around",
		`(?<!a)b`:       "RE2 has no look-around",
		`(?>a)`:         "does not have this kind of group",
		`(a)\\1`:        "RE2 has no back-references",
		`\\u0041`:       `such as \x{41}`,
		`\\cA`:          `such as \x{41}`,
		`\\xZZ`:         `such as \x{41}`,
		`^a{2,2000}$`:   "RE2 repeats at most 1000 times",
		`a**`:           "no possessive repeats",
		`\\p{Nonsense}`: `write for example \p{L}`,
		`\\y`:           "does not have this escape",
		`[a`:            "write it in RE2 syntax",
	} {
		got := lintText(t, head+"events:\n  A: { properties: { properties: { a: { pattern: \""+pattern+"\" } } } }\n")
		require.Contains(t, got, want, pattern)
		require.Contains(t, got, "plan.yaml:4: ", pattern)
	}
}

func TestLintFindsABadPatternInAListOfItems(t *testing.T) {
	got := lintText(t, "$schema: http://json-schema.org/draft-07/schema#\n"+head+"events:\n  A: { properties: { items: [ { pattern: '(?=a)' } ] } }\n")
	require.Contains(t, got, "RE2 has no look-around")
}
