package expectations

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// check accumulates the values of one window for one expectation. It is not safe
// for concurrent use.
type check interface {
	// add adds a value of the column, Missing for a row without one.
	add(v event.Value)
	// evaluate sets the observed value and the success of the result; end is the
	// end of the window.
	evaluate(r *Result, end time.Time)
}

// rowCheck is a check of entire rows.
type rowCheck interface {
	check
	row(names func(path event.Path, fn func(name []byte)))
}

// Result is the result of one expectation in one window. It contains aggregates,
// never a value of a single row.
type Result struct {
	Name        string `json:"name"`
	Expectation Kind   `json:"expectation_type"`
	Column      string `json:"column,omitempty"`
	Success     bool   `json:"success"`
	// Observed is the value that the bounds apply to. It is null without values,
	// and then the expectation is met.
	Observed any `json:"observed_value"`
	// Elements is the number of values, including missing ones.
	Elements int64 `json:"element_count"`
	Missing  int64 `json:"missing_count"`
	// Unexpected is the number of unexpected values, for expectations about every
	// value.
	Unexpected *int64 `json:"unexpected_count,omitempty"`
	// Percent is Unexpected as a percentage of the values that are not missing.
	Percent *float64 `json:"unexpected_percent,omitempty"`
	// Note describes a limitation of the result, or the reason for a failure that
	// the observed value does not show.
	Note string `json:"note,omitempty"`

	wrongType bool // there are values that are not numbers
}

// isIncomplete reports whether further rows could still meet the expectation.
func (r *Result) isIncomplete(spec *Spec) bool {
	if r.wrongType {
		return false
	}
	switch spec.Kind {
	case RowCount, Sum:
		n, ok := r.Observed.(float64)
		return ok && spec.Min != nil && n <= *spec.Min
	case ColumnSet:
		found, ok := r.Observed.(columns)
		return ok && len(found.Unexpected) == 0
	}
	return false
}

// columns is the observed value of an expectation about the set of columns.
type columns struct {
	Absent     []string `json:"absent"`
	Unexpected []string `json:"unexpected"`
}

// counts are the counts of every check of a column.
type counts struct {
	spec     *Spec
	elements int64
	missing  int64
	texts    int64 // values that are not numbers, in a check of numbers
}

// count counts a value and reports whether it is not missing.
func (c *counts) count(v event.Value) bool {
	c.elements++
	if v.Kind == event.Missing {
		c.missing++
		return false
	}
	return true
}

func (c *counts) result(r *Result) {
	r.Elements, r.Missing = c.elements, c.missing
}

// observe compares an observed number with the bounds.
func (c *counts) observe(r *Result, n float64) {
	r.Observed = n
	r.Success = c.spec.within(n)
}

// every is a check of each value independently.
type every struct {
	counts
	expected   func(v event.Value) bool
	nulls      bool // missing values are unexpected
	unexpected int64
}

func (e *every) add(v event.Value) {
	present := e.count(v)
	if present && !e.expected(v) || !present && e.nulls {
		e.unexpected++
	}
}

func (e *every) evaluate(r *Result, _ time.Time) {
	e.result(r)
	total := e.elements
	if !e.nulls {
		total -= e.missing
	}
	r.setMostly(e.unexpected, total, e.spec.Mostly)
}

// setMostly sets the success by the share of expected values.
func (r *Result) setMostly(unexpected, total int64, mostly float64) {
	r.Unexpected = &unexpected
	r.Success = true
	if total > 0 {
		percent := 100 * float64(unexpected) / float64(total)
		r.Percent = &percent
		r.Success = float64(total-unexpected) >= mostly*float64(total)
	}
}

func newNotNull(s *Spec) (check, error) {
	return &every{counts: counts{spec: s}, nulls: true, expected: func(event.Value) bool { return true }}, nil
}

func newInSet(s *Spec) (check, error) {
	if len(s.Set) == 0 {
		return nil, errors.New("it needs value_set, a list of the values that may occur")
	}
	set := make(map[string]bool, len(s.Set))
	for _, v := range s.Set {
		t, err := textOf(v)
		if err != nil {
			return nil, err
		}
		set[t] = true
	}
	return &every{counts: counts{spec: s}, expected: func(v event.Value) bool { return set[text(v)] }}, nil
}

