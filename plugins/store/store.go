// Package store defines the contract of a profile store and the types that its
// implementations share. A store keeps versioned bytes; package record defines
// their content.
//
// # The contract
//
// A store maps keys to records and keeps ordered secondary indexes. A record has
// data and a version, which is a hash of the data (see VersionOf). An index entry
// is a pair (value, key), ordered by value and then by key. Keys, values, index
// names and data are arbitrary bytes; a key is not empty.
//
// All writes are conditional (optimistic concurrency). A change names the version
// that the writer loaded, and the store applies it only if the record still has
// that version:
//
//	records, err := s.Load(ctx, []string{"c-1"})
//	conflicts, err := s.Commit(ctx, []store.Change{{
//		Key:     "c-1",
//		Version: records[0].Version, // store.Absent for a new record
//		Data:    update(records[0].Data),
//		Index:   []store.IndexEdit{{Index: "email", Value: "a@example.com"}},
//	}})
//	// conflicts == []int{0}: another writer was faster. Load, update, commit again.
//
// The rules that every implementation follows:
//
//   - Atomicity: a change and its index edits are applied completely or not at all.
//     The changes of one Commit are independent of each other.
//   - Durability: when Commit returns without an error, all applied changes are
//     durable, as far as the settings of the store guarantee it.
//   - Durability barrier: a Load may return data that another Commit has not yet
//     made durable. An empty Commit returns once every write this process may have
//     read is durable. Call it before acknowledging an input that caused no change.
//   - Unknown outcome: after an error other than *ChangeError, each change may or
//     may not have been applied. Load again and retry: an applied change appears as
//     a new version, so the retry cannot apply it twice.
//   - Absence is a result, never an error in disguise: a zero Record means that the
//     store answered and has no such record.
//
// The implementations are in the packages below this one. All of them pass the
// suite in package storetest. A store may also implement the optional interfaces
// ReplicaReader and Watcher.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Store is a profile store. It is safe for concurrent use by many goroutines and,
// if the implementation is a server, by many processes. The package comment has
// the whole contract.
type Store interface {
	// Load reads the records of keys in one round trip. The result has one Record
	// per key, in the order of keys, and the zero Record for a key without a record.
	// The caller owns the returned Data. Records of one call may share an
	// allocation: copy a record that outlives the others.
	Load(ctx context.Context, keys []string) ([]Record, error)

	// Commit applies changes in one round trip and returns the positions of the
	// changes that conflicted, in increasing order. A key may occur only once. A
	// *ChangeError means that one change is unacceptable and none was applied.
	// An empty Commit is a durability barrier. Commit retains no reference to changes.
	Commit(ctx context.Context, changes []Change) (conflicts []int, err error)

	// ScanIndex returns at most limit entries of an index in order of (Value, Key)
	// with from <= Value < to, beginning with the first entry behind after. An empty
	// to means no upper bound. Begin with the zero IndexEntry and continue with the
	// last entry of the page; an empty page is the end. Deleting a record requires
	// the edits that remove its entries. An entry without a record may disappear.
	ScanIndex(ctx context.Context, index, from, to string, after IndexEntry, limit int) ([]IndexEntry, error)

	// Lookup returns, for each of values, the first keys (at most limit) that an
	// index has under that value, in one round trip and in the order of values. Keys
	// without a record are left out.
	Lookup(ctx context.Context, index string, values []string, limit int) ([][]string, error)

	// CountIndex returns the number of entries of an index with from <= Value < to.
	// An empty to means no upper bound. The count includes entries whose record
	// expired, until a ScanIndex removes them; otherwise it is exact.
	CountIndex(ctx context.Context, index, from, to string) (int64, error)

	// Scan lists records in an order of the implementation. A record that exists
	// during the whole scan is listed at least once; a server that rehashes its
	// table may list it again. Begin with an empty cursor; an empty next cursor is
	// the end. A page holds about limit records and may be empty before the end.
	Scan(ctx context.Context, cursor string, limit int) (page []Entry, next string, err error)

	// Ping returns an error if the store cannot serve requests now.
	Ping(ctx context.Context) error

	// Close releases the store. Later calls return ErrClosed.
	Close() error
}

