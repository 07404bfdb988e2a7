package faults

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/system/kafka"
)

// history is all records that are sent, with the expected result.
type history struct {
	asOf      time.Time
	customers []*customer
	sent      []kafka.Record
	shuffled  int
	repeated  int
	journeys  int               // customers with anonymous events before their first login
	erased    int               // erased customers
	bad       map[string]string // the stage that must reject an event, by the event's bytes
	badBy     map[string]int    // number of these events, by kind
}

// customer is a person with one or two ids, and their valid events in order.
type customer struct {
	id        string // id of the profile
	anonymous string // second id of the same profile, empty for none
	events    [][]byte
	traits    map[string]any
	erased    bool
}

const (
	eventsPerCustomer = 40
	span              = 100 * 24 * time.Hour
	// oversize is the size of a trait that exceeds maxRecordBytes.
	oversize       = 80 << 10
	maxRecordBytes = "64KiB"
)

var (
	categories = []string{"shoes", "hats", "coats", "bags"}
	countries  = []string{"DE", "FR", "NL"}
)

// makeHistory generates n events or a few more.
func makeHistory(n int, seed uint64, asOf time.Time) *history {
	r := rand.New(rand.NewPCG(seed, 1))
	h := &history{asOf: asOf, bad: map[string]string{}, badBy: map[string]int{}}
	var perCustomer [][]kafka.Record
	for made, i := 0, 0; made < n; i++ {
		c, records := makeCustomer(r, i, asOf)
		if c.anonymous != "" {
			h.journeys++
		}
		h.customers = append(h.customers, c)
		perCustomer = append(perCustomer, records)
		made += len(records)
	}
	h.sent = interleave(r, perCustomer)
	h.addBad(r, n/200)
	h.repeat(r, len(h.sent)/10)
	h.shuffle(r, len(h.sent)/5)
	return h
}

func makeCustomer(r *rand.Rand, i int, asOf time.Time) (*customer, []kafka.Record) {
	user, anonymous := fmt.Sprintf("u-%06d", i), ""
	n := eventsPerCustomer/2 + r.IntN(eventsPerCustomer)
	known := 0 // index of the event that identifies the customer
	switch r.IntN(10) {
	case 0, 1, 2: // logs in after some anonymous events
		anonymous = fmt.Sprintf("a-%06d", i)
		known = 1 + r.IntN(n-2)
	case 3: // stays anonymous
		user, anonymous, known = "", fmt.Sprintf("a-%06d", i), n
	}
	c := &customer{id: user, anonymous: anonymous, traits: map[string]any{}}
	if user == "" {
		c.id, c.anonymous = anonymous, ""
	}
	// No two events of a customer have the same time, so that first and last do
	// not depend on how ties are broken.
	times := map[int64]bool{}
	for len(times) < n {
		times[asOf.Add(-time.Minute-time.Duration(r.Int64N(int64(span)))).UnixMilli()] = true
	}
	at := make([]int64, 0, n)
	for t := range times {
		at = append(at, t)
	}
	slices.Sort(at)
	var records []kafka.Record
	for k, ms := range at {
		e := map[string]any{
			"messageId": fmt.Sprintf("%s%s-%d", user, anonymous, k),
			"timestamp": stamp(ms), "receivedAt": stamp(ms + int64(r.IntN(2000))), "source": "web",
		}
		key := user
		switch {
		case k < known:
			e["anonymousId"], key = anonymous, anonymous
		case anonymous != "" && k > known && r.IntN(3) == 0:
			// Another tab of the browser sends the anonymous id alone.
			e["anonymousId"], key = anonymous, anonymous
		default:
			e["userId"] = user
		}
		switch kind := r.IntN(20); {
		case k == known && anonymous != "" && user != "":
			e["userId"], e["anonymousId"], key = user, anonymous, user
			identify(r, c, e)
		case kind < 2:
			identify(r, c, e)
		case kind < 8:
			e["type"], e["event"] = "track", "Product Viewed"
			e["properties"] = map[string]any{
				"product_id": fmt.Sprintf("p-%d", r.IntN(12)), "name": "thing",
				"category": categories[r.IntN(len(categories))], "price": cents(r),
			}
		case kind < 13:
			var products []any
			for range 1 + r.IntN(3) {
				products = append(products, map[string]any{
					"product_id": fmt.Sprintf("p-%d", r.IntN(12)), "name": "thing", "quantity": 1,
					"category": categories[r.IntN(len(categories))], "price": cents(r),
				})
			}
			e["type"], e["event"] = "track", "Order Completed"
			e["properties"] = map[string]any{
				"order_id": fmt.Sprintf("o-%d-%d", i, k), "total": cents(r), "currency": "EUR", "products": products,
			}
		default:
			e["type"], e["name"] = "page", "Home"
		}
		raw := encode(e)
		c.events = append(c.events, raw)
		records = append(records, kafka.Record{Key: []byte(key), Value: raw})
	}
	return c, records
}

