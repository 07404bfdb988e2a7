package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
	"github.com/connect-personalize/connect-personalize/tests/process"
)

// program runs connect-personalize.
type program struct {
	dir    string // of the files of this run
	binary string
}

// env returns the environment with the paths of this run.
func (p *program) env() []string {
	return []string{
		"EVENTS=" + p.path("events.jsonl"), "PROFILE_DIR=" + p.path("profiles"), "OUT=" + p.path("accepted.jsonl"),
		"DEAD_LETTERS=" + p.path("dead_letters.jsonl"), "QUALITY_REPORT=" + p.path("quality.jsonl"),
		"AUDIT_SOURCE=" + p.path("source.csv"), "AUDIT_REPORT=" + p.path("audit.jsonl"),
	}
}

type command struct {
	*exec.Cmd
	out *bytes.Buffer
}

func (p *program) command(ctx context.Context, name string, args ...string) command {
	c := command{exec.CommandContext(ctx, name, args...), &bytes.Buffer{}}
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 20 * time.Second
	c.Stdout, c.Stderr = c.out, c.out
	c.Env = append(os.Environ(), p.env()...)
	return c
}

func (c command) run() error {
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, c.out)
	}
	return nil
}

func (p *program) pipeline(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return p.command(ctx, p.binary, "-c", "tests/dirtyday/dirty_day.yaml").run()
}

// outputs are what the pipeline left.
type outputs struct {
	accepted [][]byte
	dead     []letter
	reports  []expectations.Report
}

// letter is a dead letter.
type letter struct {
	Stage   string `json:"stage"`
	Reasons []struct {
		Rule string `json:"rule"`
	} `json:"reasons"`
	Original       string `json:"original"`
	OriginalBase64 []byte `json:"original_base64"`
}

func (l *letter) bytes() string {
	if l.OriginalBase64 != nil {
		return string(l.OriginalBase64)
	}
	return l.Original
}

func (p *program) read() (out outputs, err error) {
	for name, fn := range map[string]func(line []byte) error{
		"accepted.jsonl": func(line []byte) error { out.accepted = append(out.accepted, bytes.Clone(line)); return nil },
		"dead_letters.jsonl": func(line []byte) error {
			var l letter
			err := json.Unmarshal(line, &l)
			out.dead = append(out.dead, l)
			return err
		},
		"quality.jsonl": func(line []byte) error {
			var r expectations.Report
			err := json.Unmarshal(line, &r)
			out.reports = append(out.reports, r)
			return err
		},
	} {
		if err := eachLine(p.path(name), fn); err != nil {
			return out, err
		}
	}
	return out, nil
}

func eachLine(path string, fn func(line []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if err := fn(lines.Bytes()); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
	return lines.Err()
}

// auditReport is a line of the audit's report.
type auditReport struct {
	Error     string `json:"error"`
	Customers int    `json:"customers"`
	Sampled   int    `json:"sampled"`
	Agreeing  int    `json:"agreeing"`
}

// audit serves the profiles and compares them with the source, by the shipped
// configs.
func (p *program) audit(ctx context.Context) (r auditReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	address, err := process.FreeAddress()
	if err != nil {
		return r, err
	}
	api := &process.Process{
		Name: "the profile API", Binary: p.binary, Config: "configs/api.yaml", Log: p.path("api.log"),
		Env: append(p.env(), "PROFILE_API_ADDRESS="+address, "HTTP_ADDRESS=127.0.0.1:0", "PROFILE_DEFINITION=./configs/retail/profile.yaml"),
	}
	if err := api.Start(); err != nil {
		return r, err
	}
	defer func() {
		api.Signal(syscall.SIGINT)
		_ = api.Wait(20 * time.Second)
		api.Kill()
	}()
	if err := api.Serves(ctx, "http://"+address+"/readyz"); err != nil {
		return r, err
	}
	audit := p.command(ctx, p.binary, "-c", "configs/audit.yaml")
	audit.Env = append(audit.Env, "PROFILE_API=http://"+address, "HTTP_ADDRESS=127.0.0.1:0", "AUDIT_SCHEDULE=1s", "AUDIT_RUNS=1")
	if err := audit.run(); err != nil {
		return r, err
	}
	err = eachLine(p.path("audit.jsonl"), func(line []byte) error { return json.Unmarshal(line, &r) })
	if err == nil && r.Error != "" {
		err = fmt.Errorf("the audit: %s", r.Error)
	}
	return r, err
}
