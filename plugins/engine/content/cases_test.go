package content

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The blocks in testdata/cases are checked by their samples.
func TestCases(t *testing.T) {
	paths, err := filepath.Glob("testdata/cases/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		_, problems, err := Load(path, anything)
		require.NoError(t, err)
		require.Empty(t, problems)
	}
}
