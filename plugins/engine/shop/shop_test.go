package shop

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var newYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t require.TestingT, settings Settings) *Shop {
	s, err := New(settings)
	require.NoError(t, err)
	return s
}

// message is a decoded event.
type message struct {
	Type        string          `json:"type"`
	Event       string          `json:"event"`
	Name        string          `json:"name"`
	MessageID   string          `json:"messageId"`
	AnonymousID string          `json:"anonymousId"`
	UserID      string          `json:"userId"`
	Timestamp   time.Time       `json:"timestamp"`
	Original    time.Time       `json:"originalTimestamp"`
	SentAt      time.Time       `json:"sentAt"`
	ReceivedAt  time.Time       `json:"receivedAt"`
	Source      string          `json:"source"`
	Context     json.RawMessage `json:"context"`
	Properties  *properties     `json:"properties"`
	Traits      *traits         `json:"traits"`
}

type article struct {
	ProductID string      `json:"product_id"`
	SKU       string      `json:"sku"`
	Category  string      `json:"category"`
	Name      string      `json:"name"`
	Brand     string      `json:"brand"`
	Price     json.Number `json:"price"`
	Quantity  int         `json:"quantity"`
}

type properties struct {
	article
	OrderID    string      `json:"order_id"`
	CheckoutID string      `json:"checkout_id"`
	CartID     string      `json:"cart_id"`
	CampaignID string      `json:"campaign_id"`
	EmailID    string      `json:"email_id"`
	LinkURL    string      `json:"link_url"`
	Query      string      `json:"query"`
	Path       string      `json:"path"`
	Currency   string      `json:"currency"`
	Total      json.Number `json:"total"`
	Value      json.Number `json:"value"`
	Revenue    json.Number `json:"revenue"`
	Shipping   json.Number `json:"shipping"`
	Tax        json.Number `json:"tax"`
	Discount   json.Number `json:"discount"`
	Products   []article   `json:"products"`
}

type traits struct {
	Email            string `json:"email"`
	FirstName        string `json:"firstName"`
	LastName         string `json:"lastName"`
	Phone            string `json:"phone"`
	City             string `json:"city"`
	Country          string `json:"country"`
	Timezone         string `json:"timezone"`
	Birthday         string `json:"birthday"`
	MarketingConsent *bool  `json:"marketing_consent"`
	LoyaltyTier      string `json:"loyalty_tier"`
}

func read(t require.TestingT, data []byte) message {
	require.True(t, utf8.Valid(data))
	var m message
	require.NoError(t, json.Unmarshal(data, &m), "%s", data)
	return m
}

// name returns the event's name in profile definitions.
func (m *message) name() string {
	if m.Type == "track" {
		return m.Event
	}
	return m.Type
}

func cents(t require.TestingT, n json.Number) int {
	whole, part, found := strings.Cut(n.String(), ".")
	require.True(t, found && len(part) == 2, "%s has two decimals", n)
	value := 0
	for _, digit := range whole + part {
		require.True(t, digit >= '0' && digit <= '9', "%s", n)
		value = value*10 + int(digit-'0')
	}
	return value
}

// TestStreamIsPinned fails if the stream of a seed changes: it is the same on every
// machine and with every version of Go. A change of the shop's behaviour changes
// the sum here and every recorded result for a seed.
func TestStreamIsPinned(t *testing.T) {
	s := open(t, Settings{
		Seed: 1, Start: newYear, Customers: 1000, DailyEvents: 20,
		Invalid: 0.02, Late: 0.02, Duplicated: 0.02, MaxLateness: time.Hour,
	})
	h := sha256.New()
	for range 20_000 {
		event := s.Next()
		_, _ = h.Write(event.Data)
		_, _ = h.Write([]byte(event.Fault))
	}
	require.Equal(t, "3a4fe47da2ec6a51", hex.EncodeToString(h.Sum(nil)[:8]))
}

