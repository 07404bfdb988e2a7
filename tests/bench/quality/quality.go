// Package quality measures the cost of validation and cleaning against the stock
// processors for similar work: validate_event against json_schema, and the shop's
// clean mapping against a stock mapping that trims and changes case. All process
// the same events in the same run, in turns, so that a busy machine slows down
// each of them equally.
package quality

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	_ "github.com/connect-personalize/connect-personalize/plugins/all"
)

// contender is a row of the table: a processor, and the one it is compared with.
type contender struct {
	name, config string
	events       [][]byte
	against      string // the row it is compared with
	least        float64

	processors []*service.OwnedProcessor
	rates      []float64
}

const batchSize = 100

// Run measures with the given flags.
func Run(ctx context.Context, args []string) error {
	flag := flag.NewFlagSet("quality", flag.ContinueOnError)
	span := flag.Duration("time", 500*time.Millisecond, "duration of a turn")
	turns := flag.Int("turns", 5, "number of turns of each processor")
	if err := flag.Parse(args); err != nil {
		return err
	}
	return run(ctx, *span, *turns)
}

func run(ctx context.Context, span time.Duration, turns int) error {
	dir, err := os.MkdirTemp("", "quality-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	schema := filepath.Join(dir, "schema.json")
	if err := os.WriteFile(schema, orderSchema, 0o600); err != nil {
		return err
	}
	rows := []*contender{
		{name: "json_schema", config: "json_schema: { schema_path: 'file://" + schema + "' }", events: orders()},
		{name: "validate_event", config: "validate_event: { plan: ./configs/retail/plan.yaml, keep_original: false }", events: orders(), against: "json_schema", least: 3},
		{name: "validate_event, keeping originals", config: "validate_event: { plan: ./configs/retail/plan.yaml }", events: orders(), against: "json_schema", least: 3},
		{name: "mapping (trim, case)", config: "mapping: |\n" + stockMapping, events: identities()},
		{name: "mapping (the methods alone)", config: "mapping: |\n" + methodMapping, events: identities(), against: "mapping (trim, case)"},
		{name: "clean.blobl", config: "mapping: 'from \"./configs/retail/clean.blobl\"'", events: identities(), against: "mapping (trim, case)"},
	}
	for _, r := range rows {
		conf, err := service.NewConfigSpec().Field(service.NewProcessorListField("processors")).ParseYAML("processors:\n  - "+indent(r.config), nil)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if r.processors, err = conf.FieldProcessorList("processors"); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	for range turns {
		for _, r := range rows {
			rate, err := r.turn(ctx, span)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			r.rates = append(r.rates, rate)
		}
	}
	median := map[string]float64{}
	for _, r := range rows {
		slices.Sort(r.rates)
		median[r.name] = r.rates[len(r.rates)/2]
	}
	fmt.Printf("| %-33s | %12s | %-21s | %7s | %6s |\n| --- | ---: | --- | ---: | ---: |\n", "processor", "events/s", "against", "ratio", "budget")
	missed := false
	for _, r := range rows {
		ratio, budget := "", ""
		if r.against != "" {
			value := median[r.name] / median[r.against]
			ratio = fmt.Sprintf("%.2f", value)
			if r.least > 0 {
				budget = fmt.Sprintf("%.1f", r.least)
				missed = missed || value < r.least
			}
		}
		fmt.Printf("| %-33s | %12.0f | %-21s | %7s | %6s |\n", r.name, median[r.name], r.against, ratio, budget)
	}
	for _, r := range rows {
		for _, p := range r.processors {
			if err := p.Close(ctx); err != nil {
				return err
			}
		}
	}
	if missed {
		return errors.New("a budget is missed")
	}
	return nil
}

// turn runs the processor for a time span and returns its events per second. It
// uses one core, as the batches follow one another.
func (r *contender) turn(ctx context.Context, span time.Duration) (float64, error) {
	count, began := 0, time.Now()
	for time.Since(began) < span {
		batch := make(service.MessageBatch, batchSize)
		for i := range batch {
			batch[i] = service.NewMessage(r.events[(count+i)%len(r.events)])
		}
		out, err := service.ExecuteProcessors(ctx, r.processors, batch)
		if err != nil {
			return 0, err
		}
		for _, b := range out {
			for _, msg := range b {
				if err := msg.GetError(); err != nil {
					return 0, err
				}
				// Outputs read bytes.
				if _, err := msg.AsBytes(); err != nil {
					return 0, err
				}
			}
		}
		count += batchSize
	}
	return float64(count) / time.Since(began).Seconds(), nil
}

func indent(config string) string {
	var out []byte
	for _, c := range []byte(config) {
		if out = append(out, c); c == '\n' {
			out = append(out, "      "...)
		}
	}
	return string(out)
}
