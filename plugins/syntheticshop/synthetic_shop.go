// Package syntheticshop is the synthetic_shop input: events of a simulated shop, to
// try out, test and measure pipelines.
package syntheticshop

import (
	"context"
	"fmt"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
)

const (
	fieldSeed        = "seed"
	fieldStart       = "start"
	fieldRate        = "rate"
	fieldCount       = "count"
	fieldCustomers   = "customers"
	fieldDailyEvents = "daily_events"
	fieldInvalid     = "invalid"
	fieldLate        = "late"
	fieldMaxLateness = "max_lateness"
	fieldDuplicated  = "duplicated"
	fieldBatchSize   = "batch_size"

	// faultMetadata is the metadata key with the fault of an event. Events
	// without a fault do not have it.
	faultMetadata = "synthetic_fault"
)

func shareLint(field string) string {
	return `root = if this < 0 || this > 1 { "` + field + ` is a share of all events: write a number from 0 to 1, such as 0.02 for one event in fifty" }`
}

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Utility").
		Summary("Generates the events of a simulated shop, the same events for the same settings.").
		Description(`
The events use Segment's e-commerce and email vocabulary, completed as the `+"`event_collector`"+` does: `+"`page`, `identify`"+`, Products Searched, Product Viewed, Product Added, Product Removed, Cart Viewed, Checkout Started, Order Completed, Email Delivered, Email Opened, Email Link Clicked and Unsubscribed, from the sources `+"`web`, `mobile`, `pos` and `crm`"+`.

Visitors arrive with an `+"`anonymousId`"+` only; some sign in, buy, receive mail and return through its links. A few customers cause most events: the lower the number of a `+"`userId`, from `u-000001`"+` on, the more active the customer. Activity follows the time of day in the customer's time zone. The catalogue has 204 products in 12 categories, priced in US dollars. All persons are fictional.

The same settings give the same events to the byte, on every machine. Only the default of `+"`start`"+` depends on the clock: set it for repeatable events. Another `+"`start`"+` gives the same customers with new message and order ids, so that events of a second run are not deduplicated as a replay.

Events with a fault have its name in the metadata `+"`"+faultMetadata+"`"+`: `+"`late`, `duplicate`"+`, `+"`unknown_event`"+`, or the kind of invalid event, such as `+"`broken_json` or `negative_total`"+`. Late and duplicate events are valid; the tracking plan decides on unknown events. Events without a fault do not have this metadata.

Events that were not acknowledged are sent again.`).
		Fields(
			service.NewIntField(fieldSeed).
				Description("Selects the shop: its customers and their actions.").
				Default(1).
				Example(42),
			service.NewStringField(fieldStart).
				Description("Time of receipt of the first event, in RFC 3339. Empty means now, cut to whole seconds. With a `rate` and a start in the past, events are sent at that rate with times in the past.").
				Default("").
				Example("2026-01-01T00:00:00Z").
				LintRule(`root = if this != "" && !this.string().re_match("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$") { "start must be a time in RFC 3339, such as 2026-01-01T00:00:00Z, or empty for now" }`),
			service.NewFloatField(fieldRate).
				Description("Events per second. 0 sends as fast as the pipeline accepts them, with times that follow from `customers`, `daily_events` and the time of day.").
				Default(0).
				Example(5).Example(2000).
				LintRule(`root = if this < 0 || this > 1000000000 { "rate is in events per second: write 0 for as fast as possible, or a number up to 1000000000" }`),
			service.NewIntField(fieldCount).
				Description("Number of events, including those with a fault. 0 means no end.").
				Default(0).
				Example(100000).
				LintRule(`root = if this < 0 { "count is a number of events: write 0 for no end" }`),
			service.NewIntField(fieldCustomers).
				Description("Number of customers. Each uses four bytes of memory.").
				Default(10_000).
				Example(1_000_000).
				LintRule(`root = if this < 1 || this > 100000000 { "customers must be from 1 to 100000000" }`),
			service.NewFloatField(fieldDailyEvents).
				Description("Number of events of the average customer in a day, if `rate` is 0. It sets the interval between the events' times, not the speed of sending.").
				Default(20).
				Example(5).
				Advanced().
				LintRule(`root = if this <= 0 || this > 100000 { "daily_events must be more than 0 and at most 100000" }`),
			service.NewFloatField(fieldInvalid).
				Description("Share of events that a tracking plan should reject, of fourteen kinds: broken JSON, missing members, wrong types, unknown events and so on.").
				Default(0).
				Example(0.01).
				LintRule(shareLint(fieldInvalid)),
			service.NewFloatField(fieldLate).
				Description("Share of events that arrive late, after events that happened later.").
				Default(0).
				Example(0.02).
				LintRule(shareLint(fieldLate)),
			service.NewDurationField(fieldMaxLateness).
				Description("Maximum delay of a late event.").
				Default("1h").
				Example("24h"),
			service.NewFloatField(fieldDuplicated).
				Description("Share of events that repeat one of the last events to the byte.").
				Default(0).
				Example(0.01).
				LintRule(shareLint(fieldDuplicated)),
			service.NewIntField(fieldBatchSize).
				Description("Maximum number of events in a batch. With a `rate`, a batch contains at most the events of a tenth of a second.").
				Default(100).
				Example(1000).
				LintRule(`root = if this < 1 || this > 100000 { "batch_size must be from 1 to 100000" }`),
		).
		LintRule(`
let shares = [ this.invalid.or(0), this.late.or(0), this.duplicated.or(0) ]
root = if $shares.all(s -> s >= 0 && s <= 1) && $shares.sum() > 1 { "invalid, late and duplicated are shares of the same events: together they must not be more than 1" }`).
		Example("A live demonstration", "Five events per second, with some faults, without end.", `
input:
  synthetic_shop:
    rate: 5
    customers: 200
    invalid: 0.02
    late: 0.02
    duplicated: 0.02
`).
		Example("The same million events every time", "As fast as the pipeline accepts them, for tests and measurements.", `
input:
  synthetic_shop:
    seed: 7
    start: 2026-01-01T00:00:00Z
    count: 1000000
    customers: 100000
    batch_size: 1000
`)
}

