package profileapioutput

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/contentblocks"
	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/delivery"
	"github.com/connect-personalize/connect-personalize/plugins/profiles"
)

// profileReader reads profiles; a profiles resource implements it.
type profileReader interface {
	Read(ctx context.Context, ids []string, q customers.Query) ([]customers.Result, error)
}

func newOutput(conf *service.ParsedConfig, res *service.Resources) (*output, error) {
	label, err := conf.FieldString(outProfiles)
	if err != nil {
		return nil, err
	}
	var r profileReader
	if label != "" {
		if r, err = profiles.Get(res, label); err != nil {
			return nil, err
		}
	}
	return newOutputWith(r, conf, res)
}

// newOutputWith returns an output that reads profiles from r, which may be nil.
func newOutputWith(r profileReader, conf *service.ParsedConfig, res *service.Resources) (*output, error) {
	o := &output{profiles: r, log: res.Logger(), readRetry: backoff.Exponential{Initial: 100 * time.Millisecond, Max: 5 * time.Second}}
	if err := o.parse(conf); err != nil {
		return nil, err
	}
	if err := o.parseContent(conf, res); err != nil {
		return nil, err
	}
	if o.profiles != nil && len(o.query.Fields) > 0 {
		// A read of no customers validates the fields without the store.
		var unknown *customers.UnknownFieldError
		if _, err := o.profiles.Read(context.Background(), nil, o.query); errors.As(err, &unknown) {
			return nil, err
		}
	}
	pushing, err := o.deliveryConfig(conf, res)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	transport.ResponseHeaderTimeout = pushing.Timeout
	tlsConf, enabled, err := conf.FieldTLSToggled(outTLS)
	if err != nil {
		return nil, err
	}
	if enabled {
		transport.TLSClientConfig = tlsConf
	}
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	o.transport = transport
	o.sender = delivery.New(*pushing, newTransport(transport))
	o.elements = res.Metrics().NewCounter("profile_api_elements", "outcome")
	if o.content != nil {
		ctx, stop := context.WithCancel(context.Background())
		o.stopFollowing = stop
		o.following.Go(func() { o.content.Follow(ctx) })
	}
	return o, nil
}

// parseContent parses the field content and opens the folder of blocks.
func (o *output) parseContent(conf *service.ParsedConfig, res *service.Resources) error {
	folder, err := conf.FieldString(outContent, outFolder)
	if err != nil || folder == "" {
		return err
	}
	if o.profiles == nil || len(o.query.Fields) > 0 {
		return errors.New(contentNeedsProfiles)
	}
	if o.blocks, err = conf.FieldInterpolatedStringList(outContent, outBlocks); err != nil {
		return err
	}
	if o.content, err = contentblocks.Open(folder, o.profiles, res); err != nil {
		return err
	}
	for _, name := range o.blocks {
		if text, static := name.Static(); static {
			if _, ok := o.content.Block(text); !ok && text != "" {
				return fmt.Errorf("content.blocks: %s has no block %q", folder, text)
			}
		}
	}
	return nil
}

// parse parses the fields that turn messages into requests.
func (o *output) parse(conf *service.ParsedConfig) error {
	for _, f := range []struct {
		name string
		to   **service.InterpolatedString
	}{
		{outURL, &o.url}, {outVerb, &o.verb}, {outCustomer, &o.customer}, {outMessageID, &o.messageID},
	} {
		var err error
		if *f.to, err = conf.FieldInterpolatedString(f.name); err != nil {
			return err
		}
	}
	headers, err := conf.FieldInterpolatedStringMap(outHeaders)
	if err != nil {
		return err
	}
	o.headers = map[string]*service.InterpolatedString{}
	for name, value := range headers {
		o.headers[http.CanonicalHeaderKey(name)] = value
	}
	for _, f := range []struct {
		name string
		to   **processor
	}{
		{outElement, &o.element}, {outRequest, &o.request}, {outFailures, &o.failures},
	} {
		if !conf.Contains(f.name) {
			continue
		}
		if *f.to, err = newProcessor(conf, f.name); err != nil {
			return err
		}
	}
	if conf.Contains(outDeadLetters) {
		if o.deadLetters, err = conf.FieldOutput(outDeadLetters); err != nil {
			return err
		}
	}
	if o.latestOnly, err = conf.FieldBool(outLatestOnly); err != nil {
		return err
	}
	o.query.Fields, err = conf.FieldStringList(outFields)
	return err
}

