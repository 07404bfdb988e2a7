package kafkatopic

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// reader consumes through the input without a pipeline, and connects again as the
// engine does.
type reader struct {
	t    *testing.T
	in   *input
	stop func()

	mu     sync.Mutex
	values []string
	errs   []error // of Connect
	breaks int     // lost connections
}

func read(t *testing.T, c *kfake.Cluster, more string) *reader {
	t.Helper()
	conf, err := inputSpec().ParseYAML(fmt.Sprintf("seed_brokers: [ %q ]\ntopics: [ events ]\nconsumer_group: g\ncommit_period: 100ms\nheartbeat_interval: 100ms\n%s", seeds(c), more), nil)
	require.NoError(t, err)
	in, err := newInput(conf, service.MockResources())
	require.NoError(t, err)
	r := &reader{t: t, in: in}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.run(ctx) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		require.NoError(t, in.Close(context.Background()))
	})
	t.Cleanup(r.stop)
	return r
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.in.Connect(ctx); err != nil {
			r.mu.Lock()
			r.errs = append(r.errs, err)
			r.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		for {
			batch, ack, err := r.in.ReadBatch(ctx)
			if err != nil {
				if ctx.Err() == nil {
					r.mu.Lock()
					r.breaks++
					r.mu.Unlock()
				}
				break
			}
			r.mu.Lock()
			for _, msg := range batch {
				raw, _ := msg.AsBytes()
				r.values = append(r.values, string(raw))
			}
			r.mu.Unlock()
			_ = ack(ctx, nil)
		}
	}
}

func (r *reader) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.values...)
}

func (r *reader) connectErrors() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.errs)
}

func (r *reader) lost() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.breaks
}

// lag returns the sum of the published lags.
func (r *reader) lag() int64 {
	r.in.lags.mu.Lock()
	defer r.in.lags.mu.Unlock()
	sum := int64(0)
	for _, p := range r.in.lags.partitions {
		sum += max(p.end-p.acknowledged, 0)
	}
	return sum
}

// assigned returns the number of partitions with a start offset.
func (r *reader) assigned() int {
	r.in.lags.mu.Lock()
	defer r.in.lags.mu.Unlock()
	return len(r.in.lags.partitions)
}

func admin(t *testing.T, c *kfake.Cluster) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// produce writes numbered records to one partition.
func produce(t *testing.T, c *kfake.Cluster, partition int32, from, to int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer client.Close()
	var records []*kgo.Record
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "%d/%d", partition, i)})
	}
	require.NoError(t, client.ProduceSync(context.Background(), records...).FirstErr())
}

// With start_offset latest, records that were deleted before they were read lead to
// the oldest record left, not to the end.
func TestOutOfRangeOffsetContinuesAtOldestRecord(t *testing.T) {
	c := cluster(t)
	first := read(t, c, "start_offset: latest\n")
	eventually(t, "assigned", func() bool { return first.lag() == 0 && first.assigned() == parts })
	produce(t, c, 0, 0, 10)
	eventually(t, "first records", func() bool { return len(first.got()) == 10 })
	eventually(t, "committed", func() bool { return committed(t, c) >= 10 })
	first.stop()
	produce(t, c, 0, 10, 100)
	deleted := kadm.Offsets{}
	deleted.Add(kadm.Offset{Topic: topic, Partition: 0, At: 50})
	_, err := admin(t, c).DeleteRecords(context.Background(), deleted)
	require.NoError(t, err)

	second := read(t, c, "start_offset: latest\n")
	eventually(t, "records from 50", func() bool { return len(second.got()) == 50 })
	require.Equal(t, "0/50", second.got()[0])
}

func TestAddedPartitionIsReadFromItsBeginning(t *testing.T) {
	c := cluster(t)
	r := read(t, c, "start_offset: latest\n")
	eventually(t, "assigned", func() bool { return r.assigned() == parts })
	produce(t, c, 0, 0, 1)
	eventually(t, "first record", func() bool { return len(r.got()) == 1 })
	// The group has commits in the topic before the partition exists.
	eventually(t, "committed", func() bool { return committed(t, c) >= 1 })
	_, err := admin(t, c).CreatePartitions(context.Background(), 1, topic)
	require.NoError(t, err)
	produce(t, c, parts, 0, 30)
	eventually(t, "records of the new partition", func() bool { return len(r.got()) == 31 })
}

// A partition that stayed empty is not taken for a new one after a restart.
func TestLatestIsCommittedForEmptyPartitions(t *testing.T) {
	c := cluster(t)
	produce(t, c, 1, 0, 5)
	first := read(t, c, "start_offset: latest\n")
	eventually(t, "assigned", func() bool { return first.assigned() == parts })
	produce(t, c, 0, 0, 1)
	eventually(t, "the new record", func() bool { return len(first.got()) == 1 })
	eventually(t, "start offsets are committed", func() bool { return committed(t, c) == 6 })
	first.stop()
	second := read(t, c, "start_offset: latest\n")
	produce(t, c, 0, 1, 2)
	eventually(t, "the next record", func() bool { return len(second.got()) > 0 })
	require.Equal(t, []string{"0/1"}, second.got())
}

