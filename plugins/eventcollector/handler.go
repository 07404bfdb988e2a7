package eventcollector

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingapi"
)

// endpoint is a path of the API.
type endpoint struct {
	name   string // in metrics
	reads  trackingapi.Endpoint
	beacon bool // the write key may be in the query
}

var endpoints = map[string]endpoint{
	"/v1/batch":        {name: "batch", reads: trackingapi.Batch},
	"/v1/b":            {name: "batch", reads: trackingapi.Batch},
	"/v1/import":       {name: "import", reads: trackingapi.Batch},
	"/beacon/v1/batch": {name: "beacon", reads: trackingapi.Batch, beacon: true},

	"/v1/track":    {name: "track", reads: trackingapi.Track},
	"/v1/t":        {name: "track", reads: trackingapi.Track},
	"/v1/identify": {name: "identify", reads: trackingapi.Identify},
	"/v1/i":        {name: "identify", reads: trackingapi.Identify},
	"/v1/page":     {name: "page", reads: trackingapi.Page},
	"/v1/p":        {name: "page", reads: trackingapi.Page},
	"/v1/screen":   {name: "screen", reads: trackingapi.Screen},
	"/v1/s":        {name: "screen", reads: trackingapi.Screen},
	"/v1/group":    {name: "group", reads: trackingapi.Group},
	"/v1/g":        {name: "group", reads: trackingapi.Group},
	"/v1/alias":    {name: "alias", reads: trackingapi.Alias},
	"/v1/a":        {name: "alias", reads: trackingapi.Alias},
}

// otherEndpoint is the metric label of requests for an unknown path.
const otherEndpoint = "other"

var (
	failKey      = &failure{status: http.StatusUnauthorized, code: "invalid_write_key", message: "the write key is missing or unknown: send it as the user name of Basic authentication or as writeKey in the body"}
	failPath     = &failure{status: http.StatusNotFound, code: "unknown_endpoint", message: "the endpoint does not exist: POST to /v1/batch, /v1/import, /v1/track, /v1/identify, /v1/page, /v1/screen, /v1/group or /v1/alias"}
	failMethod   = &failure{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "this endpoint supports POST only"}
	failOrigin   = &failure{status: http.StatusForbidden, code: "origin_not_allowed", message: "this origin is not in cors.allowed_origins"}
	failType     = &failure{status: http.StatusUnsupportedMediaType, code: "unsupported_content_type", message: "the body must be JSON: send it as application/json or text/plain"}
	failEncoding = &failure{status: http.StatusUnsupportedMediaType, code: "unsupported_content_encoding", message: "the body may be compressed with gzip only"}
	failTimeout  = &failure{status: http.StatusServiceUnavailable, code: "not_stored_in_time", message: "the events may not be stored yet: send them again later"}
	failNack     = &failure{status: http.StatusServiceUnavailable, code: "not_stored", message: "the events could not be stored: send them again later"}
	failClosing  = &failure{status: http.StatusServiceUnavailable, code: "shutting_down", message: "the collector is shutting down: send the events again later"}
	failPanic    = &failure{status: http.StatusInternalServerError, code: "internal_error", message: "the collector failed on this request"}
)

// errGone ends a request after its client has disconnected.
var errGone = &failure{}

func (c *collector) serve(w http.ResponseWriter, r *http.Request) {
	received := time.Now()
	path := cleanPath(r.URL.Path)
	to, known := endpoints[path]
	if !known {
		to.name = otherEndpoint
	}
	defer func() {
		if cause := recover(); cause != nil {
			// The panic value may contain customer data; the stack does not.
			c.log.Errorf("A request to %s panicked: %T\n%s", to.name, cause, debug.Stack())
			c.respond(w, to.name, failPanic)
		}
	}()
	header := w.Header()
	if c.open.Load() > int64(c.conf.limits.connections)*3/4 {
		header.Set("Connection", "close")
	}
	origin := r.Header.Get("Origin")
	allowed := origin == "" || c.conf.origins.allow(header, origin) || isSameOrigin(r, origin)
	if r.Method == http.MethodGet && (path == healthPath || path == readyPath) {
		c.serveHealth(w, path)
		return
	}
	if !known {
		_, settings := settingsKey(path)
		switch settings = settings || path == sourceConfig; {
		case settings && r.Method == http.MethodOptions:
			c.serveOther(w, r, to, origin, allowed)
		case settings && !allowed:
			c.respond(w, to.name, failOrigin)
		case settings && r.Method == http.MethodGet:
			c.serveSettings(w, r, path)
		default:
			c.respond(w, to.name, failPath)
		}
		return
	}
	if r.Method != http.MethodPost {
		c.serveOther(w, r, to, origin, allowed)
		return
	}
	// A page needs no preflight to send text/plain, so the browser does not
	// protect this endpoint from foreign pages.
	if !allowed {
		c.respond(w, to.name, failOrigin)
		return
	}
	d, fail := c.collect(w, r, to, received)
	if fail != nil {
		c.respond(w, to.name, fail)
		return
	}
	c.respondSuccess(w, to.name, d)
	if d != nil && r.Context().Err() == nil {
		c.repetitions.answer(d.withoutID, time.Now())
	}
}

