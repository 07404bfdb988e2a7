package validateevent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	"github.com/connect-personalize/connect-personalize/plugins/deadletter"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
)

const testPlan = `
name: test
version: 1.2.0
on_unplanned: %s
events:
  Strict: { properties: &schema { required: [total], additionalProperties: false, properties: { total: { type: number } } } }
  Coerced: { on_violation: [coerce, strip], properties: *schema }
  Passed: { on_violation: pass, properties: *schema }
`

func writePlan(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plan.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func track(event, properties string) string {
	return `{"type":"track","event":"` + event + `","properties":` + properties + `}`
}

// run sends one batch through the processors in a stream and returns the output, with
// an exporter that recorded the metrics.
func run(t *testing.T, processors string, batch ...*service.Message) (service.MessageBatch, *exporter) {
	t.Helper()
	metrics := newExporter()
	env := service.GlobalEnvironment().Clone()
	metrics.register(t, env)
	builder := env.NewStreamBuilder()
	require.NoError(t, builder.AddProcessorYAML("processors:\n"+processors))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	require.NoError(t, builder.SetMetricsYAML("seen: {}"))
	produce, err := builder.AddBatchProducerFunc()
	require.NoError(t, err)
	var out service.MessageBatch
	require.NoError(t, builder.AddBatchConsumerFunc(func(_ context.Context, b service.MessageBatch) error {
		out = append(out, b...)
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- stream.Run(ctx) }()
	require.NoError(t, produce(ctx, batch))
	require.NoError(t, stream.Stop(ctx))
	require.NoError(t, <-done)
	return out, metrics
}

func messages(contents ...string) service.MessageBatch {
	batch := make(service.MessageBatch, len(contents))
	for i, content := range contents {
		batch[i] = service.NewMessage([]byte(content))
	}
	return batch
}

func processors(plan string) string {
	return fmt.Sprintf(`
    - validate_event: { plan: %q }
    - switch:
        - check: '!errored()'
          processors:
            - mapping: 'root = this.merge({"changed":true})'
    - dead_letter: {}
`, plan)
}

func meta(msg *service.Message) map[string]string {
	m := map[string]string{}
	_ = msg.MetaWalk(func(key, value string) error {
		if strings.HasPrefix(key, "tracking_plan") {
			m[key] = value
		}
		return nil
	})
	return m
}

func content(t *testing.T, msg *service.Message) string {
	t.Helper()
	raw, err := msg.AsBytes()
	require.NoError(t, err)
	return string(raw)
}

// TestBatch sends every kind of event in one batch: no event affects another.
func TestBatch(t *testing.T) {
	failed := service.NewMessage([]byte("not even JSON"))
	failed.SetError(errors.New("an earlier stage"))
	batch := append(messages(
		track("Strict", `{"total":1}`),
		track("Strict", `{"total":"1"}`),
		"\xff poison {{{{",
		track("Coerced", `{"total":"12.50","x":1}`),
		track("Passed", `{"total":"1"}`),
		track("Nobody Planned", `{}`),
		track("Strict", `{"total":2}`),
	), failed)
	out, metrics := run(t, processors(writePlan(t, fmt.Sprintf(testPlan, "mark"))), batch...)
	require.Len(t, out, 8)

	require.JSONEq(t, `{"type":"track","event":"Strict","properties":{"total":1},"changed":true}`, content(t, out[0]))
	require.Empty(t, meta(out[0]))
	require.JSONEq(t, `{"type":"track","event":"Strict","properties":{"total":2},"changed":true}`, content(t, out[6]))

	letter, err := rejection.Decode([]byte(content(t, out[1])))
	require.NoError(t, err)
	require.Equal(t, "validate_event", letter.Stage)
	require.Equal(t, "test", letter.Plan)
	require.Equal(t, "1.2.0", letter.PlanVersion)
	require.Equal(t, []rejection.Reason{{Pointer: "/properties/total", Rule: "type", Message: "must be a number, not a string"}}, letter.Reasons)
	require.Equal(t, track("Strict", `{"total":"1"}`), string(letter.Original))

	letter, err = rejection.Decode([]byte(content(t, out[2])))
	require.NoError(t, err)
	require.Equal(t, []rejection.Reason{{Rule: "encoding", Message: "is not valid UTF-8 at byte 0"}}, letter.Reasons)
	require.Equal(t, "\xff poison {{{{", string(letter.Original))

	require.JSONEq(t, `{"type":"track","event":"Coerced","properties":{"total":12.50},"changed":true,"context":{"protocols":{"repaired":{
		"plan":"test","version":"1.2.0","coerced":[{"pointer":"/properties/total","from":"string","to":"number"}],"omitted":["/properties/x"]}}}}`, content(t, out[3]))
	require.Equal(t, map[string]string{
		"tracking_plan_status": "repaired",
		"tracking_plan_violations": `[{"pointer":"/properties","rule":"additionalProperties","message":"may not have \"x\""},` +
			`{"pointer":"/properties/total","rule":"type","message":"must be a number, not a string"}]`,
	}, meta(out[3]))

	require.JSONEq(t, `{"type":"track","event":"Passed","properties":{"total":"1"},"changed":true}`, content(t, out[4]))
	require.Equal(t, map[string]string{
		"tracking_plan_status":     "violation",
		"tracking_plan_violations": `[{"pointer":"/properties/total","rule":"type","message":"must be a number, not a string"}]`,
	}, meta(out[4]))

	require.Equal(t, map[string]string{"tracking_plan_status": "unplanned"}, meta(out[5]))

	letter, err = rejection.Decode([]byte(content(t, out[7])))
	require.NoError(t, err)
	require.Equal(t, "an earlier stage", letter.Reasons[0].Message)

	require.Equal(t, map[string]int64{
		"validate_event_events valid Strict":     2,
		"validate_event_events rejected Strict":  1,
		"validate_event_events rejected ":        1,
		"validate_event_events repaired Coerced": 1,
		"validate_event_events passed Passed":    1,
		"validate_event_events unplanned ":       1,
		"validate_event_plan test 1.2.0":         1,
	}, metrics.seen("validate_event"))
}

func TestUnplannedPolicies(t *testing.T) {
	for policy, want := range map[string]map[string]string{"mark": {"tracking_plan_status": "unplanned"}, "allow": {}} {
		out, metrics := run(t, processors(writePlan(t, fmt.Sprintf(testPlan, policy))), messages(track("Other", `{}`))...)
		require.Equal(t, want, meta(out[0]), policy)
		require.EqualValues(t, 1, metrics.seen("validate_event")["validate_event_events unplanned "])
	}
	out, _ := run(t, processors(writePlan(t, fmt.Sprintf(testPlan, "dead_letter"))), messages(track("Strct", `{}`))...)
	letter, err := rejection.Decode([]byte(content(t, out[0])))
	require.NoError(t, err)
	require.Equal(t, []rejection.Reason{{Pointer: "/event", Rule: "unplanned", Message: `the plan has no event of this name; the nearest it has is "Strict"`}}, letter.Reasons)
}

// TestDeadLetterHasTheOriginalEvent has a second plan reject an event that a first one
// repaired and a mapping changed: the dead letter has the original. A rejected event
// may be fixed and validated again. A malformed event has its own status, because any
// reading of it would be a guess.
func TestStatusIsThatOfTheLastValidation(t *testing.T) {
	plan := writePlan(t, fmt.Sprintf(testPlan, "mark"))
	check := "  - validate_event: { plan: " + plan + " }\n"
	mend := "  - catch: [ { mapping: 'root = if @tracking_plan_status == \"refused\" { this.assign({\"properties\": {\"total\": 1}}) }' } ]\n"
	batch := []string{
		track("Strict", `{"total":"x"}`), track("Strict", `{"total":1}`), track("Coerced", `{"total":"1"}`), track("Other", `{}`),
		`{"type":"track","event":"Strict","event":"Strict","properties":{"total":1}}`, `{"type":`,
	}
	out, _ := run(t, check, messages(batch...)...)
	again, _ := run(t, check+mend+check, messages(batch[0], batch[2], batch[3])...)
	status := func(msg *service.Message) string {
		s, _ := msg.MetaGet(statusMetadata)
		return s
	}
	for i, want := range []string{"refused", "", "repaired", "unplanned", "malformed", "malformed"} {
		require.Equal(t, want, status(out[i]), batch[i])
	}
	for i, want := range []string{"", "", "unplanned"} {
		require.NoError(t, again[i].GetError())
		require.Equal(t, want, status(again[i]))
	}
}

func TestDeadLetterHasTheOriginalEvent(t *testing.T) {
	first := writePlan(t, fmt.Sprintf(testPlan, "mark"))
	second := writePlan(t, "name: second\nversion: 1\nevents: { Coerced: { properties: { required: [nothing] } } }\n")
	arrived := track("Coerced", `{"total":"12.50"}`)
	out, _ := run(t, fmt.Sprintf(`
    - validate_event: { plan: %q }
    - mapping: 'root = this.without("type").assign({"type":"track","more":true})'
    - mutation: 'root.most = true'
    - validate_event: { plan: %q }
    - dead_letter: {}
`, first, second), messages(arrived)...)
	letter, err := rejection.Decode([]byte(content(t, out[0])))
	require.NoError(t, err)
	require.Equal(t, "second", letter.Plan)
	require.Equal(t, arrived, string(letter.Original))
}

// TestRepairKeepsTheOriginal: without keep_original only the originals of
// repaired events are kept.
func TestRepairKeepsTheOriginal(t *testing.T) {
	plan := writePlan(t, fmt.Sprintf(testPlan, "mark"))
	p := newTestProcessor(t, fmt.Sprintf("{ plan: %q, keep_original: false }", plan))
	arrived := []string{track("Coerced", `{"total":"12.50"}`), track("Coerced", `{"total":12.5}`)}
	out, err := p.ProcessBatch(context.Background(), messages(arrived...))
	require.NoError(t, err)
	repaired, valid := out[0][0], out[0][1]
	require.NotEqual(t, arrived[0], content(t, repaired))
	original, err := deadletter.Original(repaired)
	require.NoError(t, err)
	require.Equal(t, arrived[0], string(original))
	_, kept := valid.MetaGetImmut(deadletter.OriginalMetadata)
	require.False(t, kept)
}

// newTestProcessor returns a processor outside of a stream.
func newTestProcessor(t testing.TB, config string) *processor {
	t.Helper()
	conf, err := spec().ParseYAML(config, nil)
	require.NoError(t, err)
	p, err := newProcessor(conf, service.MockResources())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close(context.Background())) })
	return p
}

