package profiledefinition

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInvalidSegmentsAreRejected(t *testing.T) {
	for _, tt := range []struct{ segments, want string }{
		{`[{ name: a, when: 'features.revenu > 1' }]`, `segment "a": there is no feature "revenu"; did you mean "revenue"?`},
		{`[{ name: a, when: 'segments.wales' }, { name: whales, when: 'true' }]`, `segment "a": there is no segment "wales"; did you mean "whales"?`},
		{`[{ name: a, when: 'features.revenue > parameters.spender_revenu' }]`, `segment "a": there is no parameter "spender_revenu"; did you mean "spender_revenue"?`},
		{`[{ name: a, when: 'segments.b' }, { name: b, when: '!segments.a' }]`, `it builds on itself: a needs b needs a; break the circle`},
		{`[{ name: a, when: 'segments.a' }]`, `it builds on itself: a needs a; break the circle`},
		{`[{ name: a, when: 'true' }, { name: a, when: 'false' }]`, `segment "a": the name is already that of segment 1`},
		{`[{ name: a, when: 'features.keys().length() > 2' }]`, `there is no feature "keys"`},
		{`[{ name: a, when: 'features != null' }]`, `write what is read of features as features.NAME`},
		{`[{ name: a, when: 'now() > "2026"' }]`, `a rule cannot ask for the time`},
		{`[{ name: a, when: 'features.revenue >' }]`, `expected query`},
		{`[{ name: "a b", when: 'true' }]`, `name must be letters, digits and underscores`},
	} {
		path := writeDefinition(t, shop+"segments: "+tt.segments+"\nparameters: { spender_revenue: 1 }\n")
		lints, err := Lint(path)
		require.NoError(t, err)
		require.NotEmpty(t, lints, tt.segments)
		require.Contains(t, lints[0].Message, tt.want)
	}
	path := writeDefinition(t, shop+"segments:\n  - { name: a, when: 'true' }\n  - { name: b, when: 'features.x > 1' }\n")
	lints, err := Lint(path)
	require.NoError(t, err)
	require.Len(t, lints, 1)
	require.Equal(t, 12, lints[0].Line)

	lints, err = Lint(writeDefinition(t, shop+"parameters: { a: [1] }\n"))
	require.NoError(t, err)
	require.Contains(t, lints[0].Message, `parameter "a" must be a number, a text or a boolean`)
	lints, err = Lint(writeDefinition(t, shop+"parameters_file: ./not-there.yaml\n"))
	require.NoError(t, err)
	require.Contains(t, lints[0].Message, "parameters file")
}
