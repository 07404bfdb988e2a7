package privacy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// platform is a third-party server that receives data of customers. It fails in
// every way a server can, and repeats the received data in each response.
type platform struct {
	*httptest.Server
	mu       sync.Mutex
	received int
}

// failures is the number of ways to fail; after each cycle one request succeeds.
const failures = 9

func misbehave(t *testing.T) *platform {
	p := &platform{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		failure := p.received
		if !strings.HasPrefix(r.URL.Path, "/refuse/") {
			p.received++
		}
		p.mu.Unlock()
		echo := fmt.Sprintf(`{"error":"no %s","path":%q,"body":%q,"errors":[]}`, r.Header.Get("Authorization"), r.URL.Path, body)
		if strings.HasPrefix(r.URL.Path, "/refuse/") {
			failure = 0
		}
		switch failure % (failures + 1) {
		case 0: // rejects, and echoes the request
			http.Error(w, echo, http.StatusBadRequest)
		case 1:
			http.Error(w, echo, http.StatusInternalServerError)
		case 2: // breaks
			panic(http.ErrAbortHandler)
		case 3: // hangs
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		case 4: // redirects
			http.Redirect(w, r, "http://"+mark("redirect")+".example.invalid"+r.URL.Path, http.StatusFound)
		case 5: // breaks the protocol
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_, _ = io.WriteString(conn, echo+"\r\n\r\n")
				_ = conn.Close()
			}
		case 6: // ends early
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, echo)
		case 7: // sends malformed JSON
			_, _ = io.WriteString(w, `{"errors": "`+mark("answer")+` `+echo)
		case 8: // rejects one customer, with personal data in the reason
			fmt.Fprintf(w, `{"errors":[{"customer":%q,"reason":"%s is taken"}]}`, mark("known"), mark("reason"))
		default:
			_, _ = io.WriteString(w, `{"errors":[]}`)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *platform) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.received
}
