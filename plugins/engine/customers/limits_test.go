package customers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// TestTraitLimitsRejectEvents sends events above each limit: they are rejected as a
// whole, and do not affect other events of the batch.
func TestTraitLimitsRejectEvents(t *testing.T) {
	p := open(t, shop+"traits: { max_traits: 3, max_name_bytes: 4, max_value_bytes: 8 }\n")
	for i, tt := range []struct {
		traits, want string
	}{
		{`{"a":1,"b":"12345678"}`, ""},
		{`{"a":2,"names":1}`, "max_name_bytes (4)"},
		{`{"a":2,"c":"123456789"}`, "max_value_bytes (8)"},
		{`{"a":2,"c":["123456"]}`, "max_value_bytes (8)"},
		{`{"a":2,"c":1,"d":1}`, "4 traits, more than traits.max_traits (3)"},
		{`{"a":3,"c":1}`, ""},
		{`{"d":1}`, "max_traits"},
		{`{"c":null}`, ""},
	} {
		at := fmt.Sprintf("2026-01-02T03:04:%02dZ", i)
		errs := apply(t, p, identify(fmt.Sprint("m", i), "u1", "", at, "web", tt.traits), order(fmt.Sprint("o", i), `"userId":"u1"`, 1))
		require.NoError(t, errs[1])
		if tt.want == "" {
			require.NoError(t, errs[0], tt.traits)
			continue
		}
		var rejected *event.Error
		require.ErrorAs(t, errs[0], &rejected, tt.traits)
		require.Equal(t, "limit", rejected.Rule)
		require.Contains(t, rejected.Message, tt.want)
	}
	v, _ := read(t, p, "u1")
	require.Equal(t, map[string]any{"a": 3.0, "b": "12345678"}, v.Traits)
	require.EqualValues(t, 8, v.Features["orders"])

	errs := apply(t, open(t, shop), identify("m", "u1", "", "2026-01-02T03:04:05Z", "web", fmt.Sprintf(`{"a":%q}`, strings.Repeat("x", 16<<10+1))))
	require.ErrorContains(t, errs[0], "max_value_bytes (16384)", "limits apply by default")
}
