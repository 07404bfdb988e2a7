package profileapi

import (
	"bytes"
	"net/http"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

const (
	typeJSON       = "application/json"
	typeNDJSON     = "application/x-ndjson"
	typeHTML       = "text/html"
	typeText       = "text/plain"
	typeMergePatch = "application/merge-patch+json"
)

// Header values shared by all responses. They must not be modified.
var (
	valueJSON    = []string{typeJSON}
	valueNDJSON  = []string{typeNDJSON}
	valueHTML    = []string{content.HTML.MediaType()}
	valueText    = []string{content.Text.MediaType()}
	valueSandbox = []string{"sandbox"}
	valueNosniff = []string{"nosniff"}
	valueNoStore = []string{"no-store"}
	valueGzip    = []string{"gzip"}
)

// problem is the refusal of a request. Its message contains no part of the request or
// of a profile.
type problem struct {
	status  int
	code    string
	message string
	// allow lists the methods of the page, for status 405.
	allow string
	// retryAfter is in seconds, for status 503.
	retryAfter int
}

func badRequest(code, message string) *problem {
	return &problem{status: http.StatusBadRequest, code: code, message: message}
}

// appendProblem appends the JSON of a problem.
func appendProblem(dst []byte, p *problem) []byte {
	dst = append(dst, `{"error":{"code":`...)
	dst = jsontext.AppendString(dst, p.code)
	dst = append(dst, `,"message":`...)
	dst = jsontext.AppendString(dst, p.message)
	return append(dst, "}}"...)
}

// refuse sends a problem and returns the status.
func refuse(w http.ResponseWriter, r *http.Request, p *problem) int {
	h := w.Header()
	h["Cache-Control"] = valueNoStore
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="profiles"`)
	}
	return send(w, r, p.status, valueJSON, append(appendProblem(nil, p), '\n'))
}

// send sends a body and returns the status.
func send(w http.ResponseWriter, r *http.Request, status int, contentType []string, body []byte) int {
	h := w.Header()
	h["Content-Type"] = contentType
	h["X-Content-Type-Options"] = valueNosniff
	if len(body) >= worthGzip {
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header["Accept-Encoding"]) {
			packed := buffers.Get().(*[]byte)
			defer release(packed)
			*packed = appendGzip((*packed)[:0], body)
			h["Content-Encoding"] = valueGzip
			body = *packed
		}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// An error means that the client closed the connection.
		_, _ = w.Write(body)
	}
	return status
}

var asOfMember = []byte(`,"as_of":`)

// contentTag returns the entity tag of a profile's JSON. It is weak, because it does
// not cover as_of, which differs at every read. It covers traits, features and
// updated_at, so the tag changes when a feature slides out of its window without any
// event.
func contentTag(profile []byte) string {
	var sum uint64
	// The last occurrence is the member itself, because only updated_at follows it.
	if position := bytes.LastIndex(profile, asOfMember); position < 0 {
		sum = xxhash.Sum64(profile)
	} else {
		rest := profile[position+len(asOfMember):]
		rest = rest[max(bytes.IndexByte(rest, ','), 0):]
		var d xxhash.Digest
		d.Reset()
		_, _ = d.Write(profile[:position])
		_, _ = d.Write(rest)
		sum = d.Sum64()
	}
	const hex = "0123456789abcdef"
	tag := [20]byte{'W', '/', '"', 19: '"'}
	for i := range 16 {
		tag[3+i] = hex[sum>>(60-4*i)&15]
	}
	return string(tag[:])
}
