package expectations_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
)

var (
	start  = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	minute = expectations.Windows{Every: time.Minute}
)

func number(n float64) *float64 { return &n }

func noConditions(string) (expectations.Predicate, error) { panic("there is no condition") }

func suite(t require.TestingT, specs ...expectations.Spec) *expectations.Suite {
	s, err := expectations.New("test", specs, noConditions)
	require.NoError(t, err)
	return s
}

// evaluate returns the results of a suite over rows of one window.
func evaluate(t require.TestingT, s *expectations.Suite, rows ...string) expectations.Report {
	m := expectations.NewMonitor(s, minute, start)
	var raw [][]byte
	for _, r := range rows {
		raw = append(raw, []byte(r))
	}
	require.Empty(t, m.Add(raw, start.Add(time.Second)))
	reports := m.Tick(start.Add(time.Minute))
	require.Len(t, reports, 1)
	return reports[0]
}

func TestExpectations(t *testing.T) {
	order := func(total any) string {
		text, err := json.Marshal(map[string]any{"type": "track", "event": "Order Completed", "properties": map[string]any{"total": total}})
		require.NoError(t, err)
		return string(text)
	}
	totals := func(values ...any) (rows []string) {
		for _, v := range values {
			rows = append(rows, order(v))
		}
		return rows
	}
	const column = "properties.total"
	partition := expectations.Partition{Values: []any{"a", "b"}, Weights: []float64{0.5, 0.5}}
	many := func(n int, v any) (rows []string) {
		for range n {
			rows = append(rows, order(v))
		}
		return rows
	}
	for _, test := range []struct {
		name     string
		spec     expectations.Spec
		rows     []string
		success  bool
		observed any
		percent  *float64
	}{
		{"as many rows as may be", expectations.Spec{Kind: expectations.RowCount, Min: number(1), Max: number(2)}, totals(1, 2), true, 2.0, nil},
		{"a row too many", expectations.Spec{Kind: expectations.RowCount, Max: number(2)}, totals(1, 2, 3), false, 3.0, nil},
		{"no rows at all", expectations.Spec{Kind: expectations.RowCount, Min: number(1)}, nil, false, 0.0, nil},
		{"rows of another event do not count", expectations.Spec{Kind: expectations.RowCount, Max: number(0), Events: []string{"page"}}, totals(1), true, 0.0, nil},
		{"null is null", expectations.Spec{Kind: expectations.NotNull, Column: column}, totals(1, nil), false, nil, number(50)},
		{"an absent value is null", expectations.Spec{Kind: expectations.NotNull, Column: "properties.tax"}, totals(1), false, nil, number(100)},
		{"mostly there", expectations.Spec{Kind: expectations.NotNull, Column: column, Mostly: 0.5}, totals(1, nil), true, nil, number(50)},
		{"an empty text is there", expectations.Spec{Kind: expectations.NotNull, Column: column}, totals(""), true, nil, number(0)},
		{"in the set", expectations.Spec{Kind: expectations.InSet, Column: column, Set: []any{"a", 2, true}}, totals("a", 2, 2.0, true, nil), true, nil, number(0)},
		{"2 is not \"2\"", expectations.Spec{Kind: expectations.InSet, Column: column, Set: []any{"2"}}, totals(2), false, nil, number(100)},
		{"of the pattern", expectations.Spec{Kind: expectations.MatchRegex, Column: column, Regex: "^o-[0-9]+$"}, totals("o-1", "o-22", nil), true, nil, number(0)},
		{"beside the pattern", expectations.Spec{Kind: expectations.MatchRegex, Column: column, Regex: "^o-[0-9]+$"}, totals("o-1", "p-2"), false, nil, number(50)},
		{"within, ends included", expectations.Spec{Kind: expectations.Between, Column: column, Min: number(1), Max: number(3)}, totals(1, 3), true, nil, number(0)},
		{"not within a strict end", expectations.Spec{Kind: expectations.Between, Column: column, Min: number(1), StrictMin: true}, totals(1, 3), false, nil, number(50)},
		{"a text is not between numbers", expectations.Spec{Kind: expectations.Between, Column: column, Min: number(1)}, totals("2"), false, nil, number(100)},
		{"all different", expectations.Spec{Kind: expectations.Unique, Column: column}, totals(1, 2, "1", nil, nil), true, nil, number(0)},
		{"two alike, both unexpected", expectations.Spec{Kind: expectations.Unique, Column: column}, totals(1, 1, 2, 3), false, nil, number(50)},
		{"the minimum", expectations.Spec{Kind: expectations.Min, Column: column, Min: number(0)}, totals(4, -1), false, -1.0, nil},
		{"the maximum", expectations.Spec{Kind: expectations.Max, Column: column, Max: number(4)}, totals(4, -1, nil), true, 4.0, nil},
		{"the sum", expectations.Spec{Kind: expectations.Sum, Column: column, Min: number(3)}, totals(4, -1), true, 3.0, nil},
		{"the sum of nothing", expectations.Spec{Kind: expectations.Sum, Column: column, Min: number(3)}, nil, false, 0.0, nil},
		{"the mean", expectations.Spec{Kind: expectations.Mean, Column: column, Max: number(2)}, totals(1, 2, 6), false, 3.0, nil},
		{"the mean of nothing", expectations.Spec{Kind: expectations.Mean, Column: column, Max: number(2)}, totals(nil), true, nil, nil},
		{"the deviation", expectations.Spec{Kind: expectations.Stdev, Column: column, Max: number(2)}, totals(1, 3), true, math.Sqrt2, nil},
		{"the deviation of one", expectations.Spec{Kind: expectations.Stdev, Column: column, Max: number(2)}, totals(1), true, nil, nil},
		{"the median between two", expectations.Spec{Kind: expectations.Median, Column: column, Max: number(2)}, totals(1, 2, 4, 100), false, 3.0, nil},
		{"quantiles", expectations.Spec{Kind: expectations.Quantiles, Column: column, Quantiles: []float64{0, 0.75}, Ranges: [][2]*float64{{nil, number(1)}, {number(3), nil}}},
			totals(1, 2, 3, 4, 5), true, map[string]any{"quantiles": []float64{0, 0.75}, "values": []float64{1, 4}}, nil},
		{"a quantile out of its range", expectations.Spec{Kind: expectations.Quantiles, Column: column, Quantiles: []float64{0.75}, Ranges: [][2]*float64{{nil, number(3)}}},
			totals(1, 2, 3, 4, 5), false, map[string]any{"quantiles": []float64{0.75}, "values": []float64{4}}, nil},
		{"the share of different values", expectations.Spec{Kind: expectations.ProportionUnique, Column: column, Max: number(0.5)}, totals(1, 1, 1, 2), true, 0.5, nil},
		{"the share of values there", expectations.Spec{Kind: expectations.ProportionNotNull, Column: column, Min: number(0.6)}, totals(1, nil), false, 0.5, nil},
		{"an aggregate of texts", expectations.Spec{Kind: expectations.Max, Column: column, Max: number(4)}, totals(4, -1, "99"), false, 4.0, nil},
		{"a sum of texts", expectations.Spec{Kind: expectations.Sum, Column: column, Max: number(4)}, totals("1"), false, 0.0, nil},
		{"a median of texts", expectations.Spec{Kind: expectations.Median, Column: column, Max: number(400)}, totals("1"), false, nil, nil},
		{"quantiles of texts", expectations.Spec{Kind: expectations.Quantiles, Column: column, Quantiles: []float64{0.5}, Ranges: [][2]*float64{{nil, number(1)}}}, totals("1"), false, nil, nil},
		{"bins of texts", expectations.Spec{Kind: expectations.KLDivergence, Column: column, MinRows: 1, Threshold: 1,
			Partition: expectations.Partition{Bins: []float64{0, 10}, Weights: []float64{1}}}, totals(1, "1"), false, 0.0, nil},
		{"of a type", expectations.Spec{Kind: expectations.OfType, Column: column, Types: []string{"number"}}, totals(1, 1.5, "1", nil), false, nil, number(100.0 / 3)},
		{"of a type list", expectations.Spec{Kind: expectations.InTypeList, Column: column, Types: []string{"integer", "boolean", "array"}}, totals(1, 1.5, true, []any{}, map[string]any{}, nil), false, nil, number(40)},
		{"the nearest quantile", expectations.Spec{Kind: expectations.Quantiles, Column: column, Quantiles: []float64{0.5, 0.3, 0.1}, Ranges: [][2]*float64{{}, {}, {}}},
			totals(1, 2, 3, 4), true, map[string]any{"quantiles": []float64{0.5, 0.3, 0.1}, "values": []float64{3, 2, 1}}, nil},
		{"the same distribution", expectations.Spec{Kind: expectations.KLDivergence, Column: column, Partition: partition, Threshold: 0.02, TailWeight: 0.01}, append(many(60, "a"), many(60, "b")...), true, 0.0, nil},
		{"drifted to one side", expectations.Spec{Kind: expectations.KLDivergence, Column: column, Partition: partition, Threshold: 0.1}, many(120, "a"), false, math.Log(2), nil},
		{"an unexpected value", expectations.Spec{Kind: expectations.KLDivergence, Column: column, Partition: partition, Threshold: 0.1, TailWeight: 0.01}, many(120, "c"), false, math.Log(100), nil},
		{"two unexpected values", expectations.Spec{Kind: expectations.KLDivergence, Column: column, Partition: partition, Threshold: 4, TailWeight: 0.02},
			slices.Concat(many(50, "a"), many(25, "c"), many(25, 7)), true, 0.5*math.Log(0.5/0.49) + 2*0.25*math.Log(0.25/0.01), nil},
		{"an unexpected value without a reserve", expectations.Spec{Kind: expectations.KLDivergence, Column: column, Partition: partition, Threshold: 0.1}, many(120, "c"), false, nil, nil},
		{"too few values", expectations.Spec{Kind: expectations.KLDivergence, Column: column, Partition: partition, Threshold: 0.1}, many(99, "c"), true, nil, nil},
		{"the threshold is included", expectations.Spec{Kind: expectations.KLDivergence, Column: column, Partition: partition, Threshold: math.Log(2)}, many(128, "a"), true, math.Log(2), nil},
		{"numbers in bins", expectations.Spec{Kind: expectations.KLDivergence, Column: column, MinRows: 1, Threshold: 1, TailWeight: 0.02,
			Partition: expectations.Partition{Bins: []float64{0, 10, 20}, Weights: []float64{1, 0}}}, totals(0, 9.99), true, -math.Log(0.98), nil},
		{"the last bin includes its end", expectations.Spec{Kind: expectations.KLDivergence, Column: column, MinRows: 1, Threshold: 1,
			Partition: expectations.Partition{Bins: []float64{0, 10, 20}, Weights: []float64{0, 1}}}, totals(10, 20), true, 0.0, nil},
		{"numbers outside the bins", expectations.Spec{Kind: expectations.KLDivergence, Column: column, MinRows: 1, Threshold: 5, TailWeight: 0.02,
			Partition: expectations.Partition{Bins: []float64{0, 10}, Weights: []float64{1}}}, totals(-1, 5), true, 0.5*math.Log(0.5/0.01) + 0.5*math.Log(0.5/0.98), nil},
		{"a bin of weight 0", expectations.Spec{Kind: expectations.KLDivergence, Column: column, MinRows: 1, Threshold: 5, InternalWeight: 0.1,
			Partition: expectations.Partition{Bins: []float64{0, 10, 20}, Weights: []float64{1, 0}}}, totals(5, 15), true, 0.5*math.Log(0.5/0.9) + 0.5*math.Log(0.5/0.1), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := evaluate(t, suite(t, test.spec), test.rows...)
			require.Len(t, r.Results, 1)
			got := r.Results[0]
			require.Equal(t, test.success, got.Success, "%+v", got)
			require.Equal(t, test.success, r.Success)
			if want, ok := test.observed.(float64); ok {
				require.InDelta(t, want, got.Observed, 1e-9)
			} else {
				require.Equal(t, test.observed, got.Observed)
			}
			if test.percent == nil {
				require.Nil(t, got.Percent)
			} else {
				require.NotNil(t, got.Percent)
				require.InDelta(t, *test.percent, *got.Percent, 1e-9)
			}
		})
	}
}

