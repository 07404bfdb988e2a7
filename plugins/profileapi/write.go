package profileapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// write is an event on its way through the pipeline.
type write struct {
	event []byte
	// done receives the outcome. It is buffered, so that the pipeline never waits for
	// a request that timed out.
	done chan error
}

// settle reports the outcome of the pipeline; further outcomes are ignored.
func (w *write) settle(err error) {
	select {
	case w.done <- err:
	default:
	}
}

// writeTraits converts a PUT or PATCH into an identify event and responds once the
// pipeline has acknowledged it.
//
// PATCH sets the given traits and unsets those that are null. PUT replaces all traits:
// it also unsets the traits that a read finds and the body lacks. The event is of the
// same kind for both, so a newer trait of another source takes precedence, as over any
// event.
func (h *handler) writeTraits(w http.ResponseWriter, r *http.Request, v visit) int {
	messageID, refusal := h.checkWrite(r)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	accepted := []string{typeJSON}
	if r.Method == http.MethodPatch {
		accepted = append(accepted, typeMergePatch)
	}
	body, refusal := readBody(w, r, h.conf.limits.traitsBytes, accepted...)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	given, refusal := parseTraits(body)
	if refusal != nil {
		return refuse(w, r, refusal)
	}

	ctx, cancel := context.WithDeadline(context.Background(), v.started.Add(h.conf.timeouts.request))
	defer cancel()
	customer, refusal := h.resolve(v.id, v.started)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	if customer.Erased {
		return refuse(w, r, &problem{status: http.StatusConflict, code: "erased",
			message: "the customer is erased: no data is accepted until DELETE /api/customer/{id}/erasure"})
	}
	if r.Method == http.MethodPut {
		present, err := traitNames(customer)
		if err != nil {
			return refuse(w, r, h.unreadable(err))
		}
		given = given.unset(present)
	}
	now := time.Now().UnixMilli()
	if refusal = h.deliver(ctx, identify(customer, messageID, h.conf.source, now, given.json)); refusal != nil {
		return refuse(w, r, refusal)
	}
	waitPast(now)
	return send(w, r, http.StatusAccepted, valueJSON, append(writeReply(w, v.id, messageID), "}\n"...))
}

// checkWrite checks the parts that all requests which change a customer have in common,
// and returns the messageId of their event.
func (h *handler) checkWrite(r *http.Request) (messageID string, refusal *problem) {
	if !h.conf.writes {
		return "", &problem{status: http.StatusForbidden, code: "writes_disabled",
			message: "this API accepts no writes: set the field writes to true"}
	}
	if negotiate(r.Header["Accept"], typeJSON) == "" {
		return "", &problem{status: http.StatusNotAcceptable, code: "not_acceptable",
			message: "the response is served as " + typeJSON}
	}
	if refusal := byIDAlone(r.URL.RawQuery); refusal != nil {
		return "", refusal
	}
	messageID, refusal = parseIdempotencyKey(r.Header["Idempotency-Key"])
	if refusal == nil && messageID == "" {
		messageID = "api-" + rand.Text()
	}
	return messageID, refusal
}

// writeReply returns the beginning of the response to a write. It has the id as given:
// a token with the scope write alone must not learn which customer an anonymousId
// belongs to.
func writeReply(w http.ResponseWriter, id, messageID string) []byte {
	w.Header()["Cache-Control"] = valueNoStore
	reply := jsontext.AppendString([]byte(`{"id":`), id)
	return jsontext.AppendString(append(reply, `,"message_id":`...), messageID)
}

// resolve returns the customer of a write, the one that a read of id finds, with its
// traits. Without one it returns a new customer with id as its userId.
func (h *handler) resolve(id string, started time.Time) (customers.Result, *problem) {
	q := question{Query: customers.Query{Fields: []string{"traits"}, Fresh: true}, text: "traits"}
	customer, refusal := h.readOne(id, q, started)
	if !customer.Found && !customer.Erased {
		customer = customers.Result{ID: id}
	}
	return customer, refusal
}

