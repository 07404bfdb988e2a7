package trackingapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// object is a JSON object decoded by encoding/json, with numbers as text.
type object = map[string]any

func decode(t require.TestingT, data []byte) (o object) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	require.NoError(t, d.Decode(&o), "%q", data)
	return o
}

func encode(t require.TestingT, v any) []byte {
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return data
}

// model is the naive implementation, on maps, for accepted events.
func model(event, batch object, r Receipt) object {
	out := maps.Clone(event)
	now := r.ReceivedAt.UTC()
	read := func(o object, name string) (time.Time, bool) {
		text, ok := o[name].(string)
		if !ok {
			return now, false
		}
		parsed, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			panic(err)
		}
		return parsed.Truncate(time.Millisecond).UTC(), true
	}
	write := func(name string, t time.Time) { out[name] = t.Format("2006-01-02T15:04:05.000Z") }

	original, known := read(event, "timestamp")
	if !known {
		original, known = read(event, "originalTimestamp")
	}
	sent, sentKnown := read(event, "sentAt")
	if !sentKnown {
		sent, sentKnown = read(batch, "sentAt")
	}
	corrected := now.Add(-sent.Sub(original))
	if !known || corrected.After(now) {
		corrected = now
	}
	write("timestamp", corrected)
	write("receivedAt", now)
	if known {
		write("originalTimestamp", original)
	}
	if sentKnown {
		write("sentAt", sent)
	}
	for _, name := range []string{"context", "integrations"} {
		merged := object{}
		if name == "context" {
			merged["ip"] = r.IP
		}
		for _, layer := range []object{batch, event} {
			if members, ok := layer[name].(object); ok {
				maps.Copy(merged, members)
			}
		}
		if _, own := event[name].(object); own || len(merged) > 0 {
			out[name] = merged
		}
	}
	out["source"] = r.Source
	delete(out, "writeKey")
	return out
}

var (
	genText   = rapid.SampledFrom([]string{"a", "é\"\\\n", "<&>", "\u2028", "long " + string(make([]byte, 40)), "😀"})
	genNumber = rapid.SampledFrom([]json.Number{"0", "-0", "1.50", "1e400", "12345678901234567890.123456789", "-7E-3"})
	genTime   = rapid.Custom(func(t *rapid.T) string {
		instant := time.UnixMicro(rapid.Int64Range(1_500_000_000e6, 1_900_000_000e6).Draw(t, "instant"))
		zone := time.FixedZone("", rapid.IntRange(-12*60, 14*60).Draw(t, "offset")*60)
		return instant.In(zone).Format(time.RFC3339Nano)
	})
)

func genValue(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		genText.AsAny(), genNumber.AsAny(), rapid.Bool().AsAny(), rapid.Just[any](nil),
	}
	if depth > 0 {
		kinds = append(kinds, genObject(depth-1).AsAny(), rapid.SliceOfN(genValue(depth-1), 0, 3).AsAny())
	}
	return rapid.OneOf(kinds...)
}

func genObject(depth int) *rapid.Generator[object] {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "ip", "library", "é", "\"", "type", "userId"}), genValue(depth), 0, 4)
}

var genEvent = rapid.Custom(func(t *rapid.T) object {
	e := object{
		"type": Track, "event": genText.Draw(t, "event"),
		"messageId": genText.Draw(t, "messageId"), "userId": genText.Draw(t, "userId"),
	}
	optional := map[string]*rapid.Generator[any]{
		"anonymousId": genText.AsAny(), "context": genObject(2).AsAny(), "integrations": genObject(1).AsAny(),
		"properties": genObject(3).AsAny(), "timestamp": genTime.AsAny(), "originalTimestamp": genTime.AsAny(),
		"sentAt": genTime.AsAny(), "writeKey": genText.AsAny(), "source": genValue(1), "receivedAt": genValue(1),
		"x-unknown": genValue(2), "channel": genValue(0),
	}
	for _, name := range []string{
		"anonymousId", "context", "integrations", "properties", "timestamp", "originalTimestamp",
		"sentAt", "writeKey", "source", "receivedAt", "x-unknown", "channel",
	} {
		if rapid.Bool().Draw(t, "has "+name) {
			e[name] = optional[name].Draw(t, name)
		}
	}
	return e
})

func TestEventsMatchModel(t *testing.T) {
	parser := NewParser(Limits{EventBytes: 1 << 20, BatchEvents: 100, BatchBytes: 1 << 20, Depth: 32, IDBytes: 512})
	rapid.Check(t, func(t *rapid.T) {
		batch := object{}
		if rapid.Bool().Draw(t, "has batch context") {
			batch["context"] = genObject(2).Draw(t, "batch context")
		}
		if rapid.Bool().Draw(t, "has batch integrations") {
			batch["integrations"] = genObject(1).Draw(t, "batch integrations")
		}
		if rapid.Bool().Draw(t, "has batch sentAt") {
			batch["sentAt"] = genTime.Draw(t, "batch sentAt")
		}
		events := rapid.SliceOfN(genEvent, 0, 5).Draw(t, "events")
		batch["batch"] = events
		receipt := testReceipt()

		indent := rapid.SampledFrom([]string{"", " ", "\r\n\t"}).Draw(t, "indent")
		var body bytes.Buffer
		require.NoError(t, json.Indent(&body, encode(t, batch), indent, indent))
		parsed, err := parser.Parse(Batch, body.Bytes())
		require.NoError(t, err)
		got := parsed.Events(nil, receipt)
		require.Len(t, got, len(events))
		for i, event := range events {
			require.Empty(t, got[i].Reasons)
			want := decode(t, encode(t, model(event, batch, receipt)))
			require.Equal(t, want, decode(t, got[i].Data), "%s", encode(t, event))
		}
	})
}

func benchmarkBatch(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"batch":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"anonymousId":"9d1f2b34-0c55-4f1e-9f0e-%012d","event":"Product Added","properties":{"product_id":"sku-%d","name":"Trail Shoe","price":89.90,"quantity":1,"currency":"EUR","category":"Shoes"},"context":{"library":{"name":"@segment/analytics-node","version":"3.1.0"},"userAgent":"Mozilla/5.0 (X11; Linux x86_64)"},"type":"track","userId":"user-%d","timestamp":"2026-01-31T11:59:58.%03dZ","messageId":"node-next-%d-2b5b1f4e"}`, i, i%500, i%97, i%1000, i)
	}
	b.WriteString(`],"sentAt":"2026-01-31T11:59:59.500Z","writeKey":"key"}`)
	return b.Bytes()
}

func BenchmarkBody(b *testing.B) {
	for _, n := range []int{1, 20, 1000} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			body := benchmarkBatch(n)
			parser := NewParser(testLimits)
			receipt := testReceipt()
			var events []Event
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				parsed, err := parser.Parse(Batch, body)
				if err != nil {
					b.Fatal(err)
				}
				events = parsed.Events(events[:0], receipt)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
