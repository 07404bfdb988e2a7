package profiles

import (
	"context"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
	"github.com/connect-personalize/connect-personalize/plugins/store/redis"
)

func storeConfig(yaml string) string {
	return "profiles:\n  - label: shop\n    definition: ../../configs/retail/profile.yaml\n    store: " + yaml + "\n"
}

func TestLintStore(t *testing.T) {
	linter := service.GlobalEnvironment().FullConfigSchema("", "").NewStreamConfigLinter()
	for _, c := range []struct{ yaml, want string }{
		{`{ embedded: { path: ./data } }`, ""},
		{`{ redis: { url: "redis://h:6379" } }`, ""},
		{`{ redis: { url: "${REDIS_URL:redis://h:6379}", kind: "${REDIS_KIND:simple}" } }`, ""},
		{`{ redis: { url: "rediss://a:1, rediss://b:2", kind: cluster, read_replicas: true, wait_replicas: 1 } }`, ""},
		{`{ redis: { url: "redis://a:1,redis://b:2", kind: failover, master: main, sentinel: { password: x } } }`, ""},
		{`{ redis: { url: "redis://h:6379", tls: { enabled: true, root_cas_file: ca.pem }, idle_expiry: 400d, prefix: shop } }`, ""},
		{`{}`, "exactly one kind"},
		{`{ embedded: { path: ./data }, redis: { url: "redis://h:6379" } }`, "exactly one kind"},
		{`{ redis: {} }`, "url"},
		{`{ redis: { url: "h:6379" } }`, "must begin with redis://"},
		{`{ redis: { url: "redis://a:1,b:2", kind: cluster } }`, "must begin with redis://"},
		{`{ redis: { url: "redis://a:1,redis://b:2" } }`, "need kind: cluster or kind: failover"},
		{`{ redis: { url: "redis://a:1", kind: failover } }`, "write master"},
		{`{ redis: { url: "redis://a:1", master: main } }`, "write kind: failover"},
		{`{ redis: { url: "redis://a:1", read_replicas: true } }`, "read_replicas needs"},
		{`{ redis: { url: "redis://a:1", prefix: "{x}" } }`, "braces"},
		{`{ redis: { url: "redis://a:1", idle_expiry: a year } }`, "such as 30d"},
		{`{ redis: { url: "redis://a:1", shards: -1 } }`, "from 1 to 16384"},
		{`{ redis: { url: "redis://a:1", wait_replicas: -1 } }`, "0 or more"},
		{`{ redis: { url: "redis://a:1", kind: single } }`, "single"},
	} {
		lints, err := linter.LintYAML([]byte(storeConfig(c.yaml)))
		require.NoError(t, err, c.yaml)
		if c.want == "" {
			require.Empty(t, lints, c.yaml)
			continue
		}
		require.Len(t, lints, 1, c.yaml)
		require.Contains(t, lints[0].Error(), c.want)
	}
}

func parseStore(t *testing.T, yaml string) *service.ParsedConfig {
	conf, err := service.NewConfigSpec().Field(storeField()).ParseYAML("store: "+yaml, nil)
	require.NoError(t, err)
	return conf.Namespace(fieldStore)
}

func TestRedisOptions(t *testing.T) {
	conf := parseStore(t, `
  redis:
    url: rediss://u:p@a:1,rediss://b:2
    kind: failover
    master: main
    sentinel: { username: su, password: sp }
    tls: { enabled: true }
    prefix: shop
    shards: 16
    idle_expiry: 2d
    read_replicas: true
    wait_replicas: 2
    wait_timeout: 500ms
    timeout: 2s
    max_record_bytes: 1MiB
    pool_size: 7
`)
	o, err := redisOptions(conf.Namespace(fieldRedis))
	require.NoError(t, err)
	require.NotNil(t, o.TLS)
	o.TLS = nil
	require.Equal(t, redis.Options{
		URL: "rediss://u:p@a:1,rediss://b:2", Mode: redis.Failover, MasterName: "main",
		SentinelUsername: "su", SentinelPassword: "sp", Prefix: "shop", Shards: 16, IdleExpiry: 48 * 3600e9,
		ReadReplicas: true, WaitReplicas: 2, WaitTimeout: 5e8, Timeout: 2e9, MaxRecordBytes: 1 << 20, PoolSize: 7,
	}, o)

	// Fields without a value have the defaults of redis.Options.
	o, err = redisOptions(parseStore(t, `{ redis: { url: "redis://a:1" } }`).Namespace(fieldRedis))
	require.NoError(t, err)
	require.Nil(t, o.TLS)
	_, err = redis.Open(o)
	require.NoError(t, err)

	for _, bad := range []string{`{ redis: { url: "redis://a:1", max_record_bytes: much } }`, `{ redis: { url: "redis://a:1", idle_expiry: long } }`} {
		_, err = redisOptions(parseStore(t, bad).Namespace(fieldRedis))
		require.Error(t, err, bad)
	}
}

func TestOpenStore(t *testing.T) {
	for _, bad := range []string{`{}`, `{ embedded: { path: ":memory:" }, redis: { url: "redis://a:1" } }`} {
		_, err := openStore(parseStore(t, bad), service.MockResources())
		require.ErrorIs(t, err, errOneStore, bad)
	}
	// Redis is not connected to before it is needed.
	s, err := openStore(parseStore(t, `{ redis: { url: "redis://:s3cret@127.0.0.1:1", timeout: 1500ms } }`), service.MockResources())
	require.NoError(t, err)
	require.IsType(t, &redis.Store{}, s)
	err = s.Ping(context.Background())
	require.Error(t, err)
	require.NotContains(t, err.Error(), "s3cret")
	require.NoError(t, s.Close())

	inMemory.Store(true)
	defer inMemory.Store(false)
	for _, conf := range []string{`{ redis: { url: "redis://127.0.0.1:1" } }`, `{ embedded: { path: /nowhere/at/all } }`} {
		s, err := openStore(parseStore(t, conf), service.MockResources())
		require.NoError(t, err)
		require.IsType(t, &embedded.Store{}, s)
		require.NoError(t, s.Close())
	}
}

// TestEmbeddedRecordLimit commits records around the configured limit and the default.
func TestEmbeddedRecordLimit(t *testing.T) {
	for conf, limit := range map[string]int{
		`{ embedded: { path: ":memory:" } }`:                            4 << 20,
		`{ embedded: { path: ":memory:", max_record_bytes: "64KiB" } }`: 64 << 10,
	} {
		s, err := openStore(parseStore(t, conf), service.MockResources())
		require.NoError(t, err)
		_, err = s.Commit(t.Context(), []store.Change{{Key: "a", Data: make([]byte, limit)}})
		require.NoError(t, err)
		_, err = s.Commit(t.Context(), []store.Change{{Key: "b", Data: make([]byte, limit+1)}})
		require.ErrorIs(t, err, store.ErrTooLarge)
		require.NoError(t, s.Close())
	}
	_, err := openStore(parseStore(t, `{ embedded: { path: ":memory:", max_record_bytes: big } }`), service.MockResources())
	require.ErrorContains(t, err, "such as 4MiB")
}
