package profileapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/connect-personalize/connect-personalize/plugins/updateprofile"
)

// pipeline is a profile_api with real profiles behind it, which its writes and
// the events of other sources go to.
type pipeline struct {
	*stream
	produce service.MessageBatchHandlerFunc
}

func runPipeline(t *testing.T, definition string) *pipeline {
	return runPipelineWith(t, definition, "")
}

// runPipelineWith runs a pipeline with additional fields of profile_api.
func runPipelineWith(t *testing.T, definition, fields string) *pipeline {
	return runPipelineIn(t, service.GlobalEnvironment(), definition, fields, "none: {}")
}

func runPipelineIn(t *testing.T, env *service.Environment, definition, fields, metrics string) *pipeline {
	path := filepath.Join(t.TempDir(), "profile.yaml")
	require.NoError(t, os.WriteFile(path, []byte(definition), 0o600))
	builder := env.NewStreamBuilder()
	builder.SetSchema(env.FullConfigSchema("", ""))
	require.NoError(t, builder.SetYAML(fmt.Sprintf(`
http: { enabled: false }
profiles:
  - label: shop
    definition: %q
    store: { embedded: { path: ":memory:" } }
input:
  profile_api: { profiles: shop, address: "127.0.0.1:0", %s }
pipeline:
  processors:
    - update_profile: { profiles: shop }
output:
  reject_errored: { drop: {} }
`, path, fields)))
	require.NoError(t, builder.SetMetricsYAML(metrics))
	produce, err := builder.AddBatchProducerFunc()
	require.NoError(t, err)
	return &pipeline{start(t, builder), produce}
}

// send takes events into profiles.
func (p *pipeline) send(t *testing.T, events ...string) {
	t.Helper()
	var batch service.MessageBatch
	for _, e := range events {
		batch = append(batch, service.NewMessage([]byte(e)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, p.produce(ctx, batch))
}

func (p *pipeline) write(t *testing.T, method, id, traits string) {
	t.Helper()
	got := p.do(t, method, "/api/customer/"+id+"/traits", traits, jsonBody)
	require.Equal(t, 202, got.status, got.body)
}

// requireProfile reads a profile under each of ids.
func (p *pipeline) requireProfile(t *testing.T, kept string, traits map[string]any, orders float64, ids ...string) {
	t.Helper()
	for _, id := range ids {
		got := p.do(t, "GET", "/api/customer/"+id, "")
		require.Equal(t, 200, got.status, id)
		var profile struct {
			ID       string
			Traits   map[string]any
			Features map[string]any
		}
		require.NoError(t, json.Unmarshal([]byte(got.body), &profile))
		require.Equal(t, kept, profile.ID, id)
		require.Equal(t, traits, profile.Traits, id)
		require.Equal(t, map[string]any{"orders": orders}, profile.Features, id)
	}
}

// rfc3339 writes a time as events and queries have it.
func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func orderOf(who string, n int, at time.Time) string {
	return fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":"%s-%d",%s,"timestamp":%q}`,
		url.QueryEscape(who), n, who, rfc3339(at))
}

func signIn(user, anonymous string, at time.Time) string {
	return fmt.Sprintf(`{"type":"identify","messageId":"in-%s","userId":%q,"anonymousId":%q,"timestamp":%q}`,
		user, user, anonymous, rfc3339(at))
}

const ordersDefinition = `
events: { keep: 16 }
features:
  - name: orders
    count: { events: [Order Completed] }
`

// A write by any id reaches the customer that a read of the id finds, and merges no
// customers.
func TestWritesReachTheCustomerThatReadsFind(t *testing.T) {
	p := runPipeline(t, ordersDefinition)
	earlier := time.Now().Add(-time.Hour)
	p.send(t, orderOf(`"anonymousId":"a1"`, 1, earlier), orderOf(`"anonymousId":"a2"`, 1, earlier), signIn("u2", "a2", earlier))

	for _, id := range []string{"new", "a1", "a2"} {
		p.write(t, "PATCH", id, `{"plan":"gold"}`)
	}
	gold := map[string]any{"plan": "gold"}
	p.requireProfile(t, "new", gold, 0, "new")
	p.requireProfile(t, "a1", gold, 1, "a1")
	p.requireProfile(t, "u2", gold, 1, "a2", "u2")

	for _, id := range []string{"new", "a1", "a2"} {
		p.write(t, "PUT", id, `{"tier":2}`)
	}
	tier := map[string]any{"tier": 2.0}
	p.requireProfile(t, "new", tier, 0, "new")
	p.requireProfile(t, "u2", tier, 1, "a2", "u2")

	// The anonymous customer is still one, and takes the traits along.
	p.send(t, signIn("u1", "a1", time.Now()))
	p.requireProfile(t, "u1", tier, 1, "a1", "u1")
	p.write(t, "PATCH", "a1", `{"plan":"gold"}`)
	p.requireProfile(t, "u1", map[string]any{"tier": 2.0, "plan": "gold"}, 1, "a1", "u1")
}

func TestAsOfBeforeTheEarliestTimeIsRefused(t *testing.T) {
	p := runPipeline(t, ordersDefinition)
	now := time.Now()
	var events []string
	for n := range 40 {
		events = append(events,
			orderOf(`"userId":"heavy"`, n, now.Add(time.Duration(n-40)*time.Hour)),
			orderOf(`"userId":"fast"`, n, now.Add(time.Duration(n+15)*time.Minute)))
	}
	p.send(t, append(events, orderOf(`"userId":"light"`, 1, now.Add(-time.Hour)))...)
	p.requireProfile(t, "heavy", map[string]any{}, 40, "heavy")

	at := func(t time.Time) string { return "?as_of=" + rfc3339(t) }
	require.Equal(t, 200, p.do(t, "GET", "/api/customer/heavy"+at(now), "").status)
	early := at(now.Add(-39 * time.Hour))
	got := p.do(t, "GET", "/api/customer/heavy"+early, "")
	require.Equal(t, 400, got.status)
	require.Equal(t, "as_of_too_early", got.code(t))

	got = p.do(t, "POST", "/api/customers/batch"+early, `{"ids":["heavy","light"]}`, jsonBody)
	require.Equal(t, 200, got.status)
	var reply struct {
		Customers []struct {
			Profile *struct{ Features map[string]any }
			Error   *struct{ Code string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(got.body), &reply))
	require.Equal(t, "as_of_too_early", reply.Customers[0].Error.Code)
	require.Equal(t, 0.0, reply.Customers[1].Profile.Features["orders"])

	// Now is never too early, even for a device with a fast clock.
	require.Equal(t, 200, p.do(t, "GET", "/api/customer/fast", "").status)
	require.Equal(t, 400, p.do(t, "GET", "/api/customer/fast"+at(now), "").status)
}
