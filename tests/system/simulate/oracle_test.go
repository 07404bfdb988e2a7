package simulate

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The oracle is simple enough to be read; these are the cases one would look up.

func take(t *testing.T, o *shopOracle, id, name, who string, at time.Time, more string) {
	kind, event := "track", fmt.Sprintf(`,"event":%q`, name)
	if name == "identify" {
		kind, event = name, ""
	}
	raw := fmt.Sprintf(`{"type":%q%s,"messageId":%q,%s,"timestamp":%q%s}`, kind, event, id, who, at.Format(time.RFC3339), more)
	require.NoError(t, o.take([]byte(raw)))
}

func step(o *shopOracle, from, to time.Time) (told []string) {
	for now := from; !now.After(to); now = now.Add(time.Hour) {
		for _, f := range o.step(now.UnixMilli()) {
			told = append(told, f.Trigger+" "+stamp(f.At)[5:16])
		}
	}
	return told
}

const consent = `,"traits":{"marketing_consent":true,"timezone":"Europe/Berlin"}`

func TestTheOracle(t *testing.T) {
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	o := newOracle()
	take(t, o, "1", "Product Added", `"anonymousId":"a"`, noon, "")
	require.Empty(t, step(o, noon, noon.Add(time.Hour)), "nobody is known")
	take(t, o, "2", "identify", `"userId":"u","anonymousId":"a"`, noon.Add(90*time.Minute), consent)
	take(t, o, "2", "identify", `"userId":"u","anonymousId":"a"`, noon.Add(90*time.Minute), consent)
	require.Equal(t, []string{"cart_abandoned 06-01T14:00"}, step(o, noon.Add(2*time.Hour), noon.Add(48*time.Hour)), "the welcome, of lower priority, is above the limit")

	o = newOracle()
	take(t, o, "1", "identify", `"userId":"u"`, noon.Add(-240*time.Hour), consent)
	take(t, o, "2", "Product Added", `"userId":"u"`, noon.Add(8*time.Hour), "")
	require.Equal(t, []string{"cart_abandoned 06-02T06:00"}, step(o, noon, noon.Add(48*time.Hour)), "quiet hours are over at eight in Berlin")
	take(t, o, "3", "Product Added", `"userId":"u"`, noon.Add(96*time.Hour), "")
	take(t, o, "4", "Order Completed", `"userId":"u"`, noon.Add(97*time.Hour-time.Second), "")
	require.Equal(t, []string{"post_purchase 06-12T13:00"}, step(o, noon.Add(49*time.Hour), noon.Add(20*24*time.Hour)), "an order cancels, and is a cause")
}
