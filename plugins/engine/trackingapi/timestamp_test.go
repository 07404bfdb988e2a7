package trackingapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/cleaning"
)

func TestParseTimestamp(t *testing.T) {
	for text, want := range map[string]string{
		"2026-01-31T12:34:56.789Z":         "2026-01-31T12:34:56.789Z",
		"2026-01-31T12:34:56Z":             "2026-01-31T12:34:56.000Z",
		"2026-01-31t12:34:56z":             "2026-01-31T12:34:56.000Z",
		"2026-01-31T12:34Z":                "2026-01-31T12:34:00.000Z",
		"2026-01-31 12:34:56.789":          "2026-01-31T12:34:56.789Z",
		"2026-01-31":                       "2026-01-31T00:00:00.000Z",
		"2026-01-31T12:34:56,789Z":         "2026-01-31T12:34:56.789Z",
		"2026-01-31T12:34:56.123456789Z":   "2026-01-31T12:34:56.123Z",
		"2026-01-31T12:34:56.12345678901Z": "2026-01-31T12:34:56.123Z",
		"2026-01-31T12:34:56.9Z":           "2026-01-31T12:34:56.900Z",
		"2026-01-31T12:34:56.789+05:30":    "2026-01-31T07:04:56.789Z",
		"2026-01-31T12:34:56.789-0800":     "2026-01-31T20:34:56.789Z",
		"2026-01-31T12:34:56.789+01":       "2026-01-31T11:34:56.789Z",
		"2024-02-29T00:00:00Z":             "2024-02-29T00:00:00.000Z",
		"2016-12-31T23:59:60Z":             "2017-01-01T00:00:00.000Z",
		"1969-12-31T23:59:59.999Z":         "1969-12-31T23:59:59.999Z",
		"0001-01-01T00:00:00Z":             "0001-01-01T00:00:00.000Z",
		"9999-12-31T23:59:59.999Z":         "9999-12-31T23:59:59.999Z",
		"2026-01-31T23:30:00-01:00":        "2026-02-01T00:30:00.000Z",
		"2026-01-01T00:30:00.000000+01:00": "2025-12-31T23:30:00.000Z",
		"":                                 "",
		"yesterday":                        "",
		"1769862896":                       "",
		"2026-1-31T12:34:56Z":              "",
		"2026-13-01T00:00:00Z":             "",
		"2026-00-01T00:00:00Z":             "",
		"2026-02-29T00:00:00Z":             "",
		"2026-04-31T00:00:00Z":             "",
		"2026-02-30T23:59:60Z":             "",
		"2026-01-31T24:00:00Z":             "",
		"2026-01-31T12:60:00Z":             "",
		"2026-01-31T12:34:61Z":             "",
		"2026-01-31T12:34:56.Z":            "",
		"2026-01-31T12:34:56Z ":            "",
		"2026-01-31T12:34:56+1":            "",
		"2026-01-31T12:34:56+24:00":        "",
		"2026-01-31T12:34:56+01:60":        "",
		"2026-01-31T12:34:56+01:":          "",
		"2026-01-31T12":                    "",
		"2026-01-31T":                      "",
		"2026-01-31T12:34:56 UTC":          "",
		"0000-01-01T00:00:00Z":             "",
		"0001-01-01T00:00:00+01:00":        "",
		"9999-12-31T23:59:59-01:00":        "",
		"Sat, 31 Jan 2026 12:34:56 GMT":    "",
		"٢٠٢٦-01-31T12:34:56Z":             "",
	} {
		parsed, ok := parseTimestamp([]byte(text))
		require.Equal(t, want != "", ok, text)
		if ok {
			require.Equal(t, want, string(appendTimestamp(nil, parsed)), text)
		}
	}
}

// Unix time has the units of the cleaning methods.
func TestUnixTimeAgreesWithCleaning(t *testing.T) {
	for _, text := range []string{
		"1769862896", "1769862896.5", "1769862896.123456", "999999999", "-1769862896.25", "1769862896123", "176986289612",
		"1769862896123456", "1769862896123456789",
	} {
		got, ok := parseUnix([]byte(text))
		require.True(t, ok, text)
		cleaned, err := cleaning.Timestamp(text, cleaning.TimeOptions{})
		require.NoError(t, err)
		want, err := time.Parse(time.RFC3339Nano, cleaned)
		require.NoError(t, err)
		require.Equal(t, want.Truncate(time.Millisecond).UnixMilli(), got, text)
	}
	for _, text := range []string{"", "-", ".", "0", "12345678", "20260131", "17698628961", "1769862896e3", "1,5", "99999999999999999999"} {
		_, ok := parseUnix([]byte(text))
		require.False(t, ok, text)
	}
}

// A written timestamp parses back, and equals the one of the time package.
func TestTimestampRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unix := rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, "unix")
		text := appendTimestamp(nil, unix)
		require.Equal(t, time.UnixMilli(unix).UTC().Format("2006-01-02T15:04:05.000Z"), string(text))
		back, ok := parseTimestamp(text)
		require.True(t, ok)
		require.Equal(t, unix, back)
	})
}

// For RFC 3339 the result equals that of the time package.
func TestTimestampAgreesWithRFC3339(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		instant := time.UnixMilli(rapid.Int64Range(-62100000000000, 253402200000000).Draw(t, "instant"))
		zone := time.FixedZone("", rapid.IntRange(-23*60, 23*60).Draw(t, "offset")*60)
		text := instant.In(zone).Format(time.RFC3339Nano)
		got, ok := parseTimestamp([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, instant.UnixMilli(), got, text)
	})
}

