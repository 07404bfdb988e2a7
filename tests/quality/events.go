package main

import "fmt"

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

// identities are what customers say of themselves, as they write it.
func identities() [][]byte {
	events := make([][]byte, 1000)
	for i := range events {
		events[i] = fmt.Appendf(nil, `{"type":"identify","messageId":"0190c8f2-7f0e-7b6e-9d55-%012d","userId":"cust-%07d","source":"web","timestamp":"2026-01-31T08:30:00.000Z",`+
			`"traits":{"email":" Jo.Doe%d@Example.COM ","phone":"030 %06d","country":"Deutschland","city":" Bonn","birthday":"31.01.19%02d","firstName":"Jo"}}`,
			i, i%333, i, 100000+i, 50+i%50)
	}
	return events
}

// stockMapping is what the engine's own methods can do for such a customer.
const stockMapping = `root = this
root.traits.email = this.traits.email.trim().lowercase()
root.traits.phone = this.traits.phone.re_replace_all("[^0-9+]", "")
root.traits.country = this.traits.country.trim().uppercase()
root.traits.city = this.traits.city.trim()
root.traits.birthday = this.traits.birthday.ts_strptime("%d.%m.%Y").ts_format("2006-01-02")
`

// methodMapping is the same by the methods of this distribution.
const methodMapping = `root = this
root.traits.email = this.traits.email.clean_email(lowercase: true)
root.traits.phone = this.traits.phone.clean_phone("DE")
root.traits.country = this.traits.country.clean_country()
root.traits.city = this.traits.city.clean_text()
root.traits.birthday = this.traits.birthday.clean_date()
`

// orderSchema asks of an order what the shop's plan asks of it, in one schema,
// as the stock processor knows one only.
const orderSchema = `{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "definitions": {
    "id": { "type": ["string", "integer"], "minLength": 1, "maxLength": 256 },
    "currency": { "type": "string", "pattern": "^[A-Z]{3}$" },
    "customer": { "type": ["string", "null"], "minLength": 1, "maxLength": 256 },
    "product": {
      "type": "object",
      "properties": {
        "product_id": { "$ref": "#/definitions/id" }, "sku": { "$ref": "#/definitions/id" }, "name": { "type": "string" },
        "category": { "type": "string" }, "brand": { "type": "string" }, "variant": { "type": "string" },
        "price": { "type": "number", "minimum": 0 }, "quantity": { "type": "number", "exclusiveMinimum": 0 },
        "value": { "type": "number" }, "currency": { "$ref": "#/definitions/currency" }, "coupon": { "type": "string" },
        "position": { "type": "integer" }, "url": { "type": "string" }, "image_url": { "type": "string" }
      },
      "anyOf": [{ "required": ["product_id"] }, { "required": ["sku"] }]
    }
  },
  "type": "object",
  "required": ["type", "messageId", "timestamp"],
  "properties": {
    "type": { "enum": ["track", "identify", "page", "screen", "group", "alias"] },
    "event": { "type": "string" }, "name": { "type": ["string", "null"] },
    "messageId": { "type": "string", "minLength": 1, "maxLength": 256 },
    "userId": { "$ref": "#/definitions/customer" }, "anonymousId": { "$ref": "#/definitions/customer" },
    "previousId": { "$ref": "#/definitions/customer" }, "groupId": { "type": "string", "minLength": 1 },
    "timestamp": { "type": "string", "format": "date-time" }, "receivedAt": { "type": "string", "format": "date-time" },
    "source": { "type": "string" }, "traits": { "type": "object" }, "context": { "type": "object" },
    "properties": {
      "type": "object",
      "required": ["order_id", "total"],
      "properties": {
        "order_id": { "$ref": "#/definitions/id" }, "checkout_id": { "$ref": "#/definitions/id" }, "cart_id": { "$ref": "#/definitions/id" },
        "affiliation": { "type": "string" }, "subtotal": { "type": "number", "minimum": 0 }, "total": { "type": "number", "minimum": 0 },
        "revenue": { "type": "number" }, "value": { "type": "number" }, "shipping": { "type": "number", "minimum": 0 },
        "tax": { "type": "number", "minimum": 0 }, "discount": { "type": "number" }, "coupon": { "type": "string" },
        "currency": { "$ref": "#/definitions/currency" }, "products": { "type": "array", "items": { "$ref": "#/definitions/product" } }
      }
    }
  },
  "anyOf": [
    { "required": ["userId"], "properties": { "userId": { "type": "string" } } },
    { "required": ["anonymousId"], "properties": { "anonymousId": { "type": "string" } } }
  ]
}`
