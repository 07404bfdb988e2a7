package profileapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// route is one operation of the API: method, path, required scope, handler and
// documentation. Requests are dispatched by the table of routes, and /openapi.json is
// generated from it.
type route struct {
	method string
	// pattern is the path, in which a segment such as {id} is a parameter.
	pattern string
	// page is the name of the path in metrics and logs.
	page string
	// scope is the required scope of a token; zero requires no token.
	scope scope
	serve func(*handler, http.ResponseWriter, *http.Request, visit) int
	// doc is the documentation. A route without an id is not in the description.
	doc operation
}

// visit is a request as passed to the handler of a route.
type visit struct {
	// id and name are the first and second parameter of the path, decoded: a customer
	// id, and a block or segment.
	id, name string
	// started is when the headers had been read.
	started time.Time
	// caller is the authenticated caller.
	caller caller
}

// routes returns all routes. Every GET also serves HEAD.
func routes() []route {
	return slices.Concat(serviceRoutes(), readRoutes(), segmentRoutes(), writeRoutes(), privacyRoutes(), contentRoutes(), explainRoutes(), explorerRoutes())
}

// page is a path with all of its routes.
type page struct {
	name     string
	segments []segment
	routes   map[string]*route // by method
	// allow is the value of the header Allow.
	allow string
	// protected is set if credentials are required, customer if the first parameter is
	// a customer id.
	protected, customer bool
}

// segment is a part of a path: a text, or a parameter.
type segment struct {
	text      string
	parameter bool
}

var (
	// pages are the pages of the table, in its order.
	pages []*page
	// unknownPage stands for all unknown paths.
	unknownPage = &page{name: "unknown"}
)

// Handlers refer to the table, so it is initialised last.
func init() {
	pages = groupByPage(routes())
}

// groupByPage groups routes by path.
func groupByPage(routes []route) []*page {
	var pages []*page
	byPattern := map[string]*page{}
	for i := range routes {
		r := &routes[i]
		p := byPattern[r.pattern]
		if p == nil {
			p = &page{name: r.page, routes: map[string]*route{}, customer: strings.Contains(r.pattern, "/customer/{id}")}
			for part := range strings.SplitSeq(strings.TrimPrefix(r.pattern, "/"), "/") {
				p.segments = append(p.segments, segment{part, strings.HasPrefix(part, "{")})
			}
			byPattern[r.pattern] = p
			pages = append(pages, p)
		}
		p.protected = p.protected || r.scope != 0
		add := func(method string) {
			p.routes[method] = r
			p.allow += method + ", "
		}
		add(r.method)
		if r.method == http.MethodGet {
			add(http.MethodHead)
		}
	}
	for _, p := range pages {
		p.allow += http.MethodOptions
	}
	return pages
}

// findPage returns the page of a path and its decoded parameters. An id is one segment
// of the path: a slash in it arrives as %2F.
func findPage(u *url.URL) (*page, [2]string) {
	segments, n := splitPath(u)
	for _, p := range pages {
		if params, ok := p.match(segments[:n]); ok {
			return p, params
		}
	}
	return unknownPage, [2]string{}
}

func (p *page) match(path []string) (params [2]string, ok bool) {
	if len(path) != len(p.segments) {
		return params, false
	}
	n := 0
	for i := range p.segments {
		switch s := &p.segments[i]; {
		case s.parameter:
			params[n] = path[i]
			n++
		case s.text != path[i]:
			return params, false
		}
	}
	return params, true
}

// maxSegments is larger than the number of segments of any page.
const maxSegments = 6

// splitPath returns the decoded segments of a path, none if there are more than any
// page has.
func splitPath(u *url.URL) (segments [maxSegments]string, n int) {
	// RawPath is set only if the path is not in its default encoding, as with an
	// escaped slash. Without RawPath every slash in Path separates segments.
	path, escaped := u.Path, false
	if u.RawPath != "" {
		path, escaped = u.RawPath, true
	}
	path, ok := strings.CutPrefix(path, "/")
	for ok {
		if n == len(segments) {
			return segments, 0
		}
		var segment string
		segment, path, ok = strings.Cut(path, "/")
		if escaped {
			var err error
			if segment, err = url.PathUnescape(segment); err != nil {
				return segments, 0
			}
		}
		segments[n] = segment
		n++
	}
	return segments, n
}

// underAPI reports whether a path requires credentials, whether or not the page
// exists.
func underAPI(u *url.URL) bool {
	segments, n := splitPath(u)
	return n == 0 || segments[0] == "api"
}

