package profileapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// contract is the description the API serves, ready to check answers by.
type contract struct {
	compiler *jsonschema.Compiler
	document any

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema
}

// described returns the description of an API with all functions enabled.
var described = sync.OnceValue(func() []byte {
	return describe(routes(), access{tokens: true, signatures: true, certificates: true})
})

var served = sync.OnceValue(func() *contract {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(described()))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("openapi.json", document); err != nil {
		panic(err)
	}
	return &contract{compiler: c, document: document, schemas: map[string]*jsonschema.Schema{}}
})

// at returns what a JSON pointer leads to, through references, and where that
// is.
func (c *contract) at(pointer string) (any, string) {
	value, path := c.document, ""
	for _, part := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		o, _ := value.(map[string]any)
		value = o[strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")]
		path += "/" + part
		if target, ok := value.(map[string]any); ok && target["$ref"] != nil {
			value, path = c.at(strings.TrimPrefix(target["$ref"].(string), "#"))
		}
	}
	return value, path
}

// check validates JSON by the schema at a pointer.
func (c *contract) check(pointer, text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	schema := c.schemas[pointer]
	if schema == nil {
		var err error
		// The pointer stands in the fragment of a URL.
		if schema, err = c.compiler.Compile("openapi.json#" + (&url.URL{Path: pointer}).EscapedPath()); err != nil {
			return err
		}
		c.schemas[pointer] = schema
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// patternOf returns the pattern of a page.
func patternOf(p *page) string {
	pattern := ""
	for _, s := range p.segments {
		pattern += "/" + s.text
	}
	return pattern
}

// conforms returns the differences between a response and the description.
func (c *contract) conforms(method string, u *url.URL, a answer) error {
	p, _ := findPage(u)
	mediaType, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	documented := p.routes[method]
	if documented != nil && documented.doc.id == "" {
		return nil // for people
	}
	if documented == nil {
		// Not a route: what is said then is a problem, and OPTIONS says nothing.
		if method == http.MethodHead || a.body == "" {
			return nil
		}
		return c.check("/components/schemas/Problem", a.body)
	}
	where := fmt.Sprintf("/paths/%s/%s/responses/%d", strings.ReplaceAll(patternOf(p), "/", "~1"), strings.ToLower(method), a.status)
	value, path := c.at(where)
	response, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("openapi: %s %s answers with status %d, which is not described", method, patternOf(p), a.status)
	}
	headers, _ := response["headers"].(map[string]any)
	for name := range headers {
		header, _ := c.at(path + "/headers/" + name)
		if required, _ := header.(map[string]any)["required"].(bool); required && a.header.Get(name) == "" {
			return fmt.Errorf("openapi: %s %s answers with status %d without %s", method, patternOf(p), a.status, name)
		}
	}
	content, _ := response["content"].(map[string]any)
	if method == http.MethodHead || len(content) == 0 {
		if a.body != "" {
			return fmt.Errorf("openapi: %s %s answers with status %d and a body, which is not described", method, patternOf(p), a.status)
		}
		return nil
	}
	if content[mediaType] == nil {
		return fmt.Errorf("openapi: %s %s answers with %q, which is not described", method, patternOf(p), mediaType)
	}
	_, path = c.at(path + "/content/" + strings.ReplaceAll(mediaType, "/", "~1") + "/schema")
	switch mediaType {
	case typeJSON:
		return c.check(path, a.body)
	case typeNDJSON:
		for line := range strings.Lines(a.body) {
			entry := "BatchEntry"
			switch p.name {
			case "content_batch":
				entry = "ContentEntry"
			case "segment":
				entry = "Members/properties/customers/items"
			}
			if err := c.check("/components/schemas/"+entry, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestDescriptionIsValidOpenAPI checks the description against itself: every reference leads
// somewhere, every example is valid, every operation has a name of its own.
func TestDescriptionIsValidOpenAPI(t *testing.T) {
	c := served()
	var visit func(at string, v any)
	visit = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if target, ok := v["$ref"].(string); ok {
				found, _ := c.at(strings.TrimPrefix(target, "#"))
				require.NotNil(t, found, "%s refers to %s", at, target)
			}
			if example, ok := v["example"]; ok && v["schema"] != nil {
				text, err := json.Marshal(example)
				require.NoError(t, err)
				_, path := c.at(at + "/schema")
				require.NoError(t, c.check(path, string(text)), at)
			}
			for name, member := range v {
				if name != "example" && name != "examples" {
					visit(at+"/"+strings.ReplaceAll(name, "/", "~1"), member)
				}
			}
		case []any:
			for i, item := range v {
				visit(at+"/"+strconv.Itoa(i), item)
			}
		}
	}
	visit("", c.document)

	ids := map[string]bool{}
	for _, r := range routes() {
		require.False(t, r.doc.id != "" && ids[r.doc.id], "two routes are %q", r.doc.id)
		ids[r.doc.id] = true
		require.Contains(t, allowOf(r.pattern), r.method)
	}
	// The description has no unused components.
	var parts map[string]map[string]any
	require.NoError(t, json.Unmarshal(components, &parts))
	text := string(described())
	for kind, members := range parts {
		for name := range members {
			require.True(t, strings.Contains(text, `"#/components/`+kind+`/`+name), "nothing refers to %s of %s", name, kind)
		}
	}
}

func allowOf(pattern string) []string {
	at := slices.IndexFunc(pages, func(p *page) bool { return patternOf(p) == pattern })
	return strings.Split(pages[at].allow, ", ")
}

// TestDescriptionIsServed: to anybody, and it says what callers need here.
func TestDescriptionIsServed(t *testing.T) {
	const token, signature = `{"token":["read"]}`, `{"signature":[]}`
	const key = `signing_keys: [ { name: k, secret: 0123456789abcdef0123456789abcdef } ]`
	tokens := "tokens: [ { name: a, sha256: " + hashOf("a") + " } ]"
	for name, c := range map[string]struct {
		yaml    []string
		profile string // the ways to read one
		schemes []string
	}{
		"nothing":         {nil, `[]`, nil},
		"tokens":          {[]string{tokens}, "[" + token + "]", []string{"token"}},
		"tokens and keys": {[]string{tokens, key}, "[" + token + "," + signature + "]", []string{"signature", "token"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, withProfiles(), strings.Join(c.yaml, "\n"))
			got := s.do(t, "GET", "/openapi.json", "")
			require.Equal(t, 200, got.status)
			document := jsonOf(t, got.body)
			require.Equal(t, "3.1.0", document["openapi"])
			schemes, _ := document["components"].(map[string]any)["securitySchemes"].(map[string]any)
			require.Equal(t, c.schemes, slices.Sorted(maps.Keys(schemes)))
			paths := document["paths"].(map[string]any)
			read := paths["/api/customer/{id}"].(map[string]any)["get"].(map[string]any)
			security, err := json.Marshal(read["security"])
			require.NoError(t, err)
			require.JSONEq(t, c.profile, string(security))
			require.Empty(t, paths["/healthz"].(map[string]any)["get"].(map[string]any)["security"])
		})
	}
}

// TestDescriptionListsAuthentication: a certificate belongs to the connection, so it is asked
// for beside all else, and even where nothing else is.
func TestDescriptionListsAuthentication(t *testing.T) {
	read, health := &route{method: "GET", scope: scopeRead, page: "customer"}, &route{method: "GET"}
	for _, c := range []struct {
		access       access
		read, health string
	}{
		{access{}, `[]`, `[]`},
		{access{certificates: true}, `[{"certificate":[]}]`, `[{"certificate":[]}]`},
		{access{tokens: true}, `[{"token":["read"]}]`, `[]`},
		{access{tokens: true, signatures: true, certificates: true},
			`[{"token":["read"],"certificate":[]},{"signature":[],"certificate":[]}]`, `[{"certificate":[]}]`},
	} {
		for r, want := range map[*route]string{read: c.read, health: c.health} {
			got, err := json.Marshal(c.access.security(r))
			require.NoError(t, err)
			require.JSONEq(t, want, string(got), "%+v", c.access)
		}
	}
}

func jsonOf(t testing.TB, text string) map[string]any {
	t.Helper()
	var o map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &o))
	return o
}
