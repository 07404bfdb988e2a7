package content

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The definition decides how whole numbers are divided: a sum exactly, a count as an
// integer.
func TestAmountsAreDividedExactly(t *testing.T) {
	names := func(string) (Names, error) {
		return Names{Features: []string{"revenue", "orders", "by"}, Amounts: []string{"revenue", "by"}}, nil
	}
	for template, want := range map[string]string{
		`{{ features.revenue | divided_by: features.orders | money }}`:                              "€12.50",
		`{{ features.by.hats | divided_by: 2 }}`:                                                    "3.5",
		`{{ features.revenue }} {{ features.revenue | plus: 1 }}`:                                   "25 26",
		`{{ features.orders | divided_by: 3 }} {{ 25 | divided_by: 2 }} {{ 25.0 | divided_by: 2 }}`: "0 12 12.5",
		`{{ features.revenue | round }} {{ features.revenue | at_least: 30 }}`:                      "25 30",
	} {
		b, problems := parse("b.yaml", []byte(blockText(Text, template)), names)
		require.Empty(t, problems, template)
		got := b.Render(profileOf(t, `{"features":{"revenue":25,"orders":2,"by":{"hats":7}}}`))
		require.Equal(t, want, string(got.Content), template)
	}
}

// A list of objects is reported where it would be written as JSON: by its kind of
// feature, and otherwise by the samples.
func TestListsOfObjectsAreReported(t *testing.T) {
	names := func(string) (Names, error) {
		return Names{Features: []string{"top"}, ObjectLists: []string{"top"}}, nil
	}
	for template, reported := range map[string]bool{
		`{{ features.top }}`:                                   true,
		`{{ features.top | join: ", " }}`:                      true,
		`{{ features.top | first }}`:                           false,
		`{{ features.top | map: "value" | join: ", " }}`:       false,
		`{% for x in features.top %}{{ x.value }}{% endfor %}`: false,
	} {
		_, problems := parse("b.yaml", []byte(blockText(Text, template)), names)
		require.Equal(t, reported, len(problems) > 0, "%s: %v", template, problems)
		sample := "\nsamples:\n  - { name: a, profile: { features: { top: [ { value: hats, count: 2 } ] } } }\n"
		_, problems = parse("b.yaml", []byte(blockText(Text, template)+sample), anything)
		require.Equal(t, reported, len(problems) > 0, "%s: %v", template, problems)
		if reported {
			require.True(t, problems[0].Advice)
			require.Equal(t, 5, problems[0].Line)
			require.Contains(t, problems[0].Message, `map: "value" | join`)
		}
	}
}

// Empty and absent values of the profile are equal to nil, "", blank and empty.
func TestMissingValuesOfTheProfile(t *testing.T) {
	for _, profile := range []string{`{}`, `{"traits":{"x":""}}`, `{"traits":{"x":" "}}`, `{"traits":{"x":null}}`, `{"traits":{"x":[]}}`, `{"traits":{"x":{}}}`} {
		b := block(t, Text, strings.Join([]string{
			`{% if traits.x %}A{% endif %}`, `{% unless traits.x %}b{% endunless %}`, `{% if traits.x == nil %}c{% endif %}`, `{% if traits.x == "" %}d{% endif %}`,
			`{% if traits.x == blank %}e{% endif %}`, `{% if traits.x == empty %}f{% endif %}`, `{% if traits.x != "" %}G{% endif %}`, `{{ traits.x | default: "h" }}`,
			`{% assign y = traits.x %}{% if y %}I{% endif %}`, `{{ traits.x | append: "j" }}`, `{% for z in traits.x %}K{% else %}l{% endfor %}`, `{{ traits.x.y.z }}{{ traits.x }}`,
			`{% if traits.x > 1 or traits.x < 1 %}M{% endif %}`, `{{ traits.x | size }}`, `{% if traits.x.size == 0 %}n{% endif %}`,
			`{{ 5 | plus: traits.x }}{{ "a b" | truncate: traits.x | append: traits.x }}{{ "a,b" | split: "," | concat: traits.x | join: traits.x }}{{ "xyz" | slice: traits.x, 2 | replace: "q", traits.x }}`,
		}, ""))
		got := b.Render(profileOf(t, profile))
		require.Empty(t, got.Problem)
		require.Equal(t, "bcdefhjl0n5a babxy", string(got.Content), profile)
	}
}

