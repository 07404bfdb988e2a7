package enrich

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/deadletter"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// statement is the source of an identify event about the customer of an event.
type statement struct {
	msg   int
	found found
}

// placeholders recognises the ids that programs send when they have none.
var placeholders = func() *record.Identity {
	ids := &record.Identity{Ignored: map[string]bool{}}
	for _, id := range record.DefaultIgnored {
		ids.Ignored[id] = true
	}
	return ids
}()

// addTraits adds an identify event for every customer with a statement, after the
// customer's latest event in the batch.
func (p *processor) addTraits(w *work, batch service.MessageBatch, statements []statement) service.MessageBatch {
	type latest struct {
		statement
		time int64
	}
	byCustomer := map[string]latest{}
	for _, s := range statements {
		e := parse(w, batch[s.msg])
		if e == nil {
			continue
		}
		kind, id := customer(e)
		if kind == "" {
			continue
		}
		customerKey := kind + string(id)
		if l, ok := byCustomer[customerKey]; !ok || e.Time >= l.time {
			byCustomer[customerKey] = latest{s, e.Time}
		}
	}
	var order []statement
	for _, l := range byCustomer {
		order = append(order, l.statement)
	}
	slices.SortFunc(order, func(a, b statement) int { return a.msg - b.msg })

	out := make(service.MessageBatch, 0, len(batch)+len(order))
	for i, msg := range batch {
		out = append(out, msg)
		if len(order) > 0 && order[0].msg == i {
			if identify := p.identify(w, msg, order[0].found); identify != nil {
				out = append(out, identify)
			}
			order = order[1:]
		}
	}
	return out
}

func parse(w *work, msg *service.Message) *event.Event {
	raw, err := msg.AsBytes()
	if err != nil {
		return nil
	}
	e, err := w.parser.Parse(raw)
	if err != nil {
		return nil
	}
	return e
}

// customer returns the one id that identifies the customer of an event. An identify
// event with both ids would merge the anonymous customer into the known one.
func customer(e *event.Event) (field string, id []byte) {
	switch {
	case placeholders.Valid(e.UserID):
		return "userId", e.UserID
	case placeholders.Valid(e.AnonymousID):
		return "anonymousId", e.AnonymousID
	}
	return "", nil
}

// identify returns the identify event for an event, or nil if there are no traits.
func (p *processor) identify(w *work, msg *service.Message, f found) *service.Message {
	traits := p.traitsOf(f)
	if len(traits) == 0 {
		return nil
	}
	e := parse(w, msg)
	if e == nil {
		return nil
	}
	field, id := customer(e)
	stated := map[string]any{
		"type":      event.TypeIdentify,
		"messageId": p.identifyID(e.MessageID),
		field:       string(id),
		"timestamp": string(event.AppendTime(nil, e.Time)),
		"source":    p.name,
		"traits":    traits,
	}
	if e.HasReceivedAt {
		stated["receivedAt"] = string(event.AppendTime(nil, e.ReceivedAt))
	}
	raw, err := encode(stated)
	if err != nil {
		return nil
	}
	identify := msg.Copy()
	identify.MetaDelete(deadletter.OriginalMetadata)
	identify.SetBytes(raw)
	return identify
}

// maxMessageID is the usual maximum length of a messageId in tracking plans.
const maxMessageID = 256

// identifyID returns the messageId of the identify event for an event. It is the
// same for every replay of the event.
func (p *processor) identifyID(event []byte) string {
	suffix := ":" + pluginName + ":" + p.name
	if len(event)+len(suffix) > maxMessageID {
		sum := sha256.Sum256(event)
		return hex.EncodeToString(sum[:]) + suffix
	}
	return string(event) + suffix
}

func (p *processor) traitsOf(f found) map[string]json.RawMessage {
	traits := map[string]json.RawMessage{}
	if f.value != nil {
		raw := f.value
		if p.traitsMapping != nil {
			value, err := decode(f.value)
			if err != nil {
				return nil
			}
			v, ok, err := query(p.traitsMapping, map[string]any{"key": f.key, "value": value})
			if err != nil || !ok {
				raw = nil
			} else if raw, err = encode(v); err != nil {
				raw = nil
			}
		}
		// A value that is not an object has no trait names.
		_ = json.Unmarshal(raw, &traits)
		if traits == nil {
			traits = map[string]json.RawMessage{}
		}
	}
	if p.traitsStatus != "" && (f.status == statusOK || f.policy == policyMark) {
		traits[p.traitsStatus] = json.RawMessage(`"` + f.status + `"`)
	}
	return traits
}
