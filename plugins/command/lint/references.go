package lint

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/profileapi"
)

// The engine's linter checks each field of a pipeline by itself. This file checks the
// references between fields, files and the environment, for example
//
//	profiles: [ { label: retail, … } ]
//	pipeline: { processors: [ { update_profile: { profiles: retial } } ] }

// references returns the broken references of a pipeline. It skips an unreadable file.
func references(path string) []finding.Finding {
	root, ok := readYAML(path)
	if !ok {
		return nil
	}
	r := reference{file: path}
	var labels []string
	isRoot := false
	if list := child(root, "profiles"); list != nil && list.Kind == yaml.SequenceNode {
		isRoot = true
		for _, item := range list.Content {
			if label := child(item, "label"); label != nil {
				labels = append(labels, resolve(label.Value))
			}
		}
	}
	walkKeys(root, func(key string, value *yaml.Node) {
		r.variables(value)
		switch {
		case key == "profiles" && value.Kind == yaml.ScalarNode && isRoot:
			if label := resolve(value.Value); label != "" && !slices.Contains(labels, label) {
				r.errorf(value, "no item of the top-level profiles has the label %q (labels: %s)%s", label, strings.Join(labels, ", "), spelling.Hint(label, labels))
			}
		case key == "enrich":
			r.table(value)
		case key == "tokens_file" && value.Kind == yaml.ScalarNode:
			r.tokens(resolve(value.Value))
		}
	})
	return r.findings
}

type reference struct {
	file        string
	findings    []finding.Finding
	environment []string // see known
}

func (r *reference) errorf(node *yaml.Node, format string, args ...any) {
	r.findings = append(r.findings, finding.Finding{File: r.file, Line: node.Line, Column: node.Column, Message: fmt.Sprintf(format, args...)})
}

// shippedVariables are the environment variables of the shipped configs; a test compares
// them.
var shippedVariables = []string{
	"BATCH_RECORDS", "CHANGES_TOPIC", "CONSUMER_GROUP", "DATA_DIR", "DEAD_LETTERS_TOPIC", "EVENTS_TOPIC", "HTTP_ADDRESS", "INSTANCE_ID",
	"KAFKA_CA_FILE", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_PASSWORD", "KAFKA_SASL_USERNAME", "KAFKA_SEEDS", "KAFKA_TLS", "PIPELINE_THREADS",
	"PROFILE_API_ADDRESS", "PROFILE_API_TOKENS", "PROFILE_DEFINITION", "PROFILE_DIR", "REDIS_CA_FILE", "REDIS_KIND", "REDIS_MASTER",
	"REDIS_PASSWORD", "REDIS_PREFIX", "REDIS_TLS", "REDIS_URL", "REDIS_USERNAME", "SHUTDOWN_TIMEOUT", "TRACKING_PLAN", "WRITE_KEY",
}

// variables checks the environment variables of a scalar: one that is unset and differs
// by a letter from a known one is probably misspelt, and its default would hide that.
func (r *reference) variables(node *yaml.Node) {
	if node.Kind != yaml.ScalarNode {
		return
	}
	for _, m := range variable.FindAllStringSubmatch(node.Value, -1) {
		name := m[1]
		if _, isSet := os.LookupEnv(name); isSet || slices.Contains(shippedVariables, name) {
			continue
		}
		if typo := spelling.Typo(name, r.known()); typo != "" {
			r.errorf(node, "the environment variable %s is not set; did you mean %s?", name, typo)
		}
	}
}

// known returns the names of the shipped variables and of those that are set.
func (r *reference) known() []string {
	if r.environment == nil {
		r.environment = slices.Clone(shippedVariables)
		for _, pair := range os.Environ() {
			name, _, _ := strings.Cut(pair, "=")
			r.environment = append(r.environment, name)
		}
	}
	return r.environment
}

var lookedUp = regexp.MustCompile(`\bthis\.value\.([A-Za-z_][A-Za-z0-9_]*)`)

// table checks the CSV file of an enrichment: that it exists, and has the columns that
// the enrichment reads.
func (r *reference) table(enrich *yaml.Node) {
	source := child(enrich, "csv")
	path := child(source, "path")
	if path == nil {
		return
	}
	if enabled := child(enrich, "enabled"); enabled != nil && resolve(enabled.Value) == "false" {
		return
	}
	raw, err := os.ReadFile(resolve(path.Value))
	if err != nil {
		r.errorf(path, "the CSV file %s cannot be read; write its path relative to the folder the command runs in", resolve(path.Value))
		return
	}
	columns, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")))).Read()
	if err != nil {
		return // the processor reports it with its own message
	}
	key := child(source, "key_column")
	if key != nil && !slices.Contains(columns, resolve(key.Value)) {
		r.errorf(key, "%s has no column %q%s", resolve(path.Value), key.Value, spelling.Hint(key.Value, columns))
	}
	for _, mapping := range []*yaml.Node{child(enrich, "result"), child(child(enrich, "traits"), "mapping")} {
		if mapping == nil {
			continue
		}
		for _, m := range lookedUp.FindAllStringSubmatch(mapping.Value, -1) {
			if !slices.Contains(columns, m[1]) {
				r.errorf(mapping, "%s has no column %q%s", resolve(path.Value), m[1], spelling.Hint(m[1], columns))
			}
		}
	}
}

// tokens checks the tokens file of a profile API.
func (r *reference) tokens(path string) {
	if path == "" {
		return
	}
	findings, err := profileapi.LintCredentials(path)
	if err != nil {
		findings = append(findings, finding.Finding{File: path, Line: 1, Message: err.Error()})
	}
	r.findings = append(r.findings, findings...)
}

// advice returns, for the messages of the engine's linter about a pipeline, what to
// write instead, where that is known.
func advice(path string) []finding.Finding {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	schema := service.GlobalEnvironment().FullConfigSchema("", "")
	lints, err := schema.NewStreamConfigLinter().SetSkipEnvVarCheck(true).LintYAML(text)
	if err != nil || len(lints) == 0 {
		return nil
	}
	raw, err := schema.MarshalJSONV0()
	if err != nil {
		return nil
	}
	advisor, err := configspec.NewAdvisor(raw)
	if err != nil {
		return nil
	}
	var findings []finding.Finding
	for _, l := range lints {
		if line, message := advisor.Advise(text, l.Line, l.What); message != l.What {
			findings = append(findings, finding.Finding{File: path, Line: line, Column: l.Column, Message: message})
		}
	}
	return findings
}

// unparsable returns a finding for a file that is not YAML, or has a key twice.
func unparsable(path string) []finding.Finding {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		line, message := (&configspec.Advisor{}).Advise(text, 1, err.Error())
		return []finding.Finding{{File: path, Line: line, Message: message}}
	}
	if line, key, ok := configspec.DuplicateKey(&doc); ok {
		return []finding.Finding{{File: path, Line: line, Message: fmt.Sprintf("the key %s is there twice in one object: remove one", key)}}
	}
	return nil
}
