// Package process starts, kills and watches the programs that suites test, and
// the services they need.
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
// returns its path.
func Build(ctx context.Context, dir string, tags ...string) (string, error) {
	binary := filepath.Join(dir, "connect-personalize")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", binary, "github.com/connect-personalize/connect-personalize/cmd/connect-personalize")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building: %w", err)
	}
	return binary, nil
}

// Process is one program under test, which is started, killed and started again
// at will. Set its fields before.
type Process struct {
	Name   string
	Binary string
	Config string
	// Args are its arguments, those that run Config if there are none.
	Args []string
	// Dir is the folder it runs in, ours if it is empty.
	Dir string
	// Env is what it finds in its environment besides ours.
	Env []string
	// HTTP is the engine's own address, where Ready asks.
	HTTP string
	// Log is the file that what it writes is added to.
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
	// A signal to the suite is for the suite to handle.
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

// Starts is how often it was started.
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

// Kill ends the process without a warning, also one that is stopped, and waits
// until it is gone.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	_ = p.Wait(10 * time.Second)
}

// Wait tells how the process ended, if it did in time.
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

// runs is for whoever holds the lock.
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

// Serves waits until a URL that the process serves answers.
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

// Tail is the end of the log.
func (p *Process) Tail() string {
	text, _ := os.ReadFile(p.Log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// Logged counts how often a text is in the log from a place on.
func (p *Process) Logged(from int, text string) int {
	raw, _ := os.ReadFile(p.Log)
	return bytes.Count(raw[min(from, len(raw)):], []byte(text))
}

// LogSize is the place where the log ends now.
func (p *Process) LogSize() int {
	info, err := os.Stat(p.Log)
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// ID is the id of the process, 0 before it was started.
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

// CPU returns the time that a process has had of processors, 0 where unknown.
func CPU(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is a name in parentheses, which may hold anything.
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

// FreeAddress returns a loopback address that nobody listens on, below the
// ports that the kernel gives to clients, which a process that was killed could
// find taken when it starts again.
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

// Until asks, with pauses, until the answer is yes, and ends at an error.
func Until(ctx context.Context, what string, timeout, pause time.Duration, ask func() (bool, error)) error {
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
		case <-time.After(pause):
		}
	}
}

// Service runs one of the scripts of tests/services and returns what it prints.
func Service(ctx context.Context, script string, args ...string) (string, error) {
	ctx, done := context.WithTimeout(ctx, 5*time.Minute)
	defer done()
	cmd := exec.CommandContext(ctx, "tests/services/"+script, args...)
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	// What it starts keeps its standard error.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return "", fmt.Errorf("%s %s: %w: %s", script, strings.Join(args, " "), err, trouble.String())
	}
	return strings.TrimSpace(out.String()), nil
}
