package trackingapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// Receipt is what the collector itself knows of the events in a body.
type Receipt struct {
	// Source is the name of the source that the write key belongs to, made of
	// characters that need no escape in JSON.
	Source string
	// At is when the request arrived.
	At time.Time
	// IP is the address of the client for events that name none in their
	// context; empty to leave such events without.
	IP string
}

// Reason is one thing wrong with an event.
type Reason struct {
	// Pointer is the JSON pointer to the value, empty for the whole event.
	Pointer string
	// Rule names the check: type, required, enum, format, unique, max_bytes or
	// max_depth.
	Rule string
	// Message says what was expected, and never quotes the event.
	Message string
}

// Event is one event of a body.
type Event struct {
	// Data is the event as it travels on; of a rejected event, the bytes that
	// the client sent.
	Data []byte
	// Reasons is empty unless the event is rejected.
	Reasons []Reason
}

// field is a member that means something to the collector.
type field uint8

const (
	fieldUnknown field = iota
	fieldType
	fieldMessageID
	fieldUserID
	fieldAnonymousID
	fieldPreviousID
	fieldGroupID
	fieldEvent
	fieldTimestamp
	fieldOriginalTimestamp
	fieldSentAt
	fieldReceivedAt
	fieldContext
	fieldIntegrations
	fieldProperties
	fieldTraits
	fieldSource
	fieldWriteKey
	fieldBatch
	fieldCount
)

var fieldNames = [fieldCount]string{
	fieldType:              "type",
	fieldMessageID:         "messageId",
	fieldUserID:            "userId",
	fieldAnonymousID:       "anonymousId",
	fieldPreviousID:        "previousId",
	fieldGroupID:           "groupId",
	fieldEvent:             "event",
	fieldTimestamp:         "timestamp",
	fieldOriginalTimestamp: "originalTimestamp",
	fieldSentAt:            "sentAt",
	fieldReceivedAt:        "receivedAt",
	fieldContext:           "context",
	fieldIntegrations:      "integrations",
	fieldProperties:        "properties",
	fieldTraits:            "traits",
	fieldSource:            "source",
	fieldWriteKey:          "writeKey",
	fieldBatch:             "batch",
}

func (b *Body) knownName(name span) field {
	switch string(unquoted(b.bytes(name))) {
	case "type":
		return fieldType
	case "messageId":
		return fieldMessageID
	case "userId":
		return fieldUserID
	case "anonymousId":
		return fieldAnonymousID
	case "previousId":
		return fieldPreviousID
	case "groupId":
		return fieldGroupID
	case "event":
		return fieldEvent
	case "timestamp":
		return fieldTimestamp
	case "originalTimestamp":
		return fieldOriginalTimestamp
	case "sentAt":
		return fieldSentAt
	case "receivedAt":
		return fieldReceivedAt
	case "context":
		return fieldContext
	case "integrations":
		return fieldIntegrations
	case "properties":
		return fieldProperties
	case "traits":
		return fieldTraits
	case "source":
		return fieldSource
	case "writeKey":
		return fieldWriteKey
	case "batch":
		return fieldBatch
	}
	return fieldUnknown
}

// Events appends the events of the body in their order. Their bytes are copies:
// they may be kept when the body is gone.
func (b *Body) Events(dst []Event, receipt Receipt) []Event {
	w := writer{Body: b, receipt: receipt, received: receipt.At.UnixMilli()}
	w.out = make([]byte, 0, b.Size())
	w.receivedAt = appendTimestamp(nil, w.received)
	for i := range b.items {
		start := len(w.out)
		reasons := w.event(&b.items[i])
		if reasons != nil {
			w.out = append(w.out[:start], b.bytes(b.items[i].whole)...)
		}
		dst = append(dst, Event{Data: w.out[start:len(w.out):len(w.out)], Reasons: reasons})
	}
	return dst
}

// writer makes the events of one body.
type writer struct {
	*Body
	receipt    Receipt
	received   millis
	receivedAt []byte
	out        []byte

	// Of the event at hand:
	reasons []Reason
	values  [fieldCount]span // empty where absent or null
}

func (w *writer) reject(pointer, rule, message string) {
	w.reasons = append(w.reasons, Reason{pointer, rule, message})
}

// event appends one event in its outgoing form, or returns why it cannot be
// accepted.
func (w *writer) event(it *item) []Reason {
	w.reasons = nil
	switch n := it.whole.end - it.whole.start; {
	case !it.object:
		w.reject("", "type", "an event must be an object")
	case n > w.limits.EventBytes:
		w.reject("", "max_bytes", fmt.Sprintf("the event has %d bytes: at most %d are accepted", n, w.limits.EventBytes))
	case it.tooDeep:
		w.reject("", "max_depth", fmt.Sprintf("the event nests deeper than the %d levels accepted", w.limits.Depth))
	default:
		w.object(it)
	}
	return w.reasons
}

