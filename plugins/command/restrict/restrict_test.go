package restrict

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

// start runs the command line until the test ends, and returns its error if it ends
// before.
func start(t *testing.T, args ...string) <-chan error {
	t.Helper()
	args = append([]string{"program"}, args...)
	env, err := Environment(service.GlobalEnvironment(), args)
	require.NoError(t, err)
	var guard Guard
	ctx, stop := context.WithCancel(t.Context())
	result, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		_, err := service.RunCLIToCode(ctx, service.CLIOptSetArgs(args...), service.CLIOptSetEnvironment(env),
			service.CLIOptCustomRunFlags(Flags(), guard.Prepare), service.CLIOptOnConfigParse(guard.Check))
		result <- err
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return result
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// request returns the status of a request to the engine, 0 while it does not listen.
func request(t *testing.T, method, url, body string, edit func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(t, err)
	if edit != nil {
		edit(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

const stream = `
input: { generate: { interval: 1h, mapping: 'root = {}' } }
output: { http_client: { url: "http://127.0.0.1:1/x", headers: { Authorization: "Bearer made-up-key" } } }
`

// attack is the stream of a web page that the user of the machine opens.
func attack(file string) string {
	return fmt.Sprintf(`
input: { generate: { count: 1, interval: "", mapping: 'root = "x"' } }
pipeline: { processors: [ { command: { name: touch, args_mapping: '[ %q ]' } } ] }
output: { drop: {} }
`, file)
}

func TestStreamsModeNeitherShowsNorTakesStreams(t *testing.T) {
	address := freeAddress(t)
	start(t, "streams", "-o", writeFile(t, "http: { address: \""+address+"\" }\nlogger: { level: 'off' }"), writeFile(t, stream))
	require.Eventually(t, func() bool {
		status, _ := request(t, "GET", "http://"+address+"/ping", "", nil)
		return status == http.StatusOK
	}, 20*time.Second, 20*time.Millisecond)
	ran := filepath.Join(t.TempDir(), "ran")
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/streams", ""},
		{"GET", "/streams/config", ""},
		{"POST", "/streams/x", attack(ran)},
		{"POST", "/benthos/streams/x", attack(ran)},
		{"POST", "/streams", ""},
		{"POST", "/resources/processor/x", "mapping: root = this"},
		{"GET", "/debug/config/json", ""},
	} {
		status, text := request(t, c.method, "http://"+address+c.path, c.body, func(r *http.Request) {
			r.Host = "rebind.example"
			r.Header.Set("Origin", "https://other.example")
			r.Header.Set("Content-Type", "text/plain")
		})
		require.Equal(t, http.StatusForbidden, status, "%s %s", c.method, c.path)
		require.NotContains(t, text, "made-up-key")
		status, text = request(t, c.method, "http://"+address+c.path, c.body, nil)
		require.Contains(t, []int{http.StatusNotFound, http.StatusForbidden}, status, "%s %s", c.method, c.path)
		require.NotContains(t, text, "made-up-key")
	}
	require.NoFileExists(t, ran)
}

func TestStreamsAPINeedsACredential(t *testing.T) {
	err := <-start(t, "streams", "--streams-api", "-o", writeFile(t, "http: { address: \""+freeAddress(t)+"\" }\nlogger: { level: 'off' }"), writeFile(t, stream))
	require.ErrorContains(t, err, "--streams-api needs http.basic_auth")

	address := freeAddress(t)
	// The password is "secret".
	start(t, "streams", "--streams-api", "-o", writeFile(t, `
http:
  address: "`+address+`"
  basic_auth: { enabled: true, username: admin, algorithm: sha256, password_hash: "K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=" }
logger: { level: 'off' }`), writeFile(t, stream))
	require.Eventually(t, func() bool {
		status, _ := request(t, "GET", "http://"+address+"/ping", "", nil)
		return status == http.StatusUnauthorized
	}, 20*time.Second, 20*time.Millisecond)
	status, _ := request(t, "POST", "http://"+address+"/streams/x", stream, nil)
	require.Equal(t, http.StatusUnauthorized, status)
	status, text := request(t, "GET", "http://"+address+"/streams/config", "", func(r *http.Request) { r.SetBasicAuth("admin", "secret") })
	require.Equal(t, http.StatusForbidden, status, "a config can contain secrets")
	require.NotContains(t, text, "made-up-key")
	status, _ = request(t, "GET", "http://"+address+"/streams", "", func(r *http.Request) { r.SetBasicAuth("admin", "secret") })
	require.Equal(t, http.StatusOK, status)
}

func TestDebugEndpointsNeedACredential(t *testing.T) {
	err := <-start(t, "run", writeFile(t, "http: { address: \""+freeAddress(t)+"\", debug_endpoints: true }\nlogger: { level: 'off' }\n"+stream))
	require.ErrorContains(t, err, "http.debug_endpoints needs http.basic_auth")
}

func TestProgramsRunOnlyWithTheFlag(t *testing.T) {
	config := func(ran string) string {
		return writeFile(t, "http: { enabled: false }\nlogger: { level: 'off' }\n"+attack(ran))
	}
	ran := filepath.Join(t.TempDir(), "ran")
	err := <-start(t, "run", config(ran))
	require.ErrorContains(t, err, "start with --allow-commands")
	require.NoFileExists(t, ran)
	require.NoError(t, <-start(t, "run", "--allow-commands", config(ran)))
	require.FileExists(t, ran)
}

func TestAllowsCommands(t *testing.T) {
	for args, want := range map[string]bool{
		"run x.yaml":                        false,
		"run --allow-commands x.yaml":       true,
		"-allow-commands -c x.yaml":         true,
		"run --allow-commands=true x.yaml":  true,
		"run --allow-commands=false x.yaml": false,
		"run -- --allow-commands":           false,
		"run allow-commands":                false,
	} {
		require.Equal(t, want, allowsCommands(strings.Fields(args)), args)
	}
}
