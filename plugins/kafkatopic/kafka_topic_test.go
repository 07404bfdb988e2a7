package kafkatopic

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	topic      = "events"
	parts      = 4
	testWait   = 30 * time.Second
	lintBroker = "seed_brokers: [ 127.0.0.1:9092 ]"
)

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(parts, topic)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func seeds(c *kfake.Cluster) string { return strings.Join(c.ListenAddrs(), ",") }

// member is a consuming process that records the messages it received and
// acknowledges a batch for each token of hold.
type member struct {
	stop func()
	mu   sync.Mutex
	got  []string
	hold chan struct{} // one token for each acknowledgement; closed: no limit
	fail func(string) error
}

func (m *member) handle(ctx context.Context, batch service.MessageBatch) error {
	m.mu.Lock()
	for _, msg := range batch {
		b, _ := msg.AsBytes()
		p, _ := msg.MetaGetMut(metaPartition)
		if m.fail != nil {
			if err := m.fail(string(b)); err != nil {
				m.mu.Unlock()
				return err
			}
		}
		m.got = append(m.got, fmt.Sprintf("%v/%s", p, b))
	}
	m.mu.Unlock()
	select {
	case <-m.hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *member) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.got...)
}

func join(t *testing.T, c *kfake.Cluster, m *member, more string) *member {
	t.Helper()
	builder := service.NewStreamBuilder()
	builder.SetThreads(2)
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	require.NoError(t, builder.AddInputYAML(fmt.Sprintf(`
kafka_topic:
  seed_brokers: [ %q ]
  topics: [ events ]
  consumer_group: g
  commit_period: 100ms
  heartbeat_interval: 100ms
%s`, seeds(c), more)))
	require.NoError(t, builder.AddBatchConsumerFunc(m.handle))
	stream, err := builder.Build()
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- stream.Run(context.Background()) }()
	var once sync.Once
	m.stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), testWait)
			defer cancel()
			require.NoError(t, stream.Stop(ctx))
			<-done
		})
	}
	t.Cleanup(m.stop)
	return m
}

func released() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// tokens returns a channel with n acknowledgements and capacity for more.
func tokens(n int) chan struct{} {
	c := make(chan struct{}, 100)
	for range n {
		c <- struct{}{}
	}
	return c
}

// write sends messages through the output.
func write(t *testing.T, c *kfake.Cluster, messages ...string) {
	t.Helper()
	builder := service.NewStreamBuilder()
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	require.NoError(t, builder.AddOutputYAML(fmt.Sprintf(`
kafka_topic:
  seed_brokers: [ %q ]
  topic: events
  key: '${! content().string().split(" ").index(0) }'
  metadata: { include_patterns: [ "^attempt$" ] }
`, seeds(c))))
	produce, err := builder.AddBatchProducerFunc()
	require.NoError(t, err)
	stream, err := builder.Build()
	require.NoError(t, err)
	go func() { _ = stream.Run(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), testWait)
	defer cancel()
	var batch service.MessageBatch
	for _, m := range messages {
		msg := service.NewMessage([]byte(m))
		msg.MetaSetMut("attempt", "2")
		msg.MetaSetMut("secret", "not sent")
		batch = append(batch, msg)
	}
	require.NoError(t, produce(ctx, batch))
	require.NoError(t, stream.Stop(ctx))
}

func committed(t *testing.T, c *kfake.Cluster) int64 {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = "g"
	tp := kmsg.NewOffsetFetchRequestTopic()
	tp.Topic = topic
	for p := range int32(parts) {
		tp.Partitions = append(tp.Partitions, p)
	}
	req.Topics = append(req.Topics, tp)
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = "g"
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.Partitions = topic, tp.Partitions
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	ctx, cancel := context.WithTimeout(context.Background(), testWait)
	defer cancel()
	resp, err := req.RequestWith(ctx, client)
	require.NoError(t, err)
	total := int64(0)
	for _, g := range resp.Groups {
		for _, tp := range g.Topics {
			for _, p := range tp.Partitions {
				total += max(p.Offset, 0)
			}
		}
	}
	return total
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, testWait, 5*time.Millisecond, what)
}

func messages(customers, n int) []string {
	var out []string
	for i := range n {
		for c := range customers {
			out = append(out, fmt.Sprintf("c%d %d", c, i))
		}
	}
	return out
}

