package customers

// Logger receives log lines. *service.Logger implements it.
type Logger interface {
	Errorf(format string, args ...any)
	Warnf(format string, args ...any)
	Infof(format string, args ...any)
}

// Metrics makes metrics. The labels given here are names; their values come
// with each measurement, in the same order.
type Metrics interface {
	Counter(name string, labels ...string) Counter
	Timer(name string, labels ...string) Timer
	Gauge(name string, labels ...string) Gauge
}

// Counter counts. *service.MetricCounter implements it.
type Counter interface {
	Incr(delta int64, labelValues ...string)
}

// Timer records durations in nanoseconds. *service.MetricTimer implements it.
type Timer interface {
	Timing(nanoseconds int64, labelValues ...string)
}

// Gauge holds the latest value. *service.MetricGauge implements it.
type Gauge interface {
	Set(value int64, labelValues ...string)
}

// discard is the Logger and Metrics of a service that was given none.
type discard struct{}

func (discard) Errorf(string, ...any)             {}
func (discard) Warnf(string, ...any)              {}
func (discard) Infof(string, ...any)              {}
func (discard) Counter(string, ...string) Counter { return discard{} }
func (discard) Timer(string, ...string) Timer     { return discard{} }
func (discard) Gauge(string, ...string) Gauge     { return discard{} }
func (discard) Incr(int64, ...string)             {}
func (discard) Timing(int64, ...string)           {}
func (discard) Set(int64, ...string)              {}

// metrics are the metrics of a service.
type metrics struct {
	whereFailures Counter
	duplicates    Counter
	conflicts     Counter
	late          Counter
	overflows     Counter
	future        Counter
	unidentified  Counter
	refusedMerges Counter
	erasures      Counter
	erasedEvents  Counter
	storeLosses   Counter

	lostClaims Counter
	entered    Counter
	left       Counter
	dropped    Counter
	members    Gauge // by segment

	fired        Counter
	fireDelay    Timer
	lostFirings  Counter
	dataFailures Counter
}

func newMetrics(m Metrics) metrics {
	return metrics{
		whereFailures: m.Counter("profiles_where_failures"),
		duplicates:    m.Counter("profiles_duplicate_events"),
		conflicts:     m.Counter("profiles_write_conflicts"),
		late:          m.Counter("profiles_late_events"),
		overflows:     m.Counter("profiles_feature_overflows"),
		future:        m.Counter("profiles_future_events"),
		unidentified:  m.Counter("profiles_unidentified_events"),
		refusedMerges: m.Counter("profiles_merges_refused"),
		erasures:      m.Counter("profiles_erasures"),
		erasedEvents:  m.Counter("profiles_erased_events"),
		storeLosses:   m.Counter("profiles_store_losses"),
		lostClaims:    m.Counter("profile_changes_claims_lost"),
		entered:       m.Counter("profiles_segments_entered"),
		left:          m.Counter("profiles_segments_left"),
		dropped:       m.Counter("profiles_messages_dropped"),
		members:       m.Gauge("profiles_segment_members", "segment"),
		fired:         m.Counter("profile_triggers", "trigger", "outcome"),
		fireDelay:     m.Timer("profile_triggers_delay_ns"),
		lostFirings:   m.Counter("profile_triggers_lost"),
		dataFailures:  m.Counter("profile_triggers_data_failures"),
	}
}
