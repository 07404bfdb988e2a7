package profiles

import (
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
	"github.com/connect-personalize/connect-personalize/plugins/store/redis"
)

const (
	fieldStore    = "store"
	fieldEmbedded = "embedded"
	fieldPath     = "path"

	fieldRedis        = "redis"
	fieldURL          = "url"
	fieldKind         = "kind"
	fieldMaster       = "master"
	fieldUsername     = "username"
	fieldPassword     = "password"
	fieldSentinel     = "sentinel"
	fieldTLS          = "tls"
	fieldPrefix       = "prefix"
	fieldShards       = "shards"
	fieldIdleExpiry   = "idle_expiry"
	fieldReadReplicas = "read_replicas"
	fieldWaitReplicas = "wait_replicas"
	fieldWaitTimeout  = "wait_timeout"
	fieldMaxRecord    = "max_record_bytes"
	fieldTimeout      = "timeout"
	fieldPoolSize     = "pool_size"
)

var errOneStore = errors.New("store needs exactly one kind: write embedded with a path, or redis with a url")

func storeField() *service.ConfigField {
	return service.NewObjectField(fieldStore,
		service.NewObjectField(fieldEmbedded,
			service.NewStringField(fieldPath).
				Description("Folder of the store, which is created if it does not exist. Only one process at a time can open it. `:memory:` keeps profiles in memory only.").
				Example("./data/profiles").
				LintRule(`root = if this == "" { [ "path must name a folder, such as ./data/profiles, or be :memory:" ] }`),
			maxRecordField(),
		).Description("A store in a local folder, for one process.").Optional(),
		redisField(),
	).Description("Store of the profiles: exactly one of the following.").
		LintRule(`
let kinds = if this.type() == "object" { ["embedded", "redis"].filter(kind -> this.exists(kind)).length() } else { 1 }
root = if $kinds != 1 { [ "` + errOneStore.Error() + `" ] }`)
}

func maxRecordField() *service.ConfigField {
	return service.NewStringField(fieldMaxRecord).
		Description("Maximum size of a stored profile. Events that would exceed it are marked as failed, for the dead letters. Each event writes the whole profile, so a higher limit lets one customer use more disk and network bandwidth.").
		Default("4MiB").
		Advanced()
}

// parseMaxRecord parses the value of maxRecordField.
func parseMaxRecord(text string) (int, error) {
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > 256<<20 {
		return 0, fmt.Errorf("max_record_bytes is %q; write a size up to 256MiB, such as 4MiB", text)
	}
	return int(size), nil
}

func redisField() *service.ConfigField {
	return service.NewObjectField(fieldRedis,
		service.NewStringField(fieldURL).
			Description("Address, as `redis://user:password@host:port/database`, or `rediss://` for TLS. For a cluster or Sentinels, several addresses separated by commas; user, password and database are those of the first.").
			Secret().
			Example("${REDIS_URL:redis://127.0.0.1:6379}").
			LintRule(`root = if this.string().split(",").any(url -> !url.trim().re_match("^rediss?://.")) { [ "url must begin with redis:// or rediss://: write for example redis://127.0.0.1:6379" ] }`),
		service.NewStringAnnotatedEnumField(fieldKind, map[string]string{
			string(redis.Simple):   "One server, or a proxy, at one address.",
			string(redis.Cluster):  "A Redis Cluster; `url` lists some of its nodes.",
			string(redis.Failover): "A primary watched by Sentinels; `url` lists the Sentinels.",
		}).Description("Kind of deployment at `url`.").Default(string(redis.Simple)),
		service.NewStringField(fieldMaster).
			Description("Name of the primary that the Sentinels monitor, for the kind `failover`.").
			Default("").
			Example("profiles"),
		service.NewStringField(fieldUsername).
			Description("ACL user, which overrides that in `url`.").
			Default(""),
		service.NewStringField(fieldPassword).
			Description("Password, which overrides that in `url`.").
			Secret().
			Default("").
			Example("${REDIS_PASSWORD}"),
		service.NewObjectField(fieldSentinel,
			service.NewStringField(fieldUsername).Description("User name.").Default(""),
			service.NewStringField(fieldPassword).Description("Password.").Secret().Default(""),
		).Description("Credentials for the Sentinels.").Advanced(),
		service.NewTLSToggledField(fieldTLS),
		service.NewStringField(fieldPrefix).
			Description("Prefix of all keys. Stores with different prefixes can share a Redis.").
			Default("profiles").
			LintRule(`root = if this.string() == "" || this.string().re_match("[{}]") { [ "prefix must not be empty or contain braces: write for example profiles" ] }`),
		service.NewIntField(fieldShards).
			Description("Number of parts of the store, which are spread evenly over the slots of a cluster; 0 means 64 in a cluster and 1 elsewhere. It belongs to the data and cannot be changed later. Index reads query every part, so a lower number makes lookups by identifier, polls of due messages and batches cheaper. A higher number makes the units smaller in which a cluster is balanced: use at least ten for each future primary. A store on one server that may be copied to a cluster later needs the number of the cluster from the beginning.").
			Default(0).
			Example(256).
			Advanced().
			LintRule(`root = if this < 0 || this > 16384 { [ "shards must be from 1 to 16384, or 0 for 64 in a cluster and 1 elsewhere" ] }`),
		service.NewStringField(fieldIdleExpiry).
			Description("Time without events after which a profile is deleted, such as `400d`. Empty keeps all profiles.").
			Default("").
			Example("400d").
			LintRule(profiledefinition.DurationRule("idle_expiry")),
		service.NewBoolField(fieldReadReplicas).
			Description("Whether the profile API reads from replicas, in a cluster or with Sentinels. Replicas may lag behind the primary. Updates always read from the primary.").
			Default(false),
		service.NewIntField(fieldWaitReplicas).
			Description("Number of replicas that must confirm a change before it is acknowledged. It makes the loss of acknowledged changes in a failover unlikely, but not impossible.").
			Default(0).
			Advanced().
			LintRule(`root = if this < 0 { [ "wait_replicas must be 0 or more" ] }`),
		service.NewDurationField(fieldWaitTimeout).
			Description("Maximum wait for these replicas, after which the batch is retried. It must be shorter than `timeout`.").
			Default("1s").
			Advanced(),
		maxRecordField(),
		service.NewDurationField(fieldTimeout).
			Description("Maximum duration of a call, after which it is retried.").
			Default("3s").
			Advanced(),
		service.NewIntField(fieldPoolSize).
			Description("Maximum number of connections to each server; 0 means ten for each CPU.").
			Default(0).
			Advanced(),
	).Description("A store in Redis 6.2 or later, or Valkey, for any number of processes.").
		Optional().
		LintRule(`
let kind = this.kind.or("simple")
root = [
  if $kind == "failover" && this.master.or("") == "" {
    "kind failover needs the name of the primary: write master, as in the Sentinels' own sentinel monitor NAME"
  },
  if $kind != "failover" && this.master.or("") != "" {
    "master is for Sentinels: write kind: failover, or leave master out"
  },
  if $kind == "simple" && this.url.or("").string().contains(",") {
    "several addresses need kind: cluster or kind: failover"
  },
  if $kind == "simple" && this.read_replicas.or(false).string() == "true" {
    "read_replicas needs kind: cluster or kind: failover"
  },
].filter(lint -> lint != null)
`)
}

