package simulate

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The oracle is simple enough to review by reading. These cases need a calendar.

func add(t *testing.T, o *shopOracle, id, name, customer string, at time.Time, more string) {
	kind, event := "track", fmt.Sprintf(`,"event":%q`, name)
	if name == "identify" {
		kind, event = name, ""
	}
	raw := fmt.Sprintf(`{"type":%q%s,"messageId":%q,%s,"timestamp":%q%s}`, kind, event, id, customer, at.Format(time.RFC3339), more)
	require.NoError(t, o.add([]byte(raw)))
}

func step(o *shopOracle, from, to time.Time) (fired []string) {
	for now := from; !now.After(to); now = now.Add(time.Hour) {
		for _, f := range o.step(now.UnixMilli()) {
			fired = append(fired, f.Trigger+" "+stamp(f.At)[5:16])
		}
	}
	return fired
}

const consent = `,"traits":{"marketing_consent":true,"timezone":"Europe/Berlin"}`

func TestOracleFiresCartsAndPostPurchase(t *testing.T) {
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	o := newOracle()
	add(t, o, "1", "Product Added", `"anonymousId":"a"`, noon, "")
	require.Empty(t, step(o, noon, noon.Add(time.Hour)), "anonymous visitors receive no message")
	add(t, o, "2", "identify", `"userId":"u","anonymousId":"a"`, noon.Add(90*time.Minute), consent)
	add(t, o, "2", "identify", `"userId":"u","anonymousId":"a"`, noon.Add(90*time.Minute), consent)
	require.Equal(t, []string{"cart_abandoned 06-01T14:00"}, step(o, noon.Add(2*time.Hour), noon.Add(48*time.Hour)), "the welcome has a lower priority and exceeds the frequency cap")

	o = newOracle()
	add(t, o, "1", "identify", `"userId":"u"`, noon.Add(-240*time.Hour), consent)
	add(t, o, "2", "Product Added", `"userId":"u"`, noon.Add(8*time.Hour), "")
	require.Equal(t, []string{"cart_abandoned 06-02T06:00"}, step(o, noon, noon.Add(48*time.Hour)), "quiet hours end at eight in Berlin")
	add(t, o, "3", "Product Added", `"userId":"u"`, noon.Add(96*time.Hour), "")
	add(t, o, "4", "Order Completed", `"userId":"u"`, noon.Add(97*time.Hour-time.Second), "")
	require.Equal(t, []string{"post_purchase 06-12T13:00"}, step(o, noon.Add(49*time.Hour), noon.Add(20*24*time.Hour)), "an order cancels the cart trigger and is a cause itself")
}
