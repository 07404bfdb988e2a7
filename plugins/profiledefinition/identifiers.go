package profiledefinition

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

const (
	fieldIdentifiers = "identifiers"
	fieldMatch       = "match"

	matchExact      = "exact"
	matchIgnoreCase = "ignore_case"

	// maxIdentifiers bounds what every record pays for.
	maxIdentifiers = 8
)

// identifierFields describes the part of a definition that is about
// identifiers.
func identifierFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewObjectListField(fieldIdentifiers,
			service.NewStringField(fieldName).
				Description("What it is asked for by, as in `?by=email`: lower-case letters, digits and underscores, beginning with a letter.").
				Example("email").
				LintRule(`root = if !this.re_match("^[a-z][a-z0-9_]*$") { [ "name must be lower-case letters, digits and underscores and begin with a letter, such as email" ] } else if this == "id" { [ "name must not be id: customers are found by their ids as it is" ] }`),
			service.NewStringField(fieldTrait).
				Description("The trait that has its value, a text or a number. A text of more than 256 bytes is as good as none.").
				Example("email").
				LintRule(`root = if this == "" { [ "trait must name a trait, such as email" ] }`),
			service.NewStringAnnotatedEnumField(fieldMatch, map[string]string{
				matchExact:      "A value is found as it was stated.",
				matchIgnoreCase: "Upper and lower case are the same, and blanks around a value do not count.",
			}).Description("Which values are the same.").Default(matchExact),
		).Description("Traits by which the profile API finds customers, besides their ids: at most 8. A customer is found by the value the trait has now. A value that several customers have finds none of them.").
			Default([]any{}).
			Example([]any{map[string]any{"name": "email", "trait": "email", "match": matchIgnoreCase}}),
	}
}

// identifierError is what is wrong with an identifier.
type identifierError struct {
	at  int // position in the definition
	err error
}

func (e *identifierError) Error() string {
	return fmt.Sprintf("identifier %d: %v", e.at+1, e.err)
}

// parseIdentifiers reads what identifierFields describes.
func parseIdentifiers(conf *service.ParsedConfig) (record.Identifiers, error) {
	items, err := conf.FieldObjectList(fieldIdentifiers)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	var ids record.Identifiers
	var errs []error
	for at, item := range items {
		var i record.Identifier
		var match string
		for _, field := range []struct {
			name string
			into *string
		}{{fieldName, &i.Name}, {fieldTrait, &i.Trait}, {fieldMatch, &match}} {
			if *field.into, err = item.FieldString(field.name); err != nil {
				return nil, err
			}
		}
		i.IgnoreCase = match == matchIgnoreCase
		switch {
		case at == maxIdentifiers:
			errs = append(errs, &identifierError{at, fmt.Errorf("there are more than %d; every profile pays for each", maxIdentifiers)})
		case slices.Contains(ids.Names(), i.Name):
			errs = append(errs, &identifierError{at, fmt.Errorf("there is another of the name %q; give each a name of its own", i.Name)})
		}
		ids = append(ids, i)
	}
	slices.SortFunc(ids, func(a, b record.Identifier) int { return strings.Compare(a.Name, b.Name) })
	return ids, errors.Join(errs...)
}