func TestHalfASurrogatePairBecomesTheReplacementCharacter(t *testing.T) {
	plan := writePlan(t, fmt.Sprintf(testPlan, "allow"))
	event := `{"type":"track","event":"Other","properties":{"a":"hi \ud83d","b":"\ud83d\ude00"}}`
	out, _ := run(t, "  - validate_event: { plan: "+plan+" }\n", service.NewMessage([]byte(event)))
	require.NoError(t, out[0].GetError())
	raw, err := out[0].AsBytes()
	require.NoError(t, err)
	require.Equal(t, `{"type":"track","event":"Other","properties":{"a":"hi \ufffd","b":"\ud83d\ude00"}}`, string(raw))
	original, err := deadletter.Original(out[0])
	require.NoError(t, err)
	require.Equal(t, event, string(original))
}

func TestValidEventsKeepTheirBytes(t *testing.T) {
	p := newTestProcessor(t, "plan: "+writePlan(t, fmt.Sprintf(testPlan, "mark")))
	for _, event := range []string{track("Strict", ` { "total" : 1.0 }`), track("Strict", `{"total":"1"}`), track("Passed", `{"total":"1"}`), track("Other", `{}`), "{"} {
		raw := []byte(event)
		msg := service.NewMessage(raw)
		out, err := p.ProcessBatch(t.Context(), service.MessageBatch{msg})
		require.NoError(t, err)
		got, err := out[0][0].AsBytes()
		require.NoError(t, err)
		require.Same(t, &raw[0], &got[0], "the very same bytes")
		require.Equal(t, event, string(got))
	}
}

