package profileapi

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"context"

	"github.com/stretchr/testify/require"
)

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "br, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.000": false,
		"*": true, "*;q=0": false, "*;q=0, gzip": true, "gzip;q=0, *": false, "br": false, "gzip;q=x": false, "x-gzipped": false,
	} {
		require.Equal(t, want, acceptsGzip([]string{header}), "%q", header)
	}
	require.False(t, acceptsGzip(nil))
}

func manyIDs(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("c%04d", i))
	}
	return ids
}

// askBatch reads a batch and returns the response, its body as it was sent.
func askBatch(t *testing.T, s *server, ids []string, header http.Header) *http.Response {
	t.Helper()
	body, err := json.Marshal(map[string]any{"ids": ids})
	require.NoError(t, err)
	request, err := http.NewRequest(http.MethodPost, s.url+"/api/customers/batch", strings.NewReader(string(body)))
	require.NoError(t, err)
	request.Header = header
	request.Header.Set("Content-Type", typeJSON)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	response, err := client.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// TestBatchesAreCompressed: the same bytes arrive, fewer on the way, whether
// the answer is one object or lines.
func TestBatchesAreCompressed(t *testing.T) {
	ids := manyIDs(700)
	s := serve(t, withProfiles(ids[:650]...), "")
	for _, accept := range []string{typeJSON, typeNDJSON} {
		plain, err := io.ReadAll(askBatch(t, s, ids, http.Header{"Accept": {accept}}).Body)
		require.NoError(t, err)
		response := askBatch(t, s, ids, http.Header{"Accept": {accept}, "Accept-Encoding": {"gzip"}})
		require.Equal(t, "gzip", response.Header.Get("Content-Encoding"))
		require.Contains(t, response.Header.Values("Vary"), "Accept-Encoding")
		packed, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Less(t, len(packed), len(plain)/4)
		unpacker, err := gzip.NewReader(strings.NewReader(string(packed)))
		require.NoError(t, err)
		again, err := io.ReadAll(unpacker)
		require.NoError(t, err)
		require.Equal(t, string(plain), string(again))
	}
	small := askBatch(t, s, ids[:3], http.Header{"Accept-Encoding": {"gzip"}})
	require.Empty(t, small.Header.Get("Content-Encoding"), "not worth it")
}

// TestNDJSONIsStreamed: lines are on their way before the last customers are
// read, in order; a store that goes away meanwhile costs those only.
func TestNDJSONIsStreamed(t *testing.T) {
	ids := manyIDs(2*linesAtOnce + 1)
	f := withProfiles(ids[1:]...)
	proceed := make(chan struct{})
	f.onRead = func(_ context.Context, asked []string) error {
		switch asked[0] {
		case ids[0]:
			return nil
		case ids[linesAtOnce]:
			<-proceed
			return nil
		}
		return errors.New("away")
	}
	s := serve(t, f, "limits: { batch_ids: 5000 }")
	response := askBatch(t, s, ids, http.Header{"Accept": {typeNDJSON}})
	require.Equal(t, http.StatusOK, response.StatusCode)
	lines := bufio.NewScanner(response.Body)
	for i, id := range ids {
		if i == linesAtOnce/2 {
			close(proceed)
		}
		require.True(t, lines.Scan())
		var line struct {
			ID      string
			Found   *bool
			Profile json.RawMessage
			Error   *struct{ Code string }
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
		require.Equal(t, id, line.ID)
		switch {
		case i == 0:
			require.False(t, *line.Found)
		case i < 2*linesAtOnce:
			require.True(t, *line.Found)
			require.JSONEq(t, profileOf(id), string(line.Profile))
		default:
			require.Nil(t, line.Found)
			require.Equal(t, "store_unavailable", line.Error.Code)
		}
	}
	require.False(t, lines.Scan())
}
