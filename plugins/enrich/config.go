package enrich

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// pluginName is the processor's name in a config.
const pluginName = "enrich"

const (
	fieldEnabled     = "enabled"
	fieldName        = "name"
	fieldEvents      = "events"
	fieldKey         = "key"
	fieldResult      = "result"
	fieldEventResult = "event_result"
	fieldTarget      = "target"

	fieldTraits        = "traits"
	fieldTraitsMapping = "mapping"
	fieldTraitsStatus  = "status"

	fieldTimeout     = "timeout"
	fieldBudget      = "budget"
	fieldRetries     = "retries"
	fieldRetryWait   = "retry_wait"
	fieldMaxInFlight = "max_in_flight"
	fieldMaxKeys     = "max_keys"
	fieldRateLimit   = "rate_limit"

	fieldCircuit  = "circuit"
	fieldFailures = "failures"
	fieldOpenFor  = "open_for"
	fieldProbes   = "probes"

	fieldCache       = "cache"
	fieldTTL         = "ttl"
	fieldNegativeTTL = "negative_ttl"
	fieldStaleFor    = "stale_for"
	fieldMaxBytes    = "max_bytes"
	fieldShared      = "shared"

	fieldDefault      = "default"
	fieldOnAbsent     = "on_absent"
	fieldOnFailure    = "on_failure"
	fieldKeepOriginal = "keep_original"
)

const (
	defaultTimeout = "500ms"
	defaultBudget  = "1s"

	// targetNone is the target of enrichments that write nothing into events.
	targetNone = "none"
)

// policy is the treatment of an event without a value.
type policy string

const (
	policyPass       policy = "pass"
	policyDefault    policy = "default"
	policyMark       policy = "mark"
	policyDeadLetter policy = "dead_letter"
)

var policies = map[string]string{
	string(policyPass):       "The event passes unchanged.",
	string(policyDefault):    "The value of the field `default` is written.",
	string(policyMark):       "The event passes, marked in its metadata and at `context.enrichment_status`.",
	string(policyDeadLetter): "The event gets an error with the reason, for the dead letters.",
}

