package profilechanges

import (
	"context"
	"sync"
	"time"
)

// firing fires triggers as long as the input runs.
type firing struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Between looks at what is due there is at least a tenth of the longest time, so
// that what comes in a stream is fired in batches.
const leastPause = 10

// fire begins to fire what is due, looking when the next is due and after the
// poll interval at the latest, for others may have written what is due before.
// As long as messages
// do not arrive nothing is fired: what is true of a customer now may not be
// when they arrive.
func (in *input) fire() *firing {
	t := in.profiles.TriggerScheduler(in.size)
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &firing{cancel: cancel}
	f.done.Go(func() {
		for {
			pause := in.poll
			if in.failures.Load() == 0 {
				next, err := t.Fire(ctx, in.poll)
				switch {
				case ctx.Err() != nil:
				case err != nil:
					in.profiles.StoreFailed(err)
					pause = max(pause, releaseBackoff.Initial)
				case next == 0:
					pause = 0
				default:
					pause = max(next, in.poll/leastPause)
				}
			}
			if !wait(ctx, pause) {
				return
			}
		}
	})
	return f
}

func (f *firing) stop() {
	if f != nil {
		f.cancel()
		f.done.Wait()
	}
}

// wait tells whether a time passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
