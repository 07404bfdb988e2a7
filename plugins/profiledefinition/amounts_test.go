package profiledefinition

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// customer applies events of a day each to a definition and returns its features.
func customer(t *testing.T, path string, events ...string) map[string]any {
	def, err := Read(path)
	require.NoError(t, err)
	rec := &record.Record{}
	rec.Reset(&record.Definition{Features: def.Features})
	var p event.Parser
	for i, properties := range events {
		e, err := p.Parse(fmt.Appendf(nil, `{"type":"track","messageId":"m%d","userId":"u1","timestamp":"2026-01-%02dT12:00:00Z",%s}`, i, 1+i, properties))
		require.NoError(t, err)
		extract, _ := def.Features.Extract(nil, e)
		_, err = rec.Apply(record.Fact{Time: e.Time, ReceivedAt: e.Time, ID: record.HashID(e.MessageID), Extract: extract})
		require.NoError(t, err)
	}
	var w record.Viewer
	raw, err := w.AppendJSON(nil, rec, "u1", rec.LastEventAt(), &record.Everything)
	require.NoError(t, err)
	var view struct{ Features map[string]any }
	require.NoError(t, json.Unmarshal(raw, &view), "%s", raw)
	return view.Features
}

const (
	hats = `"event":"Order Completed","properties":{"order_id":"1","total":60,"currency":"EUR","products":[` +
		`{"category":"hats","price":20,"quantity":2},{"category":"hats","price":20},{"category":"shoes","price":19.99,"quantity":3}]}`
	refund = `"event":"Order Refunded","properties":{"order_id":"1","total":%v,"currency":"EUR"}`
)

// The shipped definitions multiply prices by quantities, subtract refunds and
// cancellations, and convert currencies.
func TestShippedAmounts(t *testing.T) {
	for _, path := range []string{"../../configs/retail/profile.yaml", "../../configs/quickstart_profile.yaml"} {
		t.Run(path, func(t *testing.T) {
			t.Chdir("../..")
			path := path[len("../../"):]
			got := customer(t, path, hats)
			require.Equal(t, map[string]any{"hats": 60.0, "shoes": 59.97}, got["revenue_by_category"])
			require.Equal(t, 60.0, got["revenue"])

			got = customer(t, path, hats, fmt.Sprintf(refund, 60))
			require.Equal(t, 0.0, got["revenue"])
			require.Equal(t, 0.0, got["revenue_90d"])
			require.Equal(t, 1.0, got["orders"])
			require.Equal(t, 60.0, got["average_order_value"])
			require.Equal(t, 50.0, customer(t, path, hats, fmt.Sprintf(refund, -10))["revenue"], "the sign does not matter")
			require.Equal(t, 60.0, customer(t, path, hats, fmt.Sprintf(refund, "null"))["revenue"], "a refund without a total")
			require.Equal(t, 0.0, customer(t, path, hats, `"event":"Order Cancelled","properties":{"order_id":"1","total":60,"currency":"EUR"}`)["revenue"])

			got = customer(t, path, hats, `"event":"Order Completed","properties":{"total":100,"currency":"USD"}`,
				`"event":"Order Completed","properties":{"total":7,"currency":"JPY"}`,
				`"event":"Order Completed","properties":{"total":1.5}`)
			require.Equal(t, 60+90+1.5, got["revenue"], "JPY has no rate")
			require.Equal(t, 90.0, got["largest_order"])
		})
	}
}

// A refund is no purchase, and reduces the mean value of repeat purchases.
func TestRefundsReduceLifetimeValue(t *testing.T) {
	t.Chdir("../..")
	path := writeDefinition(t, `
sources: [web]
features:
  - name: spend
    gamma_gamma: { events: [Order Completed], subtract: [Order Refunded], of: properties.total, parameters: ./configs/retail/models/gamma_gamma.yaml }
`)
	order := func(total int) string {
		return fmt.Sprintf(`"event":"Order Completed","properties":{"total":%d}`, total)
	}
	refund := func(total int) string {
		return fmt.Sprintf(`"event":"Order Refunded","properties":{"total":%d}`, total)
	}
	require.Equal(t, customer(t, path, order(10), order(40))["spend"], customer(t, path, order(10), order(100), refund(60))["spend"])
	require.Equal(t, customer(t, path, order(10))["spend"], customer(t, path, order(10), refund(10))["spend"])
}

func TestAmountLints(t *testing.T) {
	for fields, want := range map[string]string{
		"of: properties.total, subtract: [Order Refunded]":                        "subtract needs events",
		"events: [A], of: x, subtract: [A]":                                       `subtract names "A"`,
		"of: properties.total, times: 'properties.products[].quantity'":           "use the same array",
		"of: 'properties.products[].price', times: 'properties.items[].quantity'": "use the same array",
		"of: x, currency: { to: '' }":                                             "currency needs to",
		"of: x, currency: { to: EUR, rates: { USD: 0 } }":                         "the rate of USD must be above 0",
		"of: x, times: 'a..b'":                                                    "times: path",
		"of: x, currency: { rates: { USD: 1 } }":                                  "to is required",
	} {
		lints, err := Lint(writeDefinition(t, "features:\n  - name: a\n    sum: { "+fields+" }\n"))
		require.NoError(t, err)
		require.NotEmpty(t, lints, fields)
		require.Contains(t, lints[0].Message, want)
	}
}
