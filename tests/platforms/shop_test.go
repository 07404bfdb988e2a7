package platforms

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
)

// completeProfile returns the profile of a customer of the synthetic shop who has
// signed in and ordered: no trait or feature is null. It is read as the shipped
// webhook config sends it.
func completeProfile(t *testing.T) object {
	t.Helper()
	var mu sync.Mutex
	profiles := map[string]object{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Data struct {
				Customer string
				Profile  object
			}
		}
		if raw, err := io.ReadAll(r.Body); err == nil && json.Unmarshal(raw, &body) == nil {
			mu.Lock()
			defer mu.Unlock()
			profiles[body.Data.Customer] = body.Data.Profile
		}
	}))
	t.Cleanup(server.Close)
	doc := config(t, "webhook.yaml", map[string]string{"WEBHOOK_URL": server.URL}, func(push map[string]any) {
		push["timeout"] = "5s"
		push["latest_only"] = true
	})
	running := start(t, doc)

	const customers, hours = 20, 12
	s, err := shop.New(shop.Settings{Seed: 1, Start: time.Now().Add(-hours * time.Hour), Customers: customers, DailyEvents: 400})
	require.NoError(t, err)
	for range 8 {
		var batch []string
		for range customers * 400 * hours / 24 / 8 {
			batch = append(batch, string(s.Next().Data))
		}
		running.send(t, batch)
	}
	require.Empty(t, running.deadLetters())
	mu.Lock()
	defer mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(profiles)) {
		if p := profiles[id]; p != nil && p["traits"] != nil && len(nulls(p, "")) == 0 {
			return p
		}
	}
	t.Fatalf("each of %d profiles has a trait or feature that is null", len(profiles))
	return nil
}

// profilePath is a trait or feature that a mapping reads by its name.
var profilePath = regexp.MustCompile(`\b(traits|features)\.(\w+)\b([^(\w]|$)`)

// TestShopProfilesFillEveryField holds the shipped content blocks and mappings
// and the synthetic shop to one spelling of every trait and feature: a name that
// the shop's profiles do not have would silently render a default.
func TestShopProfilesFillEveryField(t *testing.T) {
	profile := completeProfile(t)
	requireAll := func(t *testing.T, paths []string) {
		t.Helper()
		for _, path := range paths {
			require.NotNil(t, dig(profile, strings.Split(path, ".")...), path)
		}
	}

	blocks, err := filepath.Glob("../../configs/content/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, blocks)
	for _, path := range blocks {
		t.Run(filepath.Base(path), func(t *testing.T) {
			block, problems, err := content.Load(path, func(string) (content.Names, error) { return content.Names{}, nil })
			require.NoError(t, err)
			require.Empty(t, problems)
			requireAll(t, block.Used())
			raw, err := json.Marshal(profile)
			require.NoError(t, err)
			p, err := content.ReadProfile(raw, time.Now())
			require.NoError(t, err)
			result := block.Render(p)
			require.Empty(t, result.Fallback, result.Problem)
			require.NotEmpty(t, result.Content)
		})
	}

	mappings, err := filepath.Glob("../../configs/platforms/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, mappings)
	for _, path := range append(mappings, "../../configs/retail/send_triggers.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			var doc struct {
				Output struct {
					API struct{ Element struct{ Mapping string } } `yaml:"profile_api"`
				}
			}
			require.NoError(t, yaml.Unmarshal([]byte(expand(string(raw), nil)), &doc))
			mapping := doc.Output.API.Element.Mapping
			require.NotEmpty(t, mapping)
			var paths []string
			for _, m := range profilePath.FindAllStringSubmatch(mapping, -1) {
				paths = append(paths, m[1]+"."+m[2])
			}
			requireAll(t, paths)

			exec, err := bloblang.Parse(mapping)
			require.NoError(t, err)
			element, err := exec.Query(object{
				"customer": profile["id"],
				"profile":  profile,
				"content":  object{"block": object{"type": "text", "content": "Hi"}},
				"message": object{
					"event": "Trigger Fired", "messageId": "m1", "userId": profile["id"], "timestamp": time.Now().Format(time.RFC3339),
					"properties": object{"trigger": "welcome", "channel": "email", "data": object{}},
				},
			})
			require.NoError(t, err)
			require.Empty(t, nulls(element, ""), "members without a value")
		})
	}
}

// nulls lists the paths of a value's members that are null.
func nulls(v any, path string) (list []string) {
	switch v := v.(type) {
	case nil:
		return []string{path}
	case object:
		for name, inner := range v {
			list = append(list, nulls(inner, path+"/"+name)...)
		}
	}
	return list
}