func (w *writer) object(it *item) {
	members := w.members[it.first:it.last]
	w.values = [fieldCount]span{}
	var seen [fieldCount]bool
	for _, m := range members {
		f := w.knownName(m.name)
		if f == fieldUnknown || f == fieldBatch {
			continue
		}
		if seen[f] {
			w.reject("/"+fieldNames[f], "unique", fieldNames[f]+" is there more than once")
		}
		seen[f] = true
		if !w.nothing(f, m.value) {
			w.values[f] = m.value
		}
	}
	kind := w.check()
	original, sent := w.times()
	if w.reasons != nil {
		return
	}

	w.out = append(w.out, `{"type":"`...)
	w.out = append(w.out, kind...)
	w.out = append(w.out, `","messageId":`...)
	if id := w.values[fieldMessageID]; id.end-id.start > len(`""`) {
		w.out = append(w.out, w.bytes(id)...)
	} else {
		w.messageID(kind, w.bytes(it.whole))
	}
	for _, m := range members {
		switch f := w.knownName(m.name); f {
		case fieldUnknown, fieldBatch:
			w.copyMember(m)
		case fieldUserID, fieldAnonymousID, fieldPreviousID, fieldGroupID:
			if !w.empty(f) {
				w.copyMember(m)
			}
		case fieldEvent, fieldProperties, fieldTraits:
			if w.values[f].end != 0 {
				w.copyMember(m)
			}
		}
	}
	w.merged("context", w.values[fieldContext], &w.context, w.receipt.IP)
	w.merged("integrations", w.values[fieldIntegrations], &w.integrals, "")
	w.time("timestamp", happenedAt(original, sent, w.received))
	if original.known {
		w.time("originalTimestamp", original.at)
	}
	if sent.known {
		w.time("sentAt", sent.at)
	}
	w.out = append(w.out, `,"receivedAt":"`...)
	w.out = append(w.out, w.receivedAt...)
	w.out = append(w.out, `","source":"`...)
	w.out = append(w.out, w.receipt.Source...)
	w.out = append(w.out, `"}`...)
}

// nothing tells whether the value of a field is as good as absent: null, and
// where an object is meant also an empty list, which is how PHP writes an empty
// object.
func (w *writer) nothing(f field, value span) bool {
	switch raw := w.bytes(value); raw[0] {
	case 'n':
		return true
	case '[':
		switch f {
		case fieldContext, fieldIntegrations, fieldProperties, fieldTraits:
			return len(bytes.TrimSpace(raw[1:len(raw)-1])) == 0
		}
	}
	return false
}

// check finds what keeps the event from being accepted, and returns its type.
func (w *writer) check() (kind string) {
	kind = string(w.kind)
	if w.kind == Batch {
		kind = w.typeOf()
	}
	for _, f := range [...]field{fieldMessageID, fieldUserID, fieldAnonymousID, fieldPreviousID, fieldGroupID, fieldEvent} {
		w.mustBe(f, '"', "a string")
	}
	for _, f := range [...]field{fieldContext, fieldIntegrations, fieldProperties, fieldTraits} {
		w.mustBe(f, '{', "an object")
	}
	if w.empty(fieldUserID) && w.empty(fieldAnonymousID) {
		w.reject("", "required", "the event needs a userId or an anonymousId")
	}
	switch kind {
	case Track:
		w.require(fieldEvent, kind)
	case Group:
		w.require(fieldGroupID, kind)
	case Alias:
		w.require(fieldPreviousID, kind)
	}
	return kind
}

func (w *writer) typeOf() string {
	value := w.values[fieldType]
	if value.end == 0 {
		w.reject("/type", "required", "the event needs a type: track, identify, page, screen, group or alias")
		return ""
	}
	switch string(w.text(value)) {
	case Track:
		return Track
	case Identify:
		return Identify
	case Page:
		return Page
	case Screen:
		return Screen
	case Group:
		return Group
	case Alias:
		return Alias
	}
	w.reject("/type", "enum", "type must be track, identify, page, screen, group or alias")
	return ""
}

// mustBe rejects a value that does not begin as its type does.
func (w *writer) mustBe(f field, first byte, what string) {
	if value := w.values[f]; value.end != 0 && w.scan.text[value.start] != first {
		w.reject("/"+fieldNames[f], "type", fieldNames[f]+" must be "+what)
	}
}

