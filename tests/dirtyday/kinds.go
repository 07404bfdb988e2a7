package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// outcome is the place where a fault must be found.
type outcome string

const (
	deadLetter outcome = "dead letter"
	corrected  outcome = "corrected"
	reported   outcome = "quality report"
	once       outcome = "counted once"
)

// kind is a kind of fault.
type kind struct {
	name    string
	applies func(e map[string]any) bool // reports whether an event can have the fault
	// spoil returns the event with the fault. It may change e.
	spoil func(raw []byte, e map[string]any, r *rand.Rand) []byte
	want  outcome
	// rule is expected in the dead letter, expectation in the quality report.
	rule, expectation string
	// isCorrected reports whether cleaning has restored the event.
	isCorrected func(got, intended map[string]any) bool
	// hour is the only hour of the day with the fault, for reported kinds: a
	// report shows drift, not single events.
	hour int
}

func anyEvent(map[string]any) bool { return true }

func named(name string) func(map[string]any) bool {
	return func(e map[string]any) bool { return e["event"] == name || e["type"] == name }
}

func from(source string, applies func(map[string]any) bool) func(map[string]any) bool {
	return func(e map[string]any) bool { return e["source"] == source && applies(e) }
}

func known(e map[string]any) bool { return e["userId"] != nil && e["userId"] != "" }

// change returns a spoil function that changes the decoded event.
func change(fn func(e map[string]any)) func([]byte, map[string]any, *rand.Rand) []byte {
	return func(_ []byte, e map[string]any, _ *rand.Rand) []byte {
		fn(e)
		return encode(e)
	}
}

