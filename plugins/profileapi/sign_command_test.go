package profileapi

import (
	"bytes"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

func TestSignCommand(t *testing.T) {
	s := serve(t, withProfiles("a/b"), "signing_keys: [ { name: k, secret: "+secret+", fields: [ traits ] } ]")
	t.Setenv("SIGNING_SECRET", secret)
	t.Setenv("SHORT", "short")
	sign := func(args ...string) (string, error) {
		var out bytes.Buffer
		app := &cli.App{Writer: &out, ErrWriter: &out, Commands: []*cli.Command{SignCommand()}, ExitErrHandler: func(*cli.Context, error) {}}
		err := app.Run(append([]string{"app", "sign-url"}, args...))
		return strings.TrimSpace(out.String()), err
	}
	made, err := sign("--key", "k", "--secret-env", "SIGNING_SECRET", "--for", "1h", s.url+"/api/customer/a%2Fb?fields=traits.plan#top")
	require.NoError(t, err)
	u, err := url.Parse(made)
	require.NoError(t, err)
	require.Equal(t, 200, s.do(t, "GET", u.RequestURI(), "").status)

	for want, args := range map[string][]string{
		"must hold the secret": {"--key", "k", "--secret-env", "SHORT", "/api/customer/1"},
		"longer than zero":     {"--key", "k", "--secret-env", "SIGNING_SECRET", "--for", "-1h", "/api/customer/1"},
		"letters, digits":      {"--key", "k k", "--secret-env", "SIGNING_SECRET", "/api/customer/1"},
		"give one address":     {"--key", "k", "--secret-env", "SIGNING_SECRET"},
		"not an address":       {"--key", "k", "--secret-env", "SIGNING_SECRET", made},
	} {
		out, err := sign(args...)
		require.ErrorContains(t, err, want)
		require.NotContains(t, out, secret)
	}
}
