package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAskedFor(t *testing.T) {
	now := time.Date(2026, 1, 31, 8, 30, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		header []string
		want   time.Duration
		asked  bool
	}{
		{"nothing", nil, 0, false},
		{"seconds", []string{"Retry-After", "30"}, 30 * time.Second, true},
		{"at once", []string{"Retry-After", "0"}, 0, true},
		{"longer than is let", []string{"Retry-After", "86400"}, 5 * time.Minute, true},
		{"more seconds than there are", []string{"Retry-After", "9223372036854775807"}, 5 * time.Minute, true},
		{"a number that is none", []string{"Retry-After", "-5"}, 0, false},
		{"a date", []string{"Retry-After", "Sat, 31 Jan 2026 08:30:10 GMT"}, 10 * time.Second, true},
		{"a date that was", []string{"Retry-After", "Sat, 31 Jan 2026 08:00:00 GMT"}, 0, true},
		{"a date by a clock that is an hour late", []string{"Retry-After", "Sat, 31 Jan 2026 07:30:10 GMT", "Date", "Sat, 31 Jan 2026 07:30:00 GMT"}, 10 * time.Second, true},
		{"a reset", []string{"X-Reset", fmt.Sprint(now.Unix() + 7)}, 7 * time.Second, true},
		{"both", []string{"X-Reset", fmt.Sprint(now.Unix() + 7), "Retry-After", "3"}, 3 * time.Second, true},
		{"a reset that is none", []string{"X-Reset", "soon"}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{}
			for i := 0; i < len(c.header); i += 2 {
				h.Set(c.header[i], c.header[i+1])
			}
			wait, asked := askedFor(h, "X-Reset", now, 5*time.Minute)
			require.Equal(t, c.want, wait)
			require.Equal(t, c.asked, asked)
		})
	}
}

func FuzzAskedFor(f *testing.F) {
	f.Add("30", "Sat, 31 Jan 2026 08:30:10 GMT", "1769848200")
	f.Add("Sat, 31 Jan 2026 08:30:10 GMT", "", "")
	f.Add("9999999999999999999999", "x", "-9223372036854775808")
	f.Fuzz(func(t *testing.T, after, date, reset string) {
		h := http.Header{"Retry-After": {after}, "Date": {date}, "X-Reset": {reset}}
		wait, asked := askedFor(h, "X-Reset", time.Unix(1769848200, 0), time.Minute)
		if wait < 0 || wait > time.Minute || !asked && wait != 0 {
			t.Fatalf("%v, %v", wait, asked)
		}
	})
}

func TestBackoff(t *testing.T) {
	b := Backoff{Initial: time.Second, Max: 10 * time.Second}
	for failures, full := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 1000: 10 * time.Second} {
		for range 100 {
			wait := b.After(failures)
			require.GreaterOrEqual(t, wait, full/2)
			require.LessOrEqual(t, wait, full)
		}
	}
}

func TestParseStatuses(t *testing.T) {
	set, err := ParseStatuses([]string{"429", "5xx"})
	require.NoError(t, err)
	for status, in := range map[int]bool{429: true, 428: false, 500: true, 599: true, 600: false, 0: false, -1: false, 200: false} {
		require.Equal(t, in, set.Has(status), status)
	}
	for _, text := range []string{"", "4", "4x", "4xy", "600", "099", "4299", "abc", "xx5"} {
		_, err := ParseStatuses([]string{text})
		require.ErrorContains(t, err, "is no status", text)
	}
}

