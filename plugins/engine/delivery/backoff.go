package delivery

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Backoff is a time that doubles with every failure.
type Backoff struct{ Initial, Max time.Duration }

// After returns how long to wait after a number of failures in a row: between
// half and all of the doubled time, so that many who failed together do not
// return together.
func (b Backoff) After(failures int) time.Duration {
	d := b.Initial
	for i := 1; i < failures && d < b.Max; i++ {
		d *= 2
	}
	d = min(d, b.Max)
	return d/2 + rand.N(d/2+1)
}

// askedFor returns how long an answer asks to wait, and whether it does. A date
// is taken by the clock of the platform, if the answer tells what it shows.
func askedFor(h http.Header, resetHeader string, now time.Time, atMost time.Duration) (time.Duration, bool) {
	wait, asked := time.Duration(0), false
	if text := h.Get("Retry-After"); text != "" {
		if seconds, err := strconv.ParseUint(text, 10, 63); err == nil {
			wait, asked = seconds2duration(seconds, atMost), true
		} else if at, err := http.ParseTime(text); err == nil {
			theirs := now
			if date, err := http.ParseTime(h.Get("Date")); err == nil {
				theirs = date
			}
			wait, asked = at.Sub(theirs), true
		}
	}
	if !asked && resetHeader != "" {
		if seconds, err := strconv.ParseInt(h.Get(resetHeader), 10, 64); err == nil {
			wait, asked = time.Unix(seconds, 0).Sub(now), true
		}
	}
	return max(0, min(wait, atMost)), asked
}

func seconds2duration(seconds uint64, atMost time.Duration) time.Duration {
	if seconds > uint64(atMost/time.Second) {
		return atMost
	}
	return time.Duration(seconds) * time.Second
}
