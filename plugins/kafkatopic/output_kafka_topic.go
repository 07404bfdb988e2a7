package kafkatopic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	fieldTopic       = "topic"
	fieldKey         = "key"
	fieldMetadata    = "metadata"
	fieldIdempotent  = "idempotent_write"
	fieldCompression = "compression"
	fieldMessageMax  = "max_message_bytes"
	fieldMaxInFlight = "max_in_flight"
	fieldBatching    = "batching"
)

func init() {
	service.MustRegisterBatchOutput(pluginName, outputSpec(), func(conf *service.ParsedConfig, res *service.Resources) (out service.BatchOutput, batching service.BatchPolicy, inFlight int, err error) {
		if batching, err = conf.FieldBatchPolicy(fieldBatching); err != nil {
			return
		}
		if inFlight, err = conf.FieldMaxInFlight(); err != nil {
			return
		}
		out, err = newOutput(conf, res)
		return
	})
}

func outputSpec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Services").
		Summary("Writes messages to a topic of Kafka or Redpanda and waits until all in-sync replicas have them.").
		Description(`
A message is acknowledged when all in-sync replicas have stored it. Create topics with a replication factor of 3 and `+"`min.insync.replicas=2`"+`: then the loss of one broker loses no acknowledged message.

Writes are idempotent: a record that is sent again because a response was lost is stored once and in order. While brokers are unreachable, writes wait and the input receives back-pressure. A write that is not accepted for 30 seconds, for example because a topic has too few in-sync replicas, is logged with the cause; the output disconnects, which makes `+"`/ready`"+` fail, and connects again once the topic can be written. The metric `+"`kafka_topic_errors`"+` counts the errors of the Kafka client by `+"`cause`"+`, including those that it retries.

Records with the same `+"`key`"+` go to the same partition. The partitioner uses the hash of Kafka's own clients (murmur2), so all producers agree. The topic must exist, with all the partitions that it will ever need.`).
		Fields(connectionFields()...).
		Fields(
			service.NewInterpolatedStringField(fieldTopic).
				Description("Topic to write to.").
				Example("events"),
			service.NewInterpolatedStringField(fieldKey).
				Description("Key of the record. Records without a key, or with an empty one, are distributed over the partitions.").
				Optional().
				Example(`${! this.userId | this.anonymousId }`),
			service.NewMetadataFilterField(fieldMetadata).
				Description("Metadata to send as headers of the record. The default sends none.").
				Optional(),
			service.NewBoolField(fieldIdempotent).
				Description("Enables idempotent writes. Turn it off only if the brokers do not permit them to this user.").
				Default(true).
				Advanced(),
			service.NewStringEnumField(fieldCompression, "snappy", "lz4", "zstd", "gzip", "none").
				Description("Compression of batches.").
				Default("snappy").
				Advanced(),
			service.NewStringField(fieldMessageMax).
				Description("Maximum size of a batch of records before compression. The topic's `max.message.bytes` must be at least as large. A message that exceeds either limit can never be written and is retried without end: set both above the size of any message.").
				Default("1MiB").
				Advanced(),
			service.NewOutputMaxInFlightField().Default(64),
			service.NewBatchPolicyField(fieldBatching),
		).
		Example("Events by customer", "All events of a customer are in one partition, in their order of arrival.", `
output:
  kafka_topic:
    seed_brokers: [ "${KAFKA_SEEDS:127.0.0.1:9092}" ]
    topic: events
    key: ${! this.userId | this.anonymousId }
`)
}

type output struct {
	opts     []kgo.Opt
	topic    *service.InterpolatedString
	fixed    string // the topic, if it contains no interpolation
	key      *service.InterpolatedString
	metadata *service.MetadataFilter

	log        *clientLog
	stallAfter time.Duration

	mu      sync.Mutex // guards what follows
	client  *kgo.Client
	stalled bool // the last client could not write
}

// stallAfter is the time after which a write that brokers do not accept is reported
// and the output disconnects. A restart of a broker is shorter.
const stallAfter = 30 * time.Second

var codecs = map[string]kgo.CompressionCodec{
	"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	"gzip": kgo.GzipCompression(), "none": kgo.NoCompression(),
}

