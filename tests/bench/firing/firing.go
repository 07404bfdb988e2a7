// Package firing measures the delay of triggers while very many others wait:
//
//	go run ./tests/bench firing -pending 1000000 -rate 1000 -seconds 60
//
// It fills a Redis of its own with customers whose trigger waits for weeks, and with
// customers whose trigger is due soon, at a rate per second. Then it runs the input
// profile_changes in real processes and reads their output. The delay of a firing is
// the time from its due time until its line is read. Firings of the first seconds,
// while the processes start, do not count.
package firing

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
	"github.com/connect-personalize/connect-personalize/plugins/store/redis"
	"github.com/connect-personalize/connect-personalize/tests/process"
)

const definition = `
messages: { channels: [ { name: email, consent: 'true' } ] }
features:
  - { name: pings, count: { events: [Ping], window: 7d } }
triggers:
  - { name: later, on: { events: [Wait] }, after: 60d, channel: email }
  - { name: soon, on: { events: [Ping] }, after: 1h, unless: { events: [Pong] }, when: features.pings > 0, channel: email, limits: [ { count: 1, per: 1d } ] }
`

type options struct {
	pending, rate, seconds, processes int
	warmUp, setUp, most               time.Duration
	poll                              time.Duration
	binary, profile                   string
}

// Run measures with the given flags.
func Run(ctx context.Context, args []string) error {
	var o options
	flag := flag.NewFlagSet("firing", flag.ContinueOnError)
	flag.IntVar(&o.pending, "pending", 1_000_000, "customers with a trigger that waits for weeks")
	flag.IntVar(&o.rate, "rate", 1000, "triggers due each second")
	flag.IntVar(&o.seconds, "seconds", 60, "duration of the measurement in seconds")
	flag.IntVar(&o.processes, "processes", 1, "processes that fire")
	flag.DurationVar(&o.warmUp, "warm-up", 5*time.Second, "duration of the triggers that do not count")
	flag.DurationVar(&o.setUp, "set-up", 15*time.Minute, "maximum time to fill Redis")
	flag.DurationVar(&o.poll, "poll", 500*time.Millisecond, "poll_interval of the processes")
	flag.DurationVar(&o.most, "p99", 2*time.Second, "maximum 99th percentile of the delay")
	flag.StringVar(&o.binary, "binary", "", "program to measure; built by default")
	flag.StringVar(&o.profile, "profile", "", "folder for CPU and allocation profiles of the first process")
	if err := flag.Parse(args); err != nil {
		return err
	}
	return run(ctx, o)
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "firing-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if o.binary == "" {
		if o.binary, err = process.Build(ctx, dir); err != nil {
			return err
		}
	}
	id := fmt.Sprintf("firing-%d", os.Getpid())
	url, err := process.Service(ctx, "redis.sh", "start", id)
	if err != nil {
		return err
	}
	defer func() { _, _ = process.Service(context.Background(), "redis.sh", "stop", id) }()
	server, err := connect(ctx, url, id)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	path := filepath.Join(dir, "profile.yaml")
	if err := os.WriteFile(path, []byte(definition), 0o600); err != nil {
		return err
	}
	item := fmt.Sprintf("label: shop\ndefinition: %s\nstore: { redis: { url: %q, prefix: %s } }\n", path, url, id)
	first, err := o.fill(ctx, item, server)
	if err != nil {
		return err
	}
	waiting, err := pending(ctx, url, id)
	if err != nil {
		return err
	}
	fmt.Printf("%d triggers wait; Redis holds %d MiB\n", waiting, server.memory(ctx)>>20)

	m := &measurement{options: o, first: first, received: make(chan line, 1024), server: server}
	for i := range o.processes {
		p, err := m.start(dir, i, item)
		if err != nil {
			return err
		}
		defer p.Kill()
	}
	return m.run(ctx)
}

// fill processes an event of each customer, and returns the due time of the first
// trigger to measure.
func (o *options) fill(ctx context.Context, item string, server *server) (first time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.setUp)
	defer cancel()
	p, err := profiles.OpenItem(item, "", "", service.MockResources())
	if err != nil {
		return first, err
	}
	defer func() { _ = p.Close(context.Background()) }()
	began := time.Now()
	old := began.Add(-24 * time.Hour)
	err = ingest(ctx, p, "waiting customers", o.pending, func(i int) []byte {
		return trackEvent("Wait", i, old.Add(time.Duration(i)*time.Millisecond))
	})
	if err != nil {
		return first, err
	}
	// A growing Redis rewrites its log. Rewrites caused by filling must end before the
	// measurement.
	if err := server.settle(ctx); err != nil {
		return first, err
	}
	// The first trigger is due after the last write and the start of the processes.
	total := o.total()
	each := 200 * time.Microsecond
	if o.pending >= 10_000 {
		each = 2 * time.Since(began) / time.Duration(o.pending)
	}
	first = time.Now().Add(10*time.Second + time.Duration(total)*each).Truncate(time.Millisecond)
	err = ingest(ctx, p, "customers with a trigger due soon", total, func(i int) []byte {
		return trackEvent("Ping", o.pending+i, o.due(first, i).Add(-time.Hour))
	})
	if err != nil {
		return first, err
	}
	if left := time.Until(first); left < 5*time.Second {
		return first, errors.New("writing took longer than expected: the machine is too busy")
	}
	return first, nil
}

