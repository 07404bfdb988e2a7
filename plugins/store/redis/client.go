package redis

import (
	"context"
	"slices"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// client is the connection in one of the modes. Either server or cluster is set.
type client struct {
	goredis.UniversalClient
	server  *goredis.Client
	cluster *goredis.ClusterClient
}

// go-redis logs errors to standard error that it also returns. The caller decides which
// of them to log.
func init() { goredis.SetLogger(discard{}) }

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

// bufferBytes holds a large part of a batch, which saves system calls.
const bufferBytes = 128 << 10

func newClient(o Options) (client, error) {
	t, err := o.target()
	if err != nil {
		return client{}, err
	}
	switch o.Mode {
	case Cluster:
		return ofCluster(goredis.NewClusterClient(o.cluster(t))), nil
	case Failover:
		return ofServer(goredis.NewFailoverClient(o.failover(t))), nil
	default:
		return ofServer(goredis.NewClient(&goredis.Options{
			Addr: t.addrs[0], Username: t.username, Password: t.password, DB: t.db, TLSConfig: t.tls,
			Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true,
			DialTimeout: o.DialTimeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, MaxRetries: o.MaxRetries, DialerRetries: 1, PoolSize: o.PoolSize,
			ReadBufferSize: bufferBytes, WriteBufferSize: bufferBytes,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})), nil
	}
}

// newReplicaClient returns a client that reads from replicas if there are any.
func newReplicaClient(o Options) (client, error) {
	t, err := o.target()
	if err != nil {
		return client{}, err
	}
	if o.Mode == Failover {
		f := o.failover(t)
		f.RouteRandomly = true
		return ofCluster(goredis.NewFailoverClusterClient(f)), nil
	}
	c := o.cluster(t)
	c.ReadOnly, c.RouteRandomly = true, true
	return ofCluster(goredis.NewClusterClient(c)), nil
}

func ofServer(c *goredis.Client) client { return client{UniversalClient: c, server: c} }

func ofCluster(c *goredis.ClusterClient) client { return client{UniversalClient: c, cluster: c} }

func (o Options) cluster(t target) *goredis.ClusterOptions {
	return &goredis.ClusterOptions{
		Addrs: t.addrs, Username: t.username, Password: t.password, TLSConfig: t.tls,
		Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true,
		DialTimeout: o.DialTimeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, MaxRetries: o.MaxRetries, DialerRetries: 1, PoolSize: o.PoolSize,
		ReadBufferSize: bufferBytes, WriteBufferSize: bufferBytes,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

func (o Options) failover(t target) *goredis.FailoverOptions {
	return &goredis.FailoverOptions{
		MasterName: o.MasterName, SentinelAddrs: t.addrs, SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
		Username: t.username, Password: t.password, DB: t.db, TLSConfig: t.tls,
		Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true,
		DialTimeout: o.DialTimeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, MaxRetries: o.MaxRetries, DialerRetries: 1, PoolSize: o.PoolSize,
		ReadBufferSize: bufferBytes, WriteBufferSize: bufferBytes,
	}
}

// primaryOf returns the server that has a key.
func (c client) primaryOf(ctx context.Context, key string) (*goredis.Client, error) {
	if c.server != nil {
		return c.server, nil
	}
	return c.cluster.MasterForKey(ctx, key)
}

// execute runs a pipeline. The error of each command is its own. If setting up the
// connection fails with an error reply, such as WRONGPASS after a change of the
// password, go-redis returns the error but leaves the commands without one, and without
// it an unanswered command looks like an empty answer.
func execute(ctx context.Context, pipe goredis.Pipeliner) {
	cmds, err := pipe.Exec(ctx)
	if err == nil || slices.ContainsFunc(cmds, func(c goredis.Cmder) bool { return c.Err() != nil }) {
		return
	}
	for _, c := range cmds {
		c.SetErr(err)
	}
}
