// Package content renders content blocks: Liquid templates over a customer's
// profile, for the personalised parts of an email.
//
// A block always returns content that can be sent. If rendering fails, because of a
// missing value or an exceeded budget, the block returns its fallback. Problems of
// the block itself are reported by lint.
//
// A template is compiled in these steps: lexer.go splits it into texts, outputs and
// tags; expression.go parses and evaluates expressions; names.go checks names
// against the profile definition; template.go builds the tree of tags; html.go checks
// the position of each value in the page. render.go executes the tree within a budget.
package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/valyala/fastjson"
	"gopkg.in/yaml.v2"
	yamlv3 "gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Type is the type of a block's content.
type Type string

// The types.
const (
	HTML Type = "html"
	Text Type = "text"
)

// MediaType returns the value of the Content-Type header.
func (t Type) MediaType() string {
	if t == HTML {
		return "text/html; charset=utf-8"
	}
	return "text/plain; charset=utf-8"
}

// Budget limits the time of a rendering and the size of its content.
type Budget struct {
	Time  time.Duration
	Bytes int
}

// defaultBudget is the budget of a block without one.
var defaultBudget = Budget{50 * time.Millisecond, 64 << 10}

const (
	maxTime      = 5 * time.Second
	maxBytes     = 4 << 20
	maxFileBytes = 256 << 10
)

// Block is a content block. It is immutable and safe for concurrent use.
type Block struct {
	Name, Description string
	// Definition is the path of the profile definition that the block is written
	// for, or "".
	Definition string
	Type       Type
	Budget     Budget
	Fallback   string
	Samples    []Sample

	defaults struct{ traits, features yaml.MapSlice }
	requires []string
	nodes    []node
	used     []string
	line     int // line number of the template's first line
}

// Sample is a fictitious profile and the expected content.
type Sample struct {
	Name    string
	Profile *Profile
	// JSON is the profile in the format of the API.
	JSON []byte

	equals      *string
	contains    []string
	notContains []string
	fallback    *bool
	line        int
}

// Requires returns the names that a profile must have. A profile without one of them
// gets the fallback.
func (b *Block) Requires() []string { return slices.Clone(b.requires) }

// Used lists the parts of a profile the template reads, such as
// traits.firstName.
func (b *Block) Used() []string { return slices.Clone(b.used) }

// Render returns the block's content for a profile. p is nil if there is no profile.
func (b *Block) Render(p *Profile) Result { return b.render(p, nil) }

// render renders a profile and calls objects, if it is set, for each line that writes
// a list of objects as text.
func (b *Block) render(p *Profile, objects func(line int)) Result {
	if p == nil {
		return Result{Content: []byte(b.Fallback), Fallback: NoCustomer}
	}
	p = p.withDefaults(b.defaults.traits, b.defaults.features)
	for _, path := range b.requires {
		if !p.has(path) {
			return Result{Content: []byte(b.Fallback), Fallback: MissingValue, Problem: "the profile has no " + path}
		}
	}
	content, failure := b.execute(p, objects)
	if failure != nil {
		return Result{Content: []byte(b.Fallback), Fallback: failure.reason, Line: failure.line, Problem: failure.message}
	}
	return Result{Content: content}
}

// Sample returns the sample of a name, or the first one for an empty name.
func (b *Block) Sample(name string) (*Sample, bool) {
	for i := range b.Samples {
		if name == "" || b.Samples[i].Name == name {
			return &b.Samples[i], true
		}
	}
	return nil, false
}

// Fields of a block's file.
const (
	fieldType        = "type"
	fieldDescription = "description"
	fieldDefinition  = "definition"
	fieldTraits      = "traits"
	fieldFeatures    = "features"
	fieldDefaults    = "defaults"
	fieldRequires    = "requires"
	fieldFallback    = "fallback"
	fieldBudget      = "budget"
	fieldTime        = "time"
	fieldBytes       = "bytes"
	fieldTemplate    = "template"
	fieldSamples     = "samples"
	fieldName        = "name"
	fieldProfile     = "profile"
	fieldEquals      = "equals"
	fieldContains    = "contains"
	fieldNotContains = "not_contains"
	fieldIsFallback  = "fallback"
)

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// file is a block's file while it is parsed.
type file struct {
	path     string
	names    Names
	block    *Block
	problems []finding.Finding
}

