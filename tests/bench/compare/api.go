package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// api is our API, webdis and a bare net/http server on the same profiles.
type api struct {
	// Addresses. ours has the default settings and has read every profile; cold has no
	// cache.
	ours, cold, webdis, bare string
	debug                    map[string]string // of our profiles, by address, if wanted
	processes                []*command
	bodyBytes                int
	customers                int
}

func (a *api) stop() {
	for _, p := range a.processes {
		p.stop()
	}
}

const webdisConfig = `{
  "redis_host": %q, "redis_port": %s, "http_host": "127.0.0.1", "http_port": %s,
  "threads": 2, "pool_size": 20, "daemonize": false, "websockets": false,
  "database": 0, "verbosity": 0, "logfile": %q,
  "acl": [{ "disabled": ["DEBUG"] }]
}`

// startAPI serves the profiles in the server, and values of the size of a profile as
// JSON.
func (b *bench) startAPI(ctx context.Context) (a *api, err error) {
	if err := b.need(ctx, "wrk", "wrk"); err != nil {
		return nil, err
	}
	if err := b.need(ctx, "webdis", "webdis"); err != nil {
		return nil, err
	}
	a = &api{customers: b.sizes.api}
	defer func() {
		if err != nil {
			a.stop()
		}
	}()
	if a.ours, err = b.startOurs(ctx, a); err != nil {
		return nil, err
	}
	if a.cold, err = b.startOurs(ctx, a, "CACHE_BYTES=0"); err != nil {
		return nil, err
	}
	if err := a.warm(); err != nil {
		return nil, err
	}
	total := 0
	const sample = 200
	for i := range sample {
		body, err := get("http://" + a.ours + "/api/customer/" + customerID(i*a.customers/sample))
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(body, []byte(`"orders_30d"`)) {
			return nil, fmt.Errorf("a profile has no features: %s", body)
		}
		total += len(body)
	}
	a.bodyBytes = total / sample
	b.say("a profile is %d bytes of JSON", a.bodyBytes)
	if err := b.server.fill(ctx, a.customers, a.bodyBytes, rawKey, numberedKey); err != nil {
		return nil, err
	}

	if a.webdis, err = process.FreeAddress(); err != nil {
		return nil, err
	}
	host, port := b.server.hostPort()
	config := filepath.Join(b.dir, "webdis.json")
	text := fmt.Sprintf(webdisConfig, host, port, a.webdis[len("127.0.0.1:"):], filepath.Join(b.dir, "webdis.log"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	webdis, err := b.start(ctx, nil, nil, "webdis", config)
	if err != nil {
		return nil, err
	}
	a.processes = append(a.processes, webdis)
	err = webdis.waitFor(func() error {
		body, err := get("http://" + a.webdis + "/GET/" + rawKey(0) + ".txt")
		if err == nil && len(body) != a.bodyBytes {
			err = fmt.Errorf("webdis answers %d bytes, not %d", len(body), a.bodyBytes)
		}
		return err
	})
	if err != nil {
		return nil, err
	}

	if a.bare, err = process.FreeAddress(); err != nil {
		return nil, err
	}
	bare, err := b.start(ctx, nil, nil, b.bare, a.bare, strconv.Itoa(a.bodyBytes))
	if err != nil {
		return nil, err
	}
	a.processes = append(a.processes, bare)
	return a, bare.waitFor(func() error { _, err := get("http://" + a.bare + "/"); return err })
}

// startOurs starts our API and returns its address.
func (b *bench) startOurs(ctx context.Context, a *api, env ...string) (string, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return "", err
	}
	env = append(env, "API_ADDRESS="+address, "REDIS_URL="+b.server.url)
	if b.profiles != "" {
		debug, err := process.FreeAddress()
		if err != nil {
			return "", err
		}
		if a.debug == nil {
			a.debug = map[string]string{}
		}
		a.debug[address] = debug
		env = append(env, "HTTP_ENABLED=true", "HTTP_ADDRESS="+debug)
	}
	p, err := b.start(ctx, env, nil, b.ours, "run", "tests/bench/configs/api.yaml")
	if err != nil {
		return "", err
	}
	a.processes = append(a.processes, p)
	return address, p.waitFor(func() error { _, err := get("http://" + address + "/readyz"); return err })
}

// warm reads every profile a few times.
func (a *api) warm() error {
	for range 3 {
		for at := 0; at < a.customers; at += batchIDs {
			var ids []string
			for i := at; i < min(at+batchIDs, a.customers); i++ {
				ids = append(ids, customerID(i))
			}
			body, err := json.Marshal(map[string]any{"ids": ids})
			if err != nil {
				return err
			}
			response, err := http.Post("http://"+a.ours+"/api/customers/batch", "application/json", bytes.NewReader(body))
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil {
				return err
			}
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("a batch read answers %s", response.Status)
			}
		}
	}
	return nil
}

