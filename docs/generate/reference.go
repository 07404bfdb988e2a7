package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	_ "github.com/connect-personalize/connect-personalize/plugins/all"
)

// plugin is what a page says about one plugin.
type plugin struct {
	Kind     string // as in `list`: input, processor, ..., or resource, file
	Name     string
	Page     string // the file without .md
	Summary  string
	Version  string
	Status   string
	Body     string
	Config   string
	Fields   []field
	Examples []example
}

type example struct{ Title, Summary, Config, Language string }

// field is one field of a plugin, named by its path. Fields that differ only in one
// step of the path are described once, with * for that step.
type field struct {
	Path        string
	In          []string // the names that * stands for
	Type        string
	Need        string
	Notes       []string
	Description string
	Options     [][2]string
	Examples    []string
}

// reference returns the pages by file name.
func reference() (map[string][]byte, error) {
	plugins, err := ours()
	if err != nil {
		return nil, err
	}
	named := map[string]int{}
	for _, p := range plugins {
		named[p.Name]++
	}
	pages := map[string][]byte{}
	for i := range plugins {
		p := &plugins[i]
		// An input and an output of one name have a page each.
		if p.Page = p.Name; named[p.Name] > 1 {
			p.Page += "_" + p.Kind
		}
		if pages[p.Page+".md"], err = render("page", *p); err != nil {
			return nil, err
		}
	}
	pages["README.md"], err = render("index", plugins)
	return pages, err
}

// ours lists the plugins of this project, by kind and name.
func ours() ([]plugin, error) {
	stock, err := stockNames()
	if err != nil {
		return nil, err
	}
	env := service.GlobalEnvironment()
	var plugins []plugin
	var errs []error
	add := func(kind string) func(string, *service.ConfigView) {
		return func(name string, view *service.ConfigView) {
			if slices.Contains(stock[kind], name) {
				return
			}
			p, err := describe(kind, view)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s %s: %w", kind, name, err))
			}
			plugins = append(plugins, p)
		}
	}
	env.WalkInputs(add("input"))
	env.WalkProcessors(add("processor"))
	env.WalkOutputs(add("output"))
	env.WalkCaches(add("cache"))
	env.WalkRateLimits(add("rate_limit"))
	env.WalkBuffers(add("buffer"))
	env.WalkMetrics(add("metrics"))
	env.WalkTracers(add("tracer"))
	env.WalkScanners(add("scanner"))
	for _, s := range otherSpecs() {
		view, err := viewOf(s.name, s.spec)
		if err != nil {
			return nil, err
		}
		add(s.kind)(s.name, view)
	}
	const function, method = "Bloblang function", "Bloblang method"
	blobl := bloblang.GlobalEnvironment()
	blobl.WalkFunctions(func(name string, view *bloblang.FunctionView) {
		if !slices.Contains(stock[function], name) {
			d := view.TemplateData()
			plugins = append(plugins, describeBloblang(function, name, d.Status, d.Version, d.Description, d.Params, d.Examples))
		}
	})
	blobl.WalkMethods(func(name string, view *bloblang.MethodView) {
		if !slices.Contains(stock[method], name) {
			d := view.TemplateData()
			plugins = append(plugins, describeBloblang(method, name, d.Status, d.Version, d.Description, d.Params, d.Examples))
		}
	})
	return plugins, errors.Join(errs...)
}

// stockNames lists the engine's own components by kind. A separate program prints them,
// because plugins share one environment with the engine in this process.
func stockNames() (names map[string][]string, err error) {
	list := exec.Command("go", "run", "github.com/connect-personalize/connect-personalize/docs/generate/stock")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the components of the engine: %w", err)
	}
	return names, json.Unmarshal(out, &names)
}

func describeBloblang(kind, name, status, version, description string, params bloblang.TemplateParamsData, examples []bloblang.TemplateExampleData) plugin {
	summary, body, _ := strings.Cut(plain(description), "\n")
	p := plugin{Kind: kind, Name: name, Summary: summary, Version: version, Status: status, Body: plain(body)}
	for _, d := range params.Definitions {
		need := "required"
		if d.DefaultMarshalled != "" {
			need = "default `" + d.DefaultMarshalled + "`"
		}
		p.Fields = append(p.Fields, field{Path: d.Name, Type: d.ValueType, Need: need, Description: plain(d.Description)})
	}
	for _, e := range examples {
		mapping := strings.TrimSpace(e.Mapping) + "\n"
		for _, result := range e.Results {
			mapping += "\n# In:  " + result[0] + "\n# Out: " + result[1]
		}
		p.Examples = append(p.Examples, example{Summary: plain(e.Summary), Config: strings.TrimSpace(mapping), Language: "coffee"})
	}
	return p
}

