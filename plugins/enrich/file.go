package enrich

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
)

const (
	fieldPath           = "path"
	fieldReloadInterval = "reload_interval"
)

func reloadField() *service.ConfigField {
	return service.NewDurationField(fieldReloadInterval).
		Description("How often to look whether the file has changed; `0s` for never. A change is taken once two looks in a row have found the same. A file that is wrong is logged, and the last good one kept.").
		Default("5s").
		Advanced()
}

// file is what a file holds, read anew when the file changes. One that cannot
// be read is never taken: what was read last stays.
type file[T any] struct {
	path string
	read func(raw []byte) (T, error)
	// maxBytes is the largest file that is taken.
	maxBytes int64
	reloaded func(error)

	content atomic.Pointer[T]
	version atomic.Uint64

	mu      sync.Mutex
	settled os.FileInfo // of the file as it was last read
	pending os.FileInfo // of the file at the last look, if it was another

	stop    context.CancelFunc
	stopped chan struct{}
}

// openFile reads a file and follows it.
func openFile[T any](path string, interval time.Duration, maxBytes int64, read func([]byte) (T, error), reloaded func(error)) (*file[T], error) {
	f := &file[T]{path: path, read: read, maxBytes: maxBytes, reloaded: reloaded, stop: func() {}, stopped: make(chan struct{})}
	if err := f.load(); err != nil {
		return nil, err
	}
	if interval <= 0 {
		close(f.stopped)
		return f, nil
	}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	go func() {
		defer close(f.stopped)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if ok, err := f.check(); ok {
					f.reloaded(err)
				}
			}
		}
	}()
	return f, nil
}

func (f *file[T]) load() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	// The next look is held against this one, whatever comes of it.
	f.settled, f.pending = info, nil
	if info.Size() > f.maxBytes {
		return fmt.Errorf("%s is larger than the %d bytes that are allowed: raise max_file_bytes", f.path, f.maxBytes)
	}
	// Read, not mapped: a mapped file that is cut short while it is in use
	// ends the process.
	raw, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	content, err := f.read(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.content.Store(&content)
	f.version.Add(1)
	return nil
}

// check looks whether the file has changed, and tells whether it was read anew.
// A file is compared by what the file system says of it, as it may be large;
// the swapped symbolic links of a Kubernetes ConfigMap are followed.
func (f *file[T]) check() (read bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	switch {
	case err != nil:
		return false, nil // between two versions there may be none
	case same(now, f.settled):
		f.pending = nil
		return false, nil
	case f.pending == nil || !same(now, f.pending):
		f.pending = now
		return false, nil
	}
	return true, f.load()
}

func same(a, b os.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}

func (f *file[T]) get() T { return *f.content.Load() }

func (f *file[T]) close() {
	f.stop()
	<-f.stopped
}
