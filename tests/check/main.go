// Command check runs suites and prints their results in a table at the end. It
// exits with 1 if a suite fails. Run it in the root of the repository as
//
//	make check SUITE=simulate,soak DAYS=2 FOR=10s
//	make check                                        # lists the suites
//	go run ./tests/check -short -install all          # as CI does
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	short := flag.Bool("short", false, "run the short form of the suites")
	install := flag.Bool("install", false, "install missing tools with apt-get")
	flag.Parse()
	if flag.NArg() != 1 || flag.Arg(0) == "" {
		list(os.Stdout)
		return
	}
	chosen, err := choose(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var results []result
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		r := s.check(ctx, *short, *install)
		r.required = flag.Arg(0) != "all"
		results = append(results, r)
	}
	if !report(os.Stdout, results) || ctx.Err() != nil {
		os.Exit(1)
	}
}

// list prints the suites.
func list(w io.Writer) {
	fmt.Fprintln(w, "make check SUITE=name[,name...] runs suites, SUITE=all all of them. SHORT=1 runs their short form.")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range suites {
		var settings []string
		for _, v := range s.settings {
			settings = append(settings, v.name+"="+v.full)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", s.name, s.proves, strings.Join(settings, " "))
	}
	t.Flush()
}

// choose returns the suites of a comma-separated list of names.
func choose(names string) ([]suite, error) {
	if names == "all" {
		return suites, nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no suite %q; run make check for the list", name)
		}
		chosen = append(chosen, suites[i])
	}
	return chosen, nil
}

type outcome string

const (
	passed  outcome = "ok"
	failed  outcome = "FAILED"
	skipped outcome = "skipped"
)

// skipCode is the exit code of a command that lacks its input.
const skipCode = 77

type result struct {
	suite    string
	outcome  outcome
	took     time.Duration
	detail   string
	required bool // named by the caller: skipping it is a failure
}

// check runs a suite and streams its output.
func (s *suite) check(ctx context.Context, short, install bool) result {
	began := time.Now()
	command := s.run
	if short && s.short != "" {
		command = s.short
	}
	fmt.Printf("\n=== %s: %s\n", s.name, command)
	r := result{suite: s.name, outcome: failed}
	if err := s.provide(ctx, install); err != nil {
		r.detail = err.Error()
		fmt.Println(r.detail)
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.minutes)*time.Minute)
	defer cancel()
	cmd := shell(ctx, command)
	cmd.Env = append(os.Environ(), s.environment(short)...)
	last := &lastLine{}
	cmd.Stdout = io.MultiWriter(os.Stdout, last)
	cmd.Stderr = io.MultiWriter(os.Stderr, last)
	err := cmd.Run()
	r.took, r.detail = time.Since(began), last.String()
	var exit *exec.ExitError
	switch {
	case err == nil:
		r.outcome = passed
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.detail = fmt.Sprintf("took longer than %d minutes", s.minutes)
	case errors.As(err, &exit) && exit.ExitCode() == skipCode:
		r.outcome = skipped
	case r.detail == "":
		r.detail = err.Error()
	}
	return r
}

// environment returns the settings that the caller's environment lacks.
func (s *suite) environment(short bool) (env []string) {
	for _, v := range s.settings {
		if os.Getenv(v.name) != "" {
			continue
		}
		value := v.full
		if short {
			value = v.short
		}
		env = append(env, v.name+"="+value)
	}
	return env
}

// provide finds the tools of a suite, and installs the missing ones if it may.
func (s *suite) provide(ctx context.Context, install bool) error {
	for _, name := range s.needs {
		tool := tools[name]
		if shell(ctx, tool.probe+" >/dev/null 2>&1").Run() == nil {
			continue
		}
		if !install {
			return fmt.Errorf("needs %s: apt-get install %s", name, tool.deb)
		}
		get := shell(ctx, "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "+tool.deb)
		if out, err := get.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get install %s: %w: %s", tool.deb, err, out)
		}
	}
	return nil
}

// shell returns a command whose children end with it.
func shell(ctx context.Context, command string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-e", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// SIGTERM first: suites stop the services they started.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// lastLine keeps the last line that is not blank.
type lastLine struct{ pending, last []byte }

func (l *lastLine) Write(p []byte) (int, error) {
	l.pending = append(l.pending, p...)
	scan := bufio.NewScanner(strings.NewReader(string(l.pending)))
	scan.Buffer(nil, len(l.pending)+1)
	for scan.Scan() {
		if line := strings.TrimSpace(scan.Text()); line != "" {
			l.last = []byte(line)
		}
	}
	if i := strings.LastIndexByte(string(l.pending), '\n'); i >= 0 {
		l.pending = append(l.pending[:0], l.pending[i+1:]...)
	}
	return len(p), nil
}

func (l *lastLine) String() string {
	const width = 110
	text := []rune(string(l.last))
	if len(text) > width {
		return string(text[:width-1]) + "…"
	}
	return string(text)
}

// report prints the table of results and reports whether no suite failed.
func report(w io.Writer, results []result) bool {
	ok := true
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "suite\tresult\tseconds\tlast line")
	for _, r := range results {
		if r.outcome == failed || r.outcome == skipped && r.required {
			ok = false
		}
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%s\n", r.suite, r.outcome, r.took.Seconds(), r.detail)
	}
	t.Flush()
	return ok
}
