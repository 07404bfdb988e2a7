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

// Name is the processor's name in a config.
const Name = "update_profile"

const fieldProfiles = "profiles"

func init() {
	service.MustRegisterBatchProcessor(Name, Spec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchProcessor, error) {
		return newProcessor(conf, res)
	})
}

// Spec describes the processor.
func Spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Personalization").
		Summary("Takes events into the profiles of their customers.").
		Description(`
The events of a batch are grouped by customer; all the records concerned are read in one round trip to the store and those that changed are written in another. Bigger batches are therefore cheaper: give the input a batching policy.

An event counts once however often it arrives: its `+"`messageId`"+` is remembered with the profile. Events may arrive in any order. The `+"`traits`"+` of an identify event become traits of the profile, the newer statement about a trait winning over an older one; a trait that is null is unset. An identify event with both a `+"`userId`"+` and an `+"`anonymousId`"+`, and an alias event from `+"`previousId`"+` to `+"`userId`"+`, merge what was known of the anonymous customer into the known one.

Events pass through unchanged once their profiles are stored. While the store cannot be reached the processor waits and tries again, which holds back the input. An event that cannot be taken in is marked as failed, with the reason, and stops no other: route failed messages to dead letters. Events that already failed pass through untouched.

An `+"`erase`"+` event, which the profile API makes of a DELETE, erases the customer of its `+"`userId`"+` or `+"`anonymousId`"+` and all that was merged into them. From then on events about them are dropped: they are neither passed on nor made dead letters, which would keep what was to be erased, but counted. A `+"`readmit`"+` event ends that, except for events of before.

### Metrics

- `+"`update_profile_events`"+`: events taken in
- `+"`update_profile_rejected`"+`: events marked as failed
- `+"`update_profile_store_retries`"+`: attempts that failed because of the store
- `+"`profiles_duplicate_events`"+`: events that were there already
- `+"`profiles_write_conflicts`"+`: records read and written again because another writer was first
- `+"`profiles_late_events`"+`: events taken in that are older than every window of a feature they are for
- `+"`profiles_future_events`"+`: events refused because their timestamp lies in the future
- `+"`profiles_unidentified_events`"+`: events refused because no id of theirs identifies a customer
- `+"`profiles_merges_refused`"+`: merges refused because an id belongs to another customer or a limit was reached
- `+"`profiles_erasures`"+`: customers erased
- `+"`profiles_erased_events`"+`: events dropped because their customer was erased
- `+"`profiles_where_failures`"+`: conditions of features that failed to evaluate`).
		Field(service.NewStringField(fieldProfiles).
			Description("The label of the `profiles` resource to update.").
			Example("retail").
			LintRule(`root = if this == "" { [ "profiles must be the label of an item of the top-level field profiles, such as retail" ] }`)).
		Example("Events to profiles", "Takes the events of a topic into profiles, a thousand at a time.", `
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
	at := make([]int, 0, len(batch))
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
		at = append(at, i)
	}
	errs, err := p.update(ctx, events)
	if err != nil {
		return nil, err
	}
	erased := 0
	for n, err := range errs {
		switch {
		case errors.Is(err, customers.ErrErased):
			batch[at[n]], erased = nil, erased+1
		case err != nil:
			p.reject(batch[at[n]], err)
		}
	}
	p.events.Incr(int64(len(events) - erased))
	if erased == 0 {
		return []service.MessageBatch{batch}, nil
	}
	// What is heard of an erased customer goes no further.
	if batch = slices.DeleteFunc(batch, func(m *service.Message) bool { return m == nil }); len(batch) == 0 {
		return nil, nil
	}
	return []service.MessageBatch{batch}, nil
}

// storeBackoff is the delay between attempts while the store is unavailable.
var storeBackoff = backoff.Exponential{Initial: 50 * time.Millisecond, Max: 5 * time.Second}

// update tries until the store answers. It returns an error only when the
// pipeline is being stopped, and then nothing is acknowledged.
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
	msg.SetError(&rejection.Error{Stage: Name, Reasons: []rejection.Reason{reason(err)}})
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
