package enrich_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"database/sql"

	"github.com/alicebob/miniredis/v2"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/stretchr/testify/require"
)

// enrichFrom returns a pipeline that enriches from a source.
func enrichFrom(source, more string) string {
	return `
pipeline:
  threads: 1
  processors:
    - enrich:
        name: product
        key: this.properties.sku
        retries: 0
` + source + more
}

const bulk = `
        http:
          url: "%s"
          verb: POST
          bulk: true
          request: root.ids = this.keys
          response: 'root = this.items.map_each(i -> {(i.id): i.price}).squash()'
`

// shop is an API: the price of a sku is its length; the sku "none" has no price.
func shop(calls *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		var request struct{ IDs []string }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || slices.Contains(request.IDs, "poison") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		items := []any{}
		for _, id := range request.IDs {
			if id != "none" {
				items = append(items, map[string]any{"id": id, "price": len(id)})
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"items": items})
	}
}

func TestHTTPBulk(t *testing.T) {
	var calls atomic.Int64
	p := start(t, enrichFrom(fmt.Sprintf(bulk, serve(t, shop(&calls))), "        max_keys: 3\n"))
	in := []string{viewed("m1", "a"), viewed("m2", "bb"), viewed("m3", "a"), viewed("m4", "none"), viewed("m5", `q"&/ü`)}
	want := []string{with("m1", "a", "1"), with("m2", "bb", "2"), with("m3", "a", "1"), in[3], with("m5", `q"&/ü`, "6")}
	require.Equal(t, want, texts(t, p.run(in...)))
	require.EqualValues(t, 2, calls.Load(), "four keys, three in a call")
	require.Equal(t, want, texts(t, p.run(in...)))
	require.EqualValues(t, 2, calls.Load())
}

func TestHTTPInvalidKeyFailsAlone(t *testing.T) {
	var calls atomic.Int64
	p := start(t, enrichFrom(fmt.Sprintf(bulk, serve(t, shop(&calls))), ""))
	require.Equal(t, []string{with("m1", "a", "1"), marked("m2", "poison", "failed"), with("m3", "ccc", "3")},
		texts(t, p.run(viewed("m1", "a"), viewed("m2", "poison"), viewed("m3", "ccc"))))
}

func TestHTTPSingleKeys(t *testing.T) {
	var mu sync.Mutex
	var paths []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.Method+" "+r.RequestURI)
		mu.Unlock()
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "secret" || r.Header.Get("X-Shop") != "1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/p/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/p/empty":
			w.WriteHeader(http.StatusNoContent)
		case "/p/null":
			fmt.Fprint(w, `{"data":null}`)
		default:
			fmt.Fprintf(w, `{"data":{"path":%q,"n":12345678901234567890}}`, r.URL.Path)
		}
	})
	p := start(t, enrichFrom(`
        http:
          url: '`+url+`/p/${! this.key }'
          headers: { X-Shop: "1" }
          basic_auth: { username: me, password: secret }
          response: root = this.data
`, "        on_absent: mark\n"))
	var in, want []string
	for i, sku := range []string{"a", "gone", "empty", "null", "../x?y=1&z#", "..", "ü +"} {
		in = append(in, viewed(fmt.Sprint("m", i), sku))
		switch sku {
		case "gone", "empty", "null":
			want = append(want, marked(fmt.Sprint("m", i), sku, "absent"))
		default:
			want = append(want, with(fmt.Sprint("m", i), sku, fmt.Sprintf(`{"n":12345678901234567890,"path":%q}`, "/p/"+sku)))
		}
	}
	require.Equal(t, want, texts(t, p.run(in...)))
	slices.Sort(paths)
	require.Equal(t, []string{
		"GET /p/%2E%2E", "GET /p/%C3%BC%20%2B", "GET /p/..%2Fx%3Fy%3D1%26z%23", "GET /p/a", "GET /p/empty", "GET /p/gone", "GET /p/null",
	}, paths, "a key cannot get out of its place in the url")
}

