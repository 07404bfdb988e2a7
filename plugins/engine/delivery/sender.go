package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Sender delivers to one platform. It is safe for concurrent use.
type Sender struct {
	conf    Config
	client  *http.Client
	circuit *circuit
}

// New returns a sender that makes its requests by a transport.
func New(conf Config, transport http.RoundTripper) *Sender {
	return &Sender{
		conf: conf,
		client: &http.Client{
			Transport: transport,
			// What is secret goes to the address in the config and no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		circuit: newCircuit(conf.Circuit, conf.OnCircuit),
	}
}

// parcel is an item on its way.
type parcel struct {
	Item
	target   string // Target.key
	at       int    // its position in the delivery
	attempts int
	due      time.Time
	// share is how many items its next request may have.
	share int
}

// request is what is sent, again and again if need be: a request that is
// repeated is the same to the byte, with the same idempotency key.
type request struct {
	parcels  []*parcel
	body     []byte
	key      string
	attempts int
	due      time.Time
}

// outcome is what came of a request.
type outcome struct {
	*request
	answer *Answer
	// failures are those that the answer names, by position in the request.
	failures []*Failure
	// err tells that there is no answer that says anything about the items.
	err   error
	fatal bool // err ends the delivery
}

// Deliver sends the items and returns, when all are settled, an error for each
// that was not delivered: *Refused, *GaveUp, or that of the context. The time
// for it is counted from when it began, which may be before.
func (s *Sender) Deliver(ctx context.Context, began time.Time, items []Item) []error {
	d := delivery{
		Sender: s, results: make([]error, len(items)), busy: map[string]bool{},
		outcomes: make(chan outcome),
	}
	for i := range items {
		d.waiting = append(d.waiting, &parcel{Item: items[i], target: items[i].Target.key(), at: i, share: s.conf.MaxElements})
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if s.conf.GiveUpAfter > 0 {
		limited, cancel = context.WithDeadline(ctx, began.Add(s.conf.GiveUpAfter))
	}
	defer cancel()
	d.run(ctx, limited)
	return d.results
}

// delivery is one call of Deliver. Its fields belong to the goroutine of run.
type delivery struct {
	*Sender
	results  []error
	waiting  []*parcel       // in no request, in order
	repeats  []*request      // to be sent again
	busy     map[string]bool // customers with an item in a request
	underWay int
	outcomes chan outcome
	last     error // that kept something from being delivered
}

func (d *delivery) run(ctx, limited context.Context) {
	for {
		parallel := d.conf.Parallel
		if d.circuit.isOpen() {
			// Only one could go through, and the others would be given up.
			parallel = 1
		}
		for d.underWay < parallel {
			r := d.next()
			if r == nil {
				break
			}
			d.underWay++
			go func() { d.outcomes <- d.send(ctx, limited, r) }()
		}
		if d.underWay == 0 && len(d.waiting) == 0 && len(d.repeats) == 0 {
			return
		}
		var alarm <-chan time.Time
		if due, ok := d.nextDue(); ok && d.underWay < parallel {
			alarm = time.After(time.Until(due))
		}
		select {
		case o := <-d.outcomes:
			d.underWay--
			d.settle(o)
			if o.fatal {
				d.abandon(ctx, o.err)
				return
			}
		case <-alarm:
		case <-limited.Done():
			d.abandon(ctx, limited.Err())
			return
		}
	}
}

// abandon waits for what is under way, and ends all that is not settled.
func (d *delivery) abandon(ctx context.Context, cause error) {
	for ; d.underWay > 0; d.underWay-- {
		d.settle(<-d.outcomes)
	}
	for _, r := range d.repeats {
		d.waiting = append(d.waiting, r.parcels...)
	}
	for _, p := range d.waiting {
		switch {
		case ctx.Err() != nil:
			d.results[p.at] = ctx.Err()
		case errors.Is(cause, errOpen):
			d.results[p.at] = &GaveUp{Code: CodeCircuitOpen, Last: d.circuitError(cause)}
		default:
			d.results[p.at] = &GaveUp{Code: CodeGaveUp, Last: d.last}
		}
	}
}

// circuitError is what opened the circuit.
func (d *delivery) circuitError(cause error) error {
	if joined, ok := cause.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			if err != errOpen {
				return err
			}
		}
	}
	return d.last
}

