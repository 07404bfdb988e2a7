// Package profileapi provides the profile_api input, which serves customer profiles
// over HTTP to email platforms. Writes through the API become messages of the input.
package profileapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/contentblocks"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// The names of the fields.
const (
	fieldProfiles             = "profiles"
	fieldAddress              = "address"
	fieldAuditKey             = "audit_key"
	fieldAllowUnauthenticated = "allow_unauthenticated"
	fieldH2C                  = "h2c"
	fieldTLS                  = "tls"
	fieldCertFile             = "cert_file"
	fieldKeyFile              = "key_file"
	fieldClientCAFile         = "client_ca_file"
	fieldWrites               = "writes"
	fieldSource               = "source"
	fieldMaxAge               = "max_age"
	fieldAllowedOrigins       = "allowed_origins"
	fieldContent              = "content"
	fieldExplorer             = "explorer"
	fieldRoundTrips           = "round_trips"
	fieldCache                = "cache"
	fieldMaxBytes             = "max_bytes"
	fieldMaxStaleness         = "max_staleness"
	fieldLimits               = "limits"
	fieldConnections          = "connections"
	fieldHeaderBytes          = "header_bytes"
	fieldBodyBytes            = "body_bytes"
	fieldTraitsBytes          = "traits_bytes"
	fieldIDBytes              = "id_bytes"
	fieldBatchIDs             = "batch_ids"
	fieldBatchMemory          = "batch_memory"
	fieldTimeouts             = "timeouts"
	fieldHeaderTimeout        = "header"
	fieldReadTimeout          = "read"
	fieldRequestTimeout       = "request"
	fieldWriteTimeout         = "write"
	fieldIdleTimeout          = "idle"
	fieldCloseTimeout         = "close"
)

func positiveField(name string, preset int, description string) *service.ConfigField {
	return service.NewIntField(name).Description(description).Default(preset).
		Example(2 * preset).Advanced().LintRule(configspec.LintPositive)
}

