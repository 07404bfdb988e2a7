package delivery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Header holds the headers of a request or a response. Names are in canonical
// form, as net/http writes them: "Retry-After".
type Header map[string][]string

// Get returns the first value of a header, empty if there is none.
func (h Header) Get(name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set replaces the values of a header.
func (h Header) Set(name, value string) { h[name] = []string{value} }

// Target is where a request is sent.
type Target struct {
	Method, URL string
	Header      Header
}

// key returns a text that is equal for equal targets.
func (t *Target) key() string {
	if len(t.Header) == 0 {
		return t.Method + " " + t.URL
	}
	var b strings.Builder
	b.WriteString(t.Method + " " + t.URL)
	for _, name := range slices.Sorted(maps.Keys(t.Header)) {
		fmt.Fprintf(&b, "\n%q%q", name, t.Header[name])
	}
	return b.String()
}

// Request is one attempt to send a request.
type Request struct {
	Target
	Body []byte
	// Key is the idempotency key: equal for every attempt with the same elements.
	Key string
}

// Response is the platform's response to a request.
type Response struct {
	Status int
	Header Header
	Body   []byte
}

// Transport sends a request and returns the response to it. An error means that
// there is none; it is logged and written to dead letters, so it must contain
// neither an address nor a part of request or response.
type Transport func(ctx context.Context, r *Request) (*Response, error)

const statusTooManyRequests = 429

// Statuses is a set of HTTP statuses.
type Statuses [600]bool

// ParseStatuses parses statuses such as 429, and classes of them such as 5xx.
func ParseStatuses(texts []string) (Statuses, error) {
	var set Statuses
	for _, text := range texts {
		from, to := 0, 0
		if len(text) == 3 && text[0] >= '1' && text[0] <= '5' {
			switch {
			case text[1:] == "xx":
				from = int(text[0]-'0') * 100
				to = from + 99
			case text[1] >= '0' && text[1] <= '9' && text[2] >= '0' && text[2] <= '9':
				from = int(text[0]-'0')*100 + int(text[1]-'0')*10 + int(text[2]-'0')
				to = from
			}
		}
		if from == 0 {
			return set, fmt.Errorf("%q is not a status: write one such as 429, or a class such as 5xx", text)
		}
		for s := from; s <= to; s++ {
			set[s] = true
		}
	}
	return set, nil
}

// Contains reports whether a status is in the set.
func (s *Statuses) Contains(status int) bool { return status >= 0 && status < len(s) && s[status] }

// requestedPause returns how long a response asks to wait before the next request,
// at most limit, and reports whether it asks. A date in Retry-After is compared
// with the Date of the response, if it has one: the platform's clock may be wrong.
func requestedPause(h Header, resetHeader string, now time.Time, limit time.Duration) (time.Duration, bool) {
	wait, requested := time.Duration(0), false
	if text := h.Get("Retry-After"); text != "" {
		if seconds, err := strconv.ParseUint(text, 10, 63); err == nil {
			wait, requested = boundedSeconds(seconds, limit), true
		} else if until, ok := parseHTTPTime(text); ok {
			if date, ok := parseHTTPTime(h.Get("Date")); ok {
				now = date
			}
			return max(0, min(until.Sub(now), limit)), true
		}
	}
	if !requested && resetHeader != "" {
		if seconds, err := strconv.ParseInt(h.Get(resetHeader), 10, 64); err == nil {
			wait, requested = time.Unix(seconds, 0).Sub(now), true
		}
	}
	return max(0, min(wait, limit)), requested
}

func boundedSeconds(seconds uint64, limit time.Duration) time.Duration {
	if seconds > uint64(limit/time.Second) {
		return limit
	}
	return time.Duration(seconds) * time.Second
}

// parseHTTPTime parses a time in one of the three formats of HTTP.
func parseHTTPTime(text string) (time.Time, bool) {
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
