package syntheticshop

import (
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

func TestLint(t *testing.T) {
	linter := service.GlobalEnvironment().NewComponentConfigLinter()
	for _, c := range []struct{ yaml, want string }{
		{"{}", ""},
		{"start: 2026-01-01T00:00:00Z", ""},
		{`start: "2026-01-01T00:00:00.5+01:00"`, ""},
		{`start: ""`, ""},
		{"start: 2026-01-01", "RFC 3339"},
		{"start: now", "RFC 3339"},
		{"{rate: 2.5, invalid: 0, late: 1}", ""},
		{"rate: -1", "events per second"},
		{"count: -1", "no end"},
		{"customers: 0", "from 1 to"},
		{"daily_events: 0", "more than 0"},
		{"invalid: 2", "from 0 to 1"},
		{"late: -0.5", "from 0 to 1"},
		{"duplicated: 1.01", "from 0 to 1"},
		{"{invalid: 0.6, duplicated: 0.6}", "must not be more than 1"},
		{"batch_size: 0", "from 1 to"},
		{"speed: 3", "speed"},
	} {
		lints, err := linter.LintInputYAML([]byte("synthetic_shop: " + inline(c.yaml)))
		require.NoError(t, err, c.yaml)
		if c.want == "" {
			require.Empty(t, lints, c.yaml)
			continue
		}
		require.Len(t, lints, 1, c.yaml)
		require.Contains(t, lints[0].Error(), c.want)
	}
}

func inline(yaml string) string {
	if yaml[0] == '{' {
		return yaml
	}
	return "{" + yaml + "}"
}
