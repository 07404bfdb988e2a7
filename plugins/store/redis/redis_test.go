package redis

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/storetest"
)

var ctx = context.Background()

// single and cluster return the options for a real Redis, or skip the test.
func single(t testing.TB) Options {
	url := os.Getenv("TEST_REDIS_URL")
	if url == "" {
		t.Skip(`needs a Redis: TEST_REDIS_URL="$(tests/services/redis.sh start)"`)
	}
	return Options{URL: url}
}

func cluster(t testing.TB) Options {
	addrs := os.Getenv("TEST_REDIS_CLUSTER")
	if addrs == "" {
		t.Skip(`needs a Redis Cluster: TEST_REDIS_CLUSTER="$(tests/services/redis_cluster.sh start)"`)
	}
	return Options{URL: "redis://" + strings.ReplaceAll(addrs, ",", ",redis://"), Mode: Cluster}
}

var prefixes atomic.Int64

// fresh returns options with an unused prefix, and deletes the keys below it after the
// test.
func fresh(t testing.TB, o Options) Options {
	if o.Prefix != "" {
		return o
	}
	o.Prefix = fmt.Sprintf("test-%d-%d:*[x]?\\", time.Now().UnixNano(), prefixes.Add(1))
	t.Cleanup(func() { forget(o) })
	return o
}

// forget deletes all keys of a store.
func forget(o Options) {
	o.Username, o.Password, o.WaitReplicas = "", "", 0
	s, err := Open(o)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	nodes, _, err := s.primaries(ctx)
	if err != nil {
		return
	}
	for _, n := range nodes {
		it := n.Scan(ctx, 0, strings.TrimSuffix(s.keys.recordPattern(), "p:{*")+"*", 1000).Iterator()
		pipe := n.Pipeline()
		for it.Next(ctx) {
			pipe.Unlink(ctx, it.Val())
		}
		execute(ctx, pipe)
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func contract(t *testing.T, o Options) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := Open(fresh(t, o))
		require.NoError(t, err)
		return s
	})
}

func TestContractInProcess(t *testing.T) {
	for _, shards := range []int{1, clusterShards} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				// A reply after the timeout counts as lost, and the retried write then
				// conflicts with itself. The race detector makes replies slow.
				s, err := Open(Options{URL: "redis://" + miniredis.RunT(t).Addr(), Shards: shards, Timeout: time.Minute})
				require.NoError(t, err)
				return s
			})
		})
	}
}

func TestContractServer(t *testing.T) { contract(t, single(t)) }

func TestContractCluster(t *testing.T) { contract(t, cluster(t)) }

func TestContractManyShards(t *testing.T) {
	o := single(t)
	o.Shards = 256
	contract(t, o)
}

func TestContractExpiry(t *testing.T) {
	o := single(t)
	o.IdleExpiry = time.Hour
	contract(t, o)
}

func TestContractClusterWaitingForReplicas(t *testing.T) {
	o := cluster(t)
	o.WaitReplicas = 1
	contract(t, o)
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		"write redis://host:port":  {URL: "http://:secret@host"},
		"URL 2 is not valid":       {URL: "redis://a, redis://user:secret@b:port", Mode: Cluster},
		"not one of simple":        {URL: "redis://a", Mode: "sentinel"},
		"name the primary":         {URL: "redis://a", Mode: Failover},
		"is for mode failover":     {URL: "redis://a", MasterName: "m"},
		"needs mode cluster":       {URL: "redis://a", ReadReplicas: true},
		"leave it out":             {URL: "redis://a", Prefix: "{x}"},
		"20000 shards":             {URL: "redis://a", Shards: 20000},
		"under a second":           {URL: "redis://a", IdleExpiry: time.Millisecond},
		"give none or more":        {URL: "redis://a", WaitReplicas: -1},
		"shorter than the timeout": {URL: "redis://a", WaitTimeout: time.Minute},
		"record limit":             {URL: "redis://a", MaxRecordBytes: -1},
		"too many for mode simple": {URL: "redis://a,redis://b"},
		"a cluster has database 0": {URL: "redis://a/3", Mode: Cluster},
	} {
		_, err := Open(o)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
}

// A parser that takes a part of the password for a port quotes it in its error.
func TestURLErrorsContainNoPartOfAPassword(t *testing.T) {
	for _, u := range []string{
		"redis://:hunter2/rest@host:6379", "redis://u:hunter2#x@host", "redis://u:hunter2?x@host:1", "redis://u:hun%ter2@host",
		"redis://u:hunter2 @host", "redis://host:hunter2", "redis://:hunter2\n@host", "hunter2@host", "redis://h/hunter2", "redis://h?db=hunter2", "redis://h?hunter2=1",
	} {
		_, err := Options{URL: u}.target()
		if err != nil {
			require.NotContains(t, err.Error(), "hunter2", u)
			require.NotContains(t, err.Error(), "hun%", u)
			require.ErrorContains(t, err, "%2F for /")
		}
	}
	_, err := Options{URL: "redis://:hunter2/rest@host:6379"}.target()
	require.Error(t, err)
}

