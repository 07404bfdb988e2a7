package shop

import (
	"strconv"
	"time"
)

// Times before the receipt at which an event happened and was sent, in
// milliseconds.
const (
	happenedBefore = 240
	sentBefore     = 50
)

func track(event string) string {
	return `{"type":"track","event":"` + event + `","messageId":"`
}

// The beginning of each kind of event, up to its message id.
var (
	pageBegin     = `{"type":"page","name":"`
	pageNamed     = `","messageId":"`
	identifyBegin = `{"type":"identify","messageId":"`

	searchedBegin  = track("Products Searched")
	viewedBegin    = track("Product Viewed")
	addedBegin     = track("Product Added")
	removedBegin   = track("Product Removed")
	cartBegin      = track("Cart Viewed")
	checkoutBegin  = track("Checkout Started")
	completedBegin = track("Order Completed")

	emailDelivered    = track("Email Delivered")
	emailOpened       = track("Email Opened")
	emailClicked      = track("Email Link Clicked")
	emailUnsubscribed = track("Unsubscribed")
)

// sources maps a channel to the source of its events.
var sources = [...]string{web: "web", mobile: "mobile", till: "pos", mail: "crm", crm: "crm"}

const site = "https://shop.example.com"

func (s *Shop) add(text string) { s.buf = append(s.buf, text...) }

// head appends the members that all events have, from the message id to the end of
// the context. A path that is not empty becomes the page of the context.
func (s *Shop) head(e *entry, path string) {
	s.messages++
	id := scramble(s.idSeed + s.messages*golden)
	b := appendHex32(s.buf, uint32(id>>32))
	b = appendHex32(b, uint32(id))
	b = appendHex32(b, uint32(scramble(s.idSeed^s.messages)))
	device := e.channel == web || e.channel == mobile
	if device {
		b = append(b, `","anonymousId":"`...)
		own := facts(s.settings.Seed, 6+int(e.channel), int(e.customer))
		b = appendUUID(b, own, scramble(own^golden))
	}
	if e.known {
		b = append(b, `","userId":"`...)
		b = appendUserID(b, int(e.customer))
	}

	received := s.clock / 1000
	happened := received - happenedBefore - e.lateness
	var clockError int64
	if device {
		clockError = skew(e.facts)
	}
	b = append(b, `","timestamp":"`...)
	b = s.dates.append(b, happened)
	b = append(b, `","originalTimestamp":"`...)
	b = s.dates.append(b, happened+clockError)
	b = append(b, `","sentAt":"`...)
	b = s.dates.append(b, received-sentBefore+clockError)
	b = append(b, `","receivedAt":"`...)
	b = s.dates.append(b, received)
	b = append(b, `","source":"`...)
	b = append(b, sources[e.channel]...)
	b = append(b, `","context":{`...)

	switch e.channel {
	case web:
		b = appendAddress(b, e.facts)
		b = append(b, browsers[e.facts>>48%uint64(len(browsers))].members...)
		if path != "" {
			b = append(b, `,"page":{"path":"`...)
			b = append(b, path...)
			b = append(b, `"}`...)
		}
		if e.campaign != noCampaign {
			b = append(b, ',')
			b = append(b, campaigns[e.campaign].context...)
		}
	case mobile:
		b = appendAddress(b, scramble(e.facts))
		b = append(b, phones[e.facts>>52%uint64(len(phones))].members...)
	case till:
		b = append(b, `"ip":"192.0.2.250","device":{"type":"till","id":"till-`...)
		b = strconv.AppendUint(b, 10+e.facts>>56%40, 10)
		b = append(b, `"}`...)
	case mail:
		b = append(b, campaigns[e.campaign].context...)
	case crm:
		b = append(b, `"library":{"name":"crm-export","version":"2.1"}`...)
	}
	s.buf = append(b, '}')
}

func (s *Shop) landingPage(e *entry) {
	path, name := "/", "Home"
	if e.campaign != noCampaign {
		path, name = campaigns[e.campaign].path, "Campaign"
	}
	s.page(e, name, path)
}