func TestOAuth2AndBearerTokens(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"t1","token_type":"bearer","expires_in":3600}`)
			return
		}
		fmt.Fprintf(w, "%q", r.Header.Get("Authorization"))
	})
	for auth, want := range map[string]string{
		`oauth2: { client_id: me, client_secret: s, token_url: "` + url + `/token" }`: `"Bearer t1"`,
		`bearer_token: t2`: `"Bearer t2"`,
	} {
		p := start(t, enrichFrom("        http:\n          url: '"+url+"/${! this.key }'\n          "+auth+"\n", ""))
		require.Equal(t, []string{with("m1", "a", want)}, texts(t, p.run(viewed("m1", "a"))))
	}
}

// faults are handlers of a faulty HTTP API.
func faults(stop <-chan struct{}) map[string]http.HandlerFunc {
	reply := func(w http.ResponseWriter, text string) { _, _ = io.WriteString(w, text) }
	return map[string]http.HandlerFunc{
		"hangs": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-stop:
			}
		},
		"responds slowly": func(w http.ResponseWriter, r *http.Request) {
			for {
				reply(w, " ")
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		},
		"unbounded body": func(w http.ResponseWriter, r *http.Request) {
			reply(w, `{"items":"`)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		},
		"internal error": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"rate limited": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"forbidden":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"HTML":           func(w http.ResponseWriter, r *http.Request) { reply(w, "<html>") },
		"truncated JSON": func(w http.ResponseWriter, r *http.Request) { reply(w, `{"items":[{"id":"a","pri`) },
		"two documents":  func(w http.ResponseWriter, r *http.Request) { reply(w, `{"items":[]} {"items":[]}`) },
		"empty body":     func(w http.ResponseWriter, r *http.Request) {},
		"other JSON":     func(w http.ResponseWriter, r *http.Request) { reply(w, `{"error":"maintenance"}`) },
		"array":          func(w http.ResponseWriter, r *http.Request) { reply(w, `["a"]`) },
		"wrong length": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			reply(w, `{"items":[]}`)
		},
		"closes the connection": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"not HTTP":              hijack("HELO\r\n"),
		"long header":           hijack("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n\r\n"),
	}
}

func hijack(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}
}

// With every fault of the provider, a batch waits at most for the budget, other
// events and the pipeline's other enrichment are not affected, and the circuit
// opens. After the provider recovers, its values are written again.
func TestFaultyProviderIsIsolatedAndRecovers(t *testing.T) {
	const budget = 400 * time.Millisecond
	stop := make(chan struct{})
	defer close(stop)
	for name, handler := range faults(stop) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls, others atomic.Int64
			healthy := shop(&calls)
			var faulty atomic.Bool
			faulty.Store(true)
			broken := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if faulty.Load() {
					calls.Add(1)
					handler(w, r)
					return
				}
				healthy(w, r)
			})
			p := start(t, enrichFrom(fmt.Sprintf(bulk, broken), `
        timeout: 200ms
        budget: 400ms
        retries: 1
        retry_wait: 1ms
        circuit: { failures: 3, open_for: 500ms }
    - enrich:
        name: other
        key: this.properties.sku
`+fmt.Sprintf(bulk, serve(t, shop(&others)))))
			other := func(event string) string {
				var v map[string]any
				require.NoError(t, json.Unmarshal([]byte(event), &v))
				enriched, _ := v["context"].(map[string]any)["enrichment"].(map[string]any)
				return fmt.Sprint(enriched["other"])
			}
			var callsWhenOpen int64
			for i := range 6 {
				sku := fmt.Sprint("s", i)
				began := time.Now()
				out := texts(t, p.run(viewed("m1", sku), viewed("m2", "")))
				took := time.Since(began)
				// The tests of package lookup check the exact time with a fake clock.
				require.Less(t, took, 25*budget, "the budget, with a margin for a busy machine")
				require.Equal(t, viewed("m2", ""), out[1])
				require.Equal(t, "2", other(out[0]))
				require.Contains(t, out[0], `"enrichment_status":{"product":"`)
				if i == 4 {
					callsWhenOpen = calls.Load()
				}
			}
			require.Equal(t, callsWhenOpen, calls.Load(), "no calls while the circuit is open")

			faulty.Store(false)
			require.Eventually(t, func() bool {
				return strings.Contains(texts(t, p.run(viewed("m1", "back")))[0], `"product":4`)
			}, 20*time.Second, 20*time.Millisecond)
			require.NotContains(t, texts(t, p.run(viewed("m1", "back")))[0], "enrichment_status")
		})
	}
}

