// Package eventcollector is the event_collector input: an HTTP server that
// takes events the way Segment's HTTP Tracking API does, so that the SDKs
// written for it, and for RudderStack, send here when one URL is changed.
package eventcollector

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"golang.org/x/net/netutil"

	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingapi"
)

const (
	pluginName = "event_collector"

	fieldAddress         = "address"
	fieldWriteKeys       = "write_keys"
	fieldKey             = "key"
	fieldSource          = "source"
	fieldServerSide      = "server_side"
	fieldAllowAnonymous  = "allow_anonymous_writes"
	fieldAnonymousSource = "anonymous_source"
	fieldTLS             = "tls"
	fieldCertFile        = "cert_file"
	fieldKeyFile         = "key_file"
	fieldCORS            = "cors"
	fieldAllowedOrigins  = "allowed_origins"
	fieldTrustedProxies  = "trusted_proxies"
	fieldTimeout         = "timeout"
	fieldRetryAfter      = "retry_after"
	fieldLimits          = "limits"
	fieldEventBytes      = "max_event_bytes"
	fieldBatchBytes      = "max_batch_bytes"
	fieldBatchEvents     = "max_batch_events"
	fieldDepth           = "max_depth"
	fieldInFlight        = "max_in_flight"
	fieldBufferedBytes   = "max_buffered_bytes"
	fieldConnections     = "max_connections"
	fieldHeaderBytes     = "max_header_bytes"
	fieldHeaderTimeout   = "header_timeout"
	fieldReadTimeout     = "read_timeout"
	fieldIdleTimeout     = "idle_timeout"
)

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Network").
		Summary("Collects events over HTTP as Segment's HTTP Tracking API does, from the SDKs of Segment and RudderStack, browsers and curl.").
		Description(`
Point an SDK at this server by its one URL option (`+"`host`"+` of Segment's server SDKs, `+"`apiHost`"+` with `+"`/v1`"+` of analytics.js, `+"`dataPlaneUrl`"+` of RudderStack's) and give it one of the `+"`write_keys`"+`.

| endpoint | takes |
| --- | --- |
| `+"`POST /v1/track`, `/v1/identify`, `/v1/page`, `/v1/screen`, `/v1/group`, `/v1/alias`"+` | one event; the endpoint says its type. `+"`/v1/t`, `/v1/i`, `/v1/p`, `/v1/s`, `/v1/g` and `/v1/a`"+` are the same, as analytics.js shortens them |
| `+"`POST /v1/batch`, `/v1/import`, `/v1/b`"+` | `+"`{\"batch\": [...]}`"+`, events of any type. `+"`context` and `integrations`"+` beside the list are merged into each event, member by member, where the event does not have the member itself |
| `+"`POST /beacon/v1/batch`"+` | the same, with the key in the query as `+"`writeKey`"+`, for RudderStack's browser SDK when a page closes |

The key comes as the user name of Basic authentication or as `+"`writeKey`"+` in the body, where it is removed. Bodies are JSON in UTF-8, plain or gzip, as `+"`application/json`, `text/plain` (what `navigator.sendBeacon` sends), `application/x-www-form-urlencoded`"+` (what RudderStack's Node SDK says of its gzip bodies) or without a content type.

### Answers

`+"`200 {\"success\":true}`"+` is sent only when the pipeline has delivered the events: everything answered so is stored. All else has a body of the form `+"`{\"success\":false,\"error\":{\"code\":\"...\",\"message\":\"...\"}}`"+`:

| status | when |
| --- | --- |
| 400 | the body is not what the endpoint takes: not JSON, cut off, not UTF-8, too deeply nested, no list of events, or, for the endpoints of one event, not a valid event |
| 401 | the write key is missing or unknown |
| 404, 405 | there is no such endpoint; it does not take this method |
| 408 | the body did not arrive within `+"`limits.read_timeout`"+` |
| 413 | the body is larger than `+"`limits`"+` allow; for gzip the decompressed body counts |
| 415 | the content type or content encoding is none of the above |
| 503 | the events are not stored and should be sent again after `+"`Retry-After`"+` seconds: the pipeline is busy, failed, or shutting down |

### Bad events in good batches

An event that cannot be accepted (not an object, no known `+"`type`"+`, neither `+"`userId` nor `anonymousId`"+`, an id, time or object of the wrong type, too large, too deeply nested) does not fail the batch it came in, since an SDK would drop or send again all of it. It becomes a message with the bytes the client sent, an error that holds the reasons, and the metadata `+"`source` and `received_at`"+`. Send the messages for which `+"`errored()`"+` holds to dead letters, as in the example: the batch is acknowledged when both its good and its bad events have been delivered.

### Events

A request makes one batch of messages, each a JSON object in the form of Segment's spec. What the client sent is kept to the byte, unknown fields and numbers included, but for these fields:

- `+"`receivedAt`"+` is the time of the request, `+"`originalTimestamp`"+` the client's `+"`timestamp`"+` (or its `+"`originalTimestamp`"+`, if it sent no other), and `+"`timestamp`"+` is corrected for the client's clock: `+"`receivedAt - (sentAt - originalTimestamp)`"+`. Without `+"`sentAt`"+` the client's clock is trusted, and an event that would lie in the future is dated at its receipt. All times become RFC 3339 in UTC with milliseconds.
- `+"`messageId`"+`, where missing, is a UUID made from the bytes of the event and its source, so that the same request sent twice makes the same ids.
- `+"`source`"+` is the source of the write key.
- `+"`context.ip`"+`, where the event has none, is the address of the client, unless the source is `+"`server_side`"+`.
- Fields of Segment's spec that are null, ids that are empty, and empty lists where an object is meant (as PHP writes them) are left out.

### Load

Requests wait for the pipeline, so a slow pipeline is felt by the clients as waiting and then as 503, and memory stays bounded: by `+"`limits.max_buffered_bytes`"+` for bodies and events that wait, and by `+"`limits.max_in_flight`"+` requests. A client that goes away, or was answered 503 after its events had entered the pipeline, may send them again: they have the same message ids.

### Metrics

| name | kind | labels |
| --- | --- | --- |
| `+"`event_collector_requests`"+` | counter | `+"`endpoint`, `status`"+` |
| `+"`event_collector_events_accepted`"+` | counter, of delivered events | `+"`source`"+` |
| `+"`event_collector_events_rejected`"+` | counter, of delivered bad events by the rule of their first reason | `+"`source`, `reason`"+` |
| `+"`event_collector_bytes`"+` | counter, of bodies after decompression | |
| `+"`event_collector_in_flight`"+` | gauge, of requests waiting for the pipeline | |`).
		Example("Collect from pages and servers", `
Events of a shop's pages and of its server go to one file, bad ones to another, as dead letters. Any output can take the place of either.`, `
input:
  event_collector:
    address: 0.0.0.0:8080
    write_keys:
      - { key: "${WRITE_KEY_WEB:change-me-web}", source: web }
      - { key: "${WRITE_KEY_SERVER:change-me-server}", source: server, server_side: true }
    cors:
      allowed_origins: [ https://shop.example ]

output:
  switch:
    cases:
      - check: errored()
        output:
          file:
            path: ./data/dead_letters.jsonl
            codec: lines
          processors:
            - dead_letter: {}
      - output:
          file:
            path: ./data/events.jsonl
            codec: lines
`).
		Example("Try it on one machine", `
Without a key, which only a loopback address may do. Then: `+"`curl -d '{\"userId\":\"u1\",\"event\":\"Hello\"}' http://127.0.0.1:8080/v1/track`", `
input:
  event_collector:
    allow_anonymous_writes: true

output:
  stdout: {}
`).
		Fields(fields()...).
		LintRule(`
let keys = this.write_keys.or([])
let anonymous = this.allow_anonymous_writes.or(false).string() == "true"
let host = this.address.or("127.0.0.1:8080").string().re_replace_all(":[^:]*$", "")
let loopback = $host.re_match("^(localhost|127(\\.[0-9]{1,3}){3}|\\[::1\\])$")
root = [
  if $keys.length() == 0 && !$anonymous {
    "` + lintNoKeys + `"
  },
  if $anonymous && !$loopback {
    "` + lintAnonymousLoopback + `"
  },
].filter(lint -> lint != null)
`)
}

