// Package compare measures this project against its budgets and against other
// software for the same work, in one run on one machine, and prints the table.
package compare

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is one run of the harness.
type bench struct {
	root string // root of the project
	dir  string // temporary files

	sizes    sizes
	rows     map[string]bool // empty for all
	profiles string          // folder for profiles of the pipelines, empty for none

	profileSeconds int

	ours, stock, bare string // binaries
	server            *server
	files             map[string]eventFile
	cleanups          []func()

	results *results
}

// sizes are the sizes of a measurement.
type sizes struct {
	rounds    int
	events    int // events of our pipelines
	customers int
	mapped    int // events of those that map every event
	stock     int // events of the alternative, which is slower
	api       int // customers behind the API, with 20 events each
	load      time.Duration
	few, many int // customers of the comparison of memory
	manyEach  int // events each of the many have
	curve     []int
	curveRuns int // events of a run of the curve
	perEvent  int // events of a run with batches of one
}

var full = sizes{
	rounds: 3, events: 1_000_000, customers: 100_000, mapped: 300_000, stock: 150_000,
	api: 10_000, load: 4 * time.Second,
	few: 10_000, many: 1_000_000, manyEach: 2,
	curve: []int{1_000, 100_000, 1_000_000}, curveRuns: 1_000_000, perEvent: 50_000,
}

var short = sizes{
	rounds: 1, events: 50_000, customers: 5_000, mapped: 20_000, stock: 10_000,
	api: 1_000, load: time.Second,
	few: 1_000, many: 20_000, manyEach: 2,
	curve: []int{1_000, 10_000}, curveRuns: 50_000, perEvent: 5_000,
}

// Run measures with the given flags.
func Run(ctx context.Context, args []string) (err error) {
	b := &bench{rows: map[string]bool{}, files: map[string]eventFile{}}
	flag := flag.NewFlagSet("bench", flag.ContinueOnError)
	isShort := flag.Bool("short", false, "small sizes: to check the harness")
	api := flag.Bool("api", false, "measure the profile API instead")
	curve := flag.Bool("curve", false, "measure the curve instead")
	tune := flag.Bool("tune", false, "try settings of the alternative instead")
	docs := flag.Bool("docs", false, "only write the documents from the results")
	rows := flag.String("rows", "", "only these rows, by name, separated by commas")
	rounds := flag.Int("rounds", 0, "number of rounds for medians")
	keep := flag.String("results", "tests/bench/results.json", "file of results; a full run replaces its part of it")
	flag.StringVar(&b.profiles, "profile", "", "folder for a CPU and an allocation profile of each pipeline, which makes them slower")
	flag.IntVar(&b.profileSeconds, "profile-seconds", 3, "duration of CPU profiles; a shorter pipeline gives none")
	if err := flag.Parse(args); err != nil {
		return err
	}
	for name := range strings.SplitSeq(*rows, ",") {
		if name != "" {
			b.rows[name] = true
		}
	}
	b.sizes = full
	if *isShort {
		b.sizes = short
	}
	if *rounds > 0 {
		b.sizes.rounds = *rounds
	}
	if b.root, err = root(); err != nil {
		return err
	}
	path := filepath.Join(b.root, *keep)
	if b.results, err = readResults(path); err != nil {
		return err
	}
	if *docs {
		return b.writeDocs()
	}
	if b.profiles != "" {
		if b.profiles, err = filepath.Abs(b.profiles); err != nil {
			return err
		}
		if err := os.MkdirAll(b.profiles, 0o755); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	b.cleanup(func() { _ = os.RemoveAll(b.dir) })
	defer func() {
		for i := len(b.cleanups) - 1; i >= 0; i-- {
			b.cleanups[i]()
		}
	}()
	// A thousand connections need as many files, here and in child processes.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Max > limit.Cur {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err := b.build(ctx); err != nil {
		return err
	}

	conditions := describe(ctx, b.root, *isShort)
	began := time.Now()
	switch {
	case *api:
		err = b.measureAPI(ctx, conditions)
	case *curve:
		err = b.measureCurve(ctx, conditions)
	case *tune:
		return b.tune(ctx)
	default:
		err = b.measureTable(ctx, conditions)
	}
	if err != nil {
		return err
	}
	b.say("took %s", time.Since(began).Round(time.Second))
	if *isShort || *rows != "" || b.profiles != "" {
		b.say("results not kept: only those of a full run are")
		return nil
	}
	if err := b.results.write(path); err != nil {
		return err
	}
	return b.writeDocs()
}

// root returns the folder of the project.
func root() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", errors.New("run this in the root of the repository: go list -m fails")
	}
	return strings.TrimSpace(string(out)), nil
}

func (b *bench) build(ctx context.Context) error {
	for _, program := range []struct {
		into *string
		name string
		path string
	}{
		{&b.ours, "connect-personalize", "./cmd/connect-personalize"},
		{&b.stock, "stock", "./tests/bench/stock"},
		{&b.bare, "bare", "./tests/bench/bare"},
	} {
		*program.into = filepath.Join(b.dir, program.name)
		if _, err := b.run(ctx, "go", "build", "-trimpath", "-o", *program.into, program.path); err != nil {
			return err
		}
	}
	return nil
}

// cleanup registers a function to call at the end.
func (b *bench) cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

// say prints progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// wants reports whether a row was requested.
func (b *bench) wants(name string) bool { return len(b.rows) == 0 || b.rows[name] }
