package customers

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

// TestCachedReadsEqualStoreReads returns the same bytes from the cache and from the
// store, after any sequence of writes, merges, reads and passing time.
func TestCachedReadsEqualStoreReads(t *testing.T) {
	def, err := profiledefinition.Read("../../../configs/retail/profile.yaml")
	require.NoError(t, err)
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
		require.NoError(t, err)
		p := New(def, s, Options{})
		defer func() { _ = p.Close(ctx) }()
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		p.now = func() time.Time { return now }
		c := p.Cached(CacheOptions{MaxBytes: rapid.SampledFrom([]int64{1 << 20, 8 << 10}).Draw(t, "bytes")})
		defer func() { _ = c.Close(ctx) }()

		id := rapid.SampledFrom([]string{"u1", "u2", "anon1", "anon2", "nobody"})
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Hour, 24 * time.Hour}).Draw(t, "wait"))
			if rapid.IntRange(0, 3).Draw(t, "write") == 0 {
				at := now.Format("2006-01-02T15:04:05.000Z")
				who := rapid.SampledFrom([]string{`"userId":"u1"`, `"userId":"u2"`, `"anonymousId":"anon1"`, `"anonymousId":"anon2"`, `"userId":"u1","anonymousId":"anon1"`}).Draw(t, "who")
				what := rapid.SampledFrom([]string{`"type":"track","event":"Order Completed","properties":{"total":12.5}`, `"type":"page"`, `"type":"identify","traits":{"plan":"gold"}`}).Draw(t, "what")
				errs, err := p.Update(ctx, [][]byte{fmt.Appendf(nil, `{"messageId":"m%d","timestamp":%q,"receivedAt":%q,%s,%s}`, i, at, at, who, what)})
				require.NoError(t, err)
				require.NoError(t, errs[0])
			}
			q := Query{
				Fields: rapid.SampledFrom([][]string{nil, nil, {"traits"}, {"features.orders", "features.days_since_order"}}).Draw(t, "fields"),
				AsOf:   rapid.SampledFrom([]time.Time{{}, {}, now.Add(-time.Hour), now.Add(48 * time.Hour)}).Draw(t, "asOf"),
			}
			ids := rapid.SliceOfN(id, 1, 6).Draw(t, "ids")
			want, err := p.Read(ctx, ids, q)
			require.NoError(t, err)
			got, err := c.Read(ctx, ids, q)
			require.NoError(t, err)
			require.Equal(t, texts(want), texts(got))
			for i := range ids {
				if r, ok := c.ReadCached([]byte("before"), ids[i], q); ok {
					require.Equal(t, texts(want[i:i+1]), texts([]Result{r}))
				}
			}
		}
	})
}

func texts(results []Result) (texts []string) {
	for _, r := range results {
		texts = append(texts, fmt.Sprintf("%v %q %s %s %v %v %v", r.Found, r.ID, r.UpdatedAt, r.JSON, r.Complete, r.Anonymous, r.Err))
	}
	return texts
}

// TestReadCached serves what was read before from memory, and leaves queries with
// an error to Read.
func TestReadCached(t *testing.T) {
	p := openRetail(t, embedded.Memory)
	c := p.Cached(CacheOptions{MaxBytes: 1 << 20})
	ctx := context.Background()
	_, ok := c.ReadCached(nil, "u1", Query{})
	require.False(t, ok)
	_, err := c.Read(ctx, []string{"u1"}, Query{})
	require.NoError(t, err)
	r, ok := c.ReadCached(nil, "u1", Query{})
	require.True(t, ok)
	require.False(t, r.Found)
	_, ok = c.ReadCached(nil, "u1", Query{Fields: []string{"nonsense"}})
	require.False(t, ok)

	_, err = p.Update(ctx, [][]byte{[]byte(`{"type":"page","messageId":"1","userId":"u1","timestamp":"2026-01-01T00:00:00Z"}`)})
	require.NoError(t, err)
	_, ok = c.ReadCached(nil, "u1", Query{})
	require.False(t, ok, "what this process writes shows at once")
	require.NoError(t, c.Close(ctx))
	require.Empty(t, p.caches.list)
}

// TestFreshReadBypassesCache writes through another process that does not invalidate the
// cache.
func TestFreshReadBypassesCache(t *testing.T) {
	def, err := profiledefinition.Read("../../../configs/retail/profile.yaml")
	require.NoError(t, err)
	s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
	require.NoError(t, err)
	ctx := context.Background()
	p, other := New(def, s, Options{}), New(def, s, Options{})
	defer func() { _ = p.Close(ctx) }()
	c := p.Cached(CacheOptions{MaxBytes: 1 << 20})
	defer func() { _ = c.Close(ctx) }()
	found := func(q Query) bool {
		results, err := c.Read(ctx, []string{"u1"}, q)
		require.NoError(t, err)
		return results[0].Found
	}
	require.False(t, found(Query{}))
	_, err = other.Update(ctx, [][]byte{[]byte(`{"type":"page","messageId":"1","userId":"u1","timestamp":"2026-01-01T00:00:00Z"}`)})
	require.NoError(t, err)
	require.False(t, found(Query{}))
	require.True(t, found(Query{Fresh: true}))
}

// BenchmarkCached reads profiles of the retail definition with 20 events, from the
// store in memory and by way of the cache. An operation is a profile.
func BenchmarkCached(b *testing.B) {
	p := openRetail(b, embedded.Memory)
	ctx := context.Background()
	_, err := p.Update(ctx, shopEvents(20_000, 1000))
	require.NoError(b, err)
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprintf("customer-%d", i)
	}
	run := func(read func(context.Context, []string, Query) ([]Result, error)) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(ids) {
				if _, err := read(ctx, ids[:min(len(ids), b.N-n)], Query{}); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("store", run(p.Read))
	c := p.Cached(CacheOptions{MaxBytes: 64 << 20})
	b.Run("cache", run(c.Read))
	require.NoError(b, c.Close(ctx))
}