func (s *Shop) categoryPage(e *entry) {
	c := &categories[s.behaviour.below(len(categories))]
	s.page(e, "Category", "/"+c.slug)
}

func (s *Shop) page(e *entry, name, path string) {
	s.add(pageBegin)
	s.add(name)
	s.add(pageNamed)
	s.head(e, path)
	s.add(`,"properties":{"name":"`)
	s.add(name)
	s.add(`","path":"`)
	s.add(path)
	s.add(`","url":"` + site)
	s.add(path)
	s.add(`","title":"`)
	s.add(name)
	s.add(` | Synthetic Shop"}}`)
}

func (s *Shop) productsSearched(e *entry) {
	s.add(searchedBegin)
	s.head(e, "/search")
	s.add(`,"properties":{"query":"`)
	s.add(searches[s.behaviour.skewed(len(searches))])
	s.add(`","results":`)
	s.buf = strconv.AppendInt(s.buf, int64(s.behaviour.below(60)), 10)
	s.add(`}}`)
}

func (s *Shop) productViewed(e *entry) {
	e.last, e.seen = uint8(s.behaviour.skewed(len(catalogue))), true
	s.product(e, viewedBegin, line{e.last, 1})
}

func (s *Shop) productAdded(e *entry) {
	s.putInCart(e.visit, e.last)
	s.product(e, addedBegin, line{e.last, 1})
	e.seen = false
}

func (s *Shop) productRemoved(e *entry) {
	i := s.behaviour.below(int(e.count))
	removed := e.cart[i]
	e.count--
	e.cart[i] = e.cart[e.count]
	s.product(e, removedBegin, removed)
}

// product appends an event about one product.
func (s *Shop) product(e *entry, begin string, l line) {
	p := &catalogue[l.product]
	s.add(begin)
	s.head(e, p.path)
	s.add(`,"properties":{`)
	if begin != viewedBegin {
		s.add(`"cart_id":"c-`)
		s.buf = appendHex32(s.buf, uint32(e.serial))
		s.add(`",`)
	}
	s.buf = append(s.buf, p.members...)
	if begin != viewedBegin {
		s.add(`,"quantity":`)
		s.buf = strconv.AppendUint(s.buf, uint64(l.quantity), 10)
	}
	s.add(`,"currency":"` + currency + `"}}`)
}

func (s *Shop) cartViewed(e *entry) {
	s.add(cartBegin)
	s.head(e, "/cart")
	s.add(`,"properties":{"cart_id":"c-`)
	s.buf = appendHex32(s.buf, uint32(e.serial))
	s.add(`","currency":"` + currency + `"`)
	s.cartProducts(e)
	s.add(`}}`)
}

func (s *Shop) checkoutStarted(e *entry) {
	sum := s.price(e)
	s.add(checkoutBegin)
	s.head(e, "/checkout")
	s.add(`,"properties":{"checkout_id":"k-`)
	s.buf = appendHex32(s.buf, uint32(e.serial>>32))
	s.add(`","value":`)
	s.buf = appendCents(s.buf, sum.total)
	s.sums(sum)
	s.cartProducts(e)
	s.add(`}}`)
}

func (s *Shop) orderCompleted(e *entry) {
	sum := s.price(e)
	s.orders++
	s.add(completedBegin)
	s.head(e, "/thanks")
	s.add(`,"properties":{"order_id":"o-`)
	s.buf = strconv.AppendInt(s.buf, s.start/1e6, 36)
	s.add(`-`)
	s.buf = appendPadded(s.buf, s.orders, 6)
	if e.channel != till {
		s.add(`","checkout_id":"k-`)
		s.buf = appendHex32(s.buf, uint32(e.serial>>32))
	}
	s.add(`","total":`)
	s.buf = appendCents(s.buf, sum.total)
	s.sums(sum)
	s.cartProducts(e)
	s.add(`}}`)
}

