package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
)

// platform is a model of an email platform. Until healed it fails in every way that
// a platform can fail. It never accepts a poison element, and records every
// violation of the sender's contract.
type platform struct {
	random     *rand.Rand
	healed     time.Time
	unnamed    bool // rejections do not name the element at fault
	conf       *Config
	elements   map[string]*sent // by id
	byCustomer map[string][]string
	bodies     map[string]string // by idempotency key

	mu         sync.Mutex
	inFlight   int
	pausedAt   time.Time // when it last requested a pause
	paused     time.Time // the end of the pause
	violations []string
}

// element is an element that the model receives.
type element struct {
	ID       string `json:"id"`
	Customer string `json:"customer,omitempty"`
	Poison   bool   `json:"poison,omitempty"`
	Pad      string `json:"pad,omitempty"`
}

// sent is the state of an element.
type sent struct {
	element
	applied   int
	settled   bool   // the sender knows its outcome
	ambiguous string // key of a request with an outcome that the sender cannot know
}

func (p *platform) violation(format string, args ...any) {
	p.violations = append(p.violations, fmt.Sprintf(format, args...))
}

func respond(status int, body string, header ...string) *Response {
	h := Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &Response{Status: status, Header: h, Body: []byte(body)}
}

// receive is the Transport to the model.
func (p *platform) receive(ctx context.Context, r *Request) (*Response, error) {
	var elements []element
	if err := json.Unmarshal(r.Body, &elements); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.check(r, elements)
	work := time.Duration(p.random.IntN(3)) * time.Second
	p.mu.Unlock()

	select {
	case <-time.After(work):
	case <-ctx.Done():
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight--
	key := r.Header.Get("Idempotency-Key")
	failure := 0
	if time.Now().Before(p.healed) {
		failure = p.random.IntN(12)
	}
	ambiguous := func(applied bool) {
		for i := range elements {
			e := p.elements[elements[i].ID]
			e.ambiguous = key
			if applied && !e.Poison {
				e.applied++
			}
		}
	}
	if ctx.Err() != nil {
		ambiguous(p.random.IntN(2) == 0)
		return nil, ctx.Err()
	}
	switch failure {
	case 1:
		ambiguous(p.random.IntN(2) == 0)
		return respond(500, ""), nil
	case 2:
		ambiguous(false)
		seconds := p.random.IntN(30)
		p.pause(time.Duration(seconds) * time.Second)
		return respond(429, "", "Retry-After", fmt.Sprint(seconds)), nil
	case 3:
		ambiguous(false)
		wait := time.Duration(p.random.IntN(30)) * time.Second
		p.pause(wait)
		// Its clock is wrong by a year, as its Date shows.
		theirs := time.Now().AddDate(-1, 0, 0)
		return respond(503, "", "Date", httpTime(theirs),
			"Retry-After", httpTime(theirs.Add(wait))), nil
	case 4:
		ambiguous(true)
		p.mu.Unlock()
		<-ctx.Done() // no response
		p.mu.Lock()
		return nil, ctx.Err()
	case 5:
		ambiguous(p.random.IntN(2) == 0)
		return nil, errors.New("connection reset by peer")
	case 6:
		ambiguous(true)
		return respond(200, "<html>ok</html>"), nil
	case 7:
		ambiguous(false)
		return respond(429, ""), nil
	case 8:
		ambiguous(false)
		return respond(401, ""), nil
	}
	return p.apply(elements, failure == 9), nil
}

func (p *platform) pause(wait time.Duration) {
	p.pausedAt = time.Now()
	if until := time.Now().Add(wait); until.After(p.paused) {
		p.paused = until
	}
}

func httpTime(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }

// check records the violations in a request.
func (p *platform) check(r *Request, elements []element) {
	if p.inFlight++; p.inFlight > p.conf.Parallel {
		p.violation("%d requests at once", p.inFlight)
	}
	if len(elements) == 0 || len(elements) > p.conf.MaxElements || len(r.Body) > p.conf.MaxBytes {
		p.violation("a request of %d elements and %d bytes", len(elements), len(r.Body))
	}
	// A request sent at the same moment as the response is no violation.
	if now := time.Now(); now.Before(p.paused) && now.After(p.pausedAt) {
		p.violation("a request %v before the end of the pause", time.Until(p.paused))
	}
	key := r.Header.Get("Idempotency-Key")
	if before, ok := p.bodies[key]; ok && before != string(r.Body) {
		p.violation("two requests of one key")
	}
	p.bodies[key] = string(r.Body)
	customers := map[string]bool{}
	for _, sentElement := range elements {
		e := p.elements[sentElement.ID]
		if e.settled {
			p.violation("%s is sent after it was settled", e.ID)
		}
		if e.ambiguous != "" && e.ambiguous != key {
			p.violation("%s is sent with another key while its outcome is not known", e.ID)
		}
		e.ambiguous = ""
		if e.Customer == "" {
			continue
		}
		if customers[e.Customer] {
			p.violation("%s is in a request twice", e.Customer)
		}
		customers[e.Customer] = true
		for _, earlier := range p.byCustomer[e.Customer] {
			if earlier == e.ID {
				break
			}
			if !p.elements[earlier].settled {
				p.violation("%s is sent before %s is settled", e.ID, earlier)
			}
		}
	}
}

// apply applies the elements of a request.
func (p *platform) apply(elements []element, busy bool) *Response {
	poison := slices.ContainsFunc(elements, func(e element) bool { return e.Poison })
	if poison && p.unnamed {
		if len(elements) == 1 {
			p.elements[elements[0].ID].settled = true
		}
		return respond(422, `{"message":"bad"}`)
	}
	rejectsAll := poison && p.random.IntN(2) == 0
	var failures []string
	for i, sentElement := range elements {
		e := p.elements[sentElement.ID]
		switch {
		case e.Poison:
			e.settled = true
			failures = append(failures, fmt.Sprintf(`{"index":%d}`, i))
		case busy && p.random.IntN(3) == 0:
			failures = append(failures, fmt.Sprintf(`{"index":%d,"retry":true}`, i))
		case !rejectsAll:
			e.applied++
			e.settled = true
		}
	}
	status := 202
	if rejectsAll {
		status = 400
	}
	return respond(status, `{"failures":[`+strings.Join(failures, ",")+`]}`)
}

func findFailures(a *Response, _ []json.RawMessage) ([]Failure, error) {
	var body struct {
		Failures []struct {
			Index int
			Retry bool
		}
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		return nil, err
	}
	var failures []Failure
	for _, f := range body.Failures {
		failures = append(failures, Failure{Index: f.Index, Retry: f.Retry})
	}
	return failures, nil
}

func composeArray(elements []json.RawMessage) ([]byte, error) {
	return append(append([]byte("["), bytes.Join(rawBytes(elements), []byte(","))...), ']'), nil
}

func rawBytes(elements []json.RawMessage) [][]byte {
	out := make([][]byte, len(elements))
	for i, e := range elements {
		out[i] = e
	}
	return out
}

func statuses(texts ...string) Statuses {
	set, err := ParseStatuses(texts)
	if err != nil {
		panic(err)
	}
	return set
}

func testConfig() Config {
	return Config{
		MaxElements: 10, MaxBytes: 1 << 20, Parallel: 2,
		Timeout: 10 * time.Second, Retry: backoff.Exponential{Initial: 500 * time.Millisecond, Max: time.Minute}, MaxRetryAfter: 5 * time.Minute,
		Circuit:   Circuit{Failures: 5, Probe: backoff.Exponential{Initial: time.Second, Max: time.Minute}},
		Delivered: statuses("2xx"), Retried: statuses("3xx", "401", "403", "408", "425", "429", "5xx"), Split: statuses("400", "413", "422"),
		IdempotencyHeader: "Idempotency-Key",
		Compose:           composeArray,
	}
}

// scenario is a random case of a delivery.
type scenario struct {
	elements []element
	conf     Config
	seed     uint64
	outage   time.Duration // how long the platform fails
	unnamed  bool
}

func drawScenario(t *rapid.T) scenario {
	s := scenario{
		conf: testConfig(), seed: rapid.Uint64().Draw(t, "seed"),
		outage:  time.Duration(rapid.IntRange(0, 600).Draw(t, "outage")) * time.Second,
		unnamed: rapid.Bool().Draw(t, "unnamed"),
	}
	s.conf.MaxElements = rapid.IntRange(1, 12).Draw(t, "max elements")
	s.conf.MaxBytes = rapid.IntRange(100, 1000).Draw(t, "max bytes")
	s.conf.Parallel = rapid.IntRange(1, 4).Draw(t, "parallel")
	s.conf.FindFailures = findFailures
	n := rapid.IntRange(0, 60).Draw(t, "elements")
	for i := range n {
		e := element{ID: fmt.Sprintf("m%d", i)}
		if c := rapid.IntRange(0, 20).Draw(t, "customer"); c > 0 {
			e.Customer = fmt.Sprintf("c%d", c)
		}
		e.Poison = rapid.IntRange(0, 9).Draw(t, "poison") == 0
		e.Pad = strings.Repeat("x", rapid.IntRange(0, 120).Draw(t, "pad"))
		s.elements = append(s.elements, e)
	}
	return s
}

// deliver runs a scenario with a fake clock, and returns the results and the
// duration.
func (s *scenario) deliver(t *testing.T, ctx context.Context) (results []error, p *platform, took time.Duration) {
	synctest.Test(t, func(*testing.T) {
		p = &platform{
			random: rand.New(rand.NewPCG(s.seed, 0)), healed: time.Now().Add(s.outage), unnamed: s.unnamed, conf: &s.conf,
			elements: map[string]*sent{}, byCustomer: map[string][]string{}, bodies: map[string]string{},
		}
		var items []Item
		for _, e := range s.elements {
			raw, err := json.Marshal(e)
			if err != nil {
				panic(err)
			}
			items = append(items, Item{ID: e.ID, Customer: e.Customer, Element: raw, Target: Target{Method: "POST", URL: "http://platform.test/"}})
			p.elements[e.ID] = &sent{element: e, settled: len(raw)+2 > s.conf.MaxBytes}
			p.byCustomer[e.Customer] = append(p.byCustomer[e.Customer], e.ID)
		}
		began := time.Now()
		results = New(s.conf, p.receive).Deliver(ctx, time.Now(), items)
		took = time.Since(began)
	})
	return results, p, took
}

func (s *scenario) tooLarge(e element) bool {
	raw, err := json.Marshal(e)
	return err != nil || len(raw)+2 > s.conf.MaxBytes
}

// Without a time limit, every element that can be accepted is accepted, in the order
// of its customer, and none is sent again after it was settled.
func TestDeliverEventuallyDeliversEveryElementInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		results, p, _ := s.deliver(t, context.Background())
		for _, violation := range p.violations {
			rt.Errorf("%s", violation)
		}
		for i, e := range s.elements {
			rejected, isRejected := errors.AsType[*RejectedError](results[i])
			switch {
			case s.tooLarge(e):
				if !isRejected || rejected.Code != CodeTooLarge {
					rt.Errorf("%s is too large: %v", e.ID, results[i])
				}
			case e.Poison:
				if !isRejected || rejected.Status == 0 {
					rt.Errorf("%s is poison: %v", e.ID, results[i])
				}
			case results[i] != nil || p.elements[e.ID].applied == 0:
				rt.Errorf("%s did not arrive: %v", e.ID, results[i])
			}
		}
	})
}

// With a time limit Deliver returns within it, with the outcome of every element.
func TestDeliverReturnsWithinTheTimeLimit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		s.conf.GiveUpAfter = time.Duration(rapid.IntRange(1, 120).Draw(rt, "limit")) * time.Second
		s.conf.Circuit.FailFast = rapid.Bool().Draw(rt, "fail fast")
		results, p, took := s.deliver(t, context.Background())
		for _, violation := range p.violations {
			rt.Errorf("%s", violation)
		}
		if took > s.conf.GiveUpAfter {
			rt.Errorf("it took %v", took)
		}
		for i, e := range s.elements {
			_, undelivered := errors.AsType[*UndeliveredError](results[i])
			_, rejected := errors.AsType[*RejectedError](results[i])
			switch {
			case results[i] == nil && p.elements[e.ID].applied == 0:
				rt.Errorf("%s did not arrive", e.ID)
			case rejected && !e.Poison && !s.tooLarge(e):
				rt.Errorf("%s was rejected: %v", e.ID, results[i])
			case results[i] != nil && !undelivered && !rejected:
				rt.Errorf("%s: %v", e.ID, results[i])
			}
		}
	})
}
