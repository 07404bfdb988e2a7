// Package syntheticshop is the synthetic_shop input: a made-up shop's events,
// for trying pipelines out, testing and measuring them.
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

	// FaultMetadata is the metadata key that labels events with something
	// wrong. Events without a fault do not have it.
	FaultMetadata = "synthetic_fault"
)

func shareLint(field string) string {
	return `root = if this < 0 || this > 1 { "` + field + ` is a share of all events: write a number from 0 to 1, such as 0.02 for one event in fifty" }`
}

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Utility").
		Summary("Makes up a shop and sends the events of its customers, the same ones whenever it is asked the same way.").
		Description(`
The events are in Segment's e-commerce and email vocabulary, complete as the `+"`event_collector`"+` makes them: `+"`page`, `identify`"+`, Products Searched, Product Viewed, Product Added, Product Removed, Cart Viewed, Checkout Started, Order Completed, Email Delivered, Email Opened, Email Link Clicked and Unsubscribed, from the sources `+"`web`, `mobile`, `pos` and `crm`"+`.

Visitors arrive with an `+"`anonymousId`"+` only; some sign in, buy, get mail and come back by its links. A few customers cause most events: the lower the number of a `+"`userId`, from `u-000001`"+` on, the more active its customer. People are awake in their own time zones. The catalogue has 204 products in 12 categories, sold in US dollars. Nobody in it exists.

The same settings give the same events to the byte, on every machine. Only the default of `+"`start`"+` depends on the clock: set it where events must be the same again. Another `+"`start`"+` gives the same customers, but new message and order ids, so that a shop which is opened again is not taken for a replay.

Events with something wrong carry what it is in the metadata `+"`"+FaultMetadata+"`"+`: `+"`late`, `duplicate`"+`, `+"`unknown_event`"+`, or the kind of invalid event, such as `+"`broken_json` or `negative_total`"+`. Late and duplicate events are valid; whether unknown ones are is for the tracking plan to say. The other events do not have that metadata.

When events are not accepted they are sent again.`).
		Fields(
			service.NewIntField(fieldSeed).
				Description("Chooses the shop: its customers and what they do.").
				Default(1).
				Example(42),
			service.NewStringField(fieldStart).
				Description("When the first event is received, in RFC 3339. Empty means the present, cut to the whole second. The events go on from there; with a `rate` and a start in the past they are sent at that rate, with their times in the past.").
				Default("").
				Example("2026-01-01T00:00:00Z").
				LintRule(`root = if this != "" && !this.string().re_match("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$") { "start must be a time in RFC 3339, such as 2026-01-01T00:00:00Z, or empty for the present" }`),
			service.NewFloatField(fieldRate).
				Description("Events a second. Zero sends as fast as the pipeline takes them, at times that follow from `customers`, `daily_events` and the time of day.").
				Default(0).
				Example(5).Example(2000).
				LintRule(`root = if this < 0 || this > 1000000000 { "rate is in events a second: write 0 for as fast as possible, or a number up to 1000000000" }`),
			service.NewIntField(fieldCount).
				Description("How many events there are, those with something wrong included. Zero never ends.").
				Default(0).
				Example(100000).
				LintRule(`root = if this < 0 { "count is a number of events: write 0 for no end" }`),
			service.NewIntField(fieldCustomers).
				Description("How many customers the shop has. Each takes four bytes of memory.").
				Default(10_000).
				Example(1_000_000).
				LintRule(`root = if this < 1 || this > 100000000 { "customers must be from 1 to 100000000" }`),
			service.NewFloatField(fieldDailyEvents).
				Description("How many events the average customer causes in a day, when `rate` is zero. It decides how far apart the events are in time, not how fast they are sent.").
				Default(20).
				Example(5).
				Advanced().
				LintRule(`root = if this <= 0 || this > 100000 { "daily_events must be more than 0 and at most 100000" }`),
			service.NewFloatField(fieldInvalid).
				Description("The share of events that a tracking plan should reject, of fourteen kinds: broken JSON, missing members, wrong types, unknown events and so on.").
				Default(0).
				Example(0.01).
				LintRule(shareLint(fieldInvalid)),
			service.NewFloatField(fieldLate).
				Description("The share of events that are received late, after others that happened later.").
				Default(0).
				Example(0.02).
				LintRule(shareLint(fieldLate)),
			service.NewDurationField(fieldMaxLateness).
				Description("How late a late event is, at most.").
				Default("1h").
				Example("24h"),
			service.NewFloatField(fieldDuplicated).
				Description("The share of events that were sent shortly before already, the same to the byte.").
				Default(0).
				Example(0.01).
				LintRule(shareLint(fieldDuplicated)),
			service.NewIntField(fieldBatchSize).
				Description("The most events in a batch. With a `rate`, a batch has what is due in a tenth of a second, if that is less.").
				Default(100).
				Example(1000).
				LintRule(`root = if this < 1 || this > 100000 { "batch_size must be from 1 to 100000" }`),
		).
		LintRule(`
let shares = [ this.invalid.or(0), this.late.or(0), this.duplicated.or(0) ]
root = if $shares.all(s -> s >= 0 && s <= 1) && $shares.sum() > 1 { "invalid, late and duplicated are shares of the same events: together they must not be more than 1" }`).
		Example("A live demonstration", "Five events a second, now, with some trouble in them, for as long as it runs.", `
input:
  synthetic_shop:
    rate: 5
    customers: 200
    invalid: 0.02
    late: 0.02
    duplicated: 0.02
`).
		Example("The same million events every time", "As fast as the pipeline takes them, for tests and measurements.", `
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
	// anchored: the start was set, and is not the time of connecting.
	anchored  bool
	count     int64
	batchSize int

	now func() time.Time

	// Of the running shop; used by ReadBatch, which is called by one
	// goroutine at a time.
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
			return nil, fmt.Errorf("%s must be a time in RFC 3339, such as 2026-01-01T00:00:00Z, or empty for the present", fieldStart)
		}
		in.anchored = true
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
	// Wrong settings are told of before anything runs.
	if err := in.present().Check(); err != nil {
		return nil, err
	}
	return in, nil
}

// present is the settings with the start there is now.
func (in *input) present() shop.Settings {
	settings := in.settings
	if !in.anchored {
		settings.Start = in.now().Truncate(time.Second)
	}
	return settings
}

func (in *input) Connect(context.Context) (err error) {
	if in.shop == nil {
		in.opened = in.now()
		in.shop, err = shop.New(in.present())
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
			batch[i].MetaSetMut(FaultMetadata, string(event.Fault))
		}
	}
	in.sent += size
	return batch, func(context.Context, error) error { return nil }, nil
}

// waitFor returns when the event of this number, from zero, is due.
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
