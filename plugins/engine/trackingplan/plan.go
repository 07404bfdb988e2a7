// Package trackingplan validates events. A tracking plan is a YAML file that lists the
// events of a business with a JSON Schema each, and the policies for invalid and
// unplanned events:
//
//	name: shop
//	version: 1.2.0
//	on_violation: dead_letter
//	events:
//	  Order Completed:
//	    properties:
//	      type: object
//	      required: [order_id, total]
//	      properties:
//	        order_id: { type: string, minLength: 1 }
//	        total: { type: number, minimum: 0 }
//
// The name of a track event is its event field, the name of any other event its type. A
// schema under properties or traits applies to that member of the event, which counts
// as an empty object if the event does not have it; a schema under envelope applies to
// the whole event. Schemas are compiled once. An event is validated from its bytes;
// only an event that fails is decoded into generic maps, to find the reasons.
package trackingplan

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
)

// Policy defines the treatment of an invalid event: the repairs to try and the outcome
// if they do not suffice.
type Policy struct {
	// Coerce converts a value of the wrong type if the conversion is lossless: "12.50"
	// to 12.50, "true" to true, 17 to "17".
	Coerce bool
	// Strip removes properties that the schema does not allow.
	Strip bool
	// Pass accepts the event and marks it. Otherwise it is rejected.
	Pass bool
}

// Unplanned defines the treatment of an event that the plan does not have.
type Unplanned int

// The policies for unplanned events.
const (
	MarkUnplanned Unplanned = iota
	AllowUnplanned
	RejectUnplanned
)

// Plan is a compiled tracking plan. It is immutable and safe for concurrent use.
type Plan struct {
	// Name and Version are stated in the file.
	Name, Version string

	maxDepth     int
	onViolation  Policy
	onUnplanned  Unplanned
	eventVersion []string
	envelope     []check // apply to every event
	events       map[string]*plannedEvent
	names        []string // of the events, sorted
	scratch      sync.Pool
}

// plannedEvent is an event of the plan.
type plannedEvent struct {
	name        string
	onViolation Policy
	// checks apply to events that state no version. If the event has only versions,
	// they are those of the default version.
	checks   []check
	versions map[string][]check
}

// check applies one schema to the whole event or to one of its members.
type check struct {
	member string // "" for the whole event
	schema *program
}

// Load reads the plan at path and the schema files in its folder that it refers to. The
// error for an invalid plan is a *finding.Error.
func Load(path string) (*Plan, error) {
	plan, _, lints := load(path)
	if err := finding.ToError(lints); err != nil {
		return nil, err
	}
	return plan, nil
}

// EventNames returns the sorted names of the planned events.
func (p *Plan) EventNames() []string { return slices.Clone(p.names) }

// HasEvent reports whether the plan has an event of this name.
func (p *Plan) HasEvent(name string) bool { return p.events[name] != nil }

// SetMaxDepth sets the maximum nesting depth of an event. It must be called before the
// plan is used.
func (p *Plan) SetMaxDepth(depth int) { p.maxDepth = min(max(depth, 1), MaxMaxDepth) }

const (
	keySchema       = "$schema"
	keyName         = "name"
	keyVersion      = "version"
	keyDescription  = "description"
	keyOnViolation  = "on_violation"
	keyOnUnplanned  = "on_unplanned"
	keyEventVersion = "event_version"
	keyFormats      = "formats"
	keySchemaURLs   = "schema_urls"
	keyDefs         = "$defs"
	keyDefinitions  = "definitions"
	keyEnvelope     = "envelope"
	keyEvents       = "events"

	keyProperties     = "properties"
	keyTraits         = "traits"
	keyVersions       = "versions"
	keyDefaultVersion = "default_version"
)