func init() {
	service.MustRegisterBatchInput("synthetic_shop", spec(),
		func(conf *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
			in, err := newInput(conf, time.Now)
			if err != nil {
				return nil, err
			}
			return service.AutoRetryNacksBatched(in), nil
		})
}

type input struct {
	settings shop.Settings
	// fixedStart: the start is set in the config, not the time of connecting.
	fixedStart bool
	count      int64
	batchSize  int

	now func() time.Time

	// State of ReadBatch, which one goroutine calls at a time.
	shop   *shop.Shop
	opened time.Time
	sent   int64
}

func newInput(conf *service.ParsedConfig, now func() time.Time) (*input, error) {
	in := &input{now: now}
	seed, err := conf.FieldInt(fieldSeed)
	if err != nil {
		return nil, err
	}
	in.settings.Seed = uint64(seed)
	start, err := conf.FieldString(fieldStart)
	if err != nil {
		return nil, err
	}
	if start != "" {
		if in.settings.Start, err = time.Parse(time.RFC3339Nano, start); err != nil {
			return nil, fmt.Errorf("%s must be a time in RFC 3339, such as 2026-01-01T00:00:00Z, or empty for now", fieldStart)
		}
		in.fixedStart = true
	}
	count, err := conf.FieldInt(fieldCount)
	if err != nil {
		return nil, err
	}
	if count < 0 {
		return nil, fmt.Errorf("%s is %d: write 0 for no end", fieldCount, count)
	}
	in.count = int64(count)
	if in.settings.Customers, err = conf.FieldInt(fieldCustomers); err != nil {
		return nil, err
	}
	for field, target := range map[string]*float64{
		fieldRate:        &in.settings.Rate,
		fieldDailyEvents: &in.settings.DailyEvents,
		fieldInvalid:     &in.settings.Invalid,
		fieldLate:        &in.settings.Late,
		fieldDuplicated:  &in.settings.Duplicated,
	} {
		if *target, err = conf.FieldFloat(field); err != nil {
			return nil, err
		}
	}
	if in.settings.MaxLateness, err = conf.FieldDuration(fieldMaxLateness); err != nil {
		return nil, err
	}
	if in.batchSize, err = conf.FieldInt(fieldBatchSize); err != nil {
		return nil, err
	}
	if in.batchSize < 1 {
		return nil, fmt.Errorf("%s is %d: it must be 1 or more", fieldBatchSize, in.batchSize)
	}
	// Invalid settings are an error before the pipeline runs.
	if err := in.effectiveSettings().Validate(); err != nil {
		return nil, err
	}
	return in, nil
}

// effectiveSettings returns the settings with the default of start filled in.
func (in *input) effectiveSettings() shop.Settings {
	settings := in.settings
	if !in.fixedStart {
		settings.Start = in.now().Truncate(time.Second)
	}
	return settings
}

func (in *input) Connect(context.Context) (err error) {
	if in.shop == nil {
		in.opened = in.now()
		in.shop, err = shop.New(in.effectiveSettings())
	}
	return err
}

func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	if in.shop == nil {
		return nil, nil, service.ErrNotConnected
	}
	size := int64(in.batchSize)
	if in.count > 0 {
		if size = min(size, in.count-in.sent); size <= 0 {
			return nil, nil, service.ErrEndOfInput
		}
	}
	if rate := in.settings.Rate; rate > 0 {
		size = min(size, max(1, int64(rate/10)))
		if err := in.waitFor(ctx, in.sent+size-1); err != nil {
			return nil, nil, err
		}
	} else if err := ctx.Err(); err != nil {
		return nil, nil, err
	}

	batch := make(service.MessageBatch, size)
	for i := range batch {
		event := in.shop.Next()
		batch[i] = service.NewMessage(event.Data)
		if event.Fault != shop.None {
			batch[i].MetaSetMut(faultMetadata, string(event.Fault))
		}
	}
	in.sent += size
	return batch, func(context.Context, error) error { return nil }, nil
}

// waitFor returns when event number n, counted from 0, is due.
func (in *input) waitFor(ctx context.Context, number int64) error {
	due := in.opened.Add(time.Duration(float64(number) / in.settings.Rate * float64(time.Second)))
	wait := due.Sub(in.now())
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (in *input) Close(context.Context) error { return nil }
