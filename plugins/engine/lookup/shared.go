package lookup

import (
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// An entry of the shared cache consists of a version byte, a kind byte, the expiry
// of freshness in Unix milliseconds (8 bytes, big-endian), and the value.
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

// landShared completes the flights of keys in the shared cache and returns
// the remaining ones. A shared cache that does not answer within Timeout counts as
// empty.
func (l *Loader) landShared(flights []*flight) (rest []*flight) {
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timeout)
	defer cancel()
	found := make([]entry, len(flights))
	indexes := make(chan int)
	var wg sync.WaitGroup
	for range min(sharedInFlight, len(flights)) {
		wg.Go(func() {
			for i := range indexes {
				found[i] = l.fromShared(ctx, flights[i].key)
			}
		})
	}
	for i := range flights {
		indexes <- i
	}
	close(indexes)
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
	// Another process may have a longer TTL.
	ttl, kept := l.o.TTL, l.o.StaleFor
	if value == nil {
		ttl, kept = l.o.NegativeTTL, 0
	}
	if latest := time.Now().Add(ttl); freshUntil.After(latest) {
		freshUntil = latest
	}
	return entry{value: value, freshUntil: freshUntil.UnixNano(), keptUntil: freshUntil.Add(kept).UnixNano()}
}

// share writes the provider's answer to the shared cache.
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
