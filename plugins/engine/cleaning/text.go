package cleaning

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// TextOptions enables the optional steps of Text.
type TextOptions struct {
	// Quotes replaces typographic quotation marks by " and '.
	Quotes bool
	// Lines keeps line breaks, for example in the text of a review.
	Lines bool
}

// Text returns s in composed Unicode form (NFC), without invisible characters,
// with each run of white space replaced by one space, and trimmed. Invalid UTF-8
// becomes U+FFFD.
func Text(s string, o TextOptions) string {
	if plainText(s) {
		return s
	}
	s = norm.NFC.String(strings.ToValidUTF8(s, "\uFFFD"))
	var b strings.Builder
	b.Grow(len(s))
	gap, lines := false, 0
	var last rune // written last
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
			// Joiners are part of words in Persian and Indic languages, and of
			// emoji; beside ASCII characters they have no meaning.
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
	// Removing characters may have made others adjacent that now compose, and a
	// joiner may be last.
	return norm.NFC.String(strings.TrimRight(b.String(), "\u200C\u200D"))
}

// plainText reports whether s needs no change, which is the common case.
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

// invisible reports whether r has no visible form: control characters, zero-width
// spaces, soft hyphens and direction marks. They are copied from web pages along
// with the text, and make values differ that look equal.
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

// missing are the folded placeholders for an absent value.
var missing = map[string]bool{
	"": true, "-": true, "--": true, "---": true, "–": true, "—": true, ".": true, "?": true,
	"n/a": true, "na": true, "n.a.": true, "n.a": true, "#n/a": true, "#na": true, "#value!": true, "#ref!": true,
	"null": true, "nil": true, "none": true, "undefined": true, "nan": true, "<null>": true, "(null)": true, "[object object]": true,
	"unknown": true, "not set": true, "(not set)": true, "not provided": true, "(not provided)": true, "not available": true,
	"unbekannt": true, "keine angabe": true, "k.a.": true, "inconnu": true, "desconocido": true, "sin datos": true,
	"\\n": true, "xxx": true, "tbd": true,
}

// IsMissing reports whether s is a placeholder that forms and exports write for an
// absent value: empty text, white space, "-", "N/A", "null", "undefined" and
// similar words, in any case, and the words in also.
func IsMissing(s string, also ...string) bool {
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
