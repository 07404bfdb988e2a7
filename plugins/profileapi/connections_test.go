package profileapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// line is a connection that a test speaks HTTP on by hand.
type line struct {
	net.Conn
	t testing.TB
}

func (s *server) dial(t testing.TB) line {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return line{c, t}
}

func (l line) send(text string) line {
	_, _ = io.WriteString(l, text)
	return l
}

// status reads an answer, and returns 0 where the connection ends before one.
func (l line) status() int {
	r, err := http.ReadResponse(bufio.NewReader(l), nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_ = r.Body.Close()
	return r.StatusCode
}

const getHealth = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

func getProfile(id string) string {
	return "GET /api/customer/" + id + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
}

// requireClosed waits until a connection is closed, which it is while the one it
// made room for may be served already.
func requireClosed(t *testing.T, l line) {
	t.Helper()
	for deadline := time.Now().Add(patience); l.send(getHealth).status() != 0; {
		require.True(t, time.Now().Before(deadline), "it made room")
	}
}

// blocking makes reads of a customer wait until they are released.
func blocking(f *fakeProfiles, id string) (started chan struct{}, release func()) {
	started, gate := make(chan struct{}, 100), make(chan struct{})
	f.onRead = func(_ context.Context, ids []string) error {
		for _, i := range ids {
			if i == id {
				started <- struct{}{}
				<-gate
			}
		}
		return nil
	}
	return started, func() { close(gate) }
}

func TestIdleConnectionIsReplaced(t *testing.T) {
	f := withProfiles("c1", "slow")
	started, release := blocking(f, "slow")
	s := serve(t, f, "limits: { connections: 2 }")

	working := s.dial(t).send(getProfile("slow"))
	<-started
	idle := s.dial(t).send(getHealth)
	require.Equal(t, 200, idle.status())
	require.Equal(t, 200, idle.send(getHealth).status(), "a connection that is not in the way stays")

	next := s.dial(t).send(getHealth)
	require.Equal(t, 200, next.status())
	requireClosed(t, idle)
	release()
	require.Equal(t, 200, working.status(), "the one at work did not")
}

func TestActiveConnectionIsNotReplaced(t *testing.T) {
	f := withProfiles("slow")
	started, release := blocking(f, "slow")
	s := serve(t, f, "limits: { connections: 1 }")
	working := s.dial(t).send(getProfile("slow"))
	<-started
	answered := make(chan int, 1)
	next := s.dial(t).send(getHealth)
	go func() { answered <- next.status() }()
	release()
	require.Equal(t, 200, working.status())
	require.Equal(t, 200, <-answered)
}

func TestConnectionWithATimedOutRequestIsReplaced(t *testing.T) {
	f := withProfiles("slow")
	started, release := blocking(f, "slow")
	defer release()
	s := serve(t, f, "limits: { connections: 1 }\ntimeouts: { request: 50ms }")
	s.dial(t).send(getProfile("slow"))
	<-started
	require.Equal(t, 200, s.dial(t).send(getHealth).status())
}

// served asks for a profile as a client does that tries again when its
// connection had to make room, or the time for its request ran out, on a machine
// too busy to get to it.
func (s *server) served(t testing.TB) {
	t.Helper()
	for range 10 {
		c := s.dial(t).send(getProfile("c1"))
		status := c.status()
		_ = c.Close()
		if status == 200 {
			return
		}
		require.Contains(t, []int{0, 503}, status)
	}
	t.Fatal("ten requests in a row were not answered")
}

// TestConnectionFloodsDoNotBlockRequests opens several times as many connections as the limit allows, all
// of which keep the server waiting in one way or another, and asks for
// something as anybody else meanwhile.
func TestConnectionFloodsDoNotBlockRequests(t *testing.T) {
	const limit, attackers = 16, 80
	large := `{"id":"large","traits":{"a":"` + strings.Repeat("x", 8<<20) + `"},"as_of":"2026-01-31T08:30:00.000Z","updated_at":null}`
	for name, attack := range map[string]func(line){
		"connections that send nothing":       func(line) {},
		"headers that never end":              func(l line) { l.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ") },
		"idle connections after one request":  func(l line) { l.send(getHealth) },
		"half of a request after a whole one": func(l line) { l.send(getHealth + "GET /he") },
		"bodies that never come": func(l line) {
			l.send("POST /api/customers/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		},
		"answers that nobody reads": func(l line) { l.send(getProfile("large")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := withProfiles("c1")
			f.profiles["large"] = large
			s := serve(t, f, fmt.Sprintf("limits: { connections: %d }\ntimeouts: { request: 200ms, write: 1s }", limit))
			var stop atomic.Bool
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := 0; i < attackers && !stop.Load(); i++ {
					c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
					if err != nil {
						return
					}
					t.Cleanup(func() { _ = c.Close() })
					attack(line{c, t})
				}
			}()
			for range 10 {
				s.served(t)
			}
			stop.Store(true)
			<-done
			s.served(t)
		})
	}
}

// TestUnencryptedHTTP2: it is spoken where the config says so, beside HTTP/1.1,
// and its connections count, and make room, like any other.
func TestUnencryptedHTTP2(t *testing.T) {
	client := func() *http.Client {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: patience}
	}
	s := serve(t, withProfiles("c1"), "h2c: true\nlimits: { connections: 1 }")
	for range 3 {
		response, err := client().Get(s.url + "/api/customer/c1")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, 200, response.StatusCode)
		require.Equal(t, "HTTP/2.0", response.Proto)
		require.Equal(t, 200, s.dial(t).send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status())
	}

	s = serve(t, withProfiles("c1"), "")
	_, err := client().Get(s.url + "/healthz") //nolint:bodyclose // there is none
	require.Error(t, err)
	require.Equal(t, 200, s.dial(t).send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status())
}
