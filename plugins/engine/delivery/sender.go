// Package delivery sends elements to an HTTP API that accepts several of them in a
// request, such as an email platform's or another profile API's. It does not know
// the content of elements, nor HTTP: a Transport sends the requests.
//
// Deliver keeps a queue of its items. As long as fewer than Parallel requests are
// in flight, it composes the next request of the first items that may be sent
// together: equal targets, at most one per customer, no customer with an item in
// flight. Example, with MaxElements 2, items of customers A and B:
//
//	queue          A1 A2 B1 A3
//	request 1      A1 B1         A2 must wait for A1
//	response       A1 delivered, B1 "retry later"
//	queue          A2 A3 B1(in 1 s)
//	request 2      A2            A3 must wait for A2, B1 is not due
//
// The outcome of a request is one of three:
//
//   - delivered or rejected: every item is settled, except those that the response
//     marks to be retried;
//   - rejected as a whole with a status in Split: the items return to the queue and
//     may form requests of half the size only, so that the items that are at fault
//     end up alone;
//   - unknown (no response, or a status in Retried): the platform may have applied
//     the request, so exactly the same bytes are sent again with the same
//     idempotency key, and its items stay together until its outcome is known.
//
// All Delivers of a Sender share a circuit breaker, see package circuit.
package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/circuit"
)

// Sender delivers to one platform. It is safe for concurrent use.
type Sender struct {
	conf      Config
	transport Transport
	breaker   *circuit.Breaker
}

// New returns a Sender that sends its requests with a transport.
func New(conf Config, transport Transport) *Sender {
	return &Sender{conf: conf, transport: transport, breaker: circuit.New(circuit.Config{
		Failures: conf.Circuit.Failures, ProbeDelay: conf.Circuit.Probe.Delay, FailFast: conf.Circuit.FailFast,
		OnChange: func(from, to circuit.State, reason error) {
			// A probe that fails changes nothing for the operator.
			if conf.OnCircuit != nil && (from == circuit.Closed || to == circuit.Closed) {
				conf.OnCircuit(reason)
			}
		},
	})}
}

// queuedItem is an item that is not settled.
type queuedItem struct {
	Item
	target    string // Target.key
	index     int    // in the items of Deliver
	attempts  int
	notBefore time.Time
	// maxItems bounds the number of items in its next request.
	maxItems int
}

// request is a composed request. Every attempt sends the same bytes and the same
// idempotency key.
type request struct {
	items     []*queuedItem
	body      []byte
	key       string
	attempts  int
	notBefore time.Time
}

// outcome is the outcome of one attempt.
type outcome struct {
	*request
	response *Response
	// failures are those in the response, by position in the request.
	failures []*Failure
	// err is set if no response says anything about the items.
	err   error
	fatal bool // err ends the delivery
}

