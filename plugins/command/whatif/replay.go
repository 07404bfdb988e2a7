package whatif

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/kafkatopic"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// replayed builds profiles from events with the processors of a pipeline.
type replayed struct {
	config []byte
	out    io.Writer // for progress

	events, refused int
}

// kept are the parts of a config that are used in the replay.
var kept = []string{"pipeline", "cache_resources", "rate_limit_resources", "processor_resources"}

// run applies the events of a file, or of the topics of the pipeline's input, to
// the profiles with a label.
func (r *replayed) run(ctx context.Context, p *customers.Service, label, file string) error {
	var root map[string]any
	if err := yaml.Unmarshal([]byte(fillIn(string(r.config))), &root); err != nil {
		return err
	}
	config := map[string]any{
		"http": map[string]any{"enabled": false}, "logger": map[string]any{"level": "NONE"},
		"input": map[string]any{ends: map[string]any{}}, "output": map[string]any{ends: map[string]any{}},
	}
	for _, part := range kept {
		if root[part] != nil {
			config[part] = root[part]
		}
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte("update_profile:")) {
		return errors.New("its pipeline has no update_profile, so that it makes no profiles of events; name one that has, such as configs/retail/profiles.yaml")
	}
	defer profiles.Lend(label, p)()
	// An error of the reader ends the pipeline.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan [][]byte)
	ended := make(chan error, 1)
	go func() { ended <- r.stream(ctx, string(text), batches) }()
	take := func(lines [][]byte) error {
		select {
		case batches <- slices.Clone(lines):
			return nil
		case err := <-ended:
			ended <- err
			return cmp.Or(err, errors.New("the pipeline ended before the events did"))
		}
	}
	if file != "" {
		err = readLines(file, take)
	} else {
		err = r.readTopics(ctx, root, take)
	}
	if err != nil {
		return err
	}
	close(batches)
	return <-ended
}

// stream runs the pipeline until the batches end.
func (r *replayed) stream(ctx context.Context, config string, batches <-chan [][]byte) error {
	env := service.GlobalEnvironment().Clone()
	err := env.RegisterBatchInput(ends, service.NewConfigSpec(), func(*service.ParsedConfig, *service.Resources) (service.BatchInput, error) {
		return &input{batches: batches}, nil
	})
	if err != nil {
		return err
	}
	err = env.RegisterBatchOutput(ends, service.NewConfigSpec(), func(*service.ParsedConfig, *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
		return &output{replayed: r, shown: time.Now()}, service.BatchPolicy{}, 1, nil
	})
	if err != nil {
		return err
	}
	builder := env.NewStreamBuilder()
	if err := builder.SetYAML(config); err != nil {
		return err
	}
	stream, err := builder.Build()
	if err != nil {
		return err
	}
	return stream.Run(ctx)
}

// ends is the name of the input and the output in the config of the replay.
const ends = "what_if"

// input feeds batches to the pipeline and ends after the last.
type input struct{ batches <-chan [][]byte }

func (in *input) Connect(context.Context) error { return nil }

func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case lines, more := <-in.batches:
		if !more {
			return nil, nil, service.ErrEndOfInput
		}
		batch := make(service.MessageBatch, len(lines))
		for i, line := range lines {
			batch[i] = service.NewMessage(line)
		}
		return batch, func(_ context.Context, err error) error { return err }, nil
	}
}

func (in *input) Close(context.Context) error { return nil }

// output counts the events that leave the pipeline.
type output struct {
	*replayed
	shown time.Time
}

func (o *output) Connect(context.Context) error { return nil }

func (o *output) WriteBatch(_ context.Context, batch service.MessageBatch) error {
	for _, m := range batch {
		if o.events++; m.GetError() != nil {
			o.refused++
		}
	}
	if now := time.Now(); now.Sub(o.shown) >= time.Second {
		o.shown = now
		fmt.Fprintf(o.out, "%d events so far\n", o.events)
	}
	return nil
}

func (o *output) Close(context.Context) error { return nil }

// batchSize is the number of events in a batch.
const batchSize = 2000

func readLines(path string, take func(lines [][]byte) error) error {
	in := os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	var lines [][]byte
	for reader := bufio.NewReaderSize(in, 1<<20); ; {
		line, err := reader.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
		if err != nil && err != io.EOF {
			return err
		}
		if len(lines) == batchSize || err == io.EOF && len(lines) > 0 {
			if err := take(lines); err != nil {
				return err
			}
			lines = nil
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readTopics reads the topics of the pipeline's input up to their end, without a
// consumer group.
func (r *replayed) readTopics(ctx context.Context, root map[string]any, take func(lines [][]byte) error) error {
	input, _ := root["input"].(map[string]any)
	topic, ok := input["kafka_topic"]
	if !ok {
		return fmt.Errorf("its input is not %s, which --replay needs; write the events into a file and name it with --%s", "kafka_topic", flagEvents)
	}
	text, err := yaml.Marshal(topic)
	if err != nil {
		return err
	}
	return kafkatopic.ReadAll(ctx, strings.TrimSpace(string(text)), batchSize, take)
}
