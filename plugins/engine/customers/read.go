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

// Query selects parts of profiles, as of a time.
type Query struct {
	// AsOf is the time at which features are evaluated; zero means now.
	AsOf time.Time
	// Fields are the selected parts: traits, features, segments, traits.NAME,
	// features.NAME and segments.NAME. Empty selects everything.
	Fields []string
	// Fresh bypasses the cache. Use it when the result decides a write.
	Fresh bool
	// By is the name of an identifier: ids are then values of it.
	// Empty means by id.
	By string
}

// UnknownFieldError is the error for a field that is not in the definition.
type UnknownFieldError struct{ Field string }

func (e *UnknownFieldError) Error() string {
	return fmt.Sprintf("field %q is unknown; use traits, features, segments, traits.NAME, or features.NAME or segments.NAME of one that is defined", e.Field)
}

// Result is the result of a read for one customer.
type Result struct {
	Found bool
	// ID is the customer's id. If the requested id was merged into a known
	// customer, it is the id of that customer. While a merge into a new customer
	// is in progress, ID is set and Found is false.
	ID string
	// UpdatedAt is the latest receivedAt of the customer's events.
	UpdatedAt time.Time
	// JSON is the profile, an object with id, traits, features, segments, as_of
	// and updated_at.
	JSON []byte
	// Complete reports whether the features have the values of AsOf, within the
	// documented error bound of customers with folded events. It is false
	// if events of that time are no longer kept individually. Traits always have
	// their current values.
	Complete bool
	// Erased reports whether the customer was erased. Found is then false.
	Erased bool
	// Anonymous reports whether the customer has no userId.
	Anonymous bool
	// Err is ErrAmbiguous, or the reason why the record of this customer cannot
	// be read. Other results of the batch are not affected.
	Err error
}

// reader holds the buffers of one reading goroutine. Readers are pooled.
type reader struct {
	viewer record.Viewer
	rec    record.Record
	// out is the buffer that the next profile is appended to. The results share
	// it, so a full one is replaced and never reused.
	out []byte
}

// Sizes of the buffers for profiles: that of a single read, that of further
// profiles, and the free space below which a buffer is replaced.
const (
	firstBuffer = 1 << 10
	nextBuffer  = 32 << 10
	minFree     = 2 << 10
)

// reserve makes sure that most profiles fit into the buffer.
func (rd *reader) reserve() {
	switch {
	case rd.out == nil:
		rd.out = make([]byte, 0, firstBuffer)
	case cap(rd.out)-len(rd.out) < minFree:
		rd.out = make([]byte, 0, nextBuffer)
	}
}

// advance moves the end of the buffer behind a profile that was appended.
func (rd *reader) advance(json []byte) {
	if n := len(rd.out) + len(json); n <= cap(rd.out) {
		rd.out = rd.out[:n]
	} else {
		rd.out = rd.out[:cap(rd.out)] // append reallocated: the profile is elsewhere
	}
}

// Read returns the profiles of ids, in their order. It takes one round trip to the
// store, and another for ids that were merged into a customer. An id is a userId
// or, if there is no such customer, an anonymousId. With q.By, ids are values of
// that identifier.
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
		return p.readBy(ctx, p.reads, by, ids, p.asOf(q), sel)
	}
	return p.read(ctx, p.reads, ids, p.asOf(q), sel)
}

// asOf returns the time of a query in Unix milliseconds.
func (p *Service) asOf(q Query) int64 {
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
		n := 2 * i // the userId; the anonymousId follows
		if records[n].Version == store.Absent {
			n++
		}
		if records[n].Version != store.Absent {
			rd.reserve()
			links[i] = p.view(rd, &results[i], keys[n], records[n].Data, asOf, sel)
			rd.advance(results[i].JSON)
		}
	})
	return results, p.followLinks(ctx, load, results, links, asOf, sel)
}

// longestChain is the maximum number of links that a read follows.
const longestChain = 16

// followLinks reads the customers that merged ids link to. If known customers were
// merged, it follows their links too.
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
				// A merge writes the link before the record that it links to.
				results[i].ID, results[i].Anonymous = record.KeyID(keys[n]), keys[n][0] == record.Anonymous
				return
			}
			rd.reserve()
			links[i] = p.view(rd, &results[i], keys[n], records[n].Data, asOf, sel)
			rd.advance(results[i].JSON)
		})
	}
	return nil
}

// each calls fn for every i below n, in parallel if n is large.
func (p *Service) each(n int, fn func(rd *reader, i int)) {
	const minPerWorker = 128
	workers := max(1, min(runtime.GOMAXPROCS(0), n/minPerWorker))
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
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Go(func() { work(w*n/workers, (w+1)*n/workers) })
	}
	work(0, n/workers)
	wg.Wait()
}

func (p *Service) reader() *reader {
	if rd, ok := p.readers.Get().(*reader); ok {
		return rd
	}
	return &reader{}
}

// view sets result from a record and appends its JSON to rd.out. If the record is
// a link, it returns the key that the record links to instead.
func (p *Service) view(rd *reader, result *Result, key string, data []byte, asOf int64, sel *record.Selection) (link string) {
	if result.Err = rd.rec.Decode(p.def, key, data); result.Err != nil {
		return ""
	}
	if link := rd.rec.Link(); link != "" {
		return link
	}
	p.render(rd, result, key, asOf, sel)
	return ""
}

// render sets result from rd.rec, which is not a link.
func (p *Service) render(rd *reader, result *Result, key string, asOf int64, sel *record.Selection) {
	result.ID = record.KeyID(key)
	result.Anonymous = key[0] == record.Anonymous
	if result.Erased = rd.rec.Erased(); result.Erased {
		return
	}
	if ms := rd.rec.UpdatedAt(); ms > 0 {
		result.UpdatedAt = time.UnixMilli(ms)
	}
	var json []byte
	json, result.Err = rd.viewer.AppendJSON(rd.out, &rd.rec, result.ID, asOf, sel)
	p.countOverflows(rd)
	result.Complete = asOf >= rd.rec.FoldedTo() && rd.viewer.IsWithinBound()
	result.JSON = json[len(rd.out):len(json):len(json)]
	result.Found = result.Err == nil
}

// countOverflows counts the features that overflowed since the last call.
func (p *Service) countOverflows(rd *reader) {
	if n := rd.viewer.TakeOverflows(); n > 0 {
		p.overflows.Incr(int64(n))
	}
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
