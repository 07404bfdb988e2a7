package clean_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"

	_ "github.com/connect-personalize/connect-personalize/plugins/clean"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

// statements are identify events of one customer from the CRM, the point of sale
// and the web site, each in the source's own notation.
var statements = []string{
	// All three have the same timestamp: the order in the definition's `sources`
	// decides, CRM before point of sale before web.
	`{"type":"identify","messageId":"crm-1","userId":"u1","source":"crm","timestamp":"01/31/2026 3:30 AM","traits":{"email":" Jo.Doe@Example.COM","birthday":"12/03/1980","phone":"N/A"}}`,
	`{"type":"identify","messageId":"pos-1","userId":"u1","source":"pos","timestamp":"31.01.2026 09:30","traits":{"email":"kasse@example.com","birthday":"03.12.1980","phone":"030 123456","country":"Deutschland","city":"Bonn"}}`,
	`{"type":"identify","messageId":"web-1","userId":"u1","source":"web","timestamp":"2026-01-31T08:30:00Z","traits":{"email":"jd@example.com","phone":"+49 30 999999","country":"AT","firstName":"Jo"}}`,
	// A later statement wins, independent of its source.
	`{"type":"identify","messageId":"web-2","userId":"u1","source":"web","timestamp":"2026-02-01T08:30:00Z","traits":{"city":"K\u00f6ln "}}`,
	// An earlier statement loses, independent of its source.
	`{"type":"identify","messageId":"crm-2","userId":"u1","source":"crm","timestamp":"12/31/2025 10:00 PM","traits":{"firstName":"Joanna","city":"Trier"}}`,
}

// clean applies the shop's mapping to events.
func clean(t *testing.T, events ...string) (cleaned [][]byte) {
	t.Helper()
	mapping, err := service.NewConfigSpec().Field(service.NewProcessorListField("p")).ParseYAML(`p: [ { mapping: 'from "../../configs/retail/clean.blobl"' } ]`, nil)
	require.NoError(t, err)
	processors, err := mapping.FieldProcessorList("p")
	require.NoError(t, err)
	var batch service.MessageBatch
	for _, s := range events {
		batch = append(batch, service.NewMessage([]byte(s)))
	}
	out, err := service.ExecuteProcessors(t.Context(), processors, batch)
	require.NoError(t, err)
	for _, msg := range out[0] {
		require.NoError(t, msg.GetError())
		raw, err := msg.AsBytes()
		require.NoError(t, err)
		cleaned = append(cleaned, raw)
	}
	return cleaned
}

// A stated but unknown country, currency or day is not replaced by a default.
func TestShippedMappingDoesNotGuess(t *testing.T) {
	for _, c := range []struct{ traits, want string }{
		{`{"country":"Bosnia and Herzegovina","phone":"061 123 456"}`, `{"country":"BA","phone":"+38761123456"}`},
		{`{"country":"Atlantis","phone":"061 123 456"}`, `{}`},
		{`{"country":"Atlantis","phone":"+387 61 123 456"}`, `{"phone":"+38761123456"}`},
		{`{"country":"N/A","phone":"030 123456"}`, `{"phone":"+4930123456"}`},
		{`{"phone":"030 123456"}`, `{"phone":"+4930123456"}`},
		{`{"birthday":"31.01.45"}`, `{"birthday":"1945-01-31"}`},
		{`{"birthday":"31.01.2199"}`, `{}`},
	} {
		out := clean(t, `{"type":"identify","userId":"u1","source":"web","timestamp":"2026-01-31T08:30:00Z","traits":`+c.traits+`}`)
		var event struct{ Traits json.RawMessage }
		require.NoError(t, json.Unmarshal(out[0], &event))
		require.JSONEq(t, c.want, string(event.Traits), c.traits)
	}
	for _, c := range []struct{ properties, want string }{
		{`{"total":"1.234,56","currency":"EUR"}`, `{"total":1234.56,"currency":"EUR"}`},
		{`{"total":"1.234,56"}`, `{"total":1234.56}`},
		{`{"total":"1.234,56","currency":"XYZ"}`, `{"total":"1.234,56","currency":"XYZ"}`},
		{`{"total":"12 USD","currency":"XYZ"}`, `{"total":"12 USD","currency":"XYZ"}`},
	} {
		out := clean(t, `{"type":"track","event":"Order Completed","userId":"u1","source":"pos","timestamp":"202601310830","properties":`+c.properties+`}`)
		var event struct {
			Properties json.RawMessage
			Timestamp  string
		}
		require.NoError(t, json.Unmarshal(out[0], &event))
		require.Equal(t, "2026-01-31T07:30:00Z", event.Timestamp)
		require.JSONEq(t, c.want, string(event.Properties), c.properties)
	}
}

// With the shop's definition and cleaning, contradicting sources result in one
// profile, independent of the order of arrival.
func TestConflictsOfSources(t *testing.T) {
	cleaned := clean(t, statements...)
	def, err := profiledefinition.Read("../../configs/retail/profile.yaml")
	require.NoError(t, err)
	rapid.Check(t, func(r *rapid.T) {
		events := rapid.Permutation(cleaned).Draw(r, "events")
		s, err := embedded.Open(embedded.Options{Path: embedded.Memory})
		require.NoError(r, err)
		p := customers.New(def, s, customers.Options{})
		defer func() { require.NoError(r, p.Close(context.Background())) }()
		for _, event := range events {
			errs, err := p.Update(context.Background(), [][]byte{event})
			require.NoError(r, err)
			require.NoError(r, errs[0])
		}
		results, err := p.Read(context.Background(), []string{"u1"}, customers.Query{Fields: []string{"traits"}})
		require.NoError(r, err)
		var view struct{ Traits map[string]any }
		require.NoError(r, json.Unmarshal(results[0].JSON, &view))
		require.Equal(r, map[string]any{
			"email": "jo.doe@example.com", "birthday": "1980-12-03", // from the CRM, month first
			"phone": "+4930123456", "country": "DE", // from the point of sale: the CRM has none
			"city": "Köln", "firstName": "Jo", // from the web: later, and the only one at that time
		}, view.Traits)
	})
}
