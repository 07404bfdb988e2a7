package plandiff

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

const planText = `
name: shop
version: 1.2.0
events:
  Order Completed:
    properties:
      properties:
        total: { type: number }
        products: { type: array, items: { properties: { category: { type: string } } } }
  Product Viewed:
    properties: { properties: { product_id: { type: string } } }
  page:
  identify:
    traits: { properties: { email: { type: string }, country: { type: string } } }
`

// planDiffs runs the command and returns its output and exit code.
func planDiffs(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	var out bytes.Buffer
	app := &cli.App{Writer: &out, ErrWriter: &out, ExitErrHandler: func(*cli.Context, error) {}, Commands: []*cli.Command{Command("program")}}
	err := app.Run(append([]string{"program", "plan-diff"}, args...))
	if coder, ok := err.(cli.ExitCoder); ok {
		return out.String() + coder.Error(), coder.ExitCode()
	}
	require.NoError(t, err)
	return out.String(), 0
}

func TestPlanDiff(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"old.yaml":       planText,
		"new.yaml":       strings.NewReplacer("1.2.0", "2.0.0", "total: { type: number }", "amount: { type: number }", "Product Viewed", "Product Seen").Replace(planText),
		"more.yaml":      strings.Replace(planText, "  page:\n", "  page:\n  screen:\n", 1),
		"broken.yaml":    "name: shop\n",
		"profile.yaml":   "features:\n  - { name: revenue, sum: { events: [Order Completed], of: properties.total } }\n",
		"untouched.yaml": "features:\n  - { name: orders, count: { events: [Order Completed] } }\n",
	} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	out, code := planDiffs(t, "old.yaml", "new.yaml")
	require.Equal(t, 1, code)
	require.Equal(t, `breaks readers  event "Order Completed": properties.total: is gone
breaks senders  event "Order Completed": properties.amount: is new, and events that had it with another value are rejected
compatible      event "Product Seen": is new
breaks readers  event "Product Viewed": is gone; is it "Product Seen" now?
From shop 1.2.0 to shop 2.0.0: 2 for readers, 1 for senders, 1 compatible.
`, out)

	out, code = planDiffs(t, "--definition", "profile.yaml", "--definition", "untouched.yaml", "old.yaml", "new.yaml")
	require.Equal(t, 1, code)
	require.Contains(t, out, `breaks readers  profile.yaml:2: feature "revenue": the tracking plan shop 2.0.0 has no properties.total of Order Completed`)
	require.NotContains(t, out, "untouched")

	out, code = planDiffs(t, "--format", "json", "old.yaml", "new.yaml")
	require.Equal(t, 1, code)
	var r report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.True(t, r.Breaking)
	require.Len(t, r.Differences, 4)
	require.Equal(t, "property_removed", r.Differences[0].Rule)

	out, code = planDiffs(t, "old.yaml", "more.yaml")
	require.Zero(t, code, "an addition breaks nothing")
	require.Contains(t, out, `compatible      event "screen": is new`)
	out, code = planDiffs(t, "--format", "json", "old.yaml", "old.yaml")
	require.Zero(t, code)
	require.JSONEq(t, `{"old":"shop 1.2.0","new":"shop 1.2.0","breaking":false,"differences":[]}`, out)

	for want, args := range map[string][]string{
		"name two":     {"old.yaml"},
		"text or json": {"--format", "xml", "old.yaml", "new.yaml"},
		"no such file": {"absent.yaml", "new.yaml"},
		"a plan needs": {"old.yaml", "broken.yaml"},
		"no YAML file": {"--definition", "absent.yaml", "old.yaml", "new.yaml"},
	} {
		out, code := planDiffs(t, args...)
		require.Equal(t, 2, code, args)
		require.Contains(t, out, want)
	}
}