func newMatchRegex(s *Spec) (check, error) {
	re, err := compileRegex(s.Regex)
	if err != nil {
		return nil, err
	}
	return &every{counts: counts{spec: s}, expected: func(v event.Value) bool { return matches(re, v) }}, nil
}

func matches(re *regexp.Regexp, v event.Value) bool {
	switch v.Kind {
	case event.String:
		return re.Match(v.Text)
	case event.Number:
		return re.MatchString(formatNumber(v.Number))
	}
	return false
}

func newBetween(s *Spec) (check, error) {
	return &every{counts: counts{spec: s}, expected: func(v event.Value) bool {
		return v.Kind == event.Number && s.within(v.Number)
	}}, nil
}

// valueTypes has the JSON types of an expectation about types.
var valueTypes = map[string]func(v event.Value) bool{
	"string":  func(v event.Value) bool { return v.Kind == event.String },
	"number":  func(v event.Value) bool { return v.Kind == event.Number },
	"integer": func(v event.Value) bool { return v.Kind == event.Number && v.Number == math.Trunc(v.Number) },
	"boolean": func(v event.Value) bool { return v.Kind == event.True || v.Kind == event.False },
	"object":  func(v event.Value) bool { return v.Kind == event.JSON && v.Text[0] == '{' },
	"array":   func(v event.Value) bool { return v.Kind == event.JSON && v.Text[0] == '[' },
}

func newOfType(s *Spec) (check, error) {
	types := s.Types
	if len(types) == 0 {
		return nil, fmt.Errorf("it needs a type, one of %v", slices.Sorted(maps.Keys(valueTypes)))
	}
	for _, t := range types {
		if valueTypes[t] == nil {
			return nil, fmt.Errorf("type %q is not known; use one of %v", t, slices.Sorted(maps.Keys(valueTypes)))
		}
	}
	return &every{counts: counts{spec: s}, expected: func(v event.Value) bool {
		return slices.ContainsFunc(types, func(t string) bool { return valueTypes[t](v) })
	}}, nil
}

// maxDistinct is the maximum number of distinct values per column and window.
// Their hashes take 8 bytes each, plus the overhead of the map.
const maxDistinct = 1 << 18

// distinct counts the repetitions of values, for up to maxDistinct values.
type distinct struct {
	counts
	seenOnce map[uint64]bool // false after the second occurrence
	repeated int64           // occurrences of values that occur more than once
	full     bool
	unknown  int64 // occurrences of values beyond maxDistinct
}

func (d *distinct) add(v event.Value) {
	if !d.count(v) {
		return
	}
	h := xxhash.Sum64String(text(v))
	once, known := d.seenOnce[h]
	switch {
	case known && once:
		d.repeated += 2
		d.seenOnce[h] = false
	case known:
		d.repeated++
	case len(d.seenOnce) >= maxDistinct:
		d.full = true
		d.unknown++
	default:
		d.seenOnce[h] = true
	}
}

func (d *distinct) note(r *Result) {
	if d.full {
		r.Note = fmt.Sprintf("only the first %d distinct values are stored; %d values were not evaluated", maxDistinct, d.unknown)
	}
}

type unique struct{ distinct }

func newUnique(s *Spec) (check, error) {
	return &unique{distinct{counts: counts{spec: s}, seenOnce: map[uint64]bool{}}}, nil
}

func (u *unique) evaluate(r *Result, _ time.Time) {
	u.result(r)
	u.note(r)
	r.setMostly(u.repeated, u.elements-u.missing-u.unknown, u.spec.Mostly)
}

type proportionUnique struct{ distinct }

func newProportionUnique(s *Spec) (check, error) {
	return &proportionUnique{distinct{counts: counts{spec: s}, seenOnce: map[uint64]bool{}}}, nil
}

func (p *proportionUnique) evaluate(r *Result, _ time.Time) {
	p.result(r)
	p.note(r)
	total := p.elements - p.missing - p.unknown
	if r.Success = true; total > 0 {
		p.observe(r, float64(len(p.seenOnce))/float64(total))
	}
}

