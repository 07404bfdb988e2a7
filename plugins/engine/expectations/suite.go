// Package expectations evaluates data-quality suites over tumbling windows of a
// stream, in bounded memory. The expectations have the names and meaning of
// Great Expectations.
//
// A row is a JSON object. A column is a path in it, as in features: keys joined
// by dots, one of which may end in [] for the elements of an array.
package expectations

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Kind is the kind of an expectation, by its name in Great Expectations.
type Kind string

// The kinds of expectation.
const (
	RowCount          Kind = "expect_table_row_count_to_be_between"
	ColumnSet         Kind = "expect_table_columns_to_match_set"
	Fresh             Kind = "expect_table_to_be_fresh"
	NotNull           Kind = "expect_column_values_to_not_be_null"
	InSet             Kind = "expect_column_values_to_be_in_set"
	OfType            Kind = "expect_column_values_to_be_of_type"
	InTypeList        Kind = "expect_column_values_to_be_in_type_list"
	MatchRegex        Kind = "expect_column_values_to_match_regex"
	Between           Kind = "expect_column_values_to_be_between"
	Unique            Kind = "expect_column_values_to_be_unique"
	Min               Kind = "expect_column_min_to_be_between"
	Max               Kind = "expect_column_max_to_be_between"
	Sum               Kind = "expect_column_sum_to_be_between"
	Mean              Kind = "expect_column_mean_to_be_between"
	Stdev             Kind = "expect_column_stdev_to_be_between"
	Median            Kind = "expect_column_median_to_be_between"
	Quantiles         Kind = "expect_column_quantile_values_to_be_between"
	ProportionUnique  Kind = "expect_column_proportion_of_unique_values_to_be_between"
	ProportionNotNull Kind = "expect_column_proportion_of_non_null_values_to_be_between"
	KLDivergence      Kind = "expect_column_kl_divergence_to_be_less_than"
)

// requirements are the requirements of a kind.
type requirements struct {
	column bool // requires a column
	mostly bool // applies to every value, and accepts mostly
	bounds bool // requires a minimum or a maximum
	make   func(*Spec) (check, error)
}

var kinds map[Kind]requirements

func init() {
	// Set in init because the checks refer to kinds.
	kinds = map[Kind]requirements{
		RowCount:          {bounds: true, make: newRowCount},
		ColumnSet:         {make: newColumnSet},
		Fresh:             {column: true, make: newFresh},
		NotNull:           {column: true, mostly: true, make: newNotNull},
		InSet:             {column: true, mostly: true, make: newInSet},
		OfType:            {column: true, mostly: true, make: newOfType},
		InTypeList:        {column: true, mostly: true, make: newOfType},
		MatchRegex:        {column: true, mostly: true, make: newMatchRegex},
		Between:           {column: true, mostly: true, bounds: true, make: newBetween},
		Unique:            {column: true, mostly: true, make: newUnique},
		Min:               {column: true, bounds: true, make: newMoments},
		Max:               {column: true, bounds: true, make: newMoments},
		Sum:               {column: true, bounds: true, make: newMoments},
		Mean:              {column: true, bounds: true, make: newMoments},
		Stdev:             {column: true, bounds: true, make: newMoments},
		Median:            {column: true, bounds: true, make: newMedian},
		Quantiles:         {column: true, make: newQuantiles},
		ProportionUnique:  {column: true, bounds: true, make: newProportionUnique},
		ProportionNotNull: {column: true, bounds: true, make: newProportionNotNull},
		KLDivergence:      {column: true, make: newDivergence},
	}
}

