package privacy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	root = "../.."
	// patience bounds what must happen soon; nothing waits for it to pass.
	patience = 60 * time.Second
)

// binary builds the distribution, once, unless BIN names it.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("BIN"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "privacy")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "connect-personalize")
	build := exec.Command("go", "build", "-o", path, "./cmd/connect-personalize")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil && path != os.Getenv("BIN") {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is the distribution as an operator runs it, in streams mode.
type process struct {
	t    *testing.T
	data string
	log  logBuffer
	cmd  *exec.Cmd

	engine, collector, api string

	mu sync.Mutex
	// refusals are the answers that were no success, as they arrived.
	refusals []string
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// start runs the streams, with variables for them.
func start(t *testing.T, variables map[string]string, streams ...string) *process {
	path, err := binary()
	require.NoError(t, err)
	p := &process{t: t, data: t.TempDir(), engine: freeAddress(t), collector: freeAddress(t), api: freeAddress(t)}
	args := []string{"streams", "-o", "tests/privacy/testdata/root.yaml"}
	for _, name := range streams {
		args = append(args, "tests/privacy/testdata/streams/"+name+".yaml")
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir = root
	p.cmd.Env = append(os.Environ(), "HTTP_ADDRESS="+p.engine, "COLLECTOR_ADDRESS="+p.collector, "PROFILE_API_ADDRESS="+p.api, "DATA_DIR="+p.data)
	for name, value := range variables {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.rotate(mark("filetoken"))
	require.NoError(t, os.WriteFile(filepath.Join(p.data, "events.jsonl"), []byte(strings.Join(badEvents(), "\n")), 0o600))
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if t.Failed() {
			text := p.log.String()
			t.Logf("the end of the log:\n%s", text[max(0, len(text)-3000):])
		}
	})
	return p
}

// rotate writes the file of tokens.
func (p *process) rotate(token string) {
	text := fmt.Sprintf("tokens: [ { name: rotated, sha256: %s, scopes: [ read ] } ]\n", sha(token))
	require.NoError(p.t, os.WriteFile(filepath.Join(p.data, "tokens.yaml"), []byte(text), 0o600))
}

// stop ends the process in order, and returns all it logged.
func (p *process) stop() string {
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	done := make(chan struct{})
	go func() {
		_ = p.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		p.t.Error("the process did not end")
	}
	return p.log.String()
}

// request is one that is sent to the process.
type request struct {
	method, url, body string
	header            http.Header
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// do sends a request and returns the status and the body of the answer, 0 if
// there is none. It keeps refusals.
func (p *process) do(r request) (int, string) {
	req, err := http.NewRequest(r.method, r.url, strings.NewReader(r.body))
	require.NoError(p.t, err)
	for name, values := range r.header {
		req.Header[name] = values
	}
	if r.body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return 0, ""
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body) // a server may close what it refused to read
	if answer.StatusCode >= 400 {
		var text strings.Builder
		fmt.Fprintf(&text, "%s %d\n", r.method, answer.StatusCode)
		require.NoError(p.t, answer.Header.Write(&text))
		p.mu.Lock()
		p.refusals = append(p.refusals, text.String()+string(body))
		p.mu.Unlock()
	}
	return answer.StatusCode, string(body)
}

// metrics returns what the engine exports.
func (p *process) metrics() string {
	status, body := p.do(request{method: "GET", url: "http://" + p.engine + "/metrics"})
	require.Equal(p.t, 200, status)
	return body
}

// eventually waits until something holds.
func (p *process) eventually(what string, holds func() bool) {
	p.t.Helper()
	require.Eventually(p.t, holds, patience, 20*time.Millisecond, what)
}

// raw sends bytes that no client would, and keeps what is answered.
func (p *process) raw(address, text string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(io.LimitReader(conn, 1<<20))
	p.mu.Lock()
	p.refusals = append(p.refusals, string(answer))
	p.mu.Unlock()
}