// sums are the parts of a bill, in cents.
type sums struct{ revenue, discount, shipping, tax, total int }

func (s *Shop) price(e *entry) (sum sums) {
	goods := 0
	for _, l := range e.cart[:e.count] {
		goods += catalogue[l.product].cents * int(l.quantity)
	}
	// One visit in eight has a coupon, the same at checkout and order.
	if e.serial>>8%8 == 0 {
		sum.discount = goods / 10
	}
	sum.revenue = goods - sum.discount
	if sum.revenue < 5000 && e.channel != till {
		sum.shipping = 495
	}
	sum.tax = (sum.revenue*8 + 50) / 100
	sum.total = sum.revenue + sum.shipping + sum.tax
	return sum
}

func (s *Shop) sums(sum sums) {
	s.add(`,"revenue":`)
	s.buf = appendCents(s.buf, sum.revenue)
	s.add(`,"shipping":`)
	s.buf = appendCents(s.buf, sum.shipping)
	s.add(`,"tax":`)
	s.buf = appendCents(s.buf, sum.tax)
	if sum.discount > 0 {
		s.add(`,"discount":`)
		s.buf = appendCents(s.buf, sum.discount)
		s.add(`,"coupon":"WELCOME10"`)
	}
	s.add(`,"currency":"` + currency + `"`)
}

func (s *Shop) cartProducts(e *entry) {
	s.add(`,"products":[`)
	for i, l := range e.cart[:e.count] {
		if i > 0 {
			s.add(`,`)
		}
		s.add(`{`)
		s.buf = append(s.buf, catalogue[l.product].members...)
		s.add(`,"quantity":`)
		s.buf = strconv.AppendUint(s.buf, uint64(l.quantity), 10)
		s.add(`}`)
	}
	s.add(`]`)
}

func (s *Shop) identify(e *entry) {
	s.add(identifyBegin)
	s.head(e, "/account")
	f := scramble(e.facts + golden)
	first := &firstNames[f%uint64(len(firstNames))]
	last := &lastNames[f>>8%uint64(len(lastNames))]
	home := placeOf(e.facts)
	b := append(s.buf, `,"traits":{"email":"`...)
	b = append(b, first.plain...)
	b = append(b, '.')
	b = append(b, last.plain...)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(e.customer)+1, 10)
	b = append(b, '@')
	b = append(b, mailDomains[f>>16%uint64(len(mailDomains))]...)
	// +1 AAA 555 0100 to 0199 are reserved for fiction, and valid in the numbering plan.
	phone := f >> 48 % 1000
	b = append(b, `","phone":"+1`...)
	b = append(b, areaCodes[phone/100]...)
	b = append(b, `55501`...)
	b = appendPadded(b, phone%100, 2)
	b = append(b, `","firstName":"`...)
	b = append(b, first.written...)
	b = append(b, `","lastName":"`...)
	b = append(b, last.written...)
	b = append(b, `","city":"`...)
	b = append(b, home.city...)
	b = append(b, `","country":"`...)
	b = append(b, home.country...)
	b = append(b, `","timezone":"`...)
	b = append(b, home.zone...)
	b = append(b, `","birthday":"`...)
	b = appendPadded(b, 1945+f>>24%62, 4)
	b = append(b, '-')
	b = appendPadded(b, 1+f>>32%12, 2)
	b = append(b, '-')
	b = appendPadded(b, 1+f>>40%28, 2)
	b = append(b, `","marketing_consent":`...)
	b = strconv.AppendBool(b, consents(e.facts) && e.person.flags&unsubscribed == 0)
	b = append(b, `,"loyalty_tier":"`...)
	b = append(b, tierOf(e.person.orders)...)
	s.buf = append(b, `"}}`...)
}

