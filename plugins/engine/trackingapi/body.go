// Package trackingapi parses bodies of requests to Segment's HTTP Tracking API and
// returns their events: checked, completed and stamped. It works on the bytes: a
// value that it does not change stays as the client wrote it, numbers and unknown
// fields included.
//
// A batch such as
//
//	{"batch": [{"type":"track","event":"Hi","userId":"u1"}], "context": {"app":"a"}, "sentAt": "..."}
//
// becomes one event with the batch's context merged in, a messageId derived from
// the bytes, timestamps corrected for the client's clock, receivedAt and source.
// An event that breaks a rule is returned with the reasons and its original bytes;
// it does not fail the others.
//
// body.go parses a body, event.go checks and writes events, timestamp.go parses
// times, json.go is the scanner below them.
package trackingapi

import (
	"bytes"
	"fmt"
	"math"
	"unicode/utf8"
)

// The values of an event's type, as in Segment's spec.
const (
	Track    = "track"
	Identify = "identify"
	Page     = "page"
	Screen   = "screen"
	Group    = "group"
	Alias    = "alias"
)

// Endpoint is the type of the single event that a body contains, or Batch.
type Endpoint string

// Batch is the endpoint for a list of events of any type.
const Batch Endpoint = "batch"

// Limits bound the contents of a body.
type Limits struct {
	// EventBytes is the maximum size of one event, and of the context and the
	// integrations that a batch shares with its events.
	EventBytes int
	// BatchEvents is the maximum number of events in a batch.
	BatchEvents int
	// BatchBytes is the maximum size of a batch. The body is in memory already,
	// so here it only bounds the size after merging (maxMergeGrowth).
	BatchBytes int
	// Depth is the maximum nesting of an event, the event itself included.
	Depth int
	// IDBytes is the maximum length of userId, anonymousId, previousId, groupId
	// and messageId.
	IDBytes int
}

// Codes of a BodyError.
const (
	CodeEmpty         = "empty_body"
	CodeNotUTF8       = "invalid_utf8"
	CodeTruncated     = "truncated_json"
	CodeNotJSON       = "invalid_json"
	CodeTooDeep       = "too_deep"
	CodeNotObject     = "not_an_object"
	CodeInvalidBatch  = "invalid_batch"
	CodeTooManyEvents = "too_many_events"
	CodeMergeTooLarge = "shared_context_too_large"
)

// BodyError is the reason why an endpoint rejects a whole body. It never quotes
// the body.
type BodyError struct {
	Code    string
	Message string
}

func (e *BodyError) Error() string { return e.Message }

// Reason returns the error as a reason to reject the body as a whole.
func (e *BodyError) Reason() Reason { return Reason{Rule: e.Code, Message: e.Message} }

// TooLarge reports whether a smaller body of the same form would be accepted.
func (e *BodyError) TooLarge() bool {
	return e.Code == CodeTooManyEvents || e.Code == CodeMergeTooLarge
}

// maxMergeGrowth bounds the size of all events after merging, in multiples of the
// largest batch. Without it, a small body with a large context and many small
// events could exhaust the memory.
const maxMergeGrowth = 4

// Parser parses bodies one after the other and reuses its memory. It is not safe
// for concurrent use.
type Parser struct {
	limits Limits
	body   Body
}

// NewParser returns a parser for bodies within limits.
func NewParser(limits Limits) *Parser { return &Parser{limits: limits} }

// Body is a parsed body. It is valid until the next call of Parse.
type Body struct {
	limits  Limits
	scan    scanner
	kind    Endpoint
	members []member // of all events, one event after the other
	items   []item

	writeKey           []byte
	sent               optionalTime
	context, integrals shared

	inner      []member         // scratch: members of an event's own object
	overridden []bool           // scratch: shared members that the event has itself
	copies     map[[32]byte]int // scratch: occurrences of an event without messageId, by hash
}

// item is one event of a body.
type item struct {
	whole span
	// first and last delimit its members, if it is an object.
	first, last int
	object      bool
	tooDeep     bool
	// literals counts NaN and Infinity in it, which are not JSON.
	literals int
}

// shared is an object of a batch that is merged into each of its events.
type shared struct {
	raw     []byte
	members []member
	// index maps a name to its member; names are unique.
	index map[string]int
}

