package customers

import (
	"context"
	"encoding/json"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// Explain tells how the profile that an id, or with by the value of an
// identifier, leads to came to be, as of a time; zero is now. The text is that
// of a profile.Explanation as JSON, nil if there is no profile.
func (p *Service) Explain(ctx context.Context, id, by string, asOf time.Time) ([]byte, error) {
	if asOf.IsZero() {
		asOf = p.now()
	}
	var rec record.Record
	key, err := p.one(ctx, &rec, id, by)
	if err != nil || key == "" || rec.Erased() {
		return nil, err // nothing is known of whoever was erased
	}
	var viewer record.Viewer
	explained, err := viewer.Explain(&rec, record.KeyID(key), asOf.UnixMilli())
	if err != nil {
		return nil, err
	}
	return json.Marshal(explained)
}
