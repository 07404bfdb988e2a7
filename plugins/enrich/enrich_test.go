package enrich_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/deadletter"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

const products = "sku,category,price\np1,shoes,10.50\np2,hats,5\n,none,0\n\"p,3\",\"so-called \"\"bags\"\"\",7\n"

func csvOf(path, more string) string {
	return `
pipeline:
  threads: 1
  processors:
    - enrich:
        name: product
        key: this.properties.sku
        csv: { path: "` + path + `", key_column: sku, reload_interval: 0s }
` + more
}

func TestFoundValueIsWritten(t *testing.T) {
	path := write(t, "products.csv", products)
	for name, c := range map[string]struct {
		more string
		in   string
		want string
	}{
		"found":                   {"", viewed("m1", "p1"), with("m1", "p1", `{"category":"shoes","price":"10.50"}`)},
		"a key with a comma":      {"", viewed("m1", "p,3"), with("m1", "p,3", `{"category":"so-called \"bags\"","price":"7"}`)},
		"absent passes":           {"", viewed("m1", "p9"), viewed("m1", "p9")},
		"no key passes":           {"", viewed("m1", ""), viewed("m1", "")},
		"what is no event passes": {"", `{"properties":{"sku":"p1"}}`, `{"properties":{"sku":"p1"}}`},
		"what is no JSON passes":  {"", `{"type":`, `{"type":`},
		"nothing passes":          {"", ``, ``},
		"absent marked":           {"        on_absent: mark", viewed("m1", "p9"), marked("m1", "p9", "absent")},
		"absent by default":       {"        on_absent: default\n        default: { category: unknown }", viewed("m1", "p9"), with("m1", "p9", `{"category":"unknown"}`)},
		"mapped":                  {"        result: root = this.value.price.number() * 2", viewed("m1", "p1"), with("m1", "p1", `21`)},
		"mapped to nothing":       {"        result: root = deleted()", viewed("m1", "p1"), viewed("m1", "p1")},
		"a mapping that fails":    {"        result: root = this.value.category.number()", viewed("m1", "p1"), marked("m1", "p1", "failed")},
		"of the event too":        {"        result: root = this.value.category\n        event_result: 'root = this.event.messageId + this.key + this.value'", viewed("m1", "p1"), with("m1", "p1", `"m1p1shoes"`)},
		"another target":          {"        target: properties.sku", viewed("m1", "p2"), strings.Replace(viewed("m1", "p2"), `"p2"`, `{"category":"hats","price":"5"}`, 1)},
		"another event":           {"        events: [ Product Added ]", viewed("m1", "p1"), viewed("m1", "p1")},
		"this event":              {"        events: [ Product Viewed ]\n        result: root = 1", viewed("m1", "p1"), with("m1", "p1", `1`)},
		"switched off":            {"        enabled: false", viewed("m1", "p1"), viewed("m1", "p1")},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, csvOf(path, c.more))
			for range 2 { // the second one is a cache hit
				require.Equal(t, []string{c.want}, texts(t, p.run(c.in)))
			}
		})
	}
}

func TestArrayOfKeysResultsInValuesByKey(t *testing.T) {
	path := write(t, "products.csv", products)
	event := `{"type":"track","event":"Order Completed","messageId":"m1","userId":"u1","timestamp":"2026-01-02T03:04:05.000Z","properties":{"skus":["p2","p1","p2","p9",null]}}`
	p := start(t, strings.Replace(csvOf(path, "        result: root = this.value.category\n        on_absent: default\n        default: none"), "properties.sku", "properties.skus", 1))
	require.Equal(t, []string{event[:len(event)-1] + `,"context":{"enrichment":{"product":{"p2":"hats","p1":"shoes","p9":"none"}}}}`}, texts(t, p.run(event)))
}

func TestAbsentValueIsDeadLetteredAlone(t *testing.T) {
	path := write(t, "products.csv", products)
	p := start(t, csvOf(path, "        result: root = this.value.category\n        on_absent: dead_letter"))
	out := p.run(viewed("m1", "p1"), viewed("m2", "secret-sku"), viewed("m3", "p2"))
	require.Equal(t, with("m1", "p1", `"shoes"`), text(t, out[0]))
	require.NoError(t, out[0].GetError())
	require.Equal(t, with("m3", "p2", `"hats"`), text(t, out[2]))
	require.NoError(t, out[2].GetError())

	var rejected *rejection.Error
	require.ErrorAs(t, out[1].GetError(), &rejected)
	require.Equal(t, viewed("m2", "secret-sku"), text(t, out[1]), "the event is as it was")
	require.Equal(t, &rejection.Error{Stage: "enrich", Reasons: []rejection.Reason{
		{Pointer: "/properties/sku", Rule: "absent", Message: "product: there is no value for the key"},
	}}, rejected)
}

