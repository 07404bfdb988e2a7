package profileapi

import (
	"context"
	"math"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// telemetry counts requests. Its labels are routes and statuses, never
// anything a caller chose.
//
// A request costs a few atomic additions; once every tellInterval the metrics are told
// what happened since. To look up a metric by its labels takes longer than
// finding a profile in memory, and all requests would wait for each other to
// add to the same quantiles.
type telemetry struct {
	requests *service.MetricCounter
	latency  *service.MetricTimer
	inFlight *service.MetricGauge
	// cut counts the connections that had to make room for others.
	cut *service.MetricCounter
	// cacheBytes is how much memory the cache of records takes.
	cacheBytes *service.MetricGauge

	// active is how many requests are under way.
	active atomic.Int64
	// byPage is what happens on each page; the pages do not change.
	byPage map[*page]*pageActivity
}

func newTelemetry(m *service.Metrics) *telemetry {
	byPage := map[*page]*pageActivity{unknownPage: {}}
	for _, p := range pages {
		byPage[p] = &pageActivity{}
	}
	return &telemetry{
		byPage:   byPage,
		requests: m.NewCounter("profile_api_requests", "route", "status"),
		latency:  m.NewTimer("profile_api_latency_ns", "route"),
		inFlight: m.NewGauge("profile_api_in_flight"),
		cut:      m.NewCounter("profile_api_connections_cut"),

		cacheBytes: m.NewGauge("profile_api_cache_bytes"),
	}
}

// tellInterval is how often the metrics are told.
const tellInterval = time.Second

// follow tells the metrics what happens from now on until ctx ends, and what
// had happened by then. cacheBytes is the size of the cache, nil without one.
func (t *telemetry) follow(ctx context.Context, cacheBytes func() int64) {
	ticker := time.NewTicker(tellInterval)
	defer ticker.Stop()
	for {
		t.tell(cacheBytes)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.tell(cacheBytes)
			return
		}
	}
}

// tell brings the metrics up to now. One goroutine does at a time.
func (t *telemetry) tell(cacheBytes func() int64) {
	if cacheBytes != nil {
		t.cacheBytes.Set(cacheBytes())
	}
	t.inFlight.Set(t.active.Load())
	for p, a := range t.byPage {
		for status := range a.answers {
			if n := a.answers[status].Load(); n > a.told[status] {
				t.requests.Incr(n-a.told[status], p.name, strconv.Itoa(status))
				a.told[status] = n
			}
		}
		a.sample.drain(func(took int64) { t.latency.Timing(took, p.name) })
	}
}

func (t *telemetry) begin() { t.active.Add(1) }

func (t *telemetry) end(p *page, status int, started time.Time) {
	took := time.Since(started)
	t.active.Add(-1)
	t.byPage[p].add(status, took)
}

// sampleSize is how many latencies of a page are told of an interval at most.
const sampleSize = 256

// sample is a fair sample of a stream of durations: every one has the same
// chance to be in it.
type sample struct {
	mu   sync.Mutex
	seen int
	took [sampleSize]int64
}

func (s *sample) add(took int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.seen
	if s.seen++; at >= sampleSize {
		at = rand.IntN(s.seen)
	}
	if at < sampleSize {
		s.took[at] = took
	}
}

// drain calls told with each of the sample, and begins a new one.
func (s *sample) drain(told func(took int64)) {
	s.mu.Lock()
	took := slices.Clone(s.took[:min(s.seen, sampleSize)])
	s.seen = 0
	s.mu.Unlock()
	for _, t := range took {
		told(t)
	}
}

// pageActivity counts the requests of a page, and how long they took: by
// quarters of a power of two, which tells a latency to within a fifth.
type pageActivity struct {
	answers [statuses]atomic.Int64 // by status
	told    [statuses]int64        // of them, that the metrics know of
	buckets [latencyBuckets]atomic.Int64
	sample  sample
}

// statuses is one more than the highest there is.
const statuses = 600

const (
	latencyBuckets = 4 * 36
	nanosecondBits = 10 // a bucket below a microsecond is of no interest
)

func bucketOf(took time.Duration) int {
	n := uint64(max(took, 1)) >> nanosecondBits
	if n < 4 {
		return int(n)
	}
	exponent := bits.Len64(n) - 3
	return min(4*(exponent+1)+int(n>>exponent)-4, latencyBuckets-1)
}

// bucketEnd is the upper end of a bucket.
func bucketEnd(i int) time.Duration {
	if i < 4 {
		return time.Duration(i+1) << nanosecondBits
	}
	return time.Duration(i%4+5) << (i/4 - 1 + nanosecondBits)
}

func (a *pageActivity) add(status int, took time.Duration) {
	a.answers[status].Add(1)
	a.buckets[bucketOf(took)].Add(1)
	a.sample.add(int64(took))
}

// errors counts the requests that failed by no fault of the caller.
func (a *pageActivity) errors() (n int64) {
	for status := http.StatusInternalServerError; status < statuses; status++ {
		n += a.answers[status].Load()
	}
	return n
}

// pageSummary is what is told of a page.
type pageSummary struct {
	Count  int64   `json:"count"`
	Errors int64   `json:"errors"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
}

// summary returns what was asked of each page, of those that were asked for
// anything.
func (t *telemetry) summary() map[string]pageSummary {
	all := map[string]pageSummary{}
	for p, a := range t.byPage {
		var counts [latencyBuckets]int64
		var total int64
		for i := range counts {
			counts[i] = a.buckets[i].Load()
			total += counts[i]
		}
		if total == 0 {
			continue
		}
		quantile := func(q float64) float64 {
			var seen int64
			for i, n := range counts {
				if seen += n; float64(seen) >= q*float64(total) {
					return math.Round(float64(bucketEnd(i))/float64(time.Millisecond)*1000) / 1000
				}
			}
			return 0
		}
		all[p.name] = pageSummary{Count: total, Errors: a.errors(), P50: quantile(0.5), P99: quantile(0.99)}
	}
	return all
}
