package event

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fastjson"
	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	var p Parser
	e, err := p.Parse([]byte(`{"type":"track","event":"Order Completed","messageId":"m1","userId":"u1","anonymousId":null,"timestamp":"2026-01-31T09:30:00.123+01:00","receivedAt":"2026-01-31T08:30:05.5Z","source":"web",
		"properties":{"total":19.9,"paid":true,"note":null,"currency":"EUR","nested":{"a":[1,2]},"products":[{"sku":"s1","price":1},{"price":2},{"sku":"s3"}]}}`))
	require.NoError(t, err)
	require.Equal(t, "Order Completed", string(e.Name))
	require.Equal(t, "u1", string(e.UserID))
	require.Empty(t, e.AnonymousID)
	require.Equal(t, "web", string(e.Source))
	require.Equal(t, time.Date(2026, 1, 31, 8, 30, 0, 123e6, time.UTC).UnixMilli(), e.Time)
	require.Equal(t, time.Date(2026, 1, 31, 8, 30, 5, 500e6, time.UTC).UnixMilli(), e.ReceivedAt)
	require.True(t, e.HasReceivedAt)

	get := func(text string) Value {
		path, err := ParsePath(text)
		require.NoError(t, err)
		return e.Get(path)
	}
	require.Equal(t, Value{Kind: Number, Number: 19.9}, get("properties.total"))
	require.Equal(t, True, get("properties.paid").Kind)
	require.Equal(t, Missing, get("properties.note").Kind)
	require.Equal(t, Missing, get("properties.absent.deeper").Kind)
	require.Equal(t, "EUR", string(get("properties.currency").Text))
	require.JSONEq(t, `{"a":[1,2]}`, string(get("properties.nested").Text))

	sku, err := ParsePath("properties.products[].sku")
	require.NoError(t, err)
	currency, err := ParsePath("properties.currency")
	require.NoError(t, err)
	var seen []string
	e.VisitEach([]Path{sku, currency}, func(v []Value) { seen = append(seen, string(v[0].Text)+" "+string(v[1].Text)) })
	require.Equal(t, []string{"s1 EUR", " EUR", "s3 EUR"}, seen)
}

func TestParseErrors(t *testing.T) {
	const good = `"messageId":"m","userId":"u","timestamp":"2026-01-31T08:30:00Z"`
	for body, want := range map[string]Error{
		`{`:                               {"", "json", ""},
		"\xff":                            {"", "encoding", ""},
		`[]`:                              {"", "type", ""},
		`{"type":"x",` + good + `}`:       {"/type", "enum", ""},
		`{` + good + `}`:                  {"/type", "enum", ""},
		`{"type":"track",` + good + `}`:   {"/event", "required", ""},
		`{"type":"page","userId":"u"}`:    {"/messageId", "required", ""},
		`{"type":"page","messageId":"m"}`: {"", "required", ""},
		`{"type":"page","messageId":1.5}`: {"/messageId", "type", ""},
		`{"type":"page","messageId":"m","userId":"u"}`:                         {"/timestamp", "required", ""},
		`{"type":"page","messageId":"m","userId":"u","timestamp":"today"}`:     {"/timestamp", "format", ""},
		`{"type":"page","messageId":"m","userId":"u","timestamp":17}`:          {"/timestamp", "type", ""},
		`{"type":"page",` + good + `,"receivedAt":"2026-02-30T00:00:00.000Z"}`: {"/receivedAt", "format", ""},
	} {
		var p Parser
		_, err := p.Parse([]byte(body))
		var got *Error
		require.ErrorAs(t, err, &got, body)
		require.Equal(t, [2]string{want.Pointer, want.Rule}, [2]string{got.Pointer, got.Rule}, body)
		require.NotEmpty(t, got.Message)
	}
}

