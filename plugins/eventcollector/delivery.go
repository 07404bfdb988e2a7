package eventcollector

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingapi"
)

// delivery is the batch of one request on its way through the pipeline.
type delivery struct {
	batch service.MessageBatch
	// done receives the pipeline's acknowledgement.
	done chan error

	collector *collector
	sender    account
	reserved  *reservation
	accepted  int
	rejected  []string // the first broken rule of each rejected event
	reasons   []string // of the first rejected events, for the response
	withoutID []*repetition
	retries   int // of withoutID
	once      sync.Once
}

// fill makes the messages of events.
func (d *delivery) fill(events []trackingapi.Event, receipt trackingapi.Receipt) {
	d.batch = make(service.MessageBatch, len(events))
	for i, event := range events {
		msg := service.NewMessage(event.Data)
		d.batch[i] = msg
		if len(event.Reasons) == 0 {
			d.accepted++
			continue
		}
		d.rejected = append(d.rejected, event.Reasons[0].Rule)
		if len(d.rejected) <= maxReasons {
			d.reasons = append(d.reasons, describe(i, event.Reasons))
		}
		rejected := &rejection.Error{Stage: pluginName}
		for _, reason := range event.Reasons {
			rejected.Reasons = append(rejected.Reasons, rejection.Reason(reason))
		}
		msg.SetError(rejected)
		// An accepted event has these as fields.
		msg.MetaSetMut("source", receipt.Source)
		msg.MetaSetMut("received_at", receipt.ReceivedAt.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	}
}

// describe returns the reasons of the event at an index as one line.
func describe(index int, reasons []trackingapi.Reason) string {
	lines := make([]string, len(reasons))
	for i, reason := range reasons {
		lines[i] = reason.Message
		if reason.Pointer != "" {
			lines[i] = reason.Pointer + ": " + reason.Message
		}
	}
	return fmt.Sprintf("event %d: %s", index, strings.Join(lines, "; "))
}

// deliver passes the batch to the pipeline and waits until it is stored.
func (c *collector) deliver(ctx context.Context, d *delivery) *failure {
	timeout := time.NewTimer(c.conf.timeout)
	defer timeout.Stop()

	// The channel has no buffer: either the pipeline receives the batch, or it
	// never existed.
	var fail *failure
	select {
	case c.handoff <- d:
	case <-timeout.C:
		fail = failBusy
	case <-c.draining:
		fail = failClosing
	case <-ctx.Done():
		fail = errGone
	}
	if fail != nil {
		d.finish()
		return fail
	}

	// From here on the batch holds its slot until the pipeline acknowledges it,
	// whatever the response to the client is.
	select {
	case err := <-d.done:
		return stored(err)
	case <-timeout.C:
		fail = failTimeout
	case <-c.closed:
		fail = failClosing
	case <-ctx.Done():
		fail = errGone
	}
	select {
	case err := <-d.done: // both at once: the acknowledgement counts
		return stored(err)
	default:
		return fail
	}
}

func stored(err error) *failure {
	if err != nil {
		return failNack
	}
	return nil
}

// acknowledge receives the pipeline's result. It may be called more than once.
func (d *delivery) acknowledge(err error) {
	if !d.finish() {
		return
	}
	if err == nil {
		m := &d.collector.metrics
		if d.accepted > 0 {
			m.accepted.Incr(int64(d.accepted), d.sender.source)
		}
		if first := len(d.withoutID) - d.retries; first > 0 {
			m.withoutID.Incr(int64(first), d.sender.source, "new")
		}
		if d.retries > 0 {
			m.withoutID.Incr(int64(d.retries), d.sender.source, "retry")
		}
		for _, rule := range d.rejected {
			m.rejected.Incr(1, d.sender.source, rule)
		}
	}
	d.done <- err
}

// finish releases the slot and the memory of the delivery, once. It reports
// whether this call released them.
func (d *delivery) finish() (first bool) {
	d.once.Do(func() {
		first = true
		d.reserved.free()
		d.collector.slots.free(d.sender)
	})
	return first
}
