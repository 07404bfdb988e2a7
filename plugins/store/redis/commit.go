package redis

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

//go:embed commit.lua
var commitScript string

//go:embed sweep.lua
var sweepScript string

//go:embed lookup.lua
var lookupScript string

// maxCallChanges and maxCallBytes bound the work of one script call, during which a
// server is blocked.
const (
	maxCallChanges = 128
	maxCallBytes   = 1 << 20
)

// call is one call of a script.
type call struct {
	script    string
	keys      []string
	args      []any
	positions []int // of the changes that the call makes
	shard     int   // of its first key

	cmd *goredis.Cmd
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, changes []store.Change) ([]int, error) {
	if err := s.enter(ctx, s.client); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := store.CheckChanges(changes, s.opts.MaxRecordBytes); err != nil {
		return nil, err
	}
	size := 0
	full := func(part []int) bool {
		if len(part) == 1 {
			size = 0
		}
		size += len(changes[part[len(part)-1]].Data)
		return len(part) == maxCallChanges || size > maxCallBytes
	}
	var calls []*call
	for positions := range s.parts(s.client, len(changes), func(i int) string { return changes[i].Key }, full) {
		calls = append(calls, s.encode(changes, positions))
	}
	if err := s.run(ctx, calls); err != nil {
		return nil, err
	}
	var conflicts []int
	for len(calls) > 0 {
		var migrating []*call
		for _, c := range calls {
			conflicting, err := c.cmd.Int64Slice()
			if isMigrating(err) && len(c.positions) > 1 {
				for _, p := range c.positions {
					migrating = append(migrating, s.encode(changes, []int{p}))
				}
				continue
			}
			if err != nil {
				return nil, failed("writing", err)
			}
			for _, i := range conflicting {
				conflicts = append(conflicts, c.positions[i])
			}
		}
		if calls = migrating; len(calls) > 0 {
			if err := s.run(ctx, calls); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(conflicts)
	return conflicts, nil
}

// encode returns the call that applies the changes at positions. commit.lua describes
// its arguments.
func (s *Store) encode(changes []store.Change, positions []int) *call {
	c := &call{script: commitScript, positions: positions, shard: s.keys.shard(changes[positions[0]].Key)}
	size, edits := 0, 0
	for _, p := range positions {
		size += len(changes[p].Data) + 16
		edits += len(changes[p].Index)
	}
	arena := make([]byte, 0, size)
	version := func(v store.Version) []byte {
		start := len(arena)
		arena = binary.BigEndian.AppendUint64(arena, uint64(v))
		return arena[start:]
	}
	c.keys = make([]string, len(positions), len(positions)+4)
	c.args = make([]any, 0, 2+3*len(positions)+2*edits)
	c.args = append(c.args, s.opts.IdleExpiry.Milliseconds(), len(positions))
	type part struct {
		shard int
		index string
	}
	var indexes map[part]int // position in keys, counting from 1
	for i, p := range positions {
		change := &changes[p]
		shard := s.keys.shard(change.Key)
		c.keys[i] = s.keys.record(shard, change.Key)
		want, value := []byte{}, []byte{}
		if change.Version != store.Absent {
			want = version(change.Version)
		}
		if change.Data != nil {
			start := len(arena)
			version(store.VersionOf(change.Data))
			arena = append(arena, change.Data...)
			value = arena[start:]
		}
		c.args = append(c.args, want, value, len(change.Index))
		for _, e := range change.Index {
			index, ok := indexes[part{shard, e.Index}]
			if !ok {
				if indexes == nil {
					indexes = map[part]int{}
				}
				c.keys = append(c.keys, s.keys.index(shard, e.Index))
				index = len(c.keys)
				indexes[part{shard, e.Index}] = index
			}
			if e.Remove {
				index = -index
			}
			c.args = append(c.args, index, member(e.Value, change.Key))
		}
	}
	return c
}

// run sends calls, and repeats with the text of the script those that reached a server
// without it: a new server, one that took over, or one with flushed scripts. It
// returns only errors that belong to no call.
func (s *Store) run(ctx context.Context, calls []*call) error {
	if err := s.send(ctx, calls, (*call).bySHA); err != nil {
		return err
	}
	missing := withoutScript(calls)
	if len(missing) == 0 {
		return nil
	}
	return s.send(ctx, missing, (*call).byText)
}

// query sends calls that only read, and so need not wait for replicas.
func (s *Store) query(ctx context.Context, calls []*call) {
	s.pipe(ctx, calls, (*call).bySHA)
	if missing := withoutScript(calls); len(missing) > 0 {
		s.pipe(ctx, missing, (*call).byText)
	}
}

// withoutScript returns the calls that reached a server without the script.
func withoutScript(calls []*call) (missing []*call) {
	for _, c := range calls {
		if isNoScript(c.cmd.Err()) {
			missing = append(missing, c)
		}
	}
	return missing
}

func isNoScript(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT")
}

var scriptSHAs = map[string]string{commitScript: sha(commitScript), sweepScript: sha(sweepScript), lookupScript: sha(lookupScript)}

func sha(script string) string {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}

func (c *call) bySHA(ctx context.Context, pipe goredis.Pipeliner) {
	c.cmd = pipe.EvalSha(ctx, scriptSHAs[c.script], c.keys, c.args...)
}

func (c *call) byText(ctx context.Context, pipe goredis.Pipeliner) {
	c.cmd = pipe.Eval(ctx, c.script, c.keys, c.args...)
}

// send sends calls in one round trip. Each call keeps its own error.
func (s *Store) send(ctx context.Context, calls []*call, add func(*call, context.Context, goredis.Pipeliner)) error {
	if s.opts.WaitReplicas > 0 {
		return s.sendAndWait(ctx, calls, add)
	}
	if len(calls) == 0 {
		return nil
	}
	s.pipe(ctx, calls, add)
	return nil
}

func (s *Store) pipe(ctx context.Context, calls []*call, add func(*call, context.Context, goredis.Pipeliner)) {
	pipe := s.client.Pipeline()
	for _, c := range calls {
		add(c, ctx, pipe)
	}
	execute(ctx, pipe)
}

// sendAndWait sends calls and waits until every primary that has a part of the store
// reports that enough replicas have its writes. WAIT covers the writes of its own
// connection, so each pipeline writes a key of its own last. The replication stream is
// ordered: earlier writes of other processes, which this process may have read and
// built on, are then on the replicas as well.
func (s *Store) sendAndWait(ctx context.Context, calls []*call, add func(*call, context.Context, goredis.Pipeliner)) error {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		err := s.sendAndWaitOnce(ctx, calls, add)
		if err == nil || attempt == attempts || !isRedirect(err) || s.client.cluster == nil {
			return err
		}
		// Slots or primaries have changed. A change that was already applied will
		// appear as a conflict.
		s.client.cluster.ReloadState(ctx)
	}
}

func (s *Store) sendAndWaitOnce(ctx context.Context, calls []*call, add func(*call, context.Context, goredis.Pipeliner)) error {
	type node struct {
		shard int
		calls []*call
	}
	nodes := map[*goredis.Client]*node{}
	owner := make([]*node, len(s.keys.tags))
	for shard := range s.keys.tags {
		c, err := s.client.primaryOf(ctx, s.keys.barrier(shard))
		if err != nil {
			return failed("finding the primaries", err)
		}
		if nodes[c] == nil {
			nodes[c] = &node{shard: shard}
		}
		owner[shard] = nodes[c]
	}
	for _, c := range calls {
		owner[c.shard].calls = append(owner[c.shard].calls, c)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for client, n := range nodes {
		wg.Go(func() {
			pipe := client.Pipeline()
			for _, c := range n.calls {
				add(c, ctx, pipe)
			}
			barrier := pipe.Set(ctx, s.keys.barrier(n.shard), "", 0)
			wait := pipe.Do(ctx, "wait", s.opts.WaitReplicas, s.opts.WaitTimeout.Milliseconds())
			execute(ctx, pipe)
			confirmed, err := wait.Int()
			err = errors.Join(barrier.Err(), err)
			for _, c := range n.calls {
				if isRedirect(c.cmd.Err()) {
					err = c.cmd.Err()
				}
			}
			switch {
			case err != nil:
				err = failed("writing and waiting for replicas", err)
			case confirmed < s.opts.WaitReplicas:
				err = fmt.Errorf("redis profile store: %w: %d of %d within %s", ErrNotReplicated, confirmed, s.opts.WaitReplicas, s.opts.WaitTimeout)
			}
			if err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// isRedirect reports whether a node does not serve a slot, or does not serve it now.
func isRedirect(err error) bool {
	if err == nil {
		return false
	}
	for _, kind := range []string{"MOVED ", "ASK ", "READONLY ", "CLUSTERDOWN "} {
		if strings.Contains(err.Error(), kind) {
			return true
		}
	}
	return false
}
