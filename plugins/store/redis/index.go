package redis

import (
	"context"
	"errors"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// shardEntries is what was read of one shard's part of an index.
type shardEntries struct {
	members []string
	more    bool   // there may be entries after the last one
	start   string // where the next read begins, as ZRANGEBYLEX has it
}

// ScanIndex implements store.Store. It reads a little of every shard's part and
// then more of those that hold more of the page.
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
		// The whole page had expired: an empty one would mean the end.
		start = "(" + members[len(members)-1]
	}
}

// maxCallLookups bounds the values that one call of the script looks for, each in
// each of its shards, during which a server does nothing else, and maxPipeLookups
// those that are under way, so that none of the calls runs out of time.
const (
	maxCallLookups = 2048
	maxPipeLookups = 32 * maxCallLookups
)

// Lookup implements store.Store. Any shard may have a value, so each is asked for
// all of them, by a script that answers with what there is.
func (s *Store) Lookup(ctx context.Context, index string, values []string, limit int) ([][]string, error) {
	if err := s.enter(ctx, s.client); err != nil {
		return nil, err
	}
	defer s.leave()
	found := make([][]string, len(values))
	if len(values) == 0 || limit <= 0 {
		return found, nil
	}
	ask := make([]int, len(values)) // which values to look for
	for i := range ask {
		ask[i] = i
	}
	// What has expired may keep others out of the first that there are.
	const attempts = 4
	for attempt := 1; len(ask) > 0; attempt++ {
		if err := s.lookup(ctx, index, values, ask, limit, found); err != nil {
			return nil, err
		}
		if s.opts.IdleExpiry <= 0 {
			break
		}
		var again []int
		err := s.sweepFound(ctx, index, values, found, ask, func(i int) {
			if len(found[i]) == limit && attempt < attempts {
				again = append(again, i)
			}
		})
		if err != nil {
			return nil, err
		}
		ask = again
	}
	return found, nil
}

// sweepFound takes away what was found of the values at positions and has
// expired, and calls expired, before, for each value that has some.
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
	shards := 1 // that one call may ask
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
			for at := shard; at < min(shard+shards, len(s.keys.tags)); at++ {
				c.keys = append(c.keys, s.keys.index(at, index))
			}
			calls = append(calls, c)
		}
	}
	for some := range slices.Chunk(calls, maxPipeLookups/maxCallLookups) {
		s.ask(ctx, some)
	}
	for _, c := range calls {
		reply, err := c.cmd.Slice()
		if err != nil {
			return failed("looking up an index", err)
		}
		for at := 0; at+1 < len(reply); at += 2 {
			n, known := reply[at].(int64)
			text, _ := reply[at+1].(string)
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

var errReply = errors.New("the script answers with something else")

// CountIndex implements store.Store. It asks every shard at once, and each
// answers without going through its entries.
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
	_, _ = pipe.Exec(ctx)
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

// firstMembers gives the first members of all shards between start and end.
func (s *Store) firstMembers(ctx context.Context, index, start, end string, limit int) ([]string, error) {
	shards := make([]shardEntries, len(s.keys.tags))
	read := make([]int, len(shards)) // which to read from
	for i := range shards {
		shards[i] = shardEntries{start: start, more: true}
		read[i] = i
	}
	// An even share and some more, so that one round is mostly enough.
	count := min(limit, 2*limit/len(shards)+8)
	for {
		pipe := s.client.Pipeline()
		cmds := make([]*goredis.StringSliceCmd, len(read))
		for i, shard := range read {
			cmds[i] = pipe.ZRangeByLex(ctx, s.keys.index(shard, index), &goredis.ZRangeBy{Min: shards[shard].start, Max: end, Count: int64(count)})
		}
		_, _ = pipe.Exec(ctx)
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
		// A shard can hold more of the page if it was not read up to its end.
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

// sweep takes entries away whose record has expired, also from the index.
func (s *Store) sweep(ctx context.Context, index string, entries []store.IndexEntry) ([]store.IndexEntry, error) {
	pipe := s.client.Pipeline()
	exists := make([]*goredis.IntCmd, len(entries))
	for i, e := range entries {
		exists[i] = pipe.Exists(ctx, s.keys.record(s.keys.shard(e.Key), e.Key))
	}
	_, _ = pipe.Exec(ctx)
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
	// What cannot be removed now is met again.
	_ = s.run(ctx, calls)
	return kept, nil
}