// viewOf gives a spec the view that the engine gives of components alone. It
// passes the spec off as a processor's, in an environment of its own.
func viewOf(name string, spec *service.ConfigSpec) (*service.ConfigView, error) {
	env := service.NewEmptyEnvironment()
	err := env.RegisterProcessor(name, spec, func(*service.ParsedConfig, *service.Resources) (service.Processor, error) {
		return nil, errors.ErrUnsupported
	})
	if err != nil {
		return nil, err
	}
	var view *service.ConfigView
	env.WalkProcessors(func(_ string, v *service.ConfigView) { view = v })
	return view, nil
}

// fieldSpec is the part of a field's JSON form that a reader needs.
type fieldSpec struct {
	Name             string
	Type             string
	Kind             string
	Description      string
	IsAdvanced       bool `json:"is_advanced"`
	IsDeprecated     bool `json:"is_deprecated"`
	IsOptional       bool `json:"is_optional"`
	IsSecret         bool `json:"is_secret"`
	Interpolated     bool
	Bloblang         bool
	Default          *any
	Examples         []any
	Options          []string
	AnnotatedOptions [][2]string `json:"annotated_options"`
	Children         []fieldSpec
}

func describe(kind string, view *service.ConfigView) (plugin, error) {
	data, err := view.TemplateData()
	if err != nil {
		return plugin{}, err
	}
	raw, err := view.FormatJSON()
	if err != nil {
		return plugin{}, err
	}
	var spec struct{ Config fieldSpec }
	if err := json.Unmarshal(raw, &spec); err != nil {
		return plugin{}, err
	}
	p := plugin{
		Kind:    kind,
		Name:    data.Name,
		Summary: plain(data.Summary),
		Version: data.Version,
		Status:  data.Status,
		Body:    headings(plain(data.Description)),
		Config:  strings.TrimSpace(data.AdvancedConfigYAML),
	}
	switch {
	case kind == "resource" || kind == "file":
		p.Config = "" // it would be that of a processor
	case len(data.Fields) == 0:
		// The engine prints null, as of a missing value.
		p.Config = fmt.Sprintf("%s: {}", data.Name)
	}
	if p.Summary == "" {
		return p, errors.New("it has no summary")
	}
	for _, e := range data.Examples {
		p.Examples = append(p.Examples, example{e.Title, plain(e.Summary), strings.TrimSpace(e.Config), "yaml"})
	}
	err = p.addFields("", spec.Config.Children)
	p.Fields = mergeAlike(p.Fields)
	return p, err
}

// mergeAlike puts fields that differ in one step of their paths only where the
// last of them is. Steps are compared within the same parents.
func mergeAlike(fields []field) []field {
	type member struct {
		at   int
		step string
	}
	groups := map[string][]member{}
	keyOf := func(f field, steps []string, i int) string {
		shape := slices.Clone(steps)
		shape[i] = "*"
		f.Path = strings.Join(shape, ".")
		return fmt.Sprintf("%#v", f)
	}
	for at, f := range fields {
		steps := strings.Split(f.Path, ".")
		for i := range len(steps) - 1 {
			key := keyOf(f, steps, i)
			groups[key] = append(groups[key], member{at, steps[i]})
		}
	}
	var merged []field
	for at, f := range fields {
		steps := strings.Split(f.Path, ".")
		alone := true
		for i := range len(steps) - 1 {
			group := groups[keyOf(f, steps, i)]
			if len(group) == 1 {
				continue
			}
			if alone = false; group[len(group)-1].at == at {
				steps[i] = "*"
				f.Path = strings.Join(steps, ".")
				for _, m := range group {
					f.In = append(f.In, m.step)
				}
				merged = append(merged, f)
			}
			break
		}
		if alone {
			merged = append(merged, f)
		}
	}
	return merged
}

