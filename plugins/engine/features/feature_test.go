package features

import (
	"encoding/binary"
	"math"
	"math/big"
	"strconv"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

func hashOf(i int) uint64 { return xxhash.Sum64String(strconv.Itoa(i)) }

// A sketch is exact until it is compacted with many values, then within four
// standard errors, and the same for every partition into merged sketches.
func TestSketchEstimateAndMerge(t *testing.T) {
	for _, n := range []int{0, 1, maxHashes, maxHashes + 1, 500, 5_000, 200_000} {
		var whole sketch
		var parts [3]sketch
		for i := range n {
			for range 2 {
				whole.add(hashOf(i))
				parts[i%3].add(hashOf(i))
			}
		}
		require.Equal(t, float64(n), whole.estimate(), "before compaction")
		whole.compact()
		for i := range parts {
			parts[i].compact()
		}
		merged := parts[0]
		merged.merge(&parts[1])
		merged.merge(&parts[2])
		merged.compact()
		require.Equal(t, whole.estimate(), merged.estimate(), "%d in parts", n)
		if n <= maxHashes {
			require.Equal(t, float64(n), whole.estimate())
		} else {
			require.InEpsilon(t, float64(n), whole.estimate(), 4*1.04/math.Sqrt(registerCount))
		}
		var read sketch
		rest, err := read.read(append(whole.append(nil), 42))
		require.NoError(t, err)
		require.Equal(t, []byte{42}, rest)
		require.Equal(t, whole.estimate(), read.estimate())
	}
}

// Decimals of up to six places are added exactly, for every partition into
// merged totals.
func TestTotalAddsDecimalsExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOf(rapid.StringMatching(`-?[0-9]{1,7}(\.[0-9]{1,6})?`)).Draw(t, "numbers")
		want := new(big.Rat)
		var whole, a, b total
		for i, text := range texts {
			exact, ok := new(big.Rat).SetString(text)
			require.True(t, ok)
			want.Add(want, exact)
			f, err := strconv.ParseFloat(text, 64)
			require.NoError(t, err)
			whole.add(f)
			if i%2 == 0 {
				a.add(f)
			} else {
				b.add(f)
			}
		}
		nearest, _ := want.Float64()
		require.Equal(t, nearest, whole.value())
		b.merge(a)
		require.Equal(t, nearest, b.value())
	})
}

func TestTotalOfFloatsIsWithinRounding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOf(rapid.Float64Range(-1e18, 1e18)).Draw(t, "numbers")
		want, size := new(big.Float).SetPrec(500), 1.0
		var sum total
		for _, f := range numbers {
			want.Add(want, new(big.Float).SetFloat64(f))
			size = max(size, math.Abs(f))
			sum.add(f)
		}
		exact, _ := want.Float64()
		require.InDelta(t, exact, sum.value(), size*1e-15*float64(len(numbers)+1))
	})
}

func TestStoredValueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := event.Value{Kind: event.Kind(rapid.IntRange(int(event.Missing), int(event.JSON)).Draw(t, "kind"))}
		switch v.Kind {
		case event.Number:
			v.Number = rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Int64Range(-1e9, 1e9), func(n int64) float64 { return float64(n) / 100 })).Draw(t, "number")
		case event.String, event.JSON:
			v.Text = rapid.SliceOfN(rapid.Byte(), 1, -1).Draw(t, "text")
		}
		got, rest, err := ReadValue(append(AppendValue(nil, v), 7))
		require.NoError(t, err)
		require.Equal(t, []byte{7}, rest)
		require.Equal(t, v, got)
	})
	require.Len(t, AppendValue(nil, number(1299.99)), 4, "money is short")
}

func TestBitsetRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfN(rapid.IntRange(0, 300), 1, 20).Draw(t, "members")
		var set bitset
		for _, i := range members {
			set = set.with(i)
		}
		stored := set.append(nil)
		again, rest, err := readBits(nil, append(stored, 9))
		require.NoError(t, err)
		require.Equal(t, []byte{9}, rest)
		for i := range 310 {
			require.Equal(t, set.has(i), again.has(i), "%d", i)
		}
	})
}

func TestHourOfWeek(t *testing.T) {
	require.Equal(t, 3*24, hourOfWeek(0), "1970 began on a Thursday")
	require.Equal(t, 4*24+1, hourOfWeek(25*millisPerHour))
	require.Equal(t, 3*24-1, hourOfWeek(-1))
}

// Tiles with hours of the former stored form are read at the precision of an hour.
func TestReadHoursOfTheFormerForm(t *testing.T) {
	former := binary.AppendUvarint([]byte{1}, uint64(partHoursOnly)) // one tile
	former = append(former, 3, 0, 0)                                 // count, first, span
	former = append(former, 2, 9, 1, 167, 2)                         // hours
	var tiles Tiles
	require.NoError(t, tiles.Read(former))
	require.Equal(t, partHours, tiles.list[0].parts)
	require.Equal(t, 1, tiles.list[0].quarters[4*9])
	require.Equal(t, 2, tiles.list[0].quarters[4*167])
	require.NoError(t, new(Tiles).Read(tiles.Append(nil)))
}

// FuzzTiles: every input that is accepted as tiles can be encoded, decoded,
// evaluated and merged.
func FuzzTiles(f *testing.F) {
	specs := []Spec{{Name: "a", Kind: Stddev, ValuePath: "properties.x", GroupPath: "properties.y"}, {Name: "b", Kind: DecayedSum, HalfLife: 1e15}, {Name: "c", Kind: DistinctCount, ValuePath: "properties.x"}}
	def, err := New(specs, nil)
	if err != nil {
		f.Fatal(err)
	}
	for i := range def.Series {
		var tiles Tiles
		for n := range int64(100) {
			tiles.Fold(&def.Series[i], []Occurrence{{Time: n * 1e7, First: number(float64(n)), Second: event.Value{Kind: event.String, Text: []byte{'g', byte('0' + n%3)}}}})
		}
		tiles.Compact(&def.Series[i], 1e9)
		f.Add(tiles.Append(nil))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var tiles, again Tiles
		if tiles.Read(src) != nil {
			return
		}
		require.NoError(t, again.Read(tiles.Append(nil)))
		for i := range def.Features {
			var e Evaluator
			e.Evaluate(&def.Features[i], &State{Tiles: tiles}, Moment{AsOf: 1e12})
		}
		other := &def.Series[0]
		tiles.Merge(other, &again)
		tiles.Compact(other, 1e12)
	})
}
