package profilechanges_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	_ "github.com/connect-personalize/connect-personalize/plugins/profilechanges"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

const definition = `
features:
  - { name: orders, count: { events: [Order Completed] } }
segments:
  - { name: buyer, when: 'features.orders > 0' }
`

// TestChangesAreDelivered updates a profile: the input emits the change with the
// customer id, and repeats the same bytes after an error of the output.
func TestChangesAreDelivered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile.yaml")
	require.NoError(t, os.WriteFile(path, []byte(definition), 0o600))
	env := service.GlobalEnvironment()
	builder := env.NewStreamBuilder()
	builder.SetSchema(env.FullConfigSchema("", ""))
	require.NoError(t, builder.SetYAML(`
logger: { level: none }
http: { enabled: false }
profiles:
  - label: shop
    definition: `+path+`
    store: { embedded: { path: ":memory:" } }
input: { profile_changes: { profiles: shop, sweep_interval: "" } }
`))
	var mu sync.Mutex
	var seen []string
	arrived := make(chan *service.Message, 10)
	require.NoError(t, builder.AddBatchConsumerFunc(func(_ context.Context, batch service.MessageBatch) error {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range batch {
			raw, err := m.AsBytes()
			if err != nil {
				return err
			}
			seen = append(seen, string(raw))
		}
		if len(seen) == 1 {
			return errors.New("refused")
		}
		for _, m := range batch {
			arrived <- m.DeepCopy()
		}
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()

	p, err := profiles.Get(stream.Resources(), "shop")
	require.NoError(t, err)
	_, err = p.Update(ctx, [][]byte{[]byte(`{"type":"track","event":"Order Completed","messageId":"m1","userId":"u1","timestamp":"2026-01-02T03:04:05.000Z","properties":{}}`)})
	require.NoError(t, err)
	var m *service.Message
	select {
	case m = <-arrived:
	case <-ctx.Done():
		t.Fatal("nothing was delivered")
	}
	require.Len(t, seen, 2)
	require.Equal(t, seen[0], seen[1])
	customer, _ := m.MetaGet("customer_id")
	require.Equal(t, "u1", customer)
	var change map[string]any
	require.NoError(t, json.Unmarshal([]byte(seen[1]), &change), seen[1])
	require.Equal(t, "track", change["type"])
	require.Equal(t, "Segment Entered", change["event"])
	require.Equal(t, "u1", change["userId"])
	require.Len(t, change["messageId"], 32)
	properties := change["properties"].(map[string]any)
	require.Equal(t, change["timestamp"], properties["since"])
	delete(properties, "since")
	require.Equal(t, map[string]any{"segment": "buyer", "old": false, "new": true, "reason": "event", "event_id": "m1"}, properties)
	require.NoError(t, stream.Stop(ctx))
	<-ended
}

func TestInvalidConfigsAreRejected(t *testing.T) {
	for conf, want := range map[string]string{
		`{ profiles: "" }`:                          "profiles must be the label",
		`{ profiles: shop, batch_size: 0 }`:         "batch_size must be from 1 to 10000",
		`{ profiles: shop, lease: 1ms }`:            "lease is 1ms; write at least 1s",
		`{ profiles: shop, sweep_interval: 1ms }`:   "sweep_interval is 1ms; write at least 1s",
		`{ profiles: nobody }`:                      "top-level field profiles",
		`{ profiles: shop, poll_interval: 0s }`:     "poll_interval is 0s; write at least 1ms",
		`{ profiles: shop, sweep_interval: often }`: "often",
	} {
		env := service.GlobalEnvironment()
		builder := env.NewStreamBuilder()
		builder.SetSchema(env.FullConfigSchema("", ""))
		err := builder.SetYAML("logger: { level: none }\nhttp: { enabled: false }\nprofiles: [{ label: shop, definition: ../../configs/retail/profile.yaml, store: { embedded: { path: ':memory:' } } }]\ninput: { profile_changes: " + conf + " }\noutput: { drop: {} }\n")
		if err == nil {
			var stream *service.Stream
			if stream, err = builder.Build(); err == nil {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				err = stream.Run(ctx)
				cancel()
			}
		}
		require.ErrorContains(t, err, want, conf)
	}
}