func (f *file) fail(line int, format string, args ...any) {
	f.problems = append(f.problems, finding.Finding{File: f.path, Line: max(line, 1), Message: fmt.Sprintf(format, args...)})
}

// Load reads a block's file. names returns the names of the profile definition that
// the file refers to; its argument is "" for a block without a definition.
func Load(path string, names func(definition string) (Names, error)) (*Block, []finding.Finding, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		// Reading a named pipe would block for ever.
		return nil, []finding.Finding{{File: path, Line: 1, Message: "a block must be a regular file"}}, nil
	}
	if info.Size() > maxFileBytes {
		return nil, []finding.Finding{{File: path, Line: 1, Message: fmt.Sprintf("a block's file must not be larger than %s", humanize.IBytes(maxFileBytes))}}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	b, problems := parse(path, text, names)
	return b, problems, nil
}

// parse parses the text of a block's file. The name of the block is the name of the
// file. parse returns the block only if there are no findings, other than advice.
func parse(path string, text []byte, names func(definition string) (Names, error)) (*Block, []finding.Finding) {
	f := &file{path: path, block: &Block{Budget: defaultBudget}}
	f.block.Name = strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".yaml"), ".yml")
	if !nameForm.MatchString(f.block.Name) {
		f.fail(1, "the name of a block's file must have lower-case letters, digits, - and _, such as cart_reminder.yaml")
	}
	var root yamlv3.Node
	if err := yamlv3.Unmarshal(text, &root); err != nil {
		line := 1
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			_, _ = fmt.Sscan(m[1], &line)
		}
		f.fail(line, "the file is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil, f.problems
	}
	if len(root.Content) == 0 || root.Content[0].Kind != yamlv3.MappingNode {
		f.fail(1, "a block is a YAML object with %s, %s and %s", fieldType, fieldFallback, fieldTemplate)
		return nil, f.problems
	}
	f.read(root.Content[0], names)
	if finding.ToError(f.problems) == nil {
		f.try()
	}
	f.problems = finding.Sort(f.problems)
	if finding.ToError(f.problems) != nil {
		return nil, f.problems
	}
	return f.block, f.problems
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// fields returns the members of an object and reports unknown and duplicate ones.
func (f *file) fields(n *yamlv3.Node, known ...string) map[string]*yamlv3.Node {
	out := map[string]*yamlv3.Node{}
	if n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	if n.Kind != yamlv3.MappingNode {
		f.fail(n.Line, "this must be an object with %s", strings.Join(known, ", "))
		return out
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if value.Kind == yamlv3.AliasNode {
			value = value.Alias
		}
		switch {
		case !slices.Contains(known, key.Value):
			f.fail(key.Line, "there is no field %q; use %s%s", key.Value, strings.Join(known, ", "), spelling.Hint(key.Value, known))
		case out[key.Value] != nil:
			f.fail(key.Line, "the field %q is duplicated", key.Value)
		default:
			out[key.Value] = value
		}
	}
	return out
}

func (f *file) text(n *yamlv3.Node, name string) string {
	if n == nil {
		return ""
	}
	if n.Kind != yamlv3.ScalarNode || n.Tag != "!!str" {
		f.fail(n.Line, "%s must be a text", name)
	}
	return n.Value
}

func (f *file) texts(n *yamlv3.Node, name string) []*yamlv3.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yamlv3.ScalarNode && n.Tag == "!!str" {
		return []*yamlv3.Node{n}
	}
	if n.Kind != yamlv3.SequenceNode {
		f.fail(n.Line, "%s must be a list of texts", name)
		return nil
	}
	for _, item := range n.Content {
		f.text(item, name)
	}
	return n.Content
}

