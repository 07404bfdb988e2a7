package profileapi

import (
	"context"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

// reader is what the API needs of a profiles resource.
type reader interface {
	// Read returns the profiles of ids in their order, in as few round trips
	// to the store as it can. A record that cannot be read is the error of its
	// result alone.
	Read(ctx context.Context, ids []string, q customers.Query) ([]customers.Result, error)
	// Export returns everything held of a customer, who is asked for by an id or
	// by the value of an identifier.
	Export(ctx context.Context, id, by string) (customers.Result, error)
	// Identifiers are the names of the traits that customers are found by besides
	// their ids, in order.
	Identifiers() []string
	// SegmentMembers lists the customers in a segment after the one with a key,
	// and SegmentCount counts all of them. A *customers.UnknownSegmentError tells
	// that there is no such segment.
	SegmentMembers(ctx context.Context, name, after string, limit int) ([]customers.Member, error)
	SegmentCount(ctx context.Context, name string) (int64, error)
	// Ping tells whether the store can serve requests now.
	Ping(ctx context.Context) error
}

// memory is a reader that may know profiles without asking the store.
type memory interface {
	// ReadCached appends the profile of id to dst; it is the JSON of the result.
	// false tells that the store has to be asked.
	ReadCached(dst []byte, id string, q customers.Query) (customers.Result, bool)
}
