package triggers

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// State is the stored part of a customer's triggers: everything that cannot be
// derived from the rest of the record. The zero value is the state of a new
// customer.
//
// # Stored form
//
// Integers are little endian; times are Unix milliseconds in six bytes.
//
//	state = time:due+1 time:evaluated-at uvarint(n) rule* message*
//	rule  = hash(4) time:through+1 time:deferred-at time:deferred-until uvarint(n) { time:mark key(8) }
//	message = time:time rule(4) channel(4) id(4) control-group(1)
//
// The n of a state is its number of rules; the n of a rule is its number of
// causes that were decided one by one. Rules are ordered by hash, causes by
// mark and key, messages by all their fields. An empty state is stored as
// nothing.
type State struct {
	// EvaluatedAt is the latest moment at which due firings were evaluated.
	// Firings that had expired by then are over.
	EvaluatedAt int64

	// due is the time of the first firing, as the index contains it; it is
	// valid if hasDue is set.
	due    int64
	hasDue bool
	rules  []ruleState
	sent   []message
}

// ruleState contains the decided causes of one rule.
type ruleState struct {
	hash uint32
	// through is the mark up to which all causes are decided, -1 for none.
	through int64
	// A firing that was due at deferredAt is deferred until deferredUntil; 0
	// for none.
	deferredAt, deferredUntil int64
	// causes are those decided one by one, of rules with Repeat Each.
	causes []cause
}

type cause struct {
	mark int64
	key  uint64
}

func (a cause) compare(b cause) int {
	return cmp.Or(cmp.Compare(a.mark, b.mark), cmp.Compare(a.key, b.key))
}

// message is a sent message, or one withheld from the control group. Frequency
// caps count messages.
type message struct {
	time          int64
	rule, channel uint32
	id            uint32 // the first bytes of the firing's id
	control       bool
}

func (a message) compare(b message) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.rule, b.rule), cmp.Compare(a.channel, b.channel), cmp.Compare(a.id, b.id), cmp.Compare(controlFlag(a), controlFlag(b)))
}

const (
	timeSize = 6
	maxTime  = 1<<48 - 2
	// maxCauses and maxMessages bound a state. Above maxCauses, the oldest
	// causes are replaced by through; above maxMessages, the oldest messages
	// are deleted.
	maxCauses   = 128
	maxMessages = 512
)

// ErrCorrupt is returned for stored bytes that are not a state.
var ErrCorrupt = errors.New("stored state of triggers is corrupt")

// rule returns the state of a rule, nil if there is none.
func (s *State) rule(hash uint32) *ruleState {
	at, found := slices.BinarySearchFunc(s.rules, hash, func(r ruleState, h uint32) int { return cmp.Compare(r.hash, h) })
	if !found {
		return nil
	}
	return &s.rules[at]
}

// ensure returns the state of a rule and adds it if there is none.
func (s *State) ensure(hash uint32) *ruleState {
	at, found := slices.BinarySearchFunc(s.rules, hash, func(r ruleState, h uint32) int { return cmp.Compare(r.hash, h) })
	if !found {
		s.rules = slices.Insert(s.rules, at, ruleState{hash: hash, through: -1})
	}
	return &s.rules[at]
}

// settled reports whether the cause of a firing was decided.
func (r *ruleState) settled(f *Firing) bool {
	if r == nil {
		return false
	}
	if f.mark <= r.through {
		return true
	}
	_, found := slices.BinarySearchFunc(r.causes, cause{f.mark, f.key}, cause.compare)
	return found
}

// settle marks the cause of a firing as decided.
func (r *ruleState) settle(repeat Repeat, f *Firing) {
	switch repeat {
	case Latest:
		r.through = max(r.through, f.mark)
		r.causes = r.causes[:0]
	case First:
		r.through = maxTime
		r.causes = r.causes[:0]
	case Each:
		r.insert(cause{f.mark, f.key})
	}
}

// deferUntil defers the firings that are due at a moment.
func (r *ruleState) deferUntil(at, until int64) {
	if until == 0 {
		return
	}
	if r.deferredUntil == 0 || at < r.deferredAt {
		r.deferredAt = at
	}
	r.deferredUntil = max(r.deferredUntil, until)
}

func (r *ruleState) insert(c cause) {
	if c.mark <= r.through {
		return
	}
	at, found := slices.BinarySearchFunc(r.causes, c, cause.compare)
	if !found {
		r.causes = slices.Insert(r.causes, at, c)
	}
}

// boundCauses limits the causes to the latest maxCauses.
func (r *ruleState) boundCauses() {
	if n := len(r.causes) - maxCauses; n > 0 {
		r.settleThrough(r.causes[n-1].mark)
	}
}

// settleThrough marks all causes up to a mark as decided.
func (r *ruleState) settleThrough(through int64) {
	r.through = max(r.through, through)
	n, _ := slices.BinarySearchFunc(r.causes, cause{r.through, math.MaxUint64}, cause.compare)
	for n < len(r.causes) && r.causes[n].mark <= r.through {
		n++
	}
	r.causes = slices.Delete(r.causes, 0, n)
}

// Merge adds the state of another customer that is merged into this one.
// Merging is commutative and idempotent.
func (s *State) Merge(o *State) {
	s.EvaluatedAt = max(s.EvaluatedAt, o.EvaluatedAt)
	for i := range o.rules {
		from := &o.rules[i]
		into := s.ensure(from.hash)
		into.deferUntil(from.deferredAt, from.deferredUntil)
		into.through = max(into.through, from.through)
		for _, c := range from.causes {
			into.insert(c)
		}
		into.settleThrough(into.through)
		into.boundCauses()
	}
	for _, m := range o.sent {
		s.addMessage(m)
	}
	s.boundMessages()
}

