package lookup

import (
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// What the shared cache holds of a key: a byte for the version, one for the
// kind, the Unix milliseconds until which it is fresh, and the value.
const (
	sharedVersion = 1
	sharedHeader  = 10

	sharedValue  = 'v'
	sharedAbsent = 'a'

	sharedInFlight = 16
)

func appendShared(dst []byte, value []byte, freshUntil time.Time) []byte {
	kind := byte(sharedValue)
	if value == nil {
		kind = sharedAbsent
	}
	dst = append(dst, sharedVersion, kind)
	dst = binary.BigEndian.AppendUint64(dst, uint64(freshUntil.UnixMilli()))
	return append(dst, value...)
}

func parseShared(raw []byte) (value []byte, freshUntil time.Time, ok bool) {
	if len(raw) < sharedHeader || raw[0] != sharedVersion {
		return nil, time.Time{}, false
	}
	freshUntil = time.UnixMilli(int64(binary.BigEndian.Uint64(raw[2:])))
	switch {
	case raw[1] == sharedAbsent && len(raw) == sharedHeader:
		return nil, freshUntil, true
	case raw[1] == sharedValue && len(raw) > sharedHeader:
		return raw[sharedHeader:], freshUntil, true
	}
	return nil, time.Time{}, false
}

// landShared ends the flights whose keys are in the shared cache, and returns
// the others. A shared cache that does not answer in the time of a call is as
// good as empty.
func (l *Loader) landShared(flights []*flight) (rest []*flight) {
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timeout)
	defer cancel()
	found := make([]entry, len(flights))
	at := make(chan int)
	var wg sync.WaitGroup
	for range min(sharedInFlight, len(flights)) {
		wg.Go(func() {
			for i := range at {
				found[i] = l.fromShared(ctx, flights[i].key)
			}
		})
	}
	for i := range flights {
		at <- i
	}
	close(at)
	wg.Wait()
	now := time.Now().UnixNano()
	for i, f := range flights {
		if e := found[i]; e.freshUntil > now {
			l.put(f.key, e, now)
			l.land(f, Answer{Value: e.value, Result: Miss})
			continue
		}
		rest = append(rest, f)
	}
	return rest
}

func (l *Loader) fromShared(ctx context.Context, key string) entry {
	if ctx.Err() != nil {
		return entry{}
	}
	raw, ok := l.o.Shared.Get(ctx, key)
	if !ok {
		return entry{}
	}
	value, freshUntil, ok := parseShared(raw)
	if !ok {
		return entry{}
	}
	// Another process may be configured to keep values for longer.
	ttl, kept := l.o.TTL, l.o.StaleFor
	if value == nil {
		ttl, kept = l.o.NegativeTTL, 0
	}
	if latest := time.Now().Add(ttl); freshUntil.After(latest) {
		freshUntil = latest
	}
	return entry{value: value, freshUntil: freshUntil.UnixNano(), keptUntil: freshUntil.Add(kept).UnixNano()}
}

// share puts an answer of the provider in the shared cache.
func (l *Loader) share(key string, a Answer) {
	if l.o.Shared == nil || !a.Known() {
		return
	}
	ttl := l.o.TTL
	if !a.Found() {
		ttl = l.o.NegativeTTL
	}
	if ttl <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timeout)
	defer cancel()
	l.o.Shared.Set(ctx, key, appendShared(nil, a.Value, time.Now().Add(ttl)), ttl)
}
