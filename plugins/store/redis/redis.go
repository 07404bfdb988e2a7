// Package redis keeps profiles in Redis 6.2 to 8 or Valkey: one server, a
// primary with Sentinels, or a Cluster, shared by any number of processes.
//
// A batch is read by one pipeline of MGETs and written by one pipeline of calls
// of a script, which compares and sets, and edits indexes, within one slot. So
// a change is applied whole or not at all.
//
// What is durable when Commit returns is up to the server: with `appendfsync
// always` what Commit acknowledged survives a crash of the server, with
// `everysec` all but the last second or so, without an append-only file what
// the last snapshot has. Replication is asynchronous: a failover may lose what
// the new primary had not received, unless Options.WaitReplicas asks Commit to
// wait for it. `maxmemory-policy` should be noeviction, or records vanish.
//
// A Commit that returns an error, or whose reply was lost, may have been
// applied. Trying again is safe: what was applied shows as a conflict, because
// the version is not the one that was loaded any more; it is loaded again, and
// applying the same events to it changes nothing.
//
// An ACL user needs ~PREFIX:* and +get +mget +set +setnx +del +getrange +exists
// +zadd +zrem +zrangebylex +zlexcount +eval +evalsha +scan +info +ping, +wait to wait for
// replicas, and +cluster|slots, +cluster|shards, +command and +readonly in a
// cluster.
//
// Watch needs +hello and +client|tracking besides, +cluster|nodes in a cluster
// and +role with Sentinels.
package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	goredis "github.com/redis/go-redis/v9"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// ErrNotReplicated is returned by Commit when the replicas it was to wait for
// did not confirm in time. The changes are applied on the primary.
var ErrNotReplicated = errors.New("replicas did not confirm the changes in time")

// Store is a store.Store on Redis.
type Store struct {
	opts     Options
	keys     keyspace
	client   client
	replicas client

	// life is held shared by every call, and exclusively to close.
	life   sync.RWMutex
	closed bool

	layoutKnown atomic.Bool // the layout in Redis is ours
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.ReplicaReader = (*Store)(nil)
	_ store.Watcher       = (*Store)(nil)
)

