package trackingplan

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// Violation is one violation of a plan by an event.
type Violation struct {
	// Pointer is the JSON pointer to the offending value, empty for the whole event.
	Pointer string `json:"pointer"`
	// Rule is the violated JSON Schema keyword or one of the Rule constants.
	Rule string `json:"rule"`
	// Message states the fault and the expectation. It never contains the value, which
	// may be personal data.
	Message string `json:"message"`
}

// The rules that are not JSON Schema keywords.
const (
	// RuleUnplanned: the plan does not have an event of this name.
	RuleUnplanned = "unplanned"
	// RuleVersion: the plan does not have the version that the event states.
	RuleVersion = "event_version"
	// RuleInternal: the event could not be checked.
	RuleInternal = "internal"
)

const (
	maxViolations = 20
	maxNames      = 5
	maxNameLength = 64
)

// violations converts the errors of the JSON Schema library. prefix is the pointer to
// the value.
func violations(err *jsonschema.ValidationError, prefix string) []Violation {
	var vs []Violation
	for _, leaf := range leaves(err, nil) {
		v := violation(leaf)
		v.Pointer = prefix + v.Pointer
		vs = append(vs, v)
	}
	return vs
}

// tidy orders violations by pointer, because the library reports them in the random
// order of Go maps, and truncates long lists.
func tidy(vs []Violation) []Violation {
	slices.SortFunc(vs, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	vs = slices.Compact(vs)
	if len(vs) > maxViolations {
		more := len(vs) - (maxViolations - 1)
		vs = append(vs[:maxViolations-1], Violation{Rule: "more", Message: fmt.Sprintf("breaks %d more rules", more)})
	}
	return vs
}

// leaves returns the errors that do not merely summarise other errors. Errors inside
// anyOf, oneOf and contains are no violations by themselves and stay inside their
// parent.
func leaves(err *jsonschema.ValidationError, to []*jsonschema.ValidationError) []*jsonschema.ValidationError {
	switch err.ErrorKind.(type) {
	case *kind.Schema, *kind.Group, *kind.Reference, *kind.AllOf:
		if len(err.Causes) > 0 {
			for _, cause := range err.Causes {
				to = leaves(cause, to)
			}
			return to
		}
	}
	return append(to, err)
}

func pointerOf(tokens []string) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteByte('/')
		b.WriteString(escapePointer(t))
	}
	return b.String()
}

// rule returns the keyword that an error is about.
func rule(err *jsonschema.ValidationError, k jsonschema.ErrorKind) string {
	switch k.(type) {
	case *kind.Not:
		return "not"
	case *kind.FalseSchema:
		// The keyword whose value is the schema false.
		loc := err.SchemaURL
		if i := strings.LastIndexByte(loc, '/'); i >= 0 {
			switch last := loc[i+1:]; last {
			case "unevaluatedProperties", "unevaluatedItems", "additionalProperties", "additionalItems", "items", "contains":
				return last
			}
		}
		return "false"
	}
	if path := k.KeywordPath(); len(path) > 0 {
		return path[0]
	}
	return "schema"
}

func violation(err *jsonschema.ValidationError) Violation {
	v := Violation{Pointer: pointerOf(err.InstanceLocation), Rule: rule(err, err.ErrorKind)}
	switch k := err.ErrorKind.(type) {
	case *kind.AnyOf:
		v.Message = "matches none of the alternatives: " + alternatives(err.Causes, len(err.InstanceLocation))
	case *kind.OneOf:
		if len(k.Subschemas) > 1 {
			v.Message = "matches more than one alternative; it must match exactly one"
		} else {
			v.Message = "matches none of the alternatives: " + alternatives(err.Causes, len(err.InstanceLocation))
		}
	default:
		v.Message = describe(err.ErrorKind)
	}
	return v
}

// alternatives states, for each branch of an anyOf or oneOf, why the value does not
// satisfy it.
func alternatives(causes []*jsonschema.ValidationError, depth int) string {
	const most = 4
	var b strings.Builder
	for i, cause := range causes {
		if i > 0 {
			b.WriteString("; or ")
		}
		if i == most {
			fmt.Fprintf(&b, "%d more", len(causes)-most)
			break
		}
		var faults []string
		for _, leaf := range leaves(cause, nil) {
			fault := describe(leaf.ErrorKind)
			if len(leaf.InstanceLocation) > depth {
				fault = clip(pointerOf(leaf.InstanceLocation[depth:])) + " " + fault
			}
			faults = append(faults, fault)
		}
		slices.Sort(faults)
		b.WriteString(strings.Join(faults, " and "))
	}
	return b.String()
}

