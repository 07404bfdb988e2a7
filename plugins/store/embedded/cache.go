package embedded

import (
	"hash/maphash"
	"sync"
	"unsafe"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// recordCache holds the current content of recently read or written records, including
// the absence of a record. A Load of an active customer and the version check of a
// Commit rarely need the engine. It may evict an entry at any time, and it is never
// stale:
//
//   - The committer is the only writer. It updates the cache before it takes the next
//     batch.
//   - A Load offers a record that it read together with the epoch of the set before the
//     read. A commit to the set increases the epoch, so an outdated offer is rejected.
//
// A key belongs to one set of a few entries with a small budget; the least recently
// used entry of the set is evicted. Buffers are reused, so a steady stream of writes
// creates no garbage.
type recordCache struct {
	seed maphash.Seed
	sets []cacheSet
}

const (
	cacheWays = 8
	// cacheSetBytes is the budget of a set. For a larger record, only the version is
	// cached.
	cacheSetBytes = 8 << 10
)

type cacheSet struct {
	mu      sync.Mutex
	epoch   uint32 // number of commits to this set
	clock   uint32 // number of uses of this set
	bytes   int    // capacity of all buffers
	entries [cacheWays]cacheEntry
}

type cacheEntry struct {
	hash    uint64
	version store.Version
	used    uint32 // the set's clock at the last use
	keyLen  int32
	state   cacheState
	buf     []byte // the key, then the data if the state is cacheWhole
}

type cacheState uint8

const (
	cacheEmpty   cacheState = iota
	cacheVersion            // the version only
	cacheWhole              // the record, or that there is none
)

func newRecordCache(budget int64) *recordCache {
	sets := max(1, budget/(cacheSetBytes+int64(unsafe.Sizeof(cacheSet{}))))
	return &recordCache{seed: maphash.MakeSeed(), sets: make([]cacheSet, sets)}
}

func (c *recordCache) hash(key string) uint64 { return maphash.String(c.seed, key) }

func (c *recordCache) set(hash uint64) *cacheSet { return &c.sets[hash%uint64(len(c.sets))] }

// find requires that the set is locked.
func (s *cacheSet) find(hash uint64, key string) *cacheEntry {
	for i := range s.entries {
		e := &s.entries[i]
		if e.state != cacheEmpty && e.hash == hash && string(e.buf[:e.keyLen]) == key {
			s.clock++
			e.used = s.clock
			return e
		}
	}
	return nil
}

// victim returns the entry to evict: an empty one, or the least recently used one.
func (s *cacheSet) victim() *cacheEntry {
	v := &s.entries[0]
	for i := range s.entries {
		e := &s.entries[i]
		if e.state == cacheEmpty {
			return e
		}
		if s.clock-e.used > s.clock-v.used {
			v = e
		}
	}
	return v
}

// oldest returns the least recently used entry with memory other than e, nil if there
// is none.
func (s *cacheSet) oldest(e *cacheEntry) (found *cacheEntry) {
	for i := range s.entries {
		other := &s.entries[i]
		if other != e && cap(other.buf) > 0 && (found == nil || s.clock-other.used > s.clock-found.used) {
			found = other
		}
	}
	return found
}

// load copies a cached record into the arena. If the record is not cached, it returns
// the epoch with which to offer it.
func (c *recordCache) load(hash uint64, key string, a *arena) (r store.Record, ok bool, epoch uint32) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(hash, key)
	if e == nil || e.state != cacheWhole {
		return store.Record{}, false, s.epoch
	}
	if e.version != store.Absent {
		r = store.Record{Data: a.copy(e.buf[e.keyLen:]), Version: e.version}
	}
	return r, true, 0
}

// version returns the current version of a record if it is cached.
func (c *recordCache) version(hash uint64, key string) (store.Version, bool) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(hash, key); e != nil {
		return e.version, true
	}
	return store.Absent, false
}

// offer caches a record that was read since epoch, unless a commit happened in between.
func (c *recordCache) offer(hash uint64, key string, epoch uint32, r store.Record) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == epoch {
		s.put(hash, key, r)
	}
}

// write caches the content that a commit has written.
func (c *recordCache) write(hash uint64, key string, r store.Record) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.put(hash, key, r)
}

// forget evicts a key after a commit whose content is not available. It may also evict
// another key with the same hash.
func (c *recordCache) forget(hash uint64) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	for i := range s.entries {
		if s.entries[i].hash == hash {
			s.drop(&s.entries[i])
		}
	}
}

// put requires that the set is locked.
func (s *cacheSet) put(hash uint64, key string, r store.Record) {
	e := s.find(hash, key)
	if e == nil {
		e = s.victim()
		s.clock++
		e.used = s.clock
	}
	state, need := cacheWhole, len(key)+len(r.Data)
	if need > cacheSetBytes {
		state, need = cacheVersion, len(key)
	}
	if need > cacheSetBytes {
		s.drop(e)
		return
	}
	if cap(e.buf) < need || cap(e.buf) > 4*need+256 {
		s.drop(e)
		capacity := min(need+need/8, cacheSetBytes) // records tend to grow
		for s.bytes+capacity > cacheSetBytes {
			s.drop(s.oldest(e))
		}
		e.buf = make([]byte, 0, capacity)
		s.bytes += capacity
		e.used = s.clock
	}
	e.buf = append(e.buf[:0], key...)
	if state == cacheWhole {
		e.buf = append(e.buf, r.Data...)
	}
	e.hash, e.version, e.keyLen, e.state = hash, r.Version, int32(len(key)), state
}

func (s *cacheSet) drop(e *cacheEntry) {
	s.bytes -= cap(e.buf)
	*e = cacheEntry{}
}
