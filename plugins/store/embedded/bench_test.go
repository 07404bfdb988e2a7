package embedded

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

const benchCustomers, benchBytes = 100_000, 700

func benchKey(i int) string { return fmt.Sprintf("customer-%08d", i) }

func benchData(rng *rand.ChaCha8) []byte {
	data := make([]byte, benchBytes)
	_, _ = rng.Read(data[:benchBytes/2])
	return data
}

// benchStore has a record of benchBytes for every customer.
func benchStore(b *testing.B) *Store {
	s := open(b, Options{Path: b.TempDir()})
	rng := rand.NewChaCha8([32]byte{})
	for first := 0; first < benchCustomers; first += 10_000 {
		var changes []store.Change
		for i := range 10_000 {
			changes = append(changes, store.Change{Key: benchKey(first + i), Data: benchData(rng)})
		}
		_, err := s.Commit(ctx, changes)
		require.NoError(b, err)
	}
	return s
}

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

var benchSizes = []int{1, 100, 1000}

func BenchmarkLoad(b *testing.B) {
	s := benchStore(b)
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			batches := benchBatches(size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Load(ctx, batches[i%len(batches)]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkCommit loads and commits the same records, as a batch of events does.
func BenchmarkCommit(b *testing.B) {
	s := benchStore(b)
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			batches := benchBatches(size)
			rng := rand.NewChaCha8([32]byte{1})
			data := make([][]byte, size)
			changes := make([]store.Change, size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				keys := batches[i%len(batches)]
				records, err := s.Load(ctx, keys)
				if err != nil {
					b.Fatal(err)
				}
				for j, r := range records {
					if data[j] == nil || i%16 == 0 {
						data[j] = benchData(rng)
					}
					data[j][0]++
					changes[j] = store.Change{Key: keys[j], Version: r.Version, Data: data[j]}
				}
				conflicts, err := s.Commit(ctx, changes)
				if err != nil || len(conflicts) > 0 {
					b.Fatal(err, len(conflicts))
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
