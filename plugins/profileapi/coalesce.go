package profileapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

// question is what a request asks about a customer. Requests with the same
// text, identifier and instant can share a round trip.
type question struct {
	customers.Query
	// text is Fields as one comparable string.
	text string
}

func (q question) sameAs(o question) bool {
	return q.text == o.text && q.By == o.By && q.AsOf.Equal(o.AsOf) && q.Fresh == o.Fresh
}

// coalescer turns concurrent reads of single profiles into few round trips.
//
// A read that finds a trip free goes at once and alone, so an idle server adds
// no latency. Reads that find all trips under way queue, and the first trip to
// end hands its place to the oldest of them, which then reads for all of the
// queue that asks the same question. The busier the store, the larger the
// groups; no timer is involved, and reads of one customer that meet in a group
// cost one.
type coalescer struct {
	reader reader
	trips  int // round trips allowed at once
	limit  int // profiles in one round trip

	mu      sync.Mutex
	running int     // trips under way, at most trips
	queue   []*call // oldest first; empty unless running == trips
}

// call is one read in progress.
type call struct {
	id       string
	question question
	deadline time.Time

	// wake tells a queued call that its result is there or, when group is set,
	// that it is its turn to read for the group, of which it is the first.
	wake  chan struct{}
	group []*call

	result customers.Result
	err    error

	// self and ids spare a lone call two allocations.
	self [1]*call
	ids  [1]string
}

var calls = sync.Pool{New: func() any { return &call{wake: make(chan struct{}, 1)} }}

// errInterrupted is what the other members of a group get when the read made
// for them all does not come back.
var errInterrupted = errors.New("the read was interrupted")

// read returns the profile of id, by deadline.
func (x *coalescer) read(id string, q question, deadline time.Time) (customers.Result, error) {
	c := calls.Get().(*call)
	c.id, c.question, c.deadline = id, q, deadline

	x.mu.Lock()
	alone := x.running < x.trips
	if alone {
		x.running++
	} else {
		x.queue = append(x.queue, c)
	}
	x.mu.Unlock()

	if alone {
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

// trip reads for group, whose first call belongs to the calling goroutine, and
// then passes its place on.
func (x *coalescer) trip(group []*call) {
	first := group[0]
	ids := append(first.ids[:0], first.id)
	var at []int // position in ids of each call's id, when there are several
	if len(group) > 1 {
		ids = make([]string, 0, len(group))
		at = make([]int, len(group))
		seen := make(map[string]int, len(group))
		for i, c := range group {
			n, ok := seen[c.id]
			if !ok {
				n = len(ids)
				seen[c.id] = n
				ids = append(ids, c.id)
			}
			at[i] = n
		}
	}

	var results []customers.Result
	err := errInterrupted
	// Deferred so that a panic in the reader leaves no call waiting and no
	// place lost.
	defer func() {
		x.passOn()
		for i, c := range group {
			n := 0
			if at != nil {
				n = at[i]
			}
			if err != nil {
				c.err = err
			} else {
				c.result = results[n]
			}
			if i > 0 {
				c.wake <- struct{}{} // c may be in use for another read from here on
			}
		}
	}()

	ctx, cancel := context.WithDeadline(context.Background(), first.deadline)
	defer cancel()
	results, err = x.reader.Read(ctx, ids, first.question.Query)
}

// passOn gives the place of a finished trip to the oldest queued call, if any,
// with everything it can read along.
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
