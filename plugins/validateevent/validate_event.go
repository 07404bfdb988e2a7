// Package validateevent is the validate_event processor: it holds events
// against a tracking plan.
package validateevent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/deadletter"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
)

const (
	stage        = "validate_event"
	lintFunction = "lint_tracking_plan"

	fieldPlan           = "plan"
	fieldReloadInterval = "reload_interval"
	fieldMaxDepth       = "max_depth"
	fieldKeepOriginal   = "keep_original"
)

// The metadata of events that are not simply valid.
const (
	// StatusMetadata is unplanned, repaired or violation of an event that
	// passes, and refused or malformed of one that does not.
	StatusMetadata = "tracking_plan_status"
	// ViolationsMetadata is what is wrong with an event that breaks its schema
	// and passes, or that was repaired, as a JSON array of reasons.
	ViolationsMetadata = "tracking_plan_violations"

	statusUnplanned = "unplanned"
	statusRepaired  = "repaired"
	statusViolation = "violation"
	statusRefused   = "refused"
	statusMalformed = "malformed"
)

// The values of the label result.
const (
	resultValid     = "valid"
	resultUnplanned = "unplanned"
	resultRepaired  = "repaired"
	resultPassed    = "passed"
	resultRejected  = "rejected"

	resultOK     = "ok"
	resultFailed = "failed"
)

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Mapping", "Utility").
		Summary("Checks events against a tracking plan: a YAML file with a JSON Schema for each event.").
		Description(`
A valid event passes with its bytes untouched. An event that breaks its schema gets an error that says why, and is otherwise untouched too; send such messages to a `+"`dead_letter`"+`, as in the example. The error holds the reasons with JSON pointers, the rule that was broken, and the name and version of the plan, never a value of the event. An event of a batch has no effect on the others. Messages that already carry an error pass as they are.

### The plan

`+"```yaml"+`
name: shop
version: 1.2.0
on_violation: dead_letter      # or pass, or repairs: [coerce, strip]
on_unplanned: mark             # or allow, dead_letter
envelope:                      # schema of every event as a whole
  required: [type, messageId, timestamp]
$defs:                         # shared definitions
  money: { type: number, minimum: 0 }
events:
  Order Completed:
    on_violation: [coerce, dead_letter]
    properties:                # schema of the event's properties
      type: object
      required: [order_id, total]
      properties:
        order_id: { type: string }
        total: { $ref: "#/$defs/money" }
        products: { type: array, items: { $ref: schemas/product.json } }
  identify:
    traits:                    # schema of the event's traits
      properties:
        email: { type: string, format: email }
`+"```"+`

A track event goes by its `+"`event`"+`, any other by its `+"`type`"+`. Each event may have a schema under `+"`properties`"+` (track, page and screen), under `+"`traits`"+` (identify and group), and under `+"`envelope`"+`, for the whole of it. An event without the member counts as one with an empty object there. The plan's own `+"`envelope`"+` applies to unplanned events too.

| key | meaning |
| --- | --- |
| `+"`name`, `version`"+` | identify the plan in dead letters and metrics |
| `+"`on_violation`"+` | what becomes of an event that breaks its schema, of the plan or of one event: `+"`dead_letter`"+` (the default), `+"`pass`"+`, or repairs to try first. `+"`coerce`"+` turns a value of the wrong type into the right one where nothing is lost (`+"`\"12.50\"` to `12.50`, `\"true\"` to `true`, `17` to `\"17\"`"+`); `+"`strip`"+` removes properties that the schema does not allow. Repairs that do not make the event valid are dropped, and the event is treated by what is last in the list, `+"`dead_letter`"+` if that is a repair |
| `+"`on_unplanned`"+` | what becomes of an event the plan does not have: `+"`mark`"+` (the default), `+"`allow` or `dead_letter`"+` |
| `+"`envelope`"+` | the JSON Schema of every event as a whole |
| `+"`$defs`"+` | shared definitions, for `+"`$ref: \"#/$defs/name\"`"+` |
| `+"`events`"+` | the events by name |
| `+"`$schema`"+` | the draft that schemas are in which do not say: `+"`https://json-schema.org/draft/2020-12/schema` (the default) or `http://json-schema.org/draft-07/schema`"+` |
| `+"`formats`"+` | `+"`assert`"+` (the default): a format such as email or date-time is checked; `+"`annotate`"+`: it is only a note |
| `+"`event_version`"+` | the path of an event's version, `+"`context.protocols.event_version`"+` by default |
| `+"`schema_urls`"+` | folders for schemas that are referred to by URL, such as `+"`https://example.com/schemas/: schemas`"+`; nothing is fetched |

An event that changed over time has `+"`versions`"+`, each with schemas of its own; events that state no version are held against the event's own schemas, or against those of `+"`default_version`"+`:

`+"```yaml"+`
  Order Completed:
    default_version: "1"
    versions:
      "1": { properties: { required: [order_id] } }
      "2": { properties: { required: [order_id, currency] } }
`+"```"+`

`+"`$ref`"+` reaches the plan itself and the files in its folder. Patterns are in RE2 syntax. A plan that is wrong stops the pipeline from starting, and `+"`lint`"+` tells all that is wrong with it, by line.

### What is not JSON

Whatever the plan says, an event is rejected that is not valid JSON (rule `+"`json`"+`), not UTF-8 or with half a surrogate pair in an escape (`+"`encoding`"+`), that has two members of one name in an object (`+"`duplicate_key`"+`), nests deeper than `+"`max_depth` (`depth`"+`), or has a number beyond the range of a 64-bit float (`+"`number`"+`): no two readers downstream would agree on what it means.

### Metadata

Events that pass without being simply valid get the metadata `+"`"+StatusMetadata+"`"+`: `+"`unplanned`, `repaired` or `violation`"+`. The last two also get `+"`"+ViolationsMetadata+"`"+`, the reasons as a JSON array. A repaired event also notes at `+"`context.protocols.repaired`"+` what was coerced, from which type to which, and what was omitted. Events that do not pass get `+"`refused`"+` if they break their schema, which cleaning may mend, and `+"`malformed`"+` if they are not JSON that can be relied on. The status is always that of the last check. The event as it arrived is kept for dead letters in the metadata `+"`"+deadletter.OriginalMetadata+"`"+`.

### Metrics

The counter `+"`validate_event_events`"+` has the labels `+"`result`"+` (valid, unplanned, repaired, passed, rejected) and `+"`event`"+`, the name of a planned event, empty for any other. The counter `+"`validate_event_plan_reloads`"+` has the label `+"`result`"+` (ok, failed), and the gauge `+"`validate_event_plan`"+` is 1 for the plan and version in its labels, those in use.`).
		Field(service.NewStringField(fieldPlan).
			Description("The path of the tracking plan, relative to the folder that the process runs in.").
			Example("./configs/retail/plan.yaml").
			LintRule(`root = `+lintFunction+`(this)`)).
		Field(service.NewDurationField(fieldReloadInterval).
			Description("How often to look whether the plan or one of its schema files has changed; `0s` for never. A change is taken once two looks in a row have found the same, so that no half-written file is. A plan that is wrong is logged and the last good one kept.").
			Default("5s").
			Example("1m").
			Advanced().
			LintRule(`root = if !this.string().re_match("^(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$") { [ "reload_interval must be a duration such as 5s, or 0s to never reload" ] }`)).
		Field(service.NewBoolField(fieldKeepOriginal).
			Description("Whether every event is kept as it arrived, in the metadata `"+deadletter.OriginalMetadata+"`, in case a later processor changes it and another fails it. That is about a fifth of the cost of validation: turn it off where nothing changes events later, or where what does keeps the original itself by `meta "+deadletter.OriginalMetadata+" = content()`. Events that are repaired here are kept in any case.").
			Default(true).
			Advanced()).
		Field(service.NewIntField(fieldMaxDepth).
			Description("How deep objects and arrays may be nested in an event.").
			Default(trackingplan.DefaultMaxDepth).
			Example(64).
			Advanced().
			LintRule(fmt.Sprintf(`root = if this < 1 || this > %d { [ "max_depth must be from 1 to %d" ] }`, trackingplan.MaxMaxDepth, trackingplan.MaxMaxDepth))).
		Example("Set invalid events aside", `
Valid events go on; the others go to a file, each with the reasons and as it arrived.`, `
pipeline:
  processors:
    - validate_event:
        plan: ./configs/retail/plan.yaml

output:
  switch:
    cases:
      - check: errored()
        output:
          file:
            path: ./data/dead_letters.jsonl
            codec: lines
          processors:
            - dead_letter: {}
      - output:
          drop: {}
`)
}