func settings() *rapid.Generator[Settings] {
	return rapid.Custom(func(t *rapid.T) Settings {
		share := rapid.Float64Range(0, 0.33)
		return Settings{
			Seed:        rapid.Uint64().Draw(t, "seed"),
			Start:       time.UnixMilli(rapid.Int64Range(40*365*24*3600_000, 7000*365*24*3600_000).Draw(t, "start")),
			Rate:        rapid.SampledFrom([]float64{0, 0, 0.001, 1, 33.3, 1e6}).Draw(t, "rate"),
			Customers:   rapid.IntRange(1, 3000).Draw(t, "customers"),
			DailyEvents: rapid.Float64Range(0.01, 1000).Draw(t, "daily"),
			Invalid:     share.Draw(t, "invalid"),
			Late:        share.Draw(t, "late"),
			Duplicated:  share.Draw(t, "duplicated"),
			MaxLateness: time.Duration(rapid.Int64Range(1, 8e6).Draw(t, "lateness")) * time.Second,
		}
	})
}

func TestSameSettingsGiveTheSameEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := settings().Draw(t, "settings")
		a, b := open(t, settings), open(t, settings)
		settings.Seed++
		c := open(t, settings)
		settings.Seed--
		settings.Start = settings.Start.Add(time.Millisecond)
		d := open(t, settings)
		ids := map[string]bool{}
		for range 80 {
			event := a.Next()
			require.Equal(t, event, b.Next())
			if event.Fault == None {
				ids[read(t, event.Data).MessageID] = true
			}
		}
		for range 80 {
			for _, other := range []*Shop{c, d} {
				if event := other.Next(); event.Fault == None {
					require.False(t, ids[read(t, event.Data).MessageID], "another seed or start has other ids")
				}
			}
		}
	})
}

var messageIDIn = regexp.MustCompile(`"messageId":"([0-9a-f]{24})"`)

// TestFaultLabelsMatchTheEvents diagnoses each event from its bytes and compares the
// result with the label.
func TestFaultLabelsMatchTheEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := settings().Draw(t, "settings")
		s := open(t, settings)
		seen := map[string]bool{}
		ids := map[string]bool{}
		clock, happened := settings.Start.UTC().Truncate(time.Millisecond), time.Time{}
		for range 150 {
			event := s.Next()
			require.False(t, event.Received.Before(clock), "the clock never decreases")
			clock = event.Received
			fault := diagnose(t, event.Data, seen[string(event.Data)])
			require.Equal(t, string(event.Fault), string(fault), "%s", event.Data)
			if fault == None {
				seen[string(event.Data)] = true
			}
			if fault.Invalid() || fault == Duplicate {
				continue
			}
			id := messageIDIn.FindSubmatch(event.Data)
			require.NotNil(t, id)
			require.False(t, ids[string(id[1])], "a message id is used once")
			ids[string(id[1])] = true

			m := read(t, event.Data)
			require.Equal(t, event.Received.Truncate(time.Millisecond), m.ReceivedAt)
			if fault == Late {
				lateness := m.ReceivedAt.Sub(m.Timestamp) - happenedBefore*time.Millisecond
				require.Positive(t, lateness)
				require.LessOrEqual(t, lateness, settings.MaxLateness)
				continue
			}
			require.False(t, m.Timestamp.Before(happened), "events that are not late are in order of time")
			happened = m.Timestamp
		}
	})
}

