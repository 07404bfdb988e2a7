package kafkatopic

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// partitions holds what was fetched and is not processed. At any time at most
// one batch of a partition is in flight, which keeps the partition's order;
// batches of different partitions are processed side by side. While a batch is
// in flight the next one grows, so batches are as big as the load makes them.
type partitions struct {
	maxRecords  int // in a batch
	maxBytes    int // in a batch
	bufferBytes int // from which on a partition is not fetched

	// settle is told the last record of a batch that was acknowledged, while
	// the partition is ours.
	settle func(last *kgo.Record)

	mu    sync.Mutex
	own   map[place]*partition
	ready []*partition  // have records and no batch in flight, in turn
	wake  chan struct{} // holds a token when ready may not be empty
}

type partition struct {
	place
	queue    []*kgo.Record
	bytes    int  // queued and in flight
	ready    bool // is in partitions.ready
	inFlight bool
	closing  bool          // gives no more batches
	lost     bool          // what is acknowledged now is not ours to commit
	idle     chan struct{} // closed when the last batch of a closing partition is acknowledged
}

func newPartitions(maxRecords, maxBytes, bufferBytes int, settle func(*kgo.Record)) *partitions {
	return &partitions{
		maxRecords: maxRecords, maxBytes: maxBytes, bufferBytes: max(bufferBytes, maxBytes), settle: settle,
		own: map[place]*partition{}, wake: make(chan struct{}, 1),
	}
}

// assign makes partitions ours, empty.
func (p *partitions) assign(assigned map[string][]int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	each(assigned, func(at place) {
		p.own[at] = &partition{place: at, idle: make(chan struct{})}
	})
}

// add queues fetched records, and tells whether the partition holds so many
// that fetching it should pause. Records of a partition that is not ours are
// dropped: whose they are fetches them.
func (p *partitions) add(at place, records []*kgo.Record) (pause bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.own[at]
	if part == nil || part.closing {
		return false
	}
	part.queue = append(part.queue, records...)
	for _, r := range records {
		part.bytes += size(r)
	}
	p.offer(part)
	return part.bytes >= p.bufferBytes
}

func size(r *kgo.Record) int { return len(r.Key) + len(r.Value) }

// offer puts a partition that has a batch to give into the queue.
func (p *partitions) offer(part *partition) {
	if part.ready || part.inFlight || part.closing || len(part.queue) == 0 {
		return
	}
	part.ready = true
	p.ready = append(p.ready, part)
	p.signal()
}

func (p *partitions) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next waits for a batch. When its records have been processed done must be
// called, once.
func (p *partitions) next(ctx context.Context) (batch []*kgo.Record, done func(), err error) {
	for {
		if batch, done := p.take(); batch != nil {
			return batch, done, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-p.wake:
		}
	}
}

func (p *partitions) take() ([]*kgo.Record, func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.ready) > 0 {
		part := p.ready[0]
		p.ready = p.ready[1:]
		part.ready = false
		if len(p.ready) > 0 {
			p.signal()
		}
		if part.closing || len(part.queue) == 0 {
			continue
		}
		n, bytes := 0, 0
		for n < len(part.queue) && n < p.maxRecords {
			bytes += size(part.queue[n])
			if n > 0 && bytes > p.maxBytes {
				bytes -= size(part.queue[n])
				break
			}
			n++
		}
		batch := part.queue[:n:n]
		part.queue = part.queue[n:]
		part.inFlight = true
		last := batch[n-1]
		return batch, func() { p.done(part, last, bytes) }
	}
	return nil, nil
}

func (p *partitions) done(part *partition, last *kgo.Record, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	part.inFlight = false
	part.bytes -= bytes
	// Under the lock, so that whoever loses the partition knows that what is
	// to be committed has been told, and nothing will be told any more.
	if !part.lost {
		p.settle(last)
	}
	if part.closing {
		close(part.idle)
		return
	}
	p.offer(part)
}

// full tells whether a partition still holds so much that it should not be
// fetched.
func (p *partitions) full(at place) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.own[at]
	return part != nil && part.bytes >= p.bufferBytes
}

// drain gives no more batches of partitions, and waits until those in flight
// are acknowledged or ctx ends. What is acknowledged later is not settled.
func (p *partitions) drain(ctx context.Context, revoked map[string][]int32) {
	var waiting []*partition
	p.mu.Lock()
	each(revoked, func(at place) {
		if part := p.own[at]; part != nil && p.close(part) {
			waiting = append(waiting, part)
		}
	})
	p.mu.Unlock()
	for _, part := range waiting {
		select {
		case <-part.idle:
		case <-ctx.Done():
		}
	}
	p.drop(revoked)
}

// drainAll is drain for every partition.
func (p *partitions) drainAll(ctx context.Context) {
	all := map[string][]int32{}
	p.mu.Lock()
	for at := range p.own {
		all[at.topic] = append(all[at.topic], at.partition)
	}
	p.mu.Unlock()
	p.drain(ctx, all)
}

// drop forgets partitions that are somebody else's already.
func (p *partitions) drop(lost map[string][]int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	each(lost, func(at place) {
		if part := p.own[at]; part != nil {
			p.close(part)
			part.lost = true
			delete(p.own, at)
		}
	})
}

// close tells whether a batch is in flight.
func (p *partitions) close(part *partition) bool {
	part.closing = true
	part.queue = nil
	return part.inFlight
}

func each(m map[string][]int32, do func(place)) {
	for topic, list := range m {
		for _, partition := range list {
			do(place{topic, partition})
		}
	}
}

// count returns how many partitions are ours.
func (p *partitions) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.own)
}
