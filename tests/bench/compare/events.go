package compare

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
)

// days is how long the shop's events span; they end at midnight before now, so
// that windows of features have something in them.
const days = 30

// eventFile is a file of one event a line.
type eventFile struct {
	paths     []string
	events    int
	bytes     int64
	customers int
}

func (f eventFile) bytesPerEvent() float64 { return float64(f.bytes) / float64(f.events) }

func newShop(events, customers int) (*shop.Shop, error) {
	start := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -days)
	return shop.New(shop.Settings{
		Seed:      1,
		Start:     start,
		Customers: customers,
		Rate:      float64(events) / (days * 24 * 60 * 60),
	})
}

// batchUnit is what the number of events of every file is a multiple of: an
// input that batches by count alone waits for ever with what is left over.
const batchUnit = 1000

// natural writes the events of a shop with so many customers, of which a few
// cause most of the events. With more than one shard each customer's events
// are in one file; those that do not make up a batch are left out.
func (b *bench) natural(events, customers, shards int) (eventFile, error) {
	return b.write(fmt.Sprintf("shop-%d-%d-%d", events, customers, shards), events, customers, shards, nil)
}

// even writes a shop's events, reassigned to known customers, all of which get
// the same number of them.
func (b *bench) even(customers, each int) (eventFile, error) {
	n := 0
	name := fmt.Sprintf("even-%d-%d", customers, each)
	return b.write(name, customers*each, customers, 1, func(event []byte) []byte {
		id := customerID(n % customers)
		n++
		return assign(event, id)
	})
}

// customerID is the id of the nth customer of a file made by even.
func customerID(n int) string { return fmt.Sprintf("u-%07d", n) }

var (
	userID      = regexp.MustCompile(`"userId":"[^"]*"`)
	anonymousID = regexp.MustCompile(`"anonymousId":"[^"]*",?`)
)

// assign makes an event one of a known customer.
func assign(event []byte, id string) []byte {
	event = bytes.Clone(event)
	user := []byte(`"userId":"` + id + `"`)
	if at := userID.FindIndex(event); at != nil {
		event = append(event[:at[0]:at[0]], append(user, event[at[1]:]...)...)
		if at := anonymousID.FindIndex(event); at != nil {
			event = append(event[:at[0]], event[at[1]:]...)
		}
		return event
	}
	at := anonymousID.FindIndex(event)
	if at == nil {
		return event
	}
	return append(event[:at[0]:at[0]], append(append(user, ','), event[at[1]:]...)...)
}

func (b *bench) write(name string, events, customers, shards int, change func([]byte) []byte) (file eventFile, err error) {
	if made, ok := b.files[name]; ok {
		return made, nil
	}
	source, err := newShop(events, customers)
	if err != nil {
		return file, err
	}
	file = eventFile{customers: customers}
	var files []*os.File
	pending := make([]bytes.Buffer, shards)
	lines := make([]int, shards)
	for i := range shards {
		f, err := os.Create(filepath.Join(b.dir, fmt.Sprintf("%s-%d.jsonl", name, i)))
		if err != nil {
			return file, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		files = append(files, f)
		file.paths = append(file.paths, f.Name())
	}
	for range events {
		event := source.Next().Data
		if change != nil {
			event = change(event)
		}
		at := uint32(0)
		if shards > 1 {
			at = shard(event, shards)
		}
		pending[at].Write(event)
		pending[at].WriteByte('\n')
		if lines[at]++; lines[at]%batchUnit == 0 {
			file.events += batchUnit
			file.bytes += int64(pending[at].Len())
			if _, err := pending[at].WriteTo(files[at]); err != nil {
				return file, err
			}
		}
	}
	b.files[name] = file
	return file, nil
}

func shard(event []byte, shards int) uint32 {
	id := userID.Find(event)
	if id == nil {
		id = anonymousID.Find(event)
	}
	h := fnv.New32a()
	_, _ = h.Write(id)
	return h.Sum32() % uint32(shards)
}

// forget removes the files of events made so far.
func (b *bench) forget() error {
	var errs []error
	for name, file := range b.files {
		for _, path := range file.paths {
			errs = append(errs, os.Remove(path))
		}
		delete(b.files, name)
	}
	return errors.Join(errs...)
}