func (f *file) read(root *yamlv3.Node, names func(string) (Names, error)) {
	b := f.block
	fields := f.fields(root, fieldType, fieldDescription, fieldDefinition, fieldTraits, fieldDefaults,
		fieldRequires, fieldFallback, fieldBudget, fieldTemplate, fieldSamples)
	b.Description = f.text(fields[fieldDescription], fieldDescription)
	b.Definition = f.text(fields[fieldDefinition], fieldDefinition)
	if names != nil {
		known, err := names(b.Definition)
		if err != nil {
			line := 1
			if n := fields[fieldDefinition]; n != nil {
				line = n.Line
			}
			f.fail(line, "definition: %v", err)
		}
		f.names = known
	}
	if n := fields[fieldTraits]; n != nil {
		f.names.Traits = []string{}
		for _, item := range f.texts(n, fieldTraits) {
			f.names.Traits = append(f.names.Traits, item.Value)
		}
	}
	switch n := fields[fieldType]; {
	case n == nil:
		f.fail(root.Line, "the block has no type; write type: html or type: text")
	case n.Value != string(HTML) && n.Value != string(Text):
		f.fail(n.Line, "type must be html or text%s", spelling.Hint(n.Value, []string{string(HTML), string(Text)}))
	default:
		b.Type = Type(n.Value)
	}
	if n := fields[fieldFallback]; n == nil {
		f.fail(root.Line, `the block has no fallback; write the content for customers without this block, or fallback: "" to send nothing`)
	} else {
		b.Fallback = f.text(n, fieldFallback)
	}
	if n := fields[fieldBudget]; n != nil {
		f.budget(n)
	}
	if n := fields[fieldDefaults]; n != nil {
		given := f.fields(n, fieldTraits, fieldFeatures)
		b.defaults.traits = f.defaults(given[fieldTraits], "trait", f.names.Traits)
		b.defaults.features = f.defaults(given[fieldFeatures], "feature", f.names.Features)
	}
	for _, n := range f.texts(fields[fieldRequires], fieldRequires) {
		f.require(n)
	}
	if n := fields[fieldTemplate]; n == nil {
		f.fail(root.Line, "the block has no template; write template: | and the template below it, indented")
	} else {
		f.template(n)
	}
	if n := fields[fieldSamples]; n != nil {
		f.samples(n)
	}
}

func (f *file) budget(n *yamlv3.Node) {
	given := f.fields(n, fieldTime, fieldBytes)
	if n := given[fieldTime]; n != nil {
		d, err := time.ParseDuration(n.Value)
		if err != nil || d <= 0 || d > maxTime {
			f.fail(n.Line, "time must be a duration above 0 and up to %v, such as 50ms", maxTime)
		}
		f.block.Budget.Time = d
	}
	if n := given[fieldBytes]; n != nil {
		size, err := humanize.ParseBytes(n.Value)
		if err != nil || size == 0 || size > maxBytes {
			f.fail(n.Line, "bytes must be a size above 0 and up to %s, such as 64KiB", humanize.IBytes(maxBytes))
			size = 0
		}
		f.block.Budget.Bytes = int(size)
	}
}

func (f *file) defaults(n *yamlv3.Node, kind string, known []string) yaml.MapSlice {
	if n == nil {
		return nil
	}
	if n.Kind != yamlv3.MappingNode {
		f.fail(n.Line, "defaults of %ss must be an object of values by name", kind)
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if name := n.Content[i]; known != nil && !slices.Contains(known, name.Value) {
			f.fail(name.Line, "there is no %s %q%s", kind, name.Value, spelling.Hint(name.Value, known))
		}
	}
	text, err := toJSON(n)
	if err != nil {
		f.fail(n.Line, "defaults: %v", err)
		return nil
	}
	v, err := fastjson.ParseBytes(text)
	if err != nil {
		f.fail(n.Line, "defaults cannot be read")
		return nil
	}
	m, _ := value(v, 0).(yaml.MapSlice)
	return m
}

