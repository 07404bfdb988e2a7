package trackingplan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// Change is one repair of an event.
type Change struct {
	// Pointer is the JSON pointer to the value.
	Pointer string `json:"pointer"`
	// From and To are the types before and after a coercion. Both are empty for a
	// removed value.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// repair changes an event in place until it satisfies its schemas or no allowed repair
// is left.
type repair struct {
	policy  Policy
	root    map[string]any
	changes []Change
}

// maxRepairs bounds the number of rounds: one repair can reveal a violation that needs
// another.
const maxRepairs = 8

func (r *repair) run(checks []check, failures []failure) bool {
	for range maxRepairs {
		changed := false
		for _, f := range failures {
			for _, leaf := range leaves(f.err, nil) {
				path := leaf.InstanceLocation
				if f.member != "" {
					path = append([]string{f.member}, path...)
				}
				changed = r.apply(leaf, path) || changed
			}
		}
		if !changed {
			return false
		}
		if failures = validate(r.root, checks); len(failures) == 0 {
			slices.SortFunc(r.changes, func(a, b Change) int { return cmp.Compare(a.Pointer, b.Pointer) })
			return true
		}
	}
	return false
}

// apply applies the allowed repair for one failure and reports whether it changed the
// event.
func (r *repair) apply(leaf *jsonschema.ValidationError, path []string) bool {
	switch k := leaf.ErrorKind.(type) {
	case *kind.Type:
		return r.policy.Coerce && r.coerce(path, k.Want)
	case *kind.AdditionalProperties:
		if !r.policy.Strip {
			return false
		}
		changed := false
		for _, name := range k.Properties {
			changed = r.remove(append(path[:len(path):len(path)], name)) || changed
		}
		return changed
	case *kind.FalseSchema:
		switch rule(leaf, k) {
		case "additionalProperties", "unevaluatedProperties":
			return r.policy.Strip && r.remove(path)
		}
	}
	return false
}

// holder returns the object or array that contains the value at path, and the key.
func (r *repair) holder(path []string) (any, string) {
	if len(path) == 0 {
		return nil, ""
	}
	var v any = r.root
	for _, token := range path[:len(path)-1] {
		switch t := v.(type) {
		case map[string]any:
			v = t[token]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(t) {
				return nil, ""
			}
			v = t[i]
		default:
			return nil, ""
		}
	}
	return v, path[len(path)-1]
}

func (r *repair) remove(path []string) bool {
	v, key := r.holder(path)
	obj, ok := v.(map[string]any)
	if !ok {
		return false
	}
	if _, ok := obj[key]; !ok {
		return false
	}
	delete(obj, key)
	r.changes = append(r.changes, Change{Pointer: pointerOf(path)})
	return true
}

func (r *repair) coerce(path []string, want []string) bool {
	v, key := r.holder(path)
	change := func(old any) (any, bool) {
		value, to, ok := coerced(old, want)
		if ok {
			r.changes = append(r.changes, Change{pointerOf(path), typeName(old), to})
		}
		return value, ok
	}
	switch t := v.(type) {
	case map[string]any:
		old, ok := t[key]
		if !ok {
			return false
		}
		if value, ok := change(old); ok {
			t[key] = value
			return true
		}
	case []any:
		i, err := strconv.Atoi(key)
		if err != nil || i < 0 || i >= len(t) {
			return false
		}
		if value, ok := change(t[i]); ok {
			t[i] = value
			return true
		}
	}
	return false
}

// coerced converts a value to one of the wanted types if the conversion is lossless.
func coerced(v any, want []string) (value any, to string, ok bool) {
	for _, to := range want {
		switch v := v.(type) {
		case string:
			s := strings.TrimSpace(v)
			switch to {
			case "number", "integer":
				// The next round checks that an integer has no fraction.
				if scanNumber([]byte(s)) == numberFine {
					return json.Number(s), to, true
				}
			case "boolean":
				if s == "true" || s == "false" {
					return s == "true", to, true
				}
			}
		case json.Number:
			if to == "string" {
				return v.String(), to, true
			}
		case bool:
			if to == "string" {
				return strconv.FormatBool(v), to, true
			}
		}
	}
	return nil, "", false
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case json.Number:
		return "number"
	case bool:
		return "boolean"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	return "null"
}

// protocolsNote is the record of a repair in the event, at context.protocols, where
// Segment's Protocols records similar notes.
type protocolsNote struct {
	Plan    string   `json:"plan"`
	Version string   `json:"version"`
	Coerced []Change `json:"coerced,omitempty"`
	Omitted []string `json:"omitted,omitempty"`
}

// annotate records the changes in the event and encodes it.
func (p *Plan) annotate(root map[string]any, changes []Change) ([]byte, error) {
	note := protocolsNote{Plan: p.Name, Version: p.Version}
	for _, c := range changes {
		if c.To == "" {
			note.Omitted = append(note.Omitted, c.Pointer)
		} else {
			note.Coerced = append(note.Coerced, c)
		}
	}
	if context, ok := member(root, "context"); ok {
		if protocols, ok := member(context, "protocols"); ok {
			protocols["repaired"] = note
		}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// member returns an object inside an object and creates it if it is missing.
func member(obj map[string]any, name string) (map[string]any, bool) {
	v, ok := obj[name]
	if !ok || v == nil {
		m := map[string]any{}
		obj[name] = m
		return m, true
	}
	m, ok := v.(map[string]any)
	return m, ok
}
