package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// pipeline is a config and its settings.
type pipeline struct {
	name    string
	config  string // in tests/bench/configs
	stock   bool   // by the engine without our plugins
	redis   bool   // it uses the server
	batch   int    // 0 for the config's
	threads int
	cap     int
}

// longestRun is the time limit of a run.
const longestRun = 10 * time.Minute

// measured is the result of one run of a pipeline.
type measured struct {
	Events    int           `json:"events"`
	Elapsed   time.Duration `json:"elapsed_ns"`
	CPU       time.Duration `json:"cpu_ns"`
	RedisCPU  time.Duration `json:"redis_cpu_ns"`
	PeakBytes int64         `json:"peak_bytes"` // of the largest process
}

func (m measured) rate() float64 { return float64(m.Events) / m.Elapsed.Seconds() }

// run runs a pipeline over a file of events, one process for each part of the file.
// Time counts from the first process opening its input to the last acknowledgement.
func (b *bench) runPipeline(ctx context.Context, p pipeline, file eventFile) (measured, error) {
	m := measured{Events: file.events}
	if p.batch > batchUnit && file.events%p.batch != 0 {
		return m, fmt.Errorf("%s: %d events are no whole number of batches of %d", p.name, file.events, p.batch)
	}
	ctx, cancel := context.WithTimeout(ctx, longestRun)
	defer cancel()
	var redisCPU time.Duration
	if p.redis {
		s, err := b.redis(ctx)
		if err != nil {
			return m, err
		}
		if err := s.reset(ctx); err != nil {
			return m, err
		}
		if redisCPU, err = s.cpu(ctx); err != nil {
			return m, err
		}
	}
	dir, err := os.MkdirTemp(b.dir, "profiles-")
	if err != nil {
		return m, err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	runs := make([]clock, len(file.paths))
	errs := make([]error, len(file.paths))
	var wait sync.WaitGroup
	for i, path := range file.paths {
		wait.Go(func() { errs[i] = b.runOne(ctx, p, path, filepath.Join(dir, strconv.Itoa(i)), &runs[i]) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return m, fmt.Errorf("%s: %w", p.name, err)
	}
	first, last := runs[0].begin, runs[0].end
	for _, r := range runs {
		if r.begin.Before(first) {
			first = r.begin
		}
		if r.end.After(last) {
			last = r.end
		}
		m.CPU += r.cpu
		m.PeakBytes = max(m.PeakBytes, r.peak)
	}
	m.Elapsed = last.Sub(first)
	if p.redis {
		after, err := b.server.cpu(ctx)
		if err != nil {
			return m, err
		}
		m.RedisCPU = after - redisCPU
	}
	return m, nil
}

type clock struct {
	begin, end time.Time
	cpu        time.Duration
	peak       int64
}

func (b *bench) runOne(ctx context.Context, p pipeline, events, dir string, c *clock) error {
	binary := b.ours
	if p.stock {
		binary = b.stock
	}
	env := []string{
		"EVENTS=" + events,
		"PROFILE_DIR=" + dir,
		"SCHEMA=" + filepath.Join(b.root, "tests/bench/configs/stock_schema.json"),
	}
	if b.server != nil {
		env = append(env, "REDIS_URL="+b.server.url)
	}
	for name, value := range map[string]int{"BATCH": p.batch, "THREADS": p.threads, "CAP": p.cap} {
		if value > 0 {
			env = append(env, fmt.Sprintf("%s=%d", name, value))
		}
	}
	var debug string
	if b.profiles != "" {
		var err error
		if debug, err = process.FreeAddress(); err != nil {
			return err
		}
		env = append(env, "HTTP_ENABLED=true", "HTTP_ADDRESS="+debug)
	}
	var mu sync.Mutex
	var failed string
	opened := make(chan struct{})
	proc, err := b.start(ctx, env, func(line string) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case c.begin.IsZero() && strings.Contains(line, "Input type file is now active"):
			c.begin = time.Now()
			close(opened)
		case strings.Contains(line, "Pipeline has terminated"):
			c.end = time.Now()
		case failed == "" && strings.Contains(line, "level=error"):
			failed = line
		}
	}, binary, "run", "tests/bench/configs/"+p.config)
	if err != nil {
		return err
	}
	if debug != "" {
		go func() {
			select {
			case <-opened:
				b.profile(ctx, p.name, debug)
			case <-ctx.Done():
			}
		}()
	}
	if err := <-proc.done; err != nil {
		return err
	}
	c.cpu, c.peak = proc.cpu(), <-proc.peak
	mu.Lock()
	defer mu.Unlock()
	switch {
	case failed != "":
		return errors.New(failed)
	case c.begin.IsZero() || c.end.IsZero():
		return fmt.Errorf("no sign of beginning and end:\n%s", proc.said())
	}
	return nil
}
