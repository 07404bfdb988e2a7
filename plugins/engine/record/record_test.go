package record_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

var update = flag.Bool("update", false, "write the golden records anew; a change of a released format needs a new format version instead")

// specsOf returns features by name.
func specsOf(names ...string) []features.Spec {
	known := map[string]features.Spec{
		"orders":  {Kind: features.Count, Events: []string{"Order Completed"}},
		"revenue": {Kind: features.Sum, Events: []string{"Order Completed"}, ValuePath: "properties.total", Window: 30 * 24 * time.Hour},
		"pages":   {Kind: features.Count, Events: []string{"page"}},
		"skus":    {Kind: features.UniqueValues, ValuePath: "properties.products[].sku", K: 3},
		"score":   {Kind: features.DecayedSum, Weights: map[string]float64{"page": 2}, HalfLife: 24 * time.Hour},
		"hours":   {Kind: features.BestSendHour},
		"spread":  {Kind: features.Stddev, ValuePath: "properties.total", GroupPath: "properties.category"},
		"values":  {Kind: features.DistinctCount, ValuePath: "properties.category"},
		"latest":  {Kind: features.LastK, ValuePath: "properties.total", K: 3},
		"first":   {Kind: features.First, ValuePath: "properties.category"},
	}
	var specs []features.Spec
	for _, n := range names {
		s := known[n]
		s.Name = n
		specs = append(specs, s)
	}
	return specs
}

func rawEvent(id, kind, at string) []byte {
	return fmt.Appendf(nil, `{"messageId":%q,"userId":"u1",%s,"timestamp":%q,"properties":{"total":19.9,"category":"hats"}}`, id, kind, at)
}

func featuresAndSince(t require.TestingT, r *record.Record, asOf int64) (features, since map[string]any) {
	var w record.Viewer
	raw, err := w.AppendJSON(nil, r, "u1", asOf, &record.Everything)
	require.NoError(t, err)
	var view struct {
		Features map[string]any `json:"features"`
		Since    map[string]any `json:"features_since"`
	}
	require.NoError(t, json.Unmarshal(raw, &view), "%s", raw)
	return view.Features, view.Since
}

// golden returns records with every section, by name.
func golden(t *testing.T) map[string]*record.Record {
	def := newDefinition(t, specsOf("orders", "revenue", "pages", "skus", "score", "hours", "spread", "values", "latest", "first"))
	var p event.Parser
	build := func(def *record.Definition, n int) *record.Record {
		r := &record.Record{}
		r.Reset(def)
		for i := range n {
			kind, at := `"type":"page"`, time.UnixMilli(epoch+int64(i)*day/4).UTC().Format(time.RFC3339)
			if i%3 == 0 {
				kind = `"type":"track","event":"Order Completed"`
			}
			raw := fmt.Appendf(nil, `{"messageId":"m%d","userId":"u1",%s,"timestamp":%q,"properties":{"total":%d.25,"category":"c%d","products":[{"sku":"s%d"},{"sku":null}]}}`, i, kind, at, i, i%4, i%7)
			applyRaw(t, def, &p, r, raw)
		}
		return r
	}
	folding := *def
	folding.Events = 16
	withTraits := build(def, 2)
	for name, v := range map[string]event.Value{
		"email": {Kind: event.String, Text: []byte("jo@example.com")}, "age": {Kind: event.Number, Number: 41},
		"vip": {Kind: event.True}, "gone": {}, "address": {Kind: event.JSON, Text: []byte(`{"city":"Bonn"}`)}, "ratio": {Kind: event.Number, Number: 1.0 / 3},
	} {
		_, err := withTraits.SetTrait([]byte(name), v, record.Statement{Time: epoch, Source: []byte("crm")})
		require.NoError(t, err)
	}
	anonymous := build(def, 1)
	_, err := withTraits.Merge("aa1", anonymous)
	require.NoError(t, err)
	anonymous.LinkTo("uu1")
	anonymous.Strip("aa1")
	anonymous.NoteSeenWith("uu2", 5)
	withOutbox := build(def, 2)
	withOutbox.SetMember("high_value", true, epoch)
	withOutbox.SetMember("at_risk", true, epoch+1)
	withOutbox.Enqueue(record.Message{ID: record.MessageID{1, 2, 3}, Time: epoch, Content: []byte(`{"type":"track"}`)})
	withOutbox.Enqueue(record.Message{ID: record.MessageID{4, 5, 6}, Time: epoch + 1, Content: []byte(`{"type":"track","event":"Segment Left"}`)})
	withOutbox.Claim(epoch + day)
	moved := build(def, 2)
	moved.SetMember("high_value", true, epoch)
	moved.SetToggles(300)
	identified := *def
	identified.Identifiers = record.Identifiers{{Name: "age", Trait: "age"}, {Name: "email", Trait: "email", IgnoreCase: true}, {Name: "phone", Trait: "phone"}}
	withIdentifiers := build(&identified, 1)
	for name, v := range map[string]event.Value{"email": {Kind: event.String, Text: []byte(" Jo@Example.com")}, "age": {Kind: event.Number, Number: 41}} {
		_, err := withIdentifiers.SetTrait([]byte(name), v, record.Statement{Time: epoch, Source: []byte("crm")})
		require.NoError(t, err)
	}
	_, err = withIdentifiers.SetIdentifiers()
	require.NoError(t, err)
	exact := build(def, 1)
	number, _ := event.Integer([]byte("9007199254740993"))
	_, err = exact.SetTrait([]byte("crm_no"), number, record.Statement{Time: epoch, Nanos: 123_456, Source: []byte("crm")})
	require.NoError(t, err)
	empty := &record.Record{}
	empty.Reset(def)
	return map[string]*record.Record{
		"empty": empty, "events": build(def, 12), "traits": withTraits, "link": anonymous, "folded": build(&folding, 100), "telling": withOutbox, "moved": moved, "identifiers": withIdentifiers, "exact": exact,
	}
}

