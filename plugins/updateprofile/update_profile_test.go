package updateprofile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
	_ "github.com/connect-personalize/connect-personalize/plugins/updateprofile"
)

const resources = `
logger: { level: none }
http: { enabled: false }
profiles:
  - label: shop
    definition: ../../configs/retail/profile.yaml
    store: { embedded: { path: ":memory:" } }
`

// idle are an input that gives nothing and an output that takes everything,
// beside the functions of the tests.
const idle = `
input: { generate: { mapping: 'root = deleted()', interval: 1h } }
output: { drop: {} }
`

// run sends batches through a pipeline and returns what comes out, and the
// profile of u1 once everything is through.
func run(t *testing.T, processors string, batches ...[]string) (out []*service.Message, profile string) {
	env := service.GlobalEnvironment()
	builder := env.NewStreamBuilder()
	builder.SetSchema(env.FullConfigSchema("", ""))
	require.NoError(t, builder.SetYAML(resources+idle+"pipeline:\n  threads: 1\n  processors:\n"+processors))
	send, err := builder.AddBatchProducerFunc()
	require.NoError(t, err)
	var mu sync.Mutex
	require.NoError(t, builder.AddBatchConsumerFunc(func(_ context.Context, batch service.MessageBatch) error {
		mu.Lock()
		defer mu.Unlock()
		out = append(out, batch...)
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		err := stream.Run(ctx)
		if err != nil && ctx.Err() == nil {
			cancel()
		}
		ended <- err
	}()
	for _, texts := range batches {
		var batch service.MessageBatch
		for _, text := range texts {
			batch = append(batch, service.NewMessage([]byte(text)))
		}
		if err := send(ctx, batch); err != nil {
			require.NoError(t, errors.Join(err, <-ended))
		}
	}
	p, err := profiles.Get(stream.Resources(), "shop")
	require.NoError(t, err)
	results, err := p.Read(ctx, []string{"u1"}, customers.Query{Fields: []string{"features.orders", "features.revenue"}})
	require.NoError(t, err)
	require.NoError(t, stream.Stop(ctx))
	<-ended
	return out, string(results[0].JSON)
}

func order(id string, total any) string {
	return fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":%q,"userId":"u1","timestamp":"2026-01-02T03:04:05.000Z","properties":{"total":%v}}`, id, total)
}

func TestPoisonEventDoesNotAffectOthers(t *testing.T) {
	events := []string{order("m1", 10.1), `{"type":`, order("m2", 5.2), strings.Replace(order("m3", 1), "u1", "null", 1), order("m1", 10.1)}
	out, profile := run(t, "    - update_profile: { profiles: shop }\n", events)
	require.Len(t, out, len(events))
	for i, msg := range out {
		raw, err := msg.AsBytes()
		require.NoError(t, err)
		require.Equal(t, events[i], string(raw), "events pass unchanged")
		var rejection *rejection.Error
		if i == 1 || i == 3 {
			require.ErrorAs(t, msg.GetError(), &rejection)
			require.Equal(t, "update_profile", rejection.Stage)
			require.NotContains(t, rejection.Error(), "u1")
		} else {
			require.NoError(t, msg.GetError())
		}
	}
	require.Contains(t, profile, `"features":{"orders":2,"revenue":15.3}`)
}

func TestFailedEventsPassUntouched(t *testing.T) {
	out, profile := run(t, `
    - mapping: 'root = if this.messageId == "m1" { throw("no good") }'
    - update_profile: { profiles: shop }
`, []string{order("m1", 1), order("m2", 2)})
	require.ErrorContains(t, out[0].GetError(), "no good")
	require.NoError(t, out[1].GetError())
	require.Contains(t, profile, `"features":{"orders":1,"revenue":2}`)
}

func TestUnknownLabelIsAnError(t *testing.T) {
	env := service.GlobalEnvironment()
	builder := env.NewStreamBuilder()
	builder.SetSchema(env.FullConfigSchema("", ""))
	require.NoError(t, builder.SetYAML(resources+idle+"pipeline: { processors: [ { update_profile: { profiles: shoop } } ] }\n"))
	stream, err := builder.Build()
	if err == nil {
		err = stream.Run(context.Background())
	}
	require.ErrorContains(t, err, "shoop")
	require.ErrorContains(t, err, "add an item with this label")
	require.False(t, errors.Is(err, context.Canceled))
}
