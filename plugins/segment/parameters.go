package segment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"gopkg.in/yaml.v3"
)

// Parameters are the named values that rules read. They do not change; a file
// of parameters that does gives others.
type Parameters struct {
	// Values are numbers (float64), texts and booleans by name.
	Values map[string]any
	// Hash identifies them.
	Hash uint32
}

// NewParameters checks values and makes parameters of them.
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
	text, err := json.Marshal(p.Values) // in order of name
	if err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	p.Hash = uint32(xxhash.Sum64(text))
	return p, nil
}

func (p *Parameters) names() []string { return slices.Sorted(maps.Keys(p.Values)) }

// with returns parameters with some in place of those here.
func (p *Parameters) with(others map[string]any) (*Parameters, error) {
	all := maps.Clone(p.Values)
	maps.Copy(all, others)
	return NewParameters(all)
}

// File follows a file of parameters: an object in YAML, of numbers, texts and
// booleans by name. A file that is wrong is never taken: the last good
// parameters stay.
type File struct {
	path    string
	base    *Parameters
	current atomic.Pointer[Parameters]

	taken []byte    // the text last read
	seen  time.Time // the time of the file when it was
	size  int64
}

// OpenFile reads the file at path. Its parameters take the place of those of
// the same name in base.
func OpenFile(path string, base *Parameters) (*File, error) {
	f := &File{path: path, base: base}
	if _, err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Path is the path of the file.
func (f *File) Path() string { return f.path }

// Current returns the parameters as they are now.
func (f *File) Current() *Parameters { return f.current.Load() }

// maxFile bounds the size of a file of parameters.
const maxFile = 1 << 20

// load reads the file if its time or size changed, and tells whether its text
// is another than before.
func (f *File) load() (changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		told := f.seen.IsZero()
		f.seen, f.size = time.Time{}, 0
		return !told, fmt.Errorf("parameters file: %w", err)
	}
	if info.ModTime().Equal(f.seen) && info.Size() == f.size {
		return false, nil
	}
	f.seen, f.size = info.ModTime(), info.Size()
	if info.Size() > maxFile {
		return true, fmt.Errorf("parameters file %s has %d bytes; write at most %d", f.path, info.Size(), maxFile)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return true, fmt.Errorf("parameters file: %w", err)
	}
	if f.current.Load() != nil && bytes.Equal(text, f.taken) {
		return false, nil
	}
	f.taken = text
	p, err := f.parse(text)
	if err != nil {
		return true, err
	}
	f.current.Store(p)
	return true, nil
}

func (f *File) parse(text []byte) (*Parameters, error) {
	values, err := ParseFile(text)
	if err != nil {
		return nil, fmt.Errorf("parameters file %s: %w", f.path, err)
	}
	p, err := f.base.with(values)
	if err != nil {
		return nil, fmt.Errorf("parameters file %s: %w", f.path, err)
	}
	if old := f.current.Load(); old != nil {
		// Rules were checked against the names there were.
		for name := range old.Values {
			if _, there := p.Values[name]; !there {
				return nil, fmt.Errorf("parameters file %s lacks %q, which a rule may read; put it back", f.path, name)
			}
		}
	}
	return p, nil
}

// ParseFile reads the text of a file of parameters.
func ParseFile(text []byte) (map[string]any, error) {
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

// Follow reads the file again when it changed, looking at every tick until ctx
// ends, and calls reloaded each time.
func (f *File) Follow(ctx context.Context, ticks <-chan time.Time, reloaded func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
			if changed, err := f.load(); changed {
				reloaded(err)
			}
		}
	}
}
