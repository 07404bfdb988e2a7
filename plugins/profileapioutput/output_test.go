package profileapioutput

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// target records requests and responds to them with respond.
type target struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // verb, path and body
	headers  []http.Header
	respond  func(n int, w http.ResponseWriter, body string)
}

func newTarget(t testing.TB, respond func(n int, w http.ResponseWriter, body string)) *target {
	g := &target{respond: respond}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.requests = append(g.requests, strings.TrimSpace(r.Method+" "+r.URL.EscapedPath()+" "+string(body)))
		g.headers = append(g.headers, r.Header)
		if g.respond != nil {
			g.respond(len(g.requests), w, string(body))
		}
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *target) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.requests...)
}

// quick shortens the delays of a config.
const quick = `
retries: { initial_interval: 1ms, max_interval: 5ms }
circuit: { probe_interval: 1ms, max_probe_interval: 5ms }
`

// newTestOutput returns an output with a config that reads profiles from r.
func newTestOutput(t testing.TB, r profileReader, yaml string, log *syncBuffer, opts ...service.MockResourcesOptFn) (*output, error) {
	t.Helper()
	parsed, err := outputSpec().ParseYAML(yaml, nil)
	require.NoError(t, err)
	opts = append(opts, service.MockResourcesOptUseLogger(service.NewLoggerFromSlog(debugLogger(log))))
	res := service.MockResources(opts...)
	o, err := func() (*output, error) {
		if r == nil {
			return newOutput(parsed, res)
		}
		return newOutputWith(r, parsed, res)
	}()
	if err == nil {
		t.Cleanup(func() { require.NoError(t, o.Close(context.Background())) })
	}
	return o, err
}

func mustOutput(t testing.TB, r profileReader, yaml string, opts ...service.MockResourcesOptFn) *output {
	t.Helper()
	o, err := newTestOutput(t, r, yaml, newSyncBuffer(), opts...)
	require.NoError(t, err)
	return o
}

func messages(texts ...string) service.MessageBatch {
	var batch service.MessageBatch
	for _, text := range texts {
		batch = append(batch, service.NewMessage([]byte(text)))
	}
	return batch
}

// rules returns the rule by which each message was rejected, "" if it was not.
func rules(t testing.TB, batch service.MessageBatch, err error) []string {
	t.Helper()
	got := make([]string, len(batch))
	if err == nil {
		return got
	}
	batchErr, ok := errors.AsType[*service.BatchError](err)
	require.True(t, ok, "%v", err)
	//lint:ignore SA1019 the indexes are those of this very batch: nothing is in between
	batchErr.WalkMessages(func(i int, _ *service.Message, err error) bool {
		if err != nil {
			got[i] = "not a rejection: " + err.Error()
		}
		if rejected, ok := errors.AsType[*rejection.Error](err); ok {
			require.Equal(t, "profile_api", rejected.Stage)
			got[i] = rejected.Reasons[0].Rule
		}
		return true
	})
	return got
}

// deliver writes a batch and returns its rules.
func deliver(t testing.TB, o *output, batch service.MessageBatch) []string {
	t.Helper()
	return rules(t, batch, o.WriteBatch(t.Context(), batch))
}

func TestOutputSendsMessages(t *testing.T) {
	g := newTarget(t, nil)
	o := mustOutput(t, nil, "url: "+g.URL+"/in\n"+quick)
	require.Equal(t, []string{"", ""}, deliver(t, o, messages(`{"userId":"u1","n":1}`, `{"userId":"u2","n":2}`)))
	require.ElementsMatch(t, []string{`POST /in {"userId":"u1","n":1}`, `POST /in {"userId":"u2","n":2}`}, g.seen())
	require.Equal(t, "application/json", g.headers[0].Get("Content-Type"))
	require.Len(t, g.headers[0].Get("Idempotency-Key"), 32)
}

