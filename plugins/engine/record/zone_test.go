package record

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// TestZone shows that a zone that cannot be used is missing, so that the zone of
// messages applies. It is not UTC, which would send at night.
func TestZone(t *testing.T) {
	text := func(s string) event.Value { return event.Value{Kind: event.String, Text: []byte(s)} }
	for _, test := range []struct {
		value event.Value
		want  string // empty for a missing zone
	}{
		{text("Europe/Berlin"), "Europe/Berlin"},
		{text(" Europe/Berlin\n"), "Europe/Berlin"},
		{text("UTC"), "UTC"},
		{text(""), ""},
		{text(" \t"), ""},
		{text("Local"), ""},
		{text("Europe/Nowhere"), ""},
		{text("../etc/passwd"), ""},
		{event.Value{Kind: event.Number, Number: 1}, ""},
		{event.Value{Kind: event.JSON, Text: []byte(`{}`)}, ""},
		{event.Value{}, ""},
	} {
		var r Record
		r.Reset(&Definition{Features: &features.Definition{}})
		_, err := r.SetTrait([]byte(zoneTrait), test.value, Statement{Time: 1})
		require.NoError(t, err)
		zone, err := r.zone()
		require.NoError(t, err)
		if test.want == "" {
			require.Nil(t, zone, "%+v", test.value)
		} else {
			require.Equal(t, test.want, zone.String())
		}
	}
}