// kinds are the sources of values.
var kinds = []string{fieldHTTP, fieldRedis, fieldSQL, fieldCSV, fieldMMDB}

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Integration", "Personalization").
		Summary("Looks up additional data for all events of a batch together, and writes it into the events or adds it as traits of the customers.").
		Description(description).
		Field(service.NewBoolField(fieldEnabled).
			Description("Whether the processor is active. If not, events pass unchanged and no file or connection is opened.").
			Default(true).
			Example("${GEOIP_ENABLED:false}")).
		Field(service.NewStringField(fieldName).
			Description("The name of the enrichment in events, metrics and logs: letters, digits and `_`.").
			Example("product").
			LintRule(`root = if !this.string().re_match("^[A-Za-z][A-Za-z0-9_]*$") { [ "name must be letters, digits and _, such as product" ] }`)).
		Field(service.NewStringListField(fieldEvents).
			Description("The events to enrich: the `event` of track events, the `type` of all others. An empty list enriches every event with a key.").
			Default([]any{}).
			Example([]string{"Product Viewed", "Product Added"})).
		Field(service.NewBloblangField(fieldKey).
			Description("The key of an event: a string, a number, or an array of them. An event for which the mapping returns null, an empty value or an error, or deletes root, has no key and passes unchanged. A plain path such as `this.context.ip` is evaluated without parsing the event into maps, which is several times as fast.").
			Example("this.properties.product_id").
			Example("this.properties.products.map_each(p -> p.product_id)")).
		Field(httpField()).
		Field(redisField()).
		Field(sqlField()).
		Field(csvField()).
		Field(mmdbField()).
		Field(service.NewBloblangField(fieldResult).
			Description("Transforms a found value. `this.key` is the key and `this.value` the value. It is evaluated once per found value, and the result is cached. Null or deleted means that the value is absent. By default the whole value is kept.").
			Optional().
			Example(`root = this.value.without("internal_note")`)).
		Field(service.NewBloblangField(fieldEventResult).
			Description("The value to write if it depends on the event: a mapping of `this.event`, `this.key` and `this.value` (the output of `result`). It is evaluated for every event, which costs as much as a `mapping` processor. Null or deleted writes no value.").
			Optional().
			Advanced().
			Example(`root.margin = this.event.properties.price * this.value.margin_rate`)).
		Field(service.NewStringField(fieldTarget).
			Description("The path of the value in the event: keys joined by dots. The default is `context.enrichment.` and the name. `none` writes no value, for enrichments that only add traits.").
			Default("").
			Example("properties.product").
			LintRule(`root = if this.string().re_match("^\\.|\\.\\.|\\.$") { [ "target must be keys joined by dots, such as context.enrichment.product" ] }`)).
		Field(service.NewObjectField(fieldTraits,
			service.NewBoolField(fieldEnabled).
				Description("Whether to add traits.").
				Default(false),
			service.NewBloblangField(fieldTraitsMapping).
				Description("Returns the traits as an object, from `this.key` and `this.value` (the output of `result`). By default the value is used, which must be an object.").
				Optional().
				Example("root.loyalty_tier = this.value.tier"),
			service.NewStringField(fieldTraitsStatus).
				Description("The name of a trait with the status of the lookup: `ok`, or for a marked event `absent`, `failed`, `timed_out` or `open`. If it is empty, no such trait is added.").
				Default("").
				Example("crm_status"),
		).Description("Adds the found values as traits of the event's customer: for each customer of a batch, an identify event is added after the customer's latest enriched event.")).
		Field(service.NewDurationField(fieldTimeout).
			Description("Timeout of one call.").
			Default(defaultTimeout).
			LintRule(positive(fieldTimeout, "500ms"))).
		Field(service.NewDurationField(fieldBudget).
			Description("Maximum wait of a batch for all of its lookups, including retries. `on_failure` applies to values that are missing then. Running calls continue, and their results are used by later batches.").
			Default(defaultBudget).
			LintRule(positive(fieldBudget, "1s"))).
		Field(service.NewIntField(fieldRetries).
			Description("Maximum number of retries of a failed call.").
			Default(1).
			LintRule(`root = if this < 0 || this > 10 { [ "retries must be from 0 to 10" ] }`)).
		Field(service.NewDurationField(fieldRetryWait).
			Description("Wait before the first retry. It doubles with each retry and varies randomly by half.").
			Default("50ms").
			Advanced().
			LintRule(positive(fieldRetryWait, "50ms"))).
		Field(service.NewIntField(fieldMaxInFlight).
			Description("Maximum number of concurrent calls.").
			Default(8).
			LintRule(`root = if this < 1 { [ "max_in_flight must be 1 or more" ] }`)).
		Field(service.NewIntField(fieldMaxKeys).
			Description("Maximum number of keys in a call of `redis`, `sql` or bulk `http`.").
			Default(100).
			LintRule(`root = if this < 1 || this > 10000 { [ "max_keys must be from 1 to 10000" ] }`)).
		Field(service.NewStringField(fieldRateLimit).
			Description("The label of a `rate_limit` resource that limits the calls. If it is empty, calls are not limited.").
			Default("").
			Example("crm_calls")).
		Field(service.NewObjectField(fieldCircuit,
			service.NewIntField(fieldFailures).
				Description("Number of failed calls in a row that opens the circuit. It also opens when half of at least 20 calls in 30 seconds failed.").
				Default(5).
				LintRule(`root = if this < 1 { [ "failures must be 1 or more" ] }`),
			service.NewDurationField(fieldOpenFor).
				Description("How long the circuit stays open: no call is made in this time.").
				Default("10s").
				LintRule(positive(fieldOpenFor, "10s")),
			service.NewIntField(fieldProbes).
				Description("Number of trial calls after that. If all of them succeed, the circuit closes; if one fails, it opens again.").
				Default(1).
				LintRule(`root = if this < 1 { [ "probes must be 1 or more" ] }`),
		).Description("A circuit breaker: when calls keep failing, no calls are made for a while.").Advanced()).
		Field(service.NewObjectField(fieldCache,
			service.NewDurationField(fieldTTL).
				Description("How long a found value is fresh.").
				Default("10m").
				LintRule(positive(fieldTTL, "10m")),
			service.NewDurationField(fieldNegativeTTL).
				Description("How long an absent or unusable value is cached. `0s` disables it, so that such keys are looked up every time.").
				Default("1m"),
			service.NewDurationField(fieldStaleFor).
				Description("How long an expired value is still returned while it is refreshed in the background.").
				Default("1h"),
			service.NewStringField(fieldMaxBytes).
				Description("Maximum size of the cache. The least used entries are evicted first.").
				Default("64MiB").
				LintRule(`root = if !this.string().re_match("^[0-9]+(\\.[0-9]+)? ?([kKMG]i?)?B?$") { [ "max_bytes must be a size such as 64MiB" ] }`),
			service.NewStringField(fieldShared).
				Description("The label of a `cache` resource that several processes share. It is read before the provider is called, and stores the provider's answers. If it is unavailable, the provider is called.").
				Default("").
				Example("enrichments"),
		).Description("Each process caches found and absent values in memory.")).
		Field(service.NewAnyField(fieldDefault).
			Description("The value for the policy `default`. `result` is not applied to it.").
			Optional().
			Example(map[string]any{"category": "unknown"})).
		Field(service.NewStringAnnotatedEnumField(fieldOnAbsent, policies).
			Description("Policy for events if the key has no value.").
			Default(string(policyPass))).
		Field(service.NewStringAnnotatedEnumField(fieldOnFailure, policies).
			Description("Policy for events if the lookup failed or timed out.").
			Default(string(policyMark))).
		Field(service.NewBoolField(fieldKeepOriginal).
			Description("Whether the original of a changed event is kept in its metadata, for dead letters.").
			Default(true).
			Advanced()).
		LintRule(`root = `+lintFunction+`(this)`).
		Example("Products from a file", "Adds category and margin of the event's product, from a file that may be replaced at any time.", `
pipeline:
  processors:
    - enrich:
        name: product
        key: this.properties.product_id
        csv:
          path: ./configs/retail/products.csv
          key_column: product_id
        result: |
          root.category = this.value.category
          root.margin = this.value.margin.number()
        on_absent: mark
`).
		Example("Traits from a CRM", "Looks up to 100 customers up in one request and adds the CRM's data as traits, without changing the events.", `
pipeline:
  processors:
    - enrich:
        name: crm
        key: this.userId
        http:
          url: https://crm.example.com/customers/search
          verb: POST
          bearer_token: "${CRM_TOKEN}"
          bulk: true
          request: root.ids = this.keys
          response: 'root = this.customers.map_each(c -> {(c.id): c}).squash()'
        result: |
          root.loyalty_tier = this.value.tier
          root.store = this.value.home_store
        target: none
        traits:
          enabled: true
        cache:
          ttl: 1h
    - update_profile:
        profiles: retail

profiles:
  - label: retail
    definition: ./configs/retail/profile.yaml
    store:
      embedded:
        path: ./data/profiles
`)
}