// traitNames returns the names of the traits of a customer, sorted.
func traitNames(customer customers.Result) ([]string, error) {
	if !customer.Found {
		return nil, nil
	}
	var profile struct {
		Traits map[string]json.RawMessage `json:"traits"`
	}
	if err := json.Unmarshal(customer.JSON, &profile); err != nil {
		return nil, errors.New("the profile is not valid JSON")
	}
	names := make([]string, 0, len(profile.Traits))
	for name := range profile.Traits {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// identify returns the event of a write. It has a userId or an anonymousId, never
// both, because that would merge two customers.
func identify(customer customers.Result, messageID, source string, now int64, traits []byte) []byte {
	e := make([]byte, 0, 256+len(customer.ID)+len(messageID)+len(traits))
	e = jsontext.AppendString(append(e, `{"type":"identify","messageId":`...), messageID)
	if customer.Anonymous {
		e = append(e, `,"anonymousId":`...)
	} else {
		e = append(e, `,"userId":`...)
	}
	e = jsontext.AppendString(e, customer.ID)
	e = append(event.AppendTime(append(e, `,"timestamp":"`...), now), '"')
	e = append(event.AppendTime(append(e, `,"receivedAt":"`...), now), '"')
	e = jsontext.AppendString(append(e, `,"source":`...), source)
	e = append(append(e, `,"traits":`...), traits...)
	return append(e, '}')
}

// waitPast returns after the millisecond of an event, so that the caller's next write
// has a later timestamp and takes precedence.
func waitPast(ms int64) {
	if left := time.Until(time.UnixMilli(ms + 1)); left > 0 {
		time.Sleep(min(left, time.Millisecond))
	}
}

// deliver passes an event to the pipeline and waits for its acknowledgement.
func (h *handler) deliver(ctx context.Context, e []byte) *problem {
	if h.isDraining() {
		return &stopping
	}
	wr := &write{event: e, done: make(chan error, 1)}
	select {
	case h.writes <- wr:
	case <-h.draining:
		return &stopping
	case <-ctx.Done():
		return &problem{status: http.StatusServiceUnavailable, code: "busy", retryAfter: 1,
			message: "the pipeline did not accept the write in time: retry later"}
	}
	const unknown = "; it may have been stored, so retry with the same Idempotency-Key"
	select {
	case err := <-wr.done:
		return storeProblem(err)
	case <-h.gone:
		// The outcome may have arrived just before.
		select {
		case err := <-wr.done:
			return storeProblem(err)
		default:
		}
		return &problem{status: http.StatusServiceUnavailable, code: "stopping", retryAfter: 5,
			message: "this process stopped before the write was acknowledged" + unknown}
	case <-ctx.Done():
		return &problem{status: http.StatusServiceUnavailable, code: "timeout", retryAfter: 1,
			message: "the pipeline did not acknowledge the write in time" + unknown}
	}
}

// storeProblem returns the refusal for the outcome of the pipeline.
func storeProblem(err error) *problem {
	if err == nil {
		return nil
	}
	return &problem{status: http.StatusServiceUnavailable, code: "not_stored", retryAfter: 1,
		message: "the pipeline could not store the write: retry later"}
}

// maxWrites is the maximum number of writes in a batch.
const maxWrites = 100

// collect returns first and all other waiting writes as one batch. Its acknowledgement
// settles each of them.
func (h *handler) collect(first *write) (service.MessageBatch, service.AckFunc) {
	writes := []*write{first}
	for more := true; more && len(writes) < maxWrites; {
		select {
		case w := <-h.writes:
			writes = append(writes, w)
		default:
			more = false
		}
	}
	batch := make(service.MessageBatch, len(writes))
	for i, w := range writes {
		batch[i] = service.NewMessage(w.event)
	}
	index := batch.Index()
	return batch, func(_ context.Context, err error) error {
		outcomes := make([]error, len(writes))
		var partly *service.BatchError
		if errors.As(err, &partly) && partly.IndexedErrors() > 0 {
			partly.WalkMessagesIndexedBy(index, func(i int, _ *service.Message, err error) bool {
				if err == nil {
					return true
				}
				if i < 0 || i >= len(outcomes) {
					// The error names no message of the batch.
					fill(outcomes, fmt.Errorf("part of the batch failed: %w", err))
					return false
				}
				outcomes[i] = err
				return true
			})
		} else {
			fill(outcomes, err)
		}
		for i, w := range writes {
			w.settle(outcomes[i])
		}
		return nil
	}
}

func fill(errs []error, err error) {
	for i := range errs {
		errs[i] = err
	}
}
