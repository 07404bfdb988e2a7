package kafkatopic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	fieldTopics            = "topics"
	fieldConsumerGroup     = "consumer_group"
	fieldInstanceID        = "instance_id"
	fieldStartOffset       = "start_offset"
	fieldBatchRecords      = "max_batch_records"
	fieldBatchBytes        = "max_batch_bytes"
	fieldPartitionBuffer   = "partition_buffer_bytes"
	fieldFetchBytes        = "fetch_max_bytes"
	fieldCommitPeriod      = "commit_period"
	fieldSessionTimeout    = "session_timeout"
	fieldHeartbeatInterval = "heartbeat_interval"
	fieldRebalanceTimeout  = "rebalance_timeout"
)

// Metadata of a message.
const (
	metaKey       = "kafka_key"
	metaTopic     = "kafka_topic"
	metaPartition = "kafka_partition"
	metaOffset    = "kafka_offset"
	metaTimestamp = "kafka_timestamp_ms"
)

func init() {
	service.MustRegisterBatchInput(pluginName, inputSpec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
		in, err := newInput(conf, res)
		if err != nil {
			return nil, err
		}
		return service.AutoRetryNacksBatched(in), nil
	})
}

func inputSpec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Services").
		Summary("Consumes topics of Kafka or Redpanda as a member of a consumer group, each partition in order.").
		Description(`
The members of a consumer group share the partitions of the topics. To share the work, start more processes with the same config. Any of them may stop at any time.

### Order and parallelism

The messages of a partition are processed in order: a batch enters the pipeline when the previous batch of its partition has been acknowledged. Batches of different partitions are processed in parallel, so set `+"`pipeline.threads`"+` to the number of cores, and create at least two partitions for each core of all processes. The records of a customer are in one partition if the producer uses the customer id as the key.

### Batches

A batch contains the records that arrived in its partition while the previous batch was processed, up to `+"`max_batch_records` and `max_batch_bytes`"+`. With consumer lag, batches are full and cost the least for each event; without lag, each event is processed immediately.

### Delivery

Delivery is at-least-once. An offset is committed only after its batch was acknowledged, that is after the outputs have stored or delivered everything the batch caused. After a crash, and when a partition moves to another process, the messages after the last commit are delivered again. A batch that could not be delivered is retried until it can be. Before a partition moves or the process ends, the input waits for the batch in flight and commits it, so an orderly restart repeats nothing.

### Limits

Fetching a partition pauses while `+"`partition_buffer_bytes`"+` of it wait. Memory is bounded by that size times the number of assigned partitions, plus `+"`fetch_max_bytes`"+` for each broker for fetches in flight. A pipeline that waits for its store therefore stops fetching (back-pressure).

### Metadata

`+"`kafka_key`, `kafka_topic`, `kafka_partition`, `kafka_offset`, `kafka_timestamp_ms`"+`, and the headers of the record under their own names.

### Metrics

- `+"`kafka_topic_lag`"+`, gauge with the labels `+"`topic` and `partition`"+`: records of the partition that are not acknowledged yet
- `+"`kafka_topic_partitions`"+`, gauge: number of partitions assigned to this process`).
		Fields(connectionFields()...).
		Fields(
			service.NewStringListField(fieldTopics).
				Description("Topics to consume. They must exist.").
				Example([]string{"events"}).
				LintRule(`root = if this.type() == "array" && (this.length() == 0 || this.any(topic -> !topic.string().re_match("^[A-Za-z0-9._-]{1,249}$"))) { [ "a topic is 1 to 249 letters, digits, dots, dashes and underscores: write for example events" ] }`),
			service.NewStringField(fieldConsumerGroup).
				Description("Name of the consumer group. Brokers keep the committed offsets under this name; a new name starts at `start_offset`.").
				Example("profiles").
				LintRule(`root = if this.string() == "" { [ "consumer_group is empty: write a name, such as profiles" ] }`),
			service.NewStringField(fieldInstanceID).
				Description("Name of this process that stays the same over restarts, such as the name of its pod (static membership). Its partitions are then reserved for `session_timeout`, so a restart moves none. Each process of a group needs its own name.").
				Default("").
				Advanced(),
			service.NewStringEnumField(fieldStartOffset, "earliest", "latest").
				Description("Where a consumer group without committed offsets begins: at the oldest record of the topic, or with records produced from now on.").
				Default("earliest").
				Advanced(),
			service.NewIntField(fieldBatchRecords).
				Description("Maximum number of messages in a batch.").
				Default(1000).
				LintRule(`root = if this < 1 || this > 100000 { [ "max_batch_records must be from 1 to 100000" ] }`),
			service.NewStringField(fieldBatchBytes).
				Description("Maximum size of a batch with more than one message.").
				Default("2MiB").
				Advanced(),
			service.NewStringField(fieldPartitionBuffer).
				Description("Size of the waiting records of a partition at which fetching it pauses. One fetch can exceed it.").
				Default("2MiB").
				Advanced(),
			service.NewStringField(fieldFetchBytes).
				Description("Maximum size of one response of a broker.").
				Default("16MiB").
				Advanced(),
			service.NewDurationField(fieldCommitPeriod).
				Description("Interval between commits of offsets.").
				Default("1s").
				Advanced(),
			service.NewDurationField(fieldSessionTimeout).
				Description("Time without a heartbeat after which the partitions of a process are assigned to other processes. Brokers limit it, by default to 6s to 30m.").
				Default("20s").
				Advanced(),
			service.NewDurationField(fieldHeartbeatInterval).
				Description("Interval between heartbeats: at most a third of `session_timeout`.").
				Default("3s").
				Advanced(),
			service.NewDurationField(fieldRebalanceTimeout).
				Description("Time that processes have to finish and release partitions that move.").
				Default("30s").
				Advanced(),
		).
		Example("Events to profiles", "Any number of processes with this config share the topic.", `
input:
  kafka_topic:
    seed_brokers: [ "${KAFKA_SEEDS:127.0.0.1:9092}" ]
    topics: [ events ]
    consumer_group: profiles

pipeline:
  threads: -1 # the number of cores
`)
}

