package platforms

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const secret = "s3cret-of-the-test"

// object is any JSON object.
type object = map[string]any

// platform is the documented behaviour of a platform.
type platform struct {
	file string
	env  func(url string) map[string]string
	// parse validates a request, and returns its elements in order, each with its
	// customer and traits.
	parse func(r *http.Request, body []byte) ([]got, error)
	// taken responds to a request with only accepted elements.
	taken func(w http.ResponseWriter, elements []got)
	// refused responds to a request with rejected elements.
	refused func(w http.ResponseWriter, elements []got, bad []int)
	// wholly is set if a rejected element rejects its whole request.
	wholly bool
	// unread is set if the body of a success contains no outcome of elements.
	unread bool
	// byEmail is set if customers are identified by their addresses only.
	byEmail bool
}

// got is an element of a request.
type got struct {
	customer string
	poison   bool
	event    string
	parts    int // of the request's body that it is
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body)
	}
}

// members checks that an object has all required members and no others than the
// optional ones.
func members(o object, must, may []string) error {
	for _, name := range must {
		if _, ok := o[name]; !ok {
			return fmt.Errorf("no %s", name)
		}
	}
	for name := range o {
		if !slices.Contains(must, name) && !slices.Contains(may, name) {
			return fmt.Errorf("%s is not known", name)
		}
	}
	return nil
}

func expectRequest(r *http.Request, verb, path, contentType string) error {
	switch {
	case r.Method != verb:
		return fmt.Errorf("verb %s", r.Method)
	case r.URL.Path != path:
		return fmt.Errorf("path %s", r.URL.Path)
	case r.Header.Get("Content-Type") != contentType:
		return fmt.Errorf("content type %s", r.Header.Get("Content-Type"))
	}
	return nil
}

func objects(v any) ([]object, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%v is no list", v)
	}
	var out []object
	for _, item := range list {
		o, ok := item.(object)
		if !ok {
			return nil, fmt.Errorf("%v is no object", item)
		}
		out = append(out, o)
	}
	return out, nil
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// dig returns the value at a path of members.
func dig(o object, path ...string) any {
	var v any = o
	for _, name := range path {
		inner, _ := v.(object)
		v = inner[name]
	}
	return v
}

