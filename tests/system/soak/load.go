package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// slot is the place of a customer of this suite. After an erasure a new customer
// takes the place.
type slot struct {
	id     string
	number int    // number of previous customers in this slot
	name   string // last written value of the trait firstName
}

// load sends requests and knows the correct responses: only one of its workers
// writes a given customer.
type load struct {
	o       options
	base    string
	client  *http.Client
	workers []*worker
}

type worker struct {
	load   *load
	random *rand.Rand
	number int
	slots  []slot
	gone   []string // erased ids
	writes int
	body   bytes.Buffer

	mu  sync.Mutex
	sum summary
}

func newLoad(o options, base string) *load {
	l := &load{o: o, base: base, client: &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: o.workers, DisableCompression: true},
	}}
	for n := range o.workers {
		w := &worker{load: l, number: n, random: rand.New(rand.NewPCG(1, uint64(n)))}
		for i := n; i < o.slots; i += o.workers {
			w.slots = append(w.slots, slot{id: fmt.Sprintf("soak-%d-0", i)})
		}
		l.workers = append(l.workers, w)
	}
	return l
}

// each calls a function concurrently for every worker.
func (l *load) each(fn func(*worker) error) error {
	failed := make([]error, len(l.workers))
	var all sync.WaitGroup
	for i, w := range l.workers {
		all.Go(func() { failed[i] = fn(w) })
	}
	all.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// create writes every customer once.
func (l *load) create(ctx context.Context) error {
	return l.each(func(w *worker) error {
		for i := range w.slots {
			if err := w.write(ctx, &w.slots[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// fillCache reads as many unknown customers as the cache of the API holds, which
// also caches absence. Memory that grows afterwards is not the cache.
func (l *load) fillCache(ctx context.Context) error {
	const batch, batches = 1000, 250
	return l.each(func(w *worker) error {
		for n := w.number; n < batches; n += l.o.workers {
			ids := make([]string, batch)
			for i := range ids {
				ids[i] = fmt.Sprintf("unknown-%d-%d", n, i)
			}
			body, err := json.Marshal(map[string]any{"ids": ids})
			if err != nil {
				return err
			}
			if err := w.do(ctx, http.MethodPost, "/api/customers/batch", string(body), http.StatusOK); err != nil {
				return err
			}
		}
		return nil
	})
}

// drive sends requests at a total rate per second, or as fast as possible for a
// rate of 0. Latency counts from the scheduled time of a request (open loop).
func (l *load) drive(ctx context.Context, long time.Duration, rate float64) (total summary, err error) {
	started := time.Now()
	until := started.Add(long)
	const interval = time.Minute
	report := time.NewTicker(interval)
	defer report.Stop()
	done := make(chan error, 1)
	go func() { done <- l.each(func(w *worker) error { return w.drive(ctx, started, until, rate) }) }()
	collect := func() (s summary) {
		for _, w := range l.workers {
			s.add(w.take())
		}
		return s
	}
	last := started
	for {
		select {
		case <-report.C:
			s := collect()
			s.took = time.Since(last)
			last = time.Now()
			total.add(s)
			if rate > 0 {
				say("%s", &s)
			}
		case err := <-done:
			total.add(collect())
			total.took = time.Since(started)
			return total, err
		}
	}
}

func (w *worker) drive(ctx context.Context, started, until time.Time, rate float64) error {
	for n := 0; ; n++ {
		due := time.Now()
		if rate > 0 {
			due = started.Add(time.Duration(float64(n*w.load.o.workers+w.number) / rate * float64(time.Second)))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !due.Before(until) {
			return nil
		}
		kind, err := w.send(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.count(kind, time.Since(due), err)
	}
}

// mix lists the kinds of requests and their shares in thousandths.
var mix = []struct {
	name  string
	share int
	send  func(*worker, context.Context) error
}{
	{"profile", 560, (*worker).readOwn},
	{"profile of the shop", 200, (*worker).readOther},
	{"batch of 50", 60, (*worker).readMany},
	{"content", 80, (*worker).render},
	{"write", 92, func(w *worker, ctx context.Context) error { return w.write(ctx, w.any()) }},
	{"erasure", 8, (*worker).erase},
}

func (w *worker) send(ctx context.Context) (kind int, err error) {
	draw := w.random.IntN(1000)
	for draw >= mix[kind].share {
		draw -= mix[kind].share
		kind++
	}
	return kind, mix[kind].send(w, ctx)
}

func (w *worker) any() *slot { return &w.slots[w.random.IntN(len(w.slots))] }

// do sends a request and keeps the response body in w.body.
func (w *worker) do(ctx context.Context, method, path, body string, want int) error {
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, w.load.base+path, in)
	if err != nil {
		return err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := w.load.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	w.body.Reset()
	if _, err := w.body.ReadFrom(response.Body); err != nil {
		return err
	}
	if response.StatusCode != want {
		return fmt.Errorf("%s %s: status %s, not %d: %.200s", method, path, response.Status, want, w.body.Bytes())
	}
	return nil
}

// contains returns an error if the last response lacks a text.
func (w *worker) contains(text, subject string) error {
	if !bytes.Contains(w.body.Bytes(), []byte(text)) {
		return fmt.Errorf("%s lacks %s: %.500s", subject, text, w.body.Bytes())
	}
	return nil
}

func (w *worker) readOwn(ctx context.Context) error {
	s := w.any()
	if err := w.do(ctx, http.MethodGet, "/api/customer/"+s.id, "", http.StatusOK); err != nil {
		return err
	}
	return w.contains(`"firstName":"`+s.name+`"`, s.id)
}

func (w *worker) readOther(ctx context.Context) error {
	// Not every customer of the shop has an event yet.
	path := fmt.Sprintf("/api/customer/u-%06d", 1+w.random.IntN(w.load.o.customers))
	err := w.do(ctx, http.MethodGet, path, "", http.StatusOK)
	if err != nil && bytes.Contains(w.body.Bytes(), []byte(`"no_such_customer"`)) {
		return nil
	}
	return err
}

func (w *worker) readMany(ctx context.Context) error {
	var read []*slot
	var ids []string
	for range 50 {
		s := w.any()
		read, ids = append(read, s), append(ids, s.id)
	}
	body, _ := json.Marshal(map[string]any{"ids": ids})
	if err := w.do(ctx, http.MethodPost, "/api/customers/batch", string(body), http.StatusOK); err != nil {
		return err
	}
	for _, s := range read {
		if err := w.contains(`"firstName":"`+s.name+`"`, s.id+" in a batch"); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) render(ctx context.Context) error {
	return w.do(ctx, http.MethodGet, "/api/customer/"+w.any().id+"/content/loyalty_banner", "", http.StatusOK)
}

func (w *worker) write(ctx context.Context, s *slot) error {
	w.writes++
	name := fmt.Sprintf("name-%d-%d", w.number, w.writes)
	if err := w.do(ctx, http.MethodPatch, "/api/customer/"+s.id+"/traits", `{"firstName":"`+name+`"}`, http.StatusAccepted); err != nil {
		return err
	}
	s.name = name
	return nil
}

// erase erases a customer, checks that writes cannot restore it, and creates
// another one.
func (w *worker) erase(ctx context.Context) error {
	s := w.any()
	if err := w.do(ctx, http.MethodDelete, "/api/customer/"+s.id, "", http.StatusOK); err != nil {
		return err
	}
	w.gone = append(w.gone, s.id)
	old := s.id
	s.number++
	s.id = fmt.Sprintf("%s-%d", s.id[:strings.LastIndexByte(s.id, '-')], s.number)
	if err := w.write(ctx, s); err != nil {
		return err
	}
	if err := w.do(ctx, http.MethodGet, "/api/customer/"+old, "", http.StatusNotFound); err != nil {
		return err
	}
	if err := w.do(ctx, http.MethodGet, "/api/customer/"+old+"/content/loyalty_banner", "", http.StatusOK); err != nil {
		return fmt.Errorf("the fallback of an erased customer: %w", err)
	}
	return w.do(ctx, http.MethodPatch, "/api/customer/"+old+"/traits", `{"firstName":"late"}`, http.StatusConflict)
}

// erased returns the erased ids.
func (l *load) erased() (ids []string) {
	for _, w := range l.workers {
		ids = append(ids, w.gone...)
	}
	return ids
}

// verify compares every customer with its last write.
func (l *load) verify(ctx context.Context, base string) error {
	want := map[string]string{}
	var ids []string
	for _, w := range l.workers {
		for _, s := range w.slots {
			want[s.id], ids = s.name, append(ids, s.id)
		}
		ids = append(ids, w.gone...)
	}
	for part := range slices.Chunk(ids, 500) {
		body, _ := json.Marshal(map[string]any{"ids": part})
		response, err := l.client.Post(base+"/api/customers/batch", "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		var answer struct {
			Customers []struct {
				ID      string
				Found   bool
				Profile struct {
					Traits struct{ FirstName string }
				}
			}
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
		if len(answer.Customers) != len(part) {
			return fmt.Errorf("a batch of %d returned %d", len(part), len(answer.Customers))
		}
		for _, c := range answer.Customers {
			name, alive := want[c.ID]
			if c.Found != alive || c.Profile.Traits.FirstName != name {
				return fmt.Errorf("%s: found %v with the name %q, not %v with %q", c.ID, c.Found, c.Profile.Traits.FirstName, alive, name)
			}
		}
	}
	return nil
}

// summary counts requests and their latencies.
type summary struct {
	took      time.Duration
	counts    [6]int // by index in mix
	wrong     int
	latencies []uint32 // microseconds
}

func (w *worker) count(kind int, latency time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sum.counts[kind]++
	w.sum.latencies = append(w.sum.latencies, uint32(min(latency.Microseconds(), 1<<32-1)))
	if err != nil {
		w.sum.wrong++
		if w.sum.wrong <= 3 {
			say("WRONG: %s: %v", mix[kind].name, err)
		}
	}
}

// take returns the counts since the previous call.
func (w *worker) take() summary {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.sum
	w.sum = summary{}
	return taken
}

func (s *summary) add(o summary) {
	for i := range s.counts {
		s.counts[i] += o.counts[i]
	}
	s.wrong += o.wrong
	s.latencies = append(s.latencies, o.latencies...)
}

func (s *summary) rate() float64 { return float64(len(s.latencies)) / s.took.Seconds() }

func (s *summary) String() string {
	slices.Sort(s.latencies)
	at := func(q float64) float64 {
		if len(s.latencies) == 0 {
			return 0
		}
		return float64(s.latencies[int(q*float64(len(s.latencies)-1))]) / 1000
	}
	text := fmt.Sprintf("%.0f requests/s, p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, %d wrong;", s.rate(), at(0.5), at(0.99), at(0.999), s.wrong)
	for i, n := range s.counts {
		text += fmt.Sprintf(" %s %d", mix[i].name, n)
	}
	return text
}
