package profileapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// operation is the documentation of a route.
type operation struct {
	// id is the name of the operation in generated clients.
	id, summary, description string
	// parameters are those of the query string and the headers, by their names in
	// components.json. Parameters of the path follow from the pattern.
	parameters []string
	// body lists the accepted forms of the request body; empty for no body.
	body []media
	// answers are the successful responses.
	answers []outcome
	// refusals are the statuses of errors, besides those that every page may return.
	refusals []int
}

// media is a form of a body: its type, the name of its schema in components.json
// (empty if it is not JSON), and an example.
type media struct{ contentType, schema, example string }

type outcome struct {
	status      int
	description string
	// headers are names in components.json.
	headers []string
	content []media
}

// components are the schemas, parameters and headers that routes refer to.
//
//go:embed components.json
var components []byte

// refusalTexts describe the statuses of refusals.
var refusalTexts = map[int]string{
	http.StatusBadRequest:            "The request is not valid.",
	http.StatusUnauthorized:          "The request has no known token.",
	http.StatusForbidden:             "The token lacks the scope, or the function is turned off.",
	http.StatusNotFound:              "There is no such customer, or no resource at this path.",
	http.StatusNotAcceptable:         "No media type in Accept can be served.",
	http.StatusRequestTimeout:        "The body did not arrive in time.",
	http.StatusConflict:              "The customer is erased, or the identifier is ambiguous.",
	http.StatusGone:                  "The signed URL has expired.",
	http.StatusRequestEntityTooLarge: "The body is too large, or contains too many customers.",
	http.StatusUnsupportedMediaType:  "The media type or encoding of the body is not accepted.",
	http.StatusMisdirectedRequest:    "Without tokens the API accepts loopback addresses as Host only.",
	http.StatusUnprocessableEntity:   "The stored data does not allow the request.",
	http.StatusTooManyRequests:       "The rate limit of the token is exceeded: retry after Retry-After.",
	http.StatusInternalServerError:   "The record of a customer cannot be decoded.",
	http.StatusServiceUnavailable:    "The store or the pipeline is unavailable, or the process is stopping: retry after Retry-After.",
}

// refusalHeaders are the headers of refusals.
var refusalHeaders = map[int]string{
	http.StatusUnauthorized:       "WWW-Authenticate",
	http.StatusTooManyRequests:    "Retry-After",
	http.StatusServiceUnavailable: "Retry-After",
}

// object is a JSON object.
type object = map[string]any

func ref(kind, name string) object { return object{"$ref": "#/components/" + kind + "/" + name} }

// access is how callers of an API authenticate.
type access struct {
	// tokens is set if a token or signature is required, signatures if there may be
	// signing keys.
	tokens, signatures bool
	// certificates is set if a client certificate is required.
	certificates bool
}

func (c *config) access() access {
	return access{
		tokens:       c.needsCredentials(),
		signatures:   len(c.credentials.keys) > 0 || c.tokensFile != "",
		certificates: c.tls != nil && c.tls.ClientCAs != nil,
	}
}

// schemes returns the security schemes.
func (a access) schemes() object {
	all := object{}
	if a.tokens {
		all["token"] = object{"type": "http", "scheme": "bearer",
			"description": "A token, of which the config has the SHA-256, with some of the scopes " + strings.Join(scopeList, ", ") + "."}
	}
	if a.signatures {
		all["signature"] = object{"type": "apiKey", "in": "query", "name": "signature",
			"description": "The end of a signed URL, which needs no headers: ?expires=SECONDS&key=NAME&signature=HEX, the HMAC-SHA256 of the path and query before &signature=."}
	}
	if a.certificates {
		all["certificate"] = object{"type": "mutualTLS",
			"description": "A certificate signed by the authority in the config."}
	}
	return all
}

// security returns the alternative security requirements of a route.
func (a access) security(r *route) []any {
	ways := []any{}
	if r.scope == 0 {
		if a.certificates {
			ways = append(ways, object{"certificate": []any{}})
		}
		return ways
	}
	if a.tokens {
		ways = append(ways, object{"token": []any{r.scope.String()}})
	}
	if a.signatures && r.signable() {
		ways = append(ways, object{"signature": []any{}})
	}
	if !a.certificates {
		return ways
	}
	if len(ways) == 0 {
		ways = append(ways, object{})
	}
	for _, way := range ways {
		way.(object)["certificate"] = []any{} // required by the connection
	}
	return ways
}