// Deliver sends the items and returns, when all of them are settled, an error for
// each item that was not delivered: *RejectedError, *UndeliveredError, or the error
// of ctx. GiveUpAfter is counted from began, which may be in the past.
func (s *Sender) Deliver(ctx context.Context, began time.Time, items []Item) []error {
	d := delivery{
		Sender: s, results: make([]error, len(items)), busyCustomers: map[string]bool{},
		outcomes: make(chan outcome),
	}
	for i := range items {
		d.queue = append(d.queue, &queuedItem{Item: items[i], target: items[i].Target.key(), index: i, maxItems: s.conf.MaxElements})
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if s.conf.GiveUpAfter > 0 {
		limited, cancel = context.WithDeadline(ctx, began.Add(s.conf.GiveUpAfter))
	}
	defer cancel()
	d.run(ctx, limited)
	return d.results
}

// delivery is the state of one Deliver, owned by the goroutine of run.
type delivery struct {
	*Sender
	results       []error
	queue         []*queuedItem   // in no request, in order
	retries       []*request      // to be sent again
	busyCustomers map[string]bool // with an item in a request
	inFlight      int
	outcomes      chan outcome
	lastFailure   error
}

func (d *delivery) run(ctx, limited context.Context) {
	for {
		parallel := d.conf.Parallel
		if d.breaker.State() != circuit.Closed {
			// The breaker admits one probe at a time; with FailFast it would end
			// the other requests.
			parallel = 1
		}
		for d.inFlight < parallel {
			r := d.next()
			if r == nil {
				break
			}
			d.inFlight++
			go func() { d.outcomes <- d.send(ctx, limited, r) }()
		}
		if d.inFlight == 0 && len(d.queue) == 0 && len(d.retries) == 0 {
			return
		}
		var timer <-chan time.Time
		if notBefore, ok := d.nextTime(); ok && d.inFlight < parallel {
			timer = time.After(time.Until(notBefore))
		}
		select {
		case o := <-d.outcomes:
			d.inFlight--
			d.settle(o)
			if o.fatal {
				d.abandon(ctx, o.err)
				return
			}
		case <-timer:
		case <-limited.Done():
			d.abandon(ctx, limited.Err())
			return
		}
	}
}

// abandon waits for the requests in flight, and ends all items that are not settled.
func (d *delivery) abandon(ctx context.Context, cause error) {
	for ; d.inFlight > 0; d.inFlight-- {
		d.settle(<-d.outcomes)
	}
	for _, r := range d.retries {
		d.queue = append(d.queue, r.items...)
	}
	for _, p := range d.queue {
		switch {
		case ctx.Err() != nil:
			d.results[p.index] = ctx.Err()
		case errors.Is(cause, circuit.ErrOpen):
			d.results[p.index] = &UndeliveredError{Code: CodeCircuitOpen, Last: d.circuitError(cause)}
		default:
			d.results[p.index] = &UndeliveredError{Code: CodeTimedOut, Last: d.lastFailure}
		}
	}
}

// circuitError returns the failure that opened the circuit.
func (d *delivery) circuitError(cause error) error {
	if joined, ok := cause.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			if err != circuit.ErrOpen {
				return err
			}
		}
	}
	return d.lastFailure
}

// next returns a request that can be sent now, nil if there is none.
func (d *delivery) next() *request {
	now := time.Now()
	for i, r := range d.retries {
		if !r.notBefore.After(now) {
			d.retries = append(d.retries[:i], d.retries[i+1:]...)
			return r
		}
	}
	for {
		chosen := d.choose(now)
		if len(chosen) == 0 {
			return nil
		}
		if r := d.compose(chosen); r != nil {
			return r
		}
	}
}

// nextTime returns when the delay of a retry or of a queued item ends. It reports
// false if there is no such delay.
func (d *delivery) nextTime() (time.Time, bool) {
	var notBefore time.Time
	for _, r := range d.retries {
		if notBefore.IsZero() || r.notBefore.Before(notBefore) {
			notBefore = r.notBefore
		}
	}
	now := time.Now()
	for _, p := range d.queue {
		// An item without a delay waits for its customer.
		if p.notBefore.After(now) && (notBefore.IsZero() || p.notBefore.Before(notBefore)) {
			notBefore = p.notBefore
		}
	}
	return notBefore, !notBefore.IsZero()
}

// choose returns the items of the next request: the first item that can be sent
// and those that can share its request. It keeps the order of each customer.
func (d *delivery) choose(now time.Time) []*queuedItem {
	var chosen []*queuedItem
	size, limit := 0, d.conf.MaxElements
	passed := map[string]bool{} // customers with an item before this one in the queue
	for _, p := range d.queue {
		if len(chosen) == limit {
			break
		}
		free := p.Customer == "" || !d.busyCustomers[p.Customer] && !passed[p.Customer]
		fits := len(chosen) == 0 || p.target == chosen[0].target && len(chosen) < p.maxItems && size+len(p.Element) <= d.conf.MaxBytes
		if p.notBefore.After(now) || !free || !fits {
			passed[p.Customer] = true
			continue
		}
		passed[p.Customer] = true
		chosen = append(chosen, p)
		size += len(p.Element) + 1
		limit = min(limit, p.maxItems)
	}
	return chosen
}