const (
	lintNoKeys            = "`write_keys` is empty, so nobody could send events: add an entry such as { key: ${WRITE_KEY}, source: web }, or, to try things on one machine, set `allow_anonymous_writes: true`"
	lintAnonymousLoopback = "`allow_anonymous_writes` with an address that others can reach would let anybody write profiles: set `address: 127.0.0.1:8080`, or leave it out and list `write_keys`"
)

func fields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewStringField(fieldAddress).
			Description("The host and port to listen on. The default is reached from this machine only.").
			Default("127.0.0.1:8080").
			Example("0.0.0.0:8080").Example("[::1]:8080").
			LintRule(`root = if !this.string().re_match("^.*:[0-9]{1,5}$") { "address must be a host and a port: write for example 127.0.0.1:8080" }`),
		service.NewObjectListField(fieldWriteKeys,
			service.NewStringField(fieldKey).
				Description("The key that the SDK is given. Web pages and apps show it to everybody, so one key is for one source, and is replaced when it is abused.").
				Secret().
				Example("${WRITE_KEY_WEB}").
				LintRule(`root = if this.string() == "" { "the write key is empty: set the environment variable it is read from, or write ${WRITE_KEY_WEB:some-default}" }`),
			service.NewStringField(fieldSource).
				Description("The name of the source, which becomes the field `source` of its events: 1 to 64 letters, digits, dots, dashes and underscores.").
				Example("web").
				LintRule(`root = if !this.string().re_match("^[A-Za-z0-9._-]{1,64}$") { "source must be 1 to 64 letters, digits, dots, dashes and underscores: write for example web" }`),
			service.NewBoolField(fieldServerSide).
				Description("Whether events of this source are sent by a server on behalf of customers, so that the address they come from is not the customer's and is not to be put into `context.ip`.").
				Advanced().
				Default(false).
				Example(true),
		).
			Description("The keys that are accepted and the source each of them stands for. They are compared in constant time and never logged.").
			Default([]any{}).
			Example([]any{map[string]any{"key": "${WRITE_KEY_WEB}", "source": "web"}}),
		service.NewBoolField(fieldAllowAnonymous).
			Description("Whether requests without a write key are accepted, on a loopback address only. With no `write_keys` at all any key is accepted too, since SDKs insist on sending one.").
			Default(false).
			Example(true),
		service.NewStringField(fieldAnonymousSource).
			Description("The `source` of events that came without a known write key.").
			Advanced().
			Default("anonymous").
			Example("demo").
			LintRule(`root = if !this.string().re_match("^[A-Za-z0-9._-]{1,64}$") { "anonymous_source must be 1 to 64 letters, digits, dots, dashes and underscores: write for example demo" }`),
		service.NewObjectField(fieldTLS,
			service.NewStringField(fieldCertFile).
				Description("The file of the server's certificate and its chain, in PEM.").
				Default("").
				Example("/etc/ssl/collector.pem"),
			service.NewStringField(fieldKeyFile).
				Description("The file of the certificate's private key, in PEM.").
				Default("").
				Example("/etc/ssl/collector.key"),
		).
			Description("Serves HTTPS, and HTTP/2 with it, when both files are named.").
			Advanced().
			LintRule(`root = if this.type() == "object" && (this.cert_file.or("") == "") != (this.key_file.or("") == "") { "tls needs both cert_file and key_file: write the one that is missing, or leave out both to serve plain HTTP" }`),
		service.NewObjectField(fieldCORS,
			service.NewStringListField(fieldAllowedOrigins).
				Description("The origins of the web pages whose scripts may send events: exactly, with a wildcard for subdomains, or `*` for any. Leave it empty when only servers and apps send.").
				Default([]any{}).
				Example([]any{"https://shop.example", "https://*.shop.example"}).
				LintRule(`root = if this.type() == "string" && this != "*" && !this.re_match("^https?://(\\*\\.)?[^*/?#@ ]+$") { "an allowed origin is a scheme and a host without a path: write for example https://shop.example, https://*.shop.example or *" }`),
		).
			Description("What browsers are told about cross-origin requests."),
		service.NewStringListField(fieldTrustedProxies).
			Description("Addresses or networks of the proxies in front of this server. From these alone `X-Forwarded-For` is believed when `context.ip` is filled in: the client is the last address in it that is not such a proxy.").
			Advanced().
			Default([]any{}).
			Example([]any{"10.0.0.0/8", "fd00::/8"}).
			LintRule(`root = if this.type() == "string" && !this.re_match("^[0-9a-fA-F:.]+(/[0-9]{1,3})?$") { "a trusted proxy is an address or a network: write for example 10.0.0.0/8" }`),
		service.NewDurationField(fieldTimeout).
			Description("How long a request waits for the pipeline to deliver its events before it is answered with 503. Keep it below the time-out of the SDKs, 10 seconds for Segment's.").
			Default("5s").
			Example("8s"),
		service.NewDurationField(fieldRetryAfter).
			Description("What `Retry-After` tells clients that are answered with 503, in whole seconds.").
			Advanced().
			Default("5s").
			Example("30s"),
		service.NewObjectField(fieldLimits,
			limit(fieldEventBytes, 32<<10, "The most bytes one event may have, and the body of an endpoint that takes one event. Segment's limit is the default."),
			limit(fieldBatchBytes, 500<<10, "The most bytes the body of a batch may have after decompression. Segment's limit is the default; RudderStack's SDKs stay below it too."),
			limit(fieldBatchEvents, 10_000, "The most events a batch may have."),
			limit(fieldDepth, 64, "How many levels of objects and lists an event may nest."),
			limit(fieldInFlight, 256, "How many requests may wait for the pipeline at a time. Further ones are answered with 503."),
			limit(fieldBufferedBytes, 64<<20, "How many bytes of bodies being read and of events waiting for the pipeline may be held. Requests beyond that are answered with 503."),
			limit(fieldConnections, 4096, "How many connections may be open. Further ones wait; when three quarters are open, connections are closed after each answer."),
			limit(fieldHeaderBytes, 16<<10, "The most bytes the headers of a request may have."),
			service.NewDurationField(fieldHeaderTimeout).
				Description("How long the headers of a request may take to arrive.").
				Default("5s").Example("10s"),
			service.NewDurationField(fieldReadTimeout).
				Description("How long the body of a request may take to arrive.").
				Default("10s").Example("30s"),
			service.NewDurationField(fieldIdleTimeout).
				Description("How long a connection may be idle between requests.").
				Default("30s").Example("2m"),
		).
			Description("Bounds that keep one client from harming the others.").
			Advanced(),
	}
}

