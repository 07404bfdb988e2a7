package eventcollector

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

const pageEvent = `{"type":"page","messageId":"m","userId":"u"}`

func batchOf(events ...string) string {
	return `{"batch":[` + strings.Join(events, ",") + `]}`
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func TestEveryEndpointAcceptsEvents(t *testing.T) {
	p := start(t, options{input: twoKeys})
	n := 0
	for _, c := range []struct{ path, body, kind string }{
		{"/v1/track", `{"event":"E","userId":"u"}`, "track"},
		{"/v1/t", `{"event":"E","userId":"u"}`, "track"},
		{"/v1/identify", `{"userId":"u","traits":{}}`, "identify"},
		{"/v1/i", `{"userId":"u"}`, "identify"},
		{"/v1/page", `{"userId":"u","name":"Home"}`, "page"},
		{"/v1/p", `{"anonymousId":"u"}`, "page"},
		{"/v1/screen", `{"userId":"u"}`, "screen"},
		{"/v1/s", `{"userId":"u"}`, "screen"},
		{"/v1/group", `{"userId":"u","groupId":"g"}`, "group"},
		{"/v1/g", `{"userId":"u","groupId":"g"}`, "group"},
		{"/v1/alias", `{"userId":"u","previousId":"p"}`, "alias"},
		{"/v1/a", `{"userId":"u","previousId":"p"}`, "alias"},
		{"/v1/batch", batchOf(pageEvent), "page"},
		{"/v1/b", batchOf(pageEvent), "page"},
		{"/v1/import", batchOf(pageEvent), "page"},
		{"/beacon/v1/batch", batchOf(pageEvent), "page"},
	} {
		before := time.Now().UTC().Truncate(time.Millisecond)
		a := p.post(c.path, c.body)
		require.Equal(t, http.StatusOK, a.status, "%s: %s", c.path, a.body)
		require.Equal(t, `{"success":true}`, a.body)
		require.Equal(t, "application/json", a.header.Get("Content-Type"))

		events := p.events(n + 1)
		event := events[n]
		n++
		require.Equal(t, c.kind, event["type"], c.path)
		require.NotEmpty(t, event["messageId"])
		require.Equal(t, "web", event["source"])
		require.Equal(t, map[string]any{"ip": "127.0.0.1"}, event["context"])
		received, err := time.Parse("2006-01-02T15:04:05.000Z", event["receivedAt"].(string))
		require.NoError(t, err)
		require.False(t, received.Before(before))
		require.Equal(t, event["receivedAt"], event["timestamp"])
	}
	require.Len(t, p.delivered(n), n, "one batch for each request")
}

func TestWriteKeySelectsTheSource(t *testing.T) {
	p := start(t, options{input: twoKeys})
	inBody := func(k string) string { return `{"writeKey":"` + k + `",` + pageEvent[1:] }
	batchWith := func(k string) string { return `{"writeKey":"` + k + `",` + batchOf(pageEvent)[1:] }
	noAuth := without("Authorization")
	for _, c := range []struct {
		name       string
		path, body string
		edit       func(*http.Request)
		source     string // empty for 401
	}{
		{"Basic", "/v1/page", pageEvent, key("web-key"), "web"},
		{"another key", "/v1/page", pageEvent, key("server-key"), "server"},
		{"Basic with a password", "/v1/page", pageEvent, func(r *http.Request) { r.SetBasicAuth("web-key", "x") }, "web"},
		{"Basic without colon", "/v1/page", pageEvent, header("Authorization", "basic "+base64.StdEncoding.EncodeToString([]byte("web-key"))), "web"},
		{"in the event", "/v1/page", inBody("server-key"), noAuth, "server"},
		{"in the batch", "/v1/batch", batchWith("server-key"), noAuth, "server"},
		{"in the body, with a token of another scheme", "/v1/batch", batchWith("web-key"), header("Authorization", "Bearer token"), "web"},
		{"in the query of a beacon", "/beacon/v1/batch?writeKey=web-key", batchOf(pageEvent), noAuth, "web"},
		{"Basic takes precedence over the body", "/v1/batch", batchWith("server-key"), key("web-key"), "web"},
		{"missing", "/v1/page", pageEvent, noAuth, ""},
		{"missing in the batch", "/v1/batch", batchOf(inBody("web-key")), noAuth, ""},
		{"unknown", "/v1/page", pageEvent, key("web-ke"), ""},
		{"empty", "/v1/page", pageEvent, key(""), ""},
		{"unknown in the body", "/v1/page", inBody("Web-key"), noAuth, ""},
		{"no string", "/v1/batch", `{"writeKey":7,` + batchOf(pageEvent)[1:], noAuth, ""},
		{"unknown in Basic, known in the body", "/v1/page", inBody("web-key"), key("other"), ""},
		{"not base64", "/v1/page", pageEvent, header("Authorization", "Basic !"), ""},
		{"in the query of another endpoint", "/v1/batch?writeKey=web-key", batchOf(pageEvent), noAuth, ""},
		{"unknown in the query", "/beacon/v1/batch?writeKey=x", batchOf(pageEvent), noAuth, ""},
	} {
		seen := len(p.delivered(0))
		a := p.post(c.path, c.body, c.edit)
		if c.source == "" {
			require.Equal(t, http.StatusUnauthorized, a.status, c.name)
			require.Equal(t, "invalid_write_key", a.code())
			require.Empty(t, a.header.Get("WWW-Authenticate"))
			require.Len(t, p.delivered(0), seen, c.name)
			continue
		}
		require.Equal(t, http.StatusOK, a.status, "%s: %s", c.name, a.body)
		event := p.events(seen + 1)[seen]
		require.Equal(t, c.source, event["source"], c.name)
		require.NotContains(t, event, "writeKey")
	}
	require.NotContains(t, p.log.text(), "-key", "keys are never logged")
}

func TestRejectedRequests(t *testing.T) {
	p := start(t, options{input: twoKeys + "limits: { max_depth: 16, max_batch_events: 3 }\n"})
	largeBatch := batchOf(pageEvent[:len(pageEvent)-1] + `,"p":"` + strings.Repeat("x", 500<<10) + `"}`)
	gz := header("Content-Encoding", "gzip")
	for _, c := range []struct {
		name       string
		path, body string
		edit       func(*http.Request)
		status     int
		code       string
	}{
		{"no body", "/v1/page", "", nil, 400, "empty_body"},
		{"not JSON in a batch", "/v1/batch", "batch=u", nil, 400, "invalid_json"},
		{"not JSON, key in the body", "/v1/page", `{"writeKey":"web-key",`, without("Authorization"), 400, "truncated_json"},
		{"large batch of unknown length", "/v1/batch", largeBatch, func(r *http.Request) { r.ContentLength = -1; r.Body = io.NopCloser(strings.NewReader(largeBatch)) }, 413, "body_too_large"},
		{"cut off batch", "/v1/batch", batchOf(pageEvent)[:40], nil, 400, "truncated_json"},
		{"not UTF-8 in a batch", "/v1/batch", batchOf("{\"userId\":\"\xc3\x28\"}"), nil, 400, "invalid_utf8"},
		{"extremely deep batch", "/v1/batch", `{"batch":[],"p":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + "}", nil, 400, "too_deep"},
		{"batch is a list", "/v1/batch", "[" + pageEvent + "]", nil, 400, "not_an_object"},
		{"no list of events", "/v1/batch", pageEvent, nil, 400, "invalid_batch"},
		{"wrong context for all", "/v1/batch", `{"context":1,"batch":[]}`, nil, 400, "invalid_batch"},
		{"large batch", "/v1/batch", largeBatch, nil, 413, "body_too_large"},
		{"large batch, zipped", "/v1/batch", zipped(t, largeBatch), gz, 413, "body_too_large"},
		{"gzip bomb", "/v1/batch", zipped(t, strings.Repeat(" ", 100<<20)), gz, 413, "body_too_large"},
		{"too many events", "/v1/batch", batchOf("1", "2", "3", "4"), nil, 413, "too_many_events"},
		{"not gzip", "/v1/page", pageEvent, gz, 400, "invalid_gzip"},
		{"cut off gzip", "/v1/page", zipped(t, pageEvent)[:30], gz, 400, "invalid_gzip"},
		{"gzip with a wrong checksum", "/v1/page", func() string { z := []byte(zipped(t, pageEvent)); z[len(z)-6] ^= 1; return string(z) }(), gz, 400, "invalid_gzip"},
		{"gzip with something after it", "/v1/page", zipped(t, pageEvent) + "trailing", gz, 400, "invalid_gzip"},
		{"no gzip at all", "/v1/page", "", gz, 400, "invalid_gzip"},
		{"XML", "/v1/page", pageEvent, header("Content-Type", "application/xml"), 415, "unsupported_content_type"},
		{"a form with files", "/v1/page", pageEvent, header("Content-Type", "multipart/form-data; boundary=x"), 415, "unsupported_content_type"},
		{"nonsense type", "/v1/page", pageEvent, header("Content-Type", ";;"), 415, "unsupported_content_type"},
		{"brotli", "/v1/page", pageEvent, header("Content-Encoding", "br"), 415, "unsupported_content_encoding"},
		{"gzip twice", "/v1/page", pageEvent, header("Content-Encoding", "gzip, gzip"), 415, "unsupported_content_encoding"},
		{"GET", "/v1/page", "", method("GET"), 405, "method_not_allowed"},
		{"PUT", "/v1/batch", batchOf(pageEvent), method("PUT"), 405, "method_not_allowed"},
		{"OPTIONS without CORS", "/v1/batch", "", method("OPTIONS"), 405, "method_not_allowed"},
		{"root", "/", pageEvent, nil, 404, "unknown_endpoint"},
		{"unknown endpoint", "/v1/pages", pageEvent, nil, 404, "unknown_endpoint"},
		{"unknown endpoint with GET", "/health", "", method("GET"), 404, "unknown_endpoint"},
	} {
		edits := []func(*http.Request){}
		if c.edit != nil {
			edits = append(edits, c.edit)
		}
		a := p.post(c.path, c.body, edits...)
		require.Equal(t, c.status, a.status, "%s: %s", c.name, a.body)
		require.Equal(t, c.code, a.code(), c.name)
		require.Equal(t, "application/json", a.header.Get("Content-Type"))
		require.Empty(t, a.header.Get("Retry-After"))
		if c.status == 405 {
			require.Equal(t, "POST", a.header.Get("Allow"))
		}
	}
	require.Empty(t, p.delivered(0), "a rejected request emits nothing")

	// The server still accepts events.
	require.Equal(t, 200, p.post("/v1/page", pageEvent).status)
	require.Len(t, p.delivered(1), 1)
}

// SDKs drop a single event after a 4xx, so an event that breaks rules is kept as a
// dead letter with its bytes.
func TestSingleEventThatIsRejectedBecomesADeadLetter(t *testing.T) {
	p := start(t, options{input: twoKeys + "limits: { max_depth: 16 }\n"})
	deep := `{"userId":"u","p":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`
	large := `{"userId":"u","p":"` + strings.Repeat("x", 32<<10) + `"}`
	n := 0
	for _, c := range []struct{ path, body, rule, reason string }{
		{"/v1/page", `{"name":"x"}`, "required", "event 0: the event needs a userId or an anonymousId"},
		{"/v1/track", `{"userId":"u"}`, "required", "event 0: /event: an event of type track needs event"},
		{"/v1/track", `{"userId":true,"event":7}`, "type", "event 0: /userId: userId must be a string or a whole number; /event: event must be a string"},
		{"/v1/page", `{"userId":"u","timestamp":17}`, "format", ""},
		{"/v1/page", `{"userId":"u","properties":{"total":NaN}}`, "invalid_json", ""},
		{"/v1/page", large, "max_bytes", ""},
		{"/v1/page", deep, "too_deep", ""},
		{"/v1/page", "userId=u", "invalid_json", ""},
		{"/v1/page", pageEvent + pageEvent, "invalid_json", ""},
		{"/v1/page", pageEvent[:20], "truncated_json", ""},
		{"/v1/page", "{\"userId\":\"\xff\"}", "invalid_utf8", ""},
		{"/v1/page", strings.Repeat("[", 30_000), "truncated_json", ""},
		{"/v1/page", "[" + pageEvent + "]", "not_an_object", ""},
	} {
		a := p.post(c.path, c.body)
		require.Equal(t, 200, a.status, "%.80s: %s", c.body, a.body)
		var got struct {
			Success  bool
			Rejected int
			Reasons  []string
		}
		require.NoError(t, json.Unmarshal([]byte(a.body), &got))
		require.True(t, got.Success)
		require.Equal(t, 1, got.Rejected)
		require.Len(t, got.Reasons, 1)
		if c.reason != "" {
			require.Equal(t, c.reason, got.Reasons[0])
		}
		n++
		msg := p.delivered(n)[n-1][0]
		raw, err := msg.AsBytes()
		require.NoError(t, err)
		require.Equal(t, c.body, string(raw))
		rejected, ok := errors.AsType[*rejection.Error](msg.GetError())
		require.True(t, ok)
		require.Equal(t, c.rule, rejected.Reasons[0].Rule, "%.80s", c.body)
	}
}

// One NaN, as Python's json module writes it, does not lose the batch.
func TestNaNRejectsOnlyItsEvent(t *testing.T) {
	p := start(t, options{input: twoKeys})
	bad := `{"type":"page","userId":"u","properties":{"total":NaN}}`
	require.Equal(t, 200, p.post("/v1/batch", batchOf(pageEvent, bad)).status)
	batch := p.delivered(1)[0]
	require.Len(t, batch, 2)
	require.NoError(t, batch[0].GetError())
	require.Error(t, batch[1].GetError())
	raw, err := batch[1].AsBytes()
	require.NoError(t, err)
	require.Equal(t, bad, string(raw))
}

func TestPathsAsSDKsJoinThem(t *testing.T) {
	p := start(t, options{input: twoKeys})
	for _, path := range []string{"/v1/page/", "//v1/page", "/v1//page///"} {
		require.Equal(t, 200, p.post(path, pageEvent).status, path)
	}
}

func TestProbes(t *testing.T) {
	p := start(t, options{input: twoKeys})
	for _, path := range []string{"/healthz", "/readyz"} {
		require.Equal(t, 200, p.post(path, "", method("GET"), without("Authorization")).status)
	}
	in, err := newTestInput(t, twoKeys)
	require.NoError(t, err)
	in.drain()
	for path, status := range map[string]int{"/healthz": 200, "/readyz": 503} {
		w := httptest.NewRecorder()
		in.serve(w, httptest.NewRequest("GET", path, nil))
		require.Equal(t, status, w.Code)
	}
}

// Segment's SDK for Python reads code and message at the top level.
func TestErrorBodyRepeatsCodeAndMessage(t *testing.T) {
	p := start(t, options{input: twoKeys})
	var body struct {
		Success       *bool
		Code, Message string
		Error         struct{ Code, Message string }
	}
	require.NoError(t, json.Unmarshal([]byte(p.post("/v1/batch", "{").body), &body))
	require.False(t, *body.Success)
	require.Equal(t, "truncated_json", body.Code)
	require.Equal(t, body.Error.Code, body.Code)
	require.Equal(t, body.Error.Message, body.Message)
}

func TestSettingsOfSDKs(t *testing.T) {
	p := start(t, options{input: twoKeys + "cors: { allowed_origins: [ 'https://shop.example' ] }\n"})
	get := func(path string, edits ...func(*http.Request)) response {
		return p.post(path, "", append([]func(*http.Request){method("GET"), without("Authorization")}, edits...)...)
	}
	a := get("/v1/projects/web-key/settings", header("Origin", "https://shop.example"))
	require.Equal(t, 200, a.status, a.body)
	require.Equal(t, "https://shop.example", a.header.Get("Access-Control-Allow-Origin"))
	var segment struct {
		Integrations map[string]struct{ APIKey, APIHost, Protocol string }
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &segment))
	own := segment.Integrations["Segment.io"]
	require.Equal(t, "web-key", own.APIKey)
	require.Equal(t, p.url+"/v1", own.Protocol+"://"+own.APIHost)

	for _, edit := range []func(*http.Request){key("web-key"), header("Accept", "*/*")} {
		a = get("/sourceConfig/?p=npm&writeKey=web-key", edit)
		require.Equal(t, 200, a.status, a.body)
		var rudder struct {
			Source struct {
				ID           string
				Enabled      bool
				Config       map[string]any
				Destinations []any
			}
		}
		require.NoError(t, json.Unmarshal([]byte(a.body), &rudder))
		require.Equal(t, "web", rudder.Source.ID)
		require.True(t, rudder.Source.Enabled)
		require.NotNil(t, rudder.Source.Config)
		require.NotNil(t, rudder.Source.Destinations)
	}
	require.Equal(t, 401, get("/v1/projects/other/settings").status)
	require.Equal(t, 401, get("/sourceConfig").status)
	require.Equal(t, 403, get("/v1/projects/web-key/settings", header("Origin", "https://elsewhere.test")).status)
	require.Equal(t, 404, get("/v1/projects/web-key/x/settings").status)
	require.Equal(t, 204, get("/sourceConfig", method("OPTIONS"), header("Origin", "https://shop.example")).status)
}

// Events with neither id nor time: a retry has the id of the first request. The
// rule is tested with a clock in TestRepetitionsFollowTheResponse.
func TestRepetitionWithoutIDAndTime(t *testing.T) {
	outcome := make(chan error, 1)
	p := start(t, options{input: twoKeys, consume: func(service.MessageBatch) error { return <-outcome }})
	send := func(result error, status int) any {
		n := len(p.delivered(0))
		outcome <- result
		require.Equal(t, status, p.post("/v1/track", `{"userId":"rep","event":"Product Viewed"}`).status)
		return p.events(n + 1)[n]["messageId"]
	}
	first := send(errors.New("disk full"), 503)
	require.Equal(t, first, send(nil, 200), "a retry after 503")
	require.Equal(t, first, send(nil, 200), "a repetition right after 200")
	p.meters.await(t, 2, "event_collector_events_without_id", "web", "retry")
}

func TestAcceptedContentTypesAndEncodings(t *testing.T) {
	p := start(t, options{input: twoKeys})
	n := 0
	for _, c := range []struct {
		name string
		body string
		edit func(*http.Request)
	}{
		{"JSON", pageEvent, nil},
		{"JSON with a charset", pageEvent, header("Content-Type", "application/json; charset=utf-8")},
		{"JSON in capitals", pageEvent, header("Content-Type", "Application/JSON;charset=UTF-8")},
		{"a beacon", pageEvent, header("Content-Type", "text/plain;charset=UTF-8")},
		{"plain text", pageEvent, header("Content-Type", "text/plain")},
		{"no type", pageEvent, without("Content-Type")},
		{"curl -d", pageEvent, header("Content-Type", "application/x-www-form-urlencoded")},
		{"gzip", zipped(t, pageEvent), header("Content-Encoding", "gzip")},
		{"GZIP", zipped(t, pageEvent), header("Content-Encoding", "GZIP")},
		{"gzip in two members", zipped(t, pageEvent[:10]) + zipped(t, pageEvent[10:]), header("Content-Encoding", "gzip")},
		{"identity", pageEvent, header("Content-Encoding", "identity")},
		{"chunked", pageEvent, func(r *http.Request) { r.ContentLength = -1; r.Body = io.NopCloser(strings.NewReader(pageEvent)) }},
		{"at the limit, zipped", zipped(t, pageEvent+strings.Repeat(" ", 500<<10-len(pageEvent))), header("Content-Encoding", "gzip")},
	} {
		edits := []func(*http.Request){}
		if c.edit != nil {
			edits = append(edits, c.edit)
		}
		a := p.post("/v1/page", c.body, edits...)
		require.Equal(t, 200, a.status, "%s: %s", c.name, a.body)
		n++
		require.Equal(t, "m", p.events(n)[n-1]["messageId"], c.name)
	}
	full := batchOf(pageEvent) + strings.Repeat(" ", 500<<10-len(batchOf(pageEvent)))
	require.Equal(t, 200, p.post("/v1/batch", full).status)
	require.Equal(t, 413, p.post("/v1/batch", full+" ").status)
	require.Equal(t, int64(0), p.meters.get("event_collector_in_flight"))
}

func TestEmptyBatchSucceeds(t *testing.T) {
	p := start(t, options{input: twoKeys})
	a := p.post("/v1/batch", `{"batch":[]}`)
	require.Equal(t, 200, a.status)
	require.Empty(t, p.delivered(0))
}

// A rejected event of a batch becomes a message with the client's bytes and an
// error that survives the pipeline. It does not change its neighbours.
func TestRejectedEventOfBatch(t *testing.T) {
	p := start(t, options{input: twoKeys, processors: []string{
		"mapping: |\n  root = if errored() { content() } else { this.merge({\"mapped\": true}) }",
		"switch:\n  - check: '!errored()'\n    processors: [ { mapping: 'root = this' } ]",
	}})
	bad := `{"type":"page", "userId":true ,"properties":{"total":1.50}}`
	a := p.post("/v1/batch", batchOf(pageEvent, bad, " 5 ", `{"type":"page","anonymousId":"a","messageId":"n"}`))
	require.Equal(t, 200, a.status, a.body)

	batch := p.delivered(1)[0]
	require.Len(t, batch, 4)
	text := func(i int) string {
		data, err := batch[i].AsBytes()
		require.NoError(t, err)
		return string(data)
	}
	for _, i := range []int{0, 3} {
		require.NoError(t, batch[i].GetError())
		require.Contains(t, text(i), `"mapped":true`)
	}
	require.Equal(t, bad, text(1))
	rejected, ok := errors.AsType[*rejection.Error](batch[1].GetError())
	require.True(t, ok, "%T", batch[1].GetError())
	require.Equal(t, "event_collector", rejected.Stage)
	require.Equal(t, []rejection.Reason{
		{Pointer: "/userId", Rule: "type", Message: "userId must be a string or a whole number"},
	}, rejected.Reasons)
	require.Equal(t, "5", text(2))
	for _, i := range []int{1, 2} {
		from, _ := batch[i].MetaGet("source")
		require.Equal(t, "web", from)
		at, _ := batch[i].MetaGet("received_at")
		require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, at)
	}
	p.meters.await(t, 2, "event_collector_events_accepted", "web")
	p.meters.await(t, 2, "event_collector_events_rejected", "web", "type")
}

// By config alone, a rejected event becomes a dead letter.
func TestDeadLetterEnvelope(t *testing.T) {
	file := t.TempDir() + "/dead.jsonl"
	p := start(t, options{input: twoKeys, output: `
switch:
  cases:
    - check: errored()
      output:
        file: { path: ` + file + `, codec: lines }
        processors: [ { dead_letter: {} } ]
    - output: { drop: {} }
`})
	require.Equal(t, 200, p.post("/v1/batch", batchOf(pageEvent, `{"type":"nope","userId":"u"}`)).status)
	require.NoError(t, p.stream.StopWithin(patience))
	written := readFile(t, file)
	var envelope deadletterLine
	require.NoError(t, json.Unmarshal([]byte(written), &envelope), written)
	require.Equal(t, deadletterLine{Stage: "event_collector", Source: "web", Original: `{"type":"nope","userId":"u"}`}, envelope)
}

type deadletterLine struct{ Stage, Source, Original string }

func TestBatchContextAndClockSkew(t *testing.T) {
	p := start(t, options{input: twoKeys})
	now := time.Now().UTC()
	stamp := func(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z") }
	// The clock of the device is three hours ahead; the event happened 10 s ago.
	body := fmt.Sprintf(`{"context":{"device":{"type":"phone"},"locale":"de"},"integrations":{"All":false},"sentAt":%q,
		"batch":[{"type":"page","messageId":"m","userId":"u","timestamp":%q,"context":{"locale":"fr","library":{"name":"lib"}}}]}`,
		stamp(now.Add(3*time.Hour)), stamp(now.Add(3*time.Hour-10*time.Second)))
	require.Equal(t, 200, p.post("/v1/batch", body).status)
	event := p.events(1)[0]
	require.Equal(t, map[string]any{
		"device": map[string]any{"type": "phone"}, "locale": "fr", "library": map[string]any{"name": "lib"}, "ip": "127.0.0.1",
	}, event["context"])
	require.Equal(t, map[string]any{"All": false}, event["integrations"])
	received, err := time.Parse(time.RFC3339, event["receivedAt"].(string))
	require.NoError(t, err)
	corrected, err := time.Parse(time.RFC3339, event["timestamp"].(string))
	require.NoError(t, err)
	require.Equal(t, 10*time.Second, received.Sub(corrected))
	require.Equal(t, stamp(now.Add(3*time.Hour-10*time.Second)), event["originalTimestamp"])
	require.Equal(t, stamp(now.Add(3*time.Hour)), event["sentAt"])
}

func TestRetryHasTheSameMessageIDs(t *testing.T) {
	p := start(t, options{input: twoKeys})
	body := batchOf(`{"type":"page","userId":"u"}`, `{"type":"page","userId":"u"}`, `{"type":"page","userId":"u","messageId":"own"}`)
	for range 2 {
		require.Equal(t, 200, p.post("/v1/batch", body).status)
	}
	events := p.events(2)
	require.Len(t, events, 6)
	ids := map[any]int{}
	for i := range 3 {
		require.Equal(t, events[i]["messageId"], events[i+3]["messageId"])
		ids[events[i]["messageId"]]++
	}
	require.Len(t, ids, 3)
	require.Contains(t, ids, "own")
}

func TestClientAddress(t *testing.T) {
	p := start(t, options{input: twoKeys + "trusted_proxies: [ 127.0.0.1, 10.0.0.0/8, '::1' ]\n"})
	n := 0
	ip := func(edits ...func(*http.Request)) any {
		t.Helper()
		require.Equal(t, 200, p.post("/v1/page", pageEvent, edits...).status)
		n++
		context, _ := p.events(n)[n-1]["context"].(map[string]any)
		return context["ip"]
	}
	forwarded := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["X-Forwarded-For"] = values }
	}
	require.Equal(t, "127.0.0.1", ip())
	require.Equal(t, "203.0.113.9", ip(forwarded("203.0.113.9")))
	require.Equal(t, "203.0.113.9", ip(forwarded("6.6.6.6, 203.0.113.9, 10.1.2.3")), "an address that the client wrote itself is ignored")
	require.Equal(t, "203.0.113.9", ip(forwarded("6.6.6.6", "203.0.113.9", "10.1.2.3")), "in several lines")
	require.Equal(t, "203.0.113.9", ip(forwarded("203.0.113.9:4711")))
	require.Equal(t, "2001:db8::1", ip(forwarded("[2001:db8::1]:443")))
	require.Equal(t, "2001:db8::1", ip(forwarded("2001:db8::1")))
	require.Equal(t, "203.0.113.9", ip(forwarded("::ffff:203.0.113.9")))
	require.Equal(t, "10.9.9.9", ip(forwarded("10.9.9.9")), "only proxies on the way")
	require.Equal(t, "10.1.2.3", ip(forwarded("203.0.113.9, unknown, 10.1.2.3")))
	require.Equal(t, "127.0.0.1", ip(forwarded(`"><script>`)))
	require.Nil(t, ip(key("server-key"), forwarded("203.0.113.9")), "the address of a shop's server is not its customer's")

	plain := start(t, options{input: twoKeys})
	require.Equal(t, 200, plain.post("/v1/page", pageEvent, forwarded("203.0.113.9")).status)
	require.Equal(t, map[string]any{"ip": "127.0.0.1"}, plain.events(1)[0]["context"], "no proxy is trusted by default")
}

func TestCORS(t *testing.T) {
	p := start(t, options{input: twoKeys + "cors: { allowed_origins: [ 'https://shop.example', 'https://*.shop.example:8443' ] }\n"})
	preflight := func(origin string) response {
		return p.post("/v1/track", "", method("OPTIONS"), without("Authorization"), without("Content-Type"),
			header("Origin", origin), header("Access-Control-Request-Method", "POST"),
			header("Access-Control-Request-Headers", "authorization,content-type,x-custom"))
	}
	for _, origin := range []string{"https://shop.example", "https://www.shop.example:8443", "https://a.b.shop.example:8443"} {
		a := preflight(origin)
		require.Equal(t, 204, a.status, a.body)
		require.Equal(t, origin, a.header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "true", a.header.Get("Access-Control-Allow-Credentials"))
		require.Equal(t, "GET, POST", a.header.Get("Access-Control-Allow-Methods"))
		require.Equal(t, preflightHeaders+", authorization,content-type,x-custom", a.header.Get("Access-Control-Allow-Headers"))
		require.Equal(t, "7200", a.header.Get("Access-Control-Max-Age"))
		require.Contains(t, a.header.Values("Vary"), "Origin")
	}
	for _, origin := range []string{"http://shop.example", "https://shop.example.evil.test", "https://evilshop.example:8443", "https://.shop.example:8443", "null", "https://shop.example:443"} {
		a := preflight(origin)
		require.Equal(t, 403, a.status, origin)
		require.Equal(t, "origin_not_allowed", a.code())
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	}
	require.Equal(t, 404, p.post("/v1/nope", "", method("OPTIONS")).status)
	require.Equal(t, 204, p.post("/v1/track", "", method("OPTIONS")).status)
	a := p.post("/v1/track", "", method("DELETE"))
	require.Equal(t, 405, a.status)
	require.Equal(t, "POST, OPTIONS", a.header.Get("Allow"))

	// A page may read responses, including errors.
	a = p.post("/v1/page", pageEvent, header("Origin", "https://shop.example"))
	require.Equal(t, 200, a.status)
	require.Equal(t, "https://shop.example", a.header.Get("Access-Control-Allow-Origin"))
	a = p.post("/v1/batch", "{", header("Origin", "https://shop.example"))
	require.Equal(t, 400, a.status)
	require.Equal(t, "https://shop.example", a.header.Get("Access-Control-Allow-Origin"))
	// A beacon of another page needs no preflight.
	for _, origin := range []string{"https://elsewhere.test", "null"} {
		a = p.post("/v1/page", pageEvent, header("Origin", origin), header("Content-Type", "text/plain"))
		require.Equal(t, 403, a.status)
		require.Equal(t, "origin_not_allowed", a.code())
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	}
	require.Equal(t, 200, p.post("/v1/page", pageEvent, header("Origin", p.url)).status, "a page of the collector's own origin")
	// Invalid header names of a preflight are not echoed.
	a = p.post("/v1/track", "", method("OPTIONS"), header("Origin", "https://shop.example"), header("Access-Control-Request-Headers", "x;y"))
	require.Equal(t, preflightHeaders, a.header.Get("Access-Control-Allow-Headers"))
}

func TestCORSWithStar(t *testing.T) {
	p := start(t, options{input: twoKeys + "cors: { allowed_origins: [ '*' ] }\n"})
	a := p.post("/v1/page", pageEvent, header("Origin", "https://anywhere.test"))
	require.Equal(t, 200, a.status)
	require.Equal(t, "*", a.header.Get("Access-Control-Allow-Origin"))
	require.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
}

// The response waits for the output and reports its result.
func TestResponseFollowsTheOutput(t *testing.T) {
	release := make(chan error)
	p := start(t, options{input: twoKeys, consume: func(service.MessageBatch) error { return <-release }})
	answers := make(chan response, 1)
	for _, c := range []struct {
		outcome error
		status  int
	}{{nil, 200}, {errors.New("disk full"), 503}, {nil, 200}} {
		go func() { a, _ := p.try(p.request("/v1/page", pageEvent)); answers <- a }()
		<-p.consumed // the output has it
		require.Equal(t, int64(1), p.meters.get("event_collector_in_flight"))
		select {
		case a := <-answers:
			require.Fail(t, "answered before the events were stored", "%d", a.status)
		default:
		}
		release <- c.outcome
		a := <-answers
		require.Equal(t, c.status, a.status)
		if c.status == 503 {
			require.Equal(t, "not_stored", a.code())
			require.Equal(t, "5", a.header.Get("Retry-After"))
			require.NotContains(t, a.body, "disk")
		}
		p.meters.await(t, 0, "event_collector_in_flight")
	}
	p.meters.await(t, 2, "event_collector_events_accepted", "web")
}

func TestSlowPipelineGives503(t *testing.T) {
	release := make(chan error)
	p := start(t, options{
		input:   twoKeys + "timeout: 100ms\nretry_after: 1500ms\nlimits: { max_in_flight: 4 }\n",
		consume: func(service.MessageBatch) error { return <-release },
	})
	// A request that waits longer than the time-out gets 503.
	codes := map[string]int{}
	for range 8 {
		a := p.post("/v1/page", pageEvent)
		require.Equal(t, 503, a.status, a.body)
		require.Equal(t, "2", a.header.Get("Retry-After"))
		codes[a.code()]++
	}
	// Some entered the pipeline, which may still store them; they hold their
	// slots until then. The others never entered it.
	require.Equal(t, 8, codes["busy"]+codes["not_stored_in_time"])
	inside := p.meters.get("event_collector_in_flight")
	require.Equal(t, int64(codes["not_stored_in_time"]), inside)
	require.Positive(t, inside)

	for range inside {
		release <- nil
	}
	p.meters.await(t, 0, "event_collector_in_flight")
	p.meters.await(t, inside, "event_collector_events_accepted", "web")
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case release <- nil:
			case <-over:
				return
			}
		}
	}()
	require.Eventually(t, func() bool { return p.post("/v1/page", pageEvent).status == 200 }, patience, time.Millisecond,
		"the collector recovers by itself")
}

func TestInFlightLimit(t *testing.T) {
	release := make(chan error)
	p := start(t, options{
		input:   twoKeys + "timeout: 1m\nlimits: { max_in_flight: 2 }\n",
		consume: func(service.MessageBatch) error { return <-release },
	})
	answers := make(chan response, 2)
	for range 2 {
		go func() { a, _ := p.try(p.request("/v1/page", pageEvent)); answers <- a }()
	}
	p.meters.await(t, 2, "event_collector_in_flight")
	a := p.post("/v1/page", pageEvent)
	require.Equal(t, 503, a.status)
	require.Equal(t, "busy", a.code())
	require.Equal(t, "5", a.header.Get("Retry-After"))
	release <- nil
	release <- nil
	require.Equal(t, 200, (<-answers).status)
	require.Equal(t, 200, (<-answers).status)
	p.meters.await(t, 0, "event_collector_in_flight")
	require.Len(t, p.delivered(2), 2)
}

func TestBufferedBytesLimit(t *testing.T) {
	p := start(t, options{input: twoKeys + "limits: { max_buffered_bytes: 4000 }\n"})
	a := p.post("/v1/page", pageEvent[:len(pageEvent)-1]+`,"p":"`+strings.Repeat("x", 5000)+`"}`)
	require.Equal(t, 503, a.status)
	require.Equal(t, "busy", a.code())
	require.Equal(t, 503, p.post("/v1/batch", batchOf(strings.Repeat("1,", 20)+"1")).status, "the size after completion counts too")
	require.Equal(t, 200, p.post("/v1/page", pageEvent).status, "memory was released")
}

// If a client disconnects before its events enter the pipeline, they are gone; if
// later, they are stored and hold their slot until then.
func TestClientDisconnects(t *testing.T) {
	release := make(chan error)
	p := start(t, options{
		input:   twoKeys + "timeout: 1m\n",
		consume: func(service.MessageBatch) error { return <-release },
	})
	send := func(id string) (leave context.CancelFunc, gone chan struct{}) {
		ctx, cancel := context.WithCancel(context.Background())
		gone = make(chan struct{})
		go func() {
			_, err := p.try(p.request("/v1/page", `{"messageId":"`+id+`","userId":"u"}`).WithContext(ctx))
			if err != nil {
				close(gone)
			}
		}()
		return cancel, gone
	}
	leave, gone := send("taken")
	<-p.consumed
	leave()
	<-gone
	p.meters.await(t, 1, "event_collector_requests", "page", "0")
	require.Equal(t, int64(1), p.meters.get("event_collector_in_flight"))

	// Fill the pipeline until a request waits in front of it.
	waiting := 0
	for waiting == 0 {
		before := p.meters.get("event_collector_in_flight")
		leave, gone := send(fmt.Sprintf("later-%d", before))
		p.meters.await(t, before+1, "event_collector_in_flight")
		leave()
		<-gone
		p.meters.await(t, before+1, "event_collector_requests", "page", "0")
		if p.meters.get("event_collector_in_flight") == before {
			waiting++
		}
	}
	inside := p.meters.get("event_collector_in_flight")
	for range inside {
		release <- nil
	}
	p.meters.await(t, 0, "event_collector_in_flight")
	p.meters.await(t, inside, "event_collector_events_accepted", "web")
	require.Len(t, p.delivered(int(inside)), int(inside), "requests that did not enter the pipeline left nothing")

	// The stored event may be sent again with the same id.
	go func() { release <- nil }()
	require.Equal(t, 200, p.post("/v1/page", `{"messageId":"taken","userId":"u"}`).status)
	events := p.events(int(inside) + 1)
	require.Equal(t, "taken", events[0]["messageId"])
	require.Equal(t, "taken", events[len(events)-1]["messageId"])
}

// dial opens a connection and writes the beginning of a request.
func (p *pipeline) dial(text string) (net.Conn, *bufio.Reader) {
	p.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(p.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, text)
	require.NoError(p.t, err)
	return conn, bufio.NewReader(conn)
}

const rawHeaders = "POST /v1/page HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d2ViLWtleTo=\r\nContent-Length: 44\r\n"

func TestSlowClients(t *testing.T) {
	p := start(t, options{input: twoKeys + "limits: { read_timeout: 1s, header_timeout: 1s, idle_timeout: 1s }\n"})

	_, body := p.dial(rawHeaders + "\r\n" + pageEvent[:20])
	resp, err := http.ReadResponse(body, nil)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 408, resp.StatusCode)
	require.Equal(t, "slow_body", response{body: string(text)}.code())
	_, err = body.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the connection is closed after it")

	_, headers := p.dial(rawHeaders[:30])
	_, err = io.ReadAll(headers)
	require.NoError(t, err, "the server closes a connection with slow headers")

	_, idle := p.dial(rawHeaders + "\r\n" + pageEvent)
	resp, err = http.ReadResponse(idle, nil)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	_, err = idle.ReadByte()
	require.ErrorIs(t, err, io.EOF, "an idle connection is closed")

	// After an early response the connection is closed even if the client never
	// sends the body.
	_, refused := p.dial(strings.Replace(rawHeaders, "d2ViLWtleTo=", "d3Jvbmc6", 1) + "\r\n" + pageEvent[:20])
	resp, err = http.ReadResponse(refused, nil)
	require.NoError(t, err)
	require.Equal(t, 401, resp.StatusCode)
	_, err = io.ReadAll(refused)
	require.NoError(t, err)
}

