package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
)

// Segment membership is part of the record. It is re-evaluated with every
// change of the record, and periodically, because membership can change with
// time alone (the sweep). Each evaluation compares the new membership with the
// stored one, and enqueues one message for each segment entered or left:
//
//	stored {buyer, new}   evaluated {buyer, vip}   messages: left new, entered vip

// Reason is the cause of a segment change.
type Reason string

const (
	// ByEvent: an event was applied.
	ByEvent Reason = "event"
	// ByMerge: another customer was merged into this one, or this one into
	// another.
	ByMerge Reason = "merge"
	// ByTime: time passed.
	ByTime Reason = "time"
	// ByDefinition and ByParameter: the rule, or something it reads, changed.
	ByDefinition Reason = "definition"
	ByParameter  Reason = "parameter"
)

// Cause is the occasion of an evaluation.
type Cause struct {
	// Reason is ByEvent, ByMerge, or empty. If it is empty, the record has not
	// changed since the last evaluation, and EvaluateSegments finds out
	// whether time or the rules made the difference.
	Reason Reason
	// EventID is the messageId of the event.
	EventID []byte
	// History reports whether the event was received before the store was created.
	// Changes then emit no message and cause no trigger.
	History bool
}

// SegmentChanges is the number of segments entered and left in one evaluation.
type SegmentChanges struct {
	Entered, Left int
	// Dropped is the number of messages that were dropped to make room in the
	// outbox.
	Dropped int
}

// EvaluateSegments updates the segment membership of the customer of key and
// enqueues a message for each segment entered or left. The moment of
// evaluation is now, or that of the last evaluation if it is later, because
// the clocks of two processes may differ. Without an event, and without a
// change of membership, the record does not change.
func (w *Viewer) EvaluateSegments(r *Record, key string, now int64, cause Cause) (changes SegmentChanges, err error) {
	if r.Erased() {
		return changes, nil // no message about an erased customer
	}
	set := r.def.Segments
	if set == nil && len(r.members) == 0 {
		if cause.Reason != "" {
			r.left = nil
		}
		return changes, nil
	}
	before := r.evaluatedAt
	asOf := max(now, before)
	toggles := r.toggles
	if asOf > before {
		toggles = 0
	}
	var evaluatedBy uint32
	parameters := w.parametersOf(set)
	if set != nil {
		evaluatedBy = set.Fingerprint(parameters)
	}
	if err := w.computeMembership(r, asOf, parameters); err != nil {
		return changes, err
	}
	changed := w.membershipChanges(r)
	if len(changed) > 0 && cause.Reason == "" {
		// The record has not changed. If the present rules give the stored
		// membership at the time of the last evaluation, time made the
		// difference.
		in := slices.Clone(w.membership)
		if err := w.computeMembership(r, before, parameters); err != nil {
			return changes, err
		}
		for i := range changed {
			c := &changed[i]
			switch {
			case before > 0 && c.segment >= 0 && w.membership[c.segment] != c.entered:
				c.reason = ByTime
			case before > 0 && segments.SameRules(r.evaluatedBy, evaluatedBy):
				c.reason = ByParameter
			default:
				c.reason = ByDefinition
			}
		}
		w.membership = append(w.membership[:0], in...)
	}
	toggled := uint64(0) // 1 if a segment is left at the moment it was entered
	for _, c := range changed {
		since := asOf
		if c.entered {
			changes.Entered++
		} else {
			changes.Left++
			if since = r.members[c.member].since; since == asOf {
				toggled = 1
			}
		}
		reason := cause
		if c.reason != "" {
			reason.Reason = c.reason
		}
		r.recordTriggerCause(c, reason, asOf)
		if reason.History {
			continue
		}
		changes.Dropped += r.Enqueue(transition{key: key, segment: c.name, entered: c.entered, time: asOf, since: since, cause: reason, toggles: toggles, erasedAt: r.erasedAt}.message())
	}
	if cause.Reason == "" && len(changed) == 0 {
		return changes, nil
	}
	r.setMembers(w.membership, asOf, evaluatedBy)
	r.toggles = toggles + toggled
	r.forgetLeft(asOf)
	return changes, nil
}

