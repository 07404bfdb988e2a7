// Package backoff computes the delay before a retry.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Exponential doubles the delay with every failure, from Initial up to Max.
//
//	b := backoff.Exponential{Initial: time.Second, Max: time.Minute}
//	b.Delay(1) // 0.5 s to 1 s
//	b.Delay(3) // 2 s to 4 s
//	b.Delay(9) // 30 s to 60 s
type Exponential struct{ Initial, Max time.Duration }

// Delay returns the delay after a number of failures in a row, counted from 1. It
// is a random value between half of the doubled delay and all of it (jitter), so
// that clients which failed together do not retry together.
func (b Exponential) Delay(failures int) time.Duration {
	d := b.Initial
	for i := 1; i < failures && d < b.Max; i++ {
		d *= 2
	}
	d = min(d, b.Max)
	return d/2 + rand.N(d/2+1)
}

// Wait blocks for Delay(failures), or until ctx ends, whose error it returns.
func (b Exponential) Wait(ctx context.Context, failures int) error {
	return Sleep(ctx, b.Delay(failures))
}

// Sleep blocks for d, or until ctx ends, whose error it returns.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
