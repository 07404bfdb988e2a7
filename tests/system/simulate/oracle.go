package simulate

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// The oracle contains the triggers and segments of configs/retail/profile.yaml and
// of segments.yaml here as Go code. It keeps every event of every customer, and
// decides all triggers anew in every hour of the simulation. It shares no code
// with the product.

const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

type mode int

const (
	latest mode = iota
	each
	first
	yearly
	entered
	left
)

type limit struct {
	count int
	per   int64
}

type rule struct {
	name     string
	mode     mode
	causes   []string
	segment  string // of entered and left
	unless   []string
	after    int64
	expire   int64
	priority int
	limits   []limit
	holdout  float64
	when     func(c *customer, now int64) bool
}

var (
	always   = func(*customer, int64) bool { return true }
	overall  = []limit{{2, day}}
	perEmail = []limit{{1, 12 * hour}, {5, 7 * day}}
)

var rules = []rule{
	{
		name: "cart_abandoned", mode: latest, causes: []string{"Product Added", "Cart Viewed", "Checkout Started"}, unless: []string{"Order Completed"},
		after: hour, expire: 12 * hour, priority: 50, limits: []limit{{1, 3 * day}}, holdout: 0.1,
		when: func(c *customer, now int64) bool { return c.count(now-7*day, now, "Product Added") > 0 },
	},
	{
		name: "browse_abandoned", mode: latest, causes: []string{"Product Viewed"}, unless: []string{"Product Added", "Order Completed"},
		after: 4 * hour, expire: 12 * hour, priority: 10, limits: []limit{{1, 7 * day}}, holdout: 0.1,
		when: func(c *customer, now int64) bool { return c.count(now-7*day, now, "Product Viewed") >= 3 },
	},
	{name: "welcome", mode: first, causes: []string{"identify"}, after: 10 * minute, expire: 3 * day, priority: 40, when: always},
	{
		name: "win_back", mode: latest, causes: []string{"Order Completed"}, after: 60 * day, expire: 7 * day, priority: 20, limits: []limit{{1, 90 * day}},
		when: func(c *customer, now int64) bool { return c.count(-1, now, "Order Completed") > 0 },
	},
	{name: "post_purchase", mode: each, causes: []string{"Order Completed"}, after: 7 * day, expire: 2 * day, priority: 30, limits: []limit{{1, 14 * day}}, when: always},
	{name: "birthday", mode: yearly, expire: 12 * hour, priority: 60, when: always},
	{name: "thanks", mode: entered, segment: "spender", after: hour, expire: 12 * hour, priority: 70, when: always},
	{name: "miss_you", mode: entered, segment: "quiet", after: 3 * hour, expire: day, priority: 65, limits: []limit{{1, 5 * day}}, when: always},
	{name: "and_now", mode: left, segment: "recent_buyer", after: 2 * hour, expire: 12 * hour, priority: 5, when: always},
}

// segment is a named rule over a customer.
type segment struct {
	name string
	in   func(c *customer, now int64) bool
}

var segments = []segment{
	{"high_value", func(c *customer, now int64) bool { return c.cents(now-90*day, now) > 500_00 }},
	{"at_risk", func(c *customer, now int64) bool {
		return c.orders(now) > 1 && now-c.lastOrder(now) > 60*day
	}},
	{"new_prospect", func(c *customer, now int64) bool {
		return c.orders(now) == 0 && c.count(now-7*day, now, "Product Viewed") >= 3
	}},
	{"rfm_champions", func(c *customer, now int64) bool { r, f := c.grid(now); return r >= 4 && f >= 4 }},
	{"rfm_loyal", func(c *customer, now int64) bool { r, f := c.grid(now); return r >= 3 && f >= 3 && (r < 4 || f < 4) }},
	{"rfm_promising", func(c *customer, now int64) bool { r, f := c.grid(now); return r >= 4 && f < 3 && f > 0 }},
	{"rfm_slipping", func(c *customer, now int64) bool { r, f := c.grid(now); return r < 3 && f >= 3 }},
	{"rfm_lost", func(c *customer, now int64) bool { r, f := c.grid(now); return r <= 3 && f < 3 && f > 0 }},
	{"spender", func(c *customer, now int64) bool { return c.cents(-1, now) > 100_00 }},
	{"quiet", func(c *customer, now int64) bool { return c.orders(now) > 0 && now-c.lastOrder(now) > 2*day }},
	{"recent_buyer", func(c *customer, now int64) bool {
		_, identified := c.traits["marketing_consent"]
		return identified && c.orders(now) > 0 && now-c.lastOrder(now) <= day
	}},
}