// The example of the specification's own libraries.
func TestStandardWebhooks(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	s, err := NewWebhookSigner(secret)
	require.NoError(t, err)
	h := http.Header{}
	s.Sign(h, []byte(`{"test": 2432232314}`), "p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0))
	require.Equal(t, "msg_p5jXN8AQM9LWM0D4loKWxJek", h.Get("webhook-id"))
	require.Equal(t, "1614265330", h.Get("webhook-timestamp"))
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", h.Get("webhook-signature"))

	s, err = NewWebhookSigner(secret, "whsec_"+strings.Repeat("QUJD", 10))
	require.NoError(t, err)
	s.Sign(h, []byte(`{"test": 2432232314}`), "p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0))
	both := strings.Fields(h.Get("webhook-signature"))
	require.Len(t, both, 2)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", both[0])

	for _, bad := range []string{"", "whsec_", "whsec_short", "whsec_" + strings.Repeat("QUJD", 30), "no base64!"} {
		_, err := NewWebhookSigner(bad)
		require.ErrorContains(t, err, "openssl rand")
		if bad != "" {
			require.NotContains(t, err.Error(), strings.TrimPrefix(bad, "whsec_")+"!")
		}
	}
}

// By the example in GitHub's documentation.
func TestBodySignature(t *testing.T) {
	s, err := NewBodySigner("X-Hub-Signature-256", "It's a Secret to Everybody")
	require.NoError(t, err)
	h := http.Header{}
	s.Sign(h, []byte("Hello, World!"), "", time.Time{})
	require.Equal(t, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", h.Get("X-Hub-Signature-256"))
}

// handler is a platform in the time of the test.
type handler func(*http.Request) (*http.Response, error)

func (h handler) RoundTrip(r *http.Request) (*http.Response, error) { return h(r) }

func item(id, customer string) Item {
	return Item{ID: id, Customer: customer, Element: json.RawMessage(`{"id":"` + id + `"}`), Target: Target{Verb: "POST", URL: "http://platform.test/"}}
}

// A platform that is down is tried by one request at a time, and less and less
// often; all goes on when it is back.
func TestCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.MaxElements, conf.Parallel = 1, 8
		conf.Circuit = Circuit{Failures: 3, Probe: Backoff{10 * time.Second, 80 * time.Second}}
		var changes []string
		conf.OnCircuit = func(reason error) { changes = append(changes, fmt.Sprint(reason)) }
		began := time.Now()
		back := began.Add(10 * time.Minute)
		var mu sync.Mutex
		var tries []time.Time
		s := New(conf, handler(func(r *http.Request) (*http.Response, error) {
			if time.Now().Before(back) {
				mu.Lock()
				tries = append(tries, time.Now())
				mu.Unlock()
				return answer(r, 503, ""), nil
			}
			return answer(r, 200, ""), nil
		}))
		var items []Item
		for i := range 100 {
			items = append(items, item(fmt.Sprint(i), ""))
		}
		for _, err := range s.Deliver(context.Background(), time.Now(), items) {
			require.NoError(t, err)
		}
		require.Equal(t, []string{"status 503", "<nil>"}, changes)
		// Three to eight that were under way when it opened, then a probe at a
		// time: after 5 to 10 s, 10 to 20, 20 to 40, and each 40 to 80.
		probes := slices.DeleteFunc(tries, func(at time.Time) bool { return at.Equal(began) })
		require.GreaterOrEqual(t, len(probes), 7)
		require.LessOrEqual(t, len(probes), 17)
		for i := 1; i < len(probes); i++ {
			require.GreaterOrEqual(t, probes[i].Sub(probes[i-1]), 10*time.Second, "one at a time, less and less often")
		}
		require.Less(t, time.Since(back), 81*time.Second)
	})
}

// While the platform is down a circuit that fails fast gives up at once, but for
// a probe when it is time for one.
func TestFailFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.GiveUpAfter = 5 * time.Second
		conf.Timeout = 2 * time.Second
		conf.Circuit = Circuit{Failures: 1, Probe: Backoff{10 * time.Second, 10 * time.Second}, FailFast: true}
		down := true
		s := New(conf, handler(func(r *http.Request) (*http.Response, error) {
			if down {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return answer(r, 200, ""), nil
		}))
		deliver := func() (time.Duration, error) {
			began := time.Now()
			err := s.Deliver(context.Background(), time.Now(), []Item{item("m", "c")})[0]
			return time.Since(began), err
		}
		took, err := deliver()
		gaveUp, ok := errors.AsType[*GaveUp](err)
		require.True(t, ok, err)
		require.Equal(t, CodeCircuitOpen, gaveUp.Code)
		require.ErrorContains(t, err, "no answer in time")
		require.LessOrEqual(t, took, 3*time.Second, "a request timed out, then the circuit was open")

		took, err = deliver()
		require.ErrorAs(t, err, &gaveUp)
		require.Zero(t, took)

		// When it is back, all of what has the probe in it arrives.
		time.Sleep(10 * time.Second)
		down = false
		var items []Item
		for i := range 50 {
			items = append(items, item(fmt.Sprint(i), ""))
		}
		for _, err := range s.Deliver(context.Background(), time.Now(), items) {
			require.NoError(t, err)
		}
	})
}