func TestColumnSet(t *testing.T) {
	spec := expectations.Spec{Kind: expectations.ColumnSet, Column: "properties", Columns: []string{"a", "b"}}
	rows := []string{`{"properties":{"a":1}}`, `{"properties":{"b":1,"c":1}}`, `{"properties":7}`, `{}`}
	require.True(t, evaluate(t, suite(t, spec), rows...).Success, "together they have a and b")
	spec.Exact = true
	r := evaluate(t, suite(t, spec), rows...)
	require.False(t, r.Success)
	text, err := json.Marshal(r.Results[0].Observed)
	require.NoError(t, err)
	require.JSONEq(t, `{"absent":[],"unexpected":["c"]}`, string(text))
	require.False(t, evaluate(t, suite(t, spec), rows[0]).Success, "b is absent")
}

func TestFreshnessUsesTheLatestRowOfAllWindows(t *testing.T) {
	s := suite(t, expectations.Spec{Kind: expectations.Fresh, Column: "timestamp", MaxAge: 3 * time.Minute})
	m := expectations.NewMonitor(s, minute, start)
	m.Add([][]byte{[]byte(`{"timestamp":"2026-01-31T08:00:30.000Z"}`)}, start.Add(40*time.Second))
	for i, want := range []bool{true, true, true, false, false} {
		reports := m.Tick(start.Add(time.Duration(i+1) * time.Minute))
		require.Len(t, reports, 1)
		require.Equal(t, want, reports[0].Success, "minute %d: %+v", i+1, reports[0].Results)
	}
}

