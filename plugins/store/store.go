// Package store defines where customer records live. It knows bytes and
// versions only: what a record means is the business of package profile.
//
// Implementations are in the packages below this one; all of them pass the
// suite in storetest.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Store keeps one record per key and ordered secondary indexes that point at
// keys. It is safe for concurrent use, by many goroutines and, where the
// implementation is a server, by many processes. Keys, values, index names and
// data are any bytes; a key is not empty.
type Store interface {
	// Load reads the records of keys in one round trip. The result has one
	// Record per key, in the order of keys; a key with no record gives the
	// zero Record. The returned Data belongs to the caller; the records of one
	// call may share an allocation, so a caller that keeps one of many for long
	// should copy it.
	Load(ctx context.Context, keys []string) ([]Record, error)

	// Commit applies changes in one round trip. A change is applied only if
	// the record still has the Version it was loaded with, and is applied
	// whole, its index edits included, or not at all. Changes are independent
	// of each other, so a key may occur only once. The positions of the changes
	// that lost a race are returned in increasing order: load them again and
	// retry.
	//
	// When Commit returns without an error everything not listed as a
	// conflict is durable, as far as the store's own settings promise. A
	// *ChangeError means that nothing was applied because one change is not
	// acceptable. After any other error any subset of the changes may have been
	// applied, each whole: load again and retry, so that what was applied shows
	// as a new version and is not applied twice. Commit keeps no reference to
	// changes.
	//
	// A Load may show what another Commit has under way. Who finds there is
	// nothing to change commits nothing, but commits: a Commit without changes
	// returns once what this process may have seen is as durable as its own.
	Commit(ctx context.Context, changes []Change) (conflicts []int, err error)

	// ScanIndex lists entries of an index in order of (Value, Key), from the
	// first entry after the given one and with from <= Value < to (an empty to
	// means no upper bound), at most limit of them. The zero IndexEntry as
	// after starts at the beginning, the last entry of a page continues it, and
	// an empty page is the end. Entries belong to records: a change that deletes
	// a record removes its entries too, and one without a record may vanish.
	ScanIndex(ctx context.Context, index, from, to string, after IndexEntry, limit int) ([]IndexEntry, error)

	// Lookup returns the keys that an index has under each of values, in the
	// order of values, in one round trip: of each at most limit of its keys,
	// which are the first in order. A key without a record is not among them.
	Lookup(ctx context.Context, index string, values []string, limit int) ([][]string, error)

	// CountIndex returns how many entries of an index have from <= Value < to
	// (an empty to means no upper bound). It is exact but for entries whose
	// record vanished by itself, which count until a ScanIndex meets them.
	CountIndex(ctx context.Context, index, from, to string) (int64, error)

	// Scan lists records, each at least once if it exists throughout the scan;
	// a server that rearranges its table meanwhile may list one again. Start
	// with an empty cursor; the scan is complete when the returned cursor is
	// empty. A page holds about limit records, and may be empty before the end.
	// The order is the implementation's own.
	Scan(ctx context.Context, cursor string, limit int) (page []Entry, next string, err error)

	// Ping tells whether the store can serve requests now.
	Ping(ctx context.Context) error

	// Close releases the store. Further calls return ErrClosed.
	Close() error
}

// Watcher is told of changes by a store that knows of those that others make.
type Watcher interface {
	// Changed tells that the record of a key may have changed.
	Changed(key string)
	// Reset tells that any record may have changed.
	Reset()
	// Fresh tells that what was read and not reported since is as it was in the
	// store a moment ago, and for how long that may be relied on.
	Fresh(until time.Time)
}

// Version identifies the content of a record: equal data, equal version.
// Absent is the version of a record that does not exist.
type Version uint64

// Absent is the version of a key that has no record.
const Absent Version = 0

// VersionOf gives the version of a record with this data, nil being no record.
// Every store uses it, so the writer of a record knows its version without
// loading it again.
func VersionOf(data []byte) Version {
	if data == nil {
		return Absent
	}
	if h := xxhash.Sum64(data); h != 0 {
		return Version(h)
	}
	return 1
}

// Record is a stored value and the version to present when changing it.
type Record struct {
	Data    []byte
	Version Version
}

// Entry is a record with its key.
type Entry struct {
	Key string
	Record
}

// Change replaces the record of Key by Data, or deletes it when Data is nil,
// if its version is still Version.
type Change struct {
	Key     string
	Version Version
	Data    []byte
	Index   []IndexEdit
}

// IndexEdit adds or removes the entry (Index, Value, key of the change).
// Adding an entry that exists and removing one that does not are no errors.
type IndexEdit struct {
	Index  string
	Value  string
	Remove bool
}

// IndexEntry is one element of an index: Key has Value.
type IndexEntry struct {
	Value string
	Key   string
}

var (
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("profile store is closed")
	// ErrTooLarge marks a record over the store's size limit.
	ErrTooLarge = errors.New("record is over the size limit")
	// ErrScanRestart is returned by Scan when records were moved between
	// servers since it began, so that some might be missed. Begin it anew.
	ErrScanRestart = errors.New("records moved during the scan: begin it anew")
	// ErrDuplicateKey marks a second change of one key in one Commit.
	ErrDuplicateKey = errors.New("key occurs twice in one commit")
	// ErrEmptyKey marks a change without a key.
	ErrEmptyKey = errors.New("key is empty")
)

// ChangeError says which change made Commit refuse all of them. Nothing was
// applied: the caller can take the change out and commit the others.
type ChangeError struct {
	Position int
	Err      error // ErrTooLarge, ErrDuplicateKey or ErrEmptyKey
}

func (e *ChangeError) Error() string {
	return fmt.Sprintf("change %d of the commit: %v", e.Position, e.Err)
}

func (e *ChangeError) Unwrap() error { return e.Err }

// CheckChanges gives a *ChangeError for the first change that no store
// accepts: one without a key, with a key seen before, or with data over
// maxBytes if that is positive. Implementations call it first in Commit.
func CheckChanges(changes []Change, maxBytes int) error {
	for i := range changes {
		c := &changes[i]
		switch {
		case c.Key == "":
			return &ChangeError{i, ErrEmptyKey}
		case maxBytes > 0 && len(c.Data) > maxBytes:
			return &ChangeError{i, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(c.Data), maxBytes)}
		}
	}
	if len(changes) < 2 {
		return nil
	}
	seen := make(map[string]struct{}, len(changes))
	for i := range changes {
		if _, ok := seen[changes[i].Key]; ok {
			return &ChangeError{i, ErrDuplicateKey}
		}
		seen[changes[i].Key] = struct{}{}
	}
	return nil
}
