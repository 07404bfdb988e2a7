// Package lookup finds values by their keys at a provider that may be slow,
// wrong or away, without passing that on to whoever asks.
//
// A Loader keeps what it found in a cache of bounded size. What is fresh is
// answered from there; what is stale is answered from there too while it is
// looked up again behind the caller's back; the rest is looked up in as few
// calls as the provider allows, one flight for each key however many ask at the
// same time. A caller waits for its budget at the longest. A call that takes
// longer goes on until its own time is up, and what it finds serves the next.
package lookup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/maypok86/otter/v2"
	"github.com/sony/gobreaker/v2"
)

// Result tells where an answer comes from.
type Result uint8

// The results. Hit, Stale and Negative are from the cache, Miss is from the
// provider (or the shared cache); after the others the key's value is unknown.
const (
	Hit Result = iota
	Stale
	Negative
	Miss
	// Failed: the provider answered, but not with something to be used.
	Failed
	// TimedOut: the budget, or the time for a call, was up.
	TimedOut
	// Open: the circuit is open, so that the provider was not asked.
	Open
	results
)

var resultNames = [results]string{"hit", "stale", "negative", "miss", "failed", "timed_out", "open"}

// Results lists all results.
func Results() []Result { return []Result{Hit, Stale, Negative, Miss, Failed, TimedOut, Open} }

// String returns the result as metrics and marks name it.
func (r Result) String() string { return resultNames[r] }

// Answer is what is known of a key.
type Answer struct {
	// Value is JSON and must not be changed; nil if there is none.
	Value  []byte
	Result Result
}

// Found tells whether there is a value.
func (a Answer) Found() bool { return a.Value != nil }

// Known tells whether the provider's word on the key is known, be it that there
// is no value.
func (a Answer) Known() bool { return a.Result <= Miss }

// Value is what a provider says of a key.
type Value struct {
	// JSON is the value.
	JSON []byte
	// Refused tells that the provider answered and this key's value cannot be
	// used. It is not asked for again as long as an absent one.
	Refused bool
}

// Provider finds the values of keys. It is called concurrently. It must return
// soon after ctx ends, and leaves keys out that have no value. Errors that are
// not an *Error, or ctx's own, count as a provider that is away.
type Provider interface {
	Lookup(ctx context.Context, keys []string) (map[string]Value, error)
}

