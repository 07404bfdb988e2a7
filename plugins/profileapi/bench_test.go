package profileapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/redpanda-data/connect/v4/public/components/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

// benchProfile is about as long as a profile of twenty features.
func benchProfile() string {
	var b strings.Builder
	b.WriteString(`{"id":"customer-1","traits":{"email":"someone@example.com","plan":"gold"},"features":{`)
	for i := range 20 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"feature_number_%d":%d.25`, i, i*1000)
	}
	b.WriteString(`},"as_of":"2026-01-31T08:30:00.000Z","updated_at":"2026-01-30T10:00:00.000Z"}`)
	return b.String()
}

// fixedReader answers every read at once, or after the round trip of a remote
// store, of which only so many can be under way.
type fixedReader struct {
	json      []byte
	roundTrip time.Duration
	trips     atomic.Int64
}

func (r *fixedReader) Read(_ context.Context, ids []string, _ customers.Query) ([]customers.Result, error) {
	r.trips.Add(1)
	if r.roundTrip > 0 {
		time.Sleep(r.roundTrip)
	}
	results := make([]customers.Result, len(ids))
	for i := range results {
		results[i] = customers.Result{Found: true, ID: ids[i], JSON: r.json, Complete: true}
	}
	return results, nil
}

func (r *fixedReader) SegmentMembers(context.Context, string, string, int) ([]customers.Member, error) {
	return nil, nil
}

func (r *fixedReader) SegmentCount(context.Context, string) (int64, error) { return 0, nil }

func (r *fixedReader) Identifiers() []string { return nil }

func (r *fixedReader) Export(context.Context, string, string) (customers.Result, error) {
	return customers.Result{}, nil
}

func (r *fixedReader) Ping(context.Context) error { return nil }

// listen serves a handler on a free port.
func listen(b *testing.B, h http.Handler) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(ln) }()
	b.Cleanup(func() { _ = server.Close() })
	return "http://" + ln.Addr().String()
}

// bareHandler writes the same bytes and headers with nothing else.
func bareHandler(body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "private, no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("ETag", `W/"0123456789abcdef"`)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})
}

// BenchmarkGet compares the API with a bare net/http handler, by requests over
// a number of connections.
func BenchmarkGet(b *testing.B) {
	body := []byte(benchProfile())
	for _, connections := range []int{1, 64} {
		b.Run(fmt.Sprintf("bare/%d", connections), func(b *testing.B) {
			load(b, listen(b, bareHandler(body)), connections)
		})
		for name, roundTrip := range map[string]time.Duration{"local": 0, "remote": 200 * time.Microsecond} {
			b.Run(fmt.Sprintf("api-%s/%d", name, connections), func(b *testing.B) {
				r := &fixedReader{json: body, roundTrip: roundTrip}
				load(b, serve(b, r, "").url, connections)
				b.ReportMetric(float64(b.N)/float64(r.trips.Load()), "profiles/trip")
			})
		}
	}
}

// load makes b.N requests with a client that does as little as it can.
func load(b *testing.B, url string, connections int) {
	b.Helper()
	address := strings.TrimPrefix(url, "http://")
	var left atomic.Int64
	left.Store(int64(b.N))
	request := "GET /api/customer/customer-1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				b.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			in := bufio.NewReader(c)
			for left.Add(-1) >= 0 {
				if _, err := io.WriteString(c, request); err != nil {
					b.Error(err)
					return
				}
				if err := skipResponse(in); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

func skipResponse(in *bufio.Reader) error {
	length := -1
	for n := 0; ; n++ {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if n == 0 && !strings.HasPrefix(string(line), "HTTP/1.1 200 ") {
			return fmt.Errorf("answer: %s", line)
		}
		if text, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(text)); err != nil {
				return err
			}
		}
		if len(line) == 2 {
			_, err := in.Discard(length)
			return err
		}
	}
}

// BenchmarkWrk makes the comparison with wrk, where it is installed, and with
// the metrics exporter that shipped configs use.
func BenchmarkWrk(b *testing.B) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		b.Skip("wrk is not installed")
	}
	body := []byte(benchProfile())
	for _, connections := range []string{"1", "64", "1024"} {
		for name, url := range map[string]func() string{
			"bare": func() string { return listen(b, bareHandler(body)) },
			"api":  func() string { return serveWithMetrics(b, &fixedReader{json: body}) },
		} {
			b.Run(name+"/"+connections, func(b *testing.B) {
				url := url()
				for b.Loop() {
					before := cpuTime(b)
					out, err := exec.Command(wrk, "-t1", "-c"+connections, "-d3s", "--latency", url+"/api/customer/customer-1").CombinedOutput()
					require.NoError(b, err)
					require.NotContains(b, string(out), "Non-2xx")
					b.ReportMetric(wrkNumber(b, out, `Requests/sec:\s+([0-9.]+)()`), "req/s")
					// wrk is a process of its own, so this is the server's alone, and
					// comparable on a machine that others use too.
					requests := wrkNumber(b, out, `([0-9]+)() requests in`)
					b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/requests, "cpu-us/req")
					b.ReportMetric(wrkNumber(b, out, `99%\s+([0-9.]+)(us|ms|s)`), "p99-ms")
				}
			})
		}
	}
}

func wrkNumber(b *testing.B, out []byte, pattern string) float64 {
	b.Helper()
	m := regexp.MustCompile(pattern).FindSubmatch(out)
	require.NotNil(b, m, "%s", out)
	n, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(b, err)
	return n * map[string]float64{"": 1, "us": 1e-3, "ms": 1, "s": 1e3}[string(m[2])]
}

// serveWithMetrics serves from a pipeline, as in production.
func serveWithMetrics(b *testing.B, r reader) string {
	b.Helper()
	builder := testEnvironment(b, r).NewStreamBuilder()
	require.NoError(b, builder.SetMetricsYAML("prometheus: {}"))
	require.NoError(b, builder.AddOutputYAML("drop: {}"))
	return runBuilder(b, builder, "").url
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