// Kinds returns the kinds, sorted by name.
func Kinds() []Kind {
	names := make([]Kind, 0, len(kinds))
	for k := range kinds {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// Spec is the definition of one expectation, before it is checked.
type Spec struct {
	Kind Kind
	// Name is the name in reports and metrics; the default consists of kind,
	// column and events.
	Name string
	// Events are the names of the events it applies to; empty means all rows.
	Events []string
	// Condition is a query that selects the rows; empty means all.
	Condition string
	// Column is the path of the values.
	Column string
	// Mostly is the minimum share of expected values; 0 means all.
	Mostly float64
	// Min and Max bound the observed value; nil means no bound. Strict bounds
	// exclude the bound itself.
	Min, Max             *float64
	StrictMin, StrictMax bool
	// Set are the allowed values: numbers, strings or booleans.
	Set []any
	// Types are the allowed JSON types: string, number, integer, boolean, object
	// or array.
	Types []string
	// Regex is a pattern in RE2 syntax that matches a part of each value.
	Regex string
	// Quantiles and the bounds of each.
	Quantiles []float64
	Ranges    [][2]*float64
	// Columns are the required members of rows; Exact excludes other members.
	Columns []string
	Exact   bool
	// MaxAge is the maximum age of the latest row at the end of a window.
	MaxAge time.Duration
	// Partition is the expected distribution, Threshold the maximum divergence
	// from it, and MinRows the minimum number of values for an evaluation.
	Partition Partition
	Threshold float64
	MinRows   int
	// TailWeight is the share of the expected distribution that is reserved for
	// other values and for numbers outside the bins, InternalWeight that for bins
	// with the weight 0.
	TailWeight, InternalWeight float64
}

// Predicate reports whether a row counts; row has the generic types of
// encoding/json.
type Predicate func(row any) (bool, error)

// SpecError is an error in one expectation of a suite.
type SpecError struct {
	// Expectation is its position in the suite.
	Expectation int
	Name        string
	Err         error
}

func (e *SpecError) Error() string { return fmt.Sprintf("expectation %q: %v", e.Name, e.Err) }

func (e *SpecError) Unwrap() error { return e.Err }

// Suite is a checked list of expectations. It is immutable and safe for
// concurrent use.
type Suite struct {
	Name         string
	Expectations []Spec

	groups []group
}

// group are the expectations about the same rows.
type group struct {
	events    map[string]bool
	condition Predicate
	columns   []column
	table     []int // positions of expectations about rows
}

// column are the expectations about the same values of a group's rows.
type column struct {
	path   event.Path
	checks []int
}

// New checks specs and compiles them into a suite. The error joins a *SpecError
// for every mistake.
func New(name string, specs []Spec, compile func(text string) (Predicate, error)) (*Suite, error) {
	s := &Suite{Name: name}
	var errs []error
	names := map[string]bool{}
	groups := map[string]int{} // by events and condition
	for i, spec := range specs {
		if err := spec.complete(); err != nil {
			errs = append(errs, &SpecError{i, spec.Name, err})
			continue
		}
		if names[spec.Name] {
			errs = append(errs, &SpecError{i, spec.Name, errors.New("another expectation has this name; give each a name of its own")})
			continue
		}
		names[spec.Name] = true
		// Constructing the check validates its arguments.
		if _, err := kinds[spec.Kind].make(&spec); err != nil {
			errs = append(errs, &SpecError{i, spec.Name, err})
			continue
		}
		path, err := columnPath(&spec)
		if err != nil {
			errs = append(errs, &SpecError{i, spec.Name, err})
			continue
		}
		rows := fmt.Sprintf("%q %q", spec.Events, spec.Condition)
		g, ok := groups[rows]
		if !ok {
			g = len(s.groups)
			groups[rows] = g
			made := group{}
			if len(spec.Events) > 0 {
				made.events = map[string]bool{}
				for _, e := range spec.Events {
					made.events[e] = true
				}
			}
			if spec.Condition != "" {
				if made.condition, err = compile(spec.Condition); err != nil {
					errs = append(errs, &SpecError{i, spec.Name, fmt.Errorf("row_condition: %w", err)})
					continue
				}
			}
			s.groups = append(s.groups, made)
		}
		s.groups[g].add(len(s.Expectations), path, &spec)
		s.Expectations = append(s.Expectations, spec)
	}
	if len(specs) == 0 {
		errs = append(errs, errors.New("a suite needs at least one expectation"))
	}
	return s, errors.Join(errs...)
}

func (g *group) add(i int, path event.Path, spec *Spec) {
	if !kinds[spec.Kind].column {
		g.table = append(g.table, i)
		return
	}
	for c := range g.columns {
		if g.columns[c].path.String() == path.String() {
			g.columns[c].checks = append(g.columns[c].checks, i)
			return
		}
	}
	g.columns = append(g.columns, column{path, []int{i}})
}

func columnPath(s *Spec) (event.Path, error) {
	if s.Column == "" {
		return event.Path{}, nil
	}
	path, err := event.ParsePath(s.Column)
	if err == nil && path.ThroughArray() && s.Kind == ColumnSet {
		err = errors.New("column must be the path of an object, without an array")
	}
	return path, err
}

// complete checks a spec and fills in its defaults.
func (s *Spec) complete() error {
	requires, known := kinds[s.Kind]
	if !known {
		return fmt.Errorf("kind %q is not known; use one of %v", s.Kind, Kinds())
	}
	if s.Name == "" {
		s.Name = string(s.Kind)
		if s.Column != "" {
			s.Name += " " + s.Column
		}
		for _, e := range s.Events {
			s.Name += " " + e
		}
	}
	if requires.column && s.Column == "" {
		return fmt.Errorf("%s needs column, the path of the values, such as properties.total", s.Kind)
	}
	if s.Mostly < 0 || s.Mostly > 1 {
		return errors.New("mostly must be a share above 0 and at most 1, such as 0.99")
	}
	if s.Mostly == 0 {
		s.Mostly = 1
	}
	if requires.bounds && s.Min == nil && s.Max == nil {
		return fmt.Errorf("%s needs min_value, max_value or both", s.Kind)
	}
	if s.Min != nil && s.Max != nil && *s.Min > *s.Max {
		return errors.New("min_value is above max_value; swap them")
	}
	if slices.Contains(s.Events, "") {
		return errors.New("events has an empty name; remove it")
	}
	return nil
}

// within reports whether a number is within the bounds.
func (s *Spec) within(n float64) bool {
	if s.Min != nil && (n < *s.Min || s.StrictMin && n == *s.Min) {
		return false
	}
	return s.Max == nil || n < *s.Max || !s.StrictMax && n == *s.Max
}

// text returns the canonical form of a value. Values are equal if their canonical
// forms are.
func text(v event.Value) string {
	switch v.Kind {
	case event.Number:
		return "n" + formatNumber(v.Number)
	case event.String:
		return "s" + string(v.Text)
	case event.True:
		return "t"
	case event.False:
		return "f"
	case event.JSON:
		return "j" + string(v.Text)
	}
	return ""
}

func formatNumber(n float64) string {
	out, err := json.Marshal(n)
	if err != nil {
		return "?"
	}
	return string(out)
}

// textOf returns the canonical form of a value in a suite file.
func textOf(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return "s" + v, nil
	case bool:
		if v {
			return "t", nil
		}
		return "f", nil
	case int:
		return "n" + formatNumber(float64(v)), nil
	case int64:
		return "n" + formatNumber(float64(v)), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			break
		}
		return "n" + formatNumber(v), nil
	case json.Number:
		f, err := v.Float64()
		if err == nil {
			return "n" + formatNumber(f), nil
		}
	}
	return "", fmt.Errorf("a value of a set must be a string, a number or a boolean, not %T", v)
}

func compileRegex(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, errors.New("it needs regex, a pattern such as ^[a-z0-9-]+$")
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("regex is not valid in RE2 syntax: %w", err)
	}
	return re, nil
}
