package cli

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const definition = `features:
  - name: orders
    count: { events: [Order Completed] }
`

const pipeline = `http: { enabled: false }
input: { stdin: {} }
pipeline:
  processors:
    - update_profile: { profiles: shop }
output: { stdout: {} }
profiles:
  - label: shop
    definition: profile.yaml
    store: { embedded: { path: data } }
`

func TestLint(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  []string // parts of standard error; none for success
	}{
		{
			name:  "a pipeline and its definition",
			files: map[string]string{"pipeline.yaml": pipeline, "profile.yaml": definition},
		},
		{
			name:  "an unknown component",
			files: map[string]string{"pipeline.yaml": "input:\n  stdn: {}\noutput: { drop: {} }\n"},
			want:  []string{"pipeline.yaml(2,1) unable to infer input type from candidates: [stdn]"},
		},
		{
			name:  "an unknown field",
			files: map[string]string{"pipeline.yaml": "input:\n  generate:\n    mapping: root = {}\n    cuont: 3\noutput: { drop: {} }\n"},
			want:  []string{"pipeline.yaml(4,1) field cuont not recognised"},
		},
		{
			name:  "broken Bloblang",
			files: map[string]string{"pipeline.yaml": "pipeline:\n  processors:\n    - mapping: root = this.\n"},
			want:  []string{"pipeline.yaml(3,"},
		},
		{
			name:  "broken YAML",
			files: map[string]string{"pipeline.yaml": "input: [\n"},
			want:  []string{"pipeline.yaml(1,", "close each [ and {"},
		},
		{
			name:  "a file that is not there",
			files: map[string]string{},
			want:  []string{"missing.yaml(1,", "no such file"},
		},
		{
			name: "a definition with an unknown kind of feature",
			files: map[string]string{"profile.yaml": `features:
  - name: orders
    count: { events: [Order Completed] }
  - name: revenue
    summ: { of: properties.total }
`},
			want: []string{"profile.yaml(5,1) field summ not recognised"},
		},
		{
			name: "a definition with a window that is none",
			files: map[string]string{"profile.yaml": `features:
  - name: orders_30d
    count:
      window: a month
`},
			want: []string{"profile.yaml(4,", "window must be a whole number and a unit (s, m, h, d or w), such as 30d"},
		},
		{
			name: "a definition with a condition that is not Bloblang",
			files: map[string]string{"profile.yaml": `features:
  - name: orders
    count: { where: this.properties. }
`},
			want: []string{"profile.yaml(3,"},
		},
		{
			name:  "a pipeline with an invalid definition",
			files: map[string]string{"pipeline.yaml": pipeline, "profile.yaml": "features:\n  - name: 2nd order\n    count: {}\n"},
			want:  []string{"profile.yaml(2,", "pipeline.yaml(9,", "profile.yaml:2: name must be letters, digits and underscores"},
		},
		{
			name:  "a pipeline with a missing definition",
			files: map[string]string{"pipeline.yaml": pipeline},
			want:  []string{"pipeline.yaml(9,", "profile.yaml: no such file"},
		},
		{
			name: "a store of no kind",
			files: map[string]string{"profile.yaml": definition, "pipeline.yaml": `profiles:
  - label: shop
    definition: profile.yaml
    store: {}
`},
			want: []string{"pipeline.yaml(4,", "store needs exactly one kind: write embedded with a path"},
		},
		{
			name: "a profile resource without a definition",
			files: map[string]string{"pipeline.yaml": `profiles:
  - label: shop
    store: { embedded: { path: data } }
`},
			want: []string{"field 'definition' is required"},
		},
		{
			name: "a tracking plan and a schema file of it",
			files: map[string]string{
				"plan.yaml":  "name: shop\nversion: 1.0.0\nevents:\n  Order Completed:\n    properties: { $ref: order.json }\n",
				"order.json": `{ "type": "object", "required": ["total"] }`,
			},
		},
		{
			name: "a tracking plan with an unknown type",
			files: map[string]string{"plan.yaml": `name: shop
version: 1.0.0
events:
  Order Completed:
    properties:
      type: object
      properties:
        total: { type: numbr }
`},
			want: []string{"plan.yaml(8,1) "},
		},
		{
			name:  "a tracking plan with an unknown key",
			files: map[string]string{"plan.yaml": "name: shop\nversion: 1.0.0\nevnts: {}\nevents:\n  Order Completed: {}\n"},
			want:  []string{"plan.yaml(3,1) ", `did you mean "events"?`},
		},
		{
			name: "a mistake in a schema file of a tracking plan",
			files: map[string]string{
				"plan.yaml":  "name: shop\nversion: 1.0.0\nevents:\n  Order Completed:\n    properties: { $ref: order.json }\n",
				"order.json": "{\n  \"type\": \"object\",\n  \"required\": \"total\"\n}\n",
			},
			want: []string{"order.json(3,1) "},
		},
		{
			name:  "a JSON Schema",
			files: map[string]string{"order.yaml": "$schema: https://json-schema.org/draft/2020-12/schema\ntype: object\n"},
		},
		{
			name:  "a broken JSON Schema",
			files: map[string]string{"order.yaml": "$schema: https://json-schema.org/draft/2020-12/schema\ntype: objekt\n"},
			want:  []string{"order.yaml(1,1) not a valid JSON Schema"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := folder(t, test.files)
			targets := []string{"./..."}
			if len(test.files) == 0 {
				targets = []string{"missing.yaml"}
			}
			got := run(t, dir, append([]string{"lint"}, targets...)...)
			if len(test.want) == 0 {
				require.Zero(t, got.code, got.stderr)
				require.Empty(t, got.stderr)
				return
			}
			require.Equal(t, 1, got.code, "the exit code reports errors")
			for _, want := range test.want {
				require.Contains(t, got.stderr, want)
			}
		})
	}
}

