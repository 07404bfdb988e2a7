package profileapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

// question is the query of a read without the customer. Reads with equal questions can
// share a round trip.
type question struct {
	customers.Query
	// text is Fields joined, for comparison.
	text string
}

func (q question) sameAs(o question) bool {
	return q.text == o.text && q.By == o.By && q.AsOf.Equal(o.AsOf) && q.Fresh == o.Fresh
}

// coalescer groups concurrent reads of single profiles into few round trips.
//
// At most trips round trips are in flight. A read that finds a free place starts at
// once and alone, so coalescing adds no latency while the store is idle. Otherwise the
// read is queued. When a round trip ends, the oldest queued read takes its place and
// reads for all queued calls with the same question. There is no timer: the busier the
// store, the larger the groups. Example, with one trip:
//
//	t=0 ms  read A   starts a round trip of {A}
//	t=1 ms  read B   queued
//	t=2 ms  read C   queued
//	t=3 ms  read B   queued
//	t=5 ms  {A} ends; one round trip of {B, C} answers the three queued reads
type coalescer struct {
	reader reader
	trips  int // maximum number of round trips in flight
	limit  int // maximum number of profiles in a round trip

	mu      sync.Mutex
	running int     // round trips in flight, at most trips
	queue   []*call // oldest first; empty unless running == trips
}

// call is a read in progress.
type call struct {
	id       string
	question question
	deadline time.Time

	// wake resumes a queued call: its result is set or, if group is set, it must make
	// the round trip for the group, of which it is the first.
	wake  chan struct{}
	group []*call

	result customers.Result
	err    error

	// self and ids save two allocations for a call that is alone.
	self [1]*call
	ids  [1]string
}

var calls = sync.Pool{New: func() any { return &call{wake: make(chan struct{}, 1)} }}

// errInterrupted is the error of the other calls of a group after a panic in its trip.
var errInterrupted = errors.New("the read was interrupted")

// read returns the profile of id, by the deadline.
func (x *coalescer) read(id string, q question, deadline time.Time) (customers.Result, error) {
	c := calls.Get().(*call)
	c.id, c.question, c.deadline = id, q, deadline

	x.mu.Lock()
	isAlone := x.running < x.trips
	if isAlone {
		x.running++
	} else {
		x.queue = append(x.queue, c)
	}
	x.mu.Unlock()

	if isAlone {
		c.self[0] = c
		x.trip(c.self[:])
	} else {
		<-c.wake
		if c.group != nil {
			x.trip(c.group)
		}
	}

	result, err := c.result, c.err
	*c = call{wake: c.wake}
	calls.Put(c)
	return result, err
}

// trip makes the round trip for a group, and then passes its place on. The first call
// of the group belongs to the calling goroutine.
func (x *coalescer) trip(group []*call) {
	first := group[0]
	ids := append(first.ids[:0], first.id)
	var positions []int // index in ids of the id of each call, if there are several
	if len(group) > 1 {
		ids = make([]string, 0, len(group))
		positions = make([]int, len(group))
		seen := make(map[string]int, len(group))
		for i, c := range group {
			n, ok := seen[c.id]
			if !ok {
				n = len(ids)
				seen[c.id] = n
				ids = append(ids, c.id)
			}
			positions[i] = n
		}
	}

	var results []customers.Result
	err := errInterrupted
	// Deferred, so that after a panic in the reader no call keeps waiting and no place
	// is lost.
	defer func() {
		x.passOn()
		for i, c := range group {
			n := 0
			if positions != nil {
				n = positions[i]
			}
			if err != nil {
				c.err = err
			} else {
				c.result = results[n]
			}
			if i > 0 {
				c.wake <- struct{}{} // c may be reused for another read from here on
			}
		}
	}()

	ctx, cancel := context.WithDeadline(context.Background(), first.deadline)
	defer cancel()
	results, err = x.reader.Read(ctx, ids, first.question.Query)
}

// passOn gives the place of an ended trip to the oldest queued call, with all queued
// calls that have the same question.
func (x *coalescer) passOn() {
	x.mu.Lock()
	if len(x.queue) == 0 {
		x.running--
		x.mu.Unlock()
		return
	}
	next := x.queue[0]
	group := make([]*call, 0, min(len(x.queue), x.limit))
	rest := x.queue[:0]
	for _, c := range x.queue {
		if len(group) < x.limit && c.question.sameAs(next.question) {
			group = append(group, c)
		} else {
			rest = append(rest, c)
		}
	}
	clear(x.queue[len(rest):])
	x.queue = rest
	x.mu.Unlock()

	next.group = group
	next.wake <- struct{}{}
}
