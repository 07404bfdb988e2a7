package privacy

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
)

// TestNothingLeaks sends customers' data and secrets, in valid and invalid requests,
// through every component, with and without the services it depends on, at the most
// detailed log level. None of it may be in the log, the metrics and the bodies of
// error responses.
func TestNothingLeaks(t *testing.T) {
	redis := miniredis.NewMiniRedis()
	redis.RequireAuth(mark("redispassword"))
	require.NoError(t, redis.Start())
	t.Cleanup(redis.Close)
	esp, crm := misbehave(t), misbehave(t)
	p := start(t, variables(redis, esp, crm), "events", "api", "changes", "mistakes")
	token := bearer(mark("token"))
	p.eventually("the API is ready", func() bool {
		status, _ := p.do(request{method: "GET", url: "http://" + p.api + "/readyz"})
		return status == 200
	})

	// A new customer enters a segment, which is sent to the platform.
	known := "/api/customer/" + mark("known")
	p.eventually("events are accepted", func() bool {
		status, _ := p.do(p.collect("batch", `{"batch":[`+identify+`,`+order+`]}`, mark("writekey")))
		return status == 200
	})
	status, body := p.do(p.get(known, token))
	require.Equal(t, 200, status)
	require.NotEmpty(t, leaks(body), "an authorised read returns the data")

	p.collectBad()
	p.badRequests()
	p.content()
	p.eventually("the platform has failed in every way", func() bool {
		p.do(p.collect("batch", `{"batch":[`+strings.ReplaceAll(identify+`,`+order, mark("known"), fmt.Sprint(mark("known"), time.Now().UnixNano()))+`]}`, mark("writekey")))
		return esp.requests() > 2*failures && crm.requests() > failures
	})
	p.rotate(mark("nexttoken"))

	// The store stops while requests continue, and restarts.
	redis.Close()
	p.eventually("reads are refused", func() bool {
		status, _ := p.do(p.get("/api/customer/"+mark("other"), token))
		return status == 503
	})
	p.do(p.collect("track", order, mark("writekey")))
	p.badRequests()
	require.NoError(t, redis.Restart())
	p.eventually("reads are answered again", func() bool {
		status, _ := p.do(p.get(known, token))
		return status == 200
	})

	// Stored records are damaged.
	for _, key := range redis.Keys() {
		if strings.Contains(key, mark("known")) {
			if redis.Type(key) == "string" {
				require.NoError(t, redis.Set(key, mark("damage")))
			}
		}
	}
	p.badRequests()

	// A customer is erased.
	p.do(request{method: "DELETE", url: "http://" + p.api + known, header: token})
	p.do(request{method: "PATCH", url: "http://" + p.api + known + "/traits", body: `{"firstName":"` + mark("late") + `"}`, header: token})
	p.do(p.collect("track", order, mark("writekey")))
	p.do(request{method: "DELETE", url: "http://" + p.api + known + "/erasure", header: token})

	metrics := p.metrics()
	require.Contains(t, metrics, "profile_api_requests")
	log := p.stop()

	// The data are where they belong, so the run exercised everything.
	letters, err := os.ReadFile(filepath.Join(p.data, "dead_letters.jsonl"))
	require.NoError(t, err)
	require.NotEmpty(t, leaks(string(letters)))
	letters, err = os.ReadFile(filepath.Join(p.data, "platform_dead_letters.jsonl"))
	require.NoError(t, err)
	require.NotEmpty(t, leaks(string(letters)))
	require.Contains(t, log, "The profile store is unavailable")
	require.Contains(t, log, "The circuit to the platform is open")
	require.Contains(t, log, "The content block broken renders its fallback")
	require.Contains(t, log, "The tokens were reloaded")
	require.Contains(t, log, "rejected with status 400")
	require.Greater(t, len(p.refusals), 100)

	require.Empty(t, leaks(log), "in the log")
	require.Empty(t, leaks(metrics), "in the metrics")
	require.Empty(t, leaks(strings.Join(p.refusals, "\n")), "in error responses")
}

// TestPlantedLeaks shows that the test above would find a leak: it logs and counts
// personal data on purpose.
func TestPlantedLeaks(t *testing.T) {
	redis := miniredis.RunT(t)
	redis.RequireAuth(mark("redispassword"))
	other := misbehave(t)
	p := start(t, variables(redis, other, other), "planted")
	p.eventually("events are accepted", func() bool {
		status, _ := p.do(p.collect("identify", identify, mark("writekey")))
		return status == 200
	})
	require.NotEmpty(t, leaks(p.metrics()))
	require.NotEmpty(t, leaks(p.stop()))
}

