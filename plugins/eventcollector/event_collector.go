// Package eventcollector is the event_collector input: an HTTP server that
// implements Segment's HTTP Tracking API, so that the SDKs of Segment and
// RudderStack send here when one URL is changed.
//
// A request passes these steps, one file each: handler.go routes it and checks
// its key, request_body.go reads the body within memory limits (limits.go), the
// package trackingapi parses it, and delivery.go passes the events to the
// pipeline and waits for the acknowledgement. Only then the client gets 200.
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
	"runtime"
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
	fieldKeyRate         = "events_per_second"
	fieldCustomerRate    = "customer_events_per_second"
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
	fieldIDBytes         = "max_id_bytes"
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
		Summary("Collects events over HTTP from the SDKs of Segment and RudderStack, browsers and curl, by Segment's HTTP Tracking API.").
		Description(`
Set the URL option of the SDK to this server (`+"`host`"+` of Segment's server SDKs, `+"`apiHost`"+` with `+"`/v1`"+` of analytics.js, `+"`dataPlaneUrl`"+` of RudderStack's) and its key to one of the `+"`write_keys`"+`.

| endpoint | body |
| --- | --- |
| `+"`POST /v1/track`, `/v1/identify`, `/v1/page`, `/v1/screen`, `/v1/group`, `/v1/alias`"+` | one event; the endpoint sets its type. `+"`/v1/t`, `/v1/i`, `/v1/p`, `/v1/s`, `/v1/g` and `/v1/a`"+` are the short forms of analytics.js |
| `+"`POST /v1/batch`, `/v1/import`, `/v1/b`"+` | `+"`{\"batch\": [...]}`"+`, events of any type. `+"`context` and `integrations`"+` beside the list are merged into each event, member by member; the event's own members take precedence |
| `+"`GET /v1/projects/{key}/settings`, `GET /sourceConfig`"+` | none. The settings that the browser and mobile SDKs of Segment and RudderStack load first, with this collector as the only destination |
| `+"`GET /healthz`, `GET /readyz`"+` | none, and no key. For probes: `+"`/readyz`"+` is 503 from the beginning of the shutdown. Whether the output works is shown by `+"`/ready`"+` of the engine |
| `+"`POST /beacon/v1/batch`"+` | the same, with the key as `+"`writeKey`"+` in the query. RudderStack's browser SDK sends here when a page closes |

The key is the user name of Basic authentication or `+"`writeKey`"+` in the body, which is removed. Bodies are JSON in UTF-8, plain or gzip. Accepted content types are `+"`application/json`, `text/plain` (of `navigator.sendBeacon`), `application/x-www-form-urlencoded`"+` (of gzip bodies from RudderStack's Node SDK) and none.

### Responses

`+"`200 {\"success\":true}`"+` is sent only after the pipeline has delivered the events: they are stored. If events were rejected, it also has their number and the first reasons: `+"`{\"success\":true,\"rejected\":1,\"reasons\":[...]}`"+`. Every other response has a body of the form `+"`{\"success\":false,\"code\":\"...\",\"message\":\"...\",\"error\":{\"code\":\"...\",\"message\":\"...\"}}`"+`:

| status | when |
| --- | --- |
| 400 | the body is empty or, for a batch, not JSON, truncated, not UTF-8, nested too deeply, or without a list of events |
| 401 | the write key is missing or unknown |
| 403 | the request comes from a web page with an origin that `+"`cors.allowed_origins`"+` does not list |
| 404, 405 | the endpoint does not exist; it does not support the method |
| 408 | the body did not arrive within `+"`limits.read_timeout`"+` |
| 413 | the body is larger than `+"`limits`"+` permit; for gzip the decompressed size counts |
| 415 | the content type or content encoding is not supported |
| 429 | the key exceeds its `+"`events_per_second`"+`; retry after `+"`Retry-After`"+` seconds |
| 503 | the events are not stored; retry after `+"`Retry-After`"+` seconds: the pipeline is busy, failed, or shutting down |

### Invalid events

An invalid event (not an object, no known `+"`type`"+`, neither `+"`userId` nor `anonymousId`"+`, an id, time or object of the wrong type, an id longer than `+"`limits.max_id_bytes`"+`, `+"`NaN` or `Infinity`"+` in it, too large, nested too deeply) does not fail its request, because an SDK would drop or retry the whole batch, and drops a single event after a 4xx. The same holds for the body of an endpoint for one event that is not JSON, if the key is in the header. It becomes a message with the client's bytes, an error with the reasons, and the metadata `+"`source` and `received_at`"+`. Send messages with `+"`errored()`"+` to dead letters, as in the example. The batch is acknowledged when its valid and its invalid events have been delivered.

### Events

A request becomes one batch of messages, each a JSON object in the form of Segment's spec. The client's bytes are kept, unknown fields and numbers included, except for these fields:

- `+"`receivedAt`"+` is the time of the request, `+"`originalTimestamp`"+` the client's `+"`timestamp`"+` (or its `+"`originalTimestamp`"+`, if it has no `+"`timestamp`"+`), and `+"`timestamp`"+` is corrected for the client's clock: `+"`receivedAt - (sentAt - originalTimestamp)`"+`. Without `+"`sentAt`"+` the client's clock is trusted, and an event in the future gets the time of its receipt. Times may be ISO 8601 or Unix time in seconds or milliseconds, as a number or text; all become RFC 3339 in UTC with milliseconds. The `+"`timestamp`"+` of an `+"`identify`"+` keeps smaller fractions, and is a nanosecond later for each earlier `+"`identify`"+` of the same customer and time in the request: of two statements of a trait the later one wins.
- A missing `+"`messageId`"+` becomes a UUID derived from the bytes of the event and its source, so that a retry of the request has the same ids. See below for events without a timestamp.
- `+"`source`"+` is the source of the write key.
- A missing `+"`context.ip`"+` becomes the address of the client, unless the source is `+"`server_side`"+`.
- Ids that are whole numbers become text: `+"`4711` and `4711.0` become `\"4711\"`"+`.
- An `+"`identify`"+` without traits gets those of `+"`context.traits`"+`, where RudderStack's SDKs put them.
- Of a repeated member the last one wins.
- Fields of Segment's spec that are null, empty ids, and empty lists in place of an object (PHP writes them) are removed.

### Repetition without id and time

An event with neither `+"`messageId`"+` nor `+"`timestamp`"+`, as a script sends it, has the same bytes when it happens again. It counts as a retry, with the same `+"`messageId`"+`, if an equal event of the same source got no 200 within the last ten minutes, or got one less than a second ago. Otherwise it is a new event. The collector keeps this in memory, for the last 65,536 such events of this process: behind a load balancer, or after a restart, a retry may count twice. Clients that send a `+"`messageId`"+`, as all SDKs do, do not depend on this rule.

### Load

Requests wait for the pipeline (back-pressure): with a slow pipeline clients wait, and then get 503. Memory is bounded by `+"`limits.max_buffered_bytes`"+` for waiting bodies and events, and by `+"`limits.max_in_flight`"+` requests.

Both limits are shared fairly: the requests of one address with one key use three quarters at most, those of one source seven eighths, those of one address whose key is not verified yet one sixteenth, and all of these together a quarter. A key in the header is checked before the body is read. If memory is short, slow bodies give way to those that arrive at once. List the proxies in front of this server in `+"`trusted_proxies`"+`; otherwise all clients count as one address. A client that disconnected, or got 503 after its events had entered the pipeline, may retry: the events have the same message ids.

### Metrics

| name | kind | labels |
| --- | --- | --- |
| `+"`event_collector_requests`"+` | counter | `+"`endpoint`, `status`"+` |
| `+"`event_collector_events_accepted`"+` | counter, of delivered events | `+"`source`"+` |
| `+"`event_collector_events_rejected`"+` | counter, of delivered bad events by the rule of their first reason | `+"`source`, `reason`"+` |
| `+"`event_collector_events_without_id`"+` | counter, of delivered events with neither `+"`messageId` nor `timestamp`; `repetition` is `new` or `retry`"+` | `+"`source`, `repetition`"+` |
| `+"`event_collector_bytes`"+` | counter, of bodies after decompression | |
| `+"`event_collector_in_flight`"+` | gauge, of requests waiting for the pipeline | |`).
		Example("Collect from pages and servers", `
Events of a shop's pages and of its server go to one file, invalid events to another as dead letters. Replace the files by any output.`, `
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
Without a key, which is possible only on a loopback address. Then: `+"`curl -d '{\"userId\":\"u1\",\"event\":\"Hello\"}' http://127.0.0.1:8080/v1/track`", `
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
	lintNoKeys            = "`write_keys` is empty, so every request would be rejected: add an entry such as { key: ${WRITE_KEY}, source: web }, or, for a trial on one machine, set `allow_anonymous_writes: true`"
	lintAnonymousLoopback = "`allow_anonymous_writes` with an address outside loopback gives every host in the network write access to profiles: set `address: 127.0.0.1:8080`, or remove it and list `write_keys`"
)

func fields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewStringField(fieldAddress).
			Description("Host and port to listen on. The default accepts connections from this machine only.").
			Default("127.0.0.1:8080").
			Example("0.0.0.0:8080").Example("[::1]:8080").
			LintRule(`root = if !this.string().re_match("^.*:[0-9]{1,5}$") { "address must be a host and a port: write for example 127.0.0.1:8080" }`),
		service.NewObjectListField(fieldWriteKeys,
			service.NewStringField(fieldKey).
				Description("Key in the SDK's configuration. Web pages and apps publish it, so use one key for one source and replace it after abuse.").
				Secret().
				Example("${WRITE_KEY_WEB}").
				LintRule(`root = if this.string() == "" { "the write key is empty: set its environment variable, or write ${WRITE_KEY_WEB:some-default}" }`),
			service.NewStringField(fieldSource).
				Description("Name of the source, for the field `source` of its events: 1 to 64 letters, digits, dots, dashes and underscores.").
				Example("web").
				LintRule(`root = if !this.string().re_match("^[A-Za-z0-9._-]{1,64}$") { "source must be 1 to 64 letters, digits, dots, dashes and underscores: write for example web" }`),
			service.NewBoolField(fieldServerSide).
				Description("Set it for a server that sends events on behalf of customers: then the peer address is not the customer's and is not put into `context.ip`.").
				Advanced().
				Default(false).
				Example(true),
			service.NewFloatField(fieldKeyRate).
				Description("Maximum number of events per second with this key, with a burst of ten seconds. Requests above it get 429 with `Retry-After`; SDKs send them again. The default, 0, sets no limit. Set it for keys that web pages and apps publish.").
				Advanced().
				Default(0.0).
				Example(500).
				LintRule(`root = if this < 0 { "events_per_second must be 0 for no limit, or a number of events: write for example 500" }`),
		).
			Description("Accepted keys and their sources. Keys are compared in constant time and never logged.").
			Default([]any{}).
			Example([]any{map[string]any{"key": "${WRITE_KEY_WEB}", "source": "web"}}),
		service.NewBoolField(fieldAllowAnonymous).
			Description("Accepts requests without a write key, on a loopback address only. If `write_keys` is empty, any key is accepted too, because SDKs always send one.").
			Default(false).
			Example(true),
		service.NewStringField(fieldAnonymousSource).
			Description("`source` of events without a known write key.").
			Advanced().
			Default("anonymous").
			Example("demo").
			LintRule(`root = if !this.string().re_match("^[A-Za-z0-9._-]{1,64}$") { "anonymous_source must be 1 to 64 letters, digits, dots, dashes and underscores: write for example demo" }`),
		service.NewObjectField(fieldTLS,
			service.NewStringField(fieldCertFile).
				Description("File of the server's certificate and its chain, in PEM.").
				Default("").
				Example("/etc/ssl/collector.pem"),
			service.NewStringField(fieldKeyFile).
				Description("File of the certificate's private key, in PEM.").
				Default("").
				Example("/etc/ssl/collector.key"),
		).
			Description("Serves HTTPS and HTTP/2. Set both files, or neither.").
			Advanced().
			LintRule(`root = if this.type() == "object" && (this.cert_file.or("") == "") != (this.key_file.or("") == "") { "tls needs both cert_file and key_file: write the one that is missing, or leave out both to serve plain HTTP" }`),
		service.NewObjectField(fieldCORS,
			service.NewStringListField(fieldAllowedOrigins).
				Description("Origins of web pages with scripts that may send events: an exact origin, a wildcard for subdomains, or `*` for any. Requests of other pages get 403. Leave it empty if only servers and apps send.").
				Default([]any{}).
				Example([]any{"https://shop.example", "https://*.shop.example"}).
				LintRule(`root = if this.type() == "string" && this != "*" && !this.re_match("^https?://(\\*\\.)?[^*/?#@ ]+$") { "an allowed origin is a scheme and a host without a path: write for example https://shop.example, https://*.shop.example or *" }`),
		).
			Description("Cross-origin requests of browsers."),
		service.NewStringListField(fieldTrustedProxies).
			Description("Addresses or networks of the proxies in front of this server. `X-Forwarded-For` is trusted only from them: the client is the last address in it that is not such a proxy.").
			Advanced().
			Default([]any{}).
			Example([]any{"10.0.0.0/8", "fd00::/8"}).
			LintRule(`root = if this.type() == "string" && !this.re_match("^[0-9a-fA-F:.]+(/[0-9]{1,3})?$") { "a trusted proxy is an address or a network: write for example 10.0.0.0/8" }`),
		service.NewDurationField(fieldTimeout).
			Description("Time that a request waits for the pipeline to deliver its events before it gets 503. Keep it below the time-out of the SDKs, 10 seconds for Segment's.").
			Default("5s").
			Example("8s"),
		service.NewDurationField(fieldRetryAfter).
			Description("`Retry-After` of responses with 503, rounded up to whole seconds.").
			Advanced().
			Default("5s").
			Example("30s"),
		service.NewObjectField(fieldLimits,
			limit(fieldEventBytes, 32<<10, "Maximum bytes of one event; a larger event becomes a dead letter. The default is Segment's limit."),
			limit(fieldBatchBytes, 500<<10, "Maximum bytes of a body after decompression. The default is Segment's limit; RudderStack's SDKs stay below it too."),
			limit(fieldBatchEvents, 10_000, "Maximum number of events in a batch."),
			limit(fieldDepth, 64, "Maximum nesting of objects and lists in an event."),
			limit(fieldIDBytes, 512, "Maximum bytes of an id in an event. The default is the longest customer id that the `profile_api` accepts: a customer with a longer id could neither be read nor erased."),
			limit(fieldInFlight, 256, "Maximum number of requests that wait for the pipeline. Further requests get 503."),
			limit(fieldBufferedBytes, 64<<20, "Maximum bytes of bodies being read and of events waiting for the pipeline. Further requests get 503."),
			limit(fieldConnections, 4096, "Maximum number of open connections. Further connections wait; above three quarters, connections are closed after each response."),
			limit(fieldHeaderBytes, 16<<10, "Maximum bytes of the headers of a request."),
			service.NewFloatField(fieldCustomerRate).
				Description("Maximum number of events per second of one customer, with a burst of one minute, from sources that are not `server_side`. Events above it become dead letters with the rule `rate_limit`, so that a public key cannot make one profile large and expensive. 0 sets no limit.").
				Default(200.0).
				Example(20).
				LintRule(`root = if this < 0 { "customer_events_per_second must be 0 for no limit, or a number of events: write for example 20" }`),
			service.NewDurationField(fieldHeaderTimeout).
				Description("Maximum time for the headers of a request to arrive.").
				Default("5s").Example("10s"),
			service.NewDurationField(fieldReadTimeout).
				Description("Maximum time for the body of a request to arrive.").
				Default("10s").Example("30s"),
			service.NewDurationField(fieldIdleTimeout).
				Description("Maximum idle time of a connection between requests.").
				Default("30s").Example("2m"),
		).
			Description("Limits that protect clients from each other.").
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

// collector is the input. The goroutine of each request passes its batch to
// ReadBatch, waits until the batch is acknowledged, and writes the response.
type collector struct {
	conf    config
	log     *service.Logger
	metrics metrics
	tls     *tls.Config

	parsers sync.Pool
	slots   slots
	memory  memory
	// unverified limits the requests that are parsed before their key is known.
	unverified chan struct{}
	open       atomic.Int64 // connections

	repetitions   repetitions
	customerRates *customerRates

	handoff chan *delivery
	// draining is closed when the pipeline accepts no more batches, closed when
	// it acknowledges no more.
	draining, closed chan struct{}

	mu     sync.Mutex // guards what follows
	server *server
}

// server is a listener, from Connect to its failure or the shutdown.
type server struct {
	http    *http.Server
	failed  chan struct{} // closed when the listener has ended
	stopped chan struct{} // closed when a graceful shutdown is complete
}

func newCollector(conf *service.ParsedConfig, res *service.Resources) (*collector, error) {
	c, err := parseConfig(conf)
	if err != nil {
		return nil, err
	}
	m := newMetrics(res.Metrics())
	in := &collector{
		conf:          c,
		log:           res.Logger(),
		metrics:       m,
		slots:         slots{shares: newShares(c.limits.inFlight, 1), gauge: m.inFlight},
		memory:        memory{shares: newShares(c.limits.bufferedBytes, c.limits.batchBytes)},
		unverified:    make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		handoff:       make(chan *delivery),
		customerRates: newCustomerRates(c.limits.customerRate),
		draining:      make(chan struct{}),
		closed:        make(chan struct{}),
	}
	in.parsers.New = func() any {
		return trackingapi.NewParser(trackingapi.Limits{
			EventBytes:  c.limits.eventBytes,
			BatchEvents: c.limits.batchEvents,
			BatchBytes:  c.limits.batchBytes,
			Depth:       c.limits.depth,
			IDBytes:     c.limits.idBytes,
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
		return fmt.Errorf("address %s is in use by another process: stop that process, or set `address` to a free port: %w", c.conf.address, err)
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
		// The handler bounds the time of the body itself, because a ReadTimeout
		// would include the wait for the pipeline. WriteTimeout ends a client
		// that does not read its response.
		WriteTimeout: c.conf.limits.readTimeout + 2*c.conf.timeout + 5*time.Second,
		TLSConfig:    c.tls,
		ConnState:    c.count,
		// The log lines of net/http contain addresses of clients.
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
			c.log.Errorf("The listener failed; opening it again: %v", err)
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
		// The engine cancels this context when it stops, before it closes the
		// input, and still delivers the batches that it has. New requests get
		// 503 from now on.
		if errors.Is(ctx.Err(), context.Canceled) {
			c.drain()
		}
		return nil, nil, ctx.Err()
	}
}

// drain stops accepting requests. Requests that wait for their acknowledgement
// continue.
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

// closeGrace is the time for writing the last responses at shutdown.
const closeGrace = 2 * time.Second

// Close ends the server. The engine calls it after the last acknowledgement, so
// requests that still wait get 503.
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
		// The remaining connections have no complete request.
		return s.http.Close()
	}
}
