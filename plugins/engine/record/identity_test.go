package record_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

func TestPlaceholdersAreInvalidIDs(t *testing.T) {
	ids := record.Identity{Ignored: map[string]bool{"-anna-": true}, IgnoreAddresses: true}
	for _, id := range record.DefaultIgnored {
		ids.Ignored[id] = true
	}
	for _, placeholder := range []string{
		"", " ", "null", "NULL", "(null)", "<nil>", `"undefined"`, `\"undefined\"`, "'null'", "`None`", "[null]", "{undefined}", "<null>",
		"not_authenticated", "Not_Authenticated", "(not set)", "[object Object]", "{}", "[]", "()", `""`, "''", "NaN", "(none)",
		"00000000-0000-0000-0000-000000000000", "0", "-1", "anna@example.com", "-anna-",
	} {
		require.False(t, ids.Valid([]byte(placeholder)), "%q", placeholder)
	}
	for _, id := range []string{"u1", "4711", "(42)", "<anna>", "nullable", "nil-1", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"} {
		require.True(t, ids.Valid([]byte(id)), "%q", id)
	}
	require.True(t, (&record.Identity{}).Valid([]byte("null")), "no id is ignored without a list")
}