func init() {
	// A field's lint rule is compiled as the spec is built, so that the
	// function must be there before.
	if err := registerLintFunction(); err != nil {
		panic(err)
	}
	service.MustRegisterBatchProcessor(stage, spec(),
		func(conf *service.ParsedConfig, res *service.Resources) (service.BatchProcessor, error) {
			return newProcessor(conf, res)
		})
}

func registerLintFunction() error {
	function := bloblang.NewPluginSpec().
		Category("Tracking plans").
		Description("Returns what is wrong with the tracking plan at a path and with the schema files it refers to, as an array of messages with file and line. It is empty for a plan that can be used as it is.").
		Param(bloblang.NewStringParam("path").Description("The path of the plan."))
	return bloblang.RegisterFunctionV2(lintFunction, function, func(args *bloblang.ParsedParams) (bloblang.Function, error) {
		path, err := args.GetString("path")
		if err != nil {
			return nil, err
		}
		return func() (any, error) {
			if path == "" {
				return []any{"plan must be the path of a tracking plan, such as ./configs/retail/plan.yaml"}, nil
			}
			messages := []any{}
			for _, l := range trackingplan.Lint(path) {
				messages = append(messages, l.String())
			}
			return messages, nil
		}, nil
	})
}

type processor struct {
	watcher *trackingplan.Watcher
	logger  *service.Logger
	keep    bool

	events  *service.MetricCounter
	reloads *service.MetricCounter
	inUse   *service.MetricGauge
	shown   *trackingplan.Plan // the plan that inUse shows

	stop    context.CancelFunc
	stopped chan struct{}
}

