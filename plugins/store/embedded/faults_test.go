package embedded

import (
	"fmt"
	randv2 "math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

func newCrashRNG(round int) *randv2.Rand { return randv2.New(randv2.NewPCG(uint64(round), 1)) }

// slowSync is a file system that syncs log files on request.
type slowSync struct {
	vfs.FS
	block   atomic.Bool
	release chan struct{}
}

func (fs *slowSync) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &slowFile{f, fs}, nil
}

type slowFile struct {
	vfs.File
	fs *slowSync
}

func (f *slowFile) wait() {
	if f.fs.block.Load() {
		<-f.fs.release
	}
}

func (f *slowFile) Sync() error     { f.wait(); return f.File.Sync() }
func (f *slowFile) SyncData() error { f.wait(); return f.File.SyncData() }
func (f *slowFile) SyncTo(n int64) (bool, error) {
	f.wait()
	return f.File.SyncTo(n)
}

// logged collects the log of a store.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (h *logged) Debugf(string, ...any) {}

func (h *logged) Errorf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, fmt.Sprintf(format, args...))
}

func (h *logged) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.lines, "\n")
}

// Every operation on the log fails in turn. The affected commit reports the failure,
// the store then rejects all calls and says what to do, and after reopening everything
// that was acknowledged is there.
func TestLogFaultsHaltTheStore(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileClose, errorfs.OpCreate} {
		for nth := range 4 {
			t.Run(fmt.Sprintf("%d/%d", kind, nth), func(t *testing.T) {
				var armed atomic.Bool
				var seen, struck atomic.Int64
				disk := vfs.NewCrashableMem()
				faulty := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if armed.Load() && op.Kind == kind && strings.HasSuffix(op.Path, ".log") && seen.Add(1) > int64(nth) {
						struck.Add(1)
						return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
					}
					return nil
				}))
				log := &logged{}
				s, err := Open(Options{Path: "/profiles", MemTableBytes: minMemTableBytes, fs: faulty, Logger: log})
				require.NoError(t, err)
				armed.Store(true)

				acknowledged, attempted := map[string]string{}, map[string]string{}
				var failed error
				for i := range 400 {
					key, data := fmt.Sprint("customer-", i%50), fmt.Sprint(i, strings.Repeat("x", 20_000))
					attempted[key] = data
					if failed = put(s, key, data); failed != nil {
						break
					}
					acknowledged[key] = data
				}
				if failed != nil {
					require.ErrorIs(t, failed, ErrFailed)
					require.ErrorContains(t, failed, "no space left on device")
					require.ErrorContains(t, failed, "must be restarted")
					require.NotContains(t, failed.Error(), "customer-")
					require.Contains(t, log.text(), "what was acknowledged is safe")
					_, err := s.Load(ctx, []string{"k"})
					require.ErrorIs(t, err, ErrFailed)
					_, err = s.Commit(ctx, []store.Change{{Key: "k", Data: []byte("v")}})
					require.ErrorIs(t, err, ErrFailed)
					require.ErrorIs(t, s.Ping(ctx), ErrFailed)
					// Close returns the failure, and ErrClosed when it is called again.
					require.ErrorIs(t, s.Close(), ErrFailed)
					require.ErrorIs(t, s.Close(), store.ErrClosed)
				} else {
					require.Zero(t, struck.Load(), "the fault occurred without an error")
					require.NoError(t, s.Close())
				}

				after := open(t, Options{Path: "/profiles", fs: disk.CrashClone(vfs.CrashCloneCfg{})})
				for key, want := range acknowledged {
					if got := get(t, after, key); got != want {
						// The failed commit may have reached the disk.
						require.Equal(t, attempted[key], got)
					}
				}
			})
		}
	}
}

// Tables that cannot be written are written later, and nothing is lost meanwhile.
func TestTableFaultsAreRetried(t *testing.T) {
	var broken atomic.Bool
	var struck atomic.Int64
	faulty := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			struck.Add(1)
			return &os.PathError{Op: "write", Path: op.Path, Err: syscall.EIO}
		}
		return nil
	}))
	log := &logged{}
	s := open(t, Options{Path: "/profiles", MemTableBytes: minMemTableBytes, fs: faulty, Logger: log})
	broken.Store(true)
	// Less data than may wait in memory, otherwise the writer would wait as well.
	for i := range 60 {
		require.NoError(t, put(s, fmt.Sprint("k", i), strings.Repeat("x", 20_000)))
	}
	require.Eventually(t, func() bool { return struck.Load() > 0 }, waitLimit, pollInterval)
	require.Eventually(t, func() bool { return strings.Contains(log.text(), "tried again") }, waitLimit, pollInterval)
	broken.Store(false)
	for i := range 600 {
		require.NoError(t, put(s, fmt.Sprint("k", i), strings.Repeat("y", 20_000)))
	}
	for i := range 600 {
		require.Equal(t, strings.Repeat("y", 20_000), get(t, s, fmt.Sprint("k", i)))
	}
	require.NoError(t, s.Close())
}

