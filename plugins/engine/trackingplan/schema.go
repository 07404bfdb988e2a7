package trackingplan

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// compiler compiles the schemas of a plan into programs. It loads the schema files for
// the library and reports errors of the library at the lines that cause them.
type compiler struct {
	d     *definition
	files sources
	lib   *jsonschema.Compiler
	base  string // URL of the plan
	dir   string // all schema files must be in this folder or below it
	docs  map[string]*document
	urls  map[string]string // folder by URL prefix
}

func newCompiler(d *definition, files sources, root map[string]any) *compiler {
	abs, err := filepath.Abs(d.doc.path)
	if err != nil {
		d.errorf("", "%s", err)
		return nil
	}
	c := &compiler{
		d: d, files: files, lib: jsonschema.NewCompiler(),
		base: fileURL(abs), dir: filepath.Dir(abs),
		docs: map[string]*document{}, urls: map[string]string{},
	}
	c.docs[c.base] = d.doc
	c.lib.UseLoader(c)
	c.lib.RegisterFormat(strictEmail)
	c.lib.RegisterFormat(internationalEmail)
	c.lib.DefaultDraft(c.draft(root))
	switch v, ok := root[keyFormats]; {
	case !ok || v == "assert":
		c.lib.AssertFormat()
	case v != "annotate":
		d.errorf("/"+keyFormats, "formats: write assert, so that a format such as email is checked, or annotate, so that it is only a note")
	}
	c.schemaURLs(root)
	if err := c.lib.AddResource(c.base, root); err != nil {
		d.errorf("", "%s", err)
		return nil
	}
	return c
}

func (c *compiler) draft(root map[string]any) *jsonschema.Draft {
	v, ok := root[keySchema]
	if !ok {
		return jsonschema.Draft2020
	}
	s, _ := v.(string)
	switch strings.TrimSuffix(s, "#") {
	case "https://json-schema.org/draft/2020-12/schema":
		return jsonschema.Draft2020
	case "http://json-schema.org/draft-07/schema":
		return jsonschema.Draft7
	}
	c.d.errorf("/"+keySchema, "$schema: write https://json-schema.org/draft/2020-12/schema or http://json-schema.org/draft-07/schema")
	return jsonschema.Draft2020
}

func (c *compiler) schemaURLs(root map[string]any) {
	v, ok := root[keySchemaURLs]
	if !ok {
		return
	}
	m, ok := v.(map[string]any)
	if !ok {
		c.d.errorf("/"+keySchemaURLs, "schema_urls must map the beginning of a URL to a folder, such as \"https://example.com/schemas/: schemas\"")
		return
	}
	for _, prefix := range sortedKeys(m) {
		pointer := "/" + keySchemaURLs + "/" + escapePointer(prefix)
		folder, ok := m[prefix].(string)
		switch {
		case !ok || !filepath.IsLocal(filepath.FromSlash(folder)):
			c.d.errorf(pointer, "schema_urls: write a folder inside the plan's own, such as schemas")
		case !strings.HasPrefix(prefix, "http://") && !strings.HasPrefix(prefix, "https://"):
			c.d.keyErrorf(pointer, "schema_urls: write the beginning of an http or https URL, such as https://example.com/schemas/")
		default:
			c.urls[prefix] = filepath.Join(c.dir, filepath.FromSlash(folder))
		}
	}
}

func fileURL(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// errReported marks a file whose findings are already recorded.
var errReported = errors.New("the schema file is wrong")

// Load reads a schema file. It implements the loader of the library.
func (c *compiler) Load(schemaURL string) (any, error) {
	path, err := c.schemaPath(schemaURL)
	if err != nil {
		return nil, err
	}
	data, err := c.files.read(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no file %s", c.relative(path))
		}
		return nil, err
	}
	doc, lints := readDocument(c.display(path), data)
	if len(lints) > 0 {
		c.d.lints = append(c.d.lints, lints...)
		return nil, errReported
	}
	c.docs[schemaURL] = doc
	return doc.value, nil
}

