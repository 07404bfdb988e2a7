// Package embedded stores profiles in a directory on the local disk, for one process.
// It needs no service and no repair: a Commit returns when its log record is synced,
// and opening the store after a kill or a power failure replays the log.
//
// The storage engine is pebble; docs/architecture.md compares it with alternatives.
//
// # How a Commit works
//
// One goroutine, the committer, is the only writer. It alone compares versions, so two
// commits of one key cannot both succeed. The calling goroutine waits for the disk, so
// concurrent commits share a sync:
//
//	caller A   encode → committer checks versions, applies to memory → wait for the sync → return
//	caller B     encode → committer checks, applies → wait for the same sync → return
//
// A change is visible to Load as soon as it is applied, before it is durable. An empty
// Commit goes through the committer too and waits for the sync of the last batch before
// it, and so for everything that a Load may have returned (durability barrier).
//
// If writing the log or the manifest fails, it is unknown how much reached the disk.
// The store then halts (halt.go): all calls return ErrFailed, and a restart recovers
// everything that was acknowledged.
package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/connect-personalize/connect-personalize/plugins/store"
)

var (
	// ErrInUse is returned by Open if another process, or another store of this
	// process, has opened the path.
	ErrInUse = errors.New("profile store is in use")
	// ErrDiskFull is returned by Commit while the disk is full or has less than
	// Options.MinFreeBytes free. Free space and try again.
	ErrDiskFull = errors.New("profile store's disk is full")
	// ErrFailed is returned by every method after a failed write with an unknown effect on the
	// disk is unknown. Restart the process, which recovers everything that was
	// acknowledged.
	ErrFailed = errors.New("profile store failed to write and must be restarted")
)

// Store implements store.Store on the local disk.
type Store struct {
	opts Options
	*engine

	cache  *recordCache
	purger *purger

	// closeMu is held for reading by every call and for writing by Close.
	closeMu sync.RWMutex
	closed  bool

	// batches go to the committer. It ends when batches is closed, and then closes
	// committed.
	batches   chan *batch
	committed chan struct{}

	recordAvg atomic.Int64 // moving average of the bytes of a loaded record

	freeChecked atomic.Int64 // unix nanoseconds
	freeBytes   atomic.Uint64
}

var _ store.Store = (*Store)(nil)

// Open opens the store at o.Path and creates it if it does not exist.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, cache: newRecordCache(o.RecordCacheBytes), purger: newPurger(), batches: make(chan *batch), committed: make(chan struct{})}
	s.recordAvg.Store(512)
	if s.engine, err = openEngine(o); err != nil {
		return nil, err
	}
	s.freeBytes.Store(s.free())
	s.freeChecked.Store(time.Now().UnixNano())
	if err := s.resumePurge(); err != nil {
		return nil, errors.Join(s.readError(err), s.db.Close(), s.lock.Close())
	}
	go s.runCommitter()
	ctx, stop := context.WithCancel(context.Background())
	s.purger.stop = stop
	go s.runPurger(ctx)
	return s, nil
}

// enter begins a call; leave ends it.
func (s *Store) enter(ctx context.Context) error {
	s.closeMu.RLock()
	var err error
	if s.closed {
		err = store.ErrClosed
	} else if err = s.halt.failed(); err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.closeMu.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.closeMu.RUnlock() }

// Load implements store.Store.
func (s *Store) Load(ctx context.Context, keys []string) ([]store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	out := make([]store.Record, len(keys))
	avg := s.recordAvg.Load()
	var arena arena
	arena.reserve(int(min(int64(len(keys))*(avg+avg/8), 1<<20)))
	var buf [64]byte
	engineKey := buf[:0]
	for i, key := range keys {
		if i%128 == 127 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		hash := s.cache.hash(key)
		r, ok, epoch := s.cache.load(hash, key, &arena)
		if ok {
			out[i] = r
			continue
		}
		engineKey = appendRecordKey(engineKey[:0], key)
		value, closer, err := s.db.Get(engineKey)
		if errors.Is(err, pebble.ErrNotFound) {
			s.cache.offer(hash, key, epoch, store.Record{})
			continue
		}
		if err != nil {
			return nil, s.readError(err)
		}
		out[i].Data = arena.copy(value)
		out[i].Version = store.VersionOf(out[i].Data)
		s.cache.offer(hash, key, epoch, out[i])
		if err := closer.Close(); err != nil {
			return nil, s.readError(err)
		}
	}
	if arena.records > 0 {
		s.recordAvg.Store((avg*7 + arena.bytes/arena.records) / 8)
	}
	return out, nil
}

func (s *Store) readError(err error) error {
	return fmt.Errorf("embedded profile store at %q: reading: %w", s.opts.Path, rootCause(err))
}

// arena returns copies that share few allocations.
type arena struct {
	free           []byte
	bytes, records int64 // copied so far
}

