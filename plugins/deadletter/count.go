package deadletter

import (
	"sync"
	"sync/atomic"
)

// counts are the numbers of dead letters of this process by stage, as in the metric
// dead_letters, for the activity page of the profile API.
var counts sync.Map

func count(stage string) {
	n, ok := counts.Load(stage)
	if !ok {
		n, _ = counts.LoadOrStore(stage, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

// Counts returns the number of dead letters of this process by stage.
func Counts() map[string]int64 {
	all := map[string]int64{}
	counts.Range(func(stage, n any) bool {
		all[stage.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	return all
}
