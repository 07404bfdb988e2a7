// Package circuit provides a circuit breaker for calls to a service that may be
// down.
//
// A breaker is closed while calls succeed. After Failures failures in a row it
// opens: calls are refused (Allow) or wait (Wait). After a delay it is half-open
// and admits Probes calls at a time. If as many succeed it closes; if one fails it
// is open again, usually for longer. A service can also ask for a pause (HTTP's
// Retry-After), which holds calls back and does not count as a failure.
//
//	call, err := breaker.Wait(ctx)
//	if err != nil {
//		return err // ErrOpen, or the context ended
//	}
//	if err := request(); err != nil {
//		call.Failed(err)
//	} else {
//		call.Succeeded()
//	}
package circuit

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrOpen is the error of a call that the breaker refuses. It is joined with the
// failure that opened the circuit, if there is one.
var ErrOpen = errors.New("the circuit is open")

// State is the state of a breaker.
type State int

// The states. Their numbers are the values of a metric.
const (
	Closed State = iota
	HalfOpen
	Open
)

func (s State) String() string { return [...]string{"closed", "half-open", "open"}[s] }

// Config configures a Breaker.
type Config struct {
	// Failures is the number of failures in a row that opens the circuit; 0
	// never opens it.
	Failures int
	// Window and MinCalls open the circuit also when at least MinCalls calls
	// ended within Window and half of them failed. MinCalls 0 disables this rule.
	Window   time.Duration
	MinCalls int
	// ProbeDelay returns how long the circuit stays open before it is probed,
	// after a number of openings in a row, counted from 1.
	ProbeDelay func(openings int) time.Duration
	// Probes is the number of successful calls that closes the circuit, and the
	// maximum number of calls at a time while it is half-open; 0 means 1.
	Probes int
	// FailFast makes Wait return ErrOpen at once while the circuit does not
	// admit a probe. Otherwise Wait blocks.
	FailFast bool
	// OnChange is called for every change of state, with the failure that opened
	// the circuit (nil once it is closed). It must not call the breaker. May be nil.
	OnChange func(from, to State, reason error)
}

// Breaker is a circuit breaker, safe for concurrent use.
type Breaker struct {
	conf Config

	mu          sync.Mutex
	state       State
	failures    int       // in a row while closed
	openings    int       // in a row without closing
	retryAt     time.Time // while open: no probe before
	pausedUntil time.Time // requested by the service: no call before
	probes      int       // calls in flight while half-open
	successes   int       // while half-open
	lastFailure error
	window      window
	changed     chan struct{} // closed whenever one of the above changes
}

// New returns a closed breaker.
func New(conf Config) *Breaker {
	conf.Probes = max(conf.Probes, 1)
	return &Breaker{conf: conf, window: window{width: conf.Window / buckets}, changed: make(chan struct{})}
}

// State returns the current state. HalfOpen includes an open circuit whose delay
// is over, so that the next call is a probe.
func (b *Breaker) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Open && !time.Now().Before(b.retryAt) {
		return HalfOpen
	}
	return b.state
}

// Call is an admitted call. Exactly one of its methods must be called once.
type Call struct {
	breaker *Breaker
	// opening is the breaker's count of openings if the call is a probe, else 0.
	// The outcome of a probe counts only for the opening it belongs to.
	opening int
}

// Allow admits a call or returns ErrOpen. It does not block.
func (b *Breaker) Allow() (*Call, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if call, _ := b.admit(time.Now()); call != nil {
		return call, nil
	}
	return nil, errors.Join(ErrOpen, b.lastFailure)
}

