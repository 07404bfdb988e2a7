package profileapi

import (
	"net/http"
	"strconv"
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
}

func newTelemetry(m *service.Metrics) telemetry {
	return telemetry{
		requests: m.NewCounter("profile_api_requests", "route", "status"),
		latency:  m.NewTimer("profile_api_latency_ns", "route"),
		inFlight: m.NewGauge("profile_api_in_flight"),
		cut:      m.NewCounter("profile_api_connections_cut"),
	}
}

func (t *telemetry) begin() { t.inFlight.Incr(1) }

func (t *telemetry) end(p *page, status int, took time.Duration) {
	t.inFlight.Decr(1)
	t.requests.Incr(1, p.name, statusLabel(status))
	t.latency.Timing(int64(took), p.name)
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