// diagnose returns the fault of an event from its bytes.
func diagnose(t require.TestingT, data []byte, before bool) Fault {
	if before {
		return Duplicate
	}
	if !utf8.Valid(data) {
		return NotUTF8
	}
	var anything any
	if json.Unmarshal(data, &anything) != nil {
		return BrokenJSON
	}
	object, ok := anything.(map[string]any)
	if !ok {
		return NotAnObject
	}
	text := func(name string) string { s, _ := object[name].(string); return s }
	switch {
	case text("type") == "":
		return NoType
	case text("messageId") == "":
		return NoMessageID
	case text("userId") == "" && text("anonymousId") == "":
		return NoIDs
	case object["timestamp"] == nil:
		return NoTimestamp
	case text("type") == "track" && text("event") == "":
		return NoEventName
	}
	happened, err := time.Parse(time.RFC3339, text("timestamp"))
	if err != nil {
		return AbsurdTimestamp
	}
	member := "properties"
	if text("type") == "identify" {
		member = "traits"
	}
	body, ok := object[member].(map[string]any)
	if !ok {
		return WrongType
	}
	name := text("event")
	if name == "" {
		name = text("type")
	}
	articles := []any{}
	required := []string{}
	switch name {
	case "page", "identify", "Unsubscribed":
	case "Products Searched":
		required = []string{"query"}
	case "Product Viewed", "Product Added", "Product Removed":
		articles = append(articles, object["properties"])
	case "Cart Viewed":
		articles, _ = body["products"].([]any)
	case "Checkout Started":
		articles, _ = body["products"].([]any)
	case "Order Completed":
		articles, _ = body["products"].([]any)
		required = []string{"order_id", "total"}
	case "Email Delivered", "Email Opened":
		required = []string{"campaign_id"}
	case "Email Link Clicked":
		required = []string{"link_url"}
	default:
		require.Regexp(t, "^Un", name)
		return UnknownEvent
	}
	for _, name := range required {
		if body[name] == nil {
			return MissingMember
		}
	}
	if _, isText := body["total"].(string); isText {
		return TextForNumber
	}
	if total, ok := body["total"].(float64); ok && total < 0 {
		return NegativeTotal
	}
	for _, a := range articles {
		a := a.(map[string]any)
		if a["product_id"] == nil && a["sku"] == nil {
			return MissingMember
		}
		if _, isText := a["price"].(string); isText {
			return TextForNumber
		}
	}
	received, err := time.Parse(time.RFC3339, text("receivedAt"))
	require.NoError(t, err)
	if received.Sub(happened) > happenedBefore*time.Millisecond {
		return Late
	}
	return None
}

func TestSharesOfFaultsMatchSettings(t *testing.T) {
	const n = 60_000
	s := open(t, Settings{
		Seed: 3, Start: newYear, Customers: 2000, DailyEvents: 20,
		Invalid: 0.03, Late: 0.05, Duplicated: 0.02, MaxLateness: time.Hour,
	})
	counts := map[Fault]int{}
	for range n {
		counts[s.Next().Fault]++
	}
	within := func(got int, share float64) {
		t.Helper()
		// Six standard deviations.
		require.InDelta(t, share*n, got, 6*math.Sqrt(share*(1-share)*n))
	}
	within(counts[Late], 0.05)
	within(counts[Duplicate], 0.02)
	within(n-counts[Late]-counts[Duplicate]-counts[None], 0.03)
	for _, s := range injectors {
		require.NotZero(t, counts[s.fault], s.fault)
	}
	require.Len(t, counts, len(injectors)+3)
}

func TestSharesOfZeroAndOne(t *testing.T) {
	for _, c := range []struct {
		settings Settings
		want     func(Fault) bool
	}{
		{Settings{Invalid: 1}, func(f Fault) bool { return f.Invalid() || f == UnknownEvent }},
		{Settings{Late: 1, MaxLateness: time.Second}, func(f Fault) bool { return f == Late }},
		{Settings{}, func(f Fault) bool { return f == None }},
	} {
		c.settings.Customers, c.settings.DailyEvents, c.settings.Start = 100, 20, newYear
		s := open(t, c.settings)
		for range 5000 {
			require.True(t, c.want(s.Next().Fault))
		}
	}
	// The first event cannot be a duplicate.
	s := open(t, Settings{Customers: 1, Duplicated: 1, Rate: 1, Start: newYear})
	first := s.Next()
	require.Equal(t, None, first.Fault)
	for range 100 {
		event := s.Next()
		require.Equal(t, Duplicate, event.Fault)
		require.Equal(t, first.Data, event.Data)
	}
}

func TestFaultsDoNotChangeBehaviour(t *testing.T) {
	clean := Settings{Seed: 4, Start: newYear, Customers: 50, DailyEvents: 20}
	troubled := clean
	troubled.Late, troubled.MaxLateness = 0.3, time.Hour
	a, b := open(t, clean), open(t, troubled)
	for range 2000 {
		want, got := read(t, a.Next().Data), read(t, b.Next().Data)
		want.Timestamp, want.Original = got.Timestamp, got.Original
		require.Equal(t, want, got)
	}
}

