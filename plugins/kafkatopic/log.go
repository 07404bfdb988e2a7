package kafkatopic

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLog passes errors of the Kafka client to the log and to a metric, including
// those that the client retries by itself: without them a stall has no cause. It
// logs each message once a minute at most.
type clientLog struct {
	log    *service.Logger
	errors *service.MetricCounter

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

// Level implements kgo.Logger. Retriable errors of produce requests have level info.
func (*clientLog) Level() kgo.LogLevel { return kgo.LogLevelInfo }

// Log implements kgo.Logger.
func (l *clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	var cause error
	var details []string
	for i := 0; i+1 < len(keyvals); i += 2 {
		if err, ok := keyvals[i+1].(error); ok && err != nil {
			cause = err
			continue
		}
		switch keyvals[i] {
		case "topic", "partition", "group", "broker":
			details = append(details, fmt.Sprintf("%v %v", keyvals[i], keyvals[i+1]))
		}
	}
	if cause == nil && level > kgo.LogLevelWarn {
		return
	}
	l.count(cause)
	if !l.due(msg) {
		return
	}
	text := msg
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	if cause != nil {
		text += ": " + cause.Error()
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

// count counts an error by its Kafka name, such as NOT_ENOUGH_REPLICAS.
func (l *clientLog) count(err error) {
	cause := "other"
	if known, ok := errors.AsType[*kerr.Error](err); ok {
		cause = known.Message
	}
	l.errors.Incr(1, cause)
}
