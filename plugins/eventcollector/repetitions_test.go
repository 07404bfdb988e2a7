package eventcollector

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRepetitionsFollowTheResponse(t *testing.T) {
	start := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	type step struct {
		after    time.Duration // since the start
		answered bool          // the request gets 200 at once
		retry    bool          // expected
	}
	for name, steps := range map[string][]step{
		"new facts seconds apart":           {{0, true, false}, {2 * time.Second, true, false}, {4 * time.Second, true, false}},
		"lost response":                     {{0, true, false}, {900 * time.Millisecond, true, true}, {1100 * time.Millisecond, true, false}},
		"retries until success":             {{0, false, false}, {5 * time.Second, false, true}, {20 * time.Second, true, true}, {22 * time.Second, true, false}},
		"no retry after the retry window":   {{0, false, false}, {retryWindow, true, false}},
		"retry just before the window ends": {{0, false, false}, {retryWindow - time.Second, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			var r repetitions
			var last *repetition
			for i, s := range steps {
				now := start.Add(s.after)
				e, retry := r.occurrence([32]byte{1}, now)
				require.Equal(t, s.retry, retry, "step %d", i)
				require.Equal(t, retry, e == last)
				last = e
				if s.answered {
					r.answer([]*repetition{e}, now)
				}
			}
		})
	}
}

func TestRepetitionsAreBounded(t *testing.T) {
	var r repetitions
	now := time.Unix(1_800_000_000, 0)
	for i := range maxRepetitions + 100 {
		r.occurrence([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, now)
	}
	require.Len(t, r.byHash, maxRepetitions)
	require.Equal(t, maxRepetitions, r.order.Len())
	r.occurrence([32]byte{255, 255, 255}, now.Add(retryWindow))
	require.Len(t, r.byHash, 1, "expired entries are removed")
}

// Different events never share an occurrence.
func TestRepetitionsKeepEventsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r repetitions
		now := time.Unix(1_800_000_000, 0)
		for range 50 {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			hash := [32]byte{rapid.Byte().Draw(t, "event") % 4}
			e, _ := r.occurrence(hash, now)
			require.Equal(t, hash, e.hash)
			if rapid.Bool().Draw(t, "answered") {
				r.answer([]*repetition{e}, now)
			}
		}
	})
}
