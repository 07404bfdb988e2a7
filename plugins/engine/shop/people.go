package shop

import "fmt"

// place is a home of customers. Offset is its standard time without daylight
// saving, so that a shop does not depend on the machine's time zone tables.
type place struct {
	city, country, zone string
	offset              int // minutes east of UTC
}

var places = []place{
	{"Berlin", "DE", "Europe/Berlin", 60}, {"München", "DE", "Europe/Berlin", 60},
	{"Wien", "AT", "Europe/Vienna", 60}, {"Zürich", "CH", "Europe/Zurich", 60},
	{"Paris", "FR", "Europe/Paris", 60}, {"Lyon", "FR", "Europe/Paris", 60},
	{"Madrid", "ES", "Europe/Madrid", 60}, {"Kraków", "PL", "Europe/Warsaw", 60},
	{"London", "GB", "Europe/London", 0}, {"Dublin", "IE", "Europe/Dublin", 0},
	{"Lisboa", "PT", "Europe/Lisbon", 0}, {"Helsinki", "FI", "Europe/Helsinki", 120},
	{"New York", "US", "America/New_York", -300}, {"Boston", "US", "America/New_York", -300},
	{"Chicago", "US", "America/Chicago", -360}, {"Denver", "US", "America/Denver", -420},
	{"Seattle", "US", "America/Los_Angeles", -480}, {"Toronto", "CA", "America/Toronto", -300},
	{"São Paulo", "BR", "America/Sao_Paulo", -180}, {"Mumbai", "IN", "Asia/Kolkata", 330},
	{"Singapore", "SG", "Asia/Singapore", 480}, {"Tokyo", "JP", "Asia/Tokyo", 540},
	{"Sydney", "AU", "Australia/Sydney", 600}, {"Auckland", "NZ", "Pacific/Auckland", 720},
}

// activity is the relative activity at each hour of the local day, 16 at most.
var activity = [24]int{2, 1, 1, 1, 1, 1, 2, 4, 6, 8, 9, 10, 11, 10, 9, 9, 9, 10, 12, 14, 16, 15, 11, 6}

// personName is a name as written and as used in an email address.
type personName struct{ written, plain string }

var (
	firstNames = []personName{
		{"Ada", "ada"}, {"Amir", "amir"}, {"Anaïs", "anais"}, {"Björn", "bjorn"}, {"Carla", "carla"}, {"Chidi", "chidi"},
		{"Dana", "dana"}, {"Elif", "elif"}, {"Emil", "emil"}, {"Farah", "farah"}, {"Gustav", "gustav"}, {"Hana", "hana"},
		{"Ines", "ines"}, {"Ivo", "ivo"}, {"Jakub", "jakub"}, {"José", "jose"}, {"Kaja", "kaja"}, {"Kenji", "kenji"},
		{"Lena", "lena"}, {"Łukasz", "lukasz"}, {"Maya", "maya"}, {"Milo", "milo"}, {"Noor", "noor"}, {"Olga", "olga"},
		{"Pia", "pia"}, {"Quinn", "quinn"}, {"Ravi", "ravi"}, {"Rosa", "rosa"}, {"Søren", "soren"}, {"Tess", "tess"},
		{"Uma", "uma"}, {"Victor", "victor"}, {"Wanda", "wanda"}, {"Xenia", "xenia"}, {"Yusuf", "yusuf"}, {"Zoë", "zoe"},
	}
	lastNames = []personName{
		{"Abernathy", "abernathy"}, {"Almeida", "almeida"}, {"Bakker", "bakker"}, {"Baumgärtner", "baumgaertner"},
		{"Castellan", "castellan"}, {"Dahl", "dahl"}, {"Ebbing", "ebbing"}, {"Fairweather", "fairweather"},
		{"García", "garcia"}, {"Hollis", "hollis"}, {"Ivarsson", "ivarsson"}, {"Jansen", "jansen"},
		{"Kowalczyk", "kowalczyk"}, {"Lindqvist", "lindqvist"}, {"Mbeki", "mbeki"}, {"Nakamura", "nakamura"},
		{"O'Dell", "odell"}, {"Pettersson", "pettersson"}, {"Quist", "quist"}, {"Rosenthal", "rosenthal"},
		{"Sørbø", "sorbo"}, {"Tanaka", "tanaka"}, {"Underhill", "underhill"}, {"Vâlcan", "valcan"},
		{"Weatherby", "weatherby"}, {"Yıldız", "yildiz"}, {"Zielińska", "zielinska"}, {"Okonkwo", "okonkwo"},
		{"Fontaine", "fontaine"}, {"Marchetti", "marchetti"}, {"Sharma", "sharma"}, {"Van Houten", "vanhouten"},
	}
	mailDomains = []string{"example.com", "example.org", "example.net"}
	areaCodes   = []string{"202", "212", "303", "312", "404", "415", "503", "617", "702", "808"}
	tiers       = []string{"none", "bronze", "silver", "gold", "platinum"}
)