// The paths of probes: the process runs, and it accepts events.
const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

// serveHealth responds to probes. They need no key and are not counted.
func (c *collector) serveHealth(w http.ResponseWriter, path string) {
	setHeaders(w.Header())
	status, text := http.StatusOK, `{"status":"ok"}`
	select {
	case <-c.draining:
		if path == readyPath {
			status, text = http.StatusServiceUnavailable, `{"status":"shutting_down"}`
		}
	default:
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// cleanPath removes doubled slashes and a slash at the end: SDKs join a host and a
// path in several ways.
func cleanPath(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimSuffix(path, "/")
}

// isSameOrigin reports whether a page of this server sends the request.
func isSameOrigin(r *http.Request, origin string) bool {
	_, host, ok := strings.Cut(origin, "://")
	return ok && strings.EqualFold(host, r.Host)
}

// serveOther responds to methods other than POST: preflights of browsers, and
// mistakes.
func (c *collector) serveOther(w http.ResponseWriter, r *http.Request, to endpoint, origin string, allowed bool) {
	header := w.Header()
	header.Set("Allow", http.MethodPost)
	if !c.conf.origins.enabled() {
		c.respond(w, to.name, failMethod)
		return
	}
	header.Set("Allow", "POST, OPTIONS")
	switch {
	case r.Method != http.MethodOptions:
		c.respond(w, to.name, failMethod)
		return
	case !allowed:
		c.respond(w, to.name, failOrigin)
		return
	case origin != "":
		c.conf.origins.preflight(header, r.Header.Get("Access-Control-Request-Headers"))
	}
	w.WriteHeader(http.StatusNoContent)
	c.metrics.countRequest(to.name, http.StatusNoContent)
}

func setHeaders(header http.Header) {
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
}

var success = []byte(`{"success":true}`)

// maxReasons bounds the reasons in a response.
const maxReasons = 10

// respondSuccess responds that the events of d are stored. It names rejected events
// for developers; SDKs ignore the body. d is nil for an empty batch.
func (c *collector) respondSuccess(w http.ResponseWriter, endpoint string, d *delivery) {
	setHeaders(w.Header())
	c.metrics.countRequest(endpoint, http.StatusOK)
	text := success
	if d != nil && len(d.rejected) > 0 {
		text, _ = json.Marshal(struct {
			Success  bool     `json:"success"`
			Rejected int      `json:"rejected"`
			Reasons  []string `json:"reasons"`
		}{true, len(d.rejected), d.reasons})
	}
	_, _ = w.Write(text)
}

// respond writes the response to a request that failed.
func (c *collector) respond(w http.ResponseWriter, endpoint string, fail *failure) {
	if fail == errGone {
		c.metrics.countRequest(endpoint, 0)
		return
	}
	header := w.Header()
	setHeaders(header)
	switch fail.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		wait := fail.retryAfter
		if wait == 0 {
			wait = c.conf.retryAfter
		}
		header.Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	case http.StatusRequestTimeout:
		header.Set("Connection", "close")
	}
	// A 401 has no WWW-Authenticate header: with it, browsers would ask the
	// visitors of a shop for a password.
	c.metrics.countRequest(endpoint, fail.status)
	type reason struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	// Segment's SDK for Python reads code and message at the top level, and
	// retries a 400 without them.
	text, _ := json.Marshal(struct {
		Success bool `json:"success"`
		reason
		Error reason `json:"error"`
	}{reason: reason{fail.code, fail.message}, Error: reason{fail.code, fail.message}})
	w.WriteHeader(fail.status)
	_, _ = w.Write(text)
}

// request is a request for events.
type request struct {
	*http.Request
	to       endpoint
	received time.Time
	client   string // its address; empty if unknown
	from     source // of the key, once it is verified
	verified bool
}

// collect reads the events of one request and returns once they are stored. The
// delivery is nil for an empty batch.
func (c *collector) collect(w http.ResponseWriter, r *http.Request, to endpoint, received time.Time) (*delivery, *failure) {
	d, fail := c.accept(w, &request{Request: r, to: to, received: received, client: clientIP(r, c.conf.proxies)})
	if fail != nil || d == nil {
		return nil, fail
	}
	return d, c.deliver(r.Context(), d)
}

// accept checks the key, reads the body and returns the delivery of its events.
func (c *collector) accept(w http.ResponseWriter, r *request) (*delivery, *failure) {
	// The deadline ends when the whole body is read. It also bounds what the
	// server reads by itself after an early response.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(r.received.Add(c.conf.limits.readTimeout))

	if !acceptsType(r.Header.Get("Content-Type")) {
		return nil, failType
	}
	gzipped, ok := acceptsEncoding(r.Header.Get("Content-Encoding"))
	if !ok {
		w.Header().Set("Accept-Encoding", "gzip")
		return nil, failEncoding
	}
	key, inHeader := basicUser(r.Header.Get("Authorization"))
	if r.to.beacon && !inHeader {
		key = r.URL.Query().Get("writeKey")
		inHeader = key != ""
	}
	if inHeader {
		if r.from, r.verified = c.conf.keys.source([]byte(key)); !r.verified {
			return nil, failKey
		}
	}
	select {
	case <-c.draining:
		return nil, failClosing
	default:
	}
	sender := newAccount(r.from.name, r.client)
	if r.verified && c.slots.full(sender) {
		return nil, failBusy
	}

	// A single event above the limit of an event becomes a dead letter.
	limit := c.conf.limits.batchBytes
	body, fail := c.receiveBody(r.Request, sender, conn, limit)
	if fail != nil {
		return nil, fail
	}
	_ = conn.SetReadDeadline(time.Time{})
	if !r.verified {
		// The key is in the body. Until it is verified, few requests share the
		// processors.
		select {
		case c.unverified <- struct{}{}:
			defer func() { <-c.unverified }()
		case <-r.Context().Done():
			body.release()
			return nil, errGone
		}
	}
	if gzipped {
		if body, fail = c.decompress(body, sender, limit); fail != nil {
			return nil, fail
		}
	}
	defer body.release()
	c.metrics.bytes.Incr(int64(len(body.bytes)))
	return c.parse(r, body.bytes)
}

// parse returns the delivery of a body, nil for an empty batch.
func (c *collector) parse(r *request, text []byte) (*delivery, *failure) {
	parser := c.parsers.Get().(*trackingapi.Parser)
	defer c.parsers.Put(parser)
	parsed, err := parser.Parse(r.to.reads, text)
	if err != nil {
		bodyErr, ok := errors.AsType[*trackingapi.BodyError](err)
		switch {
		case !ok:
			return nil, failPanic
		case r.verified && r.to.reads != trackingapi.Batch && bodyErr.Code != trackingapi.CodeEmpty:
			// SDKs drop an event after a 400: keep it as a dead letter.
			return c.admit(r, 1, len(text), func(trackingapi.Receipt) []trackingapi.Event {
				return []trackingapi.Event{{Data: bytes.Clone(text), Reasons: []trackingapi.Reason{bodyErr.Reason()}}}
			})
		case bodyErr.TooLarge():
			return nil, &failure{status: http.StatusRequestEntityTooLarge, code: bodyErr.Code, message: bodyErr.Message}
		}
		return nil, &failure{status: http.StatusBadRequest, code: bodyErr.Code, message: bodyErr.Message}
	}
	if !r.verified {
		if r.from, r.verified = c.conf.keys.source(parsed.WriteKey()); !r.verified {
			return nil, failKey
		}
	}
	if parsed.Len() == 0 {
		return nil, nil
	}
	return c.admit(r, parsed.Len(), parsed.Size(), func(receipt trackingapi.Receipt) []trackingapi.Event {
		return parsed.Events(nil, receipt)
	})
}

// admit applies the rate limit of the key to n events, reserves memory of the given
// size and a slot, and returns the delivery of the events.
func (c *collector) admit(r *request, n, size int, events func(trackingapi.Receipt) []trackingapi.Event) (*delivery, *failure) {
	d := &delivery{collector: c, sender: newAccount(r.from.name, r.client), done: make(chan error, 1)}
	if wait := r.from.rate.take(n, r.received); wait > 0 {
		return nil, &failure{status: http.StatusTooManyRequests, code: "rate_limited", message: "this write key sends too many events: send them again later", retryAfter: wait}
	}
	d.reserved = c.memory.reserve(d.sender, nil)
	d.reserved.complete()
	if !d.reserved.take(size) {
		return nil, failBusy
	}
	if !c.slots.take(d.sender) {
		d.reserved.free()
		return nil, failBusy
	}
	receipt := trackingapi.Receipt{Source: r.from.name, ReceivedAt: r.received}
	if !r.from.serverSide {
		receipt.IP = r.client
		receipt.Admit = func(customer []byte) *trackingapi.Reason {
			if c.customerRates.take(customer, r.received) {
				return nil
			}
			return &trackingapi.Reason{Rule: "rate_limit", Message: fmt.Sprintf("the customer has more than %v events per second (limits.%s)", c.customerRates.rate, fieldCustomerRate)}
		}
	}
	receipt.Occurrence = func(hash [sha256.Size]byte) int64 {
		e, retry := c.repetitions.occurrence(hash, r.received)
		d.withoutID = append(d.withoutID, e)
		if retry {
			d.retries++
		}
		return e.received.UnixMicro()
	}
	d.fill(events(receipt), receipt)
	return d, nil
}
