package profileapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

// The page brings all it needs, and its policy lets nothing else in. How it
// works is tested in a browser: tests/explorer.
func TestExplorerIsServed(t *testing.T) {
	s := serve(t, withProfiles(), "")
	for path, contentType := range map[string]string{
		"/": "text/html; charset=utf-8", "/explorer.js": "text/javascript; charset=utf-8",
		"/explorer.css": "text/css; charset=utf-8", "/explorer.svg": "image/svg+xml",
	} {
		got := s.do(t, "GET", path, "")
		require.Equal(t, 200, got.status, path)
		require.Equal(t, contentType, got.header.Get("Content-Type"))
		policy := got.header.Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		require.NotContains(t, policy, "unsafe")
		require.NotRegexp(t, `https?:|\*|data:|blob:`, policy)
		require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
		require.Equal(t, "no-referrer", got.header.Get("Referrer-Policy"))
		require.Equal(t, 304, s.do(t, "GET", path, "", "If-None-Match: "+got.header.Get("ETag")).status)
		require.Equal(t, 405, s.do(t, "POST", path, "x").status)
		outside := regexp.MustCompile(`https?://[^"' )]+`).FindAllString(got.body, -1)
		for _, address := range outside {
			require.Equal(t, "http://www.w3.org/2000/svg", address, "%s names another host", path)
		}
		if path == "/" {
			require.NotRegexp(t, `(?i)<script>|<style|\son[a-z]+=|\sstyle=`, got.body)
		}
		if path == "/explorer.js" {
			require.NotRegexp(t, `innerHTML|outerHTML\s*=|insertAdjacent|document\.write|eval\(|localStorage|document\.cookie`, got.body)
		}
	}
	require.Equal(t, 404, s.do(t, "GET", "/explorer/", "").status)

	s = serve(t, withProfiles(), "explorer: false")
	for _, path := range []string{"/", "/explorer.js"} {
		require.Equal(t, "no_such_page", s.do(t, "GET", path, "").code(t))
	}
	// With tokens the page is served, and what it asks for needs one.
	s = serve(t, withProfiles("c1"), fmt.Sprintf("tokens: [ { name: a, sha256: %q } ]", hashOf("r")))
	require.Equal(t, 200, s.do(t, "GET", "/", "").status)
	for _, path := range []string{"/api/customer/c1/explain", "/api/activity"} {
		require.Equal(t, 401, s.do(t, "GET", path, "").status)
	}
	require.Equal(t, 200, s.do(t, "GET", "/api/activity", "", "Authorization: Bearer r").status)
}

const shopDefinition = `
features:
  - { name: orders, count: { events: [Order Completed] } }
  - { name: orders_30d, count: { events: [Order Completed], window: 30d } }
  - { name: revenue, sum: { events: [Order Completed], of: properties.total } }
  - { name: by_category, count: { events: [Product Viewed], by: properties.category } }
  - { name: per_order, ratio: { of: revenue, to: orders } }
`

// withRealProfiles are profiles in memory, after some events.
func withRealProfiles(t *testing.T, events ...string) *customers.Service {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profile.yaml")
	require.NoError(t, os.WriteFile(path, []byte(shopDefinition), 0o600))
	def, err := profiledefinition.Read(path)
	require.NoError(t, err)
	s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
	require.NoError(t, err)
	p := customers.New(def, s, customers.Options{})
	t.Cleanup(func() { require.NoError(t, p.Close(t.Context())) })
	var batch [][]byte
	for _, e := range events {
		batch = append(batch, []byte(e))
	}
	errs, err := p.Update(t.Context(), batch)
	require.NoError(t, err)
	for _, err := range errs {
		require.NoError(t, err)
	}
	return p
}

func orderOn(user, id, day string, total any) string {
	return fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":%q,%s,"timestamp":"%sT10:00:00Z","receivedAt":"%sT10:00:01Z","properties":{"total":%v}}`, id, user, day, day, total)
}