// The wait for the pipeline may be longer than read_timeout.
func TestReadTimeoutExcludesThePipeline(t *testing.T) {
	proceed := make(chan error)
	p := start(t, options{
		input:   twoKeys + "timeout: 1m\nlimits: { read_timeout: 50ms }\n",
		consume: func(service.MessageBatch) error { return <-proceed },
	})
	answers := make(chan response, 1)
	go func() { a, _ := p.try(p.request("/v1/page", pageEvent)); answers <- a }()
	<-p.consumed
	timer := time.NewTimer(200 * time.Millisecond) // four times the limit
	defer timer.Stop()
	select {
	case a := <-answers:
		require.Fail(t, "answered early", "%d %s", a.status, a.body)
	case <-timer.C:
	}
	proceed <- nil
	require.Equal(t, 200, (<-answers).status)
}

func TestConnectionCutInTheBody(t *testing.T) {
	p := start(t, options{input: twoKeys})
	conn, r := p.dial(rawHeaders + "\r\n" + pageEvent[:20])
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 400, resp.StatusCode)
	require.Equal(t, "truncated_body", response{body: string(text)}.code())
	require.Empty(t, p.delivered(0))
}

func TestLargeHeaders(t *testing.T) {
	p := start(t, options{input: twoKeys + "limits: { max_header_bytes: 1000 }\n"})
	_, r := p.dial(rawHeaders + "X-Large: " + strings.Repeat("x", 10_000) + "\r\n\r\n" + pageEvent)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
}

