// Package configspec parses and lints the YAML files that configs refer to, such as
// profile definitions and expectation suites, with config specs of their own, so that
// their errors have lines as those of configs do.
package configspec

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// Spec is the config spec of a kind of file.
type Spec struct {
	what   string
	fields func() []*service.ConfigField
	schema func() (*service.ConfigSchema, error)
	// advisor extends the messages of the engine's linter.
	advisor func() (*Advisor, error)
}

// New returns the spec of a kind of file, called what in messages. fields is called when
// a file is read, because lint rules depend on registered plugins.
func New(what string, fields func() []*service.ConfigField) *Spec {
	s := &Spec{what: what, fields: fields, schema: sync.OnceValues(func() (*service.ConfigSchema, error) {
		// A schema with these fields only.
		schema, err := service.ConfigSchemaFromJSONV0([]byte(`{}`))
		if err != nil {
			return nil, err
		}
		schema.SetEnvironment(service.GlobalEnvironment())
		return schema.Fields(fields()...), nil
	})}
	s.advisor = sync.OnceValues(func() (*Advisor, error) {
		schema, err := s.schema()
		if err != nil {
			return nil, err
		}
		text, err := schema.MarshalJSONV0()
		if err != nil {
			return nil, err
		}
		return NewAdvisor(text)
	})
	return s
}

// advise extends the messages of findings by what to write instead.
func (s *Spec) advise(text []byte, findings []finding.Finding) []finding.Finding {
	advisor, err := s.advisor()
	if err != nil {
		return findings
	}
	for i := range findings {
		findings[i].Line, findings[i].Message = advisor.Advise(text, findings[i].Line, findings[i].Message)
	}
	return findings
}

// File is a parsed file without lints.
type File struct {
	Conf *service.ParsedConfig
	root yaml.Node
}

// Read parses a file. Without a File there is at least one lint; the error is
// for a file that cannot be read.
func (s *Spec) Read(path string) (*File, []finding.Finding, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s file: %w", s.what, err)
	}
	f := &File{}
	if err := yaml.Unmarshal(text, &f.root); err != nil {
		return nil, s.advise(text, unreadable(path, err)), nil
	}
	schema, err := s.schema()
	if err != nil {
		return nil, nil, err
	}
	lints, err := schema.NewStreamConfigLinter().SetSkipEnvVarCheck(true).LintYAML(text)
	if err != nil {
		return nil, s.advise(text, unreadable(path, err)), nil
	}
	if len(lints) > 0 {
		findings := make([]finding.Finding, len(lints))
		for i, l := range lints {
			findings[i] = finding.Finding{File: path, Line: l.Line, Column: l.Column, Message: l.What}
		}
		return nil, s.advise(text, findings), nil
	}
	if f.Conf, err = service.NewConfigSpec().Fields(s.fields()...).ParseYAML(string(text), nil); err != nil {
		return nil, s.advise(text, unreadable(path, err)), nil
	}
	return f, nil, nil
}

func unreadable(path string, err error) []finding.Finding {
	return []finding.Finding{{File: path, Line: 1, Message: err.Error()}}
}

// Items returns the YAML nodes of a top-level list.
func (f *File) Items(key string) []*yaml.Node {
	if len(f.root.Content) == 0 {
		return nil
	}
	list := Member(f.root.Content[0], key)
	if list == nil {
		return nil
	}
	items := slices.Clone(list.Content)
	for i, item := range items {
		if item.Kind == yaml.AliasNode {
			items[i] = item.Alias
		}
	}
	return items
}

// Member returns the value of a key in a mapping, nil if there is none.
func Member(node *yaml.Node, key string) *yaml.Node {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for at := 0; at+1 < len(node.Content); at += 2 {
		if node.Content[at].Value == key {
			return node.Content[at+1]
		}
	}
	return nil
}

// Findings converts an error to findings in the file at path, one for each error that
// it joins. line returns the line of an error.
func Findings(path string, err error, line func(error) int) []finding.Finding {
	var findings []finding.Finding
	for _, e := range flatten(err) {
		findings = append(findings, finding.Finding{File: path, Line: line(e), Message: e.Error()})
	}
	return findings
}

// flatten lists the errors that err joins.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}
