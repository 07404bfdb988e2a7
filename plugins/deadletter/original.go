package deadletter

import (
	"bytes"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// OriginalMetadata is the metadata key under which a message carries the event
// as it arrived. Metadata is used because a value that a processor adds to the
// context of a message is lost: Connect restores the previous context after each
// processor. The mapping `meta original_event = content()` has the same effect as
// KeepOriginal.
const OriginalMetadata = "original_event"

// originalBytes is immutable, so that copies of a message can share it.
type originalBytes []byte

// Copy returns a copy that the caller may modify.
func (o originalBytes) Copy() any { return bytes.Clone(o) }

// KeepOriginal stores the current bytes of a message as its original event, unless
// it already has one, and returns the message. Call it before the first change of
// an event, so that a later rejection can still show the event as it arrived.
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

// Original returns the bytes stored by KeepOriginal, or the current bytes of the
// message if there are none.
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
