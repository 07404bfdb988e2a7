package expectationsuite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func writeFile(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func TestLintReportsTheLineOfEachMistake(t *testing.T) {
	const head = "name: shop\nexpectations:\n"
	for _, test := range []struct {
		name, suite string
		line        int
		want        string
	}{
		{"no kind", head + "  - name: nothing\n", 3, "it needs a kind"},
		{"two kinds", head + "  - expect_column_values_to_not_be_null: { column: a }\n    expect_table_row_count_to_be_between: { min_value: 1 }\n", 3, "split it into two expectations"},
		{"an unknown kind", head + "  - expect_column_values_to_be_nice: { column: a }\n", 3, "not recognised"},
		{"an unknown argument", head + "  - expect_column_values_to_not_be_null: { column: a, often: 1 }\n", 3, "often"},
		{"a share over 1", head + "  - expect_column_values_to_not_be_null: { column: a, mostly: 99 }\n", 3, "such as 0.99"},
		{"a set of objects", head + "  - expect_column_values_to_be_in_set: { column: a, value_set: [ {} ] }\n", 3, "in quotes"},
		{"ranges that are none", head + "  - expect_column_quantile_values_to_be_between: { column: a, quantile_ranges: { quantiles: [0.5], value_ranges: [7] } }\n", 3, "pairs of numbers"},
		{"one bound too many", head + "  - expect_column_quantile_values_to_be_between: { column: a, quantile_ranges: { quantiles: [0.5], value_ranges: [[1, 2, 3]] } }\n", 3, "a minimum and a maximum"},
		{"a condition that does not parse", head + "  - row_condition: this.(\n    expect_column_values_to_not_be_null: { column: a }\n", 3, "expected query"},
		{"second of two", head + "  - expect_column_values_to_not_be_null: { column: a }\n  - expect_column_values_to_match_regex: { column: a, regex: '(' }\n", 4, "RE2"},
		{"no name", "expectations:\n  - expect_column_values_to_not_be_null: { column: a }\n", 1, "name"},
		{"not YAML", "name: [", 1, "did not find expected node content"},
	} {
		t.Run(test.name, func(t *testing.T) {
			lints, err := Lint(writeFile(t, "suite.yaml", test.suite))
			require.NoError(t, err)
			require.NotEmpty(t, lints)
			require.Contains(t, lints[0].Message, test.want)
			require.Equal(t, test.line, lints[0].Line)
		})
	}
	_, err := Lint(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorContains(t, err, "suite file")
}
