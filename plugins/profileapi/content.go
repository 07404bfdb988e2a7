package profileapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

var (
	noContent = problem{status: http.StatusNotFound, code: "no_content",
		message: "this API serves no content: set the field content to a folder of blocks"}
	noSuchBlock = problem{status: http.StatusNotFound, code: "no_such_block",
		message: "no content block has this name"}
	noSuchSample = problem{status: http.StatusNotFound, code: "no_such_sample",
		message: "the block has no sample of this name: send a profile, or add samples to its file"}
)

func (h *handler) block(name string) (*content.Block, *problem) {
	if h.content == nil {
		return nil, &noContent
	}
	b, ok := h.content.Block(name)
	if !ok {
		return nil, &noSuchBlock
	}
	return b, nil
}

// contentRoutes returns the routes of content blocks.
func contentRoutes() []route {
	page := func(example string) []media {
		return []media{{typeHTML, "", example}, {typeText, "", "Happy birthday, Jo!"}}
	}
	const banner = "<p>Hello Jo</p>"
	return []route{
		{
			method: http.MethodGet, pattern: "/api/customer/{id}/content/{block}", page: "content", scope: scopeContent, serve: (*handler).getContent,
			doc: operation{id: "getContent", summary: "A content block rendered for a customer",
				description: "A fallback is returned with status 200 and the reason in the header Content-Fallback. With by, an ambiguous value returns the fallback no_customer.",
				parameters:  []string{"by", "as_of", "If-None-Match"},
				answers: []outcome{
					{status: http.StatusOK, description: "The content.", headers: []string{"ETag", "Cache-Control"}, content: page(banner)},
					{status: http.StatusNotModified, description: "If-None-Match contains the ETag of the content.", headers: []string{"ETag", "Cache-Control"}},
				},
				refusals: []int{400, 404, 500, 503}},
		},
		{
			method: http.MethodGet, pattern: "/api/content", page: "content_list", scope: scopeContent, serve: (*handler).listContent,
			doc: operation{id: "listContent", summary: "All content blocks",
				answers: []outcome{{status: http.StatusOK, description: "The blocks, sorted by name.", headers: []string{"Cache-Control"}, content: []media{{typeJSON, "Blocks",
					`{"blocks":[{"name":"hello","type":"html","description":"Greets.","requires":["traits.firstName"],"samples":["Jo"]}]}`}}}},
				refusals: []int{400, 404}},
		},
		{
			method: http.MethodGet, pattern: "/api/content/{block}/preview", page: "content_preview", scope: scopeContent, serve: (*handler).previewSample,
			doc: operation{id: "previewSample", summary: "A content block rendered for one of its samples",
				parameters: []string{"sample"},
				answers:    []outcome{{status: http.StatusOK, description: "The content.", headers: []string{"Cache-Control"}, content: page(banner)}},
				refusals:   []int{400, 404}},
		},
		{
			method: http.MethodPost, pattern: "/api/content/{block}/preview", page: "content_preview", scope: scopeContent, serve: (*handler).previewProfile,
			doc: operation{id: "previewProfile", summary: "A content block rendered for a given profile",
				body:     []media{{typeJSON, "PreviewQuestion", `{"profile":{"traits":{"firstName":"Jo"},"features":{"orders_30d":2}}}`}},
				answers:  []outcome{{status: http.StatusOK, description: "The content.", headers: []string{"Cache-Control"}, content: page(banner)}},
				refusals: []int{400, 404, 408, 413, 415}},
		},
		{
			method: http.MethodPost, pattern: "/api/content/{block}/batch", page: "content_batch", scope: scopeContent, serve: (*handler).batchContent,
			doc: operation{id: "getContents", summary: "A content block rendered for many customers, in the order of the request",
				description: "With by, ids contains values of an identifier instead of ids. An ambiguous value returns the fallback no_customer.",
				parameters:  []string{"as_of"},
				body:        []media{{typeJSON, "BatchQuestion", `{"ids":["42","43"]}`}},
				answers: []outcome{{status: http.StatusOK, description: "The contents, in order.", headers: []string{"Cache-Control"}, content: []media{
					{typeJSON, "ContentAnswer", `{"contents":[{"id":"42","content":"<p>Hello Jo</p>"},{"id":"43","content":"<p>Hello</p>","fallback":"no_customer"}]}`},
					{typeNDJSON, "", `{"id":"42","content":"<p>Hello Jo</p>"}`},
				}}},
				refusals: []int{400, 404, 406, 408, 413, 415, 500, 503}},
		},
	}
}

