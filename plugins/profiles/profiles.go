// Package profiles is the `profiles` resource: a definition of what a profile
// is and the store the profiles live in, shared by label between everything
// that writes and reads them.
package profiles

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/cache"
)

// ResourceType is the name of the resource in a config.
const ResourceType = "profiles"

const fieldDefinition = "definition"

func init() {
	// A file named by a field is linted with the config that names it. Lint
	// rules are compiled with the spec, so the function comes first.
	err := bloblang.RegisterFunctionV2("lint_profile_definition",
		bloblang.NewPluginSpec().
			Description("Returns what is wrong with a profile definition file, an array of strings that is empty for a correct file.").
			Param(bloblang.NewStringParam("path").Description("The path of the file.")),
		func(args *bloblang.ParsedParams) (bloblang.Function, error) {
			path, err := args.GetString("path")
			if err != nil {
				return nil, err
			}
			return func() (any, error) { return lintForConfig(path), nil }, nil
		})
	if err != nil {
		panic(err)
	}
	if err := service.GlobalEnvironment().RegisterCustomResource(ResourceType, Spec(), construct); err != nil {
		panic(err)
	}
}

func lintForConfig(path string) []any {
	lints, err := LintDefinition(path)
	if err != nil {
		return []any{fmt.Sprintf("%v; write the path of a profile definition, relative to the folder the command runs in", err)}
	}
	out := []any{}
	for _, l := range lints {
		out = append(out, fmt.Sprintf("%s:%d: %s", path, l.Line, l.What))
	}
	return out
}

// Spec describes the resource.
func Spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Summary("What a profile is and where profiles live, shared by label.").
		Description("The definition is a file of its own so that every pipeline that writes or reads the same profiles can share it. The store is opened when the process starts and closed when it ends.").
		Field(service.NewStringField(fieldDefinition).
			Description("The path of the definition file: features and trusted sources. It is checked when the config is linted and when the process starts.").
			Example("./configs/retail/profile.yaml").
			LintRule(`root = lint_profile_definition(this)`)).
		Field(storeField()).
		Example("A shop on one machine", "Profiles by the retail definition in a folder.", `
profiles:
  - label: retail
    definition: ./configs/retail/profile.yaml
    store:
      embedded:
        path: ./data/profiles
`).
		Example("Many processes", "Profiles in a Redis Cluster that every process shares; reads for e-mails come from its replicas.", `
profiles:
  - label: retail
    definition: ./configs/retail/profile.yaml
    store:
      redis:
        url: "${REDIS_URL:redis://10.0.0.1:6379,redis://10.0.0.2:6379}"
        kind: cluster
        read_replicas: true
`)
}

var inMemory atomic.Bool

// UseMemory makes stores opened from now on keep everything in memory, whatever
// the config says of folders and servers. Unit tests of configs run so, and
// never touch the data of a live pipeline.
func UseMemory() { inMemory.Store(true) }

// Profiles is a definition and an open store. It is safe for concurrent use.
type Profiles struct {
	label string
	def   *record.Definition
	store store.Store
	// backing is the store itself, and reads how records are read to be served.
	backing store.Store
	reads   cache.Loader
	caches  *caches
	away    atomic.Bool   // the store failed and has not answered since
	loads   atomic.Uint64 // how often parameters of models were loaded anew
	log     *service.Logger

	whereFailures *service.MetricCounter
	duplicates    *service.MetricCounter
	conflicts     *service.MetricCounter
	late          *service.MetricCounter
	future        *service.MetricCounter
	unidentified  *service.MetricCounter
	refusedMerges *service.MetricCounter
	erasures      *service.MetricCounter
	erasedEvents  *service.MetricCounter

	// taken and refused count the events of every Update.
	taken, refused atomic.Int64

	readers  sync.Pool
	updaters sync.Pool
	now      func() time.Time

	outboxes   atomic.Int32 // that wait for messages
	hinted     chan string  // keys of customers that may have some
	lostClaims *service.MetricCounter
	entered    *service.MetricCounter
	left       *service.MetricCounter
	dropped    *service.MetricCounter
	members    *service.MetricGauge // by segment

	messages     *messages // nil without triggers
	fired        *service.MetricCounter
	fireDelay    *service.MetricTimer
	lostFirings  *service.MetricCounter
	dataFailures *service.MetricCounter

	files     []follower // of parameters
	closing   sync.Once
	unfollow  context.CancelFunc
	following sync.WaitGroup
}

func construct(conf *service.ParsedConfig, res *service.Resources) (any, error) {
	path, err := conf.FieldString(fieldDefinition)
	if err != nil {
		return nil, err
	}
	def, err := ReadDefinition(path)
	if err != nil {
		return nil, err
	}
	s, err := openStore(conf.Namespace(fieldStore), res)
	if err != nil {
		return nil, err
	}
	return New(def, s, res), nil
}

