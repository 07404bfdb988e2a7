package shop

import "math/bits"

// random is the SplitMix64 generator. It is our own, and everything drawn from
// it is integer arithmetic, so that a seed means the same shop on every
// machine and with every version of Go.
type random struct{ state uint64 }

const golden = 0x9e3779b97f4a7c15

func (r *random) next() uint64 {
	r.state += golden
	return scramble(r.state)
}

// below draws from 0 to n-1.
func (r *random) below(n int) int {
	high, _ := bits.Mul64(r.next(), uint64(n))
	return int(high)
}

// percent is true in n of 100 draws.
func (r *random) percent(n int) bool { return r.below(100) < n }

// skewed draws from 0 to n-1 by a power law: the share of the first k is the
// cube root of k/n, so that one in a hundred makes a fifth of all draws.
func (r *random) skewed(n int) int {
	u := r.next()
	cube, _ := bits.Mul64(u, u)
	cube, _ = bits.Mul64(cube, u)
	high, _ := bits.Mul64(cube, uint64(n))
	return int(high)
}

// scramble maps a number to another that shows no trace of it, one to one.
func scramble(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// facts is a number that always belongs to this thing of this shop: its bits
// decide what never changes about it.
func facts(seed uint64, kind, index int) uint64 {
	return scramble(scramble(seed+uint64(kind)*golden) + uint64(index)*golden)
}