func TestRejectionIsStructured(t *testing.T) {
	p := newTestProcessor(t, "{ plan: "+writePlan(t, fmt.Sprintf(testPlan, "mark"))+", max_depth: 3 }")
	out, err := p.ProcessBatch(t.Context(), messages(track("Strict", `{"total":[[1]]}`)))
	require.NoError(t, err)
	var rejected *rejection.Error
	require.ErrorAs(t, out[0][0].GetError(), &rejected)
	require.Equal(t, &rejection.Error{
		Stage: "validate_event", Plan: "test", PlanVersion: "1.2.0",
		Reasons: []rejection.Reason{{Rule: "depth", Message: "is nested more than 3 levels deep"}},
	}, rejected)
	require.Equal(t, "validate_event: is nested more than 3 levels deep", rejected.Error())
}

// TestReloadUsesOnlyValidPlans changes the plan during a running stream, to an invalid and to a valid
// one.
func TestReloadUsesOnlyValidPlans(t *testing.T) {
	plan := writePlan(t, "name: test\nversion: 1\nevents: { A: { properties: { required: [a] } } }\n")
	metrics := newExporter()
	env := service.GlobalEnvironment().Clone()
	metrics.register(t, env)
	builder := env.NewStreamBuilder()
	builder.SetThreads(1)
	require.NoError(t, builder.AddProcessorYAML(fmt.Sprintf("validate_event: { plan: %q, reload_interval: 1ms }", plan)))
	require.NoError(t, builder.AddProcessorYAML("dead_letter: {}"))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	require.NoError(t, builder.SetMetricsYAML("seen: {}"))
	produce, err := builder.AddProducerFunc()
	require.NoError(t, err)
	var got string
	require.NoError(t, builder.AddConsumerFunc(func(_ context.Context, msg *service.Message) error {
		raw, err := msg.AsBytes()
		got = string(raw)
		return err
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- stream.Run(ctx) }()
	version := func(properties string) string {
		event := track("A", properties)
		require.NoError(t, produce(ctx, service.NewMessage([]byte(event))))
		if got == event {
			return "valid"
		}
		letter, err := rejection.Decode([]byte(got))
		require.NoError(t, err)
		return "rejected by " + letter.PlanVersion
	}
	require.Equal(t, "valid", version(`{"a":1}`))

	require.NoError(t, os.WriteFile(plan, []byte("name: test\nversion: 2\nevents: { A: { propertees: {} } }\n"), 0o600))
	metrics.await(ctx, t, "validate_event_plan_reloads failed")
	require.Equal(t, "valid", version(`{"a":1}`))
	require.Equal(t, "rejected by 1", version(`{"b":1}`))

	require.NoError(t, os.WriteFile(plan, []byte("name: test\nversion: 3\nevents: { A: { properties: { required: [b] } } }\n"), 0o600))
	metrics.await(ctx, t, "validate_event_plan test 3")
	require.Equal(t, "rejected by 3", version(`{"a":1}`))
	require.Equal(t, "valid", version(`{"b":1}`))

	seen := metrics.seen("validate_event_plan")
	require.EqualValues(t, 0, seen["validate_event_plan test 1"])
	require.EqualValues(t, 1, seen["validate_event_plan test 3"])
	require.EqualValues(t, 1, seen["validate_event_plan_reloads ok"])
	require.NoError(t, stream.Stop(ctx))
	require.NoError(t, <-done)
}

// TestConcurrentReloadAndValidation is for the race detector.
func TestConcurrentReloadAndValidation(t *testing.T) {
	plan := writePlan(t, "name: test\nversion: 0\nevents: { A: { properties: { required: [a] } } }\n")
	p := newTestProcessor(t, "{ plan: "+plan+", reload_interval: 0s }")
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range 200 {
				out, err := p.ProcessBatch(t.Context(), messages(track("A", `{"a":"1"}`), track("A", `{}`)))
				if err != nil || out[0][0].GetError() != nil || out[0][1].GetError() == nil {
					t.Error("wrong")
					return
				}
			}
		})
	}
	for i := range 20 {
		require.NoError(t, os.WriteFile(plan, fmt.Appendf(nil, "name: test\nversion: %d\nevents: { A: { properties: { required: [a] } } }\n", i+1), 0o600))
		for range 2 {
			if ok, err := p.watcher.Check(); ok {
				p.reloaded(err)
			}
		}
	}
	workers.Wait()
	require.Equal(t, "20", p.watcher.Plan().Version)
}

