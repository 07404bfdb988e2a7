// Package cache keeps records in memory for readers that may lag slightly behind the
// store.
//
// A Cache serves a record until the record is invalidated. The owner of the cache
// invalidates the records that this process commits, and a store.Watcher those that
// other processes change; the Watcher also extends the time until which the cache is
// valid. A record that is invalidated while it is being read is not cached, and later
// reads of it go to the store: a read that begins after Invalidate returns never gives
// the content from before the change.
package cache

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Entry is a cached record. It must not be modified.
type Entry struct {
	store.Record
	// Note is data that a reader derived from the record and attached, nil for none.
	Note      any
	noteBytes int
}

// Loader reads records like Load of store.Store.
type Loader func(ctx context.Context, keys []string) ([]store.Record, error)

var _ store.Invalidator = (*Cache)(nil)

// Cache is a store.Invalidator and a bounded set of records. It is safe for concurrent
// use.
type Cache struct {
	load    Loader
	records *otter.Cache[string, *Entry]
	began   time.Time

	// validUntil is the end of the cache's validity in nanoseconds after began. It is
	// not a wall-clock time, because clocks may be set back.
	validUntil atomic.Int64

	seed    maphash.Seed
	stripes [64]stripe
}

// stripe holds the running reads for a part of the keys.
type stripe struct {
	mu      sync.Mutex
	flights map[string]*flight
}

// flight is a running read of one record, shared by all callers that need the record.
type flight struct {
	// stale is set if the record was invalidated since the read began. The stripe's
	// mutex guards it.
	stale bool
	// done is closed after entry and err are set.
	done  chan struct{}
	entry *Entry
	err   error
}

// entryBytes is the memory of an entry without its key, data and note.
const entryBytes = 200

// New returns a cache of about maxBytes. Until ValidUntil is called, all reads go to
// the store.
func New(load Loader, maxBytes int64) *Cache {
	c := &Cache{load: load, began: time.Now(), seed: maphash.MakeSeed()}
	c.records = otter.Must(&otter.Options[string, *Entry]{
		MaximumWeight: uint64(max(maxBytes, 1)),
		Weigher: func(key string, e *Entry) uint32 {
			return uint32(min(len(key)+len(e.Data)+e.noteBytes+entryBytes, math.MaxUint32))
		},
	})
	for i := range c.stripes {
		c.stripes[i].flights = map[string]*flight{}
	}
	return c
}

// Forever is the argument of ValidUntil for a store without other writers.
var Forever = time.Unix(1<<40, 0)

// ValidUntil implements store.Invalidator.
func (c *Cache) ValidUntil(until time.Time) { c.validUntil.Store(int64(until.Sub(c.began))) }

// Invalidate implements store.Invalidator.
func (c *Cache) Invalidate(key string) {
	s := c.stripe(key)
	s.mu.Lock()
	if f := s.flights[key]; f != nil {
		f.stale = true
		delete(s.flights, key)
	}
	c.records.Invalidate(key)
	s.mu.Unlock()
}

// InvalidateAll implements store.Invalidator.
func (c *Cache) InvalidateAll() {
	for i := range c.stripes {
		s := &c.stripes[i]
		s.mu.Lock()
		for _, f := range s.flights {
			f.stale = true
		}
		clear(s.flights)
		s.mu.Unlock()
	}
	c.records.InvalidateAll()
}

func (c *Cache) stripe(key string) *stripe {
	return &c.stripes[maphash.String(c.seed, key)%uint64(len(c.stripes))]
}

// isValid reports whether cached records may be served.
func (c *Cache) isValid() bool { return int64(time.Since(c.began)) < c.validUntil.Load() }

// Get returns the cached record of a key, nil if it is not cached. An entry without
// data means that the key has no record.
func (c *Cache) Get(key string) *Entry {
	if !c.isValid() {
		return nil
	}
	e, _ := c.records.GetIfPresent(key)
	return e
}

// Annotate attaches a note of about the given size in bytes to an entry, for as long as
// the entry is cached.
func (c *Cache) Annotate(key string, e *Entry, note any, bytes int) {
	annotated := &Entry{Record: e.Record, Note: note, noteBytes: bytes}
	s := c.stripe(key)
	s.mu.Lock()
	if now, ok := c.records.GetIfPresent(key); ok && now == e {
		c.records.Set(key, annotated)
	}
	s.mu.Unlock()
}

// Bytes returns the approximate memory in use.
func (c *Cache) Bytes() int64 { return int64(c.records.WeightedSize()) }

// Load returns the records of keys like a store, with one round trip for those that are
// not cached. The data must not be modified.
func (c *Cache) Load(ctx context.Context, keys []string) ([]store.Record, error) {
	if !c.isValid() {
		return c.load(ctx, keys)
	}
	records := make([]store.Record, len(keys))
	var b batch
	for i, key := range keys {
		if e, ok := c.records.GetIfPresent(key); ok {
			records[i] = e.Record
			continue
		}
		if e := b.join(c, i, key); e != nil {
			records[i] = e.Record
		}
	}
	if len(b.positions) == 0 {
		return records, nil
	}
	if err := b.read(ctx, c); err != nil {
		return nil, err
	}
	var failed []int
	for n, f := range b.flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if f.err != nil {
			failed = append(failed, b.positions[n])
			continue
		}
		records[b.positions[n]] = f.entry.Record
	}
	if len(failed) == 0 {
		return records, nil
	}
	// The shared read of another caller failed, maybe only because that caller's
	// context ended.
	rest := make([]string, len(failed))
	for n, i := range failed {
		rest[n] = keys[i]
	}
	read, err := c.load(ctx, rest)
	if err != nil {
		return nil, err
	}
	for n, i := range failed {
		records[i] = read[n]
	}
	return records, nil
}

// batch holds the cache misses of one Load.
type batch struct {
	positions []int // of the missing keys
	flights   []*flight
	// The keys that this call reads itself.
	keys []string
	own  []*flight
}

// join joins the running read of a record, or begins one. It returns the record instead
// if a read of it has ended since the caller checked the cache.
func (b *batch) join(c *Cache, position int, key string) *Entry {
	s := c.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[key]
	if f == nil {
		if e, ok := c.records.GetIfPresent(key); ok {
			return e
		}
		f = &flight{done: make(chan struct{})}
		s.flights[key] = f
		b.keys, b.own = append(b.keys, key), append(b.own, f)
	}
	b.positions, b.flights = append(b.positions, position), append(b.flights, f)
	return nil
}

var errInterrupted = errors.New("the read of the record did not finish")

// read loads the keys of this batch and caches them.
func (b *batch) read(ctx context.Context, c *Cache) error {
	if len(b.keys) == 0 {
		return nil
	}
	var records []store.Record
	err := errInterrupted
	// Deferred so that a panic of the loader does not block waiting callers.
	defer func() {
		for n, key := range b.keys {
			f := b.own[n]
			if err == nil {
				// Copied because the records of a call may share an allocation.
				f.entry = &Entry{Record: store.Record{Version: records[n].Version}}
				if data := records[n].Data; data != nil {
					f.entry.Data = append(make([]byte, 0, len(data)), data...)
				}
			}
			f.err = err
			s := c.stripe(key)
			s.mu.Lock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			if err == nil && !f.stale {
				c.records.Set(key, f.entry)
			}
			s.mu.Unlock()
			close(f.done)
		}
	}()
	records, err = c.load(ctx, b.keys)
	return err
}
