package cleaning

import (
	"regexp"
	"strings"
)

// The faults of an identifier.
var errIdentifier = &Fault{"identifier", "is not of the form that identifiers have"}

// Identifiers brings identifiers such as product numbers, which people and
// systems write in many ways, into one form.
type Identifiers struct {
	pattern *regexp.Regexp
	form    string
}

// NewIdentifiers takes the pattern (RE2) that an identifier matches as a whole,
// once it is in upper case and without white space, and the form to write it in,
// with $1 or ${name} for the groups of the pattern; as it is if that is empty.
func NewIdentifiers(pattern, form string) (*Identifiers, error) {
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		return nil, err
	}
	return &Identifiers{re, form}, nil
}

// Clean returns the identifier in its form.
func (i *Identifiers) Clean(s string) (string, error) {
	if len(s) > maxLength {
		return "", errLong
	}
	s = strings.ToUpper(strings.ReplaceAll(Text(s, TextOptions{}), " ", ""))
	if s == "" {
		return "", errEmpty
	}
	groups := i.pattern.FindStringSubmatchIndex(s)
	if groups == nil {
		return "", errIdentifier
	}
	if i.form == "" {
		return s, nil
	}
	return string(i.pattern.ExpandString(nil, i.form, s, groups)), nil
}
