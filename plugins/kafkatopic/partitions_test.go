package kafkatopic

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// For every history of assignments, fetches and acknowledgements: the records of
// a partition come in order and one batch at a time, batches keep to their
// limits, and only batches acknowledged while the partition is assigned settle.
func TestPartitionsMatchModel(t *testing.T) {
	type modelPartition struct {
		next     int64 // the offset fetched next
		given    int64 // the offset given next
		done     int64 // the offset acknowledged next
		queued   int
		inFlight func()
		sizes    map[int64]int
	}
	rapid.Check(t, func(t *rapid.T) {
		maxRecords := rapid.IntRange(1, 5).Draw(t, "maxRecords")
		maxBytes := rapid.IntRange(1, 40).Draw(t, "maxBytes")
		buffer := rapid.IntRange(1, 80).Draw(t, "buffer")
		settled := map[int32]int64{}
		p := newPartitions(maxRecords, maxBytes, buffer, func(last *kgo.Record) { settled[last.Partition] = last.Offset })
		model := map[int32]*modelPartition{}
		var abandoned []func()
		pick := func(t *rapid.T) int32 { return rapid.Int32Range(0, 2).Draw(t, "partition") }
		t.Repeat(map[string]func(*rapid.T){
			"assign": func(t *rapid.T) {
				n := pick(t)
				if model[n] != nil {
					return
				}
				p.assign(map[string][]int32{"t": {n}})
				start := int64(0) // the committed offset
				if last, ok := settled[n]; ok {
					start = last + 1
				}
				model[n] = &modelPartition{next: start, given: start, done: start, sizes: map[int64]int{}}
			},
			"add": func(t *rapid.T) {
				n := pick(t)
				m := model[n]
				if m == nil {
					// Records of a partition that is not assigned are dropped.
					m = &modelPartition{next: 1000, sizes: map[int64]int{}}
				}
				var records []*kgo.Record
				for range rapid.IntRange(1, 6).Draw(t, "records") {
					r := &kgo.Record{Topic: "t", Partition: n, Offset: m.next, Value: make([]byte, rapid.IntRange(0, 30).Draw(t, "size"))}
					records = append(records, r)
					m.sizes[m.next] = size(r)
					m.next++
					m.queued++
				}
				p.add(topicPartition{"t", n}, records)
			},
			"take": func(t *rapid.T) {
				batch, done := p.take()
				if batch == nil {
					for n, m := range model {
						if m.queued > 0 && m.inFlight == nil {
							t.Fatalf("partition %d has records and none is given", n)
						}
					}
					return
				}
				m := model[batch[0].Partition]
				if m == nil || m.inFlight != nil {
					t.Fatalf("a batch of a partition that is not assigned or has one in flight")
				}
				total := 0
				for i, r := range batch {
					if r.Offset != m.given || r.Partition != batch[0].Partition {
						t.Fatalf("offset %d instead of %d", r.Offset, m.given)
					}
					m.given++
					total += m.sizes[r.Offset]
					if i > 0 && total > maxBytes || i >= maxRecords {
						t.Fatalf("batch of %d records and %d bytes", len(batch), total)
					}
				}
				m.queued -= len(batch)
				m.inFlight = done
			},
			"done": func(t *rapid.T) {
				n := pick(t)
				if m := model[n]; m != nil && m.inFlight != nil {
					m.inFlight()
					m.inFlight, m.done = nil, m.given
					if settled[n] != m.done-1 {
						t.Fatalf("settled %d, not %d", settled[n], m.done-1)
					}
				}
			},
			"lose": func(t *rapid.T) {
				n := pick(t)
				if m := model[n]; m != nil {
					p.drop(map[string][]int32{"t": {n}})
					if m.inFlight != nil {
						abandoned = append(abandoned, m.inFlight)
					}
					delete(model, n)
				}
			},
			"done too late": func(t *rapid.T) {
				if len(abandoned) == 0 {
					return
				}
				before := map[int32]int64{}
				for n, offset := range settled {
					before[n] = offset
				}
				abandoned[0]()
				abandoned = abandoned[1:]
				for n := range settled {
					if settled[n] != before[n] {
						t.Fatal("a batch was settled after its partition was lost")
					}
				}
			},
			"": func(t *rapid.T) {
				for n, m := range model {
					held := 0
					for offset := m.done; offset < m.next; offset++ {
						held += m.sizes[offset]
					}
					if full := p.full(topicPartition{"t", n}); full != (held >= max(buffer, maxBytes)) {
						t.Fatalf("full is %v with %d bytes", full, held)
					}
				}
				if p.count() != len(model) {
					t.Fatalf("%d partitions, not %d", p.count(), len(model))
				}
			},
		})
	})
}

func record(offset int64) []*kgo.Record {
	return []*kgo.Record{{Topic: "t", Offset: offset, Value: []byte("x")}}
}

func TestDrainWaitsForBatchInFlight(t *testing.T) {
	settled := int64(-1)
	p := newPartitions(1, 100, 100, func(last *kgo.Record) { settled = last.Offset })
	p.assign(map[string][]int32{"t": {0}})
	p.add(topicPartition{"t", 0}, append(record(1), record(2)...))
	_, done := p.take()

	drained := make(chan struct{})
	go func() {
		p.drain(context.Background(), map[string][]int32{"t": {0}})
		close(drained)
	}()
	require.Eventually(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.assigned[topicPartition{"t", 0}].closing }, 10*time.Second, time.Millisecond)
	select {
	case <-drained:
		t.Fatal("drained with a batch in flight")
	default:
	}
	done()
	<-drained
	require.EqualValues(t, 1, settled)
	batch, _ := p.take()
	require.Nil(t, batch)
	require.Zero(t, p.count())
}

func TestDrainEndsWithItsContext(t *testing.T) {
	p := newPartitions(1, 100, 100, func(*kgo.Record) { t.Error("settled after drain") })
	p.assign(map[string][]int32{"t": {0}})
	p.add(topicPartition{"t", 0}, record(1))
	_, done := p.take()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.drainAll(ctx)
	done()
}

func TestNextServesPartitionsRoundRobin(t *testing.T) {
	p := newPartitions(1, 100, 100, func(*kgo.Record) {})
	p.assign(map[string][]int32{"t": {0}, "u": {0}})
	go func() {
		p.add(topicPartition{"t", 0}, append(record(1), record(2)...))
		p.add(topicPartition{"u", 0}, []*kgo.Record{{Topic: "u", Offset: 5}})
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	first, done, err := p.next(ctx)
	require.NoError(t, err)
	second, _, err := p.next(ctx)
	require.NoError(t, err)
	require.NotEqual(t, first[0].Topic, second[0].Topic)
	cancel()
	_, _, err = p.next(ctx)
	require.ErrorIs(t, err, context.Canceled)
	done()
}