// Error is why a call failed.
type Error struct {
	// Reason is for logs: it must hold no key, no value, no secret.
	Reason string
	// Refused tells that the provider is well and did not like the request.
	// Another try would not help, but one without the key to blame may.
	Refused bool
	// RetryAfter is how long the provider asks to be left alone.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Reason }

// Shared is a cache of several processes.
type Shared interface {
	Get(ctx context.Context, key string) (value []byte, found bool)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

// Options say how a Loader does its work.
type Options struct {
	// Local providers are part of the process: they are asked where the caller
	// is, and only what concerns the cache holds for them.
	Local bool
	// Version, if set, changes when all that is cached becomes wrong.
	Version func() uint64

	// TTL is for how long a value is fresh, NegativeTTL for how long it holds
	// that there is none, StaleFor how much longer than fresh it is served
	// while it is looked up again.
	TTL, NegativeTTL, StaleFor time.Duration
	// MaxBytes is the most the cache holds, keys, values and its own included.
	MaxBytes int
	Shared   Shared

	// Timeout is for one call, Budget for how long Get waits.
	Timeout, Budget time.Duration
	// Retries is how many more times a call is tried, RetryWait the wait before
	// the first of them; each further one doubles. All of them vary by half.
	Retries   int
	RetryWait time.Duration
	// BatchSize is the most keys in a call, MaxInFlight the most calls at a time.
	BatchSize, MaxInFlight int
	// Limit, if set, waits until a call may be made.
	Limit func(ctx context.Context) error

	// Failures in a row open the circuit, 0 never; and so does half of at least
	// ratioCalls in ratioWindow, for OpenFor. Then Probes calls are let through
	// and close it if all succeed.
	Failures int
	OpenFor  time.Duration
	Probes   int

	// OnCall is told of every call, OnCircuit of every change of the circuit
	// with the last failure.
	OnCall    func(ok bool, took time.Duration)
	OnCircuit func(from, to gobreaker.State, reason string)
}

const (
	ratioWindow = 30 * time.Second
	ratioCalls  = 20
	// entryOverhead is about what the cache needs for an entry beside its key
	// and value.
	entryOverhead = 160
	// maxSplits bounds how often a call that was refused is tried in parts.
	maxSplits = 16
)

type entry struct {
	value   []byte
	refused bool
	version uint64
	// freshUntil and keptUntil are in Unix nanoseconds.
	freshUntil, keptUntil int64
}

func (e entry) known() Result {
	switch {
	case e.refused:
		return Failed
	case e.value == nil:
		return Negative
	}
	return Hit
}

// flight is a key's lookup under way. answer and abandoned are set before done
// is closed.
type flight struct {
	key    string
	done   chan struct{}
	answer Answer
	// abandoned: it never started, as nobody was waiting any more. Whoever
	// joined it later has to start it again.
	abandoned bool
}

// Loader looks keys up. Its methods may be called concurrently.
type Loader struct {
	o        Options
	provider Provider
	cache    *otter.Cache[string, entry]
	breaker  *gobreaker.TwoStepCircuitBreaker[struct{}]
	slots    chan struct{}

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// mu guards what follows. A flight is taken out after its value is in the
	// cache, so that whoever finds no flight and nothing in the cache under mu
	// is the only one to look the key up.
	mu      sync.Mutex
	flights map[string]*flight
	closed  bool
	reason  string // of the last failed call
}

// New returns a Loader of a provider.
func New(provider Provider, o Options) (*Loader, error) {
	cache, err := otter.New(&otter.Options[string, entry]{
		MaximumWeight: uint64(max(o.MaxBytes, 1)),
		Weigher: func(key string, e entry) uint32 {
			return uint32(min(int64(len(key))+int64(len(e.value))+entryOverhead, 1<<32-1))
		},
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, entry]) time.Duration {
			return time.Duration(e.Value.keptUntil - time.Now().UnixNano())
		}),
	})
	if err != nil {
		return nil, err
	}
	l := &Loader{o: o, provider: provider, cache: cache, flights: map[string]*flight{}, slots: make(chan struct{}, max(o.MaxInFlight, 1))}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(o.Probes),
		Interval:     ratioWindow,
		BucketPeriod: ratioWindow / 10,
		Timeout:      o.OpenFor,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return o.Failures > 0 && (c.ConsecutiveFailures >= uint32(o.Failures) || c.Requests >= ratioCalls && 2*c.TotalFailures >= c.Requests)
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if o.OnCircuit == nil {
				return
			}
			l.mu.Lock()
			reason := l.reason
			l.mu.Unlock()
			o.OnCircuit(from, to, reason)
		},
	})
	return l, nil
}

// Close ends all calls and waits for them.
func (l *Loader) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	l.wg.Wait()
	l.cache.StopAllGoroutines()
}

// Get answers different keys, each at its place. It returns within the budget.
func (l *Loader) Get(ctx context.Context, keys []string) []Answer {
	answers := make([]Answer, len(keys))
	now := time.Now().UnixNano()
	var missing []int
	var stale []string
	for i, key := range keys {
		e, ok := l.cached(key)
		switch {
		case ok && now < e.freshUntil:
			answers[i] = Answer{e.value, e.known()}
		case ok && now < e.keptUntil && e.value != nil:
			answers[i] = Answer{e.value, Stale}
			stale = append(stale, key)
		default:
			missing = append(missing, i)
		}
	}
	if l.o.Local {
		l.getLocal(ctx, keys, missing, answers)
		return answers
	}
	if len(stale) > 0 && !l.isOpen() {
		// Nobody waits for these: they have the time of a call to start.
		refresh, cancel := context.WithTimeout(l.ctx, l.o.Timeout)
		l.fly(refresh, stale, cancel)
	}
	if len(missing) > 0 {
		l.getRemote(ctx, keys, missing, answers)
	}
	return answers
}