func newOutput(conf *service.ParsedConfig, res *service.Resources) (*output, error) {
	out := &output{log: newClientLog(res), stallAfter: stallAfter}
	var err error
	if out.opts, err = parseConnection(conf, out.log); err != nil {
		return nil, err
	}
	if out.topic, err = conf.FieldInterpolatedString(fieldTopic); err != nil {
		return nil, err
	}
	out.fixed, _ = out.topic.Static()
	if conf.Contains(fieldKey) {
		if out.key, err = conf.FieldInterpolatedString(fieldKey); err != nil {
			return nil, err
		}
	}
	if conf.Contains(fieldMetadata) {
		if out.metadata, err = conf.FieldMetadataFilter(fieldMetadata); err != nil {
			return nil, err
		}
	}
	compression, err := conf.FieldString(fieldCompression)
	if err != nil {
		return nil, err
	}
	largest, err := bytesField(conf, fieldMessageMax)
	if err != nil {
		return nil, err
	}
	out.opts = append(out.opts,
		kgo.ProducerBatchCompression(codecs[compression]),
		kgo.ProducerBatchMaxBytes(int32(largest)),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProduceRequestTimeout(10*time.Second),
		kgo.UnknownTopicRetries(3),
	)
	idempotent, err := conf.FieldBool(fieldIdempotent)
	if err != nil {
		return nil, err
	}
	if !idempotent {
		out.opts = append(out.opts, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	return out, nil
}

// Connect implements service.BatchOutput.
func (o *output) Connect(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client != nil {
		return nil
	}
	var topics []string
	if o.fixed != "" {
		topics = append(topics, o.fixed)
	}
	client, err := connect(ctx, o.opts, topics...)
	if err != nil {
		return err
	}
	if o.stalled {
		if err := checkReplicas(ctx, client, topics); err != nil {
			client.Close()
			return err
		}
	}
	o.client, o.stalled = client, false
	return nil
}

// checkReplicas returns an error if a partition has fewer in-sync replicas than its
// topic requires, so that every write would fail.
func checkReplicas(ctx context.Context, client *kgo.Client, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	ctx, done := context.WithTimeout(ctx, checkTimeout)
	defer done()
	admin := kadm.NewClient(client)
	configs, err := admin.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil // without the permission the next write shows whether it works
	}
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return err
	}
	for _, config := range configs {
		for _, c := range config.Configs {
			required, err := strconv.Atoi(c.MaybeValue())
			if c.Key != "min.insync.replicas" || err != nil {
				continue
			}
			for _, p := range details[config.Name].Partitions.Sorted() {
				if len(p.ISR) < required {
					return fmt.Errorf("topic %q, partition %d: %d in-sync replicas, min.insync.replicas is %d; start the missing brokers", config.Name, p.Partition, len(p.ISR), required)
				}
			}
		}
	}
	return nil
}

// stall disconnects after writes were not accepted in time. Connect succeeds again
// once the topic can be written.
func (o *output) stall(client *kgo.Client, cause error) {
	o.log.log.Errorf("Kafka has not accepted writes for %v; connecting again: %v", o.stallAfter, cause)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client == client {
		o.client, o.stalled = nil, true
		go client.Close()
	}
}

// WriteBatch implements service.BatchOutput.
func (o *output) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	o.mu.Lock()
	client := o.client
	o.mu.Unlock()
	if client == nil {
		return service.ErrNotConnected
	}
	errs := make([]error, len(batch))
	attempt, cancel := context.WithTimeout(ctx, o.stallAfter)
	defer cancel()
	var written sync.WaitGroup
	for i := range batch {
		r, err := o.record(batch, i)
		if err != nil {
			errs[i] = err
			continue
		}
		written.Add(1)
		client.Produce(attempt, r, func(_ *kgo.Record, err error) {
			errs[i] = err
			written.Done()
		})
	}
	slow := time.AfterFunc(o.stallAfter/10, func() { o.log.stalled.Store(true) })
	written.Wait()
	if !slow.Stop() {
		o.log.stalled.Store(false)
	}
	err := failures(batch, errs)
	if err != nil && attempt.Err() != nil && ctx.Err() == nil {
		o.stall(client, err)
	}
	return err
}

func (o *output) record(batch service.MessageBatch, i int) (*kgo.Record, error) {
	msg := batch[i]
	value, err := msg.AsBytes()
	if err != nil {
		return nil, err
	}
	r := &kgo.Record{Value: value, Topic: o.fixed}
	if r.Topic == "" {
		if r.Topic, err = batch.TryInterpolatedString(i, o.topic); err != nil {
			return nil, fmt.Errorf("topic: %w", err)
		}
	}
	if o.key != nil {
		if r.Key, err = batch.TryInterpolatedBytes(i, o.key); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		// All records with an empty key would go to one partition.
		if len(r.Key) == 0 {
			r.Key = nil
		}
	}
	if o.metadata != nil {
		err := o.metadata.Walk(msg, func(name, value string) error {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
	}
	return r, nil
}

// failures returns an error that marks the messages that were not written, so
// that only these are retried.
func failures(batch service.MessageBatch, errs []error) error {
	var all *service.BatchError
	for i, err := range errs {
		if err == nil {
			continue
		}
		if errors.Is(err, kerr.MessageTooLarge) {
			err = fmt.Errorf("%w; raise max_message_bytes, and max.message.bytes of the topic", err)
		}
		if all == nil {
			all = service.NewBatchError(batch, err)
		}
		all = all.Failed(i, err)
	}
	if all == nil {
		return nil
	}
	return all
}

// Close implements service.BatchOutput.
func (o *output) Close(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client != nil {
		o.client.Close()
		o.client = nil
	}
	return nil
}
