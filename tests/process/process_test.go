package process

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shell returns a process that runs a shell command, passed as its config.
func shell(t *testing.T, command string) *Process {
	p := &Process{Name: "shell", Binary: "/bin/sh", Config: command, Env: []string{"WORD=there"}, Log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(p.Kill)
	return p
}

func TestProcessRestartsAfterKill(t *testing.T) {
	p := shell(t, `echo "hello $WORD"; exec sleep 60`)
	require.ErrorContains(t, p.Alive(), "ended by itself")
	for n := 1; n <= 2; n++ {
		from := p.LogSize()
		require.NoError(t, p.Start())
		require.NoError(t, Until(t.Context(), "a word", 10*time.Second, time.Millisecond, func() (bool, error) {
			return p.Logged(from, "hello there") == 1, p.Alive()
		}))
		require.Equal(t, n, p.Starts())
		require.Equal(t, n, p.Logged(0, "hello there"))
		require.Positive(t, Memory(p.ID()))
		p.Signal(syscall.SIGSTOP) // SIGKILL also ends a stopped process
		p.Kill()
		require.Error(t, p.Wait(0))
		require.ErrorContains(t, p.Alive(), "hello there", "the error contains the end of the log")
	}
}

func TestProcessRunsInItsFolderWithItsArguments(t *testing.T) {
	dir := t.TempDir()
	p := shell(t, "")
	p.Dir, p.Args = dir, []string{"-c", `echo "$0" > said`, "an argument"}
	require.NoError(t, p.Start())
	require.NoError(t, p.Wait(10*time.Second))
	said, err := os.ReadFile(filepath.Join(dir, "said"))
	require.NoError(t, err)
	require.Equal(t, "an argument\n", string(said))
}

func TestCPUCountsProcessorTime(t *testing.T) {
	p := shell(t, `while :; do :; done`)
	require.NoError(t, p.Start())
	require.NoError(t, Until(t.Context(), "some work", 20*time.Second, time.Millisecond, func() (bool, error) {
		return CPU(p.ID()) >= 50*time.Millisecond, p.Alive()
	}))
	require.Zero(t, CPU(0))
	require.Zero(t, Memory(0))
}

func TestUntilReturnsOnSuccessErrorOrTimeout(t *testing.T) {
	calls := 0
	check := func() (bool, error) { calls++; return calls == 3, nil }
	require.NoError(t, Until(t.Context(), "three", time.Minute, 0, check))
	failed := errors.New("failed")
	require.ErrorIs(t, Until(t.Context(), "", time.Minute, 0, func() (bool, error) { return false, failed }), failed)
	require.ErrorContains(t, Until(t.Context(), "a miracle", 0, 0, func() (bool, error) { return false, nil }), "in vain for a miracle")
}

func TestFreeAddressesAreDistinct(t *testing.T) {
	a, err := FreeAddress()
	require.NoError(t, err)
	b, err := FreeAddress()
	require.NoError(t, err)
	require.NotEqual(t, a, b)
}
