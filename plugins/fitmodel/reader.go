package fitmodel

import (
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models/fit"
)

// reader reads transactions from messages by the configured queries.
type reader struct {
	customer, time, amount *bloblang.Executor
	needsAmount            bool
	zone                   *time.Location
	// from and until are the first and the last plausible day.
	from, until fit.Day
}

// read adds the transaction of a message to the ledger.
func (r *reader) read(ledger *fit.Ledger, msg *service.Message) fit.Result {
	customer, day, amount, result := r.parse(msg)
	if result == fit.Accepted {
		ledger.Add(customer, day, amount)
	} else {
		ledger.Reject(result)
	}
	return result
}

func (r *reader) parse(msg *service.Message) (customer string, day fit.Day, amount float64, result fit.Result) {
	if msg.GetError() != nil {
		return "", 0, 0, fit.Failed
	}
	value, ok := query(msg, r.customer)
	if ok {
		customer, ok = fit.ParseCustomer(value)
	}
	if !ok {
		return "", 0, 0, fit.InvalidCustomer
	}
	if value, ok = query(msg, r.time); ok {
		day, ok = fit.ParseDay(value, r.zone)
	}
	if !ok || day < r.from || day > r.until {
		return "", 0, 0, fit.InvalidTime
	}
	if !r.needsAmount {
		return customer, day, 0, fit.Accepted
	}
	if value, ok = query(msg, r.amount); ok {
		amount, ok = fit.ParseAmount(value)
	}
	if !ok {
		return "", 0, 0, fit.InvalidAmount
	}
	return customer, day, amount, fit.Accepted
}

// query returns the result of a mapping, false if there is none.
func query(msg *service.Message, mapping *bloblang.Executor) (any, bool) {
	// The mapping is applied to the message, because BloblangQueryValue does not
	// support `this`.
	mapped, err := msg.BloblangQuery(mapping)
	if err != nil || mapped == nil {
		return nil, false
	}
	if mapped.HasStructured() {
		value, err := mapped.AsStructured()
		return value, err == nil
	}
	// A null result arrives as the text "null", which is not a valid id, time or
	// amount as a text either.
	text, err := mapped.AsBytes()
	return string(text), err == nil && string(text) != "null"
}
