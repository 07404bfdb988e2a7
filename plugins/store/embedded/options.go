package embedded

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Memory is the path of a store that keeps everything in memory and loses it when it is
// closed.
const Memory = ":memory:"

// Options configure the location of a store and its resources. The zero value of a
// field means its default.
type Options struct {
	// Path is the directory of the store, which is created if it does not exist, or
	// Memory.
	Path string

	// CacheBytes is the memory for blocks read from disk (default 64 MiB). Raise it
	// towards the size of the data if reads wait for the disk.
	CacheBytes int64

	// RecordCacheBytes is the memory for recently read or written records (default 64
	// MiB). Records of active customers are served from it without the engine.
	RecordCacheBytes int64

	// MemTableBytes is the amount of data collected in memory before it is written as a
	// table (default 64 MiB). A larger value means fewer and larger tables, less
	// rewriting, and a longer recovery after a kill, because all data in memory is also
	// in the log, which is replayed when the store opens. The store uses up to
	// CacheBytes + RecordCacheBytes + 3 * MemTableBytes and some MiB more.
	MemTableBytes uint64

	// MaxRecordBytes is the size limit of one record (default 16 MiB).
	MaxRecordBytes int

	// MinFreeBytes is the disk space to keep free (default 256 MiB). With less free
	// space Commit returns ErrDiskFull; reads continue.
	MinFreeBytes uint64

	// PurgeDelay is the time from an erasure until the store begins to remove the erased
	// content from its files (default 10 minutes). Erasures in between share the work,
	// which rewrites all index entries and the tables with the erased records.
	PurgeDelay time.Duration

	// Logger receives background errors. nil discards them.
	Logger Logger

	// fs is the file system. Tests replace it.
	fs vfs.FS
}

// Logger is the part of a Connect logger that the store uses.
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
	defaultPurgeDelay       = 10 * time.Minute

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
	if o.PurgeDelay == 0 {
		o.PurgeDelay = defaultPurgeDelay
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
