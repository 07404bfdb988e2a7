// Package jsontext quotes text as JSON strings.
package jsontext

import "unicode/utf8"

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
