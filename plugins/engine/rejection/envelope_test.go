package rejection_test

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

func TestEnvelopeEncode(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 5e6, time.UTC)
	for _, c := range []struct {
		name string
		in   rejection.Envelope
		want string
	}{{
		name: "text",
		in: rejection.Envelope{
			ID: "i", Stage: "validate_event", Plan: "shop", PlanVersion: "3", Source: "web",
			ReceivedAt: "2026-01-31T11:59:59.000Z", RejectedAt: at, Attempt: 1,
			Reasons:  []rejection.Reason{{Pointer: "/properties/total", Rule: "minimum", Message: "must be 0 or more"}},
			Original: []byte("{\"a\":\"<é>\"}\n"),
		},
		want: `{"id":"i","stage":"validate_event","reasons":[{"pointer":"/properties/total","rule":"minimum","message":"must be 0 or more"}],` +
			`"plan":"shop","plan_version":"3","source":"web","received_at":"2026-01-31T11:59:59.000Z","rejected_at":"2026-01-31T12:00:00.005Z",` +
			`"attempt":1,"original":"{\"a\":\"<é>\"}\n"}`,
	}, {
		name: "bytes that are not UTF-8",
		in: rejection.Envelope{
			ID: "i", Stage: "s", RejectedAt: at, Attempt: 2,
			Reasons:  []rejection.Reason{{Rule: "error", Message: "m"}},
			Original: []byte{'{', 0xff},
		},
		want: `{"id":"i","stage":"s","reasons":[{"pointer":"","rule":"error","message":"m"}],"rejected_at":"2026-01-31T12:00:00.005Z","attempt":2,"original_base64":"e/8="}`,
	}, {
		name: "an empty original",
		in: rejection.Envelope{
			ID: "i", Stage: "s", RejectedAt: at, Attempt: 1,
			Reasons: []rejection.Reason{{Rule: "error", Message: "m"}},
		},
		want: `{"id":"i","stage":"s","reasons":[{"pointer":"","rule":"error","message":"m"}],"rejected_at":"2026-01-31T12:00:00.005Z","attempt":1,"original":""}`,
	}} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.in.Encode()
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
		})
	}
}

