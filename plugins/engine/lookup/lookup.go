// Package lookup looks keys up at a provider that may be slow, faulty or
// unavailable, and isolates the caller from that.
//
// A Loader combines four mechanisms:
//
//   - Cache. A fresh value is returned from memory. A stale value is returned too,
//     while a background call refreshes it (stale-while-revalidate). Absent keys
//     are cached for NegativeTTL.
//   - Coalescing. Each key that is being looked up has one flight. Every Get that
//     needs the key joins its flight, so that the provider receives one request
//     per key, however many callers wait.
//   - Budget. Get returns after Budget at the latest. The call continues until its
//     own Timeout, and its result is cached for the next Get.
//   - Circuit breaker. After Failures failed calls in a row the circuit opens: no
//     call is made for OpenFor, and stale values are still returned. Then Probes
//     calls decide whether it closes.
//
// For example, with TTL 1m and StaleFor 1h, and two concurrent batches that both
// need the key "a":
//
//	00:00  batch 1: Get(a) -> flight, call to the provider -> Miss, value
//	00:00  batch 2: Get(a) -> joins the flight             -> Miss, same value
//	00:30           Get(a)                                 -> Hit
//	01:30           Get(a) -> background refresh           -> Stale, old value
//	01:31           Get(a)                                 -> Hit, new value
package lookup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/engine/circuit"
)

// Result is the origin of an answer, or the reason why there is none.
type Result uint8

// The results. Hit, Stale and Negative come from the cache, Miss comes from the
// provider or the shared cache. With any other result the value is unknown.
const (
	Hit Result = iota
	Stale
	Negative
	Miss
	// Failed: the provider's answer was not usable.
	Failed
	// TimedOut: the budget or the timeout of the call expired.
	TimedOut
	// Open: the circuit is open, so the provider was not called.
	Open
	results
)

var resultNames = [results]string{"hit", "stale", "negative", "miss", "failed", "timed_out", "open"}

// Results lists all results.
func Results() []Result { return []Result{Hit, Stale, Negative, Miss, Failed, TimedOut, Open} }

// String returns the name of the result in metrics and marks.
func (r Result) String() string { return resultNames[r] }

// Answer is the result of looking one key up.
type Answer struct {
	// Value is JSON, or nil if there is none. It must not be modified.
	Value  []byte
	Result Result
}

// Found reports whether there is a value.
func (a Answer) Found() bool { return a.Value != nil }

// Known reports whether the provider's answer is known. The answer may be that the
// key has no value.
func (a Answer) Known() bool { return a.Result <= Miss }

// Value is a provider's answer for a key.
type Value struct {
	// JSON is the value.
	JSON []byte
	// Refused reports that the provider answered, but the value of this key is
	// not usable. It is cached like an absent key.
	Refused bool
}

// Provider returns the values of keys. Keys without a value are absent from the
// result. Lookup is called concurrently and must return soon after ctx ends. An
// error that is neither an *Error nor the error of ctx means that the provider is
// unavailable.
type Provider interface {
	Lookup(ctx context.Context, keys []string) (map[string]Value, error)
}

// Error is the reason of a failed call.
type Error struct {
	// Reason is written to logs: it must not contain keys, values or secrets.
	Reason string
	// Refused reports that the provider is available and rejected the request.
	// A retry would fail again; a request without the invalid key may succeed.
	Refused bool
	// RetryAfter is the minimum wait that the provider requests before a retry.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Reason }

// Shared is a cache that several processes share.
type Shared interface {
	Get(ctx context.Context, key string) (value []byte, found bool)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

// Options configures a Loader.
type Options struct {
	// Local marks a provider inside of the process. Get calls it directly; only
	// the cache options apply.
	Local bool
	// Version, if set, returns a number that changes when all cached values become
	// invalid.
	Version func() uint64

	// TTL is the time for which a value is fresh, NegativeTTL the time for which
	// an absent key is cached. For StaleFor after TTL a value is still returned
	// while it is refreshed.
	TTL, NegativeTTL, StaleFor time.Duration
	// MaxBytes is the maximum size of the cache: keys, values and overhead.
	MaxBytes int
	Shared   Shared

	// Timeout limits one call, Budget limits Get.
	Timeout, Budget time.Duration
	// Retries is the maximum number of retries of a call. RetryWait is the wait
	// before the first one; it doubles with each retry and varies by half.
	Retries   int
	RetryWait time.Duration
	// BatchSize is the maximum number of keys in a call, MaxInFlight the maximum
	// number of concurrent calls.
	BatchSize, MaxInFlight int
	// Limit, if set, blocks until the rate limit permits a call.
	Limit func(ctx context.Context) error

	// Failures is the number of failed calls in a row that opens the circuit; 0
	// disables the circuit. It also opens if half of at least ratioCalls calls in
	// ratioWindow failed. After OpenFor, Probes calls are made; if all of them
	// succeed, the circuit closes.
	Failures int
	OpenFor  time.Duration
	Probes   int

	// OnCall is called after every call. OnCircuit is called after every change of
	// the circuit, with the reason of the failure that opened it, empty once it is
	// closed.
	OnCall    func(ok bool, took time.Duration)
	OnCircuit func(from, to circuit.State, reason string)
}

const (
	ratioWindow = 30 * time.Second
	ratioCalls  = 20
	// entryOverhead is the approximate size of a cache entry in bytes, without key
	// and value.
	entryOverhead = 160
	// maxSplits limits how often a refused call is split.
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

// flight is the pending lookup of one key. answer and abandoned are set before
// done is closed.
type flight struct {
	key    string
	done   chan struct{}
	answer Answer
	// abandoned is set if the flight ended before its call began, because the
	// caller's budget expired. A caller that joined later must start a new one.
	abandoned bool
}

// Loader looks keys up. Its methods are safe for concurrent use.
type Loader struct {
	o        Options
	provider Provider
	cache    *otter.Cache[string, entry]
	breaker  *circuit.Breaker
	slots    chan struct{}

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// mu guards the fields below. A flight is removed after its value is cached.
	// So a caller that holds mu and finds neither flight nor cached value is the
	// only one that looks the key up.
	mu      sync.Mutex
	flights map[string]*flight
	closed  bool
}

// New returns a Loader for a provider.
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
	l.breaker = circuit.New(circuit.Config{
		Failures: o.Failures, Window: ratioWindow, MinCalls: ratioCalls,
		ProbeDelay: func(int) time.Duration { return o.OpenFor },
		Probes:     o.Probes,
		OnChange: func(from, to circuit.State, failure error) {
			if o.OnCircuit == nil {
				return
			}
			var reason string
			if failure != nil {
				reason = Reason(failure)
			}
			o.OnCircuit(from, to, reason)
		},
	})
	return l, nil
}

// Close cancels all calls and waits for them.
func (l *Loader) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	l.wg.Wait()
	l.cache.StopAllGoroutines()
}

// Get returns the answers for distinct keys, in their order, within the budget.
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
		// No caller waits for the refresh, so its budget is the timeout of a call.
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

func (l *Loader) isOpen() bool { return l.breaker.State() == circuit.Open }

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

// remember caches the provider's answer.
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
		// The entry must not be cached, and the previous one is outdated.
		l.cache.Invalidate(key)
		return
	}
	l.cache.Set(key, e)
}

