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

	// maxIdentifiers limits the index entries of each record.
	maxIdentifiers = 8
)

// identifierFields returns the fields for identifiers.
func identifierFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewObjectListField(fieldIdentifiers,
			service.NewStringField(fieldName).
				Description("Name of the identifier in requests, as in `?by=email`: lower-case letters, digits and underscores, beginning with a letter.").
				Example("email").
				LintRule(`root = if !this.re_match("^[a-z][a-z0-9_]*$") { [ "name must be lower-case letters, digits and underscores and begin with a letter, such as email" ] } else if this == "id" { [ "name must not be id: customers can be read by id without an identifier" ] }`),
			service.NewStringField(fieldTrait).
				Description("Trait that has the value, a text or a number. A text of more than 256 bytes counts as missing.").
				Example("email").
				LintRule(`root = if this == "" { [ "trait must name a trait, such as email" ] }`),
			service.NewStringAnnotatedEnumField(fieldMatch, map[string]string{
				matchExact:      "Values must be equal.",
				matchIgnoreCase: "Upper and lower case are equal, and blanks around a value are ignored.",
			}).Description("How values are compared.").Default(matchExact),
		).Description("Traits by which the profile API can look up customers, besides their ids: at most 8. A lookup uses the current value of the trait. A value that several customers share is ambiguous, and the lookup returns none of them.").
			Default([]any{}).
			Example([]any{map[string]any{"name": "email", "trait": "email", "match": matchIgnoreCase}}),
	}
}

// identifierError is a mistake in an identifier.
type identifierError struct {
	identifier int // position in the definition
	err        error
}

func (e *identifierError) Error() string {
	return fmt.Sprintf("identifier %d: %v", e.identifier+1, e.err)
}

// parseIdentifiers parses the identifiers of a definition, in order of name.
func parseIdentifiers(conf *service.ParsedConfig) (record.Identifiers, error) {
	items, err := conf.FieldObjectList(fieldIdentifiers)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	var ids record.Identifiers
	var errs []error
	for n, item := range items {
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
		case n == maxIdentifiers:
			errs = append(errs, &identifierError{n, fmt.Errorf("there are more than %d; remove some, each adds to every profile", maxIdentifiers)})
		case slices.Contains(ids.Names(), i.Name):
			errs = append(errs, &identifierError{n, fmt.Errorf("the name %q is used twice; give each identifier its own name", i.Name)})
		}
		ids = append(ids, i)
	}
	slices.SortFunc(ids, func(a, b record.Identifier) int { return strings.Compare(a.Name, b.Name) })
	return ids, errors.Join(errs...)
}
