package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Redpanda Connect mixes files under the Apache-2.0 license with files under
// the Redpanda Community License, and packages of the first kind may import
// those of the second. Only the headers of the linked files give certainty.
func TestNothingUnderTheCommunityLicenseIsLinked(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,Module", ".")
	list.Stderr = os.Stderr
	out, err := list.Output()
	require.NoError(t, err)

	read := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			ImportPath, Dir string
			GoFiles         []string
			Module          *struct{ Path string }
		}
		err := dec.Decode(&pkg)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if pkg.Module == nil || !strings.HasPrefix(pkg.Module.Path, "github.com/redpanda-data/") {
			continue
		}
		for _, file := range pkg.GoFiles {
			source, err := os.ReadFile(filepath.Join(pkg.Dir, file))
			require.NoError(t, err)
			read++
			header, _, _ := bytes.Cut(source, []byte("\npackage "))
			// The licence's name is broken over two comment lines.
			words := strings.Join(strings.Fields(strings.ReplaceAll(string(header), "//", " ")), " ")
			for _, mark := range []string{"Redpanda Community License", "Redpanda Enterprise", "rcl.md"} {
				if strings.Contains(words, mark) {
					t.Errorf("%s/%s is linked and under the Redpanda Community License: drop the component package that imports it", pkg.ImportPath, file)
					break
				}
			}
		}
	}
	require.Greater(t, read, 100, "no source of the engine was read")
}