// The time for a delivery is counted from its beginning.
func TestTimeBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.GiveUpAfter = 10 * time.Second
		hangs := handler(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		began := time.Now()
		time.Sleep(4 * time.Second)
		err := New(conf, hangs).Deliver(context.Background(), began, []Item{item("m", "c")})[0]
		_, gaveUp := errors.AsType[*GaveUp](err)
		require.True(t, gaveUp, "%v", err)
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

// A context that ends is not the platform's failure, and nobody is told that an
// element was given up.
func TestEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.Circuit.Failures = 1
		conf.OnCircuit = func(reason error) { t.Errorf("the circuit opened: %v", reason) }
		hangs := handler(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := New(conf, hangs).Deliver(ctx, time.Now(), []Item{item("a", "c"), item("b", "c")})
		require.ErrorIs(t, results[0], context.DeadlineExceeded)
		require.ErrorIs(t, results[1], context.DeadlineExceeded)
	})
}

// What goes wrong on the wire is told without what is on it.
func TestErrorsAreDiscreet(t *testing.T) {
	noise := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, text)
				conn.Close()
			}
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"not HTTP":  noise("220 jo@example.com\r\n"),
		"cut":       noise("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\njo@exam"),
		"nothing":   noise(""),
		"bad chunk": noise("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\njo@example.com\r\n"),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://jo.example.com/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			conf := testConfig()
			conf.GiveUpAfter = 200 * time.Millisecond
			conf.Retry = Backoff{time.Millisecond, time.Millisecond}
			it := item("m", "c")
			it.Target.URL = server.URL + "/hook?token=s3cret"
			it.Target.Header = http.Header{"X-Key": {"s3cret"}}
			err := New(conf, http.DefaultTransport).Deliver(context.Background(), time.Now(), []Item{it})[0]
			_, gaveUp := errors.AsType[*GaveUp](err)
			require.True(t, gaveUp, "%v", err)
			require.NotRegexp(t, `s3cret|hook|jo|example|127\.0`, err.Error())
		})
	}
	t.Run("refused", func(t *testing.T) {
		server := httptest.NewServer(nil)
		server.Close()
		conf := testConfig()
		conf.GiveUpAfter = 100 * time.Millisecond
		it := item("m", "c")
		it.Target.URL = server.URL + "/hook?token=s3cret"
		err := New(conf, &http.Transport{}).Deliver(context.Background(), time.Now(), []Item{it})[0]
		require.ErrorContains(t, err, "connection refused")
		require.NotRegexp(t, `s3cret|hook|127\.0`, err.Error())
	})
}

// The key is the same wherever the same messages are sent, and for no others.
func TestIdempotencyKey(t *testing.T) {
	keyOf := func(ids ...string) string {
		var parcels []*parcel
		for _, id := range ids {
			parcels = append(parcels, &parcel{Item: Item{ID: id}})
		}
		return key(parcels)
	}
	require.Equal(t, "5c20b2dc32540395", keyOf("m1")[:16], "as it was in every release")
	require.NotEqual(t, keyOf("a", "b"), keyOf("b", "a"))
	require.NotEqual(t, keyOf("ab", "c"), keyOf("a", "bc"))
	require.NotEqual(t, keyOf("a"), keyOf("a", ""))
}
