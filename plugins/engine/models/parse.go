package models

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
)

// maxFile bounds the size of a parameter file.
const maxFile = 1 << 20

// Load parses the parameter file at path, which may contain any model.
func Load(path string) (Model, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return parse(path, data)
}

// Lint returns the mistakes in the parameter file at path. The error is for a file
// that cannot be read.
func Lint(path string) ([]finding.Finding, error) {
	_, err := Load(path)
	return finding.Of(err)
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file: name a parameter file", path)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes; a parameter file has at most %d: name another file", path, info.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// parse parses a parameter file of any model. The path is used in errors.
func parse(path string, data []byte) (Model, error) {
	p := &parser{path: path}
	m := p.document(data)
	if len(p.problems) == 0 {
		return m, nil
	}
	slices.SortStableFunc(p.problems, func(a, b finding.Finding) int { return a.Line - b.Line })
	return nil, finding.ToError(p.problems)
}

// The keys of parameter files.
const (
	keyModel         = "model"
	keyVersion       = "version"
	keyFittedAt      = "fitted_at"
	keyObservedUntil = "observed_until"
	keyTimeUnit      = "time_unit"
	keyParameters    = "parameters"
	keyLogLikelihood = "log_likelihood"
	keyCustomers     = "customers"
	keyIntercept     = "intercept"
	keyInputs        = "inputs"
)

// keysOf are the keys of the parameter file of each model.
var keysOf = map[Kind][]string{
	KindBGNBD:      {keyModel, keyVersion, keyFittedAt, keyObservedUntil, keyTimeUnit, keyParameters, keyLogLikelihood, keyCustomers},
	KindGammaGamma: {keyModel, keyVersion, keyFittedAt, keyObservedUntil, keyParameters, keyLogLikelihood, keyCustomers},
	KindPropensity: {keyModel, keyVersion, keyFittedAt, keyObservedUntil, keyIntercept, keyInputs, keyLogLikelihood, keyCustomers},
}

var kindNames = string(KindBGNBD) + ", " + string(KindGammaGamma) + " or " + string(KindPropensity)

// parser collects the problems of one file.
type parser struct {
	path     string
	problems []finding.Finding
}

func (p *parser) add(line int, format string, args ...any) {
	p.problems = append(p.problems, finding.Finding{File: p.path, Line: max(line, 1), Message: fmt.Sprintf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func (p *parser) document(data []byte) Model {
	if len(data) > maxFile {
		p.add(1, "the file has %d bytes; a parameter file has at most %d", len(data), maxFile)
		return nil
	}
	var doc, next yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&doc)
	if err == nil {
		if err = decoder.Decode(&next); err == nil {
			p.add(next.Line, "a parameter file holds one model: move what follows --- into a file of its own")
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		text := err.Error()
		line := 1
		if found := yamlLine.FindStringSubmatch(text); found != nil {
			line, _ = strconv.Atoi(found[1])
			text = text[len(found[0]):]
		}
		p.add(line, "this is not YAML: %s", text)
		return nil
	}
	if len(doc.Content) == 0 {
		p.add(1, "the file is empty: write model: followed by %s, and its parameters", kindNames)
		return nil
	}
	root := p.mapping(doc.Content[0], "a parameter file")
	if root == nil {
		return nil
	}
	node, ok := root.get(keyModel)
	if !ok {
		p.add(root.line, "model is missing: write model: followed by %s", kindNames)
		return nil
	}
	kind := Kind(node.Value)
	keys, known := keysOf[kind]
	if node.Kind != yaml.ScalarNode || !known {
		p.add(node.Line, "model must be %s", kindNames)
		return nil
	}
	p.only(root, string(kind), keys...)

	origin := p.origin(root)
	switch kind {
	case KindBGNBD:
		m := &BGNBD{From: origin, Unit: p.unit(root)}
		p.parameters(root, []parameter{{"r", &m.R, shapes.check}, {"alpha", &m.Alpha, shapes.check}, {"a", &m.A, shapes.check}, {"b", &m.B, shapes.check}})
		return m
	case KindGammaGamma:
		m := &GammaGamma{From: origin}
		p.parameters(root, []parameter{{"p", &m.P, spendShapes.check}, {"q", &m.Q, checkQ}, {"gamma", &m.Gamma, spendScales.check}})
		return m
	default:
		m := &Propensity{From: origin, Intercept: p.float(root, keyIntercept, coefficients.check)}
		m.Inputs = p.inputs(root)
		return m
	}
}

type parameter struct {
	name   string
	target *float64
	check  check
}

// check returns an error if the value of a key is out of range.
type check func(key string, v float64) error

func (p *parser) parameters(root *mapping, list []parameter) {
	names := make([]string, len(list))
	for i, param := range list {
		names[i] = param.name
	}
	node, ok := root.get(keyParameters)
	if !ok {
		p.add(root.line, "parameters is missing: write parameters: with %s under it", strings.Join(names, ", "))
		return
	}
	params := p.mapping(node, keyParameters)
	if params == nil {
		return
	}
	p.only(params, keyParameters, names...)
	for _, param := range list {
		*param.target = p.float(params, param.name, param.check)
	}
}

func (p *parser) inputs(root *mapping) []Input {
	node, ok := root.get(keyInputs)
	if !ok {
		p.add(root.line, "inputs is missing: write inputs: with a list of name, coefficient, center, scale and default")
		return nil
	}
	node = deref(node)
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		p.add(node.Line, "inputs must be a list with at least one input, each with name, coefficient, center, scale and default")
		return nil
	}
	inputs := make([]Input, 0, len(node.Content))
	names := map[string]int{}
	for _, item := range node.Content {
		fields := p.mapping(item, "an input")
		if fields == nil {
			continue
		}
		p.only(fields, "an input", "name", "coefficient", "center", "scale", "default")
		in := Input{
			Coefficient: p.float(fields, "coefficient", coefficients.check),
			Center:      p.floatOr(fields, "center", centers.check, 0),
			Scale:       p.floatOr(fields, "scale", scales.check, 1),
			Default:     p.float(fields, "default", centers.check),
		}
		name, ok := fields.get("name")
		switch {
		case !ok:
			p.add(fields.line, "name is missing: write the name of the feature or trait that is the input")
		case name.Kind != yaml.ScalarNode || name.Value == "" || name.Tag == "!!null":
			p.add(name.Line, "name must be the name of the feature or trait that is the input")
		case names[name.Value] != 0:
			p.add(name.Line, "the input %q is on line %d already: remove one of them", name.Value, names[name.Value])
		default:
			in.Name = name.Value
			names[in.Name] = name.Line
		}
		inputs = append(inputs, in)
	}
	return inputs
}

func (p *parser) origin(root *mapping) Origin {
	var o Origin
	if node, ok := root.get(keyVersion); ok {
		if node.Kind != yaml.ScalarNode || node.Value == "" || node.Tag == "!!null" {
			p.add(node.Line, "version must be a text, such as \"2026-01\"; leave it out if there is none")
		}
		o.Version = node.Value
	}
	if node, ok := root.get(keyFittedAt); !ok {
		p.add(root.line, "fitted_at is missing: write when the parameters were estimated, such as 2026-01-31T02:00:00Z")
	} else if fittedAt, err := time.Parse(time.RFC3339, node.Value); err != nil || fittedAt.UTC().Year() < 1970 || fittedAt.UTC().Year() > 9999 {
		p.add(node.Line, "fitted_at must be a time in RFC 3339, such as 2026-01-31T02:00:00Z")
	} else {
		o.FittedAt = fittedAt.UTC()
	}
	if node, ok := root.get(keyObservedUntil); ok {
		until, err := time.Parse(time.DateOnly, node.Value)
		if err != nil {
			p.add(node.Line, "observed_until must be a date, such as 2026-01-30")
		}
		o.ObservedUntil = until
	}
	if node, ok := root.get(keyCustomers); ok {
		n, err := strconv.Atoi(node.Value)
		if err != nil || n < 1 {
			p.add(node.Line, "customers must be a whole number from 1; leave it out if it is not known")
		}
		o.Customers = n
	}
	o.LogLikelihood = p.floatOr(root, keyLogLikelihood, limits{-1e300, 1e300}.check, 0)
	return o
}

func (p *parser) unit(root *mapping) time.Duration {
	node, ok := root.get(keyTimeUnit)
	if !ok {
		p.add(root.line, "time_unit is missing: write the unit of time of the parameters, such as 7d for weeks")
		return 0
	}
	unit, err := ParseUnit(node.Value)
	if err != nil {
		p.add(node.Line, "%s", err)
	}
	return unit
}

// float returns a required number.
func (p *parser) float(in *mapping, key string, inRange check) float64 {
	if _, ok := in.get(key); !ok {
		p.add(in.line, "%s is missing: write %s: followed by a number", key, key)
		return 0
	}
	return p.floatOr(in, key, inRange, 0)
}

// floatOr returns an optional number, with a default for a missing one.
func (p *parser) floatOr(in *mapping, key string, inRange check, missing float64) float64 {
	node, ok := in.get(key)
	if !ok {
		return missing
	}
	v, err := strconv.ParseFloat(node.Value, 64)
	quoted := node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	if node.Kind != yaml.ScalarNode || quoted || err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		p.add(node.Line, "%s must be a number, such as 0.243, without quotes", key)
		return 0
	}
	if err := inRange(key, v); err != nil {
		p.add(node.Line, "%s", err)
	}
	return v
}

// mapping is a YAML mapping with access by key.
type mapping struct {
	line   int
	keys   []*yaml.Node
	values map[string]*yaml.Node
}

func (m *mapping) get(key string) (*yaml.Node, bool) {
	node, ok := m.values[key]
	return node, ok
}

// mapping returns node as a mapping, nil if it is not one.
func (p *parser) mapping(node *yaml.Node, what string) *mapping {
	node = deref(node)
	if node.Kind != yaml.MappingNode {
		p.add(node.Line, "%s must be a mapping: lines of a key, a colon and a value", what)
		return nil
	}
	m := &mapping{line: node.Line, values: map[string]*yaml.Node{}}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if previous, duplicate := m.values[key.Value]; duplicate {
			p.add(key.Line, "%s is on line %d already: remove one of them", key.Value, previous.Line)
			continue
		}
		m.keys = append(m.keys, key)
		m.values[key.Value] = deref(node.Content[i+1])
	}
	return m
}

// only adds a problem for each key of m that is not in names.
func (p *parser) only(m *mapping, what string, names ...string) {
	for _, key := range m.keys {
		if !slices.Contains(names, key.Value) {
			p.add(key.Line, "%s has no %q: it takes %s", what, key.Value, strings.Join(names, ", "))
		}
	}
}

func deref(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode && node.Alias != nil {
		return node.Alias
	}
	return node
}
