package customers

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/cache"
)

// Query says what of profiles is wanted, and as of when.
type Query struct {
	// AsOf is the moment features are evaluated at; zero is now.
	AsOf time.Time
	// Fields are the parts wanted: traits, features, segments, traits.NAME,
	// features.NAME and segments.NAME. None wants everything.
	Fields []string
	// Fresh asks the store, whatever is in memory: for who writes by what is read.
	Fresh bool
	// By is the name of the identifier whose values customers are asked for by,
	// in place of their ids; empty for ids.
	By string
}

// UnknownFieldError is returned for a field that no profile has.
type UnknownFieldError struct{ Field string }

func (e *UnknownFieldError) Error() string {
	return fmt.Sprintf("field %q is unknown; use traits, features, segments, traits.NAME, or features.NAME or segments.NAME of one that is defined", e.Field)
}

// Result is a profile as it was asked for.
type Result struct {
	Found bool
	// ID is the customer's id: that of the known customer if the id asked for
	// was merged into one. It is set without Found while a merge into a new
	// customer is under way.
	ID string
	// UpdatedAt is the latest receivedAt of the customer's events.
	UpdatedAt time.Time
	// JSON is the profile, an object with id, traits, features, segments, as_of
	// and updated_at.
	JSON []byte
	// Complete tells that the features are what they were at AsOf. It is false
	// for an AsOf so early that events of around it are no longer kept one by
	// one. Traits are always those of now.
	Complete bool
	// Erased tells that the customer was erased, and is not Found for that
	// reason.
	Erased bool
	// Anonymous tells that the customer is not known by a userId.
	Anonymous bool
	// Err is why this customer's record could not be read, or ErrAmbiguous; the
	// others of the batch can be.
	Err error
}

// reader holds the memory of one reading goroutine; they are pooled.
type reader struct {
	viewer record.Viewer
	rec    record.Record
	// out is where the next profile goes, behind what is there. It belongs to
	// the results.
	out []byte
}

// What is allocated at once for profiles, of which one more always is likely to
// fit.
const (
	firstRoom  = 1 << 10
	manyRoom   = 32 << 10
	leastSpace = 2 << 10
)

// room makes sure that a profile is likely to fit.
func (rd *reader) room() {
	switch {
	case rd.out == nil:
		rd.out = make([]byte, 0, firstRoom)
	case cap(rd.out)-len(rd.out) < leastSpace:
		rd.out = make([]byte, 0, manyRoom)
	}
}

// used makes the next profile go behind one that was written.
func (rd *reader) used(json []byte) {
	if n := len(rd.out) + len(json); n <= cap(rd.out) {
		rd.out = rd.out[:n]
	} else {
		rd.out = rd.out[:cap(rd.out)] // it was written elsewhere
	}
}

// Read returns the profiles of ids in their order, in one round trip to the
// store, or two when an id was merged into another customer. An id is a
// customer's userId or, if there is no such customer, an anonymousId; by an
// identifier, its value.
func (p *Service) Read(ctx context.Context, ids []string, q Query) ([]Result, error) {
	sel, err := p.selection(q.Fields)
	if err != nil {
		return nil, err
	}
	if q.By != "" {
		by, err := p.identifier(q.By)
		if err != nil {
			return nil, err
		}
		return p.readBy(ctx, p.reads, by, ids, p.moment(q), sel)
	}
	return p.read(ctx, p.reads, ids, p.moment(q), sel)
}

// moment returns the moment a query is about, in Unix milliseconds.
func (p *Service) moment(q Query) int64 {
	if q.AsOf.IsZero() {
		q.AsOf = p.now()
	}
	return q.AsOf.UnixMilli()
}

func (p *Service) read(ctx context.Context, load cache.Loader, ids []string, asOf int64, sel *record.Selection) ([]Result, error) {
	keys := make([]string, 0, 2*len(ids))
	for _, id := range ids {
		keys = append(keys, "u"+id, "a"+id)
	}
	records, err := load(ctx, keys)
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(ids))
	links := make([]string, len(ids))
	p.each(len(ids), func(rd *reader, i int) {
		at := 2 * i
		if records[at].Version == store.Absent {
			at++
		}
		if records[at].Version != store.Absent {
			rd.room()
			links[i] = p.view(rd, &results[i], keys[at], records[at].Data, asOf, sel)
			rd.used(results[i].JSON)
		}
	})
	return results, p.followLinks(ctx, load, results, links, asOf, sel)
}

