package content

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var moment = time.Date(2026, 1, 31, 8, 30, 0, 0, time.UTC)

// block makes a block of a template, indented as a file has it.
func block(t testing.TB, kind Type, template string, more ...string) *Block {
	t.Helper()
	b, problems := Parse("b.yaml", []byte(blockText(kind, template, more...)), anything)
	require.Empty(t, problems)
	return b
}

func blockText(kind Type, template string, more ...string) string {
	return fmt.Sprintf("type: %s\ndefinition: shop.yaml\nfallback: FALLBACK\n%stemplate: |2-\n  %s\n", kind, strings.Join(more, ""), strings.ReplaceAll(template, "\n", "\n  "))
}

func anything(string) (Names, error) { return Names{}, nil }

func profileOf(t testing.TB, json string) *Profile {
	t.Helper()
	p, err := ReadProfile([]byte(json), moment)
	require.NoError(t, err)
	return p
}

func TestShippedBlocks(t *testing.T) {
	paths, err := filepath.Glob("../../configs/content/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		b, problems, err := Load(path, anything)
		require.NoError(t, err)
		require.Empty(t, problems)
		require.NotEmpty(t, b.Samples, path)
		if os.Getenv("SHOW") != "" {
			for _, s := range b.Samples {
				fmt.Printf("--- %s: %s\n%s\n", b.Name, s.Name, b.Render(s.Profile).Content)
			}
		}
	}
}