// describe returns the OpenAPI description of routes. It panics if the table is not
// valid, which a test detects.
func describe(routes []route, a access) []byte {
	paths := object{}
	refused := map[int]bool{}
	for i := range routes {
		r := &routes[i]
		if r.doc.id == "" {
			continue
		}
		item, _ := paths[r.pattern].(object)
		if item == nil {
			item = object{}
			if parameters := pathParameters(r.pattern); len(parameters) > 0 {
				item["parameters"] = parameters
			}
			paths[r.pattern] = item
		}
		item[strings.ToLower(r.method)] = r.describe(refused, a)
		if r.method == http.MethodGet {
			item["head"] = r.describeHead(refused, a)
		}
	}
	var parts object
	if err := json.Unmarshal(components, &parts); err != nil {
		panic(err)
	}
	responses := object{}
	for status := range refused {
		responses[refusalName(status)] = describeRefusal(status)
	}
	parts["responses"] = responses
	if schemes := a.schemes(); len(schemes) > 0 {
		parts["securitySchemes"] = schemes
	}
	text, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title":       "Profile API",
			"version":     apiVersion,
			"description": "Live customer profiles for email platforms. An error is an object with a stable code for programs and a message for people.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":    []any{object{"url": "/", "description": "The origin of this description."}},
		"paths":      paths,
		"components": parts,
	}, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}

// apiVersion is the version of the API.
const apiVersion = "0.1.0"

func pathParameters(pattern string) []any {
	var list []any
	for part := range strings.SplitSeq(pattern, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			list = append(list, ref("parameters", strings.TrimSuffix(name, "}")))
		}
	}
	return list
}

func (r *route) describe(refused map[int]bool, a access) object {
	o := object{"operationId": r.doc.id, "summary": r.doc.summary, "responses": r.describeAnswers(refused, true)}
	if r.doc.description != "" {
		o["description"] = r.doc.description
	}
	r.describeQuestion(o, a)
	if len(r.doc.body) > 0 {
		o["requestBody"] = object{"required": true, "content": describeMedia(r.doc.body)}
	}
	return o
}

// describeHead describes the HEAD of a GET.
func (r *route) describeHead(refused map[int]bool, a access) object {
	o := object{"operationId": r.doc.id + "Head", "summary": r.doc.summary + ", headers only", "responses": r.describeAnswers(refused, false)}
	r.describeQuestion(o, a)
	return o
}

func (r *route) describeQuestion(o object, a access) {
	if len(r.doc.parameters) > 0 {
		list := make([]any, len(r.doc.parameters))
		for i, name := range r.doc.parameters {
			list[i] = ref("parameters", name)
		}
		o["parameters"] = list
	}
	o["security"] = a.security(r)
}

func (r *route) describeAnswers(refused map[int]bool, bodies bool) object {
	all := object{}
	for _, a := range r.doc.answers {
		o := object{"description": a.description}
		if bodies && len(a.content) > 0 {
			o["content"] = describeMedia(a.content)
		}
		if len(a.headers) > 0 {
			headers := object{}
			for _, name := range a.headers {
				headers[name] = ref("headers", name)
			}
			o["headers"] = headers
		}
		all[strconv.Itoa(a.status)] = o
	}
	for _, status := range r.statuses() {
		if !bodies {
			all[strconv.Itoa(status)] = object{"description": refusalTexts[status]}
			continue
		}
		refused[status] = true
		all[strconv.Itoa(status)] = ref("responses", refusalName(status))
	}
	return all
}

// statuses returns the statuses of the route's refusals.
func (r *route) statuses() []int {
	all := slices.Clone(r.doc.refusals)
	if r.scope != 0 {
		all = append(all, guardStatuses...)
	}
	if r.signable() {
		all = append(all, http.StatusGone)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// guardStatuses are the statuses of authentication and authorization.
var guardStatuses = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusTooManyRequests}

func refusalName(status int) string {
	name := strings.ReplaceAll(http.StatusText(status), " ", "")
	if refusalTexts[status] == "" || name == "" {
		panic(fmt.Sprintf("openapi: add status %d to refusalTexts", status))
	}
	return name
}

func describeRefusal(status int) object {
	o := object{"description": refusalTexts[status], "content": object{typeJSON: object{"schema": ref("schemas", "Problem")}}}
	if name, ok := refusalHeaders[status]; ok {
		o["headers"] = object{name: ref("headers", name)}
	}
	return o
}

func describeMedia(list []media) object {
	content := object{}
	for _, m := range list {
		o := object{}
		if m.schema != "" {
			o["schema"] = ref("schemas", m.schema)
		} else {
			o["schema"] = object{"type": "string"}
		}
		if m.example != "" {
			o["example"] = exampleOf(m)
		}
		content[m.contentType] = o
	}
	return content
}

func exampleOf(m media) any {
	if m.schema == "" {
		return m.example
	}
	if !json.Valid([]byte(m.example)) {
		panic("openapi: an example of " + m.schema + " is not JSON")
	}
	return json.RawMessage(m.example)
}

// getOpenAPI serves the description of the API.
func (h *handler) getOpenAPI(w http.ResponseWriter, r *http.Request, _ visit) int {
	w.Header()["Cache-Control"] = h.conf.cacheControl
	return send(w, r, http.StatusOK, valueJSON, h.description())
}

// scopeList contains the names of the scopes, in order.
var scopeList = slices.Sorted(maps.Keys(scopeNames))