func limit(name string, value int, description string) *service.ConfigField {
	return service.NewIntField(name).
		Description(description).
		Default(value).
		Example(2 * value).
		LintRule(`root = if this.number().catch(1) < 1 { "` + name + ` must be at least 1: leave it out for the default" }`)
}

func init() {
	service.MustRegisterBatchInput(pluginName, spec(),
		func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
			return newCollector(conf, res)
		})
}

// collector is the input. Each request is a goroutine of the HTTP server that
// hands its batch to ReadBatch and waits until the batch is acknowledged; it is
// the only one who answers the client.
type collector struct {
	conf    config
	log     *service.Logger
	metrics metrics
	tls     *tls.Config

	parsers  sync.Pool
	slots    slots
	buffered budget
	open     atomic.Int64 // connections

	handoff chan *delivery
	// draining is closed when the pipeline takes no more batches, closed when
	// it acknowledges no more.
	draining, closed chan struct{}

	mu     sync.Mutex // guards what follows
	server *server
}

// server is one life of the listener, from Connect to its failure or the end.
type server struct {
	http    *http.Server
	failed  chan struct{} // closed when it serves no more
	stopped chan struct{} // closed when a graceful shutdown is complete
}

func newCollector(conf *service.ParsedConfig, res *service.Resources) (*collector, error) {
	c, err := parseConfig(conf)
	if err != nil {
		return nil, err
	}
	m := newMetrics(res.Metrics())
	in := &collector{
		conf:     c,
		log:      res.Logger(),
		metrics:  m,
		slots:    slots{limit: c.limits.inFlight, gauge: m.inFlight},
		buffered: budget{limit: int64(c.limits.bufferedBytes)},
		handoff:  make(chan *delivery),
		draining: make(chan struct{}),
		closed:   make(chan struct{}),
	}
	in.parsers.New = func() any {
		return trackingapi.NewParser(trackingapi.Limits{
			EventBytes:  c.limits.eventBytes,
			BatchEvents: c.limits.batchEvents,
			BatchBytes:  c.limits.batchBytes,
			Depth:       c.limits.depth,
		})
	}
	if c.certFile != "" {
		if in.tls, err = serverTLS(res.FS(), c.certFile, c.keyFile); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func serverTLS(files *service.FS, certFile, keyFile string) (*tls.Config, error) {
	cert, err := service.ReadFile(files, certFile)
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file: %w", err)
	}
	key, err := service.ReadFile(files, keyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.key_file: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file and tls.key_file do not make a certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// Connect opens the listener.
func (c *collector) Connect(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.draining:
		return service.ErrEndOfInput
	default:
	}
	if c.server != nil {
		select {
		case <-c.server.failed:
		default:
			return nil
		}
	}
	var listen net.ListenConfig
	ln, err := listen.Listen(ctx, "tcp", c.conf.address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("address %s is in use by another process: stop that one, or set `address` to a free port: %w", c.conf.address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("no permission to listen on %s: set `address` to a port above 1023: %w", c.conf.address, err)
	case err != nil:
		return fmt.Errorf("cannot listen on %s: check `address`: %w", c.conf.address, err)
	}
	address := ln.Addr()
	ln = netutil.LimitListener(ln, c.conf.limits.connections)

	s := &server{failed: make(chan struct{}), stopped: make(chan struct{})}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(c.serve),
		ReadHeaderTimeout: c.conf.limits.headerTimeout,
		IdleTimeout:       c.conf.limits.idleTimeout,
		MaxHeaderBytes:    c.conf.limits.headerBytes,
		// The handler bounds the reading of the body itself: a ReadTimeout
		// would go on running while the request waits for the pipeline. What
		// remains is a client that does not take its answer.
		WriteTimeout: c.conf.limits.readTimeout + 2*c.conf.timeout + 5*time.Second,
		TLSConfig:    c.tls,
		ConnState:    c.count,
		// What the server logs by itself names the addresses of clients.
		ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	c.server = s
	go func() {
		var err error
		if c.tls != nil {
			err = s.http.ServeTLS(ln, "", "")
		} else {
			err = s.http.Serve(ln)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			c.log.Errorf("The listener failed and is opened again: %v", err)
		}
		close(s.failed)
	}()
	scheme := "http"
	if c.tls != nil {
		scheme = "https"
	}
	c.log.Infof("Listening on %s://%s", scheme, address)
	return nil
}

func (c *collector) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
	}
}

// ReadBatch waits for the batch of a request.
func (c *collector) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	c.mu.Lock()
	s := c.server
	c.mu.Unlock()
	if s == nil {
		return nil, nil, service.ErrNotConnected
	}
	select {
	case d := <-c.handoff:
		return d.batch, func(_ context.Context, err error) error {
			d.acknowledge(err)
			return nil
		}, nil
	case <-s.failed:
		select {
		case <-c.draining:
			return nil, nil, service.ErrEndOfInput
		default:
			return nil, nil, service.ErrNotConnected
		}
	case <-ctx.Done():
		// The engine cancels the reading when it stops, well before it closes
		// the input: batches that it has already are still delivered. From now
		// on clients had better go elsewhere.
		if errors.Is(ctx.Err(), context.Canceled) {
			c.drain()
		}
		return nil, nil, ctx.Err()
	}
}

// drain stops accepting requests and lets those that wait for their
// acknowledgement finish.
func (c *collector) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.draining:
		return
	default:
	}
	close(c.draining)
	if s := c.server; s != nil {
		go func() {
			_ = s.http.Shutdown(context.Background()) // ended by Close, if not before
			close(s.stopped)
		}()
	}
}

// closeGrace is how long answers may take to be written when everything else
// has ended.
const closeGrace = 2 * time.Second

// Close ends the server. The engine calls it when every acknowledgement that
// will ever come has come, so requests that still wait are told to send their
// events again.
func (c *collector) Close(ctx context.Context) error {
	c.drain()
	c.mu.Lock()
	s := c.server
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	select {
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		// Who has not sent a whole request by now was not promised anything.
		return s.http.Close()
	}
}
