package features

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// The kinds of feature that are computed from other features and from traits.
const (
	Ratio      Kind = "ratio"
	RFM        Kind = "rfm"
	Expression Kind = "expression"
	Propensity Kind = "propensity"
)

// Derived computes a feature from other features.
type Derived struct {
	// Needs are the names of the features that the value is computed from.
	Needs []string
	// Compute returns the value. It must be safe for concurrent use.
	Compute func(in Inputs) Result
}

// Inputs are the inputs of a derived feature.
type Inputs interface {
	// Feature returns the value of a feature that is listed in Needs.
	Feature(name string) Result
	// Traits returns the customer's traits, decoded as by encoding/json.
	Traits() map[string]any
}

// resolve looks up the dependencies of derived features and rejects cycles.
func (b *builder) resolve() {
	for i := range b.Features {
		f := &b.Features[i]
		if f.Derived == nil {
			continue
		}
		for _, name := range f.Derived.Needs {
			if j, ok := b.byName[name]; ok {
				f.needs = append(f.needs, j)
			} else {
				b.errs = append(b.errs, &SpecError{f.position, f.Name, fmt.Errorf("there is no feature %q%s", name, spelling.Hint(name, slices.Sorted(maps.Keys(b.byName))))})
			}
		}
	}
	const unvisited, entered, left = 0, 1, 2
	state := make([]uint8, len(b.Features))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		f := &b.Features[i]
		path = append(path, f.Name)
		defer func() { path = path[:len(path)-1] }()
		switch state[i] {
		case left:
			return
		case entered:
			cycle := path[slices.Index(path, f.Name):]
			b.errs = append(b.errs, &SpecError{f.position, f.Name, fmt.Errorf("it is computed from itself: %s; break the cycle", strings.Join(cycle, " needs "))})
			return
		}
		state[i] = entered
		for _, j := range f.needs {
			visit(j)
		}
		state[i] = left
	}
	for i := range b.Features {
		visit(i)
	}
}

// Any returns a value in the form of encoding/json.
func Any(v event.Value) any {
	switch v.Kind {
	case event.Number:
		if n, err := strconv.ParseInt(string(v.Text), 10, 64); err == nil {
			return n
		}
		return v.Number
	case event.String:
		return string(v.Text)
	case event.True:
		return true
	case event.False:
		return false
	case event.JSON:
		var decoded any
		if json.Unmarshal(v.Text, &decoded) == nil {
			return decoded
		}
	}
	return nil
}

// Of returns the value of what encoding/json or a query gives.
func ValueOf(v any) event.Value {
	switch v := v.(type) {
	case nil:
		return event.Value{}
	case float64:
		return number(v)
	case int64:
		return number(float64(v))
	case int:
		return number(float64(v))
	case bool:
		if v {
			return event.Value{Kind: event.True}
		}
		return event.Value{Kind: event.False}
	case string:
		return event.Value{Kind: event.String, Text: []byte(v)}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return event.Value{}
	}
	return event.Value{Kind: event.JSON, Text: text}
}

// Any returns the result in the form of encoding/json.
func (r Result) Any() any {
	switch r.Shape {
	case Object:
		m := make(map[string]any, len(r.Entries))
		for _, e := range r.Entries {
			m[e.Name] = Any(e.Value)
		}
		return m
	case Ranked:
		list := make([]any, len(r.Entries))
		for i, e := range r.Entries {
			list[i] = map[string]any{"value": e.Name, "count": Any(e.Value)}
		}
		return list
	case List:
		list := make([]any, len(r.Values))
		for i, v := range r.Values {
			list[i] = Any(v)
		}
		return list
	}
	return Any(r.Value)
}

// Number returns the result as a number, false if it is not a number.
func (r Result) Number() (float64, bool) {
	return r.Value.Number, r.Shape == Single && r.Value.Kind == event.Number
}
