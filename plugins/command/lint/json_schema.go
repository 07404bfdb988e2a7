package lint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// lintJSONSchema compiles a JSON Schema that is written in YAML.
func lintJSONSchema(path string) ([]finding.Finding, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(jsonschema.SchemeURLLoader{"file": yamlLoader{}})
	_, err = compiler.Compile("file://" + filepath.ToSlash(abs))
	if err == nil {
		return nil, nil
	}
	var broken *jsonschema.SchemaValidationError
	message := err.Error()
	if errors.As(err, &broken) {
		message = fmt.Sprintf("not a valid JSON Schema: %v", broken.Err)
	}
	return []finding.Finding{{File: path, Line: 1, Message: message}}, nil
}

// yamlLoader reads schemas from files; JSON is a subset of YAML. It never reads from
// the network.
type yamlLoader struct{}

func (yamlLoader) Load(url string) (any, error) {
	path, err := jsonschema.FileLoader{}.ToFile(url)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var doc any
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	return doc, nil
}
