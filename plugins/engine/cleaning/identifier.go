package cleaning

import (
	"regexp"
	"strings"
)

var errIdentifier = &Fault{"identifier", "does not match the pattern of identifiers"}

// Identifiers normalises identifiers, such as product numbers, that arrive in
// several notations.
type Identifiers struct {
	pattern *regexp.Regexp
	form    string
}

// NewIdentifiers compiles a pattern (RE2) and a form. The pattern must match the
// whole identifier after it was converted to upper case and stripped of white
// space. The form is the result, with $1 or ${name} for groups of the pattern;
// an empty form keeps the identifier.
func NewIdentifiers(pattern, form string) (*Identifiers, error) {
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		return nil, err
	}
	return &Identifiers{re, form}, nil
}

// Clean returns the normal form of an identifier.
func (i *Identifiers) Clean(s string) (string, error) {
	if len(s) > maxLength {
		return "", errLong
	}
	s = strings.ToUpper(strings.ReplaceAll(asciiDigits(Text(s, TextOptions{})), " ", ""))
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
