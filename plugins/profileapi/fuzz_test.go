package profileapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// FuzzRequest sends whatever it likes as path, query, headers and body. It
// expects an answer that is documented, never status 500, and of a write that
// was taken an event that the pipeline can read.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/api/customer/c1", "", "", "", "")
	f.Add("GET", "/api/customer/a%2Fb%00", "fields=traits.a,features&as_of=2026-01-31T08:30:00+01:00", "", "application/json;q=0.1", `W/"0"`)
	f.Add("GET", "/api/customer/%zz", "as_of=99999999999999999999", "", "*/*", "*")
	f.Add("POST", "/api/customers/batch", "as_of=5", `{"ids":["c1","\ud800","é"]}`, "application/x-ndjson", "")
	f.Add("POST", "/api/customers/batch", "", `{"ids":[["c1"]],"IDS":null} x`, "", "")
	f.Add("PUT", "/api/customer/c1/traits", "", `{"a":{"b":[1,-0.5e300,null]},"\u0061b":"\ud83d\ude42"}`, "", "key-1")
	f.Add("PATCH", "/api/customer//traits", "", `{"a":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`, "", "\x7f")
	f.Add("PATCH", "/api/customer/c1/traits", "", `{"plan":null,"":0}`, "", "k")
	f.Add("OPTIONS", "*", "", "", "", "")

	fake := withProfiles("c1", "a/b\x00", "é")
	fake.profiles["c1"] = `{"id":"c1","traits":{"plan":"gold","x,\"as_of\":":1},"as_of":"x","updated_at":null}`
	parsed, err := spec().ParseYAML("profiles: shop\nlimits: { batch_ids: 5 }", nil)
	require.NoError(f, err)
	in, err := newInput(parsed, fake, service.MockResources())
	require.NoError(f, err)
	taken := make(chan []byte, 1)
	go func() {
		for {
			batch, ack, err := in.ReadBatch(context.Background())
			if err != nil {
				return
			}
			for _, m := range batch {
				data, _ := m.AsBytes()
				taken <- data
			}
			_ = ack(context.Background(), nil)
		}
	}()

	f.Fuzz(func(t *testing.T, method, path, query, body, accept, header string) {
		u, err := url.ParseRequestURI(path)
		// A DELETE waits until a pipeline that is not there has erased.
		if err != nil || method == "" || method == http.MethodDelete || len(body) > 64<<10 {
			return
		}
		u.RawQuery = query
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
		r.Method, r.URL, r.Host = method, u, "localhost"
		r.Header.Set("Content-Type", "application/json")
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		if header != "" {
			r.Header.Set("If-None-Match", header)
			r.Header.Set("Idempotency-Key", header)
		}
		w := httptest.NewRecorder()
		in.handler.ServeHTTP(w, r)

		answer := w.Body.String()
		switch w.Code {
		case 200, 202:
			if method == http.MethodHead {
				require.Empty(t, answer)
				return
			}
			for line := range strings.Lines(answer) {
				if w.Header().Get("Content-Type") == typeJSON {
					line = answer
				}
				require.True(t, json.Valid([]byte(line)), "%q", answer)
			}
			if w.Code == 202 {
				e, err := new(event.Parser).Parse(<-taken)
				require.NoError(t, err)
				p, params := findPage(u)
				require.Equal(t, "traits", p.name)
				require.Equal(t, params[0], string(e.UserID))
				require.NoError(t, e.VisitTraits(func([]byte, event.Value) {}))
			}
		case 204, 304:
			require.Empty(t, answer)
		case 400, 404, 405, 406, 413, 415:
			if method == http.MethodHead {
				require.Empty(t, answer)
				return
			}
			var refused struct {
				Error struct{ Code, Message string }
			}
			require.NoError(t, json.Unmarshal([]byte(answer), &refused))
			require.NotEmpty(t, refused.Error.Code)
			require.NotEmpty(t, refused.Error.Message)
		default:
			t.Fatalf("status %d: %s", w.Code, answer)
		}
	})
}
