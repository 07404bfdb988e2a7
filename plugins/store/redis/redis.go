// Package redis stores profiles in Redis 6.2 to 8 or Valkey: one server, a primary with
// Sentinels, or a Cluster, shared by any number of processes.
//
// A batch is read by one pipeline of MGETs. It is written by one pipeline of calls of a
// Lua script (commit.lua), which compares versions, sets records and edits indexes
// within one slot. So a change is applied completely or not at all. keys.go describes
// the layout of keys and indexes.
//
// The server's settings determine the durability of a Commit. With `appendfsync
// always`, an acknowledged Commit survives a crash of the server; with `everysec`, all
// but about the last second does; without an append-only file, only the last snapshot
// does. Replication is asynchronous: a failover may lose writes that the new primary
// had not received, unless Options.WaitReplicas makes Commit wait for replicas.
// `maxmemory-policy` must be noeviction, otherwise Redis evicts records.
//
// A Commit that returns an error or loses its reply may have been applied.
// Retrying is safe: an applied change appears as a conflict because the record has a
// new version; the caller loads it again, and applying the same events again changes
// nothing.
//
// An ACL user needs ~PREFIX:* and +get +mget +set +setnx +del +getrange +exists +zadd
// +zrem +zrangebylex +zlexcount +eval +evalsha +scan +info +ping; also +wait to wait
// for replicas, and +cluster|slots, +cluster|shards, +command and +readonly in a
// cluster. With +config|get the store also reports servers without persistence.
//
// Watch needs +hello and +client|tracking as well, +cluster|nodes in a cluster and
// +role with Sentinels.
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

// ErrNotReplicated is returned by Commit if the requested number of replicas did not
// confirm in time. The changes are applied on the primary.
var ErrNotReplicated = errors.New("replicas did not confirm the changes in time")

// Store implements store.Store on Redis.
type Store struct {
	opts     Options
	keys     keyspace
	client   client
	replicas client

	// closeMu is held for reading by every call and for writing by Close.
	closeMu sync.RWMutex
	closed  bool

	layoutKnown atomic.Bool // the layout in Redis is known to be ours
	settings    sync.Once   // reports the settings of the servers
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.ReplicaReader = (*Store)(nil)
	_ store.Watcher       = (*Store)(nil)
)

// Open returns a store. It does not connect: while Redis is unreachable, calls fail.
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
	s.closeMu.RLock()
	err := ctx.Err()
	if s.closed {
		err = store.ErrClosed
	}
	if err == nil && !s.layoutKnown.Load() {
		err = s.checkLayout(ctx, c)
	}
	if err != nil {
		s.closeMu.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.closeMu.RUnlock() }

// checkLayout claims the prefix, or checks that the store that claimed it has the same
// layout: with another number of shards, records would not be found.
func (s *Store) checkLayout(ctx context.Context, c client) error {
	want := fmt.Sprintf("%d %d", layout, s.opts.Shards)
	key := s.keys.layout()
	got, err := c.Get(ctx, key).Result()
	if errors.Is(err, goredis.Nil) {
		if c != s.client {
			return nil // a replica: the first write claims the prefix
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
	s.settings.Do(func() { s.reportSettings(ctx) })
	return nil
}

// failed wraps an error of Redis. These contain no keys and no values.
func failed(doing string, err error) error {
	return fmt.Errorf("redis profile store: %s: %w", doing, err)
}

// maxLoadKeys bounds the keys of one MGET, during which a server is blocked.
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
	execute(ctx, pipe)
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

// parts splits the positions of n keys into the parts that one command may contain: of
// one shard in a cluster, of any shard otherwise. A part ends when full returns true
// for it.
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

// getEach reads keys one by one, which works while a slot moves to another node.
func getEach(ctx context.Context, c client, positions []int, names []string) ([]any, error) {
	pipe := c.Pipeline()
	cmds := make([]*goredis.StringCmd, len(positions))
	for i, p := range positions {
		cmds[i] = pipe.Get(ctx, names[p])
	}
	execute(ctx, pipe)
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

// isMigrating reports whether some keys of a command have moved to another node and
// others have not.
func isMigrating(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "TRYAGAIN")
}

// decode uses the bytes of a reply, which have no other owner, instead of copying them.
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

// Ping implements store.Store. In a cluster, every primary must answer.
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

// Close implements store.Store. It waits for running calls.
func (s *Store) Close() error {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
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
