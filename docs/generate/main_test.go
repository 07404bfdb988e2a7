package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReferenceIsCurrent(t *testing.T) {
	const dir = "../plugins"
	pages, err := reference()
	require.NoError(t, err)
	for name, page := range pages {
		present, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err, "run: make docs")
		require.Equal(t, string(page), string(present), "%s is out of date; run: make docs", name)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for _, file := range files {
		require.Contains(t, pages, filepath.Base(file), "no plugin has this page; run: make docs")
	}
}
