// Package cleaning cleans single values of customer data: addresses, phone
// numbers, times, amounts and codes in the forms that people and systems really
// send them, into the one form that everything downstream can rely on.
//
// Cleaning never guesses. A text that could mean two things is a Fault, and the
// caller can say which is meant. A Fault never holds the value itself, which may
// be personal data: faults go to logs and dead letters.
package cleaning

// maxLength is how much text any of the parsers looks at. No value of the kinds
// they know is longer, and work on a hostile one stays bounded.
const maxLength = 1024

// Fault says why a value cannot be cleaned.
type Fault struct {
	// Rule is a short name of the fault for counters and conditions.
	Rule string
	// Message says what is wrong, in words that continue the name of a value.
	Message string
}

// Error is the rule and the message.
func (f *Fault) Error() string { return f.Rule + ": " + f.Message }

var (
	errEmpty = &Fault{"empty", "is empty"}
	errLong  = &Fault{"too_long", "is longer than any value of its kind"}
)