func positive(field, example string) string {
	return `root = if this.string().re_match("^-|^[0.]+[a-zµ]*$") { [ "` + field + ` must be greater than zero: write for example ` + example + `" ] }`
}

type config struct {
	enabled                 bool
	name                    string
	events                  map[string]bool
	key                     keyMapping
	kind                    string
	result                  *bloblang.Executor
	eventResult             *bloblang.Executor
	target                  []string
	traits                  bool
	traitsMapping           *bloblang.Executor
	traitsStatus            string
	defaultValue            []byte
	onAbsent, onFailure     policy
	keepOriginal            bool
	timeout, budget         time.Duration
	retries                 int
	retryWait               time.Duration
	maxInFlight, maxKeys    int
	rateLimit               string
	failures, probes        int
	openFor                 time.Duration
	ttl, negativeTTL, stale time.Duration
	cacheBytes              int
	shared                  string
}

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
	errOneKind = fmt.Errorf("enrich needs exactly one source of values: write one of %s", strings.Join(kinds, ", "))
)

func parseConfig(conf *service.ParsedConfig) (c config, err error) {
	for _, field := range []struct {
		into *string
		path []string
	}{
		{&c.name, []string{fieldName}},
		{&c.rateLimit, []string{fieldRateLimit}},
		{&c.shared, []string{fieldCache, fieldShared}},
		{&c.traitsStatus, []string{fieldTraits, fieldTraitsStatus}},
		{(*string)(&c.onAbsent), []string{fieldOnAbsent}},
		{(*string)(&c.onFailure), []string{fieldOnFailure}},
	} {
		if *field.into, err = conf.FieldString(field.path...); err != nil {
			return c, err
		}
	}
	for _, field := range []struct {
		into *time.Duration
		path []string
	}{
		{&c.timeout, []string{fieldTimeout}},
		{&c.budget, []string{fieldBudget}},
		{&c.retryWait, []string{fieldRetryWait}},
		{&c.openFor, []string{fieldCircuit, fieldOpenFor}},
		{&c.ttl, []string{fieldCache, fieldTTL}},
		{&c.negativeTTL, []string{fieldCache, fieldNegativeTTL}},
		{&c.stale, []string{fieldCache, fieldStaleFor}},
	} {
		if *field.into, err = conf.FieldDuration(field.path...); err != nil {
			return c, err
		}
	}
	for _, field := range []struct {
		into *int
		path []string
	}{
		{&c.retries, []string{fieldRetries}},
		{&c.maxInFlight, []string{fieldMaxInFlight}},
		{&c.maxKeys, []string{fieldMaxKeys}},
		{&c.failures, []string{fieldCircuit, fieldFailures}},
		{&c.probes, []string{fieldCircuit, fieldProbes}},
	} {
		if *field.into, err = conf.FieldInt(field.path...); err != nil {
			return c, err
		}
	}
	for _, field := range []struct {
		into *bool
		path []string
	}{
		{&c.enabled, []string{fieldEnabled}},
		{&c.traits, []string{fieldTraits, fieldEnabled}},
		{&c.keepOriginal, []string{fieldKeepOriginal}},
	} {
		if *field.into, err = conf.FieldBool(field.path...); err != nil {
			return c, err
		}
	}
	for _, field := range []struct {
		into **bloblang.Executor
		path []string
	}{
		{&c.result, []string{fieldResult}},
		{&c.eventResult, []string{fieldEventResult}},
		{&c.traitsMapping, []string{fieldTraits, fieldTraitsMapping}},
	} {
		if !conf.Contains(field.path...) {
			continue
		}
		if *field.into, err = conf.FieldBloblang(field.path...); err != nil {
			return c, err
		}
	}
	if c.key, err = parseKey(conf); err != nil {
		return c, err
	}
	names, err := conf.FieldStringList(fieldEvents)
	if err != nil {
		return c, err
	}
	if len(names) > 0 {
		c.events = map[string]bool{}
		for _, name := range names {
			c.events[name] = true
		}
	}
	size, err := conf.FieldString(fieldCache, fieldMaxBytes)
	if err != nil {
		return c, err
	}
	if c.cacheBytes, err = parseSize(size); err != nil {
		return c, fmt.Errorf("cache.max_bytes: %w", err)
	}
	target, err := conf.FieldString(fieldTarget)
	if err != nil {
		return c, err
	}
	switch target {
	case "":
		c.target = []string{"context", "enrichment", c.name}
	case targetNone:
	default:
		c.target = strings.Split(target, ".")
	}
	if conf.Contains(fieldDefault) {
		value, err := conf.FieldAny(fieldDefault)
		if err != nil {
			return c, err
		}
		if c.defaultValue, err = encode(value); err != nil {
			return c, fmt.Errorf("default: %w", err)
		}
	}
	for _, kind := range kinds {
		if conf.Contains(kind) {
			if c.kind != "" {
				return c, errOneKind
			}
			c.kind = kind
		}
	}
	return c, c.check()
}

