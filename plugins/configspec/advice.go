package configspec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Advisor extends the messages of the engine's linter. The linter reports what its
// parsers met ("line 54: found character that cannot start any token"); the advisor adds
// what to write instead ("a tab cannot indent YAML: write spaces"). It knows the names
// and options of a schema.
type Advisor struct {
	// members are the sets of field names that occur together in an object.
	members []map[string]bool
	// options are the values of the enumerations, by field name.
	options map[string][]string
	// components are the names of components, by type such as "processor".
	components map[string][]string
}

// NewAdvisor returns the advisor of a schema in the form of
// service.ConfigSchema.MarshalJSONV0.
func NewAdvisor(schema []byte) (*Advisor, error) {
	var doc map[string]any
	if err := json.Unmarshal(schema, &doc); err != nil {
		return nil, err
	}
	a := &Advisor{options: map[string][]string{}, components: map[string][]string{}}
	for section, content := range doc {
		list, _ := content.([]any)
		if section == "config" {
			a.object(list)
			continue
		}
		if strings.HasPrefix(section, "bloblang") {
			continue
		}
		for _, item := range list {
			component, _ := item.(map[string]any)
			name, _ := component["name"].(string)
			kind := strings.ReplaceAll(strings.TrimSuffix(section, "s"), "-", "_")
			a.components[kind] = append(a.components[kind], name)
			a.field(component["config"])
		}
	}
	return a, nil
}

func (a *Advisor) object(children []any) {
	names := map[string]bool{}
	for _, c := range children {
		if field, ok := c.(map[string]any); ok {
			name, _ := field["name"].(string)
			names[name] = true
		}
		a.field(c)
	}
	if len(names) > 0 {
		a.members = append(a.members, names)
	}
}

func (a *Advisor) field(spec any) {
	field, ok := spec.(map[string]any)
	if !ok {
		return
	}
	name, _ := field["name"].(string)
	for _, key := range []string{"options", "annotated_options"} {
		options, _ := field[key].([]any)
		for _, o := range options {
			if pair, ok := o.([]any); ok && len(pair) > 0 {
				o = pair[0]
			}
			if text, ok := o.(string); ok && !slices.Contains(a.options[name], text) {
				a.options[name] = append(a.options[name], text)
			}
		}
	}
	if children, ok := field["children"].([]any); ok {
		a.object(children)
	}
}

var (
	yamlError     = regexp.MustCompile(`yaml: (?:unmarshal errors:\n\s*)?line ([0-9]+): (.*)`)
	unknownField  = regexp.MustCompile(`^field (\S+) not recognised$`)
	unknownOption = regexp.MustCompile(`^value (.+) is not a valid option for this field$`)
	unknownType   = regexp.MustCompile(`^unable to infer (?:component|(\S+)) type(?: from candidates)?: \[?([A-Za-z0-9_]+)`)
	wrongType     = regexp.MustCompile(`^expected (array|object|string|int|number|bool|float|boolean) value`)
)

// Advise returns the line and the message for a lint of text, extended by what to write
// instead where that is known. Lines count from 1.
func (a *Advisor) Advise(text []byte, line int, message string) (int, string) {
	if m := yamlError.FindStringSubmatch(message); m != nil {
		at, _ := strconv.Atoi(m[1])
		return adviseYAML(lines(text), at, m[2])
	}
	if m := unknownField.FindStringSubmatch(message); m != nil {
		return line, message + spelling.Hint(m[1], a.siblings(text, line, m[1]))
	}
	if m := unknownOption.FindStringSubmatch(message); m != nil {
		if key := keyOf(text, line, m[1]); len(a.options[key]) > 0 {
			return line, fmt.Sprintf("%s: write one of %s%s", message, strings.Join(a.options[key], ", "), spelling.Hint(m[1], a.options[key]))
		}
		return line, message
	}
	if m := unknownType.FindStringSubmatch(message); m != nil {
		names := a.components[m[1]]
		if m[1] == "" {
			names = slices.Concat(slices.Collect(maps.Values(a.components))...)
		}
		return line, message + spelling.Hint(m[2], names)
	}
	if m := wrongType.FindStringSubmatch(message); m != nil {
		return line, message + adviseType(lines(text), line, m[1])
	}
	if advice := adviseBloblang(text, line); advice != "" && strings.Contains(message, "expected") {
		return line, advice
	}
	return line, message
}

func lines(text []byte) []string { return strings.Split(string(text), "\n") }

// lineAt returns a line, empty outside of the text.
func lineAt(all []string, n int) string {
	if n < 1 || n > len(all) {
		return ""
	}
	return all[n-1]
}

var keyWithoutColon = regexp.MustCompile(`^(\s*)([A-Za-z_][A-Za-z0-9_]*) +([^:#]+)$`)

func adviseYAML(all []string, line int, message string) (int, string) {
	for _, n := range []int{line, line + 1, line - 1} {
		if indent := lineAt(all, n); strings.Contains(indent[:len(indent)-len(strings.TrimLeft(indent, " \t"))], "\t") {
			return n, "a tab cannot indent YAML: write spaces"
		}
	}
	switch {
	case strings.Contains(message, "could not find expected ':'"):
		for _, n := range []int{line, line - 1, line + 1} {
			if m := keyWithoutColon.FindStringSubmatch(lineAt(all, n)); m != nil {
				return n, fmt.Sprintf("a key needs a colon and a space after it: write %s: %s", m[2], strings.TrimSpace(m[3]))
			}
		}
		return line, "a key needs a colon and a space after it, such as name: orders"
	case strings.Contains(message, "did not find expected '-' indicator"), strings.Contains(message, "did not find expected key"),
		strings.Contains(message, "did not find expected <document start>"):
		return line, "the indentation does not match the lines around it: align keys of one object, and the dashes of one list (" + message + ")"
	case strings.Contains(message, "mapping values are not allowed"):
		return line, "a second colon, or an indentation deeper than the line above: quote a text that contains a colon and a space, or align the key with its siblings"
	case strings.Contains(message, "unexpected end of stream"):
		return line, "a quote or bracket is opened and never closed"
	case strings.Contains(message, "did not find expected node content"):
		return line, "a value or the end of a bracket is missing: close each [ and {"
	case strings.Contains(message, "did not find expected ',' or"):
		return line, "a list or object in brackets needs a comma between its members and a bracket at its end"
	}
	return line, message
}