func serviceRoutes() []route {
	status := func(word string) []outcome {
		return []outcome{{status: http.StatusOK, description: "It is.", content: []media{{typeJSON, "Status", `{"status":"` + word + `"}`}}}}
	}
	return []route{
		{
			method: http.MethodGet, pattern: "/healthz", page: "healthz", serve: (*handler).health,
			doc: operation{id: "getHealth", summary: "Whether the process is running", answers: status("ok")},
		},
		{
			method: http.MethodGet, pattern: "/readyz", page: "readyz", serve: (*handler).ready,
			doc: operation{id: "getReadiness", summary: "Whether the store is available and the process is not stopping",
				answers: status("ready"), refusals: []int{http.StatusServiceUnavailable}},
		},
		{
			method: http.MethodGet, pattern: "/openapi.json", page: "openapi", serve: (*handler).getOpenAPI,
			doc: operation{id: "getDescription", summary: "This description",
				answers: []outcome{{status: http.StatusOK, description: "The description.", content: []media{{typeJSON, "Description", `{"openapi":"3.1.0"}`}}}}},
		},
	}
}

func readRoutes() []route {
	return []route{
		{
			method: http.MethodGet, pattern: "/api/customer/{id}", page: "customer", scope: scopeRead, serve: (*handler).getCustomer,
			doc: operation{id: "getCustomer", summary: "The profile of a customer",
				description: "Features are evaluated when the profile is read, so their values are current. With by, the customer is found by the value of an identifier instead of the id; the id in the response is the customer's own.",
				parameters:  []string{"by", "fields", "as_of", "If-None-Match"},
				answers: []outcome{
					{status: http.StatusOK, description: "The profile.", headers: []string{"ETag", "Cache-Control", "As-Of-Applies-To"}, content: []media{{typeJSON, "Profile",
						`{"id":"42","traits":{"plan":"gold"},"features":{"orders_30d":2},"as_of":"2026-01-31T08:30:00.000Z","updated_at":"2026-01-30T10:00:00.000Z"}`}}},
					{status: http.StatusNotModified, description: "If-None-Match contains the ETag of the profile.", headers: []string{"ETag", "Cache-Control"}},
				},
				refusals: []int{400, 404, 406, 409, 500, 503}},
		},
		{
			method: http.MethodGet, pattern: "/api/identifiers", page: "identifiers", scope: scopeRead, serve: (*handler).listIdentifiers,
			doc: operation{id: "listIdentifiers", summary: "The identifiers that find customers, besides their ids",
				answers: []outcome{{status: http.StatusOK, description: "The identifiers of the profile definition, in order.", headers: []string{"Cache-Control"},
					content: []media{{typeJSON, "Identifiers", `{"identifiers":["email"]}`}}}},
				refusals: []int{400}},
		},
		{
			method: http.MethodPost, pattern: "/api/customers/batch", page: "batch", scope: scopeRead, serve: (*handler).readBatch,
			doc: operation{id: "getCustomers", summary: "The profiles of many customers, in the order of the request",
				description: "With by, ids contains values of an identifier instead of ids. A value of several customers gets the error ambiguous_identifier.",
				parameters:  []string{"fields", "as_of"},
				body:        []media{{typeJSON, "BatchQuestion", `{"ids":["42","43"]}`}},
				answers: []outcome{
					{status: http.StatusOK, description: "The profiles, in order, each marked as found or not.", headers: []string{"Cache-Control", "As-Of-Applies-To"}, content: []media{
						{typeJSON, "BatchAnswer",
							`{"customers":[{"id":"42","found":true,"profile":{"id":"42","traits":{},"features":{"orders_30d":2},"as_of":"2026-01-31T08:30:00.000Z","updated_at":"2026-01-30T10:00:00.000Z"}},{"id":"43","found":false}]}`},
						{typeNDJSON, "", `{"id":"43","found":false}`},
					}},
				},
				refusals: []int{400, 406, 408, 413, 415, 500, 503}},
		},
	}
}

func writeRoutes() []route {
	write := func(method, id, summary string, body []media) route {
		return route{
			method: method, pattern: "/api/customer/{id}/traits", page: "traits", scope: scopeWrite, serve: (*handler).writeTraits,
			doc: operation{id: id, summary: summary,
				description: "The write becomes an identify event. The response is sent after the pipeline has acknowledged it.",
				parameters:  []string{"Idempotency-Key"},
				body:        body,
				answers: []outcome{{status: http.StatusAccepted, description: "The pipeline has acknowledged the write.",
					content: []media{{typeJSON, "Written", `{"id":"42","message_id":"api-XBLKZ3GQ4MTQVE5N2YJ6WIPR7U"}`}}}},
				refusals: []int{400, 406, 408, 409, 413, 415, 500, 503}},
		}
	}
	return []route{
		write(http.MethodPut, "putTraits", "Replace the traits of a customer",
			[]media{{typeJSON, "Traits", `{"plan":"gold"}`}}),
		write(http.MethodPatch, "patchTraits", "Set traits of a customer, and unset those that are null",
			[]media{{typeJSON, "Traits", `{"plan":"gold","nickname":null}`}, {typeMergePatch, "Traits", `{"plan":"gold","nickname":null}`}}),
	}
}