// While tables cannot be written for long, Commit returns an error instead of waiting
// forever. The abandoned batch is applied when writing works again.
func TestCommitFailsDuringLongTableFaults(t *testing.T) {
	var broken atomic.Bool
	faulty := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpCreate {
			return &os.PathError{Op: "open", Path: op.Path, Err: syscall.ENOSPC}
		}
		return nil
	}))
	s := open(t, Options{Path: "/profiles", MemTableBytes: minMemTableBytes, fs: faulty})
	broken.Store(true)
	acknowledged := map[string]string{}
	var data []byte
	var err error
	for i := 0; err == nil; i++ {
		require.Less(t, i, 1000, "memory is not bounded")
		data = []byte(fmt.Sprint(i, strings.Repeat("x", 20_000)))
		if _, err = s.Commit(ctx, []store.Change{{Key: fmt.Sprint("k", i), Data: data}}); err == nil {
			acknowledged[fmt.Sprint("k", i)] = string(data)
		}
	}
	require.ErrorIs(t, err, ErrDiskFull)
	require.ErrorContains(t, err, "writing waits for the disk")
	last := fmt.Sprint("k", len(acknowledged))
	want := string(data)
	copy(data, "changed by its owner")

	// While one commit waits for the disk, so do the others. Reads continue.
	_, err = s.Commit(ctx, []store.Change{{Key: "other", Data: []byte("v")}})
	require.ErrorIs(t, err, ErrDiskFull)
	require.Equal(t, acknowledged["k1"], get(t, s, "k1"))

	broken.Store(false)
	require.Eventually(t, func() bool { return get(t, s, last) == want }, waitLimit, pollInterval, "applied after all, as it was")
	require.NoError(t, put(s, "other", "v"))
	for key, want := range acknowledged {
		require.Equal(t, want, get(t, s, key))
	}
	require.NoError(t, s.Close())
}

// A store can be closed while it waits for a disk that stays full.
func TestCloseWhileTablesCannotBeWritten(t *testing.T) {
	var broken atomic.Bool
	disk := vfs.NewMem()
	faulty := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpCreate {
			return &os.PathError{Op: "open", Path: op.Path, Err: syscall.ENOSPC}
		}
		return nil
	}))
	s := open(t, Options{Path: "/profiles", MemTableBytes: minMemTableBytes, fs: faulty})
	broken.Store(true)
	var err error
	for i := 0; err == nil; i++ {
		require.Less(t, i, 1000, "memory is not bounded")
		err = put(s, fmt.Sprint("k", i), strings.Repeat("x", 20_000))
	}
	require.ErrorIs(t, err, ErrDiskFull)
	require.ErrorIs(t, s.Close(), ErrDiskFull)
	_, err = s.Load(ctx, []string{"k1"})
	require.ErrorIs(t, err, store.ErrClosed)
}

// A table that cannot be read fails the call, not the store.
func TestReadFaultsFailOnlyTheCall(t *testing.T) {
	var broken atomic.Bool
	faulty := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpFileReadAt {
			return &os.PathError{Op: "read", Path: op.Path, Err: syscall.EIO}
		}
		return nil
	}))
	s, err := Open(Options{Path: "/profiles", fs: faulty, CacheBytes: 1, RecordCacheBytes: 1})
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, put(s, fmt.Sprint("customer-", i), strings.Repeat("x", 10_000)))
	}
	require.NoError(t, s.db.Flush())
	broken.Store(true)
	var failures int
	for i := range 100 {
		if _, err := s.Load(ctx, []string{fmt.Sprint("customer-", i)}); err != nil {
			failures++
			require.ErrorContains(t, err, "input/output error")
			require.NotContains(t, err.Error(), "customer-")
		}
	}
	require.Positive(t, failures)
	broken.Store(false)
	for i := range 100 {
		require.Equal(t, strings.Repeat("x", 10_000), get(t, s, fmt.Sprint("customer-", i)))
	}
	require.NoError(t, put(s, "customer-1", "still in service"))
	require.NoError(t, s.Close())
}
