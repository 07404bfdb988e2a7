// Package faults sends events through Kafka and three real workers into Redis
// while it kills, pauses and restarts all of them. Afterwards it compares every
// feature of every customer with a naive computation over the same events:
//
//	go run ./tests/system faults -events 50000 -workers 3
//	go run ./tests/system faults -events 1000000 -outage 60s
//	go run ./tests/system faults -cluster
//
// KAFKA_SEEDS and REDIS_URL name running services to use instead of its own;
// the suite injects no fault into those.
package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

type options struct {
	events, workers, partitions, rounds int
	seed                                uint64
	outage                              time.Duration
	cluster, keep, rebuild              bool
	binary, report                      string
	timeout                             time.Duration
}

// Run runs the suite with the given flags.
func Run(ctx context.Context, args []string) error {
	var o options
	flag := flag.NewFlagSet("faults", flag.ContinueOnError)
	flag.IntVar(&o.events, "events", 50_000, "approximate number of events to send, without the repeated ones")
	flag.IntVar(&o.workers, "workers", 3, "number of workers that share the topic")
	flag.IntVar(&o.partitions, "partitions", 12, "partitions of the topic of events")
	flag.IntVar(&o.rounds, "rounds", 0, "how often each fault is injected; 0 is once, and once more for each 150,000 events")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the events and of the order of faults")
	flag.DurationVar(&o.outage, "outage", 8*time.Second, "duration of the one long outage of Redis")
	flag.BoolVar(&o.cluster, "cluster", false, "use a Redis Cluster of six nodes, and fail over its primaries")
	flag.BoolVar(&o.rebuild, "rebuild", true, "also rebuild all profiles from the topic, and compare them")
	flag.BoolVar(&o.keep, "keep", false, "keep the logs of the processes")
	flag.StringVar(&o.binary, "binary", "", "program to test; built by default")
	flag.StringVar(&o.report, "report", "", "file to write the report to, besides the standard output")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "maximum duration of the whole run")
	if err := flag.Parse(args); err != nil {
		return err
	}
	if o.rounds == 0 {
		o.rounds = 1 + o.events/150_000
	}

	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return run(ctx, o)
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return err
	}
	s := &suite{
		options: o, dir: dir, id: fmt.Sprintf("faults-%d", os.Getpid()),
		ownKafka: os.Getenv("KAFKA_SEEDS") == "", ownRedis: os.Getenv("REDIS_URL") == "" && os.Getenv("REDIS_CLUSTER") == "",
		report: &report{began: time.Now()},
	}
	defer func() {
		s.stop()
		if o.keep || err != nil {
			fmt.Fprintln(os.Stderr, "faults: the logs are in", dir)
		} else {
			_ = os.RemoveAll(dir)
		}
	}()
	if err := s.start(ctx); err != nil {
		return err
	}
	err = s.injectFaults(ctx)
	if err == nil {
		err = s.eraseCustomers(ctx)
	}
	if err == nil {
		err = s.compare(ctx)
	}
	if err == nil && len(s.report.failures) > 0 {
		err = errors.New(strings.Join(s.report.failures, "\n  "))
	}
	var text strings.Builder
	s.report.write(&text, s, err)
	_, _ = io.WriteString(os.Stdout, text.String())
	if o.report != "" {
		if werr := os.WriteFile(o.report, []byte(text.String()), 0o600); werr != nil {
			return werr
		}
	}
	return err
}