var platforms = map[string]platform{
	"braze": {
		file: "braze_push.yaml",
		env: func(url string) map[string]string {
			return map[string]string{"BRAZE_ENDPOINT": url, "BRAZE_API_KEY": secret}
		},
		parse: func(r *http.Request, body []byte) ([]got, error) {
			if r.Header.Get("Authorization") != "Bearer "+secret {
				return nil, fmt.Errorf("not authorized")
			}
			if err := expectRequest(r, "POST", "/users/track", "application/json"); err != nil {
				return nil, err
			}
			var o object
			if err := json.Unmarshal(body, &o); err != nil {
				return nil, err
			}
			if err := members(o, []string{"attributes"}, []string{"events", "purchases"}); err != nil {
				return nil, err
			}
			attributes, err := objects(o["attributes"])
			if err != nil || len(attributes) == 0 || len(attributes) > 75 {
				return nil, fmt.Errorf("%d attributes: %v", len(attributes), err)
			}
			var elements []got
			for _, a := range attributes {
				if text(a["external_id"]) == "" {
					return nil, fmt.Errorf("no external_id")
				}
				elements = append(elements, got{customer: text(a["external_id"]), poison: a["plan"] == "poison", parts: 1})
			}
			if o["events"] == nil {
				return elements, nil
			}
			events, err := objects(o["events"])
			if err != nil || len(events) == 0 || len(events) > 75 {
				return nil, fmt.Errorf("%d events: %v", len(events), err)
			}
			for _, e := range events {
				if err := members(e, []string{"external_id", "name", "time"}, []string{"properties"}); err != nil {
					return nil, err
				}
				if _, err := time.Parse(time.RFC3339, text(e["time"])); err != nil {
					return nil, err
				}
				of := slices.IndexFunc(elements, func(g got) bool { return g.customer == e["external_id"] })
				if of < 0 {
					return nil, fmt.Errorf("an event of somebody else")
				}
				elements[of].event = text(e["name"])
			}
			return elements, nil
		},
		taken: func(w http.ResponseWriter, elements []got) {
			reply(w, 201, object{"message": "success", "attributes_processed": len(elements)})
		},
		refused: func(w http.ResponseWriter, elements []got, bad []int) {
			var errors []object
			for _, i := range bad {
				// Errors refer to an event by its index in events.
				if elements[i].event == "" {
					errors = append(errors, object{"type": "an attribute is not valid", "input_array": "attributes", "index": i})
					continue
				}
				place := 0
				for _, e := range elements[:i] {
					if e.event != "" {
						place++
					}
				}
				errors = append(errors, object{"type": "'time' is not valid", "input_array": "events", "index": place})
			}
			if len(bad) == len(elements) {
				reply(w, 400, object{"message": "Valid data must be provided in the 'attributes', 'events', or 'purchases' fields.", "errors": errors})
				return
			}
			reply(w, 201, object{"message": "success", "attributes_processed": len(elements) - len(bad), "errors": errors})
		},
	},
	"klaviyo": {
		file: "klaviyo.yaml",
		env: func(url string) map[string]string {
			return map[string]string{"KLAVIYO_ENDPOINT": url, "KLAVIYO_API_KEY": secret}
		},
		parse: func(r *http.Request, body []byte) ([]got, error) {
			if r.Header.Get("Authorization") != "Klaviyo-API-Key "+secret {
				return nil, fmt.Errorf("not authorized")
			}
			if !regexp.MustCompile(`^\d{4}-\d\d-\d\d$`).MatchString(r.Header.Get("Revision")) {
				return nil, fmt.Errorf("no revision")
			}
			if err := expectRequest(r, "POST", "/api/profile-bulk-import-jobs", "application/vnd.api+json"); err != nil {
				return nil, err
			}
			var o object
			if err := json.Unmarshal(body, &o); err != nil {
				return nil, err
			}
			if dig(o, "data", "type") != "profile-bulk-import-job" {
				return nil, fmt.Errorf("type %v", dig(o, "data", "type"))
			}
			profiles, err := objects(dig(o, "data", "attributes", "profiles", "data"))
			if err != nil || len(profiles) == 0 || len(profiles) > 10_000 || len(body) > 5_000_000 {
				return nil, fmt.Errorf("%d profiles, %d bytes: %v", len(profiles), len(body), err)
			}
			var elements []got
			for _, p := range profiles {
				attributes, _ := p["attributes"].(object)
				if p["type"] != "profile" || text(attributes["external_id"]) == "" {
					return nil, fmt.Errorf("no profile: %v", p)
				}
				err := members(attributes, []string{"external_id"}, []string{"email", "phone_number", "first_name", "last_name", "location", "properties"})
				if err != nil {
					return nil, err
				}
				elements = append(elements, got{customer: text(attributes["external_id"]), poison: dig(attributes, "properties", "plan") == "poison", parts: 1})
			}
			return elements, nil
		},
		taken: func(w http.ResponseWriter, elements []got) {
			reply(w, 202, object{"data": object{"type": "profile-bulk-import-job", "id": "j", "attributes": object{"status": "queued", "total_count": len(elements)}}})
		},
		refused: func(w http.ResponseWriter, _ []got, bad []int) {
			var errors []object
			for _, i := range bad {
				errors = append(errors, object{
					"id": "e", "status": 400, "code": "invalid", "title": "Invalid input.", "detail": "Invalid email address",
					"source": object{"pointer": fmt.Sprintf("/data/attributes/profiles/data/%d/attributes/email", i)},
				})
			}
			reply(w, 400, object{"errors": errors})
		},
		wholly: true,
	},
	"sendgrid": {
		file: "sendgrid.yaml",
		env: func(url string) map[string]string {
			return map[string]string{"SENDGRID_ENDPOINT": url, "SENDGRID_API_KEY": secret, "SENDGRID_LIST_IDS": `["8b3bf1f4-5f3b-4f4e-9d6a-1d2f5d8d8c11"]`}
		},
		parse: func(r *http.Request, body []byte) ([]got, error) {
			if r.Header.Get("Authorization") != "Bearer "+secret {
				return nil, fmt.Errorf("not authorized")
			}
			if err := expectRequest(r, "PUT", "/v3/marketing/contacts", "application/json"); err != nil {
				return nil, err
			}
			var o object
			if err := json.Unmarshal(body, &o); err != nil {
				return nil, err
			}
			if err := members(o, []string{"contacts"}, []string{"list_ids"}); err != nil {
				return nil, err
			}
			contacts, err := objects(o["contacts"])
			if err != nil || len(contacts) == 0 || len(contacts) > 30_000 || len(body) > 6_000_000 {
				return nil, fmt.Errorf("%d contacts, %d bytes: %v", len(contacts), len(body), err)
			}
			var elements []got
			for _, c := range contacts {
				err := members(c, []string{"email"}, []string{"external_id", "first_name", "last_name", "city", "country", "custom_fields"})
				if err != nil {
					return nil, err
				}
				fields, _ := c["custom_fields"].(object)
				for name, value := range fields {
					if _, number := value.(float64); !regexp.MustCompile(`^e\d+_N$`).MatchString(name) || !number {
						return nil, fmt.Errorf("custom field %s", name)
					}
				}
				elements = append(elements, got{customer: text(c["external_id"]), poison: strings.HasPrefix(text(c["email"]), "poison"), parts: 1})
			}
			return elements, nil
		},
		taken: func(w http.ResponseWriter, _ []got) { reply(w, 202, object{"job_id": "j"}) },
		refused: func(w http.ResponseWriter, _ []got, bad []int) {
			var errors []object
			for _, i := range bad {
				errors = append(errors, object{"field": fmt.Sprintf("contacts[%d].email", i), "message": "email is not valid"})
			}
			reply(w, 400, object{"errors": errors})
		},
		wholly: true,
	},
	"customerio": {
		file: "customerio.yaml",
		env: func(url string) map[string]string {
			return map[string]string{"CUSTOMERIO_ENDPOINT": url, "CUSTOMERIO_SITE_ID": "site", "CUSTOMERIO_API_KEY": secret}
		},
		parse: func(r *http.Request, body []byte) ([]got, error) {
			if user, password, ok := r.BasicAuth(); !ok || user != "site" || password != secret {
				return nil, fmt.Errorf("not authorized")
			}
			if err := expectRequest(r, "POST", "/api/v2/batch", "application/json"); err != nil {
				return nil, err
			}
			var o object
			if err := json.Unmarshal(body, &o); err != nil {
				return nil, err
			}
			if err := members(o, []string{"batch"}, nil); err != nil {
				return nil, err
			}
			parts, err := objects(o["batch"])
			if err != nil || len(parts) == 0 || len(body) > 500_000 {
				return nil, fmt.Errorf("%d parts, %d bytes: %v", len(parts), len(body), err)
			}
			var elements []got
			for _, p := range parts {
				id := text(dig(p, "identifiers", "id"))
				if p["type"] != "person" || id == "" {
					return nil, fmt.Errorf("no person: %v", p)
				}
				switch p["action"] {
				case "identify":
					if err := members(p, []string{"type", "identifiers", "action", "attributes"}, nil); err != nil {
						return nil, err
					}
					if v := dig(p, "attributes", "unsubscribed"); v != nil && v != true {
						return nil, fmt.Errorf("the reserved attribute unsubscribed is %v", v)
					}
					elements = append(elements, got{customer: id, poison: dig(p, "attributes", "plan") == "poison", parts: 1})
				case "event":
					if err := members(p, []string{"type", "identifiers", "action", "name", "timestamp"}, []string{"attributes"}); err != nil {
						return nil, err
					}
					if stamp, ok := p["timestamp"].(float64); !ok || stamp != float64(int64(stamp)) || stamp > 1e10 {
						return nil, fmt.Errorf("timestamp %v", p["timestamp"])
					}
					last := &elements[len(elements)-1]
					if last.customer != id {
						return nil, fmt.Errorf("an event of somebody else")
					}
					last.event, last.parts = text(p["name"]), 2
				default:
					return nil, fmt.Errorf("action %v", p["action"])
				}
			}
			return elements, nil
		},
		taken: func(w http.ResponseWriter, _ []got) { reply(w, 200, object{}) },
		refused: func(w http.ResponseWriter, elements []got, bad []int) {
			var errors []object
			place := 0
			for i, e := range elements {
				if slices.Contains(bad, i) {
					errors = append(errors, object{"batch_index": place + e.parts - 1, "reason": "invalid", "field": "attributes", "message": "not valid"})
				}
				place += e.parts
			}
			reply(w, 207, object{"errors": errors})
		},
	},
	"mailchimp": {
		file: "mailchimp.yaml",
		env: func(url string) map[string]string {
			return map[string]string{"MAILCHIMP_ENDPOINT": url, "MAILCHIMP_API_KEY": secret, "MAILCHIMP_LIST_ID": "abc123"}
		},
		parse: func(r *http.Request, body []byte) ([]got, error) {
			if _, password, ok := r.BasicAuth(); !ok || password != secret {
				return nil, fmt.Errorf("not authorized")
			}
			var o object
			if err := json.Unmarshal(body, &o); err != nil {
				return nil, err
			}
			if err := members(o, []string{"email_address", "status_if_new"}, []string{"merge_fields", "status", "tags"}); err != nil {
				return nil, err
			}
			if !slices.Contains([]string{"subscribed", "unsubscribed", "cleaned", "pending", "transactional"}, text(o["status_if_new"])) {
				return nil, fmt.Errorf("status %v", o["status_if_new"])
			}
			fields, _ := o["merge_fields"].(object)
			for name, value := range fields {
				if value == nil || !regexp.MustCompile(`^[A-Z0-9]{1,10}$`).MatchString(name) {
					return nil, fmt.Errorf("merge field %s: %v", name, value)
				}
			}
			email := text(o["email_address"])
			hash := md5.Sum([]byte(strings.ToLower(email)))
			if err := expectRequest(r, "PUT", "/3.0/lists/abc123/members/"+hex.EncodeToString(hash[:]), "application/json"); err != nil {
				return nil, err
			}
			name, _, _ := strings.Cut(email, "@")
			return []got{{customer: name, poison: strings.HasPrefix(email, "poison"), parts: 1}}, nil
		},
		taken: func(w http.ResponseWriter, _ []got) { reply(w, 200, object{"id": "h", "status": "subscribed"}) },
		refused: func(w http.ResponseWriter, _ []got, _ []int) {
			reply(w, 400, object{"type": "https://mailchimp.com/developer/marketing/docs/errors/", "title": "Invalid Resource", "status": 400, "detail": "Please provide a valid email address."})
		},
		unread: true, byEmail: true,
	},
	"webhook": {
		file: "webhook.yaml",
		env: func(url string) map[string]string {
			return map[string]string{"WEBHOOK_URL": url + "/hook?token=" + secret, "WEBHOOK_SECRETS": `["whsec_` + base64.StdEncoding.EncodeToString([]byte(secret+secret)) + `"]`}
		},
		parse: func(r *http.Request, body []byte) ([]got, error) {
			if err := expectRequest(r, "POST", "/hook", "application/json"); err != nil {
				return nil, err
			}
			// Computed as specified, without the implementation.
			id, stamp := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
			mac := hmac.New(sha256.New, []byte(secret+secret))
			fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
			want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
			if !slices.Contains(strings.Fields(r.Header.Get("webhook-signature")), want) || id == "" {
				return nil, fmt.Errorf("signature")
			}
			if unix, err := strconv.ParseInt(stamp, 10, 64); err != nil || time.Since(time.Unix(unix, 0)).Abs() > time.Minute {
				return nil, fmt.Errorf("timestamp %s", stamp)
			}
			var o object
			if err := json.Unmarshal(body, &o); err != nil {
				return nil, err
			}
			if err := members(o, []string{"type", "timestamp", "data"}, nil); err != nil {
				return nil, err
			}
			return []got{{
				customer: text(dig(o, "data", "customer")), poison: dig(o, "data", "profile", "traits", "plan") == "poison",
				event: text(dig(o, "data", "message", "event")), parts: 1,
			}}, nil
		},
		taken:   func(w http.ResponseWriter, _ []got) { w.WriteHeader(204) },
		refused: func(w http.ResponseWriter, _ []got, _ []int) { w.WriteHeader(422) },
		unread:  true,
	},
	"profile_api": {
		file: "profile_api.yaml",
		env: func(url string) map[string]string {
			return map[string]string{"TARGET_URL": url, "TARGET_TOKEN": secret}
		},
		parse: func(r *http.Request, body []byte) ([]got, error) {
			if r.Header.Get("Authorization") != "Bearer "+secret {
				return nil, fmt.Errorf("not authorized")
			}
			m := regexp.MustCompile(`^/api/customer/([^/]+)/traits$`).FindStringSubmatch(r.URL.EscapedPath())
			if r.Method != "PATCH" || m == nil || len(body) > 32<<10 || r.Header.Get("Idempotency-Key") == "" {
				return nil, fmt.Errorf("%s %s, %d bytes", r.Method, r.URL.EscapedPath(), len(body))
			}
			id, err := url.PathUnescape(m[1])
			if err != nil {
				return nil, err
			}
			var traits object
			if err := json.Unmarshal(body, &traits); err != nil || len(traits) == 0 {
				return nil, fmt.Errorf("no traits: %v", err)
			}
			return []got{{customer: id, poison: traits["plan"] == "poison", parts: 1}}, nil
		},
		taken: func(w http.ResponseWriter, elements []got) {
			reply(w, 202, object{"id": elements[0].customer})
		},
		refused: func(w http.ResponseWriter, _ []got, _ []int) {
			reply(w, 400, object{"error": object{"code": "bad_traits", "message": "no"}})
		},
		unread: true,
	},
}

