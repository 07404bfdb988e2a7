package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

var ctx = context.Background()

func record(text string) store.Record {
	return store.Record{Data: []byte(text), Version: store.VersionOf([]byte(text))}
}

// loads records the keys that are loaded, and returns the keys themselves as data.
type loads struct {
	calls  [][]string
	during func()
	err    error
}

func (l *loads) load(_ context.Context, keys []string) ([]store.Record, error) {
	l.calls = append(l.calls, keys)
	if l.during != nil {
		l.during()
	}
	records := make([]store.Record, len(keys))
	for i, key := range keys {
		if key != "missing" {
			records[i] = record(fmt.Sprintf("%s %d", key, len(l.calls)))
		}
	}
	return records, l.err
}

func TestLoadReadsOnlyMissingRecords(t *testing.T) {
	l := &loads{}
	c := New(l.load, 1<<20)
	_, err := c.Load(ctx, []string{"a"})
	require.NoError(t, err)
	require.Nil(t, c.Get("a"), "the cache is not valid yet")

	c.ValidUntil(Forever)
	got, err := c.Load(ctx, []string{"a", "b", "a", "missing"})
	require.NoError(t, err)
	require.Equal(t, []store.Record{record("a 2"), record("b 2"), record("a 2"), {}}, got)
	require.Equal(t, []string{"a", "b", "missing"}, l.calls[1])
	again, err := c.Load(ctx, []string{"missing", "b", "c"})
	require.NoError(t, err)
	require.Equal(t, []store.Record{{}, record("b 2"), record("c 3")}, again)
	require.Equal(t, []string{"c"}, l.calls[2])
	require.Equal(t, store.Absent, c.Get("missing").Version)

	c.Invalidate("b")
	require.Nil(t, c.Get("b"))
	require.NotNil(t, c.Get("a"))
	c.InvalidateAll()
	require.Nil(t, c.Get("a"))

	_, err = c.Load(ctx, []string{"a"})
	require.NoError(t, err)
	require.NotNil(t, c.Get("a"))
	c.ValidUntil(time.Now().Add(-time.Second))
	require.Nil(t, c.Get("a"), "the cache is no longer valid")
}

func TestARecordInvalidatedDuringItsReadIsNotCached(t *testing.T) {
	for name, change := range map[string]func(*Cache){
		"changed": func(c *Cache) { c.Invalidate("a") }, "reset": (*Cache).InvalidateAll,
	} {
		t.Run(name, func(t *testing.T) {
			l := &loads{}
			c := New(l.load, 1<<20)
			c.ValidUntil(Forever)
			l.during = func() {
				l.during = nil
				change(c)
				// A read that begins now does not get the result of the outdated read.
				got, err := c.Load(ctx, []string{"a"})
				require.NoError(t, err)
				require.Equal(t, []store.Record{record("a 2")}, got)
			}
			_, err := c.Load(ctx, []string{"a"})
			require.NoError(t, err)
			require.Len(t, l.calls, 2)
			require.Equal(t, record("a 2"), c.Get("a").Record)
		})
	}
}

func TestNotesStayWithTheirEntry(t *testing.T) {
	l := &loads{}
	c := New(l.load, 1<<20)
	c.ValidUntil(Forever)
	_, err := c.Load(ctx, []string{"a"})
	require.NoError(t, err)
	e := c.Get("a")
	c.Annotate("a", e, "note", 10)
	require.Equal(t, "note", c.Get("a").Note)
	require.Equal(t, e.Record, c.Get("a").Record)

	old := c.Get("a")
	c.Invalidate("a")
	c.Annotate("a", old, "late", 10)
	require.Nil(t, c.Get("a"), "a note does not restore an invalidated entry")
	_, err = c.Load(ctx, []string{"a"})
	require.NoError(t, err)
	c.Annotate("a", old, "late", 10)
	require.Nil(t, c.Get("a").Note, "a note for another entry is ignored")
}

func TestErrorsAreNotCached(t *testing.T) {
	l := &loads{err: errors.New("away")}
	c := New(l.load, 1<<20)
	c.ValidUntil(Forever)
	_, err := c.Load(ctx, []string{"a"})
	require.ErrorIs(t, err, l.err)
	l.err = nil
	got, err := c.Load(ctx, []string{"a"})
	require.NoError(t, err)
	require.Equal(t, []store.Record{record("a 2")}, got)

	l.during = func() { panic("a bug") }
	require.Panics(t, func() { _, _ = c.Load(ctx, []string{"b"}) })
	l.during = nil
	_, err = c.Load(ctx, []string{"b"})
	require.NoError(t, err, "a panic of the loader does not block other callers")
}

