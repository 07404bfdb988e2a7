package soak

import (
	"context"
	"regexp"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
	"github.com/connect-personalize/connect-personalize/tests/system/kafka"
)

// Names in the shipped configs.
const (
	eventsTopic = "events"
	group       = "soak"
)

// feed sends the events of the synthetic shop to the topic.
type feed struct {
	broker *kafka.Client
	shop   *shop.Shop
}

func newFeed(s *setup, o options) (*feed, error) {
	const days = 30
	source, err := shop.New(shop.Settings{
		Seed: 1, Customers: o.customers, Start: time.Now().Add(-days * 24 * time.Hour),
		Rate: float64(o.events) / (days * 24 * 60 * 60),
	})
	if err != nil {
		return nil, err
	}
	return &feed{s.broker, source}, nil
}

var customer = regexp.MustCompile(`"(?:userId|anonymousId)":"([^"]*)"`)

func (f *feed) produce(ctx context.Context, events int) error {
	records := make([]kafka.Record, events)
	for i := range records {
		event := append([]byte(nil), f.shop.Next().Data...)
		records[i].Value = event
		if id := customer.FindSubmatch(event); id != nil {
			records[i].Key = id[1]
		}
	}
	return f.broker.Produce(ctx, eventsTopic, records)
}

// fill sends events and waits until they are in the profiles.
func (f *feed) fill(ctx context.Context, events int) error {
	const part = 5000
	for ; events > 0; events -= part {
		if err := f.produce(ctx, min(part, events)); err != nil {
			return err
		}
	}
	return f.broker.CaughtUp(ctx, group, eventsTopic, 0, 20*time.Minute)
}

// flow sends events at a rate per second until its context ends.
func (f *feed) flow(ctx context.Context, rate int) error {
	const ticks = 5 // a second
	tick := time.NewTicker(time.Second / ticks)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		// A batch in flight at the end is completed.
		if err := f.produce(context.WithoutCancel(ctx), rate/ticks); err != nil {
			return err
		}
	}
}
