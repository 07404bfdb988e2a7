package models

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func bgnbd(r float64) string {
	return fmt.Sprintf("model: bg_nbd\nfitted_at: 2026-01-31T02:00:00Z\ntime_unit: 7d\nparameters: { r: %g, alpha: 4, a: 0.8, b: 2 }\n", r)
}

// write writes the file with a modification time at the given second.
func write(t *testing.T, path, text string, second int64) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	modified := time.Unix(1_700_000_000+second, 0)
	require.NoError(t, os.Chtimes(path, modified, modified))
}

func TestFileReloadsValidParametersOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bg_nbd.yaml")
	_, err := Open[BGNBD](path)
	require.ErrorIs(t, err, os.ErrNotExist)
	write(t, path, "model: bg_nbd\n", 0)
	_, err = Open[BGNBD](path)
	require.ErrorContains(t, err, path+":1: parameters is missing")

	write(t, path, bgnbd(0.5), 1)
	f, err := Open[BGNBD](path)
	require.NoError(t, err)
	require.Equal(t, path, f.Path())
	check := func(reloaded bool, wrong string, r float64) {
		t.Helper()
		did, err := f.Check()
		require.Equal(t, reloaded, did)
		if wrong == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, wrong)
		}
		require.Equal(t, r, f.Current().R)
	}
	check(false, "", 0.5)

	before := f.Current()
	write(t, path, bgnbd(0.75), 2)
	check(false, "", 0.5) // the write may be incomplete
	check(true, "", 0.75)
	check(false, "", 0.75)
	require.Equal(t, 0.5, before.R)

	write(t, path, bgnbd(1), 3)
	check(false, "", 0.75)
	write(t, path, bgnbd(2), 4) // changed again
	check(false, "", 0.75)
	check(true, "", 2)

	write(t, path, bgnbd(0), 5)
	check(false, "", 2)
	check(true, path+":4: r must be a number from 0.000001 to 1000000", 2)
	check(false, "", 2) // reported once

	write(t, path, "model: gamma_gamma\nfitted_at: 2026-01-31T02:00:00Z\nparameters: { p: 1, q: 2, gamma: 3 }\n", 6)
	check(false, "", 2)
	check(true, path+" holds a gamma_gamma model where a bg_nbd model is needed", 2)

	require.NoError(t, os.Remove(path))
	check(false, "", 2)
	check(true, "the last parameters stay in use; put the file back", 2)
	check(false, "", 2)

	// A rename replaces the file by one of the same size and time.
	write(t, path, bgnbd(3), 7)
	check(false, "", 2)
	check(true, "", 3)
	other := filepath.Join(filepath.Dir(path), "other")
	write(t, other, bgnbd(4), 7)
	require.NoError(t, os.Rename(other, path))
	check(false, "", 3)
	check(true, "", 4)
}

func TestSaveReplacesTheFileAtomically(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "models")
	path := filepath.Join(dir, "bg_nbd.yaml")
	m := *cdnow
	m.From = Origin{FittedAt: time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)}
	require.NoError(t, Save(path, &m))
	loaded, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, &m, loaded)
	f, err := Open[BGNBD](path)
	require.NoError(t, err)

	m.R = 0
	require.EqualError(t, Save(path, &m), "bg_nbd: r must be a number from 0.000001 to 1000000")
	loaded, err = Load(path)
	require.NoError(t, err)
	require.Equal(t, 0.243, loaded.(*BGNBD).R)

	m.R = 2
	require.NoError(t, Save(path, &m))
	reloaded, err := f.Check()
	require.NoError(t, err)
	require.False(t, reloaded)
	_, err = f.Check()
	require.NoError(t, err)
	require.Equal(t, 2.0, f.Current().R)

	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1, "no temporary file remains")

	// A folder cannot be replaced; no temporary file remains.
	blocked := filepath.Join(dir, "folder")
	require.NoError(t, os.MkdirAll(filepath.Join(blocked, "full"), 0o755))
	require.Error(t, Save(blocked, &m))
	names, err = os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 2)
}
