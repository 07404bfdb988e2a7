package enrich

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/lookup"
)

const (
	fieldRedis    = "redis"
	fieldCluster  = "cluster"
	fieldRedisKey = "redis_key"
	fieldType     = "type"

	typeJSON   = "json"
	typeString = "string"
	typeHash   = "hash"
)

func redisField() *service.ConfigField {
	return service.NewObjectField(fieldRedis,
		service.NewStringField(fieldURL).
			Description("The address, as `redis://user:password@host:port/database`, or `rediss://` for TLS. For a cluster, several addresses separated by commas.").
			Secret().
			Example("${REDIS_URL:redis://127.0.0.1:6379}").
			LintRule(`root = if this.string().split(",").any(url -> !url.trim().re_match("^rediss?://.")) { [ "url must begin with redis:// or rediss://: write for example redis://127.0.0.1:6379" ] }`),
		service.NewBoolField(fieldCluster).
			Description("Whether the address is a Redis Cluster.").
			Default(false),
		service.NewInterpolatedStringField(fieldRedisKey).
			Description("The Redis key of the lookup key `this.key`.").
			Default("${! this.key }").
			Example("product:${! this.key }"),
		service.NewStringAnnotatedEnumField(fieldType, map[string]string{
			typeJSON:   "A string with JSON.",
			typeString: "A string.",
			typeHash:   "A hash, as an object of its fields, all of them strings.",
		}).Description("The type of the Redis values.").Default(typeJSON),
		service.NewTLSToggledField(fieldTLS),
	).Description("Redis 6.2 or later, or Valkey. A call is one MGET, or one pipeline for hashes and clusters.").Optional()
}

type redisProvider struct {
	client  goredis.UniversalClient
	cluster bool
	key     *service.InterpolatedString
	kind    string
	results results
}

func newRedis(conf *service.ParsedConfig, r results, timeout time.Duration, inFlight int) (*redisProvider, error) {
	p := &redisProvider{results: r}
	urls, err := conf.FieldString(fieldURL)
	if err != nil {
		return nil, err
	}
	if p.cluster, err = conf.FieldBool(fieldCluster); err != nil {
		return nil, err
	}
	if p.key, err = conf.FieldInterpolatedString(fieldRedisKey); err != nil {
		return nil, err
	}
	if p.kind, err = conf.FieldString(fieldType); err != nil {
		return nil, err
	}
	tlsConf, enabled, err := conf.FieldTLSToggled(fieldTLS)
	if err != nil {
		return nil, err
	}
	var first *goredis.Options
	var addrs []string
	for text := range strings.SplitSeq(urls, ",") {
		o, err := goredis.ParseURL(strings.TrimSpace(text))
		if err != nil {
			// The library's error contains the URL with the password.
			return nil, errors.New("redis.url must have the form redis://user:password@host:port/database")
		}
		if first == nil {
			first = o
		}
		addrs = append(addrs, o.Addr)
	}
	if len(addrs) > 1 && !p.cluster {
		return nil, errors.New("several addresses in redis.url need cluster: true")
	}
	if first.TLSConfig != nil {
		tlsConf = mergeTLS(tlsConf, enabled, first.TLSConfig)
	} else if !enabled {
		tlsConf = nil
	}
	// Package lookup implements retries and timeouts.
	p.client = goredis.NewUniversalClient(&goredis.UniversalOptions{
		Addrs: addrs, Username: first.Username, Password: first.Password, DB: first.DB, TLSConfig: tlsConf,
		IsClusterMode: p.cluster, ContextTimeoutEnabled: true, MaxRetries: -1,
		DialerRetries: 1, DialTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolSize: inFlight, PoolTimeout: timeout,
	})
	return p, nil
}

func mergeTLS(own *tls.Config, enabled bool, fromURL *tls.Config) *tls.Config {
	if !enabled {
		return fromURL
	}
	own = own.Clone()
	if own.ServerName == "" {
		own.ServerName = fromURL.ServerName
	}
	return own
}

func (p *redisProvider) close() { _ = p.client.Close() }

// Lookup implements lookup.Provider.
func (p *redisProvider) Lookup(ctx context.Context, keys []string) (map[string]lookup.Value, error) {
	names := make([]string, len(keys))
	for i, key := range keys {
		msg := service.NewMessage(nil)
		msg.SetStructuredMut(map[string]any{"key": key})
		name, err := p.key.TryString(msg)
		if err != nil {
			return nil, &lookup.Error{Reason: "redis_key failed for a key", Refused: true}
		}
		names[i] = name
	}
	values := make(map[string]lookup.Value, len(keys))
	if p.kind != typeHash && !p.cluster {
		found, err := p.client.MGet(ctx, names...).Result()
		if err != nil {
			return nil, redisError(err)
		}
		for i, v := range found {
			if text, ok := v.(string); ok {
				p.put(values, keys[i], text)
			}
		}
		return values, nil
	}
	commands := make([]goredis.Cmder, len(names))
	// The pipeline returns the error of its first failed command, for example for a
	// key of another type. The errors of all commands are checked below.
	_, err := p.client.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
		for i, name := range names {
			if p.kind == typeHash {
				commands[i] = pipe.HGetAll(ctx, name)
			} else {
				commands[i] = pipe.Get(ctx, name)
			}
		}
		return nil
	})
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && !slices.ContainsFunc(commands, func(c goredis.Cmder) bool { return c.Err() != nil }) {
		// Setting up the connection failed, and no command was answered.
		return nil, redisError(err)
	}
	for i, c := range commands {
		switch err := c.Err(); {
		case errors.Is(err, goredis.Nil):
		case goredis.HasErrorPrefix(err, "WRONGTYPE"):
			values[keys[i]] = lookup.Value{Refused: true}
		case err != nil:
			return nil, redisError(err)
		default:
			switch c := c.(type) {
			case *goredis.MapStringStringCmd:
				if fields := c.Val(); len(fields) > 0 {
					v := make(map[string]any, len(fields))
					for name, field := range fields {
						v[name] = field
					}
					p.results.put(values, keys[i], v)
				}
			case *goredis.StringCmd:
				p.put(values, keys[i], c.Val())
			}
		}
	}
	return values, nil
}

func (p *redisProvider) put(values map[string]lookup.Value, key, text string) {
	if p.kind == typeString {
		p.results.put(values, key, text)
		return
	}
	v, err := decode([]byte(text))
	if err != nil {
		values[key] = lookup.Value{Refused: true}
		return
	}
	p.results.put(values, key, v)
}

// redisError keeps only the first word of a server's error reply, such as NOAUTH.
func redisError(err error) error {
	var reply goredis.Error
	if !errors.As(err, &reply) {
		return err
	}
	word, _, _ := strings.Cut(reply.Error(), " ")
	return &lookup.Error{Reason: fmt.Sprintf("Redis answered %q", word)}
}
