// Package expect is the `expect` processor, which evaluates a data-quality suite
// over the windows of a stream.
package expect

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
	"github.com/connect-personalize/connect-personalize/plugins/expectationsuite"
)

const (
	fieldSuite     = "suite"
	fieldWindow    = "window"
	fieldClock     = "clock"
	fieldLateness  = "lateness"
	fieldReport    = "report"
	fieldEmit      = "emit"
	fieldOnFailure = "on_failure"

	onFailureAlert = "alert"
	onFailureStop  = "stop"
)

// suiteMetadata is the metadata key of report messages; its value is the suite.
const suiteMetadata = "expectation_suite"

const lintFunction = "lint_expectation_suite"

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Personalization").
		Summary("Evaluates a suite of data-quality expectations over the windows of a stream.").
		Description(`
Messages pass unchanged. The suite is a separate file that uses the names of Great Expectations: see the [suite file](expectation_suite.md), and `+"`connect-personalize suggest-suite`"+`, which proposes one from data. At the end of a window the suite is evaluated, and a report is published:

`+"```json"+`
{"suite":"shop","from":"2026-01-31T08:00:00Z","to":"2026-01-31T08:05:00Z","success":false,"rows":15012,
 "late_rows":0,"undated_rows":0,"malformed_rows":0,
 "results":[{"name":"orders_have_a_total","expectation_type":"expect_column_values_to_be_between","column":"properties.total",
   "success":false,"observed_value":null,"element_count":311,"missing_count":0,"unexpected_count":12,"unexpected_percent":3.86}]}
`+"```"+`

A report contains aggregates, never a value of a single row. An expectation without values is met, and its `+"`observed_value`"+` is null. Messages with an error are not rows.

Reports are published to:

- `+"`report`"+`, a file with one line per report, rotated at 50 MB with three backups;
- the log, as a warning with the names of the failed expectations;
- the metrics: the counter `+"`expect_results`"+` by `+"`suite`, `expectation` and `result`"+` (met, failed), the gauge `+"`expect_suite_met`"+` by `+"`suite`"+` (1 or 0), and the counter `+"`expect_rows`"+` by `+"`suite` and `kind`"+` (judged, late, undated, malformed);
- with `+"`emit: true`"+`, messages with the metadata `+"`expectation_suite`"+`, in a separate batch after the batch that ended the window. If a window ends without a message, its report message is sent with the next batch; the other publications do not wait.

The state of a window is in memory: a killed process loses its current window, and each of several processes evaluates the rows it receives. The first and the last window of a process are `+"`partial`"+`, and do not fail for too few rows. Events that are delivered twice count twice.

With `+"`on_failure: stop`"+` a failed suite stops the stream: no further message passes or is acknowledged until the process is restarted. The messages of the failed window have passed already.`).
		Fields(
			service.NewStringField(fieldSuite).
				Description("The path of the suite file.").
				Example("./configs/retail/expectations.yaml").
				LintRule(`root = `+lintFunction+`(this)`),
			service.NewDurationField(fieldWindow).
				Description("Length of a window. Windows begin at multiples of it.").
				Default("5m").
				Example("1h").
				LintRule(`root = if !this.string().re_match("^[^-]*[1-9]") { [ "window must be longer than zero, such as 5m" ] }`),
			service.NewStringField(fieldClock).
				Description("The path of a row's event time in RFC 3339, such as `timestamp`, which determines its window. Empty means processing time, which suits live streams, because a silent stream is detected too. Event time suits replayed streams.").
				Default("").
				Example("timestamp"),
			service.NewDurationField(fieldLateness).
				Description("With `clock`, how long a window stays open after its end for late rows. Rows after that are counted as late.").
				Default("1m").
				Example("15m"),
			service.NewStringField(fieldReport).
				Description("The file to which reports are appended, one line each. Empty means no file.").
				Default("").
				Example("./data/quality.jsonl"),
			service.NewBoolField(fieldEmit).
				Description("Whether reports are also emitted as messages. Route them by `meta(\"expectation_suite\") != null`.").
				Default(false),
			service.NewStringAnnotatedEnumField(fieldOnFailure, map[string]string{
				onFailureAlert: "publish the report",
				onFailureStop:  "publish the report, and stop the stream until the process is restarted",
			}).Description("The action when a suite is not met.").Default(onFailureAlert),
		).
		Example("Detect drift within minutes", "A warning in the log and a line in the report file when the distribution of orders changes; reports also go to a topic.", `
pipeline:
  processors:
    - validate_event:
        plan: ./configs/retail/plan.yaml
    - expect:
        suite: ./configs/retail/expectations.yaml
        window: 5m
        report: ./data/quality.jsonl
        emit: true

output:
  switch:
    cases:
      - check: meta("expectation_suite") != null
        output:
          kafka_topic:
            seed_brokers: [ "${KAFKA_SEEDS:127.0.0.1:9092}" ]
            topic: quality
      - output:
          drop: {}
`)
}

func init() {
	// Registered first, because building the spec compiles its lint rules.
	configspec.RegisterLintFunction(lintFunction, "an expectation suite",
		bloblang.NewPluginSpec().
			Description("Returns the mistakes in an expectation suite file, as an array of strings that is empty for a valid file.").
			Param(bloblang.NewStringParam("path").Description("The path of the file.")), expectationsuite.Lint)
	service.MustRegisterBatchProcessor("expect", spec(),
		func(conf *service.ParsedConfig, res *service.Resources) (service.BatchProcessor, error) {
			return newProcessor(conf, res, time.Now)
		})
}

