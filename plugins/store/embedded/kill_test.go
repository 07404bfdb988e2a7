//go:build unix

package embedded

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

const (
	waitLimit    = 20 * time.Second
	pollInterval = 5 * time.Millisecond

	childEnv = "EMBEDDED_STORE_CHILD"
)

// TestMain starts this test binary as the child process that the tests kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := runChild(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const childWriters, childKeys = 3, 40

// runChild counts up the records of each writer, in batches, and prints each
// acknowledgement: the writer and the number that all its records have reached.
func runChild(dir string) error {
	s, err := Open(Options{Path: dir, MemTableBytes: minMemTableBytes})
	if err != nil {
		return err
	}
	fmt.Println("open")
	var printing sync.Mutex
	failed := make(chan error)
	for w := range childWriters {
		go func() {
			var keys []string
			for k := range childKeys {
				keys = append(keys, fmt.Sprintf("writer-%d-%d", w, k))
			}
			for {
				records, err := s.Load(ctx, keys)
				if err != nil {
					failed <- err
					return
				}
				n := counted(records[0]) + 1
				changes := make([]store.Change, len(keys))
				for i, r := range records {
					changes[i] = store.Change{
						Key: keys[i], Version: r.Version, Data: fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", 600)),
						Index: []store.IndexEdit{
							{Index: "count", Value: strconv.Itoa(counted(r)), Remove: true},
							{Index: "count", Value: strconv.Itoa(n)},
						},
					}
				}
				if _, err := s.Commit(ctx, changes); err != nil {
					failed <- err
					return
				}
				printing.Lock()
				fmt.Println(w, n)
				printing.Unlock()
			}
		}()
	}
	return <-failed
}

func counted(r store.Record) int {
	n, _, _ := strings.Cut(string(r.Data), " ")
	i, _ := strconv.Atoi(n)
	return i
}

func startChild(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

// A process that is killed at any moment has lost nothing that it acknowledged, and
// each record has exactly its own index entry.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	acknowledged := make([]int, childWriters)
	for round := range rounds {
		cmd, lines := startChild(t, dir)
		require.True(t, lines.Scan())
		require.Equal(t, "open", lines.Text(), "round %d", round)
		// Somewhere between the first commits and several tables later.
		kill := time.AfterFunc(time.Duration(rand.IntN(600))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for lines.Scan() {
			var w, n int
			_, err := fmt.Sscan(lines.Text(), &w, &n)
			require.NoError(t, err, "the child says %q", lines.Text())
			acknowledged[w] = n
		}
		kill.Stop()
		require.ErrorContains(t, cmd.Wait(), "killed")

		s, err := Open(Options{Path: dir})
		require.NoError(t, err)
		for w := range childWriters {
			var want []store.IndexEntry
			first := -1
			for k := range childKeys {
				key := fmt.Sprintf("writer-%d-%d", w, k)
				r, err := s.Load(ctx, []string{key})
				require.NoError(t, err)
				n := counted(r[0])
				require.GreaterOrEqual(t, n, acknowledged[w], "round %d: %s is behind what was acknowledged", round, key)
				require.LessOrEqual(t, n, acknowledged[w]+1, "round %d: %s is ahead of what was begun", round, key)
				if first >= 0 {
					require.Equal(t, first, n, "round %d: a batch of the log is whole", round)
				}
				first = n
				if n > 0 {
					want = append(want, store.IndexEntry{Value: strconv.Itoa(n), Key: key})
				}
			}
			entries, err := s.ScanIndex(ctx, "count", "", "", store.IndexEntry{}, 1_000_000)
			require.NoError(t, err)
			var got []store.IndexEntry
			for _, e := range entries {
				if strings.HasPrefix(e.Key, fmt.Sprintf("writer-%d-", w)) {
					got = append(got, e)
				}
			}
			require.ElementsMatch(t, want, got, "round %d: the index of writer %d", round, w)
			acknowledged[w] = first // a commit without a complete acknowledgement stays
		}
		require.NoError(t, s.Close())
		t.Logf("round %d: the first writer has come to %d", round, acknowledged[0])
	}
	require.Positive(t, acknowledged[0], "no round reached a commit")
}

func TestOpenInAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	cmd, lines := startChild(t, dir)
	require.True(t, lines.Scan())
	require.Equal(t, "open", lines.Text())
	_, err := Open(Options{Path: dir})
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, fmt.Sprintf("%q is in use by another process", dir))
	require.ErrorContains(t, err, "stop that one, give this one its own path")
	require.NoError(t, cmd.Process.Kill())
	for lines.Scan() {
	}
	_ = cmd.Wait()
	open(t, Options{Path: dir})
}
