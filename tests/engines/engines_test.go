// Package engines measures embedded key-value engines with the workload of the
// embedded profile store. It is a separate module, so that the distribution does not
// depend on the engines that were not chosen.
package engines

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	bolt "go.etcd.io/bbolt"
)

var (
	seconds   = flag.Float64("seconds", 10, "how long each engine writes")
	customers = flag.Int("customers", 100_000, "how many customers there are")
	events    = flag.Int("events", 1_000, "events in a batch")
	writers   = flag.Int("writers", 2, "batches under way at once")
)

const valueBytes = 700

// engine contains the operations of the profile store: a sorted batch of reads, and
// a durable batch of conditional writes.
type engine interface {
	load(keys []string, versions []uint64) error
	commit(keys []string, versions []uint64, values [][]byte) (conflicts int, err error)
	get(key string) (int, error)
	close() error
}

var engines = []struct {
	name string
	open func(dir string) (engine, error)
}{
	{"pebble", openPebble},
	{"bbolt", openBolt},
	{"badger", openBadger},
}

// version returns the version that the store compares: a hash of the stored bytes.
func version(b []byte) uint64 { return xxhash.Sum64(b) }

// TestEngines prints the table. Each engine runs in its own process, which is killed
// with SIGKILL: this separates their memory, and opening includes recovery.
func TestEngines(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement, not a test")
	}
	fmt.Printf("| engine | batches/s | events/s | CPU of a batch | p99 of a batch | point reads/s | disk | open after kill -9 | peak memory |\n")
	fmt.Printf("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, e := range engines {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$",
			fmt.Sprint("-seconds=", *seconds), fmt.Sprint("-customers=", *customers), fmt.Sprint("-events=", *events), fmt.Sprint("-writers=", *writers))
		cmd.Env = append(os.Environ(), "ENGINE="+e.name, "ENGINE_DIR="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		// The child kills itself: any other end is a failure.
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatalf("%s: %v\n%s", e.name, err, out)
		}
		row, ok := strings.CutPrefix(string(out), "row ")
		if !ok {
			t.Fatalf("%s: %s", e.name, out)
		}
		disk := diskBytes(t, dir)
		start := time.Now()
		eng, err := e.open(dir)
		if err != nil {
			t.Fatal(err)
		}
		opened := time.Since(start)
		if n, err := eng.get(key(0)); err != nil || n == 0 {
			t.Fatalf("%s: after the kill: %d bytes, %v", e.name, n, err)
		}
		if err := eng.close(); err != nil {
			t.Fatal(err)
		}
		cells := strings.Split(strings.TrimSpace(row), "\t")
		fmt.Printf("| %s | %s | %s | %s | %s | %s | %d MB | %s | %s |\n", e.name, cells[0], cells[1], cells[2], cells[3], cells[4],
			disk>>20, opened.Round(time.Millisecond), cells[5])
	}
}

