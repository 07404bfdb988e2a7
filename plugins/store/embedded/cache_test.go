package embedded

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

func record(data []byte) store.Record {
	return store.Record{Data: data, Version: store.VersionOf(data)}
}

func TestCacheRejectsOutdatedOffers(t *testing.T) {
	c := newRecordCache(1 << 20)
	h := c.hash("k")
	_, ok, epoch := c.load(h, "k", &arena{})
	require.False(t, ok)
	c.write(h, "k", record([]byte("new")))        // a commit writes,
	c.offer(h, "k", epoch, record([]byte("old"))) // then the load that began before it offers its result
	r, ok, _ := c.load(h, "k", &arena{})
	require.True(t, ok)
	require.Equal(t, "new", string(r.Data))

	_, ok = c.version(h, "K") // another key with the same hash
	require.False(t, ok)
	_, ok, _ = c.load(h, "K", &arena{})
	require.False(t, ok)
}

func TestCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	c := newRecordCache(1) // the smallest: one set
	c.write(5, "used", record([]byte{}))
	for i := range uint64(50) {
		_, ok := c.version(5, "used")
		require.True(t, ok, "round %d", i)
		c.write(5+i, fmt.Sprint(i), record(nil))
	}
}

// The cache always returns the latest content or nothing, and stays within its budget.
func TestCacheAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newRecordCache(30_000)
		require.Len(rt, c.sets, 3)
		latest := map[string][]byte{}
		reads := map[string]uint32{}
		key := rapid.Map(rapid.IntRange(0, 30), func(i int) string { return fmt.Sprint("key", i) })
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				k, size := key.Draw(t, "key"), rapid.SampledFrom([]int{-1, 0, 10, 500, 1_000, 3_000, 8_000, 10_000}).Draw(t, "size")
				var data []byte
				if size >= 0 {
					data = bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, size)
				}
				latest[k] = data
				c.write(c.hash(k), k, record(data))
			},
			"write unseen": func(t *rapid.T) {
				k := key.Draw(t, "key")
				latest[k] = []byte(rapid.StringN(0, 10, -1).Draw(t, "data"))
				c.forget(c.hash(k))
				_, ok := c.version(c.hash(k), k)
				require.False(t, ok)
			},
			"begin a read": func(t *rapid.T) {
				k := key.Draw(t, "key")
				r, ok, epoch := c.load(c.hash(k), k, &arena{})
				if ok {
					require.Equal(t, record(latest[k]), r)
					return
				}
				reads[k] = epoch
			},
			"end a read": func(t *rapid.T) {
				k := key.Draw(t, "key")
				epoch, ok := reads[k]
				if !ok {
					t.Skip("none begun")
				}
				delete(reads, k)
				data := latest[k]
				if c.set(c.hash(k)).epoch != epoch {
					data = []byte("what was there when it began")
				}
				c.offer(c.hash(k), k, epoch, record(data))
			},
			"": func(t *rapid.T) {
				for k, data := range latest {
					if v, ok := c.version(c.hash(k), k); ok {
						require.Equal(t, store.VersionOf(data), v)
					}
				}
				for i := range c.sets {
					used := 0
					for _, e := range c.sets[i].entries {
						used += cap(e.buf)
					}
					require.Equal(t, used, c.sets[i].bytes)
					require.LessOrEqual(t, used, cacheSetBytes)
				}
			},
		})
	})
}