// compose composes a request of the chosen items and removes them from the queue.
// While the body is too large it halves the items. It returns nil if it had to
// reject the first item.
func (d *delivery) compose(chosen []*queuedItem) *request {
	for n := len(chosen); ; n /= 2 {
		body, err := d.conf.Compose(elementsOf(chosen[:n]))
		if err == nil && len(body) <= d.conf.MaxBytes {
			r := &request{items: chosen[:n:n], body: body, key: idempotencyKey(chosen[:n])}
			d.dequeue(r.items)
			for _, p := range r.items {
				if p.Customer != "" {
					d.busyCustomers[p.Customer] = true
				}
			}
			return r
		}
		if n == 1 {
			code := CodeTooLarge
			if err != nil {
				code = CodeInvalidRequest
			}
			d.dequeue(chosen[:1])
			d.results[chosen[0].index] = &RejectedError{Code: code}
			return nil
		}
	}
}

func elementsOf(items []*queuedItem) []json.RawMessage {
	elements := make([]json.RawMessage, len(items))
	for i, p := range items {
		elements[i] = p.Element
	}
	return elements
}

// dequeue removes items from the queue.
func (d *delivery) dequeue(items []*queuedItem) {
	kept, i := d.queue[:0], 0
	for _, p := range d.queue {
		if i < len(items) && p == items[i] {
			i++
			continue
		}
		kept = append(kept, p)
	}
	d.queue = kept
}

