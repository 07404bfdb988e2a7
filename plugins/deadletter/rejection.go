// Package deadletter holds what happens to an event that cannot be processed:
// the structured reason a stage attaches to it, and the dead_letter processor
// that turns the rejected message into the documented envelope.
package deadletter

import (
	"bytes"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// Reason is one thing wrong with an event.
type Reason struct {
	// Pointer is the JSON pointer (RFC 6901) to the offending value, empty
	// for the whole event.
	Pointer string `json:"pointer"`
	// Rule names the check that failed, such as "required" or "type".
	Rule string `json:"rule"`
	// Message says what is wrong and what was expected, without the value
	// itself: reasons are logged, and values may be personal data.
	Message string `json:"message"`
}

// Rejection is the error a stage sets on a message it cannot accept.
type Rejection struct {
	// Stage is the YAML name of the component that rejected the event.
	Stage string
	// Plan and PlanVersion name the tracking plan, where one was applied.
	Plan, PlanVersion string
	Reasons           []Reason
}

// Error lists stage and reasons on one line.
func (r *Rejection) Error() string {
	var b strings.Builder
	b.WriteString(r.Stage)
	b.WriteString(": ")
	for i, reason := range r.Reasons {
		if i > 0 {
			b.WriteString("; ")
		}
		if reason.Pointer != "" {
			b.WriteString(reason.Pointer)
			b.WriteString(": ")
		}
		b.WriteString(reason.Message)
	}
	return b.String()
}

// OriginalMetadata is the metadata key under which a message carries the event
// as it arrived. It is metadata, not a value of the message's context, because
// Connect puts the context a message had before a processor back after it: a
// value that a processor adds there is lost. An operator can keep the original
// without any plugin by the mapping `meta original_event = content()`.
const OriginalMetadata = "original_event"

// originalBytes is never changed once set, so that copies of a message share it.
type originalBytes []byte

// Copy gives whoever asks for a value of their own the bytes to change.
func (o originalBytes) Copy() any { return bytes.Clone(o) }

// KeepOriginal returns the message carrying its present bytes as the original
// event, unless it carries one already. Stages that run before anything
// changes an event call it, so that a later rejection can still show what
// arrived.
func KeepOriginal(msg *service.Message) *service.Message {
	if _, kept := msg.MetaGetImmut(OriginalMetadata); kept {
		return msg
	}
	raw, err := msg.AsBytes()
	if err != nil {
		return msg
	}
	msg.MetaSetImmut(OriginalMetadata, originalBytes(raw))
	return msg
}

// Original returns the bytes of the event as it arrived: those kept by
// KeepOriginal, else the message's present bytes.
func Original(msg *service.Message) ([]byte, error) {
	if kept, ok := msg.MetaGetImmut(OriginalMetadata); ok {
		switch raw := kept.(type) {
		case originalBytes:
			return raw, nil
		case []byte:
			return raw, nil
		case string:
			return []byte(raw), nil
		}
	}
	return msg.AsBytes()
}