func TestChild(t *testing.T) {
	name := os.Getenv("ENGINE")
	if name == "" {
		t.Skip("started by TestEngines")
	}
	for _, e := range engines {
		if e.name != name {
			continue
		}
		eng, err := e.open(os.Getenv("ENGINE_DIR"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("row %s\n", measure(t, eng))
		p, _ := os.FindProcess(os.Getpid())
		_ = p.Kill()
		select {}
	}
}

func key(i uint64) string { return fmt.Sprintf("customer-%08d", i) }

// measure returns the cells of the table, separated by tabs.
func measure(t *testing.T, eng engine) string {
	var batches, conflicted, next atomic.Int64
	var mu sync.Mutex
	var latencies []time.Duration
	deadline := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	start, cpu := time.Now(), cpuTime()
	var wg sync.WaitGroup
	for w := range *writers {
		wg.Go(func() {
			zipf := rand.NewZipf(rand.New(rand.NewPCG(uint64(w), 1)), 1.05, 20, uint64(*customers-1))
			noise := rand.NewChaCha8([32]byte{byte(w)})
			for time.Now().Before(deadline) {
				began := time.Now()
				seen := map[uint64]bool{}
				for range *events {
					seen[zipf.Uint64()] = true
				}
				keys := make([]string, 0, len(seen)+1)
				for id := range seen {
					keys = append(keys, key(id))
				}
				if !seen[0] {
					keys = append(keys, key(0))
				}
				for len(keys) > 0 {
					slices.Sort(keys)
					versions := make([]uint64, len(keys))
					if err := eng.load(keys, versions); err != nil {
						t.Error(err)
						return
					}
					values := make([][]byte, len(keys))
					arena := make([]byte, valueBytes*len(keys))
					for i := range values {
						// A third of a record is incompressible: hashes and sketches.
						v := arena[i*valueBytes : (i+1)*valueBytes]
						binary.LittleEndian.PutUint64(v, uint64(next.Add(1)))
						_, _ = noise.Read(v[8 : valueBytes/3])
						copy(v[valueBytes/3:], bytes.Repeat([]byte(keys[i]), 40))
						values[i] = v
					}
					n, err := eng.commit(keys, versions, values)
					if err != nil {
						t.Error(err)
						return
					}
					conflicted.Add(int64(n))
					// Conflicting writes are retried, as by the users of the profile store.
					keys = keys[:n]
				}
				batches.Add(1)
				mu.Lock()
				latencies = append(latencies, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(start).Seconds()
	cpu = (cpuTime() - cpu) / time.Duration(batches.Load())
	slices.Sort(latencies)

	const reads = 200_000
	rng := rand.New(rand.NewPCG(9, 9))
	start = time.Now()
	for range reads {
		if _, err := eng.get(key(rng.Uint64N(uint64(*customers)))); err != nil {
			t.Fatal(err)
		}
	}
	readRate := reads / time.Since(start).Seconds()
	rate := float64(batches.Load()) / took
	return fmt.Sprintf("%.0f\t%.0f\t%s\t%s\t%.0f\t%d MB", rate, rate*float64(*events), cpu.Round(100*time.Microsecond),
		latencies[len(latencies)*99/100].Round(time.Millisecond), readRate, peakMemory()>>20)
}

func peakMemory() int {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, _ := strconv.Atoi(f[1])
			return kb << 10
		}
	}
	return 0
}

// diskBytes counts allocated blocks, since engines preallocate sparse files.
func diskBytes(t *testing.T, dir string) (sum int64) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n, err := allocated(path)
		sum += n
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// pebble

type pebbleEngine struct {
	db *pebble.DB
	mu sync.Mutex
}

func openPebble(dir string) (engine, error) {
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	opts := &pebble.Options{
		Cache: cache, MemTableSize: 64 << 20, MemTableStopWritesThreshold: 3, FormatMajorVersion: pebble.FormatNewest,
		L0CompactionThreshold: 2, L0StopWritesThreshold: 20, LBaseMaxBytes: 256 << 20,
		Logger: quiet{},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].IndexBlockSize = 256 << 10
	}
	db, err := pebble.Open(dir, opts)
	return &pebbleEngine{db: db}, err
}

func (e *pebbleEngine) version(key string) (uint64, error) {
	v, c, err := e.db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer c.Close()
	return version(v), nil
}

func (e *pebbleEngine) load(keys []string, versions []uint64) error {
	arena := make([]byte, 0, len(keys)*valueBytes)
	defer func() { runtime.KeepAlive(arena) }()
	for i, k := range keys {
		v, c, err := e.db.Get([]byte(k))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		versions[i] = version(v)
		arena = append(arena, v...)
		c.Close()
	}
	return nil
}

func (e *pebbleEngine) commit(keys []string, versions []uint64, values [][]byte) (int, error) {
	b := e.db.NewBatchWithSize(len(keys) * (valueBytes + 32))
	defer b.Close()
	e.mu.Lock()
	n := 0
	for i, k := range keys {
		v, err := e.version(k)
		if err != nil {
			e.mu.Unlock()
			return 0, err
		}
		if v != versions[i] {
			keys[n] = k
			n++
			continue
		}
		if err := b.Set([]byte(k), values[i], nil); err != nil {
			e.mu.Unlock()
			return 0, err
		}
	}
	if b.Empty() {
		e.mu.Unlock()
		return n, nil
	}
	err := e.db.ApplyNoSyncWait(b, pebble.Sync)
	e.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return n, b.SyncWait()
}

func (e *pebbleEngine) get(key string) (int, error) {
	v, c, err := e.db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer c.Close()
	return len(append([]byte(nil), v...)), nil
}

func (e *pebbleEngine) close() error { return e.db.Close() }

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

// bbolt

type boltEngine struct{ db *bolt.DB }

var bucket = []byte("profiles")

func openBolt(dir string) (engine, error) {
	db, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return nil, err
	}
	return &boltEngine{db}, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
}

func (e *boltEngine) load(keys []string, versions []uint64) error {
	return e.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		arena := make([]byte, 0, len(keys)*valueBytes)
		defer func() { runtime.KeepAlive(arena) }()
		for i, k := range keys {
			if v := b.Get([]byte(k)); v != nil {
				versions[i] = version(v)
				arena = append(arena, v...)
			}
		}
		return nil
	})
}

func (e *boltEngine) commit(keys []string, versions []uint64, values [][]byte) (int, error) {
	n := 0
	// Batch combines concurrent callers in one transaction and sync. With few
	// concurrent batches, its delay costs more than it saves.
	err := e.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		for i, k := range keys {
			var have uint64
			if v := b.Get([]byte(k)); v != nil {
				have = version(v)
			}
			if have != versions[i] {
				keys[n] = k
				n++
				continue
			}
			if err := b.Put([]byte(k), values[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

func (e *boltEngine) get(key string) (n int, err error) {
	err = e.db.View(func(tx *bolt.Tx) error {
		n = len(append([]byte(nil), tx.Bucket(bucket).Get([]byte(key))...))
		return nil
	})
	return n, err
}

func (e *boltEngine) close() error { return e.db.Close() }

// badger

type badgerEngine struct {
	db *badger.DB
	mu sync.Mutex
}

func openBadger(dir string) (engine, error) {
	opts := badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(true).WithMemTableSize(64 << 20).
		WithNumMemtables(2).WithBlockCacheSize(64 << 20).WithCompression(options.Snappy).WithDetectConflicts(false)
	db, err := badger.Open(opts)
	return &badgerEngine{db: db}, err
}

func (e *badgerEngine) each(keys []string, fn func(i int, v []byte) error) error {
	txn := e.db.NewTransaction(false)
	defer txn.Discard()
	for i, k := range keys {
		item, err := txn.Get([]byte(k))
		switch {
		case errors.Is(err, badger.ErrKeyNotFound):
			err = fn(i, nil)
		case err == nil:
			err = item.Value(func(v []byte) error { return fn(i, v) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *badgerEngine) load(keys []string, versions []uint64) error {
	arena := make([]byte, 0, len(keys)*valueBytes)
	defer func() { runtime.KeepAlive(arena) }()
	return e.each(keys, func(i int, v []byte) error {
		if v != nil {
			versions[i] = version(v)
			arena = append(arena, v...)
		}
		return nil
	})
}

func (e *badgerEngine) commit(keys []string, versions []uint64, values [][]byte) (int, error) {
	// The lock is held through the sync, as a write becomes visible to the next check
	// only after it.
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.db.NewWriteBatch()
	defer b.Cancel()
	n := 0
	err := e.each(keys, func(i int, v []byte) error {
		var have uint64
		if v != nil {
			have = version(v)
		}
		if have != versions[i] {
			keys[n] = keys[i]
			n++
			return nil
		}
		return b.Set([]byte(keys[i]), values[i])
	})
	if err != nil {
		return 0, err
	}
	return n, b.Flush()
}

func (e *badgerEngine) get(key string) (n int, err error) {
	err = e.each([]string{key}, func(_ int, v []byte) error {
		n = len(append([]byte(nil), v...))
		return nil
	})
	return n, err
}

func (e *badgerEngine) close() error { return e.db.Close() }
