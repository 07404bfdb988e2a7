package kafkatopic

import (
	"context"
	"errors"
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ReadAll passes the messages of topics to handle, in batches of at most size:
// from the oldest message to the end of each partition at the time of the call,
// each partition in order. conf has the fields of a `kafka_topic` input in YAML.
// ReadAll joins no consumer group and commits nothing.
func ReadAll(ctx context.Context, conf string, size int, handle func(messages [][]byte) error) error {
	parsed, err := inputSpec().ParseYAML(conf, nil)
	if err != nil {
		return err
	}
	res := service.MockResources()
	opts, err := parseConnection(parsed, newClientLog(res))
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
	client, ends, err := fromStart(ctx, opts, topics)
	if err != nil {
		return err
	}
	defer client.Close()
	var batch [][]byte
	for len(ends) > 0 {
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
			tp := topicPartition{r.Topic, r.Partition}
			end, pending := ends[tp]
			if !pending {
				return // produced after the call
			}
			if r.Offset < end && !r.Attrs.IsControl() {
				batch = append(batch, r.Value)
			}
			if r.Offset+1 >= end {
				delete(ends, tp)
			}
		})
		if len(batch) > 0 {
			if err := handle(batch); err != nil {
				return err
			}
		}
	}
	return nil
}

// fromStart returns a client that reads topics from their beginning, and the
// present end offset of each partition that has messages.
func fromStart(ctx context.Context, opts []kgo.Opt, topics []string) (*kgo.Client, map[topicPartition]int64, error) {
	adminClient, err := connect(ctx, opts, topics...)
	if err != nil {
		return nil, nil, err
	}
	defer adminClient.Close()
	admin := kadm.NewClient(adminClient)
	starts, err := admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, nil, err
	}
	listed, err := admin.ListEndOffsets(ctx, topics...)
	if err := errors.Join(err, starts.Error(), listed.Error()); err != nil {
		return nil, nil, err
	}
	ends, from := map[topicPartition]int64{}, map[string]map[int32]kgo.Offset{}
	listed.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		if end.Offset <= start.Offset {
			return
		}
		ends[topicPartition{end.Topic, end.Partition}] = end.Offset
		if from[end.Topic] == nil {
			from[end.Topic] = map[int32]kgo.Offset{}
		}
		from[end.Topic][end.Partition] = kgo.NewOffset().At(start.Offset)
	})
	// A topic of transactions may end with control records; only with them does
	// the last offset arrive.
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumePartitions(from), kgo.KeepControlRecords())...)
	return client, ends, err
}
