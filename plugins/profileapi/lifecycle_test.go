package profileapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

func TestReadsOnlyPipelineStops(t *testing.T) {
	s := run(t, withProfiles("c1"), "", func(context.Context, *service.Message) error { return nil })
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status)
	require.Equal(t, 1, strings.Count(s.log.String(), "Listening on http://127.0.0.1:"))
	require.NoError(t, s.stop())
	_, err := s.try("GET", "/api/customer/c1", "")
	require.Error(t, err)
}

// A read under way when the pipeline stops is answered; the process says
// meanwhile that it is not ready, and takes no writes.
func TestGracefulClose(t *testing.T) {
	f := withProfiles("c1", "slow")
	entered, release := make(chan struct{}), make(chan struct{})
	f.onRead = func(_ context.Context, ids []string) error {
		if ids[0] == "slow" {
			close(entered)
			<-release
		}
		return nil
	}
	s := serve(t, f, "")
	slow := make(chan answer, 1)
	go func() {
		a, _ := s.try("GET", "/api/customer/slow", "")
		slow <- a
	}()
	<-entered

	// The engine cancels the read first, and closes when all is settled.
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() {
		_, _, err := s.ReadBatch(ctx)
		stopped <- err
	}()
	cancel()
	require.ErrorIs(t, <-stopped, context.Canceled)
	require.Equal(t, 503, s.do(t, "GET", "/readyz", "").status)
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status)
	got := s.do(t, "PATCH", "/api/customer/c1/traits", "{}", jsonBody)
	require.Equal(t, 503, got.status)
	require.Equal(t, "stopping", got.code(t))
	require.Equal(t, "5", got.header.Get("Retry-After"))

	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, patience, time.Millisecond, "no further connections are accepted")
	select {
	case <-closed:
		t.Fatal("closed with a request under way")
	default:
	}
	close(release)
	require.Equal(t, 200, (<-slow).status)
	require.NoError(t, <-closed)
	require.NoError(t, s.Close(context.Background()), "closing twice is no error")
}

func TestCloseCancelsSlowRequests(t *testing.T) {
	f := withProfiles("slow")
	entered, release := make(chan struct{}), make(chan struct{})
	f.onRead = func(context.Context, []string) error {
		close(entered)
		<-release
		return nil
	}
	s := serve(t, f, "timeouts: { close: 20ms }")
	cut := make(chan error, 1)
	go func() {
		_, err := s.try("GET", "/api/customer/slow", "")
		cut <- err
	}()
	<-entered
	require.NoError(t, s.Close(context.Background()))
	require.Error(t, <-cut)
	require.Contains(t, s.log.String(), "were canceled")
	close(release)
}

// A write the engine took but dropped when it stopped is not confirmed.
func TestCloseReleasesUnsettledWrites(t *testing.T) {
	s := serve(t, withProfiles(), "")
	done := make(chan answer, 1)
	go func() {
		a, _ := s.try("PATCH", "/api/customer/c1/traits", "{}", jsonBody)
		done <- a
	}()
	_, _, err := s.ReadBatch(context.Background())
	require.NoError(t, err)
	require.NoError(t, s.Close(context.Background()))
	got := <-done
	require.Equal(t, 503, got.status)
	require.Equal(t, "stopping", got.code(t))
}

// Writes under way when the pipeline is asked to stop are settled first.
func TestStopSettlesWrites(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := run(t, withProfiles(), "", func(context.Context, *service.Message) error {
		close(entered)
		<-release
		return nil
	})
	done := make(chan answer, 1)
	go func() {
		a, _ := s.try("PATCH", "/api/customer/c1/traits", "{}", jsonBody)
		done <- a
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	require.Eventually(t, func() bool {
		return s.do(t, "GET", "/readyz", "").status == 503
	}, patience, time.Millisecond)
	close(release)
	require.Equal(t, 202, (<-done).status)
	require.NoError(t, <-stopped)
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	in, err := newTestInput(t, withProfiles(), "address: "+taken.Addr().String())
	require.NoError(t, err)
	err = in.Connect(context.Background())
	require.ErrorContains(t, err, "cannot listen on "+taken.Addr().String()+": another process listens there")
	require.NoError(t, in.Close(context.Background()))
}

func TestFailedListenerIsReopened(t *testing.T) {
	in, err := newTestInput(t, withProfiles("c1"), "address: 127.0.0.1:0")
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	in.serve(ln)
	require.NoError(t, ln.Close())
	_, _, err = in.ReadBatch(context.Background())
	require.ErrorIs(t, err, service.ErrNotConnected)
	require.NoError(t, in.Connect(context.Background()))
	require.NoError(t, in.Close(context.Background()))
}

// rawRequest sends bytes and returns what comes back until the server closes
// the connection.
func rawRequest(t *testing.T, s *server, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, text)
	require.NoError(t, err)
	answer, err := io.ReadAll(c)
	require.NoError(t, err, "the server did not close the connection")
	return string(answer)
}

