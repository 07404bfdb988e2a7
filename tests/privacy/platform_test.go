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

// platform is a server of somebody else's that is told about customers. It
// answers in every way that it should not, and says what it was told in each.
type platform struct {
	*httptest.Server
	mu    sync.Mutex
	asked int
}

// ways are how often each way is gone through before all is well.
const ways = 9

func misbehave(t *testing.T) *platform {
	p := &platform{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		way := p.asked
		if !strings.HasPrefix(r.URL.Path, "/refuse/") {
			p.asked++
		}
		p.mu.Unlock()
		echo := fmt.Sprintf(`{"error":"no %s","path":%q,"body":%q,"errors":[]}`, r.Header.Get("Authorization"), r.URL.Path, body)
		if strings.HasPrefix(r.URL.Path, "/refuse/") {
			way = 0
		}
		switch way % (ways + 1) {
		case 0: // refuses, with all it knows
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
		case 4: // sends elsewhere
			http.Redirect(w, r, "http://"+mark("redirect")+".example.invalid"+r.URL.Path, http.StatusFound)
		case 5: // is no HTTP
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_, _ = io.WriteString(conn, echo+"\r\n\r\n")
				_ = conn.Close()
			}
		case 6: // ends early
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, echo)
		case 7: // is not understood
			_, _ = io.WriteString(w, `{"errors": "`+mark("answer")+` `+echo)
		case 8: // refuses somebody for a reason that is not one word
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
	return p.asked
}
