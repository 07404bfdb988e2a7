package profileapi

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/signedurl"
)

const addressable = erasable + `
identifiers:
  - { name: email, trait: email, match: ignore_case }
  - { name: card, trait: card }
`

// TestByIdentifier asks for customers by what they are found by, from end to
// end.
func TestByIdentifier(t *testing.T) {
	blocks := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(blocks, "hello.yaml"), []byte("type: text\nfallback: Hello you\ntemplate: 'Hello {{ traits.name }}'\n"), 0o600))
	p := runPipelineWith(t, addressable, fmt.Sprintf("content: %q", blocks))
	before := time.Now().Add(-time.Hour)
	p.send(t,
		identified("m1", "u1", "a1", before, `{"email":"Jo+news@Example.com","name":"Jo","card":77}`),
		identified("m2", "u2", "", before, `{"email":"home@example.com","name":"Ann"}`),
		identified("m3", "u3", "", before, `{"email":"HOME@example.com","name":"Bob"}`),
	)

	require.JSONEq(t, `{"identifiers":["card","email"]}`, p.do(t, "GET", "/api/identifiers", "").body)
	require.Equal(t, "unknown_parameter", p.do(t, "GET", "/api/identifiers?x=1", "").code(t))
	for _, path := range []string{"jo+news@example.com?by=email", "JO%2Bnews@EXAMPLE.COM?by=email&fields=traits", "77?by=card"} {
		got := p.do(t, "GET", "/api/customer/"+path, "")
		require.Equal(t, 200, got.status, path)
		require.Equal(t, "u1", jsonOf(t, got.body)["id"])
		require.Equal(t, 200, p.do(t, "HEAD", "/api/customer/"+path, "").status)
		require.Equal(t, 304, p.do(t, "GET", "/api/customer/"+path, "", "If-None-Match: "+got.header.Get("ETag")).status)
	}
	for _, suffix := range []string{"/export", "/explain"} {
		got := p.do(t, "GET", "/api/customer/jo+news@example.com"+suffix+"?by=email", "")
		require.Equal(t, 200, got.status, got.body)
		require.Equal(t, "u1", jsonOf(t, got.body)["id"])
		require.Equal(t, 404, p.do(t, "GET", "/api/customer/nobody@example.com"+suffix+"?by=email", "").status)
		got = p.do(t, "GET", "/api/customer/home@example.com"+suffix+"?by=email", "")
		require.Equal(t, 409, got.status)
		require.Equal(t, "ambiguous_identifier", got.code(t))
		require.NotContains(t, got.body, "home@")
		require.Equal(t, "unknown_identifier", p.do(t, "GET", "/api/customer/77"+suffix+"?by=cards", "").code(t))
	}
	require.Equal(t, "unknown_parameter", p.do(t, "GET", "/api/customer/77/export?by=card&as_of=0", "").code(t))
	require.Equal(t, "unknown_parameter", p.do(t, "GET", "/api/customer/77/explain?by=card&fields=traits", "").code(t))

	got := p.do(t, "GET", "/api/customer/nobody@example.com?by=email", "")
	require.Equal(t, 404, got.status)
	require.Equal(t, "no_such_customer", got.code(t))
	require.Equal(t, 404, p.do(t, "GET", "/api/customer/jo+news@example.com", "").status, "it is no id")
	require.Equal(t, 404, p.do(t, "GET", "/api/customer/u1?by=email", "").status, "and an id is no address")
	got = p.do(t, "GET", "/api/customer/home@example.com?by=email", "")
	require.Equal(t, 409, got.status)
	require.Equal(t, "ambiguous_identifier", got.code(t))
	require.Equal(t, 409, p.do(t, "HEAD", "/api/customer/home@example.com?by=email", "").status)
	got = p.do(t, "GET", "/api/customer/home@example.com?by=mail", "")
	require.Equal(t, 400, got.status)
	require.Equal(t, "unknown_identifier", got.code(t))
	require.Contains(t, got.body, "which declares card, email")
	for _, query := range []string{"?by=", "?by=email&by=card"} {
		require.Equal(t, "invalid_by", p.do(t, "GET", "/api/customer/77"+query, "").code(t))
	}

	// A batch keeps the order, and marks ambiguous values.
	question := `{"by":"email","ids":["home@example.com","JO+news@example.com","nobody@example.com"]}`
	got = p.do(t, "POST", "/api/customers/batch?fields=traits.name", question, jsonBody)
	require.Equal(t, 200, got.status, got.body)
	entries := jsonOf(t, got.body)["customers"].([]any)
	require.Len(t, entries, 3)
	first, second, third := entries[0].(map[string]any), entries[1].(map[string]any), entries[2].(map[string]any)
	require.Equal(t, false, first["found"])
	require.Equal(t, "ambiguous_identifier", first["error"].(map[string]any)["code"])
	require.NotContains(t, first, "profile")
	require.Equal(t, "JO+news@example.com", second["id"], "as it was asked for")
	require.Equal(t, "u1", second["profile"].(map[string]any)["id"])
	require.Equal(t, map[string]any{"id": "nobody@example.com", "found": false}, third)
	got = p.do(t, "POST", "/api/customers/batch", question, jsonBody, "Accept: application/x-ndjson")
	require.Equal(t, 3, strings.Count(got.body, "\n"))
	for body, code := range map[string]string{
		`{"by":"fax","ids":["1"]}`: "unknown_identifier", `{"by":"","ids":["1"]}`: "invalid_by", `{"by":null,"ids":["1"]}`: "invalid_by", `{"by":7,"ids":["1"]}`: "invalid_by",
	} {
		got = p.do(t, "POST", "/api/customers/batch", body, jsonBody)
		require.Equal(t, 400, got.status)
		require.Equal(t, code, got.code(t), body)
		got = p.do(t, "POST", "/api/content/hello/batch", body, jsonBody)
		require.Equal(t, code, got.code(t), body)
	}
	require.Equal(t, "unknown_parameter", p.do(t, "POST", "/api/customers/batch?by=email", question, jsonBody).code(t))
	require.Equal(t, "unknown_parameter", p.do(t, "POST", "/api/content/hello/batch?by=email", question, jsonBody).code(t))

	// Content for an ambiguous value is the fallback.
	for value, want := range map[string]string{"jo+news@example.com": "Hello Jo", "home@example.com": "Hello you", "nobody@example.com": "Hello you"} {
		got = p.do(t, "GET", "/api/customer/"+value+"/content/hello?by=email", "")
		require.Equal(t, 200, got.status)
		require.Equal(t, want, got.body)
		if want == "Hello you" {
			require.Equal(t, "no_customer", got.header.Get("Content-Fallback"))
		}
	}
	require.Equal(t, "unknown_identifier", p.do(t, "GET", "/api/customer/1/content/hello?by=fax", "").code(t))
	got = p.do(t, "POST", "/api/content/hello/batch", question, jsonBody)
	require.JSONEq(t, `{"contents":[{"id":"home@example.com","content":"Hello you","fallback":"no_customer"},
		{"id":"JO+news@example.com","content":"Hello Jo"},{"id":"nobody@example.com","content":"Hello you","fallback":"no_customer"}]}`, got.body)

	// Changes are by id alone, and show at once.
	for method, path := range map[string]string{"PATCH": "/api/customer/77/traits?by=card", "DELETE": "/api/customer/77?by=card"} {
		got = p.do(t, method, path, `{"name":"Eve"}`, jsonBody)
		require.Equal(t, 400, got.status)
		require.Equal(t, "unknown_parameter", got.code(t))
		require.Contains(t, got.body, "by id only")
	}
	require.Equal(t, 400, p.do(t, "DELETE", "/api/customer/77/erasure?by=card", "").status)
	p.write(t, "PATCH", "u3", `{"email":"bob@example.com"}`)
	require.Equal(t, "u2", jsonOf(t, p.do(t, "GET", "/api/customer/home@example.com?by=email", "").body)["id"])
	require.Equal(t, "u3", jsonOf(t, p.do(t, "GET", "/api/customer/bob@example.com?by=email", "").body)["id"])
	require.Equal(t, 200, p.do(t, "DELETE", "/api/customer/u2", "").status)
	require.Equal(t, 404, p.do(t, "GET", "/api/customer/home@example.com?by=email", "").status)

	log := strings.ToLower(p.log.String())
	for _, personal := range []string{"home@", "jo+news", "jo%2bnews", "nobody@", "bob@"} {
		require.NotContains(t, log, personal)
	}
	metrics := p.do(t, "GET", "/api/activity", "")
	require.NotContains(t, metrics.body, "@")
}

