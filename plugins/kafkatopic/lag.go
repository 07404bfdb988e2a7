package kafkatopic

import (
	"strconv"
	"sync"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lags is the consumer lag of each assigned partition: the end offset less the
// acknowledged offset.
type lags struct {
	gauge *service.MetricGauge

	mu         sync.Mutex
	partitions map[topicPartition]*lag
	marks      map[string]map[int32]kgo.EpochOffset // start offsets to commit
}

type lag struct {
	acknowledged int64 // the offset after the last acknowledged record
	end          int64 // 0 until it is known
}

func newLags(m *service.Metrics) *lags {
	return &lags{gauge: m.NewGauge("kafka_topic_lag", "topic", "partition"), partitions: map[topicPartition]*lag{}}
}

// acknowledge sets the acknowledged offset of a partition.
func (l *lags) acknowledge(tp topicPartition, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.partitions[tp]
	if p == nil {
		p = &lag{}
		l.partitions[tp] = p
	}
	p.acknowledged = offset
	l.publish(tp, p)
}

// setEnd sets the end offset of a partition, if it is assigned.
func (l *lags) setEnd(tp topicPartition, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.partitions[tp]; p != nil {
		p.end = max(p.end, end)
		l.publish(tp, p)
	}
}

// remove sets the lag of partitions that are assigned to another process to 0.
func (l *lags) remove(revoked map[string][]int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	each(revoked, func(tp topicPartition) {
		if l.partitions[tp] != nil {
			delete(l.partitions, tp)
			delete(l.marks[tp.topic], tp.partition)
			l.publish(tp, &lag{})
		}
	})
}

func (l *lags) publish(tp topicPartition, p *lag) {
	l.gauge.Set(max(p.end-p.acknowledged, 0), tp.topic, strconv.Itoa(int(tp.partition)))
}

// mark records the start offset of a partition for a commit.
func (l *lags) mark(tp topicPartition, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.marks == nil {
		l.marks = map[string]map[int32]kgo.EpochOffset{}
	}
	if l.marks[tp.topic] == nil {
		l.marks[tp.topic] = map[int32]kgo.EpochOffset{}
	}
	l.marks[tp.topic][tp.partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
}

// takeMarks returns the start offsets to commit and forgets them. It omits
// partitions with later acknowledgements, which commit more.
func (l *lags) takeMarks() map[string]map[int32]kgo.EpochOffset {
	l.mu.Lock()
	defer l.mu.Unlock()
	marks := l.marks
	l.marks = nil
	for topic, partitions := range marks {
		for partition, mark := range partitions {
			if p := l.partitions[topicPartition{topic, partition}]; p == nil || p.acknowledged != mark.Offset {
				delete(partitions, partition)
			}
		}
	}
	return marks
}
