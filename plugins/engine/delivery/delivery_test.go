package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
)

func TestRequestedPause(t *testing.T) {
	now := time.Date(2026, 1, 31, 8, 30, 0, 0, time.UTC)
	for _, c := range []struct {
		name      string
		header    []string
		want      time.Duration
		requested bool
	}{
		{"nothing", nil, 0, false},
		{"seconds", []string{"Retry-After", "30"}, 30 * time.Second, true},
		{"zero seconds", []string{"Retry-After", "0"}, 0, true},
		{"longer than the limit", []string{"Retry-After", "86400"}, 5 * time.Minute, true},
		{"an overflow of seconds", []string{"Retry-After", "9223372036854775807"}, 5 * time.Minute, true},
		{"a negative number", []string{"Retry-After", "-5"}, 0, false},
		{"a date", []string{"Retry-After", "Sat, 31 Jan 2026 08:30:10 GMT"}, 10 * time.Second, true},
		{"a past date", []string{"Retry-After", "Sat, 31 Jan 2026 08:00:00 GMT"}, 0, true},
		{"a date of a clock that is an hour slow", []string{"Retry-After", "Sat, 31 Jan 2026 07:30:10 GMT", "Date", "Sat, 31 Jan 2026 07:30:00 GMT"}, 10 * time.Second, true},
		{"a reset", []string{"X-Reset", fmt.Sprint(now.Unix() + 7)}, 7 * time.Second, true},
		{"both", []string{"X-Reset", fmt.Sprint(now.Unix() + 7), "Retry-After", "3"}, 3 * time.Second, true},
		{"an invalid reset", []string{"X-Reset", "soon"}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Header{}
			for i := 0; i < len(c.header); i += 2 {
				h.Set(c.header[i], c.header[i+1])
			}
			wait, requested := requestedPause(h, "X-Reset", now, 5*time.Minute)
			require.Equal(t, c.want, wait)
			require.Equal(t, c.requested, requested)
		})
	}
}

func FuzzRequestedPause(f *testing.F) {
	f.Add("30", "Sat, 31 Jan 2026 08:30:10 GMT", "1769848200")
	f.Add("Sat, 31 Jan 2026 08:30:10 GMT", "", "")
	f.Add("9999999999999999999999", "x", "-9223372036854775808")
	f.Fuzz(func(t *testing.T, after, date, reset string) {
		h := Header{"Retry-After": {after}, "Date": {date}, "X-Reset": {reset}}
		wait, requested := requestedPause(h, "X-Reset", time.Unix(1769848200, 0), time.Minute)
		if wait < 0 || wait > time.Minute || !requested && wait != 0 {
			t.Fatalf("%v, %v", wait, requested)
		}
	})
}

func TestParseStatuses(t *testing.T) {
	set, err := ParseStatuses([]string{"429", "5xx"})
	require.NoError(t, err)
	for status, in := range map[int]bool{429: true, 428: false, 500: true, 599: true, 600: false, 0: false, -1: false, 200: false} {
		require.Equal(t, in, set.Contains(status), status)
	}
	for _, text := range []string{"", "4", "4x", "4xy", "600", "099", "4299", "abc", "xx5"} {
		_, err := ParseStatuses([]string{text})
		require.ErrorContains(t, err, "is not a status", text)
	}
}

