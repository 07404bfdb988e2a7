// Package jsontext writes text as JSON strings and repairs their escapes.
package jsontext

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

// AppendString appends text as a JSON string. Bytes that are not valid UTF-8,
// encoded surrogates included, become U+FFFD, one for each byte. Besides what
// JSON requires, it escapes <, > and &, so that the result is safe inside an
// HTML page.
func AppendString[T ~string | ~[]byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	start := 0 // of the bytes that are not yet appended
	for i := 0; i < len(text); {
		c := text[i]
		if c >= utf8.RuneSelf {
			r, size := decodeRune(text[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, text[start:i]...), `\ufffd`...)
				start = i + size
			}
			i += size
			continue
		}
		if c < 0x20 || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			dst = appendEscape(append(dst, text[start:i]...), c)
			start = i + 1
		}
		i++
	}
	return append(append(dst, text[start:]...), '"')
}

// decodeRune decodes the first rune of text without converting all of it.
func decodeRune[T ~string | ~[]byte](text T) (r rune, size int) {
	var first [utf8.UTFMax]byte
	n := copy(first[:], text)
	return utf8.DecodeRune(first[:n])
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}

// ReplaceLoneSurrogates returns JSON text in which every escape of a surrogate
// without its partner, such as \ud83d at the end of a string that was cut, is
// replaced by \ufffd. Decoders disagree about such an escape. The result is
// data itself if there is nothing to replace; otherwise it is a copy.
func ReplaceLoneSurrogates(data []byte) []byte {
	result := data
	for i := bytes.IndexByte(data, '\\'); i >= 0 && i+1 < len(data); {
		unit, isUnit := escapedUnit(data[i:])
		switch {
		case !isUnit:
			i += 2
		case !utf16.IsSurrogate(unit):
			i += unitLength
		default:
			if next, ok := escapedUnit(data[i+unitLength:]); ok && utf16.DecodeRune(unit, next) != utf8.RuneError {
				i += 2 * unitLength
				break
			}
			if &result[0] == &data[0] {
				result = bytes.Clone(data)
			}
			copy(result[i:], `\ufffd`)
			i += unitLength
		}
		next := bytes.IndexByte(data[min(i, len(data)):], '\\')
		if next < 0 {
			break
		}
		i += next
	}
	return result
}

const unitLength = len(`\ud83d`)

// escapedUnit decodes the UTF-16 unit of an escape at the start of text.
func escapedUnit(text []byte) (unit rune, ok bool) {
	if len(text) < unitLength || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:unitLength] {
		digit := bytes.IndexByte([]byte(hex), c|0x20)
		if c < '0' || digit < 0 {
			return 0, false
		}
		unit = unit<<4 | rune(digit)
	}
	return unit, true
}