func TestConnectionLimit(t *testing.T) {
	p := start(t, options{input: twoKeys + "limits: { max_connections: 2, idle_timeout: 1m }\n"})
	p.client.CloseIdleConnections()
	var open []net.Conn
	for range 2 {
		conn, r := p.dial(rawHeaders + "\r\n" + pageEvent)
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		open = append(open, conn)
		if len(open) == 2 {
			require.True(t, resp.Close, "nearly full, connections are not kept")
		}
	}
	require.NoError(t, open[0].Close())
	require.NoError(t, open[1].Close())
	require.Equal(t, 200, p.post("/v1/page", pageEvent).status)
}

func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	in, _ := newTestInput(t, "address: "+taken.Addr().String()+"\nallow_anonymous_writes: true")
	err = in.Connect(context.Background())
	require.ErrorContains(t, err, "address "+taken.Addr().String()+" is in use by another process: stop that process, or set `address` to a free port")
	require.NoError(t, taken.Close())
	require.NoError(t, in.Connect(context.Background()), "it opens when the port is free")
	require.NoError(t, in.Close(context.Background()))
}

func newTestInput(t testing.TB, conf string) (*collector, error) {
	t.Helper()
	parsed, err := spec().ParseYAML(conf, nil)
	if err != nil {
		return nil, err
	}
	return newCollector(parsed, service.MockResources())
}

