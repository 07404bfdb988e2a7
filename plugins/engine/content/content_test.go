package content

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var moment = time.Date(2026, 1, 31, 8, 30, 0, 0, time.UTC)

// block returns a block with a template.
func block(t testing.TB, kind Type, template string, more ...string) *Block {
	t.Helper()
	b, problems := parse("b.yaml", []byte(blockText(kind, template, more...)), anything)
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

func TestShippedBlocksMatchTheirSamples(t *testing.T) {
	paths, err := filepath.Glob("../../../configs/content/*.yaml")
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

func TestHostileValuesAreEscapedForTheirPosition(t *testing.T) {
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
		// Only raw disables the escaping.
		{`{{ traits.tag | raw }}`, `<script>alert(1)</script>`},
		{`{{ traits.tag | raw | upcase }}`, `&lt;SCRIPT&gt;ALERT(1)&lt;/SCRIPT&gt;`},
		{`{{ traits.tag | escape }}`, `&lt;script&gt;alert(1)&lt;/script&gt;`},
		{`{{ traits.tag | escape | append: traits.tag }}`, `&lt;script&gt;alert(1)&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;`},
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
	// A text block escapes only what escape asks for.
	require.Equal(t, `<script>alert(1)</script> a%26b%3Dc%23d &lt;`, string(block(t, Text, `{{ traits.tag }} {{ traits.amp | url_encode }} {{ "<" | escape }}`).Render(p).Content))
}

// A value at a position that no escaping makes safe is reported without a profile.
func TestUnsafePositionsAreRefused(t *testing.T) {
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
		`{% if id %}<p title="{% endif %}{{ id }}`:             "different positions",
		`{% if id %}<p title="{% else %}<p {% endif %}">`:      "different positions",
		`{% for x in segments %}<p title="{% endfor %}">`:      "must end where it begins in the page",
		`{% case id %}{% when "a" %}<a href="{% endcase %}x">`: "different positions",
	} {
		_, problems := parse("b.yaml", []byte(blockText(HTML, template)), anything)
		require.NotEmpty(t, problems, template)
		require.Contains(t, problems[0].Message, want, template)
		require.Equal(t, 5, problems[0].Line, template)
	}
}

func TestRenderingEndsWithinItsBudget(t *testing.T) {
	loop := `{% for a in (1..100000) %}{% for b in (1..100000) %}`
	for name, c := range map[string]struct {
		template string
		want     Reason
	}{
		"empty loop":            {loop + `{% endfor %}{% endfor %}`, OverTime},
		"writing loop":          {loop + `text{% endfor %}{% endfor %}`, OverSize},
		"doubling text":         {`{% assign x = "abcdefgh" %}` + strings.Repeat(`{% assign x = x | append: x %}`, 60) + `{{ x | size }}`, OverSize},
		"doubling capture":      {`{% assign x = "abcdefgh" %}` + strings.Repeat(`{% capture x %}{{ x }}{{ x }}{% endcapture %}`, 60), OverSize},
		"doubling list":         {`{% assign x = "a,b" | split: "," %}` + strings.Repeat(`{% assign x = x | concat: x %}`, 60) + `{{ x | size }}`, OverSize},
		"exploding replacement": {`{% assign x = "aaaaaaaaaaaaaaaa" %}` + strings.Repeat(`{% assign x = x | replace: "a", x %}`, 6), OverSize},
		"range as a list":       {`{{ (1..1000000000) | join: "," }}`, OverSize},
		"endless range":         {`{% for i in (1..9000000000000000000) %}{% assign x = i %}{% endfor %}`, OverTime},
		"empty range":           {`{% for i in (9..1) %}x{% else %}{% for i in (1..9000000) %}{% endfor %}{% endfor %}`, OverTime},
	} {
		limit := "20ms"
		if c.want == OverSize {
			limit = "5s"
		}
		b := block(t, HTML, c.template, "budget: { time: "+limit+", bytes: 10KB }\n")
		began := time.Now()
		got := b.Render(&Profile{AsOf: moment})
		require.Equal(t, c.want, got.Fallback, name)
		require.Equal(t, "FALLBACK", string(got.Content), name)
		require.Less(t, time.Since(began), 4*time.Second, name)
	}
}

func TestFallbackReasons(t *testing.T) {
	b := block(t, HTML, `Hi {{ traits.name }}, {{ features.n | divided_by: features.zero }}`, "requires: [ traits.name ]\ndefaults: { traits: { city: Bonn } }\n")
	got := b.Render(nil)
	require.Equal(t, Result{Content: []byte("FALLBACK"), Fallback: NoCustomer}, got)
	for _, missing := range []string{`{}`, `{"traits":{}}`, `{"traits":{"name":null}}`, `{"traits":{"name":""}}`, `{"traits":{"name":"  "}}`} {
		got = b.Render(profileOf(t, missing))
		require.Equal(t, MissingValue, got.Fallback, missing)
		require.Equal(t, "FALLBACK", string(got.Content))
	}
	// A failure has its line and no data of the profile.
	got = b.Render(profileOf(t, `{"traits":{"name":"Jane"},"features":{"n":4,"zero":0}}`))
	require.Equal(t, Failed, got.Fallback)
	require.Equal(t, 7, got.Line)
	require.Equal(t, "filter divided_by: division by zero", got.Problem)
	got = b.Render(profileOf(t, `{"traits":{"name":"Jane"},"features":{"n":1,"zero":"secret"}}`))
	require.Equal(t, Failed, got.Fallback)
	require.NotContains(t, got.Problem, "secret")
	require.Equal(t, "Hi Jane, 2", string(b.Render(profileOf(t, `{"traits":{"name":"Jane"},"features":{"n":4,"zero":2}}`)).Content))
}

func TestLiquidInEmails(t *testing.T) {
	p := profileOf(t, `{"id":"u 1","traits":{"firstName":"élodie","name":"Ada  Lovelace","empty":"","list":["b","A","c",null,"b"],"yes":true,"no":false,
		"long":"The quick brown fox jumps over the lazy dog","joined":"2026-01-05T22:30:00Z","birthday":"1990-02-03","timezone":"Europe/Berlin","html":"<b>x</b> & y","nl":"a\nb"},
		"features":{"n":1234.5,"zero":0,"one":1,"items":[{"value":"hats","count":3},{"value":"bags","count":1}],"by":{"hats":5,"bags":2.5},"neg":-3},
		"segments":{"vip":{"since":"2026-01-01T00:00:00.000Z"}},"as_of":"2026-01-31T08:30:00.000Z","updated_at":"2026-01-30T08:30:00.000Z"}`)
	for _, c := range []struct{ template, want string }{
		// Values.
		{`{{ id }}/{{ traits.yes }}/{{ features.n }}/{{ features.zero }}/{{ traits.none }}/{{ traits.empty }}/`, "u 1/true/1234.5/0///"},
		{`{{ traits["firstName"] }} {{ features.by.hats }} {{ features.items[0].value }} {{ features.items.size }} {{ traits.list.first }} {{ traits.list[-1] }}`, "élodie 5 hats 2 b b"},
		{`{{ as_of }} {{ updated_at }}`, "2026-01-31T08:30:00.000Z 2026-01-30T08:30:00.000Z"},
		{`{{ features.by }}`, `{"hats":5,"bags":2.5}`},
		// Conditions: an empty value of the profile is missing.
		{`{% if traits.empty %}x{% elsif traits.none %}y{% else %}z{% endif %}`, "z"},
		{`{% unless traits.no %}a{% else %}b{% endunless %}{% if traits.none == blank %}c{% endif %}{% if traits.yes and features.zero == 0 %}d{% endif %}`, "acd"},
		{`{% if features.n > 1000 and features.neg < 0 or traits.no %}in{% endif %}`, "in"},
		{`{% if segments contains "vip" %}vip{% endif %}{% if segments.vip %}!{% endif %}{% if segments contains "x" %}?{% endif %}`, "vip!"},
		{`{% if traits.list contains "A" %}y{% endif %}{% if traits.long contains "fox" %}y{% endif %}`, "yy"},
		{`{% case features.one %}{% when 0 %}none{% when 1, 2 %}few{% else %}many{% endcase %}`, "few"},
		{`{% case traits.none %}{% when "a" %}a{% else %}e{% endcase %}`, "e"},
		// Loops.
		{`{% for x in traits.list %}{{ forloop.index }}{{ x }}{% unless forloop.last %},{% endunless %}{% endfor %}`, "1b,2A,3c,4,5b"},
		{`{% for x in traits.list limit: 2 offset: 1 reversed %}{{ x }}{% endfor %}`, "cA"},
		{`{% for x in traits.none %}x{% else %}empty{% endfor %}`, "empty"},
		{`{% for p in features.by %}{{ p[0] }}={{ p[1] }};{% endfor %}`, "hats=5;bags=2.5;"},
		{`{% for i in (1..5) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}`, "13"},
		{`{% for i in (1..3) %}{% cycle "a", "b" %}{% endfor %}`, "aba"},
		{`{% for i in (1..2) %}{% for j in (1..2) %}{{ i }}{{ j }}{{ forloop.rindex }} {% endfor %}{{ forloop.index }};{% endfor %}`, "112 121 1;212 221 2;"},
		// Variables, white space, comments.
		{`{% assign x = traits.firstName | upcase %}{{ x }}{% capture y %}[{{ x }}]{% endcapture %}{{ y }}{% if y == "[ÉLODIE]" %}={% endif %}`, "ÉLODIE[ÉLODIE]="},
		{"a  {{- ' b ' -}}  c{%- if true -%}  d  {%- endif %} e", "a b cd e"},
		{`a{% comment %}{{ nothing | here }} {% if %}{% endcomment %}b{% raw %}{{ x }}{% endraw %}`, "ab{{ x }}"},
		// Text filters.
		{`{{ traits.firstName | capitalize }} {{ traits.firstName | upcase }} {{ "x y-z" | titlecase }} {{ " a " | strip }}.`, "Élodie ÉLODIE X Y-Z a."},
		{`{{ traits.none | default: "friend" }} {{ traits.empty | default: 3 }} {{ features.zero | default: 9 }} {{ traits.no | default: "f" }}`, "friend 3 0 f"},
		{`{{ traits.long | truncate: 12 }}|{{ traits.long | truncate: 12, "" }}|{{ "short" | truncate: 12 }}|{{ "ééééé" | truncate: 3, "." }}`, "The quick...|The quick br|short|éé."},
		{`{{ traits.long | truncatewords: 3 }}|{{ traits.long | truncatewords: 2, "!" }}|{{ "a" | truncatewords: 2 }}`, "The quick brown...|The quick!|a"},
		{`{{ "a-b-c" | replace: "-", "+" }} {{ "a-b-c" | replace_first: "-", "+" }} {{ "a-b-c" | remove: "-" }} {{ "a-b" | append: "!" | prepend: "?" }}`, "a+b+c a+b-c abc ?a-b!"},
		{`{{ traits.html | strip_html }}|{{ traits.nl | newline_to_br }}|{{ traits.nl | strip_newlines }}`, "x & y|a<br />\nb|ab"},
		{`{{ "a b&c/ü" | url_encode }} {{ "a+b%26" | url_decode }} {{ "Hello" | slice: 1, 3 }} {{ "Hello" | slice: -2, 9 }} {{ "é" | size }}`, "a+b%26c%2F%C3%BC a b& ell lo 1"},
		// Numbers and money.
		{`{{ features.n | money }} {{ features.n | money: "USD" }} {{ features.n | currency: "EUR", "de" }} {{ 1234567 | money: "JPY" }} {{ -5 | money: "GBP" }} {{ 9.99 | money: "CHF" }} {{ 1.005 | money }}`,
			"€1,234.50 $1,234.50 1.234,50\u00a0€ ¥1,234,567 -£5.00 CHF\u00a09.99 €1.01"},
		{`{{ 1234567.891 | number: 1 }} {{ 1234567.891 | number: 2, "de" }} {{ 999 | number }} {{ "x" | number }}`, "1,234,567.9 1.234.567,89 999 x"},
		{`{{ 3 | plus: 4 }} {{ 0.1 | plus: 0.2 }} {{ "5" | minus: 1.5 }} {{ 3 | times: 2 }} {{ 7 | divided_by: 2 }} {{ 7 | divided_by: 2.0 }} {{ 7 | modulo: 3 }} {{ 4.6 | round }} {{ 4.567 | round: 2 }} {{ 4.1 | ceil }} {{ 4.9 | floor }} {{ -3 | abs }} {{ 3 | at_least: 5 }} {{ 3 | at_most: 2 }}`,
			"7 0.3 3.5 6 3 3.5 1 5 4.57 5 4 3 5 2"},
		{`{{ 1 | plural: "thing", "things" }} {{ 0 | plural: "thing", "things" }} {{ 2 | pluralize: "cat" }}`, "thing things cats"},
		// Times: in the customer's zone, or a given one.
		{`{{ traits.joined | date: "%Y-%m-%d %H:%M %Z" }}|{{ traits.joined | date: "%d %b %Y, %-I:%M %p", "UTC" }}`, "2026-01-05 23:30 CET|05 Jan 2026, 10:30 PM"},
		{`{{ traits.birthday | date: "%-d %B", "America/New_York" }} {{ "now" | date: "%Y-%m-%d", "UTC" }} {{ 1767225600 | date: "%F %T %z", "UTC" }} {{ "no date" | date: "%F" }}`, "3 February 2026-01-31 2026-01-01 00:00:00 +0000 no date"},
		// Lists.
		{`{{ traits.list | join: "," }} {{ traits.list | sort | join }} {{ traits.list | sort_natural | compact | first }} {{ traits.list | uniq | size }} {{ traits.list | reverse | last }} {{ "a,b,,c,," | split: "," | size }}`, "b,A,c,,b A b b c  A 4 b 4"},
		{`{{ features.items | map: "value" | join: "+" }} {{ features.items | where: "value", "bags" | first | json }} {{ features.items | sum: "count" }} {{ features.items | sort: "count" | map: "value" | join }} {{ (1..4) | join: "" }} {{ traits.list | concat: features.items | size }}`,
			`hats+bags {"value":"bags","count":1} 4 bags hats 1234 7`},
	} {
		got := block(t, Text, c.template).Render(p)
		require.Empty(t, got.Fallback, "%s: %s", c.template, got.Problem)
		require.Equal(t, c.want, string(got.Content), c.template)
	}
}

// Every problem is reported without a profile, with its line and a correction.
func TestProblemsNameTheCorrection(t *testing.T) {
	names := func(string) (Names, error) {
		return Names{Features: []string{"orders_30d", "revenue"}, Segments: []string{"vip"}}, nil
	}
	for _, c := range []struct{ yaml, want string }{
		{"", "1: a block is a YAML object"},
		{"- x", "1: a block is a YAML object"},
		{"type: [", "the file is not YAML"},
		{"type: text\nfallback: x", "1: the block has no template"},
		{"type: text\ntemplate: x", `write the content for customers without this block, or fallback: "" to send nothing`},
		{"fallback: x\ntemplate: x", "write type: html or type: text"},
		{"type: txt\nfallback: x\ntemplate: x", `1: type must be html or text; did you mean "text"?`},
		{"type: text\nfallback: 3\ntemplate: x", "2: fallback must be a text"},
		{"type: text\nfallback: x\ntemplat: x\ntemplate: x", `3: there is no field "templat"`},
		{"type: text\nfallback: x\nfallback: y\ntemplate: x", "3"},
		{"type: text\nfallback: x\ntemplate: x\nbudget: { time: 1h }", "4: time must be a duration above 0 and up to 5s"},
		{"type: text\nfallback: x\ntemplate: x\nbudget: { bytes: 1GB }", "4: bytes must be a size"},
		{"type: text\nfallback: x\ntemplate: x\nrequires: [ name ]", "4: requires lists names such as"},
		{"type: text\nfallback: x\ntemplate: x\nrequires: [ features.order_30d ]", `4: there is no feature "order_30d"; did you mean "orders_30d"?`},
		{"type: text\nfallback: x\ntemplate: x\ndefaults: { features: { revenu: 0 } }", `4: there is no feature "revenu"; did you mean "revenue"?`},
		{"type: text\nfallback: x\ntraits: [ firstName ]\ntemplate: '{{ traits.fristName }}'", `4: there is no trait "fristName"; did you mean "firstName"?`},
		{"type: text\nfallback: x\ntemplate: |\n  a\n\n  {{ features.orders_30 }}", `6: there is no feature "orders_30"; did you mean "orders_30d"?`},
		{"type: text\nfallback: x\ntemplate: |\n  a\n  {% if segments contains 'vpi' %}{% endif %}", `5: there is no segment "vpi"; did you mean "vip"?`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ segments.vpi }}", `4: there is no segment "vpi"; did you mean "vip"?`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ revenue }}", `4: "revenue" is not defined; write features.revenue`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ firstName }}", `4: "firstName" is not defined; for a trait write traits.firstName`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ trait.firstName }}", `4: "trait" is not defined; did you mean "traits"?`},
		{"type: text\nfallback: x\ntemplate: |\n  {% assign x = 1 %}{{ y }}{{ x }}", `4: "y" is not defined`},
		{"type: text\nfallback: x\ntemplate: |\n  {% for x in features.revenue %}{% endfor %}{{ x }}", `4: "x" is not defined`},
		{"type: text\nfallback: x\ntemplate: |\n  {% assign traits = 1 %}", `4: "traits" is a part of every profile`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ id | upcas }}", `4: there is no filter "upcas"; did you mean "upcase"?`},
		{"type: text\nfallback: x\ntemplate: |\n  x\n  {% iff id %}", `5: there is no tag "iff"`},
		{"type: text\nfallback: x\ntemplate: |\n  x\n  {% if id %}", "5: {% if %} is never closed; write {% endif %}"},
		{"type: text\nfallback: x\ntemplate: |\n  x\n  {% comment %}", "5: {% comment %} is never closed; write {% endcomment %}"},
		{"type: text\nfallback: x\ntemplate: |\n  x\n  {{ id ", "5: {{ is never closed; write }}"},
		{"type: text\nfallback: x\ntemplate: |\n  {{ id | }}", "4: the name of a filter is expected after |"},
		{"type: text\nfallback: x\ntemplate: |\n  {% endif %}", "4: {% endif %} closes no {% if %}"},
		{"type: text\nfallback: x\ntemplate: |\n  {% break %}", "4: break stands outside of a for loop"},
		{"type: text\nfallback: x\ntemplate: |\n  {% for x of y %}{% endfor %}", "4: for is not understood; write"},
		{"type: text\nfallback: x\ntemplate: |\n  {% include 'secrets.txt' %}", `4: there is no tag "include": a block contains all of its content`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ 99999999999999999999 }}", "4: the number 99999999999999999999 is too large"},
		{"type: text\nfallback: x\ntemplate: |\n  " + strings.Repeat("{% if id %}", 60) + strings.Repeat("{% endif %}", 60), "nested more than 50 deep"},
		{"type: text\nfallback: x\ntemplate: |\n  {{ id }}\nsamples:\n  - { name: a, profile: { id: b }, equals: c }", `6: sample "a" should be "c", and is "b"`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ id }}\nsamples:\n  - { name: a, profile: { id: b }, contains: [ c ] }", `6: sample "a" should contain "c"`},
		{"type: text\nfallback: x\ntemplate: |\n  {{ id }}\nsamples:\n  - { name: a, profile: { id: b }, fallback: true }", `6: sample "a" should get the fallback, and is "b"`},
		{"type: text\nfallback: x\nrequires: [ traits.a ]\ntemplate: |\n  {{ id }}\nsamples:\n  - { name: a, profile: { id: b } }", `7: sample "a" gets the fallback (missing_value): the profile has no traits.a`},
		{"type: text\nfallback: x\ntemplate: x\nsamples:\n  - { profile: {} }", "5: a sample needs a name"},
		{"type: text\nfallback: x\ntemplate: x\nsamples:\n  - { name: a }", "5: a sample needs a profile"},
		{"type: text\nfallback: x\ntemplate: x\nsamples:\n  - { name: a, profile: { features: { revenu: 1 } } }", `5: there is no feature "revenu"`},
		{"type: text\nfallback: x\ntemplate: x\nsamples: &a\n  - { name: a, profile: { traits: { x: *a } } }", "profile: "},
	} {
		_, problems := parse("configs/content/b.yaml", []byte(c.yaml), names)
		require.NotEmpty(t, problems, c.yaml)
		var all []string
		for _, p := range problems {
			all = append(all, p.String())
		}
		require.Contains(t, strings.Join(all, "\n"), c.want, c.yaml)
	}
	_, problems := parse("Hello World.yaml", []byte("type: text\nfallback: x\ntemplate: x"), names)
	require.Contains(t, problems[0].Message, "name of a block's file")
	_, problems = parse("b.yaml", []byte("type: text\nfallback: x\ntemplate: '{{ features.x }}'"), anything)
	require.Contains(t, problems[0].Message, "write definition:")
}

// A named pipe in the folder must not block the process.
func TestNamedPipesAreRejected(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600))
	none := func(string) (Names, error) { return Names{}, nil }
	_, err := Open(dir, none)
	require.ErrorContains(t, err, "pipe.yaml is not a regular file")
	_, problems, err := Load(filepath.Join(dir, "pipe.yaml"), none)
	require.NoError(t, err)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].Message, "regular file")
}
