package lookup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/circuit"
)

// provider answers by calling a function and records the calls.
type provider struct {
	answer func(ctx context.Context, keys []string) (map[string]Value, error)

	mu    sync.Mutex
	calls [][]string
}

func (p *provider) Lookup(ctx context.Context, keys []string) (map[string]Value, error) {
	p.mu.Lock()
	p.calls = append(p.calls, slices.Clone(keys))
	p.mu.Unlock()
	return p.answer(ctx, keys)
}

// takeCalls returns and resets the recorded calls.
func (p *provider) takeCalls() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// upper returns the upper case of every key as its value.
func upper(_ context.Context, keys []string) (map[string]Value, error) {
	values := map[string]Value{}
	for _, key := range keys {
		values[key] = Value{JSON: []byte(strings.ToUpper(key))}
	}
	return values, nil
}

func hang(ctx context.Context, _ []string) (map[string]Value, error) {
	<-ctx.Done()
	return nil, errors.New("the connection was lost")
}

func fail(context.Context, []string) (map[string]Value, error) { return nil, errors.New("no") }

// defaults returns round numbers, without retries and circuit.
func defaults() Options {
	return Options{
		TTL: time.Minute, NegativeTTL: 10 * time.Second, StaleFor: time.Hour, MaxBytes: 1 << 20,
		Timeout: time.Second, Budget: 3 * time.Second, RetryWait: 100 * time.Millisecond,
		BatchSize: 10, MaxInFlight: 2, OpenFor: 30 * time.Second, Probes: 1,
	}
}

// inBubble runs fn with a fake clock.
func inBubble(t *testing.T, o Options, answer func(context.Context, []string) (map[string]Value, error), fn func(l *Loader, p *provider)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{answer: answer}
		l, err := New(p, o)
		require.NoError(t, err)
		defer l.Close()
		fn(l, p)
	})
}

func get(l *Loader, keys ...string) []string {
	var out []string
	for _, a := range l.Get(context.Background(), keys) {
		out = append(out, strings.TrimSuffix(a.Result.String()+" "+string(a.Value), " "))
	}
	return out
}

func took(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}

func TestValueIsFreshThenStaleThenExpired(t *testing.T) {
	inBubble(t, defaults(), upper, func(l *Loader, p *provider) {
		require.Equal(t, []string{"miss A", "miss B"}, get(l, "a", "b"))
		require.Equal(t, [][]string{{"a", "b"}}, p.takeCalls())
		time.Sleep(time.Minute - 1)
		require.Equal(t, []string{"hit A", "hit B"}, get(l, "a", "b"))
		require.Empty(t, p.takeCalls())

		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"stale A"}, get(l, "a"))
		synctest.Wait()
		require.Equal(t, [][]string{{"a"}}, p.takeCalls(), "refreshed in the background")
		require.Equal(t, []string{"hit A"}, get(l, "a"))

		p.answer = fail
		time.Sleep(time.Hour - 1)
		require.Equal(t, []string{"stale B"}, get(l, "b"), "a stale value is returned while the provider fails")
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"failed"}, get(l, "b"))
	})
}

func TestAbsentKeyIsCachedForNegativeTTL(t *testing.T) {
	nothing := func(context.Context, []string) (map[string]Value, error) { return nil, nil }
	inBubble(t, defaults(), nothing, func(l *Loader, p *provider) {
		require.Equal(t, []string{"miss"}, get(l, "a"))
		time.Sleep(10*time.Second - 1)
		require.Equal(t, []string{"negative"}, get(l, "a"))
		require.Len(t, p.takeCalls(), 1)
		p.answer = upper
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"miss A"}, get(l, "a"))
	})
	o := defaults()
	o.NegativeTTL = 0
	inBubble(t, o, nothing, func(l *Loader, p *provider) {
		get(l, "a")
		get(l, "a")
		require.Len(t, p.takeCalls(), 2)
	})
}

func TestHangingProviderDelaysGetByItsBudget(t *testing.T) {
	o := defaults()
	o.Retries = 10
	inBubble(t, o, hang, func(l *Loader, p *provider) {
		require.Equal(t, 3*time.Second, took(func() {
			require.Equal(t, []string{"timed_out", "timed_out"}, get(l, "a", "b"))
		}))
	})
}