// Parse parses a body. The Body refers to the slice until the next call; events
// are copies. The error is a *BodyError.
func (p *Parser) Parse(endpoint Endpoint, body []byte) (*Body, error) {
	b := &p.body
	b.limits = p.limits
	b.kind = endpoint
	b.scan.text, b.scan.pos = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), 0
	b.scan.lenient, b.scan.literals = true, 0
	b.members, b.items = b.members[:0], b.items[:0]
	b.writeKey, b.sent = nil, optionalTime{}
	b.context, b.integrals = shared{}, shared{}
	clear(b.copies)

	if err := b.parse(); err != nil {
		if syntax, ok := err.(*syntaxError); ok {
			return nil, syntax.body()
		}
		return nil, err
	}
	return b, nil
}

func (e *syntaxError) body() *BodyError {
	code := CodeNotJSON
	if e.reason == reasonTruncated {
		code = CodeTruncated
	}
	return &BodyError{code, fmt.Sprintf("the body is not valid JSON: at byte %d it %s", e.offset, e.reason)}
}

func (b *Body) parse() error {
	s := &b.scan
	first := s.space()
	if s.pos == len(s.text) {
		return &BodyError{CodeEmpty, "the body is empty: send " + b.wanted()}
	}
	if !utf8.Valid(s.text) {
		return &BodyError{CodeNotUTF8, fmt.Sprintf("the body is not valid UTF-8: see byte %d", invalidUTF8(s.text))}
	}
	if first != '{' {
		if _, err := s.value(); err != nil {
			return err
		}
		if err := b.end(); err != nil {
			return err
		}
		return &BodyError{CodeNotObject, "the body must be " + b.wanted()}
	}
	if b.kind == Batch {
		return b.parseBatch()
	}
	start := s.pos
	members, depth, err := s.object(b.members)
	b.members = members
	if err != nil {
		return err
	}
	whole := span{start, s.pos}
	if err := b.end(); err != nil {
		return err
	}
	if depth > b.limits.Depth {
		return b.tooDeep()
	}
	b.items = append(b.items, item{whole: whole, last: len(b.members), object: true, literals: s.literals})
	for _, m := range b.members {
		if b.knownName(m.name) == fieldWriteKey {
			b.writeKey = b.text(m.value)
		}
	}
	return nil
}

func (b *Body) wanted() string {
	if b.kind == Batch {
		return `a JSON object with "batch", a list of events`
	}
	return "one event as a JSON object"
}

func (b *Body) tooDeep() error {
	return &BodyError{CodeTooDeep, fmt.Sprintf("the body nests deeper than the %d levels accepted", b.limits.Depth)}
}

func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(text)
}

// end returns an error if anything but white space follows the parsed value.
func (b *Body) end() error {
	b.scan.space()
	if b.scan.pos < len(b.scan.text) {
		return b.scan.fail("goes on after the end of its value")
	}
	return nil
}

// parseBatch parses {"batch": [...], ...} in one pass over the bytes, which also
// records the members of the events.
func (b *Body) parseBatch() error {
	s := &b.scan
	var batch, context, integrations, sentAt, writeKey span
	var seen [fieldCount]bool
	var problem error // reported only if the rest is JSON at all
	note := func(err error) {
		if problem == nil {
			problem = err
		}
	}
	invalid := func(message string) {
		note(&BodyError{CodeInvalidBatch, message})
	}
	s.pos++
	if s.space() == '}' {
		s.pos++
	} else {
		for more := true; more; {
			s.space()
			name := span{start: s.pos + 1}
			if err := s.name(); err != nil {
				return err
			}
			name.end = s.nameEnd()
			field := b.knownName(name)
			if field != fieldUnknown && seen[field] {
				invalid(fmt.Sprintf("%q appears more than once", fieldNames[field]))
			}
			seen[field] = true

			s.space()
			value := span{start: s.pos}
			depth := 0
			var err error
			if field == fieldBatch && s.peek() == '[' && batch.end == 0 {
				err = b.parseItems()
			} else if depth, err = s.value(); err == nil && depth >= b.limits.Depth {
				note(b.tooDeep())
			}
			if err != nil {
				return err
			}
			value.end = s.pos
			switch field {
			case fieldBatch:
				batch = value
			case fieldContext:
				context = value
			case fieldIntegrations:
				integrations = value
			case fieldSentAt:
				sentAt = value
			case fieldWriteKey:
				writeKey = value
			}
			switch s.space() {
			case ',':
				s.pos++
			case '}':
				s.pos++
				more = false
			default:
				return s.fail(`has something other than "," or "}" after a member of an object`)
			}
		}
	}
	if err := b.end(); err != nil {
		return err
	}
	if batch.end == 0 || s.text[batch.start] != '[' {
		invalid(`the body needs "batch", a list of events`)
	}
	if problem != nil {
		return problem
	}
	inItems := 0
	for _, it := range b.items {
		inItems += it.literals
	}
	if s.literals > inItems {
		return &syntaxError{s.firstLiteral, reasonNonFinite}
	}
	if len(b.items) > b.limits.BatchEvents {
		return &BodyError{CodeTooManyEvents, fmt.Sprintf("the batch has %d events: send at most %d at a time", len(b.items), b.limits.BatchEvents)}
	}
	b.writeKey = b.text(writeKey)
	// An invalid sentAt corrects nothing; it is no reason to reject events.
	b.sent.millis, b.sent.known = b.timestamp(sentAt)
	for _, object := range []struct {
		name string
		span span
		into *shared
	}{{"context", context, &b.context}, {"integrations", integrations, &b.integrals}} {
		if err := b.share(object.name, object.span, object.into); err != nil {
			return err
		}
	}
	if merged := len(b.context.raw) + len(b.integrals.raw); merged*len(b.items) > maxMergeGrowth*b.limits.BatchBytes {
		return &BodyError{CodeMergeTooLarge, fmt.Sprintf("context and integrations of the batch have %d bytes, which are merged into each of its %d events: send fewer events at a time, or a smaller context", merged, len(b.items))}
	}
	return nil
}

