package enrich

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/redpanda-data/benthos/v4/public/bloblang"

	"github.com/connect-personalize/connect-personalize/plugins/engine/lookup"
)

// encode returns a value of a mapping as JSON on one line.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

var errTrailing = errors.New("more than one JSON value")

// decode parses one JSON value and keeps the digits of numbers.
func decode(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	return v, nil
}

// query evaluates a mapping. ok is false if root is deleted or null.
func query(mapping *bloblang.Executor, in any) (v any, ok bool, err error) {
	v, err = mapping.Query(in)
	if errors.Is(err, bloblang.ErrRootDeleted) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return v, v != nil, nil
}

// results applies the `result` mapping to the values of providers.
type results struct {
	mapping *bloblang.Executor
}

// put adds the value of a key.
func (r results) put(into map[string]lookup.Value, key string, v any) {
	if v == nil {
		return
	}
	if r.mapping != nil {
		var ok bool
		var err error
		if v, ok, err = query(r.mapping, map[string]any{"key": key, "value": v}); err != nil {
			into[key] = lookup.Value{Refused: true}
			return
		} else if !ok {
			return
		}
	}
	raw, err := encode(v)
	if err != nil {
		into[key] = lookup.Value{Refused: true}
		return
	}
	into[key] = lookup.Value{JSON: raw}
}
