package customers

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// erasureOf returns an erasure event. ids are JSON members, as in order.
func erasureOf(kind, id, ids, at string) []byte {
	return fmt.Appendf(nil, `{"type":%q,"messageId":%q,%s,"timestamp":%q,"receivedAt":%q}`, kind, id, ids, at, at)
}

// orderAt is an order received when it was made.
func orderAt(id, ids, at string) []byte {
	return fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":%q,%s,"timestamp":%q,"receivedAt":%q,"properties":{"total":1}}`, id, ids, at, at)
}

// records returns all that is stored, by key.
// records returns the records of all customers.
func records(t require.TestingT, p *Service) map[string][]byte {
	all := map[string][]byte{}
	for cursor := ""; ; {
		page, next, err := p.store.Scan(context.Background(), cursor, 100)
		require.NoError(t, err)
		for _, e := range page {
			if isCustomer(e.Key) {
				all[e.Key] = e.Data
			}
		}
		if cursor = next; cursor == "" {
			return all
		}
	}
}

// requireErased checks that nothing is stored of the customer of keys but that
// they were erased.
func requireErased(t require.TestingT, p *Service, keys ...string) {
	all := records(t, p)
	for _, key := range keys {
		var rec, bare record.Record
		require.NoError(t, rec.Decode(p.def, key, all[key]), key)
		require.True(t, rec.Erased(), key)
		// It contains nothing else: it equals the tombstone of an unknown customer.
		bare.Reset(p.def)
		bare.Erase(rec.ErasedAt())
		require.Len(t, all[key], len(bare.Encode(nil, key)), key)
	}
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = record.KeyID(key)
	}
	results, err := p.Read(context.Background(), ids, Query{})
	require.NoError(t, err)
	for _, r := range results {
		require.False(t, r.Found)
		require.True(t, r.Erased)
		require.Empty(t, r.JSON)
	}
}

const (
	early, before, now, after, later = "2026-01-01T00:00:00Z", "2026-01-02T03:04:05Z", "2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z", "2026-02-03T00:00:00Z"
)

func TestErase(t *testing.T) {
	history := [][]byte{
		order("m1", `"anonymousId":"a1"`, 10),
		order("m2", `"anonymousId":"a2"`, 10),
		identify("m3", "u1", "a1", before, "web", `{"email":"jo@example.com"}`),
		alias("m4", "u1", "a2"),
		order("m5", `"userId":"u1"`, 10),
		order("m6", `"userId":"u9"`, 10),
		order("m7", `"anonymousId":"a9"`, 10),
	}
	for name, c := range map[string]struct {
		who  string
		keys []string
	}{
		"by userId":           {`"userId":"u1"`, []string{"uu1", "aa1", "aa2"}},
		"by merged id":        {`"anonymousId":"a2"`, []string{"uu1", "aa1", "aa2"}},
		"anonymous":           {`"anonymousId":"a9"`, []string{"aa9"}},
		"unknown":             {`"userId":"u5","anonymousId":"u5"`, []string{"uu5", "au5"}},
		"one id of two known": {`"userId":"u5","anonymousId":"a1"`, []string{"uu5", "uu1", "aa1", "aa2"}},
		"a placeholder":       {`"userId":"null"`, []string{"unull"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, shop)
			apply(t, p, history...)
			erasure := erasureOf("erase", "e1", c.who, now)
			errs := apply(t, p, orderAt("m8", c.who[:bytes.IndexByte([]byte(c.who+","), ',')], now), erasure)
			require.NoError(t, errs[1])
			requireErased(t, p, c.keys...)
			_, found := read(t, p, "u9")
			require.True(t, found, "others stay")
			stored := records(t, p)

			// Nothing brings them back: not the erasure again, nor events of
			// before, late, of now, by any id, or that would merge.
			require.NoError(t, apply(t, p, erasure)[0])
			apply(t, p, history...)
			for _, key := range c.keys {
				kind := map[byte]string{'u': "userId", 'a': "anonymousId"}[key[0]]
				for i, at := range []string{early, before, after} {
					errs := apply(t, p, orderAt(fmt.Sprint("l", i), fmt.Sprintf("%q:%q", kind, key[1:]), at))
					if key != "unull" { // a placeholder id
						require.ErrorIs(t, errs[0], ErrErased)
					}
				}
				apply(t, p, identify("l3", "u8", key[1:], after, "web", `{}`), alias("l4", "u8", key[1:]))
				if kind == "userId" {
					apply(t, p, alias("l5", key[1:], "a8"), identify("l6", key[1:], "a8", after, "web", `{}`))
				}
			}
			requireErased(t, p, c.keys...)
			for key, data := range records(t, p) {
				if key != "uu8" && key != "au8" && stored[key] != nil {
					require.Equal(t, stored[key], data, key)
				}
			}
		})
	}
}

// TestEraseRemovesChainOfMerges erases a customer that was merged in several steps.
func TestEraseRemovesChainOfMerges(t *testing.T) {
	p := open(t, shop+"identity: { merge_known: true }\n")
	apply(t, p, identify("m1", "u1", "a1", before, "web", `{}`))
	apply(t, p, alias("m2", "u2", "u1"))
	apply(t, p, order("m3", `"anonymousId":"a1"`, 3))
	v, _ := read(t, p, "a1")
	require.Equal(t, "u2", v.ID)
	apply(t, p, erasureOf("erase", "e1", `"anonymousId":"a1"`, now))
	requireErased(t, p, "uu2", "uu1", "aa1")
}

