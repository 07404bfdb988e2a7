// Package privacy runs every component of the distribution with marked personal data
// and secrets, and searches for the marks in logs, metrics and error bodies.
package privacy

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// sign is part of every secret and personal value in this test, and of nothing else.
const sign = "zqx7vk"

// mark returns a recognisable value that contains its kind, such as an id or a token.
func mark(kind string) string { return sign + kind + sign }

// traces are the encodings in which the sign may appear.
var traces = func() []string {
	all := []string{sign, hex.EncodeToString([]byte(sign))}
	// Base64 has three encodings of a text, by its offset modulo 3. The characters at
	// its ends also depend on the neighbouring bytes and are left out.
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + sign))
		inner := encoded[(8*before+5)/6 : 8*(before+len(sign))/6]
		all = append(all, inner)
	}
	return all
}()

// leaks returns the lines of a text that contain the sign in any encoding.
func leaks(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		lower := strings.ToLower(line)
		for i, trace := range traces {
			// Only base64 is case-sensitive.
			if i < 2 && strings.Contains(lower, trace) || strings.Contains(line, trace) {
				found = append(found, strings.TrimSpace(line))
				break
			}
		}
	}
	return found
}
