package redis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/storetest"
)

func sentinel(t testing.TB) Options {
	addrs := os.Getenv("TEST_REDIS_SENTINEL")
	if addrs == "" {
		t.Skip(`needs Sentinels: TEST_REDIS_SENTINEL="$(tests/services/redis_sentinel.sh start)"`)
	}
	return Options{URL: "redis://" + strings.ReplaceAll(addrs, ",", ",redis://"), Mode: Failover, MasterName: "profiles"}
}

const (
	waitLimit    = 30 * time.Second
	pollInterval = 20 * time.Millisecond
)

// ledger is a workload that reveals lost and repeated writes: each worker adds numbered
// items to records, once each, in the way in which events are applied. It checks
// whether the item is present before it adds it, regardless of the result of the last
// attempt.
type ledger struct {
	keys    []string
	errors  atomic.Int64
	retries atomic.Int64
}

func newLedger(n int) *ledger {
	l := &ledger{}
	for i := range n {
		l.keys = append(l.keys, fmt.Sprintf("record-%d", i))
	}
	return l
}

// work adds items of a worker until stop, to some of the records in each batch, and
// returns the number of batches.
func (l *ledger) work(t testing.TB, s *Store, worker string, stop func(batch int) bool) (batches int) {
	for n := 0; !stop(n); n++ {
		item := fmt.Sprintf(" %s:%d", worker, n)
		for pending := l.keys; len(pending) > 0; {
			again, err := l.try(s, pending, item)
			if err != nil {
				l.errors.Add(1)
				if n := l.errors.Load(); n > 20_000 {
					t.Errorf("too many errors, the last: %v", err)
					return batches
				}
				time.Sleep(time.Millisecond) // as a pipeline backs off
				continue
			}
			if len(again) > 0 {
				l.retries.Add(1)
			}
			pending = again
		}
		batches++
	}
	return batches
}

func (l *ledger) try(s *Store, keys []string, item string) (again []string, err error) {
	records, err := s.Load(ctx, keys)
	if err != nil {
		return nil, err
	}
	var changes []store.Change
	for i, r := range records {
		if slices.Contains(strings.Fields(string(r.Data)), item[1:]) {
			continue
		}
		c := store.Change{Key: keys[i], Version: r.Version, Data: append(slices.Clone(r.Data), item...)}
		if r.Version != store.Absent {
			c.Index = append(c.Index, store.IndexEdit{Index: "length", Value: fmt.Sprint(len(r.Data)), Remove: true})
		}
		c.Index = append(c.Index, store.IndexEdit{Index: "length", Value: fmt.Sprint(len(c.Data))})
		changes = append(changes, c)
	}
	conflicts, err := s.Commit(ctx, changes)
	if err != nil {
		return nil, err
	}
	for _, i := range conflicts {
		again = append(again, changes[i].Key)
	}
	return again, nil
}

// check asserts that every item of every worker is in every record exactly once, and
// that each record has exactly its own index entry.
func (l *ledger) check(t testing.TB, s *Store, batches map[string]int) {
	records, err := s.Load(ctx, l.keys)
	require.NoError(t, err)
	var want []store.IndexEntry
	for i, r := range records {
		seen := map[string]int{}
		for _, item := range strings.Fields(string(r.Data)) {
			seen[item]++
		}
		total := 0
		for worker, n := range batches {
			total += n
			for b := range n {
				require.Equal(t, 1, seen[fmt.Sprintf("%s:%d", worker, b)], "%s, item %d of %s", l.keys[i], b, worker)
			}
		}
		require.Len(t, seen, total)
		want = append(want, store.IndexEntry{Value: fmt.Sprint(len(r.Data)), Key: l.keys[i]})
	}
	got, err := s.ScanIndex(ctx, "length", "", "", store.IndexEntry{}, 10_000)
	require.NoError(t, err)
	require.ElementsMatch(t, want, got)
}

// cuttingProxy forwards bytes and cuts a connection now and then: before, within or
// after a request, or before the reply arrives.
type cuttingProxy struct {
	listener net.Listener
	target   string
	cutting  atomic.Bool
	cuts     atomic.Int64
}

