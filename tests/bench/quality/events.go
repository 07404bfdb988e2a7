package quality

import (
	_ "embed"
	"fmt"
)

// orders are valid orders of some 400 bytes.
func orders() [][]byte {
	events := make([][]byte, 1000)
	for i := range events {
		events[i] = fmt.Appendf(nil, `{"type":"track","event":"Order Completed","messageId":"0190c8f2-7f0e-7b6e-9d55-%012d","userId":"cust-%07d",`+
			`"timestamp":"2026-01-31T08:30:00.000Z","properties":{"order_id":"o-%d","total":%d.5,"currency":"EUR","products":[`+
			`{"product_id":"p-%d","sku":"KB-220-DE","name":"Keyboard","price":79.9,"quantity":1},`+
			`{"product_id":"p-1007","sku":"MS-114","name":"Mouse","price":24.3,"quantity":2}]}}`, i, i%333, i, i, i%77)
	}
	return events
}

// identities are identify events with traits as customers type them.
func identities() [][]byte {
	events := make([][]byte, 1000)
	for i := range events {
		events[i] = fmt.Appendf(nil, `{"type":"identify","messageId":"0190c8f2-7f0e-7b6e-9d55-%012d","userId":"cust-%07d","source":"web","timestamp":"2026-01-31T08:30:00.000Z",`+
			`"traits":{"email":" Jo.Doe%d@Example.COM ","phone":"030 %06d","country":"Deutschland","city":" Bonn","birthday":"31.01.19%02d","firstName":"Jo"}}`,
			i, i%333, i, 100000+i, 50+i%50)
	}
	return events
}

// stockMapping cleans such an event with stock methods.
const stockMapping = `root = this
root.traits.email = this.traits.email.trim().lowercase()
root.traits.phone = this.traits.phone.re_replace_all("[^0-9+]", "")
root.traits.country = this.traits.country.trim().uppercase()
root.traits.city = this.traits.city.trim()
root.traits.birthday = this.traits.birthday.ts_strptime("%d.%m.%Y").ts_format("2006-01-02")
`

// methodMapping cleans it with the methods of this distribution.
const methodMapping = `root = this
root.traits.email = this.traits.email.clean_email(lowercase: true)
root.traits.phone = this.traits.phone.clean_phone("DE")
root.traits.country = this.traits.country.clean_country()
root.traits.city = this.traits.city.clean_text()
root.traits.birthday = this.traits.birthday.clean_date()
`

// orderSchema contains the rules of the shop's plan for an order, as one schema for
// the stock processor.
//
//go:embed order_schema.json
var orderSchema []byte
