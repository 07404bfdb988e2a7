package trackingplan

import (
	"sync/atomic"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
)

// Watcher keeps a plan that follows its files. A plan that is wrong is never
// taken: the last good one stays.
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
		Look: func(settled sources) (sources, error) { return settled.current(), nil },
		Same: sources.equal,
		Take: func(sources) (sources, error) { return w.load() },
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Plan returns the plan as it now is.
func (w *Watcher) Plan() *Plan { return w.plan.Load() }

// load takes the plan there is, and returns the files it was in: those that it
// refers to are known only now.
func (w *Watcher) load() (sources, error) {
	plan, files, lints := load(w.path)
	if err := finding.ToError(lints); err != nil {
		return files, err
	}
	plan.SetMaxDepth(w.maxDepth)
	w.plan.Store(plan)
	return files, nil
}