var (
	planKeys = []string{
		keySchema, keyName, keyVersion, keyDescription, keyOnViolation, keyOnUnplanned, keyEventVersion,
		keyFormats, keySchemaURLs, keyDefs, keyDefinitions, keyEnvelope, keyEvents,
	}
	eventKeys = []string{
		keyDescription, keyOnViolation, keyEnvelope, keyProperties, keyTraits, keyVersions, keyDefaultVersion,
	}
	versionKeys = []string{keyDescription, keyEnvelope, keyProperties, keyTraits}
)

// defaultEventVersion is the path at which Segment's SDKs store the version of an
// event.
var defaultEventVersion = []string{"context", "protocols", "event_version"}

// definition collects all findings of a plan while it is read, so that they are
// reported together.
type definition struct {
	doc   *document
	plan  *Plan
	lints []finding.Finding
}

func (d *definition) errorf(pointer, format string, args ...any) {
	d.lints = append(d.lints, d.doc.lint(d.doc.line(pointer), format, args...))
}

func (d *definition) keyErrorf(pointer, format string, args ...any) {
	d.lints = append(d.lints, d.doc.lint(d.doc.keyLine(pointer), format, args...))
}

// load reads a plan. The sources are all files it tried to read; the plan is nil if it
// is invalid.
func load(path string) (*Plan, sources, []finding.Finding) {
	files := sources{}
	data, err := files.read(path)
	if err != nil {
		message := err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			message = "there is no such file; write the path of the plan, relative to the folder that connect-personalize runs in"
		}
		return nil, files, []finding.Finding{{File: path, Line: 1, Message: message}}
	}
	plan, lints := build(path, data, files)
	return plan, files, lints
}

// build compiles the plan from its text.
func build(path string, data []byte, files sources) (*Plan, []finding.Finding) {
	doc, lints := readDocument(path, data)
	if len(lints) > 0 {
		return nil, finding.Sort(lints)
	}
	d := &definition{doc: doc, plan: &Plan{maxDepth: DefaultMaxDepth, events: map[string]*plannedEvent{}}}
	d.read(files)
	lints = finding.Sort(d.lints)
	if finding.ToError(lints) != nil {
		return nil, lints
	}
	return d.plan, lints
}

func (d *definition) read(files sources) {
	root, ok := d.doc.value.(map[string]any)
	if !ok {
		d.errorf("", "a tracking plan is a mapping; begin with \"name: shop\"")
		return
	}
	p := d.plan
	d.unknownKeys(root, "", "a tracking plan", planKeys)
	p.Name = d.text(root, "", keyName, true)
	p.Version = d.text(root, "", keyVersion, true)
	d.text(root, "", keyDescription, false)
	p.onViolation = d.policy(root, "", Policy{})
	p.onUnplanned = d.unplanned(root)
	p.eventVersion = d.versionPath(root)

	c := newCompiler(d, files, root)
	if c == nil {
		return
	}
	c.lintShared(root)
	if _, ok := root[keyEnvelope]; ok {
		p.envelope = c.checks(root, "", keyEnvelope)
	}
	events, ok := root[keyEvents].(map[string]any)
	if !ok || len(events) == 0 {
		d.errorf("/"+keyEvents, "a plan needs events; write \"events:\" with the name of each event under it")
		return
	}
	for name := range events {
		p.names = append(p.names, name)
	}
	slices.Sort(p.names)
	d.similarNames()
	for _, name := range p.names {
		d.event(c, name, events[name])
	}
	c.finish()
}

// similarNames reports names that differ only in case or spaces: producers confuse
// them, and then half of the events are unplanned.
func (d *definition) similarNames() {
	first := map[string]string{}
	for _, name := range d.plan.names {
		folded := strings.ToLower(strings.Join(strings.Fields(name), " "))
		pointer := "/" + keyEvents + "/" + escapePointer(name)
		if name == "" || name != strings.TrimSpace(name) {
			d.keyErrorf(pointer, "event %q: a name may neither be empty nor begin or end with a space", name)
		}
		if other, ok := first[folded]; ok {
			d.keyErrorf(pointer, "event %q differs from %q on line %d by case or spaces only; keep one of them",
				name, other, d.doc.keyLine("/"+keyEvents+"/"+escapePointer(other)))
			continue
		}
		first[folded] = name
	}
}