func TestUnknownDateFlagsAreReported(t *testing.T) {
	for template, want := range map[string]string{
		`{{ id | date: "%Q" }}`:             `date has no flag %Q; write for example "%d %B %Y"`,
		`{{ id | date: "%Y %-J" }}`:         `no flag %-J`,
		`{{ id | date: "100%" }}`:           `no flag %;`,
		`{{ id | date: "%Y", "Berlin" }}`:   `the time zone "Berlin" is unknown; write a zone such as Europe/Berlin`,
		`{{ id | date }}`:                   `the filter date takes 1 to 2 arguments, and has 0`,
		`{{ id | upcase: 1 }}`:              `the filter upcase takes no arguments, and has 1`,
		`{{ id | default: 1, allow: true}}`: `the filter default has no argument "allow"`,
		`{{ id == 1 }}`:                     `"==" is only for the conditions of if`,
		`{% if (id) %}{% endif %}`:          `parentheses are only for ranges`,
		`{% if id = 1 %}{% endif %}`:        `"=" is not expected here`,
		`{% if id == 1 && id %}{% endif %}`: `"&" is not expected in an expression`,
		`{{ 'a }}`:                          `a quote without its end`,
		`{{ id id }}`:                       `a text needs quotes`,
	} {
		_, problems := parse("b.yaml", []byte(blockText(Text, template)), anything)
		require.NotEmpty(t, problems, template)
		require.Contains(t, problems[0].Message, want, template)
	}
}

// Captured HTML stays HTML in the filters that preserve it, and is text in others.
func TestCapturedHTML(t *testing.T) {
	p := profileOf(t, `{"traits":{"x":"M & S <i>","js":"javascript:x"}}`)
	for template, want := range map[string]string{
		`{% capture c %} <b>{{ traits.x }}</b> {% endcapture %}{{ c | strip }}`:                         `<b>M &amp; S &lt;i&gt;</b>`,
		`{% capture c %}<b>{{ traits.x }}</b>{% endcapture %}{{ c | append: traits.x | prepend: "<" }}`: `&lt;<b>M &amp; S &lt;i&gt;</b>M &amp; S &lt;i&gt;`,
		`{% capture c %}<b title="a">{{ traits.x }}</b>{% endcapture %}{{ c | upcase }}`:                `<b title="a">M &amp; S &lt;I&gt;</b>`,
		`{% capture c %}<b>{{ traits.x }}</b>{% endcapture %}{{ "<" | append: c }}`:                     `&lt;<b>M &amp; S &lt;i&gt;</b>`,
		`{% capture c %}<b>{{ traits.x }}</b>{% endcapture %}{{ c | strip_html }}`:                      `M &amp; S &lt;i&gt;`,
		`{% capture c %}<a href="/p">x</a>{% endcapture %}{{ c | replace: "/p", traits.js }}`:           `&lt;a href=&#34;javascript:x&#34;&gt;x&lt;/a&gt;`,
		`{% capture c %}{{ traits.x }}{% endcapture %}{{ c | truncate: 6, "" | upcase }}`:               `M &amp; S `,
		`{% capture c %}/p?a=1&b=2{% endcapture %}<a href="{{ c }}">x</a>`:                              `<a href="/p?a=1&amp;b=2">x</a>`,
		`{{ traits.x | escape | upcase }}`:                                                              `M &amp; S &lt;I&gt;`,
		`{{ "&lt;b&gt; <i>" | escape_once }}`:                                                           `&lt;b&gt; &lt;i&gt;`,
		`<p{% if traits.x %} class="a"{% endif %}{% if traits.y %} id="b"{% endif %}>x`:                 `<p class="a">x`,
		`{% for i in (1..3) %}<i class="{% cycle "a", "b" %}">{% cycle traits.x, i %}</i>{% endfor %}`:  `<i class="a">M &amp; S &lt;i&gt;</i><i class="b">2</i><i class="a">M &amp; S &lt;i&gt;</i>`,
	} {
		got := block(t, HTML, template).Render(p)
		require.Empty(t, got.Problem, template)
		require.Equal(t, want, string(got.Content), template)
	}
	_, problems := parse("b.yaml", []byte(blockText(HTML, `<p{% if id %} class="a"{% endif %}id="b">`)), anything)
	require.Contains(t, problems[0].Message, "white space is missing between the attributes")
}