func TestEnvelopePreservesTheOriginalBytes(t *testing.T) {
	text := rapid.StringMatching(`[ -~é語]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		in := rejection.Envelope{
			ID:          text.Draw(t, "id"),
			Stage:       text.Draw(t, "stage"),
			Plan:        rapid.String().Draw(t, "plan"),
			PlanVersion: rapid.String().Draw(t, "version"),
			Source:      rapid.String().Draw(t, "source"),
			ReceivedAt:  rapid.String().Draw(t, "received"),
			RejectedAt:  time.UnixMilli(rapid.Int64Range(0, 253402300799999).Draw(t, "at")).UTC(),
			Attempt:     rapid.IntRange(1, 1<<30).Draw(t, "attempt"),
			Reasons: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) rejection.Reason {
				return rejection.Reason{
					Pointer: rapid.String().Draw(t, "pointer"),
					Rule:    rapid.String().Draw(t, "rule"),
					Message: rapid.String().Draw(t, "message"),
				}
			}), 1, 3).Draw(t, "reasons"),
			Original: rapid.OneOf(
				rapid.SliceOf(rapid.Byte()),
				rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }),
			).Draw(t, "original"),
		}
		encoded, err := in.Encode()
		require.NoError(t, err)
		require.False(t, bytes.ContainsRune(encoded, '\n'), "an envelope is one line")

		out, err := rejection.Decode(encoded)
		require.NoError(t, err)
		require.True(t, bytes.Equal(in.Original, out.Original))
		in.Original, out.Original = nil, nil
		require.Equal(t, &in, out)
	})
}

func TestDecodeReportsErrors(t *testing.T) {
	const good = `{"id":"i","stage":"s","reasons":[{"pointer":"","rule":"r","message":"m"}],"rejected_at":"2026-01-31T12:00:00Z","attempt":1,"original":"x"}`
	_, err := rejection.Decode([]byte(good))
	require.NoError(t, err)

	for _, c := range []struct{ name, old, new, want string }{
		{"no id", `"id":"i",`, ``, `no "id"`},
		{"no stage", `"stage":"s",`, ``, `no "stage"`},
		{"no reasons", `[{"pointer":"","rule":"r","message":"m"}]`, `[]`, `no "reasons"`},
		{"attempt zero", `"attempt":1`, `"attempt":0`, `"attempt" is 0`},
		{"no time", `"2026-01-31T12:00:00Z"`, `"noon"`, `"rejected_at" must be`},
		{"a year of five digits", `"2026-01-31T12:00:00Z"`, `"9999-12-31T23:59:59-01:00"`, `"rejected_at" must be`},
		{"no original", `,"original":"x"`, ``, `neither "original" nor`},
		{"two originals", `"original":"x"`, `"original":"x","original_base64":"eA=="`, `both "original" and`},
		{"bad base64", `"original":"x"`, `"original_base64":"x"`, `not standard base64`},
		{"wrong type", `"attempt":1`, `"attempt":"1"`, `attempt`},
		{"truncated", `"attempt":1,"original":"x"}`, `"att`, `unexpected EOF`},
		{"two envelopes", `"original":"x"}`, `"original":"x"}{}`, `after the JSON object`},
		{"not UTF-8", `"original":"x"`, "\"original\":\"\xff\"", `not valid UTF-8`},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Contains(t, good, c.old)
			_, err := rejection.Decode([]byte(strings.Replace(good, c.old, c.new, 1)))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestIDDependsOnStageAndBytes(t *testing.T) {
	id := rejection.ID("validate_event", []byte("x"))
	require.Len(t, id, 32)
	require.Equal(t, id, rejection.ID("validate_event", []byte("x")))
	require.NotEqual(t, id, rejection.ID("validate_event", []byte("y")))
	require.NotEqual(t, id, rejection.ID("update_profile", []byte("x")))
	require.NotEqual(t, rejection.ID("a", []byte("bc")), rejection.ID("ab", []byte("c")))
}

// FuzzDecode checks that the decoder does not panic, and that an accepted envelope is
// equal after encoding and decoding.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"i","stage":"s","reasons":[{"pointer":"","rule":"r","message":"m"}],"rejected_at":"2026-01-31T12:00:00Z","attempt":1,"original":"x"}`))
	f.Add([]byte(`{"id":"i","stage":"s","reasons":[null],"rejected_at":"0000-01-01T00:00:00.123456789+01:00","attempt":1,"original_base64":"e/8="}`))
	f.Add([]byte(`{"original":"\ud800"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := rejection.Decode(data)
		if err != nil {
			return
		}
		encoded, err := first.Encode()
		require.NoError(t, err)
		second, err := rejection.Decode(encoded)
		require.NoError(t, err, "%s", encoded)
		require.Equal(t, first, second)
	})
}

// FuzzOriginal checks that an envelope preserves any bytes.
func FuzzOriginal(f *testing.F) {
	f.Add("validate_event", "not an object", []byte(`{"type":"track"`))
	f.Add("s", "\x00\u2028", []byte{0, 0xff, '"', '\\', '\n'})
	f.Fuzz(func(t *testing.T, stage, message string, original []byte) {
		if stage == "" || !utf8.ValidString(stage) || !utf8.ValidString(message) {
			return
		}
		in := rejection.Envelope{
			ID: rejection.ID(stage, original), Stage: stage,
			Reasons:    []rejection.Reason{{Rule: "r", Message: message}},
			RejectedAt: time.Unix(0, 0), Attempt: 1, Original: original,
		}
		encoded, err := in.Encode()
		require.NoError(t, err)
		out, err := rejection.Decode(encoded)
		require.NoError(t, err)
		require.Equal(t, stage, out.Stage)
		require.Equal(t, message, out.Reasons[0].Message)
		require.True(t, bytes.Equal(original, out.Original))
	})
}