// next returns a request that can be sent now, or nil.
func (d *delivery) next() *request {
	now := time.Now()
	for i, r := range d.repeats {
		if !r.due.After(now) {
			d.repeats = append(d.repeats[:i], d.repeats[i+1:]...)
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

// nextDue is when there may be something to send without anything happening.
func (d *delivery) nextDue() (time.Time, bool) {
	var due time.Time
	for _, r := range d.repeats {
		if due.IsZero() || r.due.Before(due) {
			due = r.due
		}
	}
	now := time.Now()
	for _, p := range d.waiting {
		// One that is due already waits for its customer, not for its time.
		if p.due.After(now) && (due.IsZero() || p.due.Before(due)) {
			due = p.due
		}
	}
	return due, !due.IsZero()
}

// choose returns the items of the next request: the first that can be sent, and
// what can go with it. No item goes before an earlier one of its customer.
func (d *delivery) choose(now time.Time) []*parcel {
	var chosen []*parcel
	size, share := 0, d.conf.MaxElements
	passed := map[string]bool{} // customers with an item that stays
	for _, p := range d.waiting {
		if len(chosen) == share {
			break
		}
		free := p.Customer == "" || !d.busy[p.Customer] && !passed[p.Customer]
		fits := len(chosen) == 0 || p.target == chosen[0].target && len(chosen) < p.share && size+len(p.Element) <= d.conf.MaxBytes
		if p.due.After(now) || !free || !fits {
			passed[p.Customer] = true
			continue
		}
		// A request has no two items of a customer.
		passed[p.Customer] = true
		chosen = append(chosen, p)
		size += len(p.Element) + 1
		share = min(share, p.share)
	}
	return chosen
}

// compose makes a request of as many of the chosen items as it may have, and
// takes them out of those that wait. It returns nil if it had to refuse one.
func (d *delivery) compose(chosen []*parcel) *request {
	for n := len(chosen); ; n /= 2 {
		body, err := d.conf.Compose(elementsOf(chosen[:n]))
		if err == nil && len(body) <= d.conf.MaxBytes {
			r := &request{parcels: chosen[:n:n], body: body, key: key(chosen[:n])}
			d.take(r.parcels)
			for _, p := range r.parcels {
				if p.Customer != "" {
					d.busy[p.Customer] = true
				}
			}
			return r
		}
		if n == 1 {
			code := CodeTooLarge
			if err != nil {
				code = CodeUncomposed
			}
			d.take(chosen[:1])
			d.results[chosen[0].at] = &Refused{Code: code}
			return nil
		}
	}
}

func elementsOf(parcels []*parcel) []json.RawMessage {
	elements := make([]json.RawMessage, len(parcels))
	for i, p := range parcels {
		elements[i] = p.Element
	}
	return elements
}

// take removes items from those that wait.
func (d *delivery) take(parcels []*parcel) {
	kept, i := d.waiting[:0], 0
	for _, p := range d.waiting {
		if i < len(parcels) && p == parcels[i] {
			i++
			continue
		}
		kept = append(kept, p)
	}
	d.waiting = kept
}

// putBack makes items wait again, in their old order.
func (d *delivery) putBack(parcels []*parcel) {
	if len(parcels) == 0 {
		return
	}
	merged := make([]*parcel, 0, len(d.waiting)+len(parcels))
	a, b := d.waiting, parcels
	for len(a) > 0 && len(b) > 0 {
		if a[0].at < b[0].at {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	d.waiting = append(append(merged, a...), b...)
}

// settle takes note of what came of a request.
func (d *delivery) settle(o outcome) {
	if o.err != nil {
		if !o.fatal {
			d.last = o.err
		}
		o.attempts++
		o.due = time.Now().Add(d.conf.Retry.After(o.attempts))
		d.repeats = append(d.repeats, o.request)
		return
	}
	for _, p := range o.parcels {
		delete(d.busy, p.Customer)
	}
	delivered := d.conf.Delivered.Has(o.answer.Status)

	var again []*parcel
	named := false
	for i, p := range o.parcels {
		switch f := o.failures[i]; {
		case f == nil:
			if !delivered {
				again = append(again, p)
			}
		case f.Retry:
			named = true
			d.last = fmt.Errorf("status %d: %s", o.answer.Status, f.code())
			p.attempts++
			p.due = time.Now().Add(d.conf.Retry.After(p.attempts))
			again = append(again, p)
		default:
			named = true
			d.results[p.at] = &Refused{Status: o.answer.Status, Code: f.code()}
		}
	}
	if !delivered && !named {
		// Nobody knows which of the items is to blame.
		if half := (len(o.parcels) + 1) / 2; half < len(o.parcels) && d.conf.Split.Has(o.answer.Status) {
			for _, p := range again {
				p.share = half
			}
		} else {
			for _, p := range again {
				d.results[p.at] = &Refused{Status: o.answer.Status, Code: CodeRefused}
			}
			again = nil
		}
	}
	d.putBack(again)
}

func (f *Failure) code() string {
	if f.Code == "" {
		return CodeRefused
	}
	return f.Code
}

// send makes a request, and says what came of it. limited is ctx with the time
// limit of the delivery.
func (s *Sender) send(ctx, limited context.Context, r *request) outcome {
	o := outcome{request: r}
	var probe bool
	if probe, o.err = s.circuit.enter(limited); o.err != nil {
		o.fatal = true
		return o
	}
	began := time.Now()
	o.answer, o.err = s.try(limited, r)
	switch {
	case o.err != nil && ctx.Err() != nil, errors.Is(o.err, errLimit):
		s.circuit.left(probe)
		o.fatal = true
		return o
	case o.err != nil:
		s.observe(0, began)
		s.circuit.failed(probe, o.err)
		// What is cut off by the time limit is a failure of the platform too.
		o.fatal = limited.Err() != nil
		return o
	}
	status := o.answer.Status
	s.observe(status, began)
	if s.conf.Retried.Has(status) {
		o.err = fmt.Errorf("status %d", status)
		wait, asked := askedFor(o.answer.Header, s.conf.ResetHeader, time.Now(), s.conf.MaxRetryAfter)
		overloaded := status == http.StatusTooManyRequests
		if !overloaded {
			s.circuit.failed(probe, o.err)
		}
		if overloaded && !asked {
			wait = s.conf.Retry.After(r.attempts + 1)
		}
		if overloaded || asked {
			s.circuit.asked(probe, wait)
		}
		return o
	}
	if o.failures, o.err = s.judge(o.answer, r); o.err != nil {
		s.circuit.failed(probe, o.err)
		return o
	}
	s.circuit.succeeded()
	return o
}

func (s *Sender) observe(status int, began time.Time) {
	if s.conf.OnAnswer != nil {
		s.conf.OnAnswer(status, time.Since(began))
	}
}

// judge returns the failures that an answer names, by position.
func (s *Sender) judge(answer *Answer, r *request) ([]*Failure, error) {
	failures := make([]*Failure, len(r.parcels))
	if s.conf.Judge == nil {
		return failures, nil
	}
	named, err := s.conf.Judge(answer, elementsOf(r.parcels))
	if err != nil {
		return nil, fmt.Errorf("the answer with status %d cannot be understood: %w", answer.Status, err)
	}
	// An element that is named more than once is refused if any says so.
	note := func(i int, f *Failure) {
		if failures[i] == nil || failures[i].Retry {
			failures[i] = f
		}
	}
	for n := range named {
		f := &named[n]
		switch {
		case f.Index >= len(r.parcels):
			return nil, fmt.Errorf("the answer with status %d names an element that the request does not have", answer.Status)
		case f.Index >= 0:
			note(f.Index, f)
		default:
			known := f.Customer == ""
			for i, p := range r.parcels {
				if f.Customer == "" || p.Customer == f.Customer {
					note(i, f)
					known = true
				}
			}
			if !known {
				return nil, fmt.Errorf("the answer with status %d names a customer that the request does not have", answer.Status)
			}
		}
	}
	return failures, nil
}

// errLimit is why a request was not made that waited for its rate limit.
var errLimit = errors.New("no turn by the rate limit")

// try makes one attempt.
func (s *Sender) try(ctx context.Context, r *request) (*Answer, error) {
	target := &r.parcels[0].Target
	req, err := http.NewRequestWithContext(ctx, target.Verb, target.URL, bytes.NewReader(r.body))
	if err != nil {
		return nil, errors.New("no request can be made of url and verb")
	}
	for name, values := range target.Header {
		req.Header[name] = values
	}
	if s.conf.IdempotencyHeader != "" {
		req.Header.Set(s.conf.IdempotencyHeader, r.key)
	}
	if s.conf.Limit != nil {
		if err := s.conf.Limit(req); err != nil {
			return nil, errors.Join(errLimit, err)
		}
	}
	if s.conf.Authorize != nil {
		if err := s.conf.Authorize(req, r.body, r.key, time.Now()); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.conf.Timeout)
	defer cancel()
	response, err := s.client.Do(req.WithContext(ctx))
	if err != nil {
		return nil, s.plain(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(s.conf.MaxAnswerBytes)+1))
	if err != nil {
		return nil, s.plain(err)
	}
	if len(body) > s.conf.MaxAnswerBytes {
		return nil, errors.New("the answer is longer than it may be")
	}
	return &Answer{Status: response.StatusCode, Header: response.Header, Body: body}, nil
}

// plain says what went wrong on the wire, and nothing of what was on it: neither
// the address, which may hold a token, nor what came back.
func (s *Sender) plain(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed before the end of the answer")
	}
	if cause, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cause
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return errors.New("the host is not known")
	}
	if cause, ok := errors.AsType[syscall.Errno](err); ok {
		return cause
	}
	return errors.New("the connection broke, or the answer is not HTTP")
}
