package trackingplan

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan/schemasuite"
)

// TestEvaluatorAgreesWithLibraryOnTheOfficialSuite compares our evaluator with the library on every case of the
// official suite: if ours says valid, the library must; and if ours supports all
// keywords of a schema, it must say valid whenever the library does.
func TestEvaluatorAgreesWithLibraryOnTheOfficialSuite(t *testing.T) {
	for _, draft := range []schemasuite.Draft{schemasuite.Draft7, schemasuite.Draft2020} {
		t.Run(draft.Folder, func(t *testing.T) {
			dir := schemasuite.PlanFolder(t)
			cases, fast := 0, 0
			for _, g := range schemasuite.Groups(t, draft) {
				plan, err := Load(schemasuite.WritePlan(t, dir, draft, &g))
				if err != nil {
					t.Logf("%s: %s: does not load: %s", g.File, g.Description, err)
					require.True(t, g.Optional())
					continue
				}
				for _, test := range g.Tests {
					cases++
					if plan.events["Case"].checks[0].schema.fast != nil {
						fast++
					}
					requireAgreement(t, plan, test.Event())
				}
			}
			t.Logf("%d cases, %d of them by our evaluator", cases, fast)
		})
	}
}

// requireAgreement checks that our evaluator and the library agree about the properties
// of an event named Case.
func requireAgreement(t require.TestingT, plan *Plan, event []byte) {
	c := plan.events["Case"].checks[0]
	s := &scratch{}
	v, fault := s.reader.read(event, MaxMaxDepth)
	require.Nil(t, fault, "%s", event)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(event))
	require.NoError(t, err)
	findings := validate(value.(map[string]any), []check{c})
	if c.schema.fast == nil {
		require.False(t, s.passes([]check{c}, v))
		return
	}
	got := s.passes([]check{c}, v)
	if s.evaluator.unsure {
		require.False(t, got)
		return
	}
	schema, _ := json.Marshal(c.schema.lib.Location)
	require.Equal(t, len(findings) == 0, got, "%s\n%s", schema, event)
}
