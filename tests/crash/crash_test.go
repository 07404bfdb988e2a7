//go:build unix

// Package crash kills the distribution while it receives events, and checks that each
// acknowledged event counts exactly once.
package crash

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// server is the quickstart, which can be killed and restarted.
type server struct {
	*process.Process
	t              *testing.T
	collector, api string
}

func (s *server) start() {
	require.NoError(s.t, s.Start())
	require.NoError(s.t, s.Serves(s.t.Context(), "http://"+s.api+"/readyz"))
}

// post sends a batch until it is acknowledged.
func (s *server) post(client *http.Client, body []byte, stop <-chan struct{}) bool {
	for {
		request, err := http.NewRequest(http.MethodPost, "http://"+s.collector+"/v1/batch", bytes.NewReader(body))
		if err != nil {
			return false
		}
		request.SetBasicAuth("demo", "")
		response, err := client.Do(request)
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-stop:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Clients retry batches until they are acknowledged, while the process is killed and
// restarted. Afterwards every event counts exactly once.
func TestAcknowledgedEventsSurviveKills(t *testing.T) {
	data := t.TempDir()
	binary, err := process.Build(t.Context(), data)
	require.NoError(t, err)
	s := &server{t: t, collector: process.AddressFor(t), api: process.AddressFor(t)}
	s.Process = &process.Process{
		Name: "quickstart", Binary: binary, Dir: "../..", Config: "configs/quickstart.yaml", Log: filepath.Join(data, "log"),
		Env: []string{
			"COLLECTOR_ADDRESS=" + s.collector, "PROFILE_API_ADDRESS=" + s.api, "HTTP_ADDRESS=" + process.AddressFor(t),
			"PROFILE_DIR=" + filepath.Join(data, "profiles"), "DATA_DIR=" + data, "SHOP_RATE=20",
		},
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(s.Log)
			t.Logf("the end of the log:\n%s", text[max(0, len(text)-3000):])
		}
	})
	s.start()

	const clients, batches, size = 4, 400, 20
	stop := make(chan struct{})
	var sending sync.WaitGroup
	for c := range clients {
		sending.Add(1)
		go func() {
			defer sending.Done()
			client := &http.Client{Timeout: 5 * time.Second}
			for b := range batches {
				var events []json.RawMessage
				for i := range size {
					// The total of every third event is not a number. The event must
					// become a dead letter, and must not count.
					total := "1.25"
					if i%3 == 2 {
						total = `"much"`
					}
					events = append(events, fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"c%d-b%d-i%d","userId":"crash-%d","timestamp":%q,"properties":{"order_id":"o","total":%s}}`,
						c, b, i, c, time.Now().UTC().Format(time.RFC3339Nano), total))
				}
				body, err := json.Marshal(map[string]any{"batch": events})
				if err != nil {
					panic(err)
				}
				if !s.post(client, body, stop) {
					return
				}
			}
		}()
	}
	finished := make(chan struct{})
	go func() { sending.Wait(); close(finished) }()

	kills := 0
	deadline := time.After(2 * time.Minute)
kill:
	for {
		select {
		case <-finished:
			break kill
		case <-deadline:
			close(stop)
			t.Fatal("the events were not acknowledged in time")
		case <-time.After(time.Duration(50+rand.IntN(250)) * time.Millisecond):
			if kills < 8 {
				s.Kill()
				kills++
				s.start()
			}
		}
	}
	require.GreaterOrEqual(t, kills, 2)
	t.Logf("killed %d times", kills)

	good := 0
	for i := range size {
		if i%3 != 2 {
			good++
		}
	}
	for c := range clients {
		response, err := http.Get(fmt.Sprintf("http://%s/api/customer/crash-%d?fields=features.orders,features.revenue", s.api, c))
		require.NoError(t, err)
		var profile struct {
			Features struct{ Orders, Revenue float64 }
		}
		require.NoError(t, json.NewDecoder(response.Body).Decode(&profile))
		response.Body.Close()
		require.Equal(t, float64(batches*good), profile.Features.Orders, "customer %d", c)
		require.Equal(t, float64(batches*good)*1.25, profile.Features.Revenue, "customer %d", c)
	}
	// A dead letter may be written again after a crash, with the same id. None may be
	// missing.
	letters, err := os.ReadFile(filepath.Join(data, "dead_letters.jsonl"))
	require.NoError(t, err)
	set := map[string]bool{}
	for line := range bytes.Lines(letters) {
		var letter struct{ ID, Original string }
		if json.Unmarshal(line, &letter) != nil {
			continue // the line was cut off by a kill
		}
		if bytes.Contains([]byte(letter.Original), []byte(`"userId":"crash-`)) {
			var event struct {
				MessageID string `json:"messageId"`
			}
			require.NoError(t, json.Unmarshal([]byte(letter.Original), &event))
			set[event.MessageID] = true
		}
	}
	require.Len(t, set, clients*batches*(size-good))
}
