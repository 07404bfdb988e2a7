package profileapioutput

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/delivery"
)

func TestTransportErrorsContainNoAddressAndNoResponse(t *testing.T) {
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, text)
				_ = conn.Close()
			}
		}
	}
	send := func(t *testing.T, server *httptest.Server, timeout time.Duration) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		inner := &http.Transport{}
		defer inner.CloseIdleConnections()
		_, err := newTransport(inner)(ctx, &delivery.Request{Target: delivery.Target{
			Method: "POST", URL: server.URL + "/hook?token=s3cret", Header: delivery.Header{"X-Key": {"s3cret"}},
		}})
		require.Error(t, err)
		require.NotRegexp(t, `s3cret|hook|jo|example|127\.0`, err.Error())
		return err
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"not HTTP":      {raw("220 jo@example.com\r\n"), "not HTTP"},
		"truncated":     {raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\njo@exam"), "before the end"},
		"empty":         {raw(""), "before the end"},
		"invalid chunk": {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\njo@example.com\r\n"), "not HTTP"},
		"hangs":         {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no response in time"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			timeout := patience
			if name == "hangs" {
				timeout = 100 * time.Millisecond
			}
			require.ErrorContains(t, send(t, server, timeout), c.want)
		})
	}
	t.Run("connection refused", func(t *testing.T) {
		server := httptest.NewServer(nil)
		server.Close()
		require.ErrorContains(t, send(t, server, patience), "connection refused")
	})
}

func TestTransportDoesNotFollowRedirects(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("http://jo.example.com/", http.StatusFound))
	defer server.Close()
	response, err := newTransport(&http.Transport{DisableKeepAlives: true})(t.Context(), &delivery.Request{Target: delivery.Target{Method: "GET", URL: server.URL}})
	require.NoError(t, err)
	require.Equal(t, http.StatusFound, response.Status)
	require.Equal(t, "http://jo.example.com/", response.Header.Get("Location"))
}