func newProcessor(conf *service.ParsedConfig, res *service.Resources) (*processor, error) {
	path, err := conf.FieldString(fieldPlan)
	if err != nil {
		return nil, err
	}
	interval, err := conf.FieldDuration(fieldReloadInterval)
	if err != nil {
		return nil, err
	}
	maxDepth, err := conf.FieldInt(fieldMaxDepth)
	if err != nil {
		return nil, err
	}
	keep, err := conf.FieldBool(fieldKeepOriginal)
	if err != nil {
		return nil, err
	}
	watcher, err := trackingplan.Watch(path, maxDepth)
	if err != nil {
		return nil, fmt.Errorf("tracking plan:\n%w", err)
	}
	metrics := res.Metrics()
	p := &processor{
		watcher: watcher,
		logger:  res.Logger(),
		keep:    keep,
		events:  metrics.NewCounter("validate_event_events", "result", "event"),
		reloads: metrics.NewCounter("validate_event_plan_reloads", "result"),
		inUse:   metrics.NewGauge("validate_event_plan", "plan", "version"),
		stop:    func() {},
		stopped: make(chan struct{}),
	}
	p.show(watcher.Plan())
	if interval <= 0 {
		close(p.stopped)
		return p, nil
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.stopped)
		p.follow(ctx, interval)
	}()
	return p, nil
}

func (p *processor) follow(ctx context.Context, interval time.Duration) {
	p.watcher.Follow(ctx, interval, p.reloaded)
}

