package privacy

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLeaksFindsTheSignInEveryEncoding(t *testing.T) {
	secret := mark("secret")
	for name, text := range map[string]string{
		"plain":      "the token " + secret + " is unknown",
		"upper case": strings.ToUpper(secret),
		"JSON":       strconv.Quote(`{"id":"` + secret + `"}`),
		"URL":        url.QueryEscape("/é" + secret),
		"hex":        "key=" + hex.EncodeToString([]byte(secret)),
		"a metric":   "requests{customer=\"" + secret + "\"} 1",
	} {
		require.Len(t, leaks("before\n"+text+"\nafter"), 1, name)
	}
	for before := range 6 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("u", before) + secret))
		require.Len(t, leaks("Basic "+text), 1, text)
		text = base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("é", before) + secret))
		require.Len(t, leaks("?after="+text), 1, text)
	}
	require.Empty(t, leaks("level=info msg=\"no personal data\" sum=5e8c1f0a\n"))
}
