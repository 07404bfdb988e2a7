package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan"
)

// A definition says what it wants of events, and a plan what events have. The
// two meet in the pipeline that names both; what is in one and not in the other
// is null for ever, and no event would ever show it.

// agreement lints the profile definitions and the enrichments of pipelines
// against the tracking plans of the same pipelines. A file that cannot be read
// is left to the linters of its kind.
func agreement(pipelines []string) []Lint {
	var lints []Lint
	seen := map[string]bool{}
	for _, path := range pipelines {
		root, ok := readYAML(path)
		if !ok {
			continue
		}
		c := checker{open: false}
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
				c.enriched(value)
			}
		})
		if len(c.plans) == 0 {
			continue
		}
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
		for _, l := range c.lints {
			if text := l.Path + l.Error(); !seen[text] {
				seen[text] = true
				lints = append(lints, l)
			}
		}
	}
	return lints
}

// checker holds parts of files against the plans of a pipeline.
type checker struct {
	plans []*trackingplan.Plan
	// traits are those that enrichments write; open tells that it cannot be
	// told which.
	traits []string
	open   bool

	file  string
	lints []Lint
}

func (c *checker) plan(path string) {
	if plan, err := trackingplan.Load(path); err == nil {
		c.plans = append(c.plans, plan)
	}
}

var assigned = regexp.MustCompile(`\broot\.([A-Za-z_][A-Za-z0-9_]*)`)
var assignedWhole = regexp.MustCompile(`(?m)^\s*root\s*=`)

// enriched notes the traits that an enrichment writes.
func (c *checker) enriched(node *yaml.Node) {
	mapping := child(child(node, "traits"), "mapping")
	if mapping == nil {
		return
	}
	c.open = c.open || assignedWhole.MatchString(mapping.Value)
	for _, m := range assigned.FindAllStringSubmatch(mapping.Value, -1) {
		c.traits = append(c.traits, m[1])
	}
}

func (c *checker) errorf(at *yaml.Node, format string, args ...any) {
	c.lints = append(c.lints, Lint{c.file, service.Lint{Line: at.Line, Column: at.Column, Type: service.LintCustom, What: fmt.Sprintf(format, args...)}})
}

func (c *checker) named() string {
	names := make([]string, len(c.plans))
	for i, p := range c.plans {
		names[i] = strings.TrimSpace(p.Name + " " + p.Version)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " and ")
}

// definition checks the lists of features, segments and triggers by name.
func (c *checker) definition(root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		what, list := strings.TrimSuffix(root.Content[i].Value, "s"), follow(root.Content[i+1])
		if list.Kind != yaml.SequenceNode {
			continue
		}
		for _, item := range list.Content {
			item = follow(item)
			about := what + ": "
			if name := child(item, "name"); name != nil {
				about = fmt.Sprintf("%s %q: ", what, name.Value)
			}
			c.node(item, about, nil)
		}
	}
}

var (
	eventPath = regexp.MustCompile(`\bthis((?:\.[A-Za-z_][A-Za-z0-9_]*)+)(\()?`)
	traitName = regexp.MustCompile(`\btraits\.([A-Za-z_][A-Za-z0-9_]*)(\()?`)
)

// node checks a mapping and those inside of it. Paths are of the events that
// the nearest list of events names, or of any event.
func (c *checker) node(n *yaml.Node, about string, events []string) {
	n = follow(n)
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			c.node(item, about, events)
		}
		return
	case yaml.MappingNode:
	default:
		return
	}
	if list := child(n, "events"); list != nil && list.Kind == yaml.SequenceNode {
		events = nil
		for _, item := range list.Content {
			if item = follow(item); item.Kind == yaml.ScalarNode && c.event(item, about) {
				events = append(events, item.Value)
			}
		}
		if len(events) == 0 && len(list.Content) > 0 {
			return // nothing can be said of the properties of no event
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, follow(n.Content[i+1])
		switch {
		case value.Kind != yaml.ScalarNode && key == "weights":
			for j := 0; j+1 < len(value.Content); j += 2 {
				c.event(value.Content[j], about)
			}
		case value.Kind != yaml.ScalarNode:
			c.node(value, about, events)
		case value.Value == "":
		case key == "of" || key == "by":
			c.path(value, about, value.Value, events)
		case key == "where" || key == "key":
			for _, m := range eventPath.FindAllStringSubmatch(value.Value, -1) {
				c.path(value, about, beforeCall(m[1][1:], m[2] != ""), events)
			}
		case key == "trait":
			c.trait(value, about, value.Value)
		case key == "when" || key == "data":
			for _, m := range traitName.FindAllStringSubmatch(value.Value, -1) {
				if m[2] == "" {
					c.trait(value, about, m[1])
				}
			}
		}
	}
}

// beforeCall is a path without the method that is called on it.
func beforeCall(path string, called bool) string {
	if !called {
		return path
	}
	dot := strings.LastIndexByte(path, '.')
	return path[:max(dot, 0)]
}

// event tells whether a plan has the event that a node names.
func (c *checker) event(at *yaml.Node, about string) bool {
	var names []string
	for _, p := range c.plans {
		if p.HasEvent(at.Value) {
			return true
		}
		names = append(names, p.EventNames()...)
	}
	c.errorf(at, "%sthe tracking plan %s has no event %q%s", about, c.named(), at.Value, spelling.Hint(at.Value, names))
	return false
}

// path tells whether one of the events at least has something there.
func (c *checker) path(at *yaml.Node, about, path string, events []string) {
	hint := ""
	for _, p := range c.plans {
		of := events
		if len(of) == 0 {
			of = p.EventNames()
		}
		for _, event := range of {
			found, nearest := p.Find(event, path)
			if found {
				return
			}
			if hint == "" && nearest != "" {
				hint = fmt.Sprintf("; did you mean %s?", nearest)
			}
		}
	}
	whose := "any event"
	if len(events) > 0 {
		whose = strings.Join(events, ", ")
	}
	c.errorf(at, "%sthe tracking plan %s has no %s of %s%s", about, c.named(), path, whose, hint)
}

// trait tells whether identify events, or an enrichment, state the trait.
func (c *checker) trait(at *yaml.Node, about, name string) {
	if c.open || slices.Contains(c.traits, name) {
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
	c.errorf(at, "%sthe tracking plan %s has no trait %q of identify events%s", about, c.named(), name, hint)
}

// readYAML returns the top of a YAML file.
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

func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// child returns a member of a mapping, nil if there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

// walkKeys visits the members of every mapping.
func walkKeys(n *yaml.Node, visit func(key string, value *yaml.Node)) {
	for i, item := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			visit(n.Content[i-1].Value, follow(item))
		}
		walkKeys(item, visit)
	}
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}`)

// resolve puts environment variables, or their defaults, into a text.
func resolve(text string) string {
	return variable.ReplaceAllStringFunc(text, func(ref string) string {
		m := variable.FindStringSubmatch(ref)
		if value, ok := os.LookupEnv(m[1]); ok && value != "" {
			return value
		}
		return m[2]
	})
}
