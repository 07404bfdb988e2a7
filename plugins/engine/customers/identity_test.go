package customers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

func alias(id, user, previous string) []byte {
	return []byte(fmt.Sprintf(`{"type":"alias","messageId":%q,"userId":%q,"previousId":%q,"timestamp":"2026-01-02T03:04:06Z"}`, id, user, previous))
}

func TestPlaceholderIDsCreateNoCustomers(t *testing.T) {
	p := open(t, shop+"identity: { ignore: [Kiosk-1] }\n")
	for _, junk := range []string{"null", "undefined", "[object Object]", "00000000-0000-0000-0000-000000000000", "  ", "jo@example.com", "kiosk-1", "NULL"} {
		errs := apply(t, p, order("m"+junk, fmt.Sprintf(`"userId":%q`, junk), 1), order("n"+junk, fmt.Sprintf(`"anonymousId":%q`, junk), 1))
		for _, err := range errs {
			var bad *event.Error
			require.ErrorAs(t, err, &bad)
			require.Equal(t, "identifier", bad.Rule)
		}
		_, found := read(t, p, junk)
		require.False(t, found)
		// The other id counts alone.
		apply(t, p, order("o"+junk, fmt.Sprintf(`"userId":%q,"anonymousId":"a1"`, junk), 1),
			identify("i"+junk, "u1", junk, "2026-01-02T03:04:06Z", "web", `{}`))
	}
	v, _ := read(t, p, "a1")
	require.Equal(t, 8.0, v.Features["orders"])
	v, _ = read(t, p, "u1")
	require.Equal(t, 0.0, v.Features["orders"])
}

func TestSharedAnonymousIDIsRejected(t *testing.T) {
	p := open(t, shop+"identity: { max_shared: 3 }\n")
	apply(t, p, order("m0", `"anonymousId":"kiosk"`, 1))
	for i := range 4 {
		apply(t, p, identify(fmt.Sprint("i", i), fmt.Sprint("u", i), "kiosk", "2026-01-02T03:04:06Z", "pos", `{}`))
	}
	errs := apply(t, p, order("m1", `"anonymousId":"kiosk"`, 1), order("m2", `"anonymousId":"kiosk","userId":"u2"`, 1))
	require.ErrorContains(t, errs[0], "too many customers")
	require.NoError(t, errs[1])
	for i, want := range []float64{1, 0, 1, 0} {
		v, _ := read(t, p, fmt.Sprint("u", i))
		require.Equal(t, want, v.Features["orders"], "u%d", i)
	}
}

func TestMergeLimit(t *testing.T) {
	p := open(t, shop+"identity: { max_merged: 2 }\n")
	for i := range 3 {
		who := fmt.Sprintf(`"anonymousId":"a%d"`, i)
		apply(t, p, order(fmt.Sprint("m", i), who, 1), identify(fmt.Sprint("i", i), "u1", fmt.Sprint("a", i), "2026-01-02T03:04:06Z", "web", `{}`))
	}
	v, _ := read(t, p, "u1")
	require.Equal(t, 2.0, v.Features["orders"])
	v, _ = read(t, p, "a2")
	require.Equal(t, "a2", v.ID)
}

// TestAliasesOfKnownCustomersAreNotCounted shows that max_merged counts anonymous
// ids: neither an alias of a known customer that is not merged, nor one that is.
func TestAliasesOfKnownCustomersAreNotCounted(t *testing.T) {
	for _, mergeKnown := range []bool{false, true} {
		for _, oneBatch := range []bool{false, true} {
			p := open(t, shop+fmt.Sprintf("identity: { max_merged: 1, merge_known: %v }\n", mergeKnown))
			events := [][]byte{
				order("m1", `"userId":"u1"`, 1), order("m2", `"userId":"u2"`, 2), order("m3", `"userId":"u3"`, 4), order("m4", `"anonymousId":"a1"`, 8), order("m5", `"anonymousId":"a2"`, 16),
				alias("x1", "u1", "u2"), alias("x2", "u1", "u3"), alias("x3", "u1", "a1"), alias("x4", "u1", "a2"), alias("x5", "u1", "u4"),
			}
			for range 2 {
				if oneBatch {
					apply(t, p, events...)
				} else {
					for _, e := range events {
						apply(t, p, e)
					}
				}
			}
			want := map[string]float64{"u1": 9, "u2": 2, "u3": 4, "a1": 9, "a2": 16}
			if mergeKnown {
				want = map[string]float64{"u1": 15, "u2": 15, "u3": 15, "a1": 15, "a2": 16}
			}
			for id, revenue := range want {
				v, _ := read(t, p, id)
				require.Equal(t, revenue, v.Features["revenue"], "%s, merge_known %v, one batch %v", id, mergeKnown, oneBatch)
			}
		}
	}
}