func TestOutputBatchesElements(t *testing.T) {
	g := newTarget(t, nil)
	o := mustOutput(t, nil, "url: "+g.URL+"\nmax_elements: 2\nparallel: 1\n"+quick)
	require.Equal(t, []string{"", "", ""}, deliver(t, o, messages(`{"userId":"u1"}`, `{"userId":"u2"}`, `{"userId":"u3"}`)))
	require.Equal(t, []string{`POST / [{"userId":"u1"},{"userId":"u2"}]`, `POST / [{"userId":"u3"}]`}, g.seen())
}

func TestOutputKeepsTheOrderOfACustomer(t *testing.T) {
	failed := false
	g := newTarget(t, func(_ int, w http.ResponseWriter, body string) {
		if strings.Contains(body, `"n":1`) && !failed {
			failed = true
			w.WriteHeader(503)
		}
	})
	o := mustOutput(t, nil, "url: "+g.URL+"\nmax_elements: 10\nparallel: 8\n"+quick)
	require.Equal(t, []string{"", "", ""}, deliver(t, o, messages(`{"userId":"u1","n":1}`, `{"userId":"u1","n":2}`, `{"userId":"u1","n":3}`)))
	require.Equal(t, []string{
		`POST / [{"userId":"u1","n":1}]`, `POST / [{"userId":"u1","n":1}]`, `POST / [{"userId":"u1","n":2}]`, `POST / [{"userId":"u1","n":3}]`,
	}, g.seen())
	require.Equal(t, g.headers[0].Get("Idempotency-Key"), g.headers[1].Get("Idempotency-Key"))
	require.NotEqual(t, g.headers[1].Get("Idempotency-Key"), g.headers[2].Get("Idempotency-Key"))
}

func TestOutputReadsProfiles(t *testing.T) {
	g := newTarget(t, nil)
	r := withProfiles("u1", "u2")
	r.corrupt["u3"] = true
	o := mustOutput(t, r, "url: '"+g.URL+"/${! this.customer.escape_url_path() }'\nverb: PUT\nparallel: 1\nheaders: { X-Plan: '${! this.profile.traits.plan }' }\nelement: { mapping: 'root = if this.profile == null { deleted() } else { { \"plan\": this.profile.traits.plan, \"by\": this.message.by, \"meta\": @from } }' }\n"+quick)
	batch := messages(`{"userId":"u1","by":1}`, `{"userId":"nobody"}`, `{"userId":"u3"}`, `{"userId":"u2","by":2}`, `{"userId":"u1","by":3}`)
	for _, msg := range batch {
		msg.MetaSetMut("from", "topic")
	}
	require.Equal(t, []string{"", "", "element", "", ""}, deliver(t, o, batch))
	require.Equal(t, []string{
		`PUT /u1 {"by":1,"meta":"topic","plan":"gold"}`, `PUT /u2 {"by":2,"meta":"topic","plan":"gold"}`, `PUT /u1 {"by":3,"meta":"topic","plan":"gold"}`,
	}, g.seen())
	require.Equal(t, "gold", g.headers[0].Get("X-Plan"))
	require.Len(t, r.seen(), 1, "one read for all customers")
	require.Equal(t, []string{"u1", "nobody", "u3", "u2"}, r.seen()[0], "each customer once")
}

// Both ids of a merged customer stand for one customer: one request, under the known id.
func TestOutputSendsMergedCustomersUnderTheKnownID(t *testing.T) {
	g := newTarget(t, nil)
	r := withProfiles("u5", "a-7")
	r.merged = map[string]string{"a-55": "u5"}
	o := mustOutput(t, r, "url: '"+g.URL+"/${! this.customer }'\nlatest_only: true\nmax_elements: 10\nparallel: 1\nelement: { mapping: 'root = { \"id\": this.customer, \"anonymous\": this.anonymous }' }\n"+quick)
	require.Equal(t, []string{"", "", "", ""}, deliver(t, o, messages(`{"userId":"u5"}`, `{"anonymousId":"a-55"}`, `{"anonymousId":"a-7"}`, `{"anonymousId":"a-8"}`)))
	require.Equal(t, []string{`POST /u5 [{"anonymous":false,"id":"u5"}]`, `POST /a-7 [{"anonymous":true,"id":"a-7"}]`, `POST /a-8 [{"anonymous":false,"id":"a-8"}]`}, g.seen())
}

