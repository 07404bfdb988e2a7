package profileapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

const jsonBody = "Content-Type: application/json"

// identifyEvent is what the pipeline gets.
type identifyEvent struct {
	Type, MessageID, Source string
	UserID, AnonymousID     *string
	Timestamp, ReceivedAt   time.Time
	Traits                  json.RawMessage
}

// ids returns the ids of the customer of an event.
func (e identifyEvent) ids() map[string]string {
	ids := map[string]string{}
	for name, id := range map[string]*string{"userId": e.UserID, "anonymousId": e.AnonymousID} {
		if id != nil {
			ids[name] = *id
		}
	}
	return ids
}

func parseEvent(t *testing.T, m *service.Message) identifyEvent {
	t.Helper()
	data, err := m.AsBytes()
	require.NoError(t, err)
	_, err = new(event.Parser).Parse(data)
	require.NoError(t, err)
	var e identifyEvent
	require.NoError(t, json.Unmarshal(data, &e))
	return e
}

func TestWritesBecomeEvents(t *testing.T) {
	f := withProfiles("c1")
	f.profiles["c1"] = `{"id":"c1","traits":{"b":1,"a\"":2,"plan":"gold"},"as_of":"x","updated_at":null}`
	events := make(chan identifyEvent, 1)
	s := run(t, f, "  source: crm\n", func(_ context.Context, m *service.Message) error {
		events <- parseEvent(t, m)
		return nil
	})
	f.profiles["a1"] = `{"id":"a1","traits":{"b":1},"as_of":"x","updated_at":null}`
	f.anonymous = map[string]bool{"a1": true}
	f.merged = map[string]string{"a2": "c1"}
	const user, anonymous = "userId", "anonymousId"
	for _, c := range []struct {
		method, id, body, whose, eventID, traits string
		headers                                  []string
	}{
		{"PATCH", "c1", ` { "plan" : "silver", "b": null } `, user, "c1", `{"plan":"silver","b":null}`, []string{jsonBody}},
		{"PATCH", "c1", `{"address":{"city":"Łódź","tags":["a",1.5,true,null]}}`, user, "c1", `{"address":{"city":"Łódź","tags":["a",1.5,true,null]}}`, []string{"Content-Type: application/merge-patch+json; charset=utf-8"}},
		{"PATCH", `new/one"`, `{}`, user, `new/one"`, `{}`, []string{jsonBody}},
		{"PATCH", "a1", `{"plan":"silver"}`, anonymous, "a1", `{"plan":"silver"}`, []string{jsonBody}},
		{"PATCH", "a2", `{"plan":"silver"}`, user, "c1", `{"plan":"silver"}`, []string{jsonBody}},
		{"PUT", "c1", `{"plan":"silver","x":[]}`, user, "c1", `{"plan":"silver","x":[],"a\"":null,"b":null}`, []string{jsonBody}},
		{"PUT", "c1", `{}`, user, "c1", `{"a\"":null,"b":null,"plan":null}`, []string{jsonBody}},
		{"PUT", "c1", `{"b":null}`, user, "c1", `{"b":null,"a\"":null,"plan":null}`, []string{jsonBody}},
		{"PUT", "new", `{"a":{"a":1}}`, user, "new", `{"a":{"a":1}}`, []string{jsonBody}},
		{"PUT", "a1", `{"plan":"silver"}`, anonymous, "a1", `{"plan":"silver","b":null}`, []string{jsonBody}},
		{"PUT", "a2", `{}`, user, "c1", `{"a\"":null,"b":null,"plan":null}`, []string{jsonBody}},
	} {
		f.set(func() { f.trips = nil })
		before := time.Now().Truncate(time.Millisecond)
		got := s.do(t, c.method, "/api/customer/"+url.PathEscape(c.id)+"/traits", c.body, c.headers...)
		require.Equal(t, 202, got.status, got.body)
		e := <-events
		require.Equal(t, "identify", e.Type)
		require.Equal(t, map[string]string{c.whose: c.eventID}, e.ids())
		require.Len(t, f.seen(), 1)
		require.Equal(t, "crm", e.Source)
		require.Equal(t, c.traits, string(e.Traits))
		require.Equal(t, e.Timestamp, e.ReceivedAt)
		require.False(t, e.Timestamp.Before(before))
		require.True(t, time.Now().After(e.Timestamp.Add(time.Millisecond-1)), "what is written next has a later timestamp")
		require.Regexp(t, `^api-\w{20,}$`, e.MessageID)
		var reply struct {
			ID        string `json:"id"`
			MessageID string `json:"message_id"`
		}
		require.NoError(t, json.Unmarshal([]byte(got.body), &reply))
		require.Equal(t, c.id, reply.ID)
		require.Equal(t, e.MessageID, reply.MessageID)
	}

	got := s.do(t, "PATCH", "/api/customer/c1/traits", `{"a":1}`, jsonBody, "Idempotency-Key: order-77")
	require.Equal(t, 202, got.status)
	require.Equal(t, "order-77", (<-events).MessageID)
}

