// Command firing measures how long after it is due a trigger is told, while very
// many others wait:
//
//	go run ./tests/firing -pending 1000000 -rate 1000 -seconds 60
//
// It fills a Redis of its own with customers for whom a trigger waits for weeks,
// and with others for whom one is due in the next minute, so many a second. Then
// it runs the input profile_changes in real processes, reads what they tell, and
// compares the time of each line with when it was due. Run it in the root of the
// repository.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	"github.com/connect-personalize/connect-personalize/plugins/profiles"
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
	most                              time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.pending, "pending", 1_000_000, "customers for whom a trigger waits for weeks")
	flag.IntVar(&o.rate, "rate", 1000, "triggers that are due each second")
	flag.IntVar(&o.seconds, "seconds", 60, "for how long")
	flag.IntVar(&o.processes, "processes", 1, "that fire")
	flag.DurationVar(&o.most, "p99", 2*time.Second, "fail above this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "firing:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "firing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	id := fmt.Sprintf("firing-%d", os.Getpid())
	url, err := script(ctx, "start", id)
	if err != nil {
		return err
	}
	defer script(context.Background(), "stop", id)
	path := filepath.Join(dir, "profile.yaml")
	if err := os.WriteFile(path, []byte(definition), 0o600); err != nil {
		return err
	}
	binary := filepath.Join(dir, "connect-personalize")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/connect-personalize")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building: %w", err)
	}
	item := fmt.Sprintf("label: shop\ndefinition: %s\nstore: { redis: { url: %q } }\n", path, url)
	p, err := profiles.OpenItem(item, "", service.MockResources())
	if err != nil {
		return err
	}
	defer p.Close(context.Background())

	began := time.Now()
	old := time.Now().Add(-24 * time.Hour)
	if err := fill(ctx, p, o.pending, func(i int) []byte { return happening("Wait", i, old.Add(time.Duration(i)*time.Millisecond)) }); err != nil {
		return err
	}
	fmt.Printf("%d customers for whom a trigger waits, in %.0f s\n", o.pending, time.Since(began).Seconds())
	total := o.rate * o.seconds
	// The first are due when the last are written and the processes run.
	first := time.Now().Add(time.Duration(total/5000+8) * time.Second)
	if err := fill(ctx, p, total, func(i int) []byte {
		due := first.Add(time.Duration(i) * time.Second / time.Duration(o.rate))
		return happening("Ping", o.pending+i, due.Add(-time.Hour))
	}); err != nil {
		return err
	}
	if left := time.Until(first); left < 0 {
		return fmt.Errorf("writing took %v too long: give it a quieter machine, or a lower rate", -left)
	}

	config := filepath.Join(dir, "changes.yaml")
	text := "http: { enabled: false }\nprofiles:\n  - " + strings.ReplaceAll(strings.TrimSpace(item), "\n", "\n    ") +
		"\ninput: { profile_changes: { profiles: shop } }\noutput: { stdout: {} }\nlogger: { level: ERROR }\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	heard := make(chan line, 1024)
	ctx, cancel := context.WithDeadline(ctx, first.Add(time.Duration(o.seconds)*time.Second+time.Minute))
	defer cancel()
	var readers sync.WaitGroup
	defer readers.Wait()
	for range o.processes {
		cmd := exec.Command(binary, "-c", config)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		readers.Go(func() { listen(out, heard) })
	}
	return measure(ctx, o, total, heard)
}

func happening(name string, who int, at time.Time) []byte {
	return fmt.Appendf(nil, `{"type":"track","event":%q,"messageId":"%s-%d","userId":"u%d","timestamp":%q}`, name, name, who, who, at.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// fill takes an event of each customer in.
func fill(ctx context.Context, p *profiles.Profiles, n int, event func(i int) []byte) error {
	const size, writers = 5000, 4
	batches := make(chan [2]int)
	go func() {
		defer close(batches)
		for from := 0; from < n; from += size {
			batches <- [2]int{from, min(n, from+size)}
		}
	}()
	var all sync.WaitGroup
	failed := make(chan error, writers)
	for range writers {
		all.Go(func() {
			for b := range batches {
				events := make([][]byte, 0, size)
				for i := b[0]; i < b[1]; i++ {
					events = append(events, event(i))
				}
				if _, err := p.Update(ctx, events); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

type line struct {
	id       string
	due, now time.Time
}

// listen reads what a process tells.
func listen(out io.Reader, heard chan<- line) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		now := time.Now()
		var m struct {
			MessageID  string
			Properties struct {
				Due time.Time `json:"due_at"`
			}
		}
		if json.Unmarshal(lines.Bytes(), &m) == nil && m.MessageID != "" {
			heard <- line{m.MessageID, m.Properties.Due, now}
		}
	}
}

func measure(ctx context.Context, o options, total int, heard <-chan line) error {
	delays := make([]time.Duration, 0, total)
	ids := make(map[string]bool, total)
	for len(ids) < total {
		select {
		case l := <-heard:
			if ids[l.id] {
				return fmt.Errorf("%s was told twice", l.id)
			}
			ids[l.id] = true
			delays = append(delays, l.now.Sub(l.due))
		case <-ctx.Done():
			return fmt.Errorf("%d of %d were told when the time was up", len(ids), total)
		}
	}
	slices.Sort(delays)
	at := func(share float64) time.Duration {
		return delays[min(total-1, int(share*float64(total)))].Round(time.Millisecond)
	}
	fmt.Printf("%d firings at %d/s by %d processes, %d others waiting: told %v after they were due (p50), %v (p99), %v (most)\n",
		total, o.rate, o.processes, o.pending, at(0.5), at(0.99), delays[total-1].Round(time.Millisecond))
	if at(0.99) > o.most {
		return fmt.Errorf("p99 is above %v", o.most)
	}
	return nil
}

// script runs tests/services/redis.sh and returns what it prints.
func script(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "tests/services/redis.sh", args...)
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	// What it starts keeps its standard error.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return "", fmt.Errorf("redis.sh %s: %w: %s", strings.Join(args, " "), err, trouble.String())
	}
	return strings.TrimSpace(out.String()), nil
}