// pause is the pause that a platform requests. Requests that were sent before its
// response arrive within crossing.
const (
	pause    = time.Second
	crossing = 300 * time.Millisecond
)

// server is a platform that fails in every way before it works.
type server struct {
	platform
	mu     sync.Mutex
	faults []string
	wrong  []string
	bodies map[string]string // by idempotency key
	taken  []got             // by answers that the sender got
	paused time.Time
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender went away
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	elements, err := s.parse(r, body)
	if err != nil {
		s.wrong = append(s.wrong, err.Error())
		reply(w, 400, nil)
		return
	}
	// Requests in flight may cross the response with the requested pause.
	if left := time.Until(s.paused); left > 0 && left < pause-crossing {
		s.wrong = append(s.wrong, "sent before the end of the pause asked for")
	}
	key := r.Header.Get("Idempotency-Key")
	if before, known := s.bodies[key]; known && before != string(body) {
		s.wrong = append(s.wrong, "two requests with one key")
	}
	s.bodies[key] = string(body)

	fault := ""
	if len(s.faults) > 0 {
		fault, s.faults = s.faults[0], s.faults[1:]
	}
	switch fault {
	case "hang":
		s.mu.Unlock()
		<-r.Context().Done()
		s.mu.Lock()
		return
	case "500", "502", "401":
		status, _ := strconv.Atoi(fault)
		reply(w, status, nil)
		return
	case "redirect":
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(307)
		return
	case "429":
		w.Header().Set("Retry-After", "1")
		s.paused = time.Now().Add(pause)
		reply(w, 429, nil)
		return
	case "cut":
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
			_ = conn.Close()
		}
		return
	case "noise":
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			fmt.Fprint(conn, "220 mail.example.com ESMTP jo@example.com\r\n")
			_ = conn.Close()
		}
		return
	case "page":
		fmt.Fprint(w, "<html>down for maintenance</html>")
		return
	}
	var bad []int
	for i, e := range elements {
		if e.poison {
			bad = append(bad, i)
		}
	}
	switch {
	case len(bad) == 0:
		s.taken = append(s.taken, elements...)
		s.platform.taken(w, elements)
	default:
		if !s.wholly {
			for _, e := range elements {
				if !e.poison {
					s.taken = append(s.taken, e)
				}
			}
		}
		s.refused(w, elements, bad)
	}
}