func rawKey(n int) string { return fmt.Sprintf("raw-%07d", n) }

// numberedKey returns a key that redis-benchmark can generate.
func numberedKey(n int) string { return fmt.Sprintf("n:%012d", n) }

func get(url string) ([]byte, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	err = errors.Join(err, response.Body.Close())
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET answers %s", response.Status)
	}
	return body, err
}

// load is the result of one run of wrk.
type load struct {
	Name        string  `json:"name"`
	Connections int     `json:"connections"`
	Requests    int     `json:"requests"`
	Seconds     float64 `json:"seconds"`
	Bytes       int64   `json:"bytes"`
	Errors      int     `json:"errors"`
	P50         float64 `json:"p50_us"`
	P99         float64 `json:"p99_us"`
	P999        float64 `json:"p999_us"`
}

func (l load) rate() float64 { return float64(l.Requests) / l.Seconds }

type loads []load

func (all loads) of(name string, connections int) (chosen loads) {
	for _, l := range all {
		if l.Name == name && l.Connections == connections {
			chosen = append(chosen, l)
		}
	}
	return chosen
}

// wrk loads a server with one of the scripts of the folder load.
func (b *bench) wrk(ctx context.Context, script, address string, connections int, args ...string) (l load, err error) {
	threads := min(connections, 2)
	command := []string{
		"wrk", "-t", strconv.Itoa(threads), "-c", strconv.Itoa(connections), "-d", strconv.Itoa(int(b.sizes.load / time.Second)),
		"--timeout", "10s", "-s", "tests/bench/load/" + script, "http://" + address, "--",
	}
	out, err := b.run(ctx, append(command, args...)...)
	if err != nil {
		return l, err
	}
	at := bytes.LastIndexByte(out, '{')
	if at < 0 {
		return l, fmt.Errorf("wrk printed no result:\n%s", out)
	}
	if err := json.Unmarshal(out[at:], &l); err != nil {
		return l, fmt.Errorf("wrk printed %q: %w", out[at:], err)
	}
	l.Connections = connections
	if l.Errors > 0 {
		b.say("%d of %d requests failed", l.Errors, l.Requests)
	}
	return l, nil
}

// side is one of the compared servers.
type side struct {
	name, address string
	args          []string
}

func (s side) kind() string { return strings.NewReplacer(" ", "", ",", "-").Replace(s.name) }

// reads measures single reads of each server in turn.
func (b *bench) reads(ctx context.Context, a *api, connections []int, hot bool) (loads, error) {
	customers := strconv.Itoa(a.customers)
	sides := []side{
		{"ours", a.ours, []string{"/api/customer/u-", "", customers}},
		{"ours, no cache", a.cold, []string{"/api/customer/u-", "", customers}},
		{"webdis", a.webdis, []string{"/GET/raw-", ".txt", customers}},
		{"net/http", a.bare, []string{"/", "", customers}},
	}
	if hot {
		sides = append(sides, side{"ours, no cache, 100 customers", a.cold, []string{"/api/customer/u-", "", "100"}})
	}
	var all loads
	for round := range b.sizes.rounds {
		for _, c := range connections {
			for _, side := range sides {
				if debug := a.debug[side.address]; debug != "" {
					go b.profile(ctx, fmt.Sprintf("read-%d-%s", c, side.kind()), debug)
				}
				l, err := b.wrk(ctx, "get.lua", side.address, c, side.args...)
				if err != nil {
					return nil, err
				}
				l.Name = side.name
				b.say("round %d: %-29s %5d connections: %8s requests/s, p50 %.2f ms, p99 %.2f ms", round+1, l.Name, c, thousands(l.rate()), l.P50/1e3, l.P99/1e3)
				all = append(all, l)
			}
		}
	}
	return all, nil
}

