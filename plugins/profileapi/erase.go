package profileapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

func privacyRoutes() []route {
	answers := func(erased string) []outcome {
		return []outcome{{status: http.StatusOK, description: "It is done, and stored.",
			content: []media{{typeJSON, "Erasure", `{"id":"42","message_id":"api-XBLKZ3GQ4MTQVE5N2YJ6WIPR7U","erased":` + erased + `}`}}}}
	}
	return []route{
		{
			method: http.MethodDelete, pattern: "/api/customer/{id}", page: "customer", scope: scopeErase, serve: (*handler).eraseCustomer,
			doc: operation{id: "eraseCustomer", summary: "Erase a customer permanently",
				description: "Deletes the profile and those of all ids that were merged into it. Later events of these ids are dropped. The erasure of an id without a profile has the same effect on its events.",
				parameters:  []string{"Idempotency-Key"},
				answers:     answers("true"), refusals: []int{400, 406, 503}},
		},
		{
			method: http.MethodDelete, pattern: "/api/customer/{id}/erasure", page: "erasure", scope: scopeErase, serve: (*handler).readmitCustomer,
			doc: operation{id: "readmitCustomer", summary: "End the erasure of a customer",
				description: "Events from before the erasure remain dropped.",
				parameters:  []string{"Idempotency-Key"},
				answers:     answers("false"), refusals: []int{400, 404, 406, 500, 503}},
		},
		{
			method: http.MethodGet, pattern: "/api/customer/{id}/export", page: "export", scope: scopeExport, serve: (*handler).exportCustomer,
			doc: operation{id: "exportCustomer", summary: "All stored data of a customer",
				parameters: []string{"by"},
				answers: []outcome{{status: http.StatusOK, description: "All stored data.", content: []media{{typeJSON, "Export",
					`{"kind":"userId","id":"42","updated_at":"2026-01-30T10:00:00.000Z","traits":[{"name":"plan","value":"gold","stated_at":"2026-01-30T10:00:00.000Z","source":"crm"}],"events":[],"summaries":[],"merged":[{"kind":"anonymousId","id":"a-7"}],"segments":[],"identifiers":[{"name":"email","value":"jo@example.com"}],"messages":[]}`}}}},
				refusals: []int{400, 404, 406, 409, 500, 503}},
		},
	}
}

var noSuchCustomer = problem{status: http.StatusNotFound, code: "no_such_customer", message: "this customer has no profile"}

// eraseCustomer handles a DELETE of a customer as an erase event.
func (h *handler) eraseCustomer(w http.ResponseWriter, r *http.Request, v visit) int {
	return h.changeErasure(w, r, v, event.TypeErase)
}

// readmitCustomer handles a DELETE of an erasure as a readmit event.
func (h *handler) readmitCustomer(w http.ResponseWriter, r *http.Request, v visit) int {
	return h.changeErasure(w, r, v, event.TypeReadmit)
}

func (h *handler) changeErasure(w http.ResponseWriter, r *http.Request, v visit, kind string) int {
	messageID, refusal := h.checkWrite(r)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	ctx, cancel := context.WithDeadline(context.Background(), v.started.Add(h.conf.timeouts.request))
	defer cancel()
	customer, refusal := h.resolve(v.id, v.started)
	if refusal == &badRecord && kind == event.TypeErase {
		customer, refusal = customers.Result{ID: v.id}, nil // an unreadable record can be erased
	}
	switch {
	case refusal != nil:
		return refuse(w, r, refusal)
	case kind == event.TypeReadmit && !customer.Erased:
		return refuse(w, r, &problem{status: http.StatusNotFound, code: "not_erased", message: "this customer is not erased"})
	}
	now := time.Now().UnixMilli()
	if refusal = h.deliver(ctx, h.erasureEvent(kind, customer, messageID, v.caller.name, now)); refusal != nil {
		return refuse(w, r, refusal)
	}
	waitPast(now)
	if refusal = h.confirm(ctx, v, kind == event.TypeErase); refusal != nil {
		return refuse(w, r, refusal)
	}
	reply := append(writeReply(w, v.id, messageID), `,"erased":`...)
	reply = strconv.AppendBool(reply, kind == event.TypeErase)
	return send(w, r, http.StatusOK, valueJSON, append(reply, "}\n"...))
}

