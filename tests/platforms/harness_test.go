// Package platforms runs the shipped configs for email platforms against
// servers that implement only what the platforms document: request shapes, limits,
// credentials, and failures.
package platforms

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	_ "github.com/connect-personalize/connect-personalize/plugins/all"
)

// patience is the maximum wait of a test.
const patience = 60 * time.Second

// pipeline is a shipped config with the test's own input and dead letters.
type pipeline struct {
	changes chan []string // batches of events
	log     *logBuffer

	mu      sync.Mutex
	letters []letter
	acked   int // batches
	nacked  []error
	stop    func()
}

// letter is a dead letter.
type letter struct {
	ID      string
	Stage   string
	Reasons []struct{ Rule, Message string }
	// Original is the original event.
	Original string
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var variable = regexp.MustCompile(`\$\{(\w+)(?::([^}]*))?\}`)

// expand replaces environment variables in a config, as Connect does.
func expand(text string, env map[string]string) string {
	return variable.ReplaceAllStringFunc(text, func(v string) string {
		m := variable.FindStringSubmatch(v)
		if value, ok := env[m[1]]; ok {
			return value
		}
		return m[2]
	})
}

// config reads a shipped config and replaces its input, its profiles, its dead letters
// and its delays.
func config(t testing.TB, file string, env map[string]string, change func(push map[string]any)) map[string]any {
	t.Helper()
	raw, err := os.ReadFile("../../configs/platforms/" + file)
	require.NoError(t, err)
	var doc map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(expand(string(raw), env)), &doc))
	for _, field := range []string{"http", "metrics", "tests"} {
		delete(doc, field)
	}
	resource := doc["profiles"].([]any)[0].(map[string]any)
	resource["definition"] = "../../configs/retail/profile.yaml"
	resource["store"] = map[string]any{"embedded": map[string]any{"path": t.TempDir()}}
	doc["input"] = map[string]any{"test_changes": map[string]any{}}
	// The changes are events that create the profiles.
	doc["pipeline"] = map[string]any{"threads": 1, "processors": []any{
		map[string]any{"update_profile": map[string]any{"profiles": "retail"}},
	}}
	push := doc["output"].(map[string]any)["profile_api"].(map[string]any)
	letters := push["dead_letters"].(map[string]any)
	delete(letters, "kafka_topic")
	letters["test_letters"] = map[string]any{}
	push["timeout"] = "400ms"
	push["retries"] = map[string]any{"initial_interval": "5ms", "max_interval": "50ms"}
	push["circuit"] = map[string]any{"probe_interval": "5ms", "max_probe_interval": "50ms"}
	if change != nil {
		change(push)
	}
	return doc
}

// start runs a config until the test ends.
func start(t testing.TB, doc map[string]any) *pipeline {
	t.Helper()
	p := &pipeline{changes: make(chan []string), log: &logBuffer{}}
	env := service.GlobalEnvironment().Clone()
	require.NoError(t, env.RegisterBatchInput("test_changes", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Resources) (service.BatchInput, error) {
			return &changesInput{p: p, idle: make(chan struct{}, 1)}, nil
		}))
	require.NoError(t, env.RegisterBatchOutput("test_letters", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
			return lettersOutput{p}, service.BatchPolicy{}, 1, nil
		}))
	text, err := yaml.Marshal(doc)
	require.NoError(t, err)
	builder := env.NewStreamBuilder()
	builder.SetSchema(env.FullConfigSchema("", ""))
	builder.SetLogger(slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	require.NoError(t, builder.SetYAML(string(text)))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		require.NoError(t, stream.StopWithin(patience))
	})
	t.Cleanup(p.stop)
	return p
}

// send sends batches to the pipeline, one after the other like a partition of a topic,
// and returns when all are acknowledged.
func (p *pipeline) send(t testing.TB, batches ...[]string) {
	t.Helper()
	deadline := time.After(patience)
	before := p.acknowledged()
	for _, batch := range batches {
		select {
		case p.changes <- batch:
		case <-deadline:
			t.Fatalf("a batch was not taken:\n%s", p.log)
		}
	}
	for p.acknowledged() < before+len(batches) {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("batches were not acknowledged:\n%s", p.log)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(t, p.nacked)
}

func (p *pipeline) acknowledged() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}

func (p *pipeline) deadLetters() []letter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]letter(nil), p.letters...)
}

// changesInput has one batch in flight, like a partition.
type changesInput struct {
	p    *pipeline
	idle chan struct{}
}

func (in *changesInput) Connect(context.Context) error {
	in.idle <- struct{}{}
	return nil
}

func (in *changesInput) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	select {
	case <-in.idle:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	select {
	case events := <-in.p.changes:
		var batch service.MessageBatch
		for _, e := range events {
			batch = append(batch, service.NewMessage([]byte(e)))
		}
		return batch, func(_ context.Context, err error) error {
			in.p.mu.Lock()
			defer in.p.mu.Unlock()
			if in.p.acked++; err != nil {
				in.p.nacked = append(in.p.nacked, err)
			}
			in.idle <- struct{}{}
			return nil
		}, nil
	case <-ctx.Done():
		in.idle <- struct{}{}
		return nil, nil, ctx.Err()
	}
}

func (in *changesInput) Close(context.Context) error { return nil }

type lettersOutput struct{ p *pipeline }

func (lettersOutput) Connect(context.Context) error { return nil }

func (out lettersOutput) WriteBatch(_ context.Context, batch service.MessageBatch) error {
	out.p.mu.Lock()
	defer out.p.mu.Unlock()
	for _, msg := range batch {
		raw, err := msg.AsBytes()
		if err != nil {
			return err
		}
		var l letter
		if err := json.Unmarshal(raw, &l); err != nil || l.ID == "" {
			return fmt.Errorf("no dead letter: %s", raw)
		}
		out.p.letters = append(out.p.letters, l)
	}
	return nil
}

func (lettersOutput) Close(context.Context) error { return nil }