var benchmarkRate = regexp.MustCompile(`([\d.]+) requests per second`)

const (
	batchIDs         = 1000
	batchConnections = 4
)

// batchRates are profiles per second by batch reads, and values per second by
// redis-benchmark.
type batchRates struct{ ours, cold, wide, narrow []float64 }

// batchReads measures batch reads and redis-benchmark, with the same number of
// connections and pipelined reads, and with the settings of its manual.
func (b *bench) batchReads(ctx context.Context, a *api) (rates batchRates, err error) {
	for round := range b.sizes.rounds {
		for _, side := range []struct {
			name, address string
			into          *[]float64
		}{{"batches", a.ours, &rates.ours}, {"batches, no cache", a.cold, &rates.cold}} {
			if debug := a.debug[side.address]; debug != "" {
				go b.profile(ctx, strings.ReplaceAll(side.name, ", no ", "-no-"), debug)
			}
			l, err := b.wrk(ctx, "batch.lua", side.address, batchConnections, "/api/customers/batch", "u-", strconv.Itoa(a.customers), strconv.Itoa(batchIDs))
			if err != nil {
				return rates, err
			}
			if l.Bytes < int64(l.Requests)*batchIDs*int64(a.bodyBytes)/2 {
				return rates, fmt.Errorf("batch reads answered %d bytes in %d requests: too little to be the profiles", l.Bytes, l.Requests)
			}
			*side.into = append(*side.into, l.rate()*batchIDs)
			b.say("round %d: %s: %s profiles/s, p50 %.1f ms, p99 %.1f ms", round+1, side.name, thousands(l.rate()*batchIDs), l.P50/1e3, l.P99/1e3)
		}
		wide, err := b.redisBenchmark(ctx, a, batchConnections, batchIDs)
		if err != nil {
			return rates, err
		}
		narrow, err := b.redisBenchmark(ctx, a, 50, 16)
		if err != nil {
			return rates, err
		}
		rates.wide, rates.narrow = append(rates.wide, wide), append(rates.narrow, narrow)
		b.say("round %d: redis-benchmark %s, with 16 at a time %s", round+1, thousands(wide), thousands(narrow))
	}
	return rates, nil
}

// redisBenchmark reads values for about as long as wrk runs.
func (b *bench) redisBenchmark(ctx context.Context, a *api, connections, pipelined int) (float64, error) {
	host, port := b.server.hostPort()
	out, err := b.run(ctx, "redis-benchmark", "-h", host, "-p", port, "-q",
		"-n", strconv.Itoa(int(b.sizes.load/time.Second)*300_000), "-c", strconv.Itoa(connections),
		"-P", strconv.Itoa(pipelined), "-r", strconv.Itoa(a.customers), "GET", "n:__rand_int__")
	if err != nil {
		return 0, err
	}
	found := benchmarkRate.FindAllSubmatch(out, -1)
	if found == nil {
		return 0, fmt.Errorf("redis-benchmark printed no rate:\n%s", out)
	}
	return strconv.ParseFloat(string(found[len(found)-1][1]), 64)
}

func itself(v float64) float64 { return v }

// measureAPI measures the API only.
func (b *bench) measureAPI(ctx context.Context, conditions conditions) error {
	t := &table{Conditions: conditions, Runs: map[string][]measured{}}
	b.rows = map[string]bool{"read": true, "batch": true, "hot": true}
	if err := b.serving(ctx, t); err != nil {
		return err
	}
	t.print()
	b.results.API = t
	return nil
}