func (a *arena) reserve(n int) { a.free = make([]byte, 0, n) }

func (a *arena) copy(b []byte) []byte {
	if a.free == nil || cap(a.free)-len(a.free) < len(b) {
		a.reserve(max(len(b), 64<<10))
	}
	a.bytes += int64(len(b))
	a.records++
	n := len(a.free)
	a.free = append(a.free, b...)
	return a.free[n:len(a.free):len(a.free)]
}

// maxBatchBytes bounds one batch of the engine.
const maxBatchBytes = 32 << 20

// batch is a part of a Commit on its way through the committer.
type batch struct {
	changes  []store.Change
	hashes   []uint64        // of the keys, for the cache
	versions []store.Version // of the new data
	size     int             // bytes of data
	encoded  *pebble.Batch
	state    atomic.Int32

	// The committer sets these and then closes applied: the changes are visible.
	applied   chan struct{}
	conflicts []int // positions in changes
	err       error
	sync      *pendingSync
}

// The states of a batch. After the check the changes are in the encoded form, so the
// caller may abandon the batch: the committer does not read its changes any more.
const (
	batchChecking int32 = iota
	batchApplying
	batchApplied
	batchAbandoned
)

// pendingSync is a running write of the log.
type pendingSync struct {
	done chan struct{}
	err  error // valid after done is closed
}

// Commit implements store.Store. A Commit that applies nothing, even an empty one, is a
// durability barrier: it returns when everything that a Load of this process may have
// returned is durable.
//
// The context is respected until the changes are applied. The wait for the disk is not
// interrupted.
func (s *Store) Commit(ctx context.Context, changes []store.Change) ([]int, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := store.CheckChanges(changes, s.opts.MaxRecordBytes); err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		if err := s.checkSpace(); err != nil {
			return nil, err
		}
	}
	var conflicts []int
	for first := 0; ; {
		b := &batch{applied: make(chan struct{})}
		end := first
		for end < len(changes) && (end == first || b.size+len(changes[end].Data) <= maxBatchBytes) {
			b.size += len(changes[end].Data)
			end++
		}
		b.changes = changes[first:end]
		// Most batches have no conflict, so encode them here, in parallel to the
		// committer.
		b.hashes = make([]uint64, len(b.changes))
		b.versions = make([]store.Version, len(b.changes))
		for i := range b.changes {
			b.hashes[i] = s.cache.hash(b.changes[i].Key)
			b.versions[i] = store.VersionOf(b.changes[i].Data)
		}
		b.encoded = s.encode(b, nil)
		if err := s.submit(ctx, b); err != nil {
			return nil, err
		}
		if b.err != nil {
			return nil, b.err
		}
		for _, i := range b.conflicts {
			conflicts = append(conflicts, first+i)
		}
		if first = end; first == len(changes) {
			err := s.wait(b.sync)
			s.requestPurge(changes)
			return conflicts, err
		}
	}
}

// requestPurge requests the purge of the changes that ask for it.
func (s *Store) requestPurge(changes []store.Change) {
	for i := range changes {
		if changes[i].Purge {
			s.purger.request(false, string(appendRecordKey(nil, changes[i].Key)))
		}
	}
}

// submit sends a batch to the committer and returns when it is applied. If tables
// cannot be written, it gives up after stallLimit; the batch may still be applied
// later.
func (s *Store) submit(ctx context.Context, b *batch) error {
	submitted := s.batches
	var cancelled <-chan struct{} = ctx.Done()
	ticker := time.NewTicker(stallLimit)
	defer ticker.Stop()
	for {
		select {
		case submitted <- b:
			// From here on the batch will be applied even if the caller leaves.
			submitted, cancelled = nil, nil
		case <-b.applied:
			return nil
		case <-cancelled:
			_ = b.encoded.Close()
			return ctx.Err()
		case <-s.halt.stopped:
			return s.halt.err
		case <-ticker.C:
			err := s.halt.stalled()
			switch {
			case err == nil:
			case submitted != nil:
				_ = b.encoded.Close()
				return err
			case b.state.CompareAndSwap(batchApplying, batchAbandoned):
				return err
			}
		}
	}
}

// wait returns when a write of the log, and so every write before it, is durable.
func (s *Store) wait(sync *pendingSync) error {
	select {
	case <-sync.done:
		return sync.err
	case <-s.halt.stopped:
		return s.halt.err
	}
}

// runCommitter is the only writer, so it alone detects conflicts.
func (s *Store) runCommitter() {
	defer close(s.committed)
	last := &pendingSync{done: make(chan struct{})}
	close(last.done)
	for b := range s.batches {
		switch b.err = s.check(b); {
		case b.err != nil || b.encoded.Empty():
			_ = b.encoded.Close()
			b.sync = last
		default:
			b.sync = s.apply(b)
			last = b.sync
		}
		close(b.applied)
	}
}