func TestConcurrentReadersShareARead(t *testing.T) {
	var calls atomic.Int64
	entered, proceed := make(chan struct{}), make(chan struct{})
	c := New(func(ctx context.Context, keys []string) ([]store.Record, error) {
		if calls.Add(1) == 1 {
			close(entered)
		}
		<-proceed
		return []store.Record{record("a")}, nil
	}, 1<<20)
	c.ValidUntil(Forever)
	var readers sync.WaitGroup
	read := func() {
		got, err := c.Load(ctx, []string{"a"})
		require.NoError(t, err)
		require.Equal(t, []store.Record{record("a")}, got)
	}
	readers.Go(read)
	<-entered
	s := c.stripe("a")
	s.mu.Lock()
	f := s.flights["a"]
	s.mu.Unlock()
	require.NotNil(t, f)
	for range 10 {
		readers.Go(read)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err := c.Load(gone, []string{"a"})
	require.ErrorIs(t, err, context.Canceled, "a waiting caller may leave")
	close(proceed)
	readers.Wait()
	require.EqualValues(t, 1, calls.Load())
}

// A caller that found nothing may begin a read just after another read of the record
// ended.
func TestJoinReturnsTheResultOfAReadThatJustEnded(t *testing.T) {
	l := &loads{}
	c := New(l.load, 1<<20)
	c.ValidUntil(Forever)
	_, err := c.Load(ctx, []string{"a"})
	require.NoError(t, err)
	var b batch
	e := b.join(c, 0, "a")
	require.NotNil(t, e)
	require.Equal(t, record("a 1"), e.Record)
	require.Empty(t, b.positions)
}

func TestMemoryIsBounded(t *testing.T) {
	const limit = 1 << 20
	c := New(func(_ context.Context, keys []string) ([]store.Record, error) {
		records := make([]store.Record, len(keys))
		for i := range records {
			records[i] = store.Record{Data: make([]byte, 1000), Version: 1}
		}
		return records, nil
	}, limit)
	c.ValidUntil(Forever)
	for i := range 20_000 {
		_, err := c.Load(ctx, []string{fmt.Sprint(i)})
		require.NoError(t, err)
	}
	c.records.CleanUp()
	require.LessOrEqual(t, c.Bytes(), int64(limit))
	require.Greater(t, c.Bytes(), int64(limit/2))
}

// TestNoReadReturnsDataFromBeforeAnInvalidation runs readers, writers and InvalidateAll
// at once. A read never returns data that was invalidated before the read began.
func TestNoReadReturnsDataFromBeforeAnInvalidation(t *testing.T) {
	const keys = 5
	var stored, reported [keys]atomic.Uint64
	name := func(i int) string { return string(rune('a' + i)) }
	c := New(func(_ context.Context, names []string) ([]store.Record, error) {
		records := make([]store.Record, len(names))
		for i, n := range names {
			v := stored[n[0]-'a'].Load()
			records[i] = store.Record{Data: binary.LittleEndian.AppendUint64(nil, v), Version: 1}
		}
		return records, nil
	}, 1<<20)
	c.ValidUntil(Forever)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			for v := uint64(1); v <= 3000; v++ {
				stored[i].Store(v)
				if v%100 == 0 {
					c.InvalidateAll()
				} else {
					c.Invalidate(name(i))
				}
				reported[i].Store(v)
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for n := range 10_000 {
				i := n % keys
				least := reported[i].Load()
				var got uint64
				if e := c.Get(name(i)); e != nil && n%2 == 0 {
					got = binary.LittleEndian.Uint64(e.Data)
					c.Annotate(name(i), e, n, 1)
				} else {
					records, err := c.Load(ctx, []string{name(i), name((i + 1) % keys)})
					if err != nil {
						t.Error(err)
						return
					}
					got = binary.LittleEndian.Uint64(records[0].Data)
				}
				if got < least {
					t.Errorf("a read gave %d after %d had been reported", got, least)
					return
				}
			}
		})
	}
	all.Wait()
}
