package content

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fastjson"
	"gopkg.in/yaml.v2"
)

// goldenCase is a case of the public suite golden-liquid (testdata/golden-liquid).
type goldenCase struct {
	Name, Template string
	Data           json.RawMessage
	Result         *string
	Results        []string
	Invalid        bool
	Tags           []string
}

// refused are the cases that differ by design, by their name or the group that it
// begins with. docs/content.md explains them.
var refused = map[string]string{
	"tags, include":                     "a block contains all of its content and reads no other files",
	"tags, render":                      "a block contains all of its content and reads no other files",
	"tags, case, unexpected when token": "a malformed tag is reported by lint instead of being ignored",
}

func refusal(name string) string {
	if reason, ok := refused[name]; ok {
		return reason
	}
	for prefix, reason := range refused {
		if strings.HasPrefix(name, prefix+", ") && strings.Count(prefix, ",") == 1 {
			return reason
		}
	}
	return ""
}

func TestGoldenLiquid(t *testing.T) {
	raw, err := os.ReadFile("testdata/golden-liquid/cases.json")
	require.NoError(t, err)
	var suite struct{ Tests []goldenCase }
	require.NoError(t, json.Unmarshal(raw, &suite))
	type counts struct{ cases, passed, refused int }
	groups := map[string]*counts{}
	var total counts
	for _, c := range suite.Tests {
		parts := strings.Split(c.Name, ", ")
		name := parts[0]
		if len(parts) > 2 {
			name += ", " + parts[1]
		}
		if groups[name] == nil {
			groups[name] = &counts{}
		}
		g := groups[name]
		g.cases++
		total.cases++
		got, problem := renderGolden(c)
		reason := refusal(c.Name)
		switch {
		case c.passes(got, problem):
			g.passed++
			total.passed++
			if reason != "" {
				t.Errorf("%s passes, although it is listed as refused", c.Name)
			}
		case reason != "":
			g.refused++
			total.refused++
		default:
			t.Errorf("%s: %q is %q (%s)", c.Name, c.Template, got, problem)
		}
	}
	if testing.Verbose() {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "group\tcases\tpassed\trefused by design")
		for _, name := range slices.Sorted(func(yield func(string) bool) {
			for name := range groups {
				if !yield(name) {
					return
				}
			}
		}) {
			g := groups[name]
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", name, g.cases, g.passed, g.refused)
		}
		fmt.Fprintf(w, "all\t%d\t%d\t%d\n", total.cases, total.passed, total.refused)
		require.NoError(t, w.Flush())
	}
}

func (c goldenCase) passes(got, problem string) bool {
	switch {
	case c.Invalid:
		return problem != ""
	case problem != "":
		return false
	case c.Result != nil:
		return got == *c.Result
	}
	return slices.Contains(c.Results, got)
}

// renderGolden renders a case as a text block. Its variables are the data.
func renderGolden(c goldenCase) (content, problem string) {
	nodes, problems := compile(c.Template, 1, &scope{open: true, used: map[string]bool{}})
	if len(problems) > 0 {
		return "", problems[0].Message
	}
	r := &run{
		maxBytes: 1 << 20, deadline: time.Now().Add(5 * time.Second), zone: time.UTC,
		asOf: moment, vars: map[string]any{},
	}
	if len(c.Data) > 0 {
		v, err := fastjson.ParseBytes(c.Data)
		if err != nil {
			return "", err.Error()
		}
		for _, item := range variablesOf(v).(yaml.MapSlice) {
			r.vars[item.Key.(string)] = item.Value
		}
	}
	out, failure := r.template(nodes)
	if failure != nil {
		return "", failure.message
	}
	return string(out), ""
}

// variablesOf converts JSON without the rules for profiles: an empty text is a text.
func variablesOf(v *fastjson.Value) any {
	switch v.Type() {
	case fastjson.TypeNull:
		return nil
	case fastjson.TypeString:
		return string(v.GetStringBytes())
	case fastjson.TypeArray:
		out := []any{}
		for _, item := range v.GetArray() {
			out = append(out, variablesOf(item))
		}
		return out
	case fastjson.TypeObject:
		out := yaml.MapSlice{}
		v.GetObject().Visit(func(key []byte, v *fastjson.Value) {
			out = append(out, yaml.MapItem{Key: string(key), Value: variablesOf(v)})
		})
		return out
	}
	if n, ok := value(v, 0).(amount); ok {
		return float64(n)
	}
	return value(v, 0)
}
