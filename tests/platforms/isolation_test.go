package platforms

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// hanging is a platform that does not respond until it is released, and records when
// elements arrive.
type hanging struct {
	*httptest.Server
	let  chan struct{} // closed when it works
	mu   sync.Mutex
	at   map[string]time.Time // by message id
	seen chan struct{}        // one for each request that arrives, as far as there is room
}

func newHanging(t *testing.T, works bool) *hanging {
	h := &hanging{let: make(chan struct{}), at: map[string]time.Time{}, seen: make(chan struct{}, 1)}
	if works {
		close(h.let)
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		select {
		case h.seen <- struct{}{}:
		default:
		}
		select {
		case <-h.let:
		case <-r.Context().Done():
			return
		}
		var o object
		if err := json.Unmarshal(body, &o); err != nil {
			return
		}
		id := text(dig(o, "data", "message", "messageId"))
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, known := h.at[id]; !known {
			h.at[id] = time.Now()
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hanging) has() map[string]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := map[string]time.Time{}
	for id, when := range h.at {
		at[id] = when
	}
	return at
}

func (h *hanging) await(t *testing.T, ids map[string]time.Time) {
	t.Helper()
	require.Eventually(t, func() bool {
		at := h.has()
		for id := range ids {
			if _, ok := at[id]; !ok {
				return false
			}
		}
		return true
	}, patience, 2*time.Millisecond)
}

// latencies returns the sorted latencies of the arrived elements.
func latencies(sent, at map[string]time.Time) []time.Duration {
	var out []time.Duration
	for id, when := range sent {
		if arrived, ok := at[id]; ok {
			out = append(out, arrived.Sub(when))
		}
	}
	slices.Sort(out)
	return out
}

// produce writes changes into a topic, one after the other, and returns the times.
func produce(t *testing.T, client *kgo.Client, prefix string, n int) map[string]time.Time {
	t.Helper()
	sent := map[string]time.Time{}
	for i := range n {
		id := fmt.Sprintf("%s%d", prefix, i)
		event := fmt.Sprintf(`{"type":"identify","messageId":"%[1]s","userId":"%[1]s","timestamp":"2026-01-31T08:30:00.000Z","receivedAt":"2026-01-31T08:30:01.000Z","traits":{"plan":"gold"}}`, id)
		sent[id] = time.Now()
		require.NoError(t, client.ProduceSync(context.Background(), &kgo.Record{Topic: "changes", Key: []byte(id), Value: []byte(event)}).FirstErr())
	}
	return sent
}

// With separate consumer groups, a platform that hangs does not delay others, and
// receives every change once it is back.
func TestConsumerGroupsIsolatePlatforms(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "changes"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	t.Cleanup(client.Close)

	sick, well := newHanging(t, false), newHanging(t, true)
	for group, p := range map[string]*hanging{"sick": sick, "well": well} {
		doc := config(t, "webhook.yaml", map[string]string{"WEBHOOK_URL": p.URL}, func(push map[string]any) {
			push["timeout"] = "1m" // longer than the test: it hangs
		})
		doc["input"] = map[string]any{"kafka_topic": map[string]any{
			"seed_brokers": cluster.ListenAddrs(), "topics": []string{"changes"}, "consumer_group": group,
		}}
		start(t, doc)
	}
	warm := produce(t, client, "warm", 1)
	well.await(t, warm)
	<-sick.seen // it has a request, and hangs

	sent := produce(t, client, "m", 300)
	well.await(t, sent)
	took := latencies(sent, well.has())
	require.Empty(t, sick.has())
	t.Logf("beside a platform that hangs: p50 %v, p99 %v, max %v", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])

	close(sick.let)
	sick.await(t, warm)
	sick.await(t, sent)
}

// In a shared stream the circuit of a platform that hangs opens: its messages are parked
// and the others continue. Once it is back it receives new changes.
func TestCircuitIsolatesPlatforms(t *testing.T) {
	const timeout, probe = 150 * time.Millisecond, 300 * time.Millisecond
	sick, well := newHanging(t, false), newHanging(t, true)
	doc := config(t, "webhook.yaml", map[string]string{"WEBHOOK_URL": well.URL}, nil)
	branch := func(url string) map[string]any {
		copied := map[string]any{}
		for name, value := range doc["output"].(map[string]any)["profile_api"].(map[string]any) {
			copied[name] = value
		}
		copied["url"] = url
		copied["timeout"], copied["give_up_after"] = timeout.String(), "2s"
		copied["circuit"] = map[string]any{"failures": 2, "when_open": "give_up", "probe_interval": probe.String(), "max_probe_interval": probe.String()}
		letters := map[string]any{}
		for name, value := range copied["dead_letters"].(map[string]any) {
			letters[name] = value
		}
		delete(letters, "label")
		copied["dead_letters"] = letters
		return map[string]any{"profile_api": copied}
	}
	doc["output"] = map[string]any{"broker": map[string]any{"pattern": "fan_out", "outputs": []any{branch(sick.URL), branch(well.URL)}}}
	running := start(t, doc)

	sent := map[string]time.Time{}
	send := func(prefix string, n int) {
		for i := range n {
			id := fmt.Sprintf("%s%d", prefix, i)
			sent[id] = time.Now()
			running.send(t, []string{fmt.Sprintf(`{"type":"identify","messageId":"%[1]s","userId":"%[1]s","timestamp":"2026-01-31T08:30:00.000Z","receivedAt":"2026-01-31T08:30:01.000Z","traits":{"plan":"gold"}}`, id)})
		}
	}
	began := time.Now()
	send("m", 300)
	took := time.Since(began)
	require.Empty(t, sick.has())
	at := latencies(sent, well.has())
	require.Len(t, at, len(sent), "the other platform received every change")
	// A batch waited until the circuit opened, and one for each probe.
	probes := 2 + int(took/(probe/2)) + 1
	t.Logf("beside a platform that hangs: p50 %v, p99 %v, max %v; %v for %d changes, of which %d at most waited for %v",
		at[len(at)/2], at[len(at)*99/100], at[len(at)-1], took, len(sent), probes, timeout)
	require.Less(t, at[len(at)/2], timeout, "most batches do not wait")
	parked := map[string]bool{}
	for _, l := range running.deadLetters() {
		var event struct{ MessageID string }
		require.NoError(t, json.Unmarshal([]byte(l.Original), &event))
		require.Contains(t, []string{"gave_up", "unreachable"}, l.Reasons[0].Rule)
		parked[event.MessageID] = true
	}
	require.Len(t, parked, len(sent), "messages for the platform that hangs are parked")

	close(sick.let)
	deadline := time.Now().Add(patience)
	for n := 0; len(sick.has()) == 0; n++ {
		require.True(t, time.Now().Before(deadline), "the platform is never probed again")
		send(fmt.Sprintf("back%d-", n), 1)
	}
	parkedBefore := len(running.deadLetters())
	send("after", 50)
	require.Len(t, running.deadLetters(), parkedBefore, "no more messages are parked")
	for i := range 50 {
		require.Contains(t, sick.has(), fmt.Sprintf("after%d", i))
	}
}