func TestEventTimeCorrectsTheClientsClock(t *testing.T) {
	const received = "2026-01-31T12:00:00.000Z"
	for _, c := range []struct{ name, original, sent, want string }{
		{"no times", "", "", received},
		{"only sentAt", "", "2026-01-31T11:59:59.000Z", received},
		{"right clock", "2026-01-31T11:59:50.000Z", "2026-01-31T12:00:00.000Z", "2026-01-31T11:59:50.000Z"},
		{"network delay moves the event", "2026-01-31T11:59:50.000Z", "2026-01-31T11:59:59.900Z", "2026-01-31T11:59:50.100Z"},
		{"clock three hours ahead", "2026-01-31T14:59:50.000Z", "2026-01-31T15:00:00.000Z", "2026-01-31T11:59:50.000Z"},
		{"clock a day behind", "2026-01-30T11:00:00.000Z", "2026-01-30T12:00:00.000Z", "2026-01-31T11:00:00.000Z"},
		{"clock that was reset", "1970-01-01T00:00:10.000Z", "1970-01-01T00:01:10.000Z", "2026-01-31T11:59:00.000Z"},
		{"kept while offline", "2026-01-28T12:00:00.000Z", "2026-01-31T12:00:00.000Z", "2026-01-28T12:00:00.000Z"},
		{"historical import", "2012-12-02T00:30:08.276Z", "2026-01-31T12:00:00.000Z", "2012-12-02T00:30:08.276Z"},
		{"historical import without sentAt", "2012-12-02T00:30:08.276Z", "", "2012-12-02T00:30:08.276Z"},
		{"sent at once", "2026-01-31T09:00:00.000Z", "2026-01-31T09:00:00.000Z", received},
		{"happened after it was sent", "2026-01-31T12:00:10.000Z", "2026-01-31T12:00:00.000Z", received},
		{"in the future without sentAt", "2027-01-31T12:00:00.000Z", "", received},
		{"absurdly far apart", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.000Z", received},
	} {
		parse := func(text string) (t optionalTime) {
			t.millis, t.known = parseTimestamp([]byte(text))
			return t
		}
		got := eventTime(parse(c.original), parse(c.sent), parse(received).millis)
		require.Equal(t, c.want, string(appendTimestamp(nil, got)), c.name)
	}
}

func TestNanosecondsOfTimes(t *testing.T) {
	for text, want := range map[string]int{
		"2026-01-31T12:34:56Z": 0, "2026-01-31T12:34:56": 0, "2026-01-31T12:34:56.123Z": 0, "2026-01-31T12:34:56.123456+01:00": 456_000,
		"2026-01-31T12:34:56,1234567-05": 456_700, "2026-01-31T12:34:56.123456789123Z": 456_789, "1769862896123": 0,
		"1769862896123456": 456_000, "1769862896123456789": 456_789, "1769862896.1234567": 456_700,
	} {
		require.Equal(t, want, parseNanos([]byte(text)), text)
		back, err := time.Parse(time.RFC3339Nano, string(appendNanos([]byte("2026-01-31T12:34:56.123Z"), want)))
		require.NoError(t, err)
		require.Equal(t, 123_000_000+want, back.Nanosecond(), text)
	}
}

// The order of identify events becomes part of their times: by the digits below a
// millisecond, which Segment's SDK for Python sends, else by position.
func TestIdentifyEventsOfOneMillisecondAreOrdered(t *testing.T) {
	for _, c := range []struct {
		name, sent string
		times      []string
		want       []string
	}{
		{"without times", "", []string{"", "", ""}, []string{"00.000Z", "00.000000001Z", "00.000000002Z"}},
		{"equal times", "", []string{"11:59:59.5Z", "11:59:59.5Z"}, []string{"59.500Z", "59.500000001Z"}},
		{"microseconds, not in order", "12:00:01.000000Z", []string{"12:00:00.000300Z", "12:00:00.000200Z"}, []string{"59.000300000Z", "59.000200000Z"}},
		{"in the future", "", []string{"12:00:00.100900Z", "12:00:00.200100Z"}, []string{"00.000Z", "00.000000001Z"}},
	} {
		var items []string
		for _, text := range c.times {
			if text != "" {
				text = `,"timestamp":"2026-01-31T` + text + `"`
			}
			items = append(items, `{"type":"identify","messageId":"m","userId":"u"`+text+`},{"type":"identify","messageId":"o","userId":"other`+fmt.Sprint(len(items))+`"`+text+`},{"type":"page","messageId":"p","userId":"u"`+text+`}`)
		}
		sent := ""
		if c.sent != "" {
			sent = `"sentAt":"2026-01-31T` + c.sent + `",`
		}
		events := collect(t, Batch, `{`+sent+`"batch":[`+strings.Join(items, ",")+`]}`)
		for i, want := range c.want {
			require.Empty(t, events[3*i].Reasons)
			require.Contains(t, string(events[3*i].Data), `:`+want+`"`, c.name)
			require.NotContains(t, string(events[3*i+1].Data), "0000001Z", "%s: customers do not affect each other", c.name)
			require.Regexp(t, `"timestamp":"[^"]{24}"`, string(events[3*i+2].Data), "%s: other events keep milliseconds", c.name)
		}
	}
}