func (l *Loader) getLocal(ctx context.Context, keys []string, missing []int, answers []Answer) {
	if len(missing) == 0 {
		return
	}
	want := make([]string, len(missing))
	for n, i := range missing {
		want[n] = keys[i]
	}
	version := l.version()
	values, err := l.provider.Lookup(ctx, want)
	for _, i := range missing {
		if err != nil {
			answers[i].Result = Failed
			continue
		}
		v, ok := values[keys[i]]
		answers[i] = l.remember(keys[i], v, ok, version)
	}
}

func (l *Loader) getRemote(ctx context.Context, keys []string, missing []int, answers []Answer) {
	if l.o.Shared == nil && l.isOpen() {
		for _, i := range missing {
			answers[i].Result = Open
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Budget)
	defer cancel()
	for len(missing) > 0 {
		want := make([]string, len(missing))
		for n, i := range missing {
			want[n] = keys[i]
		}
		flights := l.fly(ctx, want, nil)
		var again []int
		for n, i := range missing {
			f := flights[n]
			select {
			case <-f.done:
			default:
				select {
				case <-f.done:
				case <-ctx.Done():
					answers[i].Result = TimedOut
					continue
				}
			}
			if f.abandoned && ctx.Err() == nil {
				again = append(again, i)
				continue
			}
			answers[i] = f.answer
		}
		missing = again
	}
}

func (l *Loader) isOpen() bool { return l.breaker.State() == gobreaker.StateOpen }

func (l *Loader) version() uint64 {
	if l.o.Version == nil {
		return 0
	}
	return l.o.Version()
}

func (l *Loader) cached(key string) (entry, bool) {
	e, ok := l.cache.GetIfPresent(key)
	return e, ok && e.version == l.version()
}

// remember puts what the provider said in the cache.
func (l *Loader) remember(key string, v Value, found bool, version uint64) Answer {
	now := time.Now().UnixNano()
	e := entry{refused: v.Refused, version: version}
	answer := Answer{Result: Miss}
	switch {
	case found && !v.Refused && v.JSON != nil:
		e.value = v.JSON
		e.freshUntil = now + int64(l.o.TTL)
		e.keptUntil = e.freshUntil + int64(l.o.StaleFor)
		answer.Value = v.JSON
	default:
		e.freshUntil = now + int64(l.o.NegativeTTL)
		e.keptUntil = e.freshUntil
		if v.Refused {
			answer.Result = Failed
		}
	}
	l.put(key, e, now)
	return answer
}

func (l *Loader) put(key string, e entry, now int64) {
	if e.keptUntil <= now {
		// Nothing is to be kept, and what was known before no longer holds.
		l.cache.Invalidate(key)
		return
	}
	l.cache.Set(key, e)
}

// fly returns the flights of keys, those that are under way and new ones. New
// ones that are not started when ctx ends are abandoned. ended is called when
// all new ones are started or abandoned.
func (l *Loader) fly(ctx context.Context, keys []string, ended context.CancelFunc) []*flight {
	flights := make([]*flight, len(keys))
	var mine []*flight
	l.mu.Lock()
	now := time.Now().UnixNano()
	for i, key := range keys {
		if f := l.flights[key]; f != nil {
			flights[i] = f
			continue
		}
		f := &flight{key: key, done: make(chan struct{})}
		flights[i] = f
		if e, ok := l.cached(key); ok && now < e.freshUntil {
			f.answer = Answer{e.value, e.known()}
			close(f.done)
		} else if l.closed {
			f.answer.Result = TimedOut
			close(f.done)
		} else {
			l.flights[key] = f
			mine = append(mine, f)
		}
	}
	if len(mine) > 0 {
		l.wg.Add(1)
	}
	l.mu.Unlock()
	if len(mine) == 0 {
		if ended != nil {
			ended()
		}
		return flights
	}
	go func() {
		defer l.wg.Done()
		l.dispatch(ctx, mine)
		if ended != nil {
			ended()
		}
	}()
	return flights
}

// dispatch starts a call for as many flights as fit in one, when there is room
// for another call.
func (l *Loader) dispatch(ctx context.Context, flights []*flight) {
	for part := range slices.Chunk(flights, max(l.o.BatchSize, 1)) {
		select {
		case l.slots <- struct{}{}:
			l.wg.Add(1)
			go func() {
				defer l.wg.Done()
				defer func() { <-l.slots }()
				l.call(part)
			}()
			continue
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
		for _, f := range part {
			f.abandoned = true
			l.land(f, Answer{Result: TimedOut})
		}
	}
}

// land ends a flight.
func (l *Loader) land(f *flight, a Answer) {
	f.answer = a
	l.mu.Lock()
	delete(l.flights, f.key)
	l.mu.Unlock()
	close(f.done)
}

func (l *Loader) call(flights []*flight) {
	if l.o.Shared != nil {
		if flights = l.landShared(flights); len(flights) == 0 {
			return
		}
	}
	splits := maxSplits
	l.resolve(flights, &splits)
}

// resolve asks the provider. Of flights that are refused together it finds out
// the ones that are to blame by halving.
func (l *Loader) resolve(flights []*flight, splits *int) {
	keys := make([]string, len(flights))
	for i, f := range flights {
		keys[i] = f.key
	}
	values, err := l.try(keys)
	if err == nil {
		for _, f := range flights {
			v, ok := values[f.key]
			answer := l.remember(f.key, v, ok, 0)
			l.share(f.key, answer)
			l.land(f, answer)
		}
		return
	}
	result := Failed
	var known *Error
	refused := errors.As(err, &known) && known.Refused
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		result = Open
	case isTimeout(err):
		result = TimedOut
	case refused && len(flights) == 1:
		answer := l.remember(flights[0].key, Value{Refused: true}, true, 0)
		l.land(flights[0], answer)
		return
	case refused && *splits > 0:
		*splits--
		half := len(flights) / 2
		l.resolve(flights[:half], splits)
		l.resolve(flights[half:], splits)
		return
	}
	for _, f := range flights {
		l.land(f, Answer{Result: result})
	}
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// try calls the provider until it answers or retries are used up.
func (l *Loader) try(keys []string) (map[string]Value, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = max(l.o.RetryWait, time.Millisecond)
	waits.Multiplier = 2
	waits.RandomizationFactor = 0.5
	waits.MaxInterval = max(5*time.Second, waits.InitialInterval)
	return backoff.Retry(l.ctx, func() (map[string]Value, error) {
		values, err := l.once(keys)
		var known *Error
		switch {
		case err == nil:
		case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
			return nil, backoff.Permanent(err)
		case errors.As(err, &known) && (known.Refused || known.RetryAfter > l.o.Budget):
			return nil, backoff.Permanent(err)
		case known != nil && known.RetryAfter > 0:
			// The library's own error for this counts in whole seconds.
			waits.InitialInterval = max(waits.InitialInterval, known.RetryAfter)
			waits.Reset()
		}
		return values, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(uint(l.o.Retries)+1), backoff.WithMaxElapsedTime(0))
}

func (l *Loader) once(keys []string) (map[string]Value, error) {
	if l.isOpen() {
		return nil, gobreaker.ErrOpenState // without spending of the rate limit
	}
	if l.o.Limit != nil {
		ctx, cancel := context.WithTimeout(l.ctx, l.o.Budget)
		err := l.o.Limit(ctx)
		cancel()
		if err != nil {
			return nil, backoff.Permanent(err)
		}
	}
	done, err := l.breaker.Allow()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timeout)
	defer cancel()
	start := time.Now()
	values, err := l.provider.Lookup(ctx, keys)
	if err != nil && ctx.Err() != nil {
		// Whatever a provider makes of it, the reason is this.
		err = ctx.Err()
	}
	var known *Error
	healthy := err == nil || errors.As(err, &known) && known.Refused
	if !healthy {
		l.mu.Lock()
		l.reason = Reason(err)
		l.mu.Unlock()
		done(err)
	} else {
		done(nil)
	}
	if l.o.OnCall != nil {
		l.o.OnCall(healthy, time.Since(start))
	}
	return values, err
}

// Reason tells why a call failed, in words that hold nothing of what it was
// about.
func Reason(err error) string {
	var known *Error
	switch {
	case errors.As(err, &known):
		return known.Reason
	case isTimeout(err):
		return "no answer in time"
	}
	return "the provider cannot be reached or failed"
}
