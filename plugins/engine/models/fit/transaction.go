package fit

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Result classifies a transaction that was read.
type Result string

// The results of reading a transaction; all but Accepted are reasons for its
// rejection.
const (
	Accepted        Result = "read"
	Failed          Result = "failed" // in a processor of the input
	InvalidCustomer Result = "customer"
	InvalidTime     Result = "time"
	InvalidAmount   Result = "amount"
)

// maxID is the maximum length of a customer id in bytes. It rejects whole
// messages that a wrong query returns as an id.
const maxID = 256

// maxAmount is the maximum amount of a purchase.
const maxAmount = 1e15

// ParseCustomer returns the customer id of a value: a text that is not blank, or
// a whole number.
func ParseCustomer(value any) (id string, ok bool) {
	switch v := value.(type) {
	case string:
		if len(v) <= maxID {
			id = strings.TrimSpace(v)
		}
	case int64:
		id = strconv.FormatInt(v, 10)
	case uint64:
		id = strconv.FormatUint(v, 10)
	case json.Number:
		if _, err := v.Int64(); err == nil {
			id = v.String()
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			id = strconv.FormatInt(int64(v), 10)
		}
	}
	return id, id != ""
}

// ParseDay returns the day of a value in zone: a time, a text in RFC 3339 or a
// date such as 2026-01-31. It rejects numbers, because seconds, milliseconds and
// 20260131 cannot be distinguished.
func ParseDay(value any, zone *time.Location) (day Day, ok bool) {
	switch v := value.(type) {
	case time.Time:
		return DayOf(v.In(zone)), true
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return DayOf(t.In(zone)), true
		}
		if date, err := time.Parse(time.DateOnly, v); err == nil {
			return DayOf(date), true
		}
	}
	return 0, false
}

// ParseAmount returns the amount of a value: a number from 0 to 1e15.
func ParseAmount(value any) (amount float64, ok bool) {
	switch v := value.(type) {
	case float64:
		amount = v
	case int64:
		amount = float64(v)
	case uint64:
		amount = float64(v)
	case json.Number:
		parsed, err := v.Float64()
		if err != nil {
			return 0, false
		}
		amount = parsed
	default:
		return 0, false
	}
	return amount, amount >= 0 && amount <= maxAmount
}

// Ledger collects the accepted transactions of one run and counts the others.
type Ledger struct {
	Transactions
	// ByReason has the number of rejected transactions by reason.
	ByReason map[Result]int
}

// Reject counts a transaction that cannot be used.
func (l *Ledger) Reject(reason Result) {
	if l.ByReason == nil {
		l.ByReason = map[Result]int{}
	}
	l.ByReason[reason]++
}

// Rejected returns the number of transactions that cannot be used.
func (l *Ledger) Rejected() int {
	n := 0
	for _, count := range l.ByReason {
		n += count
	}
	return n
}

// Reasons lists the reasons of rejection and their numbers, such as "amount 3,
// time 4".
func (l *Ledger) Reasons() string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(l.ByReason)) {
		parts = append(parts, fmt.Sprintf("%s %d", reason, l.ByReason[reason]))
	}
	return strings.Join(parts, ", ")
}

// Counts are the numbers of transactions of a run by use.
type Counts struct {
	// Used and Later are accepted transactions up to the last observed day, and
	// after it.
	Used  int `json:"used"`
	Later int `json:"later"`
	// Unusable are rejected transactions by reason.
	Unusable map[Result]int `json:"unusable,omitempty"`
}

// CountsUntil returns the numbers of transactions if until is the last observed
// day.
func (l *Ledger) CountsUntil(until Day) Counts {
	used := l.CountUntil(until)
	return Counts{Used: used, Later: l.Count() - used, Unusable: l.ByReason}
}
