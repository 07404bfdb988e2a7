// Package cache keeps records that were read in memory, for readers that may
// be a moment behind the store.
//
// A Cache serves a record until it is told that the record may have changed.
// Whoever owns it passes on what this process commits and what the store tells
// of others, and says until when nothing can have been missed. A record that is
// reported changed while it is being read is not kept, and whoever asks for it
// from then on reads it again: after Invalidate returns no read that begins gives
// what was before the change.
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

// Entry is a record that is kept. It must not be changed.
type Entry struct {
	store.Record
	// Note is what a reader has made of the record, nil for nothing.
	Note      any
	noteBytes int
}

// Loader reads records as store.Store does.
type Loader func(ctx context.Context, keys []string) ([]store.Record, error)

var _ store.Invalidator = (*Cache)(nil)

// Cache is a store.Invalidator and a bounded set of records. It is safe for concurrent use.
type Cache struct {
	load    Loader
	records *otter.Cache[string, *Entry]
	began   time.Time

	// freshUntil is how long after began whoever watches the store vouches for
	// what is kept. Wall clocks may be set back.
	freshUntil atomic.Int64

	seed    maphash.Seed
	stripes [64]stripe
}

// stripe has the reads under way of a part of all keys.
type stripe struct {
	mu      sync.Mutex
	flights map[string]*flight
}

// flight is a read of one record, for all who ask for it meanwhile.
type flight struct {
	// stale is guarded by the stripe: the record changed since the read began.
	stale bool
	// done is closed once the rest is set.
	done  chan struct{}
	entry *Entry
	err   error
}

// entryBytes is what an entry takes beside its key, its data and its note.
const entryBytes = 200

// New makes a cache of records of about so many bytes. Until ValidUntil is called
// everything is read from the store.
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

// Forever vouches for what is kept for ever: nobody else writes to the store.
var Forever = time.Unix(1<<40, 0)

// ValidUntil implements store.Invalidator.
func (c *Cache) ValidUntil(until time.Time) { c.freshUntil.Store(int64(until.Sub(c.began))) }

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

// usable tells whether what is kept may be served.
func (c *Cache) usable() bool { return int64(time.Since(c.began)) < c.freshUntil.Load() }

// Get returns the record of a key if it is at hand, nil if it is not. That a
// key has no record may be at hand too, as an entry without data.
func (c *Cache) Get(key string) *Entry {
	if !c.usable() {
		return nil
	}
	e, _ := c.records.GetIfPresent(key)
	return e
}

// Annotate keeps what a reader has made of an entry, which takes about so many
// bytes, along with the entry for as long as that is kept.
func (c *Cache) Annotate(key string, e *Entry, note any, bytes int) {
	annotated := &Entry{Record: e.Record, Note: note, noteBytes: bytes}
	s := c.stripe(key)
	s.mu.Lock()
	if now, ok := c.records.GetIfPresent(key); ok && now == e {
		c.records.Set(key, annotated)
	}
	s.mu.Unlock()
}

// Bytes is about how much memory is in use.
func (c *Cache) Bytes() int64 { return int64(c.records.WeightedSize()) }

// Load returns the records of keys as a store does, in one round trip for those
// that are not at hand. Their data must not be changed.
func (c *Cache) Load(ctx context.Context, keys []string) ([]store.Record, error) {
	if !c.usable() {
		return c.load(ctx, keys)
	}
	records := make([]store.Record, len(keys))
	var b batch
	for i, key := range keys {
		if e, ok := c.records.GetIfPresent(key); ok {
			records[i] = e.Record
			continue
		}
		if e := b.want(c, i, key); e != nil {
			records[i] = e.Record
		}
	}
	if len(b.at) == 0 {
		return records, nil
	}
	if err := b.read(ctx, c); err != nil {
		return nil, err
	}
	var again []int
	for n, f := range b.flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if f.err != nil {
			again = append(again, b.at[n])
			continue
		}
		records[b.at[n]] = f.entry.Record
	}
	if len(again) == 0 {
		return records, nil
	}
	// Somebody else's read failed, maybe only because its time was up.
	rest := make([]string, len(again))
	for n, i := range again {
		rest[n] = keys[i]
	}
	read, err := c.load(ctx, rest)
	if err != nil {
		return nil, err
	}
	for n, i := range again {
		records[i] = read[n]
	}
	return records, nil
}

// batch is what one call of Load misses.
type batch struct {
	at      []int // positions of the keys
	flights []*flight
	// Those to read here, not by somebody else.
	keys []string
	own  []*flight
}

// want joins the read of a record, or begins one. It returns the record instead
// if a read of it ended since the caller looked.
func (b *batch) want(c *Cache, position int, key string) *Entry {
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
	b.at, b.flights = append(b.at, position), append(b.flights, f)
	return nil
}

var errInterrupted = errors.New("the read of a record was interrupted")

// read loads what this batch is the first to ask for, and keeps it.
func (b *batch) read(ctx context.Context, c *Cache) error {
	if len(b.keys) == 0 {
		return nil
	}
	var records []store.Record
	err := errInterrupted
	// Deferred so that a panic in the loader leaves nobody waiting.
	defer func() {
		for n, key := range b.keys {
			f := b.own[n]
			if err == nil {
				// A copy, as the records of a call may share an allocation.
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
