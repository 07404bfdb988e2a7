// Package finding defines the one type for a mistake in a file of a configuration.
// Everything that checks files (definitions, tracking plans, content blocks, models,
// suites, tokens) returns findings, and the lint command prints them.
package finding

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Finding is one mistake in a file. The message states what is wrong and what to
// write instead.
type Finding struct {
	File string `json:"file"`
	// Line and Column count from 1. Column is 0 if it is unknown.
	Line    int    `json:"line"`
	Column  int    `json:"-"`
	Message string `json:"message"`
	// Advice marks a finding that does not prevent the use of the file, such as a
	// JSON Schema keyword that is probably misspelt.
	Advice bool `json:"-"`
}

// String returns file:line: message, the form that compilers print.
func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Message) }

// Sort orders findings by file, line and message, and removes duplicates.
func Sort(findings []Finding) []Finding {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(findings)
}

// Error is the error for a file that findings make unusable.
type Error struct{ Findings []Finding }

// Error lists the findings, one a line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// ToError returns an *Error with the findings that are not advice, nil if there are
// none.
func ToError(findings []Finding) error {
	var mistakes []Finding
	for _, f := range findings {
		if !f.Advice {
			mistakes = append(mistakes, f)
		}
	}
	if len(mistakes) == 0 {
		return nil
	}
	return &Error{mistakes}
}

// Of returns the findings of a file that could not be loaded, and the error if it
// has none: if the file could not be read.
func Of(err error) ([]Finding, error) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Findings, nil
	}
	return nil, err
}
