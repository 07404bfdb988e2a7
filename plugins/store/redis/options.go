package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Mode is the kind of Redis deployment at the addresses.
type Mode string

const (
	// Simple is one server at one address.
	Simple Mode = "simple"
	// Cluster is a Redis Cluster. The addresses of some of its nodes suffice.
	Cluster Mode = "cluster"
	// Failover is a primary monitored by Sentinels. The addresses are those of the
	// Sentinels.
	Failover Mode = "failover"
)

// Options configure the connection to Redis. The zero value of a field means its
// default.
type Options struct {
	// URL is redis://user:password@host:port/db, or rediss:// for TLS. For Cluster and
	// Failover it may be a comma-separated list; user, password and database are those
	// of the first.
	URL string

	Mode Mode // default Simple

	// MasterName is the name of the primary that the Sentinels monitor.
	// SentinelUsername and SentinelPassword are the credentials for the Sentinels.
	// Failover only.
	MasterName       string
	SentinelUsername string
	SentinelPassword string

	// Username and Password are the ACL user. They override those of the URL.
	Username string
	Password string

	// TLS enables TLS with this configuration, also for a redis:// URL.
	TLS *tls.Config

	// Prefix is the beginning of every key (default "profiles"). Stores with different
	// prefixes can share a Redis.
	Prefix string

	// Shards is the number of parts of the store (default 64 in a cluster, 1
	// otherwise), spread evenly over the slots of a cluster. All keys of a part,
	// records and index entries, are in one slot, which makes a change atomic. It is
	// part of the stored data and cannot be changed later. Index reads query every
	// part: fewer parts make lookups, index scans and batches cheaper, more parts
	// balance a cluster more evenly. A single server has nothing to balance.
	Shards int

	// IdleExpiry deletes a record that was not written for this long (default never).
	// Its index entries are removed when a ScanIndex finds them.
	IdleExpiry time.Duration

	// ReadReplicas makes LoadReplica read from replicas. Cluster and Failover only.
	ReadReplicas bool

	// WaitReplicas makes Commit wait until this many replicas of every written primary
	// have the changes, and fail after WaitTimeout (default 1s). It reduces, but does
	// not eliminate, the window in which a failover loses acknowledged writes.
	WaitReplicas int
	WaitTimeout  time.Duration

	// MaxRecordBytes is the size limit of one record (default 16 MiB).
	MaxRecordBytes int

	// Logger receives warnings about settings of the servers that lose profiles. nil
	// discards them.
	Logger Logger

	// DialTimeout (default 5s) bounds connecting, Timeout (default 3s) each read or
	// write. MaxRetries is the number of retries after a network error or while a
	// server is loading or failing over (default 3, -1 for none). PoolSize is the
	// number of connections to each server (default ten for each CPU).
	DialTimeout time.Duration
	Timeout     time.Duration
	MaxRetries  int
	PoolSize    int
}

const (
	defaultPrefix         = "profiles"
	clusterShards         = 64
	defaultMaxRecordBytes = 16 << 20
	maxRecordBytes        = 256 << 20
	defaultWaitTimeout    = time.Second
	defaultDialTimeout    = 5 * time.Second
	defaultTimeout        = 3 * time.Second
)

func (o Options) withDefaults() (Options, error) {
	if o.Mode == "" {
		o.Mode = Simple
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if o.Shards == 0 {
		o.Shards = 1
		if o.Mode == Cluster {
			o.Shards = clusterShards
		}
	}
	if o.MaxRecordBytes == 0 {
		o.MaxRecordBytes = defaultMaxRecordBytes
	}
	if o.WaitTimeout == 0 {
		o.WaitTimeout = defaultWaitTimeout
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = defaultDialTimeout
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Logger == nil {
		o.Logger = silence{}
	}
	switch {
	case o.Mode != Simple && o.Mode != Cluster && o.Mode != Failover:
		return o, fmt.Errorf("redis profile store: the mode %q is not one of %s, %s and %s", o.Mode, Simple, Cluster, Failover)
	case o.Mode == Failover && o.MasterName == "":
		return o, errors.New("redis profile store: name the primary that the Sentinels watch, as in their `sentinel monitor NAME`")
	case o.Mode != Failover && o.MasterName != "":
		return o, fmt.Errorf("redis profile store: a master name is for mode %s; this is mode %s", Failover, o.Mode)
	case o.Mode == Simple && o.ReadReplicas:
		return o, fmt.Errorf("redis profile store: reading from replicas needs mode %s or %s", Cluster, Failover)
	case strings.ContainsAny(o.Prefix, "{}"):
		return o, fmt.Errorf("redis profile store: the prefix %q has a brace, which would misplace keys in a cluster; leave it out", o.Prefix)
	case o.Shards < 1 || o.Shards > slots:
		return o, fmt.Errorf("redis profile store: %d shards are not between 1 and %d", o.Shards, slots)
	case o.IdleExpiry != 0 && o.IdleExpiry < time.Second:
		return o, fmt.Errorf("redis profile store: an idle expiry of %s is under a second; leave it out to keep records for ever", o.IdleExpiry)
	case o.WaitReplicas < 0:
		return o, fmt.Errorf("redis profile store: waiting for %d replicas: give none or more", o.WaitReplicas)
	case o.WaitTimeout < time.Millisecond || o.WaitTimeout >= o.Timeout:
		return o, fmt.Errorf("redis profile store: the wait for replicas of %s must be shorter than the timeout of %s", o.WaitTimeout, o.Timeout)
	case o.MaxRecordBytes < 0 || o.MaxRecordBytes > maxRecordBytes:
		return o, fmt.Errorf("redis profile store: a record limit of %d bytes is not between 1 byte and 256 MiB", o.MaxRecordBytes)
	}
	return o, nil
}

// target is the parsed form of the URLs.
type target struct {
	addrs              []string
	username, password string
	db                 int
	tls                *tls.Config
}

func (o Options) target() (target, error) {
	var t target
	for i, u := range strings.Split(o.URL, ",") {
		parsed, err := goredis.ParseURL(strings.TrimSpace(u))
		if err != nil {
			// The error may quote a part of the URL, such as a password with a slash
			// that is taken for the port.
			return t, fmt.Errorf("redis profile store: URL %d is not valid; write redis://host:port or rediss://host:port, with the reserved characters of a password escaped (%%2F for /, %%40 for @, %%23 for #)", i+1)
		}
		t.addrs = append(t.addrs, parsed.Addr)
		if i > 0 {
			continue
		}
		t.username, t.password, t.db = parsed.Username, parsed.Password, parsed.DB
		if parsed.TLSConfig != nil {
			// Without ServerName, so that each node is verified by its own name.
			t.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	if o.Username != "" || o.Password != "" {
		t.username, t.password = o.Username, o.Password
	}
	if o.TLS != nil {
		t.tls = o.TLS
	}
	switch {
	case o.Mode == Simple && len(t.addrs) > 1:
		return t, fmt.Errorf("redis profile store: %d URLs are too many for mode %s; give one, or set the mode to %s or %s", len(t.addrs), Simple, Cluster, Failover)
	case o.Mode == Cluster && t.db != 0:
		return t, fmt.Errorf("redis profile store: a cluster has database 0 only, not %d; use the prefix to keep stores apart", t.db)
	}
	return t, nil
}
