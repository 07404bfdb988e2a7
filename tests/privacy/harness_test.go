package privacy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

const (
	root = "../.."
	// patience is the time limit of conditions that normally hold soon.
	patience = 60 * time.Second
)

// binary builds the distribution once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "privacy")
	if err != nil {
		return "", err
	}
	return process.Build(context.Background(), dir)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil && path != os.Getenv("BIN") {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// streams is the distribution in streams mode.
type streams struct {
	*process.Process
	t    *testing.T
	data string

	engine, collector, api string

	mu sync.Mutex
	// refusals are the error responses, as received.
	refusals []string
}

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// start runs the named streams with environment variables.
func start(t *testing.T, variables map[string]string, names ...string) *streams {
	path, err := binary()
	require.NoError(t, err)
	p := &streams{t: t, data: t.TempDir(), engine: process.AddressFor(t), collector: process.AddressFor(t), api: process.AddressFor(t)}
	p.Process = &process.Process{
		Name: "streams", Binary: path, Dir: root, Log: filepath.Join(t.TempDir(), "log"),
		Args: []string{"streams", "-o", "tests/privacy/testdata/root.yaml"},
		Env:  []string{"HTTP_ADDRESS=" + p.engine, "COLLECTOR_ADDRESS=" + p.collector, "PROFILE_API_ADDRESS=" + p.api, "DATA_DIR=" + p.data},
	}
	for _, name := range names {
		p.Args = append(p.Args, "tests/privacy/testdata/streams/"+name+".yaml")
	}
	for name, value := range variables {
		p.Env = append(p.Env, name+"="+value)
	}
	p.rotate(mark("filetoken"))
	require.NoError(t, os.WriteFile(filepath.Join(p.data, "events.jsonl"), []byte(strings.Join(badEvents(), "\n")), 0o600))
	require.NoError(t, p.Start())
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			text := p.logged()
			t.Logf("the end of the log:\n%s", text[max(0, len(text)-3000):])
		}
	})
	return p
}

// rotate writes the file of tokens, with one token.
func (p *streams) rotate(token string) {
	text := fmt.Sprintf("tokens: [ { name: rotated, sha256: %s, scopes: [ read ] } ]\n", sha(token))
	require.NoError(p.t, os.WriteFile(filepath.Join(p.data, "tokens.yaml"), []byte(text), 0o600))
}

// stop shuts the process down and returns its log.
func (p *streams) stop() string {
	p.Signal(syscall.SIGTERM)
	_ = p.Wait(patience)
	require.Error(p.t, p.Alive(), "the process did not end")
	return p.logged()
}

func (p *streams) logged() string {
	text, err := os.ReadFile(p.Log)
	require.NoError(p.t, err)
	return string(text)
}

// request is a request to the process.
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

// do sends a request and returns status and body of the response, status 0 without
// a response. It keeps error responses in refusals.
func (p *streams) do(r request) (int, string) {
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
	body, _ := io.ReadAll(answer.Body) // a server may close a connection whose request it rejected
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

// metrics returns the metrics of the engine.
func (p *streams) metrics() string {
	status, body := p.do(request{method: "GET", url: "http://" + p.engine + "/metrics"})
	require.Equal(p.t, 200, status)
	return body
}

// eventually waits until a condition holds.
func (p *streams) eventually(condition string, holds func() bool) {
	p.t.Helper()
	require.Eventually(p.t, holds, patience, 20*time.Millisecond, condition)
}

// raw sends bytes that are not valid HTTP, and keeps the response.
func (p *streams) raw(address, text string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
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
