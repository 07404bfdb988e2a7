package profiles

import (
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/content"
	"github.com/connect-personalize/connect-personalize/plugins/profile"
)

// ContentNames tells content blocks what the profiles of a definition file
// have, nothing if the path is empty.
func ContentNames(path string) (content.Names, error) {
	if path == "" {
		return content.Names{}, nil
	}
	def, err := ReadDefinition(path)
	if err != nil {
		return content.Names{}, fmt.Errorf("%s cannot be read, or is not correct; lint it by itself", path)
	}
	return NamesOf(def.Definition), nil
}

// NamesOf tells content blocks what the profiles of a definition have.
func NamesOf(def *profile.Definition) content.Names {
	names := content.Names{Features: []string{}}
	for i := range def.Features.Features {
		names.Features = append(names.Features, def.Features.Features[i].Name)
	}
	return names
}