// parseContentQuestion parses a query string that may contain by and as_of.
func parseContentQuestion(rawQuery string) (question, *problem) {
	q, refusal := parseQuestion(rawQuery)
	if refusal == nil && len(q.Fields) > 0 {
		refusal = badRequest("unknown_parameter", "the query string has a parameter other than by and as_of")
	}
	return q, refusal
}

// parseContentBatchQuestion parses a query string that may contain as_of.
func parseContentBatchQuestion(rawQuery string) (question, *problem) {
	q, refusal := parseBatchQuestion(rawQuery)
	if refusal == nil && len(q.Fields) > 0 {
		refusal = badRequest("unknown_parameter", "the query string has a parameter other than as_of")
	}
	return q, refusal
}

// getContent serves a block rendered for a customer.
func (h *handler) getContent(w http.ResponseWriter, r *http.Request, v visit) int {
	block, refusal := h.block(v.name)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	q, refusal := parseContentQuestion(r.URL.RawQuery)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	if refusal := v.caller.takeProfiles(v.started, 1); refusal != nil {
		return refuse(w, r, refusal)
	}
	result, refusal := h.readOne(v.id, q, v.started)
	if refusal == &ambiguous {
		result, refusal = customers.Result{}, nil // no customer: content of another one must not be shown
	}
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	if isTooEarly(q, result) {
		return refuse(w, r, &tooEarly)
	}
	p, refusal := h.contentProfile(&result, v.started)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	rendered := h.content.Render(block, p)
	header := w.Header()
	header["Cache-Control"] = h.conf.cacheControl
	sum := xxhash.Sum64(rendered.Content)
	tag := `W/"` + strconv.FormatUint(sum, 16) + `"`
	header["Etag"] = []string{tag}
	if known := r.Header["If-None-Match"]; len(known) > 0 && matchesTag(known, tag) {
		w.WriteHeader(http.StatusNotModified)
		return http.StatusNotModified
	}
	return sendContent(w, r, block, rendered)
}

// contentProfile returns the profile for templates, nil if there is none.
func (h *handler) contentProfile(result *customers.Result, now time.Time) (*content.Profile, *problem) {
	if !result.Found {
		return nil, nil
	}
	p, err := content.ReadProfile(result.JSON, now)
	if err != nil {
		return nil, h.unreadable(err)
	}
	return p, nil
}

func sendContent(w http.ResponseWriter, r *http.Request, block *content.Block, rendered content.Result) int {
	header := w.Header()
	if rendered.Fallback != "" {
		header.Set("Content-Fallback", string(rendered.Fallback))
	}
	if block.Type == content.HTML {
		// In a browser the content is shown as in a mail program: sandboxed, so that
		// it cannot act in the name of the API's origin.
		header["Content-Security-Policy"] = valueSandbox
		return send(w, r, http.StatusOK, valueHTML, rendered.Content)
	}
	return send(w, r, http.StatusOK, valueText, rendered.Content)
}

// listContent serves the list of blocks.
func (h *handler) listContent(w http.ResponseWriter, r *http.Request, _ visit) int {
	if h.content == nil {
		return refuse(w, r, &noContent)
	}
	if refusal := noParameters(r.URL.RawQuery); refusal != nil {
		return refuse(w, r, refusal)
	}
	type block struct {
		Name        string       `json:"name"`
		Type        content.Type `json:"type"`
		Description string       `json:"description"`
		Requires    []string     `json:"requires"`
		Samples     []string     `json:"samples"`
	}
	list := struct {
		Blocks []block `json:"blocks"`
	}{[]block{}}
	for _, b := range h.content.All() {
		item := block{b.Name, b.Type, b.Description, append([]string{}, b.Requires()...), []string{}}
		for _, s := range b.Samples {
			item.Samples = append(item.Samples, s.Name)
		}
		list.Blocks = append(list.Blocks, item)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return refuse(w, r, &badRecord)
	}
	w.Header()["Cache-Control"] = valueNoStore
	return send(w, r, http.StatusOK, valueJSON, append(text, '\n'))
}

func noParameters(rawQuery string) *problem {
	if rawQuery != "" {
		return badRequest("unknown_parameter", "this path accepts no parameters")
	}
	return nil
}

// previewSample serves a block rendered for one of its samples.
func (h *handler) previewSample(w http.ResponseWriter, r *http.Request, v visit) int {
	block, refusal := h.block(v.id)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse(w, r, badRequest("invalid_query", "the query string is not URL-encoded"))
	}
	for name, given := range values {
		if name != "sample" || len(given) > 1 {
			return refuse(w, r, badRequest("unknown_parameter", "the query string has a parameter other than one sample"))
		}
	}
	sample, ok := block.Sample(values.Get("sample"))
	if !ok {
		return refuse(w, r, &noSuchSample)
	}
	return sendPreview(w, r, block, sample.Profile)
}

