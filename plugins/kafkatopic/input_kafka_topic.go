package kafkatopic

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	fieldTopics            = "topics"
	fieldConsumerGroup     = "consumer_group"
	fieldInstanceID        = "instance_id"
	fieldStartOffset       = "start_offset"
	fieldOutOfRange        = "out_of_range_offset"
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
- `+"`kafka_topic_partitions`"+`, gauge: number of partitions assigned to this process
- `+"`kafka_topic_errors`"+`, counter with the label `+"`cause`"+`: errors of the Kafka client, including those that it retries

The lag is the end offset of the partition, queried every five seconds, less the acknowledged offset: the same as Kafka's own count.

### Failures

A topic that was deleted and created again, an `+"`instance_id`"+` that another process uses, and a denied topic or group are logged with the cause; the input disconnects, which makes `+"`/ready`"+` fail, and connects again until it succeeds. Errors that the client retries are logged once a minute.`).
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
				Description("Where a consumer group without committed offsets in a topic begins: at the oldest record, or with records produced from now on. A partition that is added later is read from its beginning.").
				Default("earliest").
				Advanced(),
			service.NewStringEnumField(fieldOutOfRange, "earliest", "latest").
				Description("Where to continue when the topic no longer has the committed offset, because its retention has passed or the topic was created again: at the oldest record, or with records produced from now on, which skips the records in between.").
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
	instance  string
	lags      *lags
	count     *service.MetricGauge

	mu      sync.Mutex // guards what follows
	client  *kgo.Client
	parts   *partitions
	stop    context.CancelFunc
	stopped chan struct{}
	fenced  bool // another process has used instance_id
}

type limits struct {
	records, batchBytes, bufferBytes int
}

func newInput(conf *service.ParsedConfig, res *service.Resources) (*input, error) {
	in := &input{log: res.Logger(), lags: newLags(res.Metrics())}
	in.count = res.Metrics().NewGauge("kafka_topic_partitions")
	var err error
	if in.opts, err = parseConnection(conf, newClientLog(res)); err != nil {
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
	start, err := offsetField(conf, fieldStartOffset)
	if err != nil {
		return nil, err
	}
	reset, err := offsetField(conf, fieldOutOfRange)
	if err != nil {
		return nil, err
	}
	if in.instance, err = conf.FieldString(fieldInstanceID); err != nil {
		return nil, err
	}
	in.opts = append(in.opts,
		kgo.ConsumeTopics(in.topics...),
		kgo.ConsumerGroup(in.group),
		kgo.ConsumeStartOffset(start),
		kgo.ConsumeResetOffset(reset),
		// Added partitions are discovered within this time.
		kgo.MetadataMaxAge(metadataMaxAge),
		// Control records of transactions advance the acknowledged offset.
		kgo.KeepControlRecords(),
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
	if in.instance != "" {
		in.opts = append(in.opts, kgo.InstanceID(in.instance))
	}
	return in, nil
}

const metadataMaxAge = 5 * time.Second

func offsetField(conf *service.ParsedConfig, name string) (kgo.Offset, error) {
	text, err := conf.FieldString(name)
	if text == "latest" {
		return kgo.NewOffset().AtEnd(), err
	}
	return kgo.NewOffset().AtStart(), err
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
	connected := make(chan struct{})
	parts := newPartitions(in.limits.records, in.limits.batchBytes, in.limits.bufferBytes, func(last *kgo.Record) {
		client.MarkCommitRecords(last)
		in.lags.acknowledge(topicPartition{last.Topic, last.Partition}, last.Offset+1)
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
			in.lags.remove(revoked)
			in.report(parts, "Revoked", revoked)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			parts.drop(lost)
			in.lags.remove(lost)
			in.report(parts, "Lost the group membership and with it", lost)
		}),
		kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			// The group may assign partitions before connect returns the client.
			select {
			case <-connected:
				return in.startOffsets(ctx, client, offsets)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}),
	), in.topics...)
	close(connected)
	if err == nil {
		err = in.checkGroup(ctx, client)
	}
	if err != nil {
		if client != nil {
			client.CloseAllowingRebalance()
		}
		return err
	}
	polling, stop := context.WithCancel(context.Background())
	in.client, in.parts, in.stop, in.stopped, in.fenced = client, parts, stop, make(chan struct{}), false
	var running sync.WaitGroup
	running.Go(func() { in.poll(polling, client, parts) })
	running.Go(func() { in.refreshLags(polling, client) })
	go func(stopped chan<- struct{}) {
		running.Wait()
		close(stopped)
	}(in.stopped)
	return nil
}

// checkGroup returns an error if the process may not use the group, or if another
// process still uses the instance_id that fenced this one.
func (in *input) checkGroup(ctx context.Context, client *kgo.Client) error {
	ctx, done := context.WithTimeout(ctx, checkTimeout)
	defer done()
	groups, err := kadm.NewClient(client).DescribeGroups(ctx, in.group)
	if err == nil {
		err = groups.Error()
	}
	// Other errors are no reason to wait: a group that does not exist yet, for
	// example.
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return fmt.Errorf("consumer group %q: %w; allow the user to read the group", in.group, err)
	}
	if !in.fenced {
		return nil
	}
	for _, member := range groups[in.group].Members {
		if member.InstanceID != nil && *member.InstanceID == in.instance {
			return fmt.Errorf("instance_id %q is used by another process of group %q; give each process its own", in.instance, in.group)
		}
	}
	return nil
}

// startOffsets returns the offsets at which assigned partitions start. Partitions
// without a committed offset start at start_offset if the group has committed
// nothing in their topic; otherwise they are new and start at their beginning. The
// result is committed, so that a partition that stays empty is not taken for a new
// one after a restart.
func (in *input) startOffsets(ctx context.Context, client *kgo.Client, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	admin := kadm.NewClient(client)
	var commits kadm.OffsetResponses
	for topic, partitions := range offsets {
		for partition, offset := range partitions {
			position := offset.EpochOffset().Offset
			if position < 0 {
				if commits == nil {
					var err error
					if commits, err = admin.FetchOffsets(ctx, in.group); err != nil {
						return nil, err
					}
				}
				var err error
				if position, err = in.uncommitted(ctx, admin, topic, partition, position, len(commits[topic]) > 0); err != nil {
					return nil, err
				}
				partitions[partition] = kgo.NewOffset().At(position)
				in.lags.mark(topicPartition{topic, partition}, position)
			}
			in.lags.acknowledge(topicPartition{topic, partition}, position)
		}
	}
	return offsets, nil
}

// uncommitted returns the start of a partition without a committed offset.
func (in *input) uncommitted(ctx context.Context, admin *kadm.Client, topic string, partition int32, start int64, isNew bool) (int64, error) {
	list := admin.ListStartOffsets
	if start == kgo.NewOffset().AtEnd().EpochOffset().Offset && !isNew {
		list = admin.ListEndOffsets
	}
	listed, err := list(ctx, topic)
	if err != nil {
		return 0, err
	}
	offset, found := listed.Lookup(topic, partition)
	if !found {
		return 0, fmt.Errorf("topic %q has no partition %d", topic, partition)
	}
	return offset.Offset, offset.Err
}

// refreshLags queries the ends of partitions until ctx ends.
func (in *input) refreshLags(ctx context.Context, client *kgo.Client) {
	ticker := time.NewTicker(lagEvery)
	defer ticker.Stop()
	admin := kadm.NewClient(client)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		query, done := context.WithTimeout(ctx, lagEvery)
		if marks := in.lags.takeMarks(); len(marks) > 0 {
			client.CommitOffsetsSync(query, marks, nil)
		}
		ends, err := admin.ListEndOffsets(query, in.topics...)
		done()
		if err != nil {
			continue // the client logs the cause
		}
		ends.Each(func(end kadm.ListedOffset) {
			if end.Err == nil {
				in.lags.setEnd(topicPartition{end.Topic, end.Partition}, end.Offset)
			}
		})
	}
}

// lagEvery is the interval between queries of the ends of partitions.
const lagEvery = 5 * time.Second

// poll fetches records and queues them until ctx ends or the client has to be
// replaced.
func (in *input) poll(ctx context.Context, client *kgo.Client, parts *partitions) {
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
			in.lags.setEnd(tp, p.HighWatermark)
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
		if needsNewClient(fetches) {
			parts.disconnect()
			client.AllowRebalance()
			return
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
			errors.Is(e.Err, kgo.ErrClientClosed) {
			continue
		}
		if errors.Is(e.Err, kerr.UnknownTopicID) {
			return fmt.Errorf("topic %q was deleted and created again: %w", e.Topic, e.Err)
		}
		// The client strips most retriable errors itself and logs them.
		return e.Err
	}
	return nil
}

// needsNewClient reports whether the client cannot recover from an error of a fetch
// by itself. A new client reads a topic that was created again, and checks the
// permissions and the use of instance_id.
func needsNewClient(fetches kgo.Fetches) bool {
	for _, e := range fetches.Errors() {
		for _, fatal := range []error{
			kerr.UnknownTopicID, kerr.FencedInstanceID, kerr.GroupAuthorizationFailed, kerr.TopicAuthorizationFailed,
		} {
			if errors.Is(e.Err, fatal) {
				return true
			}
		}
	}
	return false
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
	if errors.Is(err, service.ErrNotConnected) {
		in.abandon(parts)
	}
	if err != nil {
		return nil, nil, err
	}
	batch := make(service.MessageBatch, 0, len(records))
	for _, r := range records {
		if r.Attrs.IsControl() {
			continue
		}
		batch = append(batch, message(r))
		// The record keeps only its offset, for the commit.
		r.Value, r.Key, r.Headers = nil, nil, nil
	}
	if len(batch) == 0 {
		done()
		return in.ReadBatch(ctx)
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

// abandon closes a client that has to be replaced. Batches in flight are delivered
// again.
func (in *input) abandon(parts *partitions) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.parts != parts || in.client == nil {
		return
	}
	in.stop()
	<-in.stopped
	parts.dropAll()
	in.client.CloseAllowingRebalance()
	in.client, in.parts = nil, nil
	in.fenced = in.instance != ""
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
