package configs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	_ "github.com/redpanda-data/connect/v4/public/components/prometheus"
	"github.com/stretchr/testify/require"

	_ "github.com/connect-personalize/connect-personalize/plugins/all"
)

// Environment variables alone configure Kafka and Redis in these pipelines.
func TestEnvironmentConfiguresTheRetailPipelines(t *testing.T) {
	t.Chdir("../..")
	// Mappings import files relative to the root of the repository.
	env := service.GlobalEnvironment().Clone()
	env.UseBloblangEnvironment(bloblang.GlobalEnvironment().WithCustomImporter(os.ReadFile))
	pipelines, err := filepath.Glob("configs/retail/*.yaml")
	require.NoError(t, err)
	secure := map[string]string{
		"KAFKA_SEEDS": "b1:9093,b2:9093", "KAFKA_TLS": "true", "KAFKA_CA_FILE": "/etc/ca.pem",
		"KAFKA_CLIENT_CERTS":   "[{cert_file: /etc/c.pem, key_file: /etc/k.pem}]",
		"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_SASL_USERNAME": "shop", "KAFKA_SASL_PASSWORD": "secret",
	}
	cluster := map[string]string{
		"REDIS_URL": "rediss://r1:6379,rediss://r2:6379", "REDIS_KIND": "cluster", "REDIS_USERNAME": "shop", "REDIS_PASSWORD": "secret",
		"REDIS_TLS": "true", "REDIS_CA_FILE": "/etc/ca.pem", "REDIS_PREFIX": "shop", "REDIS_IDLE_EXPIRY": "400d",
		"REDIS_WAIT_REPLICAS": "1", "REDIS_READ_REPLICAS": "true", "REDIS_MAX_RECORD_BYTES": "1MiB",
	}
	sentinel := map[string]string{"REDIS_URL": "redis://s1:26379,redis://s2:26379", "REDIS_KIND": "failover", "REDIS_MASTER": "shop"}
	for _, c := range []struct {
		name  string
		env   map[string]string
		kafka string // expected lint of pipelines with Kafka, empty for none
		redis string
	}{
		{"nothing set", nil, "", ""},
		{"TLS and SASL", secure, "", ""},
		{"a Redis Cluster", cluster, "", ""},
		{"Sentinels", sentinel, "", ""},
		{"SASL without a user", map[string]string{"KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, "needs a user", ""},
		{"SASL unknown", map[string]string{"KAFKA_SASL_MECHANISM": "GSSAPI"}, "GSSAPI", ""},
		{"a seed without a port", map[string]string{"KAFKA_SEEDS": "broker"}, "a host and a port", ""},
		{"not a Redis URL", map[string]string{"REDIS_URL": "http://r1"}, "", "redis://"},
		{"Sentinels without a name", map[string]string{"REDIS_KIND": "failover"}, "", "write master"},
	} {
		for _, path := range pipelines {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			if !strings.Contains(string(text), "kafka_topic:") {
				continue // definitions and plans
			}
			t.Run(c.name+"/"+filepath.Base(path), func(t *testing.T) {
				lints, err := env.FullConfigSchema("", "").NewStreamConfigLinter().
					SetEnvVarLookupFunc(func(_ context.Context, name string) (string, bool) { v, ok := c.env[name]; return v, ok }).
					LintYAML(text)
				require.NoError(t, err)
				want := c.kafka
				if want == "" && strings.Contains(string(text), "redis:") {
					want = c.redis
				}
				if want == "" {
					require.Empty(t, lints)
					return
				}
				require.NotEmpty(t, lints)
				for _, l := range lints {
					require.Contains(t, l.Error(), want)
				}
			})
		}
	}
}