func (c *compiler) schemaPath(schemaURL string) (string, error) {
	u, err := url.Parse(schemaURL)
	if err != nil {
		return "", err
	}
	if u.Scheme == "file" {
		path := filepath.FromSlash(u.Path)
		if rel, err := filepath.Rel(c.dir, path); err != nil || !filepath.IsLocal(rel) {
			return "", errors.New("a schema must be in the plan's folder or below it; copy the file there")
		}
		return path, nil
	}
	best := ""
	for prefix := range c.urls {
		if strings.HasPrefix(schemaURL, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	rest := strings.TrimPrefix(schemaURL[len(best):], "/")
	if best == "" || !filepath.IsLocal(filepath.FromSlash(rest)) {
		return "", errors.New("schemas are not fetched from the network; copy the file into the plan's folder, and name the folder under schema_urls")
	}
	return filepath.Join(c.urls[best], filepath.FromSlash(rest)), nil
}

func (c *compiler) relative(path string) string {
	if rel, err := filepath.Rel(c.dir, path); err == nil {
		return filepath.ToSlash(rel)
	}
	return path
}

// display returns the path of a schema file relative to the path by which the plan was
// loaded.
func (c *compiler) display(path string) string {
	return filepath.Join(filepath.Dir(c.d.doc.path), filepath.FromSlash(c.relative(path)))
}

// checks compiles the given sections of m, as far as m has them.
func (c *compiler) checks(m map[string]any, parent string, sections ...string) []check {
	var checks []check
	for _, section := range sections {
		if _, ok := m[section]; !ok {
			continue
		}
		pointer := parent + "/" + section
		c.d.lintSchema(c.d.doc, m[section], pointer)
		schema, err := c.compile(pointer)
		if err != nil {
			c.report(err, pointer)
			continue
		}
		member := section
		if section == keyEnvelope {
			member = ""
		}
		checks = append(checks, check{member, schema})
	}
	return checks
}

// compile compiles the schema at a pointer. Plans are reloaded while events flow, so a
// panic of the library must not end the process.
func (c *compiler) compile(pointer string) (p *program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("the schema cannot be compiled: %v", r)
		}
	}()
	schema, err := c.lib.Compile(c.base + "#" + fragment(pointer))
	if err != nil {
		return nil, err
	}
	return newProgram(schema), nil
}

// lintShared checks the keywords of the shared definitions.
func (c *compiler) lintShared(root map[string]any) {
	for _, key := range []string{keyDefs, keyDefinitions} {
		defs, _ := root[key].(map[string]any)
		for _, name := range sortedKeys(defs) {
			c.d.lintSchema(c.d.doc, defs[name], "/"+key+"/"+escapePointer(name))
		}
	}
}

// finish checks the keywords of the schema files.
func (c *compiler) finish() {
	for u, doc := range c.docs {
		if u != c.base {
			c.d.lintSchema(doc, doc.value, "")
		}
	}
}

func fragment(pointer string) string { return (&url.URL{Fragment: pointer}).EscapedFragment() }

// place is a position in one of the plan's files.
type place struct {
	doc     *document
	pointer string
}

// locate returns the place of a URL with a JSON pointer.
func (c *compiler) locate(location string) (place, bool) {
	u, frag, _ := strings.Cut(location, "#")
	doc, ok := c.docs[u]
	if pointer, err := url.PathUnescape(frag); err == nil {
		return place{doc, pointer}, ok
	}
	return place{doc, ""}, ok
}

// about returns the beginning of a message: the event that a part of the plan belongs
// to.
func about(doc *document, pointer string) string {
	tokens := strings.Split(pointer, "/")
	if _, isPlan := lookup(doc.value, "/"+keyEvents).(map[string]any); !isPlan || len(tokens) < 3 || tokens[1] != keyEvents {
		return ""
	}
	return fmt.Sprintf("event %q: ", unescapePointer(tokens[2]))
}

