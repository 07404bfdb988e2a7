package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/storetest"
)

var ctx = context.Background()

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// put writes a record regardless of its version.
func put(s *Store, key, data string, index ...store.IndexEdit) error {
	for {
		r, err := s.Load(ctx, []string{key})
		if err != nil {
			return err
		}
		conflicts, err := s.Commit(ctx, []store.Change{{Key: key, Version: r[0].Version, Data: []byte(data), Index: index}})
		if err != nil || len(conflicts) == 0 {
			return err
		}
	}
}

func get(t testing.TB, s *Store, key string) string {
	t.Helper()
	r, err := s.Load(ctx, []string{key})
	require.NoError(t, err)
	return string(r[0].Data)
}

func TestContractInMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := Open(Options{Path: Memory})
		require.NoError(t, err)
		return s
	})
}

// The smallest tables, so that records move through all levels.
func TestContractOnDisk(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := Open(Options{Path: t.TempDir(), MemTableBytes: minMemTableBytes, CacheBytes: 1 << 20})
		require.NoError(t, err)
		return s
	})
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "as", "needed")
	s := open(t, Options{Path: dir})
	for i := range 100 {
		require.NoError(t, put(s, fmt.Sprint("k", i), fmt.Sprint("v", i)))
	}
	require.NoError(t, s.Close())
	s = open(t, Options{Path: dir})
	for i := range 100 {
		require.Equal(t, fmt.Sprint("v", i), get(t, s, fmt.Sprint("k", i)))
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"path is empty":     {},
		"cache":             {Path: Memory, CacheBytes: -1},
		"memtable of 17":    {Path: Memory, MemTableBytes: 17},
		"record limit of -": {Path: Memory, MaxRecordBytes: -1},
	} {
		_, err := Open(o)
		require.ErrorContains(t, err, name)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(Options{Path: filepath.Join(file, "below")})
	require.ErrorContains(t, err, "give a path this user can write to")
}

func TestOpenTwiceInOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Path: dir})
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	wd, err := os.Getwd()
	require.NoError(t, err)
	relative, err := filepath.Rel(wd, dir)
	require.NoError(t, err)
	for _, path := range []string{dir, dir + "/", link, relative} {
		_, err := Open(Options{Path: path})
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, fmt.Sprintf("%q is open already in this process", path))
		require.ErrorContains(t, err, "share one profiles resource")
	}
}

func TestReleasedPathOpensAgain(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		s, err := Open(Options{Path: dir})
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
}

func TestOpenRejectsANewerFormat(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Path: dir})
	require.NoError(t, s.db.Set([]byte{formatSpace}, []byte{format + 1}, pebble.Sync))
	require.NoError(t, s.Close())
	for range 2 { // a rejected open releases the lock
		_, err := Open(Options{Path: dir})
		require.ErrorContains(t, err, "run the release that wrote it")
	}
}

func TestRecordLimit(t *testing.T) {
	s := open(t, Options{Path: Memory, MaxRecordBytes: 10})
	_, err := s.Commit(ctx, []store.Change{{Key: "a", Data: make([]byte, 10)}, {Key: "b", Data: make([]byte, 11)}})
	require.ErrorIs(t, err, store.ErrTooLarge)
	var ce *store.ChangeError
	require.ErrorAs(t, err, &ce)
	require.Equal(t, 1, ce.Position)
	require.Empty(t, get(t, s, "a"))
}

// A batch over the size limit is passed to the engine in parts.
func TestLargeCommitIsSplit(t *testing.T) {
	s := open(t, Options{Path: Memory, MemTableBytes: 4 << 20})
	var changes []store.Change
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprint(i))
		changes = append(changes, store.Change{Key: keys[i], Data: []byte(strings.Repeat(fmt.Sprint(i), 4<<20/len(keys[i])))})
	}
	changes[3].Version = 1
	changes[12].Version = 1
	conflicts, err := s.Commit(ctx, changes)
	require.NoError(t, err)
	require.Equal(t, []int{3, 12}, conflicts)
	records, err := s.Load(ctx, keys)
	require.NoError(t, err)
	for i, r := range records {
		if i == 3 || i == 12 {
			require.Equal(t, store.Record{}, r)
		} else {
			require.Equal(t, changes[i].Data, r.Data)
		}
	}
}

func TestIndexKeysKeepOrder(t *testing.T) {
	bytes := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', 0xfe, 0xff}), 0, 4), func(b []byte) string { return string(b) })
	rapid.Check(t, func(t *rapid.T) {
		index := bytes.Draw(t, "index")
		v1, k1, v2, k2 := bytes.Draw(t, "v1"), bytes.Draw(t, "k1"), bytes.Draw(t, "v2"), bytes.Draw(t, "k2")
		want := strings.Compare(v1, v2)
		if want == 0 {
			want = strings.Compare(k1, k2)
		}
		e1, e2 := string(appendIndexKey(nil, index, v1, k1)), string(appendIndexKey(nil, index, v2, k2))
		require.Equal(t, want, strings.Compare(e1, e2))
		got, err := indexEntry([]byte(e1[len(appendIndex(nil, index)):]))
		require.NoError(t, err)
		require.Equal(t, store.IndexEntry{Value: v1, Key: k1}, got)
	})
}

