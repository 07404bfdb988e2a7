// Command soak loads the profile API for a long time with a mix of all it does,
// as configs/retail sets it up on a real Redis and a real Kafka broker:
//
//	go run ./tests/system soak -for 30m
//
// First it finds the most that the mix can do, then it asks for 80% of that, at
// an even rate, while a worker takes the events of the synthetic shop in. Every
// answer is checked: a customer reads as they were last written, and somebody who
// was erased stays erased. At the end the profiles are rebuilt from the topic, and
// compared. It fails on any wrong answer, and when the memory of a process grew.
// Run it in the root of the repository; it needs java and mvn.
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
	flag.DurationVar(&o.long, "for", 30*time.Minute, "how long")
	flag.DurationVar(&o.peak, "peak", 20*time.Second, "how long the most it can do is looked for")
	flag.Float64Var(&o.share, "share", 0.8, "of the most it can do")
	flag.IntVar(&o.workers, "connections", 32, "that ask at a time")
	flag.IntVar(&o.slots, "own", 8000, "customers whose every answer is known")
	flag.IntVar(&o.customers, "customers", 20_000, "others, of the synthetic shop")
	flag.IntVar(&o.events, "events", 200_000, "of the shop before the load begins")
	flag.IntVar(&o.shopRate, "rate", 200, "events a second of the shop during the load")
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
	say("%d events of %d customers of the shop are in their profiles", o.events, o.customers)

	l := newLoad(o, "http://"+s.apiAddress)
	if err := l.create(ctx); err != nil {
		return err
	}
	say("%d customers are made by %d writes", o.slots, o.slots)
	if err := l.fillCache(ctx); err != nil {
		return err
	}
	say("the cache of the API is full")
	peak, err := l.drive(ctx, o.peak, 0)
	if err != nil {
		return err
	}
	rate := o.share * peak.rate()
	say("the most there can be is %.0f requests/s; asking for %.0f", peak.rate(), rate)

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
	say("in all: %s", &total)
	if err := l.verify(ctx, "http://"+s.apiAddress); err != nil {
		return err
	}
	say("each of %d customers is as last written, and each of %d erased is erased", o.slots, len(l.erased()))
	if err := s.rebuild(ctx, l); err != nil {
		return err
	}
	say("so they are in profiles rebuilt from the topic")
	if err := memory.flat(); err != nil {
		return err
	}
	if total.wrong > 0 {
		return fmt.Errorf("%d wrong answers", total.wrong)
	}
	return nil
}

// setup is Redis, Kafka, the API and a worker.
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
			fmt.Fprintln(os.Stderr, "soak: cleaning up:", err)
		}
	}
}

// start runs one of the shipped configs until it is ready, and gives the address
// at which it serves profiles, if it does.
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

// logs shows the last that the processes said.
func (s *setup) logs() {
	for _, p := range s.processes {
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", p.Name, p.Tail())
	}
}

// rebuild makes the profiles anew from the topic, beside the others, and compares
// what it can know of.
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