// deliveryConfig parses the fields that configure how requests are sent.
func (o *output) deliveryConfig(conf *service.ParsedConfig, res *service.Resources) (*delivery.Config, error) {
	c := &delivery.Config{Compose: o.compose}
	if o.failures != nil {
		c.FindFailures = o.findFailures
	}
	var errs []error
	number := func(path ...string) int {
		n, err := conf.FieldInt(path...)
		if err == nil && n < 1 {
			err = fmt.Errorf("%s must be at least 1", strings.Join(path, "."))
		}
		errs = append(errs, err)
		return n
	}
	duration := func(path ...string) time.Duration {
		d, err := conf.FieldDuration(path...)
		if err == nil && d <= 0 && path[0] != outGiveUpAfter {
			err = fmt.Errorf("%s must be longer than zero, such as 5s", strings.Join(path, "."))
		}
		errs = append(errs, err)
		return d
	}
	text := func(path ...string) string {
		s, err := conf.FieldString(path...)
		errs = append(errs, err)
		return s
	}
	statuses := func(name string) delivery.Statuses {
		texts, err := conf.FieldStringList(outStatuses, name)
		if err != nil {
			errs = append(errs, err)
			return delivery.Statuses{}
		}
		set, err := delivery.ParseStatuses(texts)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%s: %w", outStatuses, name, err))
		}
		return set
	}
	c.MaxElements, c.MaxBytes, c.Parallel = number(outMaxElements), number(outMaxBytes), number(outParallel)
	o.isSingle = c.MaxElements == 1
	c.Timeout, c.GiveUpAfter = duration(outTimeout), duration(outGiveUpAfter)
	o.giveUpAfter = c.GiveUpAfter
	c.Retry = backoff.Exponential{Initial: duration(outRetries, outInitial), Max: duration(outRetries, outMax)}
	c.MaxRetryAfter, c.ResetHeader = duration(outRetries, outMaxRetryAfter), http.CanonicalHeaderKey(text(outRetries, outResetHeader))
	c.Circuit = delivery.Circuit{
		Failures: number(outCircuit, outCircuitFailures),
		Probe:    backoff.Exponential{Initial: duration(outCircuit, outCircuitProbe), Max: duration(outCircuit, outCircuitMaxProbe)},
		FailFast: text(outCircuit, outCircuitOpen) == circuitGiveUp,
	}
	c.Delivered, c.Retried, c.Split = statuses(outDelivered), statuses(outRetried), statuses(outSplit)
	c.IdempotencyHeader = http.CanonicalHeaderKey(text(outIdempotency))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var err error
	if c.Authorize, err = parseAuthorize(conf); err != nil {
		return nil, err
	}
	if label := text(outRateLimit); label != "" {
		if !res.HasRateLimit(label) {
			return nil, fmt.Errorf("rate_limit %q does not exist; add an item with this label to rate_limit_resources", label)
		}
		c.Limit = func(ctx context.Context) error { return waitForRateLimit(ctx, res, label) }
	}
	requests := res.Metrics().NewCounter("profile_api_pushes", "status")
	latency := res.Metrics().NewTimer("profile_api_push_latency_ns")
	c.OnResponse = func(status int, took time.Duration) {
		requests.Incr(1, fmt.Sprint(status))
		latency.Timing(took.Nanoseconds())
	}
	open := res.Metrics().NewGauge("profile_api_circuit_open")
	c.OnCircuit = func(reason error) {
		if reason != nil {
			open.Set(1)
			res.Logger().Errorf("The circuit to the platform is open, because requests keep failing: %v", reason)
			return
		}
		open.Set(0)
		res.Logger().Info("The circuit to the platform is closed again")
	}
	return c, nil
}

// waitForRateLimit blocks until a rate limit allows a request.
func waitForRateLimit(ctx context.Context, res *service.Resources, label string) error {
	for {
		var wait time.Duration
		var limitErr error
		err := res.AccessRateLimit(ctx, label, func(r service.RateLimit) { wait, limitErr = r.Access(ctx) })
		if err = errors.Join(err, limitErr); err != nil {
			// A rate limit that is kept elsewhere may fail for a time.
			wait = time.Second
		}
		if wait <= 0 {
			return nil
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// parseAuthorize returns a function that adds credentials to a request.
func parseAuthorize(conf *service.ParsedConfig) (func(*delivery.Request, time.Time) error, error) {
	value, err := conf.FieldString(outAuthorization)
	if err != nil {
		return nil, err
	}
	header, err := conf.FieldString(outAuthHeader)
	if err != nil {
		return nil, err
	}
	// An environment variable that is not set leaves a scheme without a credential.
	if scheme := strings.TrimSpace(value); value != "" && (scheme == "" || scheme == "Bearer" || strings.HasSuffix(value, " ")) {
		return nil, errors.New("authorization contains no credential: set the environment variable that it refers to")
	}
	username, err := conf.FieldString(outBasicAuth, outUsername)
	if err != nil {
		return nil, err
	}
	password, err := conf.FieldString(outBasicAuth, outPassword)
	if err != nil {
		return nil, err
	}
	if username != "" && password == "" {
		return nil, errors.New("basic_auth has a username and no password: set the environment variable that password refers to")
	}
	signer, err := parseSigner(conf)
	if err != nil {
		return nil, err
	}
	header = http.CanonicalHeaderKey(header)
	return func(r *delivery.Request, now time.Time) error {
		if value != "" {
			r.Header.Set(header, value)
		}
		if password != "" {
			r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(username+":"+password)))
		}
		if signer != nil {
			signer.Sign(r.Header, r.Body, r.Key, now)
		}
		return nil
	}, nil
}

func parseSigner(conf *service.ParsedConfig) (*delivery.Signer, error) {
	secrets, err := conf.FieldStringList(outSignature, outSecrets)
	if err != nil || len(secrets) == 0 {
		return nil, err
	}
	header, err := conf.FieldString(outSignature, outSignatureHeader)
	if err != nil {
		return nil, err
	}
	var signer *delivery.Signer
	switch {
	case header == "":
		signer, err = delivery.NewWebhookSigner(secrets...)
	case len(secrets) > 1:
		err = errors.New("a signature of the body alone takes one secret")
	default:
		signer, err = delivery.NewBodySigner(http.CanonicalHeaderKey(header), secrets[0])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", outSignature, err)
	}
	return signer, nil
}
