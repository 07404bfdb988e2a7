package redis

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Watching uses client-side caching in broadcast mode (CLIENT TRACKING ON BCAST). Every
// server that serves reads sends the names of all changed records over a dedicated
// connection. Heartbeats are sent on the same connection, and their replies are in
// order with the names. So a reply proves that all changes up to the time of the
// heartbeat have been received:
//
//	→ heartbeat sent at 10.0 s
//	← invalidate profiles:p:{0}c-1       cache.Invalidate("c-1")
//	← reply to the heartbeat             cache.ValidUntil(10.0 s + staleness)
//
// The validity is the minimum over all servers. If a connection fails or the cluster
// changes, the cache becomes invalid at once, and it starts empty when watching works
// again: changes in between were not reported.
//
// go-redis delivers push messages only when a command is answered, so the connection
// implements RESP3 itself.

// Watch implements store.Watcher. It calls report with the cause when watching fails
// and with nil when it works again.
func (s *Store) Watch(ctx context.Context, staleness time.Duration, cache store.Invalidator, report func(error)) {
	reconnect := backoff.Exponential{Initial: 100 * time.Millisecond, Max: 5 * time.Second}
	for failures := 1; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := s.watch(ctx, staleness, cache, func() { report(nil) })
		cache.ValidUntil(time.Time{})
		if ctx.Err() != nil {
			return
		}
		report(err)
		if time.Since(began) > reconnect.Max {
			failures = 1
		}
		_ = reconnect.Wait(ctx, failures)
	}
}

// watch watches all servers until one of them fails or the cluster changes.
func (s *Store) watch(ctx context.Context, staleness time.Duration, cache store.Invalidator, ready func()) error {
	nodes, err := s.readNodes(ctx)
	if err != nil {
		return failed("finding the servers to watch", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := &watching{store: s, cache: cache, staleness: staleness, answered: make([]atomic.Int64, len(nodes)), began: time.Now(), ready: ready}
	conns := make([]*trackingConn, len(nodes))
	var running sync.WaitGroup
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		running.Wait()
	}()
	for i, node := range nodes {
		if conns[i], err = s.track(ctx, node); err != nil {
			return failed("watching for changes", err)
		}
	}
	// Changes since the last watch were not reported.
	cache.InvalidateAll()
	for i, c := range conns {
		running.Go(func() { cancel(watch.receive(c, i)) })
		running.Go(func() { cancel(watch.sendHeartbeats(ctx, c)) })
	}
	<-ctx.Done()
	return failed("watching for changes", context.Cause(ctx))
}

// readNodes returns the connection options of every server that serves reads.
func (s *Store) readNodes(ctx context.Context) ([]*goredis.Options, error) {
	c := s.client
	if s.opts.ReadReplicas {
		c = s.replicas
	}
	if c.server != nil {
		return []*goredis.Options{c.server.Options()}, nil
	}
	var mu sync.Mutex
	var nodes []*goredis.Options
	add := func(_ context.Context, node *goredis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node.Options())
		return nil
	}
	if s.opts.ReadReplicas {
		return nodes, errors.Join(c.cluster.ForEachShard(ctx, add), empty(nodes))
	}
	return nodes, errors.Join(c.cluster.ForEachMaster(ctx, add), empty(nodes))
}

func empty(nodes []*goredis.Options) error {
	if len(nodes) == 0 {
		return errors.New("no server serves reads")
	}
	return nil
}

// trackingConn is a connection over which a server reports changes.
type trackingConn struct {
	net.Conn
	in        *bufio.Reader
	heartbeat []string
	timeout   time.Duration

	mu   sync.Mutex
	sent []time.Time // times of the heartbeats without a reply

	shape [sha256.Size]byte // of the cluster, once it is known
}

