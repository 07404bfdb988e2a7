// Package cleaning normalises single values of customer data: email addresses,
// phone numbers, times, amounts and codes, from the notations that people and
// systems use into one canonical form.
//
// Cleaning never guesses. A text with two meanings is a Fault, unless an option
// selects the meaning. A Fault never contains the value, which may be personal
// data: faults are written to logs and dead letters.
package cleaning

// maxLength is the maximum input length in bytes of every parser. No valid value
// is longer, and the limit bounds the work on hostile input.
const maxLength = 1024

// Fault is the reason why a value cannot be cleaned.
type Fault struct {
	// Rule is the short name of the fault, for metrics and conditions.
	Rule string
	// Message describes the fault. It continues a sentence that begins with the
	// name of the value.
	Message string
}

// Error returns the rule and the message.
func (f *Fault) Error() string { return f.Rule + ": " + f.Message }

var (
	errEmpty = &Fault{"empty", "is empty"}
	errLong  = &Fault{"too_long", "is longer than any value of its kind"}
)