func timeoutField(name, preset, description string) *service.ConfigField {
	return service.NewDurationField(name).Description(description).Default(preset).
		Example("30s").Advanced().LintRule(configspec.LintDuration)
}

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Services", "Personalization").
		Summary("Serves customer profiles over HTTP to email platforms, and converts their writes into events of the pipeline.").
		Description(`
Features are evaluated when a profile is read, so their values are current without any new event. A pipeline that only serves reads needs no processors.

| request | response |
| --- | --- |
| `+"`GET /api/customer/{id}`"+` | the profile: `+"`id`, `traits`, `features`, `as_of`, `updated_at`"+` |
| `+"`POST /api/customers/batch`"+` | the profiles of `+"`"+`{"ids": [...]}`+"`"+`, in this order, each marked as found or not |
| `+"`GET /api/segments/{segment}/customers`"+` | the customers in a segment and their count, in pages of JSON, NDJSON or CSV (safe for spreadsheets: an id like a formula gets a leading apostrophe) |
| `+"`PATCH /api/customer/{id}/traits`"+` | sets the traits in the body, unsets those that are `+"`null`"+` |
| `+"`PUT /api/customer/{id}/traits`"+` | replaces all traits by those in the body |
| `+"`DELETE /api/customer/{id}`"+` | erases the customer permanently |
| `+"`DELETE /api/customer/{id}/erasure`"+` | ends the erasure: later events create a profile again |
| `+"`GET /api/customer/{id}/export`"+` | all stored data of the customer |
| `+"`GET /openapi.json`"+` | the OpenAPI 3.1 description of the API |
| `+"`GET /healthz`"+` | 200 while the process is running |
| `+"`GET /readyz`"+` | 200 while the store is available, 503 while it is not or the process is stopping |

An id is any UTF-8 string, URL-encoded, a slash as `+"`%2F`"+`: a `+"`userId`"+` or, if no customer has it, an `+"`anonymousId`"+`. The `+"`id`"+` in a profile is the id under which it is stored: that of the known customer, if the requested id was merged into one.

### Reads

`+"`?fields=`"+` selects fields, separated by commas: `+"`traits`, `features`, `traits.email`, `features.orders_30d`"+`. `+"`?as_of=`"+` evaluates features at that time, in RFC 3339 (`+"`2026-01-31T08:30:00Z`"+`) or as whole seconds since 1970; a time before the earliest one that the record can be evaluated at is refused with `+"`as_of_too_early`"+`. Both work for batches too. With `+"`as_of`"+` features are evaluated at that time, and segments from these features and the current traits. Traits, ids, `+"`updated_at`"+` and the `+"`since`"+` of segments are always the current ones, because a record stores only their latest values. The header `+"`As-Of-Applies-To`"+` of the response repeats this.

Every profile has an `+"`ETag`"+` of its content when it is read. It covers everything except `+"`as_of`"+`, so `+"`If-None-Match`"+` gets 304 until a trait, a feature or `+"`updated_at`"+` differs: a feature that slides out of its window changes the tag without any event. The profile is evaluated for each such request; only the transfer is saved. `+"`Cache-Control`"+` is `+"`private, no-cache`"+` unless `+"`max_age`"+` is set.

A batch returns `+"`"+`{"customers": [...]}`+"`"+`, or with `+"`Accept: application/x-ndjson`"+` one customer per line. Each is `+"`"+`{"id": …, "found": true, "profile": {…}}`+"`"+` or `+"`"+`{"id": …, "found": false}`+"`"+`, `+"`id`"+` being the requested one; a customer with a profile that cannot be served has an `+"`error`"+` instead. A long batch of lines is sent while it is read: if the store becomes unavailable meanwhile, the remaining customers have an `+"`error`"+` and no `+"`found`"+`. Long responses are compressed with gzip if the client accepts it.

Records are cached in memory (`+"`cache`"+`), and features are evaluated from them at each read. A change of this process is visible at once. A change of another process in Redis is visible when Redis has reported it, by client tracking: usually within a millisecond, within `+"`max_staleness`"+` at the latest. While Redis cannot report changes, because a connection is lost, a cluster is moving slots, or the user lacks the permissions (`+"`+hello +client|tracking`, in a cluster `+cluster|nodes`, with Sentinels `+role`"+`), every read goes to the store.

Reads that arrive while the store is busy are coalesced into one round trip; a read that finds it idle is sent at once.

### Writes

A write becomes an `+"`identify`"+` event with the traits of the body, for the customer that a read of the id finds:

| the id finds | the event has |
| --- | --- |
| a known customer, also by an id that was merged into theirs | `+"`userId`"+`: the id of their profile |
| a customer known by an `+"`anonymousId`"+` only | `+"`anonymousId`"+`: that id |
| no customer | `+"`userId`"+`: the id as given, which creates the customer |

The event never has both, so a write never merges customers. The response repeats the id as given, so that a token with the scope `+"`write`"+` alone cannot learn which customer it belongs to.

A write gets 202 once the pipeline has acknowledged it, and 503 if the pipeline could not store it; then retry. A pipeline that validates events may write the event to dead letters, and acknowledges that as well: 202 means that nothing is lost, not that the event is valid. `+"`Idempotency-Key`"+` becomes the event's `+"`messageId`"+`, by which a repeated write is deduplicated. PUT compares with the traits at the time of the request; a trait that another source states later stays.

### Erasure

A DELETE becomes an `+"`erase`"+` event, and gets 200 once the pipeline has acknowledged it and the profile is deleted, with its index entries, its pending messages, and the profiles of all ids that were merged into it. Only the fact and the time of the erasure of these ids remain. Their events are dropped until a `+"`readmit`"+` event; events from before it are dropped even then. Sending it again changes nothing.

The event has under `+"`context.erasure`"+` the name of the token (`+"`by`"+`) and a hash of the id (`+"`subject`"+`), for an audit without ids. Store it wherever events are stored, so that a rebuild erases too: see [privacy](../privacy.md).

### Errors

`+"`"+`{"error": {"code": "no_such_customer", "message": "…"}}`+"`"+`: the code is stable, for programs. 400 for a request that is not valid, 401 and 403 for a missing or insufficient token, 404, 405, 406, 408, 409 for an ambiguous identifier and for a write to an erased customer, 410 for a signed URL that has expired, 413, 415, 421, 429 with `+"`Retry-After`"+`, 500 for a record that cannot be decoded, and 503 with `+"`Retry-After`"+`.

### Security

Callers present `+"`Authorization: Bearer TOKEN`"+`, of which the config contains only the SHA-256, or a client certificate, or both. A token has some of the scopes `+"`read`, `write`, `content`, `erase`, `export` and `segments`"+`, and rate limits of requests and of profiles. `+"`tokens_file`"+` is a file of tokens that is reloaded on change, so that tokens can be rotated without a restart. Without any of these the input listens on loopback addresses only, and accepts only requests with a loopback address as `+"`Host`"+`, so that no web page can reach it through a browser on the same machine; `+"`allow_unauthenticated`"+` lifts both restrictions. `+"`/healthz`, `/readyz` and `/openapi.json`"+` need no token. Ids and profiles never appear in logs, metrics or errors.

A platform that cannot send headers uses a signed URL: `+"`/api/customer/42/content/hero?expires=1798761600&key=newsletter-2026&signature=…`"+`. The signature comes last and is the HMAC-SHA256, in hexadecimal, of the path and query before `+"`&signature=`"+`; it grants rendered content, and the `+"`fields`"+` of a profile that its key lists. `+"`connect-personalize sign-url`"+` signs a URL, and so does any tool with HMAC:

`+"```"+`
TARGET="/api/customer/42/content/hero?expires=$(date -d '30 days' +%s)&key=newsletter-2026"
echo "https://profiles.example.com$TARGET&signature=$(printf %s "$TARGET" | openssl dgst -sha256 -hmac "$SECRET" | sed 's/.* //')"
`+"```"+`

### Metrics

`+"`profile_api_requests`"+` by `+"`route`"+` and `+"`status`"+`, the timer `+"`profile_api_latency_ns`"+` by `+"`route`"+`, a random sample of at most 256 requests per second and route, the gauges `+"`profile_api_in_flight`"+` and `+"`profile_api_cache_bytes`"+`, the approximate memory use of `+"`cache`"+`, and `+"`profile_api_connections_cut`"+`: connections that were closed to make room for others. They are updated every second.
`).
		Fields(
			service.NewStringField(fieldProfiles).
				Description("The label of the `profiles` resource to serve.").
				Example("retail").
				LintRule(`root = if this == "" { "name the profiles resource to serve by its label" }`),
			service.NewStringField(fieldAddress).
				Description("Address to listen on: host and port.").
				Default("127.0.0.1:8081").
				Examples("0.0.0.0:8081", "[::1]:8081").
				LintRule(`root = if !this.string().re_match(":[0-9]+$") { "write a host and a port, such as 127.0.0.1:8081" }`),
		).
		Fields(credentialFields()...).
		Fields(
			service.NewStringField(fieldTokensFile).
				Description("A YAML file with further `tokens` and `signing_keys`, in the same form. It is reloaded within seconds after a change, without a restart; a file with an error is not applied.").
				Default("").Example("./configs/retail/tokens.yaml"),
			service.NewObjectField(fieldTLS,
				service.NewStringField(fieldCertFile).
					Description("The server's certificate chain, in PEM. Setting it enables TLS and HTTP/2.").
					Default("").Example("./server.crt"),
				service.NewStringField(fieldKeyFile).
					Description("The certificate's private key, in PEM.").
					Default("").Example("./server.key"),
				service.NewStringField(fieldClientCAFile).
					Description("The certificate authorities, in PEM, for client certificates. Setting it makes client certificates mandatory.").
					Default("").Example("./clients.crt"),
			).
				Description("TLS, and client certificates.").
				LintRule(`
let cert = this.cert_file.or("") != ""
let key = this.key_file.or("") != ""
let ca = this.client_ca_file.or("") != ""
root = match {
  $cert != $key => "cert_file and key_file belong together: set both or neither",
  $ca && !$cert => "client_ca_file needs cert_file and key_file",
}`),
			service.NewBoolField(fieldAllowUnauthenticated).
				Description("Whether to serve without tokens or client certificates on addresses beyond loopback and with any host name. Turn it on only if a proxy in front of the API authenticates callers.").
				Default(false).Example(true).Advanced(),
			service.NewBoolField(fieldH2C).
				Description("Whether to accept HTTP/2 without TLS too, for a proxy that uses it. With `tls`, HTTP/2 is always accepted.").
				Default(false).Example(true).Advanced(),
			service.NewBoolField(fieldWrites).
				Description("Whether to accept writes. Turn it off if the pipeline has no `update_profile`.").
				Default(true).Example(false),
			service.NewStringField(fieldSource).
				Description("The `source` of the events of writes.").
				Default("api").Example("crm").
				LintRule(`root = if this == "" { "give the source a name, such as api" }`),
			service.NewStringField(fieldAuditKey).
				Description("Key of the HMAC-SHA256 that stands for the customer in the audit of erasures, so that the id cannot be found by trying ids. Without a key it is a plain SHA-256.").
				Secret().Default("").Example("${AUDIT_KEY}").Advanced(),
			service.NewDurationField(fieldMaxAge).
				Description("The `max-age` of `Cache-Control`: how long a client may use a profile without a new request. With zero the client must revalidate it for every use.").
				Default("0s").Example("30s").Advanced().
				LintRule(`root = if this.string().has_prefix("-") { "must be zero or more, such as 30s" }`),
			service.NewStringListField(fieldAllowedOrigins).
				Description("Origins of web pages that may call the API from a browser (CORS), each in full.").
				Default([]any{}).Example([]string{"https://crm.example.com"}).Advanced().
				LintRule(`root = if this.type() == "array" && this.any(o -> !o.string().re_match("^https?://[^/*]+$")) { "write each origin in full, without a path or *, such as https://crm.example.com" }`),
			service.NewStringField(fieldContent).
				Description("The folder of the content blocks to serve, one per file; empty for none. It is reloaded on change; if a block has an error, the previous blocks stay.").
				Default("").Example("./configs/content").
				LintRule(`root = lint_content_blocks(this)`),
			service.NewBoolField(fieldExplorer).
				Description("Whether to serve the profile explorer at `/`, a web page that shows profiles, their explanation, and content. The page itself needs no token and contains no data: it sends the token that its user enters.").
				Default(true).Example(false),
			positiveField(fieldRoundTrips, 4, "Maximum number of store reads in flight for single profiles, and the same number for batches. Further single reads are coalesced."),
			service.NewObjectField(fieldCache,
				service.NewStringField(fieldMaxBytes).
					Description("Approximate memory for cached records, such as `64MiB`. `0` disables the cache.").
					Default("64MiB").Examples("512MiB", "0").
					LintRule(`root = if !this.string().re_match("^[0-9]+([.][0-9]+)? ?([kKmMgG]i?[bB]?|[bB])?$") { "write a size such as 64MiB, or 0 for no cache" }`),
				service.NewDurationField(fieldMaxStaleness).
					Description("Maximum staleness of a cached record after another process changed it in Redis. Redis usually reports changes within a millisecond; this bounds the case that it cannot.").
					Default("1s").Example("100ms").
					LintRule(configspec.LintDuration),
			).Description("Cache of customer records."),
			service.NewObjectField(fieldLimits,
				positiveField(fieldConnections, 4096, "Maximum number of open connections. At the maximum, a new connection replaces one that is idle or has no complete request; if there is none, one whose request takes longer than `timeouts.request`."),
				positiveField(fieldHeaderBytes, 16<<10, "Maximum size of request line and headers, in bytes."),
				positiveField(fieldBodyBytes, 1<<20, "Maximum size of the body of a batch read, in bytes."),
				positiveField(fieldTraitsBytes, 32<<10, "Maximum size of the body of a write, in bytes."),
				positiveField(fieldIDBytes, 512, "Maximum length of a customer id, in bytes."),
				positiveField(fieldBatchIDs, 1000, "Maximum number of customers in a batch read."),
				positiveField(fieldBatchMemory, 128<<20, "Maximum size of the profiles of all batch reads in memory, in bytes. Further batches wait until responses are sent, for `timeouts.request` at most, and then get 503."),
			).Description("Limits of a request.").Advanced(),
			service.NewObjectField(fieldTimeouts,
				timeoutField(fieldHeaderTimeout, "5s", "Maximum time to receive the headers of a request."),
				timeoutField(fieldReadTimeout, "10s", "Maximum time to receive a whole request."),
				timeoutField(fieldRequestTimeout, "5s", "Maximum time for the store or the pipeline. After it the caller gets 503."),
				timeoutField(fieldWriteTimeout, "30s", "Maximum time from the headers of a request to the end of its response."),
				timeoutField(fieldIdleTimeout, "2m", "Maximum time of a connection without a request."),
				timeoutField(fieldCloseTimeout, "10s", "Maximum time to wait for requests in flight when the process stops."),
			).
				Description("Timeouts. `write` must be longer than `request`, so that a timeout can still be reported.").Advanced(),
		).
		LintRule(`
let open = this.tokens.or([]).length() == 0 && this.signing_keys.or([]).length() == 0 && this.tokens_file.or("") == "" && this.tls.client_ca_file.or("") == "" && !this.allow_unauthenticated.or(false)
root = if $open && !this.address.or("127.0.0.1:8081").string().re_match("^(localhost|127[.][0-9.]+|\\[::1\\]):[0-9]+$") {
  "listening beyond loopback needs authentication: set tokens, tokens_file or tls.client_ca_file, or allow_unauthenticated: true if a proxy in front of the API authenticates callers"
}`).
		Example("Serve profiles",
			"An email platform reads profiles, and a CRM may also change traits.", `
profiles:
  - label: retail
    definition: ./configs/retail/profile.yaml
    store:
      embedded:
        path: ./data/retail

input:
  label: api
  profile_api:
    profiles: retail
    address: 0.0.0.0:8081
    tokens:
      - { name: braze, sha256: "${BRAZE_TOKEN_SHA256}" }
      - { name: crm, sha256: "${CRM_TOKEN_SHA256}", scopes: [ read, write ] }
    tls:
      cert_file: ./server.crt
      key_file: ./server.key

pipeline:
  processors:
    - update_profile:
        profiles: retail

output:
  reject_errored:
    drop: {}
`)
}

