package compare

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// command is a running command, with its peak memory.
type command struct {
	cmd  *exec.Cmd
	name string

	mu   sync.Mutex
	tail []string

	peak chan int64 // gives the peak of resident memory once it has ended
	done chan error
}

// start runs a command in the root of the project. Each line it prints goes to
// lines, if that is not nil.
func (b *bench) start(ctx context.Context, env []string, lines func(string), line ...string) (*command, error) {
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	p := &command{cmd: cmd, name: filepath.Base(line[0]), peak: make(chan int64, 1), done: make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go p.read(out, lines)
	ended := make(chan struct{})
	go func() { p.peak <- watchMemory(cmd.Process.Pid, ended) }()
	go func() {
		err := cmd.Wait()
		close(ended)
		_ = in.Close()
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s", p.name, err, p.said())
		}
		p.done <- err
	}()
	return p, nil
}

func (p *command) read(out io.Reader, lines func(string)) {
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		p.mu.Lock()
		p.tail = append(p.tail, line)
		if len(p.tail) > 20 {
			p.tail = p.tail[1:]
		}
		p.mu.Unlock()
		if lines != nil {
			lines(line)
		}
	}
}

// said is the last of what the process printed.
func (p *command) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}

// stop asks the process to end and waits until it has.
func (p *command) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// cpu is the processor time of a process that has ended.
func (p *command) cpu() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// watchMemory returns the peak of the resident memory in bytes. The kernel's value at
// the end (ru_maxrss) includes the memory of the parent.
func watchMemory(pid int, ended <-chan struct{}) (peak int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, rest, ok := bytes.Cut(status, []byte("VmHWM:")); ok {
			if fields := bytes.Fields(rest); len(fields) > 0 {
				if kib, err := strconv.ParseInt(string(fields[0]), 10, 64); err == nil {
					peak = max(peak, kib<<10)
				}
			}
		}
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
	}
}

// run runs a command to its end and gives what it prints.
func (b *bench) run(ctx context.Context, command ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "SERVICES_DIR="+filepath.Join(b.dir, "services"))
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s%s", strings.Join(command, " "), err, out, stderr.Bytes())
	}
	return out, nil
}

// need installs a Debian package where a command is missing.
func (b *bench) need(ctx context.Context, command, pkg string) error {
	if _, err := exec.LookPath(command); err == nil {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s is not installed; install the package %s", command, pkg)
	}
	b.say("installing %s", pkg)
	// The package must not start a service of its own.
	const policy = "/usr/sbin/policy-rc.d"
	if f, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755); err == nil {
		_, err = f.WriteString("#!/bin/sh\nexit 101\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		defer func() { _ = os.Remove(policy) }()
	}
	install := []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends", pkg}
	if _, err := b.run(ctx, install...); err == nil {
		return nil
	}
	if _, err := b.run(ctx, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	_, err := b.run(ctx, install...)
	return err
}

// waitFor calls ready until it succeeds or the process ends.
func (p *command) waitFor(ready func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case ended := <-p.done:
			p.done <- ended
			return fmt.Errorf("%s ended: %v\n%s", p.name, ended, p.said())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, p.said())
		}
	}
}
