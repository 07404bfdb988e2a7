package customers

import (
	"context"
	"encoding/json"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// Explain returns the provenance of a profile as of a time, as the JSON of a
// record.Explanation: the events behind features, the sources of traits and the
// segment history. id is an id or, with by, the value of an identifier; a zero
// time means now. The result is nil if there is no profile, or if it was erased.
func (p *Service) Explain(ctx context.Context, id, by string, asOf time.Time) ([]byte, error) {
	if asOf.IsZero() {
		asOf = p.now()
	}
	var rec record.Record
	key, err := p.find(ctx, &rec, id, by)
	if err != nil || key == "" || rec.Erased() {
		return nil, err
	}
	var viewer record.Viewer
	explained, err := viewer.Explain(&rec, record.KeyID(key), asOf.UnixMilli())
	if err != nil {
		return nil, err
	}
	return json.Marshal(explained)
}