// report records an error of the library at the line that causes it.
func (c *compiler) report(err error, pointer string) {
	here := place{c.d.doc, pointer}
	lint := func(cause place, format string, args ...any) {
		l := cause.doc.lint(cause.doc.line(cause.pointer), format, args...)
		l.Message = about(cause.doc, cause.pointer) + l.Message
		c.d.lints = append(c.d.lints, l)
	}
	var (
		invalid *jsonschema.SchemaValidationError
		regex   *jsonschema.InvalidRegexError
		missing *jsonschema.JSONPointerNotFoundError
		anchor  *jsonschema.AnchorNotFoundError
		load    *jsonschema.LoadURLError
	)
	switch {
	case errors.As(err, &invalid):
		cause, ok := c.locate(invalid.URL)
		if !ok {
			cause = here
		}
		verr, ok := invalid.Err.(*jsonschema.ValidationError)
		if !ok {
			lint(cause, "is not a valid schema: %s", invalid.Err)
			return
		}
		for _, leaf := range schemaFaults(verr) {
			lint(place{cause.doc, cause.pointer + leaf.Pointer}, "%s", leaf.Message)
		}
	case errors.As(err, &regex):
		cause, ok := c.locate(regex.URL)
		if !ok {
			cause = here
		}
		lint(cause, "pattern %q cannot be used: %s", regex.Regex, patternFault(regex.Err))
	case errors.As(err, &load):
		if errors.Is(load.Err, errReported) {
			return
		}
		for _, cause := range c.references(here, func(u, _ string) bool { return u == load.URL }) {
			lint(cause, "$ref: %s", load.Err)
		}
	case errors.As(err, &missing):
		for _, cause := range c.references(here, func(u, frag string) bool { return u+"#"+frag == decoded(missing.URL) }) {
			lint(cause, "$ref: there is nothing at %s%s", c.shortened(missing.URL), c.sibling(missing.URL))
		}
	case errors.As(err, &anchor):
		for _, cause := range c.references(here, func(u, frag string) bool { return u+"#"+frag == decoded(anchor.Reference) }) {
			lint(cause, "$ref: there is no $anchor %s", c.shortened(anchor.Reference))
		}
	default:
		lint(here, "%s", err)
	}
}

func decoded(u string) string {
	base, frag, _ := strings.Cut(u, "#")
	if d, err := url.PathUnescape(frag); err == nil {
		frag = d
	}
	return base + "#" + frag
}

// shortened returns a reference in the form in which an author writes it.
func (c *compiler) shortened(u string) string {
	u = decoded(u)
	if rest, ok := strings.CutPrefix(u, c.base); ok {
		return rest
	}
	return strings.TrimPrefix(u, fileURL(c.dir)+"/")
}

// sibling suggests an existing name for a reference that leads nowhere.
func (c *compiler) sibling(location string) string {
	cause, ok := c.locate(location)
	slash := strings.LastIndexByte(cause.pointer, '/')
	if !ok || slash < 0 {
		return ""
	}
	v := cause.doc.value
	for _, token := range strings.Split(cause.pointer[:slash], "/")[1:] {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[unescapePointer(token)]
	}
	m, _ := v.(map[string]any)
	return spelling.Hint(unescapePointer(cause.pointer[slash+1:]), sortedKeys(m))
}

func unescapePointer(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}

// references returns the places of the $refs for which leads is true, or fallback if
// there are none.
func (c *compiler) references(fallback place, leads func(u, frag string) bool) []place {
	var found []place
	for docURL, doc := range c.docs {
		base, err := url.Parse(docURL)
		if err != nil {
			continue
		}
		for pointer := range doc.keys {
			if !strings.HasSuffix(pointer, "/$ref") {
				continue
			}
			ref, ok := lookup(doc.value, pointer).(string)
			if !ok {
				continue
			}
			u, err := base.Parse(ref)
			if err != nil {
				continue
			}
			frag := u.Fragment
			u.Fragment, u.RawFragment = "", ""
			if leads(u.String(), frag) {
				found = append(found, place{doc, pointer})
			}
		}
	}
	if found == nil {
		return []place{fallback}
	}
	return found
}

func lookup(v any, pointer string) any {
	for _, token := range strings.Split(pointer, "/")[1:] {
		switch t := v.(type) {
		case map[string]any:
			v = t[unescapePointer(token)]
		case []any:
			i := 0
			if _, err := fmt.Sscan(token, &i); err != nil || i < 0 || i >= len(t) {
				return nil
			}
			v = t[i]
		default:
			return nil
		}
	}
	return v
}

var typeNames = []string{"string", "number", "integer", "boolean", "object", "array", "null"}

