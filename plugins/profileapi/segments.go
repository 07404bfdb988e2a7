package profileapi

import (
	"context"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

const (
	// defaultPage and maxPage are the default and the maximum number of members in a
	// page.
	defaultPage = 1000
	maxPage     = 10_000

	typeCSV = "text/csv"
)

var valueCSV = []string{"text/csv; charset=utf-8"}

func segmentRoutes() []route {
	return []route{{
		method: http.MethodGet, pattern: "/api/segments/{segment}/customers", page: "segment", scope: scopeSegments, serve: (*handler).getMembers,
		doc: operation{id: "getMembers", summary: "The customers in a segment, in pages",
			description: "Anonymous customers come first; all are sorted by id. The list changes with the event that reports that a customer entered or left the segment. In CSV an id that a spreadsheet would evaluate as a formula (it begins with =, +, -, @, a tab or a line break) has a leading apostrophe; JSON has the exact id. Request the next page with the cursor of the previous one, until there is none. Customers that enter or leave meanwhile may be missing; all others are listed exactly once.",
			parameters:  []string{"limit", "after"},
			answers: []outcome{{status: http.StatusOK, description: "A page of the list.", headers: []string{"Total-Count", "Cache-Control"}, content: []media{
				{typeJSON, "Members", `{"segment":"high_value","count":2,"customers":[{"id":"a-7","anonymous":true},{"id":"42","anonymous":false}],"next":null}`},
				{typeNDJSON, "", `{"id":"42","anonymous":false}`},
				{typeCSV, "", "id,anonymous\n42,false\n"},
			}}},
			refusals: []int{400, 404, 406, 503}},
	}}
}

// pageQuestion selects a page of a list.
type pageQuestion struct {
	limit int
	after string // key of the last member of the previous page
}

func parsePage(rawQuery string) (pageQuestion, *problem) {
	q := pageQuestion{limit: defaultPage}
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return q, badRequest("invalid_query", "the query string is not URL-encoded")
	}
	for name, given := range values {
		switch {
		case name != "limit" && name != "after":
			return q, badRequest("unknown_parameter", "the query string has a parameter other than limit and after")
		case len(given) > 1:
			return q, badRequest("invalid_query", name+" is given more than once")
		case name == "limit":
			if q.limit, err = strconv.Atoi(given[0]); err != nil || q.limit < 1 || q.limit > maxPage {
				return q, badRequest("invalid_limit", fmt.Sprintf("limit must be from 1 to %d", maxPage))
			}
		default:
			key, err := base64.RawURLEncoding.DecodeString(given[0])
			if err != nil || len(key) < 2 {
				return q, badRequest("invalid_after", "after must be the cursor next of the previous page")
			}
			q.after = string(key)
		}
	}
	return q, nil
}

// getMembers serves a page of a segment's customers.
func (h *handler) getMembers(w http.ResponseWriter, r *http.Request, v visit) int {
	contentType := negotiate(r.Header["Accept"], typeJSON, typeNDJSON, typeCSV)
	if contentType == "" {
		return refuse(w, r, &problem{status: http.StatusNotAcceptable, code: "not_acceptable",
			message: "segments are served as " + typeJSON + ", " + typeNDJSON + " or " + typeCSV})
	}
	q, refusal := parsePage(r.URL.RawQuery)
	if refusal == nil {
		refusal = v.caller.takeProfiles(v.started, q.limit)
	}
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	ctx, cancel := context.WithDeadline(context.Background(), v.started.Add(h.conf.timeouts.request))
	defer cancel()
	count, err := h.reader.SegmentCount(ctx, v.id)
	var members []customers.Member
	if err == nil {
		members, err = h.reader.SegmentMembers(ctx, v.id, q.after, q.limit)
	}
	var unknown *customers.UnknownSegmentError
	if errors.As(err, &unknown) {
		return refuse(w, r, &problem{status: http.StatusNotFound, code: "no_such_segment", message: "the profile definition has no segment of this name"})
	}
	if refusal := h.readProblem(err); refusal != nil {
		return refuse(w, r, refusal)
	}
	next := ""
	if len(members) == q.limit {
		next = base64.RawURLEncoding.EncodeToString([]byte(members[len(members)-1].Key()))
	}
	header := w.Header()
	header["Cache-Control"] = valueNoStore
	header["Total-Count"] = []string{strconv.FormatInt(count, 10)}
	if next != "" {
		// NDJSON and CSV have no place for it.
		header["Link"] = []string{fmt.Sprintf(`<?limit=%d&after=%s>; rel="next"`, q.limit, next)}
	}
	switch contentType {
	case typeCSV:
		return send(w, r, http.StatusOK, valueCSV, membersCSV(members))
	case typeNDJSON:
		var out []byte
		for _, m := range members {
			out = append(appendMember(out, m), '\n')
		}
		return send(w, r, http.StatusOK, valueNDJSON, out)
	}
	out := jsontext.AppendString([]byte(`{"segment":`), v.id)
	out = fmt.Appendf(out, `,"count":%d,"customers":[`, count)
	for i, m := range members {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendMember(out, m)
	}
	out = append(out, `],"next":`...)
	if next == "" {
		out = append(out, "null}\n"...)
	} else {
		out = append(jsontext.AppendString(out, next), "}\n"...)
	}
	return send(w, r, http.StatusOK, valueJSON, out)
}

func appendMember(dst []byte, m customers.Member) []byte {
	dst = jsontext.AppendString(append(dst, `{"id":`...), m.ID)
	return fmt.Appendf(dst, `,"anonymous":%t}`, m.Anonymous)
}

// spreadsheetText returns a CSV cell that no spreadsheet evaluates as a formula: text
// that begins like one gets a leading apostrophe.
func spreadsheetText(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n", rune(text[0])) {
		return "'" + text
	}
	return text
}

func membersCSV(members []customers.Member) []byte {
	var out strings.Builder
	w := csv.NewWriter(&out)
	_ = w.Write([]string{"id", "anonymous"}) // writing to a Builder does not fail
	for _, m := range members {
		_ = w.Write([]string{spreadsheetText(m.ID), strconv.FormatBool(m.Anonymous)})
	}
	w.Flush()
	return []byte(out.String())
}