func TestConditionsSelectRows(t *testing.T) {
	s, err := expectations.New("test", []expectations.Spec{{Kind: expectations.Max, Column: "n", Max: number(1), Condition: "big"}},
		func(text string) (expectations.Predicate, error) {
			require.Equal(t, "big", text)
			return func(row any) (bool, error) { return row.(map[string]any)["big"] == true, nil }, nil
		})
	require.NoError(t, err)
	r := evaluate(t, s, `{"n":5}`, `{"n":1,"big":true}`)
	require.True(t, r.Success)
	require.EqualValues(t, 1, r.Results[0].Elements)
}

func TestSuiteErrors(t *testing.T) {
	for want, spec := range map[string]expectations.Spec{
		"is not known":          {Kind: "expect_magic"},
		"needs column":          {Kind: expectations.NotNull},
		"needs min_value":       {Kind: expectations.RowCount},
		"swap them":             {Kind: expectations.RowCount, Min: number(2), Max: number(1)},
		"mostly must be":        {Kind: expectations.NotNull, Column: "a", Mostly: 1.5},
		"needs value_set":       {Kind: expectations.InSet, Column: "a"},
		"RE2":                   {Kind: expectations.MatchRegex, Column: "a", Regex: "("},
		"as many value_ranges":  {Kind: expectations.Quantiles, Column: "a", Quantiles: []float64{0.5}},
		"between 0 and 1":       {Kind: expectations.Quantiles, Column: "a", Quantiles: []float64{5}, Ranges: [][2]*float64{{}}},
		"needs either values":   {Kind: expectations.KLDivergence, Column: "a", Threshold: 1},
		"must rise":             {Kind: expectations.KLDivergence, Column: "a", Threshold: 1, Partition: expectations.Partition{Bins: []float64{1, 1}, Weights: []float64{1}}},
		"must add up to 1":      {Kind: expectations.KLDivergence, Column: "a", Threshold: 1, Partition: expectations.Partition{Bins: []float64{1, 2}, Weights: []float64{0.4}}},
		"needs max_age":         {Kind: expectations.Fresh, Column: "a"},
		"needs column_set":      {Kind: expectations.ColumnSet},
		"without an array":      {Kind: expectations.ColumnSet, Columns: []string{"a"}, Column: "a[]"},
		"keys joined by dots":   {Kind: expectations.NotNull, Column: "a..b"},
		"remove column":         {Kind: expectations.RowCount, Column: "a", Min: number(1)},
		"empty name; remove it": {Kind: expectations.NotNull, Column: "a", Events: []string{""}},
	} {
		_, err := expectations.New("test", []expectations.Spec{spec}, noConditions)
		require.ErrorContains(t, err, want)
	}
	_, err := expectations.New("test", []expectations.Spec{{Kind: expectations.NotNull, Column: "a"}, {Kind: expectations.NotNull, Column: "a"}}, noConditions)
	require.ErrorContains(t, err, "name of its own")
	_, err = expectations.New("test", nil, noConditions)
	require.ErrorContains(t, err, "at least one")
}

