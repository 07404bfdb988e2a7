package lint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// JSONSchema is the kind of a JSON Schema written in YAML. It is recognised by
// its $schema or $id.
func JSONSchema() Kind {
	return Kind{
		Name:      "JSON Schema",
		Recognise: func(keys Keys) bool { return keys.Any("$schema", "$id") },
		Lint:      lintJSONSchema,
	}
}

func lintJSONSchema(path string) ([]Lint, error) {
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
	what := err.Error()
	if errors.As(err, &broken) {
		what = fmt.Sprintf("not a valid JSON Schema: %v", broken.Err)
	}
	return []Lint{{path, service.Lint{Line: 1, Column: 1, Type: service.LintCustom, What: what}}}, nil
}

// yamlLoader reads schemas from files, JSON being YAML as well. It never
// fetches from the network.
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