func TestLintReportsEveryFile(t *testing.T) {
	dir := folder(t, map[string]string{
		"good.yaml":        "input: { stdin: {} }\noutput: { stdout: {} }\n",
		"bad.yaml":         "inputt: {}\n",
		"sub/profile.yaml": definition,
	})
	got := run(t, dir, "lint", "--verbose", "./...")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stdout, "good.yaml: OK\n")
	require.Contains(t, got.stdout, "bad.yaml: FAILED\n")
	require.Contains(t, got.stdout, "sub/profile.yaml: OK\n")
	require.Equal(t, "bad.yaml(1,1) field inputt not recognised\nbad.yaml(1,1) field inputt not recognised; did you mean \"input\"?\n", got.stderr)
}

func TestTest(t *testing.T) {
	const tests = `
tests:
  - name: an order counts
    input_batch:
      - json_content: { type: track, event: Order Completed, messageId: m1, userId: u1, timestamp: "2026-01-01T00:00:00Z" }
    output_batches:
      - - json_equals: { type: track, event: Order Completed, messageId: m1, userId: u1, timestamp: "2026-01-01T00:00:00Z" }
`
	dir := folder(t, map[string]string{
		"configs/pipeline.yaml": pipeline + tests,
		"profile.yaml":          definition,
		"configs/profile.yaml":  definition,
		"configs/schema.yaml":   "$schema: https://json-schema.org/draft/2020-12/schema\ntype: object\n",
	})
	got := run(t, dir, "test", "configs/...")
	require.Zero(t, got.code, got.stdout+got.stderr)
	require.Equal(t, "Test 'configs/pipeline.yaml' succeeded\n", got.stdout)
	require.NoDirExists(t, dir+"/data", "a unit test keeps profiles in memory")

	failing := folder(t, map[string]string{
		"pipeline.yaml": "pipeline: { processors: [ mapping: root = this.n + 1 ] }\ntests:\n  - name: adds two\n    input_batch: [ { content: '{\"n\":1}' } ]\n    output_batches: [ [ { content_equals: 3 } ] ]\n",
	})
	got = run(t, failing, "test", "pipeline.yaml")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stdout, "adds two [line 3]:")
}

func TestConfigsInTheDocumentsLintClean(t *testing.T) {
	got := run(t, root, "lint", "README.md", "docs/operations.md")
	require.Zero(t, got.code, got.stderr)
}
