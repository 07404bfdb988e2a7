package redis

import (
	"bufio"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// witness is an Invalidator that records its calls.
type witness struct {
	mu      sync.Mutex
	changed []string
	resets  int
	fresh   time.Time
	called  chan struct{}
}

func newWitness() *witness { return &witness{called: make(chan struct{}, 1)} }

func (w *witness) note(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	select {
	case w.called <- struct{}{}:
	default:
	}
}

func (w *witness) Invalidate(key string)      { w.note(func() { w.changed = append(w.changed, key) }) }
func (w *witness) InvalidateAll()             { w.note(func() { w.resets++ }) }
func (w *witness) ValidUntil(until time.Time) { w.note(func() { w.fresh = until }) }

// until waits until a condition on the recorded calls holds.
func (w *witness) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		w.mu.Lock()
		ok := holds()
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-w.called:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func testWatch(t *testing.T, o Options) {
	o = fresh(t, o)
	writer, watched := open(t, o), open(t, o)
	w := newWitness()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	reports := make(chan error, 100)
	go func() {
		defer close(done)
		watched.Watch(ctx, time.Minute, w, func(err error) { reports <- err })
	}()
	w.until(t, "the watch", func() bool { return w.fresh.After(time.Now()) })
	require.NoError(t, <-reports)
	require.Equal(t, 1, w.resets)

	keys := []string{"ua", "uwith space\r\n", "u\x00\xff{}", "aanonymous"}
	for _, key := range keys {
		conflicts, err := writer.Commit(ctx, []store.Change{{Key: key, Data: []byte("data")}})
		require.NoError(t, err)
		require.Empty(t, conflicts)
		w.until(t, "a change", func() bool { return len(w.changed) > 0 && w.changed[len(w.changed)-1] == key })
	}

	// After a server closes the connection, it is watched again and nothing from before
	// is used.
	nodes, _, err := writer.primaries(ctx)
	require.NoError(t, err)
	for _, n := range nodes {
		for line := range strings.Lines(n.ClientList(ctx).Val()) {
			id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
			if strings.Contains(line, "cmd=client|tracking") || strings.Contains(line, "resp=3") {
				_ = n.ClientKillByFilter(ctx, "ID", id).Err()
			}
		}
	}
	require.Error(t, <-reports)
	require.NoError(t, <-reports)
	w.until(t, "the watch", func() bool { return w.resets == 2 && w.fresh.After(time.Now()) })

	cancel()
	<-done
	w.until(t, "the end", func() bool { return w.fresh.IsZero() })
}

func TestWatch(t *testing.T)        { testWatch(t, single(t)) }
func TestWatchCluster(t *testing.T) { testWatch(t, cluster(t)) }

func TestShapeOfIgnoresPingsAndEpochs(t *testing.T) {
	const nodes = "07c3 127.0.0.1:30004@31004,host slave e7d1 0 1426238317239 4 connected\n" +
		"e7d1 127.0.0.1:30001@31001,host myself,master - 0 0 1 connected 0-5460 5462\n"
	shape, moving := shapeOf(nodes)
	require.False(t, moving)
	later, _ := shapeOf(strings.Replace(nodes, "1426238317239 4", "1426238319999 5", 1))
	require.Equal(t, shape, later, "pings and epochs do not count")
	for _, change := range [][2]string{{"5460", "5461"}, {"myself,master", "myself,slave"}, {"slave e7d1", "slave aaaa"}, {"30004", "30005"}} {
		other, _ := shapeOf(strings.Replace(nodes, change[0], change[1], 1))
		require.NotEqual(t, shape, other, "%s", change)
	}
	_, moving = shapeOf(strings.Replace(nodes, "5462", "5462 [93-<-292f]", 1))
	require.True(t, moving)
}

func TestReplies(t *testing.T) {
	for text, want := range map[string]reply{
		"+OK\r\n":          {kind: '+', text: "OK"},
		"$-1\r\n":          {kind: '_'},
		"$4\r\na\r\nb\r\n": {kind: '$', text: "a\r\nb"},
		">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n":     {kind: '>', items: []reply{{kind: '$', text: "invalidate"}, {kind: '*', items: []reply{{kind: '$', text: "k"}}}}},
		">2\r\n$10\r\ninvalidate\r\n_\r\n":                 {kind: '>', items: []reply{{kind: '$', text: "invalidate"}, {kind: '_'}}},
		"%1\r\n+a\r\n:1\r\n":                               {kind: '%', items: []reply{{kind: '+', text: "a"}, {kind: ':', text: "1"}}},
		"|1\r\n+key-popularity\r\n,0.5\r\n=5\r\ntxt:a\r\n": {kind: '=', text: "txt:a"},
	} {
		got, err := readReply(bufio.NewReader(strings.NewReader(text)), 0)
		require.NoError(t, err, "%q", text)
		require.Equal(t, want, got, "%q", text)
	}
	for _, text := range []string{"", "\r\n", "+OK", "+OK\n", "$3\r\nab", "$2\r\nabc\r\n", "*2\r\n+a\r\n", "$-2\r\n", "$x\r\n", "?\r\n", "$999999999999\r\n", "*99999999999\r\n", "-ERR no\r\n", "!2\r\nno\r\n", strings.Repeat("*1\r\n", 20)} {
		_, err := readReply(bufio.NewReader(strings.NewReader(text)), 0)
		require.Error(t, err, "%q", text)
	}
}

// FuzzReply checks that any bytes of a server give a value or an error.
func FuzzReply(f *testing.F) {
	for _, text := range []string{"+OK\r\n", ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", "%1\r\n+a\r\n:1\r\n", "$-1\r\n", "*-1\r\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in := bufio.NewReader(strings.NewReader(text))
		for {
			if _, err := readReply(in, 0); err != nil {
				return
			}
		}
	})
}