// openStore opens the configured store.
func openStore(conf *service.ParsedConfig, res *service.Resources) (store.Store, error) {
	if conf.Contains(fieldEmbedded) == conf.Contains(fieldRedis) {
		return nil, errOneStore
	}
	if conf.Contains(fieldRedis) && !inMemory.Load() {
		options, err := redisOptions(conf.Namespace(fieldRedis))
		if err != nil {
			return nil, err
		}
		options.Logger = res.Logger()
		return redis.Open(options)
	}
	options := embedded.Options{Path: embedded.Memory, Logger: res.Logger()}
	if conf.Contains(fieldEmbedded) {
		largest, err := conf.FieldString(fieldEmbedded, fieldMaxRecord)
		if err != nil {
			return nil, err
		}
		if options.MaxRecordBytes, err = parseMaxRecord(largest); err != nil {
			return nil, err
		}
		if !inMemory.Load() {
			if options.Path, err = conf.FieldString(fieldEmbedded, fieldPath); err != nil {
				return nil, err
			}
		}
	}
	return embedded.Open(options)
}

func redisOptions(conf *service.ParsedConfig) (o redis.Options, err error) {
	var kind, expiry, largest string
	for _, field := range []struct {
		into *string
		path []string
	}{
		{&o.URL, []string{fieldURL}},
		{&kind, []string{fieldKind}},
		{&o.MasterName, []string{fieldMaster}},
		{&o.Username, []string{fieldUsername}},
		{&o.Password, []string{fieldPassword}},
		{&o.SentinelUsername, []string{fieldSentinel, fieldUsername}},
		{&o.SentinelPassword, []string{fieldSentinel, fieldPassword}},
		{&o.Prefix, []string{fieldPrefix}},
		{&expiry, []string{fieldIdleExpiry}},
		{&largest, []string{fieldMaxRecord}},
	} {
		if *field.into, err = conf.FieldString(field.path...); err != nil {
			return o, err
		}
	}
	for _, field := range []struct {
		into *int
		name string
	}{{&o.Shards, fieldShards}, {&o.WaitReplicas, fieldWaitReplicas}, {&o.PoolSize, fieldPoolSize}} {
		if *field.into, err = conf.FieldInt(field.name); err != nil {
			return o, err
		}
	}
	for _, field := range []struct {
		into *time.Duration
		name string
	}{{&o.WaitTimeout, fieldWaitTimeout}, {&o.Timeout, fieldTimeout}} {
		if *field.into, err = conf.FieldDuration(field.name); err != nil {
			return o, err
		}
	}
	o.Mode = redis.Mode(kind)
	if o.IdleExpiry, err = profiledefinition.ParseDuration(expiry); err != nil {
		return o, fmt.Errorf("idle_expiry: %w", err)
	}
	if o.ReadReplicas, err = conf.FieldBool(fieldReadReplicas); err != nil {
		return o, err
	}
	if o.MaxRecordBytes, err = parseMaxRecord(largest); err != nil {
		return o, err
	}
	tlsConf, encrypted, err := conf.FieldTLSToggled(fieldTLS)
	if err != nil {
		return o, err
	}
	if encrypted {
		o.TLS = tlsConf
	}
	return o, nil
}
