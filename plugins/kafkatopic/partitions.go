package kafkatopic

import (
	"context"
	"sync"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Flow of records in this file, for one partition:
//
//	fetched   add    r1 r2 r3          queued: r1 r2 r3
//	pipeline  next   [r1 r2 r3]        in flight: r1 r2 r3
//	fetched   add    r4 r5             queued: r4 r5, and no batch until done
//	pipeline  done                     settle(r3); next gives [r4 r5]
//
// A revoked partition is drained: it gives no more batches, and the one in flight
// may still be settled. A lost partition settles nothing any more.

// topicPartition is a partition of a topic.
type topicPartition struct {
	topic     string
	partition int32
}

// partitions holds records that were fetched and are not processed. At most one
// batch of a partition is in flight at any time, which keeps the partition's
// order; batches of different partitions are processed in parallel. While a batch
// is in flight the next one grows, so the batch size follows the load.
type partitions struct {
	maxRecords  int // in a batch
	maxBytes    int // in a batch
	bufferBytes int // size of a partition at which fetching it pauses

	// settle receives the last record of an acknowledged batch, as long as the
	// partition is assigned to this process.
	settle func(last *kgo.Record)

	mu       sync.Mutex // guards what follows
	assigned map[topicPartition]*partition
	ready    []*partition  // with records and without a batch in flight, round-robin
	wake     chan struct{} // holds a token when ready may not be empty
	down     chan struct{} // closed when the client has to be replaced
}

type partition struct {
	topicPartition
	queue    []*kgo.Record
	bytes    int  // queued and in flight
	ready    bool // is in partitions.ready
	inFlight bool
	closing  bool          // gives no more batches
	lost     bool          // assigned to another process: commit nothing
	idle     chan struct{} // closed when the last batch of a closing partition is acknowledged
}

func newPartitions(maxRecords, maxBytes, bufferBytes int, settle func(*kgo.Record)) *partitions {
	return &partitions{
		maxRecords: maxRecords, maxBytes: maxBytes, bufferBytes: max(bufferBytes, maxBytes), settle: settle,
		assigned: map[topicPartition]*partition{}, wake: make(chan struct{}, 1), down: make(chan struct{}),
	}
}

// assign adds newly assigned partitions, empty.
func (p *partitions) assign(assigned map[string][]int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	each(assigned, func(tp topicPartition) {
		p.assigned[tp] = &partition{topicPartition: tp, idle: make(chan struct{})}
	})
}

// add queues fetched records and reports whether fetching the partition should
// pause. It drops records of a partition that is not assigned: the process that
// has the partition fetches them.
func (p *partitions) add(tp topicPartition, records []*kgo.Record) (pause bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.assigned[tp]
	if part == nil || part.closing {
		return false
	}
	part.queue = append(part.queue, records...)
	for _, r := range records {
		part.bytes += size(r)
	}
	p.enqueue(part)
	return part.bytes >= p.bufferBytes
}

func size(r *kgo.Record) int { return len(r.Key) + len(r.Value) }

// enqueue makes a partition ready if it has a batch to give.
func (p *partitions) enqueue(part *partition) {
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

// next waits for a batch. The caller calls done once, when the records have been
// processed.
func (p *partitions) next(ctx context.Context) (batch []*kgo.Record, done func(), err error) {
	for {
		if batch, done := p.take(); batch != nil {
			return batch, done, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-p.down:
			return nil, nil, service.ErrNotConnected
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
	// Under the lock: after drop returns, nothing of the partition is settled.
	if !part.lost {
		p.settle(last)
	}
	if part.closing {
		close(part.idle)
		return
	}
	p.enqueue(part)
}

// full reports whether fetching a partition should stay paused.
func (p *partitions) full(tp topicPartition) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.assigned[tp]
	return part != nil && part.bytes >= p.bufferBytes
}

// drain stops giving batches of revoked partitions and waits until those in
// flight are acknowledged or ctx ends. Later acknowledgements settle nothing.
func (p *partitions) drain(ctx context.Context, revoked map[string][]int32) {
	var waiting []*partition
	p.mu.Lock()
	each(revoked, func(tp topicPartition) {
		if part := p.assigned[tp]; part != nil && p.close(part) {
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

// drainAll drains every partition.
func (p *partitions) drainAll(ctx context.Context) {
	all := map[string][]int32{}
	p.mu.Lock()
	for tp := range p.assigned {
		all[tp.topic] = append(all[tp.topic], tp.partition)
	}
	p.mu.Unlock()
	p.drain(ctx, all)
}

// drop removes partitions that may be assigned to another process already.
func (p *partitions) drop(lost map[string][]int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	each(lost, func(tp topicPartition) {
		if part := p.assigned[tp]; part != nil {
			p.close(part)
			part.lost = true
			delete(p.assigned, tp)
		}
	})
}

// dropAll drops every partition.
func (p *partitions) dropAll() {
	p.mu.Lock()
	all := map[string][]int32{}
	for tp := range p.assigned {
		all[tp.topic] = append(all[tp.topic], tp.partition)
	}
	p.mu.Unlock()
	p.drop(all)
}

// disconnect makes next return service.ErrNotConnected. It is called once.
func (p *partitions) disconnect() { close(p.down) }

// close stops giving batches of a partition and reports whether one is in flight.
func (p *partitions) close(part *partition) bool {
	part.closing = true
	part.queue = nil
	return part.inFlight
}

// each calls do for every partition in kgo's form of an assignment.
func each(m map[string][]int32, do func(topicPartition)) {
	for topic, list := range m {
		for _, partition := range list {
			do(topicPartition{topic, partition})
		}
	}
}

// count returns the number of assigned partitions.
func (p *partitions) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.assigned)
}
