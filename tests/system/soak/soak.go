// Package soak loads the profile API for a long time with a mix of all requests, on
// configs/retail with a real Redis and a real Kafka broker:
//
//	go run ./tests/system soak -for 30m
//
// It first measures the maximum throughput of the mix, then sends 80% of it at an
// even rate while a worker processes the events of the synthetic shop. It checks
// every response: a read returns the last write, and an erased customer stays
// erased. At the end it rebuilds the profiles from the topic and compares them. It
// fails on any wrong response and if the memory of a process grew.
package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
	"github.com/connect-personalize/connect-personalize/tests/system/kafka"
)

type options struct {
	long, peak                  time.Duration
	share                       float64
	workers, slots              int
	customers, events, shopRate int
}

// Run runs the suite with the given flags.
func Run(ctx context.Context, args []string) error {
	var o options
	flag := flag.NewFlagSet("soak", flag.ContinueOnError)
	flag.DurationVar(&o.long, "for", 30*time.Minute, "duration of the load")
	flag.DurationVar(&o.peak, "peak", 20*time.Second, "duration of the measurement of the maximum throughput")
	flag.Float64Var(&o.share, "share", 0.8, "share of the maximum throughput")
	flag.IntVar(&o.workers, "connections", 32, "concurrent connections")
	flag.IntVar(&o.slots, "own", 8000, "customers that the suite writes and checks")
	flag.IntVar(&o.customers, "customers", 20_000, "customers of the synthetic shop")
	flag.IntVar(&o.events, "events", 200_000, "events of the shop before the load")
	flag.IntVar(&o.shopRate, "rate", 200, "events per second of the shop during the load")
	if err := flag.Parse(args); err != nil {
		return err
	}
	return run(ctx, o)
}

var began = time.Now()

func say(format string, args ...any) {
	fmt.Printf("%8s  %s\n", time.Since(began).Round(time.Second), fmt.Sprintf(format, args...))
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer s.close()
	defer func() {
		if err != nil {
			s.logs()
		}
	}()

	feed, err := newFeed(s, o)
	if err != nil {
		return err
	}
	if err := feed.fill(ctx, o.events); err != nil {
		return err
	}
	say("processed %d events of %d customers of the shop", o.events, o.customers)

	l := newLoad(o, "http://"+s.apiAddress)
	if err := l.create(ctx); err != nil {
		return err
	}
	say("created %d customers by %d writes", o.slots, o.slots)
	if err := l.fillCache(ctx); err != nil {
		return err
	}
	say("filled the cache of the API")
	peak, err := l.drive(ctx, o.peak, 0)
	if err != nil {
		return err
	}
	rate := o.share * peak.rate()
	say("the maximum is %.0f requests/s; sending %.0f", peak.rate(), rate)

	pace, stopFeed := context.WithCancel(ctx)
	fed := make(chan error, 1)
	go func() { fed <- feed.flow(pace, o.shopRate) }()
	watched := watch(pace, s)
	total, err := l.drive(ctx, o.long, rate)
	stopFeed()
	memory := <-watched
	if err := errors.Join(err, <-fed); err != nil {
		return err
	}
	say("total: %s", &total)
	if err := l.verify(ctx, "http://"+s.apiAddress); err != nil {
		return err
	}
	say("each of %d customers equals its last write, and all %d erased ones are absent", o.slots, len(l.erased()))
	if err := s.rebuild(ctx, l); err != nil {
		return err
	}
	say("profiles rebuilt from the topic are the same")
	if err := memory.flat(); err != nil {
		return err
	}
	if total.wrong > 0 {
		return fmt.Errorf("%d wrong responses", total.wrong)
	}
	return nil
}

// setup is Redis, Kafka, a profile API and a worker.
type setup struct {
	dir, id, binary string
	redisURL        string
	broker          *kafka.Client
	apiAddress      string
	api, worker     *process.Process
	processes       []*process.Process
	env             []string
}

func open(ctx context.Context, dir string) (s *setup, err error) {
	s = &setup{dir: dir, id: fmt.Sprintf("soak-%d", os.Getpid())}
	defer func() {
		if err != nil {
			s.logs()
			s.close()
		}
	}()
	if s.binary, err = process.Build(ctx, dir); err != nil {
		return s, err
	}
	if s.redisURL, err = process.Service(ctx, "redis.sh", "start", s.id); err != nil {
		return s, err
	}
	seeds, err := process.Service(ctx, "kafka.sh", "start", s.id)
	if err != nil {
		return s, err
	}
	s.env = []string{"KAFKA_SEEDS=" + seeds, "REDIS_URL=" + s.redisURL, "CONSUMER_GROUP=" + group}
	if s.broker, err = kafka.Connect(seeds); err != nil {
		return s, err
	}
	if err := s.broker.CreateTopics(ctx, 4, eventsTopic, "dead_letters", "dead_letters_parked", "dead_letters_rebuild", "changes"); err != nil {
		return s, err
	}
	if s.worker, _, err = s.start(ctx, "worker", "configs/retail/profiles.yaml"); err != nil {
		return s, err
	}
	s.api, s.apiAddress, err = s.start(ctx, "api", "configs/retail/api.yaml")
	return s, err
}

func (s *setup) close() {
	for _, p := range s.processes {
		p.Signal(syscall.SIGTERM)
	}
	for _, p := range s.processes {
		_ = p.Wait(20 * time.Second)
		p.Kill()
	}
	if s.broker != nil {
		s.broker.Close()
	}
	for _, service := range []string{"kafka.sh", "redis.sh"} {
		if _, err := process.Service(context.Background(), service, "stop", s.id); err != nil {
			fmt.Fprintln(os.Stderr, "soak: stopping a service:", err)
		}
	}
}

// start runs a shipped config until it is ready, and returns the address of its
// profile API, if it has one.
func (s *setup) start(ctx context.Context, name, config string, env ...string) (p *process.Process, address string, err error) {
	p = &process.Process{Name: name, Binary: s.binary, Config: config, Log: filepath.Join(s.dir, name+".log")}
	if p.HTTP, err = process.FreeAddress(); err != nil {
		return nil, "", err
	}
	if address, err = process.FreeAddress(); err != nil {
		return nil, "", err
	}
	p.Env = slices.Concat(s.env, []string{"HTTP_ADDRESS=" + p.HTTP, "PROFILE_API_ADDRESS=" + address}, env)
	if err := p.Start(); err != nil {
		return nil, "", err
	}
	s.processes = append(s.processes, p)
	return p, address, p.Ready(ctx)
}

// logs prints the end of the log of each process.
func (s *setup) logs() {
	for _, p := range s.processes {
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", p.Name, p.Tail())
	}
}

// rebuild rebuilds the profiles from the topic under another prefix and compares
// them.
func (s *setup) rebuild(ctx context.Context, l *load) error {
	if _, _, err := s.start(ctx, "rebuild", "configs/retail/rebuild.yaml", "REDIS_PREFIX=again"); err != nil {
		return err
	}
	if err := s.broker.CaughtUp(ctx, "rebuild-again", eventsTopic, 0, 20*time.Minute); err != nil {
		return err
	}
	_, address, err := s.start(ctx, "api-rebuilt", "configs/retail/api.yaml", "REDIS_PREFIX=again")
	if err != nil {
		return err
	}
	return l.verify(ctx, "http://"+address)
}
