package customers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

const shop = `
sources: [crm, web]
features:
  - name: orders
    count: { events: [Order Completed] }
  - name: revenue
    sum: { events: [Order Completed], of: properties.total }
  - name: big_orders
    count: { events: [Order Completed], where: 'this.properties.total > 100' }
`

func writeDefinition(t testing.TB, text string) string {
	path := filepath.Join(t.TempDir(), "profile.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func open(t testing.TB, definition string) *Service {
	def, err := profiledefinition.Read(writeDefinition(t, definition))
	require.NoError(t, err)
	s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
	require.NoError(t, err)
	p := New(def, s, Options{})
	t.Cleanup(func() { require.NoError(t, p.Close(context.Background())) })
	return p
}

func order(id, ids string, total float64) []byte {
	return []byte(fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":%q,%s,"timestamp":"2026-01-02T03:04:05.000Z","properties":{"total":%v}}`, id, ids, total))
}

func apply(t testing.TB, p *Service, events ...[]byte) []error {
	errs, err := p.Update(context.Background(), events)
	require.NoError(t, err)
	require.Len(t, errs, len(events))
	return errs
}

// at is 30 days after the orders.
var at = time.Date(2026, 2, 1, 3, 4, 5, 0, time.UTC)

type view struct {
	ID       string         `json:"id"`
	Traits   map[string]any `json:"traits"`
	Features map[string]any `json:"features"`
}

func read(t testing.TB, p *Service, id string) (view, bool) {
	results, err := p.Read(context.Background(), []string{id}, Query{})
	require.NoError(t, err)
	var v view
	if results[0].Found {
		require.NoError(t, json.Unmarshal(results[0].JSON, &v), "%s", results[0].JSON)
	}
	return v, results[0].Found
}

func TestEventsBecomeProfiles(t *testing.T) {
	p := open(t, shop)
	errs := apply(t, p,
		order("m1", `"userId":"u1"`, 19.9),
		[]byte(`{"type":"track"`),
		order("m2", `"userId":"u1"`, 120.2),
		order("m1", `"userId":"u1"`, 19.9),
		order("m1", `"userId":"u2"`, 5),
	)
	require.NoError(t, errs[0])
	require.ErrorContains(t, errs[1], "not valid JSON")
	v, found := read(t, p, "u1")
	require.True(t, found)
	require.Equal(t, map[string]any{"orders": 2.0, "revenue": 140.1, "big_orders": 1.0}, v.Features)
	v, _ = read(t, p, "u2")
	require.Equal(t, 1.0, v.Features["orders"])
	_, found = read(t, p, "u3")
	require.False(t, found)
}

func identify(id, user, anonymous, at, source, traits string) []byte {
	return []byte(fmt.Sprintf(`{"type":"identify","messageId":%q,"userId":%q,"anonymousId":%q,"timestamp":%q,"source":%q,"traits":%s}`, id, user, anonymous, at, source, traits))
}

func TestIdentifyMergesTheAnonymousCustomer(t *testing.T) {
	p := open(t, shop)
	apply(t, p, order("m1", `"anonymousId":"a1"`, 10))
	v, _ := read(t, p, "a1")
	require.Equal(t, "a1", v.ID)

	apply(t, p, identify("m2", "u1", "a1", "2026-01-02T03:04:06Z", "web", `{"email":"jo@example.com"}`), order("m3", `"anonymousId":"a1"`, 20))
	for _, id := range []string{"u1", "a1"} {
		v, found := read(t, p, id)
		require.True(t, found)
		require.Equal(t, "u1", v.ID)
		require.Equal(t, 2.0, v.Features["orders"])
		require.Equal(t, 30.0, v.Features["revenue"])
		require.Equal(t, "jo@example.com", v.Traits["email"])
	}
	// Events of the anonymous customer arrive late, and twice.
	apply(t, p, order("m0", `"anonymousId":"a1"`, 1), order("m1", `"anonymousId":"a1"`, 10))
	v, _ = read(t, p, "u1")
	require.Equal(t, 31.0, v.Features["revenue"])

	// Another customer on the same device does not get this profile.
	apply(t, p, identify("m4", "u2", "a1", "2026-01-03T00:00:00Z", "web", `{}`))
	v, _ = read(t, p, "u2")
	require.Equal(t, 0.0, v.Features["orders"])
}

func TestTraitsConvergeInAnyOrder(t *testing.T) {
	statements := [][]byte{
		identify("m1", "u1", "", "2026-01-01T00:00:00Z", "web", `{"city":"Rome","tier":"gold","n":1}`),
		identify("m2", "u1", "", "2026-01-02T00:00:00Z", "web", `{"city":"Bonn","n":null}`),
		identify("m3", "u1", "", "2026-01-02T00:00:00Z", "crm", `{"city":"Oslo"}`),
		identify("m4", "u1", "", "2025-01-02T00:00:00Z", "crm", `{"tier":"none","n":5}`),
	}
	want := map[string]any{"city": "Oslo", "tier": "gold"}
	permute(statements, func(order [][]byte) {
		p := open(t, shop)
		apply(t, p, order...)
		v, _ := read(t, p, "u1")
		require.Equal(t, want, v.Traits)
	})
}

func permute(items [][]byte, fn func([][]byte)) {
	var step func(k int)
	step = func(k int) {
		if k == len(items) {
			fn(items)
			return
		}
		for i := k; i < len(items); i++ {
			items[k], items[i] = items[i], items[k]
			step(k + 1)
			items[k], items[i] = items[i], items[k]
		}
	}
	step(0)
}

func TestDerivedFeatures(t *testing.T) {
	p := open(t, `
features:
  - { name: orders, count: { events: [Order Completed] } }
  - { name: views, count: { events: [Product Viewed] } }
  - { name: revenue, sum: { events: [Order Completed], of: properties.total } }
  - { name: days, time_since_last: { events: [Order Completed], unit: days } }
  - { name: per_order, ratio: { of: revenue, to: orders } }
  - { name: per_view, ratio: { of: revenue, to: views } }
  - { name: twice, expression: 'features.per_order * 2' }
  - { name: greeting, expression: '"Hi " + traits.name' }
  - { name: broken, expression: 'features.per_view + 1' }
  - name: rfm
    rfm: { recency: days, frequency: orders, monetary: revenue, recency_scores: [1, 30, 60, 90], frequency_scores: [2, 3, 4, 5], monetary_scores: [10, 30, 40, 50] }
`)
	apply(t, p,
		identify("m0", "u1", "", "2026-01-01T00:00:00Z", "web", `{"name":"Jo"}`),
		order("m1", `"userId":"u1"`, 10), order("m2", `"userId":"u1"`, 20),
		identify("m3", "u2", "", "2026-01-01T00:00:00Z", "web", `{}`))
	results, err := p.Read(context.Background(), []string{"u1", "u2"}, Query{AsOf: at, Fields: []string{"features"}})
	require.NoError(t, err)
	require.JSONEq(t, `{"id":"u1","features":{"orders":2,"views":0,"revenue":30,"days":30,"per_order":15,"per_view":null,"twice":30,
		"greeting":"Hi Jo","broken":null,"rfm":{"recency":4,"frequency":2,"monetary":3,"score":"423"}},
		"as_of":"2026-02-01T03:04:05.000Z","updated_at":"2026-01-02T03:04:05.000Z"}`, string(results[0].JSON))
	require.Contains(t, string(results[1].JSON), `"rfm":null`)
	// A feature chosen alone is computed with what it needs.
	results, err = p.Read(context.Background(), []string{"u1"}, Query{AsOf: at, Fields: []string{"features.twice"}})
	require.NoError(t, err)
	require.Contains(t, string(results[0].JSON), `"features":{"twice":30}`)
}

// TestBatchReadEqualsSingleReads reads a large batch with missing and merged ids.
func TestBatchReadEqualsSingleReads(t *testing.T) {
	p := open(t, shop)
	var events [][]byte
	var ids []string
	for i := range 1500 {
		if i%3 == 1 {
			events = append(events, identify(fmt.Sprint("i", i), fmt.Sprint("u", i), fmt.Sprint("a", i), "2026-01-02T03:04:06Z", "web", `{}`))
			ids = append(ids, fmt.Sprint("a", i))
		} else {
			ids = append(ids, fmt.Sprint("u", i))
		}
		if i%3 != 2 {
			events = append(events, order(fmt.Sprint("m", i), fmt.Sprintf(`"userId":"u%d"`, i), float64(i)))
		}
	}
	apply(t, p, events...)
	together, err := p.Read(context.Background(), ids, Query{AsOf: at})
	require.NoError(t, err)
	for i, id := range ids {
		alone, err := p.Read(context.Background(), []string{id}, Query{AsOf: at})
		require.NoError(t, err)
		require.Equal(t, alone[0], together[i])
		require.Equal(t, i%3 != 2, together[i].Found)
	}
}
