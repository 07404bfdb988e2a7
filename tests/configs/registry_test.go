// Package configs tests shipped configs within the test process: how the
// environment configures them, and what they do against a schema registry.
package configs

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	_ "github.com/connect-personalize/connect-personalize/plugins/all"
)

// latest is the response of the registry for the latest version of a subject.
type latest struct {
	Subject    string           `json:"subject"`
	Version    int              `json:"version"`
	ID         int              `json:"id"`
	SchemaType string           `json:"schemaType,omitempty"` // absent for Avro
	References []map[string]any `json:"references,omitempty"`
	Schema     string           `json:"schema"`
}

// registry implements the part of Confluent's API that the config uses.
type registry struct {
	mu       sync.Mutex
	subjects map[string]latest
	deleted  string                                            // listed, but not found when it is read
	fail     func(w http.ResponseWriter, r *http.Request) bool // reports whether it has responded
	rounds   int
}

func (g *registry) register(subject, schema string) {
	g.put(subject, latest{SchemaType: "JSON", Schema: schema})
}

func (g *registry) put(subject string, l latest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.Subject, l.Version, l.ID = subject, g.subjects[subject].Version+1, 100+len(g.subjects)
	g.subjects[subject] = l
}

func (g *registry) remove(subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.subjects, subject)
}

