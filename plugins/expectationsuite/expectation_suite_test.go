package expectationsuite

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
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
		{"an unknown type", head + "  - expect_column_values_to_be_of_type: { column: a, type_: float }\n", 3, "write one of string, number"},
		{"an unknown type in a list", head + "  - expect_column_values_to_be_in_type_list: { column: a, type_list: [ float ] }\n", 3, "use one of [array boolean integer number object string]"},
		{"a reserve of everything", head + "  - expect_column_kl_divergence_to_be_less_than: { column: a, tail_weight_holdout: 1, partition_object: { values: [x], weights: [1] } }\n", 3, "below 1 together"},
		{"no name", "expectations:\n  - expect_column_values_to_not_be_null: { column: a }\n", 1, "name"},
		{"not YAML", "name: [", 1, "the end of a bracket is missing"},
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

// The rows of a column whose numbers became texts fail every expectation about
// numbers.
func TestNumbersThatBecameTextsFail(t *testing.T) {
	s, err := Read(writeFile(t, "suite.yaml", `
name: s
expectations:
  - { name: median, expect_column_median_to_be_between: { column: p, min_value: 15, max_value: 150 } }
  - { name: mean, expect_column_mean_to_be_between: { column: p, min_value: 15, max_value: 150 } }
  - { name: max, expect_column_max_to_be_between: { column: p, max_value: 400 } }
  - { name: quantiles, expect_column_quantile_values_to_be_between: { column: p, quantile_ranges: { quantiles: [0.5], value_ranges: [[8, 50]] } } }
  - { name: between, expect_column_values_to_be_between: { column: p, max_value: 400 } }
  - { name: type, expect_column_values_to_be_of_type: { column: p, type_: number } }
  - { name: types, expect_column_values_to_be_in_type_list: { column: p, type_list: [number, boolean] } }
`))
	require.NoError(t, err)
	start := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	m := expectations.NewMonitor(s, expectations.Windows{Every: time.Hour}, start)
	m.Add([][]byte{[]byte(`{"p":"30.00"}`), []byte(`{"p":"40.00"}`)}, start.Add(time.Minute))
	reports := m.Flush(start.Add(time.Hour))
	require.Len(t, reports, 1)
	require.Len(t, reports[0].Failed(), len(s.Expectations))
	for _, r := range reports[0].Results[:4] {
		require.Equal(t, "2 of 2 values are not numbers", r.Note)
	}
}
