package embedded

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Memory is the path of a store that keeps everything in memory and forgets
// it when closed.
const Memory = ":memory:"

// Options say where a store is and how much it may use. The zero value of a
// field is its default.
type Options struct {
	// Path is the directory of the store, made if it does not exist, or Memory.
	Path string

	// CacheBytes is the memory for blocks read from disk (default 64 MiB).
	// Raise it towards the size of the data if reads wait for the disk.
	CacheBytes int64

	// RecordCacheBytes is the memory for records lately read or written
	// (default 64 MiB). It serves busy customers without asking the engine.
	RecordCacheBytes int64

	// MemTableBytes is how much is collected in memory before it is written as
	// a table (default 32 MiB). More means fewer and larger tables, less
	// rewriting, and a longer recovery after a kill: everything in memory is
	// also in the log, which is read when the store opens. The store uses up to
	// CacheBytes + RecordCacheBytes + 3 * MemTableBytes, and some MiB besides.
	MemTableBytes uint64

	// MaxRecordBytes is the size limit of one record (default 16 MiB).
	MaxRecordBytes int

	// MinFreeBytes is the disk space kept free (default 256 MiB). With less,
	// Commit refuses with ErrDiskFull until space is freed; reads go on.
	MinFreeBytes uint64

	// Logger hears of trouble in the background; nil is silence.
	Logger Logger

	// fs is where the files are; tests replace it.
	fs vfs.FS
}

// Logger is the part of a Connect logger the store uses.
type Logger interface {
	Debugf(format string, args ...any)
	Errorf(format string, args ...any)
}

const (
	defaultCacheBytes       = 64 << 20
	defaultRecordCacheBytes = 64 << 20
	defaultMemTableBytes    = 64 << 20
	defaultMaxRecordBytes   = 16 << 20
	defaultMinFreeBytes     = 256 << 20

	minMemTableBytes = 1 << 20
	maxMemTableBytes = 1 << 30
	maxRecordBytes   = 256 << 20
)

func (o Options) withDefaults() (Options, error) {
	if o.Path == "" {
		return o, errors.New("embedded profile store: the path is empty; give a directory, or " + Memory + " to keep nothing")
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.RecordCacheBytes == 0 {
		o.RecordCacheBytes = defaultRecordCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = defaultMemTableBytes
	}
	if o.MaxRecordBytes == 0 {
		o.MaxRecordBytes = defaultMaxRecordBytes
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFreeBytes
	}
	if o.Logger == nil {
		o.Logger = silence{}
	}
	switch {
	case o.CacheBytes < 0 || o.RecordCacheBytes < 0:
		return o, fmt.Errorf("embedded profile store: caches of %d and %d bytes: give a size that is not negative", o.CacheBytes, o.RecordCacheBytes)
	case o.MemTableBytes < minMemTableBytes || o.MemTableBytes > maxMemTableBytes:
		return o, fmt.Errorf("embedded profile store: a memtable of %d bytes is not between 1 MiB and 1 GiB", o.MemTableBytes)
	case o.MaxRecordBytes < 0 || o.MaxRecordBytes > maxRecordBytes:
		return o, fmt.Errorf("embedded profile store: a record limit of %d bytes is not between 1 byte and 256 MiB", o.MaxRecordBytes)
	}
	return o, nil
}

type silence struct{}

func (silence) Debugf(string, ...any) {}
func (silence) Errorf(string, ...any) {}
