package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The files in which mistakes are made.
const (
	profile = "configs/retail/profile.yaml"
	worker  = "configs/retail/profiles.yaml"
	enrich  = "configs/retail/enrich.yaml"
	plan    = "configs/retail/plan.yaml"
	block   = "configs/content/cart_reminder.yaml"
	suite   = "configs/retail/expectations.yaml"
)

// mistakes are edits of shipped files, each with the file that is linted and the text
// that its message contains: the correction, or what to write instead.
var mistakes = []struct {
	name, file, old, new, lint, want string
}{
	{"window with a word", profile, "window: 30d } }\n  - { name: revenue,", "window: 30 days } }\n  - { name: revenue,", profile, "window must be a whole number and a unit (s, m, h, d or w), such as 30d"},
	{"unknown kind", profile, "count: { events: [Order Completed] } }", "cuont: { events: [Order Completed] } }", profile, `field cuont not recognised; did you mean "count"?`},
	{"unit day", profile, "unit: days", "unit: day", profile, `write one of seconds, minutes, hours, days; did you mean "days"?`},
	{"tab indentation", profile, "parameters:\n  high_value_revenue", "parameters:\n\thigh_value_revenue", profile, "a tab cannot indent YAML: write spaces"},
	{"wrong indentation", profile, "  - name: welcome\n    on:", "  - name: welcome\n   on:", profile, "the indentation does not match the lines around it"},
	{"missing colon", profile, "  at_risk_days: 60", "  at_risk_days 60", profile, "a key needs a colon and a space after it: write at_risk_days: 60"},
	{"and in a rule", profile, "features.orders > 1 && features.days", "features.orders > 1 and features.days", profile, "write && between conditions"},
	{"single equals", profile, "features.orders == 0 && features.prod", "features.orders = 0 && features.prod", profile, "write == to compare"},
	{"or in a rule", profile, "features.orders > 1 && features.days", "features.orders > 1 or features.days", profile, "write || between conditions"},
	{"not in a rule", profile, "!segments.rfm_champions", "not segments.rfm_champions", profile, "write ! before the condition"},
	{"single quotes in a rule", profile, "consent: traits.marketing_consent == true", "consent: traits.country == 'DE' && true", profile, `write "DE", not`},
	{"unknown feature in segment", profile, "features.revenue_90d > param", "features.revenue_90 > param", profile, `there is no feature "revenue_90"; did you mean "revenue_90d"?`},
	{"unknown parameter", profile, "parameters.high_value_revenue'", "parameters.high_value'", profile, `there is no parameter "high_value"`},
	{"unknown segment", profile, "!segments.rfm_champions", "!segments.rfm_champion", profile, `did you mean "rfm_champions"?`},
	{"unknown feature in rfm", profile, "frequency: orders", "frequency: order", profile, `did you mean "orders"?`},
	{"ratio of unknown feature", profile, "  - { name: unsubscribed,", "  - { name: share, ratio: { of: orders_30, to: orders } }\n  - { name: unsubscribed,", profile, `did you mean "orders_30d"?`},
	{"unless equals on", profile, "unless: { events: [Product Added, Order Completed] }", "unless: { events: [Product Viewed] }", profile, "unless lists the cause itself (Product Viewed)"},
	{"holdout as a fraction", profile, "holdout: 10\n    expire: 12h\n    data: '{ \"product\": features.last_product_viewed }'\n\n  - name: browse", "holdout: 0.1\n    expire: 12h\n    data: '{ \"product\": features.last_product_viewed }'\n\n  - name: browse", profile, "holdout is a percentage: write 10"},
	{"unknown channel", profile, "channel: email\n    priority: 40", "channel: mail\n    priority: 40", profile, `there is no channel "mail"; use one of messages.channels`},
	{"time of day", profile, `at: "09:00"`, `at: "9am"`, profile, `at must be a time of day in quotes, such as "09:00"`},
	{"bare time of day", profile, `from: "21:00"`, "from: 2100", profile, "from must be a time of day in quotes"},
	{"time zone", profile, "timezone: Europe/Berlin", "timezone: Europe/Berln", profile, "write one of the IANA database, such as Europe/Berlin"},
	{"two segments of a name", profile, "name: rfm_lost", "name: rfm_loyal", profile, "give each segment a name of its own"},
	{"name with a dash", profile, "name: high_value,", "name: high-value,", profile, "name must be letters, digits and underscores"},
	{"after without unit", profile, "after: 10m", "after: 10", profile, "after must be a whole number and a unit"},
	{"events not a list", profile, "on: { events: [identify], repeat: first }", "on: { events: identify, repeat: first }", profile, "write a list, such as events: [identify]"},
	{"repeat unknown", profile, "repeat: first", "repeat: once", profile, "write one of latest, each, first"},
	{"by without limit", profile, "by: properties.category, window: 30d, limit: 10", "by: properties.category, window: 30d, limit: 0", profile, "limit must be between 1 and 1000"},
	{"event typo", profile, "events: [Order Completed] } }\n  - { name: orders_30d", "events: [Order Complete] } }\n  - { name: orders_30d", worker, `did you mean "Order Completed"?`},
	{"path typo", profile, "of: properties.total, currency: *eur, window: 90d", "of: properties.totl, currency: *eur, window: 90d", worker, "did you mean properties.total?"},
	{"consent trait", profile, "consent: traits.marketing_consent", "consent: traits.marketing_consnt", worker, `no trait "marketing_consnt" of identify events; did you mean traits.marketing_consent?`},
	{"expression trait", profile, "  - { name: unsubscribed,", "  - { name: x, expression: traits.contry }\n  - { name: unsubscribed,", worker, `no trait "contry" of identify events; did you mean traits.country?`},
	{"trait in a segment", profile, "when: 'features.orders > 1 &&", `when: 'traits.contry == "DE" && features.orders > 1 &&`, worker, `no trait "contry" of identify events`},
	{"where path", profile, "count: { events: [Product Added], window: 7d }", "count: { events: [Product Added], where: this.properties.prce > 3, window: 7d }", worker, "did you mean properties.price?"},
	{"sum over text", profile, "of: properties.total, currency: *eur, window: 90d", "of: properties.currency, currency: *eur, window: 90d", worker, "sum computes with numbers, and properties.currency of Order Completed is a string"},
	{"sum of an order total by a product path", profile, "of: 'properties.products[].price', times: 'properties.products[].quantity', by:", "of: properties.total, by:", worker, "counts properties.total once for each element"},
	{"birthday trait", profile, "trait: birthday", "trait: birtday", worker, "did you mean traits.birthday?"},
	{"identifier trait", profile, "trait: email, match", "trait: e_mail, match", worker, "did you mean traits.email?"},
	{"unknown profiles label", worker, "profiles: retail", "profiles: retial", worker, `no item of the top-level profiles has the label "retial" (labels: retail); did you mean "retail"?`},
	{"unknown field", worker, "consumer_group:", "consumergroup:", worker, `did you mean "consumer_group"?`},
	{"unknown component", worker, "validate_event:\n        plan", "validate_events:\n        plan", worker, `did you mean "validate_event"?`},
	{"missing plan", worker, "TRACKING_PLAN:./configs/retail/plan.yaml}\"\n        keep_original: false # the", "TRACKING_PLAN:./configs/retail/plam.yaml}\"\n        keep_original: false # the", worker, "there is no such file; write the path of the plan"},
	{"env near", worker, "${REDIS_URL:", "${REDIS_ULR:", worker, "REDIS_ULR is not set; did you mean REDIS_URL?"},
	{"redis url", worker, "REDIS_URL:redis://127.0.0.1:6379", "REDIS_URL:127.0.0.1:6379", worker, "url must begin with redis:// or rediss://"},
	{"mapping and", worker, "'!errored() && content()", "'!errored() and content()", worker, "write && between conditions"},
	{"mapping file missing", worker, "./configs/retail/clean.blobl", "./configs/retail/cleen.blobl", worker, "cleen.blobl: no such file"},
	{"csv missing", enrich, "PRODUCTS_CSV:./configs/retail/products.csv", "PRODUCTS_CSV:./configs/retail/product.csv", enrich, "the CSV file ./configs/retail/product.csv cannot be read"},
	{"csv key column", enrich, "key_column: product_id", "key_column: productid", enrich, `no column "productid"; did you mean "product_id"?`},
	{"csv result column", enrich, "this.value.margin.number()", "this.value.margn.number()", enrich, `no column "margn"; did you mean "margin"?`},
	{"plan unknown action", plan, "on_violation: dead_letter", "on_violation: deadletter", plan, `did you mean "dead_letter"?`},
	{"plan unknown type", plan, "type: number", "type: nmber", plan, "type must be one of string, number"},
	{"plan unknown keyword", plan, "minimum:", "minimun:", plan, `did you mean "minimum"?`},
	{"expectation unknown", suite, "expect_column", "expect_colum", suite, `did you mean "expect_column_values_to_be_unique"?`},
	{"Liquid filter that does not exist", block, `| plural: "thing is"`, `| plurall: "thing is"`, block, `there is no filter "plurall"; did you mean "plural"?`},
	{"feature that does not exist in a content block", block, "features.cart_adds_7d > 0", "features.cart_adds > 0", block, `there is no feature "cart_adds"; did you mean "cart_adds_7d"?`},
	{"condition that is not closed in a content block", block, "  {%- endif -%}\n", "", block, "cart_reminder.yaml("},
	{"content block without a fallback", block, "fallback: \"\"\n\ntemplate", "template", block, "fallback"},
	{"empty list of events for a cause", profile, "on: { events: [identify], repeat: first }", "on: { repeat: first }", profile, "welcome"},
	{"unless beside a date", profile, "    on: { date: { trait: birthday, at: \"09:00\" } }\n", "    on: { date: { trait: birthday, at: \"09:00\" } }\n    unless: { events: [Order Completed] }\n", profile, "write the condition as when"},
	{"negative limit", profile, "limits: [ { count: 1, per: 3d } ]", "limits: [ { count: -1, per: 3d } ]", profile, "count must be from 1 to"},
	{"consent with one equals sign", profile, "traits.marketing_consent == true &&", "traits.marketing_consent = true &&", profile, "write == to compare"},
	{"duplicate key", profile, "  timezone: Europe/Berlin\n", "  timezone: Europe/Berlin\n  timezone: UTC\n", profile, "the key timezone is there twice"},
	{"bracket that is not closed", profile, "sources: [crm, pos, web, mobile]", "sources: [crm, pos, web, mobile", profile, "bracket"},
	{"broker without a port", worker, "KAFKA_SEEDS:127.0.0.1:9092", "KAFKA_SEEDS:127.0.0.1", worker, "a broker is a host and a port"},
}

