// Package profilechanges is the `profile_changes` input.
package profilechanges

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// Name is the input's name in a config.
const Name = "profile_changes"

const (
	fieldProfiles     = "profiles"
	fieldBatchSize    = "batch_size"
	fieldPollInterval = "poll_interval"
	fieldLease        = "lease"
	fieldSweep        = "sweep_interval"
)

// The metadata of a message.
const (
	metaCustomer = "customer_id"
)

func init() {
	service.MustRegisterBatchInput(Name, Spec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
		return newInput(conf, res)
	})
}

// Spec describes the input.
func Spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Personalization").
		Summary("Fires triggers, and tells what happens to customers: that a trigger fired, that they entered or left a segment.").
		Description(`
Each message is a track event in JSON, such as

`+"```json"+`
{"type":"track","event":"Segment Entered","messageId":"5e8c…","userId":"u1","timestamp":"2026-01-31T08:30:00.000Z",
 "properties":{"segment":"high_value","old":false,"new":true,"since":"2026-01-31T08:30:00.000Z","reason":"event","event_id":"m17"}}
`+"```"+`

A message is stored with the customer's profile, in the same write as what caused it, and removed from there when the output has confirmed it. It is therefore delivered at least once, whatever dies in between, and always with the same `+"`messageId`"+` and the same content. The messages of a customer come in order.

`+"`reason`"+` is `+"`event`"+` (then `+"`event_id`"+` is the messageId of the event), `+"`merge`"+`, `+"`time`"+`, `+"`definition`"+` or `+"`parameter`"+`. After each sweep there is one message `+"`Segments Counted`"+`, about no customer, with the size of every segment in `+"`properties.segments`"+`: kept, they are the history of the sizes.

Any number of processes, and of these inputs, share the work: a customer's messages are claimed for the time of a `+"`lease`"+`. What the same process wrote is delivered at once, what others wrote after `+"`poll_interval`"+` at the latest. Messages that nobody delivers within seven days are given up, as are the oldest of more than 256 of a customer.

If the definition has [triggers](../triggers.md) the input fires those that are due, looking when the next is due and at every `+"`poll_interval`"+`, and not more often than ten times in one; a pipeline without this input fires none. Their messages are

`+"```json"+`
{"type":"track","event":"Trigger Fired","messageId":"9f86…","userId":"u1","timestamp":"2026-01-31T09:30:00.120Z",
 "properties":{"trigger":"cart_abandoned","channel":"email","cause_at":"2026-01-31T08:30:00.000Z","due_at":"2026-01-31T09:30:00.000Z","data":{"product":"p7"}}}
`+"```"+`

and the same with `+"`Trigger Held Out`"+` for customers who are told nothing, for the sake of comparison. While messages do not arrive nothing is fired.

### Metadata

- `+"`customer_id`"+`: the id of the customer, to key messages of a topic by

### Metrics

- `+"`profile_changes_delivered`"+`: messages that arrived
- `+"`profile_changes_returned`"+`: messages that did not, and will come again
- `+"`profile_changes_delay_ns`"+`: the time from the cause of a message to its arrival
- `+"`profile_triggers`"+`: triggers decided, by `+"`trigger`"+` and `+"`outcome`"+`: fired, held_out, expired, predates, no_consent, condition, failed, capped
- `+"`profile_triggers_delay_ns`"+`: the time from when a trigger was due to its firing
- `+"`profile_triggers_lost`"+`: customers that another process fired for, or an update changed, at the same time
- `+"`profile_triggers_data_failures`"+`: messages whose `+"`data`"+` could not be made
- `+"`profile_changes_claims_lost`"+`: customers that another process claimed, or an update changed, at the same time
- `+"`profiles_segment_members`"+`: how many customers are in a segment, as of the last sweep of this process, by the label `+"`segment`"+`
- `+"`profiles_segments_entered`"+`, `+"`profiles_segments_left`"+`: how often customers entered and left segments
- `+"`profiles_messages_dropped`"+`: messages given up because nobody delivered them`).
		Field(service.NewStringField(fieldProfiles).
			Description("The label of the `profiles` resource.").
			Example("retail").
			LintRule(`root = if this == "" { [ "profiles must be the label of an item of the top-level field profiles, such as retail" ] }`)).
		Field(service.NewIntField(fieldBatchSize).
			Description("How many customers' messages are in a batch at most.").
			Default(500).
			LintRule(`root = if this < 1 || this > 10000 { [ "batch_size must be from 1 to 10000" ] }`)).
		Field(service.NewDurationField(fieldPollInterval).
			Description("How often to look for what other processes wrote, and for what was left by ones that died. Triggers fire within a tenth of it after they are due, and within all of it if they came up that shortly before.").
			Default("500ms").
			Example("5s")).
		Field(service.NewDurationField(fieldLease).
			Description("For how long messages are claimed. Those that were not confirmed by then are delivered again, possibly by another process: make it longer than an output may take.").
			Default("30s").
			Advanced()).
		Field(service.NewDurationField(fieldSweep).
			Description("How often all customers are judged anew, so that those whose segments change because time passes are moved: the longest delay of such a move, but for the time a sweep takes. A sweep also begins soon after the rules of segments, their parameters, or triggers changed. Of all processes one sweeps at a time. Empty sweeps never.").
			Default("15m").
			Example("1h")).
		Example("To a topic", "Changes of the profiles in Redis to a topic, keyed by customer.", `
profiles:
  - label: retail
    definition: ./configs/retail/profile.yaml
    store:
      redis:
        url: "${REDIS_URL:redis://127.0.0.1:6379}"

input:
  profile_changes:
    profiles: retail

output:
  kafka_topic:
    seed_brokers: [ "${KAFKA_SEEDS:127.0.0.1:9092}" ]
    topic: changes
    key: '${! meta("customer_id") }'
`)
}