func TestExplain(t *testing.T) {
	p := withRealProfiles(t,
		`{"type":"identify","messageId":"i1","userId":"ada","source":"crm","timestamp":"2026-01-02T10:00:00Z","receivedAt":"2026-01-02T10:00:01Z","traits":{"plan":"gold","note":null}}`,
		orderOn(`"userId":"ada"`, "o1", "2026-01-03", 10), orderOn(`"userId":"ada"`, "o2", "2026-03-01", 2.5),
		`{"type":"track","event":"Product Viewed","messageId":"v1","userId":"ada","timestamp":"2026-03-02T10:00:00Z","receivedAt":"2026-03-02T10:00:01Z","properties":{"category":"hats"}}`,
		orderOn(`"anonymousId":"a1"`, "o3", "2026-01-05", 1),
		`{"type":"identify","messageId":"i2","userId":"ada","anonymousId":"a1","timestamp":"2026-03-03T10:00:00Z","receivedAt":"2026-03-03T10:00:01Z","traits":{}}`,
	)
	s := serve(t, p, "")
	explain := func(path string) (x record.Explanation) {
		got := s.do(t, "GET", path, "")
		require.Equal(t, 200, got.status, got.body)
		require.Equal(t, "no-store", got.header.Get("Cache-Control"))
		require.NoError(t, json.Unmarshal([]byte(got.body), &x))
		return x
	}
	x := explain("/api/customer/ada/explain?as_of=2026-03-04T00:00:00Z")
	require.Equal(t, "ada", x.ID)
	require.True(t, x.Complete)
	require.Equal(t, 1, x.Merged)
	require.Len(t, x.Traits, 2)
	require.Equal(t, record.TraitExplanation{Name: "plan", Value: json.RawMessage(`"gold"`), Source: "crm", Time: "2026-01-02T10:00:00.000Z"}, x.Traits[1])
	require.Equal(t, "null", string(x.Traits[0].Value))

	byName := map[string]record.FeatureExplanation{}
	for _, f := range x.Features {
		byName[f.Name] = f
	}
	require.Equal(t, record.FeatureExplanation{Name: "orders_30d", Value: json.RawMessage("1"), Kind: "count", Events: []string{"Order Completed"}, Window: "30d", Counted: 1,
		Occurrences: []record.OccurrenceExplanation{{Time: "2026-03-01T10:00:00.000Z"}}}, byName["orders_30d"])
	require.Equal(t, 3, byName["revenue"].Counted)
	require.Equal(t, "13.5", string(byName["revenue"].Value))
	require.Equal(t, `{"properties.total":2.5}`, mustJSON(t, byName["revenue"].Occurrences[0].Values), "the latest first")
	require.Equal(t, `{"properties.category":"hats"}`, mustJSON(t, byName["by_category"].Occurrences[0].Values))
	require.Equal(t, []string{"revenue", "orders"}, byName["per_order"].Needs)
	require.Equal(t, "4.5", string(byName["per_order"].Value))

	require.Equal(t, 6, x.Events.Kept)
	require.Equal(t, record.EventExplanation{Time: "2026-03-03T10:00:00.000Z"}, x.Events.Latest[0], "kept to be recognised, though it counts for nothing")
	require.Equal(t, record.EventExplanation{Time: "2026-03-02T10:00:00.000Z", Names: []string{"Product Viewed"}, Features: []string{"by_category"}}, x.Events.Latest[1])
	require.Equal(t, []string{"Order Completed"}, x.Events.Latest[2].Names)

	// Another time, and an id that was merged.
	x = explain("/api/customer/a1/explain?as_of=2026-01-04T00:00:00Z")
	require.Equal(t, "ada", x.ID)
	require.Equal(t, 2, x.Events.Kept)

	// The explanation gives the values the profile has.
	var served struct{ Features map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(s.do(t, "GET", "/api/customer/ada?as_of=2026-01-04T00:00:00Z", "").body), &served))
	for _, f := range x.Features {
		require.JSONEq(t, string(served.Features[f.Name]), string(f.Value), f.Name)
	}

	require.Equal(t, "no_such_customer", s.do(t, "GET", "/api/customer/nobody/explain", "").code(t))
	require.Equal(t, "unknown_parameter", s.do(t, "GET", "/api/customer/ada/explain?fields=traits", "").code(t))
	require.Equal(t, "no_explanation", serve(t, withProfiles("c1"), "").do(t, "GET", "/api/customer/c1/explain", "").code(t))
}