func encode(e map[string]any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	// Decoded JSON can be encoded.
	_ = enc.Encode(e)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

func properties(e map[string]any) map[string]any { return object(e, "properties") }
func traits(e map[string]any) map[string]any     { return object(e, "traits") }

func object(e map[string]any, key string) map[string]any {
	o, _ := e[key].(map[string]any)
	return o
}

// cleaned returns the paths that cleaning lists as changed or dropped.
func cleaned(e map[string]any, action string) []any {
	list, _ := object(object(object(e, "context"), "protocols"), "cleaned")[action].([]any)
	return list
}

func sameTrait(name string) func(got, intended map[string]any) bool {
	return func(got, intended map[string]any) bool {
		return traits(got)[name] == traits(intended)[name] && slices.Contains(cleaned(got, "changed"), any("/traits/"+name))
	}
}

func sameTotal(got, intended map[string]any) bool {
	return properties(got)["total"] == properties(intended)["total"]
}

var kinds = []kind{
	// Unreadable or ambiguous events.
	{name: "cut off", applies: anyEvent, want: deadLetter, rule: "json",
		spoil: func(raw []byte, _ map[string]any, r *rand.Rand) []byte { return raw[:len(raw)/2+r.IntN(len(raw)/4)] }},
	{name: "not UTF-8", applies: anyEvent, want: deadLetter, rule: "encoding",
		spoil: func(raw []byte, _ map[string]any, _ *rand.Rand) []byte {
			return bytes.Replace(raw, []byte(`"source":"`), []byte("\"source\":\"\xc3\x28"), 1)
		}},
	{name: "a duplicate key", applies: anyEvent, want: deadLetter, rule: "duplicate_key",
		spoil: func(raw []byte, _ map[string]any, _ *rand.Rand) []byte {
			return append([]byte(`{"messageId":"another",`), raw[1:]...)
		}},
	{name: "nested too deep", applies: anyEvent, want: deadLetter, rule: "depth",
		spoil: func(raw []byte, _ map[string]any, _ *rand.Rand) []byte {
			return slices.Concat([]byte(`{"deep":`), bytes.Repeat([]byte(`[`), 40), bytes.Repeat([]byte(`]`), 40), []byte(`,`), raw[1:])
		}},
	{name: "a number out of range", applies: named("Order Completed"), want: deadLetter, rule: "number",
		spoil: func(raw []byte, _ map[string]any, _ *rand.Rand) []byte {
			return bytes.Replace(raw, []byte(`"total":`), []byte(`"weight":1e999,"total":`), 1)
		}},
	// Violations of the tracking plan.
	{name: "no order id", applies: named("Order Completed"), want: deadLetter, rule: "required",
		spoil: change(func(e map[string]any) { delete(properties(e), "order_id") })},
	{name: "a total that is not an amount", applies: named("Order Completed"), want: deadLetter, rule: "type",
		spoil: change(func(e map[string]any) { properties(e)["total"] = "a lot" })},
	{name: "a price below zero", applies: named("Product Viewed"), want: deadLetter, rule: "minimum",
		spoil: change(func(e map[string]any) { properties(e)["price"] = -1.5 })},
	{name: "no customer", applies: anyEvent, want: deadLetter, rule: "anyOf",
		spoil: change(func(e map[string]any) { delete(e, "userId"); delete(e, "anonymousId") })},
	{name: "no message id", applies: anyEvent, want: deadLetter, rule: "required",
		spoil: change(func(e map[string]any) { delete(e, "messageId") })},
	{name: "an unreadable time", applies: anyEvent, want: deadLetter, rule: "format",
		spoil: change(func(e map[string]any) { e["timestamp"] = "the day before yesterday" })},
	// Rejected by update_profile.
	{name: "from the future", applies: anyEvent, want: deadLetter, rule: "future",
		spoil: change(func(e map[string]any) { e["timestamp"] = "2031-05-06T07:08:09.000Z" })},
	{name: "a placeholder id", applies: known, want: deadLetter, rule: "identifier",
		spoil: change(func(e map[string]any) { e["userId"] = "undefined"; delete(e, "anonymousId") })},
	// Corrected by cleaning.
	{name: "an address in capitals", applies: named("identify"), want: corrected, isCorrected: sameTrait("email"),
		spoil: change(func(e map[string]any) {
			traits(e)["email"] = "  " + strings.ToUpper(fmt.Sprint(traits(e)["email"]))
		})},
	{name: "a country by name", applies: func(e map[string]any) bool {
		return e["type"] == "identify" && countries[fmt.Sprint(traits(e)["country"])] != ""
	},
		want: corrected, isCorrected: sameTrait("country"),
		spoil: change(func(e map[string]any) { traits(e)["country"] = countries[fmt.Sprint(traits(e)["country"])] })},
	{name: "an American birthday", applies: from("crm", named("identify")), want: corrected, isCorrected: sameTrait("birthday"),
		spoil: change(func(e map[string]any) {
			if day, err := time.Parse(time.DateOnly, fmt.Sprint(traits(e)["birthday"])); err == nil {
				traits(e)["birthday"] = day.Format("1/2/2006")
			}
		})},
	{name: "a placeholder address", applies: named("identify"), want: corrected,
		isCorrected: func(got, _ map[string]any) bool {
			_, there := traits(got)["email"]
			return !there && slices.Contains(cleaned(got, "dropped"), any("/traits/email"))
		},
		spoil: change(func(e map[string]any) { traits(e)["email"] = "n/a" })},
	{name: "a German amount", applies: named("Order Completed"), want: corrected, isCorrected: sameTotal,
		spoil: change(func(e map[string]any) {
			total := strings.Replace(fmt.Sprintf("%.2f", properties(e)["total"]), ".", ",", 1)
			properties(e)["total"] = total + " " + fmt.Sprint(properties(e)["currency"])
		})},
	{name: "a time in another zone and form", applies: named("Product Viewed"), want: corrected,
		isCorrected: func(got, intended map[string]any) bool {
			at, err := time.Parse(time.RFC3339, fmt.Sprint(got["timestamp"]))
			was, _ := time.Parse(time.RFC3339, fmt.Sprint(intended["timestamp"]))
			return err == nil && at.Equal(was.Truncate(time.Second))
		},
		spoil: change(func(e map[string]any) {
			at, _ := time.Parse(time.RFC3339, fmt.Sprint(e["timestamp"]))
			e["timestamp"] = at.In(time.FixedZone("", 2*60*60)).Format(time.RFC1123Z)
		})},
	{name: "sent twice", applies: anyEvent, want: once,
		spoil: func(raw []byte, _ map[string]any, _ *rand.Rand) []byte { return raw }},
	// Drift: each single event is valid.
	{name: "addresses lost for an hour", applies: named("identify"), want: reported, expectation: "identified_have_an_email", hour: 14,
		spoil: change(func(e map[string]any) { delete(traits(e), "email") })},
	{name: "prices in cents for an hour", applies: named("Product Viewed"), want: reported, expectation: "prices_are_spread_as_ever", hour: 17,
		spoil: change(func(e map[string]any) {
			if price, ok := properties(e)["price"].(float64); ok {
				properties(e)["price"] = price * 100
			}
		})},
}

// countries are names of countries in several languages, by code.
var countries = map[string]string{
	"DE": "Deutschland", "FR": "France", "AT": "Österreich", "US": "United States", "GB": "United Kingdom",
	"CA": "Canada", "JP": "Japan", "IE": "Ireland", "FI": "Finland", "ES": "España", "IT": "Italy", "BR": "Brazil",
}
