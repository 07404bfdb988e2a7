package trackingapi

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// scan scans text as exactly one value.
func scan(text string) (depth int, err error) {
	s := scanner{text: []byte(text)}
	if depth, err = s.value(); err != nil {
		return 0, err
	}
	s.space()
	if s.pos < len(s.text) {
		return 0, s.fail("trailing")
	}
	return depth, nil
}

var jsonSeeds = []string{
	`null`, `true`, `false`, `0`, `-0`, `1`, `-12.5e+10`, `1E-3`, `""`, `"a"`, `"\"\\\/\b\f\n\r\t\u00e9"`,
	`[]`, `{}`, ` [ 1 , [ ] , { } ] `, `{"a":1,"b":[{"c":null}]}`, "\t{\r\n}",
	``, ` `, `nul`, `nulls`, `+1`, `01`, `1.`, `.5`, `-`, `1e`, `1e+`, `--1`, `0x1`, `NaN`, `Infinity`,
	`"`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, "\"\n\"", "\"\x00\"", `'a'`,
	`[`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `]`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`,
	`{,}`, `{a:1}`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a":1]`, `[1}`, `{} {}`, `[1]]`, `/**/1`, "\ufeff1",
}

func TestScannerAcceptsExactlyJSON(t *testing.T) {
	for _, text := range jsonSeeds {
		_, err := scan(text)
		require.Equal(t, json.Valid([]byte(text)), err == nil, "%q: %v", text, err)
	}
}

func TestScannerDistinguishesTruncatedFromInvalid(t *testing.T) {
	const whole = ` {"a" : [1.5e3, "x\u00e9\n", true, null, {"b":false}] , "c":-0.1e-2}`
	for n := range len(whole) {
		_, err := scan(whole[:n])
		require.EqualError(t, err, reasonTruncated, "%q", whole[:n])
		require.Equal(t, n, err.(*syntaxError).offset)
	}
	_, err := scan(`{"a": 1, "b": oops}`)
	require.Equal(t, 14, err.(*syntaxError).offset)
}

func TestScannerMeasuresDepth(t *testing.T) {
	for text, want := range map[string]int{
		`1`: 0, `"["`: 0, `[]`: 1, `{}`: 1, `{"a":[]}`: 2, `[[],[[]],[]]`: 3, `{"a":{"b":{"c":[1]}},"d":1}`: 4,
		strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000): 100_000,
		strings.Repeat(`{"a":[`, 500) + strings.Repeat("]}", 500):   1000,
	} {
		depth, err := scan(text)
		require.NoError(t, err)
		require.Equal(t, want, depth)
	}
	// A wrong closing bracket is an error at any depth.
	_, err := scan(strings.Repeat("[", 64) + `{"a":1]` + strings.Repeat("]", 64))
	require.Error(t, err)
}

func FuzzScanner(f *testing.F) {
	for _, text := range jsonSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return // a precondition of the scanner
		}
		if strings.Count(string(text), "[")+strings.Count(string(text), "{") > 5000 {
			return // encoding/json stops at 10,000 levels
		}
		_, err := scan(string(text))
		if json.Valid(text) != (err == nil) {
			t.Fatalf("scanner returns %v for %q", err, text)
		}
	})
}
