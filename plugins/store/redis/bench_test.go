//go:build unix

package redis

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

const benchCustomers, benchBytes = 100_000, 700

func benchKey(i int) string { return fmt.Sprintf("customer-%08d", i) }

func benchValue(key string) string { return key + "@example.com" }

// benchBatches draws distinct customers, some much more often than others.
func benchBatches(size int) [][]string {
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.05, 20, benchCustomers-1)
	batches := make([][]string, 64)
	for i := range batches {
		seen := map[uint64]bool{}
		for len(batches[i]) < size {
			if c := zipf.Uint64(); !seen[c] {
				seen[c] = true
				batches[i] = append(batches[i], benchKey(int(c)))
			}
		}
	}
	return batches
}

// serverCPU returns the CPU time that the servers of a store have used. On a shared
// machine it is more meaningful than elapsed time.
func serverCPU(b *testing.B, s *Store) (sum float64) {
	nodes, _, err := s.primaries(ctx)
	require.NoError(b, err)
	for _, n := range nodes {
		info, err := n.Info(ctx, "cpu").Result()
		require.NoError(b, err)
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name == "used_cpu_user" || name == "used_cpu_sys" {
				seconds, err := strconv.ParseFloat(value, 64)
				require.NoError(b, err)
				sum += seconds
			}
		}
	}
	return sum
}

// measured runs one operation until the time is up, and reports the cost of a record
// for the servers and for this process.
func measured(b *testing.B, s *Store, size int, op func(i int)) {
	b.ReportAllocs()
	server, own := serverCPU(b, s), ownCPU()
	for i := 0; b.Loop(); i++ {
		op(i)
	}
	records := float64(b.N * size)
	b.ReportMetric(records/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric((serverCPU(b, s)-server)*1e6/records, "server-µs/record")
	b.ReportMetric((ownCPU()-own)*1e6/records, "client-µs/record")
}

func ownCPU() float64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

func benchStores(b *testing.B, run func(b *testing.B, s *Store)) {
	for _, kind := range []struct {
		env string
		o   func(testing.TB) Options
	}{{"TEST_REDIS_URL", single}, {"TEST_REDIS_CLUSTER", cluster}} {
		b.Run(string(kind.env[len("TEST_REDIS_"):]), func(b *testing.B) {
			s := open(b, fresh(b, kind.o(b)))
			data := make([]byte, benchBytes)
			for first := 0; first < benchCustomers; first += 5_000 {
				var changes []store.Change
				for i := range 5_000 {
					key := benchKey(first + i)
					changes = append(changes, store.Change{Key: key, Data: data, Index: []store.IndexEdit{{Index: "id/email", Value: benchValue(key)}}})
				}
				_, err := s.Commit(ctx, changes)
				require.NoError(b, err)
			}
			run(b, s)
		})
	}
	if os.Getenv("TEST_REDIS_URL")+os.Getenv("TEST_REDIS_CLUSTER") == "" {
		b.Skip("needs a Redis")
	}
}

var benchSizes = []int{1, 100, 1000}

func BenchmarkLoad(b *testing.B) {
	benchStores(b, func(b *testing.B, s *Store) {
		for _, size := range benchSizes {
			b.Run(fmt.Sprint(size), func(b *testing.B) {
				batches := benchBatches(size)
				measured(b, s, size, func(i int) {
					if _, err := s.Load(ctx, batches[i%len(batches)]); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
	})
}

// BenchmarkCommit loads and commits the same records, as a batch of events does.
func BenchmarkCommit(b *testing.B) {
	benchStores(b, func(b *testing.B, s *Store) {
		for _, size := range benchSizes {
			b.Run(fmt.Sprint(size), func(b *testing.B) {
				batches := benchBatches(size)
				rng := rand.NewChaCha8([32]byte{1})
				changes := make([]store.Change, size)
				data := make([]byte, benchBytes)
				measured(b, s, size, func(i int) {
					keys := batches[i%len(batches)]
					records, err := s.Load(ctx, keys)
					if err != nil {
						b.Fatal(err)
					}
					_, _ = rng.Read(data[:benchBytes/2])
					for j, r := range records {
						changes[j] = store.Change{Key: keys[j], Version: r.Version, Data: data}
					}
					conflicts, err := s.Commit(ctx, changes)
					if err != nil || len(conflicts) > 0 {
						b.Fatal(err, len(conflicts))
					}
				})
			})
		}
	})
}

// BenchmarkScanIndex pages through an index with entries in all shards, as the search
// for due triggers does.
func BenchmarkScanIndex(b *testing.B) {
	benchStores(b, func(b *testing.B, s *Store) {
		var changes []store.Change
		for i := range 10_000 {
			changes = append(changes, store.Change{
				Key: benchKey(benchCustomers + i), Data: []byte("x"), Index: []store.IndexEdit{{Index: "due", Value: fmt.Sprintf("%08d", i)}},
			})
		}
		_, err := s.Commit(ctx, changes)
		require.NoError(b, err)
		for _, limit := range []int{1, 100, 1000} {
			b.Run(fmt.Sprint(limit), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.ScanIndex(ctx, "due", "", "", store.IndexEntry{}, limit); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run("none", func(b *testing.B) {
			for b.Loop() {
				if _, err := s.ScanIndex(ctx, "due", "", "00000000", store.IndexEntry{}, 1000); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkLookup finds the customers of values. Compare it with BenchmarkLoad, which
// reads as many records by their keys.
func BenchmarkLookup(b *testing.B) {
	benchStores(b, func(b *testing.B, s *Store) {
		for _, size := range benchSizes {
			b.Run(fmt.Sprint(size), func(b *testing.B) {
				batches := benchBatches(size)
				for _, batch := range batches {
					for i := range batch {
						batch[i] = benchValue(batch[i])
					}
				}
				measured(b, s, size, func(i int) {
					found, err := s.Lookup(ctx, "id/email", batches[i%len(batches)], 2)
					if err != nil || len(found[size-1]) != 1 {
						b.Fatal(err, found)
					}
				})
			})
		}
	})
}
