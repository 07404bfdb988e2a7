// Command dirtyday proves that no event is dropped silently. It generates a day of
// the synthetic shop, injects faults of 22 kinds into a twentieth of the events,
// runs them through validation, cleaning, expectations and profiles with the real
// program, and accounts for every event. A faulty event must be in the dead letters
// with its reason, be corrected, or fail an expectation in the quality report of its
// hour. A valid event must pass unchanged. An audit must find profiles equal to the
// sums over the valid events.
//
//	go run ./tests/dirtyday            the day, as `make check SUITE=dirty-day` runs it
//	go run ./tests/dirtyday -events 20000 -keep /tmp/day
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	events := flag.Int("events", 60_000, "number of events of the day")
	seed := flag.Uint64("seed", 1, "seed of the day and its faults")
	keep := flag.String("keep", "", "folder to keep the files of the day in")
	flag.Parse()
	if err := run(ctx, *events, *seed, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "dirtyday:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, events int, seed uint64, dir string) (err error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return errors.New("run it in the project's folder: go list -m fails")
	}
	var p program
	if dir == "" {
		if p.dir, err = os.MkdirTemp("", "dirtyday-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(p.dir) }()
	} else if p.dir, err = filepath.Abs(dir); err != nil {
		return err
	} else if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	// Paths in the configs are relative to the root.
	if err := os.Chdir(strings.TrimSpace(string(root))); err != nil {
		return err
	}
	d, err := makeDay(events, seed)
	if err != nil {
		return err
	}
	if err := d.write(p.path("events.jsonl")); err != nil {
		return err
	}
	fmt.Printf("generated a day of %d events, %d of them with faults (%.1f%%) of %d kinds\n",
		len(d.events), d.faulty(), 100*float64(d.faulty())/float64(len(d.events)), len(kinds))

	if p.binary, err = process.Build(ctx, p.dir); err != nil {
		return err
	}
	began := time.Now()
	if err := p.pipeline(ctx); err != nil {
		return err
	}
	fmt.Printf("the pipeline took %.1f s\n", time.Since(began).Seconds())
	out, err := p.read()
	if err != nil {
		return err
	}
	a := d.account(out)
	if err := d.writeSource(p.path("source.csv")); err != nil {
		return err
	}
	audit, err := p.audit(ctx)
	if err != nil {
		return err
	}
	a.audit(audit)
	return a.report(os.Stdout)
}

// path returns the path of a file of this run.
func (p *program) path(name string) string { return filepath.Join(p.dir, name) }