func (o *options) due(first time.Time, i int) time.Time {
	return first.Add(time.Duration(i) * time.Second / time.Duration(o.rate))
}

// total returns the number of firings, including the warm-up.
func (o *options) total() int { return o.warm() + o.rate*o.seconds }

func (o *options) warm() int { return int(o.warmUp.Seconds() * float64(o.rate)) }

func trackEvent(name string, customer int, timestamp time.Time) []byte {
	return fmt.Appendf(nil, `{"type":"track","event":%q,"messageId":"%s-%d","userId":"u%d","timestamp":%q}`, name, name, customer, customer, timestamp.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// ingest processes an event of each of n customers, and prints its progress.
func ingest(ctx context.Context, p *customers.Service, subject string, n int, event func(i int) []byte) error {
	const size, writers = 2000, 3
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	var next, done atomic.Int64
	for range writers {
		all.Go(func() {
			events := make([][]byte, 0, size)
			for ctx.Err() == nil {
				from := int(next.Add(size)) - size
				if from >= n {
					return
				}
				events = events[:0]
				for i := from; i < min(n, from+size); i++ {
					events = append(events, event(i))
				}
				errs, err := p.Update(ctx, events)
				if err = errors.Join(append(errs, err)...); err != nil {
					cancel(err)
					return
				}
				done.Add(int64(len(events)))
			}
		})
	}
	finished := make(chan struct{})
	go func() {
		all.Wait()
		close(finished)
	}()
	began := time.Now()
	progress := time.NewTicker(10 * time.Second)
	defer progress.Stop()
	for {
		select {
		case <-finished:
			if ctx.Err() != nil {
				return fmt.Errorf("after %d of %d %s: %w", done.Load(), n, subject, context.Cause(ctx))
			}
			fmt.Printf("%d %s, written in %.0f s\n", n, subject, time.Since(began).Seconds())
			return nil
		case <-progress.C:
			fmt.Printf("  %3d%% of the %s\n", 100*done.Load()/int64(n), subject)
		}
	}
}

// pending counts the customers with a waiting trigger.
func pending(ctx context.Context, url, prefix string) (int64, error) {
	s, err := redis.Open(redis.Options{URL: url, Prefix: prefix})
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Close() }()
	return s.CountIndex(ctx, record.TriggerIndex, "", "")
}

// server is the Redis server.
type server struct {
	*goredis.Client
	pid int
}

func connect(ctx context.Context, url, id string) (*server, error) {
	text, err := process.Service(ctx, "redis.sh", "pid", id)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("the id of Redis: %w", err)
	}
	o, err := goredis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return &server{goredis.NewClient(o), pid}, nil
}

// info returns a field of the INFO command.
func (s *server) info(ctx context.Context, section, field string) string {
	text, _ := s.Info(ctx, section).Result()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return value
		}
	}
	return ""
}

func (s *server) memory(ctx context.Context) int64 {
	n, _ := strconv.ParseInt(s.info(ctx, "memory", "used_memory"), 10, 64)
	return n
}

// settle waits for the end of a rewrite of the log.
func (s *server) settle(ctx context.Context) error {
	return process.Until(ctx, "Redis to rewrite its log", 5*time.Minute, 100*time.Millisecond, func() (bool, error) {
		return s.info(ctx, "persistence", "aof_rewrite_in_progress") != "1", ctx.Err()
	})
}

// line is an output line of a process.
type line struct {
	id       string
	due, now time.Time
}

// measurement is one run.
type measurement struct {
	options
	first    time.Time
	received chan line
	server   *server
	all      []*process.Process
}

