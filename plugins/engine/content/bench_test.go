package content

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkShippedBlocks renders the samples of every shipped block.
func BenchmarkShippedBlocks(b *testing.B) {
	paths, err := filepath.Glob("../../../configs/content/*.yaml")
	require.NoError(b, err)
	for _, path := range paths {
		block, _, err := Load(path, anything)
		require.NoError(b, err)
		b.Run(block.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range block.Samples {
					block.Render(block.Samples[i].Profile)
				}
			}
		})
	}
}
