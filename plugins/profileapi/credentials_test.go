package profileapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/signedurl"
)

const secret = "0123456789abcdef0123456789abcdef"

func bearer(token string) string { return "Authorization: Bearer " + token }

func TestScopes(t *testing.T) {
	text := "tokens:\n"
	for name := range scopeNames {
		text += fmt.Sprintf("  - { name: %s, sha256: %s, scopes: [ %s ] }\n", name, hashOf(name), name)
	}
	s := serve(t, withProfiles("c1"), text)
	s.handler.drain() // what writes is let in and answered at once, with 503
	for i := range s.handler.conf.credentials.tokens {
		require.NotZero(t, s.handler.conf.credentials.tokens[i].scopes)
	}
	for _, r := range routes() {
		path := strings.NewReplacer("{id}", "c1", "{block}", "b", "{name}", "n").Replace(r.pattern)
		for name, scope := range scopeNames {
			got := s.do(t, r.method, path, "", bearer(name))
			if r.scope == 0 || r.scope == scope {
				require.NotContains(t, []int{401, 403}, got.status, "%s %s with scope %s", r.method, path, name)
			} else {
				require.Equal(t, 403, got.status, "%s %s with scope %s", r.method, path, name)
				require.Equal(t, "forbidden", got.code(t))
				require.Contains(t, got.body, `\"`+r.scope.String()+`\"`)
			}
		}
	}
}

func TestTokensFileIsReloaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	one := func(name string) string { return "tokens: [ { name: " + name + ", sha256: " + hashOf(name) + " } ]\n" }
	write(one("old"))
	s := serve(t, withProfiles("c1"), "tokens_file: "+path+"\ntokens: [ { name: always, sha256: "+hashOf("always")+" } ]")
	look := s.lookAtTokens
	status := func(token string) int { return s.do(t, "GET", "/api/customer/c1", "", bearer(token)).status }
	require.Equal(t, []int{200, 401, 200}, []int{status("old"), status("new"), status("always")})

	write(one("new"))
	look()
	require.Equal(t, []int{200, 401}, []int{status("old"), status("new")}, "a file that just changed may still be being written")
	look()
	require.Equal(t, []int{401, 200, 200}, []int{status("old"), status("new"), status("always")})

	// A file with an error is not applied; the error is logged once, without its content.
	for _, wrong := range []string{
		"tokens: [ { name: other, sha256: 5ecre7 } ]",
		"tokens: [ { name: other, 5ecre7",
		"tokens: 5ecre7",
		"5ecre7: 1",
		"signing_keys: [ { name: k, secret: 5ecre7 } ]",
		"tokens: [ { name: again, sha256: " + hashOf("always") + " } ]",
	} {
		before := strings.Count(s.log.String(), "stay as they were")
		write(wrong)
		look()
		look()
		look()
		require.Equal(t, before+1, strings.Count(s.log.String(), "stay as they were"), wrong)
		require.Equal(t, []int{401, 200, 200}, []int{status("old"), status("new"), status("always")}, wrong)
	}
	require.NoError(t, os.Remove(path))
	look()
	look()
	require.Equal(t, 200, status("new"))
	require.NotContains(t, s.log.String(), "5ecre7")

	// With an empty list of tokens no request is accepted.
	write("tokens: []")
	look()
	look()
	require.Equal(t, []int{401, 200}, []int{status("new"), status("always")})
	require.Equal(t, 401, s.do(t, "GET", "/api/customer/c1", "").status)
}

// lookAtTokens is what happens at every interval.
func (s *server) lookAtTokens() {
	if reloaded, err := s.rotation.files.Check(); reloaded {
		s.rotation.reloaded(err)
	}
}

func TestMissingTokensFileFails(t *testing.T) {
	_, err := newTestInput(t, withProfiles(), "tokens_file: /nonexistent/tokens.yaml")
	require.ErrorContains(t, err, "tokens_file")
}

func TestLintCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	for text, want := range map[string]string{
		"tokens: [ { name: a, sha256: " + hashOf("a") + " } ]":                                           "",
		"tokens:\n  - name: a\n    sha256: abc":                                                          "64 hexadecimal digits",
		"tokens: []\ntoken: 1":                                                                           "token",
		"signing_keys: [ { name: 'a b', secret: " + secret + " } ]":                                      "letters, digits",
		"signing_keys: [ { name: a, secret: short } ]":                                                   "32 characters",
		"signing_keys: [ { name: a, secret: " + secret + " }, { name: a, secret: " + secret + " } ]":     "two keys have the name",
		"tokens: [ { name: a, sha256: " + hashOf("a") + ", requests_per_second: -1 } ]":                  "zero or more",
		"tokens: [ { name: a, sha256: " + hashOf("a") + " }, { name: b, sha256: " + hashOf("a") + " } ]": "the same token",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		lints, err := LintCredentials(path)
		require.NoError(t, err)
		if want == "" {
			require.Empty(t, lints)
			continue
		}
		require.NotEmpty(t, lints, text)
		require.Contains(t, lints[0].Message, want)
	}
}

func TestRateLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	limited := "tokens: [ { name: limited, sha256: " + hashOf("limited") + ", requests_per_second: 0.001, burst: 3 } ]\n"
	require.NoError(t, os.WriteFile(path, []byte(limited), 0o600))
	s := serve(t, withProfiles("c1"), "tokens_file: "+path+"\ntokens: [ { name: free, sha256: "+hashOf("free")+" } ]")
	get := func(token string) answer { return s.do(t, "GET", "/api/customer/c1", "", bearer(token)) }
	for range 3 {
		require.Equal(t, 200, get("limited").status)
	}
	for range 3 {
		got := get("limited")
		require.Equal(t, 429, got.status)
		require.Equal(t, "too_many_requests", got.code(t))
		require.InDelta(t, 1000, float(t, got.header.Get("Retry-After")), 60)
		require.Equal(t, 200, get("free").status, "a token's limit is its own")
	}
	// A reload does not reset rate limits, unless they change.
	replace := func(text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		s.lookAtTokens()
		s.lookAtTokens()
	}
	replace(limited + "signing_keys: [ { name: k, secret: " + secret + " } ]")
	require.Equal(t, 429, get("limited").status)
	replace(strings.Replace(limited, "burst: 3", "burst: 4", 1))
	require.Equal(t, 200, get("limited").status)
}

func float(t *testing.T, text string) float64 {
	t.Helper()
	var f float64
	_, err := fmt.Sscan(text, &f)
	require.NoError(t, err)
	return f
}

// signed makes the path and query of a signed address.
func signed(t *testing.T, key, secret string, expires time.Time, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	require.NoError(t, err)
	return signedurl.Sign(u, key, []byte(secret), expires).RequestURI()
}