// schemaFaults returns the faults of a schema, by JSON pointer.
func schemaFaults(err *jsonschema.ValidationError) []Violation {
	var faults []Violation
	for _, leaf := range leaves(err, nil) {
		if k, ok := leaf.ErrorKind.(*kind.AnyOf); ok && len(leaf.InstanceLocation) > 0 && leaf.InstanceLocation[len(leaf.InstanceLocation)-1] == "type" {
			faults = append(faults, Violation{pointerOf(leaf.InstanceLocation), rule(leaf, k), "type must be one of " + strings.Join(typeNames, ", ") + ", or a list of these"})
			continue
		}
		leaf = badPattern(leaf)
		v := violation(leaf)
		if k, ok := leaf.ErrorKind.(*kind.Format); ok && k.Want == "regex" {
			v.Message = "cannot be used: " + patternFault(k.Err)
		}
		if n := len(leaf.InstanceLocation); n > 0 {
			v.Message = leaf.InstanceLocation[n-1] + " " + v.Message
		}
		faults = append(faults, v)
	}
	return faults
}

// badPattern returns the error of an unusable pattern inside an error about alternatives:
// of a schema or list of schemas, for example, the list is meant and its pattern is wrong.
func badPattern(err *jsonschema.ValidationError) *jsonschema.ValidationError {
	if _, ok := err.ErrorKind.(*kind.AnyOf); !ok {
		return err
	}
	for _, cause := range err.Causes {
		for _, leaf := range leaves(cause, nil) {
			if k, ok := badPattern(leaf).ErrorKind.(*kind.Format); ok && k.Want == "regex" {
				return badPattern(leaf)
			}
		}
	}
	return err
}

// The keywords of JSON Schema, by the kind of their value.
var (
	schemaKeywords = []string{
		"additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
		"propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
	}
	schemaListKeywords = []string{"allOf", "anyOf", "items", "oneOf", "prefixItems"}
	schemaMapKeywords  = []string{"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
	otherKeywords      = []string{
		"$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$ref", "$schema",
		"$vocabulary", "const", "contentEncoding", "contentMediaType", "default", "dependentRequired", "deprecated",
		"description", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum", "format", "maxContains", "maxItems",
		"maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
		"multipleOf", "pattern", "readOnly", "required", "title", "type", "uniqueItems", "writeOnly",
	}
	allKeywords = slices.Concat(schemaKeywords, schemaListKeywords, schemaMapKeywords, otherKeywords)
)

// lintSchema advises about keywords and required properties that are probably misspelt.
// JSON Schema ignores unknown keywords, so nothing else would reveal them.
func (d *definition) lintSchema(doc *document, v any, pointer string) {
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	advise := func(keyword, format string, args ...any) {
		lint := doc.lint(doc.keyLine(keyword), format, args...)
		lint.Message = about(doc, keyword) + lint.Message
		lint.Advice = true
		d.lints = append(d.lints, lint)
	}
	if _, ok := m[keySchema]; ok && doc == d.doc && m["$id"] == nil {
		lint := doc.lint(doc.keyLine(pointer+"/"+keySchema), "%s$schema has no effect here; write it at the top of the plan, or move this schema into a file of its own", about(doc, pointer))
		d.lints = append(d.lints, lint)
	}
	for key, value := range m {
		keyPointer := pointer + "/" + escapePointer(key)
		if !slices.Contains(allKeywords, key) {
			// "example" is a keyword of OpenAPI, not a misspelt "examples".
			if n := spelling.Nearest(key, allKeywords); n != "" && key != "example" && !strings.HasPrefix(key, "x-") {
				advise(keyPointer, "%q is no keyword of JSON Schema and has no effect; did you mean %q?", key, n)
			}
			continue
		}
		if slices.Contains(schemaKeywords, key) {
			d.lintSchema(doc, value, keyPointer)
		}
		if list, ok := value.([]any); ok && slices.Contains(schemaListKeywords, key) {
			for i, item := range list {
				d.lintSchema(doc, item, fmt.Sprintf("%s/%d", keyPointer, i))
			}
		}
		if members, ok := value.(map[string]any); ok && slices.Contains(schemaMapKeywords, key) {
			for name, member := range members {
				d.lintSchema(doc, member, keyPointer+"/"+escapePointer(name))
			}
		}
	}
	properties, _ := m["properties"].(map[string]any)
	required, _ := m["required"].([]any)
	for i, r := range required {
		name, _ := r.(string)
		if _, ok := properties[name]; ok || len(properties) == 0 {
			continue
		}
		if n := spelling.Nearest(name, sortedKeys(properties)); n != "" {
			advise(fmt.Sprintf("%s/required/%d", pointer, i), "%q is required but not among the properties; did you mean %q?", name, n)
		}
	}
}
