package profilechanges

import (
	"context"
	"sync"
	"time"
)

// firing is the goroutine that fires triggers while the input runs.
type firing struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// minPauseDivisor makes the pause between two rounds at least a tenth of the poll
// interval, so that a stream of due triggers is fired in batches.
const minPauseDivisor = 10

// fire starts to fire due triggers. The next round is when the next trigger is due,
// and after the poll interval at the latest, because another process may have
// written one that is due earlier. While the output fails nothing is fired:
// conditions that hold now may no longer hold when messages can be delivered.
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
					pause = max(next, in.poll/minPauseDivisor)
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

// wait reports whether the duration passed before ctx ended.
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
