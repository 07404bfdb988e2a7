package embedded

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// halt stops an engine that failed to write its log or its manifest. How much of the
// write reached the disk is then unknown, and pebble would end the process. Instead,
// the goroutine that met the error blocks forever, as if the process had been killed at
// that point. Nothing after the error reaches the disk, so a restart recovers the same
// state as after a kill. From then on every call returns ErrFailed.
type halt struct {
	path   string
	logger Logger
	armed  atomic.Bool // not set while opening, when errors are simply returned

	stalls atomic.Pointer[stall]

	once    sync.Once
	stopped chan struct{}
	err     error // valid after stopped is closed
}

func newHalt(o Options) *halt {
	return &halt{path: o.Path, logger: o.Logger, stopped: make(chan struct{})}
}

// stop records the error and blocks forever. While the store is being opened it
// returns.
func (h *halt) stop(cause error) {
	if !h.armed.Load() {
		return
	}
	h.once.Do(func() {
		h.err = fmt.Errorf("embedded profile store at %q: %w: %w", h.path, ErrFailed, rootCause(cause))
		h.logger.Errorf("%v; what was acknowledged is safe, and the next start recovers it", h.err)
		close(h.stopped)
	})
	select {}
}

// failed returns the error of a halted store, nil if it is not halted.
func (h *halt) failed() error {
	select {
	case <-h.stopped:
		return h.err
	default:
		return nil
	}
}

// stall is a failed write of a table. Unlike the log, the engine retries tables until
// the write succeeds; but when the memory for unwritten tables is used up, the
// committer has to wait.
type stall struct {
	err   error
	since time.Time
}

const (
	// retryPause is the minimum time between two attempts to write a table.
	retryPause = 50 * time.Millisecond
	// stallLimit is how long a Commit waits while tables cannot be written.
	stallLimit = 2 * time.Second
)

// stalled returns an error if tables cannot be written now.
func (h *halt) stalled() error {
	s := h.stalls.Load()
	if s == nil || time.Since(s.since) > stallLimit/2 {
		return nil
	}
	err := fmt.Errorf("embedded profile store at %q: writing waits for the disk: %w", h.path, s.err)
	if errors.Is(s.err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: %w", err, ErrDiskFull)
	}
	return err
}

// logGuard is a file system that halts the engine at an error of its log.
type logGuard struct {
	vfs.FS
	halt *halt
}

func (g logGuard) Unwrap() vfs.FS { return g.FS }

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func (g logGuard) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, c)
	return g.guard(name, f, err)
}

// ReuseForWrite replaces the old log instead of overwriting it: behind the new content
// the old one would stay readable.
func (g logGuard) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.Remove(from); err != nil {
		return nil, err
	}
	return g.Create(to, c)
}

func (g logGuard) guard(name string, f vfs.File, err error) (vfs.File, error) {
	if !isLog(name) {
		return f, err
	}
	if err != nil {
		g.halt.stop(err)
		return nil, err
	}
	return logFile{f, g.halt}, nil
}

type logFile struct {
	vfs.File
	halt *halt
}

func (f logFile) check(err error) error {
	if err != nil {
		f.halt.stop(err)
	}
	return err
}

func (f logFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, f.check(err)
}

func (f logFile) Sync() error     { return f.check(f.File.Sync()) }
func (f logFile) SyncData() error { return f.check(f.File.SyncData()) }
func (f logFile) Close() error    { return f.check(f.File.Close()) }

func (f logFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	return full, f.check(err)
}
