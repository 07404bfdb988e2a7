// Package cli tests the built binary: its commands, their output and exit codes.
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

var (
	binary string
	root   string // root of the repository
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "cli")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			root, err = filepath.Abs("../..")
		}
		if err == nil {
			binary, err = process.Build(context.Background(), dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

type result struct {
	code           int
	stdout, stderr string
}

// run runs the binary in a folder and waits for its end.
func run(t *testing.T, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(t, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// folder creates a folder with the given files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}

func TestVersion(t *testing.T) {
	for _, flag := range []string{"--version", "-v"} {
		got := run(t, ".", flag)
		require.Zero(t, got.code)
		require.Regexp(t, `^connect-personalize \d+\.\d+\.\d+(\+[0-9a-f]{12})?
Date: .+
Benthos: 4\.\d+\.\d+
Redpanda Connect: 4\.\d+\.\d+
$`, got.stdout)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}} {
		got := run(t, ".", args...)
		require.Zero(t, got.code)
		require.Contains(t, got.stdout, "connect-personalize - turns raw customer events into live profiles")
		require.Contains(t, got.stdout, "-c FILE")
		for _, command := range []string{"lint", "run", "streams", "list", "create", "test"} {
			require.Contains(t, got.stdout, "\n   "+command+" ")
		}
	}
	for _, command := range []string{"lint", "run", "streams", "list", "create", "test"} {
		got := run(t, ".", command, "--help")
		require.Zero(t, got.code)
		require.Contains(t, got.stdout, "connect-personalize "+command)
		require.NotContains(t, got.stdout, "enthos", "the engine's name is not the product's")
	}
}

func TestUnknownCommand(t *testing.T) {
	got := run(t, ".", "brew")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "Unrecognised command: brew")
}

func TestList(t *testing.T) {
	got := run(t, ".", "list", "--format", "json")
	require.Zero(t, got.code, got.stderr)
	var listed map[string][]string
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &listed))
	for kind, names := range plugins {
		require.Subset(t, listed[kind], names)
	}

	text := run(t, ".", "list", "processors")
	require.Zero(t, text.code)
	require.Contains(t, text.stdout, "Processors:\n")
	for _, name := range plugins["processors"] {
		require.Contains(t, text.stdout, "  - "+name+"\n")
	}
}

func TestCreate(t *testing.T) {
	for kind, names := range plugins {
		for _, name := range names {
			expression := map[string]string{
				"inputs": name, "processors": "stdin/" + name, "outputs": "stdin//" + name,
			}[kind]
			for _, flags := range [][]string{nil, {"--small"}} {
				t.Run(strings.Join(append([]string{name}, flags...), " "), func(t *testing.T) {
					got := run(t, ".", append(append([]string{"create"}, flags...), expression)...)
					require.Zero(t, got.code, got.stderr)
					require.Contains(t, got.stdout, name+":")
					var config map[string]any
					require.NoError(t, yaml.Unmarshal([]byte(got.stdout), &config))

					// Values are missing, but every field is present, so a lint
					// rule that does not compile fails.
					dir := folder(t, map[string]string{"config.yaml": got.stdout})
					require.NotContains(t, run(t, dir, "lint", "config.yaml").stderr, "failed to parse")
				})
			}
		}
	}
}

func TestJSONSchema(t *testing.T) {
	got := run(t, ".", "list", "--format", "jsonschema")
	require.Zero(t, got.code, got.stderr)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(got.stdout))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("config.json", doc))
	schema, err := compiler.Compile("config.json")
	require.NoError(t, err)

	names := []string{}
	for _, list := range plugins {
		names = append(names, list...)
	}
	for _, name := range append(names, resources...) {
		require.Contains(t, got.stdout, `"`+name+`"`)
	}

	shipped := 0
	for _, path := range pipelines(t) {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		var config any
		require.NoError(t, yaml.Unmarshal(withDefaults(raw), &config), path)
		require.NoError(t, schema.Validate(config), path)
		shipped++
	}
	t.Logf("%d shipped configs are valid by the exported schema", shipped)
}

