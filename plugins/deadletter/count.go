package deadletter

import (
	"sync"
	"sync/atomic"
)

// counts are the dead letters this process has written, by stage: what the
// metric dead_letters counts, for whoever shows it within the process.
var counts sync.Map

func count(stage string) {
	n, ok := counts.Load(stage)
	if !ok {
		n, _ = counts.LoadOrStore(stage, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

// Counts returns how many dead letters this process has written, by stage.
func Counts() map[string]int64 {
	all := map[string]int64{}
	counts.Range(func(stage, n any) bool {
		all[stage.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	return all
}