func (s *State) addMessage(m message) {
	at, found := slices.BinarySearchFunc(s.sent, m, message.compare)
	if !found {
		s.sent = slices.Insert(s.sent, at, m)
	}
}

func (s *State) boundMessages() {
	if n := len(s.sent) - maxMessages; n > 0 {
		s.sent = slices.Delete(s.sent, 0, n)
	}
}

// SetDue stores when the first firing is due. Record.Entries indexes that
// time.
func (s *State) SetDue(due int64, ok bool) {
	s.due, s.hasDue = 0, ok
	if ok {
		s.due = min(max(due, 0), maxTime)
	}
}

// Due returns the time stored by SetDue.
func (s *State) Due() (due int64, ok bool) { return s.due, s.hasDue }

// empty reports whether the state has no content.
func (s *State) empty() bool {
	return s.EvaluatedAt == 0 && !s.hasDue && len(s.rules) == 0 && len(s.sent) == 0
}

// Append appends the stored form.
func (s *State) Append(dst []byte) []byte {
	if s.empty() {
		return dst
	}
	due := int64(0)
	if s.hasDue {
		due = s.due + 1
	}
	dst = appendTime(dst, due)
	dst = appendTime(dst, s.EvaluatedAt)
	dst = binary.AppendUvarint(dst, uint64(len(s.rules)))
	for i := range s.rules {
		r := &s.rules[i]
		dst = binary.LittleEndian.AppendUint32(dst, r.hash)
		dst = appendTime(dst, r.through+1)
		dst = appendTime(dst, r.deferredAt)
		dst = appendTime(dst, r.deferredUntil)
		dst = binary.AppendUvarint(dst, uint64(len(r.causes)))
		for _, c := range r.causes {
			dst = appendTime(dst, c.mark)
			dst = binary.LittleEndian.AppendUint64(dst, c.key)
		}
	}
	for _, m := range s.sent {
		dst = appendTime(dst, m.time)
		dst = binary.LittleEndian.AppendUint32(dst, m.rule)
		dst = binary.LittleEndian.AppendUint32(dst, m.channel)
		dst = binary.LittleEndian.AppendUint32(dst, m.id)
		dst = append(dst, controlFlag(m))
	}
	return dst
}

func controlFlag(m message) byte {
	if m.control {
		return 1
	}
	return 0
}

// Reset empties the state.
func (s *State) Reset() {
	*s = State{rules: s.rules[:0], sent: s.sent[:0]}
}

// Read decodes the stored form. It accepts exactly the output of Append.
func (s *State) Read(src []byte) error {
	s.Reset()
	if len(src) == 0 {
		return nil
	}
	in := reader{src: src}
	due := in.time()
	if due > 0 {
		s.due, s.hasDue = due-1, true
	}
	s.EvaluatedAt = in.time()
	for n := in.count(4 + 3*timeSize + 1); n > 0; n-- {
		r := ruleState{hash: in.uint32(), through: in.time() - 1, deferredAt: in.time(), deferredUntil: in.time()}
		if k := len(s.rules); k > 0 && s.rules[k-1].hash >= r.hash {
			return ErrCorrupt
		}
		for m := in.count(timeSize + 8); m > 0; m-- {
			c := cause{in.time(), in.uint64()}
			if k := len(r.causes); c.mark <= r.through || k > 0 && r.causes[k-1].compare(c) >= 0 {
				return ErrCorrupt
			}
			r.causes = append(r.causes, c)
		}
		s.rules = append(s.rules, r)
	}
	for len(in.src) > 0 && !in.failed {
		m := message{time: in.time(), rule: in.uint32(), channel: in.uint32(), id: in.uint32()}
		flag := in.take(1)[0]
		m.control = flag == 1
		if k := len(s.sent); flag > 1 || k > 0 && s.sent[k-1].compare(m) >= 0 {
			return ErrCorrupt
		}
		s.sent = append(s.sent, m)
	}
	if in.failed || s.empty() {
		return ErrCorrupt
	}
	return nil
}

// reader decodes stored integers; failed is set when input is missing.
type reader struct {
	src    []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if len(r.src) < n {
		r.failed, r.src = true, nil
		return make([]byte, n)
	}
	b := r.src[:n]
	r.src = r.src[n:]
	return b
}

func (r *reader) uint32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *reader) time() int64 {
	b := r.take(timeSize)
	return int64(binary.LittleEndian.Uint32(b)) | int64(b[4])<<32 | int64(b[5])<<40
}

// count decodes the number of items that follow, each of at least size bytes.
func (r *reader) count(size int) int {
	n, width := binary.Uvarint(r.src)
	// Only the canonical form is accepted: a number has exactly one encoding.
	if width <= 0 || width > 1 && n < 1<<(7*(width-1)) || n > uint64(len(r.src)-width)/uint64(size) {
		r.failed, r.src = true, nil
		return 0
	}
	r.src = r.src[width:]
	return int(n)
}

func appendTime(dst []byte, ms int64) []byte {
	return append(dst, byte(ms), byte(ms>>8), byte(ms>>16), byte(ms>>24), byte(ms>>32), byte(ms>>40))
}
