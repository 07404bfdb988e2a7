// Package profileapi serves customer profiles over HTTP to email platforms,
// as an input: what is written through the API are its messages.
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
		Summary("Serves customer profiles over HTTP to email platforms, and turns what they write into events of the pipeline.").
		Description(`
Features are evaluated when a profile is read, so what is served is true now, whether or not an event has just arrived. A pipeline that only serves reads needs no processors.

| request | answer |
| --- | --- |
| `+"`GET /api/customer/{id}`"+` | the profile: `+"`id`, `traits`, `features`, `as_of`, `updated_at`"+` |
| `+"`POST /api/customers/batch`"+` | the profiles of `+"`"+`{"ids": [...]}`+"`"+`, in that order, missing ones marked |
| `+"`GET /api/segments/{segment}/customers`"+` | the customers in a segment and their count, in pages of JSON, NDJSON or CSV |
| `+"`PATCH /api/customer/{id}/traits`"+` | sets the traits in the body, unsets those given as `+"`null`"+` |
| `+"`PUT /api/customer/{id}/traits`"+` | makes the traits in the body the customer's only ones |
| `+"`DELETE /api/customer/{id}`"+` | erases the customer and keeps them erased |
| `+"`DELETE /api/customer/{id}/erasure`"+` | ends that: they may be a customer again |
| `+"`GET /api/customer/{id}/export`"+` | everything held of the customer |
| `+"`GET /openapi.json`"+` | all of this, as an OpenAPI 3.1 description |
| `+"`GET /healthz`"+` | 200 while the process is up |
| `+"`GET /readyz`"+` | 200 while the store answers, 503 when it does not and while the process is stopping |

An id is any UTF-8 string, URL-encoded, a slash as `+"`%2F`"+`: a `+"`userId`"+` or, if there is no customer of it, an `+"`anonymousId`"+`. The `+"`id`"+` in a profile is the one it is kept under, that of the known customer if the id asked for was merged into one.

### Reads

`+"`?fields=`"+` selects, by names separated by commas: `+"`traits`, `features`, `traits.email`, `features.orders_30d`"+`. `+"`?as_of=`"+` evaluates features at that time, written in RFC 3339 (`+"`2026-01-31T08:30:00Z`"+`) or as whole seconds since 1970; a time before what the record can still answer is refused with `+"`as_of_too_early`"+`. Both work on batches too.

Every profile has an `+"`ETag`"+` of its content at the moment it is read. It covers everything but `+"`as_of`"+`, so `+"`If-None-Match`"+` answers 304 until a trait, a feature or `+"`updated_at`"+` differs: a feature that slides out of its window changes the tag without any event. The profile is evaluated for each such request; what it saves is the transfer. `+"`Cache-Control`"+` is `+"`private, no-cache`"+` unless `+"`max_age`"+` is set.

A batch answers `+"`"+`{"customers": [...]}`+"`"+`, or with `+"`Accept: application/x-ndjson`"+` one customer a line. Each is `+"`"+`{"id": …, "found": true, "profile": {…}}`+"`"+` or `+"`"+`{"id": …, "found": false}`+"`"+`, `+"`id`"+` being the one asked for; a customer whose profile cannot be served has an `+"`error`"+` in its place. A long batch in lines is sent as it is read: if the store goes away meanwhile, the customers that are left have an `+"`error`"+` and no `+"`found`"+`. Long replies are compressed with gzip for who accepts that.

Records that were read are kept in memory (`+"`cache`"+`), and features are evaluated from them at the moment of the read. A change that this process makes shows at once. One that another process makes in Redis shows as soon as Redis has told of it, by client tracking: usually within a millisecond, within `+"`max_staleness`"+` at the latest. While Redis cannot tell, because a connection is lost, a cluster is moving slots, or the user may not (`+"`+hello +client|tracking`, in a cluster `+cluster|nodes`, with Sentinels `+role`"+`), every read goes to the store.

Other reads that arrive while the store is busy are made together in one round trip; one that finds it idle goes at once.

### Writes

A write becomes an `+"`identify`"+` event with the traits of the body, about the customer that a read of the id finds:

| the id finds | the event has |
| --- | --- |
| a known customer, also by an id that was merged into theirs | `+"`userId`"+`: the id of their profile |
| a customer known by an `+"`anonymousId`"+` only | `+"`anonymousId`"+`: that id |
| nobody | `+"`userId`"+`: the id as given, and a customer comes into being |

The event never has both, so a write never merges customers. The answer repeats the id as given, so that a token with the scope `+"`write`"+` alone learns nothing about whose it is.

A write is answered with 202 once the pipeline has acknowledged it, and with 503 if the pipeline could not store it, in which case it should be sent again. A pipeline that validates events may set one aside as a dead letter, and acknowledges that as well: 202 says that nothing is lost, not that the plan agreed. `+"`Idempotency-Key`"+` becomes the event's `+"`messageId`"+`, by which a write sent twice counts once. PUT compares with the traits found at the time of the request; a trait that another source states later stays.

### Erasure

A DELETE becomes an `+"`erase`"+` event, and is answered with 200 once the pipeline has acknowledged it and the profile is gone: with its index entries, what waited to be told, and those of all ids that were merged into it. What is left is that these ids were erased and when. Events about them are dropped from then on, until a `+"`readmit`"+` event; those of before it stay out even then. Sending it again changes nothing.

The event says under `+"`context.erasure`"+` which token asked for it (`+"`by`"+`) and, as `+"`subject`"+`, a hash of the id, for an audit that keeps no ids. It has to be stored wherever events are, so that a rebuild erases too: see [privacy](../privacy.md).

### Errors

`+"`"+`{"error": {"code": "no_such_customer", "message": "…"}}`+"`"+`: the code is for programs and does not change. 400 for what is not understood, 401 and 403 for a missing or insufficient token, 404, 405, 406, 408, 409 for a write about somebody who was erased, 410 for a signed address that has expired, 413, 415, 421, 429 with `+"`Retry-After`"+`, 500 for a stored profile that cannot be read, and 503 with `+"`Retry-After`"+`.

### Safety

Callers present `+"`Authorization: Bearer TOKEN`"+`, of which the config holds the SHA-256 only, or a client certificate, or both. A token is good for some of the scopes `+"`read`, `write`, `content` and `erase`"+`, and for as many requests a second as it is given. `+"`tokens_file`"+` names a file of tokens that is followed, so that they are rotated without a restart. Without either the input listens on loopback addresses only, and answers only requests that name one as their `+"`Host`"+`, so that no web page can reach it through a browser on the same machine; `+"`allow_unauthenticated`"+` lifts both. `+"`/healthz`, `/readyz` and `/openapi.json`"+` need no token. Ids and profiles appear in no log, metric or error.

A platform that cannot send headers fetches a signed address: `+"`/api/customer/42/content/hero?expires=1798761600&key=newsletter-2026&signature=…`"+`. The signature comes last and is the HMAC-SHA256, in hexadecimal, of the path and query before `+"`&signature=`"+`; it fetches rendered content, and of a profile the `+"`fields`"+` that its key names. `+"`connect-personalize sign-url`"+` makes one, and so does anything that has HMAC:

`+"```"+`
TARGET="/api/customer/42/content/hero?expires=$(date -d '30 days' +%s)&key=newsletter-2026"
echo "https://profiles.example.com$TARGET&signature=$(printf %s "$TARGET" | openssl dgst -sha256 -hmac "$SECRET" | sed 's/.* //')"
`+"```"+`

### Metrics

`+"`profile_api_requests`"+` by `+"`route`"+` and `+"`status`"+`, the timer `+"`profile_api_latency_ns`"+` by `+"`route`"+`, of at most 256 requests a second and route, drawn by lot, the gauges `+"`profile_api_in_flight`"+` and `+"`profile_api_cache_bytes`"+`, about how much memory the records of `+"`cache`"+` take, and `+"`profile_api_connections_cut`"+`: connections that were closed to make room for others. They are up to date every second.
`).
		Fields(
			service.NewStringField(fieldProfiles).
				Description("The label of the `profiles` resource to serve.").
				Example("retail").
				LintRule(`root = if this == "" { "name the profiles resource to serve by its label" }`),
			service.NewStringField(fieldAddress).
				Description("Where to listen: host and port.").
				Default("127.0.0.1:8081").
				Examples("0.0.0.0:8081", "[::1]:8081").
				LintRule(`root = if !this.string().re_match(":[0-9]+$") { "write a host and a port, such as 127.0.0.1:8081" }`),
		).
		Fields(credentialFields()...).
		Fields(
			service.NewStringField(fieldTokensFile).
				Description("A YAML file with more `tokens` and `signing_keys`, which are written as here. It is followed: a change of it counts some seconds later, without a restart, and a file that is wrong changes nothing.").
				Default("").Example("./configs/retail/tokens.yaml"),
			service.NewObjectField(fieldTLS,
				service.NewStringField(fieldCertFile).
					Description("The server's certificate chain, in PEM. Setting it turns TLS, and HTTP/2, on.").
					Default("").Example("./server.crt"),
				service.NewStringField(fieldKeyFile).
					Description("The certificate's private key, in PEM.").
					Default("").Example("./server.key"),
				service.NewStringField(fieldClientCAFile).
					Description("The authorities, in PEM, one of which must have signed the certificate a client presents. Setting it makes client certificates mandatory.").
					Default("").Example("./clients.crt"),
			).
				Description("Encryption, and client certificates.").
				LintRule(`
let cert = this.cert_file.or("") != ""
let key = this.key_file.or("") != ""
let ca = this.client_ca_file.or("") != ""
root = match {
  $cert != $key => "cert_file and key_file go together: set both or neither",
  $ca && !$cert => "client_ca_file needs cert_file and key_file",
}`),
			service.NewBoolField(fieldAllowUnauthenticated).
				Description("Whether to serve although neither tokens nor client certificates are set, beyond loopback and by any host name, because something in front of the API checks its callers.").
				Default(false).Example(true).Advanced(),
			service.NewBoolField(fieldH2C).
				Description("Whether to take HTTP/2 without TLS as well, from a proxy that speaks it to what is behind it. With `tls` there is HTTP/2 anyway.").
				Default(false).Example(true).Advanced(),
			service.NewBoolField(fieldWrites).
				Description("Whether to accept writes. Turn them off where the pipeline does not bring events into profiles.").
				Default(true).Example(false),
			service.NewStringField(fieldSource).
				Description("The `source` of the events that writes become.").
				Default("api").Example("crm").
				LintRule(`root = if this == "" { "give the source a name, such as api" }`),
			service.NewStringField(fieldAuditKey).
				Description("The key of the HMAC-SHA256 by which erasures name the customer in the audit, so that nobody finds out by trying ids whom it was. Without one it is a plain SHA-256.").
				Secret().Default("").Example("${AUDIT_KEY}").Advanced(),
			service.NewDurationField(fieldMaxAge).
				Description("How long a client may use a profile it has read without asking again, for `Cache-Control`. Zero lets it only ask whether it still holds.").
				Default("0s").Example("30s").Advanced().
				LintRule(`root = if this.string().has_prefix("-") { "must be zero or more, such as 30s" }`),
			service.NewStringListField(fieldAllowedOrigins).
				Description("The origins whose web pages may call the API from a browser (CORS), each named in full.").
				Default([]any{}).Example([]string{"https://crm.example.com"}).Advanced().
				LintRule(`root = if this.type() == "array" && this.any(o -> !o.string().re_match("^https?://[^/*]+$")) { "name each origin in full, without a path or *, such as https://crm.example.com" }`),
			service.NewStringField(fieldContent).
				Description("The folder of the content blocks to serve, one a file; none are served if it is empty. The folder is followed: changed blocks are served from then on, and if one is not correct the last good ones stay.").
				Default("").Example("./configs/content").
				LintRule(`root = lint_content_blocks(this)`),
			service.NewBoolField(fieldExplorer).
				Description("Whether to serve the profile explorer at `/`, a page on which people look at profiles, at how they came to be, and at content. The page itself needs no token and has no data: where the API needs a token, so does whoever uses the page.").
				Default(true).Example(false),
			positiveField(fieldRoundTrips, 4, "How many reads of the store may be under way at once for single profiles, and as many again for batches. What arrives meanwhile is read together."),
			service.NewObjectField(fieldCache,
				service.NewStringField(fieldMaxBytes).
					Description("About how much memory the records may take, such as `64MiB`. `0` keeps none.").
					Default("64MiB").Examples("512MiB", "0").
					LintRule(`root = if !this.string().re_match("^[0-9]+([.][0-9]+)? ?([kKmMgG]i?[bB]?|[bB])?$") { "write a size such as 64MiB, or 0 for no cache" }`),
				service.NewDurationField(fieldMaxStaleness).
					Description("How old a record may be that another process has changed in Redis, if Redis does not get to tell. Usually it tells within a millisecond.").
					Default("1s").Example("100ms").
					LintRule(configspec.LintDuration),
			).Description("Records of customers kept in memory between reads."),
			service.NewObjectField(fieldLimits,
				positiveField(fieldConnections, 4096, "How many connections may be open. When there are as many, one that is idle, or has not come up with a request, is closed for the next; if there is none, one whose request has taken longer than `timeouts.request`."),
				positiveField(fieldHeaderBytes, 16<<10, "How long the request line and headers may be."),
				positiveField(fieldBodyBytes, 1<<20, "How long the body of a batch read may be."),
				positiveField(fieldTraitsBytes, 32<<10, "How long the body of a write may be."),
				positiveField(fieldIDBytes, 512, "How long a customer id may be."),
				positiveField(fieldBatchIDs, 1000, "How many customers a batch read may name."),
			).Description("How much a caller may ask for.").Advanced(),
			service.NewObjectField(fieldTimeouts,
				timeoutField(fieldHeaderTimeout, "5s", "How long the headers of a request may take to arrive."),
				timeoutField(fieldReadTimeout, "10s", "How long a whole request may take to arrive."),
				timeoutField(fieldRequestTimeout, "5s", "How long the store, or the pipeline, may take before the caller is told 503."),
				timeoutField(fieldWriteTimeout, "30s", "How long a request may take from its headers to the end of its answer."),
				timeoutField(fieldIdleTimeout, "2m", "How long a connection may be kept without a request."),
				timeoutField(fieldCloseTimeout, "10s", "How long requests under way are waited for when the process stops."),
			).
				Description("How long things may take. The time to write must be longer than that of a request, so that a timeout can still be answered.").Advanced(),
		).
		LintRule(`
let open = this.tokens.or([]).length() == 0 && this.signing_keys.or([]).length() == 0 && this.tokens_file.or("") == "" && this.tls.client_ca_file.or("") == "" && !this.allow_unauthenticated.or(false)
root = if $open && !this.address.or("127.0.0.1:8081").string().re_match("^(localhost|127[.][0-9.]+|\\[::1\\]):[0-9]+$") {
  "listening beyond loopback needs authentication: set tokens, tokens_file or tls.client_ca_file, or allow_unauthenticated: true if something in front of the API checks its callers"
}`).
		Example("Serve profiles",
			"An email platform reads profiles, and a CRM may change traits as well.", `
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

// config is what the fields say.
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
		bodyBytes, traitsBytes                      int64
	}
	timeouts struct {
		header, read, request, write, idle, close time.Duration
	}

	// exposed is set when anybody on a network may call the API, and localOnly
	// when anybody on this machine may, but nobody else.
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
			return nil, fmt.Errorf("%s.%s holds no certificate in PEM", fieldTLS, fieldClientCAFile)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

// protocols are those that are spoken: HTTP/2 without TLS only where it is asked
// for, since nobody but a proxy speaks it.
func (c *config) protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(c.h2c)
	return p
}

// needsCredentials tells whether callers must present a token or a signature.
func (c *config) needsCredentials() bool {
	return len(c.credentials.tokens) > 0 || len(c.credentials.keys) > 0 || c.tokensFile != ""
}

// checkExposure refuses to serve everybody on a network by accident.
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
		return fmt.Errorf("listening on %s, beyond loopback, needs authentication: set %s, %s or %s.%s, or %s: true if something in front of the API checks its callers",
			c.address, fieldTokens, fieldTokensFile, fieldTLS, fieldClientCAFile, fieldAllowUnauthenticated)
	}
	return nil
}

func (c *config) parseLimits(p *service.ParsedConfig) error {
	var bodyBytes, traitsBytes int
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
	} {
		var err error
		if *f.into, err = positive(p, f.name); err != nil {
			return fmt.Errorf("%s.%w", fieldLimits, err)
		}
	}
	c.limits.bodyBytes, c.limits.traitsBytes = int64(bodyBytes), int64(traitsBytes)
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
		return fmt.Errorf("%s.%s must be longer than %s.%s, so that a timeout can still be answered", fieldTimeouts, fieldWriteTimeout, fieldTimeouts, fieldRequestTimeout)
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

// input is the profile_api input: a handler, and the listener it is behind.
type input struct {
	conf    *config
	log     *service.Logger
	handler *handler
	server  *http.Server
	cached  *customers.CachedReader // nil without a cache
	// lost gets the reason when a listener fails that nobody closed.
	lost chan error

	// rotation follows the file of tokens, where there is one; unfollow ends
	// all followers.
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
		res.Logger().Warnf("Anybody who can reach %s may read and write profiles: neither tokens nor client certificates are set.", conf.address)
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
		return fmt.Errorf("cannot listen on %s: another process does; stop it, or set %s to another port", in.conf.address, fieldAddress)
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", in.conf.address, err)
	}
	in.serve(ln)
	return nil
}

// serve answers what arrives at a listener until it fails or the input closes.
func (in *input) serve(ln net.Listener) {
	scheme := "http"
	if in.conf.tls != nil {
		scheme = "https"
	}
	in.log.Infof("Listening on %s://%s", scheme, ln.Addr())
	ln = limitConnections(ln, in.conf.limits.connections, in.conf.timeouts.request, func() { in.handler.telemetry.cut.Incr(1) })
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

// ReadBatch waits for writes, for ever if there are none.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	select {
	case first := <-in.handler.writes:
		batch, ack := in.handler.collect(first)
		return batch, ack, nil
	case err := <-in.lost:
		in.log.Errorf("The listener on %s failed and will be opened again: %v", in.conf.address, err)
		return nil, nil, service.ErrNotConnected
	case <-ctx.Done():
		// The engine takes nothing more from an input whose read it cancels.
		in.handler.drain()
		return nil, nil, ctx.Err()
	}
}

// Close stops accepting, lets the requests under way finish, and cuts off those
// that take too long. The engine calls it when every message is settled.
func (in *input) Close(ctx context.Context) error {
	in.closeOnce.Do(func() {
		in.handler.drain()
		in.handler.abandon()
		ctx, cancel := context.WithTimeout(ctx, in.conf.timeouts.close)
		defer cancel()
		if err := in.server.Shutdown(ctx); err != nil {
			in.log.Warn("Requests were still under way when the time to close ran out, and were cut off.")
			in.closeErr = in.server.Close()
		}
		in.unfollow() // after the last request, which the metrics are told of
		in.followers.Wait()
		if in.cached != nil {
			_ = in.cached.Close(ctx)
		}
	})
	return in.closeErr
}

// serverLog takes what net/http has to say, and leaves out the addresses of
// clients.
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