// TestCustomersBehaveConsistently follows customers through a month: carts, orders,
// consent, devices and the frequencies of events are consistent.
func TestCustomersBehaveConsistently(t *testing.T) {
	const n = 60_000
	s := open(t, Settings{Seed: 5, Start: newYear, Customers: 500, DailyEvents: 20})
	var (
		names       = map[string]int{}
		sources     = map[string]int{}
		perUser     = map[string]int{}
		inCart      = map[string]map[string]int{} // cart to product to quantity
		orders      = map[string]bool{}
		owner       = map[string]string{} // anonymousId to userId
		unwanted    = map[string]bool{}
		consent     = map[string]bool{}
		bought      = map[string]int{}
		anonymous   int
		sizes       []int
		localHours  [24]int
		products    = map[string]article{}
		cats        = map[string]bool{}
		checkoutSum = map[string]string{}
	)
	zones := map[string]int{}
	for _, p := range places {
		zones[p.zone] = p.offset
	}
	for range n {
		event := s.Next()
		sizes = append(sizes, len(event.Data))
		m := read(t, event.Data)
		name := m.name()
		names[name]++
		sources[m.Source]++
		if m.UserID != "" {
			perUser[m.UserID]++
		}
		require.NotEmpty(t, m.MessageID)
		require.False(t, m.UserID == "" && m.AnonymousID == "")
		require.Equal(t, m.Timestamp.Sub(m.Original), m.SentAt.Add(190*time.Millisecond).Sub(m.SentAt)+m.ReceivedAt.Sub(m.SentAt)-240*time.Millisecond,
			"timestamp is corrected for the device's clock")
		if m.AnonymousID != "" && m.UserID != "" {
			if known, ok := owner[m.AnonymousID]; ok {
				require.Equal(t, known, m.UserID, "a device belongs to one customer")
			}
			owner[m.AnonymousID] = m.UserID
		}
		switch m.Source {
		case "web", "mobile":
			require.NotEmpty(t, m.AnonymousID)
			if m.UserID == "" {
				anonymous++
			}
			var ctx struct {
				IP        string `json:"ip"`
				UserAgent string `json:"userAgent"`
			}
			require.NoError(t, json.Unmarshal(m.Context, &ctx))
			require.NotEmpty(t, ctx.UserAgent)
			address := netip.MustParseAddr(ctx.IP)
			require.True(t, slices.ContainsFunc([]string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"},
				func(p string) bool { return netip.MustParsePrefix(p).Contains(address) }), ctx.IP)
		case "pos", "crm":
			require.Empty(t, m.AnonymousID)
			require.NotEmpty(t, m.UserID)
		}

		if name == "identify" {
			require.Nil(t, m.Properties)
			require.NotEmpty(t, m.UserID)
			tr := m.Traits
			require.Regexp(t, `^[a-z]+\.[a-z]+\.[0-9]+@example\.(com|org|net)$`, tr.Email)
			require.NotEmpty(t, tr.FirstName)
			require.NotEmpty(t, tr.LastName)
			require.Regexp(t, `^\+1[0-9]{3}55501[0-9]{2}$`, tr.Phone)
			require.NotEmpty(t, tr.City)
			require.Len(t, tr.Country, 2)
			require.Contains(t, zones, tr.Timezone)
			birthday, err := time.Parse(time.DateOnly, tr.Birthday)
			require.NoError(t, err)
			require.Less(t, birthday.Year(), 2008)
			require.NotNil(t, tr.MarketingConsent)
			require.Contains(t, tiers, tr.LoyaltyTier)
			require.False(t, unwanted[m.UserID] && *tr.MarketingConsent)
			consent[m.UserID] = *tr.MarketingConsent
			local := m.Timestamp.Add(time.Duration(zones[tr.Timezone]) * time.Minute)
			if m.Source != "crm" {
				localHours[local.Hour()]++
			}
			continue
		}

		p := m.Properties
		require.Nil(t, m.Traits)
		for _, a := range append(slices.Clone(p.Products), p.article) {
			if a.ProductID == "" {
				continue
			}
			a.Quantity = 0
			if known, ok := products[a.ProductID]; ok {
				require.Equal(t, known, a)
			}
			require.NotEmpty(t, a.SKU)
			require.NotEmpty(t, a.Name)
			require.NotEmpty(t, a.Brand)
			require.Positive(t, cents(t, a.Price))
			products[a.ProductID] = a
			cats[a.Category] = true
		}
		switch name {
		case "Product Added":
			if inCart[p.CartID] == nil {
				inCart[p.CartID] = map[string]int{}
			}
			inCart[p.CartID][p.ProductID] += p.Quantity
		case "Product Removed":
			require.GreaterOrEqual(t, inCart[p.CartID][p.ProductID], 1, "a removed product was added before")
			delete(inCart[p.CartID], p.ProductID)
		case "Cart Viewed":
			require.NotEmpty(t, p.Products)
			for _, a := range p.Products {
				require.Contains(t, inCart[p.CartID], a.ProductID)
			}
		case "Checkout Started":
			require.NotEmpty(t, p.CheckoutID)
			checkoutSum[p.CheckoutID] = p.Value.String()
		case "Order Completed":
			require.False(t, orders[p.OrderID], "an order id is used once")
			orders[p.OrderID] = true
			bought[m.UserID]++
			goods := 0
			for _, a := range p.Products {
				require.Positive(t, a.Quantity)
				goods += cents(t, a.Price) * a.Quantity
			}
			discount := 0
			if p.Discount != "" {
				discount = cents(t, p.Discount)
			}
			require.Equal(t, goods-discount, cents(t, p.Revenue))
			require.Equal(t, cents(t, p.Revenue)+cents(t, p.Shipping)+cents(t, p.Tax), cents(t, p.Total))
			require.Equal(t, "EUR", p.Currency)
			if m.Source != "pos" {
				require.Equal(t, checkoutSum[p.CheckoutID], p.Total.String(), "the order has the total of its checkout")
			}
		case "Email Delivered", "Email Opened", "Email Link Clicked", "Unsubscribed":
			require.NotEmpty(t, p.CampaignID)
			require.NotEmpty(t, p.EmailID)
			require.False(t, unwanted[m.UserID], "no mail after unsubscribing")
			if agreed, ok := consent[m.UserID]; ok {
				require.True(t, agreed, "no mail without consent")
			}
			require.Equal(t, name == "Email Link Clicked", p.LinkURL != "")
			if name == "Unsubscribed" {
				unwanted[m.UserID] = true
			}
		case "Products Searched":
			require.NotEmpty(t, p.Query)
		case "page":
			require.NotEmpty(t, m.Name)
			require.True(t, strings.HasPrefix(p.Path, "/"))
		}
	}

	for _, name := range []string{
		"page", "identify", "Products Searched", "Product Viewed", "Product Added", "Product Removed",
		"Cart Viewed", "Checkout Started", "Order Completed",
		"Email Delivered", "Email Opened", "Email Link Clicked", "Unsubscribed",
	} {
		require.Greater(t, names[name], 10, name)
	}
	require.Len(t, names, 13)
	require.Len(t, sources, 4)
	require.Greater(t, anonymous, n/20, "many events are anonymous")
	require.Greater(t, names["Product Viewed"], 2*names["Product Added"])
	require.Greater(t, names["Product Added"], names["Checkout Started"])
	require.Greater(t, names["Checkout Started"]+sources["pos"], names["Order Completed"])
	require.Greater(t, names["Email Delivered"], names["Email Opened"])
	require.Greater(t, names["Email Opened"], 2*names["Email Link Clicked"])
	require.Len(t, products, 204)
	require.Len(t, cats, 12)

	// A tenth of the customers cause a third of the events.
	var counts []int
	total := 0
	for _, count := range perUser {
		counts = append(counts, count)
		total += count
	}
	slices.Sort(counts)
	tenth := 0
	for _, count := range counts[len(counts)*9/10:] {
		tenth += count
	}
	require.Greater(t, 3*tenth, total)

	// There is more activity in the evening than at night.
	night, evening := 0, 0
	for hour, count := range localHours {
		if hour >= 1 && hour < 6 {
			night += count
		} else if hour >= 18 && hour < 23 {
			evening += count
		}
	}
	require.Greater(t, evening, 3*night)

	slices.Sort(sizes)
	require.InDelta(t, 550, sizes[n/2], 60, "a typical event")
	require.Less(t, sizes[n-1], maxEventBytes)
}

