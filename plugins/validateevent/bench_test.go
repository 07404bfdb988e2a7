package validateevent

import (
	"path/filepath"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

// orderEvent is about 400 bytes.
const orderEvent = `{"type":"track","event":"Order Completed","messageId":"0190c8f2-7f0e-7b6e-9d55-2f0f6f1d2c3b","userId":"cust-0001234",` +
	`"timestamp":"2026-01-31T08:30:00.000Z","properties":{"order_id":"o-7712345","total":128.5,"currency":"EUR","products":[` +
	`{"product_id":"p-1001","sku":"KB-220-DE","name":"Keyboard","price":79.9,"quantity":1},` +
	`{"product_id":"p-1007","sku":"MS-114","name":"Mouse","price":24.3,"quantity":2}]}}`

// BenchmarkProcessors compares validate_event with the stock json_schema, run as in a
// pipeline: on batches of events that have just been read.
func BenchmarkProcessors(b *testing.B) {
	const batchSize = 100
	// The schema has the same requirements for an order as the shop's plan.
	schema, err := filepath.Abs("../../tests/bench/quality/order_schema.json")
	require.NoError(b, err)
	for _, contender := range []struct{ name, config string }{
		{"none", "processors: []"},
		{"validate_event", "processors: [ { validate_event: { plan: ../../configs/retail/plan.yaml } } ]"},
		{"json_schema", "processors: [ { json_schema: { schema_path: \"file://" + schema + "\" } } ]"},
	} {
		b.Run(contender.name, func(b *testing.B) {
			conf, err := service.NewConfigSpec().Field(service.NewProcessorListField("processors")).ParseYAML(contender.config, nil)
			require.NoError(b, err)
			processors, err := conf.FieldProcessorList("processors")
			require.NoError(b, err)
			defer func() {
				for _, p := range processors {
					require.NoError(b, p.Close(b.Context()))
				}
			}()
			event := []byte(orderEvent)
			events := 0
			b.ReportAllocs()
			for b.Loop() {
				batch := make(service.MessageBatch, batchSize)
				for i := range batch {
					batch[i] = service.NewMessage(event)
				}
				out, err := service.ExecuteProcessors(b.Context(), processors, batch)
				if err != nil || len(out) != 1 || out[0][batchSize-1].GetError() != nil {
					b.Fatal(err, "not valid")
				}
				events += batchSize
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
