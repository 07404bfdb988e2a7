package shop

import (
	"bytes"
	"unicode/utf8"
)

// Fault names what is wrong with an event.
type Fault string

// A late or a duplicated event is valid in itself.
const (
	None Fault = ""
	// Late events arrive after events that happened later.
	Late Fault = "late"
	// Duplicate events are the same, to the byte, as one that was there
	// shortly before.
	Duplicate Fault = "duplicate"
)

// UnknownEvent events have a name that nobody planned. Whether that is allowed
// is for a tracking plan to say; in every other way they are valid.
const UnknownEvent Fault = "unknown_event"

// The others are what a tracking plan, or the first look at the bytes, must
// reject.
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

// Invalid tells whether events with the fault must be rejected.
func (f Fault) Invalid() bool {
	return f != None && f != Late && f != Duplicate && f != UnknownEvent
}

// Ways to spoil an event. A function returns nil if the event has not got
// what it spoils.
var spoilers = []struct {
	fault Fault
	spoil func(event []byte, r *random) []byte
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
		// What is asked for, by kind of event. Of a pair either would do.
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
			if at := bytes.Index(event, []byte(name)); at >= 0 {
				return append(bytes.Clone(event[:at+len(name)]), wrong...)
			}
		}
		return nil
	}},
	{TextForNumber, func(event []byte, _ *random) []byte {
		for _, name := range []string{`"total":`, `"price":`} {
			if at := bytes.Index(event, []byte(name)); at >= 0 {
				at += len(name)
				end := at + bytes.IndexByte(event[at:], ',')
				out := append(bytes.Clone(event[:at]), '"')
				out = append(append(out, event[at:end]...), '"')
				return append(out, event[end:]...)
			}
		}
		return nil
	}},
	{NegativeTotal, func(event []byte, _ *random) []byte {
		return replace(event, `"total":`, `"total":-`)
	}},
}

// spoil breaks a valid event in one way or another.
func spoil(event []byte, r *random) ([]byte, Fault) {
	for {
		s := spoilers[r.below(len(spoilers))]
		if spoiled := s.spoil(event, r); spoiled != nil {
			return spoiled, s.fault
		}
	}
}

// replace gives the event with the first old made new, nil if it has none.
func replace(event []byte, old, new string) []byte {
	at := bytes.Index(event, []byte(old))
	if at < 0 {
		return nil
	}
	out := append(bytes.Clone(event[:at]), new...)
	return append(out, event[at+len(old):]...)
}

// without cuts the first string member of this name, nil if there is none.
func without(event []byte, name string) []byte {
	at := bytes.Index(event, []byte(`"`+name+`":"`))
	if at < 0 {
		return nil
	}
	end := at + len(name) + len(`"":"`)
	end += bytes.IndexByte(event[end:], '"') + 1
	out := bytes.Clone(event[:at])
	if event[end] == ',' {
		end++
	} else {
		out = bytes.TrimSuffix(out, []byte(","))
	}
	return append(out, event[end:]...)
}