func TestMessagesOfAKeyStayInOrder(t *testing.T) {
	c := cluster(t)
	write(t, c, messages(10, 50)...)
	m := join(t, c, &member{hold: released()}, "  max_batch_records: 7\n")
	eventually(t, "all messages", func() bool { return len(m.seen()) == 500 })
	next, home := map[string]int{}, map[string]string{}
	for _, line := range m.seen() {
		partition, message, _ := strings.Cut(line, "/")
		var customer string
		var n int
		_, err := fmt.Sscanf(message, "%s %d", &customer, &n)
		require.NoError(t, err)
		require.Equal(t, next[customer], n, customer)
		next[customer]++
		if home[customer] == "" {
			home[customer] = partition
		}
		require.Equal(t, home[customer], partition, "a customer is in one partition")
	}
	eventually(t, "all committed", func() bool { return committed(t, c) == 500 })
}

func TestOffsetsAreCommittedOnlyAfterAcknowledgement(t *testing.T) {
	c := cluster(t)
	write(t, c, messages(10, 1)...)
	m := join(t, c, &member{hold: make(chan struct{})}, "")
	eventually(t, "batches in flight", func() bool { return len(m.seen()) > 0 })
	require.Never(t, func() bool { return committed(t, c) != 0 }, 300*time.Millisecond, 50*time.Millisecond)
	close(m.hold)
	eventually(t, "committed", func() bool { return committed(t, c) == 10 })
}

func TestFailedBatchIsRetriedBeforeTheRestOfItsPartition(t *testing.T) {
	c := cluster(t, kfake.SeedTopics(1, "single"))
	write(t, c, messages(1, 20)...)
	failures := 0
	m := &member{hold: released(), fail: func(content string) error {
		if strings.HasSuffix(content, " 3") && failures < 3 {
			failures++
			return errors.New("not now")
		}
		return nil
	}}
	join(t, c, m, "  max_batch_records: 1\n")
	eventually(t, "all messages", func() bool { return len(m.seen()) == 20 })
	for i, line := range m.seen() {
		require.True(t, strings.HasSuffix(line, fmt.Sprintf(" %d", i)), line)
	}
	require.Equal(t, 3, failures)
}

func TestShutdownCommitsBatchesInFlight(t *testing.T) {
	c := cluster(t)
	write(t, c, messages(10, 20)...)
	first := join(t, c, &member{hold: tokens(10)}, "  max_batch_records: 3\n  commit_period: 1h\n")
	eventually(t, "some messages", func() bool { return len(first.seen()) > 20 })
	// Batches in flight are acknowledged during the shutdown.
	ended := make(chan struct{})
	go func() { first.stop(); close(ended) }()
	for range 16 {
		first.hold <- struct{}{}
	}
	<-ended
	require.Less(t, len(first.seen()), 200)
	second := join(t, c, &member{hold: released()}, "")
	eventually(t, "the remaining messages", func() bool { return len(first.seen())+len(second.seen()) >= 200 })
	second.stop()
	times := map[string]int{}
	for _, line := range append(first.seen(), second.seen()...) {
		times[line]++
	}
	require.Len(t, times, 200)
	for line, n := range times {
		require.Equal(t, 1, n, line)
	}
}

func TestRebalanceRepeatsNothing(t *testing.T) {
	c := cluster(t)
	first := join(t, c, &member{hold: released()}, "  max_batch_records: 3\n")
	write(t, c, messages(10, 10)...)
	eventually(t, "first messages", func() bool { return len(first.seen()) == 100 })
	second := join(t, c, &member{hold: released()}, "")
	sent := 100
	eventually(t, "messages for the second member", func() bool {
		write(t, c, fmt.Sprintf("c%d x%d", sent%10, sent))
		sent++
		return len(second.seen()) > 0
	})
	eventually(t, "all messages", func() bool { return len(first.seen())+len(second.seen()) >= sent })
	times := map[string]int{}
	for _, line := range append(first.seen(), second.seen()...) {
		times[line]++
		require.Equal(t, 1, times[line], line)
	}
	require.Len(t, times, sent)
}