func TestURLs(t *testing.T) {
	got, err := Options{URL: "rediss://u:p@a:1,rediss://b", Mode: Cluster}.target()
	require.NoError(t, err)
	require.Equal(t, []string{"a:1", "b:6379"}, got.addrs)
	require.Equal(t, "u", got.username)
	require.Equal(t, "p", got.password)
	require.NotNil(t, got.tls)
	require.Empty(t, got.tls.ServerName, "each node is checked for its own name")

	got, err = Options{URL: "redis://u:p@a/7", Username: "v", Password: "q"}.target()
	require.NoError(t, err)
	require.Equal(t, target{addrs: []string{"a:6379"}, username: "v", password: "q", db: 7}, got)
}

// Shards are spread evenly, so any number of nodes gets equal parts.
func TestShardTags(t *testing.T) {
	require.EqualValues(t, 0x31c3, slotOf("123456789"), "the check value of CRC-16/XMODEM, below 16384 as it is")
	for _, n := range []int{1, 3, 16, 256, 1000} {
		tags := shardTags(n)
		seen := map[string]bool{}
		for i, tag := range tags {
			slot := int(slotOf(tag))
			require.Equal(t, i, slot*n/slots)
			require.False(t, seen[tag])
			seen[tag] = true
		}
	}
	// These are part of the data of every store: they must never change.
	require.Equal(t, "df5383ebf7d28a19af8c004797c2cf52e4a9e49c", sha(strings.Join(shardTags(256), ",")))
}

func TestKeysSurviveEncoding(t *testing.T) {
	k := newKeyspace("a:p", 16)
	for _, key := range []string{"x", "}", "{", "{}", "}x{", "\x00", "a:p:{1}"} {
		got, ok := k.recordKey(k.record(k.shard(key), key))
		require.True(t, ok)
		require.Equal(t, key, got)
	}
	for _, other := range []string{"", "a:p", k.index(1, "x"), k.layout(), k.prefix + ":p:{}x", k.prefix + ":p:{nine}x", k.record(k.shard("x")^1, "x")} {
		_, ok := k.recordKey(other)
		require.False(t, ok, other)
	}
}

func TestRecordLimit(t *testing.T) {
	s := open(t, Options{URL: "redis://" + miniredis.RunT(t).Addr(), MaxRecordBytes: 10})
	_, err := s.Commit(ctx, []store.Change{{Key: "a", Data: make([]byte, 10)}, {Key: "b", Data: make([]byte, 11)}})
	require.ErrorIs(t, err, store.ErrTooLarge)
	r, err := s.Load(ctx, []string{"a"})
	require.NoError(t, err)
	require.Zero(t, r[0])
}

func TestLayoutIsChecked(t *testing.T) {
	server := miniredis.RunT(t)
	url := "redis://" + server.Addr()
	_, err := open(t, Options{URL: url, Shards: 16}).Load(ctx, nil)
	require.NoError(t, err)
	other := open(t, Options{URL: url, Shards: 32})
	_, err = other.Commit(ctx, nil)
	require.ErrorContains(t, err, "in 16 shards, not 32; set shards to 16, or use another prefix")
	_, err = open(t, Options{URL: url, Shards: 32, Prefix: "other"}).Load(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, server.Set("new:layout", "9 hexagons"))
	_, err = open(t, Options{URL: url, Prefix: "new"}).Load(ctx, nil)
	require.ErrorContains(t, err, "run the release that wrote it")
}

func TestLoadRejectsForeignValues(t *testing.T) {
	server := miniredis.RunT(t)
	s := open(t, Options{URL: "redis://" + server.Addr()})
	name := s.keys.record(s.keys.shard("customer"), "customer")
	require.NoError(t, server.Set(name, "short"))
	_, err := s.Load(ctx, []string{"customer"})
	require.ErrorContains(t, err, "is something else writing there?")
	require.NotContains(t, err.Error(), "customer")
}

func TestExpiry(t *testing.T) {
	server := miniredis.RunT(t)
	s := open(t, Options{URL: "redis://" + server.Addr(), IdleExpiry: time.Hour})
	change := func(key, value string, version store.Version) {
		conflicts, err := s.Commit(ctx, []store.Change{{
			Key: key, Version: version, Data: []byte(value), Index: []store.IndexEdit{{Index: "i", Value: key}},
		}})
		require.NoError(t, err)
		require.Empty(t, conflicts)
	}
	for _, key := range []string{"a", "b", "c", "d"} {
		change(key, "1", store.Absent)
	}
	server.FastForward(40 * time.Minute)
	change("d", "2", store.VersionOf([]byte("1")))
	server.FastForward(40 * time.Minute)

	r, err := s.Load(ctx, []string{"a", "d"})
	require.NoError(t, err)
	require.Zero(t, r[0], "not written for 80 minutes")
	require.Equal(t, "2", string(r[1].Data), "written 40 minutes ago")
	got, err := s.ScanIndex(ctx, "i", "", "", store.IndexEntry{}, 2)
	require.NoError(t, err)
	require.Equal(t, []store.IndexEntry{{Value: "d", Key: "d"}}, got, "pages of expired entries are skipped")
	members, err := server.ZMembers(s.keys.index(0, "i"))
	require.NoError(t, err)
	require.Equal(t, []string{member("d", "d")}, members, "and removed")
	change("a", "again", store.Absent)
}

