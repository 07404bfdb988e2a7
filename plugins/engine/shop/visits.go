package shop

// A visit is a small state machine. Each event advances one visit by one stage, for
// example
//
//	landing → browsing → inCheckout → paying → (mail) delivered → opened → clicked → landing
//
// and a random draw decides between the possible next stages.

// visit is the state of one customer's visit: in the browser, on the phone, at the
// till, or by mail. Some visits are actions of the shop, such as a change in the
// CRM.
type visit struct {
	customer int32
	channel  channel
	stage    stage
	known    bool // the userId is on the events
	seen     bool // a product has been viewed
	left     uint8
	campaign uint8
	last     uint8 // the product last viewed
	count    uint8 // lines of the cart in use
	cart     [4]line
	serial   uint64 // names the cart and the checkout
}

type line struct{ product, quantity uint8 }

type channel uint8

const (
	web channel = iota
	mobile
	till
	mail
	crm
)

type stage uint8

const (
	finished stage = iota // also the stage before the first visit
	landing
	browsing
	inCheckout
	paying
	delivered
	opened
	clicked
	unsubscribing
	recorded
)

// entry is the event being written, with its customer. lateness is the time between
// the event and its receipt, in milliseconds, beyond the normal delay.
type entry struct {
	*visit
	person   *person
	facts    uint64
	lateness int64
}

// write appends the next event, with a lateness in milliseconds, and advances its
// visit.
func (s *Shop) write(lateness int64) {
	v := s.pick()
	e := entry{visit: v, person: &s.people[v.customer], facts: s.facts(int(v.customer)), lateness: lateness}

	switch v.stage {
	case landing:
		if v.channel == web {
			s.landingPage(&e)
		} else {
			s.productsSearched(&e)
		}
		v.stage = browsing
	case browsing:
		s.browse(&e)
	case inCheckout:
		s.checkoutStarted(&e)
		if s.behaviour.percent(85) {
			v.stage = paying
		} else {
			s.leave(&e)
		}
	case paying:
		if !v.known && wantsAccount(e.facts) && s.behaviour.percent(60) {
			s.signIn(&e)
			break
		}
		s.orderCompleted(&e)
		s.afterOrder(&e)
	case delivered:
		s.email(&e, emailDelivered)
		if s.behaviour.percent(45) {
			v.stage = opened
		} else {
			s.end(&e)
		}
	case opened:
		s.email(&e, emailOpened)
		switch draw := s.behaviour.below(100); {
		case draw < 30:
			v.stage = clicked
		case draw < 33:
			v.stage = unsubscribing
		default:
			s.end(&e)
		}
	case clicked:
		s.email(&e, emailClicked)
		v.channel, v.stage, v.seen = web, landing, false
		v.left = s.visitLength()
	case unsubscribing:
		s.email(&e, emailUnsubscribed)
		e.person.flags |= unsubscribed
		s.end(&e)
	case recorded:
		s.identify(&e)
		s.end(&e)
	}
}

// browse appends one event of a visit in the stage browsing.
func (s *Shop) browse(e *entry) {
	v := e.visit
	if v.left == 0 {
		if v.count > 0 && s.behaviour.percent(60) {
			s.cartViewed(e)
			v.stage = inCheckout
			return
		}
		s.productViewed(e)
		s.leave(e)
		return
	}
	v.left--
	switch draw := s.behaviour.below(100); {
	case !v.known && wantsAccount(e.facts) && draw < 7:
		s.signIn(e)
	case v.seen && draw < 30 && int(v.count) < len(v.cart):
		s.productAdded(e)
	case v.count > 0 && draw < 34:
		s.productRemoved(e)
	case v.count > 0 && draw < 42:
		s.cartViewed(e)
		if s.behaviour.percent(50) {
			v.stage = inCheckout
		}
	case draw < 54:
		s.productsSearched(e)
	case v.channel == web && draw < 70:
		s.categoryPage(e)
	default:
		s.productViewed(e)
	}
}

// visitLength returns the number of events of a visit while browsing.
func (s *Shop) visitLength() uint8 { return uint8(1 + s.behaviour.below(5) + s.behaviour.below(9)) }

