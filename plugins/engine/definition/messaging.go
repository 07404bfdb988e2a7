package definition

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
)

// Messaging is the triggers of a definition and the queries that decide about
// their messages.
type Messaging struct {
	*triggers.Set
	Consent []*Query // by channel
	When    []*Query // by rule, nil for none
	Data    []*Query // by rule, nil for none

	// Features and ReadsSegments are the facts that any of the queries reads.
	Features      []int
	ReadsSegments bool
	// Causes has a hash of each rule's cause. A rule with another cause is a new
	// trigger.
	Causes []string
	// Schedule is a hash of everything that determines when triggers are due.
	Schedule uint64
}

// NewMessaging returns the messaging of a set of triggers. consent has a query
// for each channel, when and data one for each rule.
func NewMessaging(set *triggers.Set, consent, when, data []*Query, features *features.Definition) *Messaging {
	m := &Messaging{Set: set, Consent: consent, When: when, Data: data}
	for _, q := range slices.Concat(consent, when, data) {
		if q != nil {
			m.Features = append(m.Features, q.Features...)
			m.ReadsSegments = m.ReadsSegments || q.ReadsSegments
		}
	}
	slices.Sort(m.Features)
	m.Features = slices.Compact(m.Features)
	for i := range set.Rules {
		m.Causes = append(m.Causes, causeHash(&set.Rules[i], features))
	}
	m.Schedule = m.scheduleHash()
	return m
}

// causeHash identifies the cause of a rule and the events that cancel it.
func causeHash(r *triggers.Rule, features *features.Definition) string {
	on := r.On
	if on.Kind == triggers.Events {
		on.Series = 0
	}
	text := fmt.Sprint(on, r.After, r.Anonymous)
	if r.On.Kind == triggers.Events {
		text += fmt.Sprint(" of ", features.Series[r.On.Series].Fingerprint)
	}
	for _, i := range r.Unless {
		text += fmt.Sprint(" unless ", features.Series[i].Fingerprint)
	}
	return fmt.Sprintf("%016x", xxhash.Sum64String(text))
}

func (m *Messaging) scheduleHash() uint64 {
	hash := xxhash.New()
	for i := range m.Rules {
		r := &m.Rules[i]
		_, _ = fmt.Fprintln(hash, r.Name, m.Causes[i], r.Expire, r.Urgent, m.Channels[r.Channel].Quiet, m.Zone)
	}
	return hash.Sum64()
}