func TestListensOnlyBetweenConnectAndClose(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	in, err := newTestInput(t, "address: "+address+"\nallow_anonymous_writes: true")
	require.NoError(t, err)
	_, err = net.Dial("tcp", address)
	require.Error(t, err)
	_, _, err = in.ReadBatch(context.Background())
	require.ErrorIs(t, err, service.ErrNotConnected)
	require.NoError(t, in.Connect(context.Background()))
	require.NoError(t, in.Connect(context.Background()), "connecting twice is connecting once")
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.NoError(t, in.Close(context.Background()))
	_, err = net.Dial("tcp", address)
	require.Error(t, err)
	require.ErrorIs(t, in.Connect(context.Background()), service.ErrEndOfInput)
	require.NoError(t, in.Close(context.Background()), "closing twice is closing once")
}

// A failed listener is opened again.
func TestListenerFailure(t *testing.T) {
	in, err := newTestInput(t, "address: 127.0.0.1:0\nallow_anonymous_writes: true")
	require.NoError(t, err)
	require.NoError(t, in.Connect(context.Background()))
	require.NoError(t, in.server.http.Close())
	_, _, err = in.ReadBatch(context.Background())
	require.ErrorIs(t, err, service.ErrNotConnected)
	require.NoError(t, in.Connect(context.Background()))
	require.NoError(t, in.Close(context.Background()))
}