func (g *registry) failing(fail func(http.ResponseWriter, *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = fail
}

func (g *registry) lists() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rounds
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func (g *registry) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /subjects", func(w http.ResponseWriter, r *http.Request) {
		g.rounds++
		names := []string{}
		for name := range g.subjects {
			if strings.HasPrefix(name, r.URL.Query().Get("subjectPrefix")) {
				names = append(names, name)
			}
		}
		if g.deleted != "" {
			names = append(names, g.deleted)
		}
		answer(w, http.StatusOK, names)
	})
	mux.HandleFunc("GET /subjects/{subject}/versions/latest", func(w http.ResponseWriter, r *http.Request) {
		l, ok := g.subjects[r.PathValue("subject")]
		if !ok {
			answer(w, http.StatusNotFound, map[string]any{"error_code": 40401, "message": "Subject '" + r.PathValue("subject") + "' not found."})
			return
		}
		answer(w, http.StatusOK, l)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.fail != nil && g.fail(w, r) {
			return
		}
		if user, password, _ := r.BasicAuth(); user != "plans" || password != "s3cret" {
			answer(w, http.StatusUnauthorized, map[string]any{"error_code": 401, "message": "Unauthorized"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns the log lines since the previous call.
func (l *log) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

func build(t *testing.T, builder *service.StreamBuilder) {
	t.Helper()
	stream, err := builder.Build()
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- stream.Run(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, stream.StopWithin(10*time.Second))
		<-done
	})
}

// follow runs the shipped config.
func follow(t *testing.T, env map[string]string) *log {
	t.Helper()
	raw, err := os.ReadFile("../../configs/retail/plan_from_registry.yaml")
	require.NoError(t, err)
	var doc map[string]any
	require.NoError(t, yaml.Unmarshal(raw, &doc))
	for _, field := range []string{"http", "metrics", "tests"} {
		delete(doc, field)
	}
	text, err := yaml.Marshal(doc)
	require.NoError(t, err)
	l := &log{}
	builder := service.NewStreamBuilder()
	builder.SetEnvVarLookupFunc(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	builder.SetLogger(slog.New(slog.NewTextHandler(l, nil)))
	require.NoError(t, builder.SetYAML(string(text)))
	build(t, builder)
	return l
}

// validator runs a pipeline of validate_event, and returns a function that sends an
// event and returns the reason of its rejection, empty if it is valid.
func validator(t *testing.T, plan string) func(event string) string {
	t.Helper()
	builder := service.NewStreamBuilder()
	builder.SetLogger(slog.New(slog.DiscardHandler))
	send, err := builder.AddProducerFunc()
	require.NoError(t, err)
	require.NoError(t, builder.AddProcessorYAML("validate_event:\n  plan: "+plan+"\n  reload_interval: 5ms\n"))
	reasons := make(chan string, 1)
	require.NoError(t, builder.AddConsumerFunc(func(_ context.Context, m *service.Message) error {
		reason := ""
		if err := m.GetError(); err != nil {
			reason = err.Error()
		}
		reasons <- reason
		return nil
	}))
	build(t, builder)
	return func(event string) string {
		t.Helper()
		require.NoError(t, send(t.Context(), service.NewMessage([]byte(event))))
		return <-reasons
	}
}

const base = `
name: shop
version: 1.0.0
on_unplanned: dead_letter
envelope: { required: [messageId] }
events:
  Order Completed: { description: Of the till., properties: { required: [nothing_sends_this] } }
  Email Opened: { properties: { required: [email_id], properties: { email_id: { $ref: ids.json } } } }
`

func order(properties string) string {
	return `{"type":"track","event":"Order Completed","messageId":"m","properties":` + properties + `}`
}

func TestThePlanFollowsTheRegistry(t *testing.T) {
	dir := t.TempDir()
	plan := filepath.Join(dir, "plan_registry.json")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plan.yaml"), []byte(base), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ids.json"), []byte(`{"type":"string"}`), 0o644))

	g := &registry{subjects: map[string]latest{}}
	server := httptest.NewServer(g.handler())
	defer server.Close()
	g.register("crm.Order Completed", `{"required":["other prefix"]}`)
	g.register("shop.Order Completed", `{"type":"object","required":["order_id"]}`)
	g.register("shop.identify", `{"properties":{"email":{"type":"string"}}}`)
	g.register("shop.50% off/ä+b", `{"required":["code"]}`)

	lines := follow(t, map[string]string{
		"REGISTRY_URL": server.URL, "REGISTRY_INTERVAL": "10ms", "REGISTRY_RETRIES": "0",
		"REGISTRY_AUTH": "true", "REGISTRY_USERNAME": "plans", "REGISTRY_PASSWORD": "s3cret",
		"REGISTRY_BASE_PLAN": filepath.Join(dir, "plan.yaml"), "REGISTRY_PLAN": plan,
	})
	until := func(t *testing.T, what string, holds func() bool) {
		t.Helper()
		require.Eventually(t, holds, 20*time.Second, 5*time.Millisecond, what)
	}
	// logged waits for a log line that contains all the parts.
	logged := func(t *testing.T, parts ...string) {
		t.Helper()
		all := ""
		until(t, "the log says "+strings.Join(parts, ", "), func() bool {
			all += lines.take()
			for line := range strings.Lines(all) {
				holds := true
				for _, part := range parts {
					holds = holds && strings.Contains(line, part)
				}
				if holds {
					return true
				}
			}
			return false
		})
		require.NotContains(t, all, "s3cret")
	}
	logged(t, "The tracking plan has changed", "3 events of the registry")
	refused := validator(t, plan)

	require.Empty(t, refused(order(`{"order_id":"o1"}`)))
	require.Contains(t, refused(order(`{}`)), "order_id")
	require.Contains(t, refused(`{"type":"identify","messageId":"m","traits":{"email":1}}`), "/traits/email")
	require.Contains(t, refused(`{"type":"track","event":"50% off/ä+b","messageId":"m"}`), "code")
	// The rest of the plan comes from the base.
	require.Contains(t, refused(`{"type":"track","event":"Order Completed","properties":{"order_id":"o1"}}`), "messageId")
	require.Contains(t, refused(`{"type":"track","event":"Email Opened","messageId":"m","properties":{"email_id":1}}`), "email_id")
	require.NotEmpty(t, refused(`{"type":"track","event":"Unheard Of","messageId":"m"}`))

	// An unchanged plan is not written.
	before, err := os.Stat(plan)
	require.NoError(t, err)
	rounds := g.lists()
	until(t, "three more rounds", func() bool { return g.lists() > rounds+3 })
	after, err := os.Stat(plan)
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime())

	// A new version is used for validation. Its references are its own, with an older
	// draft than the plan's.
	g.register("shop.Order Completed", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","required":["order_id"],
		"properties":{"total":{"$ref":"#/definitions/money"}},"definitions":{"money":{"type":"number","maximum":12345678901234567890}}}`)
	until(t, "a total that is text is refused", func() bool {
		return strings.Contains(refused(order(`{"order_id":"o1","total":"12.50"}`)), "/properties/total")
	})
	require.Empty(t, refused(order(`{"order_id":"o1","total":12.5}`)))
	written, err := os.ReadFile(plan)
	require.NoError(t, err)
	require.Contains(t, string(written), "12345678901234567890", "numbers are as the registry has them")

	list := func(r *http.Request) bool { return r.URL.Path == "/subjects" }
	bad := func(l latest) (func(), func()) {
		return func() { g.put("shop.bad", l) }, func() { g.remove("shop.bad") }
	}
	fails := func(f func(http.ResponseWriter, *http.Request) bool) (func(), func()) {
		return func() { g.failing(f) }, func() { g.failing(nil) }
	}
	for _, c := range []struct {
		name   string
		begin  func() (func(), func())
		reason string
	}{
		{"away", func() (func(), func()) {
			return fails(func(w http.ResponseWriter, _ *http.Request) bool {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					_ = conn.Close()
				}
				return true
			})
		}, "/subjects"},
		{"failing", func() (func(), func()) {
			return fails(func(w http.ResponseWriter, _ *http.Request) bool {
				answer(w, http.StatusInternalServerError, map[string]any{"error_code": 50001, "message": "Error in the backend data store"})
				return true
			})
		}, "500"},
		{"failing for schemas only", func() (func(), func()) {
			return fails(func(w http.ResponseWriter, r *http.Request) bool {
				if !list(r) {
					answer(w, http.StatusServiceUnavailable, map[string]any{"error_code": 50302, "message": "Leader unknown"})
				}
				return !list(r)
			})
		}, "503"},
		{"closed to us", func() (func(), func()) {
			return fails(func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Authorization"); return false })
		}, "401"},
		{"some other page", func() (func(), func()) {
			return fails(func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte("<html>")); return true })
		}, "is REGISTRY_URL that of a schema registry?"},
		{"garbage for a schema", func() (func(), func()) {
			return fails(func(w http.ResponseWriter, r *http.Request) bool {
				if !list(r) {
					_, _ = w.Write([]byte(`{"subject":`))
				}
				return !list(r)
			})
		}, "shop.50% off/ä+b"},
		{"emptied", func() (func(), func()) {
			return fails(func(w http.ResponseWriter, _ *http.Request) bool { answer(w, http.StatusOK, []string{}); return true })
		}, "no subject that begins with"},
		{"a subject deleted meanwhile", func() (func(), func()) {
			set := func(name string) func() {
				return func() { g.mu.Lock(); g.deleted = name; g.mu.Unlock() }
			}
			return set("shop.gone"), set("")
		}, "shop.gone"},
		{"a schema in Avro", func() (func(), func()) { return bad(latest{Schema: `"string"`}) }, "AVRO"},
		{"a schema that refers to others", func() (func(), func()) {
			return bad(latest{SchemaType: "JSON", Schema: `{}`, References: []map[string]any{{"name": "m.json", "subject": "m", "version": 1}}})
		}, "refers to other subjects"},
		{"a schema that is none", func() (func(), func()) { return bad(latest{SchemaType: "JSON", Schema: `{"type":"nonsense"}`}) }, "the plan would be wrong"},
		{"a schema that is no object", func() (func(), func()) { return bad(latest{SchemaType: "JSON", Schema: `[]`}) }, "must be an object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin, end := c.begin()
			begin()
			defer end()
			logged(t, "level=ERROR", "last one stays", c.reason)
			kept, err := os.ReadFile(plan)
			require.NoError(t, err)
			require.Equal(t, string(written), string(kept))
			require.Contains(t, refused(order(`{"order_id":"o1","total":"12.50"}`)), "/properties/total")
			require.Empty(t, refused(order(`{"order_id":"o1","total":12.5}`)))
		})
	}

	// After the outage, changes made meanwhile are read.
	g.register("shop.Order Completed", `{"required":["order_id","currency"]}`)
	until(t, "an order without a currency is refused", func() bool {
		return strings.Contains(refused(order(`{"order_id":"o1"}`)), "currency")
	})
	require.Empty(t, refused(order(`{"order_id":"o1","currency":"EUR","total":"12.50"}`)))
	// Without its subject, an event is validated by the base.
	g.remove("shop.Order Completed")
	until(t, "an order is held against the base", func() bool {
		return strings.Contains(refused(order(`{"order_id":"o1","currency":"EUR"}`)), "nothing_sends_this")
	})
	rounds = g.lists()
	until(t, "two more rounds", func() bool { return g.lists() > rounds+2 })
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{plan, filepath.Join(dir, "plan.yaml"), filepath.Join(dir, "ids.json")}, files)
}