// TestNoIdentifiers: a definition without any says so.
func TestNoIdentifiers(t *testing.T) {
	p := runPipeline(t, erasable)
	require.JSONEq(t, `{"identifiers":[]}`, p.do(t, "GET", "/api/identifiers", "").body)
	got := p.do(t, "GET", "/api/customer/x?by=email", "")
	require.Equal(t, 400, got.status)
	require.Equal(t, "unknown_identifier", got.code(t))
	require.Contains(t, got.body, "declares no identifiers")
}

// TestReadsByIdentifierAreCoalesced: reads of the same moment share a round trip
// only with those by the same identifier.
func TestReadsByIdentifierAreCoalesced(t *testing.T) {
	now := time.Now()
	email, id := question{}, question{}
	email.By = "email"
	require.False(t, email.sameAs(id))
	require.True(t, email.sameAs(email))
	email.AsOf = now
	require.False(t, email.sameAs(question{}))
}

// The signature of a URL for an id is not valid for a value of an identifier, or for
// another identifier.
func TestSignatureCoversBy(t *testing.T) {
	f := withProfiles("c1", "c2")
	f.emails = map[string][]string{"c2": {"c2"}, "jo@example.com": {"c1"}}
	secret := strings.Repeat("s", 32)
	_, yaml := withBlocks(t, map[string]string{"hello": fixed(helloBlock)})
	s := serve(t, f, yaml+"signing_keys: [ { name: news, secret: "+secret+", fields: [traits] } ]\n")
	signed := func(path string) string {
		address, err := url.Parse(s.url + path)
		require.NoError(t, err)
		return strings.TrimPrefix(signedurl.Sign(address, "news", []byte(secret), time.Now().Add(time.Hour)).String(), s.url)
	}
	for _, path := range []string{"/api/customer/jo@example.com/content/hello?by=email", "/api/customer/jo@example.com?by=email&fields=traits"} {
		address := signed(path)
		got := s.do(t, "GET", address, "")
		require.Equal(t, 200, got.status, got.body)
		require.Contains(t, got.body, "c1")
		for _, changed := range []string{strings.Replace(address, "by=email", "by=card", 1), strings.Replace(address, "by=email&", "", 1), address + "&by=email", strings.Replace(address, "jo@", "c2@", 1)} {
			got = s.do(t, "GET", changed, "")
			require.Equal(t, 401, got.status, got.body)
			require.Equal(t, "invalid_signature", got.code(t))
		}
	}
	plain := signed("/api/customer/c2/content/hello")
	require.Equal(t, 401, s.do(t, "GET", strings.Replace(plain, "?", "?by=email&", 1), "").status)
	require.Equal(t, 403, s.do(t, "GET", signed("/api/customer/jo@example.com?by=email"), "").status, "a whole profile")
}
