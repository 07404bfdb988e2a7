package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A deleted or replaced record stays in the files of the engine until they are
// rewritten: in the log, in older tables, and with the bounds of tables in the manifest.
// The time of a rewrite is not bounded. A change with Purge set
// therefore requests a purge, which rewrites everything that may contain the old
// content:
//
//  1. It flushes the memory, so that the content is in tables only.
//  2. It compacts the index space and the range of each purged record down to the last
//     level, which drops what was deleted or replaced.
//  3. It rotates the log and the manifest until all older files are deleted.
//
// Purges run in the background, PurgeDelay after the first request, for all requests
// since the last one. A marker that is written with the change makes the next start
// purge all records if the process ended before the purge did.

// logCycles is the number of log rotations after which the engine has reused, and so
// deleted, every log from before: it keeps MemTableStopWritesThreshold + 1 of them.
const logCycles = memTables + 3

// maxRotations bounds the rotations of one purge. The manifest is rotated when it has
// more edits than the store has tables.
const maxRotations = 100_000

// purger collects the keys to purge.
type purger struct {
	mu   sync.Mutex
	keys map[string]bool // engine keys of records
	all  bool            // all records: the process ended before a purge did

	requested chan struct{} // has a value while there is something to purge
	stop      context.CancelFunc
	done      chan struct{}
}

func newPurger() *purger {
	return &purger{keys: map[string]bool{}, requested: make(chan struct{}, 1), done: make(chan struct{})}
}

func (p *purger) request(all bool, keys ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = p.all || all
	for _, key := range keys {
		p.keys[key] = true
	}
	select {
	case p.requested <- struct{}{}:
	default:
	}
}

// take returns the requests and forgets them.
func (p *purger) take() (keys map[string]bool, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys, all = p.keys, p.all
	p.keys, p.all = map[string]bool{}, false
	return keys, all
}

// runPurger purges until ctx ends.
func (s *Store) runPurger(ctx context.Context) {
	defer close(s.purger.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.purger.requested:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.opts.PurgeDelay):
		}
		keys, all := s.purger.take()
		if err := s.purge(ctx, keys, all); err != nil && ctx.Err() == nil {
			s.opts.Logger.Errorf("embedded profile store at %q: removing erased data from the files failed and is tried again: %v", s.opts.Path, rootCause(err))
			for key := range keys {
				s.purger.request(all, key)
			}
			s.purger.request(all)
		}
	}
}

func (s *Store) purge(ctx context.Context, keys map[string]bool, all bool) error {
	if err := s.db.Flush(); err != nil {
		return err
	}
	ranges := [][2][]byte{{{indexSpace}, {indexSpace + 1}}}
	if all {
		ranges = append(ranges, [2][]byte{{recordSpace}, recordLimit})
	}
	for key := range keys {
		ranges = append(ranges, [2][]byte{[]byte(key), append([]byte(key), 0x00)})
	}
	for _, r := range ranges {
		if err := s.db.Compact(ctx, r[0], r[1], false); err != nil {
			return err
		}
	}
	// The engine keeps one older manifest, so two have to be created.
	until := s.manifests.Load() + 2
	for i := 0; i < logCycles || s.manifests.Load() < until; i++ {
		if i == maxRotations {
			return fmt.Errorf("the manifest was not rotated after %d flushes", i)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.db.Set([]byte{formatSpace}, []byte{format}, pebble.NoSync); err != nil {
			return err
		}
		if err := s.db.Flush(); err != nil {
			return err
		}
	}
	s.purger.mu.Lock()
	defer s.purger.mu.Unlock()
	if s.purger.all || len(s.purger.keys) > 0 {
		return nil // requested again meanwhile
	}
	return s.db.Delete([]byte{purgeSpace}, pebble.Sync)
}

// resumePurge requests a purge of all records if the last process ended before its
// purge did.
func (s *Store) resumePurge() error {
	_, closer, err := s.db.Get([]byte{purgeSpace})
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.purger.request(true)
	return closer.Close()
}
