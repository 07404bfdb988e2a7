// Package process starts, kills and watches the programs under test and the
// services that they need.
package process

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
	"testing"
	"time"
)

// Build builds the program into a folder, with build tags if there are any, and
// returns its path. Without tags, the environment variable BIN replaces the build
// with the path of a program.
func Build(ctx context.Context, dir string, tags ...string) (string, error) {
	if path := os.Getenv("BIN"); path != "" && len(tags) == 0 {
		// Stat makes the test cache depend on the program.
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("BIN: %w", err)
		}
		return path, nil
	}
	binary := filepath.Join(dir, "connect-personalize")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-tags", strings.Join(tags, ","), "-o", binary, "github.com/connect-personalize/connect-personalize/cmd/connect-personalize")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building: %w", err)
	}
	return binary, nil
}

// Process is a program under test, which can be started and killed repeatedly. Set
// its fields before the first start.
type Process struct {
	Name   string
	Binary string
	Config string
	// Args are its arguments; by default those that run Config.
	Args []string
	// Dir is its working directory; by default that of the test.
	Dir string
	// Env is added to the environment of the test.
	Env []string
	// HTTP is the engine's address, which Ready polls.
	HTTP string
	// Log is the file to which its output is appended.
	Log string

	mu     sync.Mutex
	starts int
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd has ended
	err    error
}

// Start runs the program.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	args := p.Args
	if len(args) == 0 {
		args = []string{"-c", p.Config}
	}
	cmd := exec.Command(p.Binary, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Dir, append(os.Environ(), p.Env...), log, log
	// A signal to the suite must not reach the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done, p.starts = cmd, done, p.starts+1
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// Starts returns the number of starts.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// Signal sends a signal if the process runs.
func (p *Process) Signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs() {
		_ = p.cmd.Process.Signal(s)
	}
}

// Kill sends SIGKILL, which also ends a stopped process, and waits for its end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	_ = p.Wait(10 * time.Second)
}

// Wait returns the error with which the process ended, or one if it still runs after
// the timeout.
func (p *Process) Wait(timeout time.Duration) error {
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
		return fmt.Errorf("%s did not end within %v", p.Name, timeout)
	}
}

// runs reports whether the process runs. The caller holds the lock.
func (p *Process) runs() bool {
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

// Alive returns an error if the process has ended, with the end of its log.
func (p *Process) Alive() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runs() {
		return fmt.Errorf("%s ended by itself: %s", p.Name, p.Tail())
	}
	return nil
}

// Ready waits until the inputs and outputs are connected.
func (p *Process) Ready(ctx context.Context) error { return p.Serves(ctx, "http://"+p.HTTP+"/ready") }

// Serves waits until a URL of the process returns 200.
func (p *Process) Serves(ctx context.Context, url string) error {
	return Until(ctx, p.Name+" to be ready", time.Minute, 50*time.Millisecond, func() (bool, error) {
		return answers(ctx, url), p.Alive()
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

// Tail returns the last lines of the log.
func (p *Process) Tail() string {
	text, _ := os.ReadFile(p.Log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// Logged counts the occurrences of a text in the log from an offset on.
func (p *Process) Logged(from int, text string) int {
	raw, _ := os.ReadFile(p.Log)
	return bytes.Count(raw[min(from, len(raw)):], []byte(text))
}

// LogSize returns the present size of the log.
func (p *Process) LogSize() int {
	info, err := os.Stat(p.Log)
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// ID returns the process id, 0 before the first start.
func (p *Process) ID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Memory returns the resident bytes of a process, 0 where unknown.
func Memory(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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

// CPU returns the processor time of a process, 0 where unknown.
func CPU(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is a name in parentheses, which may contain spaces.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const user, system = 11, 12
	if len(fields) <= system {
		return 0
	}
	const tick = time.Second / 100
	var sum time.Duration
	for _, field := range fields[user : system+1] {
		n, _ := strconv.ParseInt(field, 10, 64)
		sum += time.Duration(n) * tick
	}
	return sum
}

// FreeAddress returns a free loopback address. Its port is below those that the
// kernel assigns to clients, as a client could take the port while a killed process
// restarts.
func FreeAddress() (string, error) {
	taken.Lock()
	defer taken.Unlock()
	for port := 27000 + os.Getpid()%3000; port < 32000; port++ {
		if taken.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		taken.ports[port] = true
		return l.Addr().String(), l.Close()
	}
	return "", errors.New("no free port")
}

// AddressFor is FreeAddress in a test.
func AddressFor(t testing.TB) string {
	t.Helper()
	address, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

var taken = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// Until calls a function, with pauses, until it returns true or an error.
func Until(ctx context.Context, condition string, timeout, pause time.Duration, check func() (bool, error)) error {
	deadline := time.Now().Add(timeout)
	for {
		ok, err := check()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v in vain for %s", timeout, condition)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Service runs one of the scripts of tests/services and returns what it prints.
func Service(ctx context.Context, script string, args ...string) (string, error) {
	ctx, done := context.WithTimeout(ctx, 5*time.Minute)
	defer done()
	cmd := exec.CommandContext(ctx, "tests/services/"+script, args...)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	// The started services keep the standard error open.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return "", fmt.Errorf("%s %s: %w: %s", script, strings.Join(args, " "), err, messages.String())
	}
	return strings.TrimSpace(out.String()), nil
}