// In processing time every row is in the report of its arrival window, for every
// sequence of batches and ticks, and every window has one report.
func TestArrivalWindows(t *testing.T) {
	s := suite(t, expectations.Spec{Kind: expectations.RowCount, Min: number(0)})
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.IntRange(1, 90).Draw(t, "every")) * time.Second
		now := start.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "offset")) * time.Second)
		begin := now.Truncate(every)
		joined := !begin.Equal(now) // within a window
		m := expectations.NewMonitor(s, expectations.Windows{Every: every}, now)
		want := map[time.Time]int64{}
		got := map[time.Time]int64{}
		collect := func(reports []expectations.Report) {
			for _, r := range reports {
				_, twice := got[r.From]
				require.False(t, twice, "two reports of one window")
				got[r.From] = r.Rows
				require.Equal(t, every, r.To.Sub(r.From))
				require.Equal(t, r.From.Equal(begin) && joined || now.Before(r.To), r.Partial)
			}
		}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "pass")) * time.Second)
			n := rapid.IntRange(0, 3).Draw(t, "rows")
			if n == 0 {
				collect(m.Tick(now))
				continue
			}
			want[now.Truncate(every).UTC()] += int64(n)
			collect(m.Add(slices.Repeat([][]byte{[]byte(`{}`)}, n), now))
		}
		collect(m.Flush(now))
		for from, n := range want {
			require.Equal(t, n, got[from], "window %s", from)
		}
		var sum int64
		for _, n := range got {
			sum += n
		}
		var all int64
		for _, n := range want {
			all += n
		}
		require.Equal(t, all, sum)
	})
}