func TestAlias(t *testing.T) {
	p := open(t, shop)
	apply(t, p, order("m1", `"anonymousId":"a1"`, 1), order("m2", `"userId":"u2"`, 2), order("m3", `"userId":"u1"`, 4))
	apply(t, p, alias("x1", "u1", "a1"), alias("x2", "u1", "u2"))
	v, _ := read(t, p, "u1")
	require.Equal(t, 5.0, v.Features["revenue"], "only the anonymous customer is merged")
	v, _ = read(t, p, "u2")
	require.Equal(t, 2.0, v.Features["revenue"])

	p = open(t, shop+"identity: { merge_known: true }\n")
	apply(t, p, order("m1", `"anonymousId":"a1"`, 1), order("m2", `"userId":"u2"`, 2), order("m3", `"userId":"u1"`, 4))
	apply(t, p, alias("x1", "u1", "a1"), alias("x2", "u1", "u2"), alias("x3", "u2", "u1"))
	apply(t, p, alias("x4", "u3", "u1"))
	for _, id := range []string{"u1", "u2", "a1", "u3"} {
		v, _ = read(t, p, id)
		require.Equal(t, 7.0, v.Features["revenue"], id)
		require.Equal(t, "u3", v.ID)
	}
	require.NoError(t, p.Close(context.Background()))
	require.NoError(t, p.Close(context.Background()))
}

func TestFutureEventsAreRejected(t *testing.T) {
	p := open(t, shop)
	errs := apply(t, p,
		[]byte(`{"type":"page","messageId":"m1","userId":"u1","timestamp":"2026-01-02T05:00:00Z","receivedAt":"2026-01-02T03:59:59Z"}`),
		[]byte(`{"type":"page","messageId":"m2","userId":"u1","timestamp":"2026-01-02T05:00:00Z","receivedAt":"2026-01-02T04:00:00Z"}`),
		[]byte(`{"type":"page","messageId":"m3","userId":"u1","timestamp":"9999-01-02T05:00:00Z"}`),
		[]byte(`{"type":"page","messageId":"m4","userId":"u1","timestamp":"1969-01-02T05:00:00Z"}`))
	require.ErrorContains(t, errs[0], "too far after")
	require.NoError(t, errs[1])
	require.ErrorContains(t, errs[2], "too far after")
	require.ErrorContains(t, errs[3], "before 1970")
}

var errFault = errors.New("the store went away")

// faulty fails some of its calls, before or after they take effect.
type faulty struct {
	store.Store
	fail func() (before, after bool)
}

func (f *faulty) Load(ctx context.Context, keys []string) ([]store.Record, error) {
	if before, _ := f.fail(); before {
		return nil, errFault
	}
	return f.Store.Load(ctx, keys)
}

func (f *faulty) Commit(ctx context.Context, changes []store.Change) ([]int, error) {
	before, after := f.fail()
	if before {
		// A part of the changes is applied.
		if _, err := f.Store.Commit(ctx, changes[:len(changes)/2]); err != nil {
			return nil, err
		}
		return nil, errFault
	}
	conflicts, err := f.Store.Commit(ctx, changes)
	if after {
		return nil, errFault
	}
	return conflicts, err
}

// genJourney draws events of three people, each with anonymous ids that are
// theirs alone, in which every anonymous id ends up identified.
func genJourney(t *rapid.T) (events [][]byte, ids []string) {
	n := 0
	id := func() string { n++; return fmt.Sprintf("m%d", n) }
	for u := range 3 {
		user := fmt.Sprintf("u%d", u)
		ids = append(ids, user)
		for a := range rapid.IntRange(0, 2).Draw(t, "devices") {
			device := fmt.Sprintf("a%d-%d", u, a)
			ids = append(ids, device)
			for range rapid.IntRange(0, 3).Draw(t, "anonymous") {
				events = append(events, order(id(), fmt.Sprintf(`"anonymousId":%q`, device), float64(n)+0.1))
			}
			if rapid.Bool().Draw(t, "alias") {
				events = append(events, alias(id(), user, device))
			} else {
				events = append(events, identify(id(), user, device, fmt.Sprintf("2026-01-01T00:00:%02dZ", n), "web", fmt.Sprintf(`{"n":%d}`, n)))
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "known") {
			events = append(events, order(id(), fmt.Sprintf(`"userId":%q`, user), float64(n)+0.1))
		}
	}
	events = rapid.Permutation(events).Draw(t, "order")
	for _, i := range rapid.SliceOfN(rapid.IntRange(0, max(0, len(events)-1)), 0, 5).Draw(t, "again") {
		if len(events) > 0 {
			events = append(events, events[i])
		}
	}
	return events, ids
}

// snapshot reads every id.
func snapshot(t require.TestingT, p *Service, ids []string) []string {
	results, err := p.Read(context.Background(), ids, Query{AsOf: at})
	require.NoError(t, err)
	out := make([]string, len(ids))
	for i, r := range results {
		out[i] = string(r.JSON)
	}
	return out
}

// TestMergesSurviveStoreFaults reorders, repeats and splits batches and injects store failures;
// every customer equals a run without faults.
func TestMergesSurviveStoreFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		events, ids := genJourney(rt)
		want := open(t, shop)
		_, err := want.Update(context.Background(), events)
		require.NoError(rt, err)

		p := open(t, shop)
		p.store = &faulty{p.store, func() (before, after bool) {
			n := rapid.IntRange(0, 9).Draw(rt, "fault")
			return n == 0, n == 1
		}}
		for rest := events; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			for {
				errs, err := p.Update(context.Background(), rest[:n])
				if err == nil {
					for _, e := range errs {
						require.NoError(rt, e)
					}
					break
				}
				require.ErrorIs(rt, err, errFault)
			}
			rest = rest[n:]
		}
		p.store = p.store.(*faulty).Store
		require.Equal(rt, snapshot(rt, want, ids), snapshot(rt, p, ids))
	})
}

