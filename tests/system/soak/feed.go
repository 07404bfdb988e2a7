package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
	"github.com/connect-personalize/connect-personalize/tests/process"
)

// The names the shipped configs go by.
const (
	eventsTopic = "events"
	group       = "soak"
)

func makeTopics(ctx context.Context, seeds string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(seeds, ",")...))
	if err != nil {
		return err
	}
	defer client.Close()
	made, err := kadm.NewClient(client).CreateTopics(ctx, 4, 1, nil, eventsTopic, "dead_letters", "dead_letters_parked", "dead_letters_rebuild", "changes")
	return errors.Join(err, made.Error())
}

// caughtUp waits until a group has read all events there are.
func caughtUp(ctx context.Context, seeds, group string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(seeds, ",")...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	return process.Until(ctx, group+" to have read all events", 20*time.Minute, 100*time.Millisecond, func() (bool, error) {
		ends, err := admin.ListEndOffsets(ctx, eventsTopic)
		if err != nil {
			return false, err
		}
		committed, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return false, err
		}
		var left int64
		ends.Each(func(end kadm.ListedOffset) {
			left += end.Offset
			if c, ok := committed.Lookup(end.Topic, end.Partition); ok && c.At > 0 {
				left -= c.At
			}
		})
		return left == 0, nil
	})
}

// feed is the synthetic shop, whose events go to the topic.
type feed struct {
	seeds  string
	shop   *shop.Shop
	client *kgo.Client
}

func newFeed(s *setup, o options) (*feed, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(s.seeds, ",")...),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.DefaultProduceTopic(eventsTopic),
	)
	if err != nil {
		return nil, err
	}
	const days = 30
	source, err := shop.New(shop.Settings{
		Seed: 1, Customers: o.customers, Start: time.Now().Add(-days * 24 * time.Hour),
		Rate: float64(o.events) / (days * 24 * 60 * 60),
	})
	if err != nil {
		client.Close()
		return nil, err
	}
	return &feed{s.seeds, source, client}, nil
}

func (f *feed) close() { f.client.Close() }

var customer = regexp.MustCompile(`"(?:userId|anonymousId)":"([^"]*)"`)

func (f *feed) produce(ctx context.Context, events int) error {
	records := make([]*kgo.Record, events)
	for i := range records {
		event := append([]byte(nil), f.shop.Next().Data...)
		records[i] = &kgo.Record{Value: event}
		if id := customer.FindSubmatch(event); id != nil {
			records[i].Key = id[1]
		}
	}
	return f.client.ProduceSync(ctx, records...).FirstErr()
}

// fill puts so many events into the profiles.
func (f *feed) fill(ctx context.Context, events int) error {
	const part = 5000
	for ; events > 0; events -= part {
		if err := f.produce(ctx, min(part, events)); err != nil {
			return err
		}
	}
	return caughtUp(ctx, f.seeds, group)
}

// flow produces so many events a second until its context ends.
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
		// What is on its way at the end gets there.
		if err := f.produce(context.WithoutCancel(ctx), rate/ticks); err != nil {
			return err
		}
	}
}
