package faults

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

var testAsOf = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func TestHistoryIsDeterministicAndComplete(t *testing.T) {
	h := makeHistory(3000, 7, testAsOf)
	require.Equal(t, h.sent, makeHistory(3000, 7, testAsOf).sent)
	require.NotEqual(t, h.sent, makeHistory(3000, 8, testAsOf).sent)

	times := map[string]int{}
	for _, r := range h.sent {
		times[string(r.Value)]++
	}
	good, journeys := 0, 0
	for _, c := range h.customers {
		for _, e := range c.events {
			good++
			require.GreaterOrEqual(t, times[string(e)], 1)
		}
		if c.anonymous != "" {
			journeys++
		}
	}
	for raw := range h.bad {
		require.GreaterOrEqual(t, times[raw], 1)
	}
	require.Equal(t, good+len(h.bad), len(times))
	require.Equal(t, len(h.sent), good+len(h.bad)+h.repeated)
	require.InDelta(t, len(h.sent)/11, h.repeated, float64(len(h.sent))/50)
	require.Greater(t, journeys, len(h.customers)/6)
	require.Len(t, h.badBy, 6)
}

// api serves correct profiles, changed by spoil.
func api(t *testing.T, h *history, spoil func(id string, profile map[string]any) bool) string {
	features, err := readFeatures("profile.yaml")
	require.NoError(t, err)
	known := map[string]*customer{}
	for _, c := range h.customers {
		known[c.id] = c
		if c.anonymous != "" {
			known[c.anonymous] = c
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ IDs []string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		var list []any
		for _, id := range body.IDs {
			c := known[id]
			if c == nil {
				list = append(list, map[string]any{"id": id, "found": false})
				continue
			}
			p := map[string]any{"id": c.id, "traits": c.traits, "features": expected(features, c, testAsOf)}
			list = append(list, map[string]any{"id": id, "found": spoil(id, p), "profile": p})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"customers": list})
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestVerifyFindsEveryDifference(t *testing.T) {
	h := makeHistory(1500, 3, testAsOf)
	features, err := readFeatures("profile.yaml")
	require.NoError(t, err)
	var known, journey *customer
	for _, c := range h.customers {
		if c.anonymous != "" {
			journey = c
		} else if len(c.traits) > 0 {
			known = c
		}
	}
	feature := func(p map[string]any) map[string]any { return p["features"].(map[string]any) }
	for name, c := range map[string]struct {
		spoil func(string, map[string]any) bool
		wrong int
	}{
		"nothing": {func(string, map[string]any) bool { return true }, 0},
		"a count": {func(id string, p map[string]any) bool {
			if id == known.id {
				feature(p)["orders"] = feature(p)["orders"].(float64) + 1
			}
			return true
		}, 1},
		"a feature is missing": {func(id string, p map[string]any) bool {
			if id == known.id {
				delete(feature(p), "revenue")
			}
			return true
		}, 2},
		"a trait": {func(id string, p map[string]any) bool {
			if id == known.id {
				p["traits"] = map[string]any{"plan": "other"}
			}
			return true
		}, 1},
		"a customer is missing":             {func(id string, _ map[string]any) bool { return id != known.id }, 1},
		"an anonymous id without a profile": {func(id string, _ map[string]any) bool { return id != journey.anonymous }, 1},
		"an anonymous id of another customer": {func(id string, p map[string]any) bool {
			if id == journey.anonymous {
				p["id"] = "u-x"
			}
			return true
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := verify(t.Context(), api(t, h, c.spoil), features, h)
			require.NoError(t, err)
			require.Equal(t, c.wrong, v.wrong, v.examples)
			require.Equal(t, len(h.customers), v.customers)
			if c.wrong == 0 {
				require.Equal(t, len(h.customers)*len(features), v.features)
			}
		})
	}
}

func TestAccountFindsMissingAndUnexpectedDeadLetters(t *testing.T) {
	h := &history{bad: map[string]string{"a": "validate_event", "b": "update_profile"}}
	letter := func(stage, original string) *rejection.Envelope {
		return &rejection.Envelope{Stage: stage, Original: []byte(original), Reasons: []rejection.Reason{{Message: "m"}}}
	}
	right := []*rejection.Envelope{letter("validate_event", "a"), letter("update_profile", "b"), letter("update_profile", "b")}
	for name, c := range map[string]struct {
		letters  []*rejection.Envelope
		failures int
	}{
		"all, one twice": {right, 0},
		"one missing":    {right[:1], 1},
		"a good event":   {append(right[:3:3], letter("validate_event", "c")), 2},
		"wrong stage":    {append(right[:3:3], letter("update_profile", "a")), 1},
	} {
		s := &suite{history: h, report: &report{}}
		s.account("letters", c.letters)
		require.Len(t, s.report.failures, c.failures, name)
	}
}

func TestSameToleratesRounding(t *testing.T) {
	for _, c := range []struct {
		a, b any
		same bool
	}{
		{1.0, 1.0, true},
		{1.0, 1.0 + 1e-12, true},
		{1.0, 1.0 + 1e-6, false},
		{nil, nil, true},
		{nil, 0.0, false},
		{"a", "b", false},
		{[]any{1.0, "a"}, []any{1.0, "a"}, true},
		{[]any{1.0}, []any{1.0, 2.0}, false},
		{map[string]any{"a": 1.0}, map[string]any{"a": 1.0}, true},
		{map[string]any{"a": 1.0}, map[string]any{"b": 1.0}, false},
	} {
		require.Equal(t, c.same, same(c.a, c.b), "%v %v", c.a, c.b)
	}
}
