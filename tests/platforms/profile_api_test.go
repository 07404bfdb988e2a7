package platforms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

// api is a profile API with its own profiles.
type api struct{ url string }

const apiToken = "api-token-of-the-test"

// startAPI runs a profile API that applies writes to its profiles.
func startAPI(t *testing.T) api {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := ln.Addr().String()
	require.NoError(t, ln.Close())
	hash := sha256.Sum256([]byte(apiToken))
	builder := service.GlobalEnvironment().NewStreamBuilder()
	builder.SetSchema(service.GlobalEnvironment().FullConfigSchema("", ""))
	builder.SetLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	require.NoError(t, builder.SetYAML(fmt.Sprintf(`
profiles:
  - label: retail
    definition: ../../configs/retail/profile.yaml
    store: { embedded: { path: %q } }
input:
  profile_api:
    profiles: retail
    address: %s
    tokens: [ { name: t, sha256: %s, scopes: [ read, write ] } ]
pipeline:
  processors:
    - update_profile: { profiles: retail }
output:
  drop: {}
`, t.TempDir(), address, hex.EncodeToString(hash[:]))))
	stream, err := builder.Build()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- stream.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		require.NoError(t, stream.StopWithin(patience))
	})
	a := api{"http://" + address}
	require.Eventually(t, func() bool {
		r, err := http.Get(a.url + "/readyz")
		if err == nil {
			r.Body.Close()
		}
		return err == nil && r.StatusCode == 200
	}, patience, 5*time.Millisecond)
	return a
}

func (a api) get(t *testing.T, path string, headers ...string) (int, object) {
	t.Helper()
	r, err := http.NewRequest("GET", a.url+path, nil)
	require.NoError(t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	var o object
	require.NoError(t, json.NewDecoder(response.Body).Decode(&o))
	return response.StatusCode, o
}

// Changes are copied to the other profile API, for any ids.
func TestPushToAnotherProfileAPI(t *testing.T) {
	a := startAPI(t)
	doc := config(t, "profile_api.yaml", map[string]string{"TARGET_URL": a.url, "TARGET_TOKEN": apiToken}, func(push map[string]any) {
		push["timeout"] = "5s"
	})
	running := start(t, doc)
	ids := []string{"u1", "a/b", "q?x=1", "ü ber", "50%25", ".."}
	var batch []string
	for _, id := range ids {
		event := object{
			"type": "identify", "messageId": "m-" + id, "userId": id, "source": "crm",
			"timestamp": "2026-01-31T08:30:00.000Z", "receivedAt": "2026-01-31T08:30:01.000Z",
			"traits": object{"firstName": "Jo", "plan": "gold", "visits": 3, "tags": []string{"a"}},
		}
		raw, err := json.Marshal(event)
		require.NoError(t, err)
		batch = append(batch, string(raw))
	}
	running.send(t, batch, batch) // and once more, as after a crash
	require.Empty(t, running.deadLetters())
	for _, id := range ids {
		escaped := regexp.MustCompile(`[^A-Za-z0-9_~-]`).ReplaceAllStringFunc(id, func(s string) string {
			var b strings.Builder
			for _, c := range []byte(s) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
			return b.String()
		})
		status, profile := a.get(t, "/api/customer/"+escaped, "Authorization: Bearer "+apiToken)
		require.Equal(t, 200, status, id)
		require.Equal(t, object{"firstName": "Jo", "plan": "gold", "visits": 3.0, "tags": []any{"a"}}, profile["traits"], id)
	}
}

// The documented Connected Content request gets the documented response.
func TestBrazeConnectedContent(t *testing.T) {
	page, err := os.ReadFile("../../docs/platforms.md")
	require.NoError(t, err)
	snippet := regexp.MustCompile(`(?s)\{% connected_content\s+(https://[^\n]+)\n(.*?)%\}(.*?)` + "```").FindStringSubmatch(string(page))
	require.NotNil(t, snippet)
	curl := regexp.MustCompile(`curl -H "Authorization: Bearer \$TOKEN" -H '(.*?)' \\\s+'(.*?)'`).FindStringSubmatch(string(page))
	require.NotNil(t, curl)
	asked := regexp.MustCompile(`\{\{.*\}\}`).ReplaceAllString(snippet[1], "u-000001")
	require.Equal(t, asked, curl[2], "both requests are equal")
	path, found := strings.CutPrefix(asked, "https://profiles.example.com")
	require.True(t, found)

	a := startAPI(t)
	r, err := http.NewRequest("PATCH", a.url+"/api/customer/u-000001/traits", strings.NewReader(`{"firstName":"Jo","email":"jo@example.com"}`))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+apiToken)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, 202, response.StatusCode)

	status, profile := a.get(t, path, "Authorization: Bearer "+apiToken, curl[1])
	require.Equal(t, 200, status)
	require.Equal(t, object{"firstName": "Jo"}, profile["traits"], "the requested fields only")
	// The response contains every field that the message uses.
	for _, use := range regexp.MustCompile(`\{\{profile\.(\w+)\.(\w+)`).FindAllStringSubmatch(snippet[3], -1) {
		require.NotNil(t, dig(profile, use[1], use[2]), use[0])
	}
	status, _ = a.get(t, path)
	require.Equal(t, 401, status)
	status, _ = a.get(t, strings.Replace(path, "u-000001", "nobody", 1), "Authorization: Bearer "+apiToken)
	require.Equal(t, 404, status, "the message is not sent")
}
