// Package segments evaluates the rules that define segments. It orders rules
// that depend on each other, and collects the features that they read.
package segments

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Spec is a segment as written in the definition.
type Spec struct {
	// Name is the name of the segment.
	Name string
	// When is the text of its rule.
	When string
}

// Inputs are the values that rules read, of one customer at one moment.
type Inputs interface {
	// FeatureAt returns the value of a feature by its position in the
	// definition; the position is one of Set.Features.
	FeatureAt(at int) features.Result
	// Trait returns a trait, Missing if it is not set.
	Trait(name string) event.Value
	// InSegment reports whether the customer is in the segment at a position,
	// which was evaluated before.
	InSegment(at int) bool
	// Parameter returns a parameter. All parameters of one evaluation belong
	// to the same version of the file.
	Parameter(name string) any
	// Document returns the inputs in the form that a query reads: an object
	// with features, traits, segments, parameters and as_of.
	Document() map[string]any
}

// Rule reports whether a customer is in a segment. It is safe for concurrent
// use. A rule that cannot be evaluated, for example because it compares a
// feature that is null, is false.
type Rule func(in Inputs) bool

// RuleCompiler compiles the text of a rule.
type RuleCompiler func(text string, names Names) (Rule, error)

// Names resolves the names in a rule to positions.
type Names struct {
	Feature func(name string) (int, bool)
	Segment func(name string) (int, bool)
}

// Segment is a validated Spec.
type Segment struct {
	Spec
	rule     Rule
	segments []int // positions of the segments that the rule reads
}

// Set is the segments of a definition, ordered by name. Except for its
// parameters it is immutable. It is safe for concurrent use.
type Set struct {
	Segments []Segment
	// Features are the positions of the features that rules read.
	Features []int
	// Hash identifies the rules without their parameters.
	Hash uint32
	// FeaturesOnly is set if membership depends on nothing but features,
	// traits and fixed parameters: no rule reads as_of. Membership is then
	// constant while they are.
	FeaturesOnly bool

	parameters func() *Parameters
	order      []int // evaluation order
}

// SpecError is a mistake in one segment.
type SpecError struct {
	// Segment is the position in the definition as written.
	Segment int
	Name    string
	Err     error
}

func (e *SpecError) Error() string { return fmt.Sprintf("segment %q: %v", e.Name, e.Err) }

func (e *SpecError) Unwrap() error { return e.Err }

// maxSegments is the maximum number of segments of a definition.
const maxSegments = 1000

var (
	nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
	literal  = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	moment   = regexp.MustCompile(`\bas_of\b`)
	clock    = regexp.MustCompile(`\b(now|timestamp_unix(_milli|_micro|_nano)?)\s*\(\s*\)`)
)

