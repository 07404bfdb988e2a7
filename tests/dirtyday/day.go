package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
)

const (
	customers = 900 // an audit asks for 1,000 at most
	share     = 0.05
)

// start is the beginning of the day, in the past of any run.
var start = time.Date(2026, 3, 10, 0, 0, 0, 0, time.UTC)

// arrival is an event as it arrives.
type arrival struct {
	raw      []byte
	id       string
	intended map[string]any // the event without its fault
	kind     *kind          // its fault, nil for a valid event
	hour     int
}

type day struct {
	events []arrival
}

// makeDay generates a day of n events and injects faults into a share of them, in
// turn of each kind.
func makeDay(n int, seed uint64) (*day, error) {
	s, err := shop.New(shop.Settings{
		Seed: seed, Start: start, Customers: customers, Rate: float64(n) / (24 * time.Hour).Seconds(),
	})
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(seed, 0))
	d := &day{}
	for range n {
		e := s.Next()
		a := arrival{raw: slices.Clone(e.Data), hour: e.Received.UTC().Hour()}
		if a.intended, err = decode(a.raw); err != nil {
			return nil, err
		}
		a.id, _ = a.intended["messageId"].(string)
		d.events = append(d.events, a)
	}
	budget := int(share * float64(n))
	var sporadic []*kind
	var repeated []arrival
	// Drift first: most events of an hour, up to a third of the budget.
	for i := range kinds {
		k := &kinds[i]
		if k.want != reported {
			sporadic = append(sporadic, k)
			continue
		}
		spoiled := 0
		for j := range d.events {
			if a := &d.events[j]; a.hour == k.hour && k.applies(a.intended) && spoiled < budget/3 && r.IntN(10) < 9 {
				a.spoil(k, r)
				spoiled++
			}
		}
		budget -= spoiled
	}
	for turn := 0; budget > 0; turn++ {
		k := sporadic[turn%len(sporadic)]
		// The rarest events are one in a thousand.
		for range 20_000 {
			a := &d.events[r.IntN(len(d.events))]
			if a.kind == nil && k.applies(a.intended) && !isDriftHour(a.hour) {
				a.spoil(k, r)
				if k.want == once {
					repeated = append(repeated, *a)
				}
				break
			}
		}
		budget--
	}
	// A repeated event arrives up to 500 events later.
	for _, a := range repeated {
		place := min(slices.IndexFunc(d.events, func(o arrival) bool { return o.id == a.id })+1+r.IntN(500), len(d.events))
		d.events = slices.Insert(d.events, place, a)
	}
	return d, nil
}

// isDriftHour reports whether a kind of drift owns an hour.
func isDriftHour(hour int) bool {
	return slices.ContainsFunc(kinds, func(k kind) bool { return k.want == reported && k.hour == hour })
}

func (a *arrival) spoil(k *kind, r *rand.Rand) {
	e, err := decode(a.raw)
	if err != nil {
		panic(fmt.Sprintf("the shop generated an invalid event: %v", err))
	}
	a.kind = k
	a.raw = k.spoil(a.raw, e, r)
}

func decode(raw []byte) (e map[string]any, err error) {
	err = json.Unmarshal(raw, &e)
	return e, err
}

func (d *day) faulty() (n int) {
	for i := range d.events {
		if d.events[i].kind != nil {
			n++
		}
	}
	return n
}

func (d *day) write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := bufio.NewWriter(f)
	for i := range d.events {
		_, _ = w.Write(d.events[i].raw)
		_ = w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// counts reports whether an event must change a profile.
func (a *arrival) counts() bool { return a.kind == nil || a.kind.want != deadLetter }

// writeSource writes the source for the audit: orders and revenue by customer, from
// the intended events, each once.
func (d *day) writeSource(path string) error {
	type sum struct {
		orders  int
		revenue float64
	}
	owner := map[string]string{}
	for i := range d.events {
		e := d.events[i].intended
		if d.events[i].counts() && e["type"] == "identify" && known(e) && e["anonymousId"] != nil {
			owner[e["anonymousId"].(string)] = e["userId"].(string)
		}
	}
	totals := map[string]sum{}
	seen := map[string]bool{}
	for i := range d.events {
		a := &d.events[i]
		if !a.counts() || seen[a.id] || a.intended["event"] != "Order Completed" {
			continue
		}
		seen[a.id] = true
		id, _ := a.intended["userId"].(string)
		if id == "" {
			id = owner[fmt.Sprint(a.intended["anonymousId"])]
		}
		if id == "" {
			continue // the source contains identified customers only
		}
		s := totals[id]
		totals[id] = sum{s.orders + 1, s.revenue + properties(a.intended)["total"].(float64)}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := csv.NewWriter(f)
	_ = w.Write([]string{"customer_id", "orders", "revenue"})
	for _, id := range slices.Sorted(maps.Keys(totals)) {
		_ = w.Write([]string{id, strconv.Itoa(totals[id].orders), strconv.FormatFloat(totals[id].revenue, 'f', 2, 64)})
	}
	w.Flush()
	return w.Error()
}
