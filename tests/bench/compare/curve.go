package compare

import (
	"context"
	"fmt"
)

// point is one run of the curve.
type point struct {
	Customers  int      `json:"customers"`
	Processes  int      `json:"processes"`
	Batch      int      `json:"batch"`
	Run        measured `json:"run"`
	RedisBytes float64  `json:"redis_bytes"`
}

type curve struct {
	Conditions conditions `json:"conditions"`
	Points     []point    `json:"points"`
}

// measureCurve measures how the pipeline on Redis scales with customers, processes and
// batch sizes. Each process has its share of the customers, as in a consumer group.
func (b *bench) measureCurve(ctx context.Context, conditions conditions) error {
	c := &curve{Conditions: conditions}
	s, err := b.redis(ctx)
	if err != nil {
		return err
	}
	measure := func(events, customers, processes, batch int) error {
		file, err := b.natural(events, customers, processes)
		if err != nil {
			return err
		}
		p := onRedis
		p.batch = batch
		m, err := b.runPipeline(ctx, p, file)
		if err != nil {
			return err
		}
		used, err := s.memory(ctx)
		if err != nil {
			return err
		}
		b.say("%9s customers, %d processes, batches of %4d: %8s events/s, peak %s a process, Redis %s",
			thousands(float64(customers)), processes, batch, thousands(m.rate()), bytesText(float64(m.PeakBytes)), bytesText(used))
		c.Points = append(c.Points, point{Customers: customers, Processes: processes, Batch: batch, Run: m, RedisBytes: used})
		return nil
	}
	for _, customers := range b.sizes.curve {
		for _, processes := range []int{1, 2, 4} {
			if err := measure(b.sizes.curveRuns, customers, processes, 1000); err != nil {
				return err
			}
		}
		if err := b.forget(); err != nil {
			return err
		}
	}
	for _, batch := range []int{1, 10, 100, 1000, 5000} {
		events := b.sizes.curveRuns
		if batch < 100 {
			events = b.sizes.perEvent * min(batch, 10)
		}
		if err := measure(events, b.sizes.customers, 1, batch); err != nil {
			return err
		}
	}
	b.results.Curve = c
	c.print()
	return nil
}

// tune measures settings of both pipelines, to choose those in their configs.
func (b *bench) tune(ctx context.Context) error {
	file, err := b.natural(b.sizes.stock, b.sizes.customers, 1)
	if err != nil {
		return err
	}
	try := func(p pipeline, file eventFile) error {
		m, err := b.runPipeline(ctx, p, file)
		if err != nil {
			return err
		}
		fmt.Printf("%-10s threads %d, batch %4d, cap %4d: %9s events/s\n", p.name, p.threads, p.batch, p.cap, thousands(m.rate()))
		return nil
	}
	for _, threads := range []int{1, 2, 4} {
		for _, limit := range []int{16, 64, 256} {
			p := alternative
			p.threads, p.batch, p.cap = threads, 1000, limit
			if err := try(p, file); err != nil {
				return err
			}
		}
	}
	if file, err = b.natural(b.sizes.events, b.sizes.customers, 1); err != nil {
		return err
	}
	for _, p := range []pipeline{onRedis, onEmbedded} {
		for _, threads := range []int{1, 2, 4} {
			for _, batch := range []int{500, 1000, 2000, 5000} {
				p.threads, p.batch = threads, batch
				if err := try(p, file); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
