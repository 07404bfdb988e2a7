package trackingplan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Lint is one thing wrong with a plan, where it stands and what to write
// instead.
type Lint struct {
	File    string
	Line    int
	Message string
	// Advice marks what a plan can be used in spite of, such as a schema
	// keyword that looks misspelt.
	Advice bool
}

// String is file, line and message, as compilers write them.
func (l Lint) String() string {
	return fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Message)
}

// LintFile reads the plan at path and the schema files it refers to, and
// returns everything wrong with them in the order of their lines. A plan
// without lints loads.
func LintFile(path string) []Lint {
	_, _, lints := load(path)
	return lints
}

// LintError is why a plan cannot be used.
type LintError struct{ Lints []Lint }

// Error lists the lints, one a line.
func (e *LintError) Error() string {
	lines := make([]string, len(e.Lints))
	for i, l := range e.Lints {
		lines[i] = l.String()
	}
	return strings.Join(lines, "\n")
}

func sortLints(lints []Lint) []Lint {
	slices.SortStableFunc(lints, func(a, b Lint) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(lints)
}

// lintError returns the lints that keep a plan from being used, nil if none do.
func lintError(lints []Lint) error {
	var hard []Lint
	for _, l := range lints {
		if !l.Advice {
			hard = append(hard, l)
		}
	}
	if len(hard) == 0 {
		return nil
	}
	return &LintError{hard}
}

// Nearest returns the candidate most like name, "" if none is like enough to
// have been meant.
func Nearest(name string, candidates []string) string {
	const longest = 100
	if len(name) > longest {
		return ""
	}
	best, bestDistance := "", len(name)/3+1
	if len(name) < 3 {
		bestDistance = 1
	}
	lower := []rune(strings.ToLower(name))
	for _, c := range candidates {
		if len(c) > longest || c == name {
			continue
		}
		d := distance(lower, []rune(strings.ToLower(c)))
		if d < bestDistance || d == bestDistance && best == "" {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a.
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// didYouMean is the end of a message about an unknown name.
func didYouMean(name string, candidates []string) string {
	if n := Nearest(name, candidates); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}
