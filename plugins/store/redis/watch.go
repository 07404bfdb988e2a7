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

// Watching is by client tracking in its broadcasting form: every server that
// reads may go to sends the names of all records that change, over a connection
// that does nothing else. A heartbeat follows the names on the same connection,
// so its answer says that all changes from before it was sent have been told.
// go-redis hands out what a server pushes only when a command is answered, so
// the connection speaks RESP3 itself.

// Watch tells w of the records that change, whoever changes them, until ctx
// ends. What it vouches for is at most staleness old: where the connection to a
// server is lost, or the cluster changes its shape, it vouches for nothing
// until all is well again. report is given why that is so, and nil when it is
// well, each time it changes.
func (s *Store) Watch(ctx context.Context, staleness time.Duration, w store.Invalidator, report func(error)) {
	reconnect := backoff.Exponential{Initial: 100 * time.Millisecond, Max: 5 * time.Second}
	for failures := 1; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := s.watch(ctx, staleness, w, func() { report(nil) })
		w.ValidUntil(time.Time{})
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

// watch watches all servers until one of them fails or changes its part.
func (s *Store) watch(ctx context.Context, staleness time.Duration, w store.Invalidator, ready func()) error {
	nodes, err := s.readNodes(ctx)
	if err != nil {
		return failed("finding the servers to watch", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := &watching{store: s, watcher: w, staleness: staleness, heard: make([]atomic.Int64, len(nodes)), began: time.Now(), ready: ready}
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
	// What was kept of before is of no use: changes since were not told.
	w.InvalidateAll()
	for i, c := range conns {
		running.Go(func() { cancel(watch.listen(c, i)) })
		running.Go(func() { cancel(watch.beat(ctx, c)) })
	}
	<-ctx.Done()
	return failed("watching for changes", context.Cause(ctx))
}

// readNodes gives how to connect to each server that records are read from.
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
		return errors.New("there are none")
	}
	return nil
}

// trackingConn is a connection by which a server tells what changes.
type trackingConn struct {
	net.Conn
	in        *bufio.Reader
	heartbeat []string
	timeout   time.Duration

	mu   sync.Mutex
	sent []time.Time // of the heartbeats that are not answered

	shape [sha256.Size]byte // of the cluster, once it is known
}

// track connects to a server and has it tell what changes.
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
		// A primary that was replaced goes on answering.
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
	watcher   store.Invalidator
	staleness time.Duration
	began     time.Time
	// heard has, by server, when the last heartbeat that was answered was sent:
	// nanoseconds after began, 0 for never.
	heard []atomic.Int64
	ready func()
	once  sync.Once
}

// beat sends heartbeats.
func (w *watching) beat(ctx context.Context, c *trackingConn) error {
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

// listen takes what a server says until the connection ends.
func (w *watching) listen(c *trackingConn, at int) error {
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
			return errors.New("the server answers what it was not asked")
		}
		sent := c.sent[0]
		c.sent = slices.Delete(c.sent, 0, 1)
		c.mu.Unlock()
		w.heard[at].Store(max(1, int64(sent.Sub(w.began))))
		w.vouch()
	}
}

// pushed takes a message that nobody asked for.
func (w *watching) pushed(r reply) {
	if len(r.items) != 2 || r.items[0].text != "invalidate" {
		return
	}
	if r.items[1].kind == '_' {
		w.watcher.InvalidateAll() // the database was emptied
		return
	}
	for _, name := range r.items[1].items {
		if key, ok := w.store.keys.recordKey(name.text); ok {
			w.watcher.Invalidate(key)
		}
	}
}

// vouch passes on what all servers have answered.
func (w *watching) vouch() {
	oldest := w.heard[0].Load()
	for i := range w.heard {
		oldest = min(oldest, w.heard[i].Load())
	}
	if oldest == 0 {
		return
	}
	w.watcher.ValidUntil(w.began.Add(time.Duration(oldest) + w.staleness))
	w.once.Do(w.ready)
}

// check makes sure that the answer to a heartbeat is one, and that the server
// still is what it was.
func (c *trackingConn) check(r reply) error {
	switch c.heartbeat[0] {
	case "ROLE":
		if len(r.items) == 0 || r.items[0].text != "master" {
			return errors.New("the server is no primary any more")
		}
	case "CLUSTER":
		shape, moving := shapeOf(r.text)
		if moving {
			// Records on their way may be written where nobody watches.
			return errors.New("slots of the cluster are moving")
		}
		if c.shape != [sha256.Size]byte{} && shape != c.shape {
			return errors.New("the cluster has changed its shape")
		}
		c.shape = shape
	}
	return nil
}

// shapeOf sums up which servers a cluster has and what each is there for, and
// tells whether slots are moving from or to the one that was asked.
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

// reply is a value in RESP3: an aggregate has items, anything else has text.
type reply struct {
	kind  byte
	text  string
	items []reply
}

// What a server may say at most.
const (
	maxReplyDepth = 8
	maxReplyItems = 1 << 24
	maxReplyBytes = 1 << 29
)

var errProtocol = errors.New("the server does not speak RESP3")

// readReply reads one value. An error that the server answers is an error.
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
		// Not all at once: the length is only what the server says.
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
			return readReply(in, depth) // what comes before a reply, about it
		}
		return r, nil
	}
	return r, errProtocol
}