// longestChain bounds how far links are followed.
const longestChain = 16

// followLinks reads what ids that were merged lead to and, where known customers
// were merged, what that leads to again.
func (p *Service) followLinks(ctx context.Context, load cache.Loader, results []Result, links []string, asOf int64, sel *record.Selection) error {
	for range longestChain {
		var keys []string
		var resultOf []int
		for i, link := range links {
			if link != "" {
				keys = append(keys, link)
				resultOf = append(resultOf, i)
			}
		}
		if len(keys) == 0 {
			return nil
		}
		records, err := load(ctx, keys)
		if err != nil {
			return err
		}
		p.each(len(keys), func(rd *reader, n int) {
			i := resultOf[n]
			links[i] = ""
			if records[n].Version == store.Absent {
				// The link is written before what it leads to.
				results[i].ID, results[i].Anonymous = record.KeyID(keys[n]), keys[n][0] == record.Anonymous
				return
			}
			rd.room()
			links[i] = p.view(rd, &results[i], keys[n], records[n].Data, asOf, sel)
			rd.used(results[i].JSON)
		})
	}
	return nil
}

// each calls fn for every i below n, side by side where there are many.
func (p *Service) each(n int, fn func(rd *reader, i int)) {
	const worthAWorker = 128
	workers := max(1, min(runtime.GOMAXPROCS(0), n/worthAWorker))
	work := func(from, to int) {
		rd := p.reader()
		defer func() {
			rd.out = nil
			p.readers.Put(rd)
		}()
		for i := from; i < to; i++ {
			fn(rd, i)
		}
	}
	var others sync.WaitGroup
	for w := 1; w < workers; w++ {
		others.Go(func() { work(w*n/workers, (w+1)*n/workers) })
	}
	work(0, n/workers)
	others.Wait()
}

func (p *Service) reader() *reader {
	if rd, ok := p.readers.Get().(*reader); ok {
		return rd
	}
	return &reader{}
}

// view fills in a result from a record, its JSON behind what is in rd.out, or returns the key the record links to.
func (p *Service) view(rd *reader, result *Result, key string, data []byte, asOf int64, sel *record.Selection) (link string) {
	if result.Err = rd.rec.Decode(p.def, key, data); result.Err != nil {
		return ""
	}
	if link := rd.rec.Link(); link != "" {
		return link
	}
	p.show(rd, result, key, asOf, sel)
	return ""
}

// show fills in a result from the record in rd.rec, which has no link.
func (p *Service) show(rd *reader, result *Result, key string, asOf int64, sel *record.Selection) {
	result.ID = record.KeyID(key)
	result.Anonymous = key[0] == record.Anonymous
	if result.Erased = rd.rec.Erased(); result.Erased {
		return
	}
	result.Complete = asOf >= rd.rec.FoldedTo()
	if ms := rd.rec.UpdatedAt(); ms > 0 {
		result.UpdatedAt = time.UnixMilli(ms)
	}
	var json []byte
	json, result.Err = rd.viewer.AppendJSON(rd.out, &rd.rec, result.ID, asOf, sel)
	result.JSON = json[len(rd.out):len(json):len(json)]
	result.Found = result.Err == nil
}

func (p *Service) selection(fields []string) (*record.Selection, error) {
	if len(fields) == 0 {
		return &record.Everything, nil
	}
	sel := &record.Selection{}
	for _, field := range fields {
		part, name, named := strings.Cut(field, ".")
		switch {
		case field == "traits":
			sel.AllTraits = true
		case field == "features":
			sel.AllFeatures = true
		case named && name != "" && part == "traits":
			sel.Traits = append(sel.Traits, name)
		case named && part == "features":
			i, ok := p.def.Features.Lookup(name)
			if !ok {
				return sel, &UnknownFieldError{field}
			}
			sel.Features = append(sel.Features, i)
		case field == "segments" && p.def.Segments != nil:
			sel.AllSegments = true
		case named && part == "segments" && p.def.Segments != nil:
			i, ok := p.def.Segments.Lookup(name)
			if !ok {
				return sel, &UnknownFieldError{field}
			}
			sel.Segments = append(sel.Segments, i)
		default:
			return sel, &UnknownFieldError{field}
		}
	}
	return sel, nil
}