// describe words an error without any value of the event. Values of the schema and
// names of properties may appear.
func describe(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be " + article(k.Want) + ", not " + article([]string{k.Got})
	case *kind.Required:
		return "lacks " + names(k.Missing)
	case *kind.Enum:
		return "must be one of " + values(k.Want)
	case *kind.Const:
		return "must be " + values([]any{k.Want})
	case *kind.Format:
		return "is not in the format " + k.Want
	case *kind.Pattern:
		return "does not match the pattern " + k.Want
	case *kind.MinLength:
		return fmt.Sprintf("must be at least %s long, not %d", count(k.Want, "character"), k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("must be at most %s long, not %d", count(k.Want, "character"), k.Got)
	case *kind.Minimum:
		return "must be at least " + number(k.Want)
	case *kind.Maximum:
		return "must be at most " + number(k.Want)
	case *kind.ExclusiveMinimum:
		return "must be more than " + number(k.Want)
	case *kind.ExclusiveMaximum:
		return "must be less than " + number(k.Want)
	case *kind.MultipleOf:
		return "must be a multiple of " + number(k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %s, not %d", count(k.Want, "item"), k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %s, not %d", count(k.Want, "item"), k.Got)
	case *kind.UniqueItems:
		return fmt.Sprintf("has equal items, number %d and number %d", k.Duplicates[0], k.Duplicates[1])
	case *kind.Contains:
		return "has no item such as it must contain"
	case *kind.MinContains:
		return fmt.Sprintf("has %d items of the kind it must contain, and needs at least %d", len(k.Got), k.Want)
	case *kind.MaxContains:
		return fmt.Sprintf("has %d items of a kind it may contain at most %d of", len(k.Got), k.Want)
	case *kind.AdditionalItems:
		return fmt.Sprintf("has %s too many at its end", count(k.Count, "item"))
	case *kind.MinProperties:
		return fmt.Sprintf("must have at least %s, not %d", count(k.Want, "member"), k.Got)
	case *kind.MaxProperties:
		return fmt.Sprintf("must have at most %s, not %d", count(k.Want, "member"), k.Got)
	case *kind.AdditionalProperties:
		return "may not have " + names(k.Properties)
	case *kind.PropertyNames:
		return "may not have a member named " + names([]string{k.Property})
	case *kind.Dependency:
		return "lacks " + names(k.Missing) + ", needed beside " + names([]string{k.Prop})
	case *kind.DependentRequired:
		return "lacks " + names(k.Missing) + ", needed beside " + names([]string{k.Prop})
	case *kind.FalseSchema:
		return "is not allowed here"
	case *kind.Not:
		return "is of a kind that is not allowed"
	case *kind.AnyOf, *kind.OneOf:
		return "matches none of the alternatives"
	case *kind.RefCycle:
		return "cannot be checked, since its schema refers to itself"
	}
	return "does not match the schema"
}

func article(types []string) string {
	var words, last []string
	for _, t := range types {
		switch t {
		case "null":
			last = []string{"null"}
		case "array", "integer", "object":
			words = append(words, "an "+t)
		default:
			words = append(words, "a "+t)
		}
	}
	return strings.Join(append(words, last...), " or ")
}

func count(n int, subject string) string {
	if n == 1 {
		return "1 " + subject
	}
	return strconv.Itoa(n) + " " + subject + "s"
}

func number(r *big.Rat) string {
	if places, exact := r.FloatPrec(); exact && places < 20 {
		return r.FloatString(places)
	}
	return r.RatString()
}

func clip(s string) string {
	if r := []rune(s); len(r) > maxNameLength {
		return string(r[:maxNameLength]) + "..."
	}
	return s
}

func names(list []string) string {
	list = slices.Sorted(slices.Values(list))
	var b strings.Builder
	for i, name := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == maxNames {
			fmt.Fprintf(&b, "and %d more", len(list)-maxNames)
			break
		}
		b.WriteString(strconv.Quote(clip(name)))
	}
	return b.String()
}

func values(list []any) string {
	var b strings.Builder
	for i, v := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == 20 {
			fmt.Fprintf(&b, "and %d more", len(list)-i)
			break
		}
		switch v := v.(type) {
		case nil:
			b.WriteString("null")
		case string:
			b.WriteString(strconv.Quote(clip(v)))
		case map[string]any:
			b.WriteString("an object")
		case []any:
			b.WriteString("an array")
		default:
			fmt.Fprint(&b, v)
		}
	}
	return b.String()
}