// check repeats the lint rules, because a config can be run without lint.
func (c *config) check() error {
	switch {
	case c.kind == "":
		return errOneKind
	case !nameForm.MatchString(c.name):
		return errors.New("name must be letters, digits and _, such as product")
	case c.timeout <= 0 || c.budget <= 0 || c.ttl <= 0 || c.retryWait <= 0 || c.openFor <= 0:
		return errors.New("timeout, budget, retry_wait, circuit.open_for and cache.ttl must be greater than zero")
	case c.negativeTTL < 0 || c.stale < 0:
		return errors.New("cache.negative_ttl and cache.stale_for must not be negative")
	case c.retries < 0 || c.maxInFlight < 1 || c.maxKeys < 1 || c.failures < 1 || c.probes < 1:
		return errors.New("retries must be 0 or more; max_in_flight, max_keys, circuit.failures and circuit.probes 1 or more")
	case isRemote(c.kind) && c.budget < c.timeout:
		return errors.New(budgetMessage(c.timeout))
	case (c.onAbsent == policyDefault || c.onFailure == policyDefault) && c.defaultValue == nil:
		return errors.New(defaultMessage)
	case len(c.target) == 0 && !c.traits:
		return errors.New(targetMessage)
	}
	for _, key := range c.target {
		if key == "" {
			return errors.New("target must be keys joined by dots, such as context.enrichment.product")
		}
	}
	return nil
}

// isRemote reports whether a source is outside of the process.
func isRemote(kind string) bool { return kind != fieldCSV && kind != fieldMMDB }

func parseSize(text string) (int, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > 1<<40 {
		return 0, fmt.Errorf("%q must be a size such as 64MiB", text)
	}
	return int(n), nil
}