func TestLateValueIsReturnedByTheNextGet(t *testing.T) {
	o := defaults()
	o.Timeout, o.Budget = 2*time.Second, 2*time.Second
	slow := func(ctx context.Context, keys []string) (map[string]Value, error) {
		time.Sleep(1500 * time.Millisecond)
		return upper(ctx, keys)
	}
	inBubble(t, o, slow, func(l *Loader, p *provider) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.Equal(t, TimedOut, l.Get(ctx, []string{"a"})[0].Result)
		require.Equal(t, 500*time.Millisecond, took(func() { require.Equal(t, []string{"miss A"}, get(l, "a")) }), "it joins the flight")
		require.Len(t, p.takeCalls(), 1)
	})
}

func TestCircuitOpensAndProbesAfterOpenFor(t *testing.T) {
	o := defaults()
	o.Failures = 2
	var states []string
	o.OnCircuit = func(_, to circuit.State, reason string) { states = append(states, to.String()+": "+reason) }
	inBubble(t, o, hang, func(l *Loader, p *provider) {
		require.Equal(t, time.Second, took(func() { get(l, "a") }))
		require.Equal(t, time.Second, took(func() { get(l, "b") }))
		p.takeCalls()
		require.Zero(t, took(func() { require.Equal(t, []string{"open", "open"}, get(l, "c", "a")) }), "Get does not wait")
		require.Empty(t, p.takeCalls())

		time.Sleep(30*time.Second + 1)
		require.Equal(t, time.Second, took(func() { require.Equal(t, []string{"timed_out"}, get(l, "a")) }), "one Get probes the provider")
		require.Equal(t, []string{"open"}, get(l, "b"))

		p.answer = upper
		time.Sleep(30*time.Second + 1)
		require.Equal(t, []string{"miss A"}, get(l, "a"))
		require.Equal(t, []string{"miss B"}, get(l, "b"))
		require.Equal(t, []string{
			"open: no answer in time", "half-open: no answer in time", "open: no answer in time",
			"half-open: no answer in time", "closed: ",
		}, states)
	})
}

func TestCircuitOpensWhenHalfOfTheCallsFail(t *testing.T) {
	o := defaults()
	o.Failures = 5
	n := 0
	every := func(ctx context.Context, keys []string) (map[string]Value, error) {
		if n++; n%2 == 0 {
			return fail(ctx, keys)
		}
		return upper(ctx, keys)
	}
	inBubble(t, o, every, func(l *Loader, p *provider) {
		for i := range ratioCalls {
			require.NotEqual(t, []string{"open"}, get(l, fmt.Sprint(i)))
		}
		require.Equal(t, []string{"open"}, get(l, "x"))
	})
}

func TestOpenCircuitReturnsStaleValues(t *testing.T) {
	o := defaults()
	o.Failures = 1
	inBubble(t, o, upper, func(l *Loader, p *provider) {
		get(l, "a")
		time.Sleep(2 * time.Minute)
		p.answer = fail
		get(l, "b")
		p.takeCalls()
		require.Equal(t, []string{"stale A", "open"}, get(l, "a", "b"))
		require.Empty(t, p.takeCalls())
	})
}

func TestRetryWaitDoubles(t *testing.T) {
	o := defaults()
	o.Retries = 3
	var calls []time.Time
	inBubble(t, o, nil, func(l *Loader, p *provider) {
		p.answer = func(ctx context.Context, keys []string) (map[string]Value, error) {
			if calls = append(calls, time.Now()); len(calls) < 4 {
				return fail(ctx, keys)
			}
			return upper(ctx, keys)
		}
		require.Equal(t, []string{"miss A"}, get(l, "a"))
		for i, wait := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
			require.InDelta(t, wait, calls[i+1].Sub(calls[i]), float64(wait/2+time.Millisecond))
		}
	})
}

func TestRetryAfterDelaysOrEndsRetries(t *testing.T) {
	for after, want := range map[time.Duration]string{2 * time.Second: "miss A", time.Minute: "failed"} {
		o := defaults()
		o.Retries = 1
		inBubble(t, o, nil, func(l *Loader, p *provider) {
			p.answer = func(ctx context.Context, keys []string) (map[string]Value, error) {
				p.answer = upper
				return nil, &Error{Reason: "HTTP status 429", RetryAfter: after}
			}
			waited := took(func() { require.Equal(t, []string{want}, get(l, "a")) })
			require.LessOrEqual(t, waited, 3*time.Second)
			if want == "failed" {
				require.Zero(t, waited)
			} else {
				require.GreaterOrEqual(t, waited, time.Second)
			}
		})
	}
}

