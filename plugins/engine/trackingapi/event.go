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
	// Occurrence distinguishes repetitions of an event with neither messageId nor
	// timestamp. It receives a hash of the event and returns a number that becomes
	// part of the derived messageId: the same number for a retry, another for a new
	// fact. Nil means that equal bytes are the same event.
	Occurrence func(hash [sha256.Size]byte) int64
	// Admit is called with the userId of each event, or else its anonymousId, after
	// all other checks. It returns nil or the reason to reject the event. Nil
	// admits every event.
	Admit func(customer []byte) *Reason
}

// Reason is one rule that an event breaks.
type Reason struct {
	// Pointer is the JSON pointer to the value, empty for the whole event.
	Pointer string
	// Rule names the check: type, required, enum, format, max_bytes, max_depth,
	// invalid_json, or the code of a BodyError.
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
	// identifies counts the identify events of each customer and time.
	identifies map[identifyTime]int

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
	case it.literals > 0:
		w.reject("", CodeNotJSON, "the event is not valid JSON: it "+reasonNonFinite)
	default:
		w.object(it)
	}
	return w.reasons
}

func (w *writer) object(it *item) {
	members := w.members[it.first:it.last]
	w.values = [fieldCount]span{}
	for _, m := range members {
		f := w.knownName(m.name)
		if f == fieldUnknown || f == fieldBatch {
			continue
		}
		w.values[f] = m.value // the last one wins, as in JSON.parse
		if w.isAbsent(f, m.value) {
			w.values[f] = span{}
		}
	}
	kind := w.check()
	original, sent := w.times()
	if w.reasons == nil && w.receipt.Admit != nil {
		if reason := w.receipt.Admit(w.customer()); reason != nil {
			w.reasons = append(w.reasons, *reason)
		}
	}
	if w.reasons != nil {
		return
	}
	var contextTraits span
	if kind == Identify && w.isEmptyObject(w.values[fieldTraits]) {
		if contextTraits = w.contextTraits(); contextTraits.end != 0 {
			w.values[fieldTraits] = span{}
		}
	}

	w.out = append(w.out, `{"type":"`...)
	w.out = append(w.out, kind...)
	w.out = append(w.out, `","messageId":`...)
	if !w.empty(fieldMessageID) {
		w.id(w.values[fieldMessageID])
	} else {
		w.messageID(kind, w.bytes(it.whole), original.known)
	}
	for _, m := range members {
		switch f := w.knownName(m.name); f {
		case fieldUnknown, fieldBatch:
			w.copyMember(m)
		case fieldUserID, fieldAnonymousID, fieldPreviousID, fieldGroupID:
			if m.value == w.values[f] && !w.empty(f) {
				w.name(m.name)
				w.id(m.value)
			}
		case fieldEvent, fieldProperties, fieldTraits:
			if m.value == w.values[f] {
				w.copyMember(m)
			}
		}
	}
	if contextTraits.end != 0 {
		w.out = append(w.out, `,"traits":`...)
		w.out = append(w.out, w.bytes(contextTraits)...)
	}
	w.merged("context", w.values[fieldContext], &w.context, w.receipt.IP)
	w.merged("integrations", w.values[fieldIntegrations], &w.integrals, "")
	w.eventTime(kind, original, sent)
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
	for _, f := range [...]field{fieldMessageID, fieldUserID, fieldAnonymousID, fieldPreviousID, fieldGroupID} {
		w.checkID(f)
	}
	w.mustBe(fieldEvent, '"', "a string")
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

// checkID rejects an id that is neither a string nor a whole number, or too long.
func (w *writer) checkID(f field) {
	value := w.values[f]
	if value.end == 0 {
		return
	}
	length := value.end - value.start
	switch raw := w.bytes(value); {
	case raw[0] == '"':
		if length > w.limits.IDBytes { // with escapes it may still be short enough
			length = len(w.text(value))
		}
	case wholeNumber(raw) == nil:
		w.reject("/"+fieldNames[f], "type", fieldNames[f]+" must be a string or a whole number")
		return
	}
	if length > w.limits.IDBytes {
		w.reject("/"+fieldNames[f], "max_bytes", fmt.Sprintf("%s has %d bytes: at most %d are accepted", fieldNames[f], length, w.limits.IDBytes))
	}
}

// wholeNumber returns the digits of a JSON number such as 4711 or 4711.0, nil for
// any other value. Clients with untyped ids send numbers.
func wholeNumber(raw []byte) []byte {
	whole, fraction, _ := bytes.Cut(raw, []byte("."))
	if len(bytes.Trim(fraction, "0")) > 0 || len(bytes.Trim(bytes.TrimPrefix(whole, []byte("-")), "0123456789")) > 0 {
		return nil
	}
	return whole
}

// id writes an id as a string.
func (w *writer) id(value span) {
	raw := w.bytes(value)
	if raw[0] == '"' {
		w.out = append(w.out, raw...)
		return
	}
	w.out = append(w.out, '"')
	w.out = append(w.out, wholeNumber(raw)...)
	w.out = append(w.out, '"')
}

// customer returns the userId, or else the anonymousId.
func (w *writer) customer() []byte {
	f := fieldUserID
	if w.empty(f) {
		f = fieldAnonymousID
	}
	raw := w.bytes(w.values[f])
	if raw[0] == '"' {
		return w.text(w.values[f])
	}
	return wholeNumber(raw)
}

// isEmptyObject reports whether a value is absent or an object without members.
func (w *writer) isEmptyObject(value span) bool {
	return value.end == 0 || w.scan.text[value.start] == '{' && len(bytes.TrimSpace(w.scan.text[value.start+1:value.end-1])) == 0
}

// contextTraits returns the object context.traits of the event or of its batch.
// RudderStack's SDKs send the traits of an identify there.
func (w *writer) contextTraits() (traits span) {
	found := false
	if own := w.values[fieldContext]; own.end != 0 {
		w.inner = w.membersOf(own, w.inner[:0])
		for _, m := range w.inner {
			if string(unquoted(w.bytes(m.name))) == "traits" {
				traits, found = m.value, true
			}
		}
	}
	if i, shared := w.context.index["traits"]; shared && !found {
		traits = w.context.members[i].value
	}
	if traits.end == 0 || w.scan.text[traits.start] != '{' {
		return span{}
	}
	return traits
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
	t, ok := w.timestamp(value)
	if !ok {
		w.reject("/"+fieldNames[f], "format", fieldNames[f]+" must be an ISO 8601 time such as 2026-01-31T12:00:00.000Z, or Unix time in seconds or milliseconds")
	}
	return optionalTime{t, ok}
}

func (w *writer) copyMember(m member) {
	w.name(m.name)
	w.out = append(w.out, w.bytes(m.value)...)
}

// name writes a comma and the name of a member.
func (w *writer) name(name span) {
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, w.bytes(name)...)
	w.out = append(w.out, '"', ':')
}