// confirm polls until a read shows the effect of the event: a replica may lag behind.
// It fails if there is none in time, because a pipeline without update_profile
// acknowledges the event and erases nothing.
func (h *handler) confirm(ctx context.Context, v visit, erased bool) *problem {
	for tries := 0; ; tries++ {
		customer, refusal := h.resolve(v.id, v.started)
		switch {
		case refusal == &tooSlow && tries > 0:
			return &notConfirmed // the deadline expired during a read
		case refusal != nil || customer.Erased == erased:
			return refusal
		}
		select {
		case <-ctx.Done():
			return &notConfirmed
		case <-time.After(10 * time.Millisecond):
		}
	}
}

var notConfirmed = problem{status: http.StatusServiceUnavailable, code: "not_confirmed", retryAfter: 1,
	message: "the pipeline acknowledged the event, but the profile is unchanged: add the processor update_profile to the pipeline, or retry later"}

// erasureEvent returns the event that erases or readmits a customer. For an id without
// a customer it has both kinds of id, because a customer may appear under either.
func (h *handler) erasureEvent(kind string, customer customers.Result, messageID, by string, now int64) []byte {
	e := jsontext.AppendString([]byte(`{"type":"`+kind+`","messageId":`), messageID)
	known := customer.Found || customer.Erased
	if !known || !customer.Anonymous {
		e = jsontext.AppendString(append(e, `,"userId":`...), customer.ID)
	}
	if !known || customer.Anonymous {
		e = jsontext.AppendString(append(e, `,"anonymousId":`...), customer.ID)
	}
	e = append(event.AppendTime(append(e, `,"timestamp":"`...), now), '"')
	e = append(event.AppendTime(append(e, `,"receivedAt":"`...), now), '"')
	e = jsontext.AppendString(append(e, `,"source":`...), h.conf.source)
	e = jsontext.AppendString(append(e, `,"context":{"erasure":{"by":`...), by)
	e = jsontext.AppendString(append(e, `,"subject":`...), auditSubject(h.conf.auditKey, customer.ID))
	return append(e, "}}}"...)
}

// auditSubject returns a hash that stands for the customer in an audit.
func auditSubject(key, id string) string {
	if key == "" {
		sum := sha256.Sum256([]byte(id))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(id))
	return "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil))
}

// exportCustomer serves all stored data of a customer.
func (h *handler) exportCustomer(w http.ResponseWriter, r *http.Request, v visit) int {
	if negotiate(r.Header["Accept"], typeJSON) == "" {
		return refuse(w, r, &problem{status: http.StatusNotAcceptable, code: "not_acceptable",
			message: "exports are served as " + typeJSON})
	}
	q, refusal := parseContentQuestion(r.URL.RawQuery)
	if refusal == nil && !q.AsOf.IsZero() {
		refusal = badRequest("unknown_parameter", "an export accepts no parameter other than by")
	}
	if refusal == nil {
		refusal = v.caller.takeProfiles(v.started, 1)
	}
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	ctx, cancel := context.WithDeadline(context.Background(), v.started.Add(h.conf.timeouts.request))
	defer cancel()
	result, err := h.reader.Export(ctx, v.id, q.By)
	refusal = h.readProblem(err)
	switch {
	case refusal != nil:
	case result.Err != nil:
		refusal = h.unreadable(result.Err)
	case !result.Found:
		refusal = &noSuchCustomer
	}
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	w.Header()["Cache-Control"] = valueNoStore
	return send(w, r, http.StatusOK, valueJSON, append(result.JSON, '\n'))
}
