package embedded

import (
	"errors"
	"fmt"
	"io"
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

// format is the version of the layout of keys and values. A store with a later version
// is rejected.
const format = 1

// engineFormat is the format of pebble's files. It is fixed, so that a newer pebble
// does not make a store unreadable for the previous release.
const engineFormat = pebble.FormatValueSeparation

// memTables is the number of tables in memory, one of which is being filled.
const memTables = 3

// engine is an open pebble database with its directory lock.
type engine struct {
	db   *pebble.DB
	lock *pebble.Lock
	fs   vfs.FS
	dir  string
	halt *halt

	manifests *atomic.Int64 // created since the store was opened
}

// openEngine opens pebble and locks the directory against other openers.
func openEngine(o Options) (*engine, error) {
	fs, dir := o.fs, o.Path
	switch {
	case fs != nil:
	case dir == Memory:
		fs, dir = vfs.NewMem(), "/profiles"
	default:
		fs = privateFS{vfs.Default}
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
	manifests := new(atomic.Int64)
	events := l.events()
	events.ManifestCreated = func(pebble.ManifestCreateInfo) { manifests.Add(1) }
	opts := &pebble.Options{
		FS:                    logGuard{fs, h},
		Lock:                  lock,
		Logger:                l,
		EventListener:         events,
		FormatMajorVersion:    engineFormat,
		Cache:                 cache,
		MemTableSize:          o.MemTableBytes,
		L0CompactionThreshold: 4,
		L0StopWritesThreshold: 20,
		LBaseMaxBytes:         max(64<<20, 4*int64(o.MemTableBytes)),
		// Two tables may wait to be written while a third is filled.
		MemTableStopWritesThreshold: memTables,
		// The manifest is rotated as soon as it has more edits than there are tables.
		MaxManifestFileSize: 1,
		MaxOpenFiles:        500,
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		// One index block per table: every read uses it, so it stays cached.
		opts.Levels[i].IndexBlockSize = 256 << 10
		// Data that is rewritten soon is not worth compressing. Most data is in the
		// last level, which is compressed.
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
	return &engine{db, lock, fs, dir, h, manifests}, nil
}

// privateFS creates files that only their owner can read and write, whatever the umask
// is: the engine itself creates them with the mode 0666.
type privateFS struct{ vfs.FS }

const privateMode = 0o600

func (p privateFS) Unwrap() vfs.FS { return p.FS }

func (p privateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return private(name)(p.FS.Create(name, c))
}

func (p privateFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return private(name)(p.FS.OpenReadWrite(name, c, opts...))
}

func (p privateFS) Lock(name string) (io.Closer, error) {
	lock, err := p.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, privateMode); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

func private(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(name, privateMode); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
}

// openPebble converts a panic of pebble to an error.
func openPebble(dir string, opts *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%v", r)
		}
	}()
	return pebble.Open(dir, opts)
}

// realDir resolves symbolic links, because the lock identifies stores of one process by
// their path.
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

// engineLog forwards pebble's log. Arguments may contain keys of customers, so it
// forwards only numbers and errors of the file system.
type engineLog struct {
	to   Logger
	path string
	halt *halt
	last atomic.Int64 // when the last background error was logged
}

func (l *engineLog) Infof(string, ...any) {} // file names and sizes, which need no action

func (l *engineLog) Errorf(format string, args ...any) {
	l.to.Errorf("embedded profile store at %q: "+format, append([]any{l.path}, impersonal(args)...)...)
}

// Fatalf is called if the engine cannot continue. It must not return.
func (l *engineLog) Fatalf(format string, args ...any) {
	l.halt.stop(fmt.Errorf(format, impersonal(args)...))
	panic(fmt.Sprintf(format, impersonal(args)...)) // only while opening
}

func (l *engineLog) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			l.halt.stalls.Store(&stall{rootCause(err), time.Now()})
			// Pebble retries immediately, which is a busy loop while a disk is full.
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

// rootCause unwraps an error to that of the operating system.
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
