package embedded

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

// The first byte of an engine key identifies the key space:
//
//	'f'                                           the format of the store
//	'i' escape(index) escape(value) key           an index entry, without data
//	'p'                                           a purge is requested, see purge.go
//	'r' key                                       a record
//
// escape keeps the order of arbitrary byte strings and marks their end: a zero byte
// becomes 00 FF and the end is 00 01. So a string sorts before every longer string that
// begins with it, and no byte inside it can be mistaken for the end. For example, the
// entry email = a@x of customer c-1 is 'i' "email" 00 01 "a@x" 00 01 "c-1".
const (
	formatSpace = 'f'
	indexSpace  = 'i'
	purgeSpace  = 'p'
	recordSpace = 'r'
)

// recordLimit is the first engine key after all records.
var recordLimit = []byte{recordSpace + 1}

func appendRecordKey(dst []byte, key string) []byte {
	return append(append(dst, recordSpace), key...)
}

func appendIndexKey(dst []byte, index, value, key string) []byte {
	return append(appendIndexValue(dst, index, value), key...)
}

// appendIndexValue appends the prefix of all entries with a value.
func appendIndexValue(dst []byte, index, value string) []byte {
	return appendEscaped(appendIndex(dst, index), value)
}

// appendIndex appends the prefix of all entries of an index.
func appendIndex(dst []byte, index string) []byte {
	return appendEscaped(append(dst, indexSpace), index)
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

// indexBounds returns the prefix of all entries of an index, and the bounds of those
// with from <= value < to. An empty to means no upper bound.
func indexBounds(index, from, to string) (prefix, lower, upper []byte) {
	prefix = appendIndex(nil, index)
	lower, upper = appendIndexValue(nil, index, from), prefixEnd(prefix)
	if to != "" {
		upper = appendIndexValue(nil, index, to)
	}
	return prefix, lower, upper
}

// indexEntry decodes the part after the index name in the engine key of an entry.
func indexEntry(b []byte) (store.IndexEntry, error) {
	var value []byte
	for {
		i := bytes.IndexByte(b, 0x00)
		if i < 0 || i+1 >= len(b) {
			return store.IndexEntry{}, fmt.Errorf("an index key of %d bytes has no end of its value", len(b))
		}
		value = append(value, b[:i]...)
		mark := b[i+1]
		b = b[i+2:]
		switch mark {
		case 0xff:
			value = append(value, 0x00)
		case 0x01:
			return store.IndexEntry{Value: string(value), Key: string(b)}, nil
		default:
			return store.IndexEntry{}, fmt.Errorf("an index key has an unknown escape %#x", mark)
		}
	}
}

// prefixEnd returns the first key after all keys with the prefix. The prefixes in this
// package never end in 0xff.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// A cursor is the last key of the previous page in a printable form.
func encodeCursor(key []byte) string {
	return base64.RawURLEncoding.EncodeToString(key)
}

func decodeCursor(cursor string) ([]byte, error) {
	key, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, fmt.Errorf("the cursor is not one of this store: %w", err)
	}
	return key, nil
}
