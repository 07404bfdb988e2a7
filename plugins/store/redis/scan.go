package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
	goredis "github.com/redis/go-redis/v9"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// position is the content of a cursor. A server's SCAN is complete only if neither the
// server nor its slots change during the scan.
type position struct {
	topology uint64 // of the cluster when the scan began
	node     string // address of the primary that is scanned
	run      string // that server's run id
	cursor   uint64 // its own cursor; 0 to begin with it
}

func (p position) String() string {
	return fmt.Sprintf("%x|%s|%s|%d", p.topology, p.node, p.run, p.cursor)
}

func parsePosition(s string) (p position, err error) {
	parts := strings.Split(s, "|")
	if len(parts) != 4 {
		return p, fmt.Errorf("redis profile store: the cursor is not one of this store")
	}
	p.node, p.run = parts[1], parts[2]
	if p.topology, err = strconv.ParseUint(parts[0], 16, 64); err == nil {
		p.cursor, err = strconv.ParseUint(parts[3], 10, 64)
	}
	if err != nil {
		return p, fmt.Errorf("redis profile store: the cursor is not one of this store: %w", err)
	}
	return p, nil
}

// Scan implements store.Store. It returns store.ErrScanRestart if a server was
// restarted, failed over, or gained or lost slots during the scan.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Entry, string, error) {
	if err := s.enter(ctx, s.client); err != nil {
		return nil, "", err
	}
	defer s.leave()
	var p position
	var err error
	if cursor != "" {
		p, err = parsePosition(cursor)
	} else {
		p.topology, err = s.topology(ctx)
	}
	if err != nil {
		return nil, "", err
	}
	nodes, addrs, err := s.primaries(ctx)
	if err != nil {
		return nil, "", err
	}
	if cursor == "" {
		p.node = addrs[0]
	}
	node, ok := nodes[p.node]
	if !ok {
		return nil, "", store.ErrScanRestart
	}
	pipe := node.Pipeline()
	info := pipe.Info(ctx, "server")
	scan := pipe.Scan(ctx, p.cursor, s.keys.recordPattern(), int64(max(limit, 1)))
	execute(ctx, pipe)
	names, next, err := scan.Result()
	if err != nil {
		return nil, "", failed("scanning", err)
	}
	run := infoField(info.Val(), "run_id") // "" from a server without this section of INFO
	if p.cursor != 0 && run != p.run {
		return nil, "", store.ErrScanRestart
	}
	page, err := s.page(ctx, names)
	if err != nil {
		return nil, "", err
	}
	current, err := s.topology(ctx)
	if err != nil {
		return nil, "", err
	}
	if current != p.topology {
		return nil, "", store.ErrScanRestart
	}
	p.run, p.cursor = run, next
	if next == 0 {
		i, _ := slices.BinarySearch(addrs, p.node)
		if i+1 == len(addrs) {
			return page, "", nil
		}
		p.node, p.run = addrs[i+1], ""
	}
	return page, p.String(), nil
}

// page reads the records that a server has listed, each once.
func (s *Store) page(ctx context.Context, names []string) ([]store.Entry, error) {
	keys := make([]string, 0, len(names))
	for _, name := range names {
		if key, ok := s.keys.recordKey(name); ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	records, err := s.load(ctx, s.client, keys)
	if err != nil {
		return nil, err
	}
	page := make([]store.Entry, 0, len(keys))
	for i, r := range records {
		if r.Version != store.Absent { // it may have been deleted meanwhile
			page = append(page, store.Entry{Key: keys[i], Record: r})
		}
	}
	return page, nil
}

// primaries returns the servers by address, and their sorted addresses.
func (s *Store) primaries(ctx context.Context) (map[string]*goredis.Client, []string, error) {
	if s.client.server != nil {
		return map[string]*goredis.Client{"": s.client.server}, []string{""}, nil
	}
	var mu sync.Mutex
	nodes := map[string]*goredis.Client{}
	err := s.client.cluster.ForEachMaster(ctx, func(_ context.Context, c *goredis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes[c.Options().Addr] = c
		return nil
	})
	if err != nil || len(nodes) == 0 {
		return nil, nil, failed("finding the primaries", err)
	}
	addrs := make([]string, 0, len(nodes))
	for addr := range nodes {
		addrs = append(addrs, addr)
	}
	slices.Sort(addrs)
	return nodes, addrs, nil
}

// topology returns a hash of the assignment of slots to primaries.
func (s *Store) topology(ctx context.Context) (uint64, error) {
	if s.client.cluster == nil {
		return 0, nil
	}
	//lint:ignore SA1019 Redis 6.2 does not have the command in its place.
	ranges, err := s.client.cluster.ClusterSlots(ctx).Result()
	if err != nil {
		return 0, failed("reading the cluster's slots", err)
	}
	slices.SortFunc(ranges, func(a, b goredis.ClusterSlot) int { return a.Start - b.Start })
	h := xxhash.New()
	for _, r := range ranges {
		if len(r.Nodes) > 0 {
			_, _ = fmt.Fprintln(h, r.Start, r.End, r.Nodes[0].ID, r.Nodes[0].Addr)
		}
	}
	return h.Sum64(), nil
}