// device is a browser or phone: the JSON members of the context after the address.
type device struct{ members string }

var (
	browsers = []device{
		{`"userAgent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"`},
		{`"userAgent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/138.0.0.0 Safari/537.36"`},
		{`"userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.5 Safari/605.1.15"`},
		{`"userAgent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"`},
		{`"userAgent":"Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/138.0.0.0 Mobile Safari/537.36"`},
	}
	phones = []device{
		{`"userAgent":"Shop/4.2 (iPhone; iOS 18.5)","device":{"type":"ios","model":"iPhone16,1"}`},
		{`"userAgent":"Shop/4.1 (iPhone; iOS 17.7)","device":{"type":"ios","model":"iPhone13,4"}`},
		{`"userAgent":"Shop/4.2 (Android 15)","device":{"type":"android","model":"Pixel 9"}`},
		{`"userAgent":"Shop/4.0 (Android 14)","device":{"type":"android","model":"SM-A556B"}`},
	}
)

// person is the changing state of one customer, in a few bytes, because there may
// be millions. Constant attributes are derived from the customer's number.
type person struct {
	orders uint16
	flags  uint8
}

const (
	// present: the customer is in a visit.
	present uint8 = 1 << iota
	// member: the shop knows the customer's userId.
	member
	// browserKnown and phoneKnown: the customer has signed in there.
	browserKnown
	phoneKnown
	// unsubscribed: the customer has unsubscribed from mail.
	unsubscribed
)

// placeOf returns the home of a customer. It and the functions below derive
// constant attributes from the random bits of the customer (facts).
func placeOf(facts uint64) *place { return &places[facts%uint64(len(places))] }

// wantsAccount reports whether a customer signs up when asked: four of five do.
func wantsAccount(facts uint64) bool { return facts>>8%5 != 0 }

// memberFromTheStart reports whether a customer was a member before the first
// event: two of five were.
func memberFromTheStart(facts uint64) bool { return wantsAccount(facts) && facts>>12%2 == 0 }

// consents reports whether a customer agrees to mail until unsubscribing.
func consents(facts uint64) bool { return facts>>16%10 < 7 }

// skew returns the error of the clock of a customer's device, in milliseconds.
func skew(facts uint64) int64 {
	if facts>>20%8 != 0 {
		return 0
	}
	return int64(facts>>24%240_000) - 120_000
}

func tierOf(orders uint16) string {
	switch {
	case orders == 0:
		return tiers[0]
	case orders < 3:
		return tiers[1]
	case orders < 6:
		return tiers[2]
	case orders < 10:
		return tiers[3]
	}
	return tiers[4]
}

// campaign is a mailing.
type campaign struct {
	name string
	// properties of the mail events, and context of a visit that begins with a
	// click.
	properties, context []byte
	path                string
}

const (
	noCampaign = iota
	cartReminder
	orderConfirmation
	firstNewsletter
)

var campaigns = newCampaigns()

func newCampaigns() []campaign {
	all := []campaign{{}}
	for i, c := range []struct{ name, subject, path string }{
		{"cart-reminder", "You left something behind", "/cart"},
		{"order-confirmation", "Thank you for your order", "/orders"},
		{"weekly-picks", "This week's picks", "/weekly"},
		{"spring-sale", "Spring sale: up to 30% off", "/sale"},
		{"new-arrivals", "New in the shop", "/new"},
		{"club-news", "News for club members", "/club"},
	} {
		all = append(all, campaign{
			name:       c.name,
			path:       c.path,
			properties: fmt.Appendf(nil, `"campaign_id":"cmp-%02d","campaign_name":%q,"email_subject":%q`, i+1, c.name, c.subject),
			context:    fmt.Appendf(nil, `"campaign":{"name":%q,"source":"newsletter","medium":"email"}`, c.name),
		})
	}
	return all
}
