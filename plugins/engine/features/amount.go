package features

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Amount derives the value of a feature from the number at ValuePath:
//
//	value = number * factor * rate, negative for events in Subtract
//
// Example: of properties.products[].price, with the factor
// properties.products[].quantity, a currency with the rate USD 0.9, and Order
// Refunded in Subtract. An Order Completed with 3 hats of 20 USD has the value
// 54, the Order Refunded of one of them -18.
type Amount struct {
	// FactorPath is the path of a number that multiplies the value, 1 if it is
	// missing; empty means 1. Through an array it must be the array of ValuePath.
	FactorPath string
	// Subtract are the events with a value that is subtracted, whatever its sign.
	// They count for the feature in addition to Spec.Events.
	Subtract []string
	// Currency converts the value, nil for no conversion.
	Currency *Currency
}

// Currency converts amounts to one currency. The rates apply when an event is
// stored: a later change does not affect stored values.
type Currency struct {
	// Path is the path of the currency code of an amount. Without it the amount
	// is in To.
	Path string
	// To is the code of the target currency.
	To string
	// Rates has, by code, the value of one unit in To. An amount in another
	// currency does not count.
	Rates map[string]float64
}

// amount is a compiled Amount.
type amount struct {
	paths    []event.Path // of the factor and the currency, where set
	factor   bool
	subtract map[string]bool
	currency *Currency
}

// compile returns the amount and its canonical text; nil if it changes nothing.
func (a *Amount) compile() (*amount, string, error) {
	c := &amount{currency: a.Currency}
	var text strings.Builder
	addPath := func(name, value string) error {
		path, err := event.ParsePath(value)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.paths = append(c.paths, path)
		fmt.Fprintf(&text, " %s %s", name, value)
		return nil
	}
	if a.FactorPath != "" {
		c.factor = true
		if err := addPath("times", a.FactorPath); err != nil {
			return nil, "", err
		}
	}
	if a.Currency != nil {
		if err := addPath("currency", a.Currency.Path); err != nil {
			return nil, "", err
		}
		if a.Currency.To == "" {
			return nil, "", fmt.Errorf("currency needs to, the code of the target currency, such as EUR")
		}
		for _, code := range slices.Sorted(maps.Keys(a.Currency.Rates)) {
			if rate := a.Currency.Rates[code]; !(rate > 0) || math.IsInf(rate, 0) {
				return nil, "", fmt.Errorf("the rate of %s must be above 0, the value of one %s in %s", code, code, a.Currency.To)
			}
		}
		fmt.Fprintf(&text, " to %q", a.Currency.To)
	}
	if len(a.Subtract) > 0 {
		c.subtract = map[string]bool{}
		for _, name := range a.Subtract {
			c.subtract[name] = true
		}
		names, err := json.Marshal(slices.Sorted(maps.Keys(c.subtract)))
		if err != nil {
			return nil, "", err
		}
		fmt.Fprintf(&text, " subtract %s", names)
	}
	if text.Len() == 0 {
		return nil, "", nil
	}
	return c, text.String(), nil
}

// apply derives the value from the number v; values are at the paths of the
// amount. An amount in a currency without a rate is missing, and ok is false.
func (a *amount) apply(v event.Value, values []event.Value, name []byte) (_ event.Value, ok bool) {
	if v.Kind != event.Number {
		return v, true
	}
	n := v.Number
	if a.factor {
		switch factor := values[0]; factor.Kind {
		case event.Number:
			n = product(n, factor.Number)
		case event.Missing:
		default:
			return event.Value{}, true
		}
		values = values[1:]
	}
	if a.currency != nil {
		switch code := values[0]; code.Kind {
		case event.Missing:
		case event.String:
			if string(code.Text) == a.currency.To {
				break
			}
			rate, known := a.currency.Rates[string(code.Text)]
			if !known {
				return event.Value{}, false
			}
			n = product(n, rate)
		default:
			return event.Value{}, false
		}
	}
	if a.subtract[string(name)] {
		n = -math.Abs(n)
	}
	return number(n), true
}

// of derives the value from the number v of an event.
func (a *amount) of(e *event.Event, v event.Value) (event.Value, bool) {
	var buffer [2]event.Value
	values := buffer[:0]
	for _, path := range a.paths {
		values = append(values, e.Get(path))
	}
	return a.apply(v, values, e.Name)
}

// product multiplies decimals exactly and rounds the result to six places, so that
// sums of it are exact: 3 times 19.99 is 59.97. Other numbers are multiplied as
// floats.
func product(a, b float64) float64 {
	x, xScale, ok := decimal(a)
	y, yScale, also := decimal(b)
	if ok && also && (x == 0 || math.Abs(float64(x))*math.Abs(float64(y)) < maxExact) {
		exact := float64(x*y) / (scales[xScale] * scales[yScale])
		if micros := math.Round(exact * 1e6); math.Abs(micros) < maxExact {
			return micros / 1e6
		}
		return exact
	}
	return a * b
}

// description returns the derivation in words, for explanations.
func (a *Amount) description() string {
	text := ""
	if a.FactorPath != "" {
		text += " times " + a.FactorPath
	}
	if a.Currency != nil {
		text += " in " + a.Currency.To
	}
	if len(a.Subtract) > 0 {
		text += ", negative for " + strings.Join(a.Subtract, ", ")
	}
	return text
}
