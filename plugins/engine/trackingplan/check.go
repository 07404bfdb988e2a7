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

// Status is the result of checking an event against a plan.
type Status int

// The statuses of an event.
const (
	// Valid: the event satisfies every schema that applies to it.
	Valid Status = iota
	// Repaired: the event was changed to satisfy its schemas. Result.Body is the
	// changed event.
	Repaired
	// Passed: the event violates a schema, and the plan lets it pass.
	Passed
	// Rejected: the event is not processed further.
	Rejected
)

// Result is the outcome of checking one event.
type Result struct {
	Status Status
	// Event is the name of the planned event, empty for an unplanned one.
	Event string
	// Unplanned is set if the plan does not have the event; Mark is set if the plan
	// also requires marking it.
	Unplanned, Mark bool
	// Violations lists the violations of the original event. A valid event has none.
	Violations []Violation
	// Body is the repaired event, Changes are the repairs.
	Body    []byte
	Changes []Change
}

// Malformed reports whether the event was rejected because of its encoding rather than
// its content: two readers could interpret it differently.
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

// scratch is the memory needed to check one event. It is reused.
type scratch struct {
	reader    reader
	evaluator evaluator
}

// Check checks an event against the plan. It retains no reference to the event.
func (p *Plan) Check(raw []byte) (result Result) {
	// A panic caused by one event must not affect the other events of its batch.
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
	// A plan cannot prevent the erasure of a customer.
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

// passes reports whether v certainly satisfies all schemas.
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

// nameOf returns the name of the event: the event field of a track event, otherwise the
// type.
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

// explain decides about an event that may be invalid: the JSON Schema library finds the
// violations, and the policy decides the status.
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

// validate checks an event with the JSON Schema library.
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
