package trackingplan

import (
	"errors"
	"strings"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// strictEmail is the library's email format without addresses that have an empty local
// part, which the library accepts and no mail server does.
var strictEmail = func() *jsonschema.Format {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("email.json", map[string]any{"format": "email"}); err != nil {
		panic(err)
	}
	library := c.MustCompile("email.json").Format
	return &jsonschema.Format{
		Name: library.Name,
		Validate: func(v any) error {
			if s, ok := v.(string); ok && strings.HasPrefix(s, "@") {
				return errors.New("nothing before the @")
			}
			return library.Validate(v)
		},
	}
}()

// internationalEmail is the format idn-email (RFC 6531): an email address whose parts may
// have letters beyond ASCII. Such a letter counts as one of ASCII; all else is as in
// strictEmail.
var internationalEmail = &jsonschema.Format{
	Name: "idn-email",
	Validate: func(v any) error {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		return strictEmail.Validate(strings.Map(func(r rune) rune {
			if r > unicode.MaxASCII && unicode.In(r, unicode.L, unicode.M, unicode.N) {
				return 'x'
			}
			return r
		}, s))
	},
}
