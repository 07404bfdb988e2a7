package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
)

// perfect returns the outputs of a correct pipeline, except for corrections.
func perfect(d *day) (out outputs) {
	for hour := range 24 {
		r := expectations.Report{From: start.Add(time.Duration(hour) * time.Hour), Success: true}
		for _, k := range kinds {
			if k.want == reported && k.hour == hour {
				r.Results = append(r.Results, expectations.Result{Name: k.expectation})
			}
		}
		out.reports = append(out.reports, r)
	}
	for i := range d.events {
		a := &d.events[i]
		switch {
		case a.kind == nil || a.kind.want == once:
			out.accepted = append(out.accepted, a.raw)
		case a.kind.want == deadLetter:
			l := letter{OriginalBase64: a.raw}
			l.Reasons = append(l.Reasons, struct {
				Rule string `json:"rule"`
			}{a.kind.rule})
			out.dead = append(out.dead, l)
		case a.kind.want == reported:
			out.accepted = append(out.accepted, a.raw)
		}
	}
	return out
}

func TestAccountFindsEachDifference(t *testing.T) {
	d, err := makeDay(5_000, 7)
	require.NoError(t, err)
	again, err := makeDay(5_000, 7)
	require.NoError(t, err)
	require.Equal(t, d.events[:500], again.events[:500], "the same seed gives the same day")

	// The perfect outputs lack the corrections, which cleaning makes.
	corrections := 0
	for i := range d.events {
		if k := d.events[i].kind; k != nil && k.want == corrected {
			corrections++
		}
	}
	require.Positive(t, corrections)
	require.Len(t, d.account(perfect(d)).problems, corrections)

	for name, spoil := range map[string]func(*outputs){
		"a dead letter is lost":            func(o *outputs) { o.dead = o.dead[1:] },
		"a dead letter has another reason": func(o *outputs) { o.dead[0].Reasons[0].Rule = "bad" },
		"an event is dropped":              func(o *outputs) { o.accepted = o.accepted[1:] },
		"an event is changed": func(o *outputs) {
			o.accepted[0] = bytes.Replace(o.accepted[0], []byte(`"source":"`), []byte(`"source":"x`), 1)
		},
		"an event comes from nowhere": func(o *outputs) { o.accepted = append(o.accepted, []byte(`{"messageId":"unknown"}`)) },
		"a valid event is rejected":   func(o *outputs) { o.dead = append(o.dead, letter{Original: "{}"}) },
		"a false alarm":               func(o *outputs) { o.reports[3].Results = []expectations.Result{{Name: "events_arrive"}} },
		"an hour without a report":    func(o *outputs) { o.reports = o.reports[1:] },
	} {
		out := perfect(d)
		spoil(&out)
		require.Greater(t, len(d.account(out).problems), corrections, name)
	}

	a := d.account(perfect(d))
	a.problems = nil
	a.audit(auditReport{Customers: 3, Sampled: 3, Agreeing: 2})
	require.Error(t, a.report(io.Discard), "totals differ")
}
