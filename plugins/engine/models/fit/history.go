package fit

import (
	"cmp"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// Day is a calendar day, counted from 1970-01-01.
type Day int32

// DayOf is the calendar day of a moment in the time's own location.
func DayOf(t time.Time) Day {
	year, month, day := t.Date()
	return Day(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// Time is the midnight, in UTC, that the day begins with.
func (d Day) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Transactions collects purchases by customer. It takes some 20 bytes for each
// purchase and 100 for each customer, and is not safe for concurrent use.
type Transactions struct {
	customers map[string][]transaction
	count     int
	last      Day
}

type transaction struct {
	day    Day
	amount float64
}

// Add adds a purchase; the order of purchases does not matter.
func (t *Transactions) Add(customer string, day Day, amount float64) {
	if t.customers == nil {
		t.customers = map[string][]transaction{}
	}
	if t.count == 0 || day > t.last {
		t.last = day
	}
	t.customers[customer] = append(t.customers[customer], transaction{day, amount})
	t.count++
}

// Count is the number of purchases added.
func (t *Transactions) Count() int { return t.count }

// Customers is the number of customers.
func (t *Transactions) Customers() int { return len(t.customers) }

// CountUntil is the number of purchases up to the end of the day until.
func (t *Transactions) CountUntil(until Day) int {
	n := 0
	for _, all := range t.customers {
		for _, purchase := range all {
			if purchase.day <= until {
				n++
			}
		}
	}
	return n
}

// Last is the day of the latest purchase, 0 if there is none.
func (t *Transactions) Last() Day { return t.last }

// Customer is what is known of one customer at the end of a day of observation.
type Customer struct {
	ID string
	// First is the day of the first purchase.
	First Day
	models.Purchases
}

// Observed returns what was known of each customer at the end of the day until,
// with times in the unit. Purchases of one day are one, of their summed amount;
// later ones are left out, and so are customers without earlier ones. The result
// is in the order of their ids.
func (t *Transactions) Observed(until Day, unit time.Duration) []Customer {
	perUnit := float64(unit) / float64(24*time.Hour)
	customers := make([]Customer, 0, len(t.customers))
	for id, all := range t.customers {
		slices.SortFunc(all, func(a, b transaction) int {
			return cmp.Or(cmp.Compare(a.day, b.day), cmp.Compare(a.amount, b.amount))
		})
		if all[0].day > until {
			continue
		}
		c := Customer{ID: id, First: all[0].day}
		last, spend := c.First, 0.0
		for _, purchase := range all {
			if purchase.day > until {
				break
			}
			if purchase.day != last {
				c.Repeat++
				last = purchase.day
			}
			if c.Repeat > 0 {
				spend += purchase.amount
			}
		}
		c.Age = float64(until-c.First) / perUnit
		if c.Repeat > 0 {
			c.Recency = float64(last-c.First) / perUnit
			c.MeanSpend = spend / float64(c.Repeat)
		}
		customers = append(customers, c)
	}
	slices.SortFunc(customers, func(a, b Customer) int { return cmp.Compare(a.ID, b.ID) })
	return customers
}
