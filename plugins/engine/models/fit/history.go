package fit

import (
	"cmp"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// Day is a calendar day, counted from 1970-01-01.
type Day int32

// DayOf returns the calendar day of t in its own location.
func DayOf(t time.Time) Day {
	year, month, day := t.Date()
	return Day(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// Time returns the start of the day in UTC.
func (d Day) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Transactions collects purchases by customer. It uses about 20 bytes per
// purchase and 100 per customer, and is not safe for concurrent use.
type Transactions struct {
	customers map[string][]transaction
	count     int
	last      Day
}

type transaction struct {
	day    Day
	amount float64
}

// Add adds a purchase, in any order.
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

// Count returns the number of purchases.
func (t *Transactions) Count() int { return t.count }

// Customers returns the number of customers.
func (t *Transactions) Customers() int { return len(t.customers) }

// CountUntil returns the number of purchases up to the end of the day until.
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

// Last returns the day of the latest purchase, 0 if there is none.
func (t *Transactions) Last() Day { return t.last }

// Customer is the history of one customer at the end of a day of observation.
type Customer struct {
	ID string
	// First is the day of the first purchase.
	First Day
	models.Purchases
}

// Observed returns the history of each customer at the end of the day until, with
// times in unit. Purchases of one day are one purchase of the summed amount.
// Later purchases are ignored, and so are customers without earlier ones. The
// result is sorted by customer id.
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