type input struct {
	opts      []kgo.Opt
	topics    []string
	group     string
	session   time.Duration
	rebalance time.Duration
	limits    limits
	log       *service.Logger
	lag       *service.MetricGauge
	count     *service.MetricGauge

	mu      sync.Mutex // guards what follows
	client  *kgo.Client
	parts   *partitions
	stop    context.CancelFunc
	stopped chan struct{}

	lagMu sync.Mutex
	ends  map[topicPartition]int64 // the offset after the last record of a partition
}

type limits struct {
	records, batchBytes, bufferBytes int
}

func newInput(conf *service.ParsedConfig, res *service.Resources) (*input, error) {
	in := &input{log: res.Logger(), ends: map[topicPartition]int64{}}
	in.lag = res.Metrics().NewGauge("kafka_topic_lag", "topic", "partition")
	in.count = res.Metrics().NewGauge("kafka_topic_partitions")
	var err error
	if in.opts, err = parseConnection(conf, in.log); err != nil {
		return nil, err
	}
	if in.topics, err = conf.FieldStringList(fieldTopics); err != nil {
		return nil, err
	}
	if len(in.topics) == 0 {
		return nil, errors.New("topics is empty; name at least one topic")
	}
	if in.group, err = conf.FieldString(fieldConsumerGroup); err != nil {
		return nil, err
	}
	if in.group == "" {
		return nil, errors.New("consumer_group is empty; write a name, such as profiles")
	}
	if in.limits.records, err = conf.FieldInt(fieldBatchRecords); err != nil {
		return nil, err
	}
	var fetch int
	for _, field := range []struct {
		name string
		into *int
	}{{fieldBatchBytes, &in.limits.batchBytes}, {fieldPartitionBuffer, &in.limits.bufferBytes}, {fieldFetchBytes, &fetch}} {
		if *field.into, err = bytesField(conf, field.name); err != nil {
			return nil, err
		}
	}
	var commit, heartbeat time.Duration
	for _, field := range []struct {
		name string
		into *time.Duration
	}{
		{fieldCommitPeriod, &commit}, {fieldSessionTimeout, &in.session},
		{fieldHeartbeatInterval, &heartbeat}, {fieldRebalanceTimeout, &in.rebalance},
	} {
		if *field.into, err = conf.FieldDuration(field.name); err != nil {
			return nil, err
		}
	}
	if heartbeat > in.session/3 {
		return nil, fmt.Errorf("heartbeat_interval is %v; write at most a third of session_timeout, %v", heartbeat, in.session/3)
	}
	start := kgo.NewOffset().AtStart()
	if from, err := conf.FieldString(fieldStartOffset); err != nil {
		return nil, err
	} else if from == "latest" {
		start = kgo.NewOffset().AtEnd()
	}
	instance, err := conf.FieldString(fieldInstanceID)
	if err != nil {
		return nil, err
	}
	in.opts = append(in.opts,
		kgo.ConsumeTopics(in.topics...),
		kgo.ConsumerGroup(in.group),
		kgo.ConsumeResetOffset(start),
		kgo.FetchMaxBytes(int32(fetch)),
		kgo.FetchMaxPartitionBytes(int32(min(fetch, in.limits.bufferBytes))),
		kgo.FetchMaxWait(time.Second),
		kgo.SessionTimeout(in.session),
		kgo.HeartbeatInterval(heartbeat),
		kgo.RebalanceTimeout(in.rebalance),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(commit),
		// A rebalance waits until fetched records are queued. Otherwise records
		// could be queued for a partition that was revoked and assigned again.
		kgo.BlockRebalanceOnPoll(),
	)
	if instance != "" {
		in.opts = append(in.opts, kgo.InstanceID(instance))
	}
	return in, nil
}