// In event time the order of arrival does not matter within the lateness; later
// rows are counted as late.
func TestEventTimeWindows(t *testing.T) {
	s := suite(t,
		expectations.Spec{Kind: expectations.RowCount, Min: number(0)},
		expectations.Spec{Kind: expectations.Mean, Column: "n", Min: number(0)})
	clock, err := event.ParsePath("at")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		w := expectations.Windows{Every: time.Minute, Clock: clock, Lateness: 2 * time.Minute}
		m := expectations.NewMonitor(s, w, start.Add(24*time.Hour))
		type sum struct{ n, total int }
		want := map[time.Time]sum{}
		newest := time.Time{}
		late := int64(0)
		closed := func(at time.Time) bool {
			return !newest.IsZero() && !at.Truncate(w.Every).Add(w.Every).After(newest.Add(-w.Lateness).Truncate(w.Every))
		}
		var reports []expectations.Report
		for i := range rapid.IntRange(1, 60).Draw(t, "rows") {
			at := start.Add(time.Duration(5*i+rapid.IntRange(-300, 60).Draw(t, "jitter")) * time.Second)
			value := rapid.IntRange(0, 9).Draw(t, "value")
			// Batches of one row, so that a row closes windows before the next.
			if closed(at) {
				late++
			} else {
				s := want[at.Truncate(w.Every)]
				want[at.Truncate(w.Every)] = sum{s.n + 1, s.total + value}
			}
			if at.After(newest) {
				newest = at
			}
			row := fmt.Sprintf(`{"at":%q,"n":%d}`, at.Format(time.RFC3339), value)
			reports = append(reports, m.Add([][]byte{[]byte(row)}, start.Add(24*time.Hour))...)
		}
		reports = append(reports, m.Flush(start.Add(24*time.Hour))...)
		var gotLate int64
		for _, r := range reports {
			gotLate += r.Late
			s := want[r.From]
			delete(want, r.From)
			require.EqualValues(t, s.n, r.Rows)
			require.InDelta(t, float64(s.total)/float64(s.n), r.Results[1].Observed, 1e-9)
		}
		require.Empty(t, want, "windows without a report")
		require.LessOrEqual(t, gotLate, late)
	})
}

