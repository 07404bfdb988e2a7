package content

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Every file either has a problem or renders within its budget.
func FuzzParse(f *testing.F) {
	for _, template := range []string{
		`{% liquid
  assign a = traits.x | split: ','
  for b in a offset: continue limit: 2
    cycle b: 1, b
  endfor
%}{% tablerow a in (1..3) cols: 2 %}{{ tablerowloop.col }}{% endtablerow %}`,
		`<td{% if id %} class="{{ id }}"{% endif %}>{% ifchanged %}{{ id }}{% endifchanged %}{% increment x %}{% # c %}{% doc %}x{% enddoc %}`,
		`{% capture c %}<b>{{ id | date: "%-d %^B", "UTC" }}</b>{% endcapture %}{{ c | append: id | upcase | strip_html }}{{ id | default: 1, allow_false: true }}`,
		`<p title="{{ traits.a | default: "x" | truncate: 3 }}">{% for i in (1..3) %}{{ i }}{% else %}n{% endfor %}</p>`,
		`{% assign x = features.n | plus: 1 %}{% capture y %}{{ x }}{% endcapture %}{% case y %}{% when "1", 2 %}a{% else %}b{% endcase %}`,
		`<a href="https://a.example/{{ id }}?q={{ id | url_encode }}">{%- unless id -%} x {%- endunless -%}</a><!--[if mso]>{{ id }}<![endif]-->`,
		`{% comment %}{{ x }}{% endcomment %}{% raw %}{{ x }}{% endraw %}{{ traits["a"][0].b.size }}`,
		`{{ 99999999999999999999 }}`, `{{ (1..9999999999) | join: "," }}`, `{% for a in (1..99999999) %}{% endfor %}`,
	} {
		f.Add(blockText(HTML, template))
		f.Add(blockText(Text, template))
	}
	f.Add("type: html\nfallback: x\nbudget: { time: 1ms, bytes: 1KB }\ndefaults: { traits: { a: [1, {b: c}] } }\nrequires: [ traits.a ]\ntemplate: x\nsamples: [ { name: a, profile: { traits: {} } } ]\n")
	p := &Profile{ID: `"><script>`, AsOf: time.Unix(0, 0)}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "time:") {
			t.Skip() // a block may use a budget of seconds
		}
		b, problems := parse("b.yaml", []byte(text), anything)
		if b == nil {
			require.NotEmpty(t, problems)
			for _, p := range problems {
				require.Positive(t, p.Line)
				require.NotEmpty(t, p.Message)
			}
			return
		}
		began := time.Now()
		got := b.Render(p)
		require.LessOrEqual(t, len(got.Content), max(b.Budget.Bytes, len(b.Fallback)))
		require.Less(t, time.Since(began), 5*time.Second)
	})
}

// A value does not change the position of the page: the template after it is parsed
// as if the value were not there.
func TestValuesDoNotChangeTheirPosition(t *testing.T) {
	places := []string{
		`<p>%</p>`, `<p title="%">`, `<p title='%'>`, `<a href="%">`, `<a href="https://a.example/%/b">`, `<a href="https://a.example/?q=%&b=c">`,
		`<p style="color: %">`, `<title>%</title>`, `<textarea>%</textarea>`, `<style>a { color: % }</style>`, `<!-- % -->`, `<!--[if mso]>%<![endif]-->`,
	}
	pieces := rapid.SampledFrom([]string{"<", ">", `"`, "'", "&", "--", "-->", "</", "<!--", "]]>", "script", "style", "title", "textarea", "javascript:", "data:", "//", "/", "?", "#", "=", " ", "\n", "\x00", "`", "(", ")", ";", "{", "}", "{{", "%}", "é", "x"})
	rapid.Check(t, func(t *rapid.T) {
		place := rapid.SampledFrom(places).Draw(t, "place")
		value := strings.Join(rapid.SliceOfN(pieces, 0, 8).Draw(t, "value"), "")
		if strings.TrimSpace(value) == "" {
			return
		}
		before, after, _ := strings.Cut(place, "%")
		p := &page{}
		p.read(before)
		position := *p.clone()
		text, problem := p.admit(markup{text: value})
		if problem != "" {
			t.Fatalf("refused: %s", problem)
		}
		// A page that reads the escaped value as text of the template stays at its
		// position.
		naive := position.clone()
		naive.read(text)
		if !naive.like(&position) {
			t.Fatalf("%q changed the position: %q", value, text)
		}
		p.read(after)
		naive.read(after)
		if !naive.like(p) {
			t.Fatalf("%q changed the position behind it: %q", value, text)
		}
		if strings.Contains(place, "href=") {
			lower := strings.ToLower(before + text)
			for _, bad := range []string{`"javascript:`, `"data:`} {
				if strings.Contains(lower, bad) {
					t.Fatalf("%q became %q", value, text)
				}
			}
		}
	})
}
