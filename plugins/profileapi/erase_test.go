package profileapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"context"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

const erasable = `
features:
  - { name: orders, count: { events: [Order Completed] } }
  - { name: last, last: { events: [Order Completed], of: properties.category } }
`

func orderEvent(id, who string, at time.Time) string {
	return fmt.Sprintf(`{"type":"track","event":"Order Completed","messageId":%q,%s,"timestamp":%q,"receivedAt":%q,"properties":{"category":"hats-%s"}}`,
		id, who, at.Format(time.RFC3339Nano), at.Format(time.RFC3339Nano), id)
}

func identified(id, user, anonymous string, at time.Time, traits string) string {
	return fmt.Sprintf(`{"type":"identify","messageId":%q,"userId":%q,"anonymousId":%q,"timestamp":%q,"receivedAt":%q,"source":"web","traits":%s}`,
		id, user, anonymous, at.Format(time.RFC3339Nano), at.Format(time.RFC3339Nano), traits)
}

// TestEraseOverHTTP drives an erasure from end to end: export, erase, refuse,
// erase again, readmit.
func TestEraseOverHTTP(t *testing.T) {
	p := runPipeline(t, erasable)
	before := time.Now().Add(-time.Hour)
	history := []string{
		orderEvent("m1", `"anonymousId":"a1"`, before),
		identified("m2", "u1", "a1", before, `{"email":"jo@example.com"}`),
		orderEvent("m3", `"userId":"u1"`, before),
	}
	p.send(t, history...)

	got := p.do(t, "GET", "/api/customer/a1/export", "")
	require.Equal(t, 200, got.status)
	export := jsonOf(t, got.body)
	require.Equal(t, "u1", export["id"])
	require.Equal(t, []any{map[string]any{"kind": "anonymousId", "id": "a1"}}, export["merged"])
	require.Len(t, export["events"], 3)
	require.Contains(t, got.body, `"hats-m1"`)
	require.Contains(t, got.body, `"name":"email","value":"jo@example.com"`)
	require.Equal(t, 404, p.do(t, "GET", "/api/customer/nobody/export", "").status)

	erased := func(path, id string) {
		t.Helper()
		got := p.do(t, "DELETE", path, "", "Idempotency-Key: e-"+id)
		require.Equal(t, 200, got.status, got.body)
		require.JSONEq(t, fmt.Sprintf(`{"id":%q,"message_id":"e-%s","erased":true}`, id, id), got.body)
	}
	gone := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			for _, suffix := range []string{"", "/export"} {
				require.Equal(t, 404, p.do(t, "GET", "/api/customer/"+id+suffix, "").status)
			}
			got := p.do(t, "PATCH", "/api/customer/"+id+"/traits", `{"plan":"gold"}`, jsonBody)
			require.Equal(t, 409, got.status)
			require.Equal(t, "erased", got.code(t))
		}
	}
	require.Equal(t, 404, p.do(t, "DELETE", "/api/customer/u1/erasure", "").status, "who was not erased")
	erased("/api/customer/a1", "a1")
	gone("u1", "a1")
	erased("/api/customer/u1", "u1")
	p.send(t, history...)
	p.send(t, orderEvent("m4", `"userId":"u1"`, time.Now()), orderEvent("m5", `"anonymousId":"a1"`, time.Now()))
	gone("u1", "a1")
	erased("/api/customer/stranger", "stranger")
	p.send(t, orderEvent("m6", `"userId":"stranger"`, time.Now()))
	gone("stranger")

	got = p.do(t, "DELETE", "/api/customer/u1/erasure", "")
	require.Equal(t, 200, got.status, got.body)
	require.Contains(t, got.body, `"erased":false`)
	p.send(t, history...)
	p.write(t, "PATCH", "u1", `{"plan":"gold"}`)
	got = p.do(t, "GET", "/api/customer/u1", "")
	require.Equal(t, 200, got.status)
	require.Equal(t, map[string]any{"plan": "gold"}, jsonOf(t, got.body)["traits"])
	require.Equal(t, map[string]any{"orders": 0.0, "last": nil}, jsonOf(t, got.body)["features"])
	gone("a1")
	require.NotContains(t, p.log.String(), "jo@example.com")
}

// TestErasureIsConfirmed: a pipeline that acknowledges without erasing is not
// believed, and the event that it was given audits without the id.
func TestErasureIsConfirmed(t *testing.T) {
	var mu sync.Mutex
	var taken string
	s := run(t, withProfiles("c1-marker"), "  audit_key: key\n  timeouts: { request: 2s }\n  tokens: [ { name: dpo, sha256: "+hashOf("e")+", scopes: [ erase ] } ]\n",
		func(_ context.Context, m *service.Message) error {
			data, err := m.AsBytes()
			mu.Lock()
			defer mu.Unlock()
			taken = string(data)
			return err
		})
	got := s.do(t, "DELETE", "/api/customer/c1-marker", "", bearer("e"))
	require.Equal(t, 503, got.status)
	require.Equal(t, "not_confirmed", got.code(t))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, "erase", jsonOf(t, taken)["type"])
	require.Equal(t, "c1-marker", jsonOf(t, taken)["userId"])
	require.Equal(t, map[string]any{"erasure": map[string]any{"by": "dpo", "subject": auditSubject("key", "c1-marker")}}, jsonOf(t, taken)["context"])
	require.NotContains(t, s.log.String(), "c1-marker")
}

func TestAuditSubject(t *testing.T) {
	sum := sha256.Sum256([]byte("42"))
	require.Equal(t, "sha256:"+hex.EncodeToString(sum[:]), auditSubject("", "42"))
	require.True(t, strings.HasPrefix(auditSubject("k", "42"), "hmac-sha256:"))
	require.NotEqual(t, auditSubject("k", "42"), auditSubject("l", "42"))
}