var stopping = regexp.MustCompile("Waiting for pending acks")

// A stop accepts no new connection; events in the pipeline are stored and their
// requests get a response.
func TestGracefulStop(t *testing.T) {
	release := make(chan error)
	p := start(t, options{
		input:   twoKeys + "timeout: 1m\n",
		consume: func(service.MessageBatch) error { return <-release },
	})
	answers := make(chan response, 1)
	go func() { a, _ := p.try(p.request("/v1/page", pageEvent)); answers <- a }()
	<-p.consumed
	stopped := make(chan error, 1)
	go func() { stopped <- p.stream.StopWithin(patience) }()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, patience, time.Millisecond, "no new connection is accepted")
	require.Empty(t, answers)
	release <- nil
	require.Equal(t, 200, (<-answers).status)
	require.NoError(t, <-stopped)
	p.meters.await(t, 1, "event_collector_events_accepted", "web")
}

// A stop under load responds to every request, with 200 only for stored events.
func TestGracefulStopUnderLoad(t *testing.T) {
	release := make(chan error)
	p := start(t, options{
		input:   twoKeys + "timeout: 1m\n",
		consume: func(service.MessageBatch) error { return <-release },
	})
	const requests = 10
	answers := make(chan response, requests)
	for range requests {
		go func() { a, _ := p.try(p.request("/v1/page", pageEvent)); answers <- a }()
	}
	p.meters.await(t, requests, "event_collector_in_flight")
	p.delivered(1)
	stopped := make(chan error, 1)
	go func() { stopped <- p.stream.StopWithin(patience) }()
	p.log.await(t, stopping)
	for done := false; !done; {
		select {
		case release <- nil:
		case err := <-stopped:
			require.NoError(t, err)
			done = true
		}
	}
	ok := 0
	for range requests {
		switch a := <-answers; a.status {
		case 200:
			ok++
		default:
			require.Equal(t, 503, a.status)
			require.Equal(t, "shutting_down", a.code())
			require.Equal(t, "5", a.header.Get("Retry-After"))
		}
	}
	require.Positive(t, ok)
	require.Len(t, p.delivered(ok), ok)
}

