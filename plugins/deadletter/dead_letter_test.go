package deadletter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/deadletter"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// poison rejects every event that contains the word, as a stage of this
// distribution does: it keeps the original and sets a *rejection.Error.
type poison struct{ wrap bool }

func (p poison) ProcessBatch(_ context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	out := make(service.MessageBatch, len(batch))
	for i, msg := range batch {
		if msg.GetError() != nil {
			out[i] = msg
			continue
		}
		out[i] = deadletter.KeepOriginal(msg)
		raw, _ := msg.AsBytes()
		if !bytes.Contains(raw, []byte("poison")) {
			continue
		}
		var err error = &rejection.Error{
			Stage: "poison", Plan: "retail", PlanVersion: "7",
			Reasons: []rejection.Reason{
				{Pointer: "/word", Rule: "not", Message: "must be another word"},
				{Rule: "required", Message: "needs an id"},
			},
		}
		if p.wrap {
			err = fmt.Errorf("somewhere: %w", err)
		}
		out[i].SetError(err)
	}
	return []service.MessageBatch{out}, nil
}

func (poison) Close(context.Context) error { return nil }

func environment(t *testing.T) *service.Environment {
	t.Helper()
	env := service.GlobalEnvironment().Clone()
	for name, p := range map[string]poison{"poison": {}, "poison_wrapped": {wrap: true}} {
		require.NoError(t, env.RegisterBatchProcessor(name, service.NewConfigSpec(),
			func(*service.ParsedConfig, *service.Resources) (service.BatchProcessor, error) { return p, nil }))
	}
	return env
}

// run sends the batch through a stream and returns the error of the producer.
func run(t *testing.T, yaml string, batch ...string) error {
	t.Helper()
	return runIn(t, environment(t), yaml, batch...)
}

func runIn(t *testing.T, env *service.Environment, yaml string, batch ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	builder := env.NewStreamBuilder()
	require.NoError(t, builder.SetYAML(yaml))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	produce, err := builder.AddBatchProducerFunc()
	require.NoError(t, err)
	stream, err := builder.Build()
	require.NoError(t, err)

	done := make(chan error, 1)
	go func() { done <- stream.Run(ctx) }()
	messages := make(service.MessageBatch, len(batch))
	for i, content := range batch {
		messages[i] = service.NewMessage([]byte(content))
	}
	produced := produce(ctx, messages)
	require.NoError(t, stream.Stop(ctx))
	require.NoError(t, <-done)
	return produced
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	return strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
}

func letters(t *testing.T, path string) []*rejection.Envelope {
	t.Helper()
	var out []*rejection.Envelope
	for _, line := range lines(t, path) {
		letter, err := rejection.Decode([]byte(line))
		require.NoError(t, err, line)
		out = append(out, letter)
	}
	return out
}

// outputs is the output section of the documentation: failed events to one
// file by way of dead_letter, the rest to another.
func outputs(dir string) string {
	return `
output:
  switch:
    cases:
      - check: errored()
        output:
          file:
            path: ` + dir + `/dead.jsonl
            codec: lines
          processors:
            - dead_letter: {}
      - output:
          file:
            path: ` + dir + `/good.jsonl
            codec: lines
`
}

func TestFailedEventsBecomeDeadLettersAndOthersPassUnchanged(t *testing.T) {
	for _, processor := range []string{"poison", "poison_wrapped"} {
		t.Run(processor, func(t *testing.T) {
			dir := t.TempDir()
			good, bad := `{"n": 1, "source":"web"}`, `{"word":"poison", "source":"web","receivedAt":"2026-01-31T11:59:59.000Z"}`
			before := time.Now().UTC().Truncate(time.Millisecond)
			require.NoError(t, run(t, "pipeline:\n  processors:\n    - "+processor+": {}\n"+outputs(dir), bad, good, bad))

			require.Equal(t, []string{good}, lines(t, dir+"/good.jsonl"))
			dead := letters(t, dir+"/dead.jsonl")
			require.Len(t, dead, 2)
			require.Equal(t, dead[0].ID, dead[1].ID)
			letter := dead[0]
			require.False(t, letter.RejectedAt.Before(before))
			require.False(t, letter.RejectedAt.After(time.Now()))
			require.Equal(t, &rejection.Envelope{
				ID: rejection.ID("poison", []byte(bad)), Stage: "poison", Plan: "retail", PlanVersion: "7",
				Reasons: []rejection.Reason{
					{Pointer: "/word", Rule: "not", Message: "must be another word"},
					{Rule: "required", Message: "needs an id"},
				},
				Source: "web", ReceivedAt: "2026-01-31T11:59:59.000Z",
				RejectedAt: letter.RejectedAt, Attempt: 1, Original: []byte(bad),
			}, letter)
		})
	}
}

