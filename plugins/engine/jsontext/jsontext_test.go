package jsontext

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAppendString(t *testing.T) {
	for text, want := range map[string]string{
		"":                 `""`,
		"plain":            `"plain"`,
		`say "hi" \ bye`:   `"say \"hi\" \\ bye"`,
		"a\nb\rc\td\x00e":  `"a\nb\rc\td\u0000e"`,
		"</script>&":       `"\u003c/script\u003e\u0026"`,
		"Zoë 😀":            `"Zoë 😀"`,
		"cut \xf0\x9f\x98": `"cut \ufffd\ufffd\ufffd"`,
		"\xed\xa0\x80":     `"\ufffd\ufffd\ufffd"`, // U+D800, a surrogate
		"\ufffd is kept":   `"` + "\ufffd" + ` is kept"`,
	} {
		require.Equal(t, "before "+want, string(AppendString([]byte("before "), text)))
		require.Equal(t, want, string(AppendString(nil, []byte(text))))
	}
}

// FuzzAppendString compares the result with the text, in which the conversion
// to runes has replaced each invalid byte by U+FFFD.
func FuzzAppendString(f *testing.F) {
	for _, text := range []string{"", "a\"\\\x00", "\xff\xed\xa0\x80é\xe2\x80", "<&>"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted := AppendString(nil, text)
		var decoded string
		require.NoError(t, json.Unmarshal(quoted, &decoded), "%q", quoted)
		require.Equal(t, string([]rune(text)), decoded)
		require.Equal(t, quoted, AppendString(nil, []byte(text)))
	})
}

func BenchmarkAppendString(b *testing.B) {
	text := []byte("Order Completed for anna@example.com in Zürich")
	var dst []byte
	for b.Loop() {
		dst = AppendString(dst[:0], text)
	}
}
