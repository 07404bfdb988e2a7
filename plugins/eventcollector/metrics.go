package eventcollector

import (
	"strconv"

	"github.com/redpanda-data/benthos/v4/public/service"
)

type metrics struct {
	requests, accepted, rejected, bytes *service.MetricCounter
	inFlight                            *service.MetricGauge
}

func newMetrics(m *service.Metrics) metrics {
	return metrics{
		requests: m.NewCounter("event_collector_requests", "endpoint", "status"),
		accepted: m.NewCounter("event_collector_events_accepted", "source"),
		rejected: m.NewCounter("event_collector_events_rejected", "source", "reason"),
		bytes:    m.NewCounter("event_collector_bytes"),
		inFlight: m.NewGauge("event_collector_in_flight"),
	}
}

// answered counts a request. Requests that never got an answer have status 0.
func (m *metrics) answered(endpoint string, status int) {
	m.requests.Incr(1, endpoint, strconv.Itoa(status))
}
