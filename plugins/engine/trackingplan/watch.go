package trackingplan

import (
	"sync/atomic"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
)

// Watcher holds a plan and reloads it when its files change. An invalid plan is never
// loaded: the last valid one stays.
type Watcher struct {
	*follow.Files[sources]

	path     string
	maxDepth int
	plan     atomic.Pointer[Plan]
}

// Watch loads the plan at path.
func Watch(path string, maxDepth int) (*Watcher, error) {
	w := &Watcher{path: path, maxDepth: maxDepth}
	var err error
	w.Files, err = follow.Open(nil, follow.Source[sources]{
		State: func(loaded sources) (sources, error) { return loaded.current(), nil },
		Equal: sources.equal,
		Load:  func(sources) (sources, error) { return w.load() },
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Plan returns the current plan.
func (w *Watcher) Plan() *Plan { return w.plan.Load() }

// load loads the plan and returns the contents of its files: only now is it known which
// files it refers to.
func (w *Watcher) load() (sources, error) {
	plan, files, lints := load(w.path)
	if err := finding.ToError(lints); err != nil {
		return files, err
	}
	plan.SetMaxDepth(w.maxDepth)
	w.plan.Store(plan)
	return files, nil
}