// References returns the names of one kind that a rule reads: the words after
// "features." and so on. The error reports a mention without a name.
func References(text, kind string) (names []string, err error) {
	text = literal.ReplaceAllString(text, `""`)
	for _, m := range regexp.MustCompile(`(^|[^.\w])(this\.)?`+kind+`\b(\.[A-Za-z_][A-Za-z0-9_]*)?`).FindAllStringSubmatch(text, -1) {
		if m[3] == "" {
			return nil, fmt.Errorf("write what is read of %s as %s.NAME", kind, kind)
		}
		if name := m[3][1:]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// New validates specs and compiles them into a Set. parameters returns the
// parameters in effect and must always return the same names. The error joins
// a *SpecError for every mistake.
func New(specs []Spec, features *features.Definition, parameters func() *Parameters, compile RuleCompiler) (*Set, error) {
	s := &Set{parameters: parameters, FeaturesOnly: true}
	if len(specs) > maxSegments {
		return nil, fmt.Errorf("there are %d segments; a definition can have %d", len(specs), maxSegments)
	}
	var errs []error
	written := make(map[string]int, len(specs))
	for i, spec := range specs {
		fail := func(format string, args ...any) {
			errs = append(errs, &SpecError{i, spec.Name, fmt.Errorf(format, args...)})
		}
		if !nameForm.MatchString(spec.Name) {
			fail("a name is letters, digits and underscores and starts with a letter, such as high_value")
		}
		if j, taken := written[spec.Name]; taken {
			fail("the name is already that of segment %d; give each segment a name of its own", j+1)
			continue
		}
		written[spec.Name] = i
		s.Segments = append(s.Segments, Segment{Spec: spec})
	}
	slices.SortFunc(s.Segments, func(a, b Segment) int { return strings.Compare(a.Name, b.Name) })
	names := Names{Feature: features.Lookup, Segment: s.Lookup}
	hash := xxhash.New()
	for i := range s.Segments {
		seg := &s.Segments[i]
		s.FeaturesOnly = s.FeaturesOnly && !moment.MatchString(literal.ReplaceAllString(seg.When, `""`))
		_, _ = hash.WriteString(seg.Name + "\x00" + seg.When + "\x00")
		for _, err := range s.link(seg, features, names, compile) {
			errs = append(errs, &SpecError{written[seg.Name], seg.Name, err})
		}
	}
	s.Hash = uint32(hash.Sum64())
	errs = append(errs, s.orderRules(written)...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.Sort(s.Features)
	s.Features = slices.Compact(s.Features)
	return s, nil
}

// link resolves the names that a segment's rule reads and compiles the rule.
func (s *Set) link(seg *Segment, features *features.Definition, names Names, compile RuleCompiler) (errs []error) {
	kinds := [...]struct {
		name, one string
		known     func() []string
		take      func(name string) bool
	}{
		{"features", "feature", func() []string { return featureNames(features) }, func(name string) bool {
			at, ok := features.Lookup(name)
			s.Features = append(s.Features, at)
			return ok
		}},
		{"segments", "segment", s.Names, func(name string) bool {
			at, ok := s.Lookup(name)
			seg.segments = append(seg.segments, at)
			return ok
		}},
		{"parameters", "parameter", func() []string { return s.parameters().names() }, func(name string) bool {
			_, ok := s.parameters().Values[name]
			return ok
		}},
	}
	for _, kind := range kinds {
		read, err := References(seg.When, kind.name)
		if err != nil {
			errs = append(errs, err)
		}
		for _, name := range read {
			if !kind.take(name) {
				errs = append(errs, fmt.Errorf("there is no %s %q%s", kind.one, name, spelling.Hint(name, kind.known())))
			}
		}
	}
	if clock.MatchString(literal.ReplaceAllString(seg.When, `""`)) {
		errs = append(errs, errors.New("a rule cannot ask for the time; read a time_since feature, or as_of, the moment of evaluation"))
	}
	if len(errs) > 0 {
		return errs
	}
	rule, err := compile(seg.When, names)
	if err != nil {
		return []error{fmt.Errorf("when: %w", err)}
	}
	seg.rule = rule
	return nil
}

func featureNames(d *features.Definition) []string {
	names := make([]string, len(d.Features))
	for i := range d.Features {
		names[i] = d.Features[i].Name
	}
	return names
}

// orderRules sorts segments topologically: each after the segments that it
// reads.
func (s *Set) orderRules(written map[string]int) (errs []error) {
	const fresh, entered, left = 0, 1, 2
	state := make([]uint8, len(s.Segments))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		seg := &s.Segments[i]
		if state[i] == left {
			return
		}
		path = append(path, seg.Name)
		defer func() { path = path[:len(path)-1] }()
		if state[i] == entered {
			circle := path[slices.Index(path, seg.Name):]
			errs = append(errs, &SpecError{written[seg.Name], seg.Name, fmt.Errorf("it builds on itself: %s; break the circle", strings.Join(circle, " needs "))})
			return
		}
		state[i] = entered
		for _, j := range seg.segments {
			if j >= 0 {
				visit(j)
			}
		}
		state[i] = left
		s.order = append(s.order, i)
	}
	for i := range s.Segments {
		visit(i)
	}
	return errs
}

// Lookup returns the position of the segment with a name, -1 if there is none.
func (s *Set) Lookup(name string) (int, bool) {
	at, found := slices.BinarySearchFunc(s.Segments, name, func(seg Segment, name string) int { return strings.Compare(seg.Name, name) })
	if !found {
		return -1, false
	}
	return at, true
}

// Names returns the names of the segments, sorted.
func (s *Set) Names() []string {
	names := make([]string, len(s.Segments))
	for i := range s.Segments {
		names[i] = s.Segments[i].Name
	}
	return names
}

// Parameters returns the parameters in effect.
func (s *Set) Parameters() *Parameters { return s.parameters() }

// Fingerprint identifies rules and parameters in the four bytes that a record
// has for it: the upper half is of the rules, the lower half of the
// parameters.
func (s *Set) Fingerprint(p *Parameters) uint32 { return s.Hash&^0xffff | p.Hash&0xffff }

// SameRules reports whether two fingerprints have the same rules, whatever
// their parameters.
func SameRules(a, b uint32) bool { return a>>16 == b>>16 }

// Evaluate calls fn for every segment, in evaluation order, with whether the
// customer is in it.
func (s *Set) Evaluate(in Inputs, fn func(i int, member bool)) {
	for _, i := range s.order {
		fn(i, s.Segments[i].rule(in))
	}
}
