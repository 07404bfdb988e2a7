package profiledefinition

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// shop ends with a list of features, so that tests can append other fields.
const shop = `
sources: [crm, web]
features:
  - name: orders
    count: { events: [Order Completed] }
  - name: revenue
    sum: { events: [Order Completed], of: properties.total }
  - name: big_orders
    count: { events: [Order Completed], where: 'this.properties.total > 100' }
`

func writeDefinition(t testing.TB, text string) string {
	path := filepath.Join(t.TempDir(), "profile.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLint(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		line int
		what string
	}{
		"unknown key":     {"features:\n  - name: a\n    count: { event: [x] }\n", 3, "field event not recognised"},
		"no kind":         {"features:\n  - name: a\n", 2, "needs a kind"},
		"two kinds":       {"features:\n  - name: a\n    count: {}\n    sum: { of: x }\n", 2, "has two kinds"},
		"bad window":      {"features:\n  - name: a\n    count: { window: 30 }\n", 3, "such as 30d"},
		"bad name":        {"features:\n  - name: a-b\n    count: {}\n", 2, "such as orders_30d"},
		"doubled name":    {"features:\n  - name: a\n    count: {}\n  - name: a\n    count: {}\n", 4, "feature 1 has this name already"},
		"bad where":       {"features:\n  - name: a\n    count:\n      where: 'this.('\n", 4, ""},
		"bad path":        {"features:\n  - name: a\n  - name: b\n    sum: { of: 'a..b' }\n", 2, "needs a kind"},
		"path":            {"features:\n  - name: a\n    count: {}\n  - name: b\n    sum: { of: 'a..b' }\n", 4, "keys joined by dots"},
		"sum of the time": {"features:\n  - name: b\n    sum: { of: timestamp }\n", 2, "cannot read timestamp"},
		"unknown need":    {"features:\n  - name: orders\n    count: {}\n  - name: b\n    ratio: { of: oders, to: orders }\n", 4, "did you mean \"orders\""},
		"circle":          {"features:\n  - name: a\n    expression: features.b + 1\n  - name: b\n    expression: features.a + 1\n", 2, "a needs b needs a"},
		"all features":    {"features:\n  - name: a\n    expression: features.values()\n", 2, "there is no feature"},
		"no YAML":         {"features: [", 1, ""},
		"missing of":      {"features:\n  - name: a\n    sum: {}\n", 3, "of is required"},
	} {
		t.Run(name, func(t *testing.T) {
			lints, err := Lint(writeDefinition(t, c.text))
			require.NoError(t, err)
			require.NotEmpty(t, lints)
			require.Equal(t, c.line, lints[0].Line, "%v", lints)
			require.Contains(t, lints[0].Message, c.what)
		})
	}
	_, err := Lint("/nonexistent/profile.yaml")
	require.Error(t, err)
	lints, err := Lint("../../configs/retail/profile.yaml")
	require.NoError(t, err)
	require.Empty(t, lints)
}
