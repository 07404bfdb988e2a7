package content

import (
	"fmt"
	"slices"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Names are what a profile has.
type Names struct {
	// Features and Segments are all there are; nil means that they are not
	// known, and none is wrong.
	Features, Segments []string
	// Traits are all there are if the block declares them; nil means any.
	Traits []string
}

// parts are the names a template finds at its top.
var parts = []string{"id", "traits", "features", "segments", "as_of", "updated_at"}

// constants have no value and are written for what is missing.
var constants = []string{"blank", "empty", "null"}

// scope is what names mean while a template is compiled.
type scope struct {
	known    Names
	assigned []string
	// used are the parts of a profile the template reads, such as
	// traits.firstName.
	used map[string]bool
}

func newScope(known Names) *scope { return &scope{known: known, used: map[string]bool{}} }

func (s *scope) define(c *compiler, line int, name string) {
	if slices.Contains(parts, name) {
		c.fail(line, "%q is a part of every profile; give the variable another name", name)
	}
	s.assigned = append(s.assigned, name)
}

// within defines the variables of a loop for as long as fn runs.
func (s *scope) within(name string, fn func()) {
	n := len(s.assigned)
	s.assigned = append(s.assigned, name, "forloop")
	fn()
	s.assigned = append(s.assigned[:n], s.assigned[min(n+2, len(s.assigned)):]...)
}

// expression checks the names in the text of an expression.
func (s *scope) expression(c *compiler, line int, source string) {
	tokens := lex(source)
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		if !t.name {
			continue
		}
		if i > 0 && tokens[i-1].text == "|" {
			if _, ok := filterNames[t.text]; !ok {
				c.fail(line, "there is no filter %q%s", t.text, spelling.Hint(t.text, filterList))
			}
			continue
		}
		if i > 0 && tokens[i-1].text == "." || i+1 < len(tokens) && tokens[i+1].text == ":" || keywords[t.text] {
			continue
		}
		member, found := "", false
		switch {
		case i+2 < len(tokens) && tokens[i+1].text == "." && tokens[i+2].name:
			member, found = tokens[i+2].text, true
		case i+3 < len(tokens) && tokens[i+1].text == "[" && tokens[i+2].quoted && tokens[i+3].text == "]":
			member, found = tokens[i+2].text, true
		}
		s.name(c, line, t.text, member, found)
	}
	// segments contains "name"
	for i := 2; i < len(tokens); i++ {
		if tokens[i].quoted && tokens[i-1].text == "contains" && tokens[i-2].text == "segments" {
			s.member(c, line, "segment", tokens[i].text, s.known.Segments)
		}
	}
}

var keywords = map[string]bool{
	"and": true, "or": true, "contains": true, "in": true, "true": true, "false": true, "nil": true, "reversed": true,
}

func (s *scope) name(c *compiler, line int, name, member string, found bool) {
	if slices.Contains(s.assigned, name) || slices.Contains(constants, name) {
		return
	}
	if !slices.Contains(parts, name) {
		hint := spelling.Hint(name, append(slices.Clone(parts), s.assigned...))
		switch {
		case slices.Contains(s.known.Features, name):
			hint = fmt.Sprintf("; write features.%s", name)
		case slices.Contains(s.known.Traits, name) || s.known.Traits == nil && hint == "":
			hint = fmt.Sprintf("; for a trait write traits.%s", name)
		}
		c.fail(line, "%q is not defined%s", name, hint)
		return
	}
	if !found || member == "size" {
		s.used[name] = true
		return
	}
	s.used[name+"."+member] = true
	switch name {
	case "features":
		s.member(c, line, "feature", member, s.known.Features)
	case "traits":
		s.member(c, line, "trait", member, s.known.Traits)
	case "segments":
		s.member(c, line, "segment", member, s.known.Segments)
	}
}

func (s *scope) member(c *compiler, line int, what, name string, all []string) {
	if all != nil && !slices.Contains(all, name) {
		c.fail(line, "there is no %s %q%s", what, name, spelling.Hint(name, all))
	}
}

// lexeme is a word of an expression.
type lexeme struct {
	text         string
	name, quoted bool
}

// lex splits an expression into words, as far as finding names takes.
func lex(source string) []lexeme {
	var out []lexeme
	for i := 0; i < len(source); {
		c := source[i]
		switch {
		case c == '"' || c == '\'':
			end := strings.IndexByte(source[i+1:], c)
			if end < 0 {
				return out
			}
			out = append(out, lexeme{text: source[i+1 : i+1+end], quoted: true})
			i += end + 2
		case isNameStart(c):
			start := i
			for i < len(source) && (isNameStart(source[i]) || source[i] == '-' || source[i] == '?' || source[i] >= '0' && source[i] <= '9') {
				i++
			}
			out = append(out, lexeme{text: source[start:i], name: true})
		case c >= '0' && c <= '9':
			for i < len(source) && source[i] >= '0' && source[i] <= '9' {
				i++
			}
			out = append(out, lexeme{text: "0"})
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		default:
			out = append(out, lexeme{text: string(c)})
			i++
		}
	}
	return out
}

func isNameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func isName(s string) bool {
	l := lex(s)
	return len(l) == 1 && l[0].name
}
