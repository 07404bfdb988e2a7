package features

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// A sketch counts distinct values in bounded memory.
//
// It stores the 64-bit hash of each value, so that the count is exact, until
// compact finds more than maxHashes of them. From then on it is a HyperLogLog
// (Flajolet et al. 2007, with linear counting for small counts): the first 9
// bits of a hash select one of 512 registers, and the register keeps the largest
// rank (position of the first 1 bit) among the other bits.
//
// Example: hash 000000011|0001... has register 3 and rank 4. A rank of 4 occurs
// for one value in 16, so large ranks in many registers mean many values.
//
// Sketches merge without error: the union of two sets has, per register, the
// larger of the two ranks. The result does not depend on the order of values or
// on the partition of them into sketches.
type sketch struct {
	hashes []uint64
	// registers is nil while the count is exact.
	registers []uint8
}

const (
	// maxHashes hashes of 8 bytes are as large as the registers.
	maxHashes = 48
	// precision is the number of bits that select a register: 2^precision
	// registers have a standard error of 1.04/sqrt(2^precision), 4.6%.
	precision     = 9
	registerCount = 1 << precision
	maxRank       = 64 - precision + 1
	// registerBits is the stored size of a rank.
	registerBits  = 6
	registerBytes = registerCount * registerBits / 8
)

func (s *sketch) reset() { s.hashes, s.registers = s.hashes[:0], nil }

func (s *sketch) add(hash uint64) {
	if s.registers != nil {
		s.register(hash)
		return
	}
	s.hashes = append(s.hashes, hash)
}

// compact bounds the memory of the sketch to maxHashes hashes or the registers.
func (s *sketch) compact() {
	s.sort()
	if len(s.hashes) > maxHashes {
		s.toRegisters()
	}
}

func (s *sketch) sort() {
	slices.Sort(s.hashes)
	s.hashes = slices.Compact(s.hashes)
}

func (s *sketch) toRegisters() {
	s.registers = make([]uint8, registerCount)
	for _, h := range s.hashes {
		s.register(h)
	}
	s.hashes = s.hashes[:0]
}

func (s *sketch) register(hash uint64) {
	index := hash >> (64 - precision)
	rank := uint8(bits.LeadingZeros64(hash<<precision|1<<(precision-1)) + 1)
	s.registers[index] = max(s.registers[index], rank)
}

func (s *sketch) merge(o *sketch) {
	if o.registers != nil && s.registers == nil {
		s.toRegisters()
	}
	for _, h := range o.hashes {
		s.add(h)
	}
	for i, r := range o.registers {
		s.registers[i] = max(s.registers[i], r)
	}
}

func (s *sketch) estimate() float64 {
	if s.registers == nil {
		s.sort()
		return float64(len(s.hashes))
	}
	const m = float64(registerCount)
	sum, zeros := 0.0, 0
	for _, r := range s.registers {
		sum += math.Ldexp(1, -int(r))
		if r == 0 {
			zeros++
		}
	}
	estimate := 0.7213 / (1 + 1.079/m) * m * m / sum
	if estimate <= 2.5*m && zeros > 0 {
		estimate = m * math.Log(m/float64(zeros))
	}
	return math.Round(estimate)
}

// append encodes a compacted sketch: twice the number of hashes and the sorted
// hashes, or 1 and the registers, six bits each.
func (s *sketch) append(dst []byte) []byte {
	if s.registers == nil {
		dst = binary.AppendUvarint(dst, uint64(len(s.hashes))<<1)
		for _, h := range s.hashes {
			dst = binary.LittleEndian.AppendUint64(dst, h)
		}
		return dst
	}
	dst = append(dst, 1)
	for i := 0; i < registerCount; i += 4 {
		r := s.registers[i : i+4]
		packed := uint32(r[0]) | uint32(r[1])<<6 | uint32(r[2])<<12 | uint32(r[3])<<18
		dst = append(dst, byte(packed), byte(packed>>8), byte(packed>>16))
	}
	return dst
}

func (s *sketch) read(src []byte) ([]byte, error) {
	s.reset()
	head, width := binary.Uvarint(src)
	if width <= 0 {
		return nil, ErrCorrupt
	}
	src = src[width:]
	if head == 1 {
		if len(src) < registerBytes {
			return nil, ErrCorrupt
		}
		s.registers = make([]uint8, registerCount)
		for i := range registerCount / 4 {
			packed := uint32(src[3*i]) | uint32(src[3*i+1])<<8 | uint32(src[3*i+2])<<16
			for j := range 4 {
				r := uint8(packed>>(6*j)) & (1<<registerBits - 1)
				if r > maxRank {
					return nil, ErrCorrupt
				}
				s.registers[4*i+j] = r
			}
		}
		return src[registerBytes:], nil
	}
	n := head >> 1
	if head&1 != 0 || n > maxHashes || uint64(len(src)) < 8*n {
		return nil, ErrCorrupt
	}
	for i := range n {
		h := binary.LittleEndian.Uint64(src[8*i:])
		if i > 0 && h <= s.hashes[i-1] {
			return nil, ErrCorrupt
		}
		s.hashes = append(s.hashes, h)
	}
	return src[8*n:], nil
}