// Explanations are bounded for any number of events.
func TestExplainIsBounded(t *testing.T) {
	var events []string
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 700 {
		events = append(events, orderOn(`"userId":"heavy"`, fmt.Sprint("o", i), day.AddDate(0, 0, i/8).Format("2006-01-02"), i))
	}
	s := serve(t, withRealProfiles(t, events...), "")
	got := s.do(t, "GET", "/api/customer/heavy/explain", "")
	require.Less(t, len(got.body), 64<<10)
	var x record.Explanation
	require.NoError(t, json.Unmarshal([]byte(got.body), &x))
	require.Len(t, x.Events.Latest, 50)
	require.Less(t, x.Events.Kept, 700)
	require.NotEmpty(t, x.Events.FoldedTo)
	require.Equal(t, "700", string(x.Features[0].Value))
	require.True(t, x.Features[0].Folded)
	require.Len(t, x.Features[0].Occurrences, 20)
}

func TestActivity(t *testing.T) {
	p := withRealProfiles(t, orderOn(`"userId":"u"`, "o1", "2026-01-03", 10))
	errs, err := p.Update(t.Context(), [][]byte{[]byte("no event")})
	require.NoError(t, err)
	require.Error(t, errs[0])
	s := serve(t, p, "")
	for range 3 {
		s.do(t, "GET", "/api/customer/u", "")
	}
	var a struct {
		Events   struct{ Taken, Refused int64 }
		Requests map[string]pageSummary
	}
	require.NoError(t, json.Unmarshal([]byte(s.do(t, "GET", "/api/activity", "").body), &a))
	require.Equal(t, int64(1), a.Events.Taken)
	require.Equal(t, int64(1), a.Events.Refused)
	require.Equal(t, int64(3), a.Requests["customer"].Count)
	require.Positive(t, a.Requests["customer"].P99)
	require.Equal(t, 400, s.do(t, "GET", "/api/activity?x", "").status)
}

// The bucket of a latency is at most a quarter above it.
func TestLatencyBucketsAreWithinAQuarter(t *testing.T) {
	last := -1
	for d := time.Duration(1); d < 20*time.Second; d += d/7 + 1 {
		i := bucketOf(d)
		require.GreaterOrEqual(t, i, last)
		require.Less(t, i, latencyBuckets)
		last = i
		end := bucketEnd(i)
		require.Greater(t, end, d)
		if d > 8*time.Microsecond {
			require.LessOrEqual(t, float64(end), 1.26*float64(d))
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}

// An erased customer has no explanation, and its content is the fallback.
func TestErasedCustomersAreNotExplained(t *testing.T) {
	p := withRealProfiles(t, orderOn(`"userId":"ada"`, "o1", "2026-01-03", 10))
	_, yaml := withBlocks(t, map[string]string{"hello": "type: text\nfallback: FALLBACK\ntemplate: '{{ id }} {{ features.orders }}'\n"})
	s := serve(t, p, yaml)
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/ada/explain", "").status)
	require.Equal(t, "ada 1", s.do(t, "GET", "/api/customer/ada/content/hello", "").body)
	errs, err := p.Update(t.Context(), [][]byte{[]byte(`{"type":"erase","messageId":"e1","userId":"ada","timestamp":"2026-02-01T00:00:00Z","receivedAt":"2026-02-01T00:00:00Z"}`)})
	require.NoError(t, err)
	require.NoError(t, errs[0])
	require.Equal(t, "no_such_customer", s.do(t, "GET", "/api/customer/ada/explain", "").code(t))
	require.Equal(t, "FALLBACK", s.do(t, "GET", "/api/customer/ada/content/hello", "").body)
}

// A sample contains all of a few latencies, and a uniform selection of many.
func TestLatencySampleIsUniform(t *testing.T) {
	var s sample
	var told []int64
	tell := func(took int64) { told = append(told, took) }
	for took := range int64(sampleSize) {
		s.add(took)
	}
	s.drain(tell)
	require.Len(t, told, sampleSize)
	for took, got := range told {
		require.EqualValues(t, took, got)
	}

	told = nil
	s.drain(tell)
	require.Empty(t, told, "they were told")

	const many = 100_000
	for took := range int64(many) {
		s.add(took)
	}
	s.drain(tell)
	require.Len(t, told, sampleSize)
	var sum, quarter int64
	for _, took := range told {
		sum += took
		if took < many/4 {
			quarter++
		}
	}
	// Ten standard deviations either way.
	require.InDelta(t, many/2, sum/sampleSize, many/5)
	require.Less(t, quarter, int64(sampleSize/2))
	require.Positive(t, quarter)
}