func init() {
	service.MustRegisterBatchInput("profile_api", spec(),
		func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
			label, err := conf.FieldString(fieldProfiles)
			if err != nil {
				return nil, err
			}
			r, err := profiles.Get(res, label)
			if err != nil {
				return nil, err
			}
			return newInput(conf, r, res)
		})
}

// config is the parsed config.
type config struct {
	address      string
	credentials  *credentials
	tokensFile   string
	tls          *tls.Config
	h2c          bool
	writes       bool
	source       string
	auditKey     string
	cacheControl []string
	origins      map[string]bool
	roundTrips   int
	cache        customers.CacheOptions
	content      string
	explorer     bool

	limits struct {
		connections, headerBytes, idBytes, batchIDs int
		bodyBytes, traitsBytes, batchMemory         int64
	}
	timeouts struct {
		header, read, request, write, idle, close time.Duration
	}

	// exposed is set if the API is open to the network without authentication,
	// localOnly if it is open to this machine only.
	exposed, localOnly bool
}

func parseConfig(p *service.ParsedConfig, fs *service.FS) (*config, error) {
	c := &config{}
	var err error
	if c.address, err = p.FieldString(fieldAddress); err != nil {
		return nil, err
	}
	if c.credentials, err = parseCredentials(p); err != nil {
		return nil, err
	}
	if c.tokensFile, err = p.FieldString(fieldTokensFile); err != nil {
		return nil, err
	}
	if c.tls, err = parseTLS(p.Namespace(fieldTLS), fs); err != nil {
		return nil, err
	}
	if err = c.checkExposure(p); err != nil {
		return nil, err
	}
	if c.h2c, err = p.FieldBool(fieldH2C); err != nil {
		return nil, err
	}
	if c.writes, err = p.FieldBool(fieldWrites); err != nil {
		return nil, err
	}
	if c.source, err = p.FieldString(fieldSource); err != nil {
		return nil, err
	}
	if c.auditKey, err = p.FieldString(fieldAuditKey); err != nil {
		return nil, err
	}
	maxAge, err := p.FieldDuration(fieldMaxAge)
	if err != nil {
		return nil, err
	}
	c.cacheControl = []string{"private, no-cache"}
	if maxAge > 0 {
		c.cacheControl = []string{fmt.Sprintf("private, max-age=%d", int(maxAge.Seconds()))}
	}
	origins, err := p.FieldStringList(fieldAllowedOrigins)
	if err != nil {
		return nil, err
	}
	c.origins = make(map[string]bool, len(origins))
	for _, o := range origins {
		c.origins[o] = true
	}
	if c.content, err = p.FieldString(fieldContent); err != nil {
		return nil, err
	}
	if c.explorer, err = p.FieldBool(fieldExplorer); err != nil {
		return nil, err
	}
	if c.roundTrips, err = positive(p, fieldRoundTrips); err != nil {
		return nil, err
	}
	if err = c.parseCache(p.Namespace(fieldCache)); err != nil {
		return nil, fmt.Errorf("%s.%w", fieldCache, err)
	}
	return c, errors.Join(c.parseLimits(p.Namespace(fieldLimits)), c.parseTimeouts(p.Namespace(fieldTimeouts)))
}

