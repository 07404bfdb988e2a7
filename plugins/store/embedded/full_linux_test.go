package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// A disk that is really full, with the space check disabled.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("mounting a small file system needs more rights: %v", err)
	}
	// The halted store keeps its files open.
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })

	s, err := Open(Options{Path: dir, MemTableBytes: minMemTableBytes, MinFreeBytes: 1})
	require.NoError(t, err)
	acknowledged := map[string][]byte{}
	for i := 0; err == nil; i++ {
		require.Less(t, i, 10_000, "the disk does not fill up")
		data := make([]byte, 20_000)
		_, _ = rand.Read(data)
		key := fmt.Sprint("k", i)
		if _, err = s.Commit(ctx, []store.Change{{Key: key, Data: data}}); err == nil {
			acknowledged[key] = data
		}
	}
	require.NotEmpty(t, acknowledged)
	if !errors.Is(err, ErrFailed) {
		// A table did not fit, or the space check found no space: reads continue, and
		// writes do when there is space again.
		require.ErrorIs(t, err, ErrDiskFull)
		require.Equal(t, string(acknowledged["k0"]), get(t, s, "k0"))
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
		require.Eventually(t, func() bool { return put(s, "k0", string(acknowledged["k0"])) == nil }, waitLimit, pollInterval)
		require.NoError(t, s.Close())
	} else {
		require.ErrorContains(t, err, "no space left on device")
		require.ErrorIs(t, s.Close(), ErrFailed)
	}

	// As after a restart: the lock of an ended process is released.
	copied := t.TempDir()
	require.NoError(t, copyFiles(copied, dir))
	after := open(t, Options{Path: copied})
	for key, data := range acknowledged {
		require.Equal(t, string(data), get(t, after, key))
	}
}

func copyFiles(to, from string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(from, f.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the failed store is still deleting files that it no longer needs
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
