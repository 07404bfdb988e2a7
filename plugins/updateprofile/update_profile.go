// Package updateprofile is the `update_profile` processor.
package updateprofile

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// pluginName is the processor's name in a config.
const pluginName = "update_profile"

const fieldProfiles = "profiles"

func init() {
	service.MustRegisterBatchProcessor(pluginName, configSpec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchProcessor, error) {
		return newProcessor(conf, res)
	})
}

// configSpec describes the processor.
func configSpec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Personalization").
		Summary("Applies events to the profiles of their customers.").
		Description(`
The events of a batch are grouped by customer. All their records are read in one round trip to the store, and the changed records are written in another. Larger batches are therefore cheaper: give the input a batching policy.

Events are deduplicated: the profile stores the `+"`messageId`"+` of recent events, so an event that is delivered again changes nothing. Events may arrive in any order. The `+"`traits`"+` of an identify event become traits of the profile. For each trait the value with the latest timestamp wins; null removes the trait. An identify event with both a `+"`userId`"+` and an `+"`anonymousId`"+`, and an alias event from `+"`previousId`"+` to `+"`userId`"+`, merge the anonymous profile into that of the known customer.

Events pass through unchanged after their profiles are stored. While the store is unavailable the processor retries with backoff, which applies back-pressure to the input. An event that cannot be applied is marked as failed, with the reason, and does not affect other events: route failed messages to dead letters. Events that failed before pass through untouched.

An `+"`erase`"+` event, which the profile API emits for a DELETE, erases the customer of its `+"`userId`"+` or `+"`anonymousId`"+` and all profiles that were merged into it. Later events about the customer are dropped and counted. They do not become dead letters, because those would retain erased data. A `+"`readmit`"+` event ends the erasure for events that are newer than it.

### Metrics

- `+"`update_profile_events`"+`: events applied
- `+"`update_profile_rejected`"+`: events marked as failed
- `+"`update_profile_store_retries`"+`: attempts that failed because of the store
- `+"`profiles_duplicate_events`"+`: duplicate events
- `+"`profiles_write_conflicts`"+`: conflicts with other writers, after which a record is read and written again
- `+"`profiles_late_events`"+`: events that are older than every window of the features that count them
- `+"`profiles_future_events`"+`: events rejected because their timestamp is in the future
- `+"`profiles_unidentified_events`"+`: events rejected because none of their ids identifies a customer
- `+"`profiles_merges_refused`"+`: merges rejected because an id belongs to another customer, or a limit was reached
- `+"`profiles_erasures`"+`: customers erased
- `+"`profiles_erased_events`"+`: events dropped because their customer was erased
- `+"`profiles_store_losses`"+`: losses of data in the store that this process noticed; alert on any
- `+"`profiles_where_failures`"+`: evaluations of the condition `+"`where`"+` that failed`).
		Field(service.NewStringField(fieldProfiles).
			Description("Label of the `profiles` resource to update.").
			Example("retail").
			LintRule(`root = if this == "" { [ "profiles must be the label of an item of the top-level field profiles, such as retail" ] }`)).
		Example("Events to profiles", "Applies batches of events to the profiles in a folder.", `
profiles:
  - label: retail
    definition: ./configs/retail/profile.yaml
    store:
      embedded:
        path: ./data/profiles

pipeline:
  processors:
    - update_profile:
        profiles: retail
`)
}

type processor struct {
	profiles *customers.Service
	events   *service.MetricCounter
	rejected *service.MetricCounter
	retries  *service.MetricCounter
}

func newProcessor(conf *service.ParsedConfig, res *service.Resources) (*processor, error) {
	label, err := conf.FieldString(fieldProfiles)
	if err != nil {
		return nil, err
	}
	p, err := profiles.Get(res, label)
	if err != nil {
		return nil, err
	}
	return &processor{
		profiles: p,
		events:   res.Metrics().NewCounter("update_profile_events"),
		rejected: res.Metrics().NewCounter("update_profile_rejected"),
		retries:  res.Metrics().NewCounter("update_profile_store_retries"),
	}, nil
}

// ProcessBatch implements service.BatchProcessor.
func (p *processor) ProcessBatch(ctx context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	events := make([][]byte, 0, len(batch))
	positions := make([]int, 0, len(batch)) // of events in batch
	for i, msg := range batch {
		if msg.GetError() != nil {
			continue
		}
		raw, err := msg.AsBytes()
		if err != nil {
			p.reject(msg, err)
			continue
		}
		events = append(events, raw)
		positions = append(positions, i)
	}
	errs, err := p.update(ctx, events)
	if err != nil {
		return nil, err
	}
	erased := 0
	for n, err := range errs {
		switch {
		case errors.Is(err, customers.ErrErased):
			batch[positions[n]], erased = nil, erased+1
		case err != nil:
			p.reject(batch[positions[n]], err)
		}
	}
	p.events.Incr(int64(len(events) - erased))
	if erased == 0 {
		return []service.MessageBatch{batch}, nil
	}
	// Events of erased customers are dropped.
	if batch = slices.DeleteFunc(batch, func(m *service.Message) bool { return m == nil }); len(batch) == 0 {
		return nil, nil
	}
	return []service.MessageBatch{batch}, nil
}

// storeBackoff is the delay between attempts while the store is unavailable.
var storeBackoff = backoff.Exponential{Initial: 50 * time.Millisecond, Max: 5 * time.Second}

// update retries until the store answers. It returns an error only when the
// pipeline stops; the batch is then not acknowledged.
func (p *processor) update(ctx context.Context, events [][]byte) ([]error, error) {
	for failures := 1; ; failures++ {
		errs, err := p.profiles.Update(ctx, events)
		if err == nil {
			p.profiles.StoreRecovered()
			return errs, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p.retries.Incr(1)
		p.profiles.StoreFailed(err)
		if err := storeBackoff.Wait(ctx, failures); err != nil {
			return nil, err
		}
	}
}

func (p *processor) reject(msg *service.Message, err error) {
	p.rejected.Incr(1)
	msg.SetError(&rejection.Error{Stage: pluginName, Reasons: []rejection.Reason{reason(err)}})
}

func reason(err error) rejection.Reason {
	var bad *event.Error
	switch {
	case errors.As(err, &bad):
		return rejection.Reason{Pointer: bad.Pointer, Rule: bad.Rule, Message: bad.Message}
	case errors.Is(err, record.ErrCorrupt), errors.Is(err, record.ErrVersion):
		return rejection.Reason{Rule: "record", Message: err.Error()}
	}
	return rejection.Reason{Rule: "error", Message: err.Error()}
}

// Close implements service.BatchProcessor.
func (p *processor) Close(context.Context) error { return nil }
