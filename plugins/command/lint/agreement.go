package lint

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
)

// Definitions and enrichments name the events, properties and traits they need; a
// tracking plan lists those that exist. A name that only one side has gives null
// forever, and no event would ever reveal it. For example
//
//	features: [ { name: revenue, sum: { events: [Order Completed], of: properties.totl } } ]
//
// beside a plan whose event Order Completed has properties.total is a finding.

// agreement checks the profile definitions and enrichments of pipelines against the
// tracking plans of the same pipelines. It skips unreadable files: the linters of
// their kinds report those.
func agreement(pipelines []string) []finding.Finding {
	var findings []finding.Finding
	seen := map[finding.Finding]bool{}
	for _, path := range pipelines {
		root, ok := readYAML(path)
		if !ok {
			continue
		}
		var c checker
		var definitions []string
		walkKeys(root, func(key string, value *yaml.Node) {
			switch {
			case key == "validate_event":
				if plan := child(value, "plan"); plan != nil {
					c.plan(resolve(plan.Value))
				}
			case key == "profiles" && value.Kind == yaml.SequenceNode:
				for _, item := range value.Content {
					if definition := child(item, "definition"); definition != nil {
						definitions = append(definitions, filepath.Clean(resolve(definition.Value)))
					}
				}
			case strings.HasPrefix(key, "enrich"):
				c.enrichment(value)
			}
		})
		walkKeys(root, func(key string, value *yaml.Node) {
			if strings.HasPrefix(key, "enrich") {
				c.file = path
				c.node(value, fmt.Sprintf("%s: ", key), nil)
			}
		})
		for _, definition := range definitions {
			if node, ok := readYAML(definition); ok {
				c.file = definition
				c.definition(node)
			}
		}
		for _, f := range c.findings {
			if !seen[f] {
				seen[f] = true
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// CheckDefinition returns the events, properties and traits that the profile
// definition at path needs and plan does not have.
func CheckDefinition(path string, plan *trackingplan.Plan) ([]finding.Finding, error) {
	root, ok := readYAML(path)
	if !ok {
		return nil, fmt.Errorf("%s: is no YAML file that can be read", path)
	}
	c := checker{plans: []*trackingplan.Plan{plan}, file: path}
	c.definition(root)
	return c.findings, nil
}

// checker checks files against the tracking plans of a pipeline.
type checker struct {
	plans []*trackingplan.Plan
	// enriched are the traits that enrichments set. It is incomplete if anyTrait is
	// set, because a mapping then assigns its whole result.
	enriched []string
	anyTrait bool
	// results are the values that enrichments add to context.enrichment, by name; a nil
	// set stands for an enrichment whose mapping assigns its whole result.
	results map[string]map[string]bool

	file     string // the file that is checked
	findings []finding.Finding
}

func (c *checker) plan(path string) {
	if plan, err := trackingplan.Load(path); err == nil {
		c.plans = append(c.plans, plan)
	}
}

var assigned = regexp.MustCompile(`\broot\.([A-Za-z_][A-Za-z0-9_]*)`)
var assignedWhole = regexp.MustCompile(`(?m)^\s*root\s*=`)

// enrichment records the traits and the values that an enrichment sets.
func (c *checker) enrichment(node *yaml.Node) {
	if name := child(node, "name"); name != nil {
		if c.results == nil {
			c.results = map[string]map[string]bool{}
		}
		var set map[string]bool
		if result := child(node, "result"); result != nil && !assignedWhole.MatchString(result.Value) {
			set = map[string]bool{}
			for _, m := range assigned.FindAllStringSubmatch(result.Value, -1) {
				set[m[1]] = true
			}
		}
		c.results[resolve(name.Value)] = set
	}
	mapping := child(child(node, "traits"), "mapping")
	if mapping == nil {
		return
	}
	c.anyTrait = c.anyTrait || assignedWhole.MatchString(mapping.Value)
	for _, m := range assigned.FindAllStringSubmatch(mapping.Value, -1) {
		c.enriched = append(c.enriched, m[1])
	}
}

func (c *checker) errorf(node *yaml.Node, format string, args ...any) {
	c.findings = append(c.findings, finding.Finding{File: c.file, Line: node.Line, Column: node.Column, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) planNames() string {
	names := make([]string, len(c.plans))
	for i, p := range c.plans {
		names[i] = strings.TrimSpace(p.Name + " " + p.Version)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " and ")
}

// definition checks the features, segments and triggers of a profile definition.
func (c *checker) definition(root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		kind, list := strings.TrimSuffix(root.Content[i].Value, "s"), resolveAlias(root.Content[i+1])
		if list.Kind == yaml.MappingNode && root.Content[i].Value == "messages" {
			c.node(list, "messages: ", nil)
			continue
		}
		if list.Kind != yaml.SequenceNode {
			continue
		}
		for _, item := range list.Content {
			item = resolveAlias(item)
			subject := kind + ": "
			if name := child(item, "name"); name != nil {
				subject = fmt.Sprintf("%s %q: ", kind, name.Value)
			}
			c.node(item, subject, nil)
		}
	}
}

var (
	eventPath = regexp.MustCompile(`\bthis((?:\.[A-Za-z_][A-Za-z0-9_]*)+)(\()?`)
	traitName = regexp.MustCompile(`\btraits\.([A-Za-z_][A-Za-z0-9_]*)(\()?`)
)

// node checks a mapping and the mappings inside it. Paths refer to the events of the
// nearest enclosing events list, or to any event without one.
func (c *checker) node(n *yaml.Node, subject string, events []string) {
	n = resolveAlias(n)
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			c.node(item, subject, events)
		}
		return
	case yaml.MappingNode:
	default:
		return
	}
	if list := child(n, "events"); list != nil && list.Kind == yaml.SequenceNode {
		events = nil
		for _, item := range list.Content {
			if item = resolveAlias(item); item.Kind == yaml.ScalarNode && c.event(item, subject) {
				events = append(events, item.Value)
			}
		}
		if len(events) == 0 && len(list.Content) > 0 {
			return // properties of unknown events cannot be checked
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, resolveAlias(n.Content[i+1])
		switch {
		case key == "ratio" || key == "rfm":
			// They name features, not values of events.
		case value.Kind != yaml.ScalarNode && key == "weights":
			for j := 0; j+1 < len(value.Content); j += 2 {
				c.event(value.Content[j], subject)
			}
		case value.Kind != yaml.ScalarNode:
			if numeric[key] {
				c.numbers(key, value, subject)
			}
			c.node(value, subject, events)
		case value.Value == "":
		case key == "of" || key == "by":
			c.path(value, subject, value.Value, events)
		case key == "where" || key == "key":
			for _, m := range eventPath.FindAllStringSubmatch(value.Value, -1) {
				c.path(value, subject, beforeCall(m[1][1:], m[2] != ""), events)
			}
		case key == "trait":
			c.trait(value, subject, value.Value)
		case key == "when" || key == "data" || key == "consent" || key == "expression":
			for _, m := range traitName.FindAllStringSubmatch(value.Value, -1) {
				if m[2] == "" {
					c.trait(value, subject, m[1])
				}
			}
		}
	}
}

// numeric are the kinds of features that compute with numbers.
var numeric = map[string]bool{"sum": true, "avg": true, "min": true, "max": true, "stddev": true, "decayed_sum": true}

// numbers checks that a feature computes with numbers, and counts the total of an order
// only once.
func (c *checker) numbers(kind string, node *yaml.Node, subject string) {
	value, list := child(node, "of"), child(node, "events")
	if value == nil || list == nil {
		return
	}
	if by := child(node, "by"); by != nil && strings.Contains(by.Value, "[]") && !strings.Contains(value.Value, "[]") {
		c.errorf(value, "%s%s of %s by %s counts %s once for each element: write of as a path of the same elements, such as properties.products[].price",
			subject, kind, value.Value, by.Value, value.Value)
	}
	for _, p := range c.plans {
		for _, item := range list.Content {
			types := p.Types(item.Value, value.Value)
			if len(types) > 0 && !slices.Contains(types, "number") && !slices.Contains(types, "integer") {
				c.errorf(value, "%s%s computes with numbers, and %s of %s is a %s in the tracking plan %s: name a number, or count",
					subject, kind, value.Value, item.Value, strings.Join(types, " or "), c.planNames())
				return
			}
		}
	}
}

// enrichmentPath checks a path below context.enrichment against the enrichments of the
// pipeline. Without any there, another pipeline may enrich.
func (c *checker) enrichmentPath(node *yaml.Node, subject, path string) {
	keys := strings.Split(path, ".")
	if len(c.results) == 0 || len(keys) < 3 || keys[0] != "context" || keys[1] != "enrichment" {
		return
	}
	set, known := c.results[keys[2]]
	if !known {
		c.errorf(node, "%sno enrichment of the pipeline is named %q%s", subject, keys[2], spelling.Hint(keys[2], slices.Sorted(maps.Keys(c.results))))
		return
	}
	if len(keys) > 3 && set != nil && !set[keys[3]] {
		c.errorf(node, "%sthe enrichment %q sets no %s%s", subject, keys[2], keys[3], spelling.Hint(keys[3], slices.Sorted(maps.Keys(set))))
	}
}

// beforeCall returns path without its last segment if that is a method call.
func beforeCall(path string, isCall bool) string {
	if !isCall {
		return path
	}
	dot := strings.LastIndexByte(path, '.')
	return path[:max(dot, 0)]
}

// event reports whether a plan has the event that node names.
func (c *checker) event(node *yaml.Node, subject string) bool {
	if len(c.plans) == 0 {
		return true
	}
	var names []string
	for _, p := range c.plans {
		if p.HasEvent(node.Value) {
			return true
		}
		names = append(names, p.EventNames()...)
	}
	c.errorf(node, "%sthe tracking plan %s has no event %q%s", subject, c.planNames(), node.Value, spelling.Hint(node.Value, names))
	return false
}

// path checks that at least one of the events has a value at path.
func (c *checker) path(node *yaml.Node, subject, path string, events []string) {
	c.enrichmentPath(node, subject, path)
	if len(c.plans) == 0 {
		return
	}
	hint := ""
	for _, p := range c.plans {
		candidates := events
		if len(candidates) == 0 {
			candidates = p.EventNames()
		}
		for _, event := range candidates {
			found, nearest := p.Find(event, path)
			if found {
				return
			}
			if hint == "" && nearest != "" {
				hint = fmt.Sprintf("; did you mean %s?", nearest)
			}
		}
	}
	owner := "any event"
	if len(events) > 0 {
		owner = strings.Join(events, ", ")
	}
	c.errorf(node, "%sthe tracking plan %s has no %s of %s%s", subject, c.planNames(), path, owner, hint)
}

// trait checks that identify events or an enrichment set the trait.
func (c *checker) trait(node *yaml.Node, subject, name string) {
	if c.anyTrait || slices.Contains(c.enriched, name) {
		return
	}
	if len(c.plans) == 0 {
		return
	}
	hint := ""
	for _, p := range c.plans {
		if !p.HasEvent("identify") {
			return
		}
		found, nearest := p.Find("identify", "traits."+name)
		if found {
			return
		}
		if nearest != "" {
			hint = fmt.Sprintf("; did you mean %s?", nearest)
		}
	}
	c.errorf(node, "%sthe tracking plan %s has no trait %q of identify events%s", subject, c.planNames(), name, hint)
}

// readYAML returns the root node of a YAML file.
func readYAML(path string) (*yaml.Node, bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	var doc yaml.Node
	if yaml.Unmarshal(raw, &doc) != nil || len(doc.Content) == 0 {
		return nil, false
	}
	return doc.Content[0], true
}

func resolveAlias(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// child returns the value of a key in a mapping, nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	n = resolveAlias(n)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolveAlias(n.Content[i+1])
		}
	}
	return nil
}

// walkKeys visits the members of all mappings below n.
func walkKeys(n *yaml.Node, visit func(key string, value *yaml.Node)) {
	for i, item := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			visit(n.Content[i-1].Value, resolveAlias(item))
		}
		walkKeys(item, visit)
	}
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}`)

// resolve replaces the environment variables in text by their values or defaults.
func resolve(text string) string {
	return variable.ReplaceAllStringFunc(text, func(ref string) string {
		m := variable.FindStringSubmatch(ref)
		if value, ok := os.LookupEnv(m[1]); ok && value != "" {
			return value
		}
		return m[2]
	})
}
