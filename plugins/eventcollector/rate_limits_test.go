package eventcollector

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// Over any interval a bucket passes at most its burst, the tokens of the interval
// and one batch of debt, and after the returned wait it passes again.
func TestBucketLimitsTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.1, 1000).Draw(t, "rate")
		burst := rate * 10
		now := time.Unix(1_800_000_000, 0)
		began, passed := now, 0.0
		var b bucket
		for range 100 {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			n := float64(rapid.IntRange(1, 50).Draw(t, "events"))
			wait := b.take(n, rate, burst, now)
			if wait == 0 {
				passed += n
			} else {
				now = now.Add(wait + time.Microsecond)
				if b.take(n, rate, burst, now) != 0 {
					t.Fatal("refused after the wait")
				}
				passed += n
			}
			if limit := burst + rate*now.Sub(began).Seconds() + n + 1; passed > limit {
				t.Fatalf("%v events passed, limit %v", passed, limit)
			}
		}
	})
}

func TestKeyAboveItsRateGets429(t *testing.T) {
	p := start(t, options{input: "write_keys:\n  - { key: web-key, source: web, events_per_second: 0.2 }\n  - { key: server-key, source: server }\n"})
	require.Equal(t, 200, p.post("/v1/batch", batchOf(pageEvent, pageEvent, pageEvent)).status, "a batch is accepted as a whole")
	a := p.post("/v1/batch", batchOf(pageEvent))
	require.Equal(t, 429, a.status)
	require.Equal(t, "rate_limited", a.code())
	var seconds int
	_, err := fmt.Sscan(a.header.Get("Retry-After"), &seconds)
	require.NoError(t, err)
	require.InDelta(t, 10, seconds, 1)
	require.Equal(t, 200, p.post("/v1/page", pageEvent, key("server-key")).status, "another key is not limited")
}

func TestCustomerAboveItsRateGetsDeadLetters(t *testing.T) {
	p := start(t, options{input: twoKeys + "limits: { customer_events_per_second: 0.05 }\n"})
	batch := func(user string) string {
		return batchOf(`{"type":"page","userId":"`+user+`"}`, `{"type":"page","userId":"`+user+`"}`, `{"type":"page","userId":"`+user+`"}`, `{"type":"page","userId":"`+user+`"}`)
	}
	require.Equal(t, 200, p.post("/v1/batch", batch("busy")).status)
	require.Equal(t, 200, p.post("/v1/batch", batch("other")).status)
	require.Equal(t, 200, p.post("/v1/batch", batch("busy"), key("server-key")).status)
	for i, rejected := range []int{1, 1, 0} {
		n := 0
		for _, msg := range p.delivered(3)[i] {
			if err := msg.GetError(); err != nil {
				n++
				reason := err.(*rejection.Error).Reasons[0]
				require.Equal(t, "rate_limit", reason.Rule)
				raw, err := msg.AsBytes()
				require.NoError(t, err)
				require.NotContains(t, string(raw), "receivedAt", "the client's bytes")
			}
		}
		require.Equal(t, rejected, n, "batch %d", i)
	}
}