// Whatever a profile holds, it cannot get out of the place a template gives it.
func TestHostileValues(t *testing.T) {
	hostile := `{"traits":{
		"tag":"<script>alert(1)</script>","quote":"\"' onmouseover=alert(1) x=\"","js":"javascript:alert(1)",
		"js2":" JaVa\tScRiPt:alert(1)","js3":"\u0001javascript:alert(1)","data":"data:text/html,<script>alert(1)</script>",
		"vb":"vbscript:x","css":"red;background:url(//evil)","css2":"expression(alert(1))","ok":"https://a.example/x?y=1&z=2",
		"comment":"--><script>alert(1)</script>","close":"</style></title><script>","amp":"a&b=c#d","host":".evil.example/","at":"@evil.example",
		"mail":"mailto:a@b.example","rel":"/p/1","color":"#ff0000","width":40}}`
	p := profileOf(t, hostile)
	for _, c := range []struct{ template, want string }{
		{`<p>{{ traits.tag }}</p>`, `<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>`},
		{`<p title="{{ traits.quote }}">`, `<p title="&#34;&#39; onmouseover=alert(1) x=&#34;">`},
		{`<p title='{{ traits.quote }}'>`, `<p title='&#34;&#39; onmouseover=alert(1) x=&#34;'>`},
		{`<a href="{{ traits.js }}">`, `<a href="#">`},
		{`<a HREF='{{ traits.js2 }}'>`, `<a HREF='#'>`},
		{`<a href="{{ traits.js3 }}">`, `<a href="#">`},
		{`<a href=" {{ traits.js }}">`, `<a href=" #">`},
		{`<a href="{% if traits.js %}{{ traits.js }}{% endif %}">`, `<a href="#">`},
		{`<img src="{{ traits.data }}">`, `<img src="#">`},
		{`<v:image src="{{ traits.vb }}">`, `<v:image src="#">`},
		{`<a href="{{ traits.ok }}">`, `<a href="https://a.example/x?y=1&amp;z=2">`},
		{`<a href="{{ traits.mail }}">`, `<a href="mailto:a@b.example">`},
		{`<a href="{{ traits.rel }}">`, `<a href="/p/1">`},
		{`<a href="https://a.example/{{ traits.tag }}">`, `<a href="https://a.example/%3Cscript%3Ealert%281%29%3C/script%3E">`},
		{`<a href="https://a.example/?q={{ traits.amp }}&r=1">`, `<a href="https://a.example/?q=a%26b%3Dc%23d&r=1">`},
		{`<a href="https://a.example/?q={{ traits.amp | url_encode }}">`, `<a href="https://a.example/?q=a%26b%3Dc%23d">`},
		{`<a href="https://a.example/{{ traits.js }}">`, `<a href="https://a.example/javascript%3Aalert%281%29">`},
		{`<a href="{{ traits.rel }}{{ traits.js }}">`, `<a href="/p/1javascript%3Aalert%281%29">`},
		{`<a href="{{ "java" }}{{ "script:alert(1)" }}">`, `<a href="javascript%3Aalert%281%29">`},
		{`<p style="color: {{ traits.color }}; width: {{ traits.width }}%">`, `<p style="color: #ff0000; width: 40%">`},
		{`<p style="color: {{ traits.css }}">`, `<p style="color: ">`},
		{`<style>a { color: {{ traits.css2 }} }</style>{{ traits.tag }}`, `<style>a { color:  }</style>&lt;script&gt;alert(1)&lt;/script&gt;`},
		{`<style>a { width: {{ traits.close }} }</style>`, `<style>a { width:  }</style>`},
		{`<title>{{ traits.close }}</title>`, `<title>&lt;/style&gt;&lt;/title&gt;&lt;script&gt;</title>`},
		{`<!-- {{ traits.comment }} -->`, `<!-- &#45;&#45;&gt;&lt;script&gt;alert(1)&lt;/script&gt; -->`},
		{`<!--[if mso]><v:roundrect href="{{ traits.js }}">{{ traits.comment }}<![endif]-->{{ traits.tag }}`, `<!--[if mso]><v:roundrect href="#">--&gt;&lt;script&gt;alert(1)&lt;/script&gt;<![endif]-->&lt;script&gt;alert(1)&lt;/script&gt;`},
		// Raw is the author's word; nothing else is.
		{`{{ traits.tag | raw }}`, `<script>alert(1)</script>`},
		{`{{ traits.tag | raw | upcase }}`, `&lt;SCRIPT&gt;ALERT(1)&lt;/SCRIPT&gt;`},
		{`{{ traits.tag | escape }}`, `&lt;script&gt;alert(1)&lt;/script&gt;`},
		{`{{ traits.tag | escape | append: traits.tag }}`, `&amp;lt;script&amp;gt;alert(1)&amp;lt;/script&amp;gt;&lt;script&gt;alert(1)&lt;/script&gt;`},
		{`<p title="{{ traits.quote | escape }}">`, `<p title="&#34;&#39; onmouseover=alert(1) x=&#34;">`},
		{`{{ traits.tag | newline_to_br }}`, `&lt;script&gt;alert(1)&lt;/script&gt;`},
		{`{{ "a<b" | split: "," | join: traits.tag }}`, `a&lt;b`},
		{`{{ traits.tag | json }}`, `&#34;\u003cscript\u003ealert(1)\u003c/script\u003e&#34;`},
		{`{% assign x = traits.tag %}{{ x }}`, `&lt;script&gt;alert(1)&lt;/script&gt;`},
		{`{% capture x %}<b>{{ traits.tag }}</b>{% endcapture %}{{ x }}`, `<b>&lt;script&gt;alert(1)&lt;/script&gt;</b>`},
		{`{% capture x %}{{ traits.js }}{% endcapture %}<a href="{{ x }}">`, `<a href="#">`},
		{`{% capture x %}{{ traits.quote }}{% endcapture %}<p title="{{ x }}">`, `<p title="&#34;&#39; onmouseover=alert(1) x=&#34;">`},
		{`{% for pair in traits limit: 1 %}<i>{{ pair[1] }}</i>{% endfor %}`, `<i>&lt;script&gt;alert(1)&lt;/script&gt;</i>`},
		{`{% case traits.tag %}{% when "x" %}x{% else %}{{ traits.tag }}{% endcase %}`, `&lt;script&gt;alert(1)&lt;/script&gt;`},
	} {
		got := block(t, HTML, c.template).Render(p)
		require.Empty(t, got.Fallback, "%s: %s", c.template, got.Problem)
		require.Equal(t, c.want, string(got.Content), c.template)
	}
	// Text is text.
	require.Equal(t, `<script>alert(1)</script> a%26b%3Dc%23d &lt;`, string(block(t, Text, `{{ traits.tag }} {{ traits.amp | url_encode }} {{ "<" | escape }}`).Render(p).Content))
}

