package profiledefinition

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInvalidTriggersAreRejected(t *testing.T) {
	const channels = "messages: { channels: [ { name: email, consent: 'true' } ] }\n"
	rule := func(text string) string { return channels + "triggers:\n  - " + text + "\n" }
	for _, test := range []struct{ text, want string }{
		{rule(`{ name: a, on: { events: [x] }, channel: mail }`), `3: trigger "a": there is no channel "mail"`},
		{rule(`{ name: a, on: {}, channel: email }`), "on needs a cause"},
		{rule(`{ name: a, on: { events: [x], enter: vip }, channel: email }`), "more than one"},
		{rule(`{ name: a, on: { enter: vip }, channel: email }`), `there is no segment "vip"`},
		{rule(`{ name: a, on: { leave: vip }, channel: email }`), `there is no segment "vip"`},
		{rule(`{ name: a, on: { enter: vip, leave: vip }, channel: email }`), "one of events, enter, leave and date"},
		{rule(`{ name: a, on: { leave: vip, repeat: each }, channel: email }`), "repeat applies to events only"},
		{rule(`{ name: a, on: { events: [x] }, channel: email, when: segments.vip }`), `there is no segment "vip"`},
		{"segments: [ { name: vip, when: 'true' } ]\n" + rule(`{ name: a, on: { events: [x] }, channel: email, when: segments.vip != null }`), "without null"},
		{rule(`{ name: a, on: { events: [x] }, channel: email, data: '{ "all": segments }' }`), "write what is read of segments as segments.NAME"},
		{rule(`{ name: a, on: { events: [x] }, channel: email, when: features.y > 1 }`), `there is no feature "y"`},
		{rule(`{ name: a, on: { events: [x], where: 'this.' }, channel: email }`), "expected method"},
		{rule(`{ name: a, on: { date: { trait: birthday, at: "9:00" } }, channel: email }`), "time of day"},
		{rule(`{ name: a, on: { date: { trait: birthday } }, after: 1h, channel: email }`), "takes days"},
		{rule(`{ name: a, on: { events: [x] }, channel: email, expire: soon }`), "such as 30d"},
		{rule(`{ name: a, on: { events: [x] }, channel: email, holdout: 100 }`), "holdout is a share"},
		{rule(`{ name: a, on: { events: [x] }, channel: email, limits: [ { count: 0, per: 1d } ] }`), "count must be"},
		{rule(`{ name: a b, on: { events: [x] }, channel: email }`), "letters, digits and underscores"},
		{"messages: { channels: [ { name: email, consent: '' } ] }\ntriggers: []", "consent is empty"},
		{"messages: { timezone: Berlin, channels: [] }\ntriggers: []", "timezone"},
		{"messages: { channels: [ { name: email, consent: 'true', quiet_hours: { from: \"21:00\" } } ] }\ntriggers: []", "both from and to"},
	} {
		_, err := Read(writeDefinition(t, test.text))
		require.ErrorContains(t, err, test.want, test.text)
	}
}
