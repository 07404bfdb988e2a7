// Package deadletter provides the dead_letter processor, which replaces a failed
// message by an envelope (package rejection), and the metadata in which a message
// carries the event as it arrived.
package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

const (
	// attemptMetadata is the metadata key of the number of earlier rejections of a
	// replayed event.
	attemptMetadata = "dead_letter_attempt"

	sourceMetadata     = "source"
	receivedAtMetadata = "received_at"

	// ruleError is the rule of an error that is not a *rejection.Error.
	ruleError = "error"
	// stageUnknown is the stage of an error without a component.
	stageUnknown = "unknown"
)

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Utility").
		Summary("Converts a failed event into a dead letter: the original event, with reasons, stage and time.").
		Description(`
A message without an error passes unchanged. A message with one is replaced by an envelope, and its error is cleared, so that outputs accept it:

| member | meaning |
| --- | --- |
| `+"`id`"+` | identifies the rejection: the same bytes rejected by the same stage have the same id |
| `+"`stage`"+` | the component that rejected the event, `+"`unknown`"+` if the error has none |
| `+"`reasons`"+` | a list of objects with `+"`pointer`"+` (RFC 6901, empty for the whole event), `+"`rule`"+` and `+"`message`"+`; an error of any other component becomes one reason with the rule `+"`error`"+` |
| `+"`plan`, `plan_version`"+` | the tracking plan, if one was applied |
| `+"`source`, `received_at`"+` | from the metadata of these names, else the event's own `+"`source` and `receivedAt`"+`, where known |
| `+"`rejected_at`"+` | the time of the rejection |
| `+"`attempt`"+` | 1 for the first rejection; one more than the metadata `+"`"+attemptMetadata+"`"+` for a replayed event |
| `+"`original` or `original_base64`"+` | the original event: as text if it is valid UTF-8, else in base64 |

Put it into the output, in the case for failed messages, as in the first example. The input is then acknowledged only after the dead letter is written.

Notes for pipelines:

- Stock processors process failed messages too, and one that fails replaces the first error by its own. Put them into a `+"`switch` with `check: '!errored()'`"+`, as in the example, so that a dead letter has the first stage. The plugins of this distribution pass failed messages unchanged.
- `+"`error_handling.strict`"+` cannot be used: it skips this processor, and if the first message of a batch failed, the whole batch skips all further processors. `+"`try_catch`"+` cannot be used either: it clears the error with its reasons before its `+"`catch`"+` processors run. In a `+"`catch`"+` of the pipeline this processor works, but then dead letters cannot be distinguished from events.
- The first plugin that receives an event stores the original in the metadata `+"`"+OriginalMetadata+"`"+`. If a mapping changes events before that, store it there: `+"`meta "+OriginalMetadata+" = content()`"+`. Both metadata keys are removed from the dead letter.

The counter `+"`dead_letters`"+` has the labels `+"`stage` and `rule`"+`, the rule of the first reason, and counts each dead letter once.`).
		Example("Write failed events to dead letters", `
Valid events go to profiles, failed ones to a file of dead letters.`, `
pipeline:
  processors:
    - validate_event:
        plan: ./configs/retail/plan.yaml
    - switch:
        - check: '!errored()'
          processors:
            - mapping: |
                root = this
                root.properties.currency = this.properties.currency.uppercase().catch("USD")

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
`).
		Example("Replay", `
Reads dead letters and sends the original events to their topic, after the cause is fixed. The first line of the mapping restores the original bytes.`, `
input:
  file:
    paths: [ ./data/dead_letters.jsonl ]
    scanner:
      lines:
        max_buffer_size: 4_000_000

pipeline:
  processors:
    - mapping: |
        root = this.original | this.original_base64.decode("base64")
        meta `+attemptMetadata+` = this.attempt

output:
  kafka_topic:
    seed_brokers: [ "${KAFKA_SEEDS:127.0.0.1:9092}" ]
    topic: events
    key: ${! this.userId | this.anonymousId }
    metadata:
      include_patterns: [ "^`+attemptMetadata+`$" ]
`)
}

func init() {
	service.MustRegisterBatchProcessor("dead_letter", spec(),
		func(_ *service.ParsedConfig, res *service.Resources) (service.BatchProcessor, error) {
			return newProcessor(res, time.Now)
		})
}

