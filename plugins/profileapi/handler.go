package profileapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"golang.org/x/sync/semaphore"

	"github.com/connect-personalize/connect-personalize/plugins/contentblocks"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// handler serves the requests of one profile_api input.
type handler struct {
	conf      *config
	guard     guard
	content   *contentblocks.Blocks // nil if no content is served
	reader    reader
	coalescer coalescer
	batches   chan struct{} // one token for each batch read in flight
	// batchMemory bounds the bytes of batch reads in memory.
	batchMemory *semaphore.Weighted
	// memory serves reads from the cache; nil without a cache.
	memory    memory
	log       *service.Logger
	telemetry *telemetry
	began     time.Time
	// description is the OpenAPI description, built once.
	description func() []byte

	// writes passes each write to the pipeline's next ReadBatch. It is unbuffered, so
	// that a write belongs either to the pipeline or still to its request.
	writes chan *write
	// draining is closed when the input is asked to stop: no further writes are
	// accepted.
	draining     chan struct{}
	drainingOnce sync.Once
	// gone is closed when no further acknowledgement can follow.
	gone     chan struct{}
	goneOnce sync.Once

	outage         customers.Outage
	unreadableOnce sync.Once
	readiness      readiness
}

// maxTripProfiles is the maximum number of single reads that share a round trip.
const maxTripProfiles = 256

func newHandler(conf *config, r reader, res *service.Resources) *handler {
	m, _ := r.(memory)
	h := &handler{
		memory:      m,
		conf:        conf,
		began:       time.Now(),
		reader:      r,
		coalescer:   coalescer{reader: r, trips: conf.roundTrips, limit: maxTripProfiles},
		batches:     make(chan struct{}, conf.roundTrips),
		batchMemory: semaphore.NewWeighted(conf.limits.batchMemory),
		log:         res.Logger(),
		telemetry:   newTelemetry(res.Metrics()),
		writes:      make(chan *write),
		draining:    make(chan struct{}),
		gone:        make(chan struct{}),

		description: sync.OnceValue(func() []byte { return describe(routes(), conf.access()) }),
	}
	h.guard.required = conf.needsCredentials()
	h.guard.accepted.Store(conf.credentials)
	return h
}

// drain refuses further writes and makes /readyz fail.
func (h *handler) drain() { h.drainingOnce.Do(func() { close(h.draining) }) }

// abandon releases the requests that wait for an acknowledgement.
func (h *handler) abandon() { h.goneOnce.Do(func() { close(h.gone) }) }

func (h *handler) isDraining() bool {
	select {
	case <-h.draining:
		return true
	default:
		return false
	}
}

// ServeHTTP serves one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	h.telemetry.begin()
	p, params := findPage(r.URL)
	status := http.StatusInternalServerError
	defer func() {
		if v := recover(); v != nil {
			// The panic value may contain personal data; the stack contains no values.
			h.log.Errorf("A request to %s panicked with a %T:\n%s", p.name, v, debug.Stack())
			h.telemetry.end(p, status, started)
			panic(http.ErrAbortHandler) // a part of the response may have been sent
		}
		h.telemetry.end(p, status, started)
	}()
	status = h.serve(w, r, p, visit{id: params[0], name: params[1], started: started})
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, p *page, v visit) int {
	if len(h.conf.origins) > 0 {
		h.allowOrigin(w, r)
	}
	// A preflight request carries no credentials; the response contains only
	// documented facts.
	if r.Method == http.MethodOptions && p != unknownPage {
		return h.options(w, r, p)
	}
	route := p.routes[r.Method]
	if p.protected || p == unknownPage && underAPI(r.URL) {
		if h.conf.localOnly && !namesLoopback(r.Host) {
			return refuse(w, r, &problem{status: http.StatusMisdirectedRequest, code: "unknown_host",
				message: "without tokens the API accepts loopback addresses only: call it by 127.0.0.1 or localhost, because another host name may be DNS rebinding"})
		}
		var refusal *problem
		if v.caller, r, refusal = h.guard.check(r, route, v.started); refusal != nil {
			return refuse(w, r, refusal)
		}
		if route != nil && v.caller.scopes&route.scope == 0 {
			return refuse(w, r, &problem{status: http.StatusForbidden, code: "forbidden",
				message: fmt.Sprintf("this request needs a token with the scope %q", route.scope)})
		}
	}
	switch {
	case p == unknownPage:
		return refuse(w, r, &problem{status: http.StatusNotFound, code: "no_such_page",
			message: "there is no resource at this path; in a customer id, write a slash as %2F"})
	case route == nil:
		return refuse(w, r, &problem{status: http.StatusMethodNotAllowed, code: "method_not_allowed",
			message: "this path answers to " + p.allow, allow: p.allow})
	case p.customer:
		if refusal := checkID(v.id, h.conf.limits.idBytes); refusal != nil {
			return refuse(w, r, refusal)
		}
	}
	return route.serve(h, w, r, v)
}