func identify(customer, plan string) string {
	return fmt.Sprintf(`{"type":"identify","messageId":"i-%[1]s","userId":"%[1]s","timestamp":"2026-01-31T08:30:00.000Z","receivedAt":"2026-01-31T08:30:01.000Z","source":"crm","traits":{"email":"%[1]s@Example.com","firstName":"Jo","plan":"%[2]s"}}`, customer, plan)
}

func track(customer string) string {
	return fmt.Sprintf(`{"type":"track","event":"Cart Viewed","messageId":"t-%[1]s","userId":"%[1]s","timestamp":"2026-01-31T09:30:00.000Z","receivedAt":"2026-01-31T09:30:01.000Z","source":"web","properties":{"cart_id":"c"}}`, customer)
}

// A platform that hangs, fails, throttles, sends invalid responses and recovers receives
// every customer, none of them again after it acknowledged it, and the elements it
// rejects become dead letters.
func TestPlatformsReceiveEveryCustomerDespiteFailures(t *testing.T) {
	for name, p := range platforms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &server{platform: p, bodies: map[string]string{}}
			s.faults = []string{"hang", "500", "cut", "noise", "401", "redirect", "429", "502"}
			if !p.unread {
				s.faults = append(s.faults, "page")
			}
			ts := httptest.NewServer(s)
			t.Cleanup(ts.Close)
			running := start(t, config(t, p.file, p.env(ts.URL), nil))

			var batches [][]string
			want := map[string]int{}
			poison := map[string]bool{}
			for b := range 2 {
				var batch []string
				for n := range 90 {
					id := fmt.Sprintf("cust-%d-%d", b, n)
					if n%30 == 7 {
						id = "poison-" + id
						poison[id] = true
						batch = append(batch, identify(id, "poison"))
						continue
					}
					want[id]++
					batch = append(batch, identify(id, "gold"))
					if n%3 == 0 {
						want[id]++
						batch = append(batch, track(id))
					}
				}
				batches = append(batches, batch)
			}
			running.send(t, batches...)

			s.mu.Lock()
			defer s.mu.Unlock()
			require.Empty(t, s.wrong)
			require.Empty(t, s.faults, "every fault happened")
			taken := map[string]int{}
			for _, e := range s.taken {
				taken[e.customer]++
			}
			for id, changes := range want {
				if !p.latest(t) {
					require.Equal(t, changes, taken[id], "changes of %s that arrived", id)
				} else {
					require.Equal(t, 1, taken[id], "%s arrived", id)
				}
				delete(taken, id)
			}
			require.Empty(t, taken, "nobody else arrived")

			refused := map[string]bool{}
			for _, l := range running.deadLetters() {
				var event struct{ UserID string }
				require.NoError(t, json.Unmarshal([]byte(l.Original), &event))
				require.Equal(t, "profile_api", l.Stage)
				require.NotEmpty(t, l.Reasons)
				refused[event.UserID] = true
			}
			require.Equal(t, poison, refused)

			running.stop()
			for _, private := range []string{secret, "cust-", "Example.com", "mail.example.com", "/users/track", "/hook"} {
				require.NotContains(t, running.log.String(), private)
			}
		})
	}
}

// latest reports whether the config sends only the last of a customer's changes.
func (p *platform) latest(t *testing.T) bool {
	doc := config(t, p.file, nil, nil)
	latest, _ := dig(doc, "output", "profile_api", "latest_only").(bool)
	return latest
}