func TestWithoutRateTimeFollowsDailyEvents(t *testing.T) {
	const days = 5
	s := open(t, Settings{Seed: 6, Start: newYear, Customers: 300, DailyEvents: 40})
	var last Event
	for range days * 300 * 40 {
		last = s.Next()
	}
	require.InDelta(t, days*24, last.Received.Sub(newYear).Hours(), 24*days*0.05)
}

func TestRateSetsTheClock(t *testing.T) {
	s := open(t, Settings{Seed: 6, Start: newYear, Customers: 300, Rate: 250})
	for i := range 1000 {
		require.Equal(t, newYear.Add(time.Duration(i)*4*time.Millisecond), s.Next().Received)
	}
}

// An append to the bytes of one event does not change another.
func TestEventsDoNotShareBytes(t *testing.T) {
	settings := Settings{Seed: 7, Start: newYear, Customers: 30, Rate: 1, Invalid: 0.3}
	a, b := open(t, settings), open(t, settings)
	var kept [][]byte
	for range 500 {
		event := a.Next()
		kept = append(kept, event.Data)
		_ = append(event.Data, "overwritten"...)
	}
	for _, data := range kept {
		require.True(t, bytes.Equal(b.Next().Data, data))
	}
}

func TestClockStopsAtTheEndOfTime(t *testing.T) {
	for _, settings := range []Settings{{Rate: 1e-300}, {DailyEvents: 1e-9}} {
		settings.Customers, settings.Start = 3, newYear
		s := open(t, settings)
		for range 1000 {
			s.Next()
		}
		require.Equal(t, "9999-12-31T00:00:00Z", s.Next().Received.Format(time.RFC3339Nano))
		require.Equal(t, 9999, read(t, s.Next().Data).ReceivedAt.Year())
	}
}

