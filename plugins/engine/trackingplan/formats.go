package trackingplan

import (
	"errors"
	"strings"

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