// parseItems parses the list of events.
func (b *Body) parseItems() error {
	s := &b.scan
	s.pos++
	if s.space() == ']' {
		s.pos++
		return nil
	}
	for {
		c := s.space()
		it := item{whole: span{start: s.pos}, first: len(b.members), object: c == '{'}
		before := s.literals
		var depth int
		var err error
		if it.object {
			b.members, depth, err = s.object(b.members)
		} else {
			depth, err = s.value()
		}
		if err != nil {
			return err
		}
		it.whole.end, it.last = s.pos, len(b.members)
		it.tooDeep = depth > b.limits.Depth
		it.literals = s.literals - before
		b.items = append(b.items, it)
		switch s.space() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.fail(`has something other than "," or "]" after an element of an array`)
		}
	}
}

// share prepares an object of the batch for merging into its events.
func (b *Body) share(name string, value span, into *shared) error {
	if value.end == 0 || b.scan.text[value.start] == 'n' {
		return nil
	}
	if b.scan.text[value.start] != '{' {
		return &BodyError{CodeInvalidBatch, fmt.Sprintf("%q of the batch must be an object", name)}
	}
	if n := value.end - value.start; n > b.limits.EventBytes {
		return &BodyError{CodeMergeTooLarge, fmt.Sprintf("%q of the batch has %d bytes: at most %d are accepted", name, n, b.limits.EventBytes)}
	}
	members := b.membersOf(value, nil)
	if len(members) == 0 {
		return nil
	}
	into.raw = b.scan.text[value.start:value.end]
	into.index = make(map[string]int, len(members))
	for _, m := range members {
		key := string(unquoted(b.bytes(m.name)))
		if i, twice := into.index[key]; twice {
			into.members[i] = m // the last one wins, as in JSON.parse
			continue
		}
		into.index[key] = len(into.members)
		into.members = append(into.members, m)
	}
	return nil
}

// membersOf appends the members of an object that was scanned before.
func (b *Body) membersOf(object span, members []member) []member {
	pos := b.scan.pos
	b.scan.pos = object.start
	members, _, _ = b.scan.object(members)
	b.scan.pos = pos
	return members
}

func (b *Body) bytes(s span) []byte { return b.scan.text[s.start:s.end] }

// text returns the content of a string value, nil for any other value.
func (b *Body) text(value span) []byte {
	if value.end == 0 || b.scan.text[value.start] != '"' {
		return nil
	}
	return unquoted(b.scan.text[value.start+1 : value.end-1])
}

// timestamp parses a time: text in ISO 8601, or Unix time as text or number.
func (b *Body) timestamp(value span) (millis, bool) {
	if value.end == 0 {
		return 0, false
	}
	if b.scan.text[value.start] != '"' {
		return parseUnix(b.bytes(value))
	}
	text := b.text(value)
	if t, ok := parseTimestamp(text); ok {
		return t, true
	}
	return parseUnix(text)
}

// WriteKey returns the key in the body, empty if there is none. It is valid as
// long as the body.
func (b *Body) WriteKey() []byte { return b.writeKey }

// Len returns the number of events in the body.
func (b *Body) Len() int { return len(b.items) }

// Size returns the approximate number of bytes of all events together.
func (b *Body) Size() int {
	const stamps = 320 // five timestamps, a messageId, a source and an address
	perEvent := stamps + len(b.context.raw) + len(b.integrals.raw)
	if len(b.items) > math.MaxInt32/perEvent {
		return len(b.scan.text)
	}
	return len(b.scan.text) + perEvent*len(b.items)
}