// PinParameters makes the viewer use the parameters in effect now, until the
// next call.
func (w *Viewer) PinParameters(def *Definition) {
	w.pinned = nil
	if def.Segments != nil {
		w.pinned = def.Segments.Parameters()
	}
}

// parametersOf returns the parameters for an evaluation, nil without segments.
func (w *Viewer) parametersOf(set *segments.Set) *segments.Parameters {
	if w.pinned != nil || set == nil {
		return w.pinned
	}
	return set.Parameters()
}

// SegmentsOutdated reports whether the record's segments were never evaluated,
// or with rules or parameters other than the viewer's.
func (w *Viewer) SegmentsOutdated(r *Record) bool {
	set := r.def.Segments
	return set != nil && (r.evaluatedAt == 0 || r.evaluatedBy != set.Fingerprint(w.parametersOf(set)))
}

// recordTriggerCause stores a change of membership that is the cause of a
// trigger. A change of the rules is no cause, because the customer did
// nothing. Nor is history.
func (r *Record) recordTriggerCause(c change, cause Cause, at int64) {
	rules := r.def.Triggers
	if rules == nil {
		return
	}
	skip := cause.Reason == ByDefinition || cause.Reason == ByParameter || cause.History
	switch {
	case c.entered && skip:
		rules.SkipEntry(&r.triggers, c.name, at)
	case !c.entered && !skip && rules.LeaveRetention(c.name) > 0:
		r.noteLeft([]byte(c.name), at)
	}
}

// change is a segment that a customer entered or left.
type change struct {
	name    string
	segment int // position in the definition, -1 for a removed segment
	member  int // position among the record's members, if the segment was left
	entered bool
	reason  Reason
}

// membershipChanges compares the evaluated membership with the stored one;
// both are ordered by name.
func (w *Viewer) membershipChanges(r *Record) (changed []change) {
	m := 0
	left := func(at int) {
		changed = append(changed, change{name: string(r.members[m].name), segment: at, member: m})
	}
	for i := range w.membership {
		name := r.def.Segments.Segments[i].Name
		for ; m < len(r.members) && string(r.members[m].name) < name; m++ {
			left(-1)
		}
		was := m < len(r.members) && string(r.members[m].name) == name
		switch {
		case was && !w.membership[i]:
			left(i)
		case !was && w.membership[i]:
			changed = append(changed, change{name: name, segment: i, entered: true})
		}
		if was {
			m++
		}
	}
	for ; m < len(r.members); m++ {
		left(-1)
	}
	return changed
}

// setMembers stores the evaluated membership. The time is stored even if the
// definition has no segments, so that messages under a later definition are
// not dated earlier.
func (r *Record) setMembers(in []bool, at int64, evaluatedBy uint32) {
	var buffer [16]member
	kept := buffer[:0]
	for i, holds := range in {
		if !holds {
			continue
		}
		name := r.def.Segments.Segments[i].Name
		if m, found := r.findMember(name); found {
			kept = append(kept, r.members[m])
		} else {
			kept = append(kept, member{[]byte(name), at})
		}
	}
	r.members = append(r.members[:0], kept...)
	r.evaluatedAt, r.evaluatedBy = at, evaluatedBy
}

// computeMembership evaluates the features that rules read, then the rules.
func (w *Viewer) computeMembership(r *Record, asOf int64, parameters *segments.Parameters) error {
	w.membership = w.membership[:0]
	if r.def.Segments == nil {
		return nil
	}
	w.chosen = append(w.chosen[:0], r.def.Segments.Features...)
	if err := w.prepare(r, asOf); err != nil {
		return err
	}
	return w.applyRules(r, parameters)
}

