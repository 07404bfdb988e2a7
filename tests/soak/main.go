// Command soak loads the profile API for a long time with a mix of all it does,
// as configs/retail sets it up on a real Redis and a real Kafka broker:
//
//	go run ./tests/soak -for 30m
//
// First it finds the most that the mix can do, then it asks for 80% of that, at
// an even rate, while a worker takes the events of the synthetic shop in. Every
// answer is checked: a customer reads as they were last written, and somebody who
// was erased stays erased. At the end the profiles are rebuilt from the topic, and
// compared. It fails on any wrong answer, and when the memory of a process grew.
// Run it in the root of the repository; it needs java and mvn.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	long, peak                  time.Duration
	share                       float64
	workers, slots              int
	customers, events, shopRate int
}

func main() {
	var o options
	flag.DurationVar(&o.long, "for", 30*time.Minute, "how long")
	flag.DurationVar(&o.peak, "peak", 20*time.Second, "how long the most it can do is looked for")
	flag.Float64Var(&o.share, "share", 0.8, "of the most it can do")
	flag.IntVar(&o.workers, "connections", 32, "that ask at a time")
	flag.IntVar(&o.slots, "own", 8000, "customers whose every answer is known")
	flag.IntVar(&o.customers, "customers", 20_000, "others, of the synthetic shop")
	flag.IntVar(&o.events, "events", 200_000, "of the shop before the load begins")
	flag.IntVar(&o.shopRate, "rate", 200, "events a second of the shop during the load")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
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
	defer os.RemoveAll(dir)
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
	defer feed.close()
	if err := feed.fill(ctx, o.events); err != nil {
		return err
	}
	say("%d events of %d customers of the shop are in their profiles", o.events, o.customers)

	l := newLoad(o, "http://"+s.apiAddress)
	if err := l.create(ctx); err != nil {
		return err
	}
	say("%d customers are made by %d writes", o.slots, o.slots)
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
	fmt.Println("\nPASSED")
	return nil
}

// setup is Redis, Kafka, the API and a worker.
type setup struct {
	dir, id, binary string
	redisURL, seeds string
	apiAddress      string
	api, worker     *exec.Cmd
	processes       []*exec.Cmd
	env             []string
}

func open(ctx context.Context, dir string) (s *setup, err error) {
	s = &setup{dir: dir, id: fmt.Sprintf("soak-%d", os.Getpid()), binary: filepath.Join(dir, "connect-personalize")}
	defer func() {
		if err != nil {
			s.logs()
			s.close()
		}
	}()
	build := exec.CommandContext(ctx, "go", "build", "-o", s.binary, "./cmd/connect-personalize")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return s, fmt.Errorf("building: %w", err)
	}
	if s.redisURL, err = script(ctx, "redis.sh", "start", s.id); err != nil {
		return s, err
	}
	if s.seeds, err = script(ctx, "kafka.sh", "start", s.id); err != nil {
		return s, err
	}
	s.env = append(os.Environ(), "KAFKA_SEEDS="+s.seeds, "REDIS_URL="+s.redisURL, "CONSUMER_GROUP="+group)
	if err := makeTopics(ctx, s.seeds); err != nil {
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
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range s.processes {
		kill := time.AfterFunc(20*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait()
		kill.Stop()
	}
	s.processes = nil
	for _, service := range []string{"kafka.sh", "redis.sh"} {
		_, _ = script(context.Background(), service, "stop", s.id)
	}
}

// start runs one of the shipped configs until it is ready, and gives the address
// at which it serves profiles, if it does.
func (s *setup) start(ctx context.Context, name, config string, env ...string) (*exec.Cmd, string, error) {
	var addresses [2]string
	for i := range addresses {
		var err error
		if addresses[i], err = freeAddress(); err != nil {
			return nil, "", err
		}
	}
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "-c", config)
	cmd.Env = append(append(s.env[:len(s.env):len(s.env)], "HTTP_ADDRESS="+addresses[0], "PROFILE_API_ADDRESS="+addresses[1]), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	s.processes = append(s.processes, cmd)
	return cmd, addresses[1], poll(ctx, time.Minute, name+" to be ready", func() error {
		response, err := http.Get("http://" + addresses[0] + "/ready")
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", response.Status)
		}
		return nil
	})
}

// logs shows the last that the processes said.
func (s *setup) logs() {
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		const most = 3000
		if len(text) > most {
			text = text[len(text)-most:]
		}
		fmt.Fprintf(os.Stderr, "--- %s\n%s", filepath.Base(file), text)
	}
}

// rebuild makes the profiles anew from the topic, beside the others, and compares
// what it can know of.
func (s *setup) rebuild(ctx context.Context, l *load) error {
	if _, _, err := s.start(ctx, "rebuild", "configs/retail/rebuild.yaml", "REDIS_PREFIX=again"); err != nil {
		return err
	}
	if err := caughtUp(ctx, s.seeds, "rebuild-again"); err != nil {
		return err
	}
	_, address, err := s.start(ctx, "api-rebuilt", "configs/retail/api.yaml", "REDIS_PREFIX=again")
	if err != nil {
		return err
	}
	return l.verify(ctx, "http://"+address)
}

func script(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join("tests/services", name), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// poll waits until something works.
func poll(ctx context.Context, timeout time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// discard reads an answer to its end, so that the connection is used again.
func discard(response *http.Response) {
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
}

// freeAddress gives a loopback address nobody listens at, below the ports that the
// kernel gives to clients.
func freeAddress() (string, error) {
	for ; nextPort < 31_900; nextPort++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		if err != nil {
			continue
		}
		nextPort++
		return l.Addr().String(), l.Close()
	}
	return "", errors.New("no free port")
}

var nextPort = 23_000 + os.Getpid()%3000
