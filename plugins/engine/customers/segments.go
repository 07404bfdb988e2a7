package customers

import (
	"context"
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/spelling"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// UnknownSegmentError is returned for a segment that is not defined.
type UnknownSegmentError struct {
	Name string
	hint string
}

func (e *UnknownSegmentError) Error() string {
	return fmt.Sprintf("there is no segment %q%s", e.Name, e.hint)
}

func (p *Service) knowSegment(name string) error {
	if p.def.Segments == nil {
		return &UnknownSegmentError{name, "; the definition has no segments"}
	}
	if _, ok := p.def.Segments.Lookup(name); !ok {
		return &UnknownSegmentError{name, spelling.Hint(name, p.def.Segments.Names())}
	}
	return nil
}

// Segments returns the names of the segments, in order.
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

// Key is the name the customer's record has in the store, to continue a list
// of members after.
func (m Member) Key() string {
	if m.Anonymous {
		return record.Key(record.Anonymous, []byte(m.ID))
	}
	return record.Key(record.User, []byte(m.ID))
}

// SegmentMembers lists the customers in a segment, anonymous ones first, in
// order of id: at most limit of those after the one with a key, which is empty
// to begin. An empty page is the end. A customer enters and leaves the list in
// the same write in which that is told.
func (p *Service) SegmentMembers(ctx context.Context, name, after string, limit int) ([]Member, error) {
	if err := p.knowSegment(name); err != nil {
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

// SegmentCount returns how many customers are in a segment.
func (p *Service) SegmentCount(ctx context.Context, name string) (int64, error) {
	if err := p.knowSegment(name); err != nil {
		return 0, err
	}
	return p.store.CountIndex(ctx, record.SegmentIndex+name, "", "")
}
