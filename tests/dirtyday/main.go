// Command dirtyday proves that nothing is thrown away silently: it makes up a
// day of the synthetic shop, injects faults of 22 kinds into a twentieth of its
// events, runs them through validation, cleaning, expectations and profiles by
// the real program, and accounts for every event. A fault must be in the dead
// letters with its reason, corrected, or in the quality report of its hour; a
// valid event must come through as it was; and an audit must find the profiles
// to be exactly what the events that count add up to.
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
	events := flag.Int("events", 60_000, "how many events the day has")
	seed := flag.Uint64("seed", 1, "chooses the day and its faults")
	keep := flag.String("keep", "", "a folder to leave the day's files in")
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
	// The configs name files from there.
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
	fmt.Printf("made a day of %d events, %d of them faulty (%.1f%%), of %d kinds\n",
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

// path of a file of this run.
func (p *program) path(name string) string { return filepath.Join(p.dir, name) }