// A server that lost the script receives it again within the same Commit.
func TestCommitReloadsALostScript(t *testing.T) {
	for _, o := range each(t) {
		s := open(t, fresh(t, o))
		for round := range 3 {
			nodes, _, err := s.primaries(ctx)
			require.NoError(t, err)
			for _, n := range nodes {
				require.NoError(t, n.ScriptFlush(ctx).Err())
			}
			var changes []store.Change
			for i := range 500 {
				changes = append(changes, store.Change{Key: fmt.Sprint(round, "-", i), Data: []byte("x")})
			}
			conflicts, err := s.Commit(ctx, changes)
			require.NoError(t, err)
			require.Empty(t, conflicts)
		}
	}
}

// each returns the options of every available Redis.
func each(t *testing.T) (all []Options) {
	all = append(all, Options{URL: "redis://" + miniredis.RunT(t).Addr()})
	if os.Getenv("TEST_REDIS_URL") != "" {
		all = append(all, single(t))
	}
	if os.Getenv("TEST_REDIS_CLUSTER") != "" {
		all = append(all, cluster(t))
	}
	return all
}

// trips counts round trips.
type trips struct{ n atomic.Int64 }

func (h *trips) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (h *trips) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error { h.n.Add(1); return next(ctx, cmd) }
}

func (h *trips) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error { h.n.Add(1); return next(ctx, cmds) }
}

// A batch of any size is one pipeline to read and one to write.
func TestRoundTrips(t *testing.T) {
	for _, o := range each(t) {
		s := open(t, fresh(t, o))
		_, err := s.Commit(ctx, []store.Change{{Key: "first", Data: []byte("x")}}) // claims the layout and loads the script
		require.NoError(t, err)
		nodes, _, err := s.primaries(ctx)
		require.NoError(t, err)
		for _, n := range nodes {
			require.NoError(t, n.ScriptLoad(ctx, commitScript).Err())
		}
		counter := &trips{}
		s.client.AddHook(counter)
		for _, size := range []int{1, 10, 1000, 5000} {
			keys := make([]string, size)
			changes := make([]store.Change, size)
			for i := range size {
				keys[i] = fmt.Sprint(size, "-", i)
				changes[i] = store.Change{Key: keys[i], Data: []byte("x"), Index: []store.IndexEdit{{Index: "i", Value: "v"}}}
			}
			counter.n.Store(0)
			_, err := s.Load(ctx, keys)
			require.NoError(t, err)
			require.EqualValues(t, 1, counter.n.Load(), "loading %d", size)
			counter.n.Store(0)
			_, err = s.Commit(ctx, changes)
			require.NoError(t, err)
			require.EqualValues(t, 1, counter.n.Load(), "committing %d", size)
		}
	}
}

func TestErrorsOfAnUnreachableServer(t *testing.T) {
	server := miniredis.RunT(t)
	s := open(t, Options{URL: "redis://" + server.Addr(), MaxRetries: -1, DialTimeout: 200 * time.Millisecond, Timeout: 2 * time.Second})
	_, err := s.Commit(ctx, []store.Change{{Key: "customer", Data: []byte("1")}})
	require.NoError(t, err)
	server.Close()
	_, err = s.Load(ctx, []string{"customer"})
	require.ErrorContains(t, err, "redis profile store: reading: ")
	_, err = s.Commit(ctx, []store.Change{{Key: "customer", Data: []byte("2")}})
	require.ErrorContains(t, err, "redis profile store: writing: ")
	require.Error(t, s.Ping(ctx))
	require.NoError(t, server.Restart())
	r, err := s.Load(ctx, []string{"customer"})
	require.NoError(t, err)
	require.Equal(t, "1", string(r[0].Data))

	server.SetError("LOADING Redis is loading the dataset in memory")
	for _, err := range []error{s.Ping(ctx), second(s.Load(ctx, []string{"customer"})), second(s.Commit(ctx, []store.Change{{Key: "customer"}}))} {
		require.ErrorContains(t, err, "LOADING")
		require.NotContains(t, err.Error(), "customer")
	}
	server.SetError("")
}

func second[T any](_ T, err error) error { return err }