func TestIntegerIDsBecomeText(t *testing.T) {
	for literal, want := range map[string]string{
		"4711": "4711", "9007199254740993": "9007199254740993", "-3": "-3", "4711.0": "4711", `"0815"`: "0815",
		"123456789012345678901234567890": "123456789012345678901234567890",
	} {
		var p Parser
		e, err := p.Parse([]byte(`{"type":"alias","messageId":` + literal + `,"userId":` + literal + `,"previousId":` + literal + `,"timestamp":"2026-01-31T08:30:00Z"}`))
		require.NoError(t, err)
		require.Equal(t, []string{want, want, want}, []string{string(e.MessageID), string(e.UserID), string(e.PreviousID)})
	}
}

func TestTimesKeepNanoseconds(t *testing.T) {
	for text, want := range map[string]int32{"00.123Z": 0, "00.123456Z": 456_000, "00.123456789+00:00": 456_789, "00Z": 0, "00.0000001Z": 100} {
		var p Parser
		e, err := p.Parse([]byte(`{"type":"page","messageId":"m","userId":"u","timestamp":"2026-01-31T08:30:` + text + `"}`))
		require.NoError(t, err)
		require.Equal(t, want, e.Nanos, text)
	}
}

func TestNumbersAreExact(t *testing.T) {
	for literal, want := range map[string]Value{
		"1.007E7":              {Kind: Number, Number: 10070000},
		"1007e-2":              {Kind: Number, Number: 10.07},
		"0.1e1":                {Kind: Number, Number: 1},
		"123456789.123456789":  {Kind: Number, Number: 123456789.123456789},
		"9007199254740992":     {Kind: Number, Number: 9007199254740992},
		"9007199254740993":     {Kind: Number, Number: 9007199254740992, Text: []byte("9007199254740993")},
		"-9007199254740993":    {Kind: Number, Number: -9007199254740992, Text: []byte("-9007199254740993")},
		"36893488147419103233": {Kind: Number, Number: 36893488147419103232, Text: []byte("36893488147419103233")},
		"1e400":                {},
	} {
		require.Equal(t, want, parseTrait(t, literal), literal)
	}
	require.Equal(t, int64(9007199254740993), Generic(fastjson.MustParse("9007199254740993")))
}

// parseTrait returns the value of a trait with this JSON text.
func parseTrait(t require.TestingT, text string) (value Value) {
	var p Parser
	e, err := p.Parse([]byte(`{"type":"identify","messageId":"m","userId":"u","timestamp":"2026-01-31T08:30:00Z","traits":{"a":` + text + `}}`))
	require.NoError(t, err)
	require.NoError(t, e.VisitTraits(func(_ []byte, v Value) { value = v }))
	return value
}

// TestNumbersEqualEncodingJSON compares with the conversion of encoding/json.
func TestNumbersEqualEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		literal := rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "literal")
		var want float64
		require.NoError(t, json.Unmarshal([]byte(literal), &want))
		require.Equal(t, want, parseTrait(t, literal).Number)
	})
}

func TestTextsAreRepaired(t *testing.T) {
	require.Equal(t, "hi \ufffd", string(parseTrait(t, `"hi \ud83d"`).Text))
	require.Equal(t, "😀", string(parseTrait(t, `"\ud83d\ude00"`).Text))
	nested := parseTrait(t, `{"a":"\ud83d","b":"\u0007\u200b\udb40\udc01\""}`)
	require.JSONEq(t, `{"a":"\ufffd","b":"\u0007\u200b\udb40\udc01\""}`, string(nested.Text))
}

func TestLastOfDuplicateKeysWins(t *testing.T) {
	var p Parser
	e, err := p.Parse([]byte(`{"type":"track","event":"A","event":"B","messageId":"m","userId":"u","timestamp":"2026-01-31T08:30:00Z",
		"properties":{"total":1,"items":[{"a":1,"\u0061":2}],"total":2},"userId":"v"}`))
	require.NoError(t, err)
	require.Equal(t, "B v", string(e.Name)+" "+string(e.UserID))
	for path, want := range map[string]float64{"properties.total": 2, "properties.items[].a": 2} {
		parsed, err := ParsePath(path)
		require.NoError(t, err)
		parsed.Visit(e.root, func(v Value) { require.Equal(t, want, v.Number, path) })
	}
	require.Equal(t, Value{Kind: JSON, Text: []byte(`{"b":{"c":2}}`)}, parseTrait(t, `{"b":1,"b":{"c":1,"c":2}}`))
}

