// Package event parses one customer event from its bytes: the common fields of
// Segment's spec, and any property by path, without building generic maps.
package event

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/valyala/fastjson"

	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// The values of an event's type field, as in Segment's spec.
const (
	TypeTrack    = "track"
	TypeIdentify = "identify"
	TypePage     = "page"
	TypeScreen   = "screen"
	TypeGroup    = "group"
	TypeAlias    = "alias"
)

// Types of administrative events: erase the customer, and readmit an erased
// customer. Only the profile API sends them, no collector accepts them.
const (
	TypeErase   = "erase"
	TypeReadmit = "readmit"
)

// Error describes one mistake in an event. It never contains the value itself.
type Error struct {
	// Pointer is the JSON pointer of the value.
	Pointer string
	// Rule is the name of the failed check.
	Rule string
	// Message states the expected form.
	Message string
}

func (e *Error) Error() string {
	if e.Pointer == "" {
		return e.Message
	}
	return e.Pointer + ": " + e.Message
}

// Event is a view of one event. The event and every byte slice it returns are
// valid until its Parser parses again.
type Event struct {
	// Type is track, identify, page, screen, group, alias, erase or readmit.
	Type string
	// Name is the name that definitions use: the event field of a track event,
	// the type of any other event.
	Name []byte
	// MessageID, UserID, AnonymousID, PreviousID and Source are the fields of
	// these names, empty when absent or null. An id that is an integer is
	// converted to text. At least one of UserID and AnonymousID is set.
	MessageID, UserID, AnonymousID, PreviousID, Source []byte
	// Time is the timestamp and ReceivedAt the receivedAt of the event, in
	// Unix milliseconds. An event without receivedAt has HasReceivedAt unset
	// and ReceivedAt equal to Time.
	Time, ReceivedAt int64
	// Nanos are the nanoseconds of timestamp after Time, 0 to 999,999. They
	// order statements within a millisecond.
	Nanos         int32
	HasReceivedAt bool

	root *fastjson.Value
	tree any
}

// Parser parses one event after the other and reuses its memory. It is not
// safe for concurrent use; the zero value is ready.
type Parser struct {
	json      fastjson.Parser
	inspector inspector
	event     Event
}

// Parse parses the event in data. The error is an *Error.
func (p *Parser) Parse(data []byte) (*Event, error) {
	if !utf8.Valid(data) {
		return nil, &Error{"", "encoding", "event is not valid UTF-8"}
	}
	root, err := p.json.ParseBytes(jsontext.ReplaceLoneSurrogates(data))
	if err != nil {
		return nil, &Error{"", "json", "event is not valid JSON"}
	}
	p.inspector.hasDuplicates, p.inspector.invalid = false, false
	if p.inspector.inspect(root); p.inspector.invalid {
		return nil, &Error{"", "json", "event is not valid JSON"}
	}
	if p.inspector.hasDuplicates {
		if root, err = p.json.ParseBytes(appendJSON(nil, root, true)); err != nil {
			return nil, &Error{"", "json", "event is not valid JSON"}
		}
	}
	if root.Type() != fastjson.TypeObject {
		return nil, &Error{"", "type", "event must be a JSON object"}
	}
	e := &p.event
	*e = Event{root: root}

	kind, err := text(root, "type")
	if err != nil {
		return nil, err
	}
	switch string(kind) {
	case TypeTrack:
		e.Type = TypeTrack
		if e.Name, err = text(root, "event"); err != nil {
			return nil, err
		}
		if len(e.Name) == 0 {
			return nil, &Error{"/event", "required", "a track event needs a name in event"}
		}
	case TypeIdentify:
		e.Type, e.Name = TypeIdentify, kind
	case TypePage:
		e.Type, e.Name = TypePage, kind
	case TypeScreen:
		e.Type, e.Name = TypeScreen, kind
	case TypeGroup:
		e.Type, e.Name = TypeGroup, kind
	case TypeAlias:
		e.Type, e.Name = TypeAlias, kind
	case TypeErase:
		e.Type, e.Name = TypeErase, kind
	case TypeReadmit:
		e.Type, e.Name = TypeReadmit, kind
	default:
		return nil, &Error{"/type", "enum", "type must be track, identify, page, screen, group or alias"}
	}

	for _, f := range [...]struct {
		name string
		into *[]byte
	}{
		{"messageId", &e.MessageID}, {"userId", &e.UserID}, {"anonymousId", &e.AnonymousID}, {"previousId", &e.PreviousID},
	} {
		if *f.into, err = id(root, f.name); err != nil {
			return nil, err
		}
	}
	if e.Source, err = text(root, "source"); err != nil {
		return nil, err
	}
	if len(e.MessageID) == 0 {
		return nil, &Error{"/messageId", "required", "event needs a messageId"}
	}
	if len(e.UserID) == 0 && len(e.AnonymousID) == 0 {
		return nil, &Error{"", "required", "event needs a userId or an anonymousId"}
	}
	var ok bool
	if e.Time, e.Nanos, ok, err = instant(root, "timestamp"); err != nil {
		return nil, err
	} else if !ok {
		return nil, &Error{"/timestamp", "required", "event needs a timestamp"}
	}
	if e.ReceivedAt, _, e.HasReceivedAt, err = instant(root, "receivedAt"); err != nil {
		return nil, err
	} else if !e.HasReceivedAt {
		e.ReceivedAt = e.Time
	}
	return e, nil
}

