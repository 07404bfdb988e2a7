package profileapi

import (
	"context"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

// reader is the part of a profiles resource that the API uses.
type reader interface {
	// Read returns the profiles of ids in their order, in as few round trips as
	// possible. A record that cannot be decoded sets the error of its result only.
	Read(ctx context.Context, ids []string, q customers.Query) ([]customers.Result, error)
	// Export returns all stored data of a customer, found by an id or by the value of
	// an identifier.
	Export(ctx context.Context, id, by string) (customers.Result, error)
	// Identifiers returns the names of the traits that find customers besides their
	// ids, in order.
	// their ids, in order.
	Identifiers() []string
	// SegmentMembers lists the customers in a segment after the one with a key, and
	// SegmentCount counts all of them. The error is a *customers.UnknownSegmentError
	// if the segment is not defined.
	SegmentMembers(ctx context.Context, name, after string, limit int) ([]customers.Member, error)
	SegmentCount(ctx context.Context, name string) (int64, error)
	// Ping reports whether the store can serve requests now.
	Ping(ctx context.Context) error
}

// memory is a reader that may serve profiles without the store.
type memory interface {
	// ReadCached appends the profile of id to dst; it is the JSON of the result. It
	// reports false if the store must be read.
	ReadCached(dst []byte, id string, q customers.Query) (customers.Result, bool)
}
