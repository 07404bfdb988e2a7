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

// CacheOptions say how records are kept in memory.
type CacheOptions struct {
	// MaxBytes is about how much memory they may take.
	MaxBytes int64
	// MaxStaleness is how old a record may be that another process changed.
	MaxStaleness time.Duration
}

// Cached reads profiles by way of records in memory. What this process commits
// shows at once, and what others commit to Redis as soon as Redis has told, after
// MaxStaleness at the latest: while Redis cannot tell, every read goes to the
// store. Features are evaluated at the moment of the read all the same.
type CachedReader struct {
	*Service
	cache *cache.Cache
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// Cached returns a reader with a cache of its own. Close it before the profiles.
func (p *Service) Cached(o CacheOptions) *CachedReader {
	ctx, stop := context.WithCancel(context.Background())
	c := &CachedReader{Service: p, cache: cache.New(p.reads, o.MaxBytes), stop: stop}
	p.caches.add(c.cache)
	watcher, ok := p.backing.(store.Watcher)
	if !ok {
		c.cache.ValidUntil(cache.Forever) // nobody but this process writes
		return c
	}
	c.done.Go(func() {
		away := false
		watcher.Watch(ctx, o.MaxStaleness, c.cache, func(err error) {
			switch {
			case err != nil && !away:
				p.log.Warnf("Profiles are read without the cache until the store tells of changes again: %v", err)
			case err == nil && away:
				p.log.Infof("The store tells of changes again, and profiles are cached.")
			}
			away = err != nil
		})
	})
	return c
}

// Close ends the cache; the profiles stay open.
func (c *CachedReader) Close(context.Context) error {
	c.stop()
	c.done.Wait()
	c.caches.remove(c.cache)
	return nil
}

// CacheBytes is about how much memory the records take.
func (c *CachedReader) CacheBytes() int64 { return c.cache.Bytes() }

// Read reads like Profiles.Read.
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
		return c.readBy(ctx, c.cache.Load, by, ids, c.moment(q), sel)
	}
	ask := ask{asOf: c.moment(q), sel: sel, everything: len(q.Fields) == 0, now: q.AsOf.IsZero()}
	results := make([]Result, len(ids))
	found := make([]bool, len(ids))
	c.each(len(ids), func(rd *reader, i int) {
		rd.room()
		found[i] = c.recall(rd, &results[i], ids[i], &ask)
		rd.used(results[i].JSON)
	})
	var missing []string
	var at []int
	for i := range ids {
		if !found[i] {
			missing, at = append(missing, ids[i]), append(at, i)
		}
	}
	if len(missing) == 0 {
		return results, nil
	}
	read, err := c.read(ctx, c.cache.Load, missing, ask.asOf, sel)
	if err != nil {
		return nil, err
	}
	for n, i := range at {
		results[i] = read[n]
	}
	return results, nil
}

// ReadCached answers a read from memory alone, appending the profile to dst; false
// tells that the store has to be asked, or that there is something to say about
// the question.
func (c *CachedReader) ReadCached(dst []byte, id string, q Query) (result Result, ok bool) {
	sel, err := c.selection(q.Fields)
	if err != nil || q.By != "" {
		return result, false // only the store knows who has a value
	}
	rd := c.reader()
	defer c.readers.Put(rd)
	rd.out = dst
	ok = c.recall(rd, &result, id, &ask{asOf: c.moment(q), sel: sel, everything: len(q.Fields) == 0, now: q.AsOf.IsZero()})
	rd.out = nil
	return result, ok
}

// ask is a query, prepared.
type ask struct {
	asOf int64
	sel  *record.Selection
	// everything and now tell that sel and asOf are no others.
	everything, now bool
}

// recall fills in a result from memory, its JSON behind what is in rd.out.
func (c *CachedReader) recall(rd *reader, result *Result, id string, q *ask) bool {
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
			return result.ID == "" // otherwise it is the end of a link
		}
		loads := c.loads.Load()
		kept, _ := e.Note.(*rendered)
		if kept != nil && kept.Rendering != nil && kept.loads == loads && q.everything {
			if json, ok := kept.AppendJSON(rd.out, q.asOf); ok {
				*result = kept.result
				result.JSON = json[len(rd.out):len(json):len(json)]
				return true
			}
		}
		link := c.view(rd, result, key, e.Data, q.asOf, q.sel)
		if link == "" {
			if q.everything && q.now && result.Found && (kept == nil || kept.Rendering != nil) {
				c.keep(rd, result, key, e, q.asOf, loads)
			}
			return true
		}
		result.ID = record.KeyID(link)
		key = link
		e = c.cache.Get(key)
	}
	return false
}

// rendered is what is kept with a record that was read more than once.
type rendered struct {
	*record.Rendering        // nil where there is none
	result            Result // without JSON
	loads             uint64 // how often models had been loaded before
}

// keep keeps the rendering of a record with it.
func (c *CachedReader) keep(rd *reader, result *Result, key string, e *cache.Entry, asOf int64, loads uint64) {
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

// caches are those that are told what this process commits.
type caches struct {
	mu   sync.RWMutex
	list []*cache.Cache
}

func (c *caches) add(one *cache.Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(slices.Clone(c.list), one)
}

func (c *caches) remove(one *cache.Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = slices.DeleteFunc(slices.Clone(c.list), func(o *cache.Cache) bool { return o == one })
}

func (c *caches) changed(changes []store.Change) {
	c.mu.RLock()
	list := c.list
	c.mu.RUnlock()
	for _, one := range list {
		for i := range changes {
			one.Invalidate(changes[i].Key)
		}
	}
}

// reporting is a store that tells caches what it commits.
type reporting struct {
	store.Store
	caches *caches
}

// Commit implements store.Store. Whatever becomes of it, any of the changes may
// have been applied.
func (r reporting) Commit(ctx context.Context, changes []store.Change) ([]int, error) {
	defer r.caches.changed(changes)
	return r.Store.Commit(ctx, changes)
}
