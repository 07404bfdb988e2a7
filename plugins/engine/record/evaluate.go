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

// The segments that a record holds its customer to be in are those that the
// rules gave when they were last judged: with every change of the record, and
// regularly because of the time that passes. What the world is told are the
// differences between one judgement and the next.

// Reason is why a customer entered or left a segment.
type Reason string

// The reasons.
const (
	// ByEvent: an event was taken in.
	ByEvent Reason = "event"
	// ByMerge: another customer was merged in, or this one into another.
	ByMerge Reason = "merge"
	// ByTime: time passed.
	ByTime Reason = "time"
	// ByDefinition and ByParameter: the rule, or something it reads, is another.
	ByDefinition Reason = "definition"
	ByParameter  Reason = "parameter"
)

// Cause is what a judgement is made for.
type Cause struct {
	// Reason is ByEvent, ByMerge, or empty to find out: the record is as it was
	// at the last judgement, so it is the time that passed, or the rules.
	Reason Reason
	// EventID is the messageId of the event.
	EventID []byte
}

// Judgement tells what came of judging a record.
type SegmentChanges struct {
	Entered, Left int
	// Dropped is how many messages were given up to make room.
	Dropped int
}

// Judge finds the segments the customer of key is in at a time, or at that of
// the last judgement if that is later, as the clocks of two processes may
// have it. For each segment entered or left since the last judgement it
// leaves a message in the outbox. A record that is not judged for an event
// stays as it is if there is none.
func (w *Viewer) EvaluateSegments(r *Record, key string, now int64, cause Cause) (j SegmentChanges, err error) {
	if r.Erased() {
		return j, nil // nothing is to be said of them
	}
	set := r.def.Segments
	if set == nil && len(r.members) == 0 {
		if cause.Reason != "" {
			r.left = nil
		}
		return j, nil
	}
	before := r.evaluatedAt
	asOf := max(now, before)
	turn := r.toggles
	if asOf > before {
		turn = 0
	}
	var judgedBy uint32
	parameters := w.parametersOf(set)
	if set != nil {
		judgedBy = set.Fingerprint(parameters)
	}
	if err := w.computeMembership(r, asOf, parameters); err != nil {
		return j, err
	}
	changed := w.membershipChanges(r)
	if len(changed) > 0 && cause.Reason == "" {
		// The record is as it was. If today's rules would have given what was
		// found then, it is the time that made the difference.
		in := slices.Clone(w.membership)
		if err := w.computeMembership(r, before, parameters); err != nil {
			return j, err
		}
		for i := range changed {
			c := &changed[i]
			switch {
			case before > 0 && c.segment >= 0 && w.membership[c.segment] != c.entered:
				c.reason = ByTime
			case before > 0 && segments.SameRules(r.evaluatedBy, judgedBy):
				c.reason = ByParameter
			default:
				c.reason = ByDefinition
			}
		}
		w.membership = append(w.membership[:0], in...)
	}
	again := uint64(0) // 1 if a segment is left in the moment it was entered
	for _, c := range changed {
		since := asOf
		if c.entered {
			j.Entered++
		} else {
			j.Left++
			if since = r.members[c.member].since; since == asOf {
				again = 1
			}
		}
		why := cause
		if c.reason != "" {
			why.Reason = c.reason
		}
		r.recordTriggerCause(c, why.Reason, asOf)
		j.Dropped += r.Enqueue(transition{key: key, segment: c.name, entered: c.entered, time: asOf, since: since, cause: why, toggles: turn, erasedAt: r.erasedAt}.message())
	}
	if cause.Reason == "" && len(changed) == 0 {
		return j, nil
	}
	r.setMembers(w.membership, asOf, judgedBy)
	r.toggles = turn + again
	r.forgetLeft(asOf)
	return j, nil
}

// HoldParameters makes the viewer judge by the parameters of this moment, until
// it is called again.
func (w *Viewer) PinParameters(def *Definition) {
	w.pinned = nil
	if def.Segments != nil {
		w.pinned = def.Segments.Parameters()
	}
}

// parametersOf returns what segments are judged by, nil if there are none.
func (w *Viewer) parametersOf(set *segments.Set) *segments.Parameters {
	if w.pinned != nil || set == nil {
		return w.pinned
	}
	return set.Parameters()
}

// JudgedByOthers tells that a record was last judged by other rules or parameters
// than the viewer judges by, or never.
func (w *Viewer) SegmentsOutdated(r *Record) bool {
	set := r.def.Segments
	return set != nil && (r.evaluatedAt == 0 || r.evaluatedBy != set.Fingerprint(w.parametersOf(set)))
}

