package profileapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

// waiting returns once n reads are queued.
func (x *coalescer) waiting(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.queue) == n
	}, patience, 100*time.Microsecond)
}

func soon() time.Time { return time.Now().Add(patience) }

func TestReadsAreCoalesced(t *testing.T) {
	f := withProfiles("first", "a", "b", "c", "d")
	entered, release := make(chan struct{}), make(chan struct{})
	f.onRead = func(_ context.Context, ids []string) error {
		if ids[0] == "first" {
			close(entered)
			<-release
		}
		return nil
	}
	x := &coalescer{reader: f, trips: 1, limit: 3}
	traits := question{Query: customers.Query{Fields: []string{"traits"}}, text: "traits"}
	later := question{Query: customers.Query{AsOf: time.Unix(5, 0)}}

	var wg sync.WaitGroup
	var queued int
	read := func(id string, q question) {
		wg.Go(func() {
			got, err := x.read(id, q, soon())
			require.NoError(t, err)
			require.Equal(t, id != "gone", got.Found)
			if got.Found {
				require.Equal(t, profileOf(id), string(got.JSON))
			}
		})
	}
	queue := func(id string, q question) {
		read(id, q)
		queued++
		x.waiting(t, queued)
	}
	read("first", question{})
	<-entered
	queue("a", question{})
	queue("b", traits)
	queue("a", question{})
	queue("gone", question{})
	queue("c", later)
	queue("c", question{})
	queue("d", traits)
	queue("a", traits)
	close(release)
	wg.Wait()

	require.Equal(t, []trip{
		{[]string{"first"}, customers.Query{}},
		{[]string{"a", "gone"}, customers.Query{}}, // three calls are the limit, two of them for the same customer
		{[]string{"b", "d", "a"}, traits.Query},
		{[]string{"c"}, later.Query},
		{[]string{"c"}, customers.Query{}},
	}, f.seen())
	require.Zero(t, x.running)
	require.Empty(t, x.queue)
}

func TestCoalescerSharesErrors(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		fail func() error
		want error
	}{
		"error": {func() error { return boom }, boom},
		"panic": {func() error { panic("unexpected") }, errInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			f := withProfiles("first", "a", "b")
			entered, release := make(chan struct{}), make(chan struct{})
			f.onRead = func(_ context.Context, ids []string) error {
				if ids[0] == "first" {
					close(entered)
					<-release
					return nil
				}
				return c.fail()
			}
			x := &coalescer{reader: f, trips: 1, limit: 10}
			var wg sync.WaitGroup
			var failed, panicked atomic.Int32
			read := func(id string) {
				wg.Go(func() {
					defer func() {
						if recover() != nil {
							panicked.Add(1)
						}
					}()
					if _, err := x.read(id, question{}, soon()); errors.Is(err, c.want) {
						failed.Add(1)
					}
				})
			}
			read("first")
			<-entered
			read("a")
			x.waiting(t, 1)
			read("b")
			x.waiting(t, 2)
			close(release)
			wg.Wait()
			require.EqualValues(t, 2, failed.Load()+panicked.Load())
			if name == "panic" {
				require.EqualValues(t, 1, panicked.Load(), "only the request that read")
			}
			f.set(func() { f.onRead = nil })
			_, err := x.read("a", question{}, soon())
			require.NoError(t, err, "no place is lost")
			require.Zero(t, x.running)
		})
	}
}

func TestCoalescerKeepsDeadlines(t *testing.T) {
	f := withProfiles()
	f.onRead = func(ctx context.Context, _ []string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	x := &coalescer{reader: f, trips: 1, limit: 10}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := x.read(fmt.Sprint(i), question{}, time.Now().Add(20*time.Millisecond))
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	}
	wg.Wait()
	// Each trip that begins takes along all that wait, and none outlives the
	// deadline of its oldest call: the whole is over after about two.
	require.LessOrEqual(t, len(f.seen()), 20)
}

// Concurrent reads get their own results, with at most the allowed number of round
// trips in flight.
func TestCoalescedReadsGetTheirOwnResults(t *testing.T) {
	const trips, readers, rounds = 3, 50, 200
	var ids []string
	for i := range 40 {
		ids = append(ids, fmt.Sprint("c", i))
	}
	f := withProfiles(ids...)
	var running, most atomic.Int32
	f.onRead = func(context.Context, []string) error {
		now := running.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		running.Add(-1)
		return nil
	}
	x := &coalescer{reader: f, trips: trips, limit: 16}
	questions := []question{{}, {Query: customers.Query{Fields: []string{"traits"}}, text: "traits"}}
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			for i := range rounds {
				id := ids[(r*31+i*7)%len(ids)]
				if i%9 == 0 {
					id = "gone"
				}
				got, err := x.read(id, questions[i%2], soon())
				if err != nil || got.Found != (id != "gone") || got.Found && string(got.JSON) != profileOf(id) {
					t.Errorf("read %s: %+v, %v", id, got, err)
				}
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int32(trips))
	require.Zero(t, x.running)
	require.Empty(t, x.queue)
	for _, trip := range f.seen() {
		require.LessOrEqual(t, len(trip.ids), 16)
	}
}