// applyRules sets w.membership from features that are ready.
func (w *Viewer) applyRules(r *Record, parameters *segments.Parameters) error {
	if err := r.parseTraits(); err != nil {
		return err
	}
	set := r.def.Segments
	w.membership = append(w.membership[:0], make([]bool, len(set.Segments))...)
	w.parameters, w.document = parameters, nil
	set.Evaluate(w, func(at int, holds bool) {
		w.membership[at] = holds
		if w.document != nil {
			w.document["segments"].(map[string]any)[set.Segments[at].Name] = holds
		}
	})
	w.document = nil
	return nil
}

// FeatureAt implements segments.Inputs.
func (w *Viewer) FeatureAt(at int) features.Result { return w.value(at).result }

// Trait implements segments.Inputs.
func (w *Viewer) Trait(name string) event.Value {
	at, found := slices.BinarySearchFunc(w.record.traits, name, func(t trait, name string) int { return bytes.Compare(t.name, []byte(name)) })
	if !found {
		return event.Value{}
	}
	return w.record.traits[at].value
}

// InSegment implements segments.Inputs.
func (w *Viewer) InSegment(at int) bool { return w.membership[at] }

// Parameter implements segments.Inputs.
func (w *Viewer) Parameter(name string) any { return w.parameters.Values[name] }

// Document implements segments.Inputs.
func (w *Viewer) Document() map[string]any {
	if w.document == nil {
		def := w.record.def
		features := make(map[string]any, len(def.Segments.Features))
		for _, at := range def.Segments.Features {
			features[def.Features.Features[at].Name] = w.value(at).result.Any()
		}
		segments := make(map[string]any, len(w.membership))
		for i, in := range w.membership {
			segments[def.Segments.Segments[i].Name] = in
		}
		w.document = map[string]any{
			"features": features, "traits": w.Traits(), "segments": segments, "parameters": w.parameters.Values,
			"as_of": string(event.AppendTime(nil, w.moment.AsOf)),
		}
	}
	return w.document
}

func (w *Viewer) appendSegments(dst []byte, r *Record, asOf int64, sel *Selection) ([]byte, error) {
	if err := w.applyRules(r, w.parametersOf(r.def.Segments)); err != nil {
		return dst, err
	}
	if w.rendering != nil {
		// A rule over a continuously changing value becomes true at a moment
		// that cannot be computed in advance.
		w.rendering.unstable = w.rendering.unstable || !r.def.Segments.FeaturesOnly ||
			slices.ContainsFunc(r.def.Segments.Features, func(at int) bool { return w.value(at).motion.Varies() })
	}
	dst = append(dst, `,"segments":{`...)
	first := true
	for i, in := range w.membership {
		if !in || !sel.AllSegments && !slices.Contains(sel.Segments, i) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		name := r.def.Segments.Segments[i].Name
		dst = append(dst, '"')
		dst = append(dst, name...)
		dst = append(dst, `":{"since":`...)
		since, ok := r.MemberSince(name)
		if w.rendering != nil && since > asOf {
			w.rendering.unstable = true
		}
		if ok && since <= asOf {
			dst = append(dst, '"')
			dst = event.AppendTime(dst, since)
			dst = append(dst, `"}`...)
		} else {
			dst = append(dst, `null}`...)
		}
	}
	return append(dst, '}'), nil
}

// transition is one entry into or exit from a segment.
type transition struct {
	key      string
	segment  string
	entered  bool
	time     int64 // the moment of evaluation
	since    int64 // when the membership began
	cause    Cause
	into     string // the key of the customer that this one was merged into
	toggles  uint64 // Record.toggles before the transition
	erasedAt int64  // time of the customer's latest erasure, 0 for none
}

// The names of the events that report segments.
const (
	SegmentEntered = "Segment Entered"
	SegmentLeft    = "Segment Left"
	// SegmentsCounted reports the number of customers in each segment.
	SegmentsCounted = "Segments Counted"
)

