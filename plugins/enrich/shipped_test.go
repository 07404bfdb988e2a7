package enrich_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// TestShippedPipeline runs the processors of configs/retail/enrich.yaml with all of
// them enabled, against a CRM and a MaxMind file.
func TestShippedPipeline(t *testing.T) {
	crm := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var request struct{ IDs []string }
		if r.Header.Get("Authorization") != "Bearer secret" || json.NewDecoder(r.Body).Decode(&request) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"customers":[{"id":"u1","tier":"gold","home_store":"Bonn","secret":"x"}]}`))
	})
	addresses := filepath.Join(t.TempDir(), "city.mmdb")
	mmdb(t, addresses, map[string]string{"203.0.113.0/24": "DE"})
	for name, value := range map[string]string{
		"CRM_ENABLED": "true", "CRM_URL": crm, "CRM_TOKEN": "secret", "GEOIP_ENABLED": "true", "GEOIP_MMDB": addresses,
		"PRODUCTS_CSV": "../../configs/retail/products.csv", "PIPELINE_THREADS": "1",
	} {
		t.Setenv(name, value)
	}
	raw, err := os.ReadFile("../../configs/retail/enrich.yaml")
	require.NoError(t, err)
	var doc map[string]yaml.Node
	require.NoError(t, yaml.Unmarshal(raw, &doc))
	pipeline := doc["pipeline"]
	section, err := yaml.Marshal(map[string]any{"pipeline": &pipeline})
	require.NoError(t, err)

	event := `{"type":"track","event":"Product Viewed","messageId":"m1","userId":"u1","anonymousId":"a1","timestamp":"2026-01-02T03:04:05.000Z","context":{"ip":"203.0.113.7"},"properties":{"product_id":"p-0002"}}`
	out := texts(t, start(t, string(section)).run(event))
	require.Equal(t, []string{
		`{"type":"track","event":"Product Viewed","messageId":"m1","userId":"u1","anonymousId":"a1","timestamp":"2026-01-02T03:04:05.000Z","context":{"ip":"203.0.113.7","enrichment":{"product":{"category":"Coffee & Tea","margin":0.42},"geo":{"country":"DE"}}},"properties":{"product_id":"p-0002"}}`,
		`{"messageId":"m1:enrich:crm","source":"crm","timestamp":"2026-01-02T03:04:05.000Z","traits":{"crm_status":"ok","home_store":"Bonn","loyalty_tier":"gold"},"type":"identify","userId":"u1"}`,
	}, out)
}