func FuzzIndexEntry(f *testing.F) {
	f.Add([]byte("\x00\x01"))
	f.Add([]byte("a\x00\xffb\x00\x01key"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := indexEntry(b)
		if err == nil {
			require.Equal(t, string(b), string(appendEscaped(nil, e.Value))+e.Key)
		}
	})
}

// After a power failure, every acknowledged commit is readable, regardless of how much
// of the unsynced data reached the disk.
func TestPowerFailureLosesNothingAcknowledged(t *testing.T) {
	for _, percent := range []int{0, 20, 50, 100} {
		t.Run(fmt.Sprint(percent, "% of unsynced data"), func(t *testing.T) {
			rng := rand.New(rand.NewSource(int64(percent) + 1))
			disk := vfs.NewCrashableMem()
			acknowledged := map[string]int{}
			for round := range 10 {
				s, err := Open(Options{Path: "/profiles", MemTableBytes: minMemTableBytes, fs: disk})
				require.NoError(t, err)
				for key, n := range acknowledged {
					var got int
					_, err := fmt.Sscanf(get(t, s, key), "%d", &got)
					require.NoError(t, err, "round %d", round)
					require.GreaterOrEqual(t, got, n, "round %d, key %s", round, key)
				}
				stop := make(chan struct{})
				var mu sync.Mutex
				var writers sync.WaitGroup
				for w := range 4 {
					writers.Go(func() {
						for n := 1; ; n++ {
							select {
							case <-stop:
								return
							default:
							}
							key := fmt.Sprint(w, "-", n%7)
							if err := put(s, key, fmt.Sprint(round*1_000_000+n, strings.Repeat(" padding", 500))); err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							acknowledged[key] = round*1_000_000 + n
							mu.Unlock()
						}
					})
				}
				for deadline := time.Now().Add(time.Duration(20+rng.Intn(60)) * time.Millisecond); time.Now().Before(deadline); {
					time.Sleep(time.Millisecond)
				}
				// Everything acknowledged by now must be in the clone. It may contain
				// more.
				mu.Lock()
				snapshot := map[string]int{}
				for k, n := range acknowledged {
					snapshot[k] = n
				}
				mu.Unlock()
				crashed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: newCrashRNG(round)})
				close(stop)
				writers.Wait()
				require.NoError(t, s.Close())
				disk, acknowledged = crashed, snapshot
			}
		})
	}
}

func TestCommitFailsBeforeTheDiskIsFull(t *testing.T) {
	disk := vfs.NewMem()
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	s := open(t, Options{Path: "/profiles", fs: disk})
	require.NoError(t, put(s, "k", "before"))

	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 100 << 20})
	s.freeChecked.Store(0)
	err := put(s, "k", "while")
	require.ErrorIs(t, err, ErrDiskFull)
	require.ErrorContains(t, err, "100 MiB free, 256 MiB to be kept free")
	require.ErrorIs(t, s.Ping(ctx), ErrDiskFull)
	require.Equal(t, "before", get(t, s, "k"), "reads continue")

	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30})
	s.freeChecked.Store(0)
	require.NoError(t, s.Ping(ctx))
	require.NoError(t, put(s, "k", "after"))
}

// An empty Commit waits for the running commits of other callers, so that an answer
// derived from their records is not ahead of the disk.
func TestEmptyCommitIsADurabilityBarrier(t *testing.T) {
	disk := &slowSync{FS: vfs.NewMem(), release: make(chan struct{})}
	s := open(t, Options{Path: "/profiles", fs: disk})
	disk.block.Store(true)
	first := make(chan error, 1)
	go func() { first <- put(s, "k", "v") }()
	require.Eventually(t, func() bool { return get(t, s, "k") == "v" }, 10*time.Second, time.Millisecond, "the change is visible before it is durable")

	second, third := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.Commit(ctx, nil); second <- err }()
	go func() {
		conflicts, err := s.Commit(ctx, []store.Change{{Key: "k", Data: []byte("lost race")}})
		if err == nil && len(conflicts) != 1 {
			err = errors.New("no conflict")
		}
		third <- err
	}()
	select {
	case <-first:
		t.Fatal("acknowledged before the sync")
	case <-second:
		t.Fatal("an empty commit did not wait")
	case <-third:
		t.Fatal("a commit of conflicts did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	disk.block.Store(false)
	close(disk.release)
	require.NoError(t, <-first)
	require.NoError(t, <-second)
	require.NoError(t, <-third)
}

// Small tables and parallel writers and readers, for the race detector.
func TestConcurrentLoadsAndCommits(t *testing.T) {
	s := open(t, Options{Path: Memory, MemTableBytes: minMemTableBytes})
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for w := range 3 {
		writers.Go(func() {
			for i := range 300 {
				if err := put(s, fmt.Sprint("k", i%20), fmt.Sprint(w, strings.Repeat("x", 2000))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			var keys []string
			for i := range 20 {
				keys = append(keys, fmt.Sprint("k", i))
			}
			records, err := s.Load(ctx, keys)
			if err != nil {
				t.Error(err)
			}
			for _, r := range records {
				if r.Version != store.VersionOf(r.Data) {
					t.Error("version does not fit the data")
				}
			}
		}
	})
	writers.Wait()
	close(stop)
	readers.Wait()
	m, err := s.Metrics()
	require.NoError(t, err)
	require.Positive(t, m.MemTableBytes)
}
