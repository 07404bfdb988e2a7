package customers

import (
	"context"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// stuck are customers with whom nothing can be done, by key, with what an index of
// times has of them: they are passed over, so that they stand in nobody's way, and
// all of them are tried again from time to time. Their records may be damaged, or
// of a newer release.
type stuck struct {
	values map[string]string
	since  time.Time
}

const (
	stuckFor  = time.Minute
	mostStuck = 100_000
)

func (s *stuck) add(key, value string) { s.values[key] = value }

// due returns the first entries of an index of times up to one, in their order,
// without those that are stuck.
func (p *Service) due(ctx context.Context, index string, until int64, limit int, s *stuck) ([]store.IndexEntry, error) {
	if now := p.now(); s.values == nil || len(s.values) > mostStuck || now.Sub(s.since) > stuckFor {
		*s = stuck{map[string]string{}, now}
	}
	var found []store.IndexEntry
	var after store.IndexEntry
	for len(found) < limit {
		page, err := p.store.ScanIndex(ctx, index, "", record.FormatTime(until+1), after, limit)
		if err != nil || len(page) == 0 {
			return found, err
		}
		after = page[len(page)-1]
		for _, e := range page {
			if s.values[e.Key] != e.Value && len(found) < limit {
				found = append(found, e)
			}
		}
		if len(page) < limit {
			break // no more than this, and an empty page costs a round trip
		}
	}
	return found, nil
}