// TestWrongPassword shows that neither a rejected password nor the URL that contains
// it is logged.
func TestWrongPassword(t *testing.T) {
	redis := miniredis.RunT(t)
	redis.RequireAuth("another")
	other := misbehave(t)
	vars := variables(redis, other, other)
	vars["REDIS_ADDRESS"] = "someone:" + mark("urlpassword") + "@" + redis.Addr()
	p := start(t, vars, "events", "api", "changes")
	p.eventually("reads are refused", func() bool {
		status, _ := p.do(p.get("/api/customer/"+mark("known"), bearer(mark("token"))))
		return status == 503
	})
	p.eventually("the log contains the error", func() bool { return strings.Contains(p.logged(), "level=error") })
	metrics := p.metrics()
	require.Empty(t, leaks(p.stop()))
	require.Empty(t, leaks(metrics))
	require.Empty(t, leaks(strings.Join(p.refusals, "\n")))
}

const day = "2026-01-31T08:30:00.000Z"

var (
	identify = `{"type":"identify","messageId":"` + mark("message") + `","userId":"` + mark("known") + `","anonymousId":"` + mark("anonymous") + `","timestamp":"` + day +
		`","context":{"ip":"` + mark("ip") + `","userAgent":"` + mark("agent") + `"},"traits":{"email":"` + mark("email") + `@example.com","firstName":"` + mark("first") +
		`","lastName":"` + mark("last") + `","city":"` + mark("city") + `","` + mark("traitname") + `":"x"}}`
	order = `{"type":"track","event":"Order Completed","messageId":"` + mark("ordermessage") + `","userId":"` + mark("known") + `","timestamp":"` + time.Now().UTC().Format(time.RFC3339) +
		`","properties":{"order_id":"` + mark("order") + `","total":4000,"products":[]}}`
)

func variables(redis *miniredis.Miniredis, esp, crm *platform) map[string]string {
	return map[string]string{
		"LOG_LEVEL":        "TRACE",
		"REDIS_ADDRESS":    redis.Addr(),
		"REDIS_PASSWORD":   mark("redispassword"),
		"WRITE_KEY":        mark("writekey"),
		"CRM_ADDRESS":      crm.Listener.Addr().String(),
		"CRM_TOKEN":        mark("crmtoken"),
		"PLATFORM_ADDRESS": esp.Listener.Addr().String(),
		"PLATFORM_TOKEN":   mark("platformtoken"),
		"PLATFORM_SECRET":  "whsec_" + base64.StdEncoding.EncodeToString([]byte(mark("webhooksecret")+"0123456789")),
		"AUDIT_KEY":        mark("auditkey"),
		"PROFILE_API_TOKENS": fmt.Sprintf("[{name: all, sha256: %s, scopes: [read, write, content, erase, export, segments]}, {name: slow, sha256: %s, scopes: [read], requests_per_second: 0.001, burst: 1}]",
			sha(mark("token")), sha(mark("slowtoken"))),
		"PROFILE_API_SIGNING_KEYS": fmt.Sprintf("[{name: newsletter, secret: %s, fields: [traits.city]}]", mark("signingsecret0123456789abcdef0123")),
	}
}

func bearer(token string) map[string][]string { return header("Authorization", "Bearer "+token) }

func (p *streams) get(path string, header map[string][]string) request {
	return request{method: "GET", url: "http://" + p.api + path, header: header}
}

// collect sends to the collector.
func (p *streams) collect(path, body, writeKey string) request {
	return request{method: "POST", url: "http://" + p.collector + "/v1/" + path, body: body,
		header: header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(writeKey+":")), "User-Agent", mark("agent"), "X-Forwarded-For", mark("forwarded"))}
}

