package enrich

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/connect-personalize/connect-personalize/plugins/engine/lookup"
)

const (
	fieldHTTP         = "http"
	fieldURL          = "url"
	fieldVerb         = "verb"
	fieldHeaders      = "headers"
	fieldBulk         = "bulk"
	fieldRequest      = "request"
	fieldResponse     = "response"
	fieldAbsentStatus = "absent_status"
	fieldMaxResponse  = "max_response_bytes"
	fieldTLS          = "tls"
	fieldBearer       = "bearer_token"
	fieldBasic        = "basic_auth"
	fieldUsername     = "username"
	fieldPassword     = "password"
	fieldOAuth2       = "oauth2"
	fieldClientID     = "client_id"
	fieldClientSecret = "client_secret"
	fieldTokenURL     = "token_url"
	fieldScopes       = "scopes"
)

func httpField() *service.ConfigField {
	return service.NewObjectField(fieldHTTP,
		service.NewInterpolatedStringField(fieldURL).
			Description("The URL. `this.key` is the key; `this.keys` are all keys of a bulk request. They are escaped for paths and queries.").
			Example(`https://api.example.com/products/${! this.key }`).
			Example(`https://api.example.com/products?ids=${! this.keys.join(",") }`).
			LintRule(`root = if !this.string().re_match("^(https?://|\\$\\{)") { [ "url must begin with http:// or https://" ] }`),
		service.NewStringEnumField(fieldVerb, http.MethodGet, http.MethodPost, http.MethodPut).
			Description("The request's method.").
			Default(http.MethodGet),
		service.NewStringMapField(fieldHeaders).
			Description("Headers of the request.").
			Secret().
			Default(map[string]any{}).
			Example(map[string]any{"X-API-Key": "${CATALOGUE_KEY}"}),
		service.NewBoolField(fieldBulk).
			Description("Whether one request contains up to `max_keys` keys instead of one.").
			Default(false),
		service.NewBloblangField(fieldRequest).
			Description("The body of the request, from the unescaped `this.key`, or `this.keys` of a bulk request. A value that is not a string is sent as JSON.").
			Optional().
			Example(`root.ids = this.keys`),
		service.NewBloblangField(fieldResponse).
			Description("Extracts the value from the response's body `this`; for a bulk request, an object of values by key. Absent and null keys have no value. By default the value is the body.").
			Optional().
			Example(`root = this.customers.map_each(c -> {(c.id): c}).squash()`),
		service.NewIntListField(fieldAbsentStatus).
			Description("Status codes for a key without a value, in addition to 204.").
			Default([]any{http.StatusNotFound, http.StatusGone}).
			Advanced(),
		service.NewStringField(fieldMaxResponse).
			Description("Maximum size of a response's body. A larger body is a failure.").
			Default("8MiB").
			Advanced(),
		service.NewStringField(fieldBearer).
			Description("Token for the header `Authorization: Bearer`.").
			Secret().
			Default("").
			Example("${CRM_TOKEN}"),
		service.NewObjectField(fieldBasic,
			service.NewStringField(fieldUsername).Description("The user.").Default(""),
			service.NewStringField(fieldPassword).Description("The password.").Secret().Default(""),
		).Description("Basic authentication. It is used if `username` is set.").Advanced(),
		service.NewObjectField(fieldOAuth2,
			service.NewStringField(fieldClientID).Description("The client id.").Default(""),
			service.NewStringField(fieldClientSecret).Description("The client's secret.").Secret().Default(""),
			service.NewStringField(fieldTokenURL).Description("The URL of the token endpoint. If it is set, OAuth 2 is used.").Default("").Example("https://crm.example.com/oauth2/token"),
			service.NewStringListField(fieldScopes).Description("The requested scopes.").Default([]any{}),
		).Description("OAuth 2 with client credentials.").Advanced(),
		service.NewTLSToggledField(fieldTLS),
	).Description("An HTTP API with JSON responses. Redirects are not followed.").
		Optional().
		LintRule(`
let tokens = [ this.bearer_token.or("") != "", this.basic_auth.username.or("") != "", this.oauth2.token_url.or("") != "" ].filter(set -> set)
root = [
  if this.exists("request") && this.verb.or("GET") == "GET" {
    "a GET request has no body: write verb: POST, or write the key into the url"
  },
  if this.bulk.or(false).string() == "true" && !this.exists("response") {
    "bulk needs the mapping of values to keys: write response, such as root = this.items.map_each(i -> {(i.id): i}).squash()"
  },
  if !this.exists("request") && !this.url.or("").string().contains("$"+"{!") {
    "the key is in neither url nor request: write it into the url as $"+"{! this.key }"
  },
  if $tokens.length() > 1 {
    "keep one of bearer_token, basic_auth and oauth2"
  },
].filter(lint -> lint != null)
`)
}