func TestConfigLints(t *testing.T) {
	good := writePlan(t, fmt.Sprintf(testPlan, "mark"))
	bad := writePlan(t, "name: test\nversion: 1\nevents:\n  Order Completed:\n    propertys: {}\n    on_violation: drop\n")
	advised := writePlan(t, "name: test\nversion: 1\nevents:\n  A: { properties: { required: [line1, line2], properties: { line1: {} }, patternProperties: { \"^line[2-9]$\": {} } } }\n")
	require.NotEmpty(t, trackingplan.Lint(advised))
	linter := service.GlobalEnvironment().NewComponentConfigLinter()
	for config, want := range map[string][]string{
		"validate_event: { plan: " + good + " }":                         nil,
		"validate_event: { plan: " + good + ", reload_interval: 0s }":    nil,
		"validate_event: { plan: " + good + ", reload_interval: often }": {"reload_interval must be a duration such as 5s, or 0s to never reload"},
		"validate_event: { plan: " + good + ", max_depth: 1000 }":        {"max_depth must be from 1 to 256"},
		"validate_event: { plan: '' }":                                   {"plan must be the path of a tracking plan, such as ./configs/retail/plan.yaml"},
		"validate_event: { plan: none.yaml }":                            {"none.yaml:1: there is no such file; write the path of the plan, relative to the folder that connect-personalize runs in"},
		"validate_event: {}":                                             {"field plan is required"},
		"validate_event: { plan: " + advised + " }":                      nil, // advice does not stop a run
		"validate_event: { plan: " + bad + " }": {
			bad + `:5: event "Order Completed" has no "propertys"; did you mean "properties"?`,
			bad + `:6: on_violation: drop is not a policy; write dead_letter, pass, or the repairs coerce and strip with one of these after them, such as [coerce, pass]`,
		},
	} {
		lints, err := linter.LintProcessorYAML([]byte(config))
		require.NoError(t, err)
		var got []string
		for _, l := range lints {
			got = append(got, l.What)
		}
		require.Equal(t, want, got, config)
	}
}