// message encodes the transition. The id is a hash of the content. Transitions
// with equal content, possible for a customer who enters and leaves a segment
// within one millisecond or was erased before, get different ids by toggles
// and erasedAt.
func (t transition) message() Message {
	name := SegmentLeft
	if t.entered {
		name = SegmentEntered
	}
	tail := append([]byte(nil), `","timestamp":"`...)
	tail = event.AppendTime(tail, t.time)
	tail = append(tail, `","properties":{"segment":`...)
	tail = jsontext.AppendString(tail, t.segment)
	if t.entered {
		tail = append(tail, `,"old":false,"new":true`...)
	} else {
		tail = append(tail, `,"old":true,"new":false`...)
	}
	tail = append(tail, `,"since":"`...)
	tail = event.AppendTime(tail, t.since)
	tail = append(tail, `","reason":"`...)
	tail = append(tail, t.cause.Reason...)
	tail = append(tail, '"')
	if len(t.cause.EventID) > 0 {
		tail = append(tail, `,"event_id":`...)
		tail = jsontext.AppendString(tail, t.cause.EventID)
	}
	if t.into != "" {
		tail = append(tail, `,"merged_into":`...)
		tail = jsontext.AppendString(tail, KeyID(t.into))
	}
	tail = append(tail, `}}`...)
	var variant []byte
	if t.toggles > 0 || t.erasedAt > 0 {
		variant = binary.AppendUvarint(appendTime([]byte{0}, t.erasedAt), t.toggles)
	}
	return newMessage(t.key, name, t.time, tail, variant)
}

// CountsMessage returns the message that reports the number of customers in
// each segment.
func CountsMessage(counts map[string]int64, at int64) Message {
	tail := append([]byte(nil), `","timestamp":"`...)
	tail = event.AppendTime(tail, at)
	tail = append(tail, `","properties":{"segments":{`...)
	for i, name := range slices.Sorted(maps.Keys(counts)) {
		if i > 0 {
			tail = append(tail, ',')
		}
		tail = append(jsontext.AppendString(tail, name), ':')
		tail = strconv.AppendInt(tail, counts[name], 10)
	}
	return newMessage("", SegmentsCounted, at, append(tail, `}}}`...), nil)
}

// newMessage encodes a message in the form of an event about the customer of
// key, or about no customer if key is empty. tail is the text that follows the
// messageId. variant distinguishes messages with equal content; it is empty
// for the first.
func newMessage(key, name string, at int64, tail, variant []byte) Message {
	head := append([]byte(nil), `{"type":"track","event":`...)
	head = jsontext.AppendString(head, name)
	switch {
	case key == "":
	case key[0] == Anonymous:
		head = jsontext.AppendString(append(head, `,"anonymousId":`...), KeyID(key))
	default:
		head = jsontext.AppendString(append(head, `,"userId":`...), KeyID(key))
	}
	head = append(head, `,"messageId":"`...)
	sum := sha256.New()
	_, _ = sum.Write(head)
	_, _ = sum.Write(tail)
	_, _ = sum.Write(variant)
	m := Message{ID: MessageID(sum.Sum(nil)[:len(MessageID{})]), Time: at}
	head = hex.AppendEncode(head, m.ID[:])
	m.Content = append(head, tail...)
	return m
}

// collectMergeLeaves notes that the customer of a merged record leaves all its
// segments. It reports whether there are any.
func (r *Record) collectMergeLeaves(key string, o *Record) (changed bool) {
	r.mergeLeaves = append(r.mergeLeaves, o.mergeLeaves...)
	for _, m := range o.members {
		r.mergeLeaves = append(r.mergeLeaves, transition{
			key: key, segment: string(m.name), since: m.since, cause: Cause{Reason: ByMerge}, into: string(o.link), toggles: o.toggles, erasedAt: o.erasedAt,
		})
	}
	return len(o.members) > 0
}

// EnqueueMergeLeaves enqueues, with the given time, the messages about
// segments that merged customers left since the record was decoded. Call it
// before writing a record after a merge.
func (r *Record) EnqueueMergeLeaves(now int64) {
	for _, t := range r.mergeLeaves {
		t.time = now
		r.Enqueue(t.message())
	}
	r.mergeLeaves = r.mergeLeaves[:0]
}