type httpProvider struct {
	client            *http.Client
	url               *service.InterpolatedString
	verb              string
	headers           map[string]string
	bulk              bool
	request, response *bloblang.Executor
	absent            map[int]bool
	maxBody           int64
	results           results
	username          string
	password          string
}

func newHTTP(conf *service.ParsedConfig, r results, timeout time.Duration, inFlight int) (*httpProvider, error) {
	p := &httpProvider{results: r, absent: map[int]bool{http.StatusNoContent: true}}
	var size, bearer, clientID, clientSecret, tokenURL string
	var err error
	for _, field := range []struct {
		into *string
		path []string
	}{
		{&p.verb, []string{fieldVerb}},
		{&size, []string{fieldMaxResponse}},
		{&bearer, []string{fieldBearer}},
		{&p.username, []string{fieldBasic, fieldUsername}},
		{&p.password, []string{fieldBasic, fieldPassword}},
		{&clientID, []string{fieldOAuth2, fieldClientID}},
		{&clientSecret, []string{fieldOAuth2, fieldClientSecret}},
		{&tokenURL, []string{fieldOAuth2, fieldTokenURL}},
	} {
		if *field.into, err = conf.FieldString(field.path...); err != nil {
			return nil, err
		}
	}
	if p.url, err = conf.FieldInterpolatedString(fieldURL); err != nil {
		return nil, err
	}
	if p.headers, err = conf.FieldStringMap(fieldHeaders); err != nil {
		return nil, err
	}
	if p.bulk, err = conf.FieldBool(fieldBulk); err != nil {
		return nil, err
	}
	for _, field := range []struct {
		into **bloblang.Executor
		name string
	}{{&p.request, fieldRequest}, {&p.response, fieldResponse}} {
		if conf.Contains(field.name) {
			if *field.into, err = conf.FieldBloblang(field.name); err != nil {
				return nil, err
			}
		}
	}
	if p.bulk && p.response == nil {
		return nil, errors.New("http.bulk needs http.response, which maps values to keys")
	}
	absent, err := conf.FieldIntList(fieldAbsentStatus)
	if err != nil {
		return nil, err
	}
	for _, status := range absent {
		p.absent[status] = true
	}
	maxBody, err := parseSize(size)
	if err != nil {
		return nil, fmt.Errorf("http.max_response_bytes: %w", err)
	}
	p.maxBody = int64(maxBody)
	scopes, err := conf.FieldStringList(fieldOAuth2, fieldScopes)
	if err != nil {
		return nil, err
	}
	tlsConf, enabled, err := conf.FieldTLSToggled(fieldTLS)
	if err != nil {
		return nil, err
	}
	if !enabled {
		tlsConf = &tls.Config{MinVersion: tls.VersionTLS12}
	}

	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        tlsConf,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           inFlight,
		MaxIdleConnsPerHost:    inFlight,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	p.client = &http.Client{
		Transport: transport,
		// A redirect could send the credentials to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if bearer != "" {
		if p.headers["Authorization"] != "" {
			return nil, errors.New("keep one of http.bearer_token and the header Authorization")
		}
		headers := map[string]string{"Authorization": "Bearer " + bearer}
		for name, value := range p.headers {
			headers[name] = value
		}
		p.headers = headers
	}
	if tokenURL != "" {
		// The library fetches tokens outside of the call's context, so the client
		// needs its own timeout.
		tokens := &http.Client{Transport: transport, Timeout: timeout}
		ctx := context.WithValue(context.Background(), oauth2.HTTPClient, tokens)
		credentials := clientcredentials.Config{ClientID: clientID, ClientSecret: clientSecret, TokenURL: tokenURL, Scopes: scopes}
		p.client.Transport = &oauth2.Transport{Source: credentials.TokenSource(ctx), Base: transport}
	}
	return p, nil
}