func TestAnInvalidPlanPreventsTheStart(t *testing.T) {
	conf, err := spec().ParseYAML("plan: "+writePlan(t, "name: test\nversion: 1\n"), nil)
	require.NoError(t, err)
	_, err = newProcessor(conf, service.MockResources())
	require.ErrorContains(t, err, "plan.yaml:1: a plan needs events")
}

// exporter holds the last value of every metric, by name and labels.
type exporter struct {
	mu      sync.Mutex
	values  map[string]int64
	changed chan struct{}
}

func newExporter() *exporter {
	return &exporter{values: map[string]int64{}, changed: make(chan struct{})}
}

func (e *exporter) register(t *testing.T, env *service.Environment) {
	require.NoError(t, env.RegisterMetricsExporter("seen", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Logger) (service.MetricsExporter, error) { return e, nil }))
}

func (e *exporter) update(key string, change func(int64) int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.values[key] = change(e.values[key])
	close(e.changed)
	e.changed = make(chan struct{})
}

// seen returns the metrics with a prefix in their name.
func (e *exporter) seen(prefix string) map[string]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := map[string]int64{}
	for key, value := range e.values {
		if strings.HasPrefix(key, prefix) {
			found[key] = value
		}
	}
	return found
}

// await waits until a metric is above 0.
func (e *exporter) await(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	for {
		e.mu.Lock()
		value, changed := e.values[key], e.changed
		e.mu.Unlock()
		if value > 0 {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.FailNow(t, "the metric did not come", key)
		}
	}
}

type metric struct {
	e   *exporter
	key string
}

func (m metric) Incr(n int64)                   { m.e.update(m.key, func(old int64) int64 { return old + n }) }
func (m metric) Decr(n int64)                   { m.Incr(-n) }
func (m metric) Set(n int64)                    { m.e.update(m.key, func(int64) int64 { return n }) }
func (metric) Timing(int64)                     {}
func (e *exporter) Close(context.Context) error { return nil }

func (e *exporter) key(name string, values []string) metric {
	return metric{e, strings.Join(append([]string{name}, values...), " ")}
}

// Labels of the stream, such as its path, precede those of the metric; the number of
// labels in its definition distinguishes them.

func (e *exporter) NewCounterCtor(name string, _ ...string) service.MetricsExporterCounterCtor {
	return func(values ...string) service.MetricsExporterCounter { return e.key(name, own(name, values)) }
}

func (e *exporter) NewTimerCtor(name string, _ ...string) service.MetricsExporterTimerCtor {
	return func(values ...string) service.MetricsExporterTimer { return e.key(name, values) }
}

func (e *exporter) NewGaugeCtor(name string, _ ...string) service.MetricsExporterGaugeCtor {
	return func(values ...string) service.MetricsExporterGauge { return e.key(name, own(name, values)) }
}

func own(name string, values []string) []string {
	n := map[string]int{"validate_event_events": 2, "validate_event_plan": 2, "validate_event_plan_reloads": 1}[name]
	if n > len(values) {
		panic(name + " has fewer labels than documented")
	}
	return values[len(values)-n:]
}

// TestViolationsMetadataIsJSON checks that a mapping can read the metadata.
func TestViolationsMetadataIsJSON(t *testing.T) {
	p := newTestProcessor(t, "plan: "+writePlan(t, fmt.Sprintf(testPlan, "mark")))
	out, err := p.ProcessBatch(t.Context(), messages(track("Passed", `{"<\"&>":1}`)))
	require.NoError(t, err)
	text, ok := out[0][0].MetaGet(violationsMetadata)
	require.True(t, ok)
	var reasons []rejection.Reason
	require.NoError(t, json.Unmarshal([]byte(text), &reasons))
	require.Equal(t, `may not have "<\"&>"`, reasons[0].Message)
}
