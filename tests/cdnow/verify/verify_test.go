package verify

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const log = " 1 9 19970118  2   29.73\n\n 1 9 19970101  1    0.10\r\n 2 8 19971231  1   14\n 1 9 19970101  1    0.20\n"

const (
	one = `{"id":"1","features":{"orders":3,"revenue":30.03,"first_order_at":"1997-01-01T00:00:00.000Z","last_order_at":"1997-01-18T00:00:00Z"},"as_of":"2026-01-01T00:00:00Z"}`
	two = `{"id":"2","features":{"orders":1,"revenue":14,"first_order_at":"1997-12-31T00:00:00Z","last_order_at":"1997-12-31T00:00:00Z"},"as_of":"2026-01-01T00:00:00Z"}`
)

func serve(t *testing.T, profiles map[string]string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		body, ok := profiles[strings.TrimPrefix(r.URL.Path, "/api/customer/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.txt")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestCorrectProfilesPass(t *testing.T) {
	api := serve(t, map[string]string{"1": one, "2": two})
	save := filepath.Join(t.TempDir(), "profiles")
	require.NoError(t, run(write(t, log), api, 2, save, 1e9))
	saved, err := os.ReadFile(save)
	require.NoError(t, err)
	require.Contains(t, string(saved), `"revenue":30.03`)
	require.NotContains(t, string(saved), "as_of")

	require.ErrorContains(t, run(write(t, log), api, 3, "", 1e9), "2 customers, not 3")
}

func TestEachDifferenceFails(t *testing.T) {
	for _, c := range []struct{ old, new string }{
		{`"orders":3`, `"orders":4`},
		{`30.03`, `30.04`},
		{`30.03`, `30.031`},
		{`1997-01-01`, `1997-01-02`},
		{`1997-01-18T00:00:00Z`, `1997-01-18T01:00:00Z`},
		{`"id":"1"`, `"id":"2"`},
		{`"revenue":30.03,`, ``},
		{one, ``},
	} {
		api := serve(t, map[string]string{"1": strings.Replace(one, c.old, c.new, 1), "2": two})
		require.ErrorContains(t, run(write(t, log), api, 2, "", 1e9), "1 of 2 customers differ", "%s", c.new)
	}
	api := serve(t, map[string]string{"1": one})
	require.ErrorContains(t, run(write(t, log), api, 2, "", 1e9), "1 of 2 customers differ")
	permissive := serve(t, map[string]string{"1": one, "2": two, "unknown-customer": two})
	require.ErrorContains(t, run(write(t, log), permissive, 2, "", 1e9), "not 404")
}

func TestMalformedLogIsRejected(t *testing.T) {
	for _, line := range []string{"1 9 19970101 2", "1 9 1997 2 3.00", "1 9 19970101 2 3.001", "1 9 19970101 2 x"} {
		_, err := read(write(t, line))
		require.Error(t, err, line)
	}
}
