package rejection

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// Envelope is a dead letter: a rejected event with its original bytes and the reasons.
type Envelope struct {
	// ID is equal for equal bytes rejected by the same stage, so that a rejection that
	// is delivered twice can be deduplicated.
	ID    string
	Stage string
	// Reasons has at least one element.
	Reasons []Reason
	// Plan and PlanVersion are empty if no tracking plan was applied.
	Plan, PlanVersion string
	// Source and ReceivedAt come from the event or its input; empty if unknown.
	Source, ReceivedAt string
	RejectedAt         time.Time
	// Attempt is the number of rejections of the event, including this one.
	Attempt int
	// Original is the event as it arrived.
	Original []byte
}

// ID returns the id of a dead letter: a hash of the stage and the original bytes.
func ID(stage string, original []byte) string {
	h := sha256.New()
	_, _ = io.WriteString(h, stage)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(original)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// wireEnvelope is the JSON form. Exactly one of the originals is present: text if the
// bytes are valid UTF-8, which JSON preserves and people can read, else base64.
type wireEnvelope struct {
	ID             string   `json:"id"`
	Stage          string   `json:"stage"`
	Reasons        []Reason `json:"reasons"`
	Plan           string   `json:"plan,omitempty"`
	PlanVersion    string   `json:"plan_version,omitempty"`
	Source         string   `json:"source,omitempty"`
	ReceivedAt     string   `json:"received_at,omitempty"`
	RejectedAt     string   `json:"rejected_at"`
	Attempt        int      `json:"attempt"`
	Original       *string  `json:"original,omitempty"`
	OriginalBase64 *string  `json:"original_base64,omitempty"`
}

// Encode returns the envelope as one line of JSON without a line feed.
func (e *Envelope) Encode() ([]byte, error) {
	wire := wireEnvelope{
		ID: e.ID, Stage: e.Stage, Reasons: e.Reasons,
		Plan: e.Plan, PlanVersion: e.PlanVersion,
		Source: e.Source, ReceivedAt: e.ReceivedAt,
		RejectedAt: e.RejectedAt.UTC().Format(time.RFC3339Nano),
		Attempt:    e.Attempt,
	}
	if utf8.Valid(e.Original) {
		text := string(e.Original)
		wire.Original = &text
	} else {
		text := base64.StdEncoding.EncodeToString(e.Original)
		wire.OriginalBase64 = &text
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&wire); err != nil {
		return nil, fmt.Errorf("dead letter envelope: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

var (
	errNoOriginal  = errors.New(`has neither "original" nor "original_base64": one of them must hold the event`)
	errTwoOriginal = errors.New(`has both "original" and "original_base64": only one of them may hold the event`)
	errNoReasons   = errors.New(`has no "reasons": there must be at least one`)
	errTrailing    = errors.New("has text after the JSON object: expected one envelope per message")
)

// Decode parses an envelope. Unknown members are ignored, so that envelopes of later
// versions can be read.
func Decode(data []byte) (*Envelope, error) {
	e, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("dead letter envelope: %w", err)
	}
	return e, nil
}

func decode(data []byte) (*Envelope, error) {
	// The decoder would silently replace invalid bytes, and so change the event.
	if !utf8.Valid(data) {
		return nil, errors.New("is not valid UTF-8")
	}
	var wire wireEnvelope
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&wire); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	switch {
	case wire.ID == "":
		return nil, errors.New(`has no "id"`)
	case wire.Stage == "":
		return nil, errors.New(`has no "stage"`)
	case len(wire.Reasons) == 0:
		return nil, errNoReasons
	case wire.Attempt < 1:
		return nil, fmt.Errorf(`"attempt" is %d: it must be 1 or more`, wire.Attempt)
	}
	rejectedAt, err := time.Parse(time.RFC3339Nano, wire.RejectedAt)
	if year := rejectedAt.UTC().Year(); err != nil || year < 0 || year > 9999 {
		return nil, errors.New(`"rejected_at" must be an RFC 3339 time such as 2026-01-31T12:00:00Z`)
	}
	e := &Envelope{
		ID: wire.ID, Stage: wire.Stage, Reasons: wire.Reasons,
		Plan: wire.Plan, PlanVersion: wire.PlanVersion,
		Source: wire.Source, ReceivedAt: wire.ReceivedAt,
		RejectedAt: rejectedAt.UTC(),
		Attempt:    wire.Attempt,
	}
	switch {
	case wire.Original != nil && wire.OriginalBase64 != nil:
		return nil, errTwoOriginal
	case wire.Original != nil:
		e.Original = []byte(*wire.Original)
	case wire.OriginalBase64 != nil:
		if e.Original, err = base64.StdEncoding.DecodeString(*wire.OriginalBase64); err != nil {
			return nil, errors.New(`"original_base64" is not standard base64 with padding`)
		}
	default:
		return nil, errNoOriginal
	}
	return e, nil
}
