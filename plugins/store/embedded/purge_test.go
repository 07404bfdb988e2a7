package embedded

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// residue returns the files below dir that contain one of the words.
func residue(t *testing.T, dir string, words ...string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // deleted meanwhile
		}
		for _, word := range words {
			if bytes.Contains(data, []byte(word)) {
				found = append(found, e.Name()+": "+word)
			}
		}
	}
	return found
}

var (
	erasedWords = []string{"Zaphod", "zaphod@example.org", "prodUnique"}
	keptWords   = []string{"Trillian"}
)

// fill writes the customer to erase among others, with several versions in the log and
// in tables, and then erases it.
func fillAndErase(t *testing.T, s *Store) {
	t.Helper()
	for i := range 500 {
		key := fmt.Sprintf("customer-%d", i)
		require.NoError(t, put(s, key, "Trillian", store.IndexEdit{Index: "email", Value: fmt.Sprintf("%d@example.org", i)}))
	}
	require.NoError(t, put(s, "customer-42", "Zaphod prodUnique", store.IndexEdit{Index: "email", Value: "zaphod@example.org"}))
	require.NoError(t, s.db.Flush())
	require.NoError(t, put(s, "customer-42", "Zaphod again"))
	r, err := s.Load(t.Context(), []string{"customer-42"})
	require.NoError(t, err)
	conflicts, err := s.Commit(t.Context(), []store.Change{{
		Key: "customer-42", Version: r[0].Version, Data: []byte("erased"), Purge: true,
		Index: []store.IndexEdit{{Index: "email", Value: "zaphod@example.org", Remove: true}},
	}})
	require.NoError(t, err)
	require.Empty(t, conflicts)
}

func requirePurged(t *testing.T, s *Store, dir string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(residue(t, dir, erasedWords...)) == 0 }, waitLimit, pollInterval,
		"%v", residue(t, dir, erasedWords...))
	require.NotEmpty(t, residue(t, dir, keptWords...), "the words are readable in the files")
	require.Equal(t, "erased", get(t, s, "customer-42"))
	require.Equal(t, "Trillian", get(t, s, "customer-7"))
}

func TestPurgeRemovesErasedContentFromAllFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Path: dir, PurgeDelay: time.Millisecond})
	fillAndErase(t, s)
	requirePurged(t, s, dir)
	for i := range 20 { // and later writes do not bring it back
		require.NoError(t, put(s, "customer-1", strings.Repeat("x", i)))
	}
	requirePurged(t, s, dir)
}

func TestPurgeContinuesAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Path: dir, PurgeDelay: time.Hour})
	fillAndErase(t, s)
	require.NotEmpty(t, residue(t, dir, erasedWords...), "not purged yet")
	require.NoError(t, s.Close())
	requirePurged(t, open(t, Options{Path: dir, PurgeDelay: time.Millisecond}), dir)
}
