package signurl

import (
	"bytes"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/signedurl"
)

func TestCommandSignsURLs(t *testing.T) {
	secret := strings.Repeat("s", signedurl.MinSecret)
	t.Setenv("SIGNING_SECRET", secret)
	t.Setenv("SHORT", "short")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		app := &cli.App{Writer: &out, ErrWriter: &out, Commands: []*cli.Command{Command("app")}, ExitErrHandler: func(*cli.Context, error) {}}
		err := app.Run(append([]string{"app", "sign-url"}, args...))
		return strings.TrimSpace(out.String()), err
	}
	signed, err := run("--key", "k", "--secret-env", "SIGNING_SECRET", "--for", "1h", "https://h.example/api/customer/a%2Fb?fields=traits.plan#top")
	require.NoError(t, err)
	u, err := url.Parse(signed)
	require.NoError(t, err)
	s, ok := signedurl.Parse(u)
	require.True(t, ok)
	require.True(t, s.Verify([]byte(secret)))
	require.Equal(t, "https://h.example/api/customer/a%2Fb?fields=traits.plan", s.Plain.String())

	for want, args := range map[string][]string{
		"must contain the secret": {"--key", "k", "--secret-env", "SHORT", "/api/customer/1"},
		"longer than zero":        {"--key", "k", "--secret-env", "SIGNING_SECRET", "--for", "-1h", "/api/customer/1"},
		"letters, digits":         {"--key", "k k", "--secret-env", "SIGNING_SECRET", "/api/customer/1"},
		"give one URL":            {"--key", "k", "--secret-env", "SIGNING_SECRET"},
		"cannot be signed":        {"--key", "k", "--secret-env", "SIGNING_SECRET", signed},
	} {
		out, err := run(args...)
		require.ErrorContains(t, err, want)
		require.NotContains(t, out, secret)
	}
}
