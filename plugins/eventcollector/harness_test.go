package eventcollector

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	_ "github.com/connect-personalize/connect-personalize/plugins/deadletter"
)

// patience bounds the wait for an expected effect. No test waits for it to pass.
const patience = 20 * time.Second

// pipeline is a running stream with the input under test.
type pipeline struct {
	t      testing.TB
	url    string
	stream *service.Stream
	client *http.Client
	log    *logRecorder
	meters *meters
	ended  chan error // the end of the stream

	mu       sync.Mutex
	batches  []service.MessageBatch
	consumed chan struct{}
}

type options struct {
	// input is the config of event_collector; address is set to a free port.
	input string
	// consume is the output; the default acknowledges every batch.
	consume func(service.MessageBatch) error
	// output replaces the consumer.
	output     string
	processors []string
	client     *http.Client
}

const twoKeys = `
write_keys:
  - { key: web-key, source: web }
  - { key: server-key, source: server, server_side: true }
`

func start(t testing.TB, o options) *pipeline {
	t.Helper()
	p := &pipeline{
		t: t, client: o.client, log: &logRecorder{}, meters: &meters{values: map[string]int64{}},
		ended: make(chan error, 1), consumed: make(chan struct{}, 1000),
	}
	if p.client == nil {
		p.client = &http.Client{Transport: &http.Transport{}, Timeout: patience}
	}
	env := service.GlobalEnvironment().Clone()
	require.NoError(t, env.RegisterMetricsExporter("test_meters", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Logger) (service.MetricsExporter, error) { return p.meters, nil }))
	builder := env.NewStreamBuilder()
	builder.SetLogger(slog.New(p.log))
	require.NoError(t, builder.SetMetricsYAML("test_meters: {}"))
	input := "event_collector:\n  address: 127.0.0.1:0\n"
	for line := range strings.Lines(o.input) {
		input += "  " + line
	}
	require.NoError(t, builder.AddInputYAML(input))
	for _, processor := range o.processors {
		require.NoError(t, builder.AddProcessorYAML(processor))
	}
	if o.output != "" {
		require.NoError(t, builder.AddOutputYAML(o.output))
	} else {
		consume := o.consume
		require.NoError(t, builder.AddBatchConsumerFunc(func(_ context.Context, batch service.MessageBatch) error {
			p.mu.Lock()
			p.batches = append(p.batches, batch)
			p.mu.Unlock()
			p.consumed <- struct{}{}
			if consume != nil {
				return consume(batch)
			}
			return nil
		}))
	}
	stream, err := builder.Build()
	require.NoError(t, err)
	p.stream = stream
	go func() { p.ended <- stream.Run(context.Background()) }()
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		_ = stream.StopWithin(patience)
	})
	p.url = p.log.await(t, regexp.MustCompile(`Listening on (https?://\S+)`))[1]
	return p
}

// delivered waits until n batches have reached the output, and returns all.
func (p *pipeline) delivered(n int) []service.MessageBatch {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		batches := append([]service.MessageBatch(nil), p.batches...)
		p.mu.Unlock()
		if len(batches) >= n {
			return batches
		}
		select {
		case <-p.consumed:
		case <-deadline:
			require.FailNow(p.t, "not consumed in time", "%d of %d batches", len(batches), n)
		}
	}
}

// events returns the messages that reached the output, decoded.
func (p *pipeline) events(batches int) (events []map[string]any) {
	p.t.Helper()
	for _, batch := range p.delivered(batches) {
		for _, msg := range batch {
			data, err := msg.AsBytes()
			require.NoError(p.t, err)
			var event map[string]any
			require.NoError(p.t, json.Unmarshal(data, &event), "%q", data)
			events = append(events, event)
		}
	}
	return events
}

type response struct {
	status int
	header http.Header
	body   string
}

func (a response) code() string {
	var body struct {
		Success bool `json:"success"`
		Error   struct {
			Code, Message string
		} `json:"error"`
	}
	if json.Unmarshal([]byte(a.body), &body) != nil || body.Success || body.Error.Message == "" {
		return "not an error body: " + a.body
	}
	return body.Error.Code
}

// request returns a POST with the web key, changed by edits.
func (p *pipeline) request(path, body string, edits ...func(*http.Request)) *http.Request {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, p.url+path, strings.NewReader(body))
	require.NoError(p.t, err)
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth("web-key", "")
	for _, edit := range edits {
		edit(req)
	}
	return req
}

func (p *pipeline) try(req *http.Request) (response, error) {
	resp, err := p.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(body)}, err
}

func (p *pipeline) do(req *http.Request) response {
	p.t.Helper()
	a, err := p.try(req)
	require.NoError(p.t, err)
	return a
}

func (p *pipeline) post(path, body string, edits ...func(*http.Request)) response {
	p.t.Helper()
	return p.do(p.request(path, body, edits...))
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func without(name string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Del(name) }
}

func method(name string) func(*http.Request) {
	return func(r *http.Request) { r.Method = name }
}

func key(k string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(k, "") }
}

// logRecorder records log lines for tests to wait for.
type logRecorder struct {
	mu    sync.Mutex
	lines []string
}

func (l *logRecorder) Enabled(context.Context, slog.Level) bool { return true }
func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logRecorder) WithGroup(string) slog.Handler            { return l }

func (l *logRecorder) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r.Message)
	return nil
}

func (l *logRecorder) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func (l *logRecorder) await(t testing.TB, line *regexp.Regexp) (match []string) {
	t.Helper()
	require.Eventually(t, func() bool {
		match = line.FindStringSubmatch(l.text())
		return match != nil
	}, patience, time.Millisecond, "%v in the log", line)
	return match
}

// meters is a metrics exporter that records values.
type meters struct {
	mu     sync.Mutex
	values map[string]int64
}

type meter struct {
	m    *meters
	name string
}

func (m meter) Incr(n int64) { m.m.change(m.name, func(v int64) int64 { return v + n }) }
func (m meter) Set(n int64)  { m.m.change(m.name, func(int64) int64 { return n }) }
func (m meter) Timing(int64) {}

func (m *meters) change(name string, to func(int64) int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = to(m.values[name])
}

func (m *meters) get(name string, labels ...string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[fmt.Sprint(name, labels)]
}

// await waits until a metric has a value.
func (m *meters) await(t testing.TB, want int64, name string, labels ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return m.get(name, labels...) == want }, patience, time.Millisecond,
		"%s %v is not %d", name, labels, want)
}

// metric returns the constructor of a metric. It drops the labels that the engine
// adds, such as the path of the component.
func (m *meters) metric(name string, keys []string) func(labels ...string) meter {
	return func(labels ...string) meter {
		kept := []string{}
		for i, key := range keys {
			switch key {
			case "label", "path", "stream":
			default:
				kept = append(kept, labels[i])
			}
		}
		return meter{m, fmt.Sprint(name, kept)}
	}
}

func (m *meters) NewCounterCtor(name string, keys ...string) service.MetricsExporterCounterCtor {
	labelled := m.metric(name, keys)
	return func(labels ...string) service.MetricsExporterCounter { return labelled(labels...) }
}

func (m *meters) NewTimerCtor(name string, keys ...string) service.MetricsExporterTimerCtor {
	labelled := m.metric(name, keys)
	return func(labels ...string) service.MetricsExporterTimer { return labelled(labels...) }
}

func (m *meters) NewGaugeCtor(name string, keys ...string) service.MetricsExporterGaugeCtor {
	labelled := m.metric(name, keys)
	return func(labels ...string) service.MetricsExporterGauge { return labelled(labels...) }
}

func (m *meters) Close(context.Context) error { return nil }