func TestTheOriginalSurvivesLaterStages(t *testing.T) {
	dir := t.TempDir()
	arrived := `{"word" : "ok",  "n":1}`
	require.NoError(t, run(t, `
pipeline:
  processors:
    - poison: {}
    - mapping: 'root.word = "poison"'
    - mapping: |
        root = this
        meta source = "till"
        meta received_at = "2026-01-31T00:00:00Z"
    - poison: {}
`+outputs(dir), arrived))

	dead := letters(t, dir+"/dead.jsonl")
	require.Len(t, dead, 1)
	require.Equal(t, arrived, string(dead[0].Original))
	require.Equal(t, "till", dead[0].Source)
	require.Equal(t, "2026-01-31T00:00:00Z", dead[0].ReceivedAt)
}

func TestOriginalStoredByAMapping(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run(t, `
pipeline:
  processors:
    - mapping: |
        meta original_event = content()
        root.word = "poison"
    - poison: {}
`+outputs(dir), "a line"))

	dead := letters(t, dir+"/dead.jsonl")
	require.Len(t, dead, 1)
	require.Equal(t, "a line", string(dead[0].Original))
}

func TestNonTextEventsHaveNoProvenance(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run(t, "pipeline:\n  processors:\n    - poison: {}\n"+outputs(dir), `{"word":"poison","source":"w`+"\xff"+`eb"}`))
	dead := letters(t, dir+"/dead.jsonl")
	require.Len(t, dead, 1)
	require.Empty(t, dead[0].Source)
}

func TestErrorsOfOtherComponentsHaveTheComponentAsStage(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run(t, "pipeline:\n  processors:\n    - mapping: 'root.n = this.n.number()'\n"+outputs(dir), "\xff{"))

	dead := letters(t, dir+"/dead.jsonl")
	require.Len(t, dead, 1)
	require.Equal(t, "mapping", dead[0].Stage)
	require.Len(t, dead[0].Reasons, 1)
	require.Equal(t, "error", dead[0].Reasons[0].Rule)
	require.Contains(t, dead[0].Reasons[0].Message, "this.n")
	require.Equal(t, "\xff{", string(dead[0].Original))
	require.Empty(t, dead[0].Source)
}

func TestGuardedStockProcessorsKeepTheFirstReason(t *testing.T) {
	dir := t.TempDir()
	bad := `{"word":"poison`
	require.NoError(t, run(t, `
pipeline:
  processors:
    - poison: {}
    - switch:
        - check: '!errored()'
          processors:
            - mapping: 'root.n = this.n + 1'
`+outputs(dir), bad, `{"n":1}`))

	require.Equal(t, []string{`{"n":2}`}, lines(t, dir+"/good.jsonl"))
	dead := letters(t, dir+"/dead.jsonl")
	require.Len(t, dead, 1)
	require.Equal(t, "poison", dead[0].Stage)
	require.Equal(t, bad, string(dead[0].Original))
}

func TestDeadLettersInFallbackOfRejectErrored(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run(t, `
pipeline:
  processors:
    - poison: {}
output:
  fallback:
    - reject_errored:
        file:
          path: `+dir+`/good.jsonl
          codec: lines
    - file:
        path: `+dir+`/dead.jsonl
        codec: lines
      processors:
        - dead_letter: {}
`, `{"n":1}`, `{"word":"poison"}`, `{"n":2}`))

	require.Equal(t, []string{`{"n":1}`, `{"n":2}`}, lines(t, dir+"/good.jsonl"))
	dead := letters(t, dir+"/dead.jsonl")
	require.Len(t, dead, 1)
	require.Equal(t, "poison", dead[0].Stage)
	require.Equal(t, `{"word":"poison"}`, string(dead[0].Original))
}

func TestInputIsNotAcknowledgedIfADeadLetterCannotBeWritten(t *testing.T) {
	err := run(t, `
pipeline:
  processors:
    - poison: {}
output:
  switch:
    cases:
      - check: errored()
        output:
          reject: no room for dead letters
          processors:
            - dead_letter: {}
      - output:
          drop: {}
`, `{"n":1}`, `{"word":"poison"}`)
	require.ErrorContains(t, err, "no room for dead letters")
}

func TestReplayRestoresTheEventAndCountsAttempts(t *testing.T) {
	const replay = `
    - mapping: |
        root = this.original | this.original_base64.decode("base64")
        meta dead_letter_attempt = this.attempt
`
	for _, original := range []string{`{"word":"poison"} `, "poison \xff\x00\"", "poison \x00 \\u0000 \u2028"} {
		first, second := t.TempDir(), t.TempDir()
		require.NoError(t, run(t, "pipeline:\n  processors:\n    - poison: {}\n"+outputs(first), original))
		require.Len(t, lines(t, first+"/dead.jsonl"), 1)

		require.NoError(t, run(t, "pipeline:\n  processors:"+replay+"    - poison: {}\n"+outputs(second), lines(t, first+"/dead.jsonl")...))
		dead := letters(t, second+"/dead.jsonl")
		require.Len(t, dead, 1)
		require.Equal(t, original, string(dead[0].Original))
		require.Equal(t, 2, dead[0].Attempt)
		require.Equal(t, letters(t, first+"/dead.jsonl")[0].ID, dead[0].ID)

		restored := filepath.Join(t.TempDir(), "restored")
		require.NoError(t, run(t, "pipeline:\n  processors:"+replay+"output:\n  file:\n    path: "+restored+"\n    codec: all-bytes\n", lines(t, first+"/dead.jsonl")...))
		raw, err := os.ReadFile(restored)
		require.NoError(t, err)
		require.Equal(t, original, string(raw))
	}
}