func TestSmallShops(t *testing.T) {
	for customers := 1; customers < 20; customers++ {
		s := open(t, Settings{Seed: 8, Start: newYear, Customers: customers, Rate: 1e6})
		for range 3000 {
			read(t, s.Next().Data)
		}
	}
}

func TestInvalidSettings(t *testing.T) {
	good := Settings{Customers: 10, DailyEvents: 1, Start: newYear}
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*Settings){
		"customers is 0":         func(s *Settings) { s.Customers = 0 },
		"customers is 100000001": func(s *Settings) { s.Customers = maxCustomers + 1 },
		"rate is -1":             func(s *Settings) { s.Rate = -1 },
		"rate is NaN":            func(s *Settings) { s.Rate = math.NaN() },
		"daily events is 0":      func(s *Settings) { s.DailyEvents = 0 },
		"from 0 to 1":            func(s *Settings) { s.Invalid = math.NaN() },
		"not exceed 1 together":  func(s *Settings) { s.Invalid, s.Duplicated = 0.6, 0.6 },
		"must be 1s or more":     func(s *Settings) { s.Late = 0.1 },
		"a year or less":         func(s *Settings) { s.MaxLateness = 9000 * time.Hour },
		"start is":               func(s *Settings) { s.Start = time.Time{} },
	} {
		settings := good
		change(&settings)
		_, err := New(settings)
		require.ErrorContains(t, err, want)
	}
}

func TestAppendFunctions(t *testing.T) {
	for _, n := range []int{0, 5, 99, 100, 12345} {
		require.Equal(t, n, cents(t, json.Number(appendCents(nil, n))))
	}
	require.Equal(t, "000042", string(appendPadded(nil, 42, 6)))
	require.Equal(t, "999999", string(appendPadded(nil, 999999, 6)))
	require.Equal(t, "1000000", string(appendPadded(nil, 1000000, 6)))
	require.Equal(t, "07", string(appendPadded(nil, 7, 2)))
	require.Equal(t, "0000beef", string(appendHex32(nil, 0xbeef)))
	require.Equal(t, "00000000-0000-4000-8000-000000000000", string(appendUUID(nil, 0, 0)))
	require.Equal(t, "ffffffff-ffff-4fff-bfff-ffffffffffff", string(appendUUID(nil, math.MaxUint64, math.MaxUint64)))

	r := rand.New(rand.NewPCG(1, 2))
	var dates dateCache
	for range 10_000 {
		instant := time.UnixMilli(r.Int64N(latest.UnixMilli())).UTC()
		require.Equal(t, instant.Format("2006-01-02T15:04:05.000Z"), string(dates.append(nil, instant.UnixMilli())))
		require.Equal(t, instant.Format("2006-01-02T15:04:05.000Z"), string(dates.append(nil, instant.UnixMilli())))
	}
}
