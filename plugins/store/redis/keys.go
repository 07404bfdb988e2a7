package redis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// The keys of a store:
//
//	PREFIX:p:{TAG}KEY     a record: its version in 8 bytes, then its data
//	PREFIX:i:{TAG}INDEX   the part of an index in one shard: a sorted set in which
//	                      every score is 0, so that members are in byte order.
//	                      A member is escape(value) key
//	PREFIX:w:{TAG}        an empty value, written in order to wait for replicas
//	PREFIX:layout         the version of the layout and the number of shards
//
// Redis Cluster places a key by the text in its first braces, the hash tag. The tag of
// a shard is the smallest number with a slot in the range of the shard. A record
// and its index entries have the same tag, so a script can change them atomically. For
// example, in a store with one shard (tag 0) the customer c-1 with the index entry
// email = a@example.com is
//
//	profiles:p:{0}c-1      <8 bytes version><record>
//	profiles:i:{0}email    { "a@example.com" 00 01 "c-1" }
//
// escape is the same as in the embedded store: a zero byte becomes 00 FF, and the end
// is 00 01. It keeps the order of arbitrary byte strings.

// slots is the number of slots of a Redis Cluster.
const slots = 16384

// layout is the version of the layout above.
const layout = 1

type keyspace struct {
	prefix string
	tags   []string // by shard
}

func newKeyspace(prefix string, shards int) keyspace {
	return keyspace{prefix: prefix, tags: shardTags(shards)}
}

// shardTags returns, for each of n equal ranges of slots, the smallest number with a
// slot in the range.
func shardTags(n int) []string {
	tags := make([]string, n)
	for missing, i := n, 0; missing > 0; i++ {
		tag := strconv.Itoa(i)
		shard := int(slotOf(tag)) * n / slots
		if tags[shard] == "" {
			tags[shard] = tag
			missing--
		}
	}
	return tags
}

// slotOf returns the slot of a hash tag: its CRC-16 (XMODEM) modulo the number of
// slots.
func slotOf(tag string) uint16 {
	var crc uint16
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % slots
}

func (k keyspace) shard(key string) int {
	return int(xxhash.Sum64String(key) % uint64(len(k.tags)))
}

func (k keyspace) record(shard int, key string) string {
	return k.prefix + ":p:{" + k.tags[shard] + "}" + key
}

func (k keyspace) index(shard int, index string) string {
	return k.prefix + ":i:{" + k.tags[shard] + "}" + index
}

func (k keyspace) barrier(shard int) string {
	return k.prefix + ":w:{" + k.tags[shard] + "}"
}

func (k keyspace) layout() string { return k.prefix + ":layout" }

// recordPattern matches the records of the store. It may also match other keys that
// begin alike.
func (k keyspace) recordPattern() string {
	escaped := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(k.prefix)
	return escaped + ":p:{*"
}

// recordKey is the inverse of record.
func (k keyspace) recordKey(s string) (key string, ok bool) {
	s, ok = strings.CutPrefix(s, k.prefix+":p:{")
	if !ok {
		return "", false
	}
	tag, key, ok := strings.Cut(s, "}")
	return key, ok && key != "" && tag == k.tags[k.shard(key)]
}

func appendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		if s[i] == 0x00 {
			dst = append(dst, 0x00, 0xff)
		} else {
			dst = append(dst, s[i])
		}
	}
	return append(dst, 0x00, 0x01)
}

func member(value, key string) string {
	return string(append(appendEscaped(make([]byte, 0, len(value)+len(key)+4), value), key...))
}

// memberEntry is the inverse of member.
func memberEntry(m string) (store.IndexEntry, error) {
	var value strings.Builder
	for {
		i := strings.IndexByte(m, 0x00)
		if i < 0 || i+1 >= len(m) {
			return store.IndexEntry{}, fmt.Errorf("an index member of %d bytes has no end of its value", len(m))
		}
		value.WriteString(m[:i])
		mark := m[i+1]
		m = m[i+2:]
		switch mark {
		case 0xff:
			value.WriteByte(0x00)
		case 0x01:
			return store.IndexEntry{Value: value.String(), Key: m}, nil
		default:
			return store.IndexEntry{}, fmt.Errorf("an index member has an unknown escape %#x", mark)
		}
	}
}

// group groups the positions of n keys by shard. The positions of a group are in
// increasing order.
func (k keyspace) group(n int, key func(int) string) (groups [][]int) {
	order := make([]uint64, n) // the shard in the upper half, the position in the lower half
	for i := range n {
		order[i] = uint64(k.shard(key(i)))<<32 | uint64(i)
	}
	slices.Sort(order)
	positions := make([]int, n)
	start := 0
	for i, o := range order {
		positions[i] = int(uint32(o))
		if i+1 == n || order[i+1]>>32 != o>>32 {
			groups = append(groups, positions[start:i+1])
			start = i + 1
		}
	}
	return groups
}
