package kafkatopic

import (
	"context"
	"errors"
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ReadAll gives everything that is in the topics of a `kafka_topic` input, whose
// fields conf has in YAML, to take, in batches of at most size: from the oldest
// message to those that are the latest when it begins, each partition in order.
// It is a member of no group and leaves nothing behind.
func ReadAll(ctx context.Context, conf string, size int, take func(messages [][]byte) error) error {
	parsed, err := inputSpec().ParseYAML(conf, nil)
	if err != nil {
		return err
	}
	res := service.MockResources()
	opts, err := parseConnection(parsed, res.Logger())
	if err != nil {
		return err
	}
	topics, err := parsed.FieldStringList(fieldTopics)
	if err != nil {
		return err
	}
	if len(topics) == 0 {
		return errors.New("topics is empty; name at least one topic")
	}
	client, left, err := fromStart(ctx, opts, topics)
	if err != nil {
		return err
	}
	defer client.Close()
	var batch [][]byte
	for len(left) > 0 {
		fetches := client.PollRecords(ctx, size)
		if err := fetches.Err0(); err != nil {
			return err
		}
		var failed error
		fetches.EachError(func(topic string, partition int32, err error) {
			failed = fmt.Errorf("topic %q, partition %d: %w", topic, partition, err)
		})
		if failed != nil {
			return failed
		}
		batch = batch[:0]
		fetches.EachRecord(func(r *kgo.Record) {
			at := place{r.Topic, r.Partition}
			end, reading := left[at]
			if !reading {
				return // it came after the begin
			}
			if r.Offset < end && !r.Attrs.IsControl() {
				batch = append(batch, r.Value)
			}
			if r.Offset+1 >= end {
				delete(left, at)
			}
		})
		if len(batch) > 0 {
			if err := take(batch); err != nil {
				return err
			}
		}
	}
	return nil
}

// fromStart returns a client that reads topics from their beginning, and by
// partition, of those that have messages, where they end now.
func fromStart(ctx context.Context, opts []kgo.Opt, topics []string) (*kgo.Client, map[place]int64, error) {
	asking, err := connect(ctx, opts, topics...)
	if err != nil {
		return nil, nil, err
	}
	defer asking.Close()
	admin := kadm.NewClient(asking)
	starts, err := admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, nil, err
	}
	ends, err := admin.ListEndOffsets(ctx, topics...)
	if err := errors.Join(err, starts.Error(), ends.Error()); err != nil {
		return nil, nil, err
	}
	left, from := map[place]int64{}, map[string]map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		if end.Offset <= start.Offset {
			return
		}
		left[place{end.Topic, end.Partition}] = end.Offset
		if from[end.Topic] == nil {
			from[end.Topic] = map[int32]kgo.Offset{}
		}
		from[end.Topic][end.Partition] = kgo.NewOffset().At(start.Offset)
	})
	// Control records are what some topics end with.
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumePartitions(from), kgo.KeepControlRecords())...)
	return client, left, err
}
