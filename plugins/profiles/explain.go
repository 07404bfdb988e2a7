package profiles

import (
	"context"
	"encoding/json"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/profile"
	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// Explain tells how the profile that an id leads to came to be, as of a time;
// zero is now. The text is that of a profile.Explanation as JSON, nil if there
// is no profile.
func (p *Profiles) Explain(ctx context.Context, id string, asOf time.Time) ([]byte, error) {
	if asOf.IsZero() {
		asOf = p.now()
	}
	keys := []string{string(profile.User) + id, string(profile.Anonymous) + id}
	for range longestChain {
		records, err := p.reads(ctx, keys)
		if err != nil {
			return nil, err
		}
		at := 0
		for at < len(keys) && records[at].Version == store.Absent {
			at++
		}
		if at == len(keys) {
			return nil, nil
		}
		var rec profile.Record
		if err := rec.Decode(p.def, keys[at], records[at].Data); err != nil {
			return nil, err
		}
		if link := rec.Link(); link != "" {
			keys = []string{link}
			continue
		}
		if rec.Erased() {
			return nil, nil // nothing is known of whoever was erased
		}
		var viewer profile.Viewer
		explained, err := viewer.Explain(&rec, profile.KeyID(keys[at]), asOf.UnixMilli())
		if err != nil {
			return nil, err
		}
		return json.Marshal(explained)
	}
	return nil, nil
}