// Structured returns the event as generic maps, for queries. The maps are
// built at the first call.
func (e *Event) Structured() any {
	if e.tree == nil {
		e.tree = Generic(e.root)
	}
	return e.tree
}

// VisitTraits calls fn for every top-level trait of an identify event, in the
// order of the text. It returns an error if the traits field is not an object.
func (e *Event) VisitTraits(fn func(name []byte, v Value)) error {
	t := e.root.Get("traits")
	if t == nil || t.Type() == fastjson.TypeNull {
		return nil
	}
	obj, err := t.Object()
	if err != nil {
		return &Error{"/traits", "type", "traits must be an object"}
	}
	obj.Visit(func(name []byte, v *fastjson.Value) { fn(name, valueOf(v)) })
	return nil
}

func text(root *fastjson.Value, name string) ([]byte, error) {
	v := root.Get(name)
	if v == nil || v.Type() == fastjson.TypeNull {
		return nil, nil
	}
	if v.Type() != fastjson.TypeString {
		return nil, &Error{"/" + name, "type", name + " must be a string"}
	}
	return v.GetStringBytes(), nil
}

// id returns an id as text. A database often has numbers as ids, and some
// clients send them as such: 4711 is the customer "4711".
func id(root *fastjson.Value, name string) ([]byte, error) {
	v := root.Get(name)
	if v == nil || v.Type() != fastjson.TypeNumber {
		return text(root, name)
	}
	digits, fraction, _ := bytes.Cut(v.MarshalTo(nil), []byte("."))
	if !isDigits(digits) || len(bytes.Trim(fraction, "0")) > 0 {
		return nil, &Error{"/" + name, "type", name + " must be a string or a whole number"}
	}
	return digits, nil
}

func instant(root *fastjson.Value, name string) (ms int64, nanos int32, ok bool, err error) {
	s, err := text(root, name)
	if err != nil || s == nil {
		return 0, 0, false, err
	}
	ms, nanos, err = parseTime(s)
	if err != nil {
		return 0, 0, false, &Error{"/" + name, "format", name + " must be an RFC 3339 time such as 2026-01-31T08:30:00.000Z"}
	}
	return ms, nanos, true, nil
}

var errTime = errors.New("not an RFC 3339 time between the years 1 and 9999")

// ParseTime parses an RFC 3339 time into Unix milliseconds. Fractions of a
// millisecond are cut off.
func ParseTime(s []byte) (int64, error) {
	ms, _, err := parseTime(s)
	return ms, err
}

