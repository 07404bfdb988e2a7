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
	service.MustRegisterBatchInput(Name, inputSpec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
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
The members of a group share the partitions of the topics. Start more processes with the same config to share the work, and end any of them at any time.

### Order and parallelism

The messages of a partition are processed in their order: a batch of a partition is given to the pipeline when the one before it was acknowledged. Batches of different partitions are processed side by side, so set `+"`pipeline.threads`"+` to the number of cores, and have at least two partitions for each core of all processes. The records of a customer are in one partition if the producer's key is the customer.

### Batches

A batch has what arrived in its partition while the batch before it was worked on, up to `+"`max_batch_records` and `max_batch_bytes`"+`: a consumer that is behind gets full batches, which cost the least for each event, and one that is not gets each event at once.

### Delivery

Offsets are committed only for batches that were acknowledged, which is when the outputs have stored or delivered everything the batch caused. After a crash, and when a partition moves to another process, the messages after the last commit come again: at least once. A batch that could not be delivered is tried again until it can be. When a partition is to move, or the process ends, the batch in flight is waited for and committed, so that an orderly restart repeats nothing.

### Limits

A partition is not fetched while `+"`partition_buffer_bytes`"+` of it wait; memory is bounded by that times the partitions the process has, and by what fetches in flight hold: `+"`fetch_max_bytes`"+` for each broker. A pipeline that waits for its store is thus a pipeline that stops fetching.

### Metadata

`+"`kafka_key`, `kafka_topic`, `kafka_partition`, `kafka_offset`, `kafka_timestamp_ms`"+`, and the headers of the record under their own names.

### Metrics

- `+"`kafka_topic_lag`"+`, gauge with the labels `+"`topic` and `partition`"+`: records of the partition that are not acknowledged yet
- `+"`kafka_topic_partitions`"+`, gauge: how many partitions this process has`).
		Fields(connectionFields()...).
		Fields(
			service.NewStringListField(fieldTopics).
				Description("The topics to consume. They must exist.").
				Example([]string{"events"}).
				LintRule(`root = if this.type() == "array" && (this.length() == 0 || this.any(topic -> !topic.string().re_match("^[A-Za-z0-9._-]{1,249}$"))) { [ "a topic is 1 to 249 letters, digits, dots, dashes and underscores: write for example events" ] }`),
			service.NewStringField(fieldConsumerGroup).
				Description("The name of the group. Offsets are kept by it: a new name starts at `start_offset`.").
				Example("profiles").
				LintRule(`root = if this.string() == "" { [ "consumer_group is empty: write a name, such as profiles" ] }`),
			service.NewStringField(fieldInstanceID).
				Description("A name of this process that stays the same when it restarts, such as that of its pod. Its partitions are then kept for it for `session_timeout`, so that a restart moves none. Each process of a group needs a name of its own.").
				Default("").
				Advanced(),
			service.NewStringEnumField(fieldStartOffset, "earliest", "latest").
				Description("Where a group begins that has committed nothing: at the oldest record the topic keeps, or with those produced from now on.").
				Default("earliest").
				Advanced(),
			service.NewIntField(fieldBatchRecords).
				Description("The most messages in a batch.").
				Default(1000).
				LintRule(`root = if this < 1 || this > 100000 { [ "max_batch_records must be from 1 to 100000" ] }`),
			service.NewStringField(fieldBatchBytes).
				Description("The most bytes in a batch of more than one message.").
				Default("2MiB").
				Advanced(),
			service.NewStringField(fieldPartitionBuffer).
				Description("How many bytes of a partition may wait before it is not fetched any more. It can be exceeded by one fetch.").
				Default("2MiB").
				Advanced(),
			service.NewStringField(fieldFetchBytes).
				Description("The most bytes that a broker sends at a time.").
				Default("16MiB").
				Advanced(),
			service.NewDurationField(fieldCommitPeriod).
				Description("How often offsets are committed.").
				Default("1s").
				Advanced(),
			service.NewDurationField(fieldSessionTimeout).
				Description("How long a process may be silent before its partitions go to others. Brokers have limits, by default from 6s to 30m.").
				Default("20s").
				Advanced(),
			service.NewDurationField(fieldHeartbeatInterval).
				Description("How often the process says that it lives: at most a third of `session_timeout`.").
				Default("3s").
				Advanced(),
			service.NewDurationField(fieldRebalanceTimeout).
				Description("How long processes may take to let go of partitions that move.").
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
  threads: -1 # as many as there are cores
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
	ends  map[place]int64 // the offset after the last record of a partition
}

type limits struct {
	records, batchBytes, bufferBytes int
}

func newInput(conf *service.ParsedConfig, res *service.Resources) (*input, error) {
	in := &input{log: res.Logger(), ends: map[place]int64{}}
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
		// Fetched records are queued before partitions can move, so that none
		// is queued for a partition that left and came back.
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
			in.tell(parts, "This process now has", assigned)
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, revoked map[string][]int32) {
			ctx, done := context.WithTimeout(ctx, min(in.rebalance/2, in.session/2))
			defer done()
			parts.drain(ctx, revoked)
			if err := client.CommitMarkedOffsets(ctx); err != nil && len(revoked) > 0 {
				in.log.Warnf("Offsets of partitions that move were not committed, some of their messages will come again: %v", err)
			}
			in.forget(revoked)
			in.tell(parts, "This process gave back", revoked)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			parts.drop(lost)
			in.forget(lost)
			in.tell(parts, "This process lost its place in the group and with it", lost)
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

// poll fetches until ctx ends.
func (in *input) poll(ctx context.Context, client *kgo.Client, parts *partitions, stopped chan<- struct{}) {
	defer close(stopped)
	paused := map[place]bool{}
	var trouble string
	for ctx.Err() == nil {
		// It must be looked regularly whether what is paused can go on.
		wait, done := ctx, context.CancelFunc(func() {})
		if len(paused) > 0 {
			wait, done = context.WithTimeout(ctx, resumeEvery)
		}
		fetches := client.PollFetches(wait)
		done()
		full := map[string][]int32{}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			at := place{p.Topic, p.Partition}
			if len(p.Records) == 0 {
				return
			}
			in.fetched(at, p.HighWatermark, p.Records[0].Offset)
			if parts.add(at, p.Records) {
				full[at.topic] = append(full[at.topic], at.partition)
				paused[at] = true
			}
		})
		if len(full) > 0 {
			client.PauseFetchPartitions(full)
		}
		if err := failure(fetches); err != nil && err.Error() != trouble {
			trouble = err.Error()
			in.log.Errorf("Cannot fetch; trying again: %v", err)
		} else if err == nil && !fetches.Empty() && trouble != "" {
			trouble = ""
			in.log.Info("Fetching again")
		}
		again := map[string][]int32{}
		for at := range paused {
			if !parts.full(at) {
				again[at.topic] = append(again[at.topic], at.partition)
				delete(paused, at)
			}
		}
		if len(again) > 0 {
			client.ResumeFetchPartitions(again)
		}
		client.AllowRebalance()
	}
}

const resumeEvery = 10 * time.Millisecond

// failure returns what is worth telling of what went wrong in a fetch.
func failure(fetches kgo.Fetches) error {
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
		// What is left of the record is its position, for the commit.
		r.Value, r.Key, r.Headers = nil, nil, nil
	}
	var once sync.Once
	return batch, func(context.Context, error) error {
		// A batch that failed does not come here: it is tried again.
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

// leaveTimeout bounds what is tried with brokers that may be away.
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
		in.log.Warnf("Offsets were not committed at the end, some messages will come again: %v", err)
	}
	in.client.AllowRebalance()
	if err := in.client.LeaveGroupContext(ctx); err != nil {
		in.log.Debugf("The group was not left in order: %v", err)
	}
	in.client.CloseAllowingRebalance()
	in.client, in.parts = nil, nil
	return nil
}

// tell logs and counts the partitions that came or went.
func (in *input) tell(parts *partitions, what string, moved map[string][]int32) {
	n := 0
	for _, list := range moved {
		n += len(list)
	}
	has := parts.count()
	in.count.Set(int64(has))
	if n > 0 {
		in.log.Infof("%s %d partitions, of %d it has", what, n, has)
	}
}

// fetched notes how far a partition goes.
func (in *input) fetched(at place, end, first int64) {
	in.lagMu.Lock()
	defer in.lagMu.Unlock()
	if _, known := in.ends[at]; !known {
		in.setLag(at, end-first)
	}
	in.ends[at] = end
}

// settled notes how far a partition is acknowledged.
func (in *input) settled(last *kgo.Record) {
	in.lagMu.Lock()
	defer in.lagMu.Unlock()
	at := place{last.Topic, last.Partition}
	if end, known := in.ends[at]; known {
		in.setLag(at, end-last.Offset-1)
	}
}

// forget clears what is known of partitions that others have now.
func (in *input) forget(gone map[string][]int32) {
	in.lagMu.Lock()
	defer in.lagMu.Unlock()
	each(gone, func(at place) {
		if _, known := in.ends[at]; known {
			delete(in.ends, at)
			in.setLag(at, 0)
		}
	})
}

func (in *input) setLag(at place, lag int64) {
	in.lag.Set(max(lag, 0), at.topic, strconv.Itoa(int(at.partition)))
}
