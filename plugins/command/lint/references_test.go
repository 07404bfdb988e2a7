package lint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every variable that the list names occurs in a shipped config, so that a hint never
// names a variable that nothing reads.
func TestShippedVariablesOccurInConfigs(t *testing.T) {
	found := map[string]bool{}
	require.NoError(t, filepath.WalkDir("../../../configs", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range variable.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
		return err
	}))
	for _, name := range shippedVariables {
		require.Contains(t, found, name)
	}
}
