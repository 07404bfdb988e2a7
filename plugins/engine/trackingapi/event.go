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

// Receipt contains the facts that the collector adds to the events of a body.
type Receipt struct {
	// Source is the name of the write key's source, in characters that need no
	// escape in JSON.
	Source string
	// ReceivedAt is the time of the request.
	ReceivedAt time.Time
	// IP is the address of the client, for events without context.ip; empty to
	// add none.
	IP string
}

// Reason is one rule that an event breaks.
type Reason struct {
	// Pointer is the JSON pointer to the value, empty for the whole event.
	Pointer string
	// Rule names the check: type, required, enum, format, unique, max_bytes or
	// max_depth.
	Rule string
	// Message states the expectation. It never quotes the event.
	Message string
}

// Event is one event of a body.
type Event struct {
	// Data is the completed event; of a rejected event, the client's bytes.
	Data []byte
	// Reasons is empty for an accepted event.
	Reasons []Reason
}

// field is a member that the collector interprets.
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

// Events appends the events of the body to dst, in order. Their bytes are copies
// and stay valid after the body.
func (b *Body) Events(dst []Event, receipt Receipt) []Event {
	w := writer{Body: b, receipt: receipt, received: receipt.ReceivedAt.UnixMilli()}
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

// writer writes the events of one body.
type writer struct {
	*Body
	receipt    Receipt
	received   millis
	receivedAt []byte
	out        []byte

	// Of the current event:
	reasons []Reason
	values  [fieldCount]span // empty where absent or null
}

func (w *writer) reject(pointer, rule, message string) {
	w.reasons = append(w.reasons, Reason{pointer, rule, message})
}

// event appends one completed event, or returns the reasons to reject it.
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
			w.reject("/"+fieldNames[f], "unique", fieldNames[f]+" appears more than once")
		}
		seen[f] = true
		if !w.isAbsent(f, m.value) {
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
	w.time("timestamp", eventTime(original, sent, w.received))
	if original.known {
		w.time("originalTimestamp", original.millis)
	}
	if sent.known {
		w.time("sentAt", sent.millis)
	}
	w.out = append(w.out, `,"receivedAt":"`...)
	w.out = append(w.out, w.receivedAt...)
	w.out = append(w.out, `","source":"`...)
	w.out = append(w.out, w.receipt.Source...)
	w.out = append(w.out, `"}`...)
}

// isAbsent reports whether the value of a field counts as absent: null, and for
// an object also an empty list, because PHP encodes an empty object so.
func (w *writer) isAbsent(f field, value span) bool {
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

// check records the reasons to reject the event and returns its type.
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

// mustBe rejects a value that does not begin with the first byte of its type.
func (w *writer) mustBe(f field, first byte, expected string) {
	if value := w.values[f]; value.end != 0 && w.scan.text[value.start] != first {
		w.reject("/"+fieldNames[f], "type", fieldNames[f]+" must be "+expected)
	}
}

// empty reports whether a field is absent, null or the empty string.
func (w *writer) empty(f field) bool {
	value := w.values[f]
	return value.end == 0 || w.scan.text[value.start] == '"' && value.end-value.start == len(`""`)
}

func (w *writer) require(f field, kind string) {
	if w.empty(f) {
		w.reject("/"+fieldNames[f], "required", "an event of type "+kind+" needs "+fieldNames[f])
	}
}

// times returns the times of the event and of its sending, on the client's clock.
// Segment's SDKs put the first into timestamp. RudderStack's put it into
// originalTimestamp, and use timestamp only for a time that the caller stated.
func (w *writer) times() (original, sent optionalTime) {
	original = w.timeOf(fieldTimestamp)
	if fallback := w.timeOf(fieldOriginalTimestamp); !original.known {
		original = fallback
	}
	sent = w.timeOf(fieldSentAt)
	if !sent.known {
		sent = w.sent
	}
	return original, sent
}

func (w *writer) timeOf(f field) optionalTime {
	value := w.values[f]
	if value.end == 0 {
		return optionalTime{}
	}
	if w.scan.text[value.start] != '"' {
		w.reject("/"+fieldNames[f], "type", fieldNames[f]+" must be a string")
		return optionalTime{}
	}
	t, ok := parseTimestamp(w.text(value))
	if !ok {
		w.reject("/"+fieldNames[f], "format", fieldNames[f]+" must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z")
	}
	return optionalTime{t, ok}
}

func (w *writer) copyMember(m member) {
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, w.bytes(m.name)...)
	w.out = append(w.out, '"', ':')
	w.out = append(w.out, w.bytes(m.value)...)
}

func (w *writer) time(name string, t millis) {
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, name...)
	w.out = append(w.out, '"', ':', '"')
	w.out = appendTimestamp(w.out, t)
	w.out = append(w.out, '"')
}

// merged writes an object of the event and adds the batch's members, and the
// client's address, where the event has no such member itself.
func (w *writer) merged(name string, own span, batch *shared, ip string) {
	if own.end == 0 && len(batch.members) == 0 && ip == "" {
		return
	}
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, name...)
	w.out = append(w.out, '"', ':')
	if own.end != 0 && len(batch.members) == 0 && ip == "" {
		w.out = append(w.out, w.bytes(own)...)
		return
	}

	w.out = append(w.out, '{')
	start := len(w.out)
	w.overridden = slices.Grow(w.overridden[:0], len(batch.members))[:len(batch.members)]
	clear(w.overridden)
	_, hasIP := batch.index["ip"]
	if own.end != 0 {
		w.inner = w.membersOf(own, w.inner[:0])
		for _, m := range w.inner {
			key := unquoted(w.bytes(m.name))
			hasIP = hasIP || string(key) == "ip"
			if i, shared := batch.index[string(key)]; shared {
				w.overridden[i] = true
			}
		}
		if len(w.inner) > 0 {
			first, last := w.inner[0], w.inner[len(w.inner)-1]
			w.out = append(w.out, w.bytes(span{first.name.start - 1, last.value.end})...)
		}
	}
	for i, m := range batch.members {
		if !w.overridden[i] {
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

// messageID writes the id of an event without one: a version 8 UUID from a hash
// of the event's bytes, so a retry of the same body gives the same ids. Equal
// events within one body are different events: their position among the equal
// ones is hashed too.
func (w *writer) messageID(kind string, raw []byte) {
	h := sha256.New()
	_, _ = h.Write([]byte(w.receipt.Source + "\x00" + kind + "\x00"))
	_, _ = h.Write(raw)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	if w.copies == nil {
		w.copies = make(map[[32]byte]int)
	}
	earlier := w.copies[sum]
	w.copies[sum] = earlier + 1
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