// parseTime parses an RFC 3339 time into Unix milliseconds and the remaining
// nanoseconds.
func parseTime(s []byte) (ms int64, nanos int32, err error) {
	// The collector's own format is parsed without time.Parse, which costs
	// three times as much.
	if len(s) == 24 && s[4] == '-' && s[7] == '-' && s[10] == 'T' && s[13] == ':' && s[16] == ':' && s[19] == '.' && s[23] == 'Z' {
		year, month, day := digits(s[0:4]), digits(s[5:7]), digits(s[8:10])
		hour, minute, second, milli := digits(s[11:13]), digits(s[14:16]), digits(s[17:19]), digits(s[20:23])
		if year < 1 || month < 1 || month > 12 || day < 1 || day > 28 && day > daysIn(year, month) ||
			hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 || milli < 0 {
			return 0, 0, errTime
		}
		return time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Unix()*1000 + int64(milli), 0, nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return 0, 0, errTime
	}
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return 0, 0, errTime
	}
	return t.UnixMilli(), int32(t.Nanosecond() % int(time.Millisecond)), nil
}

// AppendTime appends a time in the format that ParseTime parses fastest.
func AppendTime(dst []byte, ms int64) []byte {
	const msPerDay = 24 * 60 * 60 * 1000
	if ms < 0 || ms > lastTime {
		return time.UnixMilli(ms).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	}
	// Profiles contain many times, so formatting is hand-written. Days are
	// counted in eras of 400 years from 1 March of year 0, which puts the leap
	// day at the end of a year.
	day, rest := ms/msPerDay+719468, ms%msPerDay
	era := day / 146097
	ofEra := day % 146097
	year := (ofEra - ofEra/1460 + ofEra/36524 - ofEra/146096) / 365
	ofYear := ofEra - (365*year + year/4 - year/100)
	month := (5*ofYear + 2) / 153
	ofMonth := ofYear - (153*month+2)/5 + 1
	year += 400 * era
	if month += 3; month > 12 {
		month -= 12
		year++
	}
	dst = append(dst, byte('0'+year/1000), byte('0'+year/100%10))
	dst = appendTwo(dst, year%100)
	dst = appendTwo(append(dst, '-'), month)
	dst = appendTwo(append(dst, '-'), ofMonth)
	dst = appendTwo(append(dst, 'T'), rest/3600000)
	dst = appendTwo(append(dst, ':'), rest/60000%60)
	dst = appendTwo(append(dst, ':'), rest/1000%60)
	return append(appendTwo(append(dst, '.', byte('0'+rest/100%10)), rest%100), 'Z')
}

// lastTime is the last moment with a year of four digits.
const lastTime = 253402300799999

func appendTwo(dst []byte, n int64) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// digits parses decimal digits; the result is negative if s contains anything
// else.
func digits(s []byte) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return -1 << 20
		}
		n = n*10 + int(c-'0')
	}
	return n
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// Generic returns a JSON value as generic maps, for queries.
func Generic(v *fastjson.Value) any {
	switch v.Type() {
	case fastjson.TypeObject:
		obj := v.GetObject()
		m := make(map[string]any, obj.Len())
		obj.Visit(func(k []byte, v *fastjson.Value) { m[string(k)] = Generic(v) })
		return m
	case fastjson.TypeArray:
		items := v.GetArray()
		a := make([]any, len(items))
		for i, item := range items {
			a[i] = Generic(item)
		}
		return a
	case fastjson.TypeString:
		return string(v.GetStringBytes())
	case fastjson.TypeNumber:
		n := numberOf(v)
		if i, err := strconv.ParseInt(string(n.Text), 10, 64); err == nil {
			return i
		}
		if n.Number == math.Trunc(n.Number) && math.Abs(n.Number) <= maxExact {
			return int64(n.Number)
		}
		return n.Number
	case fastjson.TypeTrue:
		return true
	case fastjson.TypeFalse:
		return false
	case fastjson.TypeNull:
		return nil
	}
	panic(fmt.Sprintf("event: unknown JSON type %v", v.Type()))
}
