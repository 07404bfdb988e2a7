package kafkatopic

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLog passes errors of the Kafka client to the log and to a metric, including
// those that the client retries by itself: without them a stall has no cause. It
// logs each message once a minute at most.
type clientLog struct {
	log    *service.Logger
	errors *service.MetricCounter
	// stalled turns on debug messages of the client, because it logs the errors of
	// retried produce requests only there. They are too expensive otherwise.
	stalled atomic.Bool

	mu     sync.Mutex
	logged map[string]time.Time
}

var _ kgo.Logger = (*clientLog)(nil)

func newClientLog(res *service.Resources) *clientLog {
	return &clientLog{
		log:    res.Logger(),
		errors: res.Metrics().NewCounter("kafka_topic_errors", "cause"),
		logged: map[string]time.Time{},
	}
}

const sameLogEvery = time.Minute

// Level implements kgo.Logger.
func (l *clientLog) Level() kgo.LogLevel {
	if l.stalled.Load() {
		return kgo.LogLevelDebug
	}
	return kgo.LogLevelInfo
}

// Log implements kgo.Logger.
func (l *clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if level == kgo.LogLevelDebug && msg != "produced" {
		return
	}
	var cause string
	var details []string
	for i := 0; i+1 < len(keyvals); i += 2 {
		if err, ok := keyvals[i+1].(error); ok && err != nil {
			cause = err.Error()
			continue
		}
		switch keyvals[i] {
		case "to", "why": // the results of a request, and reasons to update metadata
			if text := fmt.Sprint(keyvals[i+1]); errorName.MatchString(text) {
				cause = text
			}
		case "topic", "partition", "group", "broker":
			details = append(details, fmt.Sprintf("%v %v", keyvals[i], keyvals[i+1]))
		}
	}
	if cause == "" && level > kgo.LogLevelWarn {
		return
	}
	name := errorName.FindString(cause)
	if name == "" {
		name = "other"
	}
	l.errors.Incr(1, name)
	if !l.due(msg + name) {
		return
	}
	text := msg
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	if cause != "" {
		text += ": " + cause
	}
	l.log.Warnf("Kafka client: %s", text)
}

// due reports whether a message was not logged within the last minute.
func (l *clientLog) due(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.logged[msg]) < sameLogEvery {
		return false
	}
	l.logged[msg] = now
	return true
}

// errorName is the name of an error in Kafka's protocol, the label of the metric.
var errorName = regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)+\b`)
