// Package follow polls files and reloads them on change. An invalid version is never
// loaded: the last valid one stays in use.
//
// Polling detects every change on network drives, on bind mounts and behind the
// swapped symbolic links of a Kubernetes ConfigMap, which notifications of the file
// system do not.
package follow

import (
	"context"
	"os"
	"sync"
	"time"
)

// Source defines how a group of files is observed and loaded. Its functions are never
// called concurrently.
type Source[State any] struct {
	// State returns the current state of the files, such as their content or
	// modification time. loaded is the state of the last load, successful or not. The
	// error means that the state cannot be determined; it is reported once, until a
	// state is available again.
	State func(loaded State) (State, error)
	// Equal reports whether two states are equal.
	Equal func(a, b State) bool
	// Load loads the files and returns the state that it loaded, which is current
	// unless the files changed meanwhile. The error is the reason why the files were
	// not loaded.
	Load func(current State) (State, error)
}

// Files is a group of files that is reloaded on change.
type Files[State any] struct {
	source Source[State]

	mu     sync.Mutex
	loaded State
	// changed is the state found by the last poll if isChanging is set: the files
	// changed since the last load, but perhaps they are still being written.
	changed             State
	isChanging, failing bool
}

// Open loads files, whose state is current.
func Open[State any](current State, source Source[State]) (*Files[State], error) {
	f := &Files[State]{source: source}
	return f, f.load(current)
}

func (f *Files[State]) load(current State) (err error) {
	f.isChanging = false
	f.loaded, err = f.source.Load(current)
	return err
}

// Check polls the files and reports whether it reloaded them. The error is the reason
// why changed files were not loaded; it is returned once. A change is loaded by the
// first Check that finds the same state as the Check before it, so that a file is not
// loaded while it is being written.
func (f *Files[State]) Check() (reloaded bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	current, err := f.source.State(f.loaded)
	if err != nil {
		wasFailing := f.failing
		f.failing, f.isChanging = true, false
		return !wasFailing, err
	}
	f.failing = false
	switch {
	case f.source.Equal(current, f.loaded):
		f.isChanging = false
		return false, nil
	case !f.isChanging || !f.source.Equal(current, f.changed):
		f.changed, f.isChanging = current, true
		return false, nil
	}
	return true, f.load(current)
}

// Follow checks the files at every interval until ctx ends, and calls reloaded after
// each reload and each failure.
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

// Info returns the state of a file from the metadata of the file system, nil if the
// file does not exist. It is for files that are too large to read at every poll.
func Info(path string) os.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

// SameInfo reports whether two results of Info are equal.
func SameInfo(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}