func bytesField(conf *service.ParsedConfig, name string) (int, error) {
	text, err := conf.FieldString(name)
	if err != nil {
		return 0, err
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > 1<<30 {
		return 0, fmt.Errorf("%s is %q; write a size up to 1GiB, such as 1MiB", name, text)
	}
	return int(n), nil
}

// Connect implements service.BatchInput.
func (in *input) Connect(ctx context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.client != nil {
		return nil
	}
	var client *kgo.Client
	parts := newPartitions(in.limits.records, in.limits.batchBytes, in.limits.bufferBytes, func(last *kgo.Record) {
		client.MarkCommitRecords(last)
		in.settled(last)
	})
	client, err := connect(ctx, append(in.opts[:len(in.opts):len(in.opts)],
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			parts.assign(assigned)
			in.report(parts, "Assigned", assigned)
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, revoked map[string][]int32) {
			ctx, done := context.WithTimeout(ctx, min(in.rebalance/2, in.session/2))
			defer done()
			parts.drain(ctx, revoked)
			if err := client.CommitMarkedOffsets(ctx); err != nil && len(revoked) > 0 {
				in.log.Warnf("Offsets of revoked partitions were not committed, some of their messages will be delivered again: %v", err)
			}
			in.clearLag(revoked)
			in.report(parts, "Revoked", revoked)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			parts.drop(lost)
			in.clearLag(lost)
			in.report(parts, "Lost the group membership and with it", lost)
		}),
	), in.topics...)
	if err != nil {
		return err
	}
	polling, stop := context.WithCancel(context.Background())
	in.client, in.parts, in.stop, in.stopped = client, parts, stop, make(chan struct{})
	go in.poll(polling, client, parts, in.stopped)
	return nil
}

// poll fetches records and queues them until ctx ends.
func (in *input) poll(ctx context.Context, client *kgo.Client, parts *partitions, stopped chan<- struct{}) {
	defer close(stopped)
	paused := map[topicPartition]bool{}
	var lastError string
	for ctx.Err() == nil {
		// With paused partitions the wait is short, to resume them in time.
		wait, done := ctx, context.CancelFunc(func() {})
		if len(paused) > 0 {
			wait, done = context.WithTimeout(ctx, resumeEvery)
		}
		fetches := client.PollFetches(wait)
		done()
		full := map[string][]int32{}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			tp := topicPartition{p.Topic, p.Partition}
			if len(p.Records) == 0 {
				return
			}
			in.fetched(tp, p.HighWatermark, p.Records[0].Offset)
			if parts.add(tp, p.Records) {
				full[tp.topic] = append(full[tp.topic], tp.partition)
				paused[tp] = true
			}
		})
		if len(full) > 0 {
			client.PauseFetchPartitions(full)
		}
		if err := fetchError(fetches); err != nil && err.Error() != lastError {
			lastError = err.Error()
			in.log.Errorf("Fetching fails; retrying: %v", err)
		} else if err == nil && !fetches.Empty() && lastError != "" {
			lastError = ""
			in.log.Info("Fetching works again")
		}
		resumed := map[string][]int32{}
		for tp := range paused {
			if !parts.full(tp) {
				resumed[tp.topic] = append(resumed[tp.topic], tp.partition)
				delete(paused, tp)
			}
		}
		if len(resumed) > 0 {
			client.ResumeFetchPartitions(resumed)
		}
		client.AllowRebalance()
	}
}