func TestSignedURLs(t *testing.T) {
	other := strings.Repeat("f", 40)
	s := serve(t, withProfiles("c1", "a/b"), fmt.Sprintf(`
signing_keys:
  - { name: old, secret: %s, fields: [ traits.plan, features ] }
  - { name: new, secret: %s, fields: [ traits.plan ] }
  - { name: content, secret: %s }
`, secret, other, strings.Repeat("c", 40)))
	soon := time.Now().Add(time.Hour)
	get := func(target string) answer { return s.do(t, "GET", target, "") }
	good := signed(t, "old", secret, soon, "/api/customer/c1?fields=traits.plan")
	require.Equal(t, 200, get(good).status)
	require.Equal(t, 200, s.do(t, "HEAD", good, "").status)
	require.Equal(t, 200, get(signed(t, "new", other, soon, "/api/customer/a%2Fb?fields=traits.plan")).status)
	require.Equal(t, 200, get(signed(t, "old", secret, soon, "/api/customer/c1?fields=features.orders_30d,traits.plan&as_of=2026-01-31T08:30:00Z")).status)

	for why, c := range map[string]struct {
		target string
		status int
		code   string
	}{
		"nothing is signed":         {"/api/customer/c1?fields=traits.plan", 401, "unauthenticated"},
		"another customer":          {strings.Replace(good, "c1", "c2", 1), 401, "invalid_signature"},
		"another field":             {strings.Replace(good, "traits.plan", "traits.name", 1), 401, "invalid_signature"},
		"another time":              {strings.Replace(good, "expires=", "expires=9", 1), 401, "invalid_signature"},
		"another key":               {strings.Replace(good, "key=old", "key=new", 1), 401, "invalid_signature"},
		"a key nobody knows":        {strings.Replace(good, "key=old", "key=x", 1), 401, "invalid_signature"},
		"something before":          {strings.Replace(good, "?", "?as_of=0&", 1), 401, "invalid_signature"},
		"something behind":          {good + "&as_of=0", 401, "invalid_signature"},
		"upper case":                {strings.ToUpper(good[strings.Index(good, "?"):]), 401, "unauthenticated"},
		"a letter more":             {good + "0", 401, "invalid_signature"},
		"no signature":              {good[:strings.Index(good, "signature=")+10], 401, "invalid_signature"},
		"another's secret":          {signed(t, "old", other, soon, "/api/customer/c1?fields=traits.plan"), 401, "invalid_signature"},
		"the path written anew":     {strings.Replace(good, "c1", "%63%31", 1), 401, "invalid_signature"},
		"expired":                   {signed(t, "old", secret, time.Now().Add(-time.Second), "/api/customer/c1?fields=traits.plan"), 410, "expired"},
		"a field not for this key":  {signed(t, "new", other, soon, "/api/customer/c1?fields=features"), 403, "forbidden"},
		"more than one field":       {signed(t, "new", other, soon, "/api/customer/c1?fields=traits.plan,traits.name"), 403, "forbidden"},
		"the whole profile":         {signed(t, "old", secret, soon, "/api/customer/c1"), 403, "forbidden"},
		"a key for content alone":   {signed(t, "content", strings.Repeat("c", 40), soon, "/api/customer/c1?fields=traits.plan"), 403, "forbidden"},
		"two keys":                  {signed(t, "old", secret, soon, "/api/customer/c1?fields=traits.plan&key=new"), 401, "invalid_signature"},
		"a page that is not there":  {signed(t, "old", secret, soon, "/api/nothing"), 404, "no_such_page"},
		"signed twice":              {signed(t, "old", secret, soon, good), 401, "invalid_signature"},
		"what is not for addresses": {signed(t, "old", secret, soon, "/api/customers/batch"), 405, "method_not_allowed"},
	} {
		path := c.target
		if strings.HasPrefix(path, "?") {
			path = "/api/customer/c1" + path
		}
		got := get(path)
		require.Equal(t, c.status, got.status, why)
		require.Equal(t, c.code, got.code(t), why)
	}
	require.Equal(t, 403, s.do(t, "POST", signed(t, "old", secret, soon, "/api/customers/batch"), `{"ids":["c1"]}`, "Content-Type: application/json").status)
	require.Equal(t, 403, s.do(t, "PATCH", signed(t, "old", secret, soon, "/api/customer/c1/traits"), `{}`, "Content-Type: application/json").status)
}

// TestSignatureCoversTheWholeURL changes any one byte of a signed address.
func TestSignatureCoversTheWholeURL(t *testing.T) {
	keys := &credentials{keys: []signingKey{{name: "k", secret: []byte(secret), fields: []string{"traits"}}}}
	to := findPageOf(t, "/api/customer/c1").routes[http.MethodGet]
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringN(1, 10, 40).Draw(t, "id")
		u := &url.URL{Path: "/api/customer/" + id, RawPath: "/api/customer/" + url.PathEscape(id), RawQuery: "fields=traits.plan"}
		signed := signedurl.Sign(u, "k", []byte(secret), time.Unix(2000, 0)).RequestURI()
		check := func(target string) *problem {
			r, err := http.NewRequest(http.MethodGet, target, nil)
			if err != nil {
				return &badSignature
			}
			_, plain, refusal := keys.checkSigned(r, to, time.Unix(1000, 0))
			if refusal == nil && plain.URL.RawQuery != "fields=traits.plan" {
				t.Fatalf("the handler sees %q", plain.URL.RawQuery)
			}
			return refusal
		}
		if refusal := check(signed); refusal != nil {
			t.Fatalf("a signed address is refused: %s", refusal.code)
		}
		at := rapid.IntRange(1, len(signed)-1).Draw(t, "at")
		with := rapid.Byte().Draw(t, "with")
		if changed := []byte(signed); with != changed[at] && !(with|0x20 == changed[at]|0x20 && at > len(signed)-64) {
			changed[at] = with
			if with == '#' { // what follows is for browsers
				return
			}
			if check(string(changed)) == nil {
				t.Fatalf("accepted although changed at %d", at)
			}
		}
	})
}