// New returns the profiles of a definition in an open store, which they own.
func New(def *Definition, s store.Store, res *service.Resources) *Profiles {
	p := &Profiles{
		def: def.Definition, backing: s, reads: s.Load, caches: &caches{}, label: res.Label(), log: res.Logger(), now: wallClock,
		whereFailures: res.Metrics().NewCounter("profiles_where_failures"),
		duplicates:    res.Metrics().NewCounter("profiles_duplicate_events"),
		conflicts:     res.Metrics().NewCounter("profiles_write_conflicts"),
		late:          res.Metrics().NewCounter("profiles_late_events"),
		future:        res.Metrics().NewCounter("profiles_future_events"),
		unidentified:  res.Metrics().NewCounter("profiles_unidentified_events"),
		refusedMerges: res.Metrics().NewCounter("profiles_merges_refused"),
		lostClaims:    res.Metrics().NewCounter("profile_changes_claims_lost"),
		entered:       res.Metrics().NewCounter("profiles_segments_entered"),
		left:          res.Metrics().NewCounter("profiles_segments_left"),
		dropped:       res.Metrics().NewCounter("profiles_messages_dropped"),
		members:       res.Metrics().NewGauge("profiles_segment_members", "segment"),
		hinted:        make(chan string, hints),
		messages:      def.messages,
		fired:         res.Metrics().NewCounter("profile_triggers", "trigger", "outcome"),
		fireDelay:     res.Metrics().NewTimer("profile_triggers_delay_ns"),
		lostFirings:   res.Metrics().NewCounter("profile_triggers_lost"),
		dataFailures:  res.Metrics().NewCounter("profile_triggers_data_failures"),
		erasures:      res.Metrics().NewCounter("profiles_erasures"),
		erasedEvents:  res.Metrics().NewCounter("profiles_erased_events"),
	}
	p.store = reporting{s, p.caches}
	if replicas, ok := s.(store.ReplicaReader); ok {
		p.reads = replicas.LoadReplica
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.unfollow = cancel
	p.files = def.files
	p.follow(ctx)
	return p
}

// provided are the resources of a root config in streams mode, by label.
var provided struct {
	sync.RWMutex
	byLabel map[string]*Profiles
}

// Provide opens the profiles of a main config that the engine itself does not
// make resources of, as it does not in streams mode. Streams find them by Get.
func Provide(conf *service.ParsedConfig) error {
	if !conf.Contains(ResourceType) {
		return nil
	}
	items, err := conf.FieldObjectList(ResourceType)
	if err != nil {
		return err
	}
	for _, item := range items {
		label, err := item.FieldString("label")
		if err != nil {
			return err
		}
		if conf.Resources().HasCustomResource(ResourceType, label) {
			continue
		}
		p, err := construct(item, item.Resources())
		if err != nil {
			return fmt.Errorf("%s %q: %w", ResourceType, label, err)
		}
		provided.Lock()
		if provided.byLabel == nil {
			provided.byLabel = map[string]*Profiles{}
		}
		provided.byLabel[label] = p.(*Profiles)
		provided.Unlock()
	}
	return nil
}

// Lend lets pipelines of this process find profiles by a label until back is
// called.
func Lend(label string, p *Profiles) (back func()) {
	provided.Lock()
	defer provided.Unlock()
	if provided.byLabel == nil {
		provided.byLabel = map[string]*Profiles{}
	}
	before, some := provided.byLabel[label]
	provided.byLabel[label] = p
	return func() {
		provided.Lock()
		defer provided.Unlock()
		if delete(provided.byLabel, label); some {
			provided.byLabel[label] = before
		}
	}
}

// CloseProvided closes what Provide opened.
func CloseProvided() {
	provided.Lock()
	defer provided.Unlock()
	for _, p := range provided.byLabel {
		// Everything acknowledged is on disk; there is nobody left to tell.
		_ = p.Close(context.Background())
	}
	provided.byLabel = nil
}

// Get returns the profiles of a label in a config.
func Get(res *service.Resources, label string) (*Profiles, error) {
	provided.RLock()
	p := provided.byLabel[label]
	provided.RUnlock()
	if p != nil {
		return p, nil
	}
	err := res.AccessCustomResource(context.Background(), ResourceType, label, func(v any) { p = v.(*Profiles) })
	if err != nil {
		return nil, fmt.Errorf("profiles %q: %w; add an item with this label to the top-level field profiles", label, err)
	}
	return p, nil
}

// Definition returns what a profile is.
func (p *Profiles) Definition() *record.Definition { return p.def }

// Now returns the time as the profiles have it.
func (p *Profiles) Now() time.Time { return p.now() }

// Events tells how many events this process has taken in, and how many it
// could not.
func (p *Profiles) Events() (taken, refused int64) { return p.taken.Load(), p.refused.Load() }

// Ping tells whether the store can serve requests now.
func (p *Profiles) Ping(ctx context.Context) error { return p.store.Ping(ctx) }

// Close closes the store. Closing again does nothing.
func (p *Profiles) Close(context.Context) error {
	var err error
	p.closing.Do(func() {
		p.unfollow()
		p.following.Wait()
		err = p.store.Close()
	})
	return err
}
