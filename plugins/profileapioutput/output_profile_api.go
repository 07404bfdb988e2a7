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

const contentNeedsProfiles = "content is rendered from whole profiles: name the resource by its label in profiles, and leave fields out"

const lintStatuses = `root = if this.type() == "array" && this.any(s -> !s.string().re_match("^[1-5]([0-9][0-9]|xx)$")) { "a status is a number such as 429, or a class such as 5xx" }`

func outputSpec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Services", "Personalization").
		Summary("Pushes profiles, events or content to an email platform, or to another profile API.").
		Description(`
Each message becomes an element, elements become requests, and each message is acknowledged when the platform has taken its element. Worked configs for Braze, Klaviyo, SendGrid, Customer.io, Mailchimp, a generic webhook and another profile API are in `+"`configs/platforms`"+`; how they are run, and what keeps one platform from slowing another, is told in [Email platforms](../platforms.md).

### From messages to requests

1. `+"`customer`"+` says who a message is about. With `+"`profiles`"+` the profiles of all customers of a batch are read together.
2. `+"`element`"+`, a processor, makes the element. It is given `+"`"+`{"message": …, "customer": …, "profile": …}`+"`"+`, the profile being `+"`null`"+` if there is none, with the metadata of the message; where `+"`content`"+` names blocks, also `+"`"+`"content": {"BLOCK": {"type": "html", "content": …, "fallback": …}}`+"`"+`, the fallback telling why it is one, and not being there otherwise. A message it deletes is not sent, and acknowledged. Without `+"`element`"+`, the element is the profile if `+"`profiles`"+` is set, customers without one being left out, and the message if it is not.
3. `+"`url`, `verb` and `headers`"+` are found for each element: their interpolations see the same object with the `+"`element`"+` in it. Elements with the same ones go together, up to `+"`max_elements` and `max_bytes`"+`.
4. `+"`request`"+`, a processor, makes the body of `+"`"+`{"elements": […]}`+"`"+`. Without it the body is the list of elements or, where `+"`max_elements`"+` is 1, the element.

The three processors are fields like any other, so that the `+"`tests:`"+` of a config can run them: `+"`target_processors: /output/profile_api/element`"+`.

### What answers mean

A status is a success, a refusal, or says nothing about the elements, in which case the same request is sent again: `+"`statuses`"+` tells which. By default a wrong token (401, 403) and a redirect are of the last kind: no customer is to blame, and all wait until it is mended. Redirects are not followed, as they would be told the token.

`+"`failures`"+`, a processor, finds what failed in a request that is otherwise a success, or what is to blame for a refusal. It is given `+"`"+`{"status": …, "body": …, "elements": […]}`+"`"+` and answers with a list, empty if there is nothing to tell:

| member | meaning |
| --- | --- |
| `+"`index`"+` | the position of the element in the request |
| `+"`customer`"+` | its customer, if there is no index; with neither all of the request is meant |
| `+"`retry`"+` | whether it may be taken later; if not given it is refused |
| `+"`code`"+` | why, in one word of letters, digits, dots, dashes and underscores. Anything else is left out, since codes are logged and what platforms say may be personal data |

Only the elements that are named fail. When a request was refused the others are sent again without them. A refusal that names none is sent again in halves if its status is in `+"`statuses.split`"+`, until what is refused is alone: an element that a platform does not like takes no other with it. A success with a body that cannot be understood, where `+"`failures`"+` is set, is none: the request is sent again.

### Retries

The time between attempts doubles from `+"`retries.initial_interval` to `max_interval`"+`, with jitter, and is never shorter than the platform asks for by `+"`Retry-After`"+`, in seconds or as a date, or by `+"`retries.reset_header`"+`, up to `+"`max_retry_after`"+`. While a platform asks for a pause nothing else is sent to it either. A request that is repeated is the same to the byte, and has the same idempotency key.

After `+"`circuit.failures`"+` failures in a row the platform is taken to be down: one request at a time tries whether it is back. The others wait or, with `+"`circuit.when_open: give_up`"+`, are given up at once.

### Idempotency and order

The key in `+"`idempotency_header`"+` is made of the `+"`message_id`"+`s of the request. A message that is delivered again after a crash has the same id, and with `+"`max_elements: 1`"+` the same key; in larger requests it may have other company, and so another key. Give platforms that know ids of elements such an id by `+"`element`"+`.

A request holds a customer once, and what is next about a customer is sent when the request before it is settled. Across batches that holds with `+"`max_in_flight: 1`"+`, or for any number if the input has one batch of a customer under way at a time, as `+"`kafka_topic`"+` has.

### What is not delivered

An element that is refused, or not delivered by `+"`give_up_after`"+`, goes to `+"`dead_letters`"+`, an output whose processors see the failure as the message's error: put `+"`dead_letter`"+` there. The message is acknowledged when it is stored. The rule of the letter is the code of the failure, or one of `+"`refused`, `gave_up`, `unreachable`, `too_large`, `customer`, `element`, `request`"+`. Without `+"`dead_letters`"+` the failure is returned for the messages concerned alone, for `+"`fallback`"+` or for the input to send again. A message that already failed in the pipeline is not sent and treated likewise, with its own error.

### Secrets

Put them in `+"`authorization`, `basic_auth.password` and `signature`"+`. They, the address of a request, what is sent and what is answered appear in no log, metric or error.

### Metrics

`+"`profile_api_elements`"+` by `+"`outcome`: `delivered`, `refused`, `gave_up`, `skipped`"+`; `+"`profile_api_pushes`"+`, requests by `+"`status`"+`, 0 being none; the timer `+"`profile_api_push_latency_ns`"+`; and the gauge `+"`profile_api_circuit_open`"+`, 1 while the platform is taken to be down.
`).
		Fields(
			service.NewInterpolatedStringField(outURL).
				Description("Where requests go.").
				Examples("https://rest.iad-01.braze.com/users/track", `https://profiles.example.com/api/customer/${! this.customer.escape_url_path() }/traits`),
			service.NewInterpolatedStringField(outVerb).
				Description("The HTTP method.").
				Default("POST").Example("PUT"),
			service.NewInterpolatedStringMapField(outHeaders).
				Description("Headers of the request. `Content-Type` is `application/json` if not given here. Secrets have fields of their own.").
				Default(map[string]any{}).
				Example(map[string]any{"revision": "2025-01-15"}),
			service.NewStringField(outAuthorization).
				Description("The value of the header that authorizes: a scheme and a credential.").
				Default("").Secret().
				Examples("Bearer ${BRAZE_API_KEY}", "Klaviyo-API-Key ${KLAVIYO_API_KEY}"),
			service.NewStringField(outAuthHeader).
				Description("The name of that header.").
				Default("Authorization").Example("X-Api-Key").Advanced(),
			service.NewObjectField(outBasicAuth,
				service.NewStringField(outUsername).Description("The user.").Default("").Example("${CUSTOMERIO_SITE_ID}"),
				service.NewStringField(outPassword).Description("The password. If it is set, both are sent.").Default("").Secret().Example("${CUSTOMERIO_API_KEY}"),
			).Description("Authorization by user and password.").Advanced(),
			service.NewObjectField(outSignature,
				service.NewStringListField(outSecrets).
					Description("The secrets shared with the receiver. If there are any, requests are signed: by [Standard Webhooks](https://www.standardwebhooks.com), whose secrets are `whsec_` and base64, with every one of them, so that secrets can be replaced.").
					Default([]any{}).Secret().Example([]string{"${WEBHOOK_SECRET}"}),
				service.NewStringField(outSignatureHeader).
					Description("If set, the one secret is any text, and this header has `sha256=` and the HMAC-SHA256 of the body in hexadecimal, as GitHub's webhooks do.").
					Default("").Example("X-Hub-Signature-256"),
			).Description("Signatures of requests.").Advanced().
				LintRule(`root = if this.header.or("") != "" && this.secrets.or([]).length() > 1 { "a signature of the body alone has one secret" }`),
			service.NewTLSToggledField(outTLS),
			service.NewStringField(outProfiles).
				Description("The label of the `profiles` resource to read the customers' profiles from, just before they are sent. Without it none are read.").
				Default("").Example("retail"),
			service.NewStringListField(outFields).
				Description("What to read of profiles: `traits`, `features`, `traits.NAME` and `features.NAME`. None reads everything.").
				Default([]any{}).Example([]string{"traits.email", "features.orders_30d"}),
			service.NewObjectField(outContent,
				service.NewStringField(outFolder).
					Description("The folder of the [content blocks](../content.md). Empty for none. Files are read again when they change.").
					Default("").Example("./configs/content").
					LintRule(`root = lint_content_blocks(this)`),
				service.NewInterpolatedStringListField(outBlocks).
					Description("The names of the blocks to render for a message. Interpolations see what `element` does; an empty name is no block.").
					Default([]any{}).
					Example([]string{"loyalty_banner"}).
					Example([]string{`${! this.message.properties.data.block | "" }`}),
			).Description("Content that is rendered for the customer just before it is sent, for `element`.").Advanced(),
			service.NewInterpolatedStringField(outCustomer).
				Description("The id of the customer that a message is about. Messages that have none are in no order, and have no profile.").
				Default(`${! this.userId | this.customer | this.anonymousId | "" }`).
				Example(`${! content() }`),
			service.NewInterpolatedStringField(outMessageID).
				Description("What identifies a message, whenever it is delivered. If it is empty, a hash of the message does.").
				Default(`${! this.messageId | this.id | "" }`).
				Example(`${! @kafka_topic }-${! @kafka_partition }-${! @kafka_offset }`),
			service.NewProcessorField(outElement).
				Description("Makes the element of a message, as told above.").
				Optional().
				Example(map[string]any{"mapping": "root.id = this.customer\nroot.traits = this.profile.traits\n"}),
			service.NewProcessorField(outRequest).
				Description("Makes the body of a request, as told above.").
				Optional().
				Example(map[string]any{"mapping": "root.batch = this.elements"}),
			service.NewProcessorField(outFailures).
				Description("Tells what of a request failed, as told above.").
				Optional().
				Example(map[string]any{"mapping": `root = this.body.errors.or([]).map_each(e -> {"index": e.batch_index, "code": e.reason})`}),
			service.NewBoolField(outLatestOnly).
				Description("Whether of several messages of a batch about a customer only the last is sent, for the others too. Turn it on where an element is the profile, which is the same for all of them.").
				Default(false).Example(true),
			service.NewIntField(outMaxElements).
				Description("The most elements in a request.").
				Default(1).Example(75).LintRule(configspec.LintPositive),
			service.NewIntField(outMaxBytes).
				Description("The most bytes in the body of a request. An element that is larger alone is refused.").
				Default(1<<20).Example(500000).LintRule(configspec.LintPositive),
			service.NewStringField(outIdempotency).
				Description("The name of the header of the idempotency key. Empty for none.").
				Default("Idempotency-Key").Example("X-Request-Id").Advanced(),
			service.NewObjectField(outStatuses,
				service.NewStringListField(outDelivered).
					Description("Those of success.").
					Default([]any{"2xx"}).Example([]string{"200", "202"}).LintRule(lintStatuses),
				service.NewStringListField(outRetried).
					Description("Those that say nothing about the elements.").
					Default([]any{"3xx", "401", "403", "408", "425", "429", "5xx"}).Example([]string{"429", "5xx"}).LintRule(lintStatuses),
				service.NewStringListField(outSplit).
					Description("The refusals after which the elements are tried in smaller requests.").
					Default([]any{"400", "413", "422"}).Example([]string{"400"}).LintRule(lintStatuses),
			).Description("What the statuses of answers mean: numbers, and classes such as 5xx. All that are not named are refusals.").Advanced(),
			service.NewDurationField(outTimeout).
				Description("How long a request may take, to the end of its answer.").
				Default("10s").Example("3s").LintRule(configspec.LintDuration),
			service.NewDurationField(outGiveUpAfter).
				Description("How long a batch may take, with all attempts and waits. What is not delivered by then is given up. Zero waits for ever.").
				Default("0s").Example("5m").
				LintRule(`root = if this.string().has_prefix("-") { "must be zero or more, such as 5m" }`),
			service.NewObjectField(outRetries,
				service.NewDurationField(outInitial).Description("The time after the first failure.").Default("500ms").Example("1s").LintRule(configspec.LintDuration),
				service.NewDurationField(outMax).Description("The most it grows to.").Default("1m").Example("30s").LintRule(configspec.LintDuration),
				service.NewDurationField(outMaxRetryAfter).Description("The longest pause that a platform may ask for.").Default("5m").Example("1h").LintRule(configspec.LintDuration),
				service.NewStringField(outResetHeader).
					Description("A header that tells, in answers without `Retry-After`, when requests are taken again, as Unix time in seconds.").
					Default("").Example("X-RateLimit-Reset"),
			).Description("The time between attempts.").Advanced(),
			service.NewObjectField(outCircuit,
				service.NewIntField(outCircuitFailures).Description("How many requests in a row must fail for the platform to be taken as down.").Default(5).Example(2).LintRule(configspec.LintPositive),
				service.NewStringAnnotatedEnumField(outCircuitOpen, map[string]string{
					circuitWait:   "What should be sent waits, and so does the input. For a platform that has its own consumer group.",
					circuitGiveUp: "What should be sent is given up at once. For platforms that share a stream, so that one that is down does not hold up the others.",
				}).Description("What happens meanwhile.").Default(circuitWait),
				service.NewDurationField(outCircuitProbe).Description("The time until the first try whether it is back.").Default("1s").Example("5s").LintRule(configspec.LintDuration),
				service.NewDurationField(outCircuitMaxProbe).Description("The most that time grows to.").Default("1m").Example("30s").LintRule(configspec.LintDuration),
			).Description("When a platform is taken to be down, and what happens then.").Advanced(),
			service.NewStringField(outRateLimit).
				Description("The label of a `rate_limit` resource that each request asks for its turn.").
				Default("").Example("braze"),
			service.NewIntField(outParallel).
				Description("How many requests of a batch are under way at once.").
				Default(4).Example(1).LintRule(configspec.LintPositive),
			service.NewOutputField(outDeadLetters).
				Description("Where messages go that are refused or given up.").
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
  if this.fields.or([]).length() > 0 && this.profiles.or("") == "" { "fields are read from profiles: name the resource by its label in profiles" },
  if this.content.folder.or("") != "" && (this.profiles.or("") == "" || this.fields.or([]).length() > 0) { "`+contentNeedsProfiles+`" },
  if this.content.folder.or("") == "" && this.content.blocks.or([]).length() > 0 { "content.blocks are in a folder: name it in content.folder, such as ./configs/content" },
  if this.authorization.or("") != "" && this.basic_auth.password.or("") != "" { "authorization and basic_auth both authorize: set one of them" },
].filter(lint -> lint != null)`).
		Example("Traits to a platform",
			"Whatever changes, the platform gets the customer's traits and two features, up to 75 customers at a time.", `
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
