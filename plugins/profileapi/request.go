package profileapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/jsontext"
)

// Limits of a request that are not configurable.
const (
	maxFields = 200 // names in the parameter fields
	maxDepth  = 32  // nesting of objects and arrays in a trait
	maxKey    = 255 // characters in an Idempotency-Key
)

func checkID(id string, limit int) *problem {
	switch {
	case id == "":
		return badRequest("invalid_id", "the customer id is missing: the path is /api/customer/{id}")
	case len(id) > limit:
		return badRequest("invalid_id", fmt.Sprintf("the customer id is longer than %d bytes", limit))
	case !utf8.ValidString(id):
		return badRequest("invalid_id", "the customer id is not valid UTF-8 once decoded")
	}
	return nil
}

// parseQuestion parses the query string of a read.
func parseQuestion(rawQuery string) (question, *problem) {
	var q question
	if rawQuery == "" {
		return q, nil
	}
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return q, badRequest("invalid_query", "the query string is not URL-encoded")
	}
	for name, given := range values {
		switch name {
		case "fields":
			q.text = strings.Join(given, ",")
			q.Fields = strings.Split(q.text, ",")
			if len(q.Fields) > maxFields {
				return q, badRequest("invalid_fields", fmt.Sprintf("fields contains more than %d names", maxFields))
			}
			for _, f := range q.Fields {
				if f == "" {
					return q, badRequest("invalid_fields", "fields has an empty name: write fields=traits.email,features.orders_30d, or omit it for all fields")
				}
			}
		case "as_of":
			if len(given) > 1 {
				return q, badRequest("invalid_as_of", "as_of is given more than once")
			}
			var p *problem
			if q.AsOf, p = parseAsOf(given[0]); p != nil {
				return q, p
			}
		case "by":
			if len(given) > 1 || given[0] == "" {
				return q, &invalidBy
			}
			q.By = given[0]
		default:
			return q, badRequest("unknown_parameter", "the query string has a parameter other than fields, as_of and by")
		}
	}
	return q, nil
}

var invalidBy = problem{status: 400, code: "invalid_by",
	message: "by must be one identifier of the profile definition, such as by=email; omit it to request by id"}

// parseBatchQuestion parses the query string of a batch read; by is in the body.
func parseBatchQuestion(rawQuery string) (question, *problem) {
	q, refusal := parseQuestion(rawQuery)
	if refusal == nil && q.By != "" {
		refusal = badRequest("unknown_parameter", `in a batch by is a member of the body: {"by": "email", "ids": ["…", "…"]}`)
	}
	return q, refusal
}

// byIDAlone refuses parameters in the query string of a change. The value of an
// identifier may belong to another customer before the change is applied.
func byIDAlone(rawQuery string) *problem {
	if rawQuery == "" {
		return nil
	}
	if values, err := url.ParseQuery(rawQuery); err == nil && values.Has("by") {
		return badRequest("unknown_parameter", "a customer can be changed or erased by id only: get the id with GET and by")
	}
	return badRequest("unknown_parameter", "this request accepts no parameters in its query string")
}

// parseAsOf parses an RFC 3339 time, or whole seconds since 1970, with a resolution of
// milliseconds.
func parseAsOf(text string) (time.Time, *problem) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		if seconds < 0 || seconds > lastSecond {
			return time.Time{}, badRequest("invalid_as_of", "as_of as a number is in seconds since 1970, not in milliseconds")
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	// A plus sign that is not escaped arrives as a space.
	ms, err := event.ParseTime([]byte(strings.Replace(text, " ", "+", 1)))
	if err != nil {
		return time.Time{}, badRequest("invalid_as_of", "as_of is neither an RFC 3339 time such as 2026-01-31T08:30:00Z nor whole seconds since 1970")
	}
	if ms < 0 {
		return time.Time{}, &tooEarly // the zero time stands for now
	}
	return time.UnixMilli(ms).UTC(), nil
}

// lastSecond is the last second of the year 9999.
const lastSecond = 253402300799