// A stop that cannot wait for the pipeline still responds to waiting requests.
func TestHardStop(t *testing.T) {
	block := make(chan error)
	defer close(block)
	p := start(t, options{
		input:   twoKeys + "timeout: 1m\n",
		consume: func(service.MessageBatch) error { return <-block },
	})
	answers := make(chan response, 1)
	go func() { a, _ := p.try(p.request("/v1/page", pageEvent)); answers <- a }()
	<-p.consumed
	_ = p.stream.StopWithin(200 * time.Millisecond)
	a := <-answers
	require.Equal(t, 503, a.status)
	require.Equal(t, "shutting_down", a.code())
}

func TestTLS(t *testing.T) {
	cert, key, roots := selfSigned(t)
	client := &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true},
	}
	p := start(t, options{
		input:  twoKeys + "tls: { cert_file: " + cert + ", key_file: " + key + " }\nlimits: { read_timeout: 200ms }\n",
		client: client,
	})
	require.True(t, strings.HasPrefix(p.url, "https://"), p.url)
	resp, err := client.Do(p.request("/v1/batch", batchOf(pageEvent)))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "HTTP/2.0", resp.Proto)

	// A slow body is bounded with HTTP/2 too, and the connection stays usable.
	slow, _ := io.Pipe()
	a := p.post("/v1/page", "", func(r *http.Request) { r.Body, r.ContentLength = slow, -1 })
	require.Equal(t, 408, a.status)
	require.Equal(t, 200, p.post("/v1/page", pageEvent).status)

	plain, err := http.Post("http://"+strings.TrimPrefix(p.url, "https://")+"/v1/page", "", strings.NewReader(pageEvent))
	require.NoError(t, err)
	require.NoError(t, plain.Body.Close())
	require.Equal(t, 400, plain.StatusCode)

	_, err = newTestInput(t, "allow_anonymous_writes: true\ntls: { cert_file: "+cert+", key_file: /nowhere.key }")
	require.ErrorContains(t, err, "tls.key_file")
	_, err = newTestInput(t, "allow_anonymous_writes: true\ntls: { cert_file: "+cert+", key_file: "+cert+" }")
	require.ErrorContains(t, err, "do not make a certificate")
}