func TestKeyMappings(t *testing.T) {
	path := write(t, "products.csv", "sku,n\np1,1\n7,2\n7.5,3\ntrue,4\n")
	event := func(sku string) string { return strings.Replace(viewed("m1", "p1"), `"p1"`, sku, 1) }
	for name, c := range map[string]struct{ key, sku, want string }{
		"text":             {"this.properties.sku", `"p1"`, "1"},
		"root":             {"root = this.properties.sku", `"p1"`, "1"},
		"number":           {"this.properties.sku", `7`, "2"},
		"number as float":  {"this.properties.sku", `7.0`, "2"},
		"fraction":         {"this.properties.sku", `7.5`, "3"},
		"mapped number":    {"this.properties.sku.number()", `"7"`, "2"},
		"mapped text":      {"this.properties.sku.lowercase()", `"P1"`, "1"},
		"mapped integer":   {"root = this.properties.sku + 1", `6`, "2"},
		"metadata":         {`root = if metadata("none") == null { "p1" }`, `null`, "1"},
		"null":             {"this.properties.sku", `null`, ""},
		"true":             {"this.properties.sku", `true`, ""},
		"empty":            {"this.properties.sku", `""`, ""},
		"object":           {"this.properties.sku", `{"a":1}`, ""},
		"mapping fails":    {"this.properties.sku.lowercase()", `[]`, ""},
		"mapping deletes":  {"deleted()", `"p1"`, ""},
		"mapping does not": {"meta x = 1", `"p1"`, ""},
		"too long":         {"this.properties.sku", `"` + strings.Repeat("x", 2000) + `"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, strings.Replace(csvOf(path, "        result: root = this.value.n.number()\n        on_absent: mark\n"), "this.properties.sku", "|\n          "+c.key, 1))
			in := event(c.sku)
			want := in
			if c.want != "" {
				want = in[:len(in)-1] + `,"context":{"enrichment":{"product":` + c.want + `}}}`
			}
			require.Equal(t, []string{want}, texts(t, p.run(in)))
		})
	}
}

func TestFailedEventsPassUnchanged(t *testing.T) {
	path := write(t, "products.csv", products)
	p := start(t, strings.Replace(csvOf(path, ""), "processors:\n", "processors:\n    - mapping: 'root = throw(\"no good\")'\n", 1))
	out := p.run(viewed("m1", "p1"))
	require.ErrorContains(t, out[0].GetError(), "no good")
	require.Equal(t, viewed("m1", "p1"), text(t, out[0]))
}

func TestTargetThatIsNotAnObjectFailsTheEvent(t *testing.T) {
	path := write(t, "products.csv", products)
	p := start(t, csvOf(path, "        target: properties.sku.found"))
	out := p.run(viewed("m1", "p1"))
	var rejected *rejection.Error
	require.ErrorAs(t, out[0].GetError(), &rejected)
	require.Equal(t, "/properties/sku", rejected.Reasons[0].Pointer)
	require.Equal(t, viewed("m1", "p1"), text(t, out[0]))
}

func TestOriginalEventIsKept(t *testing.T) {
	path := write(t, "products.csv", products)
	out := start(t, csvOf(path, "")).run(viewed("m1", "p1"), viewed("m2", "p9"))
	original, err := deadletter.Original(out[0])
	require.NoError(t, err)
	require.Equal(t, viewed("m1", "p1"), string(original))
	_, kept := out[1].MetaGetImmut(deadletter.OriginalMetadata)
	require.False(t, kept, "an event that is not changed needs no copy")
}

func TestOneIdentifyEventPerCustomer(t *testing.T) {
	path := write(t, "products.csv", products)
	event := func(id, who, at, sku string) string {
		return `{"type":"track","event":"Product Viewed","messageId":"` + id + `",` + who + `,"timestamp":"2026-01-02T03:04:` + at + `.000Z","properties":{"sku":"` + sku + `"}}`
	}
	identify := func(id, who, at, traits string) string {
		return `{"messageId":"` + id + `:enrich:product","source":"product","timestamp":"2026-01-02T03:04:` + at + `.000Z","traits":` + traits + `,"type":"identify",` + who + `}`
	}
	const u1, u2, a1 = `"userId":"u1"`, `"userId":"u2","anonymousId":"a2"`, `"userId":"undefined","anonymousId":"a1"`
	p := start(t, csvOf(path, `
        target: none
        result: root.likes = this.value.category
        on_absent: mark
        traits: { enabled: true, status: product_status }
`))
	in := []string{
		event("m1", u1, "01", "p1"), event("m2", u2, "02", "p1"), event("m3", u1, "09", "p2"), event("m4", u1, "04", "p1"),
		event("m5", a1, "05", "p2"), event("m6", `"userId":"u3"`, "06", "p9"), event("m7", `"userId":"null"`, "06", "p1"), viewed("m8", ""),
	}
	marked := in[5][:len(in[5])-1] + `,"context":{"enrichment_status":{"product":"absent"}}}`
	want := []string{
		in[0],
		in[1], identify("m2", `"userId":"u2"`, "02", `{"likes":"shoes","product_status":"ok"}`),
		in[2], identify("m3", `"userId":"u1"`, "09", `{"likes":"hats","product_status":"ok"}`),
		in[3],
		in[4], `{"anonymousId":"a1",` + strings.TrimSuffix(identify("m5", "x", "05", `{"likes":"hats","product_status":"ok"}`)[1:], ",x}") + `}`,
		marked, identify("m6", `"userId":"u3"`, "06", `{"product_status":"absent"}`),
		in[6], in[7],
	}
	require.Equal(t, want, texts(t, p.run(in...)))
	require.Equal(t, want, texts(t, p.run(in...)), "a replay states the same")
}