type processor struct {
	now     func() time.Time
	logger  *service.Logger
	letters *service.MetricCounter
	// component returns the name of the failed component, which is available in
	// Bloblang only.
	component *bloblang.Executor
}

func newProcessor(res *service.Resources, now func() time.Time) (*processor, error) {
	component, err := bloblang.Parse(`root = error_source_name()`)
	if err != nil {
		return nil, err
	}
	return &processor{
		now:       now,
		logger:    res.Logger(),
		letters:   res.Metrics().NewCounter("dead_letters", "stage", "rule"),
		component: component,
	}, nil
}

func (p *processor) ProcessBatch(_ context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	out := batch
	for i, msg := range batch {
		failure := msg.GetError()
		if failure == nil {
			continue
		}
		letter, err := p.letter(msg, failure)
		if err != nil {
			p.logger.Errorf("A dead letter cannot be created, so the message keeps its error: %v", err)
			continue
		}
		if &out[0] == &batch[0] {
			out = append(service.MessageBatch(nil), batch...)
		}
		out[i] = letter
	}
	return []service.MessageBatch{out}, nil
}

// letter returns a copy of the message with the envelope as content and without error.
func (p *processor) letter(msg *service.Message, failure error) (*service.Message, error) {
	original, err := Original(msg)
	if err != nil {
		return nil, err
	}
	envelope := rejection.Envelope{
		RejectedAt: p.now().UTC().Truncate(time.Millisecond),
		Attempt:    attempt(msg),
		Original:   original,
	}
	if rejected, ok := errors.AsType[*rejection.Error](failure); ok {
		envelope.Stage = rejected.Stage
		envelope.Plan, envelope.PlanVersion = rejected.Plan, rejected.PlanVersion
		envelope.Reasons = rejected.Reasons
	} else {
		envelope.Stage = p.componentOf(msg)
		envelope.Reasons = []rejection.Reason{{Rule: ruleError, Message: failure.Error()}}
	}
	if envelope.Stage == "" {
		envelope.Stage = stageUnknown
	}
	if len(envelope.Reasons) == 0 {
		envelope.Reasons = []rejection.Reason{{Rule: ruleError, Message: failure.Error()}}
	}
	envelope.ID = rejection.ID(envelope.Stage, original)
	envelope.Source, envelope.ReceivedAt = provenance(msg, original)

	encoded, err := envelope.Encode()
	if err != nil {
		return nil, err
	}
	p.letters.Incr(1, envelope.Stage, envelope.Reasons[0].Rule)
	count(envelope.Stage)

	// On a copy, because Connect counts a change of the error of a message in the
	// batch as a failure of this processor.
	letter := msg.Copy()
	letter.SetError(nil)
	letter.SetBytes(encoded)
	letter.MetaDelete(OriginalMetadata)
	letter.MetaDelete(attemptMetadata)
	return letter, nil
}

func (p *processor) componentOf(msg *service.Message) string {
	value, err := msg.BloblangQueryValue(p.component)
	if err != nil {
		return ""
	}
	name, _ := value.(string)
	return name
}

func (p *processor) Close(context.Context) error { return nil }

// attempt returns the number of rejections of an event, including this one.
func attempt(msg *service.Message) int {
	before, ok := msg.MetaGet(attemptMetadata)
	if !ok {
		return 1
	}
	n, err := strconv.Atoi(before)
	if err != nil || n < 0 || n >= 1<<30 {
		return 1
	}
	return n + 1
}

// provenance returns source and time of receipt of an event, from its metadata or
// its own members, empty if unknown.
func provenance(msg *service.Message, original []byte) (source, receivedAt string) {
	source, _ = msg.MetaGet(sourceMetadata)
	receivedAt, _ = msg.MetaGet(receivedAtMetadata)
	if source != "" && receivedAt != "" || !utf8.Valid(original) {
		return source, receivedAt
	}
	var event struct {
		Source     any `json:"source"`
		ReceivedAt any `json:"receivedAt"`
	}
	if err := json.Unmarshal(original, &event); err != nil {
		return source, receivedAt
	}
	if text, ok := event.Source.(string); ok && source == "" {
		source = text
	}
	if text, ok := event.ReceivedAt.(string); ok && receivedAt == "" {
		receivedAt = text
	}
	return source, receivedAt
}
