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
