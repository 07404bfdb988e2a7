package expect

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
)

const orders = `
name: shop
expectations:
  - name: orders_have_a_total
    events: [Order Completed]
    row_condition: this.properties.currency == "EUR"
    expect_column_values_to_be_between: { column: properties.total, min_value: 0, max_value: 100, mostly: 0.9 }
  - expect_table_row_count_to_be_between: { min_value: 1 }
`

func writeFile(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// clock is a settable time.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func newTestProcessor(t *testing.T, c *clock, config string) *processor {
	conf, err := spec().ParseYAML(config, nil)
	require.NoError(t, err)
	p, err := newProcessor(conf, service.MockResources(), c.now)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close(context.Background())) })
	return p
}

func order(total any) *service.Message {
	return service.NewMessage(fmt.Appendf(nil, `{"type":"track","event":"Order Completed","properties":{"total":%v,"currency":"EUR"}}`, total))
}

func reportOf(t *testing.T, msg *service.Message) (r expectations.Report) {
	raw, err := msg.AsBytes()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &r))
	return r
}

func TestReportFollowsTheBatchThatEndsTheWindow(t *testing.T) {
	c := newClock()
	file := filepath.Join(t.TempDir(), "quality.jsonl")
	p := newTestProcessor(t, c, `{ suite: "`+writeFile(t, "suite.yaml", orders)+`", window: 1h, report: "`+file+`", emit: true }`)

	failed := service.NewMessage([]byte(`not a row`))
	failed.SetError(fmt.Errorf("refused before"))
	in := service.MessageBatch{order(50), order(500), service.NewMessage([]byte(`{"type":"page"}`)), failed}
	out, err := p.ProcessBatch(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, []service.MessageBatch{in}, out)

	c.advance(time.Hour)
	next := service.MessageBatch{order(7)}
	require.Eventually(t, func() bool { // the ticker may have ended the window first
		out, err = p.ProcessBatch(t.Context(), next)
		require.NoError(t, err)
		return len(out) == 2
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, next, out[0])
	require.Len(t, out[1], 1)
	name, ok := out[1][0].MetaGet(suiteMetadata)
	require.True(t, ok)
	require.Equal(t, "shop", name)
	r := reportOf(t, out[1][0])
	require.EqualValues(t, 3, r.Rows, "messages with an error are no rows")
	require.Zero(t, r.NotJSON)
	require.False(t, r.Success)
	require.Len(t, r.Failed(), 1)
	require.Equal(t, "orders_have_a_total", r.Failed()[0].Name)
	require.EqualValues(t, 1, *r.Failed()[0].Unexpected)

	written, err := os.ReadFile(file)
	require.NoError(t, err)
	raw, err := out[1][0].AsBytes()
	require.NoError(t, err)
	require.Equal(t, string(raw)+"\n", string(written))
	require.NotContains(t, string(written), "500", "a report holds no values of rows")
}

// The report of a window that ends without a message goes to the file at once,
// and is emitted with the next batch.
func TestReportOfASilentWindow(t *testing.T) {
	c := newClock()
	file := filepath.Join(t.TempDir(), "quality.jsonl")
	p := newTestProcessor(t, c, `{ suite: "`+writeFile(t, "suite.yaml", orders)+`", window: 100ms, report: "`+file+`", emit: true }`)
	c.advance(100 * time.Millisecond)
	require.Eventually(t, func() bool {
		written, _ := os.ReadFile(file)
		return strings.Contains(string(written), "expect_table_row_count_to_be_between")
	}, 10*time.Second, time.Millisecond)
	var out []service.MessageBatch
	require.Eventually(t, func() bool {
		var err error
		out, err = p.ProcessBatch(t.Context(), service.MessageBatch{order(7)})
		require.NoError(t, err)
		return len(out) == 2
	}, 10*time.Second, time.Millisecond)
	r := reportOf(t, out[1][0])
	require.Zero(t, r.Rows)
	require.False(t, r.Success, "no rows at all are fewer than one")
}

func TestOnFailureStopBlocksTheStream(t *testing.T) {
	c := newClock()
	p := newTestProcessor(t, c, `{ suite: "`+writeFile(t, "suite.yaml", orders)+`", window: 1h, on_failure: stop }`)
	_, err := p.ProcessBatch(t.Context(), service.MessageBatch{order(500)})
	require.NoError(t, err)
	c.advance(time.Hour)
	_, err = p.ProcessBatch(t.Context(), service.MessageBatch{order(1)})
	require.NoError(t, err, "what ends the window has passed")
	<-p.failed
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := p.ProcessBatch(ctx, service.MessageBatch{order(2)})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a message passed: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled, "nothing is acknowledged")
}

func TestReportsAreRoutedInAPipeline(t *testing.T) {
	suite := writeFile(t, "suite.yaml", orders)
	events := writeFile(t, "events.jsonl", strings.Repeat(`{"type":"track","event":"Order Completed","properties":{"total":5,"currency":"EUR"}}`+"\n", 250)+"not JSON\n")
	dir := t.TempDir()
	b := service.NewStreamBuilder()
	require.NoError(t, b.SetYAML(`
input:
  broker:
    inputs: [ { file: { paths: [ "`+events+`" ] } } ]
    batching: { count: 100, period: 50ms }
pipeline:
  threads: 2
  processors:
    - expect: { suite: "`+suite+`", window: 24h, report: "`+filepath.Join(dir, "quality.jsonl")+`" }
output:
  file: { path: "`+filepath.Join(dir, "out.jsonl")+`", codec: lines }
logger: { level: none }
`))
	stream, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, stream.Run(t.Context()))
	in, err := os.ReadFile(events)
	require.NoError(t, err)
	out, err := os.ReadFile(filepath.Join(dir, "out.jsonl"))
	require.NoError(t, err)
	require.Equal(t, strings.Count(string(in), "\n"), strings.Count(string(out), "\n"))
	line, err := os.ReadFile(filepath.Join(dir, "quality.jsonl"))
	require.NoError(t, err)
	var r expectations.Report
	require.NoError(t, json.Unmarshal(line, &r))
	require.EqualValues(t, 250, r.Rows)
	require.EqualValues(t, 1, r.NotJSON)
	require.True(t, r.Partial && r.Success)
}

func TestLintOfTheProcessor(t *testing.T) {
	linter := service.GlobalEnvironment().NewComponentConfigLinter()
	for config, want := range map[string]string{
		`expect: { suite: ./none.yaml }`:                                                           "relative to the folder",
		`expect: { suite: "` + writeFile(t, "suite.yaml", orders) + `", window: 0s }`:              "longer than zero",
		`expect: { suite: "` + writeFile(t, "suite.yaml", orders) + `", on_failure: panic }`:       "not a valid option",
		`expect: { suite: "` + writeFile(t, "bad.yaml", "name: x\nexpectations: [ {} ]\n") + `" }`: "bad.yaml:2",
	} {
		lints, err := linter.LintProcessorYAML([]byte(config))
		require.NoError(t, err)
		require.NotEmpty(t, lints, config)
		var all []string
		for _, l := range lints {
			all = append(all, l.What)
		}
		require.Contains(t, strings.Join(all, "\n"), want)
	}
	lints, err := linter.LintProcessorYAML([]byte(`expect: { suite: "` + writeFile(t, "suite.yaml", orders) + `" }`))
	require.NoError(t, err)
	require.Empty(t, lints)
}