func newCuttingProxy(t testing.TB, target string) *cuttingProxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &cuttingProxy{listener: l, target: target}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *cuttingProxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	closeBoth := func() { _ = client.Close(); _ = server.Close() }
	pass := func(dst, src net.Conn) {
		defer closeBoth()
		buf := make([]byte, 4096)
		for {
			n, err := src.Read(buf)
			if p.cutting.Load() && rand.IntN(60) == 0 {
				p.cuts.Add(1)
				_, _ = dst.Write(buf[:rand.IntN(n+1)])
				return
			}
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	go pass(server, client)
	pass(client, server)
}

// A connection that breaks leaves the outcome of a Commit unknown. Retrying loses
// nothing and applies nothing twice.
func TestRetriesAfterLostRepliesApplyOnce(t *testing.T) {
	targets := []string{miniredis.RunT(t).Addr()}
	if os.Getenv("TEST_REDIS_URL") != "" {
		u, err := goredis.ParseURL(single(t).URL)
		require.NoError(t, err)
		targets = append(targets, u.Addr)
	}
	for _, target := range targets {
		for _, retries := range []int{-1, 3} {
			o := fresh(t, Options{URL: "redis://" + target})
			proxy := newCuttingProxy(t, target)
			o.URL, o.MaxRetries = "redis://"+proxy.listener.Addr().String(), retries
			s := open(t, o)
			require.NoError(t, s.Ping(ctx))
			proxy.cutting.Store(true)
			l := newLedger(40)
			batches := map[string]int{}
			var mu sync.Mutex
			var workers sync.WaitGroup
			for w := range 3 {
				workers.Go(func() {
					name := fmt.Sprint("worker", w)
					n := l.work(t, s, name, func(batch int) bool { return batch == 60 })
					mu.Lock()
					batches[name] = n
					mu.Unlock()
				})
			}
			workers.Wait()
			proxy.cutting.Store(false)
			l.check(t, s, batches)
			require.Positive(t, proxy.cuts.Load())
			t.Logf("%d connections cut, %d errors, %d retries", proxy.cuts.Load(), l.errors.Load(), l.retries.Load())
		}
	}
}

// during runs workers while f runs.
func during(t *testing.T, s *Store, event func()) {
	l := newLedger(60)
	var stopped atomic.Bool
	var mu sync.Mutex
	batches := map[string]int{}
	var workers sync.WaitGroup
	for w := range 2 {
		workers.Go(func() {
			name := fmt.Sprint("worker", w)
			// The records grow with each batch, so the number of batches is bounded.
			n := l.work(t, s, name, func(batch int) bool { return stopped.Load() && batch >= 20 || batch >= 3000 })
			mu.Lock()
			batches[name] = n
			mu.Unlock()
		})
	}
	func() {
		// f may end the test. The workers have to end first.
		defer workers.Wait()
		defer stopped.Store(true)
		event()
	}()
	l.check(t, s, batches)
	t.Logf("%v batches, %d errors, %d retries", batches, l.errors.Load(), l.retries.Load())
}

// takeOver makes a replica of the cluster the primary and waits until it is.
func takeOver(t *testing.T, c *goredis.ClusterClient) {
	var mu sync.Mutex
	var replica *goredis.Client
	// After a takeover the nodes need a moment to agree on their roles.
	require.Eventually(t, func() bool {
		c.ReloadState(ctx)
		err := c.ForEachSlave(ctx, func(ctx context.Context, n *goredis.Client) error {
			role, err := n.Do(ctx, "role").Slice()
			if err != nil || role[0] != "slave" || role[3] != "connected" {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			replica = n
			return nil
		})
		return err == nil && replica != nil
	}, waitLimit, pollInterval)
	require.NoError(t, replica.Do(ctx, "cluster", "failover").Err())
	require.Eventually(t, func() bool {
		role, err := replica.Do(ctx, "role").Slice()
		return err == nil && role[0] == "master"
	}, waitLimit, pollInterval)
}

func TestClusterFailover(t *testing.T) {
	s := open(t, fresh(t, cluster(t)))
	during(t, s, func() {
		for range 2 {
			takeOver(t, s.client.cluster)
		}
	})
	// Restore all servers of the cluster before the next test.
	require.Eventually(t, func() bool { return s.Ping(ctx) == nil }, waitLimit, pollInterval)
}

// Sentinels promote a replica without a hand-over by the primary, so only data that
// Commit has confirmed on the replica is certain to be there.
func TestSentinelFailover(t *testing.T) {
	o := fresh(t, sentinel(t))
	o.WaitReplicas, o.WaitTimeout = 1, 200*time.Millisecond
	s := open(t, o)
	before, err := s.client.Info(ctx, "server").Result()
	require.NoError(t, err)
	watch := goredis.NewSentinelClient(&goredis.Options{Addr: strings.Split(os.Getenv("TEST_REDIS_SENTINEL"), ",")[0]})
	defer func() { _ = watch.Close() }()
	during(t, s, func() {
		// Sentinels refuse a failover soon after the last one.
		require.Eventually(t, func() bool { return watch.Failover(ctx, "profiles").Err() == nil }, waitLimit, pollInterval)
		require.Eventually(t, func() bool {
			now, err := s.client.Info(ctx, "server").Result()
			return err == nil && infoField(now, "run_id") != infoField(before, "run_id")
		}, waitLimit, pollInterval)
	})
}

func TestContractSentinel(t *testing.T) { contract(t, sentinel(t)) }

func TestSentinelReplicas(t *testing.T) {
	o := sentinel(t)
	o.ReadReplicas = true
	replicaReads(t, o)
}

func TestClusterReplicas(t *testing.T) {
	o := cluster(t)
	o.ReadReplicas = true
	replicaReads(t, o)
}

// replicaReads asserts that LoadReplica soon returns committed records, and that some
// of them come from replicas.
func replicaReads(t *testing.T, o Options) {
	s := open(t, fresh(t, o))
	var keys []string
	var changes []store.Change
	for i := range 200 {
		keys = append(keys, fmt.Sprint(i))
		changes = append(changes, store.Change{Key: keys[i], Data: []byte(keys[i])})
	}
	_, err := s.Commit(ctx, changes)
	require.NoError(t, err)
	reads := func() (n int64) {
		err := s.replicas.cluster.ForEachSlave(ctx, func(ctx context.Context, c *goredis.Client) error {
			info, err := c.Info(ctx, "commandstats").Result()
			_, rest, _ := strings.Cut(info, "cmdstat_mget:calls=")
			var calls int64
			_, _ = fmt.Sscanf(rest, "%d", &calls)
			atomic.AddInt64(&n, calls)
			return err
		})
		require.NoError(t, err)
		return n
	}
	before := reads()
	require.Eventually(t, func() bool {
		records, err := s.LoadReplica(ctx, keys)
		if err != nil {
			return false
		}
		for i, r := range records {
			if string(r.Data) != keys[i] || r.Version != store.VersionOf([]byte(keys[i])) {
				return false
			}
		}
		return true
	}, waitLimit, pollInterval)
	require.Eventually(t, func() bool {
		_, err := s.LoadReplica(ctx, keys)
		return err == nil && reads() > before
	}, waitLimit, pollInterval)
}

func TestCommitFailsWithoutEnoughReplicas(t *testing.T) {
	o := fresh(t, cluster(t))
	o.WaitReplicas, o.WaitTimeout = 2, 50*time.Millisecond
	s := open(t, o)
	_, err := s.Commit(ctx, []store.Change{{Key: "k", Data: []byte("v")}})
	require.ErrorIs(t, err, ErrNotReplicated)
	require.ErrorContains(t, err, "1 of 2 within 50ms")
	r, err := s.Load(ctx, []string{"k"})
	require.NoError(t, err)
	require.Equal(t, "v", string(r[0].Data), "the primary has it")
	_, err = s.Commit(ctx, nil)
	require.ErrorIs(t, err, ErrNotReplicated, "an empty Commit does not confirm it either")
}

// While a slot moves, some of its records are on one node and some on another.
func TestSlotMigration(t *testing.T) {
	o := fresh(t, cluster(t))
	o.MaxRetries = -1
	s := open(t, o)
	const shard = 7
	var keys []string
	for i := 0; len(keys) < 40; i++ {
		if key := fmt.Sprint("k", i); s.keys.shard(key) == shard {
			keys = append(keys, key)
		}
	}
	write := func(from, to string) error {
		records, err := s.Load(ctx, keys)
		if err != nil {
			return err
		}
		var changes []store.Change
		for i, r := range records {
			if string(r.Data) != from {
				return fmt.Errorf("%s is %q, not %q", keys[i], r.Data, from)
			}
			changes = append(changes, store.Change{Key: keys[i], Version: r.Version, Data: []byte(to)})
		}
		changes[3].Version++ // a conflict keeps its position
		conflicts, err := s.Commit(ctx, changes)
		if err != nil {
			return err
		}
		if !slices.Equal(conflicts, []int{3}) {
			return fmt.Errorf("conflicts %v", conflicts)
		}
		changes[3].Version--
		conflicts, err = s.Commit(ctx, changes[3:4])
		return errors.Join(err, map[bool]error{true: errors.New("a conflict")}[len(conflicts) > 0])
	}
	require.NoError(t, write("", "one"))

	slot := int(slotOf(s.keys.tags[shard]))
	source, err := s.client.cluster.MasterForKey(ctx, s.keys.barrier(shard))
	require.NoError(t, err)
	nodes, addrs, err := s.primaries(ctx)
	require.NoError(t, err)
	addr := addrs[0]
	if nodes[addr] == source {
		addr = addrs[1]
	}
	target := nodes[addr]
	id := func(c *goredis.Client) string {
		v, err := c.Do(ctx, "cluster", "myid").Text()
		require.NoError(t, err)
		return v
	}
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	move := func(names ...string) {
		args := []any{"migrate", host, port, "", 0, 5000, "keys"}
		for _, n := range names {
			args = append(args, n)
		}
		require.NoError(t, source.Do(ctx, args...).Err())
	}
	require.NoError(t, target.Do(ctx, "cluster", "setslot", slot, "importing", id(source)).Err())
	require.NoError(t, source.Do(ctx, "cluster", "setslot", slot, "migrating", id(target)).Err())
	var names []string
	for _, k := range keys {
		names = append(names, s.keys.record(shard, k))
	}
	move(names[:20]...)
	require.NoError(t, write("one", "two"), "half of the slot has moved")

	_, cursor, err := s.Scan(ctx, "", 1)
	require.NoError(t, err)

	move(names[20:]...)
	rest, err := source.Do(ctx, "cluster", "getkeysinslot", slot, 1000).StringSlice()
	require.NoError(t, err)
	if len(rest) > 0 {
		move(rest...)
	}
	require.NoError(t, write("two", "three"), "all of the slot has moved")
	for _, n := range []*goredis.Client{target, source} {
		require.NoError(t, n.Do(ctx, "cluster", "setslot", slot, "node", id(target)).Err())
	}
	require.NoError(t, write("three", "four"), "the slot belongs to the other node")

	require.Eventually(t, func() bool {
		_, _, err := s.Scan(ctx, cursor, 1)
		return errors.Is(err, store.ErrScanRestart)
	}, waitLimit, pollInterval, "a scan from before must not go on as if nothing had been")
}

func TestScanDetectsARestart(t *testing.T) {
	s := open(t, fresh(t, single(t)))
	var changes []store.Change
	for i := range 1000 {
		changes = append(changes, store.Change{Key: fmt.Sprint(i), Data: []byte("x")})
	}
	_, err := s.Commit(ctx, changes)
	require.NoError(t, err)
	_, cursor, err := s.Scan(ctx, "", 10)
	require.NoError(t, err)
	p, err := parsePosition(cursor)
	require.NoError(t, err)
	require.Len(t, p.run, 40)
	p.run = strings.Repeat("0", 40)
	_, _, err = s.Scan(ctx, p.String(), 10)
	require.ErrorIs(t, err, store.ErrScanRestart)
}

// The permissions that the package documentation lists are sufficient.
func TestDocumentedPermissionsSuffice(t *testing.T) {
	commands := strings.Fields("+get +mget +set +setnx +del +getrange +exists +zadd +zrem +zrangebylex +zlexcount +eval +evalsha +scan +info +ping +wait " +
		"+cluster|slots +cluster|shards +command +readonly")
	for _, o := range []func(testing.TB) Options{single, cluster} {
		t.Run("", func(t *testing.T) {
			o := o(t)
			admin := open(t, o)
			nodes := func(f func(ctx context.Context, c *goredis.Client) error) {
				if admin.client.cluster != nil {
					require.NoError(t, admin.client.cluster.ForEachShard(ctx, f))
				} else {
					require.NoError(t, f(ctx, admin.client.server))
				}
			}
			nodes(func(ctx context.Context, c *goredis.Client) error {
				args := []any{"acl", "setuser", "limited", "reset", "on", ">secret", "~acl-*"}
				for _, cmd := range commands {
					args = append(args, cmd)
				}
				return c.Do(ctx, args...).Err()
			})
			t.Cleanup(func() {
				nodes(func(ctx context.Context, c *goredis.Client) error {
					return c.Do(ctx, "acl", "deluser", "limited").Err()
				})
			})
			o.Username, o.Password, o.IdleExpiry = "limited", "secret", time.Hour
			storetest.Run(t, func(t *testing.T) store.Store {
				o := o
				o.Prefix = fmt.Sprintf("acl-%d-%d", time.Now().UnixNano(), prefixes.Add(1))
				t.Cleanup(func() { forget(o) })
				s, err := Open(o)
				require.NoError(t, err)
				return s
			})

			o.Prefix = "other"
			_, err := open(t, o).Load(ctx, []string{"k"})
			require.ErrorContains(t, err, "NOPERM")
			o.Password = "wrong-password"
			_, err = open(t, o).Load(ctx, []string{"k"})
			require.ErrorContains(t, err, "WRONGPASS")
			require.NotContains(t, err.Error(), "wrong-password")
		})
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	server, err := miniredis.RunTLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	require.NoError(t, err)
	t.Cleanup(server.Close)

	roots := x509.NewCertPool()
	roots.AddCert(cert)
	s := open(t, Options{URL: "redis://" + server.Addr(), TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	_, err = s.Commit(ctx, []store.Change{{Key: "k", Data: []byte("v")}})
	require.NoError(t, err)

	_, err = open(t, Options{URL: "rediss://" + server.Addr(), MaxRetries: -1}).Load(ctx, []string{"k"})
	require.ErrorContains(t, err, "certificate", "a certificate of an unknown authority")
	_, err = open(t, Options{URL: "redis://" + server.Addr(), MaxRetries: -1, Timeout: 2 * time.Second}).Load(ctx, []string{"k"})
	require.Error(t, err, "in the clear")
}

// After a change of the password, the set-up of each new connection fails with WRONGPASS.
func TestNoOperationHidesAFailedLogin(t *testing.T) {
	for name, o := range map[string]Options{
		"one server":      {},
		"many shards":     {Shards: 100},
		"idle expiry":     {IdleExpiry: time.Hour},
		"without retries": {MaxRetries: -1},
		"cluster":         {Mode: Cluster},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.RunConnectionFault(t, func(t *testing.T) (store.Store, func()) {
				server := miniredis.RunT(t)
				server.RequireAuth("old")
				o.URL = "redis://:old@" + server.Addr()
				return open(t, o), func() {
					server.RequireAuth("new")
					server.Close()
					require.NoError(t, server.Restart())
				}
			})
		})
	}
}
