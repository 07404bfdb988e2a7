// Command faults sends events through Kafka and three real workers into Redis
// while it kills, pauses and restarts all of them, and then compares every
// feature of every customer with what the slow and obvious computation over the
// same events gives:
//
//	go run ./tests/system/faults -events 50000 -workers 3
//	go run ./tests/system/faults -events 1000000 -outage 60s
//	go run ./tests/system/faults -cluster
//
// It starts the services it needs and ends them. Where KAFKA_SEEDS or REDIS_URL
// name ones that run already, those are used and not harmed. Run it in the
// root of the repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
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

func main() {
	var o options
	flag.IntVar(&o.events, "events", 50_000, "about how many events to send, repeated ones not counted")
	flag.IntVar(&o.workers, "workers", 3, "how many workers share the topic")
	flag.IntVar(&o.partitions, "partitions", 12, "of the topic of events")
	flag.IntVar(&o.rounds, "rounds", 0, "how often each fault is injected; 0 for once, and once more for each 150,000 events")
	flag.Uint64Var(&o.seed, "seed", 1, "of the events and of what is hit when")
	flag.DurationVar(&o.outage, "outage", 8*time.Second, "how long Redis is away, once")
	flag.BoolVar(&o.cluster, "cluster", false, "use a Redis Cluster of six nodes, and fail its primaries over")
	flag.BoolVar(&o.rebuild, "rebuild", true, "also rebuild all profiles from the topic, and compare them")
	flag.BoolVar(&o.keep, "keep", false, "keep the logs of the processes")
	flag.StringVar(&o.binary, "binary", "", "the program to test; built if not named")
	flag.StringVar(&o.report, "report", "", "a file for the report, besides the standard output")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "when to give up")
	flag.Parse()
	if o.rounds == 0 {
		o.rounds = 1 + o.events/150_000
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "faults: FAILED:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if _, err := os.Stat("configs/retail/profiles.yaml"); err != nil {
		return errors.New("run this in the root of the repository")
	}
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
			os.RemoveAll(dir)
		}
	}()
	if err := s.start(ctx); err != nil {
		return err
	}
	err = s.suffer(ctx)
	if err == nil {
		err = s.eraseSome(ctx)
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
