package embedded

import (
	"hash/maphash"
	"sync"
	"unsafe"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// recordCache remembers the present content of records lately read or written,
// absence included, so that a Load of a busy customer and the check of versions
// in Commit seldom ask the engine. It forgets at will, and is never wrong:
//
//   - The committer is the only writer; it sets what it wrote before it takes
//     the next batch.
//   - A Load offers what it has read, with the epoch its set had before the
//     read. A commit to that set moves the epoch, so that an offer it has
//     overtaken is turned down.
//
// A key belongs to one set of a few entries with a small budget, in which those
// not used for the longest time make room. Buffers are reused, so that a steady
// stream of writes makes no garbage.
type recordCache struct {
	seed maphash.Seed
	sets []cacheSet
}

const (
	cacheWays = 8
	// cacheSetBytes is the budget of a set. Of a record over it, only the
	// version is remembered.
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
	buf     []byte // key, and data if it is whole
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

// find is called with the set locked.
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

// victim is the entry to make room: an empty one, or else the one not used for
// the longest time.
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

// oldest is the entry with memory to give up, other than e, that was not used
// for the longest time; nil if there is none.
func (s *cacheSet) oldest(e *cacheEntry) (found *cacheEntry) {
	for i := range s.entries {
		other := &s.entries[i]
		if other != e && cap(other.buf) > 0 && (found == nil || s.clock-other.used > s.clock-found.used) {
			found = other
		}
	}
	return found
}

// load copies a record into the arena if it is remembered. Otherwise it gives
// the epoch to offer the record with.
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

// version gives the present version of a record if it is remembered.
func (c *recordCache) version(hash uint64, key string) (store.Version, bool) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(hash, key); e != nil {
		return e.version, true
	}
	return store.Absent, false
}

// offer remembers a record read since epoch, unless a commit came between.
func (c *recordCache) offer(hash uint64, key string, epoch uint32, r store.Record) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == epoch {
		s.put(hash, key, r)
	}
}

// write remembers what a commit has written.
func (c *recordCache) write(hash uint64, key string, r store.Record) {
	s := c.set(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.put(hash, key, r)
}

// forget drops what is known of a key, after a commit whose content is not at
// hand. Another key with the same hash may go with it.
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

// put is called with the set locked.
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