// fly returns the flights of keys: pending ones and new ones. New flights that
// are still waiting for a call when ctx ends are abandoned. ended is called after all new
// flights began or were abandoned.
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

// dispatch groups flights into calls of BatchSize keys and starts each call when
// fewer than MaxInFlight are running.
func (l *Loader) dispatch(ctx context.Context, flights []*flight) {
	for chunk := range slices.Chunk(flights, max(l.o.BatchSize, 1)) {
		select {
		case l.slots <- struct{}{}:
			l.wg.Add(1)
			go func() {
				defer l.wg.Done()
				defer func() { <-l.slots }()
				l.call(chunk)
			}()
			continue
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
		for _, f := range chunk {
			f.abandoned = true
			l.land(f, Answer{Result: TimedOut})
		}
	}
}

// land completes a flight.
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

// resolve calls the provider. If the provider refuses a call, resolve splits it in
// halves until the keys that cause the refusal are isolated.
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
	case errors.Is(err, circuit.ErrOpen):
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

// errLimit is the error of a call that the rate limit did not permit.
var errLimit = errors.New("the rate limit permits no call")

// try calls the provider until it answers or the retries are exhausted.
func (l *Loader) try(keys []string) (map[string]Value, error) {
	wait := backoff.Exponential{Initial: max(l.o.RetryWait, time.Millisecond)}
	wait.Max = max(5*time.Second, wait.Initial)
	for failures := 1; ; failures++ {
		values, err := l.once(keys)
		if err == nil || failures > l.o.Retries || errors.Is(err, circuit.ErrOpen) || errors.Is(err, errLimit) {
			return values, err
		}
		delay := wait.Delay(failures)
		if known, ok := errors.AsType[*Error](err); ok {
			if known.Refused || known.RetryAfter > l.o.Budget {
				return nil, err
			}
			delay = max(delay, known.RetryAfter)
		}
		if err := backoff.Sleep(l.ctx, delay); err != nil {
			return nil, err
		}
	}
}

func (l *Loader) once(keys []string) (map[string]Value, error) {
	if l.isOpen() {
		return nil, circuit.ErrOpen // do not consume the rate limit
	}
	if l.o.Limit != nil {
		ctx, cancel := context.WithTimeout(l.ctx, l.o.Budget)
		err := l.o.Limit(ctx)
		cancel()
		if err != nil {
			return nil, errors.Join(errLimit, err)
		}
	}
	call, err := l.breaker.Allow()
	if err != nil {
		return nil, circuit.ErrOpen
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timeout)
	defer cancel()
	start := time.Now()
	values, err := l.provider.Lookup(ctx, keys)
	if err != nil && ctx.Err() != nil {
		// Providers may return another error when ctx ends.
		err = ctx.Err()
	}
	var known *Error
	healthy := err == nil || errors.As(err, &known) && known.Refused
	if !healthy {
		call.Failed(err)
	} else {
		call.Succeeded()
	}
	if l.o.OnCall != nil {
		l.o.OnCall(healthy, time.Since(start))
	}
	return values, err
}

// Reason returns why a call failed. The text contains no keys, values or secrets.
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