// badEvents are what is no event, or not one of the plan.
func badEvents() []string {
	m := mark
	event := func(members string) string {
		return `{"type":"track","event":"Order Completed","messageId":"` + m("bad") + `","userId":"` + m("bad") + `","timestamp":"` + day + `",` + members + `}`
	}
	return []string{
		m("nojson"),
		`{"` + m("halfjson"),
		`{"userId":"` + m("bad") + `" "x"}`,
		`"` + m("text") + `"`,
		`[` + identify + `]`,
		`{"type":"` + m("type") + `","userId":"` + m("bad") + `"}`,
		`{"type":"track","event":"` + m("unplanned") + `","userId":"` + m("bad") + `"}`,
		`{"type":"track","event":{"` + m("object") + `":1},"userId":"` + m("bad") + `"}`,
		`{"type":"track","event":"Order Completed","properties":{"total":1}}`,
		`{"userId":["` + m("list") + `"],"event":"x"}`,
		`{"userId":"` + strings.Repeat(m("long"), 200) + `","event":"x"}`,
		`{"userId":"` + m("bad") + `","event":"x","timestamp":"` + m("time") + `"}`,
		`{"userId":"` + m("bad") + `","userId":"` + m("twice") + `","event":"x"}`,
		`{"userId":"` + m("surrogate") + `\ud800","event":"x"}`,
		"{\"userId\":\"" + m("utf8") + "\xff\",\"event\":\"x\"}",
		event(`"properties":{"total":"` + m("total") + `"}`),
		event(`"properties":{"total":{"` + m("nested") + `":1},"` + m("unknown") + `":1}`),
		event(`"properties":"` + m("properties") + `"`),
		event(`"properties":{"total":1,"products":[{"product_id":["` + m("product") + `"],"price":"` + m("price") + `"}]}`),
		event(`"properties":{"order_id":"` + m("order2") + `","total":1e999}`),
		event(`"context":"` + m("context") + `","properties":{"total":1}`),
		event(`"` + strings.Repeat("x", 1000) + m("name") + `":1`),
		`{"type":"identify","userId":"` + m("bad") + `","traits":{"email":"` + m("noemail") + `","birthday":"` + m("birthday") + `","phone":"` + m("phone") + `"}}`,
		`{"type":"identify","userId":"` + m("bad") + `","traits":["` + m("traits") + `"]}`,
		`{"type":"alias","userId":"` + m("bad") + `","previousId":{"` + m("previous") + `":1}}`,
		`{"type":"erase","userId":"` + m("forged") + `"}`,
	}
}

// collectBad sends the collector what it refuses, and what others do after it.
func (p *streams) collectBad() {
	m := mark
	for _, body := range badEvents() {
		for _, path := range []string{"track", "identify", "batch", m("path")} {
			p.do(p.collect(path, body, m("writekey")))
		}
		p.do(p.collect("batch", `{"batch":[`+body+`],"context":{"`+m("batchcontext")+`":1}}`, m("writekey")))
	}
	p.do(p.collect("track", order, m("wrongkey")))
	p.do(p.collect("track", `{"writeKey":"`+m("bodykey")+`",`+order[1:], ""))
	for _, h := range []map[string][]string{
		header("Content-Type", m("contenttype")),
		header("Content-Encoding", m("encoding")),
		header("Content-Encoding", "gzip"),
		header("Authorization", m("scheme")+" x"),
		header("Cookie", strings.Repeat(m("cookie"), 20_000)),
	} {
		p.do(request{method: "POST", url: "http://" + p.collector + "/v1/track", body: order, header: h})
	}
	p.do(request{method: "GET", url: "http://" + p.collector + "/v1/track?" + m("query")})
}