func (p *httpProvider) close() { p.client.CloseIdleConnections() }

// escaped returns a key that is safe in every part of a URL. A key of dots is
// encoded too, because . and .. have a meaning in paths.
func escaped(key string) string {
	if strings.Trim(key, ".") == "" {
		return strings.ReplaceAll(key, ".", "%2E")
	}
	return strings.ReplaceAll(url.QueryEscape(key), "+", "%20")
}

func failed(format string, args ...any) error {
	return &lookup.Error{Reason: fmt.Sprintf(format, args...)}
}

// Lookup implements lookup.Provider.
func (p *httpProvider) Lookup(ctx context.Context, keys []string) (map[string]lookup.Value, error) {
	req, err := p.newRequest(ctx, keys)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	values := make(map[string]lookup.Value, len(keys))
	if !p.bulk && p.absent[resp.StatusCode] || resp.StatusCode == http.StatusNoContent {
		p.drain(resp)
		return values, nil
	}
	if err := statusError(resp); err != nil {
		p.drain(resp)
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, p.maxBody+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > p.maxBody {
		return nil, failed("the body of a response is larger than max_response_bytes")
	}
	body, err := decode(raw)
	if err != nil {
		return nil, failed("the body of a response is not JSON")
	}
	found := true
	if p.response != nil {
		if body, found, err = query(p.response, body); err != nil {
			return nil, failed("the mapping response failed on the body of a response")
		}
	}
	if !p.bulk {
		if found {
			p.results.put(values, keys[0], body)
		}
		return values, nil
	}
	if !found {
		return values, nil
	}
	byKey, ok := body.(map[string]any)
	if !ok {
		return nil, failed("the mapping response did not return an object of values by key")
	}
	for _, key := range keys {
		p.results.put(values, key, byKey[key])
	}
	return values, nil
}

func (p *httpProvider) newRequest(ctx context.Context, keys []string) (*http.Request, error) {
	safe := make([]any, len(keys))
	plain := make([]any, len(keys))
	for i, key := range keys {
		safe[i], plain[i] = escaped(key), key
	}
	msg := service.NewMessage(nil)
	msg.SetStructuredMut(map[string]any{"key": safe[0], "keys": safe})
	target, err := p.url.TryString(msg)
	if err != nil {
		return nil, &lookup.Error{Reason: "the url failed for a key", Refused: true}
	}
	var body io.Reader
	var json bool
	if p.request != nil {
		v, _, err := query(p.request, map[string]any{"key": plain[0], "keys": plain})
		if err != nil {
			return nil, &lookup.Error{Reason: "the mapping request failed", Refused: true}
		}
		var raw []byte
		switch v := v.(type) {
		case string:
			raw = []byte(v)
		case []byte:
			raw = v
		default:
			json = true
			if raw, err = encode(v); err != nil {
				return nil, &lookup.Error{Reason: "the mapping request did not return JSON", Refused: true}
			}
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, p.verb, target, body)
	if err != nil {
		return nil, &lookup.Error{Reason: "the url is not valid", Refused: true}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "connect-personalize")
	if json {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range p.headers {
		req.Header.Set(name, value)
	}
	if p.username != "" {
		req.SetBasicAuth(p.username, p.password)
	}
	return req, nil
}

// drain reads the rest of a small body, so that the connection can be reused.
func (p *httpProvider) drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
}

// statusError returns the failure that a status code means, or nil for a value.
func statusError(resp *http.Response) error {
	status := resp.StatusCode
	e := &lookup.Error{Reason: "HTTP status " + strconv.Itoa(status)}
	switch {
	case status >= 200 && status < 300:
		return nil
	case status >= 300 && status < 400:
		e.Reason += ": redirects are not followed; write the final url"
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"))
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired ||
		status == http.StatusRequestTimeout || status == http.StatusTooEarly || status >= 500:
	default:
		e.Refused = true
	}
	return e
}

func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds >= 0 && seconds < 1<<31 {
		return time.Duration(seconds) * time.Second
	}
	if deadline, err := http.ParseTime(header); err == nil {
		return max(time.Until(deadline), 0)
	}
	return 0
}
