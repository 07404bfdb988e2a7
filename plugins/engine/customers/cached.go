package customers

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/cache"
)

// CacheOptions configure a cache of records.
type CacheOptions struct {
	// MaxBytes is the approximate maximum of memory in use.
	MaxBytes int64
	// MaxStaleness is the maximum age of a record that another process changed.
	MaxStaleness time.Duration
}

// CachedReader reads profiles through a cache of encoded records. It is safe for
// concurrent use.
//
// Reads are consistent with the writes of this process (read-your-writes): a
// commit invalidates the records that it changes. Changes by other processes
// appear when Redis sends their notification, and after MaxStaleness at the
// latest; while notifications do not arrive, all reads go to the store. The cache
// holds state and not results, so features are always evaluated at the time of
// the read. A record that is read repeatedly also keeps its rendering: the JSON
// with gaps for the values that change over time.
type CachedReader struct {
	*Service
	cache *cache.Cache
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// Cached returns a reader with its own cache. Close it before the service.
func (p *Service) Cached(o CacheOptions) *CachedReader {
	ctx, stop := context.WithCancel(context.Background())
	c := &CachedReader{Service: p, cache: cache.New(p.reads, o.MaxBytes), stop: stop}
	p.caches.add(c.cache)
	watcher, ok := p.backing.(store.Watcher)
	if !ok {
		c.cache.ValidUntil(cache.Forever) // no other process writes
		return c
	}
	c.done.Go(func() {
		disabled := false
		watcher.Watch(ctx, o.MaxStaleness, c.cache, func(err error) {
			switch {
			case err != nil && !disabled:
				p.log.Warnf("The profile cache is disabled until change notifications arrive again: %v", err)
			case err == nil && disabled:
				p.log.Infof("Change notifications arrive again; the profile cache is enabled.")
			}
			disabled = err != nil
		})
	})
	return c
}

// Close closes the cache. The service stays open.
func (c *CachedReader) Close(context.Context) error {
	c.stop()
	c.done.Wait()
	c.caches.remove(c.cache)
	return nil
}

// CacheBytes returns the approximate memory in use by the cache.
func (c *CachedReader) CacheBytes() int64 { return c.cache.Bytes() }

// Read is Service.Read through the cache.
func (c *CachedReader) Read(ctx context.Context, ids []string, q Query) ([]Result, error) {
	if q.Fresh {
		return c.Service.Read(ctx, ids, q)
	}
	sel, err := c.selection(q.Fields)
	if err != nil {
		return nil, err
	}
	if q.By != "" {
		by, err := c.identifier(q.By)
		if err != nil {
			return nil, err
		}
		return c.readBy(ctx, c.cache.Load, by, ids, c.asOf(q), sel)
	}
	r := request{asOf: c.asOf(q), sel: sel, allFields: len(q.Fields) == 0, isNow: q.AsOf.IsZero()}
	results := make([]Result, len(ids))
	found := make([]bool, len(ids))
	c.each(len(ids), func(rd *reader, i int) {
		rd.reserve()
		found[i] = c.fromMemory(rd, &results[i], ids[i], &r)
		rd.advance(results[i].JSON)
	})
	var missing []string
	var positions []int
	for i := range ids {
		if !found[i] {
			missing, positions = append(missing, ids[i]), append(positions, i)
		}
	}
	if len(missing) == 0 {
		return results, nil
	}
	read, err := c.read(ctx, c.cache.Load, missing, r.asOf, sel)
	if err != nil {
		return nil, err
	}
	for n, i := range positions {
		results[i] = read[n]
	}
	return results, nil
}

// ReadCached reads one profile from the cache only and appends it to dst. It
// returns false if the read needs the store, or if the query has an error.
func (c *CachedReader) ReadCached(dst []byte, id string, q Query) (result Result, ok bool) {
	sel, err := c.selection(q.Fields)
	if err != nil || q.By != "" {
		return result, false // identifiers are in the store only
	}
	rd := c.reader()
	defer c.readers.Put(rd)
	rd.out = dst
	ok = c.fromMemory(rd, &result, id, &request{asOf: c.asOf(q), sel: sel, allFields: len(q.Fields) == 0, isNow: q.AsOf.IsZero()})
	rd.out = nil
	return result, ok
}

// request is a resolved query.
type request struct {
	asOf int64
	sel  *record.Selection
	// allFields and isNow report whether sel is everything and asOf is now.
	allFields, isNow bool
}

// fromMemory sets result from the cache and appends its JSON to rd.out. It returns
// false if a record is not in the cache.
func (c *CachedReader) fromMemory(rd *reader, result *Result, id string, q *request) bool {
	key := "u" + id
	e := c.cache.Get(key)
	if e != nil && e.Version == store.Absent {
		key = "a" + id
		e = c.cache.Get(key)
	}
	for range longestChain {
		if e == nil {
			return false
		}
		if e.Version == store.Absent {
			return result.ID == "" // otherwise a link leads here
		}
		loads := c.loads.Load()
		cached, _ := e.Note.(*rendered)
		if cached != nil && cached.Rendering != nil && cached.loads == loads && q.allFields {
			if json, ok := cached.AppendJSON(rd.out, q.asOf); ok {
				*result = cached.result
				result.JSON = json[len(rd.out):len(json):len(json)]
				return true
			}
		}
		link := c.view(rd, result, key, e.Data, q.asOf, q.sel)
		if link == "" {
			if q.allFields && q.isNow && result.Found && (cached == nil || cached.Rendering != nil) {
				c.storeRendering(rd, result, key, e, q.asOf, loads)
			}
			return true
		}
		result.ID = record.KeyID(link)
		key = link
		e = c.cache.Get(key)
	}
	return false
}

// rendered is the rendering of a record that was read more than once.
type rendered struct {
	*record.Rendering        // nil if the record cannot be rendered in advance
	result            Result // without JSON
	loads             uint64 // Service.loads when it was rendered
}

// storeRendering adds the rendering of a record to its cache entry.
func (c *CachedReader) storeRendering(rd *reader, result *Result, key string, e *cache.Entry, asOf int64, loads uint64) {
	v, err := rd.viewer.Render(&rd.rec, result.ID, asOf)
	if err != nil {
		return
	}
	r := &rendered{Rendering: v}
	size := 160
	if v != nil {
		r.result, r.loads = *result, loads
		r.result.JSON = nil
		size += v.Size() + len(result.ID)
	}
	c.cache.Annotate(key, e, r, size)
}

// caches are the caches that commits of this process invalidate.
type caches struct {
	mu   sync.RWMutex
	list []*cache.Cache
}

func (c *caches) add(added *cache.Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(slices.Clone(c.list), added)
}

func (c *caches) remove(removed *cache.Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = slices.DeleteFunc(slices.Clone(c.list), func(o *cache.Cache) bool { return o == removed })
}

func (c *caches) invalidate(changes []store.Change) {
	c.mu.RLock()
	list := c.list
	c.mu.RUnlock()
	for _, cached := range list {
		for i := range changes {
			cached.Invalidate(changes[i].Key)
		}
	}
}

// invalidating is a store. Its commits invalidate caches.
type invalidating struct {
	store.Store
	caches *caches
}

// Commit implements store.Store. It invalidates after failures too, because any of
// the changes may have been applied.
func (r invalidating) Commit(ctx context.Context, changes []store.Change) ([]int, error) {
	defer r.caches.invalidate(changes)
	return r.Store.Commit(ctx, changes)
}