// track connects to a server and enables tracking.
func (s *Store) track(ctx context.Context, o *goredis.Options) (*trackingConn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.DialTimeout)
	defer cancel()
	conn, err := o.Dialer(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	c := &trackingConn{Conn: conn, in: bufio.NewReaderSize(conn, 64<<10), timeout: s.opts.Timeout, heartbeat: []string{"PING"}}
	switch {
	case s.opts.Mode == Cluster:
		c.heartbeat = []string{"CLUSTER", "NODES"}
	case s.opts.Mode == Failover && !s.opts.ReadReplicas:
		// A replaced primary continues to answer.
		c.heartbeat = []string{"ROLE"}
	}
	hello := []string{"HELLO", "3"}
	if o.Password != "" {
		user := o.Username
		if user == "" {
			user = "default"
		}
		hello = append(hello, "AUTH", user, o.Password)
	}
	for _, command := range [][]string{hello, {"CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", s.keys.prefix + ":p:{"}} {
		if err = c.send(command); err == nil {
			_ = c.SetReadDeadline(time.Now().Add(c.timeout))
			_, err = readReply(c.in, 0)
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func (c *trackingConn) send(command []string) error {
	b := fmt.Appendf(nil, "*%d\r\n", len(command))
	for _, word := range command {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(word), word)
	}
	_ = c.SetWriteDeadline(time.Now().Add(c.timeout))
	_, err := c.Write(b)
	return err
}

// watching is the state of one watch.
type watching struct {
	store     *Store
	cache     store.Invalidator
	staleness time.Duration
	began     time.Time
	// answered holds, by server, the time at which the last answered heartbeat was
	// sent, in nanoseconds after began, 0 for never.
	answered []atomic.Int64
	ready    func()
	once     sync.Once
}

// sendHeartbeats sends heartbeats until ctx ends.
func (w *watching) sendHeartbeats(ctx context.Context, c *trackingConn) error {
	ticker := time.NewTicker(max(w.staleness/4, 5*time.Millisecond))
	defer ticker.Stop()
	for {
		now := time.Now()
		c.mu.Lock()
		c.sent = append(c.sent, now)
		c.mu.Unlock()
		if err := c.send(c.heartbeat); err != nil {
			return err
		}
		_ = c.SetReadDeadline(now.Add(c.timeout))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// receive processes the messages of a server until the connection ends.
func (w *watching) receive(c *trackingConn, node int) error {
	for {
		r, err := readReply(c.in, 0)
		if err != nil {
			return err
		}
		if r.kind == '>' {
			w.pushed(r)
			continue
		}
		if err := c.check(r); err != nil {
			return err
		}
		c.mu.Lock()
		if len(c.sent) == 0 {
			c.mu.Unlock()
			return errors.New("the server sent a reply without a request")
		}
		sent := c.sent[0]
		c.sent = slices.Delete(c.sent, 0, 1)
		c.mu.Unlock()
		w.answered[node].Store(max(1, int64(sent.Sub(w.began))))
		w.extendValidity()
	}
}

// pushed processes a push message.
func (w *watching) pushed(r reply) {
	if len(r.items) != 2 || r.items[0].text != "invalidate" {
		return
	}
	if r.items[1].kind == '_' {
		w.cache.InvalidateAll() // the database was flushed
		return
	}
	for _, name := range r.items[1].items {
		if key, ok := w.store.keys.recordKey(name.text); ok {
			w.cache.Invalidate(key)
		}
	}
}

// extendValidity passes the time of the oldest answered heartbeat on to the cache.
func (w *watching) extendValidity() {
	oldest := w.answered[0].Load()
	for i := range w.answered {
		oldest = min(oldest, w.answered[i].Load())
	}
	if oldest == 0 {
		return
	}
	w.cache.ValidUntil(w.began.Add(time.Duration(oldest) + w.staleness))
	w.once.Do(w.ready)
}

// check checks the reply to a heartbeat, and that the server still has its role.
func (c *trackingConn) check(r reply) error {
	switch c.heartbeat[0] {
	case "ROLE":
		if len(r.items) == 0 || r.items[0].text != "master" {
			return errors.New("the server is no longer a primary")
		}
	case "CLUSTER":
		shape, moving := shapeOf(r.text)
		if moving {
			// Records of a moving slot may be written on a server that is not watched.
			return errors.New("slots of the cluster are moving")
		}
		if c.shape != [sha256.Size]byte{} && shape != c.shape {
			return errors.New("the cluster has changed")
		}
		c.shape = shape
	}
	return nil
}

// shapeOf returns a hash of the servers of a cluster and their roles and slots, and
// reports whether slots are moving from or to the server that was asked.
func shapeOf(nodes string) (shape [sha256.Size]byte, moving bool) {
	h := sha256.New()
	for line := range strings.Lines(nodes) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		fmt.Fprintf(h, "%q", fields[:4])
		for _, slots := range fields[8:] {
			moving = moving || strings.HasPrefix(slots, "[")
			fmt.Fprintf(h, "%q", slots)
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), moving
}

// reply is a RESP3 value: an aggregate has items, any other value has text.
type reply struct {
	kind  byte
	text  string
	items []reply
}

// Limits for replies of a server.
const (
	maxReplyDepth = 8
	maxReplyItems = 1 << 24
	maxReplyBytes = 1 << 29
)

var errProtocol = errors.New("the server does not speak RESP3")

// readReply reads one value. An error reply is returned as an error.
func readReply(in *bufio.Reader, depth int) (r reply, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return r, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' || depth > maxReplyDepth {
		return r, errProtocol
	}
	r.kind = line[0]
	text := string(line[1 : len(line)-2])
	switch r.kind {
	case '+', ':', ',', '#', '(', '_':
		r.text = text
		return r, nil
	case '-':
		return r, errors.New(text)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 {
		return r, errProtocol
	}
	switch r.kind {
	case '$', '!', '=':
		if n > maxReplyBytes {
			return r, errProtocol
		}
		if n < 0 {
			r.kind = '_'
			return r, nil
		}
		var b strings.Builder
		// The value is read piecemeal, because only the server states its length.
		if _, err := io.CopyN(&b, in, int64(n)); err != nil {
			return r, err
		}
		if end, err := in.ReadString('\n'); err != nil || end != "\r\n" {
			return r, errors.Join(errProtocol, err)
		}
		r.text = b.String()
		if r.kind == '!' {
			return r, errors.New(r.text)
		}
		return r, nil
	case '*', '>', '~', '%', '|':
		if r.kind == '%' || r.kind == '|' {
			n *= 2
		}
		if n > maxReplyItems {
			return r, errProtocol
		}
		if n < 0 {
			r.kind = '_'
			return r, nil
		}
		for range n {
			item, err := readReply(in, depth+1)
			if err != nil {
				return r, err
			}
			r.items = append(r.items, item)
		}
		if r.kind == '|' {
			return readReply(in, depth) // an attribute that precedes a reply
		}
		return r, nil
	}
	return r, errProtocol
}
