package profileapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

func TestGetCustomer(t *testing.T) {
	f := withProfiles("c1")
	s := serve(t, f, "")

	got := s.do(t, "GET", "/api/customer/c1", "")
	require.Equal(t, 200, got.status)
	require.Equal(t, profileOf("c1"), got.body)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, "private, no-cache", got.header.Get("Cache-Control"))
	require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
	require.Regexp(t, `^W/"[0-9a-f]{16}"$`, got.header.Get("ETag"))
	require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, []trip{{ids: []string{"c1"}}}, f.seen())

	head := s.do(t, "HEAD", "/api/customer/c1", "")
	require.Equal(t, 200, head.status)
	require.Empty(t, head.body)
	require.Equal(t, fmt.Sprint(len(got.body)), head.header.Get("Content-Length"))
	require.Equal(t, got.header.Get("ETag"), head.header.Get("ETag"))
}

func TestMaxAge(t *testing.T) {
	s := serve(t, withProfiles("c1"), "max_age: 90s")
	require.Equal(t, "private, max-age=90", s.do(t, "GET", "/api/customer/c1", "").header.Get("Cache-Control"))
}

func TestRefusals(t *testing.T) {
	f := withProfiles("c1")
	s := serve(t, f, "limits: { id_bytes: 20, body_bytes: 100, traits_bytes: 60, batch_ids: 3 }")
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string
	}{
		{name: "no profile", path: "/api/customer/nobody", status: 404, code: "no_such_customer"},
		{name: "no id", path: "/api/customer/", status: 400, code: "invalid_id"},
		{name: "no id to write", method: "PATCH", path: "/api/customer//traits", status: 400, code: "invalid_id"},
		{name: "id too long", path: "/api/customer/" + strings.Repeat("x", 21), status: 400, code: "invalid_id"},
		{name: "id not UTF-8", path: "/api/customer/%ff", status: 400, code: "invalid_id"},
		{name: "slash not escaped", path: "/api/customer/a/b", status: 404, code: "no_such_page"},
		{name: "trailing slash", path: "/api/customer/c1/", status: 404, code: "no_such_page"},
		{name: "deep path", path: "/api/customer/c1/traits/plan", status: 404, code: "no_such_page"},
		{name: "nowhere", path: "/index.html", status: 404, code: "no_such_page"},
		{name: "double slash", path: "//api/customer/c1", status: 404, code: "no_such_page"},
		{name: "delete", method: "DELETE", path: "/api/customer/c1/traits", status: 405, code: "method_not_allowed"},
		{name: "post", method: "POST", path: "/api/customer/c1", status: 405, code: "method_not_allowed"},
		{name: "own method", method: "BREW", path: "/api/customer/c1", status: 405, code: "method_not_allowed"},
		{name: "get traits", path: "/api/customer/c1/traits", status: 405, code: "method_not_allowed"},
		{name: "get batch", path: "/api/customers/batch", status: 405, code: "method_not_allowed"},
		{name: "post health", method: "POST", path: "/healthz", status: 405, code: "method_not_allowed"},
		{name: "accept html", path: "/api/customer/c1", headers: []string{"Accept: text/html"}, status: 406, code: "not_acceptable"},
		{name: "refuse json", path: "/api/customer/c1", headers: []string{"Accept: application/json;q=0, text/*"}, status: 406, code: "not_acceptable"},
		{name: "unknown parameter", path: "/api/customer/c1?field=traits", status: 400, code: "unknown_parameter"},
		{name: "bad query", path: "/api/customer/c1?fields=%zz", status: 400, code: "invalid_query"},
		{name: "semicolon", path: "/api/customer/c1?fields=traits;as_of=1", status: 400, code: "invalid_query"},
		{name: "empty fields", path: "/api/customer/c1?fields=", status: 400, code: "invalid_fields"},
		{name: "empty field", path: "/api/customer/c1?fields=traits,,features", status: 400, code: "invalid_fields"},
		{name: "many fields", path: "/api/customer/c1?fields=" + strings.Repeat("a,", 200) + "a", status: 400, code: "invalid_fields"},
		{name: "as_of in words", path: "/api/customer/c1?as_of=yesterday", status: 400, code: "invalid_as_of"},
		{name: "as_of in milliseconds", path: "/api/customer/c1?as_of=1769848200000000", status: 400, code: "invalid_as_of"},
		{name: "as_of before 1970 as a number", path: "/api/customer/c1?as_of=-1", status: 400, code: "invalid_as_of"},
		{name: "as_of before 1970", path: "/api/customer/c1?as_of=0001-01-01T00:00:00Z", status: 400, code: "as_of_too_early"},
		{name: "as_of twice", path: "/api/customer/c1?as_of=1&as_of=2", status: 400, code: "invalid_as_of"},
		{name: "as_of empty", path: "/api/customer/c1?as_of=", status: 400, code: "invalid_as_of"},

		{name: "batch as a form", method: "POST", path: "/api/customers/batch", body: "ids=a", headers: []string{"Content-Type: application/x-www-form-urlencoded"}, status: 415, code: "unsupported_media_type"},
		{name: "batch of no type", method: "POST", path: "/api/customers/batch", body: `{"ids":["a"]}`, status: 415, code: "unsupported_media_type"},
		{name: "batch zipped", method: "POST", path: "/api/customers/batch", body: "x", headers: []string{jsonBody, "Content-Encoding: gzip"}, status: 415, code: "unsupported_encoding"},
		{name: "batch as CSV", method: "POST", path: "/api/customers/batch", body: `{"ids":["a"]}`, headers: []string{jsonBody, "Accept: text/csv"}, status: 406, code: "not_acceptable"},
		{name: "batch of no fields", method: "POST", path: "/api/customers/batch?fields=", body: strings.Repeat(" ", 101), headers: []string{jsonBody}, status: 400, code: "invalid_fields"}, // before the body is read
		{name: "batch too large", method: "POST", path: "/api/customers/batch", body: strings.Repeat(" ", 101), headers: []string{jsonBody}, status: 413, code: "body_too_large"},
		{name: "batch of too many", method: "POST", path: "/api/customers/batch", body: `{"ids":["a","b","c","d"]}`, headers: []string{jsonBody}, status: 413, code: "too_many_ids"},
		{name: "batch empty", method: "POST", path: "/api/customers/batch", body: `{"ids":[]}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch without a body", method: "POST", path: "/api/customers/batch", headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch null", method: "POST", path: "/api/customers/batch", body: `null`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch cut off", method: "POST", path: "/api/customers/batch", body: `{"ids":["a"`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch not JSON", method: "POST", path: "/api/customers/batch", body: `{ids:[]}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch a list", method: "POST", path: "/api/customers/batch", body: `["a"]`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch of numbers", method: "POST", path: "/api/customers/batch", body: `{"ids":[1]}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch with more", method: "POST", path: "/api/customers/batch", body: `{"ids":["a"],"fields":["x"]}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch and more", method: "POST", path: "/api/customers/batch", body: `{"ids":["a"]}{}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch not UTF-8", method: "POST", path: "/api/customers/batch", body: "{\"ids\":[\"\xff\"]}", headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "batch of an empty id", method: "POST", path: "/api/customers/batch", body: `{"ids":["a",""]}`, headers: []string{jsonBody}, status: 400, code: "invalid_id"},
		{name: "batch of null", method: "POST", path: "/api/customers/batch", body: `{"ids":[null]}`, headers: []string{jsonBody}, status: 400, code: "invalid_id"},
		{name: "batch of a long id", method: "POST", path: "/api/customers/batch", body: `{"ids":["` + strings.Repeat("x", 21) + `"]}`, headers: []string{jsonBody}, status: 400, code: "invalid_id"},

		{name: "traits as text", method: "PATCH", path: "/api/customer/c1/traits", body: "{}", headers: []string{"Content-Type: text/plain"}, status: 415, code: "unsupported_media_type"},
		{name: "put as a patch", method: "PUT", path: "/api/customer/c1/traits", body: "{}", headers: []string{"Content-Type: application/merge-patch+json"}, status: 415, code: "unsupported_media_type"},
		{name: "traits too large", method: "PATCH", path: "/api/customer/c1/traits", body: strings.Repeat(" ", 61), headers: []string{jsonBody}, status: 413, code: "body_too_large"},
		{name: "traits empty", method: "PATCH", path: "/api/customer/c1/traits", headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "traits blank", method: "PATCH", path: "/api/customer/c1/traits", body: " \n", headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "traits a list", method: "PATCH", path: "/api/customer/c1/traits", body: "[1]", headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "traits null", method: "PATCH", path: "/api/customer/c1/traits", body: "null", headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "traits not JSON", method: "PATCH", path: "/api/customer/c1/traits", body: `{"a":}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "traits and more", method: "PATCH", path: "/api/customer/c1/traits", body: `{} {}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "traits not UTF-8", method: "PATCH", path: "/api/customer/c1/traits", body: "{\"a\":\"\xff\"}", headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "trait twice", method: "PATCH", path: "/api/customer/c1/traits", body: `{"a":1,"\u0061":2}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "trait without a name", method: "PATCH", path: "/api/customer/c1/traits", body: `{"":1}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "huge number", method: "PATCH", path: "/api/customer/c1/traits", body: `{"a":1e400}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "huge number inside", method: "PATCH", path: "/api/customer/c1/traits", body: `{"a":[{"b":-1e400}]}`, headers: []string{jsonBody}, status: 400, code: "invalid_body"},
		{name: "parameters of a write", method: "PATCH", path: "/api/customer/c1/traits?fields=a", body: "{}", headers: []string{jsonBody}, status: 400, code: "unknown_parameter"},
		{name: "write accepting HTML", method: "PATCH", path: "/api/customer/c1/traits", body: "{}", headers: []string{jsonBody, "Accept: text/html"}, status: 406, code: "not_acceptable"},
		{name: "empty key", method: "PATCH", path: "/api/customer/c1/traits", body: "{}", headers: []string{jsonBody, "Idempotency-Key: "}, status: 400, code: "invalid_idempotency_key"},
		{name: "key with a space", method: "PATCH", path: "/api/customer/c1/traits", body: "{}", headers: []string{jsonBody, "Idempotency-Key: a b"}, status: 400, code: "invalid_idempotency_key"},
		{name: "key too long", method: "PATCH", path: "/api/customer/c1/traits", body: "{}", headers: []string{jsonBody, "Idempotency-Key: " + strings.Repeat("k", 256)}, status: 400, code: "invalid_idempotency_key"},
		{name: "two keys", method: "PATCH", path: "/api/customer/c1/traits", body: "{}", headers: []string{jsonBody, "Idempotency-Key: a", "Idempotency-Key: b"}, status: 400, code: "invalid_idempotency_key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.do(t, c.method, c.path, c.body, c.headers...)
			require.Equal(t, c.code, got.code(t), "%s", got.body)
			require.Equal(t, c.status, got.status)
			if c.status == 405 {
				require.NotEmpty(t, got.header.Get("Allow"))
				require.NotContains(t, strings.Split(got.header.Get("Allow"), ", "), cmp.Or(c.method, "GET"))
			}
		})
	}
}

func TestDepthLimit(t *testing.T) {
	nested := func(n int) []byte {
		return []byte(`{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`)
	}
	_, refusal := parseTraits(nested(maxDepth))
	require.Nil(t, refusal)
	_, refusal = parseTraits(nested(maxDepth + 1))
	require.NotNil(t, refusal)
	require.Contains(t, refusal.message, "32 deep")
}

// An id is any string; it reaches the store as it was before URL encoding.
func TestAnyIDIsServed(t *testing.T) {
	f := withProfiles()
	in, err := newTestInput(t, f, "")
	require.NoError(t, err)
	for _, id := range []string{
		"a/b", "/", "..", ".", "a b", "100%", "%2F", "%252F", "ünï", "日本", "a?b=c", "a#b", "a+b", "+", "a;b", "\"", "\\", "\x00", "\n",
		"traits", "a/traits", "🙂", "jo@example.com", "urn:x:1", "~-._", "'", "<script>",
	} {
		t.Run(id, func(t *testing.T) { requireID(t, in, id) })
	}
	rapid.Check(t, func(t *rapid.T) {
		requireID(t, in, rapid.StringN(1, 100, 512).Draw(t, "id"))
	})
}

func requireID(t interface {
	require.TestingT
	Helper()
}, in *input, id string) {
	t.Helper()
	for suffix, want := range map[string]string{"": "customer", "/traits": "traits"} {
		// Once encoded as little as a client may, once every byte.
		every := ""
		for _, b := range []byte(id) {
			every += fmt.Sprintf("%%%02X", b)
		}
		for _, encoded := range []string{url.PathEscape(id), every} {
			u, err := url.ParseRequestURI("/api/customer/" + encoded + suffix)
			require.NoError(t, err)
			p, got := findPage(u)
			require.Equal(t, want, p.name)
			require.Equal(t, id, got[0])
			require.Nil(t, checkID(got[0], in.conf.limits.idBytes))
		}
	}
}

func TestEscapedIDIsServed(t *testing.T) {
	const id = "crm/42?ü%2F+ 🙂"
	s := serve(t, withProfiles(id), "")
	got := s.do(t, "GET", "/api/customer/"+url.PathEscape(id), "")
	require.Equal(t, 200, got.status)
	require.Equal(t, profileOf(id), got.body)
}

func TestFieldsAndAsOf(t *testing.T) {
	f := withProfiles("c1")
	s := serve(t, f, "")
	noon := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for query, want := range map[string]customers.Query{
		"fields=traits": {Fields: []string{"traits"}},
		"fields=traits.email,features.orders_30d":  {Fields: []string{"traits.email", "features.orders_30d"}},
		"fields=traits.email&fields=features":      {Fields: []string{"traits.email", "features"}},
		"fields=traits.e%2Dmail":                   {Fields: []string{"traits.e-mail"}},
		"as_of=2026-01-31T12:00:00Z":               {AsOf: noon},
		"as_of=2026-01-31T13:00:00.000%2B01:00":    {AsOf: noon},
		"as_of=2026-01-31T13:00:00+01:00":          {AsOf: noon},
		"as_of=1769860800":                         {AsOf: noon},
		"as_of=0":                                  {AsOf: time.Unix(0, 0).UTC()},
		"as_of=2026-01-31T12:00:00Z&fields=traits": {AsOf: noon, Fields: []string{"traits"}},
	} {
		f.set(func() { f.trips = nil })
		require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1?"+query, "").status, query)
		require.Equal(t, []trip{{[]string{"c1"}, want}}, f.seen(), query)
	}

	f.set(func() { f.readErr = fmt.Errorf("read: %w", &customers.UnknownFieldError{}) })
	got := s.do(t, "GET", "/api/customer/c1?fields=tarits", "")
	require.Equal(t, 400, got.status)
	require.Equal(t, "unknown_field", got.code(t))
	require.NotContains(t, got.body, "tarits")
	f.set(func() { f.readErr = nil; f.early["c1"] = true })
	got = s.do(t, "GET", "/api/customer/c1?as_of=5", "")
	require.Equal(t, 400, got.status)
	require.Equal(t, "as_of_too_early", got.code(t))
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status, "now is never too early")
}

func TestResponseStatesWhatAsOfChanges(t *testing.T) {
	s := serve(t, withProfiles("c1"), "")
	require.Equal(t, "features, segments", s.do(t, "GET", "/api/customer/c1?as_of=2026-01-31T08:30:00Z", "").header.Get("As-Of-Applies-To"))
	require.Equal(t, "features, segments", s.do(t, "POST", "/api/customers/batch?as_of=1769848200", `{"ids":["c1"]}`, "Content-Type: application/json").header.Get("As-Of-Applies-To"))
	require.Empty(t, s.do(t, "GET", "/api/customer/c1", "").header.Get("As-Of-Applies-To"))
}

func TestEntityTag(t *testing.T) {
	f := withProfiles("c1")
	s := serve(t, f, "")
	get := func(headers ...string) answer { return s.do(t, "GET", "/api/customer/c1", "", headers...) }
	change := func(old, new string) {
		f.set(func() { f.profiles["c1"] = strings.Replace(f.profiles["c1"], old, new, 1) })
	}

	tag := get().header.Get("ETag")
	for _, match := range []string{tag, "*", `"x", ` + tag, strings.TrimPrefix(tag, "W/")} {
		got := get("If-None-Match: " + match)
		require.Equal(t, 304, got.status, match)
		require.Empty(t, got.body)
		require.Equal(t, tag, got.header.Get("ETag"))
		require.Equal(t, "private, no-cache", got.header.Get("Cache-Control"))
	}
	require.Equal(t, 304, s.do(t, "HEAD", "/api/customer/c1", "", "If-None-Match: "+tag).status)
	require.Equal(t, 200, get(`If-None-Match: "x"`).status)

	change("08:30:00", "09:45:00") // as_of passes with every read
	require.Equal(t, 304, get("If-None-Match: "+tag).status)

	for _, c := range [][2]string{{`"orders_30d":2`, `"orders_30d":1`}, {"gold", "silver"}, {"10:00:00", "10:00:01"}} {
		change(c[0], c[1])
		got := get("If-None-Match: " + tag)
		require.Equal(t, 200, got.status, c[0])
		require.NotEqual(t, tag, got.header.Get("ETag"))
		tag = got.header.Get("ETag")
	}

	// A trait that looks like the member left out counts in full.
	require.NotEqual(t,
		contentTag([]byte(`{"traits":{"a":1,"as_of":1},"as_of":"x","updated_at":null}`)),
		contentTag([]byte(`{"traits":{"a":1,"as_of":2},"as_of":"x","updated_at":null}`)))
}

func TestBatch(t *testing.T) {
	f := withProfiles("a", "b", `q"`)
	f.early["b"] = true
	s := serve(t, f, "")
	post := func(headers ...string) answer {
		return s.do(t, "POST", "/api/customers/batch?fields=traits&as_of=5", `{"ids":["q\"","gone","a","b","a"]}`,
			append(headers, "Content-Type: application/json; charset=utf-8")...)
	}
	early := `{"id":"b","found":true,"error":{"code":"as_of_too_early","message":"` + tooEarly.message + `"}}`
	want := []string{
		`{"id":"q\"","found":true,"profile":` + profileOf(`q"`) + `}`,
		`{"id":"gone","found":false}`,
		`{"id":"a","found":true,"profile":` + profileOf("a") + `}`,
		early,
		`{"id":"a","found":true,"profile":` + profileOf("a") + `}`,
	}

	for _, accept := range [][]string{nil, {"Accept: */*"}, {"Accept: application/json, application/x-ndjson;q=0.5"}, {"Accept: application/*"}} {
		got := post(accept...)
		require.Equal(t, 200, got.status)
		require.Equal(t, "application/json", got.header.Get("Content-Type"))
		require.JSONEq(t, `{"customers":[`+strings.Join(want, ",")+`]}`, got.body)
	}
	for _, accept := range []string{"application/x-ndjson", "text/html, Application/X-NDJSON", "application/json;q=0.5, application/x-ndjson"} {
		got := post("Accept: " + accept)
		require.Equal(t, 200, got.status)
		require.Equal(t, "application/x-ndjson", got.header.Get("Content-Type"))
		require.Equal(t, strings.Join(want, "\n")+"\n", got.body)
		require.Equal(t, "private, no-cache", got.header.Get("Cache-Control"))
	}
	last := f.seen()[len(f.seen())-1]
	require.Equal(t, trip{[]string{`q"`, "gone", "a", "b", "a"}, customers.Query{Fields: []string{"traits"}, AsOf: time.Unix(5, 0).UTC()}}, last)
}

func TestLargestBatch(t *testing.T) {
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprint("customer-", i)
	}
	f := withProfiles(ids...)
	s := serve(t, f, "")
	body, err := json.Marshal(map[string]any{"ids": ids})
	require.NoError(t, err)
	got := s.do(t, "POST", "/api/customers/batch", string(body), "Content-Type: application/json")
	require.Equal(t, 200, got.status)
	var reply struct {
		Customers []struct {
			ID      string
			Found   bool
			Profile struct{ ID string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(got.body), &reply))
	require.Len(t, reply.Customers, 1000)
	for i, c := range reply.Customers {
		require.Equal(t, ids[i], c.ID)
		require.Equal(t, ids[i], c.Profile.ID)
		require.True(t, c.Found)
	}
	require.Len(t, f.seen(), 1)
}

func TestUnavailableStore(t *testing.T) {
	f := withProfiles("c1")
	s := serve(t, f, "timeouts: { request: 20ms }")
	hang := func(ctx context.Context, _ []string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, c := range []struct {
		err    error
		onRead func(context.Context, []string) error
		code   string
	}{
		{err: errors.New("connection refused"), code: "store_unavailable"},
		{onRead: hang, code: "timeout"},
	} {
		f.set(func() { f.readErr, f.onRead = c.err, c.onRead })
		for _, got := range []answer{
			s.do(t, "GET", "/api/customer/c1", ""),
			s.do(t, "POST", "/api/customers/batch", `{"ids":["c1"]}`, "Content-Type: application/json"),
			s.do(t, "PUT", "/api/customer/c1/traits", `{}`, "Content-Type: application/json"),
			s.do(t, "PATCH", "/api/customer/c1/traits", `{}`, "Content-Type: application/json"),
		} {
			require.Equal(t, 503, got.status)
			require.Equal(t, c.code, got.code(t))
			require.Equal(t, "1", got.header.Get("Retry-After"))
		}
	}
	f.set(func() { f.readErr, f.onRead = nil, nil })
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status)
}

// A record that cannot be read takes none of those read along with it.
func TestUnreadableRecord(t *testing.T) {
	f := withProfiles("a", "b", "c", "d", "e")
	f.corrupt["b"] = true
	s := serve(t, f, "")
	for _, got := range []answer{
		s.do(t, "GET", "/api/customer/b", ""),
		s.do(t, "PUT", "/api/customer/b/traits", `{}`, jsonBody),
		s.do(t, "PATCH", "/api/customer/b/traits", `{}`, jsonBody),
	} {
		require.Equal(t, 500, got.status)
		require.Equal(t, "unreadable_profile", got.code(t))
	}

	got := s.do(t, "POST", "/api/customers/batch", `{"ids":["a","b","c","d","gone"]}`, jsonBody, "Accept: application/x-ndjson")
	require.Equal(t, 200, got.status)
	lines := strings.Split(got.body, "\n")
	for i, id := range []string{"a", "b", "c", "d", "gone"} {
		switch id {
		case "b":
			require.Equal(t, `{"id":"b","found":true,"error":{"code":"unreadable_profile","message":"`+badRecord.message+`"}}`, lines[i])
		case "gone":
			require.Equal(t, `{"id":"gone","found":false}`, lines[i])
		default:
			require.Equal(t, `{"id":"`+id+`","found":true,"profile":`+profileOf(id)+`}`, lines[i])
		}
	}
	require.Equal(t, 1, strings.Count(s.log.String(), "cannot be decoded"))
	require.NotContains(t, s.log.String(), "The profile store is unavailable")
}

func TestBatchReadsAreBounded(t *testing.T) {
	f := withProfiles("c1")
	entered, release := make(chan struct{}, 10), make(chan struct{})
	f.onRead = func(_ context.Context, ids []string) error {
		if ids[0] == "slow" {
			entered <- struct{}{}
			<-release
		}
		return nil
	}
	s := serve(t, f, "round_trips: 1\ntimeouts: { request: 50ms }")
	done := make(chan answer, 1)
	go func() {
		a, _ := s.try("POST", "/api/customers/batch", `{"ids":["slow"]}`, "Content-Type: application/json")
		done <- a
	}()
	<-entered
	got := s.do(t, "POST", "/api/customers/batch", `{"ids":["c1"]}`, "Content-Type: application/json")
	require.Equal(t, 503, got.status)
	require.Equal(t, "overloaded", got.code(t))
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status, "batches leave single reads their own round trips")
	close(release)
	require.NotZero(t, (<-done).status)
}

// The profiles of batches that are not written yet are bounded in bytes: a batch waits
// for the memory of another one, and is refused after the request timeout.
func TestMemoryOfBatchReadsIsBounded(t *testing.T) {
	s := serve(t, withProfiles("c1", "c2"), "limits: { batch_memory: 500 }\ntimeouts: { request: 50ms }")
	read := func() (func(), *problem) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, release, refusal := s.handler.readMany(ctx, []string{"c1", "c2"}, question{})
		return release, refusal
	}
	release, refusal := read()
	require.Nil(t, refusal, "a batch above the limit is served alone")
	got := s.do(t, "POST", "/api/customers/batch", `{"ids":["c1","c2"]}`, "Content-Type: application/json")
	require.Equal(t, 503, got.status)
	require.Equal(t, "overloaded", got.code(t))
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status)
	release()
	for range 3 {
		require.Equal(t, 200, s.do(t, "POST", "/api/customers/batch", `{"ids":["c1","c2"]}`, "Content-Type: application/json").status, "the memory is released")
	}
}

func TestHealthAndReadiness(t *testing.T) {
	f := withProfiles()
	s := serve(t, f, "")
	for range 5 {
		got := s.do(t, "GET", "/readyz", "")
		require.Equal(t, 200, got.status)
		require.JSONEq(t, `{"status":"ready"}`, got.body)
	}
	require.LessOrEqual(t, f.pings, 5)

	// A second later the store is asked again.
	f.set(func() { f.pingErr = errors.New("away") })
	require.Nil(t, s.handler.checkStore(context.Background(), s.handler.readiness.asked.Add(time.Second-1)))
	require.NotContains(t, s.log.String(), "away")
	require.NotNil(t, s.handler.checkStore(context.Background(), s.handler.readiness.asked.Add(time.Second)))
	require.Contains(t, s.log.String(), "away", "the reason is logged, also without reads")
	got := s.do(t, "GET", "/readyz", "")
	require.Equal(t, 503, got.status)
	require.Equal(t, "store_unavailable", got.code(t))
	require.Equal(t, 404, s.do(t, "GET", "/api/customer/c1", "").status, "reads are refused only when they fail")
	require.Equal(t, 200, s.do(t, "HEAD", "/healthz", "").status)
	require.JSONEq(t, `{"status":"ok"}`, s.do(t, "GET", "/healthz", "").body)

	s.handler.drain()
	got = s.do(t, "GET", "/readyz", "")
	require.Equal(t, 503, got.status)
	require.Equal(t, "stopping", got.code(t))
	require.Equal(t, 200, s.do(t, "GET", "/healthz", "").status)
}

func TestCrossOrigin(t *testing.T) {
	s := serve(t, withProfiles("c1"), `
allowed_origins: [ https://crm.example.com ]
tokens: [ { name: t, sha256: "`+hashOf("secret")+`" } ]`)
	preflight := func(origin string) answer {
		return s.do(t, "OPTIONS", "/api/customer/c1/traits", "", "Origin: "+origin, "Access-Control-Request-Method: PATCH")
	}
	got := preflight("https://crm.example.com")
	require.Equal(t, 204, got.status)
	require.Equal(t, "https://crm.example.com", got.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, got.header.Get("Access-Control-Allow-Methods"), "PATCH")
	require.Contains(t, got.header.Get("Access-Control-Allow-Headers"), "Authorization")
	require.Equal(t, "Origin", got.header.Get("Vary"))

	for _, origin := range []string{"https://evil.example", "null", "https://crm.example.com.evil.example"} {
		got = preflight(origin)
		require.Equal(t, 204, got.status)
		require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
		require.Empty(t, got.header.Get("Access-Control-Allow-Methods"))
	}
	got = s.do(t, "GET", "/api/customer/c1", "", "Origin: https://crm.example.com", "Authorization: Bearer secret")
	require.Equal(t, 200, got.status)
	require.Equal(t, "https://crm.example.com", got.header.Get("Access-Control-Allow-Origin"))
	require.Empty(t, got.header.Get("Access-Control-Allow-Credentials"))

	plain := serve(t, withProfiles("c1"), "")
	got = plain.do(t, "GET", "/api/customer/c1", "", "Origin: https://crm.example.com")
	require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
	got = plain.do(t, "OPTIONS", "/api/customer/c1", "")
	require.Equal(t, http.StatusNoContent, got.status)
	require.Equal(t, "GET, HEAD, DELETE, OPTIONS", got.header.Get("Allow"))
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		accept []string
		want   string
	}{
		{nil, typeJSON},
		{[]string{""}, typeJSON},
		{[]string{"*/*"}, typeJSON},
		{[]string{"text/html"}, ""},
		{[]string{"text/html", "application/x-ndjson"}, typeNDJSON},
		{[]string{"application/x-ndjson;q=0.9, application/json;q=0.8"}, typeNDJSON},
		{[]string{"application/json;q=0, */*"}, typeNDJSON},
		{[]string{"application/*;q=0.2, application/x-ndjson;q=0"}, typeJSON},
		{[]string{"application/json;q=nonsense"}, typeJSON},
		{[]string{"application/json;version=1;q=0.1, application/x-ndjson;q=0.2"}, typeNDJSON},
		{[]string{",;,,"}, ""},
	} {
		require.Equal(t, c.want, negotiate(c.accept, typeJSON, typeNDJSON), "%q", c.accept)
	}
}
