// Package definition is a profile definition in its compiled form. Package
// profiledefinition builds it from a file, and package customers runs it.
package definition

import (
	"context"
	"fmt"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// Definition is a compiled profile definition.
type Definition struct {
	*record.Definition
	// ParameterFiles are the files that models and segments take their
	// parameters from.
	ParameterFiles []ParameterFile
	// Messaging is nil if the definition has no triggers.
	Messaging *Messaging
}

// ParameterFile is a file of parameters that is reloaded when it changes.
type ParameterFile interface {
	Path() string
	// Check reloads the file if it has changed.
	Check() (reloaded bool, err error)
	// Follow calls Check at an interval until ctx ends. It calls report after
	// each reload with nil, or with the error that prevented it.
	Follow(ctx context.Context, interval time.Duration, report func(error))
}

// Executor runs a compiled query over the facts of a customer: a map with the
// members features, traits and segments. *bloblang.Executor implements it.
type Executor interface {
	Query(facts any) (any, error)
}

// Query is a compiled query and the facts that it reads.
type Query struct {
	Executor
	// Features are the positions of the features that it reads.
	Features []int
	// ReadsSegments reports whether it reads segments.
	ReadsSegments bool
}

// Holds reports whether the query evaluates to true.
func (q *Query) Holds(facts map[string]any) (bool, error) {
	result, err := q.Query(facts)
	if err != nil {
		return false, err
	}
	holds, ok := result.(bool)
	if !ok {
		return false, fmt.Errorf("the query gave %T, not a boolean", result)
	}
	return holds, nil
}
