// Package delivery delivers elements to an HTTP API that takes several of them in
// a request: an email platform's, or another profile API's. It puts elements
// together, keeps the order of each customer, tries again what may succeed
// later, and tells of each element what became of it. It knows nothing of what
// elements are.
package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Item is one element to deliver.
type Item struct {
	// ID identifies what the element tells. The idempotency key of a request is
	// made of the IDs in it.
	ID string
	// Customer is who the element is about. A request holds a customer once,
	// and the next element of a customer is sent when the one before it is
	// settled. Elements without a customer are in no order.
	Customer string
	// Target is where the element goes. Items that share a target can share a
	// request.
	Target Target
	// Element is the JSON that a request is composed of.
	Element json.RawMessage
}

// Target is where a request goes.
type Target struct {
	Verb, URL string
	Header    http.Header
}

// key is the same for targets that are.
func (t *Target) key() string {
	if len(t.Header) == 0 {
		return t.Verb + " " + t.URL
	}
	names := make([]string, 0, len(t.Header))
	for name := range t.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(t.Verb + " " + t.URL)
	for _, name := range names {
		fmt.Fprintf(&b, "\n%q%q", name, t.Header[name])
	}
	return b.String()
}

// Answer is what a platform said to a request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Failure is a part of a request that failed, as an answer tells.
type Failure struct {
	// Index is the position of the element in the request, or -1.
	Index int
	// Customer names the element if Index is -1. With neither all of the
	// request failed.
	Customer string
	// Retry tells that the element may be accepted later.
	Retry bool
	// Code says why, in a word.
	Code string
}

// The codes of failures that no answer names.
const (
	CodeRefused     = "refused"     // by the status of the answer
	CodeTooLarge    = "too_large"   // for any request
	CodeUncomposed  = "request"     // no request could be made of it
	CodeGaveUp      = "gave_up"     // the time for it was over
	CodeCircuitOpen = "unreachable" // not tried: the platform has been failing
)

// Refused is the error of an element that the platform will not take, whenever
// it is sent.
type Refused struct {
	Status int // 0 if it was not sent at all
	Code   string
}

func (e *Refused) Error() string {
	switch {
	case e.Status == 0 && e.Code == CodeTooLarge:
		return "the element is larger than a request may be"
	case e.Status == 0:
		return "no request could be made of the element"
	case e.Code == CodeRefused:
		return fmt.Sprintf("refused with status %d", e.Status)
	}
	return fmt.Sprintf("refused with status %d: %s", e.Status, e.Code)
}

// GaveUp is the error of an element that was not delivered in the time for it.
// Whether the platform took it is not known if it was sent.
type GaveUp struct {
	Code string
	// Last is the last thing that went wrong, nil if nothing did.
	Last error
}

func (e *GaveUp) Error() string {
	text := "not delivered in the time for it"
	if e.Code == CodeCircuitOpen {
		text = "not sent, as the platform has been failing"
	}
	if e.Last != nil {
		text += ": " + e.Last.Error()
	}
	return text
}

func (e *GaveUp) Unwrap() error { return e.Last }

// key is that of a request with the items: the same for the same items in the
// same order, whenever and by whomever it is sent.
func key(items []*parcel) string {
	h := sha256.New()
	var n [8]byte
	for _, p := range items {
		binary.LittleEndian.PutUint64(n[:], uint64(len(p.ID)))
		h.Write(n[:])
		h.Write([]byte(p.ID))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Statuses is a set of HTTP statuses.
type Statuses [600]bool

// ParseStatuses reads statuses such as 429, and classes of them such as 5xx.
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
			return set, fmt.Errorf("%q is no status: write one such as 429, or a class such as 5xx", text)
		}
		for s := from; s <= to; s++ {
			set[s] = true
		}
	}
	return set, nil
}

// Has tells whether a status is in the set.
func (s *Statuses) Has(status int) bool { return status >= 0 && status < len(s) && s[status] }

// Config is how a Sender delivers. All of it has to be set, except where a
// comment says otherwise.
type Config struct {
	// MaxElements and MaxBytes bound a request.
	MaxElements, MaxBytes int
	// MaxAnswerBytes bounds what is read of an answer.
	MaxAnswerBytes int
	// Parallel is how many requests of one Deliver are under way at once.
	Parallel int
	// Timeout is how long a request may take to the end of its answer.
	Timeout time.Duration
	// GiveUpAfter is how long a Deliver may take; zero for any time.
	GiveUpAfter time.Duration
	// Retry is the time between attempts.
	Retry Backoff
	// MaxRetryAfter bounds the wait that a platform may ask for.
	MaxRetryAfter time.Duration
	// ResetHeader names a header that holds the Unix time in seconds at which
	// the platform takes requests again, beside Retry-After; or nothing.
	ResetHeader string
	// Circuit tells when the platform is taken to be down.
	Circuit Circuit

	// Delivered are statuses of success. Retried are those that say nothing
	// about the elements, so that the same request may succeed later. All
	// others refuse the request.
	Delivered, Retried Statuses
	// Split are refusals that may be about some of the elements only: a request
	// refused so is sent again in halves, until those are alone.
	Split Statuses

	// IdempotencyHeader names the header of the idempotency key, or nothing.
	IdempotencyHeader string

	// Compose makes the body of a request.
	Compose func(elements []json.RawMessage) ([]byte, error)
	// Judge tells what of a request failed. It is asked about answers that
	// deliver or refuse a request; an error means that the answer cannot be
	// understood. Nil trusts the status.
	Judge func(answer *Answer, elements []json.RawMessage) ([]Failure, error)
	// Authorize adds what is secret to a request, anew for each attempt; or nil.
	Authorize func(r *http.Request, body []byte, key string, now time.Time) error
	// Limit waits until a request may be sent; or nil.
	Limit func(r *http.Request) error

	// OnAnswer is told of every request: the status, 0 if there was none; or nil.
	OnAnswer func(status int, took time.Duration)
	// OnCircuit is told when the platform is taken to be down, with the reason,
	// and when it is back, with nil; or nil.
	OnCircuit func(reason error)
}