func TestShippedConfigs(t *testing.T) {
	if len(pipelines(t)) == 0 {
		t.Skip("no config is shipped yet")
	}
	got := run(t, root, "lint", "--deprecated", "--verbose", "configs/...")
	require.Zero(t, got.code, got.stderr)
	require.NotContains(t, got.stdout, "FAILED")
	got = run(t, root, "test", "configs/...")
	require.Zero(t, got.code, got.stdout+got.stderr)
}

// pipelines returns the shipped configs that are pipelines.
func pipelines(t *testing.T) (paths []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "configs", "*.yaml"))
	require.NoError(t, err)
	for _, path := range found {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		var config map[string]any
		require.NoError(t, yaml.Unmarshal(withDefaults(raw), &config), path)
		if _, runs := config["input"]; runs {
			paths = append(paths, path)
		}
	}
	return paths
}

// withDefaults replaces environment variables with their defaults.
func withDefaults(config []byte) []byte {
	return regexp.MustCompile(`\$\{\w+:([^}]*)\}`).ReplaceAll(config, []byte("$1"))
}

func TestRunToTheEnd(t *testing.T) {
	dir := folder(t, map[string]string{"pipeline.yaml": `
http: { enabled: false }
input: { generate: { count: 3, interval: "", mapping: 'root.n = counter()' } }
output: { file: { path: out.jsonl, codec: lines } }
`})
	for _, args := range [][]string{{"-c", "pipeline.yaml"}, {"run", "pipeline.yaml"}} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "out.jsonl")))
		got := run(t, dir, args...)
		require.Zero(t, got.code, got.stderr)
		out, err := os.ReadFile(filepath.Join(dir, "out.jsonl"))
		require.NoError(t, err)
		require.Equal(t, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n", string(out))
	}
}

func TestRunRefusesABrokenConfig(t *testing.T) {
	dir := folder(t, map[string]string{"pipeline.yaml": "input: { stdin: {} }\noutput:\n  stdot: {}\n"})
	got := run(t, dir, "-c", "pipeline.yaml")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stdout+got.stderr, "stdot")
}

func TestStreams(t *testing.T) {
	address, api := process.AddressFor(t), process.AddressFor(t)
	dir := folder(t, map[string]string{
		"root.yaml":         "http: { address: " + address + " }\nprofiles: [ { label: shop, definition: profile.yaml, store: { embedded: { path: data } } } ]\n",
		"profile.yaml":      definition,
		"streams/shop.yaml": "input: { synthetic_shop: { rate: 200, customers: 1 } }\npipeline: { processors: [ update_profile: { profiles: shop } ] }\noutput: { drop: {} }\n",
		"streams/api.yaml":  "input: { profile_api: { profiles: shop, address: \"" + api + "\" } }\noutput: { drop: {} }\n",
	})
	streams := &process.Process{
		Name: "streams", Binary: binary, Args: []string{"streams", "-o", "root.yaml", "streams/shop.yaml", "streams/api.yaml"},
		Dir: dir, Log: filepath.Join(dir, "log"),
	}
	require.NoError(t, streams.Start())
	t.Cleanup(streams.Kill)

	get := func(url string) (string, error) {
		response, err := http.Get(url)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		var body bytes.Buffer
		_, err = body.ReadFrom(response.Body)
		return body.String(), err
	}
	require.Eventually(t, func() bool {
		body, err := get("http://" + address + "/ready")
		return err == nil && strings.HasPrefix(body, "OK")
	}, 30*time.Second, 50*time.Millisecond, "the streams did not start")
	require.Eventually(t, func() bool {
		body, err := get("http://" + api + "/api/customer/u-000001")
		return err == nil && strings.Contains(body, `"orders":`)
	}, 30*time.Second, 50*time.Millisecond, "one stream does not serve what the other stores")

	version, err := get("http://" + address + "/version")
	require.NoError(t, err)
	require.Regexp(t, `"version":"\d+\.\d+\.\d+`, version)

	streams.Signal(syscall.SIGTERM)
	require.NoError(t, streams.Wait(30*time.Second), streams.Tail())
}