// start runs a process and receives its output.
func (m *measurement) start(dir string, n int, item string) (*process.Process, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, fmt.Sprintf("output-%d", n))
	if err := syscall.Mkfifo(out, 0o600); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, fmt.Sprintf("changes-%d.yaml", n))
	text := fmt.Sprintf("http: { address: %q, debug_endpoints: true }\nprofiles:\n  - %s\ninput: { profile_changes: { profiles: shop, poll_interval: %s } }\noutput: { file: { path: %q, codec: lines } }\nlogger: { level: WARN }\n",
		address, strings.ReplaceAll(strings.TrimSpace(item), "\n", "\n    "), m.poll, out)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p := &process.Process{Name: fmt.Sprintf("changes-%d", n), Binary: m.binary, Config: config, HTTP: address, Log: config + ".log"}
	// Opened for reading and writing, the pipe does not end without a writer.
	pipe, err := os.OpenFile(out, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	m.all = append(m.all, p)
	go m.receive(pipe)
	return p, p.Start()
}

// receive reads the output of a process.
func (m *measurement) receive(out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		now := time.Now()
		var message struct {
			MessageID  string
			Properties struct {
				Due time.Time `json:"due_at"`
			}
		}
		if json.Unmarshal(lines.Bytes(), &message) == nil && message.MessageID != "" {
			m.received <- line{message.MessageID, message.Properties.Due, now}
		}
	}
}

// used returns the processor time of the processes and of Redis.
func (m *measurement) used() (ours, redis time.Duration) {
	for _, p := range m.all {
		ours += process.CPU(p.ID())
	}
	return ours, process.CPU(m.server.pid)
}

// run receives all firings and prints their delays.
func (m *measurement) run(ctx context.Context) error {
	begin := m.due(m.first, m.warm())
	end := m.due(m.first, m.total())
	ctx, cancel := context.WithDeadline(ctx, end.Add(time.Minute))
	defer cancel()
	var ours, redis time.Duration
	counting := time.AfterFunc(time.Until(begin), func() {
		ours, redis = m.used()
		if m.profile != "" {
			m.takeProfiles(ctx)
		}
	})
	defer counting.Stop()
	delays := make([]time.Duration, 0, m.total())
	ids := make(map[string]bool, m.total())
	var last time.Time
	for len(ids) < m.total() {
		select {
		case l := <-m.received:
			if ids[l.id] {
				return fmt.Errorf("%s fired twice", l.id)
			}
			ids[l.id] = true
			if !l.due.Before(begin) {
				delays = append(delays, l.now.Sub(l.due))
				last = l.now
			}
		case <-ctx.Done():
			for _, p := range m.all {
				fmt.Println(p.Tail())
			}
			return fmt.Errorf("%d of %d fired within the time limit", len(ids), m.total())
		}
	}
	took := last.Sub(begin)
	oursNow, redisNow := m.used()
	slices.Sort(delays)
	at := func(share float64) time.Duration {
		return delays[min(len(delays)-1, int(share*float64(len(delays))))].Round(time.Millisecond)
	}
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() }
	fmt.Printf("%d firings in %.1f s by %d processes: %.0f/s, of %d/s that were due\n", len(delays), took.Seconds(), m.processes, float64(len(delays))/took.Seconds(), m.rate)
	fmt.Printf("delay after the due time: p50 %v, p90 %v, p99 %v, most %v\n", at(0.5), at(0.9), at(0.99), at(1))
	fmt.Printf("of a processor: the processes %.0f%%, Redis %.0f%%; Redis holds %d MiB, the first process %d MiB\n",
		percent(oursNow-ours), percent(redisNow-redis), m.server.memory(ctx)>>20, process.Memory(m.all[0].ID())>>20)
	fork, _ := strconv.Atoi(m.server.info(ctx, "stats", "latest_fork_usec"))
	fmt.Printf("Redis rewrote its log %s times in all, and its last fork took %d ms\n", m.server.info(ctx, "persistence", "aof_rewrites"), fork/1000)
	for _, p := range m.all {
		if text := p.Tail(); text != "" {
			fmt.Printf("%s logged: %s\n", p.Name, text)
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Printf("the load of the machine was %s\n", strings.Fields(string(load))[0])
	}
	if at(0.99) > m.most {
		return fmt.Errorf("p99 is above %v", m.most)
	}
	return nil
}

// takeProfiles writes profiles of the first process over half of the measured time.
func (m *measurement) takeProfiles(ctx context.Context) {
	base := "http://" + m.all[0].HTTP + "/debug/pprof/"
	for name, url := range map[string]string{
		"cpu.prof":    fmt.Sprintf("%sprofile?seconds=%d", base, max(1, m.seconds/2)),
		"allocs.prof": fmt.Sprintf("%sallocs?seconds=%d", base, max(1, m.seconds/2)),
	} {
		go func() {
			if err := save(ctx, url, filepath.Join(m.profile, name)); err != nil {
				fmt.Fprintln(os.Stderr, "firing: no profile:", err)
			}
		}()
	}
}

func save(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
