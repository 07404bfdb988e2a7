package profileapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const helloBlock = `type: html
description: Greets.
definition: shop.yaml
requires: [ traits.plan ]
fallback: <p>Hello</p>
template: |
  <p title="{{ traits.plan }}">{{ id }} has {{ features.orders_30d }}{{ traits.fail | divided_by: 0 }}</p>
samples:
  - { name: gold, profile: { id: s1, traits: { plan: "<gold>" }, features: { orders_30d: 3 } }, fallback: true }
`

// withBlocks is a config of an API that serves blocks, by name of their files.
func withBlocks(t *testing.T, files map[string]string) (dir, yaml string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600))
	}
	return dir, "content: " + dir + "\n"
}

func fixed(block string) string {
	return strings.NewReplacer("{{ traits.fail | divided_by: 0 }}", "", ", fallback: true", "").Replace(block)
}

func TestContent(t *testing.T) {
	f := withProfiles("c1", "c2")
	f.profiles["evil"] = `{"id":"evil","traits":{"plan":"\"><script>"},"features":{"orders_30d":"<b>"},"as_of":"2026-01-31T08:30:00.000Z","updated_at":null}`
	f.profiles["poor"] = `{"id":"poor","traits":{},"features":{},"as_of":"2026-01-31T08:30:00.000Z","updated_at":null}`
	f.profiles["broken"] = `{"id":`
	f.early["c2"] = true
	f.corrupt["bad"] = true
	_, yaml := withBlocks(t, map[string]string{
		"hello": fixed(helloBlock), "fails": helloBlock,
		"line": "type: text\nfallback: nothing\ntemplate: '{{ traits.plan | upcase }}'\n",
	})
	s := serve(t, f, yaml)

	got := s.do(t, "GET", "/api/customer/c1/content/hello", "")
	require.Equal(t, 200, got.status)
	require.Equal(t, `<p title="gold">c1 has 2</p>`, strings.TrimSpace(got.body))
	require.Equal(t, "text/html; charset=utf-8", got.header.Get("Content-Type"))
	require.Equal(t, "sandbox", got.header.Get("Content-Security-Policy"))
	require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
	require.Equal(t, "private, no-cache", got.header.Get("Cache-Control"))
	require.Empty(t, got.header.Get("Content-Fallback"))
	tag := got.header.Get("ETag")
	require.Equal(t, 304, s.do(t, "GET", "/api/customer/c1/content/hello", "", "If-None-Match: "+tag).status)
	require.NotEqual(t, tag, s.do(t, "GET", "/api/customer/evil/content/hello", "").header.Get("ETag"))
	head := s.do(t, "HEAD", "/api/customer/c1/content/hello", "")
	require.Equal(t, 200, head.status)
	require.Equal(t, tag, head.header.Get("ETag"))

	got = s.do(t, "GET", "/api/customer/c1/content/line", "")
	require.Equal(t, "GOLD", got.body)
	require.Equal(t, "text/plain; charset=utf-8", got.header.Get("Content-Type"))

	got = s.do(t, "GET", "/api/customer/evil/content/hello", "")
	require.Equal(t, `<p title="&#34;&gt;&lt;script&gt;">evil has &lt;b&gt;</p>`, strings.TrimSpace(got.body))

	for _, c := range []struct{ id, block, reason string }{
		{"nobody", "hello", "no_customer"}, {"poor", "hello", "missing_value"}, {"c1", "fails", "failed"},
	} {
		got = s.do(t, "GET", "/api/customer/"+c.id+"/content/"+c.block, "")
		require.Equal(t, 200, got.status)
		require.Equal(t, "<p>Hello</p>", got.body)
		require.Equal(t, c.reason, got.header.Get("Content-Fallback"))
	}

	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/api/customer/c1/content/none":                             {404, "no_such_block"},
		"/api/customer/c1/content/..%2Fhello":                       {404, "no_such_block"},
		"/api/customer/c1/content/hello?fields=traits":              {400, "unknown_parameter"},
		"/api/customer/c1/content/hello?as_of=x":                    {400, "invalid_as_of"},
		"/api/customer/c2/content/hello?as_of=2020-01-01T00:00:00Z": {400, "as_of_too_early"},
		"/api/customer/bad/content/hello":                           {500, "unreadable_profile"},
		"/api/customer/broken/content/hello":                        {500, "unreadable_profile"},
		"/api/customer/%20/content":                                 {404, "no_such_page"},
	} {
		got := s.do(t, "GET", path, "")
		require.Equal(t, want.status, got.status, path)
		require.Equal(t, want.code, got.code(t), path)
	}

	// The log reports a failing block once, without personal data.
	s.do(t, "GET", "/api/customer/c1/content/fails", "")
	require.Equal(t, 1, strings.Count(s.log.String(), "The content block fails renders its fallback (see the metric content_blocks): line 7: filter divided_by: division by zero"))
	for _, secret := range []string{"c1", "evil", "gold", "script"} {
		require.NotContains(t, s.log.String(), secret)
	}

	f.set(func() { f.readErr = fmt.Errorf("away") })
	require.Equal(t, 503, s.do(t, "GET", "/api/customer/c1/content/hello", "").status)
}