// The expected values are those of the specification's libraries.
func TestWebhookSignerFollowsStandardWebhooks(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	s, err := NewWebhookSigner(secret)
	require.NoError(t, err)
	h := Header{}
	s.Sign(h, []byte(`{"test": 2432232314}`), "p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0))
	require.Equal(t, "msg_p5jXN8AQM9LWM0D4loKWxJek", h.Get("Webhook-Id"))
	require.Equal(t, "1614265330", h.Get("Webhook-Timestamp"))
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", h.Get("Webhook-Signature"))

	s, err = NewWebhookSigner(secret, "whsec_"+strings.Repeat("QUJD", 10))
	require.NoError(t, err)
	s.Sign(h, []byte(`{"test": 2432232314}`), "p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0))
	both := strings.Fields(h.Get("Webhook-Signature"))
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

// The expected value is that of GitHub's documentation.
func TestBodySignerSignsTheBody(t *testing.T) {
	s, err := NewBodySigner("X-Hub-Signature-256", "It's a Secret to Everybody")
	require.NoError(t, err)
	h := Header{}
	s.Sign(h, []byte("Hello, World!"), "", time.Time{})
	require.Equal(t, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", h.Get("X-Hub-Signature-256"))
}

func item(id, customer string) Item {
	return Item{ID: id, Customer: customer, Element: json.RawMessage(`{"id":"` + id + `"}`), Target: Target{Method: "POST", URL: "http://platform.test/"}}
}

// While the circuit is open, one probe at a time is sent, with growing delays.
func TestOpenCircuitIsProbedWithGrowingDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.MaxElements, conf.Parallel = 1, 8
		conf.Circuit = Circuit{Failures: 3, Probe: backoff.Exponential{Initial: 10 * time.Second, Max: 80 * time.Second}}
		var changes []string
		conf.OnCircuit = func(reason error) { changes = append(changes, fmt.Sprint(reason)) }
		began := time.Now()
		recovery := began.Add(10 * time.Minute)
		var mu sync.Mutex
		var tries []time.Time
		s := New(conf, func(ctx context.Context, _ *Request) (*Response, error) {
			if time.Now().Before(recovery) {
				mu.Lock()
				tries = append(tries, time.Now())
				mu.Unlock()
				return respond(503, ""), nil
			}
			return respond(200, ""), nil
		})
		var items []Item
		for i := range 100 {
			items = append(items, item(fmt.Sprint(i), ""))
		}
		for _, err := range s.Deliver(context.Background(), time.Now(), items) {
			require.NoError(t, err)
		}
		require.Equal(t, []string{"status 503", "<nil>"}, changes)
		// Three to eight requests were in flight when it opened. Then one probe at a
		// time follows: after 5 to 10 s, 10 to 20, 20 to 40, and each 40 to 80.
		probes := slices.DeleteFunc(tries, func(sentAt time.Time) bool { return sentAt.Equal(began) })
		require.GreaterOrEqual(t, len(probes), 7)
		require.LessOrEqual(t, len(probes), 17)
		for i := 1; i < len(probes); i++ {
			require.GreaterOrEqual(t, probes[i].Sub(probes[i-1]), 10*time.Second, "one at a time, with growing delays")
		}
		require.Less(t, time.Since(recovery), 81*time.Second)
	})
}

// With FailFast, deliveries fail at once while the circuit is open, except when a
// probe is due.
func TestFailFastEndsDeliveriesWhileTheCircuitIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.GiveUpAfter = 5 * time.Second
		conf.Timeout = 2 * time.Second
		conf.Circuit = Circuit{Failures: 1, Probe: backoff.Exponential{Initial: 10 * time.Second, Max: 10 * time.Second}, FailFast: true}
		down := true
		s := New(conf, func(ctx context.Context, _ *Request) (*Response, error) {
			if down {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return respond(200, ""), nil
		})
		deliver := func() (time.Duration, error) {
			began := time.Now()
			err := s.Deliver(context.Background(), time.Now(), []Item{item("m", "c")})[0]
			return time.Since(began), err
		}
		took, err := deliver()
		undelivered, ok := errors.AsType[*UndeliveredError](err)
		require.True(t, ok, err)
		require.Equal(t, CodeCircuitOpen, undelivered.Code)
		require.ErrorContains(t, err, context.DeadlineExceeded.Error())
		require.LessOrEqual(t, took, 3*time.Second, "a request timed out, then the circuit was open")

		took, err = deliver()
		require.ErrorAs(t, err, &undelivered)
		require.Zero(t, took)

		// Once the platform is back, every item of the delivery with the probe is
		// delivered.
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

func TestTimeLimitIsCountedFromBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.GiveUpAfter = 10 * time.Second
		hangs := func(ctx context.Context, _ *Request) (*Response, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		began := time.Now()
		time.Sleep(4 * time.Second)
		err := New(conf, hangs).Deliver(context.Background(), began, []Item{item("m", "c")})[0]
		_, undelivered := errors.AsType[*UndeliveredError](err)
		require.True(t, undelivered, "%v", err)
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

func TestEndOfTheContextIsNoFailureOfThePlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := testConfig()
		conf.Circuit.Failures = 1
		conf.OnCircuit = func(reason error) { t.Errorf("the circuit opened: %v", reason) }
		hangs := func(ctx context.Context, _ *Request) (*Response, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := New(conf, hangs).Deliver(ctx, time.Now(), []Item{item("a", "c"), item("b", "c")})
		require.ErrorIs(t, results[0], context.DeadlineExceeded)
		require.ErrorIs(t, results[1], context.DeadlineExceeded)
	})
}

func TestIdempotencyKeyDependsOnTheIDsOnly(t *testing.T) {
	keyOf := func(ids ...string) string {
		var items []*queuedItem
		for _, id := range ids {
			items = append(items, &queuedItem{Item: Item{ID: id}})
		}
		return idempotencyKey(items)
	}
	require.Equal(t, "5c20b2dc32540395", keyOf("m1")[:16], "the key must not change between releases")
	require.NotEqual(t, keyOf("a", "b"), keyOf("b", "a"))
	require.NotEqual(t, keyOf("ab", "c"), keyOf("a", "bc"))
	require.NotEqual(t, keyOf("a"), keyOf("a", ""))
}