func TestSlowClients(t *testing.T) {
	s := serve(t, withProfiles("c1"), "timeouts: { header: 30ms, read: 60ms, idle: 50ms }")
	require.NotContains(t, rawRequest(t, s, "GET /api/cust"), " 200 ")
	require.NotContains(t, rawRequest(t, s, "GET /api/customer/c1 HTTP/1.1\r\nHost: localhost\r\nA: "), " 200 ")
	require.Contains(t, rawRequest(t, s, "GET /api/customer/c1 HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 200 ", "answered, then closed as idle")
	answer := rawRequest(t, s, "POST /api/customers/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{")
	require.Contains(t, answer, "HTTP/1.1 408 ")
	require.Contains(t, answer, "body_too_slow")
}

func TestSlowReaderIsDisconnected(t *testing.T) {
	f := withProfiles("c1")
	f.profiles["c1"] = `{"id":"c1","traits":{"a":"` + strings.Repeat("x", 32<<20) + `"}}`
	s := serve(t, f, "timeouts: { write: 60ms, request: 50ms }")
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	_, err = io.WriteString(c, "GET /api/customer/c1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	// The client reads nothing: the request must end all the same.
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		return s.server.Shutdown(ctx) == nil
	}, patience, time.Millisecond)
}

func TestLargeHeaders(t *testing.T) {
	s := serve(t, withProfiles("c1"), "limits: { header_bytes: 1000 }")
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	_, err = io.WriteString(c, "GET /api/customer/c1 HTTP/1.1\r\nHost: localhost\r\nA: "+strings.Repeat("x", 8000)+"\r\n\r\n")
	require.NoError(t, err)
	status, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, status, "HTTP/1.1 431 ")
}

func TestPanicAbortsOneRequest(t *testing.T) {
	f := withProfiles("c1")
	f.onRead = func(context.Context, []string) error { panic("customer c1 is odd") }
	s := serve(t, f, "")
	_, err := s.try("GET", "/api/customer/c1", "")
	require.Error(t, err)
	require.Contains(t, s.log.String(), "A request to customer panicked with a string")
	require.NotContains(t, s.log.String(), "is odd")
	f.set(func() { f.onRead = nil })
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status)
}

// The failure and the recovery of the store are logged once each, without data of
// requests.
func TestLogsContainNoPersonalData(t *testing.T) {
	const id = "jo@example.com"
	f := withProfiles(id)
	s := run(t, f, "", func(context.Context, *service.Message) error { return errors.New("refused") })
	secretly := func() {
		for range 3 {
			s.do(t, "GET", "/api/customer/"+id, "", "Authorization: Bearer hunter2")
			s.do(t, "POST", "/api/customers/batch", `{"ids":["`+id+`"]}`, jsonBody)
			s.do(t, "GET", "/api/customer/"+id+"?as_of="+id, "")
			s.do(t, "PATCH", "/api/customer/"+id+"/traits", `{"phone":"555-1234"}`, jsonBody)
		}
		rawRequest(t, s.server, "GET /"+id+" HTTP/9.9\r\n"+id+"\r\n\r\n")
	}
	secretly()
	f.set(func() { f.readErr = errors.New("connection refused") })
	secretly()
	f.set(func() { f.readErr = nil })
	secretly()
	require.NoError(t, s.stop())
	log := s.log.String()
	for _, personal := range []string{id, "jo@", "555-1234", "phone", "hunter2"} {
		require.NotContains(t, log, personal)
	}
	require.Equal(t, 1, strings.Count(log, "The profile store is unavailable"))
	require.Equal(t, 1, strings.Count(log, "is available again"))
}