func (c *customer) orders(now int64) int { return c.count(-1, now, "Order Completed") }

// lastOrder returns the time of the last order of a customer with orders.
func (c *customer) lastOrder(now int64) (last int64) {
	for _, h := range c.byName["Order Completed"] {
		if h.at <= now {
			last = h.at
		}
	}
	return last
}

// cents returns the spend in (from, to].
func (c *customer) cents(from, to int64) (sum int64) {
	for _, h := range c.byName["Order Completed"] {
		if h.at > from && h.at <= to {
			sum += int64(math.Round(h.Properties.Total * 100))
		}
	}
	return sum
}

// grid scores the recency and frequency of orders from 1 to 5, 0 without orders.
func (c *customer) grid(now int64) (recency, frequency int) {
	orders := c.orders(now)
	if orders == 0 {
		return 0, 0
	}
	recency, frequency = 5, 1
	for _, bound := range []int64{30, 60, 120, 365} {
		if now-c.lastOrder(now) > bound*day {
			recency--
		}
	}
	for _, bound := range []int{2, 3, 5, 10} {
		if orders >= bound {
			frequency++
		}
	}
	return recency, frequency
}

// event is a decoded event.
type event struct {
	Type, Event, MessageID, UserID, AnonymousID, Source string
	Timestamp                                           time.Time
	Traits                                              map[string]any
	Properties                                          struct{ Total float64 }

	at   int64
	id   uint64
	name string
}

func read(raw []byte) (*event, error) {
	var h event
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, err
	}
	h.at, h.id, h.name = h.Timestamp.UnixMilli(), xxhash.Sum64String(h.MessageID), h.Type
	if h.Type == "track" {
		h.name = h.Event
	}
	return &h, nil
}

type statement struct {
	value  any
	at     int64
	source string
}

type hold struct{ since, until int64 }

type sent struct {
	rule string
	at   int64
	held bool
}

type customer struct {
	id       string
	seen     map[uint64]bool
	byName   map[string][]*event // in order of time
	traits   map[string]statement
	through  map[string]int64 // latest decided cause, by rule
	decided  map[string]bool  // decided causes of rules that fire for each
	holds    map[string]hold
	sent     []sent
	examined int64
	touched  bool             // received an event since its last evaluation
	since    map[string]int64 // entry time by segment
	left     map[string]int64 // exit time by segment
}

func newCustomer(id string) *customer {
	return &customer{
		id: id, seen: map[uint64]bool{}, byName: map[string][]*event{}, traits: map[string]statement{},
		through: map[string]int64{}, decided: map[string]bool{}, holds: map[string]hold{}, since: map[string]int64{}, left: map[string]int64{},
	}
}

func (c *customer) add(h *event) {
	if c.seen[h.id] {
		return
	}
	c.seen[h.id], c.touched = true, true
	list := append(c.byName[h.name], h)
	slices.SortStableFunc(list, func(a, b *event) int { return cmp.Compare(a.at, b.at) })
	c.byName[h.name] = list
	for name, v := range h.Traits {
		old, there := c.traits[name]
		if !there || cmp.Or(cmp.Compare(h.at, old.at), cmp.Compare(rank(old.source), rank(h.Source))) > 0 {
			c.traits[name] = statement{v, h.at, h.Source}
		}
	}
}

func rank(source string) int {
	at := slices.Index([]string{"crm", "pos", "web", "mobile"}, source)
	if at < 0 {
		return 99
	}
	return at
}

// count returns the number of events of a name in (from, to].
func (c *customer) count(from, to int64, name string) (n int) {
	for _, h := range c.byName[name] {
		if h.at > from && h.at <= to {
			n++
		}
	}
	return n
}

func (c *customer) last(names []string) int64 {
	last := int64(-1)
	for _, name := range names {
		if list := c.byName[name]; len(list) > 0 {
			last = max(last, list[len(list)-1].at)
		}
	}
	return last
}

var zones = map[string]*time.Location{}

func (c *customer) zone() *time.Location {
	name, _ := c.traits["timezone"].value.(string)
	if name == "" {
		name = "Europe/Berlin"
	}
	if zones[name] == nil {
		zone, err := time.LoadLocation(name)
		if err != nil {
			panic(err)
		}
		zones[name] = zone
	}
	return zones[name]
}