type processor struct {
	suite   *expectations.Suite
	monitor *expectations.Monitor
	report  *lumberjack.Logger // nil for none
	emit    bool
	halt    bool
	log     *service.Logger
	now     func() time.Time

	results *service.MetricCounter
	met     *service.MetricGauge
	rows    *service.MetricCounter

	mu     sync.Mutex
	unsent []expectations.Report
	failed chan struct{} // closed when the stream must stop
	once   sync.Once

	stop    context.CancelFunc
	stopped chan struct{}
}

func newProcessor(conf *service.ParsedConfig, res *service.Resources, now func() time.Time) (*processor, error) {
	path, err := conf.FieldString(fieldSuite)
	if err != nil {
		return nil, err
	}
	suite, err := expectationsuite.Read(path)
	if err != nil {
		return nil, err
	}
	var w expectations.Windows
	if w.Every, err = conf.FieldDuration(fieldWindow); err != nil {
		return nil, err
	}
	if w.Every <= 0 {
		return nil, fmt.Errorf("window must be longer than zero, such as 5m")
	}
	if w.Lateness, err = conf.FieldDuration(fieldLateness); err != nil {
		return nil, err
	}
	clock, err := conf.FieldString(fieldClock)
	if err != nil {
		return nil, err
	}
	if clock != "" {
		if w.Clock, err = event.ParsePath(clock); err != nil {
			return nil, fmt.Errorf("clock: %w", err)
		}
	}
	metrics := res.Metrics()
	p := &processor{
		suite:   suite,
		monitor: expectations.NewMonitor(suite, w, now()),
		log:     res.Logger(),
		now:     now,
		results: metrics.NewCounter("expect_results", "suite", "expectation", "result"),
		met:     metrics.NewGauge("expect_suite_met", "suite"),
		rows:    metrics.NewCounter("expect_rows", "suite", "kind"),
		failed:  make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if p.emit, err = conf.FieldBool(fieldEmit); err != nil {
		return nil, err
	}
	onFailure, err := conf.FieldString(fieldOnFailure)
	if err != nil {
		return nil, err
	}
	p.halt = onFailure == onFailureStop
	file, err := conf.FieldString(fieldReport)
	if err != nil {
		return nil, err
	}
	if file != "" {
		const megabytes, backups = 50, 3
		p.report = &lumberjack.Logger{Filename: file, MaxSize: megabytes, MaxBackups: backups}
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go p.tick(ctx, w.Every)
	return p, nil
}

// tick closes windows that end without a message.
func (p *processor) tick(ctx context.Context, every time.Duration) {
	defer close(p.stopped)
	ticker := time.NewTicker(min(max(every/10, 10*time.Millisecond), time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.keep(p.publish(p.monitor.Tick(p.now())))
		}
	}
}

// keep stores reports until the next batch.
func (p *processor) keep(reports []expectations.Report) {
	if !p.emit || len(reports) == 0 {
		return
	}
	// Enough for a silent night of short windows, and bounded.
	const maxUnsent = 1024
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsent = append(p.unsent, reports...)
	p.unsent = p.unsent[max(0, len(p.unsent)-maxUnsent):]
}

// publish publishes reports to the metrics, the log and the file, and returns
// them.
func (p *processor) publish(reports []expectations.Report) []expectations.Report {
	for i := range reports {
		r := &reports[i]
		for kind, n := range map[string]int64{"judged": r.Rows, "late": r.Late, "undated": r.Undated, "malformed": r.NotJSON} {
			p.rows.Incr(n, r.Suite, kind)
		}
		var failed []string
		for _, x := range r.Results {
			result := "met"
			if !x.Success {
				result = "failed"
				failed = append(failed, x.Name)
			}
			p.results.Incr(1, r.Suite, x.Name, result)
		}
		met := int64(1)
		if !r.Success {
			met = 0
			p.log.Warnf("The suite %s is not met from %s to %s: %q", r.Suite, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), failed)
		}
		p.met.Set(met, r.Suite)
		if p.report != nil {
			if _, err := p.report.Write(append(r.JSON(), '\n')); err != nil {
				p.log.Errorf("A quality report cannot be written: %v", err)
			}
		}
		if !r.Success && p.halt {
			p.once.Do(func() {
				p.log.Errorf("The suite %s is not met, and on_failure is stop: the stream is stopped until the process is restarted; no message is acknowledged", r.Suite)
				close(p.failed)
			})
		}
	}
	return reports
}

// ProcessBatch implements service.BatchProcessor.
func (p *processor) ProcessBatch(ctx context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	select {
	case <-p.failed:
		<-ctx.Done()
		return nil, ctx.Err()
	default:
	}
	rows := make([][]byte, 0, len(batch))
	for _, msg := range batch {
		if msg.GetError() != nil {
			continue
		}
		raw, err := msg.AsBytes()
		if err != nil {
			continue
		}
		rows = append(rows, raw)
	}
	reports := p.publish(p.monitor.Add(rows, p.now()))
	out := []service.MessageBatch{batch}
	if !p.emit {
		return out, nil
	}
	p.mu.Lock()
	reports = append(p.unsent, reports...)
	p.unsent = nil
	p.mu.Unlock()
	if len(reports) > 0 {
		messages := make(service.MessageBatch, len(reports))
		for i := range reports {
			messages[i] = service.NewMessage(reports[i].JSON())
			messages[i].MetaSetMut(suiteMetadata, reports[i].Suite)
		}
		out = append(out, messages)
	}
	return out, nil
}

// Close publishes the reports of the open windows.
func (p *processor) Close(ctx context.Context) error {
	p.stop()
	select {
	case <-p.stopped:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.publish(p.monitor.Flush(p.now()))
	if p.report != nil {
		return p.report.Close()
	}
	return nil
}
