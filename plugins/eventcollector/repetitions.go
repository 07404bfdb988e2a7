package eventcollector

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// retryWindow is the time in which a client retries a request that got no
	// success response.
	retryWindow = 10 * time.Minute
	// doubleSend is the time after a success response in which equal bytes are the
	// same event: a response that was lost, or a double click.
	doubleSend = time.Second
	// maxRepetitions bounds the memory, at about 150 bytes each.
	maxRepetitions = 1 << 16
)

// repetitions decides whether an event with neither messageId nor timestamp is a
// retry or a new fact, because its bytes cannot: a page that is viewed three times
// sends equal bytes three times. The response of the earlier request decides:
//
//	request 1 → 503 or no response, request 2 within retryWindow → retry of 1
//	request 1 → 200, request 2 within doubleSend → retry of 1
//	request 1 → 200, request 2 later → new fact
//
// It knows the requests of this process only, and the last maxRepetitions.
type repetitions struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]*list.Element // of *repetition
	order  list.List                           // oldest first
}

type repetition struct {
	hash     [sha256.Size]byte
	received time.Time // the first request
	answered time.Time // its success response; zero without one
}

// occurrence returns the number that the messageId is derived from: the same for a
// retry. It reports whether the event is a retry.
func (r *repetitions) occurrence(hash [sha256.Size]byte, now time.Time) (e *repetition, retry bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.byHash[hash]; ok {
		e = found.Value.(*repetition)
		if e.answered.IsZero() && now.Sub(e.received) < retryWindow || now.Sub(e.answered) < doubleSend {
			return e, true
		}
		r.remove(found)
	}
	for oldest := r.order.Front(); oldest != nil; oldest = r.order.Front() {
		if r.order.Len() < maxRepetitions && now.Sub(oldest.Value.(*repetition).received) < retryWindow {
			break
		}
		r.remove(oldest)
	}
	e = &repetition{hash: hash, received: now}
	if r.byHash == nil {
		r.byHash = map[[sha256.Size]byte]*list.Element{}
	}
	r.byHash[hash] = r.order.PushBack(e)
	return e, false
}

func (r *repetitions) remove(e *list.Element) {
	delete(r.byHash, e.Value.(*repetition).hash)
	r.order.Remove(e)
}

// answer records the success response of events.
func (r *repetitions) answer(events []*repetition, now time.Time) {
	if len(events) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if e.answered.IsZero() {
			e.answered = now
		}
	}
}
