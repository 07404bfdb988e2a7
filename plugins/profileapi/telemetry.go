package profileapi

import (
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
	// cut counts the connections that had to make room for others.
	cut *service.MetricCounter

	// active is how many requests are under way. The gauge follows it at most
	// every gaugeInterval and whenever the API falls idle: setting it costs
	// more than counting.
	active atomic.Int64
	shown  atomic.Int64 // when the gauge was set last
}

const gaugeInterval = 10 * time.Millisecond

func newTelemetry(m *service.Metrics) *telemetry {
	return &telemetry{
		requests: m.NewCounter("profile_api_requests", "route", "status"),
		latency:  m.NewTimer("profile_api_latency_ns", "route"),
		inFlight: m.NewGauge("profile_api_in_flight"),
		cut:      m.NewCounter("profile_api_connections_cut"),
	}
}

func (t *telemetry) begin(now time.Time) { t.show(t.active.Add(1), now) }

func (t *telemetry) end(p *page, status int, started time.Time) {
	took := time.Since(started)
	t.show(t.active.Add(-1), started.Add(took))
	t.requests.Incr(1, p.name, statusLabel(status))
	t.latency.Timing(int64(took), p.name)
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