func TestServerLogContainsNoClientAddresses(t *testing.T) {
	log := newSyncBuffer()
	l := serverLog{service.NewLoggerFromSlog(debugLogger(log))}
	_, err := io.WriteString(l, "http: TLS handshake error from 10.1.2.3:4567: EOF\n")
	require.NoError(t, err)
	_, err = io.WriteString(l, "http: Accept error: too many open files; retrying in 5ms\n")
	require.NoError(t, err)
	require.NotContains(t, log.String(), "10.1.2.3")
	require.Contains(t, log.String(), "TLS handshake error")
	require.Contains(t, log.String(), "level=ERROR msg=\"Connections cannot be accepted: http: Accept error: too many open files")
}

// counts is a metrics exporter that remembers what was counted.
type counts struct {
	mu     sync.Mutex
	values map[string]int64
}

func (c *counts) add(name string, keys, values []string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range keys {
		if k == "route" || k == "status" {
			name += " " + values[i]
		}
	}
	c.values[name] += n
}

func (c *counts) NewCounterCtor(name string, keys ...string) service.MetricsExporterCounterCtor {
	return func(values ...string) service.MetricsExporterCounter {
		return counted(func(n int64) { c.add(name, keys, values, n) })
	}
}

func (c *counts) NewTimerCtor(name string, keys ...string) service.MetricsExporterTimerCtor {
	return func(values ...string) service.MetricsExporterTimer {
		return counted(func(int64) { c.add(name, keys, values, 1) })
	}
}

func (c *counts) NewGaugeCtor(name string, keys ...string) service.MetricsExporterGaugeCtor {
	return func(values ...string) service.MetricsExporterGauge {
		return counted(func(n int64) { c.add(name, keys, values, n) })
	}
}

func (c *counts) Close(context.Context) error { return nil }

type counted func(int64)

func (f counted) Incr(n int64)   { f(n) }
func (f counted) Timing(n int64) { f(n) }
func (f counted) Set(n int64)    { f(n) }

func TestMetrics(t *testing.T) {
	c := &counts{values: map[string]int64{}}
	env := testEnvironment(t, withProfiles("c1"))
	require.NoError(t, env.RegisterMetricsExporter("counts", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Logger) (service.MetricsExporter, error) { return c, nil }))
	builder := env.NewStreamBuilder()
	require.NoError(t, builder.SetMetricsYAML("counts: {}"))
	require.NoError(t, builder.AddOutputYAML("drop: {}"))
	s := runBuilder(t, builder, "")

	tag := s.do(t, "GET", "/api/customer/c1", "").header.Get("ETag")
	s.do(t, "GET", "/api/customer/c1", "", "If-None-Match: "+tag)
	s.do(t, "GET", "/api/customer/gone", "")
	s.do(t, "GET", "/api/customer/gone", "")
	s.do(t, "POST", "/api/customers/batch", `{"ids":["c1"]}`, jsonBody)
	s.do(t, "PATCH", "/api/customer/c1/traits", `{}`, jsonBody)
	s.do(t, "GET", "/wp-login.php", "")
	s.do(t, "GET", "/healthz", "")
	s.do(t, "GET", "/readyz", "")
	require.NoError(t, s.stop())

	got := map[string]int64{}
	for name, n := range c.values {
		if strings.HasPrefix(name, "profile_api_requests") || strings.HasPrefix(name, "profile_api_latency_ns") {
			got[name] = n
		}
	}
	want := map[string]int64{}
	for _, route := range []string{"customer 200", "customer 304", "batch 200", "traits 202", "unknown 404", "healthz 200", "readyz 200"} {
		want["profile_api_requests "+route] = 1
	}
	want["profile_api_requests customer 404"] = 2
	for route, n := range map[string]int64{"customer": 4, "batch": 1, "traits": 1, "unknown": 1, "healthz": 1, "readyz": 1} {
		want["profile_api_latency_ns "+route] = n
	}
	require.Equal(t, want, got)
	require.Contains(t, fmt.Sprint(c.values), "profile_api_in_flight")
}

// The metric profile_api_cache_bytes is the size of the cached records.
func TestCacheMetric(t *testing.T) {
	c := &counts{values: map[string]int64{}}
	env := service.GlobalEnvironment().Clone()
	require.NoError(t, env.RegisterMetricsExporter("counts", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Logger) (service.MetricsExporter, error) { return c, nil }))
	p := runPipelineIn(t, env, "features: [ { name: orders, count: { events: [ Order Completed ] } } ]", "", "counts: {}")
	p.write(t, "PATCH", "c1", `{"plan":"gold"}`)
	require.Eventually(t, func() bool {
		p.do(t, "GET", "/api/customer/c1", "")
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.values["profile_api_cache_bytes"] > 0
	}, patience, 20*time.Millisecond)
}
