package lint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const planText = `
name: shop
version: 1.2.0
events:
  Order Completed:
    properties:
      properties:
        total: { type: number }
        products: { type: array, items: { properties: { category: { type: string } } } }
  Product Viewed:
    properties: { properties: { product_id: { type: string } } }
  page:
  identify:
    traits: { properties: { email: { type: string }, country: { type: string } } }
`

const pipelineText = `
profiles:
  - label: shop
    definition: "${DEFINITION:./profile.yaml}"
pipeline:
  processors:
    - validate_event:
        plan: "${TRACKING_PLAN:./plan.yaml}"
    - enrich_csv:
        name: weather
        events: [ Product Viewd ]
        key: this.properties.product_id.uppercase()
        traits:
          mapping: 'root.weather = this.kind'
`

func TestAgreementOfDefinitionsAndPlans(t *testing.T) {
	write(t, map[string]string{"plan.yaml": planText, "pipeline.yaml": strings.Replace(pipelineText, "Viewd", "Viewed", 1), "other.yaml": pipelineText, "alone.yaml": "profiles: [ { label: x, definition: profile.yaml } ]\n", "profile.yaml": `
features:
  - { name: orders, count: { events: [Order Completed] } }
  - { name: revenue, sum: { events: [Order Completed], of: properties.totl } }
  - { name: typo, count: { events: [Order Complete], by: properties.anything } }
  - { name: stranger, count: { events: [Something Else] } }
  - { name: spread, count: { events: [Order Completed, Product Viewed], by: 'properties.products[].category' } }
  - { name: deep, count: { events: [Order Completed], by: 'properties.products[].categry' } }
  - { name: large, count: { events: [Order Completed], where: 'this.properties.total > 5 && this.properties.totals.number() > 5 && this.timestamp != ""' } }
  - { name: active, last: { of: timestamp } }
  - { name: any_total, sum: { of: properties.total } }
  - { name: any_odd, sum: { of: properties.odd } }
  - { name: pages, count: { events: [page], by: properties.whatever } }
  - name: warm
    decayed_sum: { events: [page, Order Completed], half_life: 7d, weights: { page: 1, Order Compleded: 5 } }
segments:
  - { name: german, when: 'traits.country == "DE" && features.orders > 0 && traits.weather == "sun"' }
  - { name: odd, when: 'traits.contry == "DE"' }
triggers:
  - name: birthday
    on: { date: { trait: birthday } }
  - name: cart
    on: { events: [Product Viewed], where: 'this.properties.product == "x"' }
    unless: { events: [Order Completd] }
`})
	lints := agreement([]string{"pipeline.yaml", "other.yaml", "alone.yaml", "absent.yaml"})
	var got []string
	for _, l := range lints {
		got = append(got, line(l))
	}
	require.Equal(t, []string{
		`profile.yaml(4,60) feature "revenue": the tracking plan shop 1.2.0 has no properties.totl of Order Completed; did you mean properties.total?`,
		`profile.yaml(5,37) feature "typo": the tracking plan shop 1.2.0 has no event "Order Complete"; did you mean "Order Completed"?`,
		`profile.yaml(6,41) feature "stranger": the tracking plan shop 1.2.0 has no event "Something Else"`,
		`profile.yaml(8,59) feature "deep": the tracking plan shop 1.2.0 has no properties.products[].categry of Order Completed; did you mean properties.products[].category?`,
		`profile.yaml(9,63) feature "large": the tracking plan shop 1.2.0 has no properties.totals of Order Completed; did you mean properties.total?`,
		`profile.yaml(15,88) feature "warm": the tracking plan shop 1.2.0 has no event "Order Compleded"; did you mean "Order Completed"?`,
		`profile.yaml(18,24) segment "odd": the tracking plan shop 1.2.0 has no trait "contry" of identify events; did you mean traits.country?`,
		`profile.yaml(21,26) trigger "birthday": the tracking plan shop 1.2.0 has no trait "birthday" of identify events`,
		`profile.yaml(23,44) trigger "cart": the tracking plan shop 1.2.0 has no properties.product of Product Viewed; did you mean properties.product_id?`,
		`profile.yaml(24,24) trigger "cart": the tracking plan shop 1.2.0 has no event "Order Completd"; did you mean "Order Completed"?`,
		`other.yaml(11,19) enrich_csv: the tracking plan shop 1.2.0 has no event "Product Viewd"; did you mean "Product Viewed"?`,
	}, got)

	ok, _, _, stderr := run(t, []string{"lint", "pipeline.yaml"}, 0)
	require.False(t, ok)
	require.Contains(t, stderr, `did you mean properties.total?`)
}

func TestResolveReplacesVariables(t *testing.T) {
	t.Setenv("SET", "set.yaml")
	require.Equal(t, "./a.yaml", resolve("${UNSET_X:./a.yaml}"))
	require.Equal(t, "./set.yaml", resolve("./${SET:./a.yaml}"))
	require.Equal(t, "", resolve("${UNSET_X}"))
}
