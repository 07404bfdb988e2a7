package eventcollector

import (
	"strconv"

	"github.com/redpanda-data/benthos/v4/public/service"
)

type metrics struct {
	requests, accepted, rejected, withoutID, bytes *service.MetricCounter
	inFlight                                       *service.MetricGauge
}

func newMetrics(m *service.Metrics) metrics {
	return metrics{
		requests:  m.NewCounter("event_collector_requests", "endpoint", "status"),
		accepted:  m.NewCounter("event_collector_events_accepted", "source"),
		rejected:  m.NewCounter("event_collector_events_rejected", "source", "reason"),
		withoutID: m.NewCounter("event_collector_events_without_id", "source", "repetition"),
		bytes:     m.NewCounter("event_collector_bytes"),
		inFlight:  m.NewGauge("event_collector_in_flight"),
	}
}

// countRequest counts a request by the status of its response, 0 for a client
// that disconnected before it.
func (m *metrics) countRequest(endpoint string, status int) {
	m.requests.Incr(1, endpoint, strconv.Itoa(status))
}
