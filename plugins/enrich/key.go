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

// keyOf finds the keys of an event.
type keyOf struct {
	// path is set where the mapping is no more than a path.
	path    event.Path
	mapping *bloblang.Executor
}

var plainPath = regexp.MustCompile(`^\s*(?:root\s*=\s*)?this((?:\.[A-Za-z_][A-Za-z0-9_]*)+)\s*$`)

func parseKey(conf *service.ParsedConfig) (keyOf, error) {
	mapping, err := conf.FieldBloblang(fieldKey)
	if err != nil {
		return keyOf{}, err
	}
	text, err := conf.FieldString(fieldKey)
	if err != nil {
		return keyOf{}, err
	}
	k := keyOf{mapping: mapping}
	if m := plainPath.FindStringSubmatch(text); m != nil {
		k.path, err = event.ParsePath(strings.TrimPrefix(m[1], "."))
	}
	return k, err
}

// pointer is where in the event the key is, as far as that is known.
func (k keyOf) pointer() string {
	if k.path.IsZero() {
		return ""
	}
	return "/" + strings.ReplaceAll(k.path.String(), ".", "/")
}

// maxEventKeys bounds how many keys an event may have, maxKeyBytes how long one
// may be; what is beyond is taken to be no key.
const (
	maxEventKeys = 1000
	maxKeyBytes  = 1024
)

// visit calls fn with every key of an event, and tells whether they are an
// array's.
func (k keyOf) visit(e *event.Event, msg *service.Message, fn func(key []byte)) (array bool) {
	if !k.path.IsZero() {
		v := e.Get(k.path)
		switch v.Kind {
		case event.String:
			give(v.Text, fn)
			return false
		case event.Number:
			give(strconv.AppendFloat(nil, v.Number, 'f', -1, 64), fn)
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
			give(scalar(item), fn)
		}
		return true
	}
	give(scalar(v), fn)
	return false
}

// query runs the mapping on a message, so that it has metadata too. The value
// comes as a message, a text as its bytes.
func (k keyOf) query(msg *service.Message) any {
	out, err := msg.BloblangQuery(k.mapping)
	if err != nil || out == nil {
		return nil
	}
	if !out.HasStructured() {
		raw, err := out.AsBytes()
		if in, _ := msg.AsBytes(); err != nil || bytes.Equal(raw, in) {
			return nil // a mapping that does not say anything of root
		}
		return raw
	}
	v, err := out.AsStructured()
	if err != nil {
		return nil
	}
	return v
}

func give(key []byte, fn func([]byte)) {
	if len(key) > 0 && len(key) <= maxKeyBytes {
		fn(key)
	}
}

// scalar spells a value of a mapping as a key, so that 1, 1.0 and "1" are one.
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
