package validateevent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/trackingplan/schemasuite"
)

// optionalFailures is the number of optional cases that fail, by file. Encoded content
// is not checked, patterns are RE2 and not ECMA 262, and the formats are as strict as
// in the library.
var optionalFailures = map[string]map[string]int{
	"draft7": {
		"optional/content.json":                 4,
		"optional/ecmascript-regex.json":        14,
		"optional/format/ecmascript-regex.json": 9,
		"optional/format/hostname.json":         24,
		"optional/format/idn-email.json":        2,
		"optional/format/idn-hostname.json":     54,
		"optional/format/ipv4.json":             1,
		"optional/format/iri.json":              1,
		"optional/format/uri-reference.json":    4,
		"optional/format/uri-template.json":     11,
		"optional/format/uri.json":              10,
	},
	"draft2020-12": {
		"optional/ecmascript-regex.json":        14,
		"optional/format-assertion.json":        1,
		"optional/format/duration.json":         2,
		"optional/format/ecmascript-regex.json": 9,
		"optional/format/hostname.json":         24,
		"optional/format/idn-email.json":        2,
		"optional/format/idn-hostname.json":     54,
		"optional/format/ipv4.json":             1,
		"optional/format/iri.json":              1,
		"optional/format/uri-reference.json":    4,
		"optional/format/uri-template.json":     11,
		"optional/format/uri.json":              10,
	},
}

// TestJSONSchemaTestSuite sends every case of the official suite through the processor,
// as the properties of an event.
func TestJSONSchemaTestSuite(t *testing.T) {
	for _, draft := range []schemasuite.Draft{schemasuite.Draft7, schemasuite.Draft2020} {
		t.Run(draft.Folder, func(t *testing.T) {
			dir := schemasuite.PlanFolder(t)
			var required, optional int
			var failed []string
			for _, g := range schemasuite.Groups(t, draft) {
				wrong := runGroup(t, schemasuite.WritePlan(t, dir, draft, &g), &g)
				if !g.Optional() {
					required += len(g.Tests)
					require.Empty(t, wrong)
					continue
				}
				optional += len(g.Tests)
				failed = append(failed, wrong...)
			}
			t.Logf("%d required cases pass; %d of %d optional cases do not", required, len(failed), optional)
			byFile := map[string]int{}
			for _, name := range failed {
				file, _, _ := strings.Cut(name, ": ")
				byFile[file]++
				t.Log(name)
			}
			require.Equal(t, optionalFailures[draft.Folder], byFile)
		})
	}
}

// runGroup returns the tests of a group with an unexpected result.
func runGroup(t *testing.T, plan string, g *schemasuite.Group) []string {
	name := func(test string) string { return g.File + ": " + g.Description + ": " + test }
	var wrong []string
	conf, err := spec().ParseYAML(fmt.Sprintf("plan: %s\nreload_interval: 0s", plan), nil)
	require.NoError(t, err)
	p, err := newProcessor(conf, service.MockResources())
	if err != nil {
		for _, test := range g.Tests {
			wrong = append(wrong, name(test.Description)+" (the schema is refused)")
		}
		return wrong
	}
	batch := make(service.MessageBatch, len(g.Tests))
	for i := range g.Tests {
		batch[i] = service.NewMessage(g.Tests[i].Event())
	}
	out, err := p.ProcessBatch(t.Context(), batch)
	require.NoError(t, err)
	require.Len(t, out, 1)
	for i, msg := range out[0] {
		if test := &g.Tests[i]; (msg.GetError() == nil) != test.Valid {
			wrong = append(wrong, name(test.Description))
		}
	}
	return wrong
}
