package profileapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections is a listener that bounds the number of open connections, such that idle
// or slow clients cannot keep active ones out.
//
// If all places are taken, a new connection replaces the connection that has been idle
// (or without a complete request) the longest, if for at least minIdle. If all of them
// are working on a request, it replaces the one with the oldest request, if that
// exceeds the request timeout. Otherwise it waits. Example with a limit of 2:
//
//	A idle for 3 s, B working   C connects: A is closed, C takes its place
//	A and B working for 1 s     C waits until one of them ends, or for 4 s more
//	                            with a request timeout of 5 s
type connections struct {
	net.Listener
	limit int
	// requestTimeout is the duration of a request after which its connection may be
	// replaced.
	requestTimeout time.Duration

	mu        sync.Mutex
	open      map[*connection]struct{}
	full      bool // Accept waits for a place
	released  chan struct{}
	closed    chan struct{}
	ending    sync.Once
	onReplace func() // called for every replaced connection
}

// minIdle is the minimum time without a request before a connection may be replaced,
// so that new connections have time to send their request.
const minIdle = 250 * time.Millisecond

type connection struct {
	net.Conn
	listener  *connections
	since     time.Time // time of the last change of state
	isWorking bool
	closing   sync.Once
}

func limitConnections(ln net.Listener, limit int, requestTimeout time.Duration, onReplace func()) *connections {
	return &connections{Listener: ln, limit: limit, requestTimeout: requestTimeout, open: map[*connection]struct{}{},
		released: make(chan struct{}, 1), closed: make(chan struct{}), onReplace: onReplace}
}

// Accept returns the next connection, as soon as there is a place for it.
func (l *connections) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: inner, listener: l, since: time.Now()}
	for {
		wait := l.admit(c)
		if wait == 0 {
			return c, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-l.released:
		case <-timer.C:
		case <-l.closed:
			timer.Stop()
			_ = inner.Close()
			return nil, net.ErrClosed
		}
		timer.Stop()
	}
}

// admit takes a place for a connection and returns zero, or returns the time after
// which to try again at the latest.
func (l *connections) admit(c *connection) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full = len(l.open) >= l.limit; l.full {
		var idle, slowest *connection
		for o := range l.open {
			if o.isWorking {
				slowest = o.older(slowest)
			} else {
				idle = o.older(idle)
			}
		}
		replaced, allowed := idle, minIdle
		if replaced == nil {
			replaced, allowed = slowest, l.requestTimeout
		}
		if left := allowed - time.Since(replaced.since); left > 0 {
			return left
		}
		l.onReplace()
		delete(l.open, replaced)
		// Not under the lock: closing may block until the client has read the rest.
		go func() { _ = replaced.Close() }()
	}
	l.full = false
	l.open[c] = struct{}{}
	return 0
}

func (c *connection) older(o *connection) *connection {
	if o == nil || c.since.Before(o.since) {
		return c
	}
	return o
}

// connectionChanged implements http.Server.ConnState.
func connectionChanged(c net.Conn, state http.ConnState) {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	held, ok := c.(*connection)
	if !ok || state == http.StateClosed || state == http.StateHijacked {
		return
	}
	l := held.listener
	l.mu.Lock()
	held.since, held.isWorking = time.Now(), state == http.StateActive
	full := l.full
	l.mu.Unlock()
	if full {
		l.signal()
	}
}

func (l *connections) signal() {
	select {
	case l.released <- struct{}{}:
	default:
	}
}

// Close stops accepting connections.
func (l *connections) Close() error {
	l.ending.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Close closes the connection and releases its place.
func (c *connection) Close() error {
	err := c.Conn.Close()
	c.closing.Do(func() {
		c.listener.mu.Lock()
		delete(c.listener.open, c)
		c.listener.mu.Unlock()
		c.listener.signal()
	})
	return err
}