// siblings returns the known names for a key that is not known: those of the objects
// that have most of the key's neighbours.
func (a *Advisor) siblings(text []byte, line int, key string) []string {
	var doc yaml.Node
	if yaml.NewDecoder(bytes.NewReader(text)).Decode(&doc) != nil {
		return nil
	}
	parent := parentOf(&doc, line, key)
	if parent == nil {
		return nil
	}
	most, known := 0, map[string]bool{}
	for _, set := range a.members {
		n := 1
		for i := 0; i < len(parent.Content); i += 2 {
			if set[parent.Content[i].Value] {
				n++
			}
		}
		if n > most {
			most, known = n, map[string]bool{}
		}
		if n == most {
			maps.Copy(known, set)
		}
	}
	return slices.Sorted(maps.Keys(known))
}

// parentOf returns the mapping that has a key on a line.
func parentOf(n *yaml.Node, line int, key string) *yaml.Node {
	for i, item := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && item.Line == line && item.Value == key {
			return n
		}
		if found := parentOf(item, line, key); found != nil {
			return found
		}
	}
	return nil
}

// keyOf returns the key of a value on a line, empty if there is none.
func keyOf(text []byte, line int, value string) string {
	var doc yaml.Node
	if yaml.NewDecoder(bytes.NewReader(text)).Decode(&doc) != nil {
		return ""
	}
	var find func(n *yaml.Node) string
	find = func(n *yaml.Node) string {
		for i, item := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 1 && item.Line == line && item.Value == value {
				return n.Content[i-1].Value
			}
			if key := find(item); key != "" {
				return key
			}
		}
		return ""
	}
	return find(&doc)
}

var scalarMember = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]*): *([^\[\]{},#\s][^\[\]{},#]*)`)

func adviseType(all []string, line int, want string) string {
	m := scalarMember.FindAllStringSubmatch(lineAt(all, line), -1)
	if want != "array" || len(m) == 0 {
		return ""
	}
	key, value := m[0][1], strings.TrimSpace(m[0][2])
	return fmt.Sprintf(": write a list, such as %s: [%s]", key, value)
}

var quotedText = regexp.MustCompile(`"(\\.|[^"\\])*"`)

// mistakes are forms of other languages, in the order in which they are searched.
var mistakes = []struct {
	pattern *regexp.Regexp
	advice  string
}{
	{regexp.MustCompile(`'[^']*'`), `a text is in double quotes in Bloblang: write "DE", not 'DE'`},
	{regexp.MustCompile(`\s(?i:and)\s`), "Bloblang has no word for and: write && between conditions"},
	{regexp.MustCompile(`\s(?i:or)\s`), "Bloblang has no word for or: write || between conditions"},
	{regexp.MustCompile(`(?:^|[\s('"])(?i:not)\s`), "Bloblang has no word for not: write ! before the condition"},
	{regexp.MustCompile(`<>`), "write != for unequal"},
	{regexp.MustCompile(`===`), "write == for equal"},
	{regexp.MustCompile(`\s(?i:is)\s+(?i:null|not)`), "write == null or != null"},
	{regexp.MustCompile(`\s(?i:in)\s*[\[(]`), `write ["a", "b"].contains(value)`},
}

// adviseBloblang returns what to write instead of a mistake in a query on a line, empty
// if none is found. Texts in double quotes are ignored.
func adviseBloblang(text []byte, line int) string {
	var doc yaml.Node
	if yaml.NewDecoder(bytes.NewReader(text)).Decode(&doc) != nil {
		return ""
	}
	for _, query := range scalarsAt(&doc, line) {
		query = quotedText.ReplaceAllString(query, `""`)
		for _, m := range mistakes {
			if m.pattern.MatchString(query) {
				return m.advice
			}
		}
	}
	return ""
}

// scalarsAt returns the texts on a line: values that begin there, and the line's part of
// a block of several lines.
func scalarsAt(n *yaml.Node, line int) (found []string) {
	for i, item := range n.Content {
		isKey := n.Kind == yaml.MappingNode && i%2 == 0
		switch {
		case item.Kind != yaml.ScalarNode:
			found = append(found, scalarsAt(item, line)...)
		case isKey || item.Line > line:
		case item.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
			if parts := strings.Split(item.Value, "\n"); line > item.Line && line-item.Line <= len(parts) {
				found = append(found, parts[line-item.Line-1])
			}
		case item.Line == line:
			found = append(found, item.Value)
		}
	}
	return found
}

// DuplicateKey returns the line of a key that is twice in one object below n, and the
// key; ok is false if there is none. The engine would use one of the two silently.
func DuplicateKey(n *yaml.Node) (line int, key string, ok bool) {
	seen := map[string]bool{}
	for i, item := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && item.Value != "<<" {
			if seen[item.Value] {
				return item.Line, item.Value, true
			}
			seen[item.Value] = true
		}
		if line, key, ok = DuplicateKey(item); ok {
			return line, key, ok
		}
	}
	return 0, "", false
}
