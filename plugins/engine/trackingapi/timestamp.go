package trackingapi

import (
	"bytes"
	"strconv"
	"time"
)

// millis is a time in Unix milliseconds, the precision of Segment's spec.
type millis = int64

// optionalTime is a time that a client may have left out.
type optionalTime struct {
	millis millis
	known  bool
}

// parseTimestamp parses an ISO 8601 date and time as clients write them: RFC
// 3339, and also a space in place of the T, an offset without colon or of hours
// only, no offset (which means UTC), no seconds or no time of day. Digits below a
// millisecond are cut off.
func parseTimestamp(text []byte) (millis, bool) {
	p := timestampParser{text: text, ok: true}
	year, month, day := p.digits(4), 0, 0
	p.expect('-')
	month = p.digits(2)
	p.expect('-')
	day = p.digits(2)
	var hour, minute, second, nanos, offset int
	if p.rest() > 0 {
		if c := p.next(); c != 'T' && c != 't' && c != ' ' {
			return 0, false
		}
		hour = p.digits(2)
		p.expect(':')
		minute = p.digits(2)
		if p.accept(':') {
			second = p.digits(2)
			if p.accept('.') || p.accept(',') {
				nanos = p.fraction()
			}
		}
		offset = p.offset()
	}
	if !p.ok || p.rest() > 0 ||
		month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 {
		return 0, false
	}
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if date.Day() != day {
		return 0, false // the month has no such day
	}
	t := date.UnixMilli() + int64((hour*60+minute-offset)*60+second)*1000 + int64(nanos/1e6)
	return t, inRange(t)
}

// parseUnix parses Unix time. As in the cleaning methods the number of digits
// selects the unit: 9 or 10 digits are seconds, with an optional fraction, 12 or 13
// milliseconds, 16 microseconds, 19 nanoseconds.
func parseUnix(text []byte) (millis, bool) {
	whole, fraction, _ := bytes.Cut(bytes.TrimPrefix(text, []byte("-")), []byte("."))
	if len(bytes.Trim(whole, "0123456789")) > 0 || len(bytes.Trim(fraction, "0123456789")) > 0 {
		return 0, false
	}
	digits := string(whole)
	switch len(whole) {
	case 9, 10:
		digits += string(append(fraction[:min(len(fraction), 3):min(len(fraction), 3)], "000"...)[:3])
	case 12, 13:
	case 16, 19:
		digits = digits[:13]
	default:
		return 0, false
	}
	t, err := strconv.ParseInt(digits, 10, 64)
	if text[0] == '-' {
		t = -t
	}
	return t, err == nil && inRange(t)
}

// inRange reports whether RFC 3339 can express a time: its year in UTC is 1 to
// 9999.
func inRange(t millis) bool {
	const first, last = -62135596800000, 253402300799999
	return t >= first && t <= last
}

// timestampParser consumes the parts of a timestamp; ok becomes false at the first
// part that is missing.
type timestampParser struct {
	text []byte
	ok   bool
}

func (p *timestampParser) rest() int { return len(p.text) }

func (p *timestampParser) next() byte {
	c := p.text[0]
	p.text = p.text[1:]
	return c
}

func (p *timestampParser) accept(c byte) bool {
	if p.rest() == 0 || p.text[0] != c {
		return false
	}
	p.text = p.text[1:]
	return true
}

func (p *timestampParser) expect(c byte) { p.ok = p.accept(c) && p.ok }

func (p *timestampParser) digits(n int) (value int) {
	if p.rest() < n {
		p.ok = false
		return 0
	}
	for range n {
		c := p.next()
		if c < '0' || c > '9' {
			p.ok = false
			return 0
		}
		value = value*10 + int(c-'0')
	}
	return value
}

// fraction consumes one or more digits after the decimal mark.
func (p *timestampParser) fraction() (nanos int) {
	scale := int(time.Second)
	start := p.rest()
	for p.rest() > 0 && p.text[0] >= '0' && p.text[0] <= '9' {
		scale /= 10
		nanos += int(p.next()-'0') * scale
	}
	if p.rest() == start {
		p.ok = false
	}
	return nanos
}

// offset consumes the offset from UTC, in minutes.
func (p *timestampParser) offset() (minutes int) {
	if p.rest() == 0 || p.accept('Z') || p.accept('z') {
		return 0
	}
	sign := 1
	switch p.next() {
	case '+':
	case '-':
		sign = -1
	default:
		p.ok = false
		return 0
	}
	hours := p.digits(2)
	if p.accept(':') || p.rest() > 0 {
		minutes = p.digits(2)
	}
	if hours > 23 || minutes > 59 {
		p.ok = false
	}
	return sign * (hours*60 + minutes)
}

// appendTimestamp appends a time that is inRange, as RFC 3339 in UTC with
// milliseconds.
func appendTimestamp(dst []byte, unix millis) []byte {
	t := time.UnixMilli(unix).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = appendDigits(dst, year, 4)
	dst = append(dst, '-')
	dst = appendDigits(dst, int(month), 2)
	dst = append(dst, '-')
	dst = appendDigits(dst, day, 2)
	dst = append(dst, 'T')
	dst = appendDigits(dst, hour, 2)
	dst = append(dst, ':')
	dst = appendDigits(dst, minute, 2)
	dst = append(dst, ':')
	dst = appendDigits(dst, second, 2)
	dst = append(dst, '.')
	dst = appendDigits(dst, t.Nanosecond()/int(time.Millisecond), 3)
	return append(dst, 'Z')
}

// nanosPerMilli is the number of nanoseconds in a millisecond.
const nanosPerMilli = 1_000_000

// parseNanos returns the nanoseconds that parseTimestamp or parseUnix cuts off a
// time that it accepts, 0 to 999,999.
func parseNanos(text []byte) int {
	_, digits, _ := bytes.Cut(bytes.Replace(text, []byte(","), []byte("."), 1), []byte("."))
	if len(text) == 16 || len(text) == 19 { // Unix time in micro- or nanoseconds
		if len(bytes.Trim(text, "0123456789")) == 0 {
			digits = text[10:]
		}
	}
	nanos, scale := 0, nanosPerMilli
	for _, c := range digits[min(3, len(digits)):] {
		if scale /= 10; c < '0' || c > '9' {
			break // the offset from UTC
		}
		nanos += int(c-'0') * scale
	}
	return nanos
}

// appendNanos extends a timestamp of appendTimestamp at the end of dst by the
// nanoseconds after its millisecond.
func appendNanos(dst []byte, nanos int) []byte {
	if nanos == 0 {
		return dst
	}
	return append(appendDigits(dst[:len(dst)-len("Z")], nanos, 6), 'Z')
}

func appendDigits(dst []byte, value, n int) []byte {
	for range n {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; value > 0; i-- {
		dst[i] = byte('0' + value%10)
		value /= 10
	}
	return dst
}

// eventTime returns the time of an event on the collector's clock. The duration
// from the event to its sending is the same on every clock, so it is subtracted
// from the time of receipt:
//
//	receivedAt - (sentAt - originalTimestamp)
//
// Without sentAt the client's clock is trusted. An event cannot happen after it
// was sent or received; an event with such times gets the time of its receipt.
func eventTime(original, sent optionalTime, received millis) millis {
	if !original.known {
		return received
	}
	t := original.millis
	if sent.known {
		t = received - (sent.millis - original.millis)
	}
	if t > received || !inRange(t) {
		return received
	}
	return t
}
