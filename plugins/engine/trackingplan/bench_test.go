package trackingplan

import (
	"bytes"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fastjson"
)

const shopPlan = "../../../configs/retail/plan.yaml"

// orderEvent is the event that benchmarks use, about 400 bytes.
const orderEvent = `{"type":"track","event":"Order Completed","messageId":"0190c8f2-7f0e-7b6e-9d55-2f0f6f1d2c3b","userId":"cust-0001234",` +
	`"timestamp":"2026-01-31T08:30:00.000Z","properties":{"order_id":"o-7712345","total":128.5,"currency":"EUR","products":[` +
	`{"product_id":"p-1001","sku":"KB-220-DE","name":"Keyboard","price":79.9,"quantity":1},` +
	`{"product_id":"p-1007","sku":"MS-114","name":"Mouse","price":24.3,"quantity":2}]}}`

func BenchmarkCheck(b *testing.B) {
	plan, err := Load(shopPlan)
	require.NoError(b, err)
	event := []byte(orderEvent)
	require.Equal(b, Valid, plan.Check(event).Status)
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		if plan.Check(event).Status != Valid {
			b.Fatal("not valid")
		}
	}
}

// The parts of BenchmarkCheck, and the library alone.

func BenchmarkCheckParts(b *testing.B) {
	plan, err := Load(shopPlan)
	require.NoError(b, err)
	event := []byte(orderEvent)
	b.Run("fastjson parse", func(b *testing.B) {
		var p fastjson.Parser
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.ParseBytes(event); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fastjson validate", func(b *testing.B) {
		for b.Loop() {
			if fastjson.ValidateBytes(event) != nil {
				b.Fatal()
			}
		}
	})
	b.Run("strict read", func(b *testing.B) {
		var r reader
		b.ReportAllocs()
		for b.Loop() {
			if _, v := r.read(event, DefaultMaxDepth); v != nil {
				b.Fatal(v)
			}
		}
	})
	b.Run("evaluate", func(b *testing.B) {
		s := &scratch{}
		v, _ := s.reader.read(event, DefaultMaxDepth)
		checks := plan.events["Order Completed"].checks
		b.ReportAllocs()
		for b.Loop() {
			if !s.passes(plan.envelope, v) || !s.passes(checks, v) {
				b.Fatal("not valid")
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		checks := append(append([]check{}, plan.envelope...), plan.events["Order Completed"].checks...)
		b.ReportAllocs()
		for b.Loop() {
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(event))
			if err != nil {
				b.Fatal(err)
			}
			if f := validate(value.(map[string]any), checks); len(f) > 0 {
				b.Fatal(f)
			}
		}
	})
}