func (c *config) parseCache(p *service.ParsedConfig) error {
	text, err := p.FieldString(fieldMaxBytes)
	if err != nil {
		return err
	}
	bytes, err := humanize.ParseBytes(text)
	if err != nil || bytes > 1<<40 {
		return fmt.Errorf("%s is %q; write a size such as 64MiB, or 0 for no cache", fieldMaxBytes, text)
	}
	c.cache.MaxBytes = int64(bytes)
	if c.cache.MaxStaleness, err = p.FieldDuration(fieldMaxStaleness); err == nil && c.cache.MaxStaleness <= 0 {
		err = fmt.Errorf("%s must be longer than zero; max_bytes: 0 turns the cache off", fieldMaxStaleness)
	}
	return err
}

func parseTLS(p *service.ParsedConfig, fs *service.FS) (*tls.Config, error) {
	read := func(field string) ([]byte, error) {
		name, err := p.FieldString(field)
		if err != nil || name == "" {
			return nil, err
		}
		data, err := service.ReadFile(fs, name)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", fieldTLS, field, err)
		}
		return data, nil
	}
	cert, err1 := read(fieldCertFile)
	key, err2 := read(fieldKeyFile)
	ca, err3 := read(fieldClientCAFile)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if cert == nil && key == nil && ca == nil {
		return nil, nil
	}
	if cert == nil || key == nil {
		return nil, fmt.Errorf("%s needs both %s and %s", fieldTLS, fieldCertFile, fieldKeyFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %s and %s are not a certificate and its key in PEM: %w", fieldTLS, fieldCertFile, fieldKeyFile, err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if ca != nil {
		conf.ClientCAs = x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s.%s contains no certificate in PEM", fieldTLS, fieldClientCAFile)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// protocols returns the accepted protocols. HTTP/2 without TLS is accepted only if
// configured, because only proxies use it.
func (c *config) protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(c.h2c)
	return p
}

// needsCredentials reports whether callers must present a token or a signature.
func (c *config) needsCredentials() bool {
	return len(c.credentials.tokens) > 0 || len(c.credentials.keys) > 0 || c.tokensFile != ""
}

// checkExposure rejects a config that opens the API to a network by accident.
func (c *config) checkExposure(p *service.ParsedConfig) error {
	host, _, err := net.SplitHostPort(c.address)
	if err != nil {
		return fmt.Errorf("%s is not a host and a port, such as 127.0.0.1:8081", fieldAddress)
	}
	allowed, err := p.FieldBool(fieldAllowUnauthenticated)
	if err != nil {
		return err
	}
	open := !c.needsCredentials() && (c.tls == nil || c.tls.ClientCAs == nil)
	c.exposed = open && !isLoopback(host)
	c.localOnly = open && isLoopback(host) && !allowed
	if c.exposed && !allowed {
		return fmt.Errorf("listening on %s, beyond loopback, needs authentication: set %s, %s or %s.%s, or %s: true if a proxy in front of the API authenticates callers",
			c.address, fieldTokens, fieldTokensFile, fieldTLS, fieldClientCAFile, fieldAllowUnauthenticated)
	}
	return nil
}

func (c *config) parseLimits(p *service.ParsedConfig) error {
	var bodyBytes, traitsBytes, batchMemory int
	for _, f := range []struct {
		name string
		into *int
	}{
		{fieldConnections, &c.limits.connections},
		{fieldHeaderBytes, &c.limits.headerBytes},
		{fieldBodyBytes, &bodyBytes},
		{fieldTraitsBytes, &traitsBytes},
		{fieldIDBytes, &c.limits.idBytes},
		{fieldBatchIDs, &c.limits.batchIDs},
		{fieldBatchMemory, &batchMemory},
	} {
		var err error
		if *f.into, err = positive(p, f.name); err != nil {
			return fmt.Errorf("%s.%w", fieldLimits, err)
		}
	}
	c.limits.bodyBytes, c.limits.traitsBytes, c.limits.batchMemory = int64(bodyBytes), int64(traitsBytes), int64(batchMemory)
	return nil
}

func (c *config) parseTimeouts(p *service.ParsedConfig) error {
	for _, f := range []struct {
		name string
		into *time.Duration
	}{
		{fieldHeaderTimeout, &c.timeouts.header},
		{fieldReadTimeout, &c.timeouts.read},
		{fieldRequestTimeout, &c.timeouts.request},
		{fieldWriteTimeout, &c.timeouts.write},
		{fieldIdleTimeout, &c.timeouts.idle},
		{fieldCloseTimeout, &c.timeouts.close},
	} {
		var err error
		if *f.into, err = p.FieldDuration(f.name); err != nil {
			return err
		}
		if *f.into <= 0 {
			return fmt.Errorf("%s.%s must be longer than zero", fieldTimeouts, f.name)
		}
	}
	if c.timeouts.write <= c.timeouts.request {
		return fmt.Errorf("%s.%s must be longer than %s.%s, so that a timeout can still be reported", fieldTimeouts, fieldWriteTimeout, fieldTimeouts, fieldRequestTimeout)
	}
	return nil
}

func positive(p *service.ParsedConfig, name string) (int, error) {
	n, err := p.FieldInt(name)
	if err == nil && n < 1 {
		err = fmt.Errorf("%s must be at least 1", name)
	}
	return n, err
}

// input is the profile_api input: a handler and its listener.
type input struct {
	conf    *config
	log     *service.Logger
	handler *handler
	server  *http.Server
	cached  *customers.CachedReader // nil without a cache
	// lost receives the error of a listener that failed without being closed.
	lost chan error

	// rotation reloads tokens_file; nil without one. unfollow ends all followers.
	rotation  *rotation
	following sync.Once
	followers sync.WaitGroup
	unfollow  context.CancelFunc

	closeOnce sync.Once
	closeErr  error
}

func newInput(p *service.ParsedConfig, r reader, res *service.Resources) (*input, error) {
	conf, err := parseConfig(p, res.FS())
	if err != nil {
		return nil, err
	}
	if conf.exposed {
		res.Logger().Warnf("Every client that can reach %s may read and write profiles: neither tokens nor client certificates are configured.", conf.address)
	}
	var cached *customers.CachedReader
	if shared, ok := r.(*customers.Service); ok && conf.cache.MaxBytes > 0 {
		cached = shared.Cached(conf.cache)
		r = cached
	}
	h := newHandler(conf, r, res)
	if conf.content != "" {
		if h.content, err = contentblocks.Open(conf.content, r, res); err != nil {
			return nil, err
		}
	}
	var follow *rotation
	if conf.tokensFile != "" {
		follow = &rotation{path: conf.tokensFile, inline: conf.credentials, guard: &h.guard, log: res.Logger()}
		if err := follow.start(); err != nil {
			if cached != nil {
				err = errors.Join(err, cached.Close(context.Background()))
			}
			return nil, err
		}
	}
	return &input{
		cached:  cached,
		conf:    conf,
		log:     res.Logger(),
		handler: h,
		server: &http.Server{
			Handler:                      h,
			TLSConfig:                    conf.tls,
			Protocols:                    conf.protocols(),
			MaxHeaderBytes:               conf.limits.headerBytes,
			ReadHeaderTimeout:            conf.timeouts.header,
			ReadTimeout:                  conf.timeouts.read,
			WriteTimeout:                 conf.timeouts.write,
			IdleTimeout:                  conf.timeouts.idle,
			DisableGeneralOptionsHandler: true,
			ConnState:                    connectionChanged,
			ErrorLog:                     stdlog.New(serverLog{res.Logger()}, "", 0),
		},
		lost:     make(chan error, 1),
		rotation: follow,
		unfollow: func() {},
	}, nil
}

// Connect opens the listener.
func (in *input) Connect(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", in.conf.address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("cannot listen on %s: another process listens there; stop it, or set %s to another port", in.conf.address, fieldAddress)
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", in.conf.address, err)
	}
	in.serve(ln)
	return nil
}

