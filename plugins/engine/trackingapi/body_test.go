package trackingapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

var testLimits = Limits{EventBytes: 32 << 10, BatchEvents: 1000, BatchBytes: 500 << 10, Depth: 16, IDBytes: 512}

const testNow = "2026-01-31T12:00:00.000Z"

func testReceipt() Receipt {
	now, err := time.Parse(time.RFC3339, testNow)
	if err != nil {
		panic(err)
	}
	return Receipt{Source: "web", ReceivedAt: now, IP: "203.0.113.7"}
}

// collect parses a body and returns its events.
func collect(t testing.TB, endpoint Endpoint, body string) []Event {
	t.Helper()
	parsed, err := NewParser(testLimits).Parse(endpoint, []byte(body))
	require.NoError(t, err)
	return parsed.Events(nil, testReceipt())
}

// acceptedEvent returns the single event of a body, which must be accepted.
func acceptedEvent(t testing.TB, endpoint Endpoint, body string) string {
	t.Helper()
	events := collect(t, endpoint, body)
	require.Len(t, events, 1)
	require.Empty(t, events[0].Reasons)
	return string(events[0].Data)
}

func TestAcceptedEventInItsOutgoingForm(t *testing.T) {
	for _, c := range []struct {
		name     string
		endpoint Endpoint
		body     string
		want     string
	}{
		{
			"the smallest event", Page, `{"messageId":"m","userId":"u"}`,
			`{"type":"page","messageId":"m","userId":"u","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"unknown fields and numbers keep their bytes and order", Track,
			`{ "userId" : "u", "x-vendor": [1, 2.50, 1e3, 12345678901234567890.1], "event":"Order Completed",
			"properties":{"total":10.10,"big":9007199254740993,"name":"caf\u00e9"}, "anonymousId":"a", "messageId":"m",
			"context":{"library":{"name":"lib"},"ip":"198.51.100.1"}, "integrations":{"All":false} }`,
			`{"type":"track","messageId":"m","userId":"u","x-vendor":[1, 2.50, 1e3, 12345678901234567890.1],"event":"Order Completed",
			"properties":{"total":10.10,"big":9007199254740993,"name":"caf\u00e9"},"anonymousId":"a",
			"context":{"library":{"name":"lib"},"ip":"198.51.100.1"},"integrations":{"All":false},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"times are corrected and normalised", Identify,
			`{"messageId":"m","userId":"u","timestamp":"2026-01-31T15:59:50+01:00","sentAt":"2026-01-31 15:00:00","receivedAt":"1999-01-01T00:00:00Z","traits":{"a":1}}`,
			`{"type":"identify","messageId":"m","userId":"u","traits":{"a":1},"context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T11:59:50.000Z","originalTimestamp":"2026-01-31T14:59:50.000Z","sentAt":"2026-01-31T15:00:00.000Z",
			"receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"originalTimestamp of RudderStack's SDKs", Screen,
			`{"messageId":"m","userId":"u","originalTimestamp":"2026-01-31T11:00:00.000Z","sentAt":"2026-01-31T11:00:01.000Z"}`,
			`{"type":"screen","messageId":"m","userId":"u","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T11:59:59.000Z","originalTimestamp":"2026-01-31T11:00:00.000Z","sentAt":"2026-01-31T11:00:01.000Z",
			"receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"timestamp takes precedence over originalTimestamp", Page,
			`{"messageId":"m","userId":"u","timestamp":"2020-01-01T00:00:00Z","originalTimestamp":"2026-01-31T12:00:00.000Z","sentAt":"2026-01-31T12:00:00.000Z"}`,
			`{"type":"page","messageId":"m","userId":"u","context":{"ip":"203.0.113.7"},
			"timestamp":"2020-01-01T00:00:00.000Z","originalTimestamp":"2020-01-01T00:00:00.000Z","sentAt":"2026-01-31T12:00:00.000Z",
			"receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"the endpoint sets the type, the key sets the source and is removed", Group,
			`{"type":"track","writeKey":"secret","source":"forged","messageId":"m","userId":"u","groupId":"g"}`,
			`{"type":"group","messageId":"m","userId":"u","groupId":"g","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"null and empty count as absent", Alias,
			`{"messageId":"m","userId":null,"anonymousId":"a","previousId":"p","groupId":"","context":null,"integrations":[],"properties":[ ],"timestamp":null,"traits":null}`,
			`{"type":"alias","messageId":"m","anonymousId":"a","previousId":"p","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"names and values with escapes", Page,
			`{"\u006dessageId":"m","user\u0049d":"\u0075","timestamp":"2026-01-31T11:59:59\u005a","w\u0072iteKey":"secret","other\"":1}`,
			`{"type":"page","messageId":"m","user\u0049d":"\u0075","other\"":1,"context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T11:59:59.000Z","originalTimestamp":"2026-01-31T11:59:59.000Z",
			"receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"of repeated members the last one wins", Page, `{"messageId":"m","userId":"u","user\u0049d":"v","name":"a","anonymousId":"a","anonymousId":null}`,
			`{"type":"page","messageId":"m","user\u0049d":"v","name":"a","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"whole numbers as ids become text", Alias, `{"messageId":1,"userId":4711,"anonymousId":-7.0,"previousId":12345678901234567890}`,
			`{"type":"alias","messageId":"1","userId":"4711","anonymousId":"-7","previousId":"12345678901234567890","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"Unix time in seconds and milliseconds", Page, `{"messageId":"m","userId":"u","timestamp":1769860700,"sentAt":"1769860800000"}`,
			`{"type":"page","messageId":"m","userId":"u","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T11:58:20.000Z","originalTimestamp":"2026-01-31T11:58:20.000Z","sentAt":"2026-01-31T12:00:00.000Z",
			"receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"context.traits of an identify without traits", Identify, `{"messageId":"m","userId":"u","traits":{ },"context":{"traits":{"plan":"gold"}}}`,
			`{"type":"identify","messageId":"m","userId":"u","traits":{"plan":"gold"},"context":{"traits":{"plan":"gold"},"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"traits take precedence over context.traits", Identify, `{"messageId":"m","userId":"u","traits":{"a":1},"context":{"traits":{"plan":"gold"},"ip":""}}`,
			`{"type":"identify","messageId":"m","userId":"u","traits":{"a":1},"context":{"traits":{"plan":"gold"},"ip":""},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"context.traits of another event stay there", Page, `{"messageId":"m","userId":"u","context":{"traits":{"plan":"gold"},"ip":""}}`,
			`{"type":"page","messageId":"m","userId":"u","context":{"traits":{"plan":"gold"},"ip":""},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"a byte order mark", Page, "\xef\xbb\xbf" + ` {"messageId":"m","userId":"u","context":{}} `,
			`{"type":"page","messageId":"m","userId":"u","context":{"ip":"203.0.113.7"},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
		{
			"a null address stays null", Page, `{"messageId":"m","userId":"u","context":{"\u0069p":null}}`,
			`{"type":"page","messageId":"m","userId":"u","context":{"\u0069p":null},
			"timestamp":"2026-01-31T12:00:00.000Z","receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`,
		},
	} {
		lines := strings.Split(c.want, "\n")
		for i := range lines {
			lines[i] = strings.TrimLeft(lines[i], "\t")
		}
		wrapped := strings.ReplaceAll(c.body, "\n\t\t\t", "")
		require.Equal(t, strings.Join(lines, ""), acceptedEvent(t, c.endpoint, wrapped), c.name)
	}
}

func TestBatchContextIsMergedIntoItsEvents(t *testing.T) {
	events := collect(t, Batch, `{
		"context": {"device":{"type":"phone"},"locale":"de","locale":"fr"},
		"batch": [
			{"type":"page","messageId":"1","userId":"u","sentAt":"2026-01-31T13:00:00Z","timestamp":"2026-01-31T12:59:00Z"},
			{"type":"page","messageId":"2","userId":"u","context":{"device":{"name":"x"},"ip":"198.51.100.1"},"timestamp":"2026-01-31T11:00:00Z","integrations":{"B":true}},
			{"type":"page","messageId":"3","userId":"u","context":{},"integrations":{"All":true}}
		],
		"integrations": {"All":false},
		"writeKey": "k",
		"sentAt": "2026-01-31T11:00:10Z"
	}`)
	require.Len(t, events, 3)
	for i, want := range []string{
		`"context":{"device":{"type":"phone"},"locale":"fr","ip":"203.0.113.7"},"integrations":{"All":false},"timestamp":"2026-01-31T11:59:00.000Z","originalTimestamp":"2026-01-31T12:59:00.000Z","sentAt":"2026-01-31T13:00:00.000Z",`,
		`"context":{"device":{"name":"x"},"ip":"198.51.100.1","locale":"fr"},"integrations":{"B":true,"All":false},"timestamp":"2026-01-31T11:59:50.000Z","originalTimestamp":"2026-01-31T11:00:00.000Z","sentAt":"2026-01-31T11:00:10.000Z",`,
		`"context":{"device":{"type":"phone"},"locale":"fr","ip":"203.0.113.7"},"integrations":{"All":true},"timestamp":"2026-01-31T12:00:00.000Z","sentAt":"2026-01-31T11:00:10.000Z",`,
	} {
		require.Empty(t, events[i].Reasons)
		require.Equal(t, fmt.Sprintf(`{"type":"page","messageId":"%d","userId":"u",%s"receivedAt":"2026-01-31T12:00:00.000Z","source":"web"}`, i+1, want), string(events[i].Data))
	}
}

func TestBatchAddressTakesPrecedenceOverConnection(t *testing.T) {
	events := collect(t, Batch, `{"context":{"ip":"192.0.2.9"},"batch":[{"type":"page","messageId":"1","userId":"u"}]}`)
	require.Contains(t, string(events[0].Data), `"context":{"ip":"192.0.2.9"},`)
}

func TestReceiptWithoutAddressAddsNoContext(t *testing.T) {
	body, err := NewParser(testLimits).Parse(Page, []byte(`{"messageId":"m","userId":"u"}`))
	require.NoError(t, err)
	receipt := testReceipt()
	receipt.IP = ""
	require.NotContains(t, string(body.Events(nil, receipt)[0].Data), "context")
}

func TestEmptyBatch(t *testing.T) {
	require.Empty(t, collect(t, Batch, `{"batch":[ ]}`))
}

func TestRejectedEventsKeepTheirBytes(t *testing.T) {
	deep := strings.Repeat("[", 16) + strings.Repeat("]", 16)
	long := strings.Repeat("x", testLimits.EventBytes)
	for _, c := range []struct {
		event string
		want  []Reason
	}{
		{`5`, []Reason{{"", "type", "an event must be an object"}}},
		{`null`, []Reason{{"", "type", "an event must be an object"}}},
		{`[ {"type":"page"} ]`, []Reason{{"", "type", "an event must be an object"}}},
		{`"` + long + `"`, []Reason{{"", "type", "an event must be an object"}}},
		{strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), []Reason{{"", "type", "an event must be an object"}}},
		{`{}`, []Reason{
			{"/type", "required", "the event needs a type: track, identify, page, screen, group or alias"},
			{"", "required", "the event needs a userId or an anonymousId"},
		}},
		{`{"type":"page"}`, []Reason{{"", "required", "the event needs a userId or an anonymousId"}}},
		{`{"type":"page","userId":"","anonymousId":null}`, []Reason{{"", "required", "the event needs a userId or an anonymousId"}}},
		{`{"type":"Track","userId":"u"}`, []Reason{{"/type", "enum", "type must be track, identify, page, screen, group or alias"}}},
		{`{"type":7,"userId":"u"}`, []Reason{{"/type", "enum", "type must be track, identify, page, screen, group or alias"}}},
		{`{"type":"page","userId":12.5}`, []Reason{{"/userId", "type", "userId must be a string or a whole number"}}},
		{`{"type":"page","userId":1e3}`, []Reason{{"/userId", "type", "userId must be a string or a whole number"}}},
		{`{"type":"page","userId":"` + strings.Repeat("u", 513) + `"}`, []Reason{{"/userId", "max_bytes", "userId has 513 bytes: at most 512 are accepted"}}},
		{`{"type":"page","anonymousId":` + strings.Repeat("7", 513) + `}`, []Reason{{"/anonymousId", "max_bytes", "anonymousId has 513 bytes: at most 512 are accepted"}}},
		{`{"type":"page","userId":"u","p":NaN}`, []Reason{{"", "invalid_json", "the event is not valid JSON: it has NaN or Infinity, which JSON does not have"}}},
		{`{"type":"page","userId":"u","p":[-Infinity,{"q":Infinity}]}`, []Reason{{"", "invalid_json", "the event is not valid JSON: it has NaN or Infinity, which JSON does not have"}}},
		{`{"type":"page","userId":"u","anonymousId":{}}`, []Reason{{"/anonymousId", "type", "anonymousId must be a string or a whole number"}}},
		{`{"type":"page","userId":"u","messageId":false}`, []Reason{{"/messageId", "type", "messageId must be a string or a whole number"}}},
		{`{"type":"page","userId":"u","timestamp":17698628}`, []Reason{{"/timestamp", "format", "timestamp must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z, or Unix time in seconds or milliseconds"}}},
		{`{"type":"page","userId":"u","timestamp":"soon"}`, []Reason{{"/timestamp", "format", "timestamp must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z, or Unix time in seconds or milliseconds"}}},
		{`{"type":"page","userId":"u","sentAt":{}}`, []Reason{{"/sentAt", "format", "sentAt must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z, or Unix time in seconds or milliseconds"}}},
		{`{"type":"page","userId":"u","originalTimestamp":""}`, []Reason{{"/originalTimestamp", "format", "originalTimestamp must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z, or Unix time in seconds or milliseconds"}}},
		{`{"type":"page","userId":"u","context":"c"}`, []Reason{{"/context", "type", "context must be an object"}}},
		{`{"type":"page","userId":"u","context":[1]}`, []Reason{{"/context", "type", "context must be an object"}}},
		{`{"type":"page","userId":"u","properties":true}`, []Reason{{"/properties", "type", "properties must be an object"}}},
		{`{"type":"identify","userId":"u","traits":"t"}`, []Reason{{"/traits", "type", "traits must be an object"}}},
		{`{"type":"page","userId":"u","integrations":false}`, []Reason{{"/integrations", "type", "integrations must be an object"}}},
		{`{"type":"track","userId":"u"}`, []Reason{{"/event", "required", "an event of type track needs event"}}},
		{`{"type":"track","userId":"u","event":["E"]}`, []Reason{{"/event", "type", "event must be a string"}}},
		{`{"type":"group","userId":"u"}`, []Reason{{"/groupId", "required", "an event of type group needs groupId"}}},
		{`{"type":"alias","userId":"u"}`, []Reason{{"/previousId", "required", "an event of type alias needs previousId"}}},
		{`{"type":"page","userId":"u","p":` + deep + `}`, []Reason{{"", "max_depth", "the event nests deeper than the 16 levels accepted"}}},
		{`{"type":"page","userId":"u","p":"` + long + `"}`, []Reason{{"", "max_bytes", "the event has 32803 bytes: at most 32768 are accepted"}}},
	} {
		good := `{"type":"page","messageId":"m","userId":"u"}`
		events := collect(t, Batch, `{"batch":[`+good+` , `+c.event+` , `+good+`]}`)
		require.Len(t, events, 3)
		require.Equal(t, c.want, events[1].Reasons, "%.80s", c.event)
		require.Equal(t, c.event, string(events[1].Data))
		require.Empty(t, events[0].Reasons)
		require.Empty(t, events[2].Reasons)
		require.Equal(t, events[0].Data, events[2].Data, "a rejected event does not change its neighbours")
	}
}

func TestEventAtItsLimits(t *testing.T) {
	deep := strings.Repeat("[", 15) + strings.Repeat("]", 15)
	head, tail := `{"type":"page","userId":"u","p":"`, `"}`
	for _, event := range []string{
		`{"type":"page","userId":"u","p":` + deep + `}`,
		head + strings.Repeat("x", testLimits.EventBytes-len(head)-len(tail)) + tail,
	} {
		require.Empty(t, collect(t, Batch, `{"batch":[`+event+`]}`)[0].Reasons)
		require.Empty(t, collect(t, Page, event)[0].Reasons)
	}
}

func TestBodyErrors(t *testing.T) {
	deep := strings.Repeat("[", 17) + strings.Repeat("]", 17)
	event := `{"type":"page","userId":"u"}`
	for _, c := range []struct {
		endpoint Endpoint
		body     string
		code     string
		message  string
	}{
		{Batch, "", CodeEmpty, `the body is empty: send a JSON object with "batch", a list of events`},
		{Track, " \n", CodeEmpty, "the body is empty: send one event as a JSON object"},
		{Track, `{"userId":"` + "\xff" + `"}`, CodeNotUTF8, "the body is not valid UTF-8: see byte 11"},
		{Batch, `{"batch":[` + "\xc3\x28" + `]}`, CodeNotUTF8, "the body is not valid UTF-8: see byte 10"},
		{Track, `{"userId":"u"`, CodeTruncated, "the body is not valid JSON: at byte 13 it ends before its last value is complete"},
		{Batch, `{"batch":[` + event, CodeTruncated, "the body is not valid JSON: at byte 38 it ends before its last value is complete"},
		{Batch, `{"batch":[` + event + `]`, CodeTruncated, "the body is not valid JSON: at byte 39 it ends before its last value is complete"},
		{Track, `{"userId":u}`, CodeNotJSON, "the body is not valid JSON: at byte 10 it has something other than a value where a value must be"},
		{Track, `{"userId":"u"} x`, CodeNotJSON, "the body is not valid JSON: at byte 15 it goes on after the end of its value"},
		{Batch, `{"batch":[]}{}`, CodeNotJSON, "the body is not valid JSON: at byte 12 it goes on after the end of its value"},
		{Batch, `{"batch":[{"a":1} {"b":1}]}`, CodeNotJSON, `the body is not valid JSON: at byte 18 it has something other than "," or "]" after an element of an array`},
		{Track, `data=%7B%7D`, CodeNotJSON, "the body is not valid JSON: at byte 0 it has something other than a value where a value must be"},
		{Track, `[` + event + `]`, CodeNotObject, "the body must be one event as a JSON object"},
		{Batch, `[` + event + `]`, CodeNotObject, `the body must be a JSON object with "batch", a list of events`},
		{Track, `null`, CodeNotObject, "the body must be one event as a JSON object"},
		{Track, strings.Repeat("[", 200_000), CodeTruncated, "the body is not valid JSON: at byte 200000 it ends before its last value is complete"},
		{Track, `{"userId":"u","p":` + deep + `}`, CodeTooDeep, "the body nests deeper than the 16 levels accepted"},
		{Batch, `{"batch":[],"p":` + deep + `}`, CodeTooDeep, "the body nests deeper than the 16 levels accepted"},
		{Batch, event, CodeInvalidBatch, `the body needs "batch", a list of events`},
		{Batch, `{}`, CodeInvalidBatch, `the body needs "batch", a list of events`},
		{Batch, `{"batch":` + event + `}`, CodeInvalidBatch, `the body needs "batch", a list of events`},
		{Batch, `{"batch":null}`, CodeInvalidBatch, `the body needs "batch", a list of events`},
		{Batch, `{"batch":[],"batch":[]}`, CodeInvalidBatch, `"batch" appears more than once`},
		{Batch, `{"batch":[],"context":{"a":NaN}}`, CodeNotJSON, "the body is not valid JSON: at byte 27 it has NaN or Infinity, which JSON does not have"},
		{Batch, `{"batch":[{"a":NaM}]}`, CodeNotJSON, "the body is not valid JSON: at byte 17 it has something other than a value where a value must be"},
		{Batch, `{"batch":[],"context":7}`, CodeInvalidBatch, `"context" of the batch must be an object`},
		{Batch, `{"batch":[],"integrations":[]}`, CodeInvalidBatch, `"integrations" of the batch must be an object`},
		{Batch, `{"batch":[` + strings.Repeat("0,", 1000) + `0]}`, CodeTooManyEvents, "the batch has 1001 events: send at most 1000 at a time"},
		{Batch, `{"batch":[],"context":{"a":"` + strings.Repeat("x", 32<<10) + `"}}`, CodeMergeTooLarge, `"context" of the batch has 32776 bytes: at most 32768 are accepted`},
		{
			Batch, `{"batch":[` + strings.Repeat("0,", 99) + `0],"context":{"a":"` + strings.Repeat("x", 30<<10) + `"}}`, CodeMergeTooLarge,
			"context and integrations of the batch have 30728 bytes, which are merged into each of its 100 events: send fewer events at a time, or a smaller context",
		},
	} {
		_, err := NewParser(testLimits).Parse(c.endpoint, []byte(c.body))
		var got *BodyError
		require.ErrorAs(t, err, &got, "%.80q", c.body)
		require.Equal(t, c.code, got.Code, "%.80q: %s", c.body, got.Message)
		require.Equal(t, c.message, got.Message)
		require.Equal(t, c.code == CodeTooManyEvents || c.code == CodeMergeTooLarge, got.TooLarge())
	}
}

// A truncated body is an error, never half a batch.
func TestEveryTruncationIsAnError(t *testing.T) {
	const body = `{"batch":[{"type":"track","userId":"u","event":"E","properties":{"a":[1.5,"\u00e9",true]}},{"type":"page","userId":"é"}],"sentAt":"2026-01-31T12:00:00Z"}`
	for n := range len(body) {
		_, err := NewParser(testLimits).Parse(Batch, []byte(body[:n]))
		var got *BodyError
		require.ErrorAs(t, err, &got)
		require.Contains(t, []string{CodeTruncated, CodeNotUTF8, CodeEmpty}, got.Code)
	}
}

func TestWriteKeyInTheBody(t *testing.T) {
	for _, c := range []struct {
		endpoint Endpoint
		body     string
		want     string
	}{
		{Batch, `{"batch":[],"writeKey":"k"}`, "k"},
		{Batch, `{"write\u004bey":"\u006b","batch":[]}`, "k"},
		{Batch, `{"batch":[{"writeKey":"k"}]}`, ""},
		{Batch, `{"batch":[],"writeKey":7}`, ""},
		{Page, `{"writeKey":"k"}`, "k"},
		{Page, `{"context":{"writeKey":"k"}}`, ""},
		{Page, `{}`, ""},
	} {
		body, err := NewParser(testLimits).Parse(c.endpoint, []byte(c.body))
		require.NoError(t, err)
		require.Equal(t, c.want, string(body.WriteKey()), c.body)
	}
}

// messageIDs returns the ids of the accepted events of a body.
func messageIDs(t *testing.T, endpoint Endpoint, body string, receipt Receipt) (ids []string) {
	t.Helper()
	parsed, err := NewParser(testLimits).Parse(endpoint, []byte(body))
	require.NoError(t, err)
	for _, event := range parsed.Events(nil, receipt) {
		var fields struct {
			MessageID string `json:"messageId"`
		}
		require.NoError(t, json.Unmarshal(event.Data, &fields))
		ids = append(ids, fields.MessageID)
	}
	return ids
}

func TestMissingMessageIDIsDerivedFromTheBytes(t *testing.T) {
	first := testReceipt()
	later := first
	later.ReceivedAt = later.ReceivedAt.Add(time.Hour)
	later.IP = "198.51.100.200"
	const batch = `{"batch":[{"type":"page","userId":"u"},{"type":"page","userId":"u"},{"type":"page","userId":"v","messageId":""}]}`

	ids := messageIDs(t, Batch, batch, first)
	require.Len(t, ids, 3)
	for _, id := range ids {
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, id)
	}
	require.NotEqual(t, ids[0], ids[1], "two equal events of one batch are two events")
	require.NotEqual(t, ids[0], ids[2])
	require.Equal(t, ids, messageIDs(t, Batch, batch, later), "a retry gives the same ids")

	single := messageIDs(t, Page, `{"userId":"u"}`, first)
	require.Equal(t, single, messageIDs(t, Page, `{"userId":"u"}`, later))
	require.NotEqual(t, single, messageIDs(t, Screen, `{"userId":"u"}`, first), "another type is another event")
	other := first
	other.Source = "app"
	require.NotEqual(t, single, messageIDs(t, Page, `{"userId":"u"}`, other), "another source is another event")
	require.Equal(t, []string{"00000000-given"}, messageIDs(t, Page, `{"userId":"u","messageId":"00000000-given"}`, first))
}

func TestBatchContextTraitsAreThoseOfItsIdentifies(t *testing.T) {
	events := collect(t, Batch, `{"context":{"traits":{"plan":"gold"}},"batch":[
		{"type":"identify","userId":"u"},{"type":"identify","userId":"u","context":{"traits":{"plan":"silver"}}},
		{"type":"identify","userId":"u","context":{"traits":null}},{"type":"page","userId":"u"}]}`)
	var got []any
	for _, e := range events {
		var fields struct{ Traits any }
		require.NoError(t, json.Unmarshal(e.Data, &fields))
		got = append(got, fields.Traits)
	}
	require.Equal(t, []any{map[string]any{"plan": "gold"}, map[string]any{"plan": "silver"}, nil, nil}, got)
}

func TestOccurrenceDistinguishesEventsWithoutIDAndTime(t *testing.T) {
	receipt := testReceipt()
	occurrence := int64(1)
	receipt.Occurrence = func([32]byte) int64 { return occurrence }
	first := messageIDs(t, Page, `{"userId":"u"}`, receipt)
	require.Equal(t, first, messageIDs(t, Page, `{"userId":"u"}`, receipt))
	timestamped := messageIDs(t, Page, `{"userId":"u","timestamp":"2026-01-31T12:00:00Z"}`, receipt)
	occurrence = 2
	require.NotEqual(t, first, messageIDs(t, Page, `{"userId":"u"}`, receipt))
	require.Equal(t, timestamped, messageIDs(t, Page, `{"userId":"u","timestamp":"2026-01-31T12:00:00Z"}`, receipt))
	require.Equal(t, []string{"m"}, messageIDs(t, Page, `{"userId":"u","messageId":"m"}`, receipt))
}

// A reused parser gives the same results as a new one.
func TestParserIsReusable(t *testing.T) {
	bodies := []string{
		`{"batch":[{"type":"page","userId":"u"},{"type":"page","userId":"u"},7],"context":{"a":1},"sentAt":"2026-01-31T11:00:00Z","writeKey":"k","integrations":{"All":false}}`,
		`{"batch":[{"type":"page","userId":"u","timestamp":"2026-01-31T11:00:00Z"}]}`,
		`{"batch":[{"type":`,
		`{"batch":[]}`,
	}
	used := NewParser(testLimits)
	for range 3 {
		for _, body := range bodies {
			got, gotErr := used.Parse(Batch, []byte(body))
			want, wantErr := NewParser(testLimits).Parse(Batch, []byte(body))
			require.Equal(t, wantErr, gotErr)
			if wantErr == nil {
				require.Equal(t, want.Events(nil, testReceipt()), got.Events(nil, testReceipt()))
				require.Equal(t, want.WriteKey(), got.WriteKey())
			}
		}
	}
}

// Events share no memory with the body or with each other.
func TestEventsOwnTheirBytes(t *testing.T) {
	body := []byte(`{"batch":[{"type":"page","userId":"u","messageId":"m"},7,{"type":"page","userId":"u","messageId":"m"}]}`)
	parsed, err := NewParser(testLimits).Parse(Batch, body)
	require.NoError(t, err)
	events := parsed.Events(nil, testReceipt())
	want := bytes.Clone(events[2].Data)
	clear(body)
	for i := range 2 {
		_ = append(events[i].Data, "overrun"...)
		clear(events[i].Data)
	}
	require.Equal(t, want, events[2].Data)
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"userId":"u","event":"E","timestamp":"2026-01-31T12:00:00Z"}`,
		`{"batch":[{"type":"track","event":"E","userId":"u","properties":{"a":1}},{"type":"page","anonymousId":"a","context":{"ip":"::1"}},3,[]],"sentAt":"2026-01-31T12:00:00.5+01:00","context":{"a":{"b":null}},"integrations":{"All":true},"writeKey":"k"}`,
		`{"batch":[{"type":"alias","previousId":"\ud800","userId":"\u0000","context":[],"messageId":""}]}`,
		`{"batch":[{"\u0074ype":"group","groupId":"g","userId":"u","traits":{},"context":{"a":1,"a":2}}],"context":{"\u0061":1,"ip":""}}`,
		`{"batch":[{"type":"page","userId":-0.0,"a":-Infinity},{"type":"page","userId":1769862896,"timestamp":1769862896.5}]}`,
		"\xef\xbb\xbf{}", `[[[[`, `{"batch":`, "\xff",
	} {
		f.Add(true, []byte(seed))
		f.Add(false, []byte(seed))
	}
	limits := Limits{EventBytes: 512, BatchEvents: 20, BatchBytes: 4096, Depth: 8, IDBytes: 64}
	reused := NewParser(limits)
	f.Fuzz(func(t *testing.T, batch bool, text []byte) {
		endpoint := Endpoint(Track)
		if batch {
			endpoint = Batch
		}
		given := bytes.Clone(text)
		body, err := reused.Parse(endpoint, text)
		again, errAgain := NewParser(limits).Parse(endpoint, text)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatalf("a reused parser returns %v, a new one %v", err, errAgain)
		}
		if err != nil {
			if _, ok := errors.AsType[*BodyError](err); !ok {
				t.Fatalf("error of another type: %T", err)
			}
			return
		}
		strict := json.Valid(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
		receipt := testReceipt()
		events := body.Events(nil, receipt)
		receipt.ReceivedAt = receipt.ReceivedAt.Add(time.Minute)
		resent := again.Events(nil, receipt)
		if !bytes.Equal(given, text) {
			t.Fatal("the body was changed")
		}
		if len(events) != body.Len() || len(resent) != len(events) {
			t.Fatalf("%d events of %d", len(events), body.Len())
		}
		for i, got := range events {
			strict = strict || len(got.Reasons) > 0 && got.Reasons[0].Rule == CodeNotJSON
			if len(got.Reasons) > 0 {
				if !bytes.Contains(text, got.Data) || !bytes.Equal(got.Data, resent[i].Data) {
					t.Fatalf("a rejected event changed: %q", got.Data)
				}
				continue
			}
			checkEvent(t, got.Data)
			var first, second struct{ MessageID string }
			_ = json.Unmarshal(got.Data, &first)
			_ = json.Unmarshal(resent[i].Data, &second)
			if first != second {
				t.Fatal("the messageId changes when the body is sent again")
			}
		}
		if !strict {
			t.Fatalf("accepted a body that is not JSON: %q", text)
		}
	})
}

// checkEvent fails unless the data is a complete event.
func checkEvent(t testing.TB, data []byte) {
	t.Helper()
	if !json.Valid(data) {
		t.Fatalf("not JSON: %q", data)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatalf("not an object: %q", data)
	}
	for _, name := range []string{"messageId", "type", "timestamp", "receivedAt", "source"} {
		if text, ok := fields[name].(string); !ok || text == "" {
			t.Fatalf("no %s: %q", name, data)
		}
	}
	for _, name := range []string{"timestamp", "receivedAt", "sentAt", "originalTimestamp"} {
		text, ok := fields[name].(string)
		if !ok && fields[name] == nil {
			continue
		}
		if parsed, err := time.Parse("2006-01-02T15:04:05.000Z", text); err != nil || name == "timestamp" && parsed.After(testReceipt().ReceivedAt) {
			t.Fatalf("bad %s: %q", name, data)
		}
	}
	if _, found := fields["writeKey"]; found {
		t.Fatalf("the write key was not removed: %q", data)
	}
	if _, err := new(event.Parser).Parse(data); err != nil {
		t.Fatalf("the event package does not parse it: %v: %q", err, data)
	}
	user, _ := fields["userId"].(string)
	anonymous, _ := fields["anonymousId"].(string)
	if user == "" && anonymous == "" {
		t.Fatalf("no identifier: %q", data)
	}
}
