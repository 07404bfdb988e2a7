// Package follow keeps what was read from files as the files are. Files that are
// wrong are never taken: what was read last stays.
//
// Files are looked at rather than watched. That sees every change on network
// drives, on bind mounts and in the swapped symbolic links of a Kubernetes
// ConfigMap alike.
package follow

import (
	"context"
	"os"
	"sync"
	"time"
)

// Source says how files are looked at and read. Its functions are called one at
// a time.
type Source[State any] struct {
	// Look returns the state that the files are in, such as what they hold;
	// settled is that in which they were last taken or refused. An error tells
	// that there is none, and is told once until there is one again.
	Look func(settled State) (State, error)
	// Same tells whether two states are one.
	Same func(a, b State) bool
	// Take reads the files and returns the state they were in when it did, now
	// unless it knows better. The error is why they were not taken.
	Take func(now State) (State, error)
}

// Files are read anew when they have changed.
type Files[State any] struct {
	source Source[State]

	mu      sync.Mutex
	settled State
	// pending is the state at the last look if that was another, which unsettled
	// tells.
	pending            State
	unsettled, failing bool
}

// Open takes files in the state they are in now.
func Open[State any](now State, source Source[State]) (*Files[State], error) {
	f := &Files[State]{source: source}
	return f, f.take(now)
}

func (f *Files[State]) take(now State) (err error) {
	f.unsettled = false
	f.settled, err = f.source.Take(now)
	return err
}

// Check looks whether the files have changed, and tells whether it read them
// anew; the error is why they were not taken, and is told once. Changed files
// are read at the first Check that finds them as the one before did, so that a
// file still being written is not taken for all there is of it.
func (f *Files[State]) Check() (reloaded bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.source.Look(f.settled)
	if err != nil {
		told := f.failing
		f.failing, f.unsettled = true, false
		return !told, err
	}
	f.failing = false
	switch {
	case f.source.Same(now, f.settled):
		f.unsettled = false
		return false, nil
	case !f.unsettled || !f.source.Same(now, f.pending):
		f.pending, f.unsettled = now, true
		return false, nil
	}
	return true, f.take(now)
}

// Follow checks the files at every interval until ctx ends, and calls reloaded
// after each time it read them anew.
func (f *Files[State]) Follow(ctx context.Context, interval time.Duration, reloaded func(error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if ok, err := f.Check(); ok {
				reloaded(err)
			}
		}
	}
}

// Info is the state of a file by what the file system says of it, nil if there is
// no such file. It is for files that are too large to be read at every look.
func Info(path string) os.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

// SameInfo compares states that Info returned.
func SameInfo(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}
