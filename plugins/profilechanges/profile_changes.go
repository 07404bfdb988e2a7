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

// pluginName is the input's name in a config.
const pluginName = "profile_changes"

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
	service.MustRegisterBatchInput(pluginName, configSpec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
		return newInput(conf, res)
	})
}

// configSpec describes the input.
func configSpec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Personalization").
		Summary("Fires triggers, and emits the changes of customers: fired triggers, and segments that customers entered or left.").
		Description(`
Each message is a track event in JSON, such as

`+"```json"+`
{"type":"track","event":"Segment Entered","messageId":"5e8c…","userId":"u1","timestamp":"2026-01-31T08:30:00.000Z",
 "properties":{"segment":"high_value","old":false,"new":true,"since":"2026-01-31T08:30:00.000Z","reason":"event","event_id":"m17"}}
`+"```"+`

Messages wait in an outbox in the customer's profile. A message is written together with the change that caused it, and removed after the output has acknowledged it. It is therefore delivered at least once, even after a crash, always with the same `+"`messageId`"+` and the same content. The messages of a customer are delivered in order.

`+"`reason`"+` is `+"`event`"+` (then `+"`event_id`"+` is the messageId of the event), `+"`merge`"+`, `+"`time`"+`, `+"`definition`"+` or `+"`parameter`"+`. After each sweep the input emits one message `+"`Segments Counted`"+`, which belongs to no customer and has the size of every segment in `+"`properties.segments`"+`. Store them to have the history of the sizes.

Any number of processes and inputs share the work: an input claims the messages of a customer for the duration of a `+"`lease`"+`. Messages of the same process are delivered at once, those of other processes after `+"`poll_interval`"+` at the latest. Messages that are not delivered within seven days are dropped, as are the oldest of more than 256 messages of one customer.

If the definition has [triggers](../triggers.md), the input fires those that are due. It checks when the next one is due and at every `+"`poll_interval`"+`, but at most ten times in one interval. Without this input no trigger fires. Their messages are

`+"```json"+`
{"type":"track","event":"Trigger Fired","messageId":"9f86…","userId":"u1","timestamp":"2026-01-31T09:30:00.120Z",
 "properties":{"trigger":"cart_abandoned","channel":"email","cause_at":"2026-01-31T08:30:00.000Z","due_at":"2026-01-31T09:30:00.000Z","data":{"product":"p7"}}}
`+"```"+`

and the same with `+"`Trigger Held Out`"+` for customers in the control group. While the output fails no trigger fires.

### Metadata

- `+"`customer_id`"+`: id of the customer, for use as the key of a topic

### Metrics

- `+"`profile_changes_delivered`"+`: messages that were delivered
- `+"`profile_changes_returned`"+`: messages that were not delivered, and will be retried
- `+"`profile_changes_delay_ns`"+`: time from the cause of a message to its delivery
- `+"`profile_triggers`"+`: decisions about triggers, by `+"`trigger`"+` and `+"`outcome`"+`: fired, held_out, expired, predates, no_consent, condition, failed, capped
- `+"`profile_triggers_delay_ns`"+`: time from when a trigger was due to its firing
- `+"`profile_triggers_lost`"+`: firings that had a conflict with another process
- `+"`profile_triggers_data_failures`"+`: messages without `+"`data`"+` because its query failed
- `+"`profile_changes_claims_lost`"+`: claims that had a conflict with another process
- `+"`profiles_segment_members`"+`: number of customers in a segment, as of the last sweep of this process, by the label `+"`segment`"+`
- `+"`profiles_segments_entered`"+`, `+"`profiles_segments_left`"+`: numbers of customers that entered and left segments
- `+"`profiles_messages_dropped`"+`: messages dropped because they were not delivered`).
		Field(service.NewStringField(fieldProfiles).
			Description("Label of the `profiles` resource.").
			Example("retail").
			LintRule(`root = if this == "" { [ "profiles must be the label of an item of the top-level field profiles, such as retail" ] }`)).
		Field(service.NewIntField(fieldBatchSize).
			Description("Maximum number of customers in a batch.").
			Default(500).
			LintRule(`root = if this < 1 || this > 10000 { [ "batch_size must be from 1 to 10000" ] }`)).
		Field(service.NewDurationField(fieldPollInterval).
			Description("Interval at which the input checks for messages of other processes, and for those of processes that crashed. Triggers fire within a tenth of it after they are due, or within the whole interval if they became due shortly after their cause. A shorter interval lowers the delay and increases the load of the store.").
			Default("500ms").
			Example("5s")).
		Field(service.NewDurationField(fieldLease).
			Description("Time for which messages are claimed. Messages that are not acknowledged by then are delivered again, possibly by another process. Make it longer than the output may take.").
			Default("30s").
			Advanced()).
		Field(service.NewDurationField(fieldSweep).
			Description("Interval at which all customers are re-evaluated (a sweep), to find segment changes that are due to time only. It is the maximum delay of such changes, apart from the duration of a sweep. A sweep also starts soon after a change of segment rules, parameters or triggers. One process sweeps at a time. Empty disables sweeps.").
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
	failures atomic.Int32 // failed deliveries since the last success

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
		return nil, fmt.Errorf("%s is %v; write at least 1s, or leave it empty to disable sweeps", fieldSweep, in.interval)
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

// ReadBatch implements service.BatchInput. It retries while the store is
// unavailable.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	for failures := 1; ; failures++ {
		d, err := in.outbox.Next(ctx)
		if err == nil {
			in.profiles.StoreRecovered()
			return batch(d), func(ctx context.Context, err error) error { return in.acknowledge(ctx, d, err) }, nil
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

// acknowledge ends a delivery. If the store does not answer, the lease expires and
// the messages are delivered again.
func (in *input) acknowledge(ctx context.Context, d *customers.Delivery, failed error) error {
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
