package profileapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func TestRequestsNeedAKnownToken(t *testing.T) {
	s := serve(t, withProfiles("c1"), fmt.Sprintf(`
tokens:
  - { name: reader, sha256: %q }
  - { name: writer, sha256: %q, scopes: [ write ] }
  - { name: both, sha256: %q, scopes: [ read, write ] }
`, hashOf("r"), strings.ToUpper(hashOf("w")), hashOf("rw")))
	s.handler.drain() // so that a write that is let in is answered at once, with 503

	const customer, traits, batch = "/api/customer/c1", "/api/customer/c1/traits", "/api/customers/batch"
	for _, c := range []struct {
		authorization []string
		get, patch    int
	}{
		{nil, 401, 401},
		{[]string{"Bearer r"}, 200, 403},
		{[]string{"bearer  r"}, 200, 403},
		{[]string{"Bearer w"}, 403, 503},
		{[]string{"Bearer rw"}, 200, 503},
		{[]string{"Bearer R"}, 401, 401},
		{[]string{"Bearer"}, 401, 401},
		{[]string{"Bearer "}, 401, 401},
		{[]string{"r"}, 401, 401},
		{[]string{"Basic r"}, 401, 401},
		{[]string{"Bearer r x"}, 401, 401},
		{[]string{"Bearer " + hashOf("r")}, 401, 401},
		{[]string{"Bearer r", "Bearer r"}, 401, 401},
	} {
		headers := []string{"Content-Type: application/json"}
		for _, a := range c.authorization {
			headers = append(headers, "Authorization: "+a)
		}
		for _, try := range []struct {
			method, path, body string
			want               int
		}{
			{"GET", customer, "", c.get},
			{"HEAD", customer, "", c.get},
			{"POST", batch, `{"ids":["c1"]}`, c.get},
			{"PATCH", traits, "{}", c.patch},
		} {
			got := s.do(t, try.method, try.path, try.body, headers...)
			require.Equal(t, try.want, got.status, "%s %s with %q", try.method, try.path, c.authorization)
			if got.status == 401 {
				require.Equal(t, `Bearer realm="profiles"`, got.header.Get("WWW-Authenticate"))
			}
		}
	}

	// Without a token, responses under /api do not reveal which resources exist.
	for _, path := range []string{"/api", "/api/", "/api/customer/nobody", "/api/customer/%ff", "/api/x", "/api/customer/c1/x/y/z", "/%61pi/x"} {
		require.Equal(t, 401, s.do(t, "GET", path, "").status, path)
	}
	require.Equal(t, 401, s.do(t, "DELETE", customer, "").status)
	require.Equal(t, 403, s.do(t, "DELETE", customer, "", "Authorization: Bearer r").status)
	require.Equal(t, 405, s.do(t, "DELETE", traits, "", "Authorization: Bearer r").status)
	require.Equal(t, 404, s.do(t, "GET", "/other", "").status)
	require.Equal(t, 200, s.do(t, "GET", "/healthz", "").status)
}

