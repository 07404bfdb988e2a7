package trackingplan

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInternationalEmail(t *testing.T) {
	for text, want := range map[string]bool{
		"jo@example.com": true, "jö@example.com": true, "用户@例え.jp": true, "jö": false, "@example.com": false,
		"jo@": false, "j ö@example.com": false, "jö@exa mple.com": false, "": false,
	} {
		require.Equal(t, want, internationalEmail.Validate(text) == nil, text)
	}
	require.NoError(t, internationalEmail.Validate(7), "a format restricts strings only")
}
