package profileapi

import (
	"context"
	"math"
	"math/bits"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// telemetry counts requests. Its labels are routes and statuses, never
// anything a caller chose.
type telemetry struct {
	requests *service.MetricCounter
	latency  *service.MetricTimer
	inFlight *service.MetricGauge
	// byPage is what the API tells of itself; the pages do not change.
	byPage map[string]*pageActivity
	// cut counts the connections that had to make room for others.
	cut *service.MetricCounter

	// cacheBytes is how much memory the cache of records takes.
	cacheBytes *service.MetricGauge

	// active is how many requests are under way. The gauge follows it at most
	// every gaugeInterval and whenever the API falls idle: setting it costs
	// more than counting.
	active atomic.Int64
	shown  atomic.Int64 // when the gauge was set last
}

const gaugeInterval = 10 * time.Millisecond

func newTelemetry(m *service.Metrics) *telemetry {
	byPage := map[string]*pageActivity{unknownPage.name: {}}
	for _, p := range pages {
		byPage[p.name] = &pageActivity{}
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

// cacheInterval is how often it is said how large the cache is.
const cacheInterval = time.Second

// followCache says how large a cache is, from now on until ctx ends.
func (t *telemetry) followCache(ctx context.Context, size func() int64) {
	ticker := time.NewTicker(cacheInterval)
	defer ticker.Stop()
	for {
		t.cacheBytes.Set(size())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (t *telemetry) begin(now time.Time) { t.show(t.active.Add(1), now) }

func (t *telemetry) end(p *page, status int, started time.Time) {
	took := time.Since(started)
	t.show(t.active.Add(-1), started.Add(took))
	t.requests.Incr(1, p.name, statusLabel(status))
	t.latency.Timing(int64(took), p.name)
	if a := t.byPage[p.name]; a != nil {
		a.add(status, took)
	}
}

// pageActivity counts the requests of a page, and how long they took: by
// quarters of a power of two, which tells a latency to within a fifth.
type pageActivity struct {
	errors  atomic.Int64
	buckets [latencyBuckets]atomic.Int64
}

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
	if status >= http.StatusInternalServerError {
		a.errors.Add(1)
	}
	a.buckets[bucketOf(took)].Add(1)
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
	for name, a := range t.byPage {
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
		all[name] = pageSummary{Count: total, Errors: a.errors.Load(), P50: quantile(0.5), P99: quantile(0.99)}
	}
	return all
}

func (t *telemetry) show(active int64, now time.Time) {
	last := t.shown.Load()
	if at := now.UnixNano(); active == 0 || at-last >= int64(gaugeInterval) && t.shown.CompareAndSwap(last, at) {
		t.inFlight.Set(active)
	}
}

func statusLabel(status int) string {
	// The common ones without an allocation.
	switch status {
	case http.StatusOK:
		return "200"
	case http.StatusNotModified:
		return "304"
	case http.StatusNotFound:
		return "404"
	}
	return strconv.Itoa(status)
}