func TestUnreachableProviderOpensTheCircuit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_ = l.Close()
	for name, place := range map[string]string{
		"http":     fmt.Sprintf(bulk, "http://"+l.Addr().String()),
		"redis":    "        redis: { url: \"redis://" + l.Addr().String() + "\" }\n",
		"postgres": "        sql: { driver: postgres, dsn: \"postgres://u:p@" + l.Addr().String() + "/d\", query: 'SELECT sku FROM p WHERE sku IN ({keys})', key_column: sku }\n",
		"mysql":    "        sql: { driver: mysql, dsn: \"u:p@tcp(" + l.Addr().String() + ")/d\", query: 'SELECT sku FROM p WHERE sku IN ({keys})', key_column: sku }\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, enrichFrom(place, "        circuit: { failures: 1, open_for: 1h }\n"))
			require.Equal(t, []string{marked("m1", "a", "failed")}, texts(t, p.run(viewed("m1", "a"))))
			require.Equal(t, []string{marked("m1", "a", "open")}, texts(t, p.run(viewed("m1", "a"))))
		})
	}
}

func TestRedis(t *testing.T) {
	for kind, want := range map[string]string{"json": `{"price":5}`, "string": `"{\"price\":5}"`, "hash": `{"price":"5"}`} {
		t.Run(kind, func(t *testing.T) {
			server := miniredis.RunT(t)
			server.RequireAuth("secret")
			if kind == "hash" {
				server.HSet("product:a", "price", "5")
				require.NoError(t, server.Set("product:list", "x"))
			} else {
				require.NoError(t, server.Set("product:a", `{"price":5}`))
				_, err := server.Push("product:list", "x")
				require.NoError(t, err)
			}
			p := start(t, enrichFrom(`
        redis:
          url: "redis://:secret@`+server.Addr()+`"
          redis_key: 'product:${! this.key }'
          type: `+kind+"\n", ""))
			out := texts(t, p.run(viewed("m1", "a"), viewed("m2", "none"), viewed("m3", "list")))
			require.Equal(t, []string{with("m1", "a", want), viewed("m2", "none")}, out[:2])
			if kind == "hash" { // MGET treats a list as absent
				require.Equal(t, marked("m3", "list", "failed"), out[2])
			}

			server.Close()
			require.Equal(t, []string{with("m1", "a", want), marked("m4", "b", "failed")}, texts(t, p.run(viewed("m1", "a"), viewed("m4", "b"))))
			require.NoError(t, server.Restart())
			if kind == "hash" {
				server.HSet("product:b", "price", "5")
			} else {
				require.NoError(t, server.Set("product:b", `{"price":5}`))
			}
			require.Equal(t, []string{with("m4", "b", want)}, texts(t, p.run(viewed("m4", "b"))))
		})
	}
}

func TestSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.Exec(`CREATE TABLE products (sku TEXT, category TEXT, price REAL, n INTEGER, note BLOB);
		INSERT INTO products VALUES ('a', 'shoes', 1.5, 3, NULL), ('b''; DROP TABLE products; --', 'hats', 2, 4, x'6869'), ('7', 'seven', 7, 7, NULL), ('a', 'twice', 0, 0, NULL)`)
	require.NoError(t, err)
	p := start(t, enrichFrom(`
        sql:
          driver: sqlite
          dsn: "file:`+path+`?mode=ro"
          query: SELECT * FROM products WHERE sku IN ({keys}) ORDER BY rowid
          key_column: sku
`, ""))
	evil := `b'; DROP TABLE products; --`
	in := []string{viewed("m1", "a"), viewed("m2", evil), viewed("m3", "7"), viewed("m4", "none"), viewed("m5", "")}
	require.Equal(t, []string{
		with("m1", "a", `{"category":"shoes","n":3,"note":null,"price":1.5}`),
		with("m2", evil, `{"category":"hats","n":4,"note":"hi","price":2}`),
		with("m3", "7", `{"category":"seven","n":7,"note":null,"price":7}`),
		in[3], in[4],
	}, texts(t, p.run(in...)))
}

func mmdb(t testing.TB, path string, networks map[string]string) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", IncludeReservedNetworks: true})
	require.NoError(t, err)
	for network, country := range networks {
		prefix := netip.MustParsePrefix(network)
		_, ipNet, err := net.ParseCIDR(prefix.String())
		require.NoError(t, err)
		require.NoError(t, tree.Insert(ipNet, mmdbtype.Map{
			"country": mmdbtype.Map{"iso_code": mmdbtype.String(country)}, "geoname_id": mmdbtype.Uint32(42),
		}))
	}
	next := path + ".next"
	f, err := os.Create(next)
	require.NoError(t, err)
	_, err = tree.WriteTo(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.Rename(next, path))
}

