package trackingplan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// document is a file of the plan: its value as decoded JSON with exact numbers, and the
// line of each part.
type document struct {
	path  string
	value any
	lines map[string]int // by JSON pointer
	keys  map[string]int // the line of a member's name, by the JSON pointer of the member
}

// Limits for hostile or faulty files, such as aliases that expand exponentially.
const (
	maxDocumentNodes = 200_000
	maxDocumentDepth = 100
)

// line returns the line of the value at a JSON pointer, or of its nearest existing
// parent.
func (d *document) line(pointer string) int { return nearest(d.lines, pointer) }

// keyLine returns the line of the name of a member.
func (d *document) keyLine(pointer string) int {
	if n, ok := d.keys[pointer]; ok {
		return n
	}
	return d.line(pointer)
}

func nearest(lines map[string]int, pointer string) int {
	for {
		if n, ok := lines[pointer]; ok {
			return n
		}
		slash := strings.LastIndexByte(pointer, '/')
		if slash < 0 {
			return 1
		}
		pointer = pointer[:slash]
	}
}

func escapePointer(token string) string {
	if !strings.ContainsAny(token, "~/") {
		return token
	}
	return strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1")
}

// readDocument parses YAML, or JSON if the name ends in .json.
func readDocument(path string, data []byte) (*document, []finding.Finding) {
	d := &document{path: path, lines: map[string]int{}, keys: map[string]int{}}
	if strings.EqualFold(filepath.Ext(path), ".json") {
		return d, d.readJSON(data)
	}
	return d, d.readYAML(data)
}

func (d *document) lint(line int, format string, args ...any) finding.Finding {
	return finding.Finding{File: d.path, Line: line, Message: fmt.Sprintf(format, args...)}
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

func (d *document) readYAML(data []byte) []finding.Finding {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	if err := dec.Decode(&root); err != nil {
		line, message := 1, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = err.Error()[len(m[0]):]
		}
		if message == "EOF" {
			return []finding.Finding{d.lint(1, "the file is empty")}
		}
		return []finding.Finding{d.lint(line, "is not valid YAML: %s", message)}
	}
	if len(root.Content) != 1 {
		return []finding.Finding{d.lint(1, "the file is empty")}
	}
	var second yaml.Node
	if dec.Decode(&second) == nil {
		return []finding.Finding{d.lint(second.Line, "holds a second YAML document; write one document a file")}
	}
	b := yamlBuilder{doc: d}
	d.value = b.build(root.Content[0], "", 0)
	return b.lints
}

type yamlBuilder struct {
	doc   *document
	nodes int
	lints []finding.Finding
}

func (b *yamlBuilder) fail(n *yaml.Node, format string, args ...any) any {
	// One finding about a file that is too large is enough.
	if b.nodes <= maxDocumentNodes {
		b.lints = append(b.lints, b.doc.lint(n.Line, format, args...))
	}
	return nil
}

func (b *yamlBuilder) build(n *yaml.Node, pointer string, depth int) any {
	b.nodes++
	if b.nodes == maxDocumentNodes {
		b.fail(n, "the file unfolds to more than %d values; are its aliases nested?", maxDocumentNodes)
	}
	if b.nodes >= maxDocumentNodes {
		return nil
	}
	if depth > maxDocumentDepth {
		return b.fail(n, "is nested more than %d levels deep", maxDocumentDepth)
	}
	if _, ok := b.doc.lines[pointer]; !ok {
		b.doc.lines[pointer] = n.Line
	}
	switch n.Kind {
	case yaml.AliasNode:
		return b.build(n.Alias, pointer, depth+1)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			list[i] = b.build(item, pointer+"/"+strconv.Itoa(i), depth+1)
		}
		return list
	case yaml.MappingNode:
		return b.mapping(n, pointer, depth)
	case yaml.ScalarNode:
		return b.scalar(n)
	}
	return b.fail(n, "is not a value")
}

func (b *yamlBuilder) mapping(n *yaml.Node, pointer string, depth int) any {
	m := make(map[string]any, len(n.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			b.fail(key, "a key must be text")
			continue
		}
		if key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		member := pointer + "/" + escapePointer(key.Value)
		if _, twice := m[key.Value]; twice {
			b.fail(key, "%q stands here and on line %d; write it once", key.Value, b.doc.keys[member])
			continue
		}
		b.doc.keys[member] = key.Line
		m[key.Value] = b.build(value, member, depth+1)
	}
	for _, value := range merged {
		b.merge(m, value, pointer, depth+1)
	}
	return m
}

