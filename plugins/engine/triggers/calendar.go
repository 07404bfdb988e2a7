package triggers

import (
	"time"
)

const (
	minute = int64(time.Minute / time.Millisecond)
	day    = 24 * 60 * minute
)

// Quiet is a daily span without messages (quiet hours), in minutes after
// midnight: From is included, To is not. It may cross midnight. It is empty if
// both ends are equal.
type Quiet struct{ From, To int }

// contains reports whether a time of day, in milliseconds, is in the span.
func (q Quiet) contains(ofDay int64) bool {
	from, to := int64(q.From)*minute, int64(q.To)*minute
	if from <= to {
		return from <= ofDay && ofDay < to
	}
	return from <= ofDay || ofDay < to
}

// End returns t if the local time at t is outside the span, otherwise the
// first moment after t at which it is. All moments are Unix milliseconds.
func (q Quiet) End(t int64, zone *time.Location) int64 {
	for {
		offset, until := period(t, zone)
		ofDay := floorMod(t+offset, day)
		if !q.contains(ofDay) {
			return t
		}
		end := t + floorMod(int64(q.To)*minute-ofDay, day)
		if end < until {
			return end
		}
		// The zone changes its offset before the span ends.
		t = until
	}
}

// instant returns the moment at which a local date and time occurs in a zone,
// or, if clocks skip it, the moment of the skip. wall is the local date and
// time, encoded as the moment at which UTC clocks show it.
func instant(wall int64, zone *time.Location) int64 {
	// No zone is more than 26 hours ahead of UTC.
	for at := wall - 26*60*minute; ; {
		offset, until := period(at, zone)
		shown := wall - offset
		if shown <= at {
			// The clocks skip this time.
			return at
		}
		if shown < until {
			return shown
		}
		at = until
	}
}

// period returns the zone's offset from UTC, in milliseconds, and the end of
// the period during which that offset applies.
func period(at int64, zone *time.Location) (offset, until int64) {
	t := time.UnixMilli(at).In(zone)
	_, seconds := t.Zone()
	_, end := t.ZoneBounds()
	if end.IsZero() {
		return int64(seconds) * 1000, 1<<63 - 1
	}
	return int64(seconds) * 1000, end.UnixMilli()
}

// date is a calendar day; its year is 0 if the trait states none.
type date struct {
	year  int
	month time.Month
	day   int
}

// parseDate parses 1990-05-10, 1990-05-10T00:00:00Z, 05-10 and --05-10.
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

// in returns the day in a given year, encoded as its midnight in UTC. 29
// February becomes 28 February in a year that is not a leap year.
func (d date) in(year int) int64 {
	return time.Date(year, d.month, min(d.day, daysIn(year, d.month)), 0, 0, 0, 0, time.UTC).UnixMilli()
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// number parses decimal digits and returns -1 for anything else.
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