func TestMaxMind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "city.mmdb")
	mmdb(t, path, map[string]string{"203.0.113.0/24": "DE", "2001:db8::/32": "FR"})
	p := start(t, enrichFrom("        mmdb: { path: "+path+", reload_interval: 2ms }\n", ""))
	value := func(country string) string { return `{"country":{"iso_code":"` + country + `"},"geoname_id":42}` }
	in := []string{viewed("m1", "203.0.113.9"), viewed("m2", "2001:db8::1"), viewed("m3", "::ffff:203.0.113.9"), viewed("m4", "198.51.100.1"), viewed("m5", "no address")}
	require.Equal(t, []string{
		with("m1", "203.0.113.9", value("DE")), with("m2", "2001:db8::1", value("FR")), with("m3", "::ffff:203.0.113.9", value("DE")), in[3], in[4],
	}, texts(t, p.run(in...)))

	mmdb(t, path, map[string]string{"203.0.113.0/24": "NL"})
	require.Eventually(t, func() bool {
		return texts(t, p.run(in[0]))[0] == with("m1", "203.0.113.9", value("NL"))
	}, 20*time.Second, 5*time.Millisecond)
}

func TestCSVFileIsReloadedAndInvalidVersionsAreIgnored(t *testing.T) {
	path := write(t, "products.csv", "sku,n\na,1\n")
	p := start(t, strings.Replace(csvOf(path, "        result: root = this.value.n\n"), "reload_interval: 0s", "reload_interval: 2ms", 1))
	value := func() string { return texts(t, p.run(viewed("m1", "a")))[0] }
	require.Equal(t, with("m1", "a", `"1"`), value())
	replace := func(content string) {
		require.NoError(t, os.WriteFile(path+".next", []byte(content), 0o600))
		require.NoError(t, os.Rename(path+".next", path))
	}
	replace("sku,n\na,22\n")
	require.Eventually(t, func() bool { return value() == with("m1", "a", `"22"`) }, 20*time.Second, 5*time.Millisecond)
	for _, wrong := range []string{"", "n\n1\n", "sku,n\na,1\na,2\n", "sku,n\na\n", "sku,n\n\"a,1\n", "sku,n\n\xff,1\n"} {
		replace(wrong)
		for range 5 {
			time.Sleep(3 * time.Millisecond) // time for at least one check of the file
			require.Equal(t, with("m1", "a", `"22"`), value())
		}
	}
	require.NoError(t, os.Remove(path))
	require.Equal(t, with("m1", "a", `"22"`), value())
	replace("\ufeffsku,n\r\na,333\r\n")
	require.Eventually(t, func() bool { return value() == with("m1", "a", `"333"`) }, 20*time.Second, 5*time.Millisecond)
}

func TestCacheResourceIsShared(t *testing.T) {
	var calls atomic.Int64
	url := serve(t, shop(&calls))
	one := enrichFrom(fmt.Sprintf(bulk, url), "        cache: { shared: enrichments }\n")
	second := strings.TrimPrefix(strings.Split(one, "processors:")[1], "\n")
	// Two enrichments with the same name behave like two processes.
	p := start(t, one+strings.Replace(second, "key: this", "target: properties.again\n        key: this", 1)+`
cache_resources:
  - label: enrichments
    memory: {}
`)
	e := with("m1", "abc", "3")
	require.Equal(t, []string{strings.Replace(e, `"sku":"abc"`, `"sku":"abc","again":3`, 1)}, texts(t, p.run(viewed("m1", "abc"))))
	require.EqualValues(t, 1, calls.Load())
}

func TestRateLimitDelaysCalls(t *testing.T) {
	var calls atomic.Int64
	p := start(t, enrichFrom(fmt.Sprintf(bulk, serve(t, shop(&calls))), "        rate_limit: slow\n        budget: 3s\n")+`
rate_limit_resources:
  - label: slow
    local: { count: 1, interval: 1h }
`)
	require.Equal(t, []string{with("m1", "a", "1")}, texts(t, p.run(viewed("m1", "a"))))
	require.Equal(t, []string{marked("m1", "b", "timed_out")}, texts(t, p.run(viewed("m1", "b"))))
	require.EqualValues(t, 1, calls.Load())
}
