package profiledefinition

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInvalidIdentifiersAreRejected(t *testing.T) {
	many := "identifiers:\n"
	for i := range 9 {
		many += fmt.Sprintf("  - { name: n%d, trait: t%d }\n", i, i)
	}
	for _, c := range []struct{ text, want string }{
		{"identifiers:\n  - { name: email, trait: email }\n  - { name: email, trait: mail }\n", `:12: identifier 2: the name "email" is used twice`},
		{many, ":19: identifier 9: there are more than 8"},
		{"identifiers:\n  - { name: E-Mail, trait: email }\n", ":11: name must be lower-case letters, digits and underscores and begin with a letter, such as email"},
		{"identifiers:\n  - { name: id, trait: email }\n", ":11: name must not be id"},
		{"identifiers:\n  - { name: email, trait: '' }\n", ":11: trait must name a trait"},
		{"identifiers:\n  - { name: email }\n", "trait"},
		{"identifiers:\n  - { name: email, trait: email, match: fuzzy }\n", "fuzzy"},
		{"identifiers:\n  - { name: email, trait: email, matches: exact }\n", "matches"},
		{"identifiers: email\n", ":10: expected array value"},
	} {
		_, err := Read(writeDefinition(t, shop+c.text))
		require.ErrorContains(t, err, c.want)
	}
}
