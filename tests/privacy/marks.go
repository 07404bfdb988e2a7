// Package privacy runs everything the distribution does, with input of every
// kind, and looks for what was put in where it must not come out: in logs,
// metrics and error bodies.
package privacy

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// sign is in whatever is secret or personal in this test, and in nothing else.
const sign = "zqx7vk"

// mark returns a word that gives itself away, and what it was: an id, a name, a
// token.
func mark(what string) string { return sign + what + sign }

// traces are the forms in which a word with the sign may come out.
var traces = func() []string {
	all := []string{sign, hex.EncodeToString([]byte(sign))}
	// In base64 a text looks one of three ways, by where it begins, but for the
	// characters at its ends that its neighbours have part in.
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + sign))
		inner := encoded[(8*before+5)/6 : 8*(before+len(sign))/6]
		all = append(all, inner)
	}
	return all
}()

// leaks returns the lines of a text that have the sign, in any form.
func leaks(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		lower := strings.ToLower(line)
		for i, trace := range traces {
			// Base64 is case-sensitive, and the rest is not.
			if i < 2 && strings.Contains(lower, trace) || strings.Contains(line, trace) {
				found = append(found, strings.TrimSpace(line))
				break
			}
		}
	}
	return found
}