func TestReadmit(t *testing.T) {
	p := open(t, shop)
	history := [][]byte{identify("m1", "u1", "a1", before, "web", `{"email":"jo@example.com"}`), orderAt("m2", `"userId":"u1"`, before)}
	apply(t, p, history...)
	erasure, readmission := erasureOf("erase", "e1", `"userId":"u1"`, now), erasureOf("readmit", "e2", `"userId":"u1"`, after)
	apply(t, p, readmission) // without an erasure it changes nothing
	_, found := read(t, p, "u1")
	require.True(t, found)
	apply(t, p, erasure)
	apply(t, p, readmission)
	v, found := read(t, p, "u1")
	require.True(t, found)
	require.Empty(t, v.Traits)
	require.Equal(t, 0.0, v.Features["orders"])

	errs := apply(t, p, orderAt("m3", `"userId":"u1"`, later))
	require.NoError(t, errs[0])
	// Repeated deliveries neither restore old data nor erase new data.
	for range 2 {
		errs = apply(t, p, append(history, erasure, readmission, orderAt("m4", `"userId":"u1"`, now),
			[]byte(`{"type":"page","messageId":"m5","userId":"u1","timestamp":"`+before+`","receivedAt":"`+later+`"}`))...)
		for _, i := range []int{0, 1, 4, 5} {
			require.ErrorIs(t, errs[i], ErrErased)
		}
	}
	v, _ = read(t, p, "u1")
	require.Empty(t, v.Traits)
	require.Equal(t, 1.0, v.Features["orders"])
	// Ids merged into theirs are erased until they are readmitted themselves.
	requireErased(t, p, "aa1")
	apply(t, p, erasureOf("readmit", "e3", `"anonymousId":"a1"`, after))
	apply(t, p, identify("m6", "u1", "a1", later, "web", `{}`), orderAt("m7", `"anonymousId":"a1"`, later))
	v, _ = read(t, p, "a1")
	require.Equal(t, view{"u1", map[string]any{}, map[string]any{"orders": 2.0, "revenue": 2.0, "big_orders": 0.0}}, v)

	apply(t, p, erasureOf("erase", "e4", `"userId":"u1"`, "2026-02-04T00:00:00Z"))
	requireErased(t, p, "uu1", "aa1")
}

func TestEraseCorruptRecord(t *testing.T) {
	p := open(t, shop)
	_, err := p.store.Commit(context.Background(), []store.Change{{Key: "uu1", Data: []byte("\x01broken")}})
	require.NoError(t, err)
	require.ErrorIs(t, apply(t, p, order("m1", `"userId":"u1"`, 1))[0], record.ErrCorrupt)
	require.NoError(t, apply(t, p, erasureOf("erase", "e1", `"userId":"u1"`, now))[0])
	requireErased(t, p, "uu1")
}

// genErasures draws a journey in which some customers are erased, and returns their
// keys.
func genErasures(t *rapid.T) (events [][]byte, erased []string) {
	events, _ = genJourney(t)
	for u := range 3 {
		if !rapid.Bool().Draw(t, "erase") {
			continue
		}
		who := fmt.Sprintf(`"userId":"u%d"`, u)
		at := rapid.IntRange(0, len(events)).Draw(t, "at")
		events = append(events[:at:at], append([][]byte{erasureOf("erase", fmt.Sprint("e", u), who, now)}, events[at:]...)...)
		erased = append(erased, fmt.Sprintf("uu%d", u))
	}
	return events, erased
}

// requireNothingLeft checks that no record of erased people has content.
func requireNothingLeft(t require.TestingT, p *Service, erased []string) {
	requireErased(t, p, erased...)
	for key, data := range records(t, p) {
		var rec record.Record
		require.NoError(t, rec.Decode(p.def, key, data))
		for _, e := range erased {
			require.NotEqual(t, e, rec.Link(), "%s still leads to %s", key, e)
		}
	}
}

// TestErasureSurvivesStoreFaults injects store failures and repeats batches: the erased
// customers have no data, and the others have all of theirs.
func TestErasureSurvivesStoreFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		events, erased := genErasures(rt)
		want := open(t, shop)
		for _, e := range events {
			_, err := want.Update(context.Background(), [][]byte{e})
			require.NoError(rt, err)
		}
		p := open(t, shop)
		p.store = &faulty{p.store, func() (before, after bool) {
			n := rapid.IntRange(0, 7).Draw(rt, "fault")
			return n == 0, n == 1
		}}
		for rest := events; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			for {
				if _, err := p.Update(context.Background(), rest[:n]); err == nil {
					break
				}
			}
			rest = rest[n:]
		}
		p.store = p.store.(*faulty).Store
		requireNothingLeft(rt, p, erased)
		for key, data := range records(rt, want) {
			var rec record.Record
			require.NoError(rt, rec.Decode(want.def, key, data))
			if rec.Erased() {
				requireErased(rt, p, key)
			}
		}
		ids := []string{"u0", "u1", "u2"}
		require.Equal(rt, snapshot(rt, want, ids), snapshot(rt, p, ids))
	})
}

// TestErasureWithConcurrentWriters erases among concurrent writers; no data remains after all
// events were delivered again, as after a crash.
func TestErasureWithConcurrentWriters(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		events, erased := genErasures(rt)
		p := open(t, shop)
		const writers = 4
		var done sync.WaitGroup
		for w := range writers {
			done.Go(func() {
				for i := w; i < len(events); i += writers {
					if _, err := p.Update(context.Background(), events[i:i+1]); err != nil {
						panic(err)
					}
				}
			})
		}
		done.Wait()
		requireNothingLeft(rt, p, erased)
		for _, e := range events {
			_, err := p.Update(context.Background(), [][]byte{e})
			require.NoError(rt, err)
		}
		requireNothingLeft(rt, p, erased)
	})
}
