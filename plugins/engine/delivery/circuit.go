package delivery

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Circuit says when a platform is taken to be down, and what then happens to
// what should be sent to it.
type Circuit struct {
	// Failures is how many requests in a row must fail.
	Failures int
	// Probe is the time between requests that try whether it is back.
	Probe Backoff
	// FailFast gives up at once what should be sent while it is down, but for
	// the probes. Otherwise it waits.
	FailFast bool
}

// errOpen is returned instead of a wait by a circuit that fails fast, and by any
// for which the wait would be longer than there is time.
var errOpen = errors.New("the circuit is open")

// circuit is the state of a platform, shared by all that is sent to it. It is
// closed while requests succeed. After a number of failures it is open: one
// request at a time goes through, to try, with growing pauses.
type circuit struct {
	Circuit
	onChange func(reason error)

	mu       sync.Mutex
	failures int           // in a row
	probes   int           // failed since it opened
	retryAt  time.Time     // when it is open, no probe before
	paused   time.Time     // the platform wants nothing before
	probing  bool          // a probe is under way
	last     error         // the failure that opened it
	changed  chan struct{} // closed when the above changes
}

func newCircuit(c Circuit, onChange func(error)) *circuit {
	return &circuit{Circuit: c, onChange: onChange, changed: make(chan struct{})}
}

func (c *circuit) open() bool { return c.failures >= c.Failures }

func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open()
}

// signal wakes those who wait. The lock is held.
func (c *circuit) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// enter waits until a request may be sent, and tells whether it is a probe.
// Whoever enters has to say what became of it.
func (c *circuit) enter(ctx context.Context) (probe bool, err error) {
	for {
		c.mu.Lock()
		now := time.Now()
		wait := c.paused.Sub(now)
		if c.open() {
			wait = max(wait, c.retryAt.Sub(now))
		}
		if wait <= 0 && !(c.open() && c.probing) {
			probe = c.open()
			c.probing = probe
			c.mu.Unlock()
			return probe, nil
		}
		hopeless := c.open() && c.FailFast
		if deadline, ok := ctx.Deadline(); ok && deadline.Sub(now) < wait {
			hopeless = true
		}
		last, changed := c.last, c.changed
		c.mu.Unlock()
		if hopeless {
			return false, errors.Join(errOpen, last)
		}

		var alarm <-chan time.Time
		if wait > 0 {
			alarm = time.After(wait)
		}
		select {
		case <-alarm:
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// succeeded tells that the platform answered.
func (c *circuit) succeeded() {
	c.mu.Lock()
	wasOpen := c.open()
	c.failures, c.probes, c.probing, c.last = 0, 0, false, nil
	c.signal()
	c.mu.Unlock()
	if wasOpen && c.onChange != nil {
		c.onChange(nil)
	}
}

// failed tells that the platform did not do its part.
func (c *circuit) failed(probe bool, reason error) {
	c.mu.Lock()
	wasOpen := c.open()
	c.failures++
	c.last = reason
	if c.open() {
		// Requests that were under way when it opened are no probes.
		if !wasOpen || probe {
			c.probes++
			c.retryAt = time.Now().Add(c.Probe.After(c.probes))
		}
	}
	c.probing = c.probing && !probe
	opened := !wasOpen && c.open()
	c.signal()
	c.mu.Unlock()
	if opened && c.onChange != nil {
		c.onChange(reason)
	}
}

// asked tells that the platform wants nothing to be sent for a time. It lives.
func (c *circuit) asked(probe bool, wait time.Duration) {
	c.mu.Lock()
	if until := time.Now().Add(wait); until.After(c.paused) {
		c.paused = until
	}
	c.probing = c.probing && !probe
	c.signal()
	c.mu.Unlock()
}

// left tells that a request ended for reasons of our own.
func (c *circuit) left(probe bool) {
	c.mu.Lock()
	c.probing = c.probing && !probe
	c.signal()
	c.mu.Unlock()
}
