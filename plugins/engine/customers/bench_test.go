package customers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

// shopEvents makes n events of about 400 bytes, spread over customers with a
// heavy tail, as a shop's are.
func shopEvents(n, customers int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(r, 1.1, 10, uint64(customers-1))
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	events := make([][]byte, n)
	for i := range events {
		user := zipf.Uint64()
		at := start.Add(time.Duration(i) * 100 * time.Millisecond).Format("2006-01-02T15:04:05.000Z")
		tail := fmt.Sprintf(`"messageId":"0191d5a0-%08x","userId":"customer-%d","timestamp":"%s","receivedAt":"%s","sentAt":"%s","source":"web","context":{"ip":"203.0.113.7","userAgent":"Mozilla/5.0 (X11; Linux x86_64)","library":{"name":"analytics.js","version":"5.2.0"}}`, i, user, at, at, at)
		switch k := r.IntN(100); {
		case k < 40:
			events[i] = []byte(`{"type":"page","name":"Product","properties":{"url":"https://shop.example.com/p/12","path":"/p/12","title":"A product","referrer":""},` + tail + `}`)
		case k < 75:
			events[i] = fmt.Appendf(nil, `{"type":"track","event":"Product Viewed","properties":{"product_id":"p-%d","sku":"sku-%d","category":"c%d","name":"A product","price":%d.99,"currency":"EUR"},%s}`, r.IntN(200), r.IntN(200), r.IntN(12), r.IntN(90), tail)
		case k < 88:
			events[i] = fmt.Appendf(nil, `{"type":"track","event":"Product Added","properties":{"cart_id":"x","product_id":"p-%d","category":"c%d","price":%d.99,"quantity":1},%s}`, r.IntN(200), r.IntN(12), r.IntN(90), tail)
		case k < 94:
			events[i] = fmt.Appendf(nil, `{"type":"track","event":"Email Opened","properties":{"campaign_id":"c1"},%s}`, tail)
		default:
			events[i] = fmt.Appendf(nil, `{"type":"track","event":"Order Completed","properties":{"order_id":"o%d","total":%d.5,"currency":"EUR","products":[{"product_id":"p1","category":"c1","price":5.25,"quantity":1},{"product_id":"p2","category":"c2","price":9.99,"quantity":2}]},%s}`, i, r.IntN(200), tail)
		}
	}
	return events
}

func openRetail(tb testing.TB, path string) *Service {
	def, err := profiledefinition.Read("../../../configs/retail/profile.yaml")
	require.NoError(tb, err)
	s, err := embedded.Open(embedded.Options{Path: path})
	require.NoError(tb, err)
	p := New(def, s, Options{})
	tb.Cleanup(func() { require.NoError(tb, p.Close(context.Background())) })
	return p
}

// BenchmarkUpdate takes batches of shop events into the retail profile, in a
// store in memory and in one on disk. An operation is an event.
func BenchmarkUpdate(b *testing.B) {
	for _, size := range []int{1, 100, 1000, 5000} {
		b.Run(fmt.Sprintf("memory/batch=%d", size), func(b *testing.B) { benchmarkUpdate(b, embedded.Memory, size) })
	}
	b.Run("disk/batch=1000", func(b *testing.B) { benchmarkUpdate(b, b.TempDir(), 1000) })
}

func benchmarkUpdate(b *testing.B, path string, size int) {
	const customers = 100_000
	p := openRetail(b, path)
	events := shopEvents(b.N+size, customers)
	b.SetBytes(400)
	b.ReportAllocs()
	b.ResetTimer()
	for at := 0; at < b.N; at += size {
		if _, err := p.Update(context.Background(), events[at:min(at+size, b.N)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads customers with some 20 events each, one at a time.
func BenchmarkRead(b *testing.B) {
	const customers = 1000
	p := openRetail(b, embedded.Memory)
	events := shopEvents(20*customers, customers)
	_, err := p.Update(context.Background(), events)
	require.NoError(b, err)
	b.ReportAllocs()
	b.ResetTimer()
	size := 0
	for i := 0; b.Loop(); i++ {
		results, err := p.Read(context.Background(), []string{fmt.Sprintf("customer-%d", 100+i%800)}, Query{})
		if err != nil {
			b.Fatal(err)
		}
		size += len(results[0].JSON)
	}
	b.ReportMetric(float64(size)/float64(b.N), "bytes/profile")
}

// BenchmarkUpdateWithSegments takes batches of shop events into profiles with
// the features of the shop and no, few and many segments: of comparisons, and
// of queries that are more than that. An operation is an event.
func BenchmarkUpdateWithSegments(b *testing.B) {
	text, err := os.ReadFile("../../../configs/retail/profile.yaml")
	require.NoError(b, err)
	features, _, _ := strings.Cut(string(text), "\n# How customers are reached")
	features, _, _ = strings.Cut(features, "\n# Thresholds of the segments")
	for _, c := range []struct {
		segments int
		rule     string
	}{
		{0, ""},
		{10, "features.revenue_90d > %d && features.orders_30d > 0"},
		{50, "features.revenue_90d > %d && features.orders_30d > 0"},
		{10, "features.revenue_90d.or(0) > %d && features.orders_30d > 0"},
		{50, "features.revenue_90d.or(0) > %d && features.orders_30d > 0"},
	} {
		kind := "comparisons"
		if strings.Contains(c.rule, ".or(") {
			kind = "queries"
		}
		b.Run(fmt.Sprintf("%s/segments=%d", kind, c.segments), func(b *testing.B) {
			definition := features
			if c.segments > 0 {
				definition += "\nsegments:\n"
			}
			for i := range c.segments {
				definition += fmt.Sprintf("  - { name: s%d, when: '"+c.rule+"' }\n", i, 20*i)
			}
			const size = 1000
			p := open(b, definition)
			events := shopEvents(b.N+size, 100_000)
			b.ReportAllocs()
			b.ResetTimer()
			for at := 0; at < b.N; at += size {
				if _, err := p.Update(context.Background(), events[at:min(at+size, b.N)]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