// TestGoldenRecords pins the stored form: every release decodes the records of
// all earlier ones.
func TestGoldenRecords(t *testing.T) {
	for name, rec := range golden(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "records", fmt.Sprintf("v1-%s", name))
			stored := rec.Encode(nil, "uu1")
			var w record.Viewer
			view, err := w.AppendJSON(nil, rec, "u1", epoch+50*day, &record.Everything)
			require.NoError(t, err)
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path+".hex", []byte(hex.Dump(stored)+hex.EncodeToString(stored)+"\n"), 0o644))
				require.NoError(t, os.WriteFile(path+".json", append(view, '\n'), 0o644))
			}
			dump, err := os.ReadFile(path + ".hex")
			require.NoError(t, err)
			lines := bytes.Split(bytes.TrimSpace(dump), []byte("\n"))
			old, err := hex.DecodeString(string(lines[len(lines)-1]))
			require.NoError(t, err)
			require.Equal(t, old, stored)

			again := &record.Record{}
			require.NoError(t, again.Decode(rec.Definition(), "uu1", old))
			view, err = w.AppendJSON(nil, again, "u1", epoch+50*day, &record.Everything)
			require.NoError(t, err)
			want, err := os.ReadFile(path + ".json")
			require.NoError(t, err)
			require.Equal(t, string(bytes.TrimSpace(want)), string(view))
		})
	}
}

// TestDamageIsDetected flips every bit and cuts every suffix.
func TestDamageIsDetected(t *testing.T) {
	for name, rec := range golden(t) {
		stored := rec.Encode(nil, "uu1")
		var r record.Record
		for i := range stored {
			for bit := range 8 {
				damaged := bytes.Clone(stored)
				damaged[i] ^= 1 << bit
				require.Error(t, r.Decode(rec.Definition(), "uu1", damaged), "%s: bit %d of byte %d", name, bit, i)
			}
			require.Error(t, r.Decode(rec.Definition(), "uu1", stored[:i]), "%s: cut to %d", name, i)
		}
		require.ErrorIs(t, r.Decode(rec.Definition(), "uu2", stored), record.ErrCorrupt, "under another key")
		newer := bytes.Clone(stored)
		newer[0] = 2
		require.ErrorIs(t, r.Decode(rec.Definition(), "uu1", newer), record.ErrVersion)
	}
}

