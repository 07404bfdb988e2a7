// Package splice sets a member of a JSON object by editing its text. All other
// bytes of the text stay unchanged.
package splice

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// ErrSyntax is returned for a document that is not a JSON object.
var ErrSyntax = errors.New("not a JSON object")

// ParentError reports that a value on the path exists and is not an object.
type ParentError struct {
	// Pointer is the JSON pointer of that value.
	Pointer string
}

func (e *ParentError) Error() string { return e.Pointer + " must be an object" }

// Path addresses a member of a document by object keys, outermost first.
type Path struct {
	keys []string
	// quoted are the keys encoded as JSON.
	quoted [][]byte
}

// NewPath returns the path of one or more keys.
func NewPath(keys ...string) Path {
	p := Path{keys: keys}
	for _, key := range keys {
		quoted, err := json.Marshal(key)
		if err != nil {
			panic(err) // a string can always be encoded
		}
		p.quoted = append(p.quoted, quoted)
	}
	return p
}

// Set appends doc to dst with the member at path set to value, which must be
// JSON. Absent or null objects on the path are created. Set validates only the
// part of the document that it reads. If an object has duplicate names, Set uses
// the first.
func Set(dst, doc []byte, path Path, value []byte) ([]byte, error) {
	open := skipSpace(doc, 0)
	if open >= len(doc) || doc[open] != '{' {
		return nil, ErrSyntax
	}
	for depth, key := range path.keys {
		m, err := find(doc, open, key)
		if err != nil {
			return nil, err
		}
		if !m.found {
			dst = append(dst, doc[:m.end]...)
			if !m.empty {
				dst = append(dst, ',')
			}
			dst = append(append(dst, path.quoted[depth]...), ':')
			dst = path.appendNested(dst, depth+1, value)
			return append(dst, doc[m.end:]...), nil
		}
		switch last := depth == len(path.keys)-1; {
		case last || string(doc[m.start:m.end]) == "null":
			dst = append(dst, doc[:m.start]...)
			dst = path.appendNested(dst, depth+1, value)
			return append(dst, doc[m.end:]...), nil
		case doc[m.start] != '{':
			return nil, &ParentError{pointer(path.keys[:depth+1])}
		}
		open = m.start
	}
	return nil, errors.New("splice: empty path")
}

// appendNested appends value, nested in new objects for the path's keys from depth
// on.
func (p Path) appendNested(dst []byte, depth int, value []byte) []byte {
	for _, key := range p.quoted[depth:] {
		dst = append(append(append(dst, '{'), key...), ':')
	}
	dst = append(dst, value...)
	for range p.quoted[depth:] {
		dst = append(dst, '}')
	}
	return dst
}

// Pointer returns the JSON pointer of the path.
func (p Path) Pointer() string { return pointer(p.keys) }

func pointer(keys []string) string {
	var b strings.Builder
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, key := range keys {
		b.WriteByte('/')
		b.WriteString(escape.Replace(key))
	}
	return b.String()
}

// member is the position of a member's value. If found is false, end is the
// position of the object's closing brace.
type member struct {
	found, empty bool
	start, end   int
}

// find returns the member with a key of the object that begins at doc[open].
func find(doc []byte, open int, key string) (member, error) {
	i := skipSpace(doc, open+1)
	if i < len(doc) && doc[i] == '}' {
		return member{empty: true, end: i}, nil
	}
	for {
		nameEnd, ok := skipString(doc, i)
		if !ok {
			return member{}, ErrSyntax
		}
		name := doc[i:nameEnd]
		i = skipSpace(doc, nameEnd)
		if i >= len(doc) || doc[i] != ':' {
			return member{}, ErrSyntax
		}
		start := skipSpace(doc, i+1)
		end, ok := skipValue(doc, start)
		if !ok {
			return member{}, ErrSyntax
		}
		if names(name, key) {
			return member{found: true, start: start, end: end}, nil
		}
		i = skipSpace(doc, end)
		if i >= len(doc) {
			return member{}, ErrSyntax
		}
		switch doc[i] {
		case ',':
			i = skipSpace(doc, i+1)
		case '}':
			return member{end: i}, nil
		default:
			return member{}, ErrSyntax
		}
	}
}

// names reports whether a quoted name is equal to key.
func names(quoted []byte, key string) bool {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == key
	}
	var name string
	return json.Unmarshal(quoted, &name) == nil && name == key
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at b[i].
func skipString(b []byte, i int) (int, bool) {
	if i >= len(b) || b[i] != '"' {
		return 0, false
	}
	for i++; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1, true
		case '\\':
			i++
		}
	}
	return 0, false
}

// skipValue returns the end of the value that begins at b[i].
func skipValue(b []byte, i int) (int, bool) {
	if i >= len(b) {
		return 0, false
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
	case ',', '}', ']', ':':
		return 0, false
	default:
		for i < len(b) && b[i] > ' ' && b[i] != ',' && b[i] != '}' && b[i] != ']' {
			i++
		}
		return i, true
	}
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			end, ok := skipString(b, i)
			if !ok {
				return 0, false
			}
			i = end
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, true
			}
		}
		i++
	}
	return 0, false
}
