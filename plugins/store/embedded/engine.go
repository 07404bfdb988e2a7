package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// format is the layout of keys and values. A store with a later one is refused.
const format = 1

// engineFormat is the format of pebble's files. It is named, not "the newest",
// so that a new pebble does not make a store unreadable for the release before.
const engineFormat = pebble.FormatValueSeparation

// engine is pebble in its place.
type engine struct {
	db   *pebble.DB
	lock *pebble.Lock
	fs   vfs.FS
	dir  string
	halt *halt
}

// openEngine opens pebble, locked against every other opener.
func openEngine(o Options) (*engine, error) {
	fs, dir := o.fs, o.Path
	switch {
	case fs != nil:
	case dir == Memory:
		fs, dir = vfs.NewMem(), "/profiles"
	default:
		fs = vfs.Default
		var err error
		if dir, err = realDir(dir); err != nil {
			return nil, fmt.Errorf("embedded profile store: %w; give a path this user can write to", err)
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded profile store: %w; give a path this user can write to", err)
	}
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		return nil, lockError(o.Path, err)
	}
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref() // the engine has its own reference
	h := newHalt(o)
	l := &engineLog{to: o.Logger, path: o.Path, halt: h}
	opts := &pebble.Options{
		FS:                    logGuard{fs, h},
		Lock:                  lock,
		Logger:                l,
		EventListener:         l.events(),
		FormatMajorVersion:    engineFormat,
		Cache:                 cache,
		MemTableSize:          o.MemTableBytes,
		L0CompactionThreshold: 4,
		L0StopWritesThreshold: 20,
		LBaseMaxBytes:         max(64<<20, 4*int64(o.MemTableBytes)),
		// Two tables may wait to be written while a third fills.
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                500,
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		// One index block a table: looked up for every read, it stays cached.
		opts.Levels[i].IndexBlockSize = 256 << 10
		// What is rewritten soon is not worth compressing. Most of the data is
		// in the last level, which is.
		if i < len(opts.Levels)-1 {
			opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		}
	}
	db, err := openPebble(dir, opts)
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("embedded profile store at %q cannot be opened: %w; if a newer release wrote it, run that one", o.Path, err), lock.Close())
	}
	if err := checkFormat(db); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded profile store at %q: %w", o.Path, err), db.Close(), lock.Close())
	}
	h.armed.Store(true)
	return &engine{db, lock, fs, dir, h}, nil
}

// openPebble turns a panic on the way into an error.
func openPebble(dir string, opts *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%v", r)
		}
	}()
	return pebble.Open(dir, opts)
}

// realDir resolves links, because the lock tells stores of one process apart
// by their path.
func realDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

func lockError(path string, err error) error {
	switch {
	case strings.Contains(err.Error(), "held by current process"):
		return fmt.Errorf("embedded profile store at %q is open already in this process: let the pipelines share one profiles resource, or give each store its own path (%w)", path, ErrInUse)
	case isLocked(err):
		return fmt.Errorf("embedded profile store at %q is in use by another process: stop that one, give this one its own path, or use the redis store to share profiles between processes (%w)", path, ErrInUse)
	}
	return fmt.Errorf("embedded profile store at %q cannot be locked: %w; give a path this user can write to", path, err)
}

func checkFormat(db *pebble.DB) error {
	key := []byte{formatSpace}
	v, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return db.Set(key, []byte{format}, pebble.Sync)
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if len(v) != 1 || v[0] > format {
		return fmt.Errorf("its format %d is newer than %d, the one this release knows; run the release that wrote it", v, format)
	}
	return nil
}

// engineLog passes on what pebble has to say. Arguments may hold customers'
// keys, so only numbers and errors of the file system are passed on.
type engineLog struct {
	to   Logger
	path string
	halt *halt
	last atomic.Int64 // when the last background error was logged
}

func (l *engineLog) Infof(string, ...any) {} // file names and sizes, nothing to act on

func (l *engineLog) Errorf(format string, args ...any) {
	l.to.Errorf("embedded profile store at %q: "+format, append([]any{l.path}, impersonal(args)...)...)
}

// Fatalf is called when the engine cannot go on, and must not return.
func (l *engineLog) Fatalf(format string, args ...any) {
	l.halt.stop(fmt.Errorf(format, impersonal(args)...))
	panic(fmt.Sprintf(format, impersonal(args)...)) // while opening
}

func (l *engineLog) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			l.halt.stalls.Store(&stall{rootCause(err), time.Now()})
			// Pebble tries again at once, over and over while a disk is full.
			time.Sleep(retryPause)
			now := time.Now().UnixNano()
			if last := l.last.Load(); now-last > int64(10*time.Second) && l.last.CompareAndSwap(last, now) {
				l.to.Errorf("embedded profile store at %q: a background task failed and is tried again: %v", l.path, impersonal([]any{err})[0])
			}
		},
		WriteStallBegin: func(pebble.WriteStallBeginInfo) {
			l.to.Debugf("embedded profile store at %q: writes wait for the disk", l.path)
		},
		WriteStallEnd: func() {
			l.to.Debugf("embedded profile store at %q: writes go on", l.path)
		},
	}
}

func impersonal(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case int, int64, uint64, uint32:
			out[i] = a
		case error:
			out[i] = rootCause(a)
		default:
			out[i] = "…"
		}
	}
	return out
}

// rootCause strips what was wrapped around an error of the operating system.
func rootCause(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr
	}
	if sysErr, ok := errors.AsType[*os.SyscallError](err); ok {
		return sysErr
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
