package profileapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
)

// Pages follow one another by cursor and have every member once.
func TestSegmentMembersAreListed(t *testing.T) {
	f := withProfiles("c1", "c2", "a,1", "c3")
	f.anonymous = map[string]bool{"a,1": true}
	s := serve(t, f, "")

	got := s.do(t, "GET", "/api/segments/everyone/customers", "")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.JSONEq(t, `{"segment":"everyone","count":4,"next":null,"customers":[
		{"id":"a,1","anonymous":true},{"id":"c1","anonymous":false},{"id":"c2","anonymous":false},{"id":"c3","anonymous":false}]}`, got.body)
	require.Equal(t, "4", got.header.Get("Total-Count"))
	require.Empty(t, got.header.Get("Link"))

	var ids []string
	for path := "?limit=3"; path != ""; {
		got := s.do(t, "GET", "/api/segments/everyone/customers"+path, "")
		page := jsonOf(t, got.body)
		require.EqualValues(t, 4, page["count"])
		for _, c := range page["customers"].([]any) {
			ids = append(ids, c.(map[string]any)["id"].(string))
		}
		next, more := page["next"].(string)
		if path = ""; more {
			path = "?limit=3&after=" + next
			require.Equal(t, "<"+path+`>; rel="next"`, got.header.Get("Link"))
		}
	}
	require.Equal(t, []string{"a,1", "c1", "c2", "c3"}, ids)

	got = s.do(t, "GET", "/api/segments/everyone/customers", "", "Accept: text/csv")
	require.Equal(t, "id,anonymous\n\"a,1\",true\nc1,false\nc2,false\nc3,false\n", got.body)
	require.Equal(t, "text/csv; charset=utf-8", got.header.Get("Content-Type"))
	got = s.do(t, "GET", "/api/segments/everyone/customers?limit=2", "", "Accept: application/x-ndjson")
	require.Equal(t, "{\"id\":\"a,1\",\"anonymous\":true}\n{\"id\":\"c1\",\"anonymous\":false}\n", got.body)
	require.True(t, strings.HasPrefix(got.header.Get("Link"), "<?limit=2&after="))
}

func TestInvalidSegmentRequests(t *testing.T) {
	s := serve(t, withProfiles("c1"), "")
	for path, code := range map[string]string{
		"/api/segments/nobody/customers":                   "no_such_segment",
		"/api/segments/everyone/customers?limit=0":         "invalid_limit",
		"/api/segments/everyone/customers?limit=10001":     "invalid_limit",
		"/api/segments/everyone/customers?limit=many":      "invalid_limit",
		"/api/segments/everyone/customers?limit=1&limit=2": "invalid_query",
		"/api/segments/everyone/customers?after=%21":       "invalid_after",
		"/api/segments/everyone/customers?page=2":          "unknown_parameter",
	} {
		got := s.do(t, "GET", path, "")
		require.Equal(t, code, got.code(t), path)
	}
	require.Equal(t, http.StatusNotAcceptable, s.do(t, "GET", "/api/segments/everyone/customers", "", "Accept: text/html").status)
	require.Equal(t, http.StatusMethodNotAllowed, s.do(t, "POST", "/api/segments/everyone/customers", "").status)
}

func TestSegmentCSVIsSafeForSpreadsheets(t *testing.T) {
	for id, cell := range map[string]string{
		`=HYPERLINK("http://x")`: `"'=HYPERLINK(""http://x"")"`, "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "\"'\r=1\"",
		"a=1": "a=1", "": "", "42": "42", "é": "é",
	} {
		require.Equal(t, "id,anonymous\n"+cell+",false\n", string(membersCSV([]customers.Member{{ID: id}})), "%q", id)
	}
}
