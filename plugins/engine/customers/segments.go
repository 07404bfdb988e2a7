package customers

import (
	"context"
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// UnknownSegmentError is the error for a segment that is not defined.
type UnknownSegmentError struct {
	Name string
	hint string
}

func (e *UnknownSegmentError) Error() string {
	return fmt.Sprintf("there is no segment %q%s", e.Name, e.hint)
}

// checkSegment returns an *UnknownSegmentError if there is no such segment.
func (p *Service) checkSegment(name string) error {
	if p.def.Segments == nil {
		return &UnknownSegmentError{name, "; the definition has no segments"}
	}
	if _, ok := p.def.Segments.Lookup(name); !ok {
		return &UnknownSegmentError{name, spelling.Hint(name, p.def.Segments.Names())}
	}
	return nil
}

// Segments returns the names of the defined segments, in order.
func (p *Service) Segments() []string {
	if p.def.Segments == nil {
		return nil
	}
	return p.def.Segments.Names()
}

// Member is a customer in a segment.
type Member struct {
	ID        string
	Anonymous bool
}

// Key returns the customer's key in the store. Pass it to SegmentMembers to get
// the next page.
func (m Member) Key() string {
	if m.Anonymous {
		return record.Key(record.Anonymous, []byte(m.ID))
	}
	return record.Key(record.User, []byte(m.ID))
}

// SegmentMembers returns a page of the members of a segment, anonymous customers
// first, in order of id: at most limit members after the given key, which is empty
// for the first page. An empty page is the end. The list changes in the same write
// that enqueues the segment event of a customer.
func (p *Service) SegmentMembers(ctx context.Context, name, after string, limit int) ([]Member, error) {
	if err := p.checkSegment(name); err != nil {
		return nil, err
	}
	entries, err := p.store.ScanIndex(ctx, record.SegmentIndex+name, "", "", store.IndexEntry{Key: after}, limit)
	if err != nil {
		return nil, err
	}
	members := make([]Member, len(entries))
	for i, e := range entries {
		members[i] = Member{ID: record.KeyID(e.Key), Anonymous: e.Key[0] == record.Anonymous}
	}
	return members, nil
}

// SegmentCount returns the number of members of a segment.
func (p *Service) SegmentCount(ctx context.Context, name string) (int64, error) {
	if err := p.checkSegment(name); err != nil {
		return 0, err
	}
	return p.store.CountIndex(ctx, record.SegmentIndex+name, "", "")
}
