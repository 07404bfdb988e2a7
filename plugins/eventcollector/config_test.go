package eventcollector

import (
	"os"
	"strings"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func lints(t testing.TB, conf string) (found []string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("event_collector:\n")
	for line := range strings.Lines(conf) {
		b.WriteString("  " + line)
	}
	got, err := service.GlobalEnvironment().NewComponentConfigLinter().LintInputYAML([]byte(b.String()))
	require.NoError(t, err)
	for _, lint := range got {
		found = append(found, lint.What)
	}
	return found
}

// The constructor repeats the checks of the linter, for pipelines that run without
// linting.
func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name, conf string
		lint, err  string // empty for a good config
	}{
		{"a key", "write_keys: [ { key: k, source: web } ]", "", ""},
		{"no keys", "{}", "`write_keys` is empty, so every request would be rejected: add an entry", "`write_keys` is empty"},
		{"no keys, public", "address: 0.0.0.0:8080", "`write_keys` is empty", "`write_keys` is empty"},
		{"anonymous on loopback", "allow_anonymous_writes: true", "", ""},
		{"anonymous on localhost", "address: localhost:80\nallow_anonymous_writes: true", "", ""},
		{"anonymous on IPv6 loopback", "address: '[::1]:80'\nallow_anonymous_writes: true", "", ""},
		{"anonymous, public", "address: 0.0.0.0:8080\nallow_anonymous_writes: true", "`allow_anonymous_writes` with an address outside loopback", "`allow_anonymous_writes` with an address"},
		{"anonymous on all interfaces", "address: :8080\nallow_anonymous_writes: true", "`allow_anonymous_writes` with an address", "`allow_anonymous_writes` with an address"},
		{"anonymous with keys, public", "address: '[::]:8080'\nallow_anonymous_writes: true\nwrite_keys: [ { key: k, source: web } ]", "`allow_anonymous_writes` with an address", "`allow_anonymous_writes` with an address"},
		{"a name that only begins like loopback", "address: 127.0.0.1.evil.test:80\nallow_anonymous_writes: true", "`allow_anonymous_writes` with an address", "`allow_anonymous_writes` with an address"},
		{"public with keys", "address: 0.0.0.0:8080\nwrite_keys: [ { key: k, source: web } ]", "", ""},
		{"address without port", "address: localhost\nallow_anonymous_writes: true", "address must be a host and a port", "address must be a host and a port"},
		{"empty key", "write_keys: [ { key: '', source: web } ]", "the write key is empty: set its environment variable", "write_keys[0]: the key is empty"},
		{"source with blanks", "write_keys: [ { key: k, source: 'my web' } ]", "source must be 1 to 64 letters", "write_keys[0]: source must be"},
		{"one key twice", "write_keys: [ { key: k, source: web }, { key: k, source: app } ]", "", "write_keys[1]: an earlier entry has the same key"},
		{"one source twice", "write_keys: [ { key: k, source: web }, { key: l, source: web } ]", "", ""},
		{"anonymous source with quotes", "allow_anonymous_writes: true\nanonymous_source: 'a\"b'", "anonymous_source must be", "anonymous_source must be"},
		{"half of TLS", "allow_anonymous_writes: true\ntls: { cert_file: a.pem }", "tls needs both cert_file and key_file", "tls needs both"},
		{"origin with path", "allow_anonymous_writes: true\ncors: { allowed_origins: [ 'https://shop.example/' ] }", "an allowed origin is a scheme and a host without a path", "an origin is a scheme and a host"},
		{"origin without scheme", "allow_anonymous_writes: true\ncors: { allowed_origins: [ shop.example ] }", "an allowed origin is", "an origin is"},
		{"origins", "allow_anonymous_writes: true\ncors: { allowed_origins: [ 'https://shop.example:8443', 'http://*.shop.example', '*' ] }", "", ""},
		{"proxy by name", "allow_anonymous_writes: true\ntrusted_proxies: [ proxy.internal ]", "a trusted proxy is an address or a network", "trusted_proxies[0] must be"},
		{"proxies", "allow_anonymous_writes: true\ntrusted_proxies: [ 10.0.0.0/8, '::1', 'fd00::/8' ]", "", ""},
		{"no requests", "allow_anonymous_writes: true\nlimits: { max_in_flight: 0 }", "max_in_flight must be at least 1", "limits.max_in_flight must be at least 1"},
		{"no time", "allow_anonymous_writes: true\ntimeout: 0s", "", "timeout must be more than 0"},
		{"unknown field", "allow_anonymous_writes: true\nport: 80", "field port not recognised", ""},
	} {
		got := lints(t, c.conf)
		if c.lint == "" {
			require.Empty(t, got, c.name)
		} else {
			require.Len(t, got, 1, c.name)
			require.Contains(t, got[0], c.lint, c.name)
		}
		_, err := newTestInput(t, c.conf)
		if c.err == "" {
			require.NoError(t, err, c.name)
		} else {
			require.ErrorContains(t, err, c.err, c.name)
		}
	}
}