// Wait blocks until a call is admitted. It returns ErrOpen if the wait would end
// after the deadline of ctx, or if FailFast is set and the circuit is open.
func (b *Breaker) Wait(ctx context.Context) (*Call, error) {
	for {
		b.mu.Lock()
		now := time.Now()
		call, wait := b.admit(now)
		failFast := b.state != Closed && b.conf.FailFast
		reason, changed := b.lastFailure, b.changed
		b.mu.Unlock()
		if call != nil {
			return call, nil
		}
		deadline, limited := ctx.Deadline()
		if failFast || limited && deadline.Sub(now) < wait {
			return nil, errors.Join(ErrOpen, reason)
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// admit returns a call, or how long to wait at least; 0 if only a change of the
// breaker can admit one. The lock is held.
func (b *Breaker) admit(now time.Time) (*Call, time.Duration) {
	wait := b.pausedUntil.Sub(now)
	if b.state == Open {
		wait = max(wait, b.retryAt.Sub(now))
	}
	if wait > 0 {
		return nil, wait
	}
	if b.state == Closed {
		return &Call{breaker: b}, 0
	}
	if b.state == Open {
		b.probes, b.successes = 0, 0
		b.setState(HalfOpen)
	}
	if b.probes+b.successes >= b.conf.Probes {
		return nil, 0
	}
	b.probes++
	return &Call{breaker: b, opening: b.openings}, 0
}

// setState changes the state and reports it. The lock is held.
func (b *Breaker) setState(to State) {
	from := b.state
	b.state = to
	if b.conf.OnChange != nil {
		b.conf.OnChange(from, to, b.lastFailure)
	}
}

// finish ends a call: it releases the place of a probe, applies the outcome, and
// wakes all waiting calls.
func (c *Call) finish(apply func(b *Breaker, now time.Time, isProbe bool)) {
	b := c.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	isProbe := c.opening > 0 && c.opening == b.openings && b.state == HalfOpen
	if isProbe {
		b.probes--
	}
	apply(b, time.Now(), isProbe)
	close(b.changed)
	b.changed = make(chan struct{})
}

// Succeeded reports that the service did its part. Calls that were in flight when
// the circuit opened help to close it.
func (c *Call) Succeeded() {
	c.finish(func(b *Breaker, now time.Time, _ bool) {
		b.failures = 0
		b.window.add(now, false)
		if b.state == Closed {
			b.lastFailure = nil
			return
		}
		if b.successes++; b.successes >= b.conf.Probes {
			b.openings, b.lastFailure, b.window = 0, nil, window{width: b.window.width}
			b.setState(Closed)
		}
	})
}

// Failed reports that the service did not do its part.
func (c *Call) Failed(reason error) {
	c.finish(func(b *Breaker, now time.Time, isProbe bool) {
		b.lastFailure = reason
		b.window.add(now, true)
		b.failures++
		if isProbe || b.state == Closed && b.shouldOpen(now) {
			b.openings++
			b.retryAt = now.Add(b.conf.ProbeDelay(b.openings))
			b.successes = 0
			b.setState(Open)
		}
	})
}

func (b *Breaker) shouldOpen(now time.Time) bool {
	if b.conf.Failures == 0 {
		return false
	}
	if b.failures >= b.conf.Failures {
		return true
	}
	calls, failures := b.window.total(now)
	return b.conf.MinCalls > 0 && calls >= b.conf.MinCalls && 2*failures >= calls
}

// Paused reports that the service works and accepts no call for a time.
func (c *Call) Paused(wait time.Duration) {
	c.finish(func(b *Breaker, now time.Time, _ bool) { b.pause(now, wait) })
}

// FailedAndPaused is Failed and Paused together.
func (c *Call) FailedAndPaused(reason error, wait time.Duration) {
	c.breaker.mu.Lock()
	c.breaker.pause(time.Now(), wait)
	c.breaker.mu.Unlock()
	c.Failed(reason)
}

func (b *Breaker) pause(now time.Time, wait time.Duration) {
	if until := now.Add(wait); until.After(b.pausedUntil) {
		b.pausedUntil = until
	}
}

// Canceled reports that the caller ended the call: it says nothing about the
// service.
func (c *Call) Canceled() { c.finish(func(*Breaker, time.Time, bool) {}) }

// buckets is the resolution of a window.
const buckets = 10

// window counts the calls of the last buckets * width.
type window struct {
	width time.Duration
	count [buckets]struct {
		index           int64
		calls, failures int
	}
}

func (w *window) add(now time.Time, failed bool) {
	if w.width <= 0 {
		return
	}
	index := now.UnixNano() / int64(w.width)
	c := &w.count[index%buckets]
	if c.index != index {
		c.index, c.calls, c.failures = index, 0, 0
	}
	c.calls++
	if failed {
		c.failures++
	}
}

func (w *window) total(now time.Time) (calls, failures int) {
	if w.width <= 0 {
		return 0, 0
	}
	oldest := now.UnixNano()/int64(w.width) - buckets
	for _, c := range w.count {
		if c.index > oldest {
			calls += c.calls
			failures += c.failures
		}
	}
	return calls, failures
}