// requeue returns items to their old places in the queue.
func (d *delivery) requeue(items []*queuedItem) {
	if len(items) == 0 {
		return
	}
	merged := make([]*queuedItem, 0, len(d.queue)+len(items))
	a, b := d.queue, items
	for len(a) > 0 && len(b) > 0 {
		if a[0].index < b[0].index {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	d.queue = append(append(merged, a...), b...)
}

// settle applies the outcome of a request to its items.
func (d *delivery) settle(o outcome) {
	if o.err != nil {
		if !o.fatal {
			d.lastFailure = o.err
		}
		o.attempts++
		o.notBefore = time.Now().Add(d.conf.Retry.Delay(o.attempts))
		d.retries = append(d.retries, o.request)
		return
	}
	for _, p := range o.items {
		delete(d.busyCustomers, p.Customer)
	}
	delivered := d.conf.Delivered.Contains(o.response.Status)

	var unsettled []*queuedItem
	named := false
	for i, p := range o.items {
		switch f := o.failures[i]; {
		case f == nil:
			if !delivered {
				unsettled = append(unsettled, p)
			}
		case f.Retry:
			named = true
			d.lastFailure = fmt.Errorf("status %d: %s", o.response.Status, f.code())
			p.attempts++
			p.notBefore = time.Now().Add(d.conf.Retry.Delay(p.attempts))
			unsettled = append(unsettled, p)
		default:
			named = true
			d.results[p.index] = &RejectedError{Status: o.response.Status, Code: f.code()}
		}
	}
	if !delivered && !named {
		// The response does not say which of the items is at fault.
		if half := (len(o.items) + 1) / 2; half < len(o.items) && d.conf.Split.Contains(o.response.Status) {
			for _, p := range unsettled {
				p.maxItems = half
			}
		} else {
			for _, p := range unsettled {
				d.results[p.index] = &RejectedError{Status: o.response.Status, Code: CodeRejected}
			}
			unsettled = nil
		}
	}
	d.requeue(unsettled)
}

func (f *Failure) code() string {
	if f.Code == "" {
		return CodeRejected
	}
	return f.Code
}

// send makes one attempt and returns its outcome. limited is ctx with the time
// limit of the delivery.
func (s *Sender) send(ctx, limited context.Context, r *request) outcome {
	o := outcome{request: r}
	var call *circuit.Call
	if call, o.err = s.breaker.Wait(limited); o.err != nil {
		o.fatal = true
		return o
	}
	began := time.Now()
	o.response, o.err = s.attempt(limited, r)
	switch {
	case o.err != nil && ctx.Err() != nil, errors.Is(o.err, errLimit):
		call.Canceled()
		o.fatal = true
		return o
	case o.err != nil:
		s.observe(0, began)
		call.Failed(o.err)
		// A request that the time limit ends is a failure of the platform too.
		o.fatal = limited.Err() != nil
		return o
	}
	status := o.response.Status
	s.observe(status, began)
	if s.conf.Retried.Contains(status) {
		o.err = fmt.Errorf("status %d", status)
		wait, requested := requestedPause(o.response.Header, s.conf.ResetHeader, time.Now(), s.conf.MaxRetryAfter)
		switch {
		case status == statusTooManyRequests && !requested:
			call.Paused(s.conf.Retry.Delay(r.attempts + 1))
		case status == statusTooManyRequests:
			call.Paused(wait)
		case requested:
			call.FailedAndPaused(o.err, wait)
		default:
			call.Failed(o.err)
		}
		return o
	}
	if o.failures, o.err = s.findFailures(o.response, r); o.err != nil {
		call.Failed(o.err)
		return o
	}
	call.Succeeded()
	return o
}

func (s *Sender) observe(status int, began time.Time) {
	if s.conf.OnResponse != nil {
		s.conf.OnResponse(status, time.Since(began))
	}
}

// findFailures returns the failures in a response, by position in the request.
func (s *Sender) findFailures(response *Response, r *request) ([]*Failure, error) {
	failures := make([]*Failure, len(r.items))
	if s.conf.FindFailures == nil {
		return failures, nil
	}
	named, err := s.conf.FindFailures(response, elementsOf(r.items))
	if err != nil {
		return nil, fmt.Errorf("the response with status %d cannot be parsed: %w", response.Status, err)
	}
	// A rejection takes precedence over a retry of the same element.
	set := func(i int, f *Failure) {
		if failures[i] == nil || failures[i].Retry {
			failures[i] = f
		}
	}
	for n := range named {
		f := &named[n]
		switch {
		case f.Index >= len(r.items):
			return nil, fmt.Errorf("the response with status %d names an element that the request does not have", response.Status)
		case f.Index >= 0:
			set(f.Index, f)
		default:
			known := f.Customer == ""
			for i, item := range r.items {
				if f.Customer == "" || item.Customer == f.Customer {
					set(i, f)
					known = true
				}
			}
			if !known {
				return nil, fmt.Errorf("the response with status %d names a customer that the request does not have", response.Status)
			}
		}
	}
	return failures, nil
}

// errLimit is the error of a request that waited for the rate limit until the end
// of its context.
var errLimit = errors.New("the rate limit did not allow the request in time")

// attempt sends a request once.
func (s *Sender) attempt(ctx context.Context, r *request) (*Response, error) {
	sent := &Request{Target: r.items[0].Target, Body: r.body, Key: r.key}
	sent.Header = maps.Clone(sent.Header)
	if sent.Header == nil {
		sent.Header = Header{}
	}
	if s.conf.IdempotencyHeader != "" {
		sent.Header.Set(s.conf.IdempotencyHeader, r.key)
	}
	if s.conf.Limit != nil {
		if err := s.conf.Limit(ctx); err != nil {
			return nil, errors.Join(errLimit, err)
		}
	}
	if s.conf.Authorize != nil {
		if err := s.conf.Authorize(sent, time.Now()); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.conf.Timeout)
	defer cancel()
	return s.transport(ctx, sent)
}