type proportionNotNull struct{ counts }

func newProportionNotNull(s *Spec) (check, error) { return &proportionNotNull{counts{spec: s}}, nil }

func (p *proportionNotNull) add(v event.Value) { p.count(v) }

func (p *proportionNotNull) evaluate(r *Result, _ time.Time) {
	p.result(r)
	if r.Success = true; p.elements > 0 {
		p.observe(r, float64(p.elements-p.missing)/float64(p.elements))
	}
}

// number counts a value and returns it as a number, false if it is missing or not
// a number.
func (c *counts) number(v event.Value) (float64, bool) {
	if !c.count(v) {
		return 0, false
	}
	if v.Kind != event.Number {
		c.texts++
		return 0, false
	}
	return v.Number, true
}

// checkType fails the result of a check of numbers if there were other values, as
// Great Expectations does: "12.50" instead of 12.50 must not go unnoticed.
func (c *counts) checkType(r *Result) {
	if c.texts == 0 {
		return
	}
	r.Success, r.wrongType = false, true
	note := fmt.Sprintf("%d of %d values are not numbers", c.texts, c.elements-c.missing)
	if r.Note != "" {
		note += "; " + r.Note
	}
	r.Note = note
}

// moments are the moments and extremes of a column, by Welford's method.
type moments struct {
	counts
	n        float64
	sum      float64
	mean, m2 float64
	min, max float64
}

func newMoments(s *Spec) (check, error) {
	return &moments{counts: counts{spec: s}, min: math.Inf(1), max: math.Inf(-1)}, nil
}

func (m *moments) add(v event.Value) {
	x, ok := m.number(v)
	if !ok {
		return
	}
	m.n++
	m.sum += x
	delta := x - m.mean
	m.mean += delta / m.n
	m.m2 += delta * (x - m.mean)
	m.min, m.max = min(m.min, x), max(m.max, x)
}

func (m *moments) evaluate(r *Result, _ time.Time) {
	defer m.checkType(r)
	m.result(r)
	r.Success = true
	least := 1.0
	if m.spec.Kind == Stdev {
		least = 2
	}
	if m.n < least {
		if m.spec.Kind == Sum {
			m.observe(r, 0)
		}
		return
	}
	switch m.spec.Kind {
	case Min:
		m.observe(r, m.min)
	case Max:
		m.observe(r, m.max)
	case Sum:
		m.observe(r, m.sum)
	case Mean:
		m.observe(r, m.mean)
	case Stdev:
		// The sample deviation, as in Great Expectations.
		m.observe(r, math.Sqrt(m.m2/(m.n-1)))
	}
}

type median struct {
	counts
	values sample
}

func newMedian(s *Spec) (check, error) { return &median{counts: counts{spec: s}}, nil }

func (m *median) add(v event.Value) {
	if x, ok := m.number(v); ok {
		m.values.add(x)
	}
}

func (m *median) evaluate(r *Result, _ time.Time) {
	defer m.checkType(r)
	m.result(r)
	r.Note = m.values.note()
	if x, ok := m.values.quantile(0.5); ok {
		m.observe(r, x)
	} else {
		r.Success = true
	}
}

type quantiles struct {
	counts
	values sample
}

func newQuantiles(s *Spec) (check, error) {
	if len(s.Quantiles) == 0 || len(s.Quantiles) != len(s.Ranges) {
		return nil, errors.New("quantile_ranges needs as many value_ranges as quantiles, such as quantiles: [0.5, 0.95] and value_ranges: [[10, 40], [null, 200]]")
	}
	for i, q := range s.Quantiles {
		if q < 0 || q > 1 {
			return nil, errors.New("a quantile must be between 0 and 1, such as 0.95")
		}
		if from, to := s.Ranges[i][0], s.Ranges[i][1]; from != nil && to != nil && *from > *to {
			return nil, errors.New("a range of value_ranges begins above its end; swap the two")
		}
	}
	return &quantiles{counts: counts{spec: s}}, nil
}