// sendable returns the first time from at on that is outside the quiet hours from
// 21:00 to 08:00 in the customer's time zone. Clocks change at night, by full hours.
func (c *customer) sendable(at int64) int64 {
	t := time.UnixMilli(at).In(c.zone())
	if t.Hour() >= 8 && t.Hour() < 21 {
		return at
	}
	morning := time.Date(t.Year(), t.Month(), t.Day(), 8, 0, 0, 0, t.Location())
	if t.Hour() >= 21 {
		morning = time.Date(t.Year(), t.Month(), t.Day()+1, 8, 0, 0, 0, t.Location())
	}
	return morning.UnixMilli()
}

// firing is an expected or published firing of a trigger.
type firing struct {
	ID, Customer, Trigger, Event string
	CauseAt, DueAt, At           int64
}

// pending is a rule and a cause that waits for its decision.
type pending struct {
	rule             *rule
	at, due, expires int64
	mark             int64
	key              uint64
}

type shopOracle struct {
	customers map[string]*customer
	visitors  map[string]*customer // by anonymousId, until they are identified
	known     map[string]string    // userId by anonymousId
	outcomes  map[string]int
	events    int
}

func newOracle() *shopOracle {
	return &shopOracle{customers: map[string]*customer{}, visitors: map[string]*customer{}, known: map[string]string{}, outcomes: map[string]int{}}
}

func (o *shopOracle) customer(id string) *customer {
	c := o.customers[id]
	if c == nil {
		c = newCustomer(id)
		o.customers[id] = c
	}
	return c
}

// add adds a received event.
func (o *shopOracle) add(raw []byte) error {
	h, err := read(raw)
	if err != nil {
		return err
	}
	o.events++
	user := h.UserID
	if user == "" {
		user = o.known[h.AnonymousID]
	}
	if user == "" {
		v := o.visitors[h.AnonymousID]
		if v == nil {
			v = newCustomer(h.AnonymousID)
			o.visitors[h.AnonymousID] = v
		}
		v.add(h)
		return nil
	}
	c := o.customer(user)
	if h.Type == "identify" && h.UserID != "" && h.AnonymousID != "" && o.known[h.AnonymousID] == "" {
		o.known[h.AnonymousID] = h.UserID
		if v := o.visitors[h.AnonymousID]; v != nil {
			delete(o.visitors, h.AnonymousID)
			for _, list := range v.byName {
				for _, earlier := range list {
					c.add(earlier)
				}
			}
		}
	}
	c.add(h)
	return nil
}

func (c *customer) pending() (all []pending) {
	add := func(p pending, due, over int64) bool {
		p.due = c.sendable(due)
		p.expires = p.due + p.rule.expire
		if h := c.holds[p.rule.name]; p.due < h.until && p.expires > h.since {
			p.due, p.expires = h.until, h.until+p.rule.expire
		}
		if p.expires <= over {
			return false
		}
		all = append(all, p)
		return true
	}
	for i := range rules {
		r := &rules[i]
		through, done := c.through[r.name]
		switch r.mode {
		case latest, first:
			at := c.last(r.causes)
			key := uint64(at)
			if r.mode == first {
				if list := c.byName[r.causes[0]]; len(list) > 0 {
					at, key = list[0].at, 0
				}
				if done {
					continue
				}
			}
			if at < 0 || done && at <= through || c.last(r.unless) > at {
				continue
			}
			add(pending{rule: r, at: at, mark: at, key: key}, at+r.after, c.examined)
		case each:
			for _, h := range c.byName[r.causes[0]] {
				key := h.id ^ uint64(h.at)*0x9E3779B97F4A7C15
				if !c.decided[fmt.Sprint(r.name, key)] {
					add(pending{rule: r, at: h.at, mark: h.at, key: key}, h.at+r.after, c.examined)
				}
			}
		case entered:
			if at, in := c.since[r.segment]; in && !(done && at <= through) {
				add(pending{rule: r, at: at, mark: at, key: uint64(at)}, at+r.after, c.examined)
			}
		case left:
			if at, gone := c.left[r.segment]; gone && !(done && at <= through) {
				add(pending{rule: r, at: at, mark: at, key: uint64(at)}, at+r.after, c.examined)
			}
		case yearly:
			s := c.traits["birthday"]
			text, _ := s.value.(string)
			born, err := time.Parse("2006-01-02", text)
			if err != nil {
				continue
			}
			over := max(c.examined, s.at)
			for year := time.UnixMilli(over).UTC().Year() - 1; ; year++ {
				if done && int64(year) <= through {
					continue
				}
				at := time.Date(year, born.Month(), born.Day(), 9, 0, 0, 0, c.zone()).UnixMilli()
				if add(pending{rule: r, at: at, mark: int64(year), key: uint64(year)}, at, over) {
					break
				}
			}
		}
	}
	return all
}