// A wrong or retired URL is no customer's fault.
func TestOutputRetriesWhileTheURLIsWrong(t *testing.T) {
	for _, status := range []int{401, 403, 404, 405, 410} {
		g := newTarget(t, func(n int, w http.ResponseWriter, _ string) {
			if n == 1 {
				w.WriteHeader(status)
			}
		})
		o := mustOutput(t, nil, "url: "+g.URL+quick)
		require.Equal(t, []string{""}, deliver(t, o, messages(`{"userId":"u1"}`)))
		require.Len(t, g.seen(), 2)
	}
}

func TestOutputWithoutElementSendsProfiles(t *testing.T) {
	g := newTarget(t, nil)
	o := mustOutput(t, withProfiles("u1"), "url: "+g.URL+"\ncustomer: ${! content() }\nlatest_only: true\n"+quick)
	require.Equal(t, []string{"", "", ""}, deliver(t, o, messages(`u1`, `nobody`, `u1`)))
	require.Equal(t, []string{"POST / " + profileOf("u1")}, g.seen())
}

func TestOutputSendsTheLatestOnly(t *testing.T) {
	g := newTarget(t, func(_ int, w http.ResponseWriter, body string) {
		if strings.Contains(body, `"u2"`) {
			w.WriteHeader(409)
		}
	})
	o := mustOutput(t, nil, "url: "+g.URL+"\nlatest_only: true\nparallel: 1\n"+quick)
	require.Equal(t, []string{"", "refused", "", "refused", ""}, deliver(t, o, messages(
		`{"userId":"u1","n":1}`, `{"userId":"u2","n":1}`, `{"userId":"u1","n":2}`, `{"userId":"u2","n":2}`, `{"n":3}`)))
	require.Equal(t, []string{`POST / {"userId":"u1","n":2}`, `POST / {"userId":"u2","n":2}`, `POST / {"n":3}`}, g.seen())
}

func TestOutputRetriesReadsUntilGiveUpAfter(t *testing.T) {
	g := newTarget(t, nil)
	r := withProfiles("u1")
	r.readErr = errors.New("the store is down")
	log := newSyncBuffer()
	o, err := newTestOutput(t, r, "url: "+g.URL+quick, log)
	require.NoError(t, err)
	done := make(chan error)
	go func() { done <- o.WriteBatch(context.Background(), messages(`{"userId":"u1"}`)) }()
	log.await(t, "store is unavailable")
	r.set(func() { r.readErr = nil })
	require.NoError(t, <-done)
	require.Len(t, g.seen(), 1)

	r.set(func() { r.readErr = errors.New("the store is down") })
	o, err = newTestOutput(t, r, "url: "+g.URL+"\ngive_up_after: 60ms\n"+quick, newSyncBuffer())
	require.NoError(t, err)
	require.Equal(t, []string{"gave_up"}, deliver(t, o, messages(`{"userId":"u1"}`)))
}