// check finds the conflicts of a batch and removes them from it.
func (s *Store) check(b *batch) (err error) {
	for i := range b.changes {
		c := &b.changes[i]
		v, known := s.cache.version(b.hashes[i], c.Key)
		if !known {
			if v, err = s.version(c.Key); err != nil {
				return err
			}
		}
		if v != c.Version {
			b.conflicts = append(b.conflicts, i)
		}
	}
	if len(b.conflicts) > 0 {
		_ = b.encoded.Close()
		b.encoded = s.encode(b, b.conflicts)
	}
	return nil
}

// apply makes a batch visible and starts to write it to the disk.
func (s *Store) apply(b *batch) *pendingSync {
	sync := &pendingSync{done: make(chan struct{})}
	b.state.Store(batchApplying)
	if err := s.db.ApplyNoSyncWait(b.encoded, pebble.Sync); err != nil {
		s.halt.stop(err)
	}
	go func() {
		if err := b.encoded.SyncWait(); err != nil {
			s.halt.stop(err)
		}
		sync.err = b.encoded.Close()
		close(sync.done)
	}()
	// The changes of an abandoned batch belong to the caller again.
	complete := b.state.CompareAndSwap(batchApplying, batchApplied)
	conflicts := b.conflicts
	for i := range b.hashes {
		if len(conflicts) > 0 && conflicts[0] == i {
			conflicts = conflicts[1:]
			continue
		}
		if !complete {
			s.cache.forget(b.hashes[i])
			continue
		}
		s.cache.write(b.hashes[i], b.changes[i].Key, store.Record{Data: b.changes[i].Data, Version: b.versions[i]})
	}
	return sync
}

// encode returns the engine's batch with all changes except those at the given
// positions.
func (s *Store) encode(b *batch, except []int) *pebble.Batch {
	encoded := s.db.NewBatchWithSize(b.size + 64*len(b.changes))
	var buf [128]byte
	indexKey := buf[:0]
	for i := range b.changes {
		c := &b.changes[i]
		if len(except) > 0 && except[0] == i {
			except = except[1:]
			continue
		}
		// These calls fail only for batches that are committed already.
		if c.Data == nil {
			op := encoded.DeleteDeferred(1 + len(c.Key))
			appendRecordKey(op.Key[:0], c.Key)
			_ = op.Finish()
		} else {
			op := encoded.SetDeferred(1+len(c.Key), len(c.Data))
			appendRecordKey(op.Key[:0], c.Key)
			copy(op.Value, c.Data)
			_ = op.Finish()
		}
		if c.Purge {
			_ = encoded.Set([]byte{purgeSpace}, nil, nil)
		}
		for _, e := range c.Index {
			indexKey = appendIndexKey(indexKey[:0], e.Index, e.Value, c.Key)
			if e.Remove {
				_ = encoded.Delete(indexKey, nil)
			} else {
				_ = encoded.Set(indexKey, nil, nil)
			}
		}
	}
	return encoded
}

// version returns the current version of a record.
func (s *Store) version(key string) (store.Version, error) {
	value, closer, err := s.db.Get(appendRecordKey(nil, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return store.Absent, nil
	}
	if err != nil {
		return 0, s.readError(err)
	}
	v := store.VersionOf(value)
	return v, closer.Close()
}

// ScanIndex implements store.Store.
func (s *Store) ScanIndex(ctx context.Context, index, from, to string, after store.IndexEntry, limit int) ([]store.IndexEntry, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if limit <= 0 {
		return nil, nil
	}
	prefix, lower, upper := indexBounds(index, from, to)
	if after != (store.IndexEntry{}) {
		// The first engine key after that of the entry.
		next := append(appendIndexKey(nil, index, after.Value, after.Key), 0x00)
		if bytes.Compare(next, lower) > 0 {
			lower = next
		}
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil, nil
	}
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, s.readError(err)
	}
	var out []store.IndexEntry
	for ok := it.First(); ok && len(out) < limit; ok = it.Next() {
		entry, err := indexEntry(it.Key()[len(prefix):])
		if err != nil {
			return nil, errors.Join(s.readError(err), it.Close())
		}
		out = append(out, entry)
		if len(out)%1024 == 0 && ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return nil, s.readError(err)
	}
	return out, nil
}

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, index string, values []string, limit int) ([][]string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	found := make([][]string, len(values))
	if len(values) == 0 || limit <= 0 {
		return found, nil
	}
	prefix, lower, upper := indexBounds(index, "", "")
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, s.readError(err)
	}
	for i, value := range values {
		lower = appendEscaped(append(lower[:0], prefix...), value)
		for ok := it.SeekGE(lower); ok && len(found[i]) < limit && bytes.HasPrefix(it.Key(), lower); ok = it.Next() {
			found[i] = append(found[i], string(it.Key()[len(lower):]))
		}
		if i%1024 == 1023 && ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return nil, s.readError(err)
	}
	return found, nil
}