func selfSigned(t testing.TB) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	certFile, keyFile = t.TempDir()+"/cert.pem", t.TempDir()+"/key.pem"
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	require.NoError(t, os.WriteFile(certFile, certPEM, 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	roots = x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(certPEM))
	return certFile, keyFile, roots
}

func TestAnonymousWrites(t *testing.T) {
	p := start(t, options{input: "allow_anonymous_writes: true\nanonymous_source: demo\n"})
	require.Equal(t, 200, p.post("/v1/page", pageEvent, without("Authorization")).status)
	require.Equal(t, 200, p.post("/v1/page", pageEvent, key("whatever")).status)
	for _, event := range p.events(2) {
		require.Equal(t, "demo", event["source"])
	}

	both := start(t, options{input: twoKeys + "allow_anonymous_writes: true\n"})
	require.Equal(t, 200, both.post("/v1/page", pageEvent).status)
	require.Equal(t, 200, both.post("/v1/page", pageEvent, without("Authorization")).status)
	require.Equal(t, 401, both.post("/v1/page", pageEvent, key("mistyped")).status, "a wrong key is rejected")
	events := both.events(2)
	require.Equal(t, "web", events[0]["source"])
	require.Equal(t, "anonymous", events[1]["source"])
}

func TestMetrics(t *testing.T) {
	p := start(t, options{input: twoKeys})
	p.post("/v1/batch", batchOf(pageEvent, pageEvent, "7", `{"userId":"u"}`))
	p.post("/v1/t", `{"userId":"u","event":"E"}`, key("server-key"))
	p.post("/v1/track", `{"userId":"u"}`)
	p.post("/nowhere", ``)
	p.meters.await(t, 1, "event_collector_requests", "batch", "200")
	p.meters.await(t, 2, "event_collector_requests", "track", "200")
	p.meters.await(t, 1, "event_collector_requests", "other", "404")
	p.meters.await(t, 2, "event_collector_events_accepted", "web")
	p.meters.await(t, 1, "event_collector_events_accepted", "server")
	p.meters.await(t, 1, "event_collector_events_rejected", "web", "type")
	p.meters.await(t, 2, "event_collector_events_rejected", "web", "required")
	bytes := len(batchOf(pageEvent, pageEvent, "7", `{"userId":"u"}`)) + len(`{"userId":"u","event":"E"}`) + len(`{"userId":"u"}`)
	p.meters.await(t, int64(bytes), "event_collector_bytes")
}

