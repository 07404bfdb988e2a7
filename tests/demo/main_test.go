//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// TestDemo does as a newcomer: it starts the demo, runs the two printed commands and
// interrupts it.
func TestDemo(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	bin, data := t.TempDir(), filepath.Join(t.TempDir(), "demo")
	program, err := process.Build(t.Context(), bin)
	require.NoError(t, err)
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "./tests/demo")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	demo := exec.Command(filepath.Join(bin, "demo"), "-binary", program, "-data", data)
	demo.Dir = root
	demo.Env = append(os.Environ(), "COLLECTOR_ADDRESS="+process.AddressFor(t), "PROFILE_API_ADDRESS="+process.AddressFor(t), "HTTP_ADDRESS="+process.AddressFor(t))
	demo.Stderr = os.Stderr
	stdout, err := demo.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, demo.Start())
	t.Cleanup(func() { _ = demo.Process.Kill() })

	var printed strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		printed.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			break
		}
	}
	commands := regexp.MustCompile(`(?s)curl (\S+/api/customer/\S+)\s+curl -u demo: (\S+) .* -d '([^']+)'`).FindStringSubmatch(printed.String())
	require.NotNil(t, commands, printed.String())
	profileURL, trackURL, event := commands[1], commands[2], commands[3]

	before := viewed(t, profileURL)
	request, err := http.NewRequest(http.MethodPost, trackURL, strings.NewReader(event))
	require.NoError(t, err)
	request.SetBasicAuth("demo", "")
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode, string(answer))
	// The shop may have added views meanwhile.
	require.Greater(t, viewed(t, profileURL), before, "the event counts as soon as it is acknowledged")

	require.Eventually(t, func() bool {
		changes, err := os.ReadFile(filepath.Join(data, "changes.jsonl"))
		return err == nil && strings.Contains(string(changes), `"event":"Segment Entered"`) && strings.Contains(string(changes), `"event":"Trigger Fired"`)
	}, time.Minute, 200*time.Millisecond, "segments are entered and triggers fire within a minute")

	require.NoError(t, demo.Process.Signal(os.Interrupt))
	rest := make(chan string)
	go func() {
		text, _ := io.ReadAll(stdout)
		rest <- string(text)
	}()
	select {
	case text := <-rest:
		require.Contains(t, text, "Stopped.")
	case <-time.After(30 * time.Second):
		t.Fatal("it did not stop when interrupted")
	}
	require.NoError(t, demo.Wait())
}

// viewed returns the number of products that the customer viewed in 7 days.
func viewed(t *testing.T, profileURL string) float64 {
	t.Helper()
	response, err := http.Get(profileURL)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	var profile struct {
		Features struct {
			Viewed float64 `json:"products_viewed_7d"`
		}
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&profile))
	return profile.Features.Viewed
}

func TestDemoReportsTheLogOfAFailedStart(t *testing.T) {
	for _, e := range []endpoint{collector, api, metrics} {
		t.Setenv(e.variable, process.AddressFor(t))
	}
	binary, err := exec.LookPath("false")
	require.NoError(t, err)
	err = run(binary, "config.yaml", t.TempDir(), 10*time.Second)
	require.ErrorContains(t, err, "connect-personalize ended (exit status 1)")
}

func TestDemoRefusesATakenAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	t.Setenv(collector.variable, process.AddressFor(t))
	t.Setenv(api.variable, listener.Addr().String())
	err = run("unused", "unused", t.TempDir(), time.Second)
	require.ErrorContains(t, err, listener.Addr().String()+" is taken: end what listens there, or set PROFILE_API_ADDRESS")
}

// The definitions differ in triggers only.
func TestQuickstartUsesTheProfileOfTheShop(t *testing.T) {
	read := func(path string) map[string]any {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var definition map[string]any
		require.NoError(t, yaml.Unmarshal(text, &definition))
		delete(definition, "messages")
		delete(definition, "triggers")
		return definition
	}
	require.Equal(t, read("../../configs/retail/profile.yaml"), read("../../configs/quickstart_profile.yaml"))
}