// evaluateSegments evaluates the segments of the customers with an event in this
// hour, or of all customers.
func (o *shopOracle) evaluateSegments(now int64, all bool) {
	for _, c := range o.customers {
		if c.touched || all {
			c.evaluateSegments(now)
		}
	}
}

func (c *customer) evaluateSegments(now int64) {
	c.touched = false
	for _, s := range segments {
		_, was := c.since[s.name]
		switch in := s.in(c, now); {
		case in && !was:
			c.since[s.name] = now
			delete(c.left, s.name)
		case was && !in:
			delete(c.since, s.name)
			c.left[s.name] = now
		}
	}
}

// members returns the keys of the customers and visitors in a segment.
func (o *shopOracle) members(s segment, now int64) map[string]bool {
	keys := map[string]bool{}
	for kind, list := range map[byte]map[string]*customer{record.User: o.customers, record.Anonymous: o.visitors} {
		for id, c := range list {
			if s.in(c, now) {
				keys[string(kind)+id] = true
			}
		}
	}
	return keys
}

// step decides every trigger that is due at a time.
func (o *shopOracle) step(now int64) (expected []firing) {
	for _, c := range o.customers {
		later := func(p pending) bool { return p.due > now }
		if len(slices.DeleteFunc(c.pending(), later)) == 0 {
			continue
		}
		// Deciding a trigger also evaluates the segments.
		c.evaluateSegments(now)
		all := slices.DeleteFunc(c.pending(), later)
		slices.SortFunc(all, func(a, b pending) int {
			return cmp.Or(cmp.Compare(b.rule.priority, a.rule.priority), cmp.Compare(a.due, b.due), cmp.Compare(a.rule.name, b.rule.name), cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key))
		})
		for _, p := range all {
			if end := c.sendable(now); end > now && p.expires > now {
				h, held := c.holds[p.rule.name]
				if !held {
					h.since = now
				}
				h.until = max(h.until, end)
				c.holds[p.rule.name] = h
				continue
			}
			outcome := c.decide(&p, now)
			o.outcomes[p.rule.name+" "+outcome]++
			if p.rule.mode == each {
				c.decided[fmt.Sprint(p.rule.name, p.key)] = true
			} else {
				c.through[p.rule.name] = max(c.through[p.rule.name], p.mark)
			}
			if outcome == "fired" || outcome == "held_out" {
				c.sent = append(c.sent, sent{p.rule.name, now, outcome == "held_out"})
				event := "Trigger Fired"
				if outcome == "held_out" {
					event = "Trigger Held Out"
				}
				expected = append(expected, firing{idOf(p.rule.name, c.id, p.key), c.id, p.rule.name, event, p.at, p.due, now})
			}
		}
		for name, h := range c.holds {
			if h.until <= now {
				delete(c.holds, name)
			}
		}
		c.examined = now
	}
	return expected
}

func (c *customer) decide(p *pending, now int64) string {
	consents, _ := c.traits["marketing_consent"].value.(bool)
	switch {
	case p.expires <= now:
		return "expired"
	case !consents || c.count(-1, now, "Unsubscribed") > 0:
		return "no_consent"
	case !p.rule.when(c, now):
		return "condition"
	case c.full(p.rule.limits, now, func(s sent) bool { return s.rule == p.rule.name }),
		c.full(perEmail, now, func(s sent) bool { return !s.held }),
		c.full(overall, now, func(s sent) bool { return !s.held }):
		return "capped"
	case share(p.rule.name, c.id) < p.rule.holdout:
		return "held_out"
	}
	return "fired"
}

func (c *customer) full(limits []limit, now int64, counts func(sent) bool) bool {
	for _, l := range limits {
		n := 0
		for _, s := range c.sent {
			if s.at > now-l.per && counts(s) {
				n++
			}
		}
		if n >= l.count {
			return true
		}
	}
	return false
}

func share(rule, customer string) float64 {
	return float64(xxhash.Sum64String(rule+"\x00"+customer)>>11) / (1 << 53)
}

func idOf(rule, customer string, key uint64) string {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(rule+"\x00"+customer+"\x00"), key))
	return hex.EncodeToString(sum[:16])
}