// previewProfile serves a block rendered for the profile in the body.
func (h *handler) previewProfile(w http.ResponseWriter, r *http.Request, v visit) int {
	block, refusal := h.block(v.id)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	if refusal := noParameters(r.URL.RawQuery); refusal != nil {
		return refuse(w, r, refusal)
	}
	body, refusal := readBody(w, r, h.conf.limits.bodyBytes, typeJSON)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	var question struct {
		Profile json.RawMessage `json:"profile"`
	}
	if err := decodeStrictly(body, &question); err != nil || len(question.Profile) == 0 {
		return refuse(w, r, badRequest("invalid_body", `the body must be an object with a profile: {"profile": {"traits": {…}, "features": {…}}}`))
	}
	var p *content.Profile
	if string(question.Profile) != "null" { // null stands for no customer
		var err error
		if p, err = content.ReadProfile(question.Profile, v.started); err != nil {
			return refuse(w, r, badRequest("invalid_body", err.Error()))
		}
	}
	return sendPreview(w, r, block, p)
}

var errTrailing = errors.New("the value is followed by other text")

func decodeStrictly(body []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errTrailing
	}
	return nil
}

// sendPreview serves a block rendered for a profile, with the line of a template error
// in a header. Previews are not counted.
func sendPreview(w http.ResponseWriter, r *http.Request, block *content.Block, p *content.Profile) int {
	result := block.Render(p)
	header := w.Header()
	header["Cache-Control"] = valueNoStore
	if result.Problem != "" {
		problem := result.Problem
		if result.Line > 0 {
			problem = fmt.Sprintf("line %d: %s", result.Line, problem)
		}
		header.Set("Content-Problem", problem)
	}
	return sendContent(w, r, block, result)
}

// batchContent serves a block rendered for many customers.
func (h *handler) batchContent(w http.ResponseWriter, r *http.Request, v visit) int {
	block, refusal := h.block(v.id)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	b, refusal := h.readBatchRequest(w, r, v, parseContentBatchQuestion)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	ctx, cancel := context.WithDeadline(context.Background(), v.started.Add(h.conf.timeouts.request))
	defer cancel()
	results, done, refusal := h.readMany(ctx, b.ids, b.question)
	if refusal != nil {
		return refuse(w, r, refusal)
	}
	defer done()

	// Contents are written as they are rendered: a thousand of them may be too large
	// for memory.
	header := w.Header()
	header["Cache-Control"] = h.conf.cacheControl
	header["X-Content-Type-Options"] = valueNosniff
	open, separator, end := `{"contents":[`, ",\n", "]}\n"
	header["Content-Type"] = valueJSON
	if b.contentType == typeNDJSON {
		open, separator, end = "", "\n", "\n"
		header["Content-Type"] = valueNDJSON
	}
	w.WriteHeader(http.StatusOK)
	out := bufio.NewWriterSize(w, 32<<10)
	var line []byte
	_, _ = out.WriteString(open)
	for i := range results {
		line = line[:0]
		if i > 0 {
			line = append(line, separator...)
		}
		line = h.appendContent(line, block, b.ids[i], &results[i], b.question, v.started, ctx)
		if _, err := out.Write(line); err != nil {
			return http.StatusOK // the client closed the connection
		}
	}
	_, _ = out.WriteString(end)
	_ = out.Flush()
	return http.StatusOK
}

// appendContent appends the member of a batch for one customer.
func (h *handler) appendContent(dst []byte, block *content.Block, id string, result *customers.Result, q question, now time.Time, ctx context.Context) []byte {
	dst = jsontext.AppendString(append(dst, `{"id":`...), id)
	var refusal *problem
	var p *content.Profile
	switch {
	case errors.Is(result.Err, customers.ErrAmbiguous):
		// No customer.
	case result.Err != nil:
		refusal = h.unreadable(result.Err)
	case isTooEarly(q, *result):
		refusal = &tooEarly
	case ctx.Err() != nil:
		refusal = &tooMuch
	default:
		p, refusal = h.contentProfile(result, now)
	}
	if refusal != nil {
		dst = append(dst, ',')
		return append(dst, appendProblem(nil, refusal)[1:]...)
	}
	rendered := h.content.Render(block, p)
	dst = jsontext.AppendString(append(dst, `,"content":`...), rendered.Content)
	if rendered.Fallback != "" {
		dst = jsontext.AppendString(append(dst, `,"fallback":`...), rendered.Fallback)
	}
	return append(dst, '}')
}

var tooMuch = problem{status: http.StatusServiceUnavailable, code: "timeout",
	message: "the batch took too long to render: request this customer again"}
