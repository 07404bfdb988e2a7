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

func TestReplaceLoneSurrogates(t *testing.T) {
	for text, want := range map[string]string{
		`""`:                   `""`,
		`"hi \ud83d"`:          `"hi \ufffd"`,
		`"\uD83D\uDE00"`:       `"\uD83D\uDE00"`,
		`"\uDE00\uD83D"`:       `"\ufffd\ufffd"`,
		`"\ud83d\ud83d\ude00"`: `"\ufffd\ud83d\ude00"`,
		`"\ud83d\u0041"`:       `"\ufffd\u0041"`,
		`"\\ud83d"`:            `"\\ud83d"`, // an escaped backslash before ud83d
		`"\\\ud83d"`:           `"\\\ufffd"`,
		`{"\udc00":"\u00e9"}`:  `{"\ufffd":"\u00e9"}`,
		`"\ud8`:                `"\ud8`, // incomplete text is left to the parser
		`"\`:                   `"\`,
	} {
		require.Equal(t, want, string(ReplaceLoneSurrogates([]byte(text))))
	}
}

// FuzzReplaceLoneSurrogates compares with encoding/json, which decodes a lone
// surrogate as U+FFFD.
func FuzzReplaceLoneSurrogates(f *testing.F) {
	f.Add([]byte(`{"a\ud83d":"\\\ude00 \ud83d\ude00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		given := string(data)
		repaired := ReplaceLoneSurrogates(data)
		require.Equal(t, given, string(data), "the input is unchanged")
		var want, got any
		if json.Unmarshal(data, &want) != nil {
			return
		}
		require.NoError(t, json.Unmarshal(repaired, &got))
		require.Equal(t, want, got)
		require.Equal(t, repaired, ReplaceLoneSurrogates(repaired))
	})
}

func BenchmarkAppendString(b *testing.B) {
	text := []byte("Order Completed for anna@example.com in Zürich")
	var dst []byte
	for b.Loop() {
		dst = AppendString(dst[:0], text)
	}
}
