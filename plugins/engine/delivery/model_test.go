package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// platform is a model of one: it breaks in every way it knows until it is
// healed, never takes a poison element, and takes note of whatever it is sent
// that no sender should send.
type platform struct {
	random     *rand.Rand
	healed     time.Time
	unnamed    bool // refusals do not name what is to blame
	conf       *Config
	elements   map[string]*sent // by id
	byCustomer map[string][]string
	bodies     map[string]string // by idempotency key

	mu       sync.Mutex
	underWay int
	pausing  time.Time // when it last asked for a pause
	paused   time.Time // until when
	wrong    []string
}

// element is what the model is sent.
type element struct {
	ID       string `json:"id"`
	Customer string `json:"customer,omitempty"`
	Poison   bool   `json:"poison,omitempty"`
	Pad      string `json:"pad,omitempty"`
}

// sent is what became of an element.
type sent struct {
	element
	applied   int
	settled   bool   // the sender knows what became of it
	ambiguous string // key of a request the sender cannot know the fate of
}

func (p *platform) complain(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

func answer(r *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

// RoundTrip takes a request.
func (p *platform) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var elements []element
	if err := json.Unmarshal(body, &elements); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.arrived(r, body, elements)
	work := time.Duration(p.random.IntN(3)) * time.Second
	p.mu.Unlock()

	select {
	case <-time.After(work):
	case <-r.Context().Done():
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.underWay--
	key := r.Header.Get("Idempotency-Key")
	fate := 0
	if time.Now().Before(p.healed) {
		fate = p.random.IntN(12)
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
	if r.Context().Err() != nil {
		ambiguous(p.random.IntN(2) == 0)
		return nil, r.Context().Err()
	}
	switch fate {
	case 1:
		ambiguous(p.random.IntN(2) == 0)
		return answer(r, 500, ""), nil
	case 2:
		ambiguous(false)
		seconds := p.random.IntN(30)
		p.pause(time.Duration(seconds) * time.Second)
		return answer(r, 429, "", "Retry-After", fmt.Sprint(seconds)), nil
	case 3:
		ambiguous(false)
		wait := time.Duration(p.random.IntN(30)) * time.Second
		p.pause(wait)
		// Its clock is wrong by a year, but it says so.
		theirs := time.Now().AddDate(-1, 0, 0)
		return answer(r, 503, "", "Date", theirs.UTC().Format(http.TimeFormat),
			"Retry-After", theirs.Add(wait).UTC().Format(http.TimeFormat)), nil
	case 4:
		ambiguous(true)
		p.mu.Unlock()
		<-r.Context().Done() // it hangs
		p.mu.Lock()
		return nil, r.Context().Err()
	case 5:
		ambiguous(p.random.IntN(2) == 0)
		return nil, errors.New("connection reset by peer")
	case 6:
		ambiguous(true)
		return answer(r, 200, "<html>all is well</html>"), nil
	case 7:
		ambiguous(false)
		return answer(r, 429, ""), nil
	case 8:
		ambiguous(false)
		return answer(r, 401, ""), nil
	}
	return p.judged(r, elements, fate == 9)
}

func (p *platform) pause(wait time.Duration) {
	p.pausing = time.Now()
	if until := time.Now().Add(wait); until.After(p.paused) {
		p.paused = until
	}
}

// arrived checks a request.
func (p *platform) arrived(r *http.Request, body []byte, elements []element) {
	if p.underWay++; p.underWay > p.conf.Parallel {
		p.complain("%d requests at once", p.underWay)
	}
	if len(elements) == 0 || len(elements) > p.conf.MaxElements || len(body) > p.conf.MaxBytes {
		p.complain("a request of %d elements and %d bytes", len(elements), len(body))
	}
	// What was sent at the moment it asked crossed its answer.
	if now := time.Now(); now.Before(p.paused) && now.After(p.pausing) {
		p.complain("a request %v before the end of the pause", time.Until(p.paused))
	}
	key := r.Header.Get("Idempotency-Key")
	if before, ok := p.bodies[key]; ok && before != string(body) {
		p.complain("two requests of one key")
	}
	p.bodies[key] = string(body)
	customers := map[string]bool{}
	for _, sentElement := range elements {
		e := p.elements[sentElement.ID]
		if e.settled {
			p.complain("%s is sent after it was settled", e.ID)
		}
		if e.ambiguous != "" && e.ambiguous != key {
			p.complain("%s is sent with another key while its fate is not known", e.ID)
		}
		e.ambiguous = ""
		if e.Customer == "" {
			continue
		}
		if customers[e.Customer] {
			p.complain("%s is in a request twice", e.Customer)
		}
		customers[e.Customer] = true
		for _, earlier := range p.byCustomer[e.Customer] {
			if earlier == e.ID {
				break
			}
			if !p.elements[earlier].settled {
				p.complain("%s is sent before %s is settled", e.ID, earlier)
			}
		}
	}
}

// judged takes a request that nothing is wrong with but its elements.
func (p *platform) judged(r *http.Request, elements []element, busy bool) (*http.Response, error) {
	poison := slices.ContainsFunc(elements, func(e element) bool { return e.Poison })
	if poison && p.unnamed {
		if len(elements) == 1 {
			p.elements[elements[0].ID].settled = true
		}
		return answer(r, 422, `{"message":"bad"}`), nil
	}
	refusesAll := poison && p.random.IntN(2) == 0
	var failures []string
	for i, sentElement := range elements {
		e := p.elements[sentElement.ID]
		switch {
		case e.Poison:
			e.settled = true
			failures = append(failures, fmt.Sprintf(`{"index":%d}`, i))
		case busy && p.random.IntN(3) == 0:
			failures = append(failures, fmt.Sprintf(`{"index":%d,"retry":true}`, i))
		case !refusesAll:
			e.applied++
			e.settled = true
		}
	}
	status := 202
	if refusesAll {
		status = 400
	}
	return answer(r, status, `{"failures":[`+strings.Join(failures, ",")+`]}`), nil
}

func judge(a *Answer, _ []json.RawMessage) ([]Failure, error) {
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
		MaxElements: 10, MaxBytes: 1 << 20, MaxAnswerBytes: 1 << 20, Parallel: 2,
		Timeout: 10 * time.Second, Retry: Backoff{500 * time.Millisecond, time.Minute}, MaxRetryAfter: 5 * time.Minute,
		Circuit:   Circuit{Failures: 5, Probe: Backoff{time.Second, time.Minute}},
		Delivered: statuses("2xx"), Retried: statuses("3xx", "401", "403", "408", "425", "429", "5xx"), Split: statuses("400", "413", "422"),
		IdempotencyHeader: "Idempotency-Key",
		Compose:           composeArray,
	}
}

// case of a delivery.
type scenario struct {
	elements   []element
	conf       Config
	seed       uint64
	sick       time.Duration // how long the platform breaks
	unnamed    bool
	deliveries int
}

func drawScenario(t *rapid.T) scenario {
	s := scenario{
		conf: testConfig(), seed: rapid.Uint64().Draw(t, "seed"),
		sick:       time.Duration(rapid.IntRange(0, 600).Draw(t, "sick")) * time.Second,
		unnamed:    rapid.Bool().Draw(t, "unnamed"),
		deliveries: 1,
	}
	s.conf.MaxElements = rapid.IntRange(1, 12).Draw(t, "max elements")
	s.conf.MaxBytes = rapid.IntRange(100, 1000).Draw(t, "max bytes")
	s.conf.Parallel = rapid.IntRange(1, 4).Draw(t, "parallel")
	s.conf.Judge = judge
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

// deliver runs a scenario in time of its own, and returns the results and how
// long it took.
func (s *scenario) deliver(t *testing.T, ctx context.Context) (results []error, p *platform, took time.Duration) {
	synctest.Test(t, func(*testing.T) {
		p = &platform{
			random: rand.New(rand.NewPCG(s.seed, 0)), healed: time.Now().Add(s.sick), unnamed: s.unnamed, conf: &s.conf,
			elements: map[string]*sent{}, byCustomer: map[string][]string{}, bodies: map[string]string{},
		}
		var items []Item
		for _, e := range s.elements {
			raw, err := json.Marshal(e)
			if err != nil {
				panic(err)
			}
			items = append(items, Item{ID: e.ID, Customer: e.Customer, Element: raw, Target: Target{Verb: "POST", URL: "http://platform.test/"}})
			p.elements[e.ID] = &sent{element: e, settled: len(raw)+2 > s.conf.MaxBytes}
			p.byCustomer[e.Customer] = append(p.byCustomer[e.Customer], e.ID)
		}
		began := time.Now()
		results = New(s.conf, p).Deliver(ctx, time.Now(), items)
		took = time.Since(began)
	})
	return results, p, took
}

func (s *scenario) tooLarge(e element) bool {
	raw, err := json.Marshal(e)
	return err != nil || len(raw)+2 > s.conf.MaxBytes
}

// Whatever a platform does, in the end it has everything that it can be given,
// in the order of each customer, and nothing twice that it is known to have.
func TestEverythingArrives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		results, p, _ := s.deliver(t, context.Background())
		for _, wrong := range p.wrong {
			rt.Errorf("%s", wrong)
		}
		for i, e := range s.elements {
			refused, isRefused := errors.AsType[*Refused](results[i])
			switch {
			case s.tooLarge(e):
				if !isRefused || refused.Code != CodeTooLarge {
					rt.Errorf("%s is too large: %v", e.ID, results[i])
				}
			case e.Poison:
				if !isRefused || refused.Status == 0 {
					rt.Errorf("%s is poison: %v", e.ID, results[i])
				}
			case results[i] != nil || p.elements[e.ID].applied == 0:
				rt.Errorf("%s did not arrive: %v", e.ID, results[i])
			}
		}
	})
}

// With a time limit a delivery ends by it, and says of each element whether it
// arrived.
func TestTimeLimit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		s.conf.GiveUpAfter = time.Duration(rapid.IntRange(1, 120).Draw(rt, "limit")) * time.Second
		s.conf.Circuit.FailFast = rapid.Bool().Draw(rt, "fail fast")
		results, p, took := s.deliver(t, context.Background())
		for _, wrong := range p.wrong {
			rt.Errorf("%s", wrong)
		}
		if took > s.conf.GiveUpAfter {
			rt.Errorf("it took %v", took)
		}
		for i, e := range s.elements {
			_, gaveUp := errors.AsType[*GaveUp](results[i])
			_, refused := errors.AsType[*Refused](results[i])
			switch {
			case results[i] == nil && p.elements[e.ID].applied == 0:
				rt.Errorf("%s did not arrive", e.ID)
			case refused && !e.Poison && !s.tooLarge(e):
				rt.Errorf("%s was refused: %v", e.ID, results[i])
			case results[i] != nil && !gaveUp && !refused:
				rt.Errorf("%s: %v", e.ID, results[i])
			}
		}
	})
}
