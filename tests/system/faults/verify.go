package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
)

const readAtOnce = 500

// comparison counts what was compared with the oracle, and the differences.
type comparison struct {
	customers, features, traits, aliases, erased, wrong int
	examples                                            []string
}

func (v *comparison) differs(format string, args ...any) {
	v.wrong++
	if len(v.examples) < 5 {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

type served struct {
	Found   bool `json:"found"`
	Profile struct {
		ID       string         `json:"id"`
		Traits   map[string]any `json:"traits"`
		Features map[string]any `json:"features"`
	} `json:"profile"`
}

// verify reads every profile through the API and compares it.
func verify(ctx context.Context, api string, features []oracle.Feature, h *history) (*comparison, error) {
	v := &comparison{}
	for part := range slices.Chunk(h.customers, readAtOnce) {
		ids := make([]string, 0, 2*len(part))
		for _, c := range part {
			ids = append(ids, c.id)
		}
		for _, c := range part {
			if c.anonymous != "" {
				ids = append(ids, c.anonymous)
			}
		}
		answers, err := readProfiles(ctx, api, ids, h.asOf)
		if err != nil {
			return nil, err
		}
		want := make([]map[string]any, len(part))
		var computing sync.WaitGroup
		for i, c := range part {
			if c.erased {
				continue
			}
			computing.Go(func() { want[i] = expected(features, c, h.asOf) })
		}
		computing.Wait()
		alias := len(part)
		for i, c := range part {
			if c.erased {
				v.erased++
				if answers[i].Found || c.anonymous != "" && answers[alias].Found {
					v.differs("%s was erased but has a profile", c.id)
				}
				if c.anonymous != "" {
					alias++
				}
				continue
			}
			v.customer(c, want[i], &answers[i])
			if c.anonymous != "" {
				v.aliases++
				if !answers[alias].Found || answers[alias].Profile.ID != c.id {
					v.differs("%s does not lead to %s", c.anonymous, c.id)
				}
				alias++
			}
		}
	}
	// Rejected events must not create profiles.
	var rejected []string
	for i := range min(len(h.bad), readAtOnce) {
		rejected = append(rejected, fmt.Sprintf("bad-%d", i))
	}
	answers, err := readProfiles(ctx, api, rejected, h.asOf)
	if err != nil {
		return nil, err
	}
	for i := range answers {
		if answers[i].Found {
			v.differs("%s has a profile from a rejected event", rejected[i])
		}
	}
	return v, nil
}

func (v *comparison) customer(c *customer, want map[string]any, got *served) {
	v.customers++
	if !got.Found {
		v.differs("%s has no profile", c.id)
		return
	}
	if len(got.Profile.Features) != len(want) {
		v.differs("%s has %d features, not %d", c.id, len(got.Profile.Features), len(want))
	}
	for name, value := range want {
		v.features++
		if !same(value, got.Profile.Features[name]) {
			v.differs("%s: %s is %v, not %v", c.id, name, got.Profile.Features[name], value)
		}
	}
	v.traits += len(c.traits)
	if !same(plain(c.traits), any(got.Profile.Traits)) && len(c.traits)+len(got.Profile.Traits) > 0 {
		v.differs("%s: traits are %v, not %v", c.id, got.Profile.Traits, c.traits)
	}
}

func readProfiles(ctx context.Context, api string, ids []string, asOf time.Time) ([]served, error) {
	var all []served
	for part := range slices.Chunk(ids, readAtOnce) {
		body, err := json.Marshal(map[string]any{"ids": part})
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost,
			"http://"+api+"/api/customers/batch?as_of="+url.QueryEscape(asOf.Format(time.RFC3339)), bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		var page struct {
			Customers []served `json:"customers"`
		}
		if err := json.Unmarshal(raw, &page); err != nil || resp.StatusCode != http.StatusOK || len(page.Customers) != len(part) {
			return nil, fmt.Errorf("batch read of %d profiles: status %d, %d profiles: %s", len(part), resp.StatusCode, len(page.Customers), raw[:min(len(raw), 300)])
		}
		all = append(all, page.Customers...)
	}
	return all, nil
}
