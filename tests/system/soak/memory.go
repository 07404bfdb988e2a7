package soak

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// memory contains the resident memory of the processes and the memory that Redis
// uses, sampled each second.
type memory struct {
	long  time.Duration
	names []string
	bytes [][]int64
}

// watch samples memory until its context ends.
func watch(ctx context.Context, s *setup) <-chan *memory {
	result := make(chan *memory, 1)
	options, err := redis.ParseURL(s.redisURL)
	if err != nil {
		panic(err) // the address was in use all the time
	}
	go func() {
		client := redis.NewClient(options)
		defer func() { _ = client.Close() }()
		m := &memory{names: []string{"API", "worker", "Redis"}, bytes: make([][]int64, 3)}
		started := time.Now()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				m.long = time.Since(started)
				result <- m
				return
			case <-tick.C:
			}
			m.bytes[0] = append(m.bytes[0], process.Memory(s.api.ID()))
			m.bytes[1] = append(m.bytes[1], process.Memory(s.worker.ID()))
			info, _ := client.Info(ctx, "memory").Result()
			m.bytes[2] = append(m.bytes[2], field([]byte(info), "used_memory:"))
			if n%60 == 59 {
				say("memory: API %d MiB, worker %d MiB, Redis %d MiB", m.bytes[0][n]>>20, m.bytes[1][n]>>20, m.bytes[2][n]>>20)
			}
		}
	}()
	return result
}

// field returns the number after a name.
func field(text []byte, name string) int64 {
	_, rest, _ := bytes.Cut(text, []byte(name))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(string(fields[0]), 10, 64)
	return n
}

// flat compares the last fifth of a run with the second fifth. Redis may grow: by
// tombstones of erased customers and by new events.
func (m *memory) flat() error {
	const least = 5 * time.Minute
	var grew error
	for i, name := range m.names {
		n := len(m.bytes[i])
		if n < 5 {
			return nil
		}
		early, late := median(m.bytes[i][n/5:2*n/5]), median(m.bytes[i][4*n/5:])
		say("memory of %s: %d MiB in the second fifth, %d MiB in the last, %d MiB at most", name, early>>20, late>>20, slices.Max(m.bytes[i])>>20)
		if name != "Redis" && m.long >= least && float64(late) > 1.1*float64(early) {
			grew = fmt.Errorf("the memory of the %s grew by more than a tenth", name)
		}
	}
	return grew
}

func median(values []int64) int64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
