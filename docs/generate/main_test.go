package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// The map of docs/architecture.md has every package, by its path below plugins for those
// of engine, store and command.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	page, err := os.ReadFile("../architecture.md")
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir("../../plugins", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		files, err := filepath.Glob(filepath.Join(path, "*.go"))
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			name := strings.TrimPrefix(filepath.ToSlash(path), "../../")
			for _, group := range []string{"engine", "store", "command"} {
				if strings.HasPrefix(name, "plugins/"+group) {
					name = strings.TrimPrefix(name, "plugins/")
				}
			}
			require.Contains(t, string(page), "`"+name+"`", "describe the package in docs/architecture.md")
			break
		}
		return err
	}))
}