// sections returns the member of an event to which its schemas apply, and the member
// that the event does not have, according to Segment's spec.
func sections(event string) (has, hasNot string) {
	switch event {
	case "identify", "group":
		return keyTraits, keyProperties
	}
	return keyProperties, keyTraits
}

func (d *definition) event(c *compiler, name string, v any) {
	pointer := "/" + keyEvents + "/" + escapePointer(name)
	e := &plannedEvent{name: name, onViolation: d.plan.onViolation}
	d.plan.events[name] = e
	if v == nil {
		return // planned, without a schema
	}
	m, ok := v.(map[string]any)
	if !ok {
		d.errorf(pointer, "event %q: must be a mapping with a schema under properties, traits or envelope", name)
		return
	}
	subject := fmt.Sprintf("event %q", name)
	d.unknownKeys(m, pointer, subject, eventKeys)
	d.text(m, pointer, keyDescription, false)
	e.onViolation = d.policy(m, pointer, d.plan.onViolation)
	d.wrongSection(m, pointer, name)
	e.checks = c.checks(m, pointer, keyEnvelope, keyProperties, keyTraits)

	versions, given := m[keyVersions].(map[string]any)
	if _, ok := m[keyVersions]; ok && (!given || len(versions) == 0) {
		d.errorf(pointer+"/"+keyVersions, "event %q: versions must map a version, such as \"2\", to its schemas", name)
		return
	}
	if given {
		e.versions = make(map[string][]check, len(versions))
	}
	for _, version := range sortedKeys(versions) {
		versionPointer := pointer + "/" + keyVersions + "/" + escapePointer(version)
		vm, ok := versions[version].(map[string]any)
		if !ok {
			d.errorf(versionPointer, "event %q, version %q: must be a mapping with a schema under properties, traits or envelope", name, version)
			continue
		}
		d.unknownKeys(vm, versionPointer, fmt.Sprintf("event %q, version %q", name, version), versionKeys)
		d.text(vm, versionPointer, keyDescription, false)
		d.wrongSection(vm, versionPointer, name)
		e.versions[version] = c.checks(vm, versionPointer, keyEnvelope, keyProperties, keyTraits)
	}

	fallback := d.text(m, pointer, keyDefaultVersion, false)
	own := m[keyEnvelope] != nil || m[keyProperties] != nil || m[keyTraits] != nil
	switch {
	case fallback != "" && own:
		d.errorf(pointer+"/"+keyDefaultVersion, "event %q: has schemas of its own for events that state no version; remove default_version, or move the schemas under versions", name)
	case fallback != "" && versions[fallback] == nil:
		d.errorf(pointer+"/"+keyDefaultVersion, "event %q: default_version is not one of its versions; write one of %s", name, strings.Join(sortedKeys(versions), ", "))
	case fallback != "":
		e.checks = e.versions[fallback]
	case !own && len(versions) == 1:
		e.checks = e.versions[sortedKeys(versions)[0]]
	case !own && len(versions) > 1:
		d.keyErrorf(pointer+"/"+keyVersions, "event %q: has several versions; say which one events without a version are by \"default_version: %s\"", name, sortedKeys(versions)[0])
	}
}

func (d *definition) wrongSection(m map[string]any, pointer, event string) {
	has, hasNot := sections(event)
	if _, ok := m[hasNot]; !ok {
		return
	}
	d.keyErrorf(pointer+"/"+hasNot, "event %q: this event has no %s; write the schema under %s, or under envelope if it is about the whole event", event, hasNot, has)
}

func (d *definition) unknownKeys(m map[string]any, pointer, subject string, known []string) {
	for _, key := range sortedKeys(m) {
		if slices.Contains(known, key) {
			continue
		}
		hint := spelling.Hint(key, known)
		if hint == "" {
			hint = "; write one of " + strings.Join(known, ", ")
		}
		d.keyErrorf(pointer+"/"+escapePointer(key), "%s has no %q%s", subject, key, hint)
	}
}