func TestRowsWithoutATimeAreCountedAndCloseNoWindow(t *testing.T) {
	clock, err := event.ParsePath("at")
	require.NoError(t, err)
	s := suite(t, expectations.Spec{Kind: expectations.RowCount, Min: number(0)})
	m := expectations.NewMonitor(s, expectations.Windows{Every: time.Minute, Clock: clock}, start)
	require.Empty(t, m.Add([][]byte{
		[]byte(`{"at":"2026-01-31T08:00:01Z"}`), []byte(`{}`), []byte(`{"at":7}`), []byte(`{"at":"soon"}`),
		[]byte(`{"at":"2036-01-31T08:00:01Z"}`), []byte(`[]`), []byte(`{`),
	}, start))
	reports := m.Flush(start)
	require.Len(t, reports, 1)
	require.EqualValues(t, 1, reports[0].Rows)
	require.EqualValues(t, 4, reports[0].Undated)
	require.EqualValues(t, 2, reports[0].NotJSON)
}

func TestSilenceClosesEventTimeWindows(t *testing.T) {
	clock, err := event.ParsePath("at")
	require.NoError(t, err)
	s := suite(t, expectations.Spec{Kind: expectations.RowCount, Min: number(0)})
	m := expectations.NewMonitor(s, expectations.Windows{Every: time.Minute, Clock: clock, Lateness: time.Minute}, start)
	require.Empty(t, m.Add([][]byte{[]byte(`{"at":"2026-01-31T08:00:01Z"}`)}, start))
	require.Empty(t, m.Tick(start.Add(119*time.Second)))
	require.Len(t, m.Tick(start.Add(120*time.Second)), 1)
	require.Empty(t, m.Tick(start.Add(10*time.Minute)))
}

// A partial window does not fail for too few rows, but fails for too many.
func TestPartialWindowDoesNotFailForTooFewRows(t *testing.T) {
	s := suite(t, expectations.Spec{Kind: expectations.RowCount, Min: number(3), Max: number(4)})
	for rows, want := range map[int]bool{1: true, 3: true, 5: false} {
		m := expectations.NewMonitor(s, minute, start.Add(30*time.Second))
		m.Add(slices.Repeat([][]byte{[]byte(`{}`)}, rows), start.Add(40*time.Second))
		reports := m.Tick(start.Add(time.Minute))
		require.Len(t, reports, 1)
		require.True(t, reports[0].Partial)
		require.Equal(t, want, reports[0].Success, "%d rows", rows)
	}
}

