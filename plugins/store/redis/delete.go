package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// ErrNoStore is returned by DeleteAll if the prefix has no store.
var ErrNoStore = errors.New("there is no store at this prefix")

// deleteBatch is the number of keys that are listed and deleted at once.
const deleteBatch = 1000

// DeleteAll deletes the store at o.Prefix and returns the number of its keys. It deletes
// exactly the keys of the store's layout: a customer's id may look like a key of another
// store, and other prefixes may begin like this one. With dryRun it only counts.
func DeleteAll(ctx context.Context, o Options, dryRun bool) (deleted int64, err error) {
	o.Shards = 1 // until the layout is known
	s, err := Open(o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	got, err := s.client.Get(ctx, s.keys.layout()).Result()
	if errors.Is(err, goredis.Nil) {
		return 0, fmt.Errorf("redis profile store: %w: %q", ErrNoStore, o.Prefix)
	}
	if err != nil {
		return 0, failed("reading the layout", err)
	}
	version, shards, _ := strings.Cut(got, " ")
	n, err := strconv.Atoi(shards)
	if err != nil || version != strconv.Itoa(layout) || n < 1 || n > slots {
		return 0, fmt.Errorf("redis profile store: the data at prefix %q has a layout this release does not know; delete it with the release that wrote it", o.Prefix)
	}
	keys := newKeyspace(s.opts.Prefix, n)
	nodes, addrs, err := s.primaries(ctx)
	if err != nil {
		return 0, err
	}
	for _, addr := range addrs {
		n, err := deleteFrom(ctx, nodes[addr], keys, dryRun)
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	// The layout is deleted last, so that an interrupted deletion can be repeated.
	if !dryRun {
		if err := s.client.Del(ctx, keys.layout()).Err(); err != nil {
			return deleted, failed("deleting the layout", err)
		}
	}
	return deleted + 1, nil
}

func deleteFrom(ctx context.Context, node *goredis.Client, keys keyspace, dryRun bool) (deleted int64, err error) {
	pattern := strings.TrimSuffix(keys.recordPattern(), ":p:{*") + ":[piw]:{*"
	seen := map[string]struct{}{} // SCAN may list a key again
	for cursor := uint64(0); ; {
		names, next, err := node.Scan(ctx, cursor, pattern, deleteBatch).Result()
		if err != nil {
			return deleted, failed("listing keys", err)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !keys.owns(name) })
		if dryRun {
			for _, name := range names {
				seen[name] = struct{}{}
			}
			deleted = int64(len(seen))
		} else {
			pipe := node.Pipeline()
			cmds := make([]*goredis.IntCmd, len(names))
			for i, name := range names {
				cmds[i] = pipe.Unlink(ctx, name)
			}
			execute(ctx, pipe)
			for _, cmd := range cmds {
				n, err := cmd.Result()
				if err != nil {
					return deleted, failed("deleting keys", err)
				}
				deleted += n
			}
		}
		if cursor = next; cursor == 0 {
			return deleted, nil
		}
	}
}

// owns reports whether a key belongs to the store, except for the key of the layout.
func (k keyspace) owns(name string) bool {
	if _, ok := k.recordKey(name); ok {
		return true
	}
	rest, ok := strings.CutPrefix(name, k.prefix+":")
	if !ok || !strings.HasPrefix(rest, "i:{") && !strings.HasPrefix(rest, "w:{") {
		return false
	}
	kind := rest[:1]
	tag, index, ok := strings.Cut(rest[len("i:{"):], "}")
	return ok && slices.Contains(k.tags, tag) && (kind == "i" || index == "")
}
