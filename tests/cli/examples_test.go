package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Operators copy the examples of the reference, so each must lint unchanged.
func TestExamplesOfThePluginsLintClean(t *testing.T) {
	const anySHA256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	got := run(t, ".", "list", "--format", "json-full")
	require.Zero(t, got.code, got.stderr)
	var kinds map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &kinds))

	linted := 0
	for kind, names := range plugins {
		var components []struct {
			Name     string
			Examples []struct{ Title, Config string }
		}
		require.NoError(t, json.Unmarshal(kinds[kind], &components))
		for _, c := range components {
			if !slices.Contains(names, c.Name) {
				continue
			}
			for i, example := range c.Examples {
				t.Run(c.Name+"/"+example.Title, func(t *testing.T) {
					path := filepath.Join(t.TempDir(), fmt.Sprintf("%s_%d.yaml", c.Name, i))
					for _, variable := range regexp.MustCompile(`\$\{(\w+_SHA256)\}`).FindAllStringSubmatch(example.Config, -1) {
						t.Setenv(variable[1], anySHA256)
					}
					require.NoError(t, os.WriteFile(path, []byte(example.Config), 0o644))
					got := run(t, root, "lint", "--skip-env-var-check", path)
					require.Zero(t, got.code, "%s\n%s", got.stderr, example.Config)
				})
				linted++
			}
		}
	}
	require.NotZero(t, linted)
}