// text returns a member that is text, or a number in the form in which it is written,
// such as a version.
func (d *definition) text(m map[string]any, pointer, key string, required bool) string {
	v, ok := m[key]
	if !ok {
		if required {
			d.errorf(pointer, "a tracking plan needs a %s; write \"%s: %s\"", key, key, map[string]string{keyName: "shop", keyVersion: "1.0.0"}[key])
		}
		return ""
	}
	switch v := v.(type) {
	case string:
		if v != "" || !required {
			return v
		}
	case fmt.Stringer: // json.Number
		return v.String()
	}
	d.errorf(pointer+"/"+key, "%s must be text", key)
	return ""
}

func (d *definition) policy(m map[string]any, pointer string, inherited Policy) Policy {
	v, ok := m[keyOnViolation]
	if !ok {
		return inherited
	}
	pointer += "/" + keyOnViolation
	steps, ok := v.([]any)
	if !ok {
		steps = []any{v}
	}
	var p Policy
	ended := false
	for i, step := range steps {
		if ended {
			d.errorf(pointer, "on_violation: nothing can come after %v; write repairs first, such as [coerce, strip, pass]", steps[i-1])
			return inherited
		}
		switch step {
		case "dead_letter":
			ended = true
		case "pass":
			p.Pass, ended = true, true
		case "coerce":
			p.Coerce = true
		case "strip":
			p.Strip = true
		default:
			hint := "; write dead_letter, pass, or the repairs coerce and strip with one of these after them, such as [coerce, pass]"
			if s, ok := step.(string); ok {
				hint = cmp.Or(spelling.Hint(s, []string{"dead_letter", "pass", "coerce", "strip"}), hint)
			}
			d.errorf(pointer, "on_violation: %v is not a policy%s", step, hint)
			return inherited
		}
	}
	if len(steps) == 0 {
		d.errorf(pointer, "on_violation: is empty; write dead_letter, pass, coerce or strip")
	}
	return p
}

func (d *definition) unplanned(m map[string]any) Unplanned {
	pointer := "/" + keyOnUnplanned
	switch v := m[keyOnUnplanned]; v {
	case "allow":
		return AllowUnplanned
	case "dead_letter":
		return RejectUnplanned
	case "mark":
	case nil:
		if _, ok := m[keyOnUnplanned]; ok {
			d.errorf(pointer, "on_unplanned: is empty; write allow, mark or dead_letter")
		}
	default:
		s, _ := v.(string)
		hint := spelling.Hint(s, []string{"allow", "mark", "dead_letter"})
		if hint == "" {
			hint = "; write allow, mark or dead_letter"
		}
		d.errorf(pointer, "on_unplanned: %v is not a policy%s", v, hint)
	}
	return MarkUnplanned
}

func (d *definition) versionPath(m map[string]any) []string {
	if _, ok := m[keyEventVersion]; !ok {
		return defaultEventVersion
	}
	path := strings.Split(d.text(m, "", keyEventVersion, false), ".")
	if slices.Contains(path, "") {
		d.errorf("/"+keyEventVersion, "event_version must be the path of the version in an event, keys joined by dots, such as context.protocols.event_version")
		return defaultEventVersion
	}
	return path
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// sources are the files from which a plan was read, with their contents, nil for an
// unreadable file.
type sources map[string][]byte

func (s sources) read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		data = nil
	}
	s[filepath.Clean(path)] = data
	return data, err
}

// current reads the same files again.
func (s sources) current() sources {
	current := sources{}
	for path := range s {
		_, _ = current.read(path)
	}
	return current
}

func (s sources) equal(o sources) bool {
	if len(s) != len(o) {
		return false
	}
	for path, data := range s {
		other, ok := o[path]
		if !ok || string(other) != string(data) || (other == nil) != (data == nil) {
			return false
		}
	}
	return true
}
