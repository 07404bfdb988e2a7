package fitmodel

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models/fit"
)

// result is what became of a transaction.
type result string

const (
	resultRead     result = "read"
	resultFailed   result = "failed" // in a processor of the input
	resultCustomer result = "customer"
	resultTime     result = "time"
	resultAmount   result = "amount"
)

// reader takes from a message what the models need.
type reader struct {
	customer, time, amount *bloblang.Executor
	needsAmount            bool
	zone                   *time.Location
	// from and until are the first and the last day that can be right.
	from, until fit.Day
}

func (r *reader) read(msg *service.Message) (customer string, day fit.Day, amount float64, outcome result) {
	if msg.GetError() != nil {
		return "", 0, 0, resultFailed
	}
	value, ok := query(msg, r.customer)
	if customer = customerOf(value); !ok || customer == "" {
		return "", 0, 0, resultCustomer
	}
	if value, ok = query(msg, r.time); ok {
		day, ok = r.dayOf(value)
	}
	if !ok || day < r.from || day > r.until {
		return "", 0, 0, resultTime
	}
	if !r.needsAmount {
		return customer, day, 0, resultRead
	}
	if value, ok = query(msg, r.amount); ok {
		amount, ok = amountOf(value)
	}
	if !ok {
		return "", 0, 0, resultAmount
	}
	return customer, day, amount, resultRead
}

// query returns what a mapping makes of a message, false if nothing.
func query(msg *service.Message, mapping *bloblang.Executor) (any, bool) {
	// By way of a message, since a query for a value cannot refer to `this`.
	mapped, err := msg.BloblangQuery(mapping)
	if err != nil || mapped == nil {
		return nil, false
	}
	if mapped.HasStructured() {
		value, err := mapped.AsStructured()
		return value, err == nil
	}
	// A mapping to nothing comes as this text, and as a text it is no id, time
	// or amount either.
	text, err := mapped.AsBytes()
	return string(text), err == nil && string(text) != "null"
}

// maxID bounds the ids of customers, to tell them from whole messages.
const maxID = 256

// customerOf returns the id as text, empty if value is not one.
func customerOf(value any) string {
	switch v := value.(type) {
	case string:
		if len(v) <= maxID {
			return strings.TrimSpace(v)
		}
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return v.String()
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return strconv.FormatInt(int64(v), 10)
		}
	}
	return ""
}

// dayOf reads a time. Numbers are none: seconds, milliseconds and 20260131 look
// the same.
func (r *reader) dayOf(value any) (fit.Day, bool) {
	switch v := value.(type) {
	case time.Time:
		return fit.DayOf(v.In(r.zone)), true
	case string:
		if at, err := time.Parse(time.RFC3339, v); err == nil {
			return fit.DayOf(at.In(r.zone)), true
		}
		if date, err := time.Parse(time.DateOnly, v); err == nil {
			return fit.DayOf(date), true
		}
	}
	return 0, false
}

func amountOf(value any) (float64, bool) {
	var amount float64
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
	return amount, amount >= 0 && amount <= 1e15
}

// rows are the transactions that were read, and how many were not.
type rows struct {
	log fit.Transactions
	not map[result]int
	// used and later divide those that were read.
	used, later int
}

func (r *rows) add(reader *reader, msg *service.Message) result {
	customer, day, amount, outcome := reader.read(msg)
	if outcome == resultRead {
		r.log.Add(customer, day, amount)
		return outcome
	}
	if r.not == nil {
		r.not = map[result]int{}
	}
	r.not[outcome]++
	return outcome
}

// splitAt tells the transactions up to the day until, which are used, from
// those that are later.
func (r *rows) splitAt(until fit.Day) {
	r.used = r.log.CountUntil(until)
	r.later = r.log.Count() - r.used
}

func (r *rows) unusable() int {
	n := 0
	for _, count := range r.not {
		n += count
	}
	return n
}

// unusableReasons lists what is wrong and how often.
func (r *rows) unusableReasons() string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(r.not)) {
		parts = append(parts, fmt.Sprintf("%s %d", reason, r.not[reason]))
	}
	return strings.Join(parts, ", ")
}
