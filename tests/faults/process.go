package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one of ours under test.
type process struct {
	name   string
	config string
	env    []string
	http   string // the engine's own address
	log    string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	err  error
}

// plant starts processes and ends those that are left.
type plant struct {
	binary string
	dir    string // for logs
	env    []string
	all    []*process
}

func (p *plant) process(name, config string, env ...string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	proc := &process{
		name: name, config: config, http: address, log: filepath.Join(p.dir, name+".log"),
		env: append(append(append(os.Environ(), p.env...), "HTTP_ADDRESS="+address), env...),
	}
	p.all = append(p.all, proc)
	return proc, nil
}

func (p *plant) stop() {
	for _, proc := range p.all {
		proc.signal(syscall.SIGCONT)
		proc.signal(syscall.SIGKILL)
		proc.wait(5 * time.Second)
	}
}

// freeAddress keeps below the ports that the kernel gives to clients, which a
// process that was killed could find taken when it starts again.
func freeAddress() (string, error) {
	for port := 27000 + os.Getpid()%3000; port < 32000; port++ {
		if taken[port] {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		taken[port] = true
		return l.Addr().String(), l.Close()
	}
	return "", errors.New("no free port")
}

var taken = map[int]bool{}

func (p *plant) start(proc *process) error {
	log, err := os.OpenFile(proc.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.binary, "-c", proc.config)
	cmd.Env, cmd.Stdout, cmd.Stderr = proc.env, log, log
	// A signal to the suite is for the suite to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	proc.mu.Lock()
	proc.cmd, proc.done = cmd, done
	proc.mu.Unlock()
	go func() {
		err := cmd.Wait()
		proc.mu.Lock()
		proc.err = err
		proc.mu.Unlock()
		close(done)
	}()
	return nil
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(s)
	}
}

// wait tells how the process ended, if it did in time.
func (p *process) wait(timeout time.Duration) error {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-time.After(timeout):
		return fmt.Errorf("%s did not end within %v", p.name, timeout)
	}
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ready waits until the inputs and outputs are connected.
func (p *process) ready(ctx context.Context) error {
	return poll(ctx, time.Minute, p.name+" to be ready", func() (bool, error) {
		if !p.running() {
			return false, fmt.Errorf("%s ended: %s", p.name, p.tail())
		}
		return answers(ctx, "http://"+p.http+"/ready"), nil
	})
}

func answers(ctx context.Context, url string) bool {
	ctx, done := context.WithTimeout(ctx, time.Second)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// logged counts the lines of the log, from a place on, that hold a text.
func (p *process) logged(from int, text string) int {
	raw, _ := os.ReadFile(p.log)
	return bytes.Count(raw[min(from, len(raw)):], []byte(text))
}

func (p *process) logSize() int {
	info, err := os.Stat(p.log)
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// memory returns the resident bytes of the process, 0 where unknown.
func (p *process) memory() int64 {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// poll asks until the answer is yes.
func poll(ctx context.Context, timeout time.Duration, what string, ask func() (bool, error)) error {
	deadline := time.Now().Add(timeout)
	for {
		ok, err := ask()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v in vain for %s", timeout, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// script runs one of tests/services and returns what it prints.
func script(ctx context.Context, name string, args ...string) (string, error) {
	ctx, done := context.WithTimeout(ctx, 5*time.Minute)
	defer done()
	cmd := exec.CommandContext(ctx, "tests/services/"+name, args...)
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	// What it starts keeps its standard error.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, trouble.String())
	}
	return strings.TrimSpace(out.String()), nil
}