// merge adds the members of a "<<" that the mapping does not have itself.
func (b *yamlBuilder) merge(into map[string]any, value *yaml.Node, pointer string, depth int) {
	if value.Kind == yaml.SequenceNode && depth <= maxDocumentDepth {
		for _, item := range value.Content {
			b.merge(into, item, pointer, depth+1)
		}
		return
	}
	from, ok := b.build(value, pointer, depth).(map[string]any)
	if !ok {
		b.fail(value, `"<<" needs a mapping, such as an alias of one`)
		return
	}
	for k, v := range from {
		if _, own := into[k]; !own {
			into[k] = v
		}
	}
}

func (b *yamlBuilder) scalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		var v bool
		if n.Decode(&v) != nil {
			return b.fail(n, "is not true or false")
		}
		return v
	case "!!int":
		if scanNumber([]byte(n.Value)) == numberFine {
			return json.Number(n.Value)
		}
		i, ok := new(big.Int).SetString(strings.ReplaceAll(n.Value, "_", ""), 0)
		if !ok || i.BitLen() > 1024 || scanNumber([]byte(i.String())) != numberFine {
			return b.fail(n, "is not a whole number in the range of a 64-bit float")
		}
		return json.Number(i.String())
	case "!!float":
		if scanNumber([]byte(n.Value)) == numberFine {
			return json.Number(n.Value)
		}
		var f float64
		if n.Decode(&f) != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return b.fail(n, "is not a number that JSON can hold")
		}
		return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
	}
	// JSON represents dates and other YAML types as text.
	return n.Value
}

func (d *document) readJSON(data []byte) []finding.Finding {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	b := jsonBuilder{doc: d, dec: dec, data: data, line: 1}
	var err error
	if d.value, err = b.build("", 0); err == nil {
		if _, err = dec.Token(); err == nil {
			err = errors.New("there is something after the JSON value")
		} else if err.Error() == "EOF" {
			err = nil
		}
	}
	if err != nil {
		b.lints = append(b.lints, d.lint(b.lineAt(dec.InputOffset()), "is not valid JSON: %s", err))
	}
	return b.lints
}

type jsonBuilder struct {
	doc   *document
	dec   *json.Decoder
	data  []byte
	lints []finding.Finding

	offset int64
	line   int
}

// lineAt continues from its last offset: offsets only increase.
func (b *jsonBuilder) lineAt(offset int64) int {
	if offset > b.offset {
		b.line += bytes.Count(b.data[b.offset:offset], []byte{'\n'})
		b.offset = offset
	}
	return b.line
}

func (b *jsonBuilder) build(pointer string, depth int) (any, error) {
	if depth > maxDocumentDepth {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDocumentDepth)
	}
	token, err := b.dec.Token()
	if err != nil {
		return nil, err
	}
	b.doc.lines[pointer] = b.lineAt(b.dec.InputOffset())
	switch token {
	case json.Delim('['):
		list := []any{}
		for i := 0; b.dec.More(); i++ {
			item, err := b.build(pointer+"/"+strconv.Itoa(i), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err := b.dec.Token()
		return list, err
	case json.Delim('{'):
		m := map[string]any{}
		for b.dec.More() {
			token, err := b.dec.Token()
			if err != nil {
				return nil, err
			}
			key, ok := token.(string)
			if !ok {
				return nil, errors.New("a member's name must be text")
			}
			line := b.lineAt(b.dec.InputOffset())
			member := pointer + "/" + escapePointer(key)
			if _, twice := m[key]; twice {
				b.lints = append(b.lints, b.doc.lint(line, "%q stands here and on line %d; write it once", key, b.doc.keys[member]))
			}
			b.doc.keys[member] = line
			if m[key], err = b.build(member, depth+1); err != nil {
				return nil, err
			}
		}
		_, err := b.dec.Token()
		return m, err
	}
	if n, ok := token.(json.Number); ok && scanNumber([]byte(n)) != numberFine {
		return nil, errors.New("a number is beyond the range of a 64-bit float")
	}
	return token, nil
}
