package trackingplan

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/valyala/fastjson"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Status is what a plan makes of an event.
type Status int

// The statuses of an event.
const (
	// Valid events keep to every schema that applies to them.
	Valid Status = iota
	// Repaired events were changed so that they keep to their schema. The
	// Result's Body is the event to go on with.
	Repaired
	// Passed events break their schema, and the plan lets them through.
	Passed
	// Rejected events go no further.
	Rejected
)

// Result is what came of checking one event.
type Result struct {
	Status Status
	// Event is the name of the planned event, empty for an unplanned one.
	Event string
	// Unplanned tells that the plan does not have the event, and Mark that it
	// says to mark such.
	Unplanned, Mark bool
	// Violations are what was wrong with the event as it came. A valid event
	// has none.
	Violations []Violation
	// Body and Changes are the event as repaired, and what was changed.
	Body    []byte
	Changes []Change
}

// Malformed tells that an event was rejected for what it is written like and
// not for what it says: no two readers would agree on it.
func (r *Result) Malformed() bool {
	if r.Status != Rejected {
		return false
	}
	return slices.ContainsFunc(r.Violations, func(v Violation) bool {
		switch v.Rule {
		case RuleJSON, RuleEncoding, RuleDuplicate, RuleDepth, RuleNumber:
			return true
		}
		return false
	})
}

// scratch is the memory that checking one event needs.
type scratch struct {
	reader    reader
	evaluator evaluator
}

// Check holds an event against the plan. It does not keep the event.
func (p *Plan) Check(raw []byte) (result Result) {
	// Whatever an event does to us, it must not take its neighbours with it.
	defer func() {
		if recover() != nil {
			result = Result{Status: Rejected, Violations: []Violation{{Rule: RuleInternal, Message: "could not be checked, which is a fault of the program and not of the event"}}}
		}
	}()
	s, _ := p.scratch.Get().(*scratch)
	if s == nil {
		s = &scratch{}
	}
	result = p.check(s, raw)
	p.scratch.Put(s)
	return result
}

func (p *Plan) check(s *scratch, raw []byte) Result {
	v, fault := s.reader.read(raw, p.maxDepth)
	if fault != nil {
		return Result{Status: Rejected, Violations: []Violation{*fault}}
	}
	if v.Type() != fastjson.TypeObject {
		return Result{Status: Rejected, Violations: []Violation{{Rule: "type", Message: "must be an object"}}}
	}
	// No plan can keep a customer from being erased.
	if kind := string(v.GetStringBytes("type")); kind == event.TypeErase || kind == event.TypeReadmit {
		return Result{}
	}
	s.evaluator.arena.Reset()

	name, fault := nameOf(v)
	planned := p.events[string(name)]
	result := Result{}
	policy := p.onViolation
	var checks []check
	if planned != nil {
		result.Event, policy = planned.name, planned.onViolation
		if checks, fault = p.checksOf(planned, v); fault != nil {
			checks = nil
		}
	} else if fault == nil {
		result.Unplanned, result.Mark = true, p.onUnplanned == MarkUnplanned
		if p.onUnplanned == RejectUnplanned {
			result.Status = Rejected
			result.Violations = []Violation{p.unplanned(v, name)}
			return result
		}
	}
	if fault == nil && s.passes(p.envelope, v) && s.passes(checks, v) {
		return result
	}
	return p.explain(raw, result, policy, fault, p.envelope, checks)
}

// passes tells whether v certainly keeps to all of the schemas.
func (s *scratch) passes(checks []check, v *fastjson.Value) bool {
	for i := range checks {
		c := &checks[i]
		target := v
		if c.member != "" {
			if target = v.Get(c.member); target == nil {
				if !c.schema.emptyValid {
					return false
				}
				continue
			}
		}
		if !c.schema.valid(&s.evaluator, target) {
			return false
		}
	}
	return true
}

