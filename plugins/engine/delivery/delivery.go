package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
)

// Item is one element to deliver.
type Item struct {
	// ID identifies the element. The idempotency key of a request is a hash of the
	// IDs in it.
	ID string
	// Customer is the customer of the element. A request contains at most one
	// element of a customer, and the next one is sent after the previous one is
	// settled. Elements without a customer are not ordered.
	Customer string
	// Target is where the element is sent. Only items with equal targets share a
	// request.
	Target Target
	// Element is the JSON of which the body of a request is composed.
	Element json.RawMessage
}

// Failure is a failed part of a request, as reported by a response.
type Failure struct {
	// Index is the position of the element in the request, or -1.
	Index int
	// Customer identifies the element if Index is -1. If it is empty too, the
	// whole request failed.
	Customer string
	// Retry is set if the element may be accepted later.
	Retry bool
	// Code is the reason, in one word.
	Code string
}

// Codes of failures without a code in the response. They are the rules of dead
// letters.
const (
	CodeRejected       = "refused"     // by the status of the response
	CodeTooLarge       = "too_large"   // larger than a request may be
	CodeInvalidRequest = "request"     // no request can be composed of it
	CodeTimedOut       = "gave_up"     // not delivered within GiveUpAfter
	CodeCircuitOpen    = "unreachable" // not sent: the circuit is open
)

// RejectedError is the error of an element that the platform does not accept. A
// retry would not help.
type RejectedError struct {
	Status int // 0 if the element was not sent
	Code   string
}

func (e *RejectedError) Error() string {
	switch {
	case e.Status == 0 && e.Code == CodeTooLarge:
		return "the element is larger than a request may be"
	case e.Status == 0:
		return "no request can be composed of the element"
	case e.Code == CodeRejected:
		return fmt.Sprintf("rejected with status %d", e.Status)
	}
	return fmt.Sprintf("rejected with status %d: %s", e.Status, e.Code)
}

// UndeliveredError is the error of an element that was not delivered in time. If
// it was sent, the platform may have accepted it.
type UndeliveredError struct {
	Code string // CodeTimedOut or CodeCircuitOpen
	// Last is the last failure, nil if there was none.
	Last error
}

func (e *UndeliveredError) Error() string {
	text := "not delivered within the time limit"
	if e.Code == CodeCircuitOpen {
		text = "not sent, because requests to the platform keep failing"
	}
	if e.Last != nil {
		text += ": " + e.Last.Error()
	}
	return text
}

func (e *UndeliveredError) Unwrap() error { return e.Last }

// idempotencyKey returns a hash of the IDs of the items, in their order. It depends
// on nothing else, so that another process computes the same key.
func idempotencyKey(items []*queuedItem) string {
	h := sha256.New()
	var n [8]byte
	for _, item := range items {
		binary.LittleEndian.PutUint64(n[:], uint64(len(item.ID)))
		h.Write(n[:])
		h.Write([]byte(item.ID))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Circuit configures the circuit breaker of a platform.
type Circuit struct {
	// Failures is the number of failed requests in a row that opens the circuit.
	Failures int
	// Probe is the delay between requests that probe whether the platform is back.
	Probe backoff.Exponential
	// FailFast ends deliveries at once while the circuit is open, except for
	// probes. Otherwise they wait.
	FailFast bool
}

// Config configures a Sender. Every field must be set unless its comment says
// otherwise.
type Config struct {
	// MaxElements and MaxBytes bound a request.
	MaxElements, MaxBytes int
	// Parallel is the maximum number of requests in flight of one Deliver.
	Parallel int
	// Timeout is the maximum duration of a request, until the end of its response.
	Timeout time.Duration
	// GiveUpAfter is the maximum duration of a Deliver; zero for no limit.
	GiveUpAfter time.Duration
	// Retry is the delay between attempts.
	Retry backoff.Exponential
	// MaxRetryAfter bounds the pause that a platform may request.
	MaxRetryAfter time.Duration
	// ResetHeader is the name of a header with the Unix time in seconds at which
	// the platform accepts requests again, used beside Retry-After; or empty.
	ResetHeader string
	Circuit     Circuit

	// Delivered are the statuses of success. Retried are those that say nothing
	// about the elements: the same request is sent again. All other statuses
	// reject the request.
	Delivered, Retried Statuses
	// Split are rejections that may concern only some of the elements: the
	// request is halved and sent again, until those elements are alone.
	Split Statuses

	// IdempotencyHeader is the name of the header of the idempotency key, or empty.
	IdempotencyHeader string

	// Compose composes the body of a request.
	Compose func(elements []json.RawMessage) ([]byte, error)
	// FindFailures returns the failed parts of a request, for responses that
	// deliver or reject it. An error means that the response cannot be parsed.
	// Nil trusts the status.
	FindFailures func(response *Response, elements []json.RawMessage) ([]Failure, error)
	// Authorize adds credentials to a request, for each attempt; or nil.
	Authorize func(r *Request, now time.Time) error
	// Limit blocks until a rate limit allows a request; or nil.
	Limit func(ctx context.Context) error

	// OnResponse is called after every request with its status, 0 without a
	// response; or nil.
	OnResponse func(status int, took time.Duration)
	// OnCircuit is called when the circuit opens, with the reason, and with nil
	// when it closes; or nil.
	OnCircuit func(reason error)
}
