package enrich_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	_ "github.com/connect-personalize/connect-personalize/plugins/enrich"
)

// pipeline is a running stream with a function to send batches to it.
type pipeline struct {
	t    testing.TB
	send service.MessageBatchHandlerFunc
	out  chan service.MessageBatch
	stop func()
}

// start runs a stream. yaml may define resources in addition to processors.
func start(t testing.TB, yaml string) *pipeline {
	t.Helper()
	builder := service.NewStreamBuilder()
	require.NoError(t, builder.SetYAML(indent(yaml)+`
logger: { level: none }
http: { enabled: false }
input: { generate: { mapping: 'root = deleted()', interval: 1h } }
output: { drop: {} }
`))
	p := &pipeline{t: t, out: make(chan service.MessageBatch, 100)}
	var err error
	p.send, err = builder.AddBatchProducerFunc()
	require.NoError(t, err)
	require.NoError(t, builder.AddBatchConsumerFunc(func(_ context.Context, batch service.MessageBatch) error {
		p.out <- batch
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	var once sync.Once
	p.stop = func() {
		once.Do(func() {
			_ = stream.Stop(ctx)
			cancel()
			<-ended
		})
	}
	t.Cleanup(p.stop)
	return p
}

// indent replaces tabs, so that configs can be indented like the code around them.
func indent(yaml string) string { return strings.ReplaceAll(yaml, "\t", "  ") }

// run sends a batch and returns the output batch.
func (p *pipeline) run(events ...string) service.MessageBatch {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	batch := make(service.MessageBatch, len(events))
	for i, e := range events {
		batch[i] = service.NewMessage([]byte(e))
	}
	require.NoError(p.t, p.send(ctx, batch))
	return <-p.out
}

func text(t testing.TB, msg *service.Message) string {
	t.Helper()
	raw, err := msg.AsBytes()
	require.NoError(t, err)
	return string(raw)
}

// texts returns the contents of messages and fails the test if one has an error.
func texts(t testing.TB, batch service.MessageBatch) (out []string) {
	t.Helper()
	for _, msg := range batch {
		require.NoError(t, msg.GetError())
		out = append(out, text(t, msg))
	}
	return out
}

// viewed returns an event about a product; an empty sku omits the product.
func viewed(id, sku string) string {
	properties := `{}`
	if sku != "" {
		properties = fmt.Sprintf(`{"sku":%q}`, sku)
	}
	return fmt.Sprintf(`{"type":"track","event":"Product Viewed","messageId":%q,"userId":"u1","timestamp":"2026-01-02T03:04:05.000Z","properties":%s}`, id, properties)
}

// with returns the event of viewed after the enrichment product.
func with(id, sku, value string) string {
	e := viewed(id, sku)
	return e[:len(e)-1] + `,"context":{"enrichment":{"product":` + value + `}}}`
}

func marked(id, sku, status string) string {
	e := viewed(id, sku)
	return e[:len(e)-1] + `,"context":{"enrichment_status":{"product":"` + status + `"}}}`
}

func write(t testing.TB, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func serve(t testing.TB, handler http.HandlerFunc) (url string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}