func (q *quantiles) add(v event.Value) {
	if x, ok := q.number(v); ok {
		q.values.add(x)
	}
}

func (q *quantiles) evaluate(r *Result, _ time.Time) {
	defer q.checkType(r)
	q.result(r)
	r.Note = q.values.note()
	r.Success = true
	var observed []float64
	for i, quantile := range q.spec.Quantiles {
		x, ok := q.values.nearest(quantile)
		if !ok {
			return
		}
		observed = append(observed, x)
		bounds := Spec{Min: q.spec.Ranges[i][0], Max: q.spec.Ranges[i][1]}
		r.Success = r.Success && bounds.within(x)
	}
	r.Observed = map[string]any{"quantiles": q.spec.Quantiles, "values": observed}
}

type rowCount struct {
	counts
	rows int64
}

func newRowCount(s *Spec) (check, error) {
	if s.Column != "" {
		return nil, errors.New("it is about rows; remove column")
	}
	return &rowCount{counts: counts{spec: s}}, nil
}

func (c *rowCount) add(event.Value) {}

func (c *rowCount) row(func(event.Path, func([]byte))) { c.rows++ }

func (c *rowCount) evaluate(r *Result, _ time.Time) {
	r.Elements = c.rows
	c.observe(r, float64(c.rows))
}

const (
	// maxColumns is the maximum number of column names per window.
	maxColumns = 4096
	// maxNamed is the maximum number of unexpected columns in a report.
	maxNamed = 20
)

type columnSet struct {
	counts
	path  event.Path
	rows  int64
	names map[string]struct{}
}

func newColumnSet(s *Spec) (check, error) {
	if len(s.Columns) == 0 {
		return nil, errors.New("it needs column_set, a list of names")
	}
	path, err := columnPath(s)
	return &columnSet{counts: counts{spec: s}, path: path, names: map[string]struct{}{}}, err
}

func (c *columnSet) add(event.Value) {}

func (c *columnSet) row(names func(event.Path, func([]byte))) {
	c.rows++
	names(c.path, func(name []byte) {
		if _, known := c.names[string(name)]; !known && len(c.names) < maxColumns {
			c.names[string(name)] = struct{}{}
		}
	})
}

func (c *columnSet) evaluate(r *Result, _ time.Time) {
	r.Elements = c.rows
	r.Success = true
	if c.rows == 0 {
		return
	}
	// Column names belong to the schema: a report may contain them.
	found := columns{Absent: []string{}, Unexpected: []string{}}
	for _, name := range c.spec.Columns {
		if _, ok := c.names[name]; !ok {
			found.Absent = append(found.Absent, name)
		}
	}
	if c.spec.Exact {
		for name := range c.names {
			if !slices.Contains(c.spec.Columns, name) {
				found.Unexpected = append(found.Unexpected, name)
			}
		}
		slices.Sort(found.Unexpected)
		found.Unexpected = found.Unexpected[:min(len(found.Unexpected), maxNamed)]
	}
	r.Observed = found
	r.Success = len(found.Absent) == 0 && len(found.Unexpected) == 0
}

// fresh checks that the latest time of a column is near the end of the window.
type fresh struct {
	counts
	latest int64 // Unix milliseconds, 0 for none
}

func newFresh(s *Spec) (check, error) {
	if s.MaxAge <= 0 {
		return nil, errors.New("it needs max_age, such as 10m")
	}
	return &fresh{counts: counts{spec: s}}, nil
}

func (f *fresh) add(v event.Value) {
	var ms int64
	if v.Kind == event.String {
		var err error
		if ms, err = event.ParseTime(v.Text); err != nil {
			v = event.Value{}
		}
	} else {
		v = event.Value{}
	}
	if f.count(v) {
		f.latest = max(f.latest, ms)
	}
}

func (f *fresh) evaluate(r *Result, end time.Time) {
	f.result(r)
	if f.latest == 0 {
		r.Note = "there was no row with a time"
		return
	}
	age := end.Sub(time.UnixMilli(f.latest)).Seconds()
	r.Observed = age
	r.Success = age <= f.spec.MaxAge.Seconds()
}
