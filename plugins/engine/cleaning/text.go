package cleaning

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// TextOptions say what Text does beyond what always helps.
type TextOptions struct {
	// Quotes turns typographic quotation marks into " and '.
	Quotes bool
	// Lines keeps line breaks, as in the text of a review.
	Lines bool
}

// Text returns s in Unicode's composed form (NFC), without invisible characters,
// with each run of white space as one space, and without any at its ends. Bytes
// that are not UTF-8 become U+FFFD.
func Text(s string, o TextOptions) string {
	if plainText(s) {
		return s
	}
	s = norm.NFC.String(strings.ToValidUTF8(s, "\uFFFD"))
	var b strings.Builder
	b.Grow(len(s))
	gap, lines := false, 0
	var last rune // what was written last
	for i, r := range s {
		switch {
		case r == '\n' || r == '\u2028' || r == '\u2029' || r == '\v' || r == '\f' || r == '\r' && !strings.HasPrefix(s[i:], "\r\n"):
			lines++
			gap = true
			continue
		case unicode.IsSpace(r) || r == '\u2800' || r == '\u3164':
			gap = true
			continue
		case invisible(r):
			continue
		case r == '\u200C' || r == '\u200D':
			// The joiners are part of words in Persian and the languages of
			// India, and of emoji; between ASCII letters they are litter.
			next, _ := utf8.DecodeRuneInString(s[i+utf8.RuneLen(r):])
			if last < utf8.RuneSelf || gap || next < utf8.RuneSelf || next == r || last == r || unicode.IsSpace(next) || invisible(next) {
				continue
			}
		}
		if gap && b.Len() > 0 {
			if o.Lines && lines > 0 {
				b.WriteByte('\n')
				if lines > 1 {
					b.WriteByte('\n')
				}
			} else {
				b.WriteByte(' ')
			}
		}
		gap, lines = false, 0
		if o.Quotes {
			r = straight(r)
		}
		b.WriteRune(r)
		last = r
	}
	// Characters that were apart may compose now, and a joiner may be last.
	return norm.NFC.String(strings.TrimRight(b.String(), "\u200C\u200D"))
}

// plainText tells that there is nothing to do, as for most values there is not.
func plainText(s string) bool {
	before := byte(' ')
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c >= 0x7F || c == ' ' && before == ' ' {
			return false
		}
		before = c
	}
	return s == "" || before != ' '
}

// invisible tells of characters that no reader sees: controls, zero-width
// spaces, soft hyphens and marks of direction. They come along when text is
// copied from a page, and make two values differ that look the same.
func invisible(r rune) bool {
	switch {
	case r < ' ', r >= 0x7F && r < 0xA0:
		return true
	case r == '\u00AD', r == '\u034F', r == '\u061C', r == '\u115F', r == '\u1160', r == '\u17B4', r == '\u17B5', r == '\u180E':
		return true
	case r == '\u200B', r >= '\u200E' && r <= '\u200F', r >= '\u202A' && r <= '\u202E':
		return true
	case r >= '\u2060' && r <= '\u206F', r == '\uFEFF', r >= '\uFFF9' && r <= '\uFFFB', r == '\U000E0001':
		return true
	}
	return false
}

func straight(r rune) rune {
	switch r {
	case '“', '”', '„', '‟', '«', '»', '″':
		return '"'
	case '‘', '’', '‚', '‛', '‹', '›', '′', '´', '`':
		return '\''
	}
	return r
}

// missing are the words that stand for no value, folded.
var missing = map[string]bool{
	"": true, "-": true, "--": true, "---": true, "–": true, "—": true, ".": true, "?": true,
	"n/a": true, "na": true, "n.a.": true, "n.a": true, "#n/a": true, "#na": true, "#value!": true, "#ref!": true,
	"null": true, "nil": true, "none": true, "undefined": true, "nan": true, "<null>": true, "(null)": true, "[object object]": true,
	"unknown": true, "not set": true, "(not set)": true, "not provided": true, "(not provided)": true, "not available": true,
	"unbekannt": true, "keine angabe": true, "k.a.": true, "inconnu": true, "desconocido": true, "sin datos": true,
	"\\n": true, "xxx": true, "tbd": true,
}

// Missing tells whether s is one of the things that forms and exports write
// where there is no value: nothing, white space, "-", "N/A", "null", "undefined"
// and the like, in any case. The words in also count too.
func Missing(s string, also ...string) bool {
	if len(s) > maxLength {
		return false
	}
	folded := strings.ToLower(Text(s, TextOptions{}))
	if missing[folded] {
		return true
	}
	for _, word := range also {
		if strings.EqualFold(folded, word) {
			return true
		}
	}
	return false
}
