package enrich

import (
	"bytes"
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// keyMapping extracts the keys of an event.
type keyMapping struct {
	// path is set if the mapping is only a path, which is faster to evaluate.
	path    event.Path
	mapping *bloblang.Executor
}

var plainPath = regexp.MustCompile(`^\s*(?:root\s*=\s*)?this((?:\.[A-Za-z_][A-Za-z0-9_]*)+)\s*$`)

func parseKey(conf *service.ParsedConfig) (keyMapping, error) {
	mapping, err := conf.FieldBloblang(fieldKey)
	if err != nil {
		return keyMapping{}, err
	}
	text, err := conf.FieldString(fieldKey)
	if err != nil {
		return keyMapping{}, err
	}
	k := keyMapping{mapping: mapping}
	if m := plainPath.FindStringSubmatch(text); m != nil {
		k.path, err = event.ParsePath(strings.TrimPrefix(m[1], "."))
	}
	return k, err
}

// pointer returns the JSON pointer of the key in the event, or "" if the mapping is
// not a path.
func (k keyMapping) pointer() string {
	if k.path.IsZero() {
		return ""
	}
	return "/" + strings.ReplaceAll(k.path.String(), ".", "/")
}

// maxEventKeys is the maximum number of keys of an event, maxKeyBytes the maximum
// length of a key. Keys beyond these limits are ignored.
const (
	maxEventKeys = 1000
	maxKeyBytes  = 1024
)

// visit calls fn with every key of an event and reports whether the keys are an
// array.
func (k keyMapping) visit(e *event.Event, msg *service.Message, fn func(key []byte)) (array bool) {
	if !k.path.IsZero() {
		v := e.Get(k.path)
		switch v.Kind {
		case event.String:
			emit(v.Text, fn)
			return false
		case event.Number:
			emit(strconv.AppendFloat(nil, v.Number, 'f', -1, 64), fn)
			return false
		case event.Missing:
			return false
		}
	}
	v := k.query(msg)
	if items, ok := v.([]any); ok {
		for i, item := range items {
			if i == maxEventKeys {
				break
			}
			emit(scalar(item), fn)
		}
		return true
	}
	emit(scalar(v), fn)
	return false
}

// query evaluates the mapping on a message, so that the mapping can use metadata.
// The result is a value, or the bytes of a text.
func (k keyMapping) query(msg *service.Message) any {
	out, err := msg.BloblangQuery(k.mapping)
	if err != nil || out == nil {
		return nil
	}
	if !out.HasStructured() {
		raw, err := out.AsBytes()
		if in, _ := msg.AsBytes(); err != nil || bytes.Equal(raw, in) {
			return nil // the mapping does not assign root
		}
		return raw
	}
	v, err := out.AsStructured()
	if err != nil {
		return nil
	}
	return v
}

func emit(key []byte, fn func([]byte)) {
	if len(key) > 0 && len(key) <= maxKeyBytes {
		fn(key)
	}
}

// scalar returns the key of a value of a mapping. 1, 1.0 and "1" are the same key.
func scalar(v any) []byte {
	switch v := v.(type) {
	case string:
		return []byte(v)
	case []byte:
		return v
	case int64:
		return strconv.AppendInt(nil, v, 10)
	case int:
		return strconv.AppendInt(nil, int64(v), 10)
	case uint64:
		return strconv.AppendUint(nil, v, 10)
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil
		}
		return strconv.AppendFloat(nil, v, 'f', -1, 64)
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return []byte(v)
		}
		if f, err := v.Float64(); err == nil {
			return scalar(f)
		}
	}
	return nil
}
