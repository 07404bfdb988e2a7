package profileapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections is a listener that holds a limited number of connections, and
// keeps those that do nothing from shutting out those that ask for something.
// When it is full, the one that has been idle the longest, or has not come up
// with a request for the longest, makes room for the next; if all are at work,
// one whose request has taken longer than any should does. Otherwise the next
// one waits until a place is free.
type connections struct {
	net.Listener
	limit int
	// longest is how long a request may take before its connection may have to
	// make room.
	longest time.Duration

	mu     sync.Mutex
	open   map[*connection]struct{}
	full   bool // whether Accept waits for room
	room   chan struct{}
	closed chan struct{}
	ending sync.Once
	made   func() // called when a connection had to make room
}

// grace is how long a connection may do nothing before it may have to make
// room, so that a flood does not take it before its request is there.
const grace = 250 * time.Millisecond

type connection struct {
	net.Conn
	of      *connections
	since   time.Time // when its state was last another
	working bool
	closing sync.Once
}

func limitConnections(ln net.Listener, limit int, longest time.Duration, made func()) *connections {
	return &connections{Listener: ln, limit: limit, longest: longest, open: map[*connection]struct{}{},
		room: make(chan struct{}, 1), closed: make(chan struct{}), made: made}
}

// Accept returns the next connection, once there is room for it.
func (l *connections) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: inner, of: l, since: time.Now()}
	for {
		wait := l.admit(c)
		if wait == 0 {
			return c, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-l.room:
		case <-timer.C:
		case <-l.closed:
			timer.Stop()
			_ = inner.Close()
			return nil, net.ErrClosed
		}
		timer.Stop()
	}
}

// admit takes a connection in and returns zero, or how long to wait at most
// before trying again.
func (l *connections) admit(c *connection) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full = len(l.open) >= l.limit; l.full {
		var idle, slowest *connection
		for o := range l.open {
			if o.working {
				slowest = o.orOlder(slowest)
			} else {
				idle = o.orOlder(idle)
			}
		}
		victim, allowed := idle, grace
		if victim == nil {
			victim, allowed = slowest, l.longest
		}
		if left := allowed - time.Since(victim.since); left > 0 {
			return left
		}
		l.made()
		delete(l.open, victim)
		// Not under the lock: closing may wait for a client to take what is left.
		go func() { _ = victim.Close() }()
	}
	l.full = false
	l.open[c] = struct{}{}
	return 0
}

func (c *connection) orOlder(o *connection) *connection {
	if o == nil || c.since.Before(o.since) {
		return c
	}
	return o
}

// connectionChanged is the server's hook for the states of connections.
func connectionChanged(c net.Conn, state http.ConnState) {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	held, ok := c.(*connection)
	if !ok || state == http.StateClosed || state == http.StateHijacked {
		return
	}
	l := held.of
	l.mu.Lock()
	held.since, held.working = time.Now(), state == http.StateActive
	full := l.full
	l.mu.Unlock()
	if full {
		l.signal()
	}
}

func (l *connections) signal() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// Close stops accepting.
func (l *connections) Close() error {
	l.ending.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Close closes the connection and frees its place.
func (c *connection) Close() error {
	err := c.Conn.Close()
	c.closing.Do(func() {
		c.of.mu.Lock()
		delete(c.of.open, c)
		c.of.mu.Unlock()
		c.of.signal()
	})
	return err
}
