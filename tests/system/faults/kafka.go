package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// broker is the suite's own client: it produces, and looks at offsets.
type broker struct {
	client *kgo.Client
	admin  *kadm.Client
}

func newBroker(seeds string) (*broker, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(seeds, ",")...),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchMaxBytes(4<<20),
		kgo.MetadataMinAge(100*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	return &broker{client, kadm.NewClient(client)}, nil
}

func (b *broker) create(ctx context.Context, partitions int32, topics ...string) error {
	ctx, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	size := "8388608"
	resp, err := b.admin.CreateTopics(ctx, partitions, 1, map[string]*string{"max.message.bytes": &size}, topics...)
	if err != nil {
		return err
	}
	return resp.Error()
}

// produce sends records in their order, and waits until they are stored.
func (b *broker) produce(ctx context.Context, topic string, records []message) error {
	failed := make(chan error, 1)
	for _, r := range records {
		b.client.Produce(ctx, &kgo.Record{Topic: topic, Key: r.key, Value: r.value}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := b.client.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return fmt.Errorf("produce: %w", err)
	default:
		return nil
	}
}

// lag is how many records of a topic a group has not committed.
func (b *broker) lag(ctx context.Context, group, topic string) (int64, error) {
	ctx, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	committed, err := b.admin.FetchOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	lag := int64(0)
	var failed error
	ends.Each(func(end kadm.ListedOffset) {
		if end.Err != nil {
			failed = end.Err
		}
		at := int64(0)
		if c, ok := committed.Lookup(end.Topic, end.Partition); ok && c.At > 0 {
			at = c.At
		}
		lag += end.Offset - at
	})
	return lag, failed
}

// caughtUp waits until a group has at most so many records to go.
func (b *broker) caughtUp(ctx context.Context, group, topic string, most int64, timeout time.Duration) error {
	return poll(ctx, timeout, fmt.Sprintf("the lag of %s to be at most %d", group, most), func() (bool, error) {
		lag, err := b.lag(ctx, group, topic)
		return err == nil && lag <= most, ctx.Err()
	})
}

// letters reads a topic of dead letters from start to end.
func (b *broker) letters(ctx context.Context, seeds, topic string) (letters []*rejection.Envelope, err error) {
	return letters, b.read(ctx, seeds, topic, func(value []byte) error {
		letter, err := rejection.Decode(value)
		letters = append(letters, letter)
		return err
	})
}

// read reads a topic from start to end.
func (b *broker) read(ctx context.Context, seeds, topic string, each func(value []byte) error) error {
	ctx, done := context.WithTimeout(ctx, 2*time.Minute)
	defer done()
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	if left == 0 {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(seeds, ",")...), kgo.ConsumeTopics(topic))
	if err != nil {
		return err
	}
	defer client.Close()
	for left > 0 {
		fetches := client.PollFetches(ctx)
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
