package trackingplan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
)

// TestShopPlanLintsClean lints the shipped plan.
func TestShopPlanLintsClean(t *testing.T) {
	require.Empty(t, Lint(shopPlan))
	plan, err := Load(shopPlan)
	require.NoError(t, err)
	for _, name := range plan.EventNames() {
		for _, c := range plan.events[name].checks {
			require.NotNil(t, c.schema.fast, "%s is checked by our own evaluator", name)
		}
	}
	for _, path := range []string{"properties.order_id", "properties.total", "properties.products[].category", "context.campaign.name", "userId"} {
		require.True(t, plan.HasProperty("Order Completed", path), path)
	}
}

// TestShopPlanOnSyntheticShop validates events that are known to be valid or invalid.
func TestShopPlanOnSyntheticShop(t *testing.T) {
	plan, err := Load(shopPlan)
	require.NoError(t, err)
	s, err := shop.New(shop.Settings{
		Seed: 7, Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Rate: 10, Customers: 500,
		Invalid: 0.3, Late: 0.05, Duplicated: 0.05, MaxLateness: time.Hour,
	})
	require.NoError(t, err)
	seen := map[shop.Fault]int{}
	names := map[string]int{}
	for range 30_000 {
		event := s.Next()
		seen[event.Fault]++
		r := plan.Check(event.Data)
		names[r.Event]++
		switch {
		case event.Fault == shop.UnknownEvent:
			require.True(t, r.Unplanned && r.Mark, "%s", event.Data)
		case event.Fault.Invalid():
			require.Equal(t, Rejected, r.Status, "%s: %s", event.Fault, event.Data)
			require.NotEmpty(t, r.Violations)
		default:
			require.Equal(t, Valid, r.Status, "%v: %s", r.Violations, event.Data)
			require.False(t, r.Unplanned, "%s", event.Data)
		}
	}
	require.Greater(t, len(seen), 12)
	require.Greater(t, len(names), 12)
}

func TestShopPlan(t *testing.T) {
	plan, err := Load(shopPlan)
	require.NoError(t, err)
	// event completes an event from its beginning.
	event := func(begin string) string {
		return `{` + begin + `,"messageId":"m-1","timestamp":"2026-01-31T08:30:00.000Z"}`
	}
	track := func(name, properties string) string {
		return event(`"type":"track","event":"` + name + `","userId":"u-1","properties":` + properties)
	}
	for _, valid := range []string{
		orderEvent,
		event(`"type":"page","userId":null,"anonymousId":"a-1","name":"Home","properties":{"url":"https://shop.example.com/?q=a b","own":1}`),
		event(`"type":"screen","anonymousId":"a-1","name":"Home"`),
		event(`"type":"identify","userId":"u-1","traits":{"email":"a@example.com","phone":null,"loyalty":{"tier":"gold"}}`),
		event(`"type":"group","userId":"u-1","groupId":"g-1","traits":{"name":"Acme"}`),
		event(`"type":"alias","userId":"u-1","previousId":"a-1"`),
		track("Products Searched", `{"query":""}`),
		track("Product List Viewed", `{"list_id":7,"products":[{"product_id":"p","position":1}]}`),
		track("Product Viewed", `{"sku":"s","price":0,"color":"red"}`),
		track("Product Added", `{"product_id":12345,"quantity":0.5,"cart_id":"c"}`),
		track("Product Removed", `{"product_id":"p"}`),
		track("Cart Viewed", `{"cart_id":"c","products":[]}`),
		track("Product Added to Wishlist", `{"wishlist_id":"w","product_id":"p"}`),
		track("Product Removed from Wishlist", `{"product_id":"p"}`),
		track("Coupon Applied", `{"coupon_id":"X","discount":-5}`),
		track("Promotion Clicked", `{"promotion_id":"p","position":"top"}`),
		track("Checkout Started", `{"order_id":1,"value":12.5}`),
		track("Checkout Step Completed", `{"step":1,"payment_method":"card"}`),
		track("Payment Info Entered", `{"checkout_id":"c"}`),
		track("Order Completed", `{"order_id":"o","total":0}`),
		track("Order Updated", `{"order_id":"o"}`),
		track("Order Refunded", `{"order_id":"o","total":5,"products":[{"sku":"s","quantity":1}]}`),
		track("Order Cancelled", `{"order_id":"o"}`),
		track("Email Delivered", `{"email_id":"e"}`),
		track("Email Opened", `{"campaign_id":"c"}`),
		track("Email Link Clicked", `{"campaign_id":"c","link_url":"https://shop.example.com"}`),
		track("Email Bounced", `{"email_id":"e"}`),
		track("Email Marked as Spam", `{"email_id":"e"}`),
		track("Unsubscribed", `{}`),
	} {
		r := plan.Check([]byte(valid))
		require.Equal(t, "valid", summary(r), valid)
		require.NotEmpty(t, r.Event, valid)
	}
	for invalid, want := range map[string]string{
		event(`"type":"page","userId":null,"properties":{}`):                            "rejected =anyOf",
		event(`"type":"page","userId":"","anonymousId":"a"`):                            "rejected /userId=minLength",
		event(`"type":"purchase","userId":"u"`):                                         "rejected /type=enum",
		event(`"type":"identify","userId":"u","traits":{"email":"nobody"}`):             "rejected /traits/email=format",
		event(`"type":"group","userId":"u"`):                                            "rejected =required",
		event(`"type":"alias","userId":"u"`):                                            "rejected =required",
		track("Products Searched", `{}`):                                                "rejected /properties=required",
		track("Product Viewed", `{"name":"x"}`):                                         "rejected /properties=anyOf",
		track("Product Viewed", `{"sku":"s","price":"9.99"}`):                           "rejected /properties/price=type",
		track("Product Added", `{"sku":"s","quantity":0}`):                              "rejected /properties/quantity=exclusiveMinimum",
		track("Order Completed", `{"total":5}`):                                         "rejected /properties=required",
		track("Order Completed", `{"order_id":"o","total":-5}`):                         "rejected /properties/total=minimum",
		track("Order Completed", `{"order_id":"o","total":5,"currency":"Euro"}`):        "rejected /properties/currency=pattern",
		track("Order Completed", `{"order_id":"o","total":5,"products":[{}]}`):          "rejected /properties/products/0=anyOf",
		track("Checkout Step Completed", `{"step":1.5}`):                                "rejected /properties/step=type",
		track("Email Link Clicked", `{"campaign_id":"c"}`):                              "rejected /properties=anyOf",
		`{"type":"page","userId":"u","timestamp":"2026-01-31T08:30:00Z"}`:               "rejected =required",
		`{"type":"page","userId":"u","messageId":"m","timestamp":"yesterday"}`:          "rejected /timestamp=format",
		`{"type":"page","userId":7,"messageId":"m","timestamp":"2026-01-31T08:30:00Z"}`: "rejected =anyOf /userId=type",
	} {
		require.Equal(t, want, summary(plan.Check([]byte(invalid))), invalid)
	}
}
