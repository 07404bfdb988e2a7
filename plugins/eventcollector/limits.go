package eventcollector

import (
	"sync"
	"sync/atomic"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// slots limits the number of requests that wait for the pipeline.
type slots struct {
	limit int
	gauge *service.MetricGauge

	mu    sync.Mutex // also orders the updates of the gauge
	taken int
}

func (s *slots) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.limit {
		return false
	}
	s.taken++
	s.gauge.Set(int64(s.taken))
	return true
}

func (s *slots) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken >= s.limit
}

func (s *slots) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	s.gauge.Set(int64(s.taken))
}

// budget limits the bytes held for requests.
type budget struct {
	limit int64
	taken atomic.Int64
}

func (b *budget) take(n int) bool {
	if b.taken.Add(int64(n)) > b.limit {
		b.taken.Add(-int64(n))
		return false
	}
	return true
}

func (b *budget) free(n int) { b.taken.Add(-int64(n)) }
