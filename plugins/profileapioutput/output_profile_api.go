package profileapioutput

import (
	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// The names of the fields of the output.
const (
	outURL             = "url"
	outVerb            = "verb"
	outHeaders         = "headers"
	outAuthorization   = "authorization"
	outAuthHeader      = "authorization_header"
	outBasicAuth       = "basic_auth"
	outUsername        = "username"
	outPassword        = "password"
	outSignature       = "signature"
	outSecrets         = "secrets"
	outSignatureHeader = "header"
	outTLS             = "tls"
	outProfiles        = "profiles"
	outFields          = "fields"
	outContent         = "content"
	outFolder          = "folder"
	outBlocks          = "blocks"
	outCustomer        = "customer"
	outMessageID       = "message_id"
	outElement         = "element"
	outRequest         = "request"
	outFailures        = "failures"
	outLatestOnly      = "latest_only"
	outMaxElements     = "max_elements"
	outMaxBytes        = "max_bytes"
	outIdempotency     = "idempotency_header"
	outStatuses        = "statuses"
	outDelivered       = "delivered"
	outRetried         = "retried"
	outSplit           = "split"
	outTimeout         = "timeout"
	outGiveUpAfter     = "give_up_after"
	outRetries         = "retries"
	outInitial         = "initial_interval"
	outMax             = "max_interval"
	outMaxRetryAfter   = "max_retry_after"
	outResetHeader     = "reset_header"
	outCircuit         = "circuit"
	outCircuitFailures = "failures"
	outCircuitOpen     = "when_open"
	outCircuitProbe    = "probe_interval"
	outCircuitMaxProbe = "max_probe_interval"
	outRateLimit       = "rate_limit"
	outParallel        = "parallel"
	outDeadLetters     = "dead_letters"
	outBatching        = "batching"

	circuitWait   = "wait"
	circuitGiveUp = "give_up"
)

const contentNeedsProfiles = "content is rendered from whole profiles: write the label of the resource in profiles, and leave fields out"

const lintStatuses = `root = if this.type() == "array" && this.any(s -> !s.string().re_match("^[1-5]([0-9][0-9]|xx)$")) { "a status is a number such as 429, or a class such as 5xx" }`

func outputSpec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Services", "Personalization").
		Summary("Pushes profiles, events or content to an email platform, or to another profile API.").
		Description(`
Each message becomes an element, elements are grouped into requests, and each message is acknowledged when the platform has accepted its element. Working configs for Braze, Klaviyo, SendGrid, Customer.io, Mailchimp, a generic webhook and another profile API are in `+"`configs/platforms`"+`; [Email platforms](../platforms.md) explains how to run them, and how a slow platform is kept from delaying the others.

### From messages to requests

1. `+"`customer`"+` returns the customer of a message. With `+"`profiles`"+`, the profiles of all customers of a batch are read together.
2. `+"`element`"+`, a processor, returns the element. Its input is `+"`"+`{"message": …, "customer": …, "anonymous": …, "profile": …}`+"`"+` with the metadata of the message. The profile is `+"`null`"+` if the customer has none. Otherwise `+"`customer`"+` is the id of the profile, that of the known customer if the id in the message was merged into it, and `+"`anonymous`"+` is true if the customer has no `+"`userId`"+`. If `+"`content`"+` lists blocks, it also contains `+"`"+`"content": {"BLOCK": {"type": "html", "content": …, "fallback": …}}`+"`"+`, with `+"`fallback`"+` only if the content is a fallback, and why. A message that `+"`element`"+` deletes is acknowledged and not sent. Without `+"`element`"+`, the element is the profile if `+"`profiles`"+` is set (customers without one are skipped), else the message.
3. `+"`url`"+`, `+"`verb`"+` and `+"`headers`"+` are evaluated for each element; their interpolations have the same input, with the `+"`element`"+`. Elements with equal results share requests, up to `+"`max_elements`"+` and `+"`max_bytes`"+`.
4. `+"`request`"+`, a processor, returns the body for `+"`"+`{"elements": […]}`+"`"+`. Without it the body is the list of elements or, with `+"`max_elements: 1`"+`, the element.

The three processors can be tested by the `+"`tests:`"+` of a config, for example with `+"`target_processors: /output/profile_api/element`"+`.

### Responses

`+"`statuses`"+` classifies the status of a response: success, rejection, or no statement about the elements, after which the same request is sent again. By default an invalid token (401, 403), a wrong or retired URL (404, 405, 410) and a redirect belong to the last class: no customer is at fault, so all of them wait until an operator fixes it. Redirects are not followed, because they would send the token to another address.

`+"`failures`"+`, a processor, returns the elements that failed in a successful request, or that caused a rejection. Its input is `+"`"+`{"status": …, "body": …, "elements": […]}`+"`"+`, its result a list, empty for no failures:

| member | meaning |
| --- | --- |
| `+"`index`"+` | the position of the element in the request |
| `+"`customer`"+` | its customer, if there is no index; with neither, the whole request failed |
| `+"`retry`"+` | true if the element may be accepted later; otherwise it is rejected |
| `+"`code`"+` | the reason, one word of letters, digits, dots, dashes and underscores. Any other text is left out, because codes are logged and texts of platforms may contain personal data |

Only the listed elements fail. After a rejection the others are sent again without them. A rejection that lists none is halved and sent again if its status is in `+"`statuses.split`"+`, until the rejected elements are alone: an element that a platform rejects never affects others. If `+"`failures`"+` is set, a successful response whose body cannot be parsed counts as no response: the request is sent again.

### Retries

The delay between attempts doubles from `+"`retries.initial_interval`"+` to `+"`max_interval`"+`, with jitter. It is at least the pause that the platform requests by `+"`Retry-After`"+`, in seconds or as a date, or by `+"`retries.reset_header`"+`, up to `+"`max_retry_after`"+`. During such a pause nothing else is sent to the platform. A retry sends the same bytes with the same idempotency key.

After `+"`circuit.failures`"+` failures in a row the circuit opens: one request at a time probes whether the platform is back. The others wait or, with `+"`circuit.when_open: give_up`"+`, fail at once.

### Idempotency and order

The key in `+"`idempotency_header`"+` is a hash of the `+"`message_id`"+`s in the request. A message that is delivered again after a crash has the same id, and with `+"`max_elements: 1`"+` the same key; larger requests may contain other messages then, and so have another key. For platforms that deduplicate elements by an id of their own, set it in `+"`element`"+`.

A request contains at most one element of a customer, and the customer's next element is sent when that request is settled. Across batches this holds with `+"`max_in_flight: 1`"+`, or with any number if the input has at most one batch of a customer in flight, as `+"`kafka_topic`"+` does.

### Failed elements

An element that is rejected, or not delivered within `+"`give_up_after`"+`, is written to `+"`dead_letters`"+`, an output whose processors see the failure as the error of the message: put `+"`dead_letter`"+` there. The message is acknowledged when the letter is stored. The rule of the letter is the code of the failure, or one of `+"`refused`"+`, `+"`gave_up`"+`, `+"`unreachable`"+`, `+"`too_large`"+`, `+"`customer`"+`, `+"`element`"+`, `+"`request`"+`. Without `+"`dead_letters`"+` the failure is returned for the affected messages only, for `+"`fallback`"+` or for the input to deliver them again. A message that failed earlier in the pipeline is not sent and treated alike, with its own error.

### Secrets

Put them in `+"`authorization`"+`, `+"`basic_auth.password`"+` and `+"`signature`"+`. Secrets, the URL of a request, and the contents of requests and responses never appear in logs, metrics or errors.

### Metrics

`+"`profile_api_elements`"+` by `+"`outcome`"+`: `+"`delivered`"+`, `+"`refused`"+`, `+"`gave_up`"+`, `+"`skipped`"+`; `+"`profile_api_pushes`"+`, requests by `+"`status`"+`, 0 without a response; the timer `+"`profile_api_push_latency_ns`"+`; and the gauge `+"`profile_api_circuit_open`"+`, 1 while the circuit is open.
`).
		Fields(
			service.NewInterpolatedStringField(outURL).
				Description("The URL of requests.").
				Examples("https://rest.iad-01.braze.com/users/track", `https://profiles.example.com/api/customer/${! this.customer.escape_url_path() }/traits`),
			service.NewInterpolatedStringField(outVerb).
				Description("The HTTP method.").
				Default("POST").Example("PUT"),
			service.NewInterpolatedStringMapField(outHeaders).
				Description("Headers of requests. `Content-Type` is `application/json` if not set here. Put secrets in `authorization`.").
				Default(map[string]any{}).
				Example(map[string]any{"revision": "2026-10-15"}),
			service.NewStringField(outAuthorization).
				Description("Value of the authorization header: a scheme and a credential.").
				Default("").Secret().
				Examples("Bearer ${BRAZE_API_KEY}", "Klaviyo-API-Key ${KLAVIYO_API_KEY}"),
			service.NewStringField(outAuthHeader).
				Description("Name of the authorization header.").
				Default("Authorization").Example("X-Api-Key").Advanced(),
			service.NewObjectField(outBasicAuth,
				service.NewStringField(outUsername).Description("User name.").Default("").Example("${CUSTOMERIO_SITE_ID}"),
				service.NewStringField(outPassword).Description("Password. Both are sent if it is set.").Default("").Secret().Example("${CUSTOMERIO_API_KEY}"),
			).Description("HTTP basic authentication.").Advanced(),
			service.NewObjectField(outSignature,
				service.NewStringListField(outSecrets).
					Description("Secrets shared with the receiver. If there is at least one, requests are signed as specified by [Standard Webhooks](https://www.standardwebhooks.com), with every secret, so that secrets can be rotated. A secret is `whsec_` and base64.").
					Default([]any{}).Secret().Example([]string{"${WEBHOOK_SECRET}"}),
				service.NewStringField(outSignatureHeader).
					Description("If set, the single secret is any text, and this header contains `sha256=` and the HMAC-SHA256 of the body in hexadecimal, as GitHub's webhooks do.").
					Default("").Example("X-Hub-Signature-256"),
			).Description("Signatures of requests.").Advanced().
				LintRule(`root = if this.header.or("") != "" && this.secrets.or([]).length() > 1 { "a signature of the body alone takes one secret" }`),
			service.NewTLSToggledField(outTLS),
			service.NewStringField(outProfiles).
				Description("Label of the `profiles` resource from which the customers' profiles are read, just before they are sent. Without it no profiles are read.").
				Default("").Example("retail"),
			service.NewStringListField(outFields).
				Description("Fields of profiles to read: `traits`, `features`, `traits.NAME` and `features.NAME`. An empty list reads all.").
				Default([]any{}).Example([]string{"traits.email", "features.orders_30d"}),
			service.NewObjectField(outContent,
				service.NewStringField(outFolder).
					Description("Folder of the [content blocks](../content.md); empty for none. It is reloaded on change.").
					Default("").Example("./configs/content").
					LintRule(`root = lint_content_blocks(this)`),
				service.NewInterpolatedStringListField(outBlocks).
					Description("Names of the blocks to render for a message. Interpolations have the input of `element`; an empty name is skipped.").
					Default([]any{}).
					Example([]string{"loyalty_banner"}).
					Example([]string{`${! this.message.properties.data.block | "" }`}),
			).Description("Content that is rendered for the customer just before it is sent, as input of `element`.").Advanced(),
			service.NewInterpolatedStringField(outCustomer).
				Description("Id of the customer of a message. Messages without one are not ordered and have no profile.").
				Default(`${! this.userId | this.customer | this.anonymousId | "" }`).
				Example(`${! content() }`),
			service.NewInterpolatedStringField(outMessageID).
				Description("Id of a message, the same for every delivery of it. If it is empty, a hash of the message is used.").
				Default(`${! this.messageId | this.id | "" }`).
				Example(`${! @kafka_topic }-${! @kafka_partition }-${! @kafka_offset }`),
			service.NewProcessorField(outElement).
				Description("Returns the element of a message, as described above.").
				Optional().
				Example(map[string]any{"mapping": "root.id = this.customer\nroot.traits = this.profile.traits\n"}),
			service.NewProcessorField(outRequest).
				Description("Returns the body of a request, as described above.").
				Optional().
				Example(map[string]any{"mapping": "root.batch = this.elements"}),
			service.NewProcessorField(outFailures).
				Description("Returns the failed elements of a request, as described above.").
				Optional().
				Example(map[string]any{"mapping": `root = this.body.errors.or([]).map_each(e -> {"index": e.batch_index, "code": e.reason})`}),
			service.NewBoolField(outLatestOnly).
				Description("Whether only the last of several messages of a customer in a batch is sent, on behalf of all of them. Turn it on if the element is the profile, which is the same for all of them.").
				Default(false).Example(true),
			service.NewIntField(outMaxElements).
				Description("Maximum number of elements in a request.").
				Default(1).Example(75).LintRule(configspec.LintPositive),
			service.NewIntField(outMaxBytes).
				Description("Maximum size of the body of a request, in bytes. An element that exceeds it alone is rejected.").
				Default(1<<20).Example(500000).LintRule(configspec.LintPositive),
			service.NewStringField(outIdempotency).
				Description("Name of the header of the idempotency key; empty for none.").
				Default("Idempotency-Key").Example("X-Request-Id").Advanced(),
			service.NewObjectField(outStatuses,
				service.NewStringListField(outDelivered).
					Description("Statuses of success.").
					Default([]any{"2xx"}).Example([]string{"200", "202"}).LintRule(lintStatuses),
				service.NewStringListField(outRetried).
					Description("Statuses that say nothing about the elements: the request is sent again.").
					Default([]any{"3xx", "401", "403", "404", "405", "408", "410", "425", "429", "5xx"}).Example([]string{"429", "5xx"}).LintRule(lintStatuses),
				service.NewStringListField(outSplit).
					Description("Rejections after which the elements are sent in smaller requests.").
					Default([]any{"400", "413", "422"}).Example([]string{"400"}).LintRule(lintStatuses),
			).Description("Meaning of the statuses of responses: numbers, and classes such as 5xx. All other statuses are rejections.").Advanced(),
			service.NewDurationField(outTimeout).
				Description("Maximum time of a request, to the end of its response.").
				Default("10s").Example("3s").LintRule(configspec.LintDuration),
			service.NewDurationField(outGiveUpAfter).
				Description("Maximum time of a batch, including all attempts and delays. Elements that are not delivered by then fail. Zero for no limit.").
				Default("0s").Example("5m").
				LintRule(`root = if this.string().has_prefix("-") { "must be zero or more, such as 5m" }`),
			service.NewObjectField(outRetries,
				service.NewDurationField(outInitial).Description("Delay after the first failure.").Default("500ms").Example("1s").LintRule(configspec.LintDuration),
				service.NewDurationField(outMax).Description("Maximum delay.").Default("1m").Example("30s").LintRule(configspec.LintDuration),
				service.NewDurationField(outMaxRetryAfter).Description("Maximum pause that a platform may request.").Default("5m").Example("1h").LintRule(configspec.LintDuration),
				service.NewStringField(outResetHeader).
					Description("Name of a header with the Unix time in seconds at which requests are accepted again, for responses without `Retry-After`.").
					Default("").Example("X-RateLimit-Reset"),
			).Description("Delays between attempts.").Advanced(),
			service.NewObjectField(outCircuit,
				service.NewIntField(outCircuitFailures).Description("Number of failed requests in a row that opens the circuit.").Default(5).Example(2).LintRule(configspec.LintPositive),
				service.NewStringAnnotatedEnumField(outCircuitOpen, map[string]string{
					circuitWait:   "Messages wait, and so does the input. For a platform with its own consumer group.",
					circuitGiveUp: "Messages fail at once. For platforms that share a stream, so that one that is down does not delay the others.",
				}).Description("Handling of messages while the circuit is open.").Default(circuitWait),
				service.NewDurationField(outCircuitProbe).Description("Delay before the first probe.").Default("1s").Example("5s").LintRule(configspec.LintDuration),
				service.NewDurationField(outCircuitMaxProbe).Description("Maximum delay between probes.").Default("1m").Example("30s").LintRule(configspec.LintDuration),
			).Description("Circuit breaker for a platform that is down.").Advanced(),
			service.NewStringField(outRateLimit).
				Description("Label of a `rate_limit` resource that limits requests.").
				Default("").Example("braze"),
			service.NewIntField(outParallel).
				Description("Maximum number of requests of a batch in flight.").
				Default(4).Example(1).LintRule(configspec.LintPositive),
			service.NewOutputField(outDeadLetters).
				Description("Output for messages that were rejected or not delivered in time.").
				Optional().
				Example(map[string]any{
					"file":       map[string]any{"path": "./data/braze_dead_letters.jsonl", "codec": "lines"},
					"processors": []any{map[string]any{"dead_letter": map[string]any{}}},
				}),
			service.NewOutputMaxInFlightField().Default(1),
			service.NewBatchPolicyField(outBatching),
		).
		LintRule(`
root = [
  if this.fields.or([]).length() > 0 && this.profiles.or("") == "" { "fields are read from profiles: write the label of the resource in profiles" },
  if this.content.folder.or("") != "" && (this.profiles.or("") == "" || this.fields.or([]).length() > 0) { "`+contentNeedsProfiles+`" },
  if this.content.folder.or("") == "" && this.content.blocks.or([]).length() > 0 { "content.blocks needs the folder of the blocks: set content.folder, such as ./configs/content" },
  if this.authorization.or("") != "" && this.basic_auth.password.or("") != "" { "authorization and basic_auth are alternatives: set one of them" },
].filter(lint -> lint != null)`).
		Example("Traits to a platform",
			"After every change, the platform receives the customer's traits and two features, for up to 75 customers per request.", `
profiles:
  - label: retail
    definition: ./configs/retail/profile.yaml
    store:
      redis:
        url: "${REDIS_URL:redis://127.0.0.1:6379}"

input:
  kafka_topic:
    seed_brokers: [ "${KAFKA_SEEDS:127.0.0.1:9092}" ]
    topics: [ changes ]
    consumer_group: platform

output:
  profile_api:
    url: https://platform.example.com/customers
    authorization: Bearer ${PLATFORM_TOKEN:}
    profiles: retail
    fields: [ traits, features.orders_30d, features.revenue_90d ]
    element:
      mapping: |
        root.external_id = this.customer
        root.attributes = this.profile.traits.or({}).assign(this.profile.features.or({}))
        root = if this.profile == null { deleted() }
    latest_only: true
    max_elements: 75
    dead_letters:
      kafka_topic:
        seed_brokers: [ "${KAFKA_SEEDS:127.0.0.1:9092}" ]
        topic: dead_letters
      processors:
        - dead_letter: {}
`)
}

func init() {
	service.MustRegisterBatchOutput("profile_api", outputSpec(),
		func(conf *service.ParsedConfig, res *service.Resources) (out service.BatchOutput, batching service.BatchPolicy, inFlight int, err error) {
			if batching, err = conf.FieldBatchPolicy(outBatching); err != nil {
				return
			}
			if inFlight, err = conf.FieldMaxInFlight(); err != nil {
				return
			}
			out, err = newOutput(conf, res)
			return
		})
}
