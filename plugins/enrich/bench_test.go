package enrich_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
)

// BenchmarkHits sends batches of 1,000 events about 100 cached products through an
// empty pipeline, enrich, and the stock components branch, cached and http. It
// reports events/s and the ratio to the empty pipeline of the same run.
func BenchmarkHits(b *testing.B) {
	url := serve(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"category":"shoes","margin":0.4}`)
	})
	const head = "pipeline:\n  threads: 1\n  processors:\n"
	pipelines := []struct{ name, yaml string }{
		{"empty", ""},
		{"enrich", head + `
    - enrich:
        name: product
        key: this.properties.product_id
        keep_original: false
        http: { url: '` + url + `/${! this.key }' }
`},
		{"enrich_mapped_key", head + `
    - enrich:
        name: product
        key: this.properties.product_id.lowercase()
        keep_original: false
        http: { url: '` + url + `/${! this.key }' }
`},
		{"mapping", head + `
    - mapping: |
        root = this
        root.context.enrichment.product = {"category":"shoes","margin":0.4}
`},
		{"stock", head + `
    - branch:
        request_map: root = this.properties.product_id
        processors:
          - cached:
              cache: products
              key: '${! content() }'
              ttl: 10m
              processors:
                - http: { url: '` + url + `', verb: GET }
        result_map: root.context.enrichment.product = this
cache_resources:
  - label: products
    memory: { default_ttl: 10m }
`},
	}
	const size = 1000
	batch := make(service.MessageBatch, size)
	filler := strings.Repeat("x", 150)
	for i := range batch {
		batch[i] = service.NewMessage(fmt.Appendf(nil, `{"type":"track","event":"Product Viewed","messageId":"m%04d","userId":"u1","timestamp":"2026-01-02T03:04:05.000Z","context":{"ip":"192.0.2.1","userAgent":%q},"properties":{"product_id":"p-%04d","price":12.5,"currency":"EUR","name":"Wool Throw"}}`, i, filler, i%100))
	}
	var floor float64
	for _, pl := range pipelines {
		b.Run(pl.name, func(b *testing.B) {
			p := start(b, pl.yaml)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			send := func() {
				require.NoError(b, p.send(ctx, batch.Copy()))
				<-p.out
			}
			send()
			b.ResetTimer()
			n := 0
			for b.Loop() {
				send()
				n++
			}
			rate := float64(n*size) / b.Elapsed().Seconds()
			if pl.name == "empty" {
				floor = rate
			}
			b.ReportMetric(rate, "events/s")
			b.ReportMetric(rate/floor, "of_empty")
		})
	}
}