// causeOfTriggers notes a change that is a cause of triggers. One of the rules
// is none: the customer did nothing.
func (r *Record) recordTriggerCause(c change, why Reason, at int64) {
	rules := r.def.Triggers
	if rules == nil {
		return
	}
	byRules := why == ByDefinition || why == ByParameter
	switch {
	case c.entered && byRules:
		rules.SkipEntry(&r.triggers, c.name, at)
	case !c.entered && !byRules && rules.LeaveRetention(c.name) > 0:
		r.noteLeft([]byte(c.name), at)
	}
}

// change is a segment that a customer entered or left.
type change struct {
	name    string
	segment int // position in the definition, -1 for a segment that is no more
	member  int // position among the members of the record, for one left
	entered bool
	reason  Reason
}

// changes compares what was judged with what the record holds; both are in
// order of name.
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

// keepMembers makes the record hold its customer to be in the segments of in.
// When that was found is kept even by a definition without segments: what is told
// by another must not be of a moment before.
func (r *Record) setMembers(in []bool, at int64, judgedBy uint32) {
	var room [16]member
	kept := room[:0]
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
	r.evaluatedAt, r.evaluatedBy = at, judgedBy
}

// evaluateSegments sets w.in.
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

// judge sets w.in once the features are ready.
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

// FeatureAt implements segment.Inputs.
func (w *Viewer) FeatureAt(at int) features.Result { return w.value(at).result }

// Trait implements segment.Inputs.
func (w *Viewer) Trait(name string) event.Value {
	at, found := slices.BinarySearchFunc(w.record.traits, name, func(t trait, name string) int { return bytes.Compare(t.name, []byte(name)) })
	if !found {
		return event.Value{}
	}
	return w.record.traits[at].value
}

// In implements segment.Inputs.
func (w *Viewer) InSegment(at int) bool { return w.membership[at] }

// Parameter implements segment.Inputs.
func (w *Viewer) Parameter(name string) any { return w.parameters.Values[name] }

// Document implements segment.Inputs.
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
		// What compares a value that moves changes at a moment nobody knows.
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

// transition is a customer's entering or leaving of a segment.
type transition struct {
	key      string
	segment  string
	entered  bool
	time     int64 // when it was found
	since    int64 // when the membership began
	cause    Cause
	into     string // the key of the customer this one was merged into
	toggles  uint64 // Record.turn before it
	erasedAt int64  // when the customer was erased before, 0 for never
}

// The names of the events that transitions are told as.
const (
	SegmentEntered = "Segment Entered"
	SegmentLeft    = "Segment Left"
	// SegmentsCounted tells how many customers are in each segment.
	SegmentsCounted = "Segments Counted"
)

// message makes the message of a transition. Its id follows from all that it
// says and, for a customer who comes to and fro within a moment or was erased
// before, from which of several moves it is that say the same.
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
	var which []byte
	if t.toggles > 0 || t.erasedAt > 0 {
		which = binary.AppendUvarint(appendTime([]byte{0}, t.erasedAt), t.toggles)
	}
	return newMessage(t.key, name, t.time, tail, which)
}

// CountsMessage makes the message of how many customers are in each segment.
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

// newMessage makes a message of the form of events, about the customer of key
// or, if it is empty, about nobody;
// tail is what follows the messageId. which tells messages apart that say the
// same, and is empty for the first of them.
func newMessage(key, name string, at int64, tail, which []byte) Message {
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
	_, _ = sum.Write(which)
	m := Message{ID: MessageID(sum.Sum(nil)[:len(MessageID{})]), Time: at}
	head = hex.AppendEncode(head, m.ID[:])
	m.Content = append(head, tail...)
	return m
}

// leaveAll notes that the customer of another record, who is merged into this
// one, is in no segment any more.
func (r *Record) collectMergeLeaves(key string, o *Record) (changed bool) {
	r.mergeLeaves = append(r.mergeLeaves, o.mergeLeaves...)
	for _, m := range o.members {
		r.mergeLeaves = append(r.mergeLeaves, transition{
			key: key, segment: string(m.name), since: m.since, cause: Cause{Reason: ByMerge}, into: string(o.link), toggles: o.toggles, erasedAt: o.erasedAt,
		})
	}
	return len(o.members) > 0
}

// TellLeft tells at a time which segments those customers left who were merged
// in since the record was read. Whoever merges does this before writing.
func (r *Record) EnqueueMergeLeaves(now int64) {
	for _, t := range r.mergeLeaves {
		t.time = now
		r.Enqueue(t.message())
	}
	r.mergeLeaves = r.mergeLeaves[:0]
}