// parseBatch parses the body of a batch read: ids, or values of the identifier in by.
func parseBatch(body []byte, maxIDs, maxID int) (ids []string, by string, refusal *problem) {
	if !utf8.Valid(body) {
		return nil, "", badRequest("invalid_body", "the body is not valid UTF-8")
	}
	var request struct {
		IDs []string        `json:"ids"`
		By  json.RawMessage `json:"by"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return nil, "", badRequest("invalid_body", batchBodyMessage(err))
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, "", badRequest("invalid_body", "the JSON object in the body is followed by other text")
	}
	switch {
	case request.By != nil && (json.Unmarshal(request.By, &by) != nil || by == ""):
		return nil, "", &invalidBy
	case len(request.IDs) == 0:
		return nil, "", badRequest("invalid_body", `the body contains no ids: send {"ids": ["…", "…"]}`)
	case len(request.IDs) > maxIDs:
		return nil, "", &problem{status: 413, code: "too_many_ids", message: fmt.Sprintf("a request may contain at most %d customers: split the list", maxIDs)}
	}
	for i, id := range request.IDs {
		if id == "" || len(id) > maxID {
			return nil, "", badRequest("invalid_id", fmt.Sprintf("ids[%d] is not a string of 1 to %d bytes", i, maxID))
		}
	}
	return request.IDs, by, nil
}

// batchBodyMessage describes an error in a body without quoting it.
func batchBodyMessage(err error) string {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("the body is not valid JSON at byte %d", syntax.Offset)
	case errors.As(err, &wrongType):
		return `the body must be an object whose ids is a list of strings: {"ids": ["…", "…"]}`
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the JSON in the body is incomplete"
	}
	return "the body has a member other than ids and by"
}

// traits is the body of a traits request.
type traits struct {
	// json is the object, compact.
	json []byte
	// names contains its top-level names.
	names map[string]bool
}

// parseTraits parses the body of a traits request. No stage of the pipeline has a
// reason to reject the traits that it accepts.
func parseTraits(body []byte) (traits, *problem) {
	if !utf8.Valid(body) {
		return traits{}, badRequest("invalid_body", "the body is not valid UTF-8")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && len(bytes.TrimSpace(body)) > 0 {
			return traits{}, badRequest("invalid_body", fmt.Sprintf("the body is not valid JSON at byte %d", syntax.Offset))
		}
		return traits{}, badRequest("invalid_body", "the body is empty: send a JSON object of traits")
	}
	t := traits{json: compact.Bytes(), names: map[string]bool{}}
	if t.json[0] != '{' {
		return traits{}, badRequest("invalid_body", `the body must be a JSON object of traits, such as {"plan": "gold"}`)
	}

	decoder := json.NewDecoder(bytes.NewReader(t.json))
	decoder.UseNumber()
	var open []json.Delim
	isName := true // a string at depth 1 is a name and not a value
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return traits{}, badRequest("invalid_body", "the body is not valid JSON")
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				if open = append(open, token); len(open) > maxDepth {
					return traits{}, badRequest("invalid_body", fmt.Sprintf("the traits are nested more than %d deep", maxDepth))
				}
				continue
			}
			open = open[:len(open)-1]
		case json.Number:
			// A number outside the range of a double would be decoded as no value, and
			// so unset the trait.
			if f, err := strconv.ParseFloat(string(token), 64); err != nil || math.IsInf(f, 0) {
				return traits{}, badRequest("invalid_body", "the traits contain a number outside the range of a double")
			}
		case string:
			if len(open) == 1 && isName {
				if token == "" {
					return traits{}, badRequest("invalid_body", "the body has a trait with an empty name")
				}
				if t.names[token] {
					return traits{}, badRequest("invalid_body", "the body contains a trait twice")
				}
				t.names[token] = true
				isName = false
				continue
			}
		}
		if len(open) == 1 {
			isName = true // a value at depth 1 ended
		}
	}
}

// unset returns the traits with those of names that they lack set to null.
func (t traits) unset(names []string) traits {
	out := bytes.TrimSuffix(t.json, []byte("}"))
	for _, name := range names {
		if t.names[name] {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(jsontext.AppendString(out, name), ":null"...)
	}
	return traits{json: append(out, '}'), names: t.names}
}

// parseIdempotencyKey validates the header, which becomes the messageId of an event.
func parseIdempotencyKey(values []string) (string, *problem) {
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	ok := len(values) == 1 && key != "" && len(key) <= maxKey
	for i := 0; ok && i < len(key); i++ {
		ok = key[i] > ' ' && key[i] <= '~'
	}
	if !ok {
		return "", badRequest("invalid_idempotency_key", fmt.Sprintf("Idempotency-Key must be given once, as 1 to %d printable ASCII characters without spaces", maxKey))
	}
	return key, nil
}

// mediaType returns the type of a Content-Type header in lower case, without
// parameters.
func mediaType(value string) string {
	value, _, _ = strings.Cut(value, ";")
	return strings.ToLower(strings.TrimSpace(value))
}

// negotiate returns the one of offers, best first, that the Accept headers prefer;
// empty if they accept none.
func negotiate(accept []string, offers ...string) string {
	if len(accept) == 0 || len(accept) == 1 && (accept[0] == "" || accept[0] == "*/*" || accept[0] == offers[0]) {
		return offers[0]
	}
	best, bestQuality := "", 0.0
	for _, offer := range offers {
		if q := quality(accept, offer); q > bestQuality {
			best, bestQuality = offer, q
		}
	}
	return best
}

// quality returns the weight of a media type in the Accept headers, that of the most
// specific matching range.
func quality(accept []string, offer string) float64 {
	kind, _, _ := strings.Cut(offer, "/")
	weight, specificity := 0.0, 0
	for _, line := range accept {
		for item := range strings.SplitSeq(line, ",") {
			mediaRange, params, _ := strings.Cut(item, ";")
			s := 0
			switch strings.ToLower(strings.TrimSpace(mediaRange)) {
			case offer:
				s = 3
			case kind + "/*":
				s = 2
			case "*/*":
				s = 1
			}
			if s <= specificity {
				continue
			}
			q := 1.0
			for param := range strings.SplitSeq(params, ";") {
				name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
				if strings.EqualFold(name, "q") {
					if f, err := strconv.ParseFloat(value, 64); err == nil && f >= 0 && f <= 1 {
						q = f
					}
				}
			}
			weight, specificity = q, s
		}
	}
	return weight
}

// matchesTag reports whether the If-None-Match headers contain the tag, by weak
// comparison.
func matchesTag(ifNoneMatch []string, tag string) bool {
	for _, line := range ifNoneMatch {
		for item := range strings.SplitSeq(line, ",") {
			item = strings.TrimSpace(item)
			if item == "*" || strings.TrimPrefix(item, "W/") == strings.TrimPrefix(tag, "W/") {
				return true
			}
		}
	}
	return false
}