// allowOrigin allows pages of the configured origins to read the response.
func (h *handler) allowOrigin(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); h.conf.origins[origin] {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Expose-Headers", "As-Of-Applies-To, ETag, Retry-After")
	}
}

func (h *handler) options(w http.ResponseWriter, r *http.Request, p *page) int {
	header := w.Header()
	header.Set("Allow", p.allow)
	if header.Get("Access-Control-Allow-Origin") != "" && r.Header.Get("Access-Control-Request-Method") != "" {
		header.Set("Access-Control-Allow-Methods", p.allow)
		header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, If-None-Match")
		header.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
	return http.StatusNoContent
}

func (h *handler) health(w http.ResponseWriter, r *http.Request, _ visit) int {
	w.Header()["Cache-Control"] = valueNoStore
	return send(w, r, http.StatusOK, valueJSON, []byte(`{"status":"ok"}`+"\n"))
}

func (h *handler) ready(w http.ResponseWriter, r *http.Request, v visit) int {
	if h.isDraining() {
		return refuse(w, r, &stopping)
	}
	if refusal := h.checkStore(r.Context(), v.started); refusal != nil {
		return refuse(w, r, refusal)
	}
	w.Header()["Cache-Control"] = valueNoStore
	return send(w, r, http.StatusOK, valueJSON, []byte(`{"status":"ready"}`+"\n"))
}

var (
	stopping = problem{status: http.StatusServiceUnavailable, code: "stopping", retryAfter: 5,
		message: "this process is stopping: retry later, or at another process"}
	storeAway = problem{status: http.StatusServiceUnavailable, code: "store_unavailable", retryAfter: 1,
		message: "the profile store is unavailable: retry later"}
	tooSlow = problem{status: http.StatusServiceUnavailable, code: "timeout", retryAfter: 1,
		message: "the profile store did not respond in time: retry later"}
	overloaded = problem{status: http.StatusServiceUnavailable, code: "overloaded", retryAfter: 1,
		message: "too many batch reads are in progress: retry later"}
	badRecord = problem{status: http.StatusInternalServerError, code: "unreadable_profile",
		message: "the record of this customer cannot be decoded"}
	ambiguous = problem{status: http.StatusConflict, code: "ambiguous_identifier",
		message: "several customers have this value: request the profile by the customer's id"}
	tooEarly = problem{status: http.StatusBadRequest, code: "as_of_too_early",
		message: "as_of is before the earliest time that the profile's record can be evaluated at"}
)

// readiness is the cached result of a ping of the store.
type readiness struct {
	mu      sync.Mutex
	asked   time.Time
	refusal *problem
}

// checkStore pings the store, at most once a second regardless of the number of
// requests: the page needs no token.
func (h *handler) checkStore(ctx context.Context, now time.Time) *problem {
	p := &h.readiness
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked.IsZero() || now.Sub(p.asked) >= time.Second {
		// Not bound to the request: if its client closed the connection, the failure
		// would be cached for all others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		p.refusal = nil
		// A successful ping does not prove that reads work again.
		if err := h.reader.Ping(ctx); err != nil {
			p.refusal = h.readProblem(err)
		}
		p.asked = time.Now()
	}
	return p.refusal
}

// getCustomer serves one profile.
func (h *handler) getCustomer(w http.ResponseWriter, r *http.Request, v visit) int {
	if negotiate(r.Header["Accept"], typeJSON) == "" {
		return refuse(w, r, &problem{status: http.StatusNotAcceptable, code: "not_acceptable",
			message: "profiles are served as " + typeJSON})
	}
	q, refusal := parseQuestion(r.URL.RawQuery)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	if refusal := v.caller.takeProfiles(v.started, 1); refusal != nil {
		return refuse(w, r, refusal)
	}
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	result, recalled := h.recall(buf, v.id, q)
	if !recalled {
		if result, refusal = h.readOne(v.id, q, v.started); refusal != nil {
			return refuse(w, r, refusal)
		}
	}
	if !result.Found {
		return refuse(w, r, &problem{status: http.StatusNotFound, code: "no_such_customer",
			message: "this customer has no profile"})
	}
	if isTooEarly(q, result) {
		return refuse(w, r, &tooEarly)
	}
	header := w.Header()
	header["Cache-Control"] = h.conf.cacheControl
	setAsOf(header, q)
	tag := contentTag(result.JSON)
	header["Etag"] = []string{tag}
	if known := r.Header["If-None-Match"]; len(known) > 0 && matchesTag(known, tag) {
		w.WriteHeader(http.StatusNotModified)
		return http.StatusNotModified
	}
	return send(w, r, http.StatusOK, valueJSON, result.JSON)
}

// setAsOf states the members of a profile that as_of changes. All others are the
// current ones.
func setAsOf(header http.Header, q question) {
	if !q.AsOf.IsZero() {
		header["As-Of-Applies-To"] = valueAsOf
	}
}

var valueAsOf = []string{"features, segments"}

// recall reads one profile from the cache, into buf.
func (h *handler) recall(buf *[]byte, id string, q question) (result customers.Result, ok bool) {
	if h.memory == nil {
		return result, false
	}
	result, ok = h.memory.ReadCached((*buf)[:0], id, q.Query)
	if result.JSON != nil {
		*buf = result.JSON
	}
	return result, ok && result.Err == nil
}

// readOne reads one profile, coalesced with concurrent reads.
func (h *handler) readOne(id string, q question, started time.Time) (customers.Result, *problem) {
	result, err := h.coalescer.read(id, q, started.Add(h.conf.timeouts.request))
	refusal := h.readProblem(err)
	if refusal == nil && result.Err != nil {
		refusal = h.unreadable(result.Err)
	}
	return result, refusal
}

// isTooEarly reports whether a profile cannot be evaluated at the requested as_of. Now
// is never too early, although a device with a fast clock may have sent events that
// are applied and not due yet.
func isTooEarly(q question, result customers.Result) bool {
	return !q.AsOf.IsZero() && result.Found && !result.Complete
}

// unreadable returns the refusal for a customer with an ambiguous identifier or a
// record that cannot be decoded. The latter is logged once.
func (h *handler) unreadable(err error) *problem {
	if errors.Is(err, customers.ErrAmbiguous) {
		return &ambiguous
	}
	h.unreadableOnce.Do(func() {
		h.log.Errorf("A stored profile cannot be decoded; requests for it get status 500 (see the metric profile_api_requests): %v", err)
	})
	return &badRecord
}

// readProblem returns the refusal for the error of a read, and logs when the store
// becomes unavailable and available again.
func (h *handler) readProblem(err error) *problem {
	var unknown *customers.UnknownFieldError
	switch {
	case err == nil:
		h.outage.End(h.log)
		return nil
	case errors.As(err, &unknown):
		return badRequest("unknown_field", "fields contains an unknown name: write traits, features, traits.NAME or features.NAME of a defined feature")
	}
	var undeclared *customers.UnknownIdentifierError
	if errors.As(err, &undeclared) {
		return unknownIdentifier(undeclared)
	}
	h.outage.Begin(h.log, err)
	if errors.Is(err, context.DeadlineExceeded) {
		return &tooSlow
	}
	return &storeAway
}

// unknownIdentifier lists the declared identifiers and does not repeat the requested
// one.
func unknownIdentifier(err *customers.UnknownIdentifierError) *problem {
	if len(err.Declared) == 0 {
		return badRequest("unknown_identifier", "by cannot be used: the profile definition declares no identifiers")
	}
	return badRequest("unknown_identifier", "by is not an identifier of the profile definition, which declares "+strings.Join(err.Declared, ", "))
}

// listIdentifiers serves the identifiers that by accepts.
func (h *handler) listIdentifiers(w http.ResponseWriter, r *http.Request, _ visit) int {
	if refusal := noParameters(r.URL.RawQuery); refusal != nil {
		return refuse(w, r, refusal)
	}
	out := []byte(`{"identifiers":[`)
	for i, name := range h.reader.Identifiers() {
		if i > 0 {
			out = append(out, ',')
		}
		out = jsontext.AppendString(out, name)
	}
	w.Header()["Cache-Control"] = valueNoStore
	return send(w, r, http.StatusOK, valueJSON, append(out, "]}\n"...))
}

// buffers pools the bodies of responses.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooledBuffer prevents one huge response from staying in memory.
const maxPooledBuffer = 8 << 20

func release(buf *[]byte) {
	if cap(*buf) <= maxPooledBuffer {
		buffers.Put(buf)
	}
}

// batchRequest is a parsed batch read.
type batchRequest struct {
	question
	ids         []string
	contentType string // of the response
}

// readBatchRequest parses a batch request. Errors in its query string, which parse
// parses, are reported before the body is read.
func (h *handler) readBatchRequest(w http.ResponseWriter, r *http.Request, v visit, parse func(rawQuery string) (question, *problem)) (b batchRequest, refusal *problem) {
	if b.contentType = negotiate(r.Header["Accept"], typeJSON, typeNDJSON); b.contentType == "" {
		return b, &problem{status: http.StatusNotAcceptable, code: "not_acceptable",
			message: "batches are served as " + typeJSON + " or " + typeNDJSON}
	}
	if b.question, refusal = parse(r.URL.RawQuery); refusal != nil {
		return b, refusal
	}
	body, refusal := readBody(w, r, h.conf.limits.bodyBytes, typeJSON)
	if refusal != nil {
		return b, refusal
	}
	b.ids, b.By, refusal = parseBatch(body, h.conf.limits.batchIDs, h.conf.limits.idBytes)
	if refusal == nil {
		refusal = v.caller.takeProfiles(v.started, len(b.ids))
	}
	return b, refusal
}

// readBatch serves many profiles.
func (h *handler) readBatch(w http.ResponseWriter, r *http.Request, v visit) int {
	b, refusal := h.readBatchRequest(w, r, v, parseBatchQuestion)
	if refusal != nil {
		return refuse(w, r, refusal)
	}

	// Not the request's context: net/http ends it at the read timeout, which does not
	// limit the response.
	ctx, cancel := context.WithDeadline(context.Background(), v.started.Add(h.conf.timeouts.request))
	defer cancel()
	if b.contentType == typeNDJSON && len(b.ids) > linesAtOnce {
		return h.streamBatch(ctx, w, r, b.ids, b.question)
	}
	results, done, refusal := h.readMany(ctx, b.ids, b.question)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	defer done()
	refusals := h.refusals(b.question, results)
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	w.Header()["Cache-Control"] = h.conf.cacheControl
	setAsOf(w.Header(), b.question)
	if b.contentType == typeNDJSON {
		*buf = appendBatch((*buf)[:0], "", "\n", "\n", b.ids, results, refusals)
		return send(w, r, http.StatusOK, valueNDJSON, *buf)
	}
	*buf = appendBatch((*buf)[:0], `{"customers":[`, ",\n", "]}\n", b.ids, results, refusals)
	return send(w, r, http.StatusOK, valueJSON, *buf)
}

// refusals returns the errors of the profiles that cannot be served.
func (h *handler) refusals(q question, results []customers.Result) []*problem {
	refusals := make([]*problem, len(results))
	for i := range results {
		switch {
		case results[i].Err != nil:
			refusals[i] = h.unreadable(results[i].Err)
		case isTooEarly(q, results[i]):
			refusals[i] = &tooEarly
		}
	}
	return refusals
}

// linesAtOnce is the number of customers per read of a batch with NDJSON.
const linesAtOnce = 250

// streamBatch serves a batch read in parts, so that the first lines are sent before
// the last customers are read.
func (h *handler) streamBatch(ctx context.Context, w http.ResponseWriter, r *http.Request, ids []string, q question) int {
	results, done, refusal := h.readMany(ctx, ids[:linesAtOnce], q)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	header := w.Header()
	header["Cache-Control"] = h.conf.cacheControl
	setAsOf(header, q)
	header["Content-Type"] = valueNDJSON
	header["X-Content-Type-Options"] = valueNosniff
	header.Add("Vary", "Accept-Encoding")
	out, finish := gzipIfAccepted(w, r)
	defer finish()
	w.WriteHeader(http.StatusOK)
	buf := buffers.Get().(*[]byte)
	defer release(buf)
	for start := 0; ; {
		part := ids[start:min(start+linesAtOnce, len(ids))]
		*buf = (*buf)[:0]
		if refusal == nil {
			*buf = appendBatch(*buf, "", "\n", "\n", part, results, h.refusals(q, results))
		} else {
			*buf = appendUnread(*buf, part, refusal)
		}
		_, err := out.Write(*buf)
		if refusal == nil {
			done()
		}
		if err != nil {
			return http.StatusOK // the client closed the connection
		}
		if start += len(part); start == len(ids) {
			return http.StatusOK
		}
		results, done, refusal = h.readMany(ctx, ids[start:min(start+linesAtOnce, len(ids))], q)
	}
}

// appendUnread appends a line for each customer that could not be read after the first
// lines were sent. It is unknown whether they have a profile.
func appendUnread(dst []byte, ids []string, p *problem) []byte {
	rest := appendProblem(nil, p)[1:]
	for _, id := range ids {
		dst = append(dst, `{"id":`...)
		dst = jsontext.AppendString(dst, id)
		dst = append(append(append(dst, ','), rest...), '\n')
	}
	return dst
}

// readMany reads many profiles. The number of such reads in flight is bounded, so that
// single reads are served too, and so is the size of the profiles in memory: the caller
// must call release once they are written to the client.
func (h *handler) readMany(ctx context.Context, ids []string, q question) (results []customers.Result, release func(), refusal *problem) {
	select {
	case h.batches <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, &overloaded
	}
	defer func() { <-h.batches }()
	results, err := h.reader.Read(ctx, ids, q.Query)
	if refusal := h.readProblem(err); refusal != nil {
		return nil, nil, refusal
	}
	// The response has a copy of each profile. A batch that is larger than the limit
	// waits until it is the only one.
	size := int64(0)
	for i := range results {
		size += 2 * int64(len(results[i].JSON))
	}
	size = min(size, h.conf.limits.batchMemory)
	if h.batchMemory.Acquire(ctx, size) != nil {
		return nil, nil, &overloaded
	}
	return results, func() { h.batchMemory.Release(size) }, nil
}

// appendBatch appends the response to a batch read: for every id, in order, whether it
// was found, and its profile or error.
func appendBatch(dst []byte, open, separator, end string, ids []string, results []customers.Result, refusals []*problem) []byte {
	dst = append(dst, open...)
	for i := range results {
		if i > 0 {
			dst = append(dst, separator...)
		}
		dst = append(dst, `{"id":`...)
		dst = jsontext.AppendString(dst, ids[i])
		switch {
		case refusals[i] != nil:
			dst = strconv.AppendBool(append(dst, `,"found":`...), refusals[i] != &ambiguous)
			dst = append(dst, ',')
			dst = append(dst, appendProblem(nil, refusals[i])[1:]...)
		case !results[i].Found:
			dst = append(dst, `,"found":false}`...)
		default:
			dst = append(dst, `,"found":true,"profile":`...)
			dst = append(dst, results[i].JSON...)
			dst = append(dst, '}')
		}
	}
	return append(dst, end...)
}

// readBody reads a JSON body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, accepted ...string) ([]byte, *problem) {
	got := mediaType(r.Header.Get("Content-Type"))
	known := false
	for _, t := range accepted {
		known = known || got == t
	}
	if !known {
		return nil, &problem{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type",
			message: "the body must be sent with Content-Type: " + strings.Join(accepted, " or ")}
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, &problem{status: http.StatusUnsupportedMediaType, code: "unsupported_encoding",
			message: "the body must be sent without a Content-Encoding"}
	}
	tooLarge := &problem{status: http.StatusRequestEntityTooLarge, code: "body_too_large",
		message: fmt.Sprintf("the body is larger than %d bytes", limit)}
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var overLimit *http.MaxBytesError
	switch {
	case errors.As(err, &overLimit):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{status: http.StatusRequestTimeout, code: "body_too_slow",
			message: "the body did not arrive in time"}
	case err != nil:
		return nil, badRequest("invalid_body", "the body is incomplete")
	}
	return body, nil
}
