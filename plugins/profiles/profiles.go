// Package profiles is the `profiles` resource: a profile definition and a store,
// shared by label between the components that write and read profiles.
package profiles

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/embedded"
)

// ResourceType is the name of the resource in a config.
const ResourceType = "profiles"

const fieldDefinition = "definition"

func init() {
	if err := service.GlobalEnvironment().RegisterCustomResource(ResourceType, Spec(), construct); err != nil {
		panic(err)
	}
}

// Spec describes the resource.
func Spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Summary("A profile definition and the store of its profiles, shared by label.").
		Description("The definition is a separate file, so that all pipelines with the same profiles can share it. The store is opened when the process starts and closed when it ends.").
		Field(service.NewStringField(fieldDefinition).
			Description("Path of the definition file, with features, segments and triggers. It is linted with the config, and when the process starts.").
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
		Example("Many processes", "Profiles in a Redis Cluster that all processes share; the profile API reads from its replicas.", `
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

// UseMemory makes all stores that are opened later in-memory stores, regardless of
// their config. Unit tests of configs use it, so that they never touch the data of
// a live pipeline.
func UseMemory() { inMemory.Store(true) }

func construct(conf *service.ParsedConfig, res *service.Resources) (any, error) {
	path, err := conf.FieldString(fieldDefinition)
	if err != nil {
		return nil, err
	}
	def, err := profiledefinition.Read(path)
	if err != nil {
		return nil, err
	}
	s, err := openStore(conf.Namespace(fieldStore), res)
	if err != nil {
		return nil, err
	}
	return newService(def, s, res), nil
}

// provided are the services of the main config in streams mode, by label.
var provided struct {
	sync.RWMutex
	byLabel map[string]*customers.Service
}

// Provide opens the profiles of a main config in streams mode, where Connect does not
// create its custom resources. Streams find them with Get.
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
			provided.byLabel = map[string]*customers.Service{}
		}
		provided.byLabel[label] = p.(*customers.Service)
		provided.Unlock()
	}
	return nil
}

// Lend makes a service available to pipelines of this process under a label, until
// back is called.
func Lend(label string, p *customers.Service) (back func()) {
	provided.Lock()
	defer provided.Unlock()
	if provided.byLabel == nil {
		provided.byLabel = map[string]*customers.Service{}
	}
	before, replaced := provided.byLabel[label]
	provided.byLabel[label] = p
	return func() {
		provided.Lock()
		defer provided.Unlock()
		if delete(provided.byLabel, label); replaced {
			provided.byLabel[label] = before
		}
	}
}

// CloseProvided closes the services that Provide opened.
func CloseProvided() {
	provided.Lock()
	defer provided.Unlock()
	for _, p := range provided.byLabel {
		// All acknowledged data is durable, and the process is about to end.
		_ = p.Close(context.Background())
	}
	provided.byLabel = nil
}

// Get returns the service with a label in a config.
func Get(res *service.Resources, label string) (*customers.Service, error) {
	provided.RLock()
	p := provided.byLabel[label]
	provided.RUnlock()
	if p != nil {
		return p, nil
	}
	err := res.AccessCustomResource(context.Background(), ResourceType, label, func(v any) { p = v.(*customers.Service) })
	if err != nil {
		return nil, fmt.Errorf("profiles %q: %w; add an item with this label to the top-level field profiles", label, err)
	}
	return p, nil
}

// OpenItem opens an item of the field `profiles` of a config, in YAML. A path
// replaces its definition, and a folder its store by an embedded one.
func OpenItem(item, path, folder string, res *service.Resources) (*customers.Service, error) {
	spec := Spec().Field(service.NewStringField("label").Default(""))
	conf, err := spec.ParseYAML(item, nil)
	if err != nil {
		return nil, err
	}
	if path == "" {
		if path, err = conf.FieldString(fieldDefinition); err != nil {
			return nil, err
		}
	}
	def, err := profiledefinition.Read(path)
	if err != nil {
		return nil, err
	}
	var s store.Store
	if folder != "" {
		s, err = embedded.Open(embedded.Options{Path: folder})
	} else {
		s, err = openStore(conf.Namespace(fieldStore), res)
	}
	if err != nil {
		return nil, err
	}
	return newService(def, s, res), nil
}

func newService(def *definition.Definition, s store.Store, res *service.Resources) *customers.Service {
	return customers.New(def, s, customers.Options{Logger: res.Logger(), Metrics: metrics{res.Metrics()}})
}

// metrics makes the metrics of the customers package from those of Connect.
type metrics struct{ *service.Metrics }

func (m metrics) Counter(name string, labels ...string) customers.Counter {
	return m.NewCounter(name, labels...)
}

func (m metrics) Timer(name string, labels ...string) customers.Timer {
	return m.NewTimer(name, labels...)
}

func (m metrics) Gauge(name string, labels ...string) customers.Gauge {
	return m.NewGauge(name, labels...)
}
