package customers

import (
	"context"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// stuck are keys with a record that cannot be decoded, because it is damaged or written
// by a newer release, with their value in a time index. They are skipped, so that
// they do not block other customers, and retried every stuckFor.
type stuck struct {
	values map[string]string
	since  time.Time
}

const (
	stuckFor = time.Minute
	maxStuck = 100_000
)

func (s *stuck) add(key, value string) { s.values[key] = value }

// due returns the first entries of a time index up to a time, in order, without
// stuck keys.
func (p *Service) due(ctx context.Context, index string, until int64, limit int, s *stuck) ([]store.IndexEntry, error) {
	if now := p.now(); s.values == nil || len(s.values) > maxStuck || now.Sub(s.since) > stuckFor {
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
			break // the last page; asking for the next would cost a round trip
		}
	}
	return found, nil
}