func TestOutputRejectsMessagesWithoutAValidRequest(t *testing.T) {
	for name, c := range map[string]struct{ config, message, rule string }{
		"a mapping that fails":        {"element: { mapping: 'root = this.message.n + 1' }", `{"n":"jo@example.com"}`, "element"},
		"several elements":            {"element: { unarchive: { format: json_array } }", `[1,2]`, "element"},
		"an element that is not JSON": {"element: { mapping: 'root = \"text\".bytes()' }", `{}`, "element"},
		"a message that is not JSON":  {"", `no JSON`, "element"},
		"no customer":                 {"customer: '${! this.userId.not_empty() }'", `{}`, "customer"},
		"no id":                       {"message_id: '${! this.id.not_empty() }'", `{}`, "element"},
		"an invalid URL":              {"url: 'http://${! this.message.host }/'", `{"host":"exa mple"}`, "element"},
		"a scheme other than HTTP":    {"url: 'file://${! this.message.host }/'", `{"host":"h"}`, "element"},
		"a line break in a header":    {"headers: { A: '${! this.message.a }' }", `{"a":"b\r\nC: d"}`, "element"},
		"a body that fails":           {"request: { mapping: 'root = throw(\"jo@example.com\")' }", `{}`, "request"},
		"too large":                   {"max_bytes: 10", `{"a":"0123456789"}`, "too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTarget(t, nil)
			config := c.config + "\n" + quick
			if !strings.Contains(config, "url:") {
				config += "url: " + g.URL
			}
			o := mustOutput(t, nil, config)
			batch := messages(c.message)
			err := o.WriteBatch(t.Context(), batch)
			require.Equal(t, []string{c.rule}, rules(t, batch, err))
			require.NotContains(t, err.Error(), "jo@example.com")
			require.Empty(t, g.seen())
		})
	}
}

func TestOutputDoesNotSendFailedMessages(t *testing.T) {
	g := newTarget(t, nil)
	o := mustOutput(t, nil, "url: "+g.URL+quick)
	batch := messages(`{"userId":"u1"}`, `{"userId":"u2"}`)
	batch[0].SetError(errors.New("broken"))
	require.Equal(t, []string{"not a rejection: broken", ""}, deliver(t, o, batch))
	require.Equal(t, []string{`POST / {"userId":"u2"}`}, g.seen())
}

// Text of a platform that is not a code is left out: it may be personal data.
func TestOutputAppliesFailures(t *testing.T) {
	g := newTarget(t, func(n int, w http.ResponseWriter, _ string) {
		if n == 1 {
			fmt.Fprint(w, `{"errors":[{"i":0,"code":"bad_email"},{"c":"u2","code":"jo@example.com is bad"},{"i":2,"retry":true}]}`)
			return
		}
		fmt.Fprint(w, `{}`)
	})
	o := mustOutput(t, nil, "url: "+g.URL+"\nmax_elements: 9\nfailures: { mapping: 'root = this.body.errors.or([]).map_each(e -> { \"index\": e.i, \"customer\": e.c, \"retry\": e.retry.or(false), \"code\": e.code })' }\n"+quick)
	require.Equal(t, []string{"bad_email", "refused", "", ""}, deliver(t, o, messages(
		`{"userId":"u1"}`, `{"userId":"u2"}`, `{"userId":"u3"}`, `{"userId":"u4"}`)))
	require.Equal(t, []string{`POST / [{"userId":"u1"},{"userId":"u2"},{"userId":"u3"},{"userId":"u4"}]`, `POST / [{"userId":"u3"}]`}, g.seen())
}

func TestOutputRetriesAfterAResponseThatCannotBeParsed(t *testing.T) {
	for _, body := range []string{
		`<html>`, `{"errors":[{"i":7}]}`, `{"errors":[{"i":-1}]}`, `{"errors":[{"c":"somebody"}]}`, `{"errors":"all"}`, `{"errors":[{"i":0.5}]}`, `{"errors":[{"c":""}]}`,
	} {
		t.Run(body, func(t *testing.T) {
			g := newTarget(t, func(n int, w http.ResponseWriter, _ string) {
				if n == 1 {
					fmt.Fprint(w, body)
				}
			})
			o := mustOutput(t, nil, "url: "+g.URL+"\nfailures: { mapping: 'root = this.body.errors.or([]).map_each(e -> { \"index\": e.i, \"customer\": e.c })' }\n"+quick)
			require.Equal(t, []string{""}, deliver(t, o, messages(`{"userId":"u1"}`)))
			require.Len(t, g.seen(), 2)
		})
	}
}