func TestContentBatch(t *testing.T) {
	f := withProfiles("c1", "c2")
	f.corrupt["bad"] = true
	_, yaml := withBlocks(t, map[string]string{"hello": fixed(helloBlock)})
	s := serve(t, f, yaml)
	const path, body = "/api/content/hello/batch", `{"ids":["c2","nobody","bad","c1","c2"]}`
	want := []string{
		`{"id":"c2","content":"\u003cp title=\"gold\"\u003ec2 has 2\u003c/p\u003e\n"}`,
		`{"id":"nobody","content":"\u003cp\u003eHello\u003c/p\u003e","fallback":"no_customer"}`,
		`{"id":"bad","error":{"code":"unreadable_profile","message":"the record of this customer cannot be decoded"}}`,
		`{"id":"c1","content":"\u003cp title=\"gold\"\u003ec1 has 2\u003c/p\u003e\n"}`,
		`{"id":"c2","content":"\u003cp title=\"gold\"\u003ec2 has 2\u003c/p\u003e\n"}`,
	}
	got := s.do(t, "POST", path, body, "Content-Type: application/json", "Accept: application/x-ndjson")
	require.Equal(t, 200, got.status)
	require.Equal(t, "application/x-ndjson", got.header.Get("Content-Type"))
	require.Equal(t, strings.Join(want, "\n")+"\n", got.body)
	got = s.do(t, "POST", path, body, "Content-Type: application/json")
	require.Equal(t, `{"contents":[`+strings.Join(want, ",\n")+"]}\n", got.body)
	require.True(t, json.Valid([]byte(got.body)))
	require.Len(t, f.seen(), 2, "a batch is one read")

	ids := make([]string, 1001)
	for i := range ids {
		ids[i] = fmt.Sprint("c", i)
	}
	tooMany, err := json.Marshal(map[string]any{"ids": ids})
	require.NoError(t, err)
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{path, `{"ids":[]}`, 400}, {path, `{}`, 400}, {path, string(tooMany), 413}, {path + "?fields=traits", body, 400},
		{"/api/content/none/batch", body, 404},
	} {
		require.Equal(t, c.status, s.do(t, "POST", c.path, c.body, "Content-Type: application/json").status, c.path)
	}
	require.Equal(t, 415, s.do(t, "POST", path, body).status)
	require.Equal(t, "unknown_parameter", s.do(t, "POST", path+"?fields=traits", "x").code(t), "the query string is refused before the body is read")
	require.Equal(t, 406, s.do(t, "POST", path, body, "Content-Type: application/json", "Accept: text/html").status)
}

func TestPreview(t *testing.T) {
	_, yaml := withBlocks(t, map[string]string{"hello": fixed(helloBlock), "fails": helloBlock})
	s := serve(t, withProfiles(), yaml)
	got := s.do(t, "GET", "/api/content/hello/preview", "")
	require.Equal(t, 200, got.status)
	require.Equal(t, `<p title="&lt;gold&gt;">s1 has 3</p>`, strings.TrimSpace(got.body))
	require.Equal(t, got.body, s.do(t, "GET", "/api/content/hello/preview?sample=gold", "").body)
	require.Equal(t, "no_such_sample", s.do(t, "GET", "/api/content/hello/preview?sample=x", "").code(t))
	require.Equal(t, 400, s.do(t, "GET", "/api/content/hello/preview?x=y", "").status)

	post := func(block, body string) answer {
		return s.do(t, "POST", "/api/content/"+block+"/preview", body, "Content-Type: application/json")
	}
	got = post("hello", `{"profile":{"id":"made up","traits":{"plan":"x"},"features":{"orders_30d":1}}}`)
	require.Equal(t, `<p title="x">made up has 1</p>`, strings.TrimSpace(got.body))
	got = post("hello", `{"profile":null}`)
	require.Equal(t, "no_customer", got.header.Get("Content-Fallback"))
	got = post("hello", `{"profile":{}}`)
	require.Equal(t, "missing_value", got.header.Get("Content-Fallback"))
	require.Equal(t, "the profile has no traits.plan", got.header.Get("Content-Problem"))
	got = post("fails", `{"profile":{"traits":{"plan":"x"}}}`)
	require.Equal(t, "line 7: filter divided_by: division by zero", got.header.Get("Content-Problem"))
	for _, body := range []string{`{}`, `{"profile":[]}`, `{"profile":{"id":1}}`, `{"profile":{"traits":[]}}`, `{"profile":{}} x`, `{"profile":{},"x":1}`, `x`, `{"profile":{"as_of":"x"}}`} {
		require.Equal(t, "invalid_body", post("hello", body).code(t), body)
	}

	list := s.do(t, "GET", "/api/content", "")
	require.JSONEq(t, `{"blocks":[
		{"name":"fails","type":"html","description":"Greets.","requires":["traits.plan"],"samples":["gold"]},
		{"name":"hello","type":"html","description":"Greets.","requires":["traits.plan"],"samples":["gold"]}]}`, list.body)
}

