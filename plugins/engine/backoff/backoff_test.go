package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDelayDoublesUpToTheMaximumWithJitter(t *testing.T) {
	b := Exponential{Initial: time.Second, Max: 10 * time.Second}
	for failures, full := range map[int]time.Duration{0: time.Second, 1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 1000: 10 * time.Second} {
		for range 100 {
			delay := b.Delay(failures)
			require.GreaterOrEqual(t, delay, full/2)
			require.LessOrEqual(t, delay, full)
		}
	}
}

func TestWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Exponential{Initial: time.Minute, Max: time.Minute}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.Wait(ctx, 1), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, b.Wait(t.Context(), 1))
		require.GreaterOrEqual(t, time.Since(began), 31*time.Second)
	})
}