func TestInvalidKeyFailsAlone(t *testing.T) {
	poison := func(ctx context.Context, keys []string) (map[string]Value, error) {
		if slices.Contains(keys, "d") {
			return nil, &Error{Reason: "HTTP status 400", Refused: true}
		}
		return upper(ctx, keys)
	}
	o := defaults()
	o.Failures = 1
	inBubble(t, o, poison, func(l *Loader, p *provider) {
		require.Equal(t, []string{"miss A", "miss B", "miss C", "failed", "miss E"}, get(l, "a", "b", "c", "d", "e"))
		p.takeCalls()
		require.Equal(t, []string{"hit A", "failed"}, get(l, "a", "d"))
		require.Empty(t, p.takeCalls(), "the refusal is cached")
		require.Equal(t, []string{"miss F"}, get(l, "f"), "a refusal does not count as a failure")
	})
}

func TestSplitsOfRefusedCallsAreLimited(t *testing.T) {
	refuse := func(context.Context, []string) (map[string]Value, error) {
		return nil, &Error{Reason: "HTTP status 404", Refused: true}
	}
	o := defaults()
	o.BatchSize = 1000
	inBubble(t, o, refuse, func(l *Loader, p *provider) {
		keys := make([]string, 1000)
		for i := range keys {
			keys[i] = fmt.Sprint(i)
		}
		for _, a := range l.Get(context.Background(), keys) {
			require.Equal(t, Failed, a.Result)
		}
		require.LessOrEqual(t, len(p.takeCalls()), 2*maxSplits+1)
	})
}

func TestFlightsOfHangingProviderAreAbandonedTogether(t *testing.T) {
	o := defaults()
	o.BatchSize, o.MaxInFlight = 1, 2
	inBubble(t, o, hang, func(l *Loader, p *provider) {
		keys := strings.Split("abcdefghijklmnopqrstuvwxyz", "")
		require.Equal(t, 3*time.Second, took(func() { get(l, keys...) }))
		require.LessOrEqual(t, len(p.takeCalls()), 8, "at most two concurrent calls")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Empty(t, l.flights, "no flight is left")
		p.answer = upper
		require.Equal(t, []string{"miss Z"}, get(l, "z"))
	})
}

func TestAbandonedFlightIsRestartedByItsJoiner(t *testing.T) {
	o := defaults()
	o.BatchSize, o.MaxInFlight, o.Timeout, o.Budget = 1, 1, 3*time.Second, 10*time.Second
	slow := func(ctx context.Context, keys []string) (map[string]Value, error) {
		time.Sleep(2500 * time.Millisecond)
		return upper(ctx, keys)
	}
	inBubble(t, o, slow, func(l *Loader, p *provider) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			l.Get(ctx, []string{"a", "b"}) // b waits for a free slot and is abandoned
		}()
		time.Sleep(time.Second)
		require.Equal(t, []string{"miss B"}, get(l, "b"))
	})
}

func TestRateLimitDelaysCalls(t *testing.T) {
	o := defaults()
	o.Limit = func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
			return nil
		}
	}
	inBubble(t, o, upper, func(l *Loader, p *provider) {
		require.Equal(t, 2*time.Second, took(func() { require.Equal(t, []string{"miss A"}, get(l, "a")) }))
		l.o.Limit = hangLimit
		require.Equal(t, 3*time.Second, took(func() { require.Equal(t, []string{"timed_out"}, get(l, "b")) }))
	})
}

