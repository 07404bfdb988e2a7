package record

import (
	"encoding/hex"
	"strconv"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// AppendExport appends the whole content of the record as a JSON object, for
// the customer to read (right of access): traits with their provenance, each
// stored event with its time and the values read from it, summaries of folded
// events, other ids, segments, identifiers, and messages in the outbox.
func (r *Record) AppendExport(dst []byte, key string) ([]byte, error) {
	if err := r.parseTraits(); err != nil {
		return dst, err
	}
	dst = appendKey(dst, key)
	dst = append(dst[:len(dst)-1], `,"updated_at":`...)
	dst = appendTimeOrNull(dst, r.updatedAt)
	dst = r.exportTraits(dst)
	var err error
	if dst, err = r.exportEvents(dst); err != nil {
		return dst, err
	}
	if dst, err = r.exportSummaries(dst); err != nil {
		return dst, err
	}
	dst = append(dst, `,"merged":[`...)
	for i, m := range r.merged {
		dst = appendKey(appendComma(dst, i), string(m))
	}
	dst = append(dst, `],"segments":[`...)
	for i, m := range r.members {
		dst = append(appendComma(dst, i), `{"name":`...)
		dst = jsontext.AppendString(dst, m.name)
		dst = append(appendTimeOrNull(append(dst, `,"since":`...), m.since), '}')
	}
	dst = append(dst, `],"identifiers":[`...)
	for i, id := range r.identifiers {
		dst = jsontext.AppendString(append(appendComma(dst, i), `{"name":`...), id.name)
		dst = append(jsontext.AppendString(append(dst, `,"value":`...), id.value), '}')
	}
	dst = append(dst, `],"messages":[`...)
	for i := range r.outbox {
		m := &r.outbox[i]
		dst = append(appendComma(dst, i), `{"id":"`...)
		dst = hex.AppendEncode(dst, m.ID[:])
		dst = appendTimeOrNull(append(dst, `","at":`...), m.Time)
		dst = append(jsontext.AppendString(append(dst, `,"content":`...), m.Content), '}')
	}
	// The state of triggers consists of times and hashes.
	dst = append(dst, `],"triggers":"`...)
	dst = hex.AppendEncode(dst, r.triggers.Append(nil))
	dst = append(dst, `","seen_with_other_customers":`...)
	dst = strconv.AppendInt(dst, int64(r.SeenWithCount()), 10)
	dst = appendTimeOrNull(append(dst, `,"erased_at":`...), r.erasedAt)
	dst = appendTimeOrNull(append(dst, `,"readmitted_at":`...), r.readmittedAt)
	return append(dst, '}'), nil
}

func appendComma(dst []byte, i int) []byte {
	if i > 0 {
		return append(dst, ',')
	}
	return dst
}

func appendTimeOrNull(dst []byte, ms int64) []byte {
	if ms <= 0 {
		return append(dst, "null"...)
	}
	return append(event.AppendTime(append(dst, '"'), ms), '"')
}

// appendKey appends the kind of id and the id in a key.
func appendKey(dst []byte, key string) []byte {
	kind := "userId"
	if key[0] == Anonymous {
		kind = "anonymousId"
	}
	dst = append(dst, `{"kind":"`+kind+`","id":`...)
	return append(jsontext.AppendString(dst, KeyID(key)), '}')
}

func (r *Record) exportTraits(dst []byte) []byte {
	dst = append(dst, `,"traits":[`...)
	for i, t := range r.traits {
		dst = append(appendComma(dst, i), `{"name":`...)
		dst = jsontext.AppendString(dst, t.name)
		dst = features.AppendJSON(append(dst, `,"value":`...), t.value)
		dst = appendTimeOrNull(append(dst, `,"stated_at":`...), t.time)
		dst = append(jsontext.AppendString(append(dst, `,"source":`...), t.source), '}')
	}
	return append(dst, ']')
}

// seriesName returns the names of the features that are computed from a
// series, or its fingerprint if there are none.
func (r *Record) seriesName(i int) []byte {
	var name []byte
	if i < len(r.def.Features.Series) {
		for n := range r.def.Features.Features {
			if f := &r.def.Features.Features[n]; f.Derived == nil && f.Series == i {
				if len(name) > 0 {
					name = append(name, ' ')
				}
				name = append(name, f.Name...)
			}
		}
	}
	if len(name) == 0 {
		name = strconv.AppendUint(name, r.series[i].fingerprint, 16)
	}
	return name
}

func (r *Record) exportEvents(dst []byte) ([]byte, error) {
	dst = append(dst, `,"events":[`...)
	n := 0
	var failed error
	err := r.walk(func(_ int, at logPosition, extract []byte) bool {
		dst = appendTimeOrNull(append(appendComma(dst, n), `{"time":`...), at.time)
		n++
		dst = append(dst, `,"id":"`...)
		dst = strconv.AppendUint(dst, at.id, 16)
		dst = append(dst, `","of":[`...)
		if len(extract) > 0 {
			values := 0
			failed = features.Visit(extract, r.layouts, func(series int, o features.Occurrence) {
				dst = append(appendComma(dst, values), `{"features":`...)
				values++
				dst = jsontext.AppendString(dst, r.seriesName(series))
				if o.First.Kind != event.Missing {
					dst = features.AppendJSON(append(dst, `,"value":`...), o.First)
				}
				if o.Second.Kind != event.Missing {
					dst = features.AppendJSON(append(dst, `,"by":`...), o.Second)
				}
				dst = append(dst, '}')
			})
		}
		dst = append(dst, "]}"...)
		return failed == nil
	})
	if err != nil || failed != nil {
		return dst, ErrCorrupt
	}
	return append(dst, ']'), nil
}

func (r *Record) exportSummaries(dst []byte) ([]byte, error) {
	dst = append(dst, `,"summaries":[`...)
	n := 0
	for i := range r.tiles {
		if len(r.tiles[i]) == 0 {
			continue
		}
		var tiles features.Tiles
		if tiles.Read(r.tiles[i]) != nil {
			return dst, ErrCorrupt
		}
		dst = append(appendComma(dst, n), `{"features":`...)
		n++
		dst = jsontext.AppendString(dst, r.seriesName(i))
		dst = append(tiles.AppendJSON(append(dst, `,"spans":`...)), '}')
	}
	dst = append(dst, `],"events_summarised_until":`...)
	return appendTimeOrNull(dst, r.folded.time), nil
}