// reloaded tells of a plan that was read anew.
func (p *processor) reloaded(err error) {
	if err != nil {
		p.reloads.Incr(1, resultFailed)
		p.logger.Errorf("The changed tracking plan is wrong, going on with %s %s: %s", p.shown.Name, p.shown.Version, err)
		return
	}
	p.reloads.Incr(1, resultOK)
	p.show(p.watcher.Plan())
	p.logger.Infof("Going on with tracking plan %s %s", p.shown.Name, p.shown.Version)
}

func (p *processor) show(plan *trackingplan.Plan) {
	if p.shown != nil {
		p.inUse.Set(0, p.shown.Name, p.shown.Version)
	}
	p.inUse.Set(1, plan.Name, plan.Version)
	p.shown = plan
}

func (p *processor) ProcessBatch(_ context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	// The same plan holds for all of a batch.
	plan := p.watcher.Plan()
	var room [16]tally
	tallies := room[:0]
	for i, msg := range batch {
		if msg.GetError() != nil {
			continue
		}
		if p.keep {
			msg = deadletter.KeepOriginal(msg)
			batch[i] = msg
		}
		raw, err := msg.AsBytes()
		if err != nil {
			msg.SetError(err)
			continue
		}
		result := plan.Check(raw)
		if result.Status == trackingplan.Repaired {
			msg = deadletter.KeepOriginal(msg)
			batch[i] = msg
		}
		_, checked := msg.MetaGetMut(StatusMetadata) // before, and maybe changed since
		if result.Status != trackingplan.Valid || result.Unplanned || checked {
			p.treat(msg, plan, &result)
		}
		tallies = count(tallies, label(&result), result.Event)
	}
	for _, t := range tallies {
		p.events.Incr(t.n, t.result, t.event)
	}
	return []service.MessageBatch{batch}, nil
}

// treat does with a message as its result says.
func (p *processor) treat(msg *service.Message, plan *trackingplan.Plan, result *trackingplan.Result) {
	switch result.Status {
	case trackingplan.Rejected:
		reasons := make([]rejection.Reason, len(result.Violations))
		for i, v := range result.Violations {
			reasons[i] = rejection.Reason(v)
		}
		status := statusRefused
		if result.Malformed() {
			status = statusMalformed
		}
		msg.MetaSetMut(StatusMetadata, status)
		msg.SetError(&rejection.Error{Stage: stage, Plan: plan.Name, PlanVersion: plan.Version, Reasons: reasons})
	case trackingplan.Repaired:
		msg.SetBytes(result.Body)
		mark(msg, statusRepaired, result.Violations)
	case trackingplan.Passed:
		mark(msg, statusViolation, result.Violations)
	case trackingplan.Valid:
		if result.Mark {
			msg.MetaSetMut(StatusMetadata, statusUnplanned)
		} else {
			msg.MetaDelete(StatusMetadata)
		}
	}
}

func mark(msg *service.Message, status string, violations []trackingplan.Violation) {
	msg.MetaSetMut(StatusMetadata, status)
	if text, err := json.Marshal(violations); err == nil {
		msg.MetaSetMut(ViolationsMetadata, string(text))
	}
}

func label(result *trackingplan.Result) string {
	switch result.Status {
	case trackingplan.Rejected:
		return resultRejected
	case trackingplan.Repaired:
		return resultRepaired
	case trackingplan.Passed:
		return resultPassed
	}
	if result.Unplanned {
		return resultUnplanned
	}
	return resultValid
}

// tally counts the events of a batch that share their labels, so that a batch
// costs a few updates of the metrics and not one for each event.
type tally struct {
	result, event string
	n             int64
}

func count(tallies []tally, result, event string) []tally {
	for i := range tallies {
		if t := &tallies[i]; t.result == result && t.event == event {
			t.n++
			return tallies
		}
	}
	return append(tallies, tally{result, event, 1})
}

// Close ends following the plan's files.
func (p *processor) Close(ctx context.Context) error {
	p.stop()
	select {
	case <-p.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