func (f *file) require(n *yamlv3.Node) {
	part, name, named := strings.Cut(n.Value, ".")
	switch {
	case n.Value == "segments":
	case part == "traits" && named && name != "":
		if f.names.Traits != nil && !slices.Contains(f.names.Traits, name) {
			f.fail(n.Line, "there is no trait %q%s", name, spelling.Hint(name, f.names.Traits))
		}
	case part == "features" && named && name != "":
		if f.names.Features != nil && !slices.Contains(f.names.Features, name) {
			f.fail(n.Line, "there is no feature %q%s", name, spelling.Hint(name, f.names.Features))
		}
	default:
		f.fail(n.Line, "requires lists names such as traits.firstName or features.orders_30d")
	}
	f.block.requires = append(f.block.requires, n.Value)
}

func (f *file) template(n *yamlv3.Node) {
	source := f.text(n, fieldTemplate)
	// A literal begins on the line after its indicator |. Only a literal has the
	// line numbers of the file.
	f.block.line = n.Line
	isLiteral := n.Style&yamlv3.LiteralStyle != 0
	if isLiteral {
		f.block.line++
	}
	scope := newScope(f.names)
	nodes, problems := compile(source, f.block.line, scope)
	if nodes != nil && f.block.Type != Text {
		end := &page{}
		end.check(nodes, f.block.line, func(line int, message string) {
			problems = append(problems, finding.Finding{Line: line, Message: message})
		})
		if len(problems) == 0 && end.in != inText {
			problems = append(problems, finding.Finding{Line: f.block.line, Message: "the template ends inside a tag, a quote or a comment: close it"})
		}
	}
	for _, p := range problems {
		if !isLiteral {
			p.Line = n.Line
		}
		p.File = f.path
		f.problems = append(f.problems, p)
	}
	f.block.nodes = nodes
	for name := range scope.used {
		f.block.used = append(f.block.used, name)
	}
	slices.Sort(f.block.used)
	if f.names.Features == nil && f.block.Definition == "" && slices.ContainsFunc(f.block.used, func(s string) bool { return strings.HasPrefix(s, "features.") }) {
		f.fail(n.Line, "the template reads features, which are checked by the profile definition: write definition: ./configs/…/profile.yaml")
	}
}

func (f *file) samples(n *yamlv3.Node) {
	if n.Kind != yamlv3.SequenceNode {
		f.fail(n.Line, "samples must be a list of objects with %s, %s and the expected content", fieldName, fieldProfile)
		return
	}
	for _, item := range n.Content {
		given := f.fields(item, fieldName, fieldProfile, fieldEquals, fieldContains, fieldNotContains, fieldIsFallback)
		s := Sample{Name: f.text(given[fieldName], fieldName), line: item.Line}
		if s.Name == "" {
			f.fail(item.Line, "a sample needs a name")
		}
		if slices.ContainsFunc(f.block.Samples, func(o Sample) bool { return o.Name == s.Name }) {
			f.fail(item.Line, "there are two samples named %q", s.Name)
		}
		if n := given[fieldEquals]; n != nil {
			want := f.text(n, fieldEquals)
			s.equals = &want
		}
		for _, n := range f.texts(given[fieldContains], fieldContains) {
			s.contains = append(s.contains, n.Value)
		}
		for _, n := range f.texts(given[fieldNotContains], fieldNotContains) {
			s.notContains = append(s.notContains, n.Value)
		}
		if n := given[fieldIsFallback]; n != nil {
			var want bool
			if n.Decode(&want) != nil {
				f.fail(n.Line, "fallback of a sample must be true or false")
			}
			s.fallback = &want
		}
		if n := given[fieldProfile]; n == nil {
			f.fail(item.Line, "a sample needs a profile")
		} else {
			f.sampleProfile(&s, n)
		}
		f.block.Samples = append(f.block.Samples, s)
	}
}

