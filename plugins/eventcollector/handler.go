package eventcollector

import (
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
	failKey      = &failure{http.StatusUnauthorized, "invalid_write_key", "the write key is missing or unknown: send it as the user name of Basic authentication or as writeKey in the body"}
	failPath     = &failure{http.StatusNotFound, "unknown_endpoint", "the endpoint does not exist: POST to /v1/batch, /v1/import, /v1/track, /v1/identify, /v1/page, /v1/screen, /v1/group or /v1/alias"}
	failMethod   = &failure{http.StatusMethodNotAllowed, "method_not_allowed", "this endpoint supports POST only"}
	failOrigin   = &failure{http.StatusForbidden, "origin_not_allowed", "this origin is not in cors.allowed_origins"}
	failType     = &failure{http.StatusUnsupportedMediaType, "unsupported_content_type", "the body must be JSON: send it as application/json or text/plain"}
	failEncoding = &failure{http.StatusUnsupportedMediaType, "unsupported_content_encoding", "the body may be compressed with gzip only"}
	failTimeout  = &failure{http.StatusServiceUnavailable, "not_stored_in_time", "the events may not be stored yet: send them again later"}
	failNack     = &failure{http.StatusServiceUnavailable, "not_stored", "the events could not be stored: send them again later"}
	failClosing  = &failure{http.StatusServiceUnavailable, "shutting_down", "the collector is shutting down: send the events again later"}
	failPanic    = &failure{http.StatusInternalServerError, "internal_error", "the collector failed on this request"}
)

// errGone ends a request after its client has disconnected.
var errGone = &failure{}

func (c *collector) serve(w http.ResponseWriter, r *http.Request) {
	received := time.Now()
	to, known := endpoints[r.URL.Path]
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
	allowed := true
	origin := r.Header.Get("Origin")
	if c.conf.origins.enabled() && origin != "" {
		allowed = c.conf.origins.allow(header, origin)
	}
	if !known {
		c.respond(w, to.name, failPath)
		return
	}
	if r.Method != http.MethodPost {
		c.serveOther(w, r, to, origin, allowed)
		return
	}
	fail := c.collect(w, r, to, received)
	c.respond(w, to.name, fail)
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

var success = []byte(`{"success":true}`)

// respond writes the response; fail is nil for success.
func (c *collector) respond(w http.ResponseWriter, endpoint string, fail *failure) {
	if fail == errGone {
		c.metrics.countRequest(endpoint, 0)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if fail == nil {
		c.metrics.countRequest(endpoint, http.StatusOK)
		_, _ = w.Write(success)
		return
	}
	switch fail.status {
	case http.StatusServiceUnavailable:
		seconds := (c.conf.retryAfter + time.Second - 1) / time.Second
		header.Set("Retry-After", strconv.Itoa(int(seconds)))
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
	text, _ := json.Marshal(struct {
		Success bool   `json:"success"`
		Error   reason `json:"error"`
	}{Error: reason{fail.code, fail.message}})
	w.WriteHeader(fail.status)
	_, _ = w.Write(text)
}

// collect reads the events of one request and returns nil once they are stored.
func (c *collector) collect(w http.ResponseWriter, r *http.Request, to endpoint, received time.Time) *failure {
	// The deadline ends when the whole body is read. It also bounds what the
	// server reads by itself after an early response.
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(received.Add(c.conf.limits.readTimeout))

	if !acceptsType(r.Header.Get("Content-Type")) {
		return failType
	}
	gzipped, ok := acceptsEncoding(r.Header.Get("Content-Encoding"))
	if !ok {
		w.Header().Set("Accept-Encoding", "gzip")
		return failEncoding
	}
	key, inRequest := basicUser(r.Header.Get("Authorization"))
	if to.beacon && !inRequest {
		key = r.URL.Query().Get("writeKey")
		inRequest = key != ""
	}
	var from source
	if inRequest {
		if from, ok = c.conf.keys.source([]byte(key)); !ok {
			return failKey
		}
	}
	select {
	case <-c.draining:
		return failClosing
	default:
	}
	if c.slots.full() {
		return failBusy
	}

	limit := c.conf.limits.eventBytes
	if to.reads == trackingapi.Batch {
		limit = c.conf.limits.batchBytes
	}
	body, fail := c.readBody(r, gzipped, limit)
	if fail != nil {
		return fail
	}
	_ = conn.SetReadDeadline(time.Time{})
	c.metrics.bytes.Incr(int64(len(body.bytes)))

	parser := c.parsers.Get().(*trackingapi.Parser)
	d, fail := c.parse(parser, body.bytes, to, from, inRequest, r, received)
	c.parsers.Put(parser)
	body.release()
	if fail != nil || d == nil {
		return fail
	}
	return c.deliver(r.Context(), d)
}

// parse returns the delivery of a body, nil for an empty batch.
func (c *collector) parse(
	parser *trackingapi.Parser, text []byte, to endpoint, from source, known bool, r *http.Request, received time.Time,
) (*delivery, *failure) {
	parsed, err := parser.Parse(to.reads, text)
	if err != nil {
		bodyErr, ok := errors.AsType[*trackingapi.BodyError](err)
		switch {
		case !ok:
			return nil, failPanic
		case bodyErr.TooLarge():
			return nil, &failure{http.StatusRequestEntityTooLarge, bodyErr.Code, bodyErr.Message}
		}
		return nil, &failure{http.StatusBadRequest, bodyErr.Code, bodyErr.Message}
	}
	if !known {
		if from, known = c.conf.keys.source(parsed.WriteKey()); !known {
			return nil, failKey
		}
	}
	if parsed.Len() == 0 {
		return nil, nil
	}
	size := parsed.Size()
	if !c.buffered.take(size) {
		return nil, failBusy
	}
	if !c.slots.take() {
		c.buffered.free(size)
		return nil, failBusy
	}
	receipt := trackingapi.Receipt{Source: from.name, ReceivedAt: received}
	if !from.serverSide {
		receipt.IP = clientIP(r, c.conf.proxies)
	}
	events := parsed.Events(nil, receipt)
	if to.reads != trackingapi.Batch && len(events[0].Reasons) > 0 {
		c.buffered.free(size)
		c.slots.free()
		return nil, invalidEvent(events[0].Reasons)
	}
	return c.newDelivery(events, receipt, size), nil
}

// invalidEvent returns the response for a single event that breaks rules.
func invalidEvent(reasons []trackingapi.Reason) *failure {
	lines := make([]string, len(reasons))
	for i, reason := range reasons {
		lines[i] = reason.Message
		if reason.Pointer != "" {
			lines[i] = reason.Pointer + ": " + reason.Message
		}
	}
	return &failure{http.StatusBadRequest, "invalid_event", fmt.Sprintf("the event is not valid: %s", strings.Join(lines, "; "))}
}
