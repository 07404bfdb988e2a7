package eventcollector

import (
	"container/list"
	"net/netip"
	"sync"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// account is a sender that gets a fair share of a resource: the source of its key,
// empty until the key is verified, and its network.
type account struct {
	source string
	peer   netip.Prefix
}

// newAccount returns the account of a client's address. A network of IPv6 counts as
// one peer, because a single host may use all of its addresses.
func newAccount(source string, client string) account {
	a := account{source: source}
	if ip, err := netip.ParseAddr(client); err == nil {
		bits := ip.BitLen()
		if ip.Is6() {
			bits = 64
		}
		a.peer, _ = ip.Prefix(bits)
	}
	return a
}

// shares divides a resource between accounts, so that no sender can use up all of
// it: an account gets three quarters at most, a source seven eighths, a peer without
// a verified key one sixteenth and all of these together a quarter. floor is a
// minimum of each share: one request.
type shares struct {
	limit, floor int64
	used         int64
	byAccount    map[account]int64
	bySource     map[string]int64
}

func newShares(limit, floor int) shares {
	return shares{
		limit: int64(limit), floor: int64(min(floor, limit)),
		byAccount: map[account]int64{}, bySource: map[string]int64{},
	}
}

// missing returns the scope in which n more units exceed a share: the whole
// resource, the source, the account, or nothing.
func (s *shares) missing(a account, n int64) scope {
	accountLimit, sourceLimit := s.limit-s.limit/4, s.limit-s.limit/8
	if a.source == "" {
		accountLimit, sourceLimit = s.limit/16, s.limit/4
	}
	switch {
	case s.byAccount[a]+n > max(accountLimit, s.floor):
		return ofAccount
	case s.bySource[a.source]+n > max(sourceLimit, s.floor):
		return ofSource
	case s.used+n > s.limit:
		return ofAll
	}
	return ofNothing
}

type scope int

const (
	ofNothing scope = iota
	ofAccount
	ofSource
	ofAll
)

// add changes the use of an account by n, which may be negative.
func (s *shares) add(a account, n int64) {
	s.used += n
	if s.byAccount[a] += n; s.byAccount[a] == 0 {
		delete(s.byAccount, a)
	}
	if s.bySource[a.source] += n; s.bySource[a.source] == 0 {
		delete(s.bySource, a.source)
	}
}

// slots limits the number of requests that wait for the pipeline.
type slots struct {
	gauge *service.MetricGauge

	mu     sync.Mutex // also orders the updates of the gauge
	shares shares
}

func (s *slots) take(a account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shares.missing(a, 1) != ofNothing {
		return false
	}
	s.shares.add(a, 1)
	s.gauge.Set(s.shares.used)
	return true
}

// full reports whether an account has no free slot.
func (s *slots) full(a account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shares.missing(a, 1) != ofNothing
}

func (s *slots) free(a account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shares.add(a, -1)
	s.gauge.Set(s.shares.used)
}

// memory limits the bytes held for requests. When it is short, bodies that arrive
// slowly give way: the oldest incomplete body within the exceeded share is evicted.
// A client that sends its body at once is therefore served even if others with the
// same key and address hold all the memory.
type memory struct {
	mu      sync.Mutex // guards what follows, and the fields of reservations
	shares  shares
	reading list.List // of *reservation with an incomplete body, oldest first
}

// reservation is the memory of one request.
type reservation struct {
	memory  *memory
	account account
	bytes   int64
	evicted bool
	evict   func()        // ends the reading of the body
	element *list.Element // in memory.reading; nil once the body is complete
}

// reserve returns an empty reservation for reading a body. evict must make the
// reading end with an error, without blocking.
func (m *memory) reserve(a account, evict func()) *reservation {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &reservation{memory: m, account: a, evict: evict}
	r.element = m.reading.PushBack(r)
	return r
}

// take adds n bytes and reports whether they are available. After an eviction it
// returns false.
func (r *reservation) take(n int) bool {
	m := r.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	for !r.evicted {
		missing := m.shares.missing(r.account, int64(n))
		if missing == ofNothing {
			m.shares.add(r.account, int64(n))
			r.bytes += int64(n)
			return true
		}
		if !m.evictOldest(r, missing) {
			return false
		}
	}
	return false
}

// evictOldest evicts the oldest incomplete body within the share that r exceeds. Its
// memory counts as free at once: the reading ends immediately.
func (m *memory) evictOldest(r *reservation, missing scope) bool {
	for e := m.reading.Front(); e != nil; e = e.Next() {
		victim := e.Value.(*reservation)
		if victim == r || victim.bytes == 0 ||
			missing == ofAccount && victim.account != r.account ||
			missing == ofSource && victim.account.source != r.account.source {
			continue
		}
		victim.release()
		victim.evicted = true
		victim.evict()
		return true
	}
	return false
}

// complete marks the body as complete: from now on it is not evicted. It reports
// whether the reservation still holds.
func (r *reservation) complete() bool {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	if r.element != nil {
		r.memory.reading.Remove(r.element)
		r.element = nil
	}
	return !r.evicted
}

// free releases all memory of the reservation.
func (r *reservation) free() {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	r.release()
}

// release does the work of free, with the lock held.
func (r *reservation) release() {
	if r.element != nil {
		r.memory.reading.Remove(r.element)
		r.element = nil
	}
	if r.bytes > 0 {
		r.memory.shares.add(r.account, -r.bytes)
		r.bytes = 0
	}
}

// wasEvicted reports whether the reservation gave way.
func (r *reservation) wasEvicted() bool {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	return r.evicted
}