// The response does not say which element is at fault: requests are halved.
func TestOutputSplitsRequestsToIsolateARejectedElement(t *testing.T) {
	g := newTarget(t, func(_ int, w http.ResponseWriter, body string) {
		if strings.Contains(body, `"bad"`) {
			w.WriteHeader(422)
		}
	})
	o := mustOutput(t, nil, "url: "+g.URL+"\nmax_elements: 50\nparallel: 1\n"+quick)
	var texts, want []string
	for i := range 50 {
		id := fmt.Sprintf("u%d", i)
		want = append(want, "")
		if i == 33 {
			id, want[i] = "bad", "refused"
		}
		texts = append(texts, `{"userId":"`+id+`"}`)
	}
	require.Equal(t, want, deliver(t, o, messages(texts...)))
	require.LessOrEqual(t, len(g.seen()), 14, "by halves")
}

func TestOutputAuthorizes(t *testing.T) {
	for name, c := range map[string]struct{ config, header, want string }{
		"a token":    {"authorization: Bearer s3cret", "Authorization", "Bearer s3cret"},
		"a key":      {"authorization: s3cret\nauthorization_header: X-Api-Key", "X-Api-Key", "s3cret"},
		"a password": {"basic_auth: { username: jo, password: s3cret }", "Authorization", "Basic am86czNjcmV0"},
		// printf %s '{}' | openssl dgst -sha256 -hmac s3cret
		"a signature": {"signature: { header: X-Sig, secrets: [ s3cret ] }", "X-Sig", "sha256=adbde1ce40c89c14215687d5d762a47df6dfaefcfad61e2e86718ffc8498571b"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTarget(t, nil)
			o := mustOutput(t, nil, "url: "+g.URL+"\n"+c.config+quick)
			require.Equal(t, []string{""}, deliver(t, o, messages(`{}`)))
			require.Equal(t, c.want, g.headers[0].Get(c.header))
		})
	}
}

// Following a redirect would send the token to another address.
func TestOutputFollowsNoRedirect(t *testing.T) {
	thief := newTarget(t, nil)
	g := newTarget(t, func(n int, w http.ResponseWriter, _ string) {
		if n == 1 {
			w.Header().Set("Location", thief.URL)
			w.WriteHeader(307)
		}
	})
	o := mustOutput(t, nil, "url: "+g.URL+"\nauthorization: Bearer s3cret"+quick)
	require.Equal(t, []string{""}, deliver(t, o, messages(`{}`)))
	require.Len(t, g.seen(), 2)
	require.Empty(t, thief.seen())
}

func TestOutputWaitsForTheRateLimit(t *testing.T) {
	g := newTarget(t, nil)
	accesses := 0
	limit := service.MockResourcesOptAddRateLimit("limit", func(context.Context) (time.Duration, error) {
		accesses++
		switch accesses {
		case 1:
			return time.Millisecond, nil
		default:
			return 0, nil
		}
	})
	o := mustOutput(t, nil, "url: "+g.URL+"\nparallel: 1\nrate_limit: limit"+quick, limit)
	require.Equal(t, []string{"", ""}, deliver(t, o, messages(`{"userId":"a"}`, `{"userId":"b"}`)))
	require.Equal(t, 3, accesses, "one access was delayed")
}

func TestOutputConfigErrors(t *testing.T) {
	for config, want := range map[string]string{
		"authorization: 'Bearer '":                          "no credential",
		"authorization: Bearer":                             "no credential",
		"authorization: 'Klaviyo-API-Key '":                 "no credential",
		"basic_auth: { username: u }":                       "no password",
		"signature: { secrets: [ abc ] }":                   "openssl rand",
		"signature: { header: X, secrets: [ a, b ] }":       "one secret",
		"rate_limit: nowhere":                               "rate_limit_resources",
		"statuses: { retried: [ many ] }":                   "such as 429",
		"max_elements: 0":                                   "at least 1",
		"timeout: 0s":                                       "longer than zero",
		"circuit: { failures: 0 }":                          "at least 1",
		"profiles: nowhere":                                 "top-level field profiles",
		"signature: { header: X, secrets: [ '' ] }":         "empty",
		"retries: { initial_interval: -1s }":                "longer than zero",
		"statuses: { delivered: [ 2xx ], split: [ '4xx0']}": "such as 429",
	} {
		_, err := newTestOutput(t, nil, "url: http://127.0.0.1/\n"+config, newSyncBuffer())
		require.ErrorContains(t, err, want, config)
	}
}