// resumeEvery is the interval at which paused partitions are checked.
const resumeEvery = 10 * time.Millisecond

// fetchError returns the first error of a fetch that needs an operator.
func fetchError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		if errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, context.DeadlineExceeded) ||
			errors.Is(e.Err, kgo.ErrClientClosed) || kerr.IsRetriable(e.Err) {
			continue
		}
		return e.Err
	}
	return nil
}

// ReadBatch implements service.BatchInput.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	in.mu.Lock()
	parts := in.parts
	in.mu.Unlock()
	if parts == nil {
		return nil, nil, service.ErrNotConnected
	}
	records, done, err := parts.next(ctx)
	if err != nil {
		return nil, nil, err
	}
	batch := make(service.MessageBatch, len(records))
	for i, r := range records {
		batch[i] = message(r)
		// The record keeps only its offset, for the commit.
		r.Value, r.Key, r.Headers = nil, nil, nil
	}
	var once sync.Once
	return batch, func(context.Context, error) error {
		// AutoRetryNacksBatched retries a failed batch, so every call here
		// acknowledges.
		once.Do(done)
		return nil
	}, nil
}

func message(r *kgo.Record) *service.Message {
	m := service.NewMessage(r.Value)
	for _, h := range r.Headers {
		m.MetaSetMut(h.Key, string(h.Value))
	}
	if r.Key != nil {
		m.MetaSetMut(metaKey, string(r.Key))
	}
	m.MetaSetMut(metaTopic, r.Topic)
	m.MetaSetMut(metaPartition, int(r.Partition))
	m.MetaSetMut(metaOffset, int(r.Offset))
	m.MetaSetMut(metaTimestamp, r.Timestamp.UnixMilli())
	return m
}

// leaveTimeout bounds the last commit and leaving the group when brokers are away.
const leaveTimeout = 3 * time.Second

// Close implements service.BatchInput.
func (in *input) Close(ctx context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.client == nil {
		return nil
	}
	in.stop()
	<-in.stopped
	ctx, done := context.WithTimeout(ctx, leaveTimeout)
	defer done()
	in.parts.drainAll(ctx)
	if err := in.client.CommitMarkedOffsets(ctx); err != nil {
		in.log.Warnf("Offsets were not committed at shutdown, some messages will be delivered again: %v", err)
	}
	in.client.AllowRebalance()
	if err := in.client.LeaveGroupContext(ctx); err != nil {
		in.log.Debugf("Leaving the consumer group failed: %v", err)
	}
	in.client.CloseAllowingRebalance()
	in.client, in.parts = nil, nil
	return nil
}

// report logs a change of the assignment and updates its metric.
func (in *input) report(parts *partitions, change string, moved map[string][]int32) {
	n := 0
	for _, list := range moved {
		n += len(list)
	}
	assigned := parts.count()
	in.count.Set(int64(assigned))
	if n > 0 {
		in.log.Infof("%s %d partitions; this process has %d now", change, n, assigned)
	}
}

// fetched records the end offset of a partition.
func (in *input) fetched(tp topicPartition, end, first int64) {
	in.lagMu.Lock()
	defer in.lagMu.Unlock()
	if _, known := in.ends[tp]; !known {
		in.setLag(tp, end-first)
	}
	in.ends[tp] = end
}

// settled updates the lag of a partition after an acknowledgement.
func (in *input) settled(last *kgo.Record) {
	in.lagMu.Lock()
	defer in.lagMu.Unlock()
	tp := topicPartition{last.Topic, last.Partition}
	if end, known := in.ends[tp]; known {
		in.setLag(tp, end-last.Offset-1)
	}
}

// clearLag sets the lag of partitions that this process no longer has to 0.
func (in *input) clearLag(revoked map[string][]int32) {
	in.lagMu.Lock()
	defer in.lagMu.Unlock()
	each(revoked, func(tp topicPartition) {
		if _, known := in.ends[tp]; known {
			delete(in.ends, tp)
			in.setLag(tp, 0)
		}
	})
}

func (in *input) setLag(tp topicPartition, lag int64) {
	in.lag.Set(max(lag, 0), tp.topic, strconv.Itoa(int(tp.partition)))
}
