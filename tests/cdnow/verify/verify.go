// Package verify checks profiles that were imported from a log of purchases. It
// reads the log itself, sharing no code with the import, reads every customer of
// the log from the profile API, and compares the number of orders, the revenue to
// the cent, and the dates of the first and the last order.
package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Run runs the comparison with the given flags.
func Run(args []string) error {
	flag := flag.NewFlagSet("verify", flag.ContinueOnError)
	log := flag.String("log", "", "log of purchases")
	api := flag.String("api", "http://127.0.0.1:8081", "URL of the profile API")
	customers := flag.Int("customers", 0, "number of customers the log must have, 0 for any number")
	save := flag.String("save", "", "file to write all profiles to, as answered without as_of")
	wait := flag.Duration("wait", 30*time.Second, "maximum time until the API is ready")
	if err := flag.Parse(args); err != nil {
		return err
	}
	return run(*log, strings.TrimSuffix(*api, "/"), *customers, *save, *wait)
}

func run(log, api string, customers int, save string, wait time.Duration) error {
	want, err := read(log)
	if err != nil {
		return err
	}
	if customers != 0 && len(want) != customers {
		return fmt.Errorf("%s has %d customers, not %d", log, len(want), customers)
	}
	if err := ready(api, wait); err != nil {
		return err
	}
	if status, _, err := get(api, "unknown-customer"); err != nil || status != http.StatusNotFound {
		return fmt.Errorf("an unknown customer gives %d (%v), not 404", status, err)
	}

	ids := make([]string, 0, len(want))
	for id := range want {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	bodies := make([][]byte, len(ids))
	wrong := make([]error, len(ids))
	var group sync.WaitGroup
	const parallel = 8
	for worker := range parallel {
		group.Go(func() {
			for i := worker; i < len(ids); i += parallel {
				bodies[i], wrong[i] = compare(api, ids[i], want[ids[i]])
			}
		})
	}
	group.Wait()

	different := 0
	for i, err := range wrong {
		if err == nil {
			continue
		}
		if different++; different <= 10 {
			fmt.Fprintf(os.Stderr, "customer %s: %v\n", ids[i], err)
		}
	}
	if different > 0 {
		return fmt.Errorf("%d of %d customers differ", different, len(ids))
	}
	if save != "" {
		if err := os.WriteFile(save, bytes.Join(bodies, []byte("\n")), 0o600); err != nil {
			return err
		}
	}
	all := purchases{first: "9999-99-99"}
	for _, p := range want {
		all.count += p.count
		all.cents += p.cents
		all.first, all.last = min(all.first, p.first), max(all.last, p.last)
	}
	fmt.Printf("%d customers with %d orders of $%d.%02d in all, from %s to %s: the API answers the same for each of them\n",
		len(want), all.count, all.cents/100, all.cents%100, all.first, all.last)
	return nil
}

// purchases of one customer. The dates are such as 1997-01-18.
type purchases struct {
	count       int
	cents       int64
	first, last string
}

func read(log string) (map[string]purchases, error) {
	content, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	all := map[string]purchases{}
	for n, line := range strings.Split(string(content), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 5 || len(fields[2]) != 8 {
			return nil, fmt.Errorf("%s:%d is not a purchase", log, n+1)
		}
		cents, err := parseCents(fields[4])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", log, n+1, err)
		}
		day := fields[2][:4] + "-" + fields[2][4:6] + "-" + fields[2][6:]
		p, known := all[fields[0]]
		if !known {
			p.first, p.last = day, day
		}
		p.count++
		p.cents += cents
		p.first, p.last = min(p.first, day), max(p.last, day)
		all[fields[0]] = p
	}
	return all, nil
}

func parseCents(amount string) (int64, error) {
	dollars, part, _ := strings.Cut(amount, ".")
	if len(part) > 2 {
		return 0, errors.New("more than two decimals")
	}
	return strconv.ParseInt(dollars+(part + "00")[:2], 10, 64)
}

var client = &http.Client{Timeout: 10 * time.Second}

func ready(api string, wait time.Duration) error {
	var last error
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		resp, err := client.Get(api + "/readyz")
		if err != nil {
			last = err
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		last = errors.New(resp.Status)
	}
	return fmt.Errorf("the API is not ready after %v: %w", wait, last)
}

func get(api, id string) (status int, body []byte, err error) {
	resp, err := client.Get(api + "/api/customer/" + url.PathEscape(id))
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// compare returns what the API answers, without its time, and how it differs
// from what is wanted.
func compare(api, id string, want purchases) ([]byte, error) {
	status, body, err := get(api, id)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("status %d", status)
	}
	var got struct {
		ID       string `json:"id"`
		Features struct {
			Orders  json.Number `json:"orders"`
			Revenue json.Number `json:"revenue"`
			First   time.Time   `json:"first_order_at"`
			Last    time.Time   `json:"last_order_at"`
		} `json:"features"`
	}
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, err
	}
	if got.ID != id {
		return nil, fmt.Errorf("it is %s's profile", got.ID)
	}
	if got.Features.Orders.String() != strconv.Itoa(want.count) {
		return nil, fmt.Errorf("%s orders, not %d", got.Features.Orders, want.count)
	}
	revenue, err := got.Features.Revenue.Float64()
	if err != nil {
		return nil, fmt.Errorf("revenue: %w", err)
	}
	if cents := revenue * 100; int64(math.Round(cents)) != want.cents || math.Abs(cents-math.Round(cents)) > 1e-6 {
		return nil, fmt.Errorf("revenue of %s, not %d cents", got.Features.Revenue, want.cents)
	}
	for _, date := range []struct {
		name string
		got  time.Time
		want string
	}{{"first", got.Features.First, want.first}, {"last", got.Features.Last, want.last}} {
		if at := date.got.UTC().Format(time.RFC3339Nano); at != date.want+"T00:00:00Z" {
			return nil, fmt.Errorf("%s order at %s, not on %s", date.name, at, date.want)
		}
	}

	var whole map[string]json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, err
	}
	delete(whole, "as_of")
	rest, err := json.Marshal(whole)
	return rest, err
}
