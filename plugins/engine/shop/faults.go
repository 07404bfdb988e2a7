package shop

import (
	"bytes"
	"unicode/utf8"
)

// Fault is the label of an event with a fault.
type Fault string

// Faults that leave an event valid in itself.
const (
	None Fault = ""
	// Late events arrive after events that happened later.
	Late Fault = "late"
	// Duplicate events repeat one of the last events, to the byte.
	Duplicate Fault = "duplicate"
)

// UnknownEvent events have a name that is in no tracking plan. The plan decides
// whether to accept them; apart from the name they are valid.
const UnknownEvent Fault = "unknown_event"

// Faults that a parser or a tracking plan must reject.
const (
	BrokenJSON      Fault = "broken_json"
	NotUTF8         Fault = "not_utf8"
	NotAnObject     Fault = "not_an_object"
	NoIDs           Fault = "no_ids"
	NoType          Fault = "no_type"
	NoMessageID     Fault = "no_message_id"
	NoTimestamp     Fault = "no_timestamp"
	AbsurdTimestamp Fault = "absurd_timestamp"
	NoEventName     Fault = "no_event_name"
	MissingMember   Fault = "missing_member"
	WrongType       Fault = "wrong_type"
	TextForNumber   Fault = "text_for_number"
	NegativeTotal   Fault = "negative_total"
)

// Invalid reports whether events with the fault must be rejected.
func (f Fault) Invalid() bool {
	return f != None && f != Late && f != Duplicate && f != UnknownEvent
}

// injectors put a fault into a valid event. A function returns nil if the event
// does not have the member that it changes.
var injectors = []struct {
	fault  Fault
	inject func(event []byte, r *random) []byte
}{
	{BrokenJSON, func(event []byte, r *random) []byte {
		cut := len(event)/2 + r.below(len(event)/2)
		for !utf8.RuneStart(event[cut]) {
			cut--
		}
		return event[:cut:cut]
	}},
	{NotUTF8, func(event []byte, _ *random) []byte {
		return replace(event, `"source":"`, "\"source\":\"\xff\xfe")
	}},
	{NotAnObject, func(event []byte, _ *random) []byte {
		return append(append([]byte{'['}, event...), ']')
	}},
	{NoIDs, func(event []byte, _ *random) []byte {
		if cut := without(event, "anonymousId"); cut != nil {
			event = cut
		}
		if cut := without(event, "userId"); cut != nil {
			event = cut
		}
		return event
	}},
	{NoType, func(event []byte, _ *random) []byte { return without(event, "type") }},
	{NoMessageID, func(event []byte, _ *random) []byte { return without(event, "messageId") }},
	{NoTimestamp, func(event []byte, _ *random) []byte { return without(event, "timestamp") }},
	{AbsurdTimestamp, func(event []byte, r *random) []byte {
		absurd := []string{"2026-13-45T25:61:00.000Z", "yesterday", "0", ""}
		cut := without(event, "timestamp")
		return replace(cut, `"originalTimestamp"`, `"timestamp":"`+absurd[r.below(len(absurd))]+`","originalTimestamp"`)
	}},
	{UnknownEvent, func(event []byte, _ *random) []byte {
		return replace(event, `"event":"`, `"event":"Un`)
	}},
	{NoEventName, func(event []byte, _ *random) []byte {
		cut := without(event, "event")
		return replace(cut, `"type":"track"`, `"type":"track","event":""`)
	}},
	{MissingMember, func(event []byte, _ *random) []byte {
		// Required members, by kind of event. Of a pair one is enough.
		for _, members := range [][2]string{
			{"order_id"}, {"query"}, {"link_url"}, {"product_id", "sku"}, {"email_id", "campaign_id"},
		} {
			cut := without(event, members[0])
			if cut == nil || bytes.Contains(event, []byte(emailUnsubscribed)) {
				continue
			}
			if members[1] != "" {
				cut = without(cut, members[1])
			}
			return cut
		}
		return nil
	}},
	{WrongType, func(event []byte, r *random) []byte {
		wrong := []string{`"none"}`, `[]}`, `7}`}[r.below(3)]
		for _, name := range []string{`"properties":`, `"traits":`} {
			if i := bytes.Index(event, []byte(name)); i >= 0 {
				return append(bytes.Clone(event[:i+len(name)]), wrong...)
			}
		}
		return nil
	}},
	{TextForNumber, func(event []byte, _ *random) []byte {
		for _, name := range []string{`"total":`, `"price":`} {
			if start := bytes.Index(event, []byte(name)); start >= 0 {
				start += len(name)
				end := start + bytes.IndexByte(event[start:], ',')
				out := append(bytes.Clone(event[:start]), '"')
				out = append(append(out, event[start:end]...), '"')
				return append(out, event[end:]...)
			}
		}
		return nil
	}},
	{NegativeTotal, func(event []byte, _ *random) []byte {
		return replace(event, `"total":`, `"total":-`)
	}},
}

// injectFault puts a random fault into a valid event.
func injectFault(event []byte, r *random) ([]byte, Fault) {
	for {
		injector := injectors[r.below(len(injectors))]
		if broken := injector.inject(event, r); broken != nil {
			return broken, injector.fault
		}
	}
}

// replace returns the event with the first old replaced by new, nil without old.
func replace(event []byte, old, new string) []byte {
	i := bytes.Index(event, []byte(old))
	if i < 0 {
		return nil
	}
	out := append(bytes.Clone(event[:i]), new...)
	return append(out, event[i+len(old):]...)
}

// without returns the event without its first string member of this name, nil if
// it has none.
func without(event []byte, name string) []byte {
	start := bytes.Index(event, []byte(`"`+name+`":"`))
	if start < 0 {
		return nil
	}
	end := start + len(name) + len(`"":"`)
	end += bytes.IndexByte(event[end:], '"') + 1
	out := bytes.Clone(event[:start])
	if event[end] == ',' {
		end++
	} else {
		out = bytes.TrimSuffix(out, []byte(","))
	}
	return append(out, event[end:]...)
}
