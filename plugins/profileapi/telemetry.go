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

// telemetry counts requests. Its labels are routes and statuses, never values of a
// request.
//
// A request costs a few atomic additions. They are flushed to the metrics once every
// flushInterval: looking up a metric by its labels takes longer than a read from the
// cache, and concurrent requests would contend for the quantiles of the timer.
type telemetry struct {
	requests *service.MetricCounter
	latency  *service.MetricTimer
	inFlight *service.MetricGauge
	// replaced counts connections that were closed to make room for others.
	replaced *service.MetricCounter
	// cacheBytes is the approximate memory use of the cache.
	cacheBytes *service.MetricGauge

	// active is the number of requests in flight.
	active atomic.Int64
	// byPage is the activity of each page. The map does not change.
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
		replaced: m.NewCounter("profile_api_connections_cut"),

		cacheBytes: m.NewGauge("profile_api_cache_bytes"),
	}
}

// flushInterval is the interval of flushes to the metrics.
const flushInterval = time.Second

// follow flushes the counts to the metrics until ctx ends, and once more then.
// cacheBytes returns the size of the cache; it is nil without a cache.
func (t *telemetry) follow(ctx context.Context, cacheBytes func() int64) {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for {
		t.flush(cacheBytes)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.flush(cacheBytes)
			return
		}
	}
}

// flush flushes the counts to the metrics. It must not be called concurrently.
func (t *telemetry) flush(cacheBytes func() int64) {
	if cacheBytes != nil {
		t.cacheBytes.Set(cacheBytes())
	}
	t.inFlight.Set(t.active.Load())
	for p, a := range t.byPage {
		for status := range a.answers {
			if n := a.answers[status].Load(); n > a.flushed[status] {
				t.requests.Incr(n-a.flushed[status], p.name, strconv.Itoa(status))
				a.flushed[status] = n
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

// sampleSize is the maximum number of latencies of a page per flush.
const sampleSize = 256

// sample is a uniform random sample of a stream of durations (reservoir sampling).
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

// drain calls observe with each duration of the sample, and starts a new sample.
func (s *sample) drain(observe func(took int64)) {
	s.mu.Lock()
	took := slices.Clone(s.took[:min(s.seen, sampleSize)])
	s.seen = 0
	s.mu.Unlock()
	for _, t := range took {
		observe(t)
	}
}

// pageActivity counts the requests of a page. Latencies are counted in buckets of a
// quarter of a power of two, which gives quantiles with an error of at most a fifth.
type pageActivity struct {
	answers [statuses]atomic.Int64 // by status
	flushed [statuses]int64        // the part of answers that was flushed
	buckets [latencyBuckets]atomic.Int64
	sample  sample
}

// statuses is one more than the highest status.
const statuses = 600

const (
	latencyBuckets = 4 * 36
	nanosecondBits = 10 // durations below a microsecond share the first bucket
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

// errors returns the number of requests with a 5xx status.
func (a *pageActivity) errors() (n int64) {
	for status := http.StatusInternalServerError; status < statuses; status++ {
		n += a.answers[status].Load()
	}
	return n
}

// pageSummary is the activity of a page in a response.
type pageSummary struct {
	Count  int64   `json:"count"`
	Errors int64   `json:"errors"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
}

// summary returns the activity of each page with at least one request.
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
