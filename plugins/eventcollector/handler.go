package eventcollector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingapi"
)

// endpoint is a path of the API.
type endpoint struct {
	name   string // in metrics
	reads  trackingapi.Endpoint
	beacon bool // takes the write key from the query
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

// otherEndpoint is the label of requests for a path that is none.
const otherEndpoint = "other"

var (
	failKey      = &failure{http.StatusUnauthorized, "invalid_write_key", "the write key is missing or unknown: send it as the user name of Basic authentication or as writeKey in the body"}
	failPath     = &failure{http.StatusNotFound, "unknown_endpoint", "there is no such endpoint: POST to /v1/batch, /v1/import, /v1/track, /v1/identify, /v1/page, /v1/screen, /v1/group or /v1/alias"}
	failMethod   = &failure{http.StatusMethodNotAllowed, "method_not_allowed", "this endpoint takes POST"}
	failOrigin   = &failure{http.StatusForbidden, "origin_not_allowed", "pages of this origin may not send events here"}
	failType     = &failure{http.StatusUnsupportedMediaType, "unsupported_content_type", "the body must be JSON: send it as application/json or text/plain"}
	failEncoding = &failure{http.StatusUnsupportedMediaType, "unsupported_content_encoding", "the body may be compressed with gzip only"}
	failTimeout  = &failure{http.StatusServiceUnavailable, "not_stored_in_time", "the events are not known to be stored: send them again later"}
	failNack     = &failure{http.StatusServiceUnavailable, "not_stored", "the events could not be stored: send them again later"}
	failClosing  = &failure{http.StatusServiceUnavailable, "shutting_down", "the collector is shutting down: send the events again later"}
	failPanic    = &failure{http.StatusInternalServerError, "internal_error", "the collector failed on this request"}
)

// errGone ends a request whose client has left: there is nobody to answer.
var errGone = &failure{}

func (c *collector) serve(w http.ResponseWriter, r *http.Request) {
	received := time.Now()
	to, known := endpoints[r.URL.Path]
	if !known {
		to.name = otherEndpoint
	}
	defer func() {
		if cause := recover(); cause != nil {
			// The cause may quote what was being worked on; the stack does not.
			c.log.Errorf("A request to %s failed unexpectedly: %T\n%s", to.name, cause, debug.Stack())
			c.answer(w, to.name, failPanic)
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
		c.answer(w, to.name, failPath)
		return
	}
	if r.Method != http.MethodPost {
		c.answerOther(w, r, to, origin, allowed)
		return
	}
	fail := c.collect(w, r, to, received)
	c.answer(w, to.name, fail)
}

// answerOther answers what is no POST: the preflights of browsers and mistakes.
func (c *collector) answerOther(w http.ResponseWriter, r *http.Request, to endpoint, origin string, allowed bool) {
	header := w.Header()
	header.Set("Allow", http.MethodPost)
	if !c.conf.origins.enabled() {
		c.answer(w, to.name, failMethod)
		return
	}
	header.Set("Allow", "POST, OPTIONS")
	switch {
	case r.Method != http.MethodOptions:
		c.answer(w, to.name, failMethod)
		return
	case !allowed:
		c.answer(w, to.name, failOrigin)
		return
	case origin != "":
		c.conf.origins.preflight(header, r.Header.Get("Access-Control-Request-Headers"))
	}
	w.WriteHeader(http.StatusNoContent)
	c.metrics.answered(to.name, http.StatusNoContent)
}

var success = []byte(`{"success":true}`)

// answer writes the answer; fail is nil for success.
func (c *collector) answer(w http.ResponseWriter, endpoint string, fail *failure) {
	if fail == errGone {
		c.metrics.answered(endpoint, 0)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if fail == nil {
		c.metrics.answered(endpoint, http.StatusOK)
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
	// A 401 carries no WWW-Authenticate: browsers would ask the visitors of a
	// shop for a password.
	c.metrics.answered(endpoint, fail.status)
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

// collect takes the events of one request and returns when they are stored, or
// why they are not.
func (c *collector) collect(w http.ResponseWriter, r *http.Request, to endpoint, received time.Time) *failure {
	// Until the whole body is read, the client is given so much time, also for
	// what the server reads by itself after an early answer.
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
	d, fail := c.read(parser, body.bytes, to, from, inRequest, r, received)
	c.parsers.Put(parser)
	body.release()
	if fail != nil || d == nil {
		return fail
	}
	return c.deliver(r.Context(), d)
}

// read makes a delivery of a body, or nil if there is nothing in it.
func (c *collector) read(
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

// invalidEvent tells what is wrong with the one event of a body.
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

// delivery is the batch of one request on its way.
type delivery struct {
	batch service.MessageBatch
	// done has the pipeline's answer.
	done chan error

	collector *collector
	source    string
	accepted  int
	rejected  []string // the rule of the first reason of each bad event
	size      int
	once      sync.Once
}

func (c *collector) newDelivery(events []trackingapi.Event, receipt trackingapi.Receipt, size int) *delivery {
	d := &delivery{
		batch:     make(service.MessageBatch, len(events)),
		done:      make(chan error, 1),
		collector: c,
		source:    receipt.Source,
		size:      size,
	}
	for i, event := range events {
		msg := service.NewMessage(event.Data)
		d.batch[i] = msg
		if len(event.Reasons) == 0 {
			d.accepted++
			continue
		}
		d.rejected = append(d.rejected, event.Reasons[0].Rule)
		rejected := &rejection.Error{Stage: pluginName}
		for _, reason := range event.Reasons {
			rejected.Reasons = append(rejected.Reasons, rejection.Reason(reason))
		}
		msg.SetError(rejected)
		// The event does not say these itself, as an accepted one does.
		msg.MetaSetMut("source", receipt.Source)
		msg.MetaSetMut("received_at", receipt.ReceivedAt.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	}
	return d
}

// deliver hands the batch to the pipeline and waits for it to be stored.
func (c *collector) deliver(ctx context.Context, d *delivery) *failure {
	timeout := time.NewTimer(c.conf.timeout)
	defer timeout.Stop()

	// The batch is either taken by the pipeline or it never was there: the
	// channel has no room.
	var fail *failure
	select {
	case c.handoff <- d:
	case <-timeout.C:
		fail = failBusy
	case <-c.draining:
		fail = failClosing
	case <-ctx.Done():
		fail = errGone
	}
	if fail != nil {
		d.finish()
		return fail
	}

	// From here on the batch keeps its place among those in flight until the
	// pipeline has done with it, whatever the client is told.
	select {
	case err := <-d.done:
		return stored(err)
	case <-timeout.C:
		fail = failTimeout
	case <-c.closed:
		fail = failClosing
	case <-ctx.Done():
		fail = errGone
	}
	select {
	case err := <-d.done: // both at once: the better news counts
		return stored(err)
	default:
		return fail
	}
}

func stored(err error) *failure {
	if err != nil {
		return failNack
	}
	return nil
}

// acknowledge takes the pipeline's answer. It may give it more than once.
func (d *delivery) acknowledge(err error) {
	if !d.finish() {
		return
	}
	if err == nil {
		m := &d.collector.metrics
		if d.accepted > 0 {
			m.accepted.Incr(int64(d.accepted), d.source)
		}
		for _, rule := range d.rejected {
			m.rejected.Incr(1, d.source, rule)
		}
	}
	d.done <- err
}

// finish gives back what the delivery held. It returns false if that was done
// before.
func (d *delivery) finish() (first bool) {
	d.once.Do(func() {
		first = true
		d.collector.buffered.free(d.size)
		d.collector.slots.free()
	})
	return first
}
