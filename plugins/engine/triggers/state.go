package triggers

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// State is what was settled for a customer: all that does not follow from the
// rest of the record. The zero value is that of a new customer.
//
// # Stored form
//
// Integers are little endian, times Unix milliseconds in six bytes.
//
//	state = time:due+1 time:examined uvarint(n) rule* message*
//	rule  = hash(4) time:through+1 time:held-at time:held-until uvarint(n) { time:mark key(8) }
//	message = time:at rule(4) channel(4) id(4) held-out(1)
//
// n of the state is its number of rules, that of a rule the causes it has
// settled one by one. Rules are ordered by hash, causes by mark and key,
// messages by all they are made of. A state that says nothing is empty.
type State struct {
	// Examined is the latest moment at which somebody looked what was due.
	// What was over by then is settled.
	EvaluatedAt int64

	// due is when the first firing is due, as the index has it; -1 for never.
	due    int64
	hasDue bool
	rules  []ruleState
	sent   []message
}

// ruleState is what was settled of a rule.
type ruleState struct {
	hash uint32
	// through is the mark of the latest cause up to which, in order of marks,
	// all are settled; -1 for none.
	through int64
	// What was due at heldAt is put off until heldUntil; 0 for nothing.
	deferredAt, deferredUntil int64
	// causes are those settled one by one, of rules that look at each.
	causes []cause
}

type cause struct {
	mark int64
	key  uint64
}

func (a cause) compare(b cause) int {
	return cmp.Or(cmp.Compare(a.mark, b.mark), cmp.Compare(a.key, b.key))
}

// message is one that was sent, or was not for the sake of comparison.
type message struct {
	time          int64
	rule, channel uint32
	id            uint32 // of the firing, as far as it is needed to tell two apart
	control       bool
}

func (a message) compare(b message) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.rule, b.rule), cmp.Compare(a.channel, b.channel), cmp.Compare(a.id, b.id), cmp.Compare(controlFlag(a), controlFlag(b)))
}

const (
	timeSize = 6
	maxTime  = 1<<48 - 2
	// maxCauses and maxMessages bound a state. Beyond them the oldest causes
	// are taken to be settled with all before, and the oldest messages are
	// forgotten.
	maxCauses   = 128
	maxMessages = 512
)

// ErrCorrupt is returned for stored bytes that are no state.
var ErrCorrupt = errors.New("stored state of triggers is corrupt")

// rule returns what was settled of a rule, nil for nothing.
func (s *State) rule(hash uint32) *ruleState {
	at, found := slices.BinarySearchFunc(s.rules, hash, func(r ruleState, h uint32) int { return cmp.Compare(r.hash, h) })
	if !found {
		return nil
	}
	return &s.rules[at]
}

// ensure returns what was settled of a rule, to be changed.
func (s *State) ensure(hash uint32) *ruleState {
	at, found := slices.BinarySearchFunc(s.rules, hash, func(r ruleState, h uint32) int { return cmp.Compare(r.hash, h) })
	if !found {
		s.rules = slices.Insert(s.rules, at, ruleState{hash: hash, through: -1})
	}
	return &s.rules[at]
}

// settled tells whether a firing was decided, or is of a cause before one up
// to which all are.
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

// settle notes that a cause is decided.
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

// hold puts off what is due at a moment.
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

// bound keeps the latest causes one by one.
func (r *ruleState) boundCauses() {
	if n := len(r.causes) - maxCauses; n > 0 {
		r.settleThrough(r.causes[n-1].mark)
	}
}

// forget takes all causes up to a mark to be settled.
func (r *ruleState) settleThrough(through int64) {
	r.through = max(r.through, through)
	n, _ := slices.BinarySearchFunc(r.causes, cause{r.through, math.MaxUint64}, cause.compare)
	for n < len(r.causes) && r.causes[n].mark <= r.through {
		n++
	}
	r.causes = slices.Delete(r.causes, 0, n)
}

// Merge takes what was settled for another customer, who is found to be this
// one. It does not matter which is merged into which, nor how often.
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

// SetDue notes when the first firing is due. The index of what is due has it
// from here.
func (s *State) SetDue(due int64, some bool) {
	s.due, s.hasDue = 0, some
	if some {
		s.due = min(max(due, 0), maxTime)
	}
}

// Due returns what SetDue noted.
func (s *State) Due() (due int64, some bool) { return s.due, s.hasDue }

// empty tells that the state says nothing.
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

// Reset makes the state that of a new customer.
func (s *State) Reset() {
	*s = State{rules: s.rules[:0], sent: s.sent[:0]}
}

// Read makes the state what is stored. It accepts exactly what Append writes.
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

// reader reads stored integers, and remembers that one was missing.
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

// count reads how many of something follow, each of so many bytes at least.
func (r *reader) count(size int) int {
	n, width := binary.Uvarint(r.src)
	// Exactly what is written is read: no number has two forms.
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