func TestLintNamesTheCorrectionOfAMistake(t *testing.T) {
	require.GreaterOrEqual(t, len(mistakes), 60)
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(filepath.Join(dir, "configs"), os.DirFS(filepath.Join(root, "configs"))))
			path := filepath.Join(dir, m.file)
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Contains(t, string(text), m.old, "the mistake no longer applies")
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600))
			got := run(t, dir, "lint", m.lint)
			require.Equal(t, 1, got.code)
			require.Contains(t, got.stderr, m.want)
		})
	}
}

// A ratio names features, not values of events.
func TestRatioFeatureAgreesWithATrackingPlan(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "configs"), os.DirFS(filepath.Join(root, "configs"))))
	path := filepath.Join(dir, profile)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	const after = "features:\n"
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), after, after+"  - { name: recent_share, ratio: { of: orders_30d, to: orders } }\n", 1)), 0o600))
	got := run(t, dir, "lint", worker)
	require.Zero(t, got.code, got.stderr)
}

// An enrichment's name and values are known in the pipeline that contains it.
func TestLintChecksReferencesToEnrichmentsAndTokens(t *testing.T) {
	dir := folder(t, map[string]string{
		"profile.yaml": "features:\n  - { name: a, last: { of: context.enrichment.boxes.theme } }\n  - { name: b, last: { of: context.enrichment.box.cost } }\n",
		"boxes.csv":    "box_id,theme\nb-1,Tea\n",
		"tokens.yaml":  "tokens: secret\n",
		"pipeline.yaml": `profiles:
  - { label: box, definition: profile.yaml, store: { embedded: { path: ':memory:' } } }
input: { profile_api: { profiles: box, tokens_file: tokens.yaml } }
pipeline:
  processors:
    - enrich: { name: box, key: this.properties.box_id, csv: { path: boxes.csv, key_column: box_id }, result: 'root.theme = this.value.theme' }
    - update_profile: { profiles: box }
output: { drop: {} }
`,
	})
	got := run(t, dir, "lint", "pipeline.yaml")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, `feature "a": no enrichment of the pipeline is named "boxes"; did you mean "box"?`)
	require.Contains(t, got.stderr, `feature "b": the enrichment "box" sets no cost`)
	require.Contains(t, got.stderr, "tokens.yaml(")
}
