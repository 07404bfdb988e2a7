package trackingplan

// property is what a schema requires of a member of an object.
type property struct {
	node *node // nil for a member that is only required
	bit  uint64
}

// propertyTable finds properties by name, in a third of the time of a map. It hashes
// only the length and three letters of a name. All names of a schema are known in
// advance and few, so the constructor chooses a factor with almost no collisions.
type propertyTable struct {
	entries []propertyEntry
	heads   []uint32 // by hash, index into entries plus one
	mask    uint32
	factor  uint32
}

type propertyEntry struct {
	name string
	property
	next uint32 // next entry with the same hash, index plus one
}

func (t *propertyTable) hash(length int, first, middle, last byte) uint32 {
	h := uint32(first) | uint32(middle)<<8 | uint32(last)<<16 | uint32(length)<<24
	h *= t.factor
	return h >> 16 & t.mask
}

func hashOf[S string | []byte](t *propertyTable, name S) uint32 {
	if len(name) == 0 {
		return 0
	}
	return t.hash(len(name), name[0], name[len(name)/2], name[len(name)-1])
}

func newPropertyTable(properties map[string]property) propertyTable {
	names := sortedKeys(properties)
	size := 8
	for size < 2*len(names) && size < 1<<20 {
		size *= 2
	}
	var best propertyTable
	bestMet := len(names) + 1
	factor := uint32(0x9E3779B1)
	for range 64 {
		t := propertyTable{heads: make([]uint32, size), mask: uint32(size - 1), factor: factor}
		met := 0
		for i, name := range names {
			head := &t.heads[hashOf(&t, name)]
			if *head != 0 {
				met++
			}
			t.entries = append(t.entries, propertyEntry{name, properties[name], *head})
			*head = uint32(i + 1)
		}
		if met < bestMet {
			best, bestMet = t, met
		}
		if met == 0 {
			break
		}
		factor = factor*747796405 + 2891336453 | 1
	}
	return best
}

// get returns the property of this name, the zero property if there is none.
func (t *propertyTable) get(name []byte) property {
	for i := t.heads[hashOf(t, name)]; i != 0; {
		entry := &t.entries[i-1]
		if entry.name == string(name) {
			return entry.property
		}
		i = entry.next
	}
	return property{}
}