func (w *writer) time(name string, t millis) {
	w.out = append(w.out, ',', '"')
	w.out = append(w.out, name...)
	w.out = append(w.out, '"', ':', '"')
	w.out = appendTimestamp(w.out, t)
	w.out = append(w.out, '"')
}

// identifyTime is the time of an identify event, to the nanosecond.
type identifyTime struct {
	customer string
	millis   millis
	nanos    int
}

// eventTime writes the timestamp. SDKs state two traits within a millisecond, and
// a script two without any time. The later one has to win, wherever the events are
// processed and however often, so the order is made part of the times: identify
// events keep the digits below a millisecond, and each gets a nanosecond more than
// an earlier one of the request with the same customer and time.
func (w *writer) eventTime(kind string, original, sent optionalTime) {
	t := eventTime(original, sent, w.received)
	w.time("timestamp", t)
	if kind != Identify {
		return
	}
	at := identifyTime{customer: string(w.customer()), millis: t}
	shift := millis(0)
	if sent.known {
		shift = w.received - sent.millis
	}
	if original.known && t == original.millis+shift { // not replaced by the time of receipt
		at.nanos = parseNanos(w.originalText())
	}
	if w.identifies == nil {
		w.identifies = map[identifyTime]int{}
	}
	earlier := w.identifies[at]
	w.identifies[at]++
	if nanos := min(at.nanos+earlier, nanosPerMilli-1); nanos > 0 {
		w.out = append(appendNanos(w.out[:len(w.out)-1], nanos), '"')
	}
}

// originalText returns the text or number of the event's time.
func (w *writer) originalText() []byte {
	value := w.values[fieldTimestamp]
	if value.end == 0 {
		value = w.values[fieldOriginalTimestamp]
	}
	if text := w.text(value); text != nil {
		return text
	}
	return w.bytes(value)
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
// ones is hashed too. Without a timestamp, equal bytes of two requests may be two
// facts, which Receipt.Occurrence distinguishes.
func (w *writer) messageID(kind string, raw []byte, timestamped bool) {
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
	if !timestamped && w.receipt.Occurrence != nil {
		sum = sha256.Sum256(binary.BigEndian.AppendUint64(sum[:], uint64(w.receipt.Occurrence(sum))))
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