func TestStaticMemberKeepsItsPartitions(t *testing.T) {
	c := cluster(t)
	one := join(t, c, &member{hold: released()}, "  instance_id: one\n")
	two := join(t, c, &member{hold: released()}, "  instance_id: two\n")
	sent := 0
	send := func() {
		write(t, c, messages(10, 1)...)
		sent += 10
	}
	partitions := func(m *member, from int) map[string]bool {
		out := map[string]bool{}
		for _, line := range m.seen()[from:] {
			p, _, _ := strings.Cut(line, "/")
			out[p] = true
		}
		return out
	}
	// Send messages until the partitions are shared evenly.
	var before map[string]bool
	for deadline := time.Now().Add(testWait); len(before) != parts/2; {
		require.True(t, time.Now().Before(deadline), "the partitions are not shared")
		from := len(two.seen())
		send()
		eventually(t, "all messages", func() bool { return len(one.seen())+len(two.seen()) >= sent })
		before = partitions(two, from)
	}
	from := len(two.seen())
	one.stop()
	send()
	again := join(t, c, &member{hold: released()}, "  instance_id: one\n")
	eventually(t, "all messages", func() bool { return len(one.seen())+len(two.seen())+len(again.seen()) >= sent })
	require.Equal(t, before, partitions(two, from), "the other member kept its partitions, and got no others")
	require.NotEmpty(t, again.seen())
}

