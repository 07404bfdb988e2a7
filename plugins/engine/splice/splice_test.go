package splice

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSet(t *testing.T) {
	for _, c := range []struct{ doc, path, want string }{
		{`{}`, "a", `{"a":1}`},
		{` { } `, "a", ` { "a":1} `},
		{`{}`, "a.b.c", `{"a":{"b":{"c":1}}}`},
		{`{"x":[1,{"a":2}]}`, "a", `{"x":[1,{"a":2}],"a":1}`},
		{`{"a":2}`, "a", `{"a":1}`},
		{"{\n  \"a\" : [ 1, \"]\" ] ,\n  \"b\" : 2\n}", "a", "{\n  \"a\" : 1 ,\n  \"b\" : 2\n}"},
		{`{"a":{"b":{}},"c":"}"}`, "a.b.c", `{"a":{"b":{"c":1}},"c":"}"}`},
		{`{"a":{"x":{"b":3}}}`, "a.b", `{"a":{"x":{"b":3},"b":1}}`},
		{`{"a":null}`, "a.b", `{"a":{"b":1}}`},
		{`{"\u0061":{"b":"\\\""}}`, "a.b", `{"\u0061":{"b":1}}`},
		{`{"a":-1.5e3,"b":true}`, "b", `{"a":-1.5e3,"b":1}`},
		{`{"ü\"":1}`, `ü"`, `{"ü\"":1}`},
		{`{}`, `ü"`, `{"ü\"":1}`},
	} {
		got, err := Set(nil, []byte(c.doc), NewPath(strings.Split(c.path, ".")...), []byte(`1`))
		require.NoError(t, err, c.doc)
		require.Equal(t, c.want, string(got))
	}
}

func TestSetReportsTheParentThatIsNotAnObject(t *testing.T) {
	for _, value := range []string{`1`, `"x"`, `[]`, `true`} {
		_, err := Set(nil, []byte(`{"a":{"b/c":`+value+`}}`), NewPath("a", "b/c", "d"), []byte(`1`))
		var parent *ParentError
		require.ErrorAs(t, err, &parent)
		require.Equal(t, "/a/b~1c", parent.Pointer)
	}
}

func TestSetRejectsInvalidObjects(t *testing.T) {
	for _, doc := range []string{``, ` `, `[]`, `1`, `{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":"\`, `{"a":[}`, `{"a" 1}`, `{a:1}`, `{"a":,}`, `{"a":1 "b":2}`} {
		_, err := Set(nil, []byte(doc), NewPath("x"), []byte(`1`))
		require.ErrorIs(t, err, ErrSyntax, doc)
	}
}

// FuzzSet compares Set with the same operation on maps.
func FuzzSet(f *testing.F) {
	for _, doc := range []string{`{}`, `{"a":{"b":[1,2,{"c":"\\\""}]},"b":null}`, `{"a":null}`, `{"b":{"a":1},"\u0061":{}}`, `{"a":1}`, `[`, `{"a" : {"b" : {} } }`} {
		f.Add(doc, `{"v":1}`)
	}
	f.Fuzz(func(t *testing.T, doc, value string) {
		got, err := Set(nil, []byte(doc), NewPath("a", "b"), []byte(value))
		var before map[string]any
		var v any
		if json.Unmarshal([]byte(doc), &before) != nil || before == nil || json.Unmarshal([]byte(value), &v) != nil || hasDuplicates(doc) {
			return // invalid JSON must not panic
		}
		var want map[string]any
		switch parent := before["a"].(type) {
		case nil:
			before["a"] = map[string]any{"b": v}
			want = before
		case map[string]any:
			parent["b"] = v
			want = before
		default:
			if err == nil {
				t.Fatalf("%s: %s", doc, got)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		var after map[string]any
		if err := json.Unmarshal(got, &after); err != nil || !reflect.DeepEqual(after, want) {
			t.Fatalf("%s became %s: %v", doc, got, err)
		}
	})
}

// hasDuplicates reports whether an object of a document has a duplicate name.
func hasDuplicates(doc string) bool {
	dec := json.NewDecoder(strings.NewReader(doc))
	type level struct {
		object bool
		names  map[string]bool
		value  bool // the next token is a value, not a name
	}
	var levels []level
	for {
		tok, err := dec.Token()
		if err != nil {
			return false
		}
		if d, ok := tok.(json.Delim); ok && (d == '}' || d == ']') {
			levels = levels[:len(levels)-1]
			continue
		}
		if n := len(levels); n > 0 && levels[n-1].object {
			top := &levels[n-1]
			if !top.value {
				name := tok.(string)
				if top.names[name] {
					return true
				}
				top.names[name], top.value = true, true
				continue
			}
			top.value = false
		}
		if d, ok := tok.(json.Delim); ok {
			levels = append(levels, level{object: d == '{', names: map[string]bool{}})
		}
	}
}
