package shop

import "math/bits"

// random is the SplitMix64 generator, with integer arithmetic only: a seed gives
// the same shop on every machine and with every version of Go.
type random struct{ state uint64 }

const golden = 0x9e3779b97f4a7c15

func (r *random) next() uint64 {
	r.state += golden
	return scramble(r.state)
}

// below returns a uniform random number from 0 to n-1.
func (r *random) below(n int) int {
	high, _ := bits.Mul64(r.next(), uint64(n))
	return int(high)
}

// percent returns true with a probability of n percent.
func (r *random) percent(n int) bool { return r.below(100) < n }

// skewed returns a random number from 0 to n-1 with a power law: the share of the
// first k numbers is the cube root of k/n, so one percent of them gets a fifth.
func (r *random) skewed(n int) int {
	u := r.next()
	cube, _ := bits.Mul64(u, u)
	cube, _ = bits.Mul64(cube, u)
	high, _ := bits.Mul64(cube, uint64(n))
	return int(high)
}

// scramble is a bijective hash of 64 bits.
func scramble(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// facts returns constant random bits for an item of a shop. They decide the
// attributes of the item that never change.
func facts(seed uint64, kind, index int) uint64 {
	return scramble(scramble(seed+uint64(kind)*golden) + uint64(index)*golden)
}
