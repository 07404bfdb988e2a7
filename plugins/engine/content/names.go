package content

import (
	"fmt"
	"slices"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Names are the names that a profile definition defines.
type Names struct {
	// Features and Segments are all names; nil means that they are not known, so
	// that no name is reported.
	Features, Segments []string
	// Traits are all traits if the block declares them; nil permits any.
	Traits []string
	// Amounts are the features with real numbers, such as sums. Their values are
	// divided exactly even if they are whole.
	Amounts []string
	// ObjectLists are the features with lists of objects, such as top_k.
	ObjectLists []string
}

// parts are the variables of every template.
var parts = []string{"id", "traits", "features", "segments", "as_of", "updated_at"}

// scope checks the names of a template while it is compiled.
type scope struct {
	known    Names
	assigned []string
	// used are the parts of a profile that the template reads, such as
	// traits.firstName.
	used map[string]bool
	// open permits undefined names.
	open bool
}

func newScope(known Names) *scope { return &scope{known: known, used: map[string]bool{}} }

func (s *scope) define(c *compiler, line int, name string) {
	if slices.Contains(parts, name) && !s.open {
		c.fail(line, "%q is a part of every profile; give the variable another name", name)
	}
	s.assigned = append(s.assigned, name)
}

// within defines the variables of a loop while fn runs.
func (s *scope) within(name, loop string, fn func()) {
	n := len(s.assigned)
	s.assigned = append(s.assigned, name, loop)
	fn()
	s.assigned = append(s.assigned[:n], s.assigned[min(n+2, len(s.assigned)):]...)
}

// check checks the names of a path, and sets how it is evaluated.
func (s *scope) check(c *compiler, line int, p *path) {
	if s.open || slices.Contains(s.assigned, p.name) {
		return
	}
	if !slices.Contains(parts, p.name) {
		hint := spelling.Hint(p.name, append(slices.Clone(parts), s.assigned...))
		switch {
		case slices.Contains(s.known.Features, p.name):
			hint = fmt.Sprintf("; write features.%s", p.name)
		case slices.Contains(s.known.Traits, p.name) || s.known.Traits == nil && hint == "":
			hint = fmt.Sprintf("; for a trait write traits.%s", p.name)
		}
		c.fail(line, "%q is not defined%s", p.name, hint)
		return
	}
	p.isProfile = true
	if len(p.keys) == 0 || p.keys[0].index != nil || p.keys[0].name == "size" {
		s.used[p.name] = true
		return
	}
	name := p.keys[0].name
	s.used[p.name+"."+name] = true
	switch p.name {
	case "features":
		s.member(c, line, "feature", name, s.known.Features)
		p.isAmount = slices.Contains(s.known.Amounts, name)
	case "traits":
		s.member(c, line, "trait", name, s.known.Traits)
	case "segments":
		s.member(c, line, "segment", name, s.known.Segments)
	}
}

func (s *scope) member(c *compiler, line int, kind, name string, all []string) {
	if all != nil && !s.open && !slices.Contains(all, name) {
		c.fail(line, "there is no %s %q%s", kind, name, spelling.Hint(name, all))
	}
}

// isObjectList reports whether an expression is a feature with a list of objects.
func (s *scope) isObjectList(e expression) bool {
	p, ok := e.(*path)
	return ok && p.isProfile && p.name == "features" && len(p.keys) == 1 && slices.Contains(s.known.ObjectLists, p.keys[0].name)
}

// listFilters accept a list of objects; other filters write it as text first.
var listFilters = strings.Fields("compact concat default find find_index first has json last map reject reverse size slice sort sort_natural sum uniq where")

func (s *scope) checkFilter(c *compiler, line int, call *filterCall) {
	if s.isObjectList(call.input) && !slices.Contains(listFilters, call.name) {
		c.adviseObjectList(line)
	}
}

// adviseObjectList adds advice: the block can be rendered, but not as intended.
func (c *compiler) adviseObjectList(line int) {
	c.problems = append(c.problems, finding.Finding{Line: line, Message: objectListMessage, Advice: true})
}

const objectListMessage = `this is a list of objects, which would be written as JSON; write | map: "value" | join: ", " or a for loop`
