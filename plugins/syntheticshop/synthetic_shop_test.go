package syntheticshop

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
)

// received records the messages at the output of a stream.
type received struct {
	mu      sync.Mutex
	batches []int
	events  [][]byte
	faults  []string
}

func (r *received) add(_ context.Context, batch service.MessageBatch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, len(batch))
	for _, msg := range batch {
		raw, err := msg.AsBytes()
		if err != nil {
			return err
		}
		fault, _ := msg.MetaGet(faultMetadata)
		r.events = append(r.events, raw)
		r.faults = append(r.faults, fault)
	}
	return nil
}

// run runs the input to its end.
func run(t *testing.T, yaml string, handle service.MessageBatchHandlerFunc) {
	t.Helper()
	builder := service.NewStreamBuilder()
	require.NoError(t, builder.AddInputYAML("synthetic_shop:\n"+yaml))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	require.NoError(t, builder.AddBatchConsumerFunc(handle))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, stream.Run(ctx))
}

func TestStreamHasTheShopsEventsInOrder(t *testing.T) {
	var got received
	run(t, `
  seed: 9
  start: 2026-03-01T12:00:00+01:00
  count: 2050
  customers: 50
  daily_events: 30
  invalid: 0.1
  late: 0.1
  max_lateness: 30m
  duplicated: 0.1
  batch_size: 100
`, got.add)

	want, err := shop.New(shop.Settings{
		Seed: 9, Start: time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC), Customers: 50, DailyEvents: 30,
		Invalid: 0.1, Late: 0.1, Duplicated: 0.1, MaxLateness: 30 * time.Minute,
	})
	require.NoError(t, err)
	require.Len(t, got.events, 2050)
	require.Len(t, got.batches, 21)
	require.Equal(t, 100, got.batches[0])
	require.Equal(t, 50, got.batches[20])
	for i := range got.events {
		event := want.Next()
		require.Equal(t, string(event.Data), string(got.events[i]))
		require.Equal(t, string(event.Fault), got.faults[i])
	}
}

func TestNackedBatchesAreSentAgain(t *testing.T) {
	const settings = "  start: 2026-03-01T12:00:00Z\n  count: 500\n  batch_size: 50\n"
	var clean, got received
	run(t, settings, clean.add)

	var mu sync.Mutex
	refused := map[string]bool{}
	run(t, settings, func(ctx context.Context, batch service.MessageBatch) error {
		first, _ := batch[0].AsBytes()
		mu.Lock()
		again := refused[string(first)]
		refused[string(first)] = true
		mu.Unlock()
		if !again {
			return errors.New("not now")
		}
		return got.add(ctx, batch)
	})
	require.Len(t, refused, 10)
	require.ElementsMatch(t, clean.events, got.events)
}

func TestDefaultStartIsNow(t *testing.T) {
	before := time.Now().Truncate(time.Second)
	var got received
	run(t, "  count: 1\n", got.add)
	require.Len(t, got.events, 1)
	_, rest, found := bytes.Cut(got.events[0], []byte(`"receivedAt":"`))
	require.True(t, found)
	start, err := time.Parse(time.RFC3339, string(rest[:24]))
	require.NoError(t, err)
	require.False(t, start.Before(before))
	require.False(t, start.After(time.Now()))
	require.Zero(t, start.Nanosecond())
}

// parsed returns the input without the retry wrapper, with the clock of the test.
func parsed(t *testing.T, yaml string, now func() time.Time) *input {
	t.Helper()
	conf, err := spec().ParseYAML(yaml, nil)
	require.NoError(t, err)
	in, err := newInput(conf, now)
	require.NoError(t, err)
	return in
}

func TestRateSendsDueEvents(t *testing.T) {
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	in := parsed(t, "rate: 1000\ncount: 1030\nbatch_size: 400", func() time.Time { return clock })
	ctx := context.Background()
	_, _, err := in.ReadBatch(ctx)
	require.ErrorIs(t, err, service.ErrNotConnected)
	require.NoError(t, in.Connect(ctx))

	// Only the first event is due yet, and a batch covers a tenth of a second.
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err = in.ReadBatch(stopped)
	require.ErrorIs(t, err, context.Canceled)

	clock = clock.Add(time.Minute)
	var sizes []int
	for {
		batch, ack, err := in.ReadBatch(ctx)
		if errors.Is(err, service.ErrEndOfInput) {
			break
		}
		require.NoError(t, err)
		require.NoError(t, ack(ctx, nil))
		sizes = append(sizes, len(batch))
	}
	require.Equal(t, []int{100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 30}, sizes)
	_, _, err = in.ReadBatch(ctx)
	require.ErrorIs(t, err, service.ErrEndOfInput)
	require.NoError(t, in.Close(ctx))
}

func TestSlowRateStopsWithoutDelay(t *testing.T) {
	builder := service.NewStreamBuilder()
	require.NoError(t, builder.AddInputYAML("synthetic_shop:\n  rate: 0.0001\n"))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	arrived := make(chan struct{}, 10)
	require.NoError(t, builder.AddConsumerFunc(func(context.Context, *service.Message) error {
		arrived <- struct{}{}
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- stream.Run(ctx) }()
	<-arrived
	// The next event is hours away.
	require.NoError(t, stream.Stop(ctx))
	require.NoError(t, <-done)
	require.Empty(t, arrived)
}

func TestInvalidSettingsAreErrorsAtStart(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"invalid: 1.5", "write a number from 0 to 1"},
		{"late: -1", "write a number from 0 to 1"},
		{"invalid: 0.5\n  late: 0.4\n  duplicated: 0.2", "together they must not be more than 1"},
		{"start: tomorrow", "must be a time in RFC 3339"},
		{"rate: -1", "events per second"},
		{"count: -1", "write 0 for no end"},
		{"customers: 0", "from 1 to"},
		{"daily_events: 0", "more than 0"},
		{"batch_size: 0", "from 1 to"},
		{"late: 0.1\n  max_lateness: 1ms", "1s or more"},
		{"start: 1970-01-01T00:00:00Z", "after 1970"},
	} {
		t.Run(c.yaml, func(t *testing.T) {
			builder := service.NewStreamBuilder()
			err := builder.AddInputYAML("synthetic_shop:\n  " + c.yaml + "\n")
			if err == nil {
				require.NoError(t, builder.AddConsumerFunc(func(context.Context, *service.Message) error { return nil }))
				require.NoError(t, builder.SetLoggerYAML("level: none"))
				var stream *service.Stream
				if stream, err = builder.Build(); err == nil {
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					defer cancel()
					err = stream.Run(ctx)
				}
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestEventsWithoutFaultHaveNoMetadata(t *testing.T) {
	in := parsed(t, "start: 2026-01-01T00:00:00Z\ncount: 100", time.Now)
	require.NoError(t, in.Connect(context.Background()))
	batch, _, err := in.ReadBatch(context.Background())
	require.NoError(t, err)
	for _, msg := range batch {
		_, labelled := msg.MetaGet(faultMetadata)
		require.False(t, labelled)
	}
}

func TestDescriptionNamesEverySource(t *testing.T) {
	var got received
	run(t, "  start: 2026-01-01T00:00:00Z\n  count: 20000\n  customers: 300\n", got.add)
	all := string(bytes.Join(got.events, []byte("\n")))
	for _, source := range []string{"web", "mobile", "pos", "crm"} {
		require.True(t, strings.Contains(all, `"source":"`+source+`"`), source)
	}
}