// afterOrder advances a visit after its order.
func (s *Shop) afterOrder(e *entry) {
	v, p := e.visit, e.person
	before := tierOf(p.orders)
	if p.orders < 1<<16-1 {
		p.orders++
	}
	v.count = 0
	switch {
	case v.known && tierOf(p.orders) != before:
		v.channel, v.stage = crm, recorded
	case v.known && s.mailable(e):
		v.channel, v.stage, v.campaign = mail, delivered, orderConfirmation
	default:
		s.end(e)
	}
}

func (s *Shop) signIn(e *entry) {
	e.known = true
	e.person.flags |= member
	if e.channel == mobile {
		e.person.flags |= phoneKnown
	} else {
		e.person.flags |= browserKnown
	}
	s.identify(e)
}

// mailable reports whether the shop knows the customer's address and may use it.
func (s *Shop) mailable(e *entry) bool {
	return e.person.flags&member != 0 && e.person.flags&unsubscribed == 0 && consents(e.facts)
}

// leave ends a visit, or sends a reminder of the cart.
func (s *Shop) leave(e *entry) {
	v := e.visit
	if v.count > 0 && v.known && s.mailable(e) && s.behaviour.percent(60) {
		v.channel, v.stage, v.campaign = mail, delivered, cartReminder
		return
	}
	s.end(e)
}

func (s *Shop) end(e *entry) {
	e.person.flags &^= present
	e.visit.stage = finished
}

// pick returns the visit of the next event.
func (s *Shop) pick() *visit {
	for tries := 0; ; tries++ {
		v := &s.visits[s.behaviour.below(len(s.visits))]
		if v.stage == finished {
			s.begin(v)
			return v
		}
		// Mail is opened and clicked with a delay.
		if (v.stage == opened || v.stage == clicked) && tries < 4 && s.behaviour.below(8) != 0 {
			continue
		}
		return v
	}
}

// begin starts a visit of a customer without one. There always is such a customer,
// because there are fewer visits than customers.
func (s *Shop) begin(v *visit) {
	minutes := int(s.clock / (hourMicros / 60) % (24 * 60))
	var (
		customer int
		f        uint64
	)
	for tries := 0; ; tries++ {
		customer = s.behaviour.skewed(len(s.people))
		switch {
		case tries > 32:
			for s.people[customer].flags&present != 0 {
				customer = (customer + 1) % len(s.people)
			}
		case tries > 16:
			customer = s.behaviour.below(len(s.people))
			fallthrough
		default:
			if s.people[customer].flags&present != 0 {
				continue
			}
		}
		f = s.facts(customer)
		hour := localHour(minutes, placeOf(f).offset)
		if tries > 8 || s.behaviour.below(16) < activity[hour] {
			break
		}
	}
	p := &s.people[customer]
	p.flags |= present
	*v = visit{customer: int32(customer), stage: landing, serial: s.behaviour.next()}

	draw := s.behaviour.below(100)
	e := &entry{visit: v, person: p, facts: f}
	switch {
	case p.flags&member != 0 && draw < 6:
		v.channel, v.stage, v.known = till, paying, true
		for range 1 + s.behaviour.below(3) {
			s.putInCart(v, uint8(s.behaviour.skewed(len(catalogue))))
		}
		return
	case p.flags&member != 0 && draw < 9:
		v.channel, v.stage, v.known = crm, recorded, true
		return
	case draw < 19 && s.mailable(e):
		v.channel, v.stage, v.known = mail, delivered, true
		v.campaign = uint8(firstNewsletter + s.behaviour.below(len(campaigns)-firstNewsletter))
		return
	}
	// Each customer prefers one of the two.
	onPhone := f>>36%5 < 2
	if s.behaviour.below(8) == 0 {
		onPhone = !onPhone
	}
	if onPhone {
		v.channel, v.known = mobile, p.flags&phoneKnown != 0
	} else {
		v.channel, v.known = web, p.flags&browserKnown != 0
	}
	v.left = s.visitLength()
}

func (s *Shop) putInCart(v *visit, product uint8) {
	quantity := uint8(1)
	if s.behaviour.below(4) == 0 {
		quantity = uint8(2 + s.behaviour.below(3))
	}
	for i := range v.cart[:v.count] {
		if v.cart[i].product == product {
			v.cart[i].quantity = min(v.cart[i].quantity+quantity, 9)
			return
		}
	}
	v.cart[v.count] = line{product, quantity}
	v.count++
}
