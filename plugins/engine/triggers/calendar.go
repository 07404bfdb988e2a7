package triggers

import (
	"time"
)

const (
	minute = int64(time.Minute / time.Millisecond)
	day    = 24 * 60 * minute
)

// Quiet is a span of the day in which nothing is sent, in minutes after
// midnight. It may go over midnight, and is empty if both ends are the same.
type Quiet struct{ From, To int }

// contains tells whether a time of day, in milliseconds, is in the span.
func (q Quiet) contains(ofDay int64) bool {
	from, to := int64(q.From)*minute, int64(q.To)*minute
	if from <= to {
		return from <= ofDay && ofDay < to
	}
	return from <= ofDay || ofDay < to
}

// End returns the first moment at or after another at which the clocks of a
// zone show a time outside the span.
func (q Quiet) End(at int64, zone *time.Location) int64 {
	for {
		offset, until := period(at, zone)
		ofDay := floorMod(at+offset, day)
		if !q.contains(ofDay) {
			return at
		}
		end := at + floorMod(int64(q.To)*minute-ofDay, day)
		if end < until {
			return end
		}
		// The clocks are changed before the span ends.
		at = until
	}
}

// instant returns the first moment at which the clocks of a zone show a date
// and time, or a later one. The date and time are given as the moment at which
// clocks of UTC show them.
func instant(wall int64, zone *time.Location) int64 {
	// No clock is more than 26 hours ahead of UTC.
	for at := wall - 26*60*minute; ; {
		offset, until := period(at, zone)
		shown := wall - offset
		if shown <= at {
			// The clocks were put forward beyond it.
			return at
		}
		if shown < until {
			return shown
		}
		at = until
	}
}

// period returns how far clocks of a zone are ahead of UTC at a moment, and
// until when they are.
func period(at int64, zone *time.Location) (offset, until int64) {
	t := time.UnixMilli(at).In(zone)
	_, seconds := t.Zone()
	_, end := t.ZoneBounds()
	if end.IsZero() {
		return int64(seconds) * 1000, 1<<63 - 1
	}
	return int64(seconds) * 1000, end.UnixMilli()
}

// date is a day that somebody stated; its year is 0 if they did not say.
type date struct {
	year  int
	month time.Month
	day   int
}

// parseDate reads 1990-05-10, 1990-05-10T00:00:00Z, 05-10 and --05-10.
func parseDate(text []byte) (d date, ok bool) {
	if len(text) > 10 && (text[10] == 'T' || text[10] == ' ') {
		text = text[:10]
	}
	switch {
	case len(text) == 10 && text[4] == '-' && text[7] == '-':
		if d.year = number(text[:4]); d.year < 1 {
			return date{}, false
		}
		text = text[5:]
	case len(text) == 7 && text[0] == '-' && text[1] == '-' && text[4] == '-':
		text = text[2:]
	case len(text) == 5 && text[2] == '-':
	default:
		return date{}, false
	}
	d.month, d.day = time.Month(number(text[:2])), number(text[3:])
	const leapYear = 2000
	year := d.year
	if year == 0 {
		year = leapYear
	}
	if d.month < 1 || d.month > 12 || d.day < 1 || d.day > daysIn(year, d.month) {
		return date{}, false
	}
	return d, true
}

// in returns the day in a year as the moment at which it begins in UTC. The
// 29th of February is the 28th in a year that has none.
func (d date) in(year int) int64 {
	return time.Date(year, d.month, min(d.day, daysIn(year, d.month)), 0, 0, 0, 0, time.UTC).UnixMilli()
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// number returns what digits spell, -1 if they are none.
func number(digits []byte) int {
	n := 0
	for _, c := range digits {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

func floorMod(a, b int64) int64 {
	if m := a % b; m < 0 {
		return m + b
	} else {
		return m
	}
}