// serve serves a listener until it fails or the input closes.
func (in *input) serve(ln net.Listener) {
	scheme := "http"
	if in.conf.tls != nil {
		scheme = "https"
	}
	in.log.Infof("Listening on %s://%s", scheme, ln.Addr())
	ln = limitConnections(ln, in.conf.limits.connections, in.conf.timeouts.request, func() { in.handler.telemetry.replaced.Incr(1) })
	in.following.Do(func() {
		var ctx context.Context
		ctx, in.unfollow = context.WithCancel(context.Background())
		if in.rotation != nil {
			in.followers.Go(func() { in.rotation.follow(ctx) })
		}
		if in.handler.content != nil {
			in.followers.Go(func() { in.handler.content.Follow(ctx) })
		}
		var cacheBytes func() int64
		if in.cached != nil {
			cacheBytes = in.cached.CacheBytes
		}
		in.followers.Go(func() { in.handler.telemetry.follow(ctx, cacheBytes) })
	})
	go func() {
		var err error
		if in.conf.tls != nil {
			err = in.server.ServeTLS(ln, "", "")
		} else {
			err = in.server.Serve(ln)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			_ = ln.Close()
			in.lost <- err
		}
	}()
}

// ReadBatch waits for writes.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	select {
	case first := <-in.handler.writes:
		batch, ack := in.handler.collect(first)
		return batch, ack, nil
	case err := <-in.lost:
		in.log.Errorf("The listener on %s failed and is opened again: %v", in.conf.address, err)
		return nil, nil, service.ErrNotConnected
	case <-ctx.Done():
		// Connect cancels a read only before it stops the input.
		in.handler.drain()
		return nil, nil, ctx.Err()
	}
}

// Close stops accepting requests, waits for those in flight, and cancels those that
// take longer than timeouts.close. Connect calls it after every message is settled.
func (in *input) Close(ctx context.Context) error {
	in.closeOnce.Do(func() {
		in.handler.drain()
		in.handler.abandon()
		ctx, cancel := context.WithTimeout(ctx, in.conf.timeouts.close)
		defer cancel()
		if err := in.server.Shutdown(ctx); err != nil {
			in.log.Warn("Requests were still in flight after timeouts.close and were canceled.")
			in.closeErr = in.server.Close()
		}
		in.unfollow() // after the last request, so that its metrics are flushed
		in.followers.Wait()
		if in.cached != nil {
			_ = in.cached.Close(ctx)
		}
	})
	return in.closeErr
}

// serverLog logs the messages of net/http without the addresses of clients.
type serverLog struct{ log *service.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.Contains(text, "Accept error") {
		l.log.Errorf("Connections cannot be accepted: %s", text)
	} else {
		text, _, _ = strings.Cut(text, " from ")
		l.log.Debug(text)
	}
	return len(line), nil
}
