package circuit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errDown = errors.New("down")

func always(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

func allow(t *testing.T, b *Breaker) *Call {
	t.Helper()
	call, err := b.Allow()
	require.NoError(t, err)
	return call
}

func TestFailuresInARowOpenTheCircuitAndAProbeClosesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []string
		b := New(Config{
			Failures: 2, ProbeDelay: func(openings int) time.Duration { return time.Duration(openings) * time.Second },
			OnChange: func(from, to State, reason error) { states = append(states, from.String()+" > "+to.String()) },
		})
		allow(t, b).Failed(errDown)
		allow(t, b).Succeeded()
		allow(t, b).Failed(errDown)
		late := allow(t, b)
		allow(t, b).Failed(errDown)
		require.Equal(t, Open, b.State())
		_, err := b.Allow()
		require.ErrorIs(t, err, ErrOpen)
		require.ErrorIs(t, err, errDown)
		late.Failed(errDown) // in flight when the circuit opened: no probe

		time.Sleep(time.Second)
		require.Equal(t, HalfOpen, b.State())
		probe := allow(t, b)
		_, err = b.Allow()
		require.ErrorIs(t, err, ErrOpen, "one probe at a time")
		probe.Failed(errDown)

		time.Sleep(time.Second)
		_, err = b.Allow()
		require.ErrorIs(t, err, ErrOpen, "the second delay is two seconds")
		time.Sleep(time.Second)
		canceled := allow(t, b)
		canceled.Canceled()
		allow(t, b).Succeeded()
		require.Equal(t, Closed, b.State())
		require.Equal(t, []string{"closed > open", "open > half-open", "half-open > open", "open > half-open", "half-open > closed"}, states)
	})
}

func TestSeveralProbesMustSucceed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Failures: 1, ProbeDelay: always(time.Second), Probes: 2})
		allow(t, b).Failed(errDown)
		time.Sleep(time.Second)
		first, second := allow(t, b), allow(t, b)
		_, err := b.Allow()
		require.ErrorIs(t, err, ErrOpen)
		first.Succeeded()
		require.Equal(t, HalfOpen, b.State())
		second.Succeeded()
		require.Equal(t, Closed, b.State())

		allow(t, b).Failed(errDown)
		time.Sleep(time.Second)
		first, second = allow(t, b), allow(t, b)
		first.Succeeded()
		second.Failed(errDown)
		require.Equal(t, Open, b.State())
	})
}

func TestHalfOfTheCallsOfAWindowOpenTheCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Failures: 5, Window: 10 * time.Second, MinCalls: 4, ProbeDelay: always(time.Second)})
		alternate := func(n int) {
			for i := range n {
				if call := allow(t, b); i%2 == 1 {
					call.Failed(errDown)
				} else {
					call.Succeeded()
				}
			}
		}
		alternate(2)
		time.Sleep(11 * time.Second)
		alternate(3)
		require.Equal(t, Closed, b.State(), "older calls are outside of the window")
		allow(t, b).Failed(errDown)
		require.Equal(t, Open, b.State())
	})
}

func TestWaitBlocksUntilAProbeOrTheEndOfAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Failures: 1, ProbeDelay: always(10 * time.Second)})
		began := time.Now()
		allow(t, b).Paused(3 * time.Second)
		call, err := b.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, Closed, b.State())

		call.FailedAndPaused(errDown, 20*time.Second)
		probe, err := b.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 23*time.Second, time.Since(began), "the longer of pause and delay")

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = b.Wait(ctx)
		require.ErrorIs(t, err, context.Canceled)
		go func() {
			time.Sleep(time.Second)
			probe.Succeeded()
		}()
		_, err = b.Wait(t.Context())
		require.NoError(t, err, "a successful probe wakes waiting calls")
		require.Equal(t, 24*time.Second, time.Since(began))
	})
}

func TestWaitRefusesWithoutBlocking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := New(Config{Failures: 1, ProbeDelay: always(10 * time.Second)})
		allow(t, b).Failed(errDown)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := b.Wait(ctx)
		require.ErrorIs(t, err, ErrOpen, "the deadline is before the next probe")

		b = New(Config{Failures: 1, ProbeDelay: always(10 * time.Second), FailFast: true})
		allow(t, b).Failed(errDown)
		_, err = b.Wait(t.Context())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, began, time.Now())
		time.Sleep(10 * time.Second)
		_, err = b.Wait(t.Context())
		require.NoError(t, err)
	})
}
