package configspec

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const testSchema = `{
  "config": [
    { "name": "features", "children": [ { "name": "name" }, { "name": "count", "children": [ { "name": "events" }, { "name": "window" } ] } ] },
    { "name": "unit", "options": [ "seconds", "days" ] }
  ],
  "processors": [ { "name": "validate_event", "config": { "name": "", "children": [ { "name": "plan" }, { "name": "stage" } ] } } ]
}`

// The messages are those of the engine's linter, of its YAML parser and of Bloblang's.
func TestAdviseNamesTheCorrection(t *testing.T) {
	const query = "expected the mapping to end here, got: and"
	advisor, err := NewAdvisor([]byte(testSchema))
	require.NoError(t, err)
	for _, c := range []struct {
		name, text, message string
		line                int
		want                string
		wantLine            int
	}{
		{"tab", "a:\n\tb: 1\n", "yaml: line 2: found character that cannot start any token", 1, "a tab cannot indent YAML: write spaces", 2},
		{"colon", "a: 1\nb 2\nc: 3\n", "yaml: line 3: could not find expected ':'", 1, "a key needs a colon and a space after it: write b: 2", 2},
		{"indentation", "a:\n  - b: 1\n   c: 2\n", "yaml: line 3: did not find expected '-' indicator", 1,
			"the indentation does not match the lines around it: align keys of one object, and the dashes of one list (did not find expected '-' indicator)", 3},
		{"another YAML error", "a", "yaml: line 1: something else", 1, "something else", 1},
		{"unknown field", "features:\n  - name: a\n    cuont: {}\n", "field cuont not recognised", 3, `field cuont not recognised; did you mean "count"?`, 3},
		{"unknown option", "unit: day\n", "value day is not a valid option for this field", 1,
			`value day is not a valid option for this field: write one of seconds, days; did you mean "days"?`, 1},
		{"unknown component", "x: 1\n", "unable to infer processor type from candidates: [validate_events]", 1,
			`unable to infer processor type from candidates: [validate_events]; did you mean "validate_event"?`, 1},
		{"scalar for a list", "on: { events: identify, repeat: first }\n", "expected array value", 1, "expected array value: write a list, such as events: [identify]", 1},
		{"and", "when: 'a > 1 and b > 2'\n", query, 1, "Bloblang has no word for and: write && between conditions", 1},
		{"and in a text", "when: 'a == \"salt and pepper\" b'\n", query, 1, query, 1},
		{"or in a block", "check: |\n  a > 1\n  b or c\n", query, 3, "Bloblang has no word for or: write || between conditions", 3},
		{"not", "when: not a\n", query, 1, "Bloblang has no word for not: write ! before the condition", 1},
		{"single quotes", "when: a == 'DE'\n", query, 1, `a text is in double quotes in Bloblang: write "DE", not 'DE'`, 1},
		{"unequal", "when: a <> 1\n", query, 1, "write != for unequal", 1},
		{"a message of our own", "when: a and b\n", "there is no feature \"a\"", 1, "there is no feature \"a\"", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			line, got := advisor.Advise([]byte(c.text), c.line, c.message)
			require.Equal(t, c.want, got)
			require.Equal(t, c.wantLine, line)
		})
	}
}

func TestDuplicateKey(t *testing.T) {
	for text, want := range map[string]int{"a: 1\nb: 2\n": 0, "a: 1\na: 2\n": 2, "a: { b: 1, c: { d: 1, d: 2 } }\n": 1, "- a: 1\n- a: 1\n": 0} {
		var doc yaml.Node
		require.NoError(t, yaml.Unmarshal([]byte(text), &doc))
		line, _, ok := DuplicateKey(&doc)
		require.Equal(t, want > 0, ok, text)
		require.Equal(t, want, line, text)
	}
}

func FuzzAdvise(f *testing.F) {
	f.Add("a:\n\tb: 1\n", 2, "yaml: line 2: x")
	f.Add("when: 'a and b'", 1, "expected")
	f.Fuzz(func(t *testing.T, text string, line int, message string) {
		advisor, err := NewAdvisor([]byte(testSchema))
		require.NoError(t, err)
		advisor.Advise([]byte(text), line, message) // does not panic
	})
}