func TestContentNeedsTheScopeContent(t *testing.T) {
	_, yaml := withBlocks(t, map[string]string{"hello": fixed(helloBlock)})
	s := serve(t, withProfiles("c1"), yaml+fmt.Sprintf("tokens:\n  - { name: reader, sha256: %q }\n  - { name: sender, sha256: %q, scopes: [ content ] }\n", hashOf("r"), hashOf("c")))
	for _, path := range []string{"/api/customer/c1/content/hello", "/api/content", "/api/content/hello/preview"} {
		require.Equal(t, 401, s.do(t, "GET", path, "").status, path)
		require.Equal(t, 403, s.do(t, "GET", path, "", "Authorization: Bearer r").status, path)
		require.Equal(t, 200, s.do(t, "GET", path, "", "Authorization: Bearer c").status, path)
	}
	require.Equal(t, 403, s.do(t, "GET", "/api/customer/c1", "", "Authorization: Bearer c").status)

	s = serve(t, withProfiles("c1"), "")
	for _, path := range []string{"/api/customer/c1/content/hello", "/api/content", "/api/content/hello/preview"} {
		require.Equal(t, "no_content", s.do(t, "GET", path, "").code(t), path)
	}
}

// A folder in which anything is wrong is never taken: the last good one stays.
func TestContentIsReloaded(t *testing.T) {
	dir, yaml := withBlocks(t, map[string]string{"hello": fixed(helloBlock)})
	s := serve(t, withProfiles("c1"), yaml)
	folder := s.handler.content
	check := func(times int) (reloaded bool, err error) {
		for range times {
			if reloaded, err = folder.Check(); reloaded {
				return reloaded, err
			}
		}
		return reloaded, err
	}
	body := func() string { return s.do(t, "GET", "/api/customer/c1/content/hello", "").body }
	before := body()
	reloaded, err := check(3)
	require.NoError(t, err)
	require.False(t, reloaded)

	write := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "hello.yaml"), []byte(text), 0o600))
	}
	write("type: html\nfallback: x\ntemplate: '{{ traits.plan | upcas }}'\n")
	_, err = check(2)
	require.ErrorContains(t, err, `hello.yaml:3: there is no filter "upcas"; did you mean "upcase"?`)
	require.Equal(t, before, body())
	require.Equal(t, "hello", s.handler.content.All()[0].Name)

	write("type: text\nfallback: x\ntemplate: '{{ traits.plan | upcase }}'\n")
	reloaded, err = check(2)
	require.NoError(t, err)
	require.True(t, reloaded)
	require.Equal(t, "GOLD", body())

	require.NoError(t, os.Remove(filepath.Join(dir, "hello.yaml")))
	_, err = check(2)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, s.do(t, "GET", "/api/customer/c1/content/hello", "").status)
}

func TestContentConfig(t *testing.T) {
	_, err := newTestInput(t, withProfiles(), "content: /nonexistent")
	require.ErrorContains(t, err, "write the path of a folder")
	_, yaml := withBlocks(t, map[string]string{"hello": "type: html\nfallback: x\ntemplate: '{{ traits.plan'\n", "Bad": fixed(helloBlock)})
	_, err = newTestInput(t, withProfiles(), yaml)
	require.ErrorContains(t, err, "hello.yaml:3: {{ is never closed; write }}")
	require.ErrorContains(t, err, "the name of a block's file")

	linter := testEnvironment(t, withProfiles()).NewComponentConfigLinter()
	lints, err := linter.LintInputYAML([]byte("profile_api:\n  profiles: shop\n  " + yaml))
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(lints), "hello.yaml:3:")
	lints, err = linter.LintInputYAML([]byte("profile_api:\n  profiles: shop\n  content: ''\n"))
	require.NoError(t, err)
	require.Empty(t, lints)
}

// A batch of templates that use up their time ends in time.
func TestContentBatchTimesOut(t *testing.T) {
	ids := make([]string, 500)
	f := withProfiles()
	for i := range ids {
		ids[i] = fmt.Sprint("c", i)
		f.profiles[ids[i]] = profileOf(ids[i])
	}
	_, yaml := withBlocks(t, map[string]string{"slow": "type: text\nfallback: F\nbudget: { time: 20ms }\ntemplate: '{% for i in (1..900000000) %}{% endfor %}'\n"})
	s := serve(t, f, yaml+"timeouts: { request: 300ms }\n")
	body, err := json.Marshal(map[string]any{"ids": ids})
	require.NoError(t, err)
	began := time.Now()
	got := s.do(t, "POST", "/api/content/slow/batch", string(body), "Content-Type: application/json")
	require.Equal(t, 200, got.status)
	require.Contains(t, got.body, `"fallback":"over_time"`)
	require.Contains(t, got.body, `"code":"timeout"`)
	require.Equal(t, len(ids), strings.Count(got.body, `"id":`))
	require.Less(t, time.Since(began), patience)
}