// FuzzDecode decodes arbitrary bytes under a valid checksum. Decoding and
// further use give an error or a record that can be stored again.
func FuzzDecode(f *testing.F) {
	t := &testing.T{}
	def := newDefinition(t, specsOf("orders", "revenue", "pages", "skus", "score", "hours", "spread", "values", "latest", "first"))
	folding := *def
	folding.Events = 16
	for _, rec := range golden(t) {
		stored := rec.Encode(nil, "uu1")
		f.Add(stored[:len(stored)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d := xxhash.New()
		_, _ = d.WriteString("uu1")
		_, _ = d.Write(body)
		stored := binary.LittleEndian.AppendUint32(bytes.Clone(body), uint32(d.Sum64()))
		var r, other record.Record
		if r.Decode(&folding, "uu1", stored) != nil {
			return
		}
		var w record.Viewer
		if view, err := w.AppendJSON(nil, &r, "u1", epoch, &record.Everything); err == nil && !json.Valid(view) && json.Valid(bytes.ToValidUTF8(view, nil)) {
			t.Fatalf("view is no JSON: %s", view)
		}
		for i := range uint64(20) {
			if _, err := r.Apply(record.Fact{Time: epoch + int64(i), ID: i}); err != nil {
				return
			}
		}
		if _, err := r.SetTrait([]byte("a"), event.Value{Kind: event.True}, record.Statement{Time: epoch}); err != nil {
			return
		}
		require.NoError(t, other.Decode(&folding, "uu1", r.Encode(nil, "uu1")))
		other.Reset(&folding)
		_, _ = other.Merge("aa1", &r)
	})
}

// TestTogglesHaveOneEncoding shows that 0 is not written, as in older records,
// and that a number has one form.
func TestTogglesHaveOneEncoding(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	stored := func(section ...byte) []byte {
		body := append([]byte{1, 10, byte(len(section))}, section...)
		return binary.LittleEndian.AppendUint32(body, uint32(xxhash.Sum64(append([]byte("uu1"), body...))))
	}
	judged := []byte{1, 0, 0, 0, 0, 0, 7, 0, 0, 0}
	left := []byte{0, 1, 's', 1, 0, 0, 0, 0, 0}
	for _, test := range []struct {
		section []byte
		turn    uint64
		ok      bool
	}{
		{judged, 0, true},
		{slices.Concat(judged, left), 0, true},
		{slices.Concat(judged, []byte{0, 0, 1}), 1, true},
		{slices.Concat(judged, left, []byte{0, 0xac, 2}), 300, true},
		{slices.Concat(judged, []byte{0}), 0, false},
		{slices.Concat(judged, []byte{0, 0}), 0, false},
		{slices.Concat(judged, []byte{0, 0, 0}), 0, false},
		{slices.Concat(judged, []byte{0, 0, 0x81, 0}), 0, false},
		{slices.Concat(judged, []byte{0, 0, 1, 0}), 0, false},
		{slices.Concat(judged, left, []byte{0}), 0, false},
		{slices.Concat(judged, left, []byte{0, 0xac}), 0, false},
	} {
		var r record.Record
		err := r.Decode(def, "uu1", stored(test.section...))
		if !test.ok {
			require.ErrorIs(t, err, record.ErrCorrupt, "%x", test.section)
			continue
		}
		require.NoError(t, err, "%x", test.section)
		require.Equal(t, test.turn, r.Toggles())
		again := reload(t, def, &r)
		require.Equal(t, test.turn, again.Toggles())
		require.Contains(t, string(r.Encode(nil, "uu1")), string(test.section))
	}
}

// TestKnownCustomersMergedIntoEachOther covers two customers merged into each
// other at the same time: one record remains, possibly after it was stripped.
// Its later segment messages differ from those of the same millisecond before
// the merge.
func TestKnownCustomersMergedIntoEachOther(t *testing.T) {
	def := newDefinition(t, specsOf("orders"))
	for key, turn := range map[string]uint64{"uu1": 3, "aa1": 0} {
		var r record.Record
		r.Reset(def)
		r.SetMember("high_value", true, epoch)
		r.SetToggles(2)
		r.LinkTo("uu2")
		require.True(t, r.HasUnmergedContent())
		r.Strip(key)
		require.False(t, r.HasUnmergedContent())
		require.Equal(t, turn, r.Toggles(), key)
		require.Equal(t, turn, reload(t, def, &r).Toggles(), key)
	}
}
