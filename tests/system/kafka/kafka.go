// Package kafka is the suites' own client of the broker under test: it creates
// topics, produces records, and reads offsets and whole topics.
package kafka

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// Client talks to one broker or cluster. It partitions by key as the product does.
type Client struct {
	seeds  []string
	client *kgo.Client
	admin  *kadm.Client
}

// Record is a key and a value to produce.
type Record struct {
	Key, Value []byte
}

// Connect returns a client for a comma-separated list of seed brokers.
func Connect(seeds string) (*Client, error) {
	c := &Client{seeds: strings.Split(seeds, ",")}
	var err error
	c.client, err = kgo.NewClient(
		kgo.SeedBrokers(c.seeds...),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchMaxBytes(4<<20),
		kgo.MetadataMinAge(100*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	c.admin = kadm.NewClient(c.client)
	return c, nil
}

// Close ends the client.
func (c *Client) Close() { c.client.Close() }

// CreateTopics creates topics that accept records of up to 8 MiB.
func (c *Client) CreateTopics(ctx context.Context, partitions int32, topics ...string) error {
	ctx, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	size := "8388608"
	resp, err := c.admin.CreateTopics(ctx, partitions, 1, map[string]*string{"max.message.bytes": &size}, topics...)
	if err != nil {
		return err
	}
	return resp.Error()
}

// Send produces records in their order, without waiting for them: Flush does.
// The returned function gives the first error among them.
func (c *Client) Send(ctx context.Context, topic string, records []Record) (flush func() error) {
	failed := make(chan error, 1)
	for _, r := range records {
		c.client.Produce(ctx, &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	return func() error {
		if err := c.client.Flush(ctx); err != nil {
			return err
		}
		select {
		case err := <-failed:
			return fmt.Errorf("produce: %w", err)
		default:
			return nil
		}
	}
}

// Produce produces records in their order and returns when the broker has
// stored them.
func (c *Client) Produce(ctx context.Context, topic string, records []Record) error {
	return c.Send(ctx, topic, records)()
}

// Lag returns how many records of a topic a group has not committed.
func (c *Client) Lag(ctx context.Context, group, topic string) (int64, error) {
	ctx, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	ends, err := c.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	committed, err := c.admin.FetchOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	lag := int64(0)
	var failed error
	ends.Each(func(end kadm.ListedOffset) {
		if end.Err != nil {
			failed = end.Err
		}
		lag += end.Offset
		if offset, ok := committed.Lookup(end.Topic, end.Partition); ok && offset.At > 0 {
			lag -= offset.At
		}
	})
	return lag, failed
}

// CaughtUp waits until the lag of a group is at most maxLag. Errors of the
// broker are retried, as it may be down for a while.
func (c *Client) CaughtUp(ctx context.Context, group, topic string, maxLag int64, timeout time.Duration) error {
	return process.Until(ctx, fmt.Sprintf("the lag of %s to be at most %d", group, maxLag), timeout, 50*time.Millisecond, func() (bool, error) {
		lag, err := c.Lag(ctx, group, topic)
		return err == nil && lag <= maxLag, ctx.Err()
	})
}

// Read passes the value of each record of a topic to a function, from the start
// of the topic to its present end.
func (c *Client) Read(ctx context.Context, topic string, each func(value []byte) error) error {
	ctx, done := context.WithTimeout(ctx, 2*time.Minute)
	defer done()
	ends, err := c.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	if left == 0 {
		return nil
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(c.seeds...), kgo.ConsumeTopics(topic))
	if err != nil {
		return err
	}
	defer reader.Close()
	for left > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("reading %s: %w", topic, ctx.Err())
		}
		for r := range fetches.RecordsAll() {
			if err := each(r.Value); err != nil {
				return err
			}
			left--
		}
	}
	return nil
}
