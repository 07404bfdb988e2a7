package eventcollector

import (
	"hash/maphash"
	"sync"
	"time"
)

// bucket is a token bucket that may go into debt: a batch is accepted as a whole
// while there is a token left, and the debt delays the next one.
type bucket struct {
	tokens float64
	last   time.Time
}

// take removes n tokens of a bucket that fills with rate tokens per second up to
// burst, and starts full. It returns the time until a token is available, 0 if the
// tokens were removed.
func (b *bucket) take(n, rate, burst float64, now time.Time) (wait time.Duration) {
	if b.last.IsZero() {
		b.tokens = burst
	} else if elapsed := now.Sub(b.last); elapsed > 0 {
		b.tokens = min(burst, b.tokens+rate*elapsed.Seconds())
	}
	b.last = now
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) / rate * float64(time.Second))
	}
	b.tokens -= n
	return 0
}

// keyRate limits the events of one write key. The burst is that of ten seconds.
type keyRate struct {
	rate float64 // events per second

	mu     sync.Mutex
	bucket bucket
}

func (k *keyRate) take(events int, now time.Time) (wait time.Duration) {
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bucket.take(float64(events), k.rate, 10*k.rate, now)
}

const (
	customerBuckets = 1 << 16
	// customerBurst is the burst in seconds of the rate: the queue of a phone that
	// was offline arrives at once.
	customerBurst = 60
)

// customerRates limits the events of each customer. Customers share a fixed number
// of buckets by a hash of their id, so memory does not grow with their number; at
// ordinary rates a shared bucket stays nearly full.
type customerRates struct {
	rate float64 // events per second; 0 means no limit
	seed maphash.Seed

	mu      sync.Mutex
	buckets []bucket
}

func newCustomerRates(rate float64) *customerRates {
	c := &customerRates{rate: rate, seed: maphash.MakeSeed()}
	if rate > 0 {
		c.buckets = make([]bucket, customerBuckets)
	}
	return c
}

// take reports whether one more event of the customer is within the limit.
func (c *customerRates) take(customer []byte, now time.Time) bool {
	if c.rate == 0 {
		return true
	}
	i := maphash.Bytes(c.seed, customer) % customerBuckets
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buckets[i].take(1, c.rate, customerBurst*c.rate, now) == 0
}