func TestOutputLints(t *testing.T) {
	linter := service.GlobalEnvironment().FullConfigSchema("", "").NewStreamConfigLinter()
	for config, want := range map[string]string{
		"max_elements: 0":                 "at least 1",
		"statuses: { retried: [ many ] }": "a class such as 5xx",
		"timeout: 0s":                     "longer than zero",
		"give_up_after: -1s":              "zero or more",
		"fields: [ traits ]":              "label of the resource in profiles",
		"authorization: Bearer x\n    basic_auth: { username: u, password: p }":  "one of them",
		"signature: { header: X, secrets: [ a, b ] }":                            "one secret",
		"circuit: { when_open: panic }":                                          "panic",
		"element: { mapping: 'root = ' }":                                        "end of input",
		"url: 'http://${! this. }'":                                              "",
		"verbs: PUT":                                                             "not recognised",
		"element: { mapping: 'root = this' }\n    dead_letters: { nowhere: {} }": "nowhere",
	} {
		text := "input: { generate: { mapping: 'root = {}' } }\noutput:\n  profile_api:\n    " + config + "\n"
		if !strings.Contains(config, "url:") {
			text += "    url: http://127.0.0.1/\n"
		}
		lints, err := linter.LintYAML([]byte(text))
		require.NoError(t, err)
		require.NotEmpty(t, lints, config)
		require.Contains(t, lints[0].Error(), want, config)
	}
}

func TestOutputClosesUnused(t *testing.T) {
	o := mustOutput(t, nil, "url: http://127.0.0.1/\ndead_letters: { drop: {} }")
	ended := make(chan error, 1)
	go func() { ended <- o.Close(context.Background()) }()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
}

func TestFallbackReceivesOnlyFailedMessages(t *testing.T) {
	g := newTarget(t, func(_ int, w http.ResponseWriter, body string) {
		if strings.Contains(body, `"bad"`) {
			w.WriteHeader(409)
		}
	})
	env := service.GlobalEnvironment().Clone()
	var mu sync.Mutex
	var fallen []string
	require.NoError(t, env.RegisterOutput("keep", service.NewConfigSpec(), func(*service.ParsedConfig, *service.Resources) (service.Output, int, error) {
		return keepOutput(func(msg *service.Message) {
			b, _ := msg.AsBytes()
			why, _ := msg.MetaGet("fallback_error")
			mu.Lock()
			defer mu.Unlock()
			fallen = append(fallen, string(b)+" "+why)
		}), 1, nil
	}))
	builder := env.NewStreamBuilder()
	require.NoError(t, builder.AddInputYAML(`
generate:
  count: 3
  batch_size: 3
  interval: ""
  mapping: 'root.userId = if counter() == 2 { "bad" } else { "good" }' `))
	require.NoError(t, builder.AddOutputYAML("fallback:\n  - profile_api: { url: '"+g.URL+"' }\n  - keep: {}\n"))
	stream, err := builder.Build()
	require.NoError(t, err)
	require.NoError(t, stream.Run(t.Context()))
	require.Len(t, g.seen(), 3)
	require.Equal(t, []string{`{"userId":"bad"} profile_api: rejected with status 409`}, fallen)
}

type keepOutput func(*service.Message)

func (keepOutput) Connect(context.Context) error { return nil }
func (k keepOutput) Write(_ context.Context, msg *service.Message) error {
	k(msg)
	return nil
}
func (keepOutput) Close(context.Context) error { return nil }

