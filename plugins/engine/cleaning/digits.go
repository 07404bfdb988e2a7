package cleaning

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// asciiDigits replaces the digits of other scripts, and full-width characters, by
// ASCII: "٠٣٠" is "030", and "１２：３０" is "12:30".
func asciiDigits(s string) string {
	isASCII := true
	for i := range len(s) {
		isASCII = isASCII && s[i] < 0x80
	}
	if isASCII {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r < 0x80:
			return r
		case r == '٫':
			return '.'
		case r == '٬':
			return ','
		case unicode.Is(unicode.Nd, r):
			return '0' + digit(r)
		}
		return r
	}, width.Fold.String(s))
}

// digit returns the value of a decimal digit. The digits of a script are ten
// consecutive characters, and the ranges of unicode.Nd begin with a zero.
func digit(r rune) rune {
	for _, table := range unicode.Nd.R16 {
		if r >= rune(table.Lo) && r <= rune(table.Hi) {
			return (r - rune(table.Lo)) % 10
		}
	}
	for _, table := range unicode.Nd.R32 {
		if r >= rune(table.Lo) && r <= rune(table.Hi) {
			return (r - rune(table.Lo)) % 10
		}
	}
	return 0
}