func TestRecreatedTopicIsReadAgain(t *testing.T) {
	c := cluster(t)
	r := read(t, c, "")
	produce(t, c, 0, 0, 10)
	eventually(t, "old records", func() bool { return len(r.got()) == 10 })
	a := admin(t, c)
	_, err := a.DeleteTopics(context.Background(), topic)
	require.NoError(t, err)
	_, err = a.CreateTopic(context.Background(), parts, 1, nil, topic)
	require.NoError(t, err)
	produce(t, c, 0, 100, 110)
	eventually(t, "new records", func() bool { return len(r.got()) == 20 })
	require.Equal(t, "0/100", r.got()[10])
	require.Positive(t, r.lost(), "/ready failed in between")
}

func TestLagCountsRecordsBehindAWaitingBatch(t *testing.T) {
	c := cluster(t)
	produce(t, c, 0, 0, 50)
	conf, err := inputSpec().ParseYAML(fmt.Sprintf("seed_brokers: [ %q ]\ntopics: [ events ]\nconsumer_group: g\n", seeds(c)), nil)
	require.NoError(t, err)
	in, err := newInput(conf, service.MockResources())
	require.NoError(t, err)
	require.NoError(t, in.Connect(t.Context()))
	defer func() { require.NoError(t, in.Close(context.Background())) }()
	r := &reader{in: in}
	_, ack, err := in.ReadBatch(t.Context()) // not acknowledged yet
	require.NoError(t, err)
	produce(t, c, 0, 50, 5050)
	eventually(t, "the lag of all records", func() bool { return r.lag() == 5050 })
	require.NoError(t, ack(t.Context(), nil))
	eventually(t, "less lag", func() bool { return r.lag() < 5050 })
}

func TestControlRecordsLeaveNoLag(t *testing.T) {
	c := cluster(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.TransactionalID("t"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.BeginTransaction())
	require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr())
	require.NoError(t, client.EndTransaction(t.Context(), kgo.TryCommit))
	r := read(t, c, "")
	eventually(t, "the record", func() bool { return len(r.got()) == 1 })
	eventually(t, "the end of the partition is committed", func() bool { return committed(t, c) == 2 && r.lag() == 0 })
	require.Equal(t, []string{"x"}, r.got(), "control records are no messages")
}

func TestDeniedGroupFailsConnect(t *testing.T) {
	c := cluster(t)
	var mu sync.Mutex
	denied := true
	c.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if !denied {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
		for _, g := range req.(*kmsg.DescribeGroupsRequest).Groups {
			group := kmsg.NewDescribeGroupsResponseGroup()
			group.Group, group.ErrorCode = g, kerr.GroupAuthorizationFailed.Code
			resp.Groups = append(resp.Groups, group)
		}
		return resp, nil, true
	})
	produce(t, c, 0, 0, 1)
	r := read(t, c, "")
	eventually(t, "the cause", func() bool {
		return strings.Contains(r.connectErrors(), `consumer group "g": GROUP_AUTHORIZATION_FAILED`)
	})
	mu.Lock()
	denied = false
	mu.Unlock()
	eventually(t, "recovery", func() bool { return len(r.got()) == 1 })
}

func TestFencedMemberWaitsForTheOther(t *testing.T) {
	c := cluster(t)
	one := read(t, c, "instance_id: same\n")
	produce(t, c, 0, 0, 1)
	eventually(t, "the first member reads", func() bool { return len(one.got()) == 1 })
	two := read(t, c, "instance_id: same\n")
	eventually(t, "the cause", func() bool {
		return strings.Contains(one.connectErrors(), `instance_id "same" is used by another process`)
	})
	produce(t, c, 0, 1, 2)
	eventually(t, "the second member reads", func() bool { return len(two.got()) >= 1 })
}

func TestClientLogCountsCauses(t *testing.T) {
	l := newClientLog(service.MockResources())
	require.True(t, l.due("a"))
	require.False(t, l.due("a"))
	require.True(t, l.due("b"))
}

// Too few in-sync replicas: the write fails with the cause, the output disconnects,
// and writes again after the brokers are back.
func TestOutputReportsAStall(t *testing.T) {
	c := cluster(t)
	var mu sync.Mutex
	short := true
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if !short {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range req.(*kmsg.ProduceRequest).Topics {
			tp := kmsg.NewProduceResponseTopic()
			tp.Topic, tp.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, kerr.NotEnoughReplicas.Code
				tp.Partitions = append(tp.Partitions, p)
			}
			resp.Topics = append(resp.Topics, tp)
		}
		return resp, nil, true
	})
	var log lines
	conf, err := outputSpec().ParseYAML(fmt.Sprintf("seed_brokers: [ %q ]\ntopic: events", seeds(c)), nil)
	require.NoError(t, err)
	res := service.MockResources(service.MockResourcesOptUseLogger(service.NewLoggerFromSlog(slog.New(slog.NewTextHandler(&log, nil)))))
	out, err := newOutput(conf, res)
	require.NoError(t, err)
	out.stallAfter = 3 * time.Second
	require.NoError(t, out.Connect(t.Context()))
	batch := service.MessageBatch{service.NewMessage([]byte("x"))}
	require.Error(t, out.WriteBatch(t.Context(), batch))
	require.Contains(t, log.text(), "NOT_ENOUGH_REPLICAS")
	require.Contains(t, log.text(), "Kafka has not accepted writes for 3s")
	require.ErrorIs(t, out.WriteBatch(t.Context(), batch), service.ErrNotConnected)
	mu.Lock()
	short = false
	mu.Unlock()
	require.NoError(t, out.Connect(t.Context()))
	require.NoError(t, out.WriteBatch(t.Context(), batch))
	require.NoError(t, out.Close(t.Context()))
}

// lines records log lines.
type lines struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