// A value may not stand where no escaping makes it safe; whether it does is
// found without a profile.
func TestRefusedPlaces(t *testing.T) {
	for template, want := range map[string]string{
		`<a href={{ id }}>`:                                    "quotes around it",
		`<a href=x{{ id }}>`:                                   "quotes around it",
		`<a {{ id }}>`:                                         "inside a tag",
		`<a {{ id }}="x">`:                                     "inside a tag",
		`<{{ id }}>`:                                           "inside a tag",
		`<p on{{ id }}="x">`:                                   "inside a tag",
		`<p onclick="f('{{ id }}')">`:                          "a script",
		`<script>var x = "{{ id }}"</script>`:                  "inside <script>",
		`<SCRIPT >var x = "{{ id }}"</SCRIPT>`:                 "inside <script>",
		`<iframe srcdoc="{{ id }}">`:                           "srcdoc",
		`<img srcset="{{ id }} 2x">`:                           "srcset",
		`<meta http-equiv="refresh" content="0;url={{ id }}">`: "content of a <meta>",
		`<a href="javascript:f({{ id }})">`:                    "begins with javascript:",
		`<a href="data:text/html,{{ id }}">`:                   "begins with data:",
		`<a href="https://{{ id }}.example.com/">`:             "host name",
		`<a href="https://shop{{ id }}/">`:                     "host name",
		`<a href="//{{ id }}">`:                                "host name",
		`<!DOCTYPE {{ id }}>`:                                  "declaration",
		`<p title="{{ id }}`:                                   "ends inside a tag",
		`{% if id %}<p title="{% endif %}{{ id }}`:             "different parts",
		`{% if id %}<p title="{% else %}<p {% endif %}">`:      "different parts",
		`{% for x in segments %}<p title="{% endfor %}">`:      "leave the page where it found it",
		`{% case id %}{% when "a" %}<a href="{% endcase %}x">`: "different parts",
	} {
		_, problems := Parse("b.yaml", []byte(blockText(HTML, template)), anything)
		require.NotEmpty(t, problems, template)
		require.Contains(t, problems[0].Message, want, template)
		require.Equal(t, 5, problems[0].Line, template)
	}
}

// A template ends within its budget, whatever it does.
func TestBudget(t *testing.T) {
	loop := `{% for a in (1..100000) %}{% for b in (1..100000) %}`
	for name, c := range map[string]struct {
		template string
		want     Reason
	}{
		"an idle loop":                {loop + `{% endfor %}{% endfor %}`, OverTime},
		"a loop that writes":          {loop + `text{% endfor %}{% endfor %}`, OverSize},
		"a text that doubles":         {`{% assign x = "abcdefgh" %}` + strings.Repeat(`{% assign x = x | append: x %}`, 60) + `{{ x | size }}`, OverSize},
		"a capture that doubles":      {`{% assign x = "abcdefgh" %}` + strings.Repeat(`{% capture x %}{{ x }}{{ x }}{% endcapture %}`, 60), OverSize},
		"a list that doubles":         {`{% assign x = "a,b" | split: "," %}` + strings.Repeat(`{% assign x = x | concat: x %}`, 60) + `{{ x | size }}`, OverSize},
		"a replacement that explodes": {`{% assign x = "aaaaaaaaaaaaaaaa" %}` + strings.Repeat(`{% assign x = x | replace: "a", x %}`, 6), OverSize},
		"a range as a list":           {`{{ (1..1000000000) | join: "," }}`, OverSize},
		"an endless range":            {`{% for i in (1..9000000000000000000) %}{% assign x = i %}{% endfor %}`, OverTime},
		"an empty range":              {`{% for i in (9..1) %}x{% else %}{% for i in (1..9000000) %}{% endfor %}{% endfor %}`, OverTime},
	} {
		b := block(t, HTML, c.template, "budget: { time: 20ms, bytes: 10KB }\n")
		began := time.Now()
		got := b.Render(&Profile{AsOf: moment})
		require.Equal(t, c.want, got.Fallback, name)
		require.Equal(t, "FALLBACK", string(got.Content), name)
		require.Less(t, time.Since(began), 2*time.Second, name)
	}
}

func TestFallback(t *testing.T) {
	b := block(t, HTML, `Hi {{ traits.name }}, {{ features.n | divided_by: features.zero }}`, "requires: [ traits.name ]\ndefaults: { traits: { city: Bonn } }\n")
	got := b.Render(nil)
	require.Equal(t, Result{Content: []byte("FALLBACK"), Fallback: NoCustomer}, got)
	for _, missing := range []string{`{}`, `{"traits":{}}`, `{"traits":{"name":null}}`, `{"traits":{"name":""}}`, `{"traits":{"name":"  "}}`} {
		got = b.Render(profileOf(t, missing))
		require.Equal(t, MissingValue, got.Fallback, missing)
		require.Equal(t, "FALLBACK", string(got.Content))
	}
	// A template that cannot be carried out says where, and nothing of whom.
	got = b.Render(profileOf(t, `{"traits":{"name":"Jane"},"features":{"n":4,"zero":0}}`))
	require.Equal(t, Failed, got.Fallback)
	require.Equal(t, 7, got.Line)
	require.Equal(t, "filter divided_by: division by zero", got.Problem)
	got = b.Render(profileOf(t, `{"traits":{"name":"Jane"},"features":{"n":"secret","zero":2}}`))
	require.Equal(t, Failed, got.Fallback)
	require.NotContains(t, got.Problem, "secret")
	require.Equal(t, "Hi Jane, 2", string(b.Render(profileOf(t, `{"traits":{"name":"Jane"},"features":{"n":4,"zero":2}}`)).Content))
}
