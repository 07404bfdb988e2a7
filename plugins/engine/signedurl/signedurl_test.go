package signedurl

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func parseURL(t require.TestingT, text string) *url.URL {
	u, err := url.Parse(text)
	require.NoError(t, err)
	return u
}

// The expected signature was computed with the command of the package comment.
func TestSign(t *testing.T) {
	secret := []byte(strings.Repeat("s", MinSecret))
	signed := Sign(parseURL(t, "https://h.example/api/customer/42/content/hero"), "braze", secret, time.Unix(1798761600, 0))
	require.Equal(t, "https://h.example/api/customer/42/content/hero?expires=1798761600&key=braze&signature=56ce393676a98cc8059b8b2d56521239b9b1b8fc5e0f4267cf1dfbeb66c26a43", signed.String())

	s, ok := Parse(signed)
	require.True(t, ok)
	require.True(t, s.Verify(secret))
	require.Equal(t, "braze", s.Key)
	require.Equal(t, int64(1798761600), s.Expires.Unix())
	require.Equal(t, "https://h.example/api/customer/42/content/hero", s.Plain.String())
}

func TestChangedURLsAreNotVerified(t *testing.T) {
	secret := []byte(strings.Repeat("s", MinSecret))
	rapid.Check(t, func(t *rapid.T) {
		u := parseURL(t, "/api/customer/a%2Fb?fields=traits.plan")
		text := Sign(u, "k", secret, time.Unix(2000, 0)).String()
		i := rapid.IntRange(0, len(text)-1).Draw(t, "index")
		changed := text[:i] + rapid.StringMatching(`[a-z0-9/&=%]`).Draw(t, "character") + text[i+1:]
		parsed, err := url.Parse(changed)
		if err != nil || changed == text {
			return
		}
		s, ok := Parse(parsed)
		require.False(t, ok && s.Verify(secret), changed)
	})
}