// With many concurrent clients, exactly the events of requests with 200 arrive,
// each once.
func TestConcurrentClients(t *testing.T) {
	p := start(t, options{input: twoKeys})
	const clients, requests = 16, 20
	type outcome struct {
		id     string
		status int
	}
	outcomes := make(chan outcome, clients*requests)
	for c := range clients {
		go func() {
			for i := range requests {
				id := fmt.Sprintf("%d-%d", c, i)
				body := batchOf(`{"type":"page","userId":"u","messageId":"` + id + `","p":"` + strings.Repeat("x", c*i*10) + `"}`)
				edits := []func(*http.Request){}
				switch i % 4 {
				case 1:
					body = body[:len(body)-5]
				case 2:
					edits = append(edits, key("wrong"))
				case 3:
					body = zipped(t, body)
					edits = append(edits, header("Content-Encoding", "gzip"))
				}
				a, err := p.try(p.request("/v1/batch", body, edits...))
				if err != nil {
					a.status = -1
				}
				outcomes <- outcome{id, a.status}
			}
		}()
	}
	want := map[string]int{}
	for range clients * requests {
		o := <-outcomes
		if o.status == 200 {
			want[o.id] = 1
			continue
		}
		require.Contains(t, []int{400, 401}, o.status)
	}
	require.Len(t, want, clients*requests/2)
	got := map[string]int{}
	for _, event := range p.events(len(want)) {
		got[event["messageId"].(string)]++
	}
	require.Equal(t, want, got)
	require.Equal(t, int64(0), p.meters.get("event_collector_in_flight"))
}

func BenchmarkRequests(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			p := start(b, options{input: twoKeys, output: "drop: {}"})
			event := `{"type":"track","event":"Product Added","messageId":"node-next-1769862896-2b5b1f4e","userId":"user-17","timestamp":"2026-01-31T11:59:58.000Z","properties":{"product_id":"sku-1","name":"Trail Shoe","price":89.90,"quantity":1,"currency":"EUR"},"context":{"library":{"name":"@segment/analytics-node","version":"3.1.0"}}}`
			body := batchOf(event + strings.Repeat(","+event, n-1))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					a, err := p.try(p.request("/v1/batch", body))
					if err != nil || a.status != 200 {
						b.Error(err, a.status, a.body)
						return
					}
				}
			})
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
