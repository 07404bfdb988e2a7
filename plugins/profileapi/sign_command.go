package profileapi

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"
)

var keyName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// SignCommand is the command that signs addresses.
func SignCommand() *cli.Command {
	return &cli.Command{
		Name:      "sign-url",
		Usage:     "Sign an address of the profile API, for platforms that cannot send headers",
		ArgsUsage: "ADDRESS",
		Description: `Prints the address with an expiry and a signature by one of the signing_keys of a
profile_api. The secret is read from the environment.

  connect-personalize sign-url --key newsletter-2026 --secret-env NEWSLETTER_SIGNING_SECRET \\
    --for 720h https://profiles.example.com/api/customer/42/content/hero`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Required: true, Usage: "the name of the signing key"},
			&cli.StringFlag{Name: "secret-env", Required: true, Usage: "the environment variable that holds its secret"},
			&cli.DurationFlag{Name: "for", Value: 30 * 24 * time.Hour, Usage: "how long the address is good for"},
		},
		Action: func(c *cli.Context) error {
			signed, err := signAddress(c.Args().Slice(), c.String("key"), os.Getenv(c.String("secret-env")), c.Duration("for"))
			if err != nil {
				return cli.Exit(err, 1)
			}
			_, err = fmt.Fprintln(c.App.Writer, signed)
			return err
		},
	}
}

func signAddress(args []string, key, secret string, lasts time.Duration) (*url.URL, error) {
	switch {
	case len(args) != 1:
		return nil, errors.New("give one address, such as https://profiles.example.com/api/customer/42/content/hero")
	case len(secret) < minSecret:
		return nil, fmt.Errorf("the variable that --secret-env names must hold the secret of the key, of %d characters or more", minSecret)
	case !keyName.MatchString(key):
		return nil, errors.New("--key is a name of letters, digits, dots and dashes, such as newsletter-2026")
	case lasts <= 0:
		return nil, errors.New("--for must be longer than zero, such as 720h")
	}
	address, err := url.Parse(args[0])
	if err != nil || address.Path == "" || isSigned(address) {
		return nil, errors.New("the argument is not an address to sign, such as https://profiles.example.com/api/customer/42/content/hero")
	}
	address.Fragment = ""
	return SignURL(address, key, []byte(secret), time.Now().Add(lasts)), nil
}
