// Package signurl provides the command sign-url, which signs URLs of the profile API.
package signurl

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/signedurl"
)

var keyName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// Command returns the command of the binary with this name.
func Command(binary string) *cli.Command {
	return &cli.Command{
		Name:      "sign-url",
		Usage:     "Sign a URL of the profile API, for platforms that cannot send headers",
		ArgsUsage: "URL",
		Description: `Prints the URL with an expiry and a signature by one of the signing_keys of a
profile_api. The secret is read from the environment.

  ` + binary + ` sign-url --key newsletter-2026 --secret-env NEWSLETTER_SIGNING_SECRET \
    --for 720h https://profiles.example.com/api/customer/42/content/hero`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Required: true, Usage: "the name of the signing key"},
			&cli.StringFlag{Name: "secret-env", Required: true, Usage: "the environment variable that contains its secret"},
			&cli.DurationFlag{Name: "for", Value: 30 * 24 * time.Hour, Usage: "how long the URL is valid"},
		},
		Action: func(c *cli.Context) error {
			signed, err := sign(c.Args().Slice(), c.String("key"), os.Getenv(c.String("secret-env")), c.Duration("for"))
			if err != nil {
				return cli.Exit(err, 1)
			}
			_, err = fmt.Fprintln(c.App.Writer, signed)
			return err
		},
	}
}

func sign(args []string, key, secret string, validity time.Duration) (*url.URL, error) {
	switch {
	case len(args) != 1:
		return nil, errors.New("give one URL, such as https://profiles.example.com/api/customer/42/content/hero")
	case len(secret) < signedurl.MinSecret:
		return nil, fmt.Errorf("the environment variable in --secret-env must contain the secret of the key, of %d characters or more", signedurl.MinSecret)
	case !keyName.MatchString(key):
		return nil, errors.New("--key is a name of letters, digits, dots and dashes, such as newsletter-2026")
	case validity <= 0:
		return nil, errors.New("--for must be longer than zero, such as 720h")
	}
	u, err := url.Parse(args[0])
	if err != nil || u.Path == "" || signedurl.IsSigned(u) {
		return nil, errors.New("the argument cannot be signed: write a URL such as https://profiles.example.com/api/customer/42/content/hero")
	}
	u.Fragment = ""
	return signedurl.Sign(u, key, []byte(secret), time.Now().Add(validity)), nil
}