func (s *Shop) email(e *entry, begin string) {
	c := &campaigns[e.campaign]
	s.add(begin)
	s.head(e, "")
	s.add(`,"properties":{"email_id":"m-`)
	s.buf = appendHex32(s.buf, uint32(e.serial>>16)+uint32(e.campaign))
	s.add(`",`)
	s.buf = append(s.buf, c.properties...)
	switch begin {
	case emailClicked:
		s.add(`,"link_url":"` + site)
		s.add(c.path)
		s.add(`"`)
	case emailUnsubscribed:
		s.add(`,"list_id":"marketing"`)
	}
	s.add(`}}`)
}

// appendUserID appends the id of a customer. The lowest numbers are the most active
// customers.
func appendUserID(b []byte, customer int) []byte {
	b = append(b, `u-`...)
	return appendPadded(b, uint64(customer)+1, 6)
}

// appendAddress appends an IP address from the ranges for documentation.
func appendAddress(b []byte, bits uint64) []byte {
	b = append(b, `"ip":"`...)
	host := bits>>40%254 + 1
	switch bits >> 48 % 8 {
	case 0:
		b = append(b, `2001:db8:`...)
		b = strconv.AppendUint(b, bits>>32%0xffff+1, 16)
		b = append(b, `::`...)
		b = strconv.AppendUint(b, host, 16)
	case 1, 2:
		b = append(b, `192.0.2.`...)
		b = strconv.AppendUint(b, host, 10)
	case 3, 4:
		b = append(b, `198.51.100.`...)
		b = strconv.AppendUint(b, host, 10)
	default:
		b = append(b, `203.0.113.`...)
		b = strconv.AppendUint(b, host, 10)
	}
	return append(b, `",`...)
}

// appendCents appends a non-negative amount in units of the currency.
func appendCents(b []byte, cents int) []byte {
	b = strconv.AppendInt(b, int64(cents/100), 10)
	return append(b, '.', byte('0'+cents/10%10), byte('0'+cents%10))
}

// appendPadded appends a number with leading zeros up to width digits.
func appendPadded(b []byte, n uint64, width int) []byte {
	for limit := uint64(10); width > 1; width-- {
		if n < limit {
			for range width - 1 {
				b = append(b, '0')
			}
			break
		}
		limit *= 10
	}
	return strconv.AppendUint(b, n, 10)
}

const hexDigits = "0123456789abcdef"

func appendHex32(b []byte, n uint32) []byte {
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, hexDigits[n>>shift&15])
	}
	return b
}

// appendUUID appends 122 bits of a and b in the form of a random UUID.
func appendUUID(dst []byte, a, b uint64) []byte {
	a = a&^0xf000 | 0x4000
	b = b&^(3<<62) | 1<<63
	var text [36]byte
	n := 0
	for shift := 60; shift >= 0; shift -= 4 {
		if n == 8 || n == 13 {
			text[n] = '-'
			n++
		}
		text[n] = hexDigits[a>>shift&15]
		n++
	}
	for shift := 60; shift >= 0; shift -= 4 {
		if n == 18 || n == 23 {
			text[n] = '-'
			n++
		}
		text[n] = hexDigits[b>>shift&15]
		n++
	}
	return append(dst, text[:]...)
}

// dateCache caches the text of the last date, because nearly all times are of the
// same day.
type dateCache struct {
	day  int64
	text [10]byte
}

// append appends a time, in milliseconds since 1970, as RFC 3339 in UTC.
func (c *dateCache) append(b []byte, millis int64) []byte {
	const dayMillis = 24 * 60 * 60 * 1000
	day := millis / dayMillis
	if day != c.day || c.text[0] == 0 {
		c.day = day
		time.Unix(day*24*60*60, 0).UTC().AppendFormat(c.text[:0], time.DateOnly)
	}
	rest := int(millis - day*dayMillis)
	h, m, sec, ms := rest/3600_000, rest/60_000%60, rest/1000%60, rest%1000
	b = append(b, c.text[:]...)
	return append(b, 'T', byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':',
		byte('0'+sec/10), byte('0'+sec%10), '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
