package segments

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/follow"
)

// Parameters are the named values that rules read. They are immutable; a
// changed file yields new Parameters.
type Parameters struct {
	// Values are numbers (float64), strings and booleans by name.
	Values map[string]any
	// Hash identifies the values.
	Hash uint32
}

// NewParameters validates values and returns them as Parameters.
func NewParameters(values map[string]any) (*Parameters, error) {
	p := &Parameters{Values: make(map[string]any, len(values))}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !nameForm.MatchString(name) {
			return nil, fmt.Errorf("parameter %q: a name is letters, digits and underscores and starts with a letter, such as high_value_revenue", name)
		}
		switch v := values[name].(type) {
		case float64, string, bool:
			p.Values[name] = v
		case int:
			p.Values[name] = float64(v)
		case int64:
			p.Values[name] = float64(v)
		case uint64:
			p.Values[name] = float64(v)
		case json.Number:
			f, err := v.Float64()
			if err != nil {
				return nil, fmt.Errorf("parameter %q: %w", name, err)
			}
			p.Values[name] = f
		default:
			return nil, fmt.Errorf("parameter %q must be a number, a text or a boolean, such as %s: 500", name, name)
		}
	}
	text, err := json.Marshal(p.Values) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	p.Hash = uint32(xxhash.Sum64(text))
	return p, nil
}

func (p *Parameters) names() []string { return slices.Sorted(maps.Keys(p.Values)) }

// with returns parameters in which overrides replace values of the same name.
func (p *Parameters) with(others map[string]any) (*Parameters, error) {
	all := maps.Clone(p.Values)
	maps.Copy(all, others)
	return NewParameters(all)
}

// File polls a parameters file, a YAML object of numbers, strings and booleans
// by name. An invalid version is never loaded: the last valid parameters stay
// in effect.
type File struct {
	*follow.Files[string] // the state is the file's text

	path    string
	base    *Parameters
	current atomic.Pointer[Parameters]
}

// OpenFile loads the file at path. Its parameters override those of the same
// name in base.
func OpenFile(path string, base *Parameters) (*File, error) {
	f := &File{path: path, base: base}
	text, err := f.read()
	if err != nil {
		return nil, err
	}
	f.Files, err = follow.Open(text, follow.Source[string]{
		State: func(string) (string, error) { return f.read() },
		Equal: func(a, b string) bool { return a == b },
		Load:  func(text string) (string, error) { return text, f.apply(text) },
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Path returns the path of the file.
func (f *File) Path() string { return f.path }

// Current returns the parameters in effect.
func (f *File) Current() *Parameters { return f.current.Load() }

// maxFile is the maximum size of a parameters file in bytes.
const maxFile = 1 << 20

func (f *File) read() (string, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return "", fmt.Errorf("parameters file: %w", err)
	}
	if info.Size() > maxFile {
		return "", fmt.Errorf("parameters file %s has %d bytes; write at most %d", f.path, info.Size(), maxFile)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return "", fmt.Errorf("parameters file: %w", err)
	}
	return string(text), nil
}

func (f *File) apply(text string) error {
	p, err := f.parse(text)
	if err == nil {
		f.current.Store(p)
	}
	return err
}

func (f *File) parse(text string) (*Parameters, error) {
	values, err := parseFile([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("parameters file %s: %w", f.path, err)
	}
	p, err := f.base.with(values)
	if err != nil {
		return nil, fmt.Errorf("parameters file %s: %w", f.path, err)
	}
	if old := f.current.Load(); old != nil {
		// Rules were compiled against the present names, so none may
		// disappear.
		for name := range old.Values {
			if _, there := p.Values[name]; !there {
				return nil, fmt.Errorf("parameters file %s lacks %q, which a rule may read; put it back", f.path, name)
			}
		}
	}
	return p, nil
}

// parseFile parses the text of a parameters file.
func parseFile(text []byte) (map[string]any, error) {
	var values map[string]any
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&values); err != nil {
		return nil, fmt.Errorf("it is not an object of parameters, such as high_value_revenue: 500: %w", err)
	}
	if len(values) == 0 {
		return nil, errors.New("it has no parameters; write one a line, such as high_value_revenue: 500")
	}
	p, err := NewParameters(values)
	if err != nil {
		return nil, err
	}
	return p.Values, nil
}
