package eventcollector

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// For every history of reservations: what is held is the sum of the reservations and
// within every share, and a complete body is never evicted.
func TestMemoryMatchesModel(t *testing.T) {
	accounts := []account{{}, newAccount("", "203.0.113.7"), newAccount("web", "203.0.113.7"), newAccount("web", "198.51.100.1"), newAccount("app", "203.0.113.7")}
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 200).Draw(t, "limit")
		m := memory{shares: newShares(limit, rapid.IntRange(1, 20).Draw(t, "floor"))}
		type held struct {
			r              *reservation
			bytes          int
			complete, gone bool
		}
		var all []*held
		pick := func(t *rapid.T) *held {
			if len(all) == 0 {
				t.Skip("no reservation")
			}
			return all[rapid.IntRange(0, len(all)-1).Draw(t, "reservation")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				h := &held{}
				h.r = m.reserve(rapid.SampledFrom(accounts).Draw(t, "account"), func() {
					if h.complete {
						t.Fatal("a complete body was evicted")
					}
					h.gone, h.bytes = true, 0
				})
				all = append(all, h)
			},
			"take": func(t *rapid.T) {
				h := pick(t)
				n := rapid.IntRange(1, 40).Draw(t, "n")
				if h.r.element == nil && !h.complete {
					return // freed
				}
				if ok := h.r.take(n); ok {
					if h.gone {
						t.Fatal("an evicted reservation grew")
					}
					h.bytes += n
				} else if !h.gone && len(all) == 1 && h.bytes+n <= limit/16 {
					t.Fatalf("%d of %d bytes refused to a single reservation", n, limit)
				}
			},
			"complete": func(t *rapid.T) {
				h := pick(t)
				if ok := h.r.complete(); ok == h.gone {
					t.Fatalf("complete is %v, evicted is %v", ok, h.gone)
				}
				h.complete = !h.gone
			},
			"free": func(t *rapid.T) {
				h := pick(t)
				h.r.free()
				h.bytes = 0
				all = slices.DeleteFunc(all, func(o *held) bool { return o == h })
			},
			"": func(t *rapid.T) {
				total, unverified := 0, 0
				for _, h := range all {
					total += h.bytes
					if h.r.account.source == "" {
						unverified += h.bytes
					}
				}
				if m.shares.used != int64(total) || total > limit {
					t.Fatalf("used %d, held %d of %d", m.shares.used, total, limit)
				}
				if int64(unverified) > max(m.shares.limit/4, m.shares.floor) {
					t.Fatalf("%d of %d bytes are held without a key", unverified, limit)
				}
			},
		})
	})
}

func TestPeersShareByNetwork(t *testing.T) {
	require.Equal(t, newAccount("web", "2001:db8::1"), newAccount("web", "2001:db8::ffff:1"))
	require.NotEqual(t, newAccount("web", "2001:db8::1"), newAccount("web", "2001:db8:0:1::1"))
	require.NotEqual(t, newAccount("web", "203.0.113.7"), newAccount("web", "203.0.113.8"))
	require.NotEqual(t, newAccount("web", "203.0.113.7"), newAccount("", "203.0.113.7"))
}

// attack opens 200 connections that hold or burn as much as they can until the test
// ends.
func attack(t *testing.T, p *pipeline, kind string) {
	t.Helper()
	address := strings.TrimPrefix(p.url, "http://")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop); wg.Wait() })
	spaces := strings.Repeat(" ", 499_000)
	head := "POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for range 200 {
		wg.Go(func() {
			for {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					return
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				var text string
				switch kind {
				case "gzip, held, no key":
					z := zipped(t, spaces)
					text = head + "Content-Encoding: gzip\r\nContent-Length: 400000\r\n\r\n" + z[:len(z)-8]
				case "plain, held, no key":
					text = head + "Content-Length: 499500\r\n\r\n" + spaces
				case "plain, held, the same key":
					text = head + "Authorization: Basic d2ViLWtleTo=\r\nContent-Length: 499500\r\n\r\n" + spaces
				case "gzip, complete, no key":
					z := zipped(t, spaces)
					text = fmt.Sprintf("%sContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", head, len(z), z)
				}
				_, _ = io.WriteString(conn, text)
				response := make(chan struct{})
				go func() { _, _ = conn.Read(make([]byte, 1)); close(response) }()
				select {
				case <-response:
					_ = conn.Close()
				case <-stop:
					_ = conn.Close()
					return
				}
			}
		})
	}
}

// With 200 hostile connections no honest request is refused. The honest client has the
// same address as the hostile ones, which is the worst case. The latency is logged, not
// checked: it depends on the machine (goal: p99 below 100 ms on an idle one).
func TestHonestRequestsSurviveHostileConnections(t *testing.T) {
	for _, kind := range []string{"gzip, held, no key", "plain, held, no key", "plain, held, the same key", "gzip, complete, no key"} {
		t.Run(kind, func(t *testing.T) {
			p := start(t, options{input: twoKeys, output: "drop: {}"})
			attack(t, p, kind)
			var times []time.Duration
			for range 100 {
				began := time.Now()
				a := p.post("/v1/track", `{"userId":"h","event":"X"}`)
				times = append(times, time.Since(began))
				require.Equal(t, 200, a.status, a.body)
			}
			slices.Sort(times)
			t.Logf("p50 %v, p99 %v", times[len(times)/2], times[len(times)*99/100])
		})
	}
}

func TestUnknownKeyInHeaderIsRefusedBeforeTheBody(t *testing.T) {
	in, err := newTestInput(t, twoKeys)
	require.NoError(t, err)
	r := httptest.NewRequest("POST", "/v1/batch", forbiddenBody{t})
	r.SetBasicAuth("other", "")
	w := httptest.NewRecorder()
	in.serve(w, r)
	require.Equal(t, http.StatusUnauthorized, w.Code)
}

// forbiddenBody is a body that must not be read.
type forbiddenBody struct{ t *testing.T }

func (b forbiddenBody) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
}