func TestInvalidConfigs(t *testing.T) {
	hash := hashOf("t")
	cert := newCertificate(t, nil)
	for _, c := range []struct{ yaml, want string }{
		{"address: 0.0.0.0:8081", "beyond loopback"},
		{"address: :8081", "beyond loopback"},
		{"address: 10.0.0.1:8081", "beyond loopback"},
		{"address: profiles.example.com:8081", "beyond loopback"},
		{"address: 127.0.0.1.example.com:8081", "beyond loopback"},
		{"address: '[::]:8081'", "beyond loopback"},
		{"address: localhost", "a host and a port"},
		{"tokens: [ { name: a, sha256: secret } ]", "64 hexadecimal digits"},
		{"tokens: [ { name: a, sha256: " + hash + "0 } ]", "64 hexadecimal digits"},
		{"tokens: [ { name: a, sha256: " + hash + ", scopes: [] } ]", "any of read, write, content, erase"},
		{"tokens: [ { name: a, sha256: " + hash + ", scopes: [ all ] } ]", "any of read, write, content, erase"},
		{"tokens: [ { name: a, sha256: " + hash + " }, { name: b, sha256: " + strings.ToUpper(hash) + " } ]", `"a" and "b" have the same token`},
		{"tls: { cert_file: " + cert.certFile + " }", "both cert_file and key_file"},
		{"tls: { client_ca_file: " + cert.certFile + " }", "both cert_file and key_file"},
		{"tls: { cert_file: /nonexistent, key_file: " + cert.keyFile + " }", "tls.cert_file"},
		{"tls: { cert_file: " + cert.certFile + ", key_file: " + cert.certFile + " }", "certificate and its key"},
		{"tls: { cert_file: " + cert.certFile + ", key_file: " + cert.keyFile + ", client_ca_file: " + cert.keyFile + " }", "contains no certificate"},
		{"limits: { connections: 0 }", "at least 1"},
		{"round_trips: 0", "at least 1"},
		{"timeouts: { idle: 0s }", "longer than zero"},
		{"timeouts: { request: 30s }", "longer than timeouts.request"},
	} {
		_, err := newTestInput(t, withProfiles(), c.yaml)
		require.ErrorContains(t, err, c.want, c.yaml)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, yaml := range []string{
		"", "address: localhost:1", "address: '[::1]:1'", "address: 127.8.8.8:1",
		"{ address: ':1', allow_unauthenticated: true }",
		"{ address: ':1', tokens: [ { name: a, sha256: " + hash + " } ] }",
		"{ address: ':1', tls: { cert_file: " + cert.certFile + ", key_file: " + cert.keyFile + ", client_ca_file: " + cert.certFile + " } }",
	} {
		_, err := newTestInput(t, withProfiles(), yaml)
		require.NoError(t, err, yaml)
	}
}

func TestLint(t *testing.T) {
	linter := testEnvironment(t, withProfiles()).NewComponentConfigLinter()
	lint := func(fields string) string {
		lints, err := linter.LintInputYAML([]byte("profile_api:\n" + fields))
		require.NoError(t, err)
		var all []string
		for _, l := range lints {
			all = append(all, l.What)
		}
		return strings.Join(all, "\n")
	}
	everything := "  profiles: shop\n  tokens: [ { name: a, sha256: " + hashOf("a") + ", scopes: [ read, write ] } ]\n  max_age: 30s\n" +
		"  allowed_origins: [ 'https://a.example', 'http://localhost:3000' ]\n  timeouts: { idle: 500ms, request: 1.5s }\n  limits: { batch_ids: 1 }\n"
	for fields, want := range map[string]string{
		everything:               "",
		"  address: localhost:1": "field profiles is required",
		"  profiles: ''":         "name the profiles resource",
		"  profiles: shop\n  address: 0.0.0.0:8081":                                                 "listening beyond loopback needs authentication",
		"  profiles: shop\n  address: 127.0.0.1.example.com:8081":                                   "listening beyond loopback needs authentication",
		"  profiles: shop\n  address: localhost":                                                    "a host and a port",
		"  profiles: shop\n  tokens: [ { name: a, sha256: abc } ]":                                  "64 hexadecimal digits",
		"  profiles: shop\n  tokens: [ { name: a, sha256: " + hashOf("a") + ", scopes: [ all ] } ]": "list any of read, write, content, erase",
		"  profiles: shop\n  tls: { cert_file: a }":                                                 "belong together",
		"  profiles: shop\n  tls: { client_ca_file: a }":                                            "client_ca_file needs cert_file",
		"  profiles: shop\n  limits: { batch_ids: 0 }":                                              "at least 1",
		"  profiles: shop\n  timeouts: { idle: 0s }":                                                "longer than zero",
		"  profiles: shop\n  allowed_origins: [ '*' ]":                                              "write each origin in full",
		"  profiles: shop\n  allowed_origins: [ 'https://a.example/' ]":                             "write each origin in full",
		"  profiles: shop\n  source: ''":                                                            "give the source a name",
		"  profiles: shop\n  max_age: -1s":                                                          "zero or more",
		"  profiles: shop\n  adress: localhost:1":                                                   "adress",
		"  profiles: shop":                          "",
		"  profiles: shop\n  address: '[::1]:8081'": "",
		"  profiles: shop\n  address: 0.0.0.0:8081\n  allow_unauthenticated: true":                           "",
		"  profiles: shop\n  address: 0.0.0.0:8081\n  tokens: [ { name: a, sha256: " + hashOf("a") + "} ]":   "",
		"  profiles: shop\n  address: 0.0.0.0:8081\n  tls: { cert_file: a, key_file: b, client_ca_file: c }": "",
	} {
		got := lint(fields)
		if want == "" {
			require.Empty(t, got, fields)
		} else {
			require.Contains(t, got, want, fields)
			require.NotContains(t, got, "failed", "a rule must not fail itself")
		}
	}
}

// certificate is a self-signed one, or one signed by another.
type certificate struct {
	certFile, keyFile string
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	pair              tls.Certificate
}

func newCertificate(t *testing.T, signer *certificate) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        signer == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, parentKey := template, key
	if signer != nil {
		parent, parentKey = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	c := &certificate{certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem"), cert: cert, key: key,
		pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
	require.NoError(t, os.WriteFile(c.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return c
}

func TestTLS(t *testing.T) {
	ca := newCertificate(t, nil)
	serverCert, clientCert, stranger := newCertificate(t, ca), newCertificate(t, ca), newCertificate(t, nil)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	client := func(s *server, conf *tls.Config) *http.Client {
		conf.RootCAs = roots
		transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: patience}
	}
	files := fmt.Sprintf("cert_file: %s, key_file: %s", serverCert.certFile, serverCert.keyFile)

	s := serve(t, withProfiles("c1"), "tls: { "+files+" }")
	s.client = client(s, &tls.Config{})
	require.Equal(t, 200, s.do(t, "GET", "/api/customer/c1", "").status)
	response, err := s.client.Get(s.url + "/healthz")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "HTTP/2.0", response.Proto)
	s.client = client(s, &tls.Config{MaxVersion: tls.VersionTLS11}) //nolint:gosec // it must be refused
	_, err = s.try("GET", "/healthz", "")
	require.Error(t, err)

	s = serve(t, withProfiles("c1"), "tls: { "+files+", client_ca_file: "+ca.certFile+" }")
	for name, c := range map[string]struct {
		conf *tls.Config
		ok   bool
	}{
		"known":    {&tls.Config{Certificates: []tls.Certificate{clientCert.pair}}, true},
		"none":     {&tls.Config{}, false},
		"stranger": {&tls.Config{Certificates: []tls.Certificate{stranger.pair}}, false},
	} {
		s.client = client(s, c.conf)
		got, err := s.try("GET", "/api/customer/c1", "")
		if c.ok {
			require.NoError(t, err, name)
			require.Equal(t, 200, got.status)
		} else {
			require.Error(t, err, name)
		}
	}
	// The pool of connections the first client opened must not keep the
	// server from closing.
	require.NoError(t, s.Close(context.Background()))
}

func TestUnauthenticatedListenerIsLogged(t *testing.T) {
	log := newSyncBuffer()
	_, err := newLoggingInput(t, withProfiles(), "{ address: ':1', allow_unauthenticated: true }", log)
	require.NoError(t, err)
	require.Contains(t, log.String(), "Every client that can reach :1 may read and write profiles")
}

// Without authentication a web page must not reach the API through a browser
// on the same machine, by a host name of its own.
func TestUnauthenticatedListenerAcceptsLoopbackHostsOnly(t *testing.T) {
	hosts := map[string]bool{
		"127.0.0.1": true, "127.0.0.1:8081": true, "localhost": true, "localhost:8081": true, "[::1]": true, "[::1]:8081": true,
		"evil.example": false, "evil.example:8081": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "10.0.0.1": false,
	}
	for yaml, open := range map[string]bool{
		"{}": false, "allow_unauthenticated: true": true, "tokens: [ { name: t, sha256: " + hashOf("t") + " } ]": true,
	} {
		s := serve(t, withProfiles("c1"), yaml)
		for host, local := range hosts {
			for path, api := range map[string]bool{"/api/customer/c1": true, "/api/none": true, "/healthz": false, "/none": false} {
				answer := rawRequest(t, s, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nAuthorization: Bearer t\r\nConnection: close\r\n\r\n")
				require.Equal(t, api && !local && !open, strings.Contains(answer, "HTTP/1.1 421 "), "%s %s %s", yaml, host, path)
			}
		}
	}
}
