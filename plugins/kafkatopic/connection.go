// Package kafkatopic is the `kafka_topic` input and output: topics of Apache
// Kafka and Redpanda, through franz-go. Redpanda Connect 4.105.0 has components
// for Kafka too, but they link code that is not under a free licence.
package kafkatopic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
)

// pluginName is the YAML name of the input and of the output.
const pluginName = "kafka_topic"

const (
	fieldSeedBrokers = "seed_brokers"
	fieldClientID    = "client_id"
	fieldTLS         = "tls"
	fieldSASL        = "sasl"
	fieldMechanism   = "mechanism"
	fieldUsername    = "username"
	fieldPassword    = "password"
	fieldToken       = "token"
)

const (
	mechanismNone     = "none"
	mechanismPlain    = "PLAIN"
	mechanismSCRAM256 = "SCRAM-SHA-256"
	mechanismSCRAM512 = "SCRAM-SHA-512"
	mechanismOAuth    = "OAUTHBEARER"
)

// connectionFields returns the fields that the input and the output share.
func connectionFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewStringListField(fieldSeedBrokers).
			Description("Addresses of brokers to connect to first; they list the other brokers of the cluster. One item may contain several addresses, separated by commas, so that one environment variable is enough.").
			Example([]string{"${KAFKA_SEEDS:127.0.0.1:9092}"}).
			LintRule(`root = if this.type() == "array" && (this.length() == 0 || this.map_each(item -> item.string().split(",")).flatten().any(address -> !address.trim().re_match("^.+:[0-9]{1,5}$"))) { [ "a broker is a host and a port: write for example 127.0.0.1:9092" ] }`),
		service.NewStringField(fieldClientID).
			Description("Client id that brokers use in their logs and for quotas.").
			Default("connect-personalize").
			Advanced(),
		service.NewTLSToggledField(fieldTLS),
		service.NewObjectField(fieldSASL,
			service.NewStringEnumField(fieldMechanism, mechanismNone, mechanismPlain, mechanismSCRAM256, mechanismSCRAM512, mechanismOAuth).
				Description("SASL mechanism. `PLAIN` and `OAUTHBEARER` send the secret itself, so turn `tls` on with them.").
				Default(mechanismNone),
			service.NewStringField(fieldUsername).
				Description("The user name for `PLAIN` and `SCRAM`.").
				Default("").
				Example("${KAFKA_SASL_USERNAME}"),
			service.NewStringField(fieldPassword).
				Description("The password for `PLAIN` and `SCRAM`.").
				Secret().
				Default("").
				Example("${KAFKA_SASL_PASSWORD}"),
			service.NewStringField(fieldToken).
				Description("The token for `OAUTHBEARER`.").
				Secret().
				Default(""),
		).
			Description("Authentication with the brokers.").
			LintRule(`
let mechanism = this.mechanism.or("none").string()
root = [
  if ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains($mechanism) && (this.username.or("") == "" || this.password.or("") == "") {
    "sasl mechanism " + $mechanism + " needs a user: write username and password, such as ${KAFKA_SASL_USERNAME} and ${KAFKA_SASL_PASSWORD}, and set these variables"
  },
  if $mechanism == "OAUTHBEARER" && this.token.or("") == "" {
    "sasl mechanism OAUTHBEARER needs a token: write token, such as ${KAFKA_SASL_TOKEN}, and set this variable"
  },
].filter(lint -> lint != null)
`),
	}
}

// parseConnection returns the options of a client that connects to the brokers and
// logs to clientLog.
func parseConnection(conf *service.ParsedConfig, log *clientLog) ([]kgo.Opt, error) {
	items, err := conf.FieldStringList(fieldSeedBrokers)
	if err != nil {
		return nil, err
	}
	var seeds []string
	for _, item := range items {
		for address := range strings.SplitSeq(item, ",") {
			if address = strings.TrimSpace(address); address != "" {
				seeds = append(seeds, address)
			}
		}
	}
	if len(seeds) == 0 {
		return nil, errors.New("seed_brokers is empty; write for example 127.0.0.1:9092")
	}
	id, err := conf.FieldString(fieldClientID)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(seeds...),
		kgo.ClientID(id),
		kgo.WithHooks(newWatch(log.log)),
		kgo.WithLogger(log),
		kgo.MetadataMaxAge(time.Minute),
		kgo.MetadataMinAge(time.Second), // between updates after errors
		kgo.RetryBackoffFn(retryBackoff.Delay),
	}
	tlsConf, encrypted, err := conf.FieldTLSToggled(fieldTLS)
	if err != nil {
		return nil, err
	}
	if encrypted {
		opts = append(opts, kgo.DialTLSConfig(tlsConf))
	}
	mechanism, err := parseSASL(conf.Namespace(fieldSASL))
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		if name := mechanism.Name(); !encrypted && (name == mechanismPlain || name == mechanismOAuth) {
			log.log.Warnf("SASL %s without TLS sends the secret unencrypted; turn tls on", name)
		}
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts, nil
}

// retryBackoff is the delay before a retry. It is short, because a broker restarts
// within seconds, and retries do not end.
var retryBackoff = backoff.Exponential{Initial: 50 * time.Millisecond, Max: 2 * time.Second}

func parseSASL(conf *service.ParsedConfig) (sasl.Mechanism, error) {
	name, err := conf.FieldString(fieldMechanism)
	if err != nil {
		return nil, err
	}
	var user, password, token string
	for _, field := range []struct {
		name string
		into *string
	}{{fieldUsername, &user}, {fieldPassword, &password}, {fieldToken, &token}} {
		if *field.into, err = conf.FieldString(field.name); err != nil {
			return nil, err
		}
	}
	switch name {
	case mechanismPlain:
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	case mechanismSCRAM256:
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case mechanismSCRAM512:
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	case mechanismOAuth:
		return oauth.Auth{Token: token}.AsMechanism(), nil
	}
	return nil, nil
}

// connect returns a client after a broker has answered and confirmed that the
// topics exist.
func connect(ctx context.Context, opts []kgo.Opt, topics ...string) (*kgo.Client, error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	if err := check(ctx, client, topics); err != nil {
		client.CloseAllowingRebalance()
		return nil, err
	}
	return client, nil
}

const checkTimeout = 10 * time.Second

func check(ctx context.Context, client *kgo.Client, topics []string) error {
	ctx, done := context.WithTimeout(ctx, checkTimeout)
	defer done()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(topic)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("no broker answers: %w", err)
	}
	for _, t := range resp.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return fmt.Errorf("topic %q does not exist; create it with all the partitions that it will ever need, because adding partitions later moves customers between them", *t.Topic)
		case err != nil && !kerr.IsRetriable(err):
			return fmt.Errorf("topic %q: %w", *t.Topic, err)
		}
	}
	return nil
}

// watch logs one line when a broker becomes unreachable and one when it is
// reachable again, however many connection attempts fail in between.
type watch struct {
	log  *service.Logger
	mu   sync.Mutex
	down map[string]bool
}

var _ kgo.HookBrokerConnect = (*watch)(nil)

func newWatch(log *service.Logger) *watch { return &watch{log: log, down: map[string]bool{}} }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (w *watch) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	address := net.JoinHostPort(broker.Host, fmt.Sprint(broker.Port))
	w.mu.Lock()
	wasDown := w.down[address]
	w.down[address] = err != nil
	w.mu.Unlock()
	switch {
	case err != nil && !wasDown:
		w.log.Errorf("Kafka broker %s is unreachable; retrying: %v", address, err)
	case err == nil && wasDown:
		w.log.Infof("Kafka broker %s is reachable again", address)
	}
}
