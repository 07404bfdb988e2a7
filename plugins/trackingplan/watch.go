package trackingplan

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Watcher keeps a plan that follows its files. A plan that is wrong is never
// taken: the last good one stays.
type Watcher struct {
	path     string
	maxDepth int
	plan     atomic.Pointer[Plan]

	mu      sync.Mutex
	settled sources // what the files held when they were last read as a plan
	pending sources // what they held at the last check, if something else
}

// Watch loads the plan at path.
func Watch(path string, maxDepth int) (*Watcher, error) {
	w := &Watcher{path: path, maxDepth: maxDepth}
	if err := w.load(); err != nil {
		return nil, err
	}
	return w, nil
}

// Plan returns the plan as it now is.
func (w *Watcher) Plan() *Plan { return w.plan.Load() }

func (w *Watcher) load() error {
	plan, files, lints := load(w.path)
	w.settled, w.pending = files, nil
	if err := lintError(lints); err != nil {
		return err
	}
	plan.SetMaxDepth(w.maxDepth)
	w.plan.Store(plan)
	return nil
}

// Check looks whether the files have changed, and tells whether it read them
// anew; the error is why the plan in them was not taken. Changed files are read
// at the first Check that finds them as the one before did, so that a file
// still being written is not taken for a plan with half its events.
func (w *Watcher) Check() (reloaded bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.settled.current()
	switch {
	case now.equal(w.settled):
		w.pending = nil
		return false, nil
	case w.pending == nil || !now.equal(w.pending):
		w.pending = now
		return false, nil
	}
	return true, w.load()
}

// Follow checks the files at every interval until ctx ends, and calls reloaded
// after each time it read them anew.
//
// Files are compared by what they hold rather than watched: that is cheap for
// files of this size, and sees every change on network drives, on bind mounts
// and in the swapped symbolic links of a Kubernetes ConfigMap alike.
func (w *Watcher) Follow(ctx context.Context, interval time.Duration, reloaded func(error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if ok, err := w.Check(); ok {
				reloaded(err)
			}
		}
	}
}