func TestHeadersKeyAndOffsetBecomeMetadata(t *testing.T) {
	c := cluster(t)
	write(t, c, "c1 0")
	builder := service.NewStreamBuilder()
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	require.NoError(t, builder.AddInputYAML(fmt.Sprintf("kafka_topic:\n  seed_brokers: [ %q ]\n  topics: [ events ]\n  consumer_group: g\n", seeds(c))))
	got := make(chan map[string]any, 1)
	require.NoError(t, builder.AddConsumerFunc(func(_ context.Context, m *service.Message) error {
		meta := map[string]any{}
		_ = m.MetaWalkMut(func(k string, v any) error { meta[k] = v; return nil })
		got <- meta
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	go func() { _ = stream.Run(context.Background()) }()
	meta := <-got
	ctx, cancel := context.WithTimeout(context.Background(), testWait)
	defer cancel()
	require.NoError(t, stream.Stop(ctx))
	require.Equal(t, "c1", meta[metaKey])
	require.Equal(t, topic, meta[metaTopic])
	require.Equal(t, 0, meta[metaOffset])
	require.Equal(t, "2", meta["attempt"])
	require.NotContains(t, meta, "secret")
	require.InDelta(t, time.Now().UnixMilli(), meta[metaTimestamp].(int64), 60_000)
}

func TestSASL(t *testing.T) {
	for _, mechanism := range []string{mechanismPlain, mechanismSCRAM256, mechanismSCRAM512} {
		t.Run(mechanism, func(t *testing.T) {
			c := cluster(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "shop", "s3cret"))
			attempt := func(password string, patience time.Duration) error {
				conf, err := service.NewConfigSpec().Fields(connectionFields()...).ParseYAML(fmt.Sprintf(
					"seed_brokers: [ %q ]\nsasl: { mechanism: %s, username: shop, password: %s }", seeds(c), mechanism, password), nil)
				require.NoError(t, err)
				opts, err := parseConnection(conf, newClientLog(service.MockResources()))
				require.NoError(t, err)
				// kfake closes the connection after a wrong password; other
				// brokers return an error.
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				client, err := connect(ctx, opts, topic)
				if err == nil {
					client.Close()
				}
				return err
			}
			require.NoError(t, attempt("s3cret", testWait))
			err := attempt("not-the-one", time.Second)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "not-the-one")
		})
	}
}

// authority creates a certificate authority with a certificate for loopback. It
// returns the authority's file and the server's TLS configuration.
func authority(t *testing.T) (string, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return file, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestTLSWithSASL(t *testing.T) {
	ca, server := authority(t)
	c := cluster(t, kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser(mechanismSCRAM512, "shop", "s3cret"))
	attempt := func(security string, patience time.Duration) error {
		conf, err := outputSpec().ParseYAML(fmt.Sprintf(`
seed_brokers: [ %q ]
topic: events
sasl: { mechanism: SCRAM-SHA-512, username: shop, password: s3cret }
tls: %s
`, seeds(c), security), nil)
		require.NoError(t, err)
		out, err := newOutput(conf, service.MockResources())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := out.Connect(ctx); err != nil {
			return err
		}
		defer func() { require.NoError(t, out.Close(ctx)) }()
		return out.WriteBatch(ctx, service.MessageBatch{service.NewMessage([]byte("x"))})
	}
	require.NoError(t, attempt(fmt.Sprintf("{ enabled: true, root_cas_file: %q }", ca), testWait))
	require.Error(t, attempt("{ enabled: true }", time.Second), "an unknown authority")
	require.Error(t, attempt("{ enabled: false }", time.Second), "no TLS")
}

func TestMissingTopicIsNamed(t *testing.T) {
	c := cluster(t)
	conf, err := outputSpec().ParseYAML(fmt.Sprintf("seed_brokers: [ %q ]\ntopic: nothing", seeds(c)), nil)
	require.NoError(t, err)
	out, err := newOutput(conf, service.MockResources())
	require.NoError(t, err)
	require.ErrorContains(t, out.Connect(t.Context()), `topic "nothing" does not exist`)
}

func TestOnlyFailedMessagesAreReported(t *testing.T) {
	c := cluster(t)
	conf, err := outputSpec().ParseYAML(fmt.Sprintf("seed_brokers: [ %q ]\ntopic: events\nmax_message_bytes: 1KiB\ncompression: none", seeds(c)), nil)
	require.NoError(t, err)
	out, err := newOutput(conf, service.MockResources())
	require.NoError(t, err)
	require.NoError(t, out.Connect(t.Context()))
	defer func() { require.NoError(t, out.Close(t.Context())) }()
	batch := service.MessageBatch{
		service.NewMessage([]byte("small")),
		service.NewMessage([]byte(strings.Repeat("large", 1000))),
		service.NewMessage([]byte("small too")),
	}
	var failed *service.BatchError
	require.ErrorAs(t, out.WriteBatch(t.Context(), batch), &failed)
	require.ErrorContains(t, failed, "max_message_bytes")
	require.Equal(t, 1, failed.IndexedErrors())
	failed.WalkMessagesIndexedBy(batch.Index(), func(i int, _ *service.Message, err error) bool {
		require.Equal(t, i == 1, err != nil, i)
		return true
	})
}

func TestLint(t *testing.T) {
	linter := service.GlobalEnvironment().NewComponentConfigLinter()
	in := func(yaml string) ([]service.Lint, error) {
		return linter.LintInputYAML([]byte("kafka_topic:\n  " + strings.ReplaceAll(yaml, "\n", "\n  ")))
	}
	out := func(yaml string) ([]service.Lint, error) {
		return linter.LintOutputYAML([]byte("kafka_topic:\n  " + strings.ReplaceAll(yaml, "\n", "\n  ")))
	}
	consume := "\ntopics: [ events ]\nconsumer_group: g\n"
	for _, c := range []struct {
		lint func(string) ([]service.Lint, error)
		yaml string
		want string
	}{
		{in, lintBroker + consume, ""},
		{in, "seed_brokers: [ 'a:1,b:2' ]" + consume, ""},
		{in, "seed_brokers: [ a ]" + consume, "a host and a port"},
		{in, "seed_brokers: [ 'a:1,b' ]" + consume, "a host and a port"},
		{in, "seed_brokers: [ '' ]" + consume, "a host and a port"},
		{in, lintBroker + "\ntopics: [ 'a topic' ]\nconsumer_group: g\n", "a topic is"},
		{in, lintBroker + "\ntopics: [ events ]\nconsumer_group: ''\n", "consumer_group is empty"},
		{in, lintBroker + "\ntopics: [ events ]\n", "consumer_group"},
		{in, lintBroker + consume + "max_batch_records: 0", "from 1 to"},
		{in, lintBroker + consume + "sasl: { mechanism: none }", ""},
		{in, lintBroker + consume + "sasl: { mechanism: SCRAM-SHA-512, username: u, password: p }", ""},
		{in, lintBroker + consume + "sasl: { mechanism: SCRAM-SHA-512, username: u }", "username and password"},
		{in, lintBroker + consume + "sasl: { mechanism: OAUTHBEARER }", "needs a token"},
		{in, lintBroker + consume + "sasl: { mechanism: GSSAPI }", "GSSAPI"},
		{in, lintBroker + consume + "tls: { enabled: true, root_cas_file: ca.pem }", ""},
		{out, lintBroker + "\ntopic: t", ""},
		{out, lintBroker + "\ntopic: t\nkey: ${! this.userId }", ""},
		{out, lintBroker, "topic"},
	} {
		lints, err := c.lint(c.yaml)
		require.NoError(t, err, c.yaml)
		if c.want == "" {
			require.Empty(t, lints, c.yaml)
			continue
		}
		require.Len(t, lints, 1, c.yaml)
		require.Contains(t, lints[0].Error(), c.want)
	}
}
