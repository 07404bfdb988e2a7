// Package segments holds rules by which customers are in segments: what a rule
// may read, in which order rules that build on each other are judged, and what
// of a customer has to be known to judge them.
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

// Spec is a segment as somebody wrote it.
type Spec struct {
	// Name is what the segment is called.
	Name string
	// When is the text of its rule.
	When string
}

// Inputs are what rules read of a customer at a moment.
type Inputs interface {
	// FeatureAt returns the value of the feature at a position of the
	// definition, one of Set.Features.
	FeatureAt(at int) features.Result
	// Trait returns a trait, Missing if it is not set.
	Trait(name string) event.Value
	// In tells whether the customer is in the segment at a position, which was
	// judged before.
	InSegment(at int) bool
	// Parameter returns a parameter; all of a judgement are of one moment.
	Parameter(name string) any
	// Document returns all of this as a query reads it: an object of features,
	// traits, segments, parameters and as_of.
	Document() map[string]any
}

// Rule decides. It is safe for concurrent use. A rule that cannot be evaluated,
// such as by comparing a feature that is null, does not hold.
type Rule func(in Inputs) bool

// RuleCompiler makes a rule of its text.
type RuleCompiler func(text string, names Names) (Rule, error)

// Names are what the rules of a definition can name, by position.
type Names struct {
	Feature func(name string) (int, bool)
	Segment func(name string) (int, bool)
}

// Segment is a checked Spec.
type Segment struct {
	Spec
	rule     Rule
	segments []int // that the rule reads
}

// Set is the segments of a definition, in order of name. It is immutable, but
// for its parameters, and safe for concurrent use.
type Set struct {
	Segments []Segment
	// Features are the positions of the features that rules read.
	Features []int
	// Hash identifies the rules, without their parameters.
	Hash uint32
	// Lasting tells that segments are the same as long as the features are: no
	// rule reads as_of, and the parameters are those of always.
	FeaturesOnly bool

	parameters func() *Parameters
	order      []int // in which segments are judged
}

// SpecError is what is wrong with one segment.
type SpecError struct {
	// Segment is its position in the definition as it was written.
	Segment int
	Name    string
	Err     error
}

func (e *SpecError) Error() string { return fmt.Sprintf("segment %q: %v", e.Name, e.Err) }

func (e *SpecError) Unwrap() error { return e.Err }

// MaxSegments is how many segments a definition can have.
const MaxSegments = 1000

var (
	nameForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
	literal  = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	moment   = regexp.MustCompile(`\bas_of\b`)
	clock    = regexp.MustCompile(`\b(now|timestamp_unix(_milli|_micro|_nano)?)\s*\(\s*\)`)
)

// References returns the names that a rule reads of one kind: the words after
// "features." and so on. The error is for a mention without a name.
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

// New checks specs and makes a set of them. parameters returns those that hold
// at the moment, and always has the same names. The error joins a *SpecError
// for everything that is wrong.
func New(specs []Spec, features *features.Definition, parameters func() *Parameters, compile RuleCompiler) (*Set, error) {
	s := &Set{parameters: parameters, FeaturesOnly: true}
	if len(specs) > MaxSegments {
		return nil, fmt.Errorf("there are %d segments; a definition can have %d", len(specs), MaxSegments)
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

// link finds what a segment's rule reads.
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
		errs = append(errs, errors.New("a rule cannot ask for the time; read a time_since feature, or as_of, the moment of the judgement"))
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

// sort puts segments after those they build on.
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

// Names returns the names of the segments, in order.
func (s *Set) Names() []string {
	names := make([]string, len(s.Segments))
	for i := range s.Segments {
		names[i] = s.Segments[i].Name
	}
	return names
}

// Parameters returns the parameters that hold now.
func (s *Set) Parameters() *Parameters { return s.parameters() }

// Fingerprint identifies what customers are judged by, in the four bytes that a
// record has for it: the upper half the rules, the lower half the parameters.
func (s *Set) Fingerprint(p *Parameters) uint32 { return s.Hash&^0xffff | p.Hash&0xffff }

// SameRules tells whether two fingerprints are of the same rules, whatever the
// parameters.
func SameRules(a, b uint32) bool { return a>>16 == b>>16 }

// Judge calls judged for every segment, those that others build on first, with
// whether the customer is in it.
func (s *Set) Evaluate(in Inputs, judged func(at int, holds bool)) {
	for _, i := range s.order {
		judged(i, s.Segments[i].rule(in))
	}
}