// identify makes e an identify event. Events are generated in order of time, so
// the last statement of a trait wins.
func identify(r *rand.Rand, c *customer, e map[string]any) {
	e["type"] = "identify"
	traits := map[string]any{}
	for _, t := range []struct {
		name  string
		value any
	}{
		{"plan", []string{"free", "gold"}[r.IntN(2)]},
		{"country", countries[r.IntN(len(countries))]},
		{"points", r.IntN(1000)},
	} {
		if r.IntN(2) == 0 {
			continue
		}
		c.traits[t.name] = t.value
		traits[t.name] = t.value
		if s, ok := t.value.(string); ok && t.name == "country" {
			traits[t.name] = " " + strings.ToLower(s) // the pipeline cleans this
		}
	}
	e["traits"] = traits
}

func cents(r *rand.Rand) float64 { return float64(100+r.IntN(20000)) / 100 }

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

func encode(e map[string]any) []byte {
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return raw
}

// interleave mixes the events of all customers and keeps the order of each one's.
func interleave(r *rand.Rand, perCustomer [][]kafka.Record) []kafka.Record {
	var order []int
	for c, records := range perCustomer {
		for range records {
			order = append(order, c)
		}
	}
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	sent := make([]kafka.Record, 0, len(order))
	next := make([]int, len(perCustomer))
	for _, c := range order {
		sent = append(sent, perCustomer[c][next[c]])
		next[c]++
	}
	return sent
}

// addBad adds events that must become dead letters, each with unique bytes and a
// customer of its own, which must not get a profile.
func (h *history) addBad(r *rand.Rand, n int) {
	good := map[string]any{"type": "page", "timestamp": stamp(h.asOf.UnixMilli() - 60_000)}
	with := func(i int, more map[string]any) []byte {
		e := map[string]any{"messageId": fmt.Sprintf("bad-%d", i), "userId": fmt.Sprintf("bad-%d", i)}
		for _, m := range []map[string]any{good, more} {
			for k, v := range m {
				e[k] = v
			}
		}
		return encode(e)
	}
	for i := range max(n, 6) {
		var raw []byte
		kind, stage := "", "validate_event"
		switch i % 6 {
		case 0:
			kind, raw = "cut off", with(i, nil)
			raw = raw[:len(raw)-2]
		case 1:
			kind, raw = "not UTF-8", append(with(i, nil), 0xff)
		case 2:
			kind, raw = "wrong type", with(i, map[string]any{"type": "track", "event": "Order Completed",
				"properties": map[string]any{"order_id": "o", "total": "a lot", "products": []any{}}})
		case 3:
			kind, raw = "no id", with(i, map[string]any{"userId": nil})
		case 4:
			kind, stage = "placeholder id", "update_profile"
			raw = with(i, map[string]any{"userId": "undefined"})
		case 5:
			if i > 5 && i%60 != 5 { // few are large
				kind, raw = "cut off", with(i, nil)[1:]
				break
			}
			kind, stage = "profile over the size limit", "update_profile"
			raw = with(i, map[string]any{"type": "identify", "traits": map[string]any{"about": strings.Repeat("x", oversize)}})
		}
		h.bad[string(raw)] = stage
		h.badBy[kind]++
		at := r.IntN(len(h.sent))
		h.sent = append(h.sent, h.sent[at])
		h.sent[at] = kafka.Record{Key: fmt.Appendf(nil, "bad-%d", i), Value: raw}
	}
}

// repeat sends n records a second time, at a random place after the first.
func (h *history) repeat(r *rand.Rand, n int) {
	h.repeated = n
	for range n {
		at := r.IntN(len(h.sent))
		rec := h.sent[at]
		later := at + r.IntN(len(h.sent)-at)
		h.sent = append(h.sent, h.sent[later])
		h.sent[later] = rec
		// The record that was at this place moves to the end, and is late.
	}
}

// shuffle swaps random records until n are out of order.
func (h *history) shuffle(r *rand.Rand, n int) {
	h.shuffled = n
	for range n / 2 {
		i, j := r.IntN(len(h.sent)), r.IntN(len(h.sent))
		h.sent[i], h.sent[j] = h.sent[j], h.sent[i]
	}
}

// erasures returns events that erase one in oneIn customers. Each is followed by
// repeated events from before the erasure, and by a late one.
func (h *history) erasures(oneIn int) (records []kafka.Record) {
	at := stamp(time.Now().UnixMilli())
	for i, c := range h.customers {
		if i%oneIn != 0 || !strings.HasPrefix(c.id, "u-") {
			continue
		}
		c.erased = true
		h.erased++
		key := []byte(c.id)
		records = append(records, kafka.Record{Key: key, Value: encode(map[string]any{
			"type": "erase", "messageId": "erase-" + c.id, "userId": c.id, "timestamp": at, "receivedAt": at, "source": "api",
		})})
		for _, repeated := range c.events[:5] {
			records = append(records, kafka.Record{Key: key, Value: repeated})
		}
		late := strings.Replace(string(c.events[len(c.events)/2]), `"messageId":"`, `"messageId":"late-`, 1)
		records = append(records, kafka.Record{Key: key, Value: []byte(late)})
	}
	return records
}