// CountIndex implements store.Store. It iterates over the entries, some millions per
// second.
func (s *Store) CountIndex(ctx context.Context, index, from, to string) (int64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	_, lower, upper := indexBounds(index, from, to)
	if bytes.Compare(lower, upper) >= 0 {
		return 0, nil
	}
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return 0, s.readError(err)
	}
	var n int64
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return 0, errors.Join(ctx.Err(), it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return 0, s.readError(err)
	}
	return n, nil
}

// Scan implements store.Store. Each record is listed once, in order of keys.
func (s *Store) Scan(ctx context.Context, cursor string, limit int) ([]store.Entry, string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, "", err
	}
	defer s.leave()
	limit = max(limit, 1)
	lower := []byte{recordSpace}
	if cursor != "" {
		last, err := decodeCursor(cursor)
		if err != nil {
			return nil, "", err
		}
		lower = append(append(lower, last...), 0x00)
	}
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: recordLimit})
	if err != nil {
		return nil, "", s.readError(err)
	}
	var page []store.Entry
	var arena arena
	var size int
	more := it.First()
	// A page of large records has fewer of them.
	for ; more && len(page) < limit && size < maxBatchBytes; more = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, "", errors.Join(s.readError(err), it.Close())
		}
		data := arena.copy(value)
		size += len(data)
		page = append(page, store.Entry{Key: string(it.Key()[1:]), Record: store.Record{Data: data, Version: store.VersionOf(data)}})
		if len(page)%1024 == 0 && ctx.Err() != nil {
			return nil, "", errors.Join(ctx.Err(), it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return nil, "", s.readError(err)
	}
	if !more {
		return page, "", nil
	}
	return page, encodeCursor([]byte(page[len(page)-1].Key)), nil
}

// Ping implements store.Store.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	return s.checkSpace()
}

// freeCheckInterval is the maximum age of the last check of the free space.
const freeCheckInterval = 500 * time.Millisecond

// checkSpace rejects writes while the engine's background work still has enough space:
// an engine without disk space cannot continue.
func (s *Store) checkSpace() error {
	now := time.Now().UnixNano()
	if checked := s.freeChecked.Load(); now-checked >= int64(freeCheckInterval) && s.freeChecked.CompareAndSwap(checked, now) {
		s.freeBytes.Store(s.free())
	}
	if free := s.freeBytes.Load(); free < s.opts.MinFreeBytes {
		return fmt.Errorf("embedded profile store at %q: %w: %d MiB free, %d MiB to be kept free; free some, or lower the limit",
			s.opts.Path, ErrDiskFull, free>>20, s.opts.MinFreeBytes>>20)
	}
	return nil
}

// free returns the free space of the file system. If the file system does not report
// it, the space counts as sufficient.
func (s *Store) free() uint64 {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return math.MaxUint64
	}
	return usage.AvailBytes
}

// Metrics are measurements of the store.
type Metrics struct {
	DiskBytes      uint64 // files of the store including the log
	CacheBytes     int64
	MemTableBytes  uint64
	Compacting     int64 // tables in compaction
	CompactionDebt uint64
}

// Metrics returns the current measurements. It takes some microseconds.
func (s *Store) Metrics() (Metrics, error) {
	if err := s.enter(context.Background()); err != nil {
		return Metrics{}, err
	}
	defer s.leave()
	m := s.db.Metrics()
	return Metrics{
		DiskBytes:      m.DiskSpaceUsage(),
		CacheBytes:     m.BlockCache.Size,
		MemTableBytes:  m.MemTable.Size,
		Compacting:     m.Compact.NumInProgress,
		CompactionDebt: m.Compact.EstimatedDebt,
	}, nil
}

// Close implements store.Store. It waits for running calls.
func (s *Store) Close() error {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	s.closed = true
	close(s.batches)
	s.purger.stop()
	running := []<-chan struct{}{s.committed, s.purger.done}
	for len(running) > 0 {
		select {
		case <-running[0]:
			running = running[1:]
		case <-s.halt.stopped:
			running = nil
		case <-time.After(stallLimit):
			// Leave the engine as a kill of the process would.
			if err := s.halt.stalled(); err != nil {
				return err
			}
		}
	}
	if err := s.halt.failed(); err != nil {
		// Goroutines of the engine are blocked, so leave it as well.
		return err
	}
	if err := errors.Join(s.db.Close(), s.lock.Close()); err != nil {
		return fmt.Errorf("embedded profile store at %q: closing: %w", s.opts.Path, rootCause(err))
	}
	return nil
}
