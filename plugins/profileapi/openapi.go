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

// operation describes a route to those who call it.
type operation struct {
	// id names it in generated clients.
	id, summary, description string
	// parameters are those of the query string and the headers, by their names
	// in components.json. Those of the path follow from it.
	parameters []string
	// body lists the forms a request may take; with any, one is needed.
	body []media
	// answers are what it says when all is well.
	answers []outcome
	// refusals are the other statuses it may answer with, but for those that
	// any page may.
	refusals []int
}

// media is a form of a body: its type, the name of its schema in
// components.json, none for what is no JSON, and an example.
type media struct{ contentType, schema, example string }

type outcome struct {
	status      int
	description string
	// headers are names in components.json.
	headers []string
	content []media
}

// components are the schemas, parameters and headers that routes name.
//
//go:embed components.json
var components []byte

// refusalTexts say what each status means wherever it is a refusal.
var refusalTexts = map[int]string{
	http.StatusBadRequest:            "The request is not understood.",
	http.StatusUnauthorized:          "The request presents no known token.",
	http.StatusForbidden:             "The token is not good for this, or the API is set up without it.",
	http.StatusNotFound:              "There is no such customer, or nothing at this path.",
	http.StatusNotAcceptable:         "The answer is not served in a form that Accept names.",
	http.StatusRequestTimeout:        "The body did not arrive in time.",
	http.StatusConflict:              "What is stored forbids it, or does not tell which of several customers is meant.",
	http.StatusGone:                  "The signed address has expired.",
	http.StatusRequestEntityTooLarge: "The body is too large, or names too many customers.",
	http.StatusUnsupportedMediaType:  "The body is sent in a form that is not taken.",
	http.StatusMisdirectedRequest:    "Without tokens the API is called by a loopback address.",
	http.StatusUnprocessableEntity:   "What is asked for cannot be made of what is stored.",
	http.StatusTooManyRequests:       "The token has asked for too much: again after Retry-After.",
	http.StatusInternalServerError:   "What is stored of a customer cannot be read.",
	http.StatusServiceUnavailable:    "The store or the pipeline does not answer, or the process is stopping: again after Retry-After.",
}

// refusalHeaders are the headers that come with a refusal.
var refusalHeaders = map[int]string{
	http.StatusUnauthorized:       "WWW-Authenticate",
	http.StatusTooManyRequests:    "Retry-After",
	http.StatusServiceUnavailable: "Retry-After",
}

// object is a JSON object.
type object = map[string]any

func ref(kind, name string) object { return object{"$ref": "#/components/" + kind + "/" + name} }

// access is how the callers of an API show who they are.
type access struct {
	// tokens is set where a token, or a signature, is needed; signatures where
	// there may be keys to sign with.
	tokens, signatures bool
	// certificates is set where a client certificate is needed, tokens or not.
	certificates bool
}

func (c *config) access() access {
	return access{
		tokens:       c.needsCredentials(),
		signatures:   len(c.credentials.keys) > 0 || c.tokensFile != "",
		certificates: c.tls != nil && c.tls.ClientCAs != nil,
	}
}

// schemes describes what callers present.
func (a access) schemes() object {
	all := object{}
	if a.tokens {
		all["token"] = object{"type": "http", "scheme": "bearer",
			"description": "A token whose SHA-256 is in the config, good for some of the scopes " + strings.Join(scopeList, ", ") + "."}
	}
	if a.signatures {
		all["signature"] = object{"type": "apiKey", "in": "query", "name": "signature",
			"description": "The end of a signed address, which needs no headers: ?expires=SECONDS&key=NAME&signature=HEX, the HMAC-SHA256 of the path and query before &signature=. Whoever signs says what it is of and until when."}
	}
	if a.certificates {
		all["certificate"] = object{"type": "mutualTLS",
			"description": "A certificate signed by the authority in the config."}
	}
	return all
}

// ways lists what a caller of r may present, each with all of its parts.
func (a access) ways(r *route) []any {
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
		way.(object)["certificate"] = []any{} // the connection needs it anyway
	}
	return ways
}

// describe writes the OpenAPI description of routes to callers who have access
// in some way. It panics where the table is wrong, which a test finds.
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
			"description": "Live customer profiles for email platforms. An error is an object with a code, which is for programs and does not change, and a message.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":    []any{object{"url": "/", "description": "Where this description was read."}},
		"paths":      paths,
		"components": parts,
	}, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}

// apiVersion is that of what callers see.
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

// describeHead describes what a GET answers to HEAD: the same, without a body.
func (r *route) describeHead(refused map[int]bool, a access) object {
	o := object{"operationId": r.doc.id + "Head", "summary": r.doc.summary + ": the headers alone", "responses": r.describeAnswers(refused, false)}
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
	o["security"] = a.ways(r)
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

// statuses are those of the route's refusals.
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

// guardStatuses are those of what any protected page may refuse.
var guardStatuses = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusTooManyRequests}

func refusalName(status int) string {
	name := strings.ReplaceAll(http.StatusText(status), " ", "")
	if refusalTexts[status] == "" || name == "" {
		panic(fmt.Sprintf("openapi: say in refusalTexts what status %d means", status))
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

// getOpenAPI answers with the description of the API.
func (h *handler) getOpenAPI(w http.ResponseWriter, r *http.Request, _ visit) int {
	w.Header()["Cache-Control"] = h.conf.cacheControl
	return send(w, r, http.StatusOK, valueJSON, h.description())
}

// scopeList are the names of the scopes, in order.
var scopeList = slices.Sorted(maps.Keys(scopeNames))
