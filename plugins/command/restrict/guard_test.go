package restrict

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGuardReturnsNoConfig(t *testing.T) {
	g := &serverGuard{next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("secret")) })}
	for path, want := range map[string]int{"/streams": 200, "/streams/one": 403, "/benthos/streams/one": 403, "/streams/one/stats": 403, "/metrics": 200} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "localhost"
		g.ServeHTTP(w, r)
		require.Equal(t, want, w.Code, path)
	}
}

func TestGuardRejectsForeignHostsAndOrigins(t *testing.T) {
	g := &serverGuard{names: []string{"10.1.2.3", "worker.example.com"}, origins: []string{"https://admin.example.com"},
		next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	for _, c := range []struct {
		name, host string
		headers    map[string]string
		want       int
	}{
		{"loopback address", "127.0.0.1:4195", nil, 200},
		{"loopback address of IPv6", "[::1]:4195", nil, 200},
		{"localhost", "LOCALHOST:4195", nil, 200},
		{"localhost with the root's dot", "localhost.:4195", nil, 200},
		{"address of a pod", "10.4.5.6:4195", nil, 200},
		{"configured name", "worker.example.com", nil, 200},
		{"rebound name", "rebind.example", nil, 403},
		{"name that begins like an address", "127.0.0.1.rebind.example:4195", nil, 403},
		{"no name", "", nil, 403},
		{"foreign origin", "127.0.0.1:4195", map[string]string{"Origin": "https://other.example"}, 403},
		{"opaque origin", "127.0.0.1:4195", map[string]string{"Origin": "null"}, 403},
		{"own origin", "127.0.0.1:4195", map[string]string{"Origin": "http://127.0.0.1:4195"}, 200},
		{"own address, another port", "127.0.0.1:4195", map[string]string{"Origin": "http://127.0.0.1:8080"}, 403},
		{"allowed origin", "127.0.0.1:4195", map[string]string{"Origin": "https://admin.example.com"}, 200},
		{"page without an origin", "127.0.0.1:4195", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"typed into the address bar", "127.0.0.1:4195", map[string]string{"Sec-Fetch-Site": "none"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/streams/x", nil)
			r.Host = c.host
			for name, value := range c.headers {
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			require.Equal(t, c.want, w.Code)
		})
	}
}