// empty tells whether a field is absent, null or the empty string.
func (w *writer) empty(f field) bool {
	value := w.values[f]
	return value.end == 0 || w.scan.text[value.start] == '"' && value.end-value.start == len(`""`)
}

func (w *writer) require(f field, kind string) {
	if w.empty(f) {
		w.reject("/"+fieldNames[f], "required", "an event of type "+kind+" needs "+fieldNames[f])
	}
}

// times reads when the event happened and when it was sent, both on the
// client's clock. Segment's clients say the first in timestamp; RudderStack's
// say it in originalTimestamp, and use timestamp for a time that the caller
// gave.
func (w *writer) times() (original, sent moment) {
	original = w.timeOf(fieldTimestamp)
	if also := w.timeOf(fieldOriginalTimestamp); !original.known {
		original = also
	}
	sent = w.timeOf(fieldSentAt)
	if !sent.known {
		sent = w.sent
	}
	return original, sent
}

func (w *writer) timeOf(f field) moment {
	value := w.values[f]
	if value.end == 0 {
		return moment{}
	}
	if w.scan.text[value.start] != '"' {
		w.reject("/"+fieldNames[f], "type", fieldNames[f]+" must be a string")
		return moment{}
	}
	at, ok := parseTimestamp(w.text(value))
	if !ok {
		w.reject("/"+fieldNames[f], "format", fieldNames[f]+" must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z")
	}
	return moment{at, ok}
}

func (w *writer) copyMember(m member) {
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, w.bytes(m.name)...)
	w.out = append(w.out, '"', ':')
	w.out = append(w.out, w.bytes(m.value)...)
}

func (w *writer) time(name string, at millis) {
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, name...)
	w.out = append(w.out, '"', ':', '"')
	w.out = appendTimestamp(w.out, at)
	w.out = append(w.out, '"')
}

// merged writes an object of the event with what the batch gives to it where
// the event itself says nothing, and with the client's address likewise.
func (w *writer) merged(name string, own span, given *shared, ip string) {
	if own.end == 0 && len(given.members) == 0 && ip == "" {
		return
	}
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, name...)
	w.out = append(w.out, '"', ':')
	if own.end != 0 && len(given.members) == 0 && ip == "" {
		w.out = append(w.out, w.bytes(own)...)
		return
	}

	w.out = append(w.out, '{')
	start := len(w.out)
	w.seen = slices.Grow(w.seen[:0], len(given.members))[:len(given.members)]
	clear(w.seen)
	_, hasIP := given.index["ip"]
	if own.end != 0 {
		w.inner = w.membersOf(own, w.inner[:0])
		for _, m := range w.inner {
			key := unquoted(w.bytes(m.name))
			hasIP = hasIP || string(key) == "ip"
			if i, shared := given.index[string(key)]; shared {
				w.seen[i] = true
			}
		}
		if len(w.inner) > 0 {
			first, last := w.inner[0], w.inner[len(w.inner)-1]
			w.out = append(w.out, w.bytes(span{first.name.start - 1, last.value.end})...)
		}
	}
	for i, m := range given.members {
		if !w.seen[i] {
			w.copyMember(m)
		}
	}
	if ip != "" && !hasIP {
		w.out = append(w.out, `,"ip":"`...)
		w.out = append(w.out, ip...)
		w.out = append(w.out, '"')
	}
	if len(w.out) > start && w.out[start] == ',' {
		w.out = append(w.out[:start], w.out[start+1:]...)
	}
	w.out = append(w.out, '}')
}

// messageID writes the identity of an event that has none of its own: a UUID
// of version 8 made from the bytes of the event, so that the same body sent
// again makes the same ids. Equal events within one body are different events
// and are told apart by their order.
func (w *writer) messageID(kind string, raw []byte) {
	h := sha256.New()
	_, _ = h.Write([]byte(w.receipt.Source + "\x00" + kind + "\x00"))
	_, _ = h.Write(raw)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	if w.twins == nil {
		w.twins = make(map[[32]byte]int)
	}
	earlier := w.twins[sum]
	w.twins[sum] = earlier + 1
	if earlier > 0 {
		sum = sha256.Sum256(binary.BigEndian.AppendUint64(sum[:], uint64(earlier)))
	}
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	id := hex.AppendEncode(nil, sum[:16])
	w.out = append(w.out, '"')
	for i, part := range [...]span{{0, 8}, {8, 12}, {12, 16}, {16, 20}, {20, 32}} {
		if i > 0 {
			w.out = append(w.out, '-')
		}
		w.out = append(w.out, id[part.start:part.end]...)
	}
	w.out = append(w.out, '"')
}