var (
	// storeBackoff is the delay between attempts while the store is unavailable.
	storeBackoff = backoff.Exponential{Initial: 50 * time.Millisecond, Max: 5 * time.Second}
	// releaseBackoff is the delay before messages that the output rejected are
	// claimed again.
	releaseBackoff = backoff.Exponential{Initial: time.Second, Max: 30 * time.Second}
)

type input struct {
	profiles *customers.Service
	size     int
	poll     time.Duration
	lease    time.Duration
	outbox   *customers.Outbox
	firing   *firing      // nil without triggers
	failures atomic.Int32 // deliveries that failed since one arrived

	interval time.Duration // between sweeps, 0 for none
	sweeping sync.WaitGroup
	stop     context.CancelFunc

	delivered *service.MetricCounter
	returned  *service.MetricCounter
	delay     *service.MetricTimer
}

func newInput(conf *service.ParsedConfig, res *service.Resources) (*input, error) {
	label, err := conf.FieldString(fieldProfiles)
	if err != nil {
		return nil, err
	}
	in := &input{
		delivered: res.Metrics().NewCounter("profile_changes_delivered"),
		returned:  res.Metrics().NewCounter("profile_changes_returned"),
		delay:     res.Metrics().NewTimer("profile_changes_delay_ns"),
	}
	if in.profiles, err = profiles.Get(res, label); err != nil {
		return nil, err
	}
	if in.size, err = conf.FieldInt(fieldBatchSize); err != nil {
		return nil, err
	}
	for _, field := range []struct {
		name  string
		into  *time.Duration
		least time.Duration
	}{{fieldPollInterval, &in.poll, time.Millisecond}, {fieldLease, &in.lease, time.Second}} {
		if *field.into, err = conf.FieldDuration(field.name); err != nil {
			return nil, err
		}
		if *field.into < field.least {
			return nil, fmt.Errorf("%s is %v; write at least %v", field.name, *field.into, field.least)
		}
	}
	text, err := conf.FieldString(fieldSweep)
	if err != nil || text == "" {
		return in, err
	}
	if in.interval, err = conf.FieldDuration(fieldSweep); err != nil {
		return nil, err
	}
	if in.interval < time.Second {
		return nil, fmt.Errorf("%s is %v; write at least a second, or nothing for no sweeps", fieldSweep, in.interval)
	}
	return in, nil
}

// Connect implements service.BatchInput.
func (in *input) Connect(context.Context) error {
	if in.outbox != nil {
		return nil
	}
	in.outbox = in.profiles.Outbox(in.poll, in.lease, in.size)
	in.firing = in.fire()
	if in.interval > 0 {
		ctx, stop := context.WithCancel(context.Background())
		in.stop = stop
		in.sweeping.Go(func() { in.profiles.Sweep(ctx, in.interval) })
	}
	return nil
}

// ReadBatch implements service.BatchInput. While the store is away it waits.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	for failures := 1; ; failures++ {
		d, err := in.outbox.Next(ctx)
		if err == nil {
			in.profiles.StoreRecovered()
			return batch(d), func(ctx context.Context, err error) error { return in.settle(ctx, d, err) }, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		in.profiles.StoreFailed(err)
		if err := storeBackoff.Wait(ctx, failures); err != nil {
			return nil, nil, err
		}
	}
}

func batch(d *customers.Delivery) service.MessageBatch {
	messages := make(service.MessageBatch, len(d.Messages))
	for i, m := range d.Messages {
		messages[i] = service.NewMessage(m.Content)
		messages[i].MetaSetMut(metaCustomer, m.CustomerID)
	}
	return messages
}

// settle ends a delivery. If the store does not answer, the lease runs out and
// the messages are delivered again.
func (in *input) settle(ctx context.Context, d *customers.Delivery, failed error) error {
	n := int64(len(d.Messages))
	if failed != nil {
		in.returned.Incr(n)
		return d.Release(ctx, releaseBackoff.Delay(int(in.failures.Add(1))))
	}
	in.failures.Store(0)
	if err := d.Acknowledge(ctx); err != nil {
		return err
	}
	in.delivered.Incr(n)
	now := in.profiles.Now().UnixMilli()
	for _, m := range d.Messages {
		in.delay.Timing((now - m.Time) * int64(time.Millisecond))
	}
	return nil
}

// Close implements service.BatchInput.
func (in *input) Close(context.Context) error {
	if in.stop != nil {
		in.stop()
		in.sweeping.Wait()
		in.stop = nil
	}
	if in.outbox != nil {
		in.firing.stop()
		in.outbox.Close()
		in.outbox = nil
	}
	return nil
}