func TestOutputLogsNoSecretsAndNoPersonalData(t *testing.T) {
	log := newSyncBuffer()
	o, err := newTestOutput(t, withProfiles("jo"), "url: http://jo:s3cret@127.0.0.1:1/hook?token=s3cret\nauthorization: Bearer s3cret\ngive_up_after: 3s"+quick, log)
	require.NoError(t, err)
	batch := messages(`{"userId":"jo"}`)
	err = o.WriteBatch(t.Context(), batch)
	// The rule depends on whether the time limit ends between two probes or during
	// one.
	got := rules(t, batch, err)
	require.Len(t, got, 1)
	require.Contains(t, []string{"gave_up", "unreachable"}, got[0])
	require.NotRegexp(t, `s3cret|hook|jo\b|127\.0`, err.Error()+log.String())
	require.Contains(t, log.String(), "The circuit to the platform is open")
}

var _ profileReader = (*customers.Service)(nil)

func TestOutputRendersContent(t *testing.T) {
	g := newTarget(t, nil)
	f := withProfiles("c1", "broken")
	f.profiles["broken"] = `{"id":`
	dir := withBlocks(t, map[string]string{
		"hello": helloBlock,
		"line":  "type: text\nfallback: nothing\ntemplate: '{{ traits.plan | upcase }}'\n",
	})
	o := mustOutput(t, f, "url: "+g.URL+"/in\nmax_elements: 10\nprofiles: shop\ncontent: { folder: "+dir+", blocks: [ '${! this.message.block | \"\" }', line ] }\nelement: { mapping: 'root = this.content' }\n"+quick)
	got := deliver(t, o, messages(`{"userId":"c1","block":"hello"}`, `{"userId":"nobody","block":"hello"}`, `{"userId":"c1"}`,
		`{"userId":"c1","block":"none"}`, `{"userId":"broken"}`))
	require.Equal(t, []string{"", "", "", ruleElement, ruleElement}, got)
	line, absent := `"line":{"content":"GOLD","type":"text"}`, `"line":{"content":"nothing","fallback":"no_customer","type":"text"}`
	all := strings.Join(g.seen(), "\n")
	require.Contains(t, all, `{"hello":{"content":"\u003cp title=\"gold\"\u003ec1 has 2\u003c/p\u003e\n","type":"html"},`+line+`}`)
	require.Contains(t, all, `{"hello":{"content":"\u003cp\u003eHello\u003c/p\u003e","fallback":"no_customer","type":"html"},`+absent+`}`)
	require.Contains(t, all, `{`+line+`}`)
}

func TestOutputValidatesContent(t *testing.T) {
	dir := withBlocks(t, map[string]string{"hello": helloBlock})
	content := "url: http://127.0.0.1:1\ncontent: { folder: " + dir + ", blocks: [ %s ] }\n"
	for _, c := range []struct {
		yaml string
		r    profileReader
		want string
	}{
		{fmt.Sprintf(content, "hello"), nil, "content is rendered from whole profiles"},
		{fmt.Sprintf(content, "hello") + "fields: [ traits ]\n", withProfiles(), "leave fields out"},
		{fmt.Sprintf(content, "helo"), withProfiles(), `has no block "helo"`},
		{"url: http://127.0.0.1:1\ncontent: { folder: " + dir + "/away, blocks: [ hello ] }\n", withProfiles(), "away"},
	} {
		_, err := newTestOutput(t, c.r, c.yaml, newSyncBuffer())
		require.ErrorContains(t, err, c.want)
	}
}

func TestMappingInRecognisesPlainMappings(t *testing.T) {
	for written, want := range map[string]string{
		"mapping: root = this":                   "root = this",
		"{ label: a, mapping: root.x = 1 }":      "root.x = 1",
		"{ label: a, mutation: root.x = 1 }":     "",
		"{ mapping: root = this, metadata: {} }": "",
		"{ try: [ { mapping: root = this } ] }":  "",
		"{ mapping: { not: text } }":             "",
		"[ mapping ]":                            "",
		"mapping":                                "",
	} {
		var node yaml.Node
		require.NoError(t, yaml.Unmarshal([]byte(written), &node))
		var plain any
		require.NoError(t, node.Decode(&plain))
		for _, v := range []any{&node, plain} {
			got, ok := mappingIn(v)
			require.Equal(t, want, got, written)
			require.Equal(t, want != "", ok, written)
		}
	}
}