func findPageOf(t *testing.T, path string) *page {
	t.Helper()
	p, _ := findPage(&url.URL{Path: path})
	return p
}

// TestOpenSSLSignsURLs keeps the documented way to sign without us.
func TestOpenSSLSignsURLs(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	want := signed(t, "newsletter-2026", secret, time.Unix(1798761600, 0), "/api/customer/42/content/hero")
	out, err := exec.Command("sh", "-c", `
TARGET="/api/customer/42/content/hero?expires=1798761600&key=newsletter-2026"
echo "$TARGET&signature=$(printf %s "$TARGET" | openssl dgst -sha256 -hmac "$0" | sed 's/.* //')"`, secret).Output()
	require.NoError(t, err)
	require.Equal(t, want, strings.TrimSpace(string(out)))
}

func FuzzSignedAddress(f *testing.F) {
	u := &url.URL{Path: "/api/customer/c1", RawQuery: "fields=traits.plan"}
	f.Add(signedurl.Sign(u, "k", []byte(secret), time.Unix(2000, 0)).RawQuery)
	f.Add("expires=&key=k&signature=" + hex.EncodeToString(make([]byte, sha256.Size)))
	f.Add("&&key=k&key=k&expires=1&signature=&signature=")
	keys := &credentials{keys: []signingKey{{name: "k", secret: []byte(secret)}}}
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/api/customer/c1", RawQuery: query}}
		if _, _, refusal := keys.checkSigned(r, pages[0].routes[http.MethodGet], time.Unix(1000, 0)); refusal == nil {
			require.True(t, strings.EqualFold(signedurl.Sign(u, "k", []byte(secret), time.Unix(2000, 0)).RawQuery, query))
		}
	})
}

// The limit of profiles counts customers, not requests, and holds on average for
// batches that are larger than its burst.
func TestLimitOfProfilesCountsCustomers(t *testing.T) {
	l := limit{perSecond: 10}
	l.start()
	now := time.Unix(1000, 0)
	require.Nil(t, l.take(now, 25), "the burst is available")
	refusal := l.take(now, 1)
	require.NotNil(t, refusal)
	require.Equal(t, 2, refusal.retryAfter, "15 profiles of debt, and one more")
	require.NotNil(t, l.take(now.Add(1500*time.Millisecond), 1))
	require.Nil(t, l.take(now.Add(1700*time.Millisecond), 1))

	s := serve(t, withProfiles("c1", "c2"), "tokens: [ { name: t, sha256: "+hashOf("t")+", scopes: [ read, export, segments ], profiles_per_second: 0.001 } ]")
	batch := func() int {
		return s.do(t, "POST", "/api/customers/batch", `{"ids":["c1","c2"]}`, bearer("t"), "Content-Type: application/json").status
	}
	require.Equal(t, 200, batch())
	require.Equal(t, 429, batch())
	for _, path := range []string{"/api/customer/c1", "/api/customer/c1/export", "/api/customer/c1/explain", "/api/segments/everyone/customers"} {
		got := s.do(t, "GET", path, "", bearer("t"))
		require.Equal(t, 429, got.status, path)
		require.NotEmpty(t, got.header.Get("Retry-After"))
	}
	require.Equal(t, 200, s.do(t, "GET", "/api/identifiers", "", bearer("t")).status)
}
