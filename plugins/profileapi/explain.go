package profileapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/deadletter"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
)

// explainer is implemented by a profiles resource that can explain a profile.
type explainer interface {
	// Explain returns a customers.Explanation as JSON, nil without a profile.
	Explain(ctx context.Context, id, by string, asOf time.Time) ([]byte, error)
}

// eventCounter returns the numbers of accepted and rejected events of the process.
type eventCounter interface {
	Events() (taken, refused int64)
}

// explainRoutes returns the routes that explain a profile.
func explainRoutes() []route {
	return []route{
		{
			method: http.MethodGet, pattern: "/api/customer/{id}/explain", page: "explain", scope: scopeRead, serve: (*handler).explain,
			doc: operation{id: "explainCustomer", summary: "The explanation of a profile",
				description: "For every trait its source and time, for every feature its definition and the events that count at as_of, and the latest stored events. Lists are bounded.",
				parameters:  []string{"by", "as_of"},
				answers: []outcome{{status: http.StatusOK, description: "The explanation.", headers: []string{"Cache-Control"}, content: []media{{typeJSON, "Explanation",
					`{"id":"42","as_of":"2026-01-31T08:30:00.000Z","updated_at":"2026-01-30T10:00:00.000Z","complete":true,"merged":0,` +
						`"traits":[{"name":"plan","value":"gold","source":"crm","time":"2026-01-30T10:00:00.000Z"}],` +
						`"features":[{"name":"orders_30d","value":1,"kind":"count","events":["Order Completed"],"window":"30d","counted":1,"occurrences":[{"time":"2026-01-30T10:00:00.000Z"}]}],` +
						`"events":{"kept":1,"latest":[{"time":"2026-01-30T10:00:00.000Z","names":["Order Completed"],"features":["orders_30d"]}]}}`}}}},
				refusals: []int{400, 404, 409, 500, 503}},
		},
		{
			method: http.MethodGet, pattern: "/api/activity", page: "activity", scope: scopeRead, serve: (*handler).activity,
			doc: operation{id: "getActivity", summary: "The activity of this process since its start",
				answers: []outcome{{status: http.StatusOK, description: "Counts, and latencies by route.", headers: []string{"Cache-Control"}, content: []media{{typeJSON, "Activity",
					`{"since":"2026-01-31T08:00:00.000Z","now":"2026-01-31T08:30:00.000Z","events":{"taken":10,"refused":1},"dead_letters":{"validate_event":1},` +
						`"requests":{"customer":{"count":5,"errors":0,"p50_ms":0.4,"p99_ms":1.2}}}`}}}},
				refusals: []int{400}},
		},
	}
}

// explain serves the explanation of a profile.
func (h *handler) explain(w http.ResponseWriter, r *http.Request, v visit) int {
	q, refusal := parseContentQuestion(r.URL.RawQuery)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	if refusal := v.caller.takeProfiles(v.started, 1); refusal != nil {
		return refuse(w, r, refusal)
	}
	e, ok := h.reader.(explainer)
	if !ok {
		return refuse(w, r, &problem{status: http.StatusNotFound, code: "no_explanation", message: "this profiles resource cannot explain profiles"})
	}
	ctx, cancel := context.WithDeadline(context.Background(), v.started.Add(h.conf.timeouts.request))
	defer cancel()
	text, err := e.Explain(ctx, v.id, q.By, q.AsOf)
	switch {
	case errors.Is(err, record.ErrCorrupt) || errors.Is(err, record.ErrVersion) || errors.Is(err, customers.ErrAmbiguous):
		return refuse(w, r, h.unreadable(err))
	case err != nil:
		return refuse(w, r, h.readProblem(err))
	case text == nil:
		return refuse(w, r, &problem{status: http.StatusNotFound, code: "no_such_customer",
			message: "this customer has no profile"})
	}
	w.Header()["Cache-Control"] = valueNoStore
	return send(w, r, http.StatusOK, valueJSON, append(text, '\n'))
}

// activity serves the counts of the process, which do not depend on the configured
// metrics exporter.
func (h *handler) activity(w http.ResponseWriter, r *http.Request, v visit) int {
	if refusal := noParameters(r.URL.RawQuery); refusal != nil {
		return refuse(w, r, refusal)
	}
	type events struct {
		Taken   int64 `json:"taken"`
		Refused int64 `json:"refused"`
	}
	answer := struct {
		Since       string                 `json:"since"`
		Now         string                 `json:"now"`
		Events      events                 `json:"events"`
		DeadLetters map[string]int64       `json:"dead_letters"`
		Requests    map[string]pageSummary `json:"requests"`
	}{
		Since: timeText(h.began), Now: timeText(v.started),
		DeadLetters: deadletter.Counts(), Requests: h.telemetry.summary(),
	}
	if c, ok := h.reader.(eventCounter); ok {
		answer.Events.Taken, answer.Events.Refused = c.Events()
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return refuse(w, r, &badRecord)
	}
	w.Header()["Cache-Control"] = valueNoStore
	return send(w, r, http.StatusOK, valueJSON, append(text, '\n'))
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
