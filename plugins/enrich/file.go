package enrich

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
)

const (
	fieldPath           = "path"
	fieldReloadInterval = "reload_interval"
)

func reloadField() *service.ConfigField {
	return service.NewDurationField(fieldReloadInterval).
		Description("How often to check the file for changes; `0s` disables it. A changed file is loaded when two consecutive checks find the same version. An invalid file is logged, and the last valid one stays in use.").
		Default("5s").
		Advanced()
}

// file is the parsed content of a file, reloaded when the file changes. An invalid
// version is never loaded. Versions are compared by their file system metadata,
// because the file may be large.
type file[T any] struct {
	path string
	read func(raw []byte) (T, error)
	// maxBytes is the maximum size of the file.
	maxBytes int64

	content atomic.Pointer[T]
	version atomic.Uint64

	stop    context.CancelFunc
	stopped chan struct{}
}

// openFile loads a file and reloads it on changes.
func openFile[T any](path string, interval time.Duration, maxBytes int64, read func([]byte) (T, error), reloaded func(error)) (*file[T], error) {
	f := &file[T]{path: path, read: read, maxBytes: maxBytes, stop: func() {}, stopped: make(chan struct{})}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	files, err := follow.Open(info, follow.Source[os.FileInfo]{
		State: func(loaded os.FileInfo) (os.FileInfo, error) {
			if info := follow.Info(path); info != nil {
				return info, nil
			}
			return loaded, nil // absent for a moment while it is replaced
		},
		Equal: follow.SameInfo,
		Load:  func(info os.FileInfo) (os.FileInfo, error) { return info, f.load(info) },
	})
	if err != nil {
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
		files.Follow(ctx, interval, reloaded)
	}()
	return f, nil
}

func (f *file[T]) load(info os.FileInfo) error {
	if info.Size() > f.maxBytes {
		return fmt.Errorf("%s is larger than %d bytes: increase max_file_bytes", f.path, f.maxBytes)
	}
	// The file is read, not mapped: truncating a mapped file that is in use crashes
	// the process.
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

func (f *file[T]) get() T { return *f.content.Load() }

func (f *file[T]) close() {
	f.stop()
	<-f.stopped
}
