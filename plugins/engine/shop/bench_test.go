package shop

import (
	"testing"
	"time"
)

func BenchmarkNext(b *testing.B) {
	for _, c := range []struct {
		name     string
		settings Settings
	}{
		{"clean", Settings{Customers: 10_000, DailyEvents: 20}},
		{"faults", Settings{Customers: 10_000, DailyEvents: 20, Invalid: 0.01, Late: 0.02, Duplicated: 0.01, MaxLateness: time.Hour}},
		{"million", Settings{Customers: 1_000_000, DailyEvents: 20}},
		{"rate", Settings{Customers: 10_000, Rate: 1000}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.settings.Seed = 1
			c.settings.Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			s, err := New(c.settings)
			if err != nil {
				b.Fatal(err)
			}
			var bytes int
			b.ReportAllocs()
			for b.Loop() {
				bytes += len(s.Next().Data)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(bytes)/float64(b.N), "bytes/event")
		})
	}
}
