package redis

import (
	"context"
	"errors"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// shardEntries is the part of an index that was read from one shard.
type shardEntries struct {
	members []string
	more    bool   // there may be entries after the last one
	start   string // where the next read begins, as ZRANGEBYLEX has it
}

// ScanIndex implements store.Store. It reads a few entries of every shard's part, and
// then more of the parts that have more of the page.
func (s *Store) ScanIndex(ctx context.Context, index, from, to string, after store.IndexEntry, limit int) ([]store.IndexEntry, error) {
	if err := s.enter(ctx, s.client); err != nil {
		return nil, err
	}
	defer s.leave()
	if limit <= 0 {
		return nil, nil
	}
	start := "[" + string(appendEscaped(nil, from))
	if after != (store.IndexEntry{}) {
		if m := member(after.Value, after.Key); m >= start[1:] {
			start = "(" + m
		}
	}
	end := "+"
	if to != "" {
		end = "(" + string(appendEscaped(nil, to))
		if start[1:] >= end[1:] {
			return nil, nil
		}
	}
	for {
		members, err := s.firstMembers(ctx, index, start, end, limit)
		if err != nil || len(members) == 0 {
			return nil, err
		}
		entries := make([]store.IndexEntry, len(members))
		for i, m := range members {
			if entries[i], err = memberEntry(m); err != nil {
				return nil, failed("reading an index", err)
			}
		}
		if s.opts.IdleExpiry > 0 {
			if entries, err = s.sweep(ctx, index, entries); err != nil {
				return nil, err
			}
		}
		if len(entries) > 0 {
			return entries, nil
		}
		// The whole page had expired. An empty page would mean the end.
		start = "(" + members[len(members)-1]
	}
}

// maxCallLookups bounds the number of values times shards of one script call, during
// which a server is blocked. maxPipeLookups bounds a pipeline, so that none of its
// calls times out.
const (
	maxCallLookups = 2048
	maxPipeLookups = 32 * maxCallLookups
)

// Lookup implements store.Store. Any shard may have a value, so every shard is queried
// for all values, by a script that returns only existing members.
func (s *Store) Lookup(ctx context.Context, index string, values []string, limit int) ([][]string, error) {
	if err := s.enter(ctx, s.client); err != nil {
		return nil, err
	}
	defer s.leave()
	found := make([][]string, len(values))
	if len(values) == 0 || limit <= 0 {
		return found, nil
	}
	pending := make([]int, len(values)) // the values to look for
	for i := range pending {
		pending[i] = i
	}
	// Expired records may displace others from the first keys of a value.
	const attempts = 4
	for attempt := 1; len(pending) > 0; attempt++ {
		if err := s.lookup(ctx, index, values, pending, limit, found); err != nil {
			return nil, err
		}
		if s.opts.IdleExpiry <= 0 {
			break
		}
		var incomplete []int
		err := s.sweepFound(ctx, index, values, found, pending, func(i int) {
			if len(found[i]) == limit && attempt < attempts {
				incomplete = append(incomplete, i)
			}
		})
		if err != nil {
			return nil, err
		}
		pending = incomplete
	}
	return found, nil
}

// sweepFound removes expired records from the results of the values at positions. It
// calls expired, beforehand, for each value that has some.
func (s *Store) sweepFound(ctx context.Context, index string, values []string, found [][]string, positions []int, expired func(int)) error {
	var entries []store.IndexEntry
	for _, i := range positions {
		for _, key := range found[i] {
			entries = append(entries, store.IndexEntry{Value: values[i], Key: key})
		}
	}
	kept, err := s.sweep(ctx, index, entries)
	if err != nil || len(kept) == len(entries) {
		return err
	}
	alive := make(map[store.IndexEntry]bool, len(kept))
	for _, e := range kept {
		alive[e] = true
	}
	for _, i := range positions {
		dead := func(key string) bool { return !alive[store.IndexEntry{Value: values[i], Key: key}] }
		if slices.ContainsFunc(found[i], dead) {
			expired(i)
			found[i] = slices.DeleteFunc(found[i], dead)
		}
	}
	return nil
}

// lookup finds the first keys of the values at positions.
func (s *Store) lookup(ctx context.Context, index string, values []string, positions []int, limit int, found [][]string) error {
	const maxValues = 1024
	shards := 1 // the number of shards that one call may query
	if s.client.cluster == nil {
		shards = max(1, maxCallLookups/min(len(positions), maxValues))
	}
	for _, i := range positions {
		found[i] = nil
	}
	var calls []*call
	for part := range slices.Chunk(positions, maxValues) {
		args := make([]any, 1, 1+len(part))
		args[0] = limit
		for _, i := range part {
			args = append(args, appendEscaped(nil, values[i]))
		}
		for shard := 0; shard < len(s.keys.tags); shard += shards {
			c := &call{script: lookupScript, args: args, positions: part, shard: shard}
			for i := shard; i < min(shard+shards, len(s.keys.tags)); i++ {
				c.keys = append(c.keys, s.keys.index(i, index))
			}
			calls = append(calls, c)
		}
	}
	for chunk := range slices.Chunk(calls, maxPipeLookups/maxCallLookups) {
		s.query(ctx, chunk)
	}
	for _, c := range calls {
		reply, err := c.cmd.Slice()
		if err != nil {
			return failed("looking up an index", err)
		}
		for j := 0; j+1 < len(reply); j += 2 {
			n, known := reply[j].(int64)
			text, _ := reply[j+1].(string)
			entry, err := memberEntry(text)
			if err != nil || !known || n < 0 || n >= int64(len(c.positions)) {
				return failed("looking up an index", errors.Join(errReply, err))
			}
			i := c.positions[n]
			found[i] = append(found[i], entry.Key)
		}
	}
	for _, i := range positions {
		if slices.Sort(found[i]); len(found[i]) > limit {
			found[i] = found[i][:limit]
		}
	}
	return nil
}

var errReply = errors.New("the lookup script gave an unexpected reply")

// CountIndex implements store.Store. It queries all shards at once; each answers
// without iterating over its entries.
func (s *Store) CountIndex(ctx context.Context, index, from, to string) (int64, error) {
	if err := s.enter(ctx, s.client); err != nil {
		return 0, err
	}
	defer s.leave()
	start, end := "["+string(appendEscaped(nil, from)), "+"
	if to != "" {
		end = "(" + string(appendEscaped(nil, to))
	}
	pipe := s.client.Pipeline()
	cmds := make([]*goredis.IntCmd, len(s.keys.tags))
	for shard := range cmds {
		cmds[shard] = pipe.ZLexCount(ctx, s.keys.index(shard, index), start, end)
	}
	execute(ctx, pipe)
	var sum int64
	for _, cmd := range cmds {
		n, err := cmd.Result()
		if err != nil {
			return 0, failed("counting an index", err)
		}
		sum += n
	}
	return sum, nil
}

// firstMembers returns the first members of all shards between start and end.
func (s *Store) firstMembers(ctx context.Context, index, start, end string, limit int) ([]string, error) {
	shards := make([]shardEntries, len(s.keys.tags))
	read := make([]int, len(shards)) // the shards to read from
	for i := range shards {
		shards[i] = shardEntries{start: start, more: true}
		read[i] = i
	}
	// An even share plus a reserve, so that one round usually suffices.
	count := min(limit, 2*limit/len(shards)+8)
	for {
		pipe := s.client.Pipeline()
		cmds := make([]*goredis.StringSliceCmd, len(read))
		for i, shard := range read {
			cmds[i] = pipe.ZRangeByLex(ctx, s.keys.index(shard, index), &goredis.ZRangeBy{Min: shards[shard].start, Max: end, Count: int64(count)})
		}
		execute(ctx, pipe)
		for i, shard := range read {
			got, err := cmds[i].Result()
			if err != nil {
				return nil, failed("reading an index", err)
			}
			e := &shards[shard]
			e.members = append(e.members, got...)
			if e.more = len(got) == count; e.more {
				e.start = "(" + got[len(got)-1]
			}
		}
		var all []string
		for i := range shards {
			all = append(all, shards[i].members...)
		}
		slices.Sort(all)
		if len(all) > limit {
			all = all[:limit]
		}
		// A shard can have more of the page if it was not read to its end.
		read = read[:0]
		for i := range shards {
			if shards[i].more && (len(all) < limit || strings.Compare(shards[i].start[1:], all[len(all)-1]) < 0) {
				read = append(read, i)
			}
		}
		if len(read) == 0 {
			return all, nil
		}
		count = min(limit, count*4)
	}
}

// sweep removes the entries of expired records, from the result and from the index.
func (s *Store) sweep(ctx context.Context, index string, entries []store.IndexEntry) ([]store.IndexEntry, error) {
	pipe := s.client.Pipeline()
	exists := make([]*goredis.IntCmd, len(entries))
	for i, e := range entries {
		exists[i] = pipe.Exists(ctx, s.keys.record(s.keys.shard(e.Key), e.Key))
	}
	execute(ctx, pipe)
	byShard := map[int]*call{}
	var calls []*call
	kept := make([]store.IndexEntry, 0, len(entries))
	for i, e := range entries {
		n, err := exists[i].Result()
		if err != nil {
			return nil, failed("reading the records of an index", err)
		}
		if n > 0 {
			kept = append(kept, e)
			continue
		}
		shard := s.keys.shard(e.Key)
		c := byShard[shard]
		if c == nil || len(c.args) == maxCallChanges {
			c = &call{script: sweepScript, shard: shard, keys: []string{s.keys.index(shard, index)}}
			byShard[shard] = c
			calls = append(calls, c)
		}
		c.keys = append(c.keys, s.keys.record(shard, e.Key))
		c.args = append(c.args, member(e.Value, e.Key))
	}
	if len(calls) == 0 {
		return kept, nil
	}
	// An entry that cannot be removed now is found again by a later read.
	_ = s.run(ctx, calls)
	return kept, nil
}
