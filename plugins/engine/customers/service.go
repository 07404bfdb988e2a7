// Package customers reads and updates the profiles of customers in a store. It
// applies events, evaluates segments, fires triggers, and serves reads; it knows
// neither the engine that runs pipelines nor a kind of store.
package customers

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/cache"
)

// Service is a profile definition and an open store.
//
// All methods are safe for concurrent use, by any number of goroutines, and by
// any number of processes if the store is a server: every write is conditional
// on the version that was read, and is retried when another writer was first.
// An Outbox, a TriggerScheduler or a Cached that it returns says for itself how
// it may be used. Close comes last.
type Service struct {
	def   *record.Definition
	store store.Store
	// backing is the store itself, and reads how records are read to be served.
	backing     store.Store
	reads       cache.Loader
	caches      *caches
	outage      Outage
	generations generations
	loads       atomic.Uint64 // how often parameters of models were loaded anew
	log         Logger
	metrics

	applied, rejected atomic.Int64 // events of all calls of Update

	readers  sync.Pool
	updaters sync.Pool
	now      func() time.Time

	outboxes atomic.Int32 // that wait for messages
	hinted   chan string  // keys of customers that may have some

	messages *definition.Messaging // nil without triggers

	files     []definition.ParameterFile
	closing   sync.Once
	unfollow  context.CancelFunc
	following sync.WaitGroup
}

// Options configure a Service.
type Options struct {
	// Logger and Metrics are optional.
	Logger  Logger
	Metrics Metrics
}

// New returns a service for an open store, which it owns.
func New(def *definition.Definition, s store.Store, o Options) *Service {
	if o.Logger == nil {
		o.Logger = discard{}
	}
	if o.Metrics == nil {
		o.Metrics = discard{}
	}
	p := &Service{
		def: def.Definition, backing: s, reads: s.Load, caches: &caches{}, log: o.Logger, metrics: newMetrics(o.Metrics), now: wallClock,
		hinted: make(chan string, maxHints), messages: def.Messaging, files: def.ParameterFiles,
	}
	p.store = invalidating{s, p.caches}
	if replicated, ok := s.(store.ReplicaReader); ok {
		p.reads = replicated.LoadReplica
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.unfollow = cancel
	p.follow(ctx)
	return p
}

// parameterInterval is how often parameter files are checked.
const parameterInterval = 5 * time.Second

// follow reloads the parameters of models and segments until ctx ends.
func (p *Service) follow(ctx context.Context) {
	for _, file := range p.files {
		p.following.Go(func() {
			file.Follow(ctx, parameterInterval, func(err error) {
				if err != nil {
					p.log.Errorf("The parameters in %s are not taken, the last good ones are kept: %v", file.Path(), err)
				} else {
					p.loads.Add(1)
					p.log.Infof("Took new parameters from %s", file.Path())
				}
			})
		})
	}
}

// Definition returns the definition of the profiles.
func (p *Service) Definition() *record.Definition { return p.def }

// Now returns the current time, which is simulated in builds for simulations.
func (p *Service) Now() time.Time { return p.now() }

// Events returns the numbers of events that this process has applied, and
// rejected.
func (p *Service) Events() (applied, rejected int64) { return p.applied.Load(), p.rejected.Load() }

// Ping returns nil if the store can serve requests now, and a *LostError if the store
// lost data while this process ran.
func (p *Service) Ping(ctx context.Context) error {
	if err := p.store.Ping(ctx); err != nil {
		return err
	}
	if _, err := p.recentGeneration(ctx); err != nil {
		return err
	}
	if lost := p.generations.loss(); lost != nil {
		return lost
	}
	return nil
}

// StoreFailed and StoreRecovered report an outage of the store and its end. Every
// loop that retries calls them; each outage is logged once when it begins and
// once when it ends.
func (p *Service) StoreFailed(err error) {
	p.outage.Begin(p.log, err)
}

// StoreRecovered ends the outage that StoreFailed began.
func (p *Service) StoreRecovered() {
	p.outage.End(p.log)
}

// Close closes the store. Closing again does nothing.
func (p *Service) Close(context.Context) error {
	var err error
	p.closing.Do(func() {
		p.unfollow()
		p.following.Wait()
		err = p.store.Close()
	})
	return err
}