// badRequests sends what the API refuses, or would if all were well.
func (p *streams) badRequests() {
	m := mark
	all := bearer(m("token"))
	with := func(pairs ...string) map[string][]string {
		return header(append(pairs, "Authorization", "Bearer "+m("token"))...)
	}
	known := "/api/customer/" + m("known")
	for _, path := range []string{
		known + "?fields=" + m("field"),
		known + "?fields=features." + m("feature"),
		known + "?as_of=" + m("asof"),
		known + "?as_of=1969-01-01T00:00:00Z",
		known + "?" + m("parameter") + "=1",
		known + "?" + m("escape") + "%zz",
		known + "?by=" + m("by"),
		"/api/customer/" + m("email") + "@example.com?by=email",
		"/api/customer/" + m("nobody"),
		"/api/customer/" + strings.Repeat(m("longid"), 100),
		"/api/customer/" + strings.Repeat(m("longpath"), 4000),
		"/api/customer/" + m("utf8") + "%ff",
		"/api/customer/" + m("slash") + "/" + m("more"),
		"/api/" + m("page"),
		"/" + m("outside"),
		known + "/explain?as_of=" + m("asof"),
		known + "/export?x=" + m("export"),
		known + "/content/" + m("block"),
		known + "/content/greeting?" + m("parameter"),
		"/api/content/greeting/preview?sample=" + m("sample"),
		"/api/segments/" + m("segment") + "/customers",
		"/api/segments/high_value/customers?after=" + base64.RawURLEncoding.EncodeToString([]byte("u"+m("after"))),
		"/api/segments/high_value/customers?after=" + m("cursor") + "!",
		"/api/segments/high_value/customers?limit=" + m("limit"),
		known + "?fields=traits.city&expires=1&key=newsletter&signature=" + m("signature"),
	} {
		p.do(p.get(path, all))
		p.do(p.get(path, nil))
		p.do(p.get(path, bearer(m("wrongtoken"))))
		p.do(p.get(path, bearer(m("slowtoken"))))
		p.do(p.get(path, with("Accept", m("accept"), "If-None-Match", m("etag"))))
		p.do(request{method: "POST", url: "http://" + p.api + path, body: m("post"), header: all})
		p.do(request{method: "DELETE", url: "http://" + p.api + path + "x", header: bearer(m("wrongtoken"))})
	}
	p.do(p.get(known, header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(m("user")+":"+m("password"))))))
	p.do(p.get(known, with("Cookie", strings.Repeat(m("cookie"), 5000))))
	p.do(request{method: "PATCH", url: "http://" + p.api + known + "/traits", body: `{"a":1}`, header: with("Idempotency-Key", m("key")+" é")})
	p.do(request{method: "PATCH", url: "http://" + p.api + known + "/traits", body: `{"a":1}`, header: with("Content-Type", m("contenttype"))})
	for _, body := range []string{
		m("nojson"), `{"` + m("halfjson"), `"` + m("text") + `"`, `["` + m("list") + `"]`,
		`{"` + m("twice") + `":1,"` + m("twice") + `":2}`, `{"` + m("number") + `":1e999}`, `{"":"` + m("empty") + `"}`,
		"{\"" + m("utf8") + "\":\"\xff\"}", strings.Repeat(`{"`+m("deep")+`":`, 40) + "1" + strings.Repeat("}", 40),
		`{"x":"` + strings.Repeat(m("long"), 10_000) + `"}`, `{"ids":"` + m("ids") + `"}`, `{"ids":["` + m("id") + `",1]}`,
		`{"ids":["` + m("id") + `",""]}`, `{"ids":["` + m("id") + `"],"` + m("member") + `":1}`, `{"ids":["` + m("id") + `"]} ` + m("after"),
		`{"profile":"` + m("profile") + `"}`, `{"profile":{"traits":["` + m("traits") + `"]}}`, `{"profile":{"as_of":"` + m("asof") + `"}}`,
	} {
		for _, r := range []request{
			{method: "PATCH", url: known + "/traits"},
			{method: "PUT", url: "/api/customer/" + m("put") + "/traits"},
			{method: "POST", url: "/api/customers/batch?fields=traits"},
			{method: "POST", url: "/api/content/greeting/batch"},
			{method: "POST", url: "/api/content/greeting/preview"},
		} {
			p.do(request{method: r.method, url: "http://" + p.api + r.url, body: body, header: all})
		}
	}
	p.raw(p.api, "GET /api/customer/"+m("rawid")+" HTTP/9.9\r\nHost: x\r\n\r\n")
	p.raw(p.api, m("rawmethod")+"\r\n\r\n")
	p.raw(p.api, "GET / HTTP/1.1\r\nHost: "+m("host")+"\r\nBad Header "+m("rawheader")+": x\r\n\r\n")
	p.raw(p.api, "POST /api/customers/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+m("token")+"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+m("chunk")+"\r\n")
	p.raw(p.collector, m("rawmethod")+" /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: "+m("length")+"\r\n\r\n")
}

// content renders what can be, and what cannot.
func (p *streams) content() {
	all := bearer(mark("token"))
	for _, block := range []string{"greeting", "broken", "long"} {
		p.do(p.get("/api/customer/"+mark("known")+"/content/"+block, all))
		p.do(request{method: "POST", url: "http://" + p.api + "/api/content/" + block + "/preview", header: all,
			body: `{"profile":{"traits":{"firstName":"` + mark("first") + `","city":"` + mark("city") + `","email":["` + mark("email") + `"]}}}`})
		p.do(request{method: "POST", url: "http://" + p.api + "/api/content/" + block + "/batch", header: all, body: `{"ids":["` + mark("known") + `","` + mark("nobody") + `"]}`})
	}
	target := "/api/customer/" + mark("known") + "/content/greeting?expires=" + fmt.Sprint(time.Now().Add(time.Hour).Unix()) + "&key=" + url.QueryEscape(mark("keyname"))
	p.do(p.get(target+"&signature="+sha("x"), nil))
}