// nameOf returns what definitions call the event.
func nameOf(v *fastjson.Value) ([]byte, *Violation) {
	kind := v.GetStringBytes("type")
	if len(kind) == 0 {
		return nil, &Violation{Pointer: "/type", Rule: "required", Message: "an event needs a type, such as track or identify"}
	}
	if string(kind) != "track" {
		return kind, nil
	}
	name := v.GetStringBytes("event")
	if len(name) == 0 {
		return nil, &Violation{Pointer: "/event", Rule: "required", Message: "a track event needs its name in event"}
	}
	return name, nil
}

// checksOf returns the schemas for the version that the event states.
func (p *Plan) checksOf(planned *plannedEvent, v *fastjson.Value) ([]check, *Violation) {
	if planned.versions == nil {
		return planned.checks, nil
	}
	stated := v.Get(p.eventVersion...)
	if stated == nil || stated.Type() == fastjson.TypeNull {
		return planned.checks, nil
	}
	var version []byte
	switch stated.Type() {
	case fastjson.TypeString:
		version = stated.GetStringBytes()
	case fastjson.TypeNumber:
		version = stated.MarshalTo(nil)
	}
	if checks, ok := planned.versions[string(version)]; ok {
		return checks, nil
	}
	return nil, &Violation{
		Pointer: "/" + strings.Join(p.eventVersion, "/"), Rule: RuleVersion,
		Message: "is no version that the plan has of this event; it has " + strings.Join(sortedKeys(planned.versions), ", "),
	}
}

func (p *Plan) unplanned(v *fastjson.Value, name []byte) Violation {
	pointer := "/type"
	if v.Exists("event") && string(v.GetStringBytes("type")) == "track" {
		pointer = "/event"
	}
	message := "the plan has no event of this name"
	if n := spelling.Nearest(string(name), p.names); n != "" {
		message += fmt.Sprintf("; the nearest it has is %q", n)
	}
	return Violation{Pointer: pointer, Rule: RuleUnplanned, Message: message}
}

// explain decides on an event that may be wrong: the library says whether it
// is, and the policy what becomes of it.
func (p *Plan) explain(event []byte, result Result, policy Policy, fault *Violation, lists ...[]check) Result {
	var checks []check
	for _, list := range lists {
		checks = append(checks, list...)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(event))
	root, ok := value.(map[string]any)
	if err != nil || !ok {
		result.Status = Rejected
		result.Violations = []Violation{{Rule: RuleJSON, Message: "is not valid JSON"}}
		return result
	}
	faults := validate(root, checks)
	if fault == nil && len(faults) == 0 {
		return result
	}
	for _, f := range faults {
		result.Violations = append(result.Violations, violations(f.err, f.pointer())...)
	}
	if fault != nil {
		result.Violations = append(result.Violations, *fault)
	}
	result.Violations = tidy(result.Violations)
	if fault == nil && (policy.Coerce || policy.Strip) {
		r := repair{policy: policy, root: root}
		if r.run(checks, faults) {
			if body, err := p.annotate(root, r.changes); err == nil {
				result.Status, result.Body, result.Changes = Repaired, body, r.changes
				return result
			}
		}
	}
	result.Status = Rejected
	if policy.Pass {
		result.Status = Passed
	}
	return result
}

// failure is an error of the JSON Schema library for a member of an event.
type failure struct {
	member string
	err    *jsonschema.ValidationError
}

func (f failure) pointer() string {
	if f.member == "" {
		return ""
	}
	return "/" + f.member
}

// validate has the library check an event.
func validate(root map[string]any, checks []check) []failure {
	var failures []failure
	for _, c := range checks {
		var target any = root
		if c.member != "" {
			member, ok := root[c.member]
			if !ok {
				member = map[string]any{}
			}
			target = member
		}
		// The library returns no other type of error.
		if err, ok := c.schema.lib.Validate(target).(*jsonschema.ValidationError); ok {
			failures = append(failures, failure{c.member, err})
		}
	}
	return failures
}
