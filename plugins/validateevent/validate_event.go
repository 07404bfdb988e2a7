// Package validateevent implements the validate_event processor, which validates events
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
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
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

// The metadata of events that are not valid.
const (
	// statusMetadata is unplanned, repaired or violation for an event that passes, and
	// refused or malformed for a rejected one.
	statusMetadata = "tracking_plan_status"
	// violationsMetadata has the violations of an event that was repaired or passes in
	// spite of them, as a JSON array.
	violationsMetadata = "tracking_plan_violations"

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
A valid event passes unchanged, to the byte. An event that violates its schema is marked with an error and is not changed either; send such messages to a `+"`dead_letter`"+`, as in the example. The error contains the reasons with JSON pointers, the violated rule, and the name and version of the plan, never a value of the event. Events of a batch do not affect each other. Messages that already have an error pass unchanged.

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

The name of a track event is its `+"`event`"+`, that of any other event its `+"`type`"+`. Each event may have a schema under `+"`properties`"+` (track, page and screen), under `+"`traits`"+` (identify and group), and under `+"`envelope`"+` for the whole event. A missing member counts as an empty object. The plan's own `+"`envelope`"+` applies to unplanned events too.

| key | meaning |
| --- | --- |
| `+"`name`, `version`"+` | identify the plan in dead letters and metrics |
| `+"`on_violation`"+` | the treatment of an event that violates its schema, for the whole plan or for one event: `+"`dead_letter`"+` (the default), `+"`pass`"+`, or repairs to try first. `+"`coerce`"+` converts a value of the wrong type if the conversion is lossless (`+"`\"12.50\"` to `12.50`, `\"true\"` to `true`, `17` to `\"17\"`"+`); `+"`strip`"+` removes properties that the schema does not allow. If repairs do not make the event valid they are discarded, and the last item of the list applies, `+"`dead_letter`"+` if that is a repair |
| `+"`on_unplanned`"+` | the treatment of an event that is not in the plan: `+"`mark`"+` (the default), `+"`allow` or `dead_letter`"+` |
| `+"`envelope`"+` | the JSON Schema of every event as a whole |
| `+"`$defs`"+` | shared definitions, for `+"`$ref: \"#/$defs/name\"`"+` |
| `+"`events`"+` | the events by name |
| `+"`$schema`"+` | the draft of schemas that do not state one: `+"`https://json-schema.org/draft/2020-12/schema` (the default) or `http://json-schema.org/draft-07/schema`"+` |
| `+"`formats`"+` | `+"`assert`"+` (the default): formats such as email and date-time are checked; `+"`annotate`"+`: they are not |
| `+"`event_version`"+` | the path of an event's version, `+"`context.protocols.event_version`"+` by default |
| `+"`schema_urls`"+` | folders for schemas that are referenced by URL, such as `+"`https://example.com/schemas/: schemas`"+`; nothing is downloaded |

An event that changed over time has `+"`versions`"+`, each with schemas of its own. An event that states no version is checked against the event's own schemas, or against those of `+"`default_version`"+`:

`+"```yaml"+`
  Order Completed:
    default_version: "1"
    versions:
      "1": { properties: { required: [order_id] } }
      "2": { properties: { required: [order_id, currency] } }
`+"```"+`

`+"`$ref`"+` can refer to the plan itself and to files in its folder. Patterns are in RE2 syntax. A pipeline with an invalid plan does not start; `+"`lint`"+` lists all mistakes with their lines.

### Malformed events

Regardless of the plan, an event is rejected if it is not valid JSON (rule `+"`json`"+`), is not UTF-8 (`+"`encoding`"+`), has two members of one name in an object (`+"`duplicate_key`"+`), is nested deeper than `+"`max_depth` (`depth`"+`), or has a number beyond the range of a 64-bit float (`+"`number`"+`). Two consumers could interpret such an event differently. An escape of half a surrogate pair becomes U+FFFD.

### Metadata

An event that passes although it is not valid gets the metadata `+"`"+statusMetadata+"`"+`: `+"`unplanned`, `repaired` or `violation`"+`. With the last two it also gets `+"`"+violationsMetadata+"`"+`, the reasons as a JSON array. A repaired event records at `+"`context.protocols.repaired`"+` the coerced values with their types before and after, and the omitted values. A rejected event has the status `+"`refused`"+` if it violates its schema, which cleaning may fix, and `+"`malformed`"+` if its JSON is not reliable. The status is that of the last check. The original event is kept for dead letters in the metadata `+"`"+deadletter.OriginalMetadata+"`"+`.

### Metrics

The counter `+"`validate_event_events`"+` has the labels `+"`result`"+` (valid, unplanned, repaired, passed, rejected) and `+"`event`"+`, the name of a planned event, empty for unplanned ones. The counter `+"`validate_event_plan_reloads`"+` has the label `+"`result`"+` (ok, failed), and the gauge `+"`validate_event_plan`"+` is 1 for the name and version of the plan in use, which are its labels.`).
		Field(service.NewStringField(fieldPlan).
			Description("Path of the tracking plan, relative to the working directory of the process.").
			Example("./configs/retail/plan.yaml").
			LintRule(`root = `+lintFunction+`(this)`)).
		Field(service.NewDurationField(fieldReloadInterval).
			Description("Interval at which the plan and its schema files are polled for changes; `0s` disables it. A change is loaded after two polls with the same content, so that no half-written file is loaded. An invalid plan is logged and the last valid one stays in use.").
			Default("5s").
			Example("1m").
			Advanced().
			LintRule(`root = if !this.string().re_match("^(0|([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$") { [ "reload_interval must be a duration such as 5s, or 0s to never reload" ] }`)).
		Field(service.NewBoolField(fieldKeepOriginal).
			Description("Keep the original of every event in the metadata `"+deadletter.OriginalMetadata+"`, for the case that a later processor changes the event and another one fails. This is about a fifth of the cost of validation: disable it if no later processor changes events, or if that processor keeps the original with `meta "+deadletter.OriginalMetadata+" = content()`. The originals of repaired events are always kept.").
			Default(true).
			Advanced()).
		Field(service.NewIntField(fieldMaxDepth).
			Description("Maximum nesting depth of objects and arrays in an event. Raise it if valid events are rejected with the rule `depth`.").
			Default(trackingplan.DefaultMaxDepth).
			Example(64).
			Advanced().
			LintRule(fmt.Sprintf(`root = if this < 1 || this > %d { [ "max_depth must be from 1 to %d" ] }`, trackingplan.MaxMaxDepth, trackingplan.MaxMaxDepth))).
		Example("Write invalid events to a file", `
Valid events continue; each invalid event goes to a file, with the reasons and its original.`, `
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
	// The lint rule of a field is compiled when the spec is built, so the function must
	// be registered before.
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
		Description("Returns the mistakes in a tracking plan and in the schema files it refers to, as an array of messages with file and line. The array is empty for a plan without findings.").
		Param(bloblang.NewStringParam("path").Description("Path of the plan."))
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
				if !l.Advice { // advice does not stop a pipeline
					messages = append(messages, l.String())
				}
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
	shown   *trackingplan.Plan // the plan that the gauge inUse shows

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
	for _, l := range trackingplan.Lint(path) {
		if l.Advice {
			res.Logger().Warnf("Tracking plan: %s", l)
		}
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

// reloaded counts and logs a reload of the plan.
func (p *processor) reloaded(err error) {
	if err != nil {
		p.reloads.Incr(1, resultFailed)
		p.logger.Errorf("The changed tracking plan is invalid; %s %s stays in use: %s", p.shown.Name, p.shown.Version, err)
		return
	}
	p.reloads.Incr(1, resultOK)
	p.show(p.watcher.Plan())
	p.logger.Infof("Tracking plan %s %s is now in use", p.shown.Name, p.shown.Version)
}

func (p *processor) show(plan *trackingplan.Plan) {
	if p.shown != nil {
		p.inUse.Set(0, p.shown.Name, p.shown.Version)
	}
	p.inUse.Set(1, plan.Name, plan.Version)
	p.shown = plan
}

func (p *processor) ProcessBatch(_ context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	// One plan applies to the whole batch.
	plan := p.watcher.Plan()
	var buffer [16]tally
	tallies := buffer[:0]
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
		// An escape of half a surrogate pair has no meaning: every reader of the event
		// shall see the same replacement character.
		if fixed := jsontext.ReplaceLoneSurrogates(raw); len(fixed) > 0 && &fixed[0] != &raw[0] {
			msg = deadletter.KeepOriginal(msg)
			batch[i] = msg
			msg.SetBytes(fixed)
			raw = fixed
		}
		result := plan.Check(raw)
		if result.Status == trackingplan.Repaired {
			msg = deadletter.KeepOriginal(msg)
			batch[i] = msg
		}
		_, checked := msg.MetaGetMut(statusMetadata) // by an earlier check, and perhaps the event has changed since
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

// treat applies the result of its check to a message.
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
		msg.MetaSetMut(statusMetadata, status)
		msg.SetError(&rejection.Error{Stage: stage, Plan: plan.Name, PlanVersion: plan.Version, Reasons: reasons})
	case trackingplan.Repaired:
		msg.SetBytes(result.Body)
		mark(msg, statusRepaired, result.Violations)
	case trackingplan.Passed:
		mark(msg, statusViolation, result.Violations)
	case trackingplan.Valid:
		if result.Mark {
			msg.MetaSetMut(statusMetadata, statusUnplanned)
		} else {
			msg.MetaDelete(statusMetadata)
		}
	}
}

func mark(msg *service.Message, status string, violations []trackingplan.Violation) {
	msg.MetaSetMut(statusMetadata, status)
	if text, err := json.Marshal(violations); err == nil {
		msg.MetaSetMut(violationsMetadata, string(text))
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

// tally counts the events of a batch by label, so that a batch needs a few updates of
// the metrics instead of one for each event.
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

// Close stops polling the files of the plan.
func (p *processor) Close(ctx context.Context) error {
	p.stop()
	select {
	case <-p.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