func hangLimit(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestMemoryIsBounded(t *testing.T) {
	o := defaults()
	o.MaxBytes = 100_000
	o.BatchSize = 1000
	big := func(_ context.Context, keys []string) (map[string]Value, error) {
		values := map[string]Value{}
		for _, key := range keys {
			values[key] = Value{JSON: make([]byte, 1000)}
		}
		return values, nil
	}
	inBubble(t, o, big, func(l *Loader, p *provider) {
		for i := range 2000 {
			l.Get(context.Background(), []string{fmt.Sprint(i)})
		}
		l.cache.CleanUp()
		require.LessOrEqual(t, l.cache.WeightedSize(), uint64(100_000))
		require.Greater(t, l.cache.EstimatedSize(), 50)
	})
}

func TestVersionChangeInvalidatesTheCache(t *testing.T) {
	o := defaults()
	o.Local = true
	version := uint64(1)
	o.Version = func() uint64 { return version }
	inBubble(t, o, upper, func(l *Loader, p *provider) {
		require.Equal(t, []string{"miss A"}, get(l, "a"))
		require.Equal(t, []string{"hit A"}, get(l, "a"))
		version++
		require.Equal(t, []string{"miss A"}, get(l, "a"))
	})
}

func TestCloseCancelsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{answer: hang}
		o := defaults()
		o.Timeout, o.Budget = time.Hour, time.Hour
		l, err := New(p, o)
		require.NoError(t, err)
		done := make(chan []string)
		go func() { done <- get(l, "a") }()
		time.Sleep(time.Second)
		require.Zero(t, took(l.Close))
		require.Equal(t, []string{"timed_out"}, <-done)
		require.Equal(t, []string{"timed_out"}, get(l, "b"), "no call is started after Close")
	})
}

// memory is an unbounded Shared.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	hangs  bool
}

