// Package rejection defines why an event was rejected (Error and its Reasons), and
// the envelope in which a rejected event is written to the dead letters.
package rejection

import "strings"

// Reason is one fault of an event.
type Reason struct {
	// Pointer is the JSON pointer (RFC 6901) to the invalid value, empty
	// for the whole event.
	Pointer string `json:"pointer"`
	// Rule names the check that failed, such as "required" or "type".
	Rule string `json:"rule"`
	// Message states the fault and the expected value, but not the value
	// itself: reasons are logged, and values may be personal data.
	Message string `json:"message"`
}

// Error is the error that a stage sets on a message it rejects.
type Error struct {
	// Stage is the YAML name of the component that rejected the event.
	Stage string
	// Plan and PlanVersion name the tracking plan, if one was applied.
	Plan, PlanVersion string
	Reasons           []Reason
}

// Error returns the stage and the reasons on one line.
func (r *Error) Error() string {
	var b strings.Builder
	b.WriteString(r.Stage)
	b.WriteString(": ")
	for i, reason := range r.Reasons {
		if i > 0 {
			b.WriteString("; ")
		}
		if reason.Pointer != "" {
			b.WriteString(reason.Pointer)
			b.WriteString(": ")
		}
		b.WriteString(reason.Message)
	}
	return b.String()
}
