package event

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
		`{"type":"page","messageId":1}`:   {"/messageId", "type", ""},
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
		_ = e.VisitTraits(func([]byte, Value) {})
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