func (f *file) sampleProfile(s *Sample, n *yamlv3.Node) {
	parts := f.fields(n, "id", fieldTraits, fieldFeatures, "segments", "as_of", "updated_at")
	for _, part := range []struct {
		kind  string
		node  *yamlv3.Node
		known []string
	}{{"trait", parts[fieldTraits], f.names.Traits}, {"feature", parts[fieldFeatures], f.names.Features}} {
		if part.node == nil || part.known == nil || part.node.Kind != yamlv3.MappingNode {
			continue
		}
		for i := 0; i < len(part.node.Content); i += 2 {
			if name := part.node.Content[i]; !slices.Contains(part.known, name.Value) {
				f.fail(name.Line, "there is no %s %q%s", part.kind, name.Value, spelling.Hint(name.Value, part.known))
			}
		}
	}
	text, err := toJSON(n)
	if err != nil {
		f.fail(n.Line, "profile: %v", err)
		return
	}
	s.JSON = text
	if s.Profile, err = ReadProfile(text, time.Now()); err != nil {
		f.fail(n.Line, "profile: %v", err)
	}
}

// try renders the samples and reports differences from the expected content.
func (f *file) try() {
	b := f.block
	for i := range b.Samples {
		s := &b.Samples[i]
		listed := map[int]bool{}
		result := b.render(s.Profile, func(line int) { listed[line] = true })
		for line := range listed {
			f.problems = append(f.problems, finding.Finding{File: f.path, Line: line, Message: objectListMessage, Advice: true})
		}
		text := string(result.Content)
		expected := s.fallback != nil && *s.fallback
		switch {
		case result.Fallback != "" && !expected:
			why := result.Problem
			if result.Line > 0 {
				why = fmt.Sprintf("line %d: %s", result.Line, why)
			}
			f.fail(s.line, "sample %q gets the fallback (%s): %s", s.Name, result.Fallback, why)
			continue
		case result.Fallback == "" && expected:
			f.fail(s.line, "sample %q should get the fallback, and is %q", s.Name, shorten(text))
		case s.equals != nil && strings.TrimSpace(*s.equals) != strings.TrimSpace(text):
			f.fail(s.line, "sample %q should be %q, and is %q", s.Name, shorten(*s.equals), shorten(text))
		}
		for _, want := range s.contains {
			if !strings.Contains(text, want) {
				f.fail(s.line, "sample %q should contain %q, and is %q", s.Name, want, shorten(text))
			}
		}
		for _, not := range s.notContains {
			if strings.Contains(text, not) {
				f.fail(s.line, "sample %q should not contain %q, and is %q", s.Name, not, shorten(text))
			}
		}
	}
}

func shorten(s string) string {
	if s = strings.TrimSpace(s); len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// toJSON converts YAML to JSON and keeps the order of objects.
func toJSON(n *yamlv3.Node) ([]byte, error) { return appendNode(nil, n, 0) }

func appendNode(dst []byte, n *yamlv3.Node, depth int) (_ []byte, err error) {
	if depth > maxDepth {
		return dst, errors.New("the value is nested too deep")
	}
	switch n.Kind {
	case yamlv3.AliasNode:
		// An alias may refer to a value that contains it, so it counts as deep.
		return appendNode(dst, n.Alias, depth+10)
	case yamlv3.MappingNode:
		dst = append(dst, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			key, err := json.Marshal(n.Content[i].Value)
			if err != nil {
				return dst, err
			}
			dst = append(append(dst, key...), ':')
			if dst, err = appendNode(dst, n.Content[i+1], depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	case yamlv3.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendNode(dst, item, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return dst, fmt.Errorf("line %d is not a value", n.Line)
	}
	switch v.(type) {
	case time.Time:
		v = n.Value // a profile has times as texts
	case float64:
		// The digits are kept: 25.0 is a real number, 25 an integer.
		if json.Valid([]byte(n.Value)) {
			return append(dst, n.Value...), nil
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("line %d cannot be converted to JSON", n.Line)
	}
	return append(dst, text...), nil
}