// ReplicaReader is a store that can read from replicas.
type ReplicaReader interface {
	// LoadReplica reads like Load, from replicas if the options of the store enable
	// that. The result may lag behind the primary: use it for answers, not for
	// conditional writes.
	LoadReplica(ctx context.Context, keys []string) ([]Record, error)
}

// Watcher is a store that reports changes made by other processes. A store without
// this interface has no other writers.
type Watcher interface {
	// Watch reports changed records to cache until ctx ends. While it receives
	// notifications from all servers it extends cache's validity up to maxStaleness
	// ahead; otherwise it lets the validity end and retries with backoff. It calls
	// report with the cause when watching fails and with nil when it works again.
	Watch(ctx context.Context, maxStaleness time.Duration, cache Invalidator, report func(error))
}

// Invalidator is a cache of records that a Watcher keeps up to date.
type Invalidator interface {
	// Invalidate evicts the record of a key, which may have changed.
	Invalidate(key string)
	// InvalidateAll evicts all records: any of them may have changed.
	InvalidateAll()
	// ValidUntil sets the time until which cached records may be served. The zero
	// time disables the cache.
	ValidUntil(t time.Time)
}

// Version identifies the content of a record: equal data has an equal version.
type Version uint64

// Absent is the version of a key that has no record.
const Absent Version = 0

// VersionOf returns the version of a record with this data; nil data means no
// record. All stores use it, so a writer knows the version of its record without
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

// Record is a stored value and its version, which a Change must name.
type Record struct {
	Data    []byte
	Version Version
}

// Entry is a record with its key.
type Entry struct {
	Key string
	Record
}

// Change replaces the record of Key with Data, or deletes it if Data is nil,
// provided that its version is still Version.
type Change struct {
	Key     string
	Version Version
	Data    []byte
	Index   []IndexEdit

	// Purge requests that the previous content of the record and of the removed index
	// entries is also removed from the files of the store, soon after the commit. It is
	// for erasures. A store without files of its own ignores it.
	Purge bool
}

// IndexEdit adds or removes the entry (Index, Value, key of the change).
// Adding an existing entry or removing a missing one is not an error.
type IndexEdit struct {
	Index  string
	Value  string
	Remove bool
}

// IndexEntry is one element of an index.
type IndexEntry struct {
	Value string
	Key   string
}

var (
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("profile store is closed")
	// ErrTooLarge marks a record that exceeds the size limit of the store.
	ErrTooLarge = errors.New("record is over the size limit")
	// ErrScanRestart is returned by Scan if records moved between servers since the
	// scan began, so that it could miss some. Restart the scan.
	ErrScanRestart = errors.New("records moved during the scan: restart it")
	// ErrDuplicateKey marks a second change of the same key in one Commit.
	ErrDuplicateKey = errors.New("key occurs twice in one commit")
	// ErrEmptyKey marks a change without a key.
	ErrEmptyKey = errors.New("key is empty")
)

// ChangeError identifies the change because of which Commit rejected all changes.
// Nothing was applied: the caller can remove the change and commit the others.
type ChangeError struct {
	Position int
	Err      error // ErrTooLarge, ErrDuplicateKey or ErrEmptyKey
}

func (e *ChangeError) Error() string {
	return fmt.Sprintf("change %d of the commit: %v", e.Position, e.Err)
}

func (e *ChangeError) Unwrap() error { return e.Err }

// CheckChanges returns a *ChangeError for the first unacceptable change: one with an
// empty key, with a key that occurred before, or with more than maxBytes of data if
// maxBytes is positive. Implementations call it first in Commit.
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