// Quantiles of many values have the documented accuracy.
func TestQuantilesOfManyValues(t *testing.T) {
	s := suite(t, expectations.Spec{Kind: expectations.Median, Column: "n", Min: number(0)})
	m := expectations.NewMonitor(s, minute, start)
	rows := make([][]byte, 0, 50_001)
	for i := range 50_001 {
		rows = append(rows, fmt.Appendf(nil, `{"n":%d}`, (i*7919)%50_001))
	}
	m.Add(rows, start)
	r := m.Tick(start.Add(time.Minute))[0].Results[0]
	require.InEpsilon(t, 25_000, r.Observed, 0.011)
	require.Contains(t, r.Note, "within 1%")
}

// The number of distinct values is bounded, and the report notes the limit.
func TestManyDistinctValues(t *testing.T) {
	s := suite(t, expectations.Spec{Kind: expectations.Unique, Column: "n"})
	m := expectations.NewMonitor(s, minute, start)
	const n = 300_000
	rows := make([][]byte, 0, n)
	for i := range n {
		rows = append(rows, fmt.Appendf(nil, `{"n":%d}`, i))
	}
	m.Add(rows, start)
	r := m.Tick(start.Add(time.Minute))[0].Results[0]
	require.True(t, r.Success)
	require.Contains(t, r.Note, "37856 values were not evaluated")
}

// The data meets the suite that is proposed from it.
func TestSuggestedSuiteIsMetByItsData(t *testing.T) {
	g := expectations.NewSuggester()
	var rows []string
	for i := range 2000 {
		rows = append(rows, fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":"m%d","timestamp":"2026-01-31T08:00:00Z","properties":{"total":%g,"currency":%q,"note":%s,"products":[{"price":%d}]}}`,
			i, float64(i%97)*1.25, []string{"EUR", "EUR", "USD"}[i%3], []string{`"x"`, "null"}[i%40/39], i%7))
	}
	for _, r := range rows {
		require.True(t, g.Add([]byte(r)))
	}
	require.False(t, g.Add([]byte(`[]`)))
	text, err := g.Suite("shop")
	require.NoError(t, err)
	for _, want := range []string{"name: shop", "Order Completed", "properties.total", "expect_column_kl_divergence_to_be_less_than", `value_set: [EUR, USD]`, "properties.products[].price", "expect_column_values_to_be_unique"} {
		require.Contains(t, string(text), want)
	}
	require.NotContains(t, strings.ReplaceAll(string(text), "messageId", ""), "m1", "no values that name somebody")
	_, err = expectations.NewSuggester().Suite("empty")
	require.ErrorContains(t, err, "0 rows")
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(`{"type":"track","event":"Order Completed","properties":{"total":1,"products":[{"price":2}]},"timestamp":"2026-01-31T08:00:00Z"}`))
	f.Add([]byte(`{"a":[[[]]],"":{"":1}}`))
	f.Add([]byte(`[]`))
	s := suite(f,
		expectations.Spec{Kind: expectations.NotNull, Column: "properties.total"},
		expectations.Spec{Kind: expectations.Unique, Column: "properties.products[].price"},
		expectations.Spec{Kind: expectations.ColumnSet, Column: "properties", Columns: []string{"a"}},
		expectations.Spec{Kind: expectations.Fresh, Column: "timestamp", MaxAge: time.Minute},
		expectations.Spec{Kind: expectations.Median, Column: "a", Min: number(0)})
	f.Fuzz(func(t *testing.T, row []byte) {
		m := expectations.NewMonitor(s, minute, start)
		m.Add([][]byte{row}, start)
		for _, r := range m.Tick(start.Add(time.Minute)) {
			require.True(t, json.Valid(r.JSON()))
		}
		g := expectations.NewSuggester()
		if g.Add(row) {
			_, _ = g.Suite("fuzz")
		}
	})
}