func TestInvalidAttemptsCountAsFirst(t *testing.T) {
	for _, attempt := range []string{`"many"`, `-4`, `"99999999999999999999"`, `1.5`} {
		dir := t.TempDir()
		require.NoError(t, run(t, "pipeline:\n  processors:\n    - mapping: 'meta dead_letter_attempt = "+attempt+"'\n    - poison: {}\n"+outputs(dir), "poison"))
		require.Equal(t, 1, letters(t, dir+"/dead.jsonl")[0].Attempt)
	}
}

func TestRejectionWithoutReasonsGetsOne(t *testing.T) {
	builder := service.NewStreamBuilder()
	require.NoError(t, builder.AddProcessorYAML("dead_letter: {}"))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	produce, err := builder.AddProducerFunc()
	require.NoError(t, err)
	var content []byte
	var failure error
	require.NoError(t, builder.AddConsumerFunc(func(_ context.Context, msg *service.Message) (err error) {
		failure = msg.GetError()
		content, err = msg.AsBytes()
		return err
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- stream.Run(ctx) }()

	for _, cause := range []error{&rejection.Error{}, errors.New("broke")} {
		msg := service.NewMessage([]byte("x"))
		msg.SetError(cause)
		require.NoError(t, produce(ctx, msg))
		require.NoError(t, failure, "outputs take messages without an error only")
		letter, err := rejection.Decode(content)
		require.NoError(t, err)
		require.Equal(t, "unknown", letter.Stage)
		require.Equal(t, []rejection.Reason{{Rule: "error", Message: cause.Error()}}, letter.Reasons)
	}
	require.NoError(t, stream.Stop(ctx))
	require.NoError(t, <-done)
}

// counts is a metrics exporter that keeps the counter it is asked about.
type counts struct {
	name string
	mu   sync.Mutex
	by   map[string]int64
}

type counter func(int64)

func (c counter) Incr(n int64)          { c(n) }
func (c counter) IncrFloat64(n float64) { c(int64(n)) }

type ignored struct{}

func (ignored) Timing(int64)       {}
func (ignored) Set(int64)          {}
func (ignored) SetFloat64(float64) {}

func (c *counts) NewCounterCtor(name string, labels ...string) service.MetricsExporterCounterCtor {
	return func(values ...string) service.MetricsExporterCounter {
		return counter(func(n int64) {
			if name == c.name {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.by[values[slices.Index(labels, "stage")]+" "+values[slices.Index(labels, "rule")]] += n
			}
		})
	}
}

func (*counts) NewTimerCtor(string, ...string) service.MetricsExporterTimerCtor {
	return func(...string) service.MetricsExporterTimer { return ignored{} }
}

func (*counts) NewGaugeCtor(string, ...string) service.MetricsExporterGaugeCtor {
	return func(...string) service.MetricsExporterGauge { return ignored{} }
}

func (*counts) Close(context.Context) error { return nil }

func TestDeadLettersAreCountedByStageAndFirstRule(t *testing.T) {
	exporter := &counts{name: "dead_letters", by: map[string]int64{}}
	env := environment(t)
	require.NoError(t, env.RegisterMetricsExporter("counts", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Logger) (service.MetricsExporter, error) { return exporter, nil }))
	require.NoError(t, runIn(t, env, `
metrics:
  counts: {}
pipeline:
  processors:
    - poison: {}
    - switch:
        - check: '!errored()'
          processors:
            - mapping: 'root = this'
`+outputs(t.TempDir()), `"poison"`, `"fine"`, `"poison"`, `{`))
	exporter.mu.Lock()
	defer exporter.mu.Unlock()
	require.Equal(t, map[string]int64{"poison not": 2, "mapping error": 1}, exporter.by)
}

func TestOriginalMetadataIsReadableInBloblang(t *testing.T) {
	msg := deadletter.KeepOriginal(service.NewMessage([]byte("as it came")))
	msg.SetBytes([]byte("changed"))
	require.Same(t, msg, deadletter.KeepOriginal(msg))
	exe, err := bloblang.Parse(`root = @original_event.string()`)
	require.NoError(t, err)
	out, err := msg.BloblangQuery(exe)
	require.NoError(t, err)
	raw, err := out.AsBytes()
	require.NoError(t, err)
	require.Equal(t, "as it came", string(raw))

	original, err := deadletter.Original(msg.Copy())
	require.NoError(t, err)
	require.Equal(t, "as it came", string(original))
}

func BenchmarkKeepOriginal(b *testing.B) {
	raw := bytes.Repeat([]byte("x"), 500)
	b.ReportAllocs()
	for b.Loop() {
		deadletter.KeepOriginal(service.NewMessage(raw))
	}
}