func (m *memory) Get(ctx context.Context, key string) ([]byte, bool) {
	if m.hangs {
		<-ctx.Done()
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[key]
	return v, ok
}

func (m *memory) Set(_ context.Context, key string, value []byte, _ time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = value
}

func TestProcessesShareValues(t *testing.T) {
	shared := &memory{values: map[string][]byte{}}
	o := defaults()
	o.Shared = shared
	o.Failures = 1
	synctest.Test(t, func(t *testing.T) {
		partial := func(ctx context.Context, keys []string) (map[string]Value, error) {
			values, err := upper(ctx, keys)
			delete(values, "none")
			return values, err
		}
		p := &provider{answer: partial}
		first, err := New(p, o)
		require.NoError(t, err)
		defer first.Close()
		require.Equal(t, []string{"miss A", "miss"}, get(first, "a", "none"))
		p.takeCalls()

		second, err := New(p, o)
		require.NoError(t, err)
		defer second.Close()
		time.Sleep(5 * time.Second)
		require.Equal(t, []string{"miss A", "miss"}, get(second, "a", "none"))
		require.Equal(t, []string{"hit A", "negative"}, get(second, "a", "none"))
		require.Empty(t, p.takeCalls())
		time.Sleep(5 * time.Second)
		require.Equal(t, []string{"miss"}, get(second, "none"), "NegativeTTL counts from the first lookup")
		require.Len(t, p.takeCalls(), 1)

		p.answer = fail
		get(second, "x")
		third, err := New(p, o)
		require.NoError(t, err)
		defer third.Close()
		get(third, "x")
		require.Equal(t, []string{"miss A", "open"}, get(third, "a", "x"), "the shared cache is read while the circuit is open")

		shared.values["junk"] = []byte("no such thing")
		require.Equal(t, []string{"open"}, get(third, "junk"))
		shared.hangs = true
		require.LessOrEqual(t, took(func() { get(third, "y") }), 3*time.Second)
	})
}

// TestLoaderAgreesWithModel compares a Loader with a naive model, over random
// histories of a provider that works, fails, hangs and changes its values.
func TestLoaderAgreesWithModel(t *testing.T) {
	type step struct {
		sleep time.Duration
		mode  string
		set   map[string]string // values of the provider from this step on; "" is absent
		keys  []string
	}
	keys := []string{"a", "b", "c", "d"}
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				sleep: time.Duration(rapid.IntRange(0, 100).Draw(rt, "sleep")) * time.Second,
				mode:  rapid.SampledFrom([]string{"ok", "ok", "ok", "fail", "hang"}).Draw(rt, "mode"),
				set:   rapid.MapOf(rapid.SampledFrom(keys), rapid.SampledFrom([]string{"", "1", "2", "3"})).Draw(rt, "set"),
				keys:  rapid.SliceOfDistinct(rapid.SampledFrom(keys), rapid.ID[string]).Draw(rt, "keys"),
			}
		}), 1, 30).Draw(rt, "steps")
		o := defaults()
		o.StaleFor = time.Duration(rapid.IntRange(0, 120).Draw(rt, "stale_for")) * time.Second
		o.NegativeTTL = time.Duration(rapid.IntRange(0, 30).Draw(rt, "negative_ttl")) * time.Second
		o.BatchSize = rapid.IntRange(1, 4).Draw(rt, "batch_size")
		o.MaxInFlight = 8

		type known struct {
			value       string
			fresh, kept time.Time
		}
		var problem string
		inBubble(t, o, nil, func(l *Loader, p *provider) {
			mode, world := "ok", map[string]string{}
			p.answer = func(ctx context.Context, keys []string) (map[string]Value, error) {
				switch mode {
				case "fail":
					return fail(ctx, keys)
				case "hang":
					return hang(ctx, keys)
				}
				values := map[string]Value{}
				for _, key := range keys {
					if v := world[key]; v != "" {
						values[key] = Value{JSON: []byte(v)}
					}
				}
				return values, nil
			}
			model := map[string]known{}
			for i, s := range steps {
				time.Sleep(s.sleep)
				mode = s.mode
				for key, v := range s.set {
					world[key] = v
				}
				start := time.Now()
				var want, expectedCalls []string
				for _, key := range s.keys {
					k, ok := model[key]
					switch {
					case ok && start.Before(k.fresh) && k.value != "":
						want = append(want, "hit "+k.value)
						continue
					case ok && start.Before(k.fresh):
						want = append(want, "negative")
						continue
					case ok && start.Before(k.kept):
						want = append(want, "stale "+k.value)
					case mode == "fail":
						want = append(want, "failed")
					case mode == "hang":
						want = append(want, "timed_out")
					default:
						want = append(want, strings.TrimSuffix("miss "+world[key], " "))
					}
					expectedCalls = append(expectedCalls, key)
					if mode == "ok" {
						ttl, kept := o.TTL, o.StaleFor
						if world[key] == "" {
							ttl, kept = o.NegativeTTL, 0
						}
						model[key] = known{world[key], start.Add(ttl), start.Add(ttl + kept)}
					}
				}
				var got []string
				waited := took(func() { got = get(l, s.keys...) })
				if waited > o.Budget || mode != "hang" && waited > 0 {
					problem = fmt.Sprintf("step %d took %v", i, waited)
					return
				}
				// Wait for background calls.
				time.Sleep(5 * time.Second)
				synctest.Wait()
				called := slices.Sorted(slices.Values(slices.Concat(p.takeCalls()...)))
				slices.Sort(expectedCalls)
				if !slices.Equal(got, want) || !slices.Equal(called, expectedCalls) {
					problem = fmt.Sprintf("step %d: got %q and called with %q, want %q and %q", i, got, called, want, expectedCalls)
					return
				}
			}
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// Many goroutines look the same keys up concurrently.
func TestConcurrentGetsAreCoalesced(t *testing.T) {
	o := defaults()
	o.TTL, o.MaxInFlight, o.Timeout, o.Budget = time.Hour, 16, time.Minute, time.Minute
	p := &provider{answer: func(ctx context.Context, keys []string) (map[string]Value, error) {
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
		values, err := upper(ctx, keys)
		for _, key := range keys {
			if strings.HasSuffix(key, "7") {
				delete(values, key)
			}
		}
		return values, err
	}}
	o.NegativeTTL = time.Hour
	l, err := New(p, o)
	require.NoError(t, err)
	defer l.Close()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 50 {
				var keys []string
				for _, i := range rand.Perm(300)[:20] {
					keys = append(keys, fmt.Sprintf("k%d", i))
				}
				for i, a := range l.Get(context.Background(), keys) {
					if !a.Known() || a.Found() == strings.HasSuffix(keys[i], "7") || a.Found() && string(a.Value) != strings.ToUpper(keys[i]) {
						t.Errorf("%s: %s %q", keys[i], a.Result, a.Value)
					}
				}
			}
		})
	}
	wg.Wait()
	times := map[string]int{}
	for _, keys := range p.takeCalls() {
		for _, key := range keys {
			times[key]++
		}
	}
	require.Len(t, times, 300)
	for key, n := range times {
		require.Equal(t, 1, n, key)
	}
}