func TestWritesWaitForThePipeline(t *testing.T) {
	verdicts := make(chan error)
	s := run(t, withProfiles(), "", func(context.Context, *service.Message) error { return <-verdicts })
	patch := func() <-chan answer {
		done := make(chan answer, 1)
		go func() {
			a, _ := s.try("PATCH", "/api/customer/c1/traits", `{"a":1}`, jsonBody)
			done <- a
		}()
		return done
	}

	answered := patch()
	verdicts <- errors.New("the store holds customer c1 no more")
	got := <-answered
	require.Equal(t, 503, got.status)
	require.Equal(t, "not_stored", got.code(t))
	require.Equal(t, "1", got.header.Get("Retry-After"))
	require.NotContains(t, got.body, "c1")

	answered = patch()
	select {
	case a := <-answered:
		t.Fatalf("answered %d before the pipeline had", a.status)
	case verdicts <- nil:
	}
	require.Equal(t, 202, (<-answered).status)
}

// Writes that wait together enter the pipeline together, and each gets its own
// verdict.
func TestWritesShareABatch(t *testing.T) {
	in, err := newTestInput(t, withProfiles(), "")
	require.NoError(t, err)
	const n = maxWrites + 20
	results := make([]*problem, n)
	var wg, started sync.WaitGroup
	started.Add(n)
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			started.Done()
			results[i] = in.handler.deliver(ctx, fmt.Append(nil, i))
		})
	}
	started.Wait()

	total, largest := 0, 0
	for total < n {
		batch, ack, err := in.ReadBatch(context.Background())
		require.NoError(t, err)
		require.LessOrEqual(t, len(batch), maxWrites)
		total += len(batch)
		largest = max(largest, len(batch))
		// Every third write fails.
		failed := service.NewBatchError(batch, errors.New("some"))
		for i, m := range batch {
			data, err := m.AsBytes()
			require.NoError(t, err)
			if number(t, data)%3 == 0 {
				_ = failed.Failed(i, errors.New("this"))
			}
		}
		if failed.IndexedErrors() > 0 {
			require.NoError(t, ack(context.Background(), failed))
		} else {
			require.NoError(t, ack(context.Background(), nil))
		}
		require.NoError(t, ack(context.Background(), errors.New("a second verdict changes nothing")))
	}
	wg.Wait()
	for i, r := range results {
		require.Equal(t, i%3 == 0, r != nil, i)
	}
	require.Greater(t, largest, 1)
}

func number(t *testing.T, data []byte) (n int) {
	t.Helper()
	require.NoError(t, json.Unmarshal(data, &n))
	return n
}

// A failing processor with reject_errored nacks only its own write.
func TestPartialFailureOfABatchFailsItsWritesOnly(t *testing.T) {
	builder := testEnvironment(t, withProfiles()).NewStreamBuilder()
	require.NoError(t, builder.AddProcessorYAML(`mapping: 'root = if this.traits.bad == true { throw("bad") }'`))
	require.NoError(t, builder.AddOutputYAML(`reject_errored: { drop: {} }`))
	s := runBuilder(t, builder, "")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			want := 202
			if i%4 == 0 {
				want = 503
			}
			a, err := s.try("PATCH", fmt.Sprintf("/api/customer/c%d/traits", i), fmt.Sprintf(`{"bad":%t}`, i%4 == 0), jsonBody)
			if err != nil || a.status != want {
				t.Errorf("write %d: %d, %v", i, a.status, err)
			}
		})
	}
	wg.Wait()
}

func TestWritesTimeOutWhileThePipelineIsBusy(t *testing.T) {
	s := serve(t, withProfiles(), "timeouts: { request: 20ms }")
	got := s.do(t, "PATCH", "/api/customer/c1/traits", `{}`, jsonBody)
	require.Equal(t, 503, got.status)
	require.Equal(t, "busy", got.code(t))

	// Taken, but never settled.
	go func() { _, _, _ = s.ReadBatch(context.Background()) }()
	got = s.do(t, "PATCH", "/api/customer/c1/traits", `{}`, jsonBody)
	require.Equal(t, 503, got.status)
	require.Equal(t, "timeout", got.code(t))
	require.Contains(t, got.body, "Idempotency-Key")
}

func TestWritesCanBeTurnedOff(t *testing.T) {
	s := serve(t, withProfiles("c1"), "writes: false")
	for _, method := range []string{http.MethodPut, http.MethodPatch} {
		got := s.do(t, method, "/api/customer/c1/traits", `{}`, jsonBody)
		require.Equal(t, 403, got.status)
		require.Equal(t, "writes_disabled", got.code(t))
	}
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status)
}