// TestConcurrentWritersLoseNoUpdate compares concurrent writers with a single one.
func TestConcurrentWritersLoseNoUpdate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		events, ids := genJourney(rt)
		want := open(t, shop)
		_, err := want.Update(context.Background(), events)
		require.NoError(rt, err)

		p := open(t, shop)
		const writers = 4
		var done sync.WaitGroup
		for w := range writers {
			done.Add(1)
			go func() {
				defer done.Done()
				for i := w; i < len(events); i += writers {
					if _, err := p.Update(context.Background(), events[i:i+1]); err != nil {
						panic(err)
					}
				}
			}()
		}
		done.Wait()
		require.Equal(rt, snapshot(rt, want, ids), snapshot(rt, p, ids))
	})
}

// every is a definition with a feature of every kind that needs no file.
const every = `
features:
  - { name: count, count: { events: [Order Completed], window: 30d } }
  - { name: count_by, count: { by: 'properties.products[].sku' } }
  - { name: sum, sum: { of: properties.total, where: 'this.properties.total > 5' } }
  - { name: sum_by, sum: { of: 'properties.products[].price', by: 'properties.products[].sku' } }
  - { name: avg, avg: { of: properties.total } }
  - { name: min, min: { of: properties.total } }
  - { name: max, max: { of: properties.total } }
  - { name: stddev, stddev: { of: properties.total } }
  - { name: first, first: { of: properties.total } }
  - { name: last, last: { of: timestamp } }
  - { name: last_k, last_k: { of: properties.total, k: 3 } }
  - { name: distinct, distinct_count: { of: 'properties.products[].sku' } }
  - { name: top, top_k: { of: 'properties.products[].sku', k: 2 } }
  - { name: unique, unique_values: { of: 'properties.products[].sku', k: 2 } }
  - { name: days, days_active: {} }
  - { name: since_first, time_since_first: { unit: hours } }
  - { name: since_last, time_since_last: {} }
  - { name: interval, interval_mean: {} }
  - { name: intervals, interval_stddev: {} }
  - { name: score, decayed_sum: { half_life: 7d, weights: { Order Completed: 3 } } }
  - { name: hours, hour_histogram: {} }
  - { name: best, best_send_hour: {} }
  - { name: ratio, ratio: { of: sum, to: count } }
  - { name: expression, expression: 'features.ratio + 1' }
  - name: rfm
    rfm: { recency: since_last, frequency: count, monetary: sum, recency_scores: [1, 2, 3, 4], frequency_scores: [1, 2, 3, 4], monetary_scores: [10, 20, 30, 40] }
`

// TestFeaturesWithConcurrentWriters splits a history, with an overlap, over two concurrent
// writers, for every kind of feature.
func TestFeaturesWithConcurrentWriters(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var all [][]byte
		shares := make([][][]byte, 2)
		for i := range rapid.IntRange(1, 40).Draw(rt, "events") {
			e := fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"m%d","userId":"u%d","timestamp":"2026-01-%02dT%02d:00:00Z","properties":{"total":%d.35,"products":[{"sku":"s%d","price":1.1},{"sku":"s2","price":2}]}}`,
				i, rapid.IntRange(1, 2).Draw(rt, "who"), rapid.IntRange(1, 31).Draw(rt, "day"), rapid.IntRange(0, 23).Draw(rt, "hour"), rapid.IntRange(0, 20).Draw(rt, "total"), rapid.IntRange(0, 5).Draw(rt, "sku"))
			all = append(all, e)
			to := rapid.IntRange(0, 2).Draw(rt, "share")
			for w := range shares {
				if to == w || to == 2 {
					shares[w] = append(shares[w], e)
				}
			}
		}
		want := open(t, every)
		_, err := want.Update(context.Background(), all)
		require.NoError(rt, err)

		p := open(t, every)
		size := rapid.IntRange(1, 10).Draw(rt, "batch")
		var done sync.WaitGroup
		for _, share := range shares {
			done.Add(1)
			go func() {
				defer done.Done()
				for at := 0; at < len(share); at += size {
					if _, err := p.Update(context.Background(), share[at:min(at+size, len(share))]); err != nil {
						panic(err)
					}
				}
			}()
		}
		done.Wait()
		ids := []string{"u1", "u2"}
		require.Equal(rt, snapshot(rt, want, ids), snapshot(rt, p, ids))
	})
}
