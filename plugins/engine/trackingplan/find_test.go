package trackingplan

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "product.json"), []byte(`{"properties":{"product_id":{"type":"string"},"dimensions":{"type":"object"}}}`), 0o600))
	path := filepath.Join(dir, "plan.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
name: shop
version: 1.0.0
envelope:
  properties:
    store: { properties: { till: { type: integer } } }
$defs:
  money: { type: number }
  node: { properties: { next: { $ref: "#/$defs/node" }, weight: { type: number } } }
events:
  Order Completed:
    properties:
      properties:
        total: { $ref: "#/$defs/money" }
        products: { type: array, items: { allOf: [ { $ref: product.json }, { properties: { price: { type: number } } } ] } }
        tree: { $ref: "#/$defs/node" }
        labels: { additionalProperties: { type: string } }
        pair: { prefixItems: [ { type: string } ] }
      patternProperties: { "^utm_": { type: string } }
      anyOf: [ { properties: { coupon: { type: string } } }, { required: [total] } ]
  Product Viewed:
    versions:
      "1": { properties: { properties: { price: { type: number } } } }
      "2": { properties: { properties: { amount: { type: number } } } }
    default_version: "1"
  Cart Viewed:
  identify:
    traits: { properties: { email: { type: string } } }
`), 0o600))
	plan, err := Load(path)
	require.NoError(t, err)
	for _, test := range []struct {
		event, path string
		found       bool
		hint        string
	}{
		{"Order Completed", "properties.total", true, ""},
		{"Order Completed", "timestamp", true, ""},
		{"Order Completed", "context.page.url", true, ""},
		{"Order Completed", "store.till", true, ""},
		{"Order Completed", "store.tll", false, "store.till"},
		{"Order Completed", "properties.products[].product_id", true, ""},
		{"Order Completed", "properties.products[].price", true, ""},
		{"Order Completed", "properties.products[].dimensions.height", true, ""},
		{"Order Completed", "properties.products[].prise", false, "properties.products[].price"},
		{"Order Completed", "properties.products[].product_id.x", false, ""},
		{"Order Completed", "properties.product[].price", false, "properties.products[].price"},
		{"Order Completed", "properties.totl", false, "properties.total"},
		{"Order Completed", "properties.colour", false, ""},
		{"Order Completed", "properties.total[]", false, ""},
		{"Order Completed", "properties.coupon", true, ""},
		{"Order Completed", "properties.utm_source", true, ""},
		{"Order Completed", "properties.labels.any", true, ""},
		{"Order Completed", "properties.pair[]", true, ""},
		{"Order Completed", "properties.tree.next.next.next.weight", true, ""},
		{"Order Completed", "property.total", false, "properties.total"},
		{"Product Viewed", "properties.price", true, ""},
		{"Product Viewed", "properties.amount", true, ""},
		{"Product Viewed", "properties.total", false, ""},
		{"Cart Viewed", "properties.anything", true, ""},
		{"identify", "traits.email", true, ""},
		{"identify", "traits.mail", false, "traits.email"},
	} {
		found, hint := plan.Find(test.event, test.path)
		require.Equal(t, test.found, found, "%s %s", test.event, test.path)
		require.Equal(t, test.hint, hint, "%s %s", test.event, test.path)
	}
}