func (p *plugin) addFields(path string, specs []fieldSpec) error {
	for _, s := range specs {
		if s.IsDeprecated {
			continue
		}
		f := field{
			Path:        path + s.Name,
			Type:        typeName(s),
			Need:        need(s),
			Description: plain(s.Description),
			Options:     s.AnnotatedOptions,
		}
		if f.Description == "" {
			return fmt.Errorf("field %s has no description", f.Path)
		}
		for _, note := range []struct {
			applies bool
			text    string
		}{
			{s.Interpolated, "interpolated for each message"},
			{s.IsSecret, "secret"},
			{s.IsAdvanced, "advanced"},
		} {
			if note.applies {
				f.Notes = append(f.Notes, note.text)
			}
		}
		for _, option := range s.Options {
			f.Options = append(f.Options, [2]string{option, ""})
		}
		for _, e := range s.Examples {
			text, err := yamlOf(map[string]any{s.Name: e})
			if err != nil {
				return fmt.Errorf("field %s: %w", f.Path, err)
			}
			f.Examples = append(f.Examples, text)
		}
		p.Fields = append(p.Fields, f)
		suffix := map[string]string{"array": "[].", "2darray": "[][].", "map": ".<name>."}[s.Kind]
		if suffix == "" {
			suffix = "."
		}
		if err := p.addFields(f.Path+suffix, s.Children); err != nil {
			return err
		}
	}
	return nil
}

func typeName(s fieldSpec) string {
	name := s.Type
	switch {
	case s.Bloblang:
		name = "Bloblang mapping"
	case name == "unknown":
		name = "any"
	}
	switch s.Kind {
	case "array":
		return "list of " + name
	case "2darray":
		return "list of lists of " + name
	case "map":
		return "map to " + name
	}
	return name
}

// need says whether a field has to be set: an object without a default of its
// own has those of its fields.
func need(s fieldSpec) string {
	switch {
	case s.Default != nil:
		text, err := json.Marshal(*s.Default)
		if err != nil {
			return ""
		}
		return "default `" + string(text) + "`"
	case s.IsOptional:
		return "optional"
	case s.Type == "object" && s.Kind == "scalar" && !slices.ContainsFunc(s.Children, isRequired):
		return "optional"
	}
	return "required"
}

func isRequired(s fieldSpec) bool { return need(s) == "required" }

func yamlOf(v any) (string, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	err := enc.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// The engine's own fields, such as those of TLS, are described in AsciiDoc.
var (
	asciidocXref = regexp.MustCompile(`xref:[^\[\s]*\[([^\]]*)\]`)
	asciidocLink = regexp.MustCompile(`(?:link:)?\^?(https?://[^\[\s]+)\[([^\]^]*)\^?\]`)
)

// heading matches one of a description, in Markdown or in AsciiDoc.
var heading = regexp.MustCompile(`^(?:=+|#{2,}) `)

// headings puts those of a description on the level of the page's own.
func headings(text string) string {
	lines := strings.Split(text, "\n")
	code := false
	for i, line := range lines {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if !code {
			lines[i] = heading.ReplaceAllString(line, "## ")
		}
	}
	return strings.Join(lines, "\n")
}

func plain(text string) string {
	text = asciidocXref.ReplaceAllString(text, "$1")
	text = asciidocLink.ReplaceAllString(text, "[$2]($1)")
	return strings.TrimSpace(text)
}

var blankLines = regexp.MustCompile(`\n{3,}`)

//go:embed reference.tmpl
var templates string

func render(name string, data any) ([]byte, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"join":  strings.Join,
		"words": func(name string) string { return strings.ReplaceAll(name, "_", " ") },
		"oneLine": func(s string) string {
			return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
		},
		"kinds": kinds,
	}).Parse(templates)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, data); err != nil {
		return nil, err
	}
	page := blankLines.ReplaceAll(bytes.TrimSpace(b.Bytes()), []byte("\n\n"))
	return append(page, '\n'), nil
}

type group struct {
	Title   string
	Plugins []plugin
}

// kinds groups plugins for the index, in the order they were found.
func kinds(plugins []plugin) []group {
	titles := map[string]string{
		"input": "Inputs", "processor": "Processors", "output": "Outputs",
		"resource": "Resources", "file": "Files",
		"Bloblang function": "Bloblang functions", "Bloblang method": "Bloblang methods",
	}
	var groups []group
	for _, p := range plugins {
		title := titles[p.Kind]
		if title == "" {
			title = p.Kind
		}
		if n := len(groups); n == 0 || groups[n-1].Title != title {
			groups = append(groups, group{Title: title})
		}
		last := &groups[len(groups)-1]
		last.Plugins = append(last.Plugins, p)
	}
	return groups
}
