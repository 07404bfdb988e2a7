package kafkatopic

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// Whatever happens in whatever order, the records of a partition come in their
// order and one batch at a time, batches keep to their limits, and what is
// settled is what was acknowledged of a partition that was ours then.
func TestPartitionsAgainstAModel(t *testing.T) {
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
				at := int64(0) // it begins where it was committed
				if last, ok := settled[n]; ok {
					at = last + 1
				}
				model[n] = &modelPartition{next: at, given: at, done: at, sizes: map[int64]int{}}
			},
			"add": func(t *rapid.T) {
				n := pick(t)
				m := model[n]
				if m == nil {
					// The records of a partition that is not ours go nowhere.
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
				p.add(place{"t", n}, records)
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
					t.Fatalf("a batch of a partition that is not ours or has one in flight")
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
				for n, at := range settled {
					before[n] = at
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
					for at := m.done; at < m.next; at++ {
						held += m.sizes[at]
					}
					if p.full(place{"t", n}) != (held >= max(buffer, maxBytes)) {
						t.Fatalf("full is %v with %d bytes", p.full(place{"t", n}), held)
					}
				}
				if p.count() != len(model) {
					t.Fatalf("%d partitions, not %d", p.count(), len(model))
				}
			},
		})
	})
}

func one(offset int64) []*kgo.Record {
	return []*kgo.Record{{Topic: "t", Offset: offset, Value: []byte("x")}}
}

func TestDrainWaitsForTheBatchInFlightAndGivesNoOther(t *testing.T) {
	settled := int64(-1)
	p := newPartitions(1, 100, 100, func(last *kgo.Record) { settled = last.Offset })
	p.assign(map[string][]int32{"t": {0}})
	p.add(place{"t", 0}, append(one(1), one(2)...))
	_, done := p.take()

	drained := make(chan struct{})
	go func() {
		p.drain(context.Background(), map[string][]int32{"t": {0}})
		close(drained)
	}()
	require.Eventually(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.own[place{"t", 0}].closing }, 10*time.Second, time.Millisecond)
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

func TestDrainGivesUpWithItsContextAndForgetsTheBatch(t *testing.T) {
	p := newPartitions(1, 100, 100, func(*kgo.Record) { t.Error("settled after drain") })
	p.assign(map[string][]int32{"t": {0}})
	p.add(place{"t", 0}, one(1))
	_, done := p.take()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.drainAll(ctx)
	done()
}

func TestNextWaitsForRecordsAndServesPartitionsInTurn(t *testing.T) {
	p := newPartitions(1, 100, 100, func(*kgo.Record) {})
	p.assign(map[string][]int32{"t": {0}, "u": {0}})
	go func() {
		p.add(place{"t", 0}, append(one(1), one(2)...))
		p.add(place{"u", 0}, []*kgo.Record{{Topic: "u", Offset: 5}})
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