// TestManyDuplicateKeys bounds the work for an object with many members.
func TestManyDuplicateKeys(t *testing.T) {
	text := []byte(`{"last":0`)
	for i := range 50_000 {
		text = strconv.AppendInt(append(text, `,"k`...), int64(i%25_000), 10)
		text = append(text, `":1`...)
	}
	began := time.Now()
	parseTrait(t, string(append(text, '}')))
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestOnlyNumbersOfJSON(t *testing.T) {
	for _, literal := range []string{"nan", "inf", "-inf", "01", "1.", "-", "1e", "+1", "1.2.3", "--1", "1e+"} {
		var p Parser
		_, err := p.Parse([]byte(`{"type":"identify","messageId":"m","userId":"u","timestamp":"2026-01-31T08:30:00Z","traits":{"a":{"b":[` + literal + `]}}}`))
		require.EqualError(t, err, "event is not valid JSON", literal)
	}
}

func TestPaths(t *testing.T) {
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "a[0]", "a[].b[].c", "[]", "a.*"} {
		_, err := ParsePath(bad)
		require.Error(t, err, "%q", bad)
	}
	p, err := ParsePath("a.b[].c.d")
	require.NoError(t, err)
	require.True(t, p.ThroughArray())
	require.Equal(t, "a.b", p.Array())
}

// TestTimes compares the fast path with time.Parse, and formats the result
// again.
func TestTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z`),
			rapid.Map(rapid.Int64Range(-62135596800000, 253402300799999), func(ms int64) string { return string(AppendTime(nil, ms)) }),
		).Draw(t, "text")
		got, err := ParseTime([]byte(text))
		want, wantErr := time.Parse(time.RFC3339Nano, text)
		if wantErr == nil && want.Year() == 0 {
			wantErr = errTime
		}
		require.Equal(t, wantErr == nil, err == nil, text)
		if err == nil {
			require.Equal(t, want.UnixMilli(), got)
			require.Equal(t, text, string(AppendTime(nil, got)))
		}
	})
}

// FuzzParse shows that no input makes the parser panic, and that the generic
// form of an accepted event is an object.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"track","event":"Order Completed","messageId":"m1","userId":"u1","timestamp":"2026-01-31T09:30:00.123+01:00","properties":{"products":[{"sku":1}]}}`))
	f.Add([]byte(`{"type":"identify","messageId":"m1","anonymousId":"\u00e9","timestamp":"2026-01-31T09:30:00Z","traits":{"a":null,"b":[1e400,-0]}}`))
	path, err := ParsePath("properties.products[].sku")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Parser
		e, err := p.Parse(data)
		if err != nil {
			return
		}
		e.VisitEach([]Path{path}, func([]Value) {})
		_ = e.VisitTraits(func(_ []byte, v Value) {
			if v.Kind == JSON && !json.Valid(v.Text) {
				t.Fatalf("%q is not JSON", v.Text)
			}
		})
		if json.Valid(data) {
			if _, ok := e.Structured().(map[string]any); !ok {
				t.Fatal("an event is an object")
			}
		}
	})
}

// TestAppendTime compares with the formatting of package time.
func TestAppendTime(t *testing.T) {
	same := func(t require.TestingT, ms int64) {
		require.Equal(t, time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z"), string(AppendTime(nil, ms)))
	}
	const day = 24 * 60 * 60 * 1000
	for ms := int64(0); ms < 400*366*day; ms += day {
		same(t, ms)
		same(t, ms-1)
	}
	rapid.Check(t, func(t *rapid.T) { same(t, rapid.Int64Range(-1<<53, 1<<53).Draw(t, "ms")) })
}