// Open makes a store. It does not connect: a Redis that is away makes calls
// fail until it is back.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, keys: newKeyspace(o.Prefix, o.Shards)}
	if s.client, err = newClient(o); err != nil {
		return nil, err
	}
	s.replicas = s.client
	if o.ReadReplicas {
		if s.replicas, err = newReplicaClient(o); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// enter begins a call; leave ends it.
func (s *Store) enter(ctx context.Context, c client) error {
	s.life.RLock()
	err := ctx.Err()
	if s.closed {
		err = store.ErrClosed
	}
	if err == nil && !s.layoutKnown.Load() {
		err = s.checkLayout(ctx, c)
	}
	if err != nil {
		s.life.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.life.RUnlock() }

// checkLayout claims the prefix, or makes sure that whoever did has the same
// layout: records would not be found with another number of shards.
func (s *Store) checkLayout(ctx context.Context, c client) error {
	want := fmt.Sprintf("%d %d", layout, s.opts.Shards)
	key := s.keys.layout()
	got, err := c.Get(ctx, key).Result()
	if errors.Is(err, goredis.Nil) {
		if c != s.client {
			return nil // a replica: leave it to the first that writes
		}
		if err := c.SetNX(ctx, key, want, 0).Err(); err != nil {
			return failed("claiming the prefix", err)
		}
		got, err = c.Get(ctx, key).Result()
	}
	if err != nil {
		return failed("reading the layout", err)
	}
	if got != want {
		version, shards, _ := strings.Cut(got, " ")
		if version == strconv.Itoa(layout) {
			return fmt.Errorf("redis profile store: the data at prefix %q is in %s shards, not %d; set shards to %s, or use another prefix", s.opts.Prefix, shards, s.opts.Shards, shards)
		}
		return fmt.Errorf("redis profile store: the data at prefix %q has a layout this release does not know; run the release that wrote it, or use another prefix", s.opts.Prefix)
	}
	s.layoutKnown.Store(true)
	return nil
}

// failed wraps an error of Redis. Those hold no keys and no values.
func failed(doing string, err error) error {
	return fmt.Errorf("redis profile store: %s: %w", doing, err)
}

// maxLoadKeys bounds the keys of one MGET, during which a server does nothing
// else.
const maxLoadKeys = 256

// Load implements store.Store.
func (s *Store) Load(ctx context.Context, keys []string) ([]store.Record, error) {
	if err := s.enter(ctx, s.client); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.load(ctx, s.client, keys)
}

func (s *Store) load(ctx context.Context, c client, keys []string) ([]store.Record, error) {
	records := make([]store.Record, len(keys))
	if len(keys) == 0 {
		return records, nil
	}
	pipe := c.Pipeline()
	type request struct {
		positions []int
		cmd       *goredis.SliceCmd
	}
	var requests []request
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.keys.record(s.keys.shard(key), key)
	}
	for positions := range s.parts(c, len(keys), func(i int) string { return keys[i] }, func(part []int) bool { return len(part) == maxLoadKeys }) {
		part := make([]string, len(positions))
		for i, p := range positions {
			part[i] = names[p]
		}
		requests = append(requests, request{positions, pipe.MGet(ctx, part...)})
	}
	// The errors are those of the commands.
	_, _ = pipe.Exec(ctx)
	for _, r := range requests {
		values, err := r.cmd.Result()
		if isMigrating(err) {
			if values, err = getEach(ctx, c, r.positions, names); err != nil {
				return nil, failed("reading while a slot moves", err)
			}
		}
		if err != nil {
			return nil, failed("reading", err)
		}
		for i, v := range values {
			if v == nil {
				continue
			}
			text, ok := v.(string)
			if !ok || len(text) < 8 {
				return nil, fmt.Errorf("redis profile store: a value at prefix %q is not a record; is something else writing there?", s.opts.Prefix)
			}
			records[r.positions[i]] = decode(text)
		}
	}
	return records, nil
}

// parts cuts the positions of n keys into what one command may hold: those of
// one shard in a cluster, any otherwise, until full says that a part is.
func (s *Store) parts(c client, n int, key func(int) string, full func([]int) bool) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		cut := func(positions []int) bool {
			start := 0
			for end := 1; end <= len(positions); end++ {
				if end == len(positions) || full(positions[start:end]) {
					if !yield(positions[start:end]) {
						return false
					}
					start = end
				}
			}
			return true
		}
		if c.cluster == nil {
			all := make([]int, n)
			for i := range all {
				all[i] = i
			}
			cut(all)
			return
		}
		for _, positions := range s.keys.group(n, key) {
			if !cut(positions) {
				return
			}
		}
	}
}

// getEach reads one by one, which works while a slot moves to another node.
func getEach(ctx context.Context, c client, positions []int, names []string) ([]any, error) {
	pipe := c.Pipeline()
	cmds := make([]*goredis.StringCmd, len(positions))
	for i, p := range positions {
		cmds[i] = pipe.Get(ctx, names[p])
	}
	_, _ = pipe.Exec(ctx)
	values := make([]any, len(positions))
	for i, cmd := range cmds {
		v, err := cmd.Result()
		if errors.Is(err, goredis.Nil) {
			continue
		}
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// isMigrating tells that some keys of a command have moved to another node and
// others have not yet.
func isMigrating(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "TRYAGAIN")
}

// decode takes over the bytes of a reply, which nothing else refers to, instead
// of copying them.
func decode(value string) store.Record {
	b := unsafe.Slice(unsafe.StringData(value), len(value))
	return store.Record{Data: b[8:len(b):len(b)], Version: store.Version(binary.BigEndian.Uint64(b))}
}

// LoadReplica implements store.ReplicaReader. It reads from the primary unless
// Options.ReadReplicas is set.
func (s *Store) LoadReplica(ctx context.Context, keys []string) ([]store.Record, error) {
	if err := s.enter(ctx, s.replicas); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.load(ctx, s.replicas, keys)
}

// Ping implements store.Store. In a cluster every primary must answer.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.enter(ctx, s.client); err != nil {
		return err
	}
	defer s.leave()
	ping := func(ctx context.Context, c *goredis.Client) error { return c.Ping(ctx).Err() }
	var err error
	if s.client.cluster != nil {
		err = s.client.cluster.ForEachMaster(ctx, ping)
	} else {
		err = ping(ctx, s.client.server)
	}
	if err != nil {
		return failed("ping", err)
	}
	return nil
}

// Close implements store.Store. It waits for calls under way.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	s.closed = true
	err := s.client.Close()
	if s.opts.ReadReplicas {
		err = errors.Join(err, s.replicas.Close())
	}
	if err != nil {
		return failed("closing", err)
	}
	return nil
}
