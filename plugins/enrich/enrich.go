// Package enrich implements the `enrich` processor, which looks up additional data
// for all events of a batch together.
package enrich

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/deadletter"
	"github.com/connect-personalize/connect-personalize/plugins/engine/circuit"
	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/lookup"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
	"github.com/connect-personalize/connect-personalize/plugins/engine/splice"
)

const description = `
The distinct keys of a batch are looked up together: a thousand events about fifty products cause one lookup of fifty keys. Known values come from the cache, and concurrent lookups of the same key are coalesced into one. Events without a key, and events that already failed, pass unchanged. In an enriched event only the value is inserted into the text; all other bytes stay the same.

If the key of an event is an array, the value is an object of the found values by key.

### When the provider is slow, faulty or unavailable

A batch waits at most ` + "`budget`" + `, even if the provider hangs, responds slowly, or sends invalid or unbounded data. A call may take ` + "`timeout`" + ` and is retried ` + "`retries`" + ` times with a randomised, doubling wait. A call that is still running when the budget expires continues, and its result is cached for later batches. If calls keep failing, the circuit opens: no batch waits until ` + "`circuit.open_for`" + ` has passed. Cached values are returned for ` + "`cache.stale_for`" + ` after they expired.

A request that the provider refuses because of its content (HTTP 400, 404 of a bulk request, 413, 422 and similar; a key that is not a number for a numeric column) is split in halves until the invalid key is isolated, so that only this key fails.

` + "`on_absent`" + ` is the policy for events if the key has no value, ` + "`on_failure`" + ` the policy for events if the lookup failed. A mark is the metadata ` + "`enrich_NAME`" + ` and a string at ` + "`context.enrichment_status.NAME`" + ` in the event: ` + "`absent`, `failed`, `timed_out` or `open`" + `. A feature can count marked events, and ` + "`traits.status`" + ` adds the same text as a trait of the customer.

### Traits

With ` + "`traits`" + `, an identify event is added to the batch for every customer with an enriched event, directly after the latest of these events. ` + "`update_profile`" + ` applies it like any other identify event: its ` + "`messageId`" + ` is derived from the enriched event's id and the name, its ` + "`timestamp`" + ` is the enriched event's, and its ` + "`source`" + ` is the name, for the ranking of sources. So a replay adds the same identify event again, and an old event that arrives late does not overwrite newer traits. The identify event contains only one id of the customer, so that it merges no customers. Place the processor directly before ` + "`update_profile`" + `.

### Metrics

- ` + "`enrich_lookups`" + `: keys by ` + "`result`" + `: ` + "`hit`, `stale`, `negative`" + ` (the absence is cached), ` + "`miss`" + ` (the provider answered), ` + "`failed`, `timed_out`, `open`" + `
- ` + "`enrich_events`" + `: events by ` + "`result`" + `: ` + "`enriched`, `passed`, `defaulted`, `marked`, `dead_letter`" + `
- ` + "`enrich_calls`" + `: calls by ` + "`result`" + `: ` + "`ok`, `failed`" + `
- ` + "`enrich_call_latency_ns`" + `: duration of calls
- ` + "`enrich_circuit`" + `: 0 closed, 1 half open, 2 open
- ` + "`enrich_file_reloads`" + `: reloads of files by ` + "`result`" + `: ` + "`ok`, `failed`" + `

All metrics have the label ` + "`enrichment`" + ` with the name. Metrics, log lines and errors contain no keys and no values.`

func init() {
	// Lint rules are compiled when the spec is built, so the function must be
	// registered first.
	if err := registerLintFunction(); err != nil {
		panic(err)
	}
	service.MustRegisterBatchProcessor(pluginName, spec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchProcessor, error) {
		return newProcessor(conf, res)
	})
}

// provider is a lookup.Provider with resources to release.
type provider interface {
	lookup.Provider
	close()
}

type processor struct {
	config
	loader   *lookup.Loader
	provider provider
	target   splice.Path
	// targetOverhead is the maximum number of bytes that are inserted in addition
	// to the value.
	targetOverhead int
	status         splice.Path
	work           sync.Pool // of *work

	lookups *service.MetricCounter
	events  *service.MetricCounter
}

func newProcessor(conf *service.ParsedConfig, res *service.Resources) (_ *processor, err error) {
	c, err := parseConfig(conf)
	if err != nil {
		return nil, err
	}
	p := &processor{config: c}
	if !c.enabled {
		return p, nil
	}
	if len(c.target) > 0 {
		p.target = splice.NewPath(c.target...)
		p.targetOverhead = len(p.target.Pointer())*6 + 8
	}
	p.status = splice.NewPath("context", "enrichment_status", c.name)
	p.work.New = func() any { return &work{index: map[string]int{}} }
	metrics := res.Metrics()
	p.lookups = metrics.NewCounter("enrich_lookups", "enrichment", "result")
	p.events = metrics.NewCounter("enrich_events", "enrichment", "result")

	o, err := p.options(res)
	if err != nil {
		return nil, err
	}
	if err := p.open(conf, res, &o); err != nil {
		return nil, err
	}
	if p.loader, err = lookup.New(p.provider, o); err != nil {
		p.provider.close()
		return nil, err
	}
	return p, nil
}

// open opens the source of values.
func (p *processor) open(conf *service.ParsedConfig, res *service.Resources, o *lookup.Options) (err error) {
	section := conf.Namespace(p.kind)
	r := results{p.result}
	reloads := res.Metrics().NewCounter("enrich_file_reloads", "enrichment", "result")
	reloaded := func(err error) {
		if err != nil {
			reloads.Incr(1, p.name, "failed")
			res.Logger().Errorf("The changed file of the enrichment %s is invalid, the last valid version stays in use: %v", p.name, err)
			return
		}
		reloads.Incr(1, p.name, "ok")
		res.Logger().Infof("The enrichment %s reloaded its file", p.name)
	}
	o.Local = !isRemote(p.kind)
	switch p.kind {
	case fieldHTTP:
		var h *httpProvider
		if h, err = newHTTP(section, r, p.timeout, p.maxInFlight); err == nil {
			p.provider = h
			if !h.bulk {
				o.BatchSize = 1
			}
		}
	case fieldRedis:
		p.provider, err = newRedis(section, r, p.timeout, p.maxInFlight)
	case fieldSQL:
		p.provider, err = newSQL(section, r, p.maxKeys, p.maxInFlight)
	case fieldCSV:
		var c *csvProvider
		if c, err = newCSV(section, r, reloaded); err == nil {
			p.provider, o.Version = c, c.version.Load
		}
	case fieldMMDB:
		var m *mmdbProvider
		if m, err = newMMDB(section, r, reloaded); err == nil {
			p.provider, o.Version = m, m.version.Load
		}
	}
	if err != nil {
		return fmt.Errorf("enrichment %s: %w", p.name, err)
	}
	return nil
}

func (p *processor) options(res *service.Resources) (lookup.Options, error) {
	metrics := res.Metrics()
	calls := metrics.NewCounter("enrich_calls", "enrichment", "result")
	latency := metrics.NewTimer("enrich_call_latency_ns", "enrichment")
	circuitState := metrics.NewGauge("enrich_circuit", "enrichment")
	circuitState.Set(0, p.name)
	o := lookup.Options{
		TTL: p.ttl, NegativeTTL: p.negativeTTL, StaleFor: p.stale, MaxBytes: p.cacheBytes,
		Timeout: p.timeout, Budget: p.budget, Retries: p.retries, RetryWait: p.retryWait,
		BatchSize: p.maxKeys, MaxInFlight: p.maxInFlight,
		Failures: p.failures, OpenFor: p.openFor, Probes: p.probes,
		OnCall: func(ok bool, took time.Duration) {
			result := "ok"
			if !ok {
				result = "failed"
			}
			calls.Incr(1, p.name, result)
			latency.Timing(took.Nanoseconds(), p.name)
		},
		OnCircuit: func(_, to circuit.State, reason string) {
			circuitState.Set(int64(to), p.name)
			switch to {
			case circuit.Open:
				res.Logger().Warnf("The circuit of the enrichment %s is open for %v: %s", p.name, p.openFor, reason)
			case circuit.HalfOpen:
				res.Logger().Infof("The circuit of the enrichment %s is half open: probing its provider", p.name)
			case circuit.Closed:
				res.Logger().Infof("The circuit of the enrichment %s is closed", p.name)
			}
		},
	}
	if p.shared != "" {
		if !res.HasCache(p.shared) {
			return o, fmt.Errorf("cache.shared: there is no cache resource %q: add an item with this label to cache_resources", p.shared)
		}
		o.Shared = &sharedCache{res, p.shared, p.name + ":"}
	}
	if p.rateLimit != "" {
		if !res.HasRateLimit(p.rateLimit) {
			return o, fmt.Errorf("rate_limit: there is no rate limit resource %q: add an item with this label to rate_limit_resources", p.rateLimit)
		}
		o.Limit = func(ctx context.Context) error { return waitFor(ctx, res, p.rateLimit) }
	}
	return o, nil
}

// waitFor blocks until a rate limit permits a call.
func waitFor(ctx context.Context, res *service.Resources, label string) error {
	for {
		var wait time.Duration
		var err error
		if accessErr := res.AccessRateLimit(ctx, label, func(r service.RateLimit) { wait, err = r.Access(ctx) }); accessErr != nil {
			return accessErr
		}
		if err != nil || wait <= 0 {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// sharedCache adapts a cache resource to lookup.Shared.
type sharedCache struct {
	res           *service.Resources
	label, prefix string
}

func (s *sharedCache) Get(ctx context.Context, key string) (value []byte, found bool) {
	err := s.res.AccessCache(ctx, s.label, func(c service.Cache) {
		var err error
		value, err = c.Get(ctx, s.prefix+key)
		found = err == nil
	})
	return value, found && err == nil
}

func (s *sharedCache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) {
	_ = s.res.AccessCache(ctx, s.label, func(c service.Cache) {
		_ = c.Set(ctx, s.prefix+key, value, &ttl)
	})
}

// work is the scratch memory of a batch. It is pooled.
type work struct {
	parser event.Parser
	keys   []string
	index  map[string]int
	refs   []int // indexes of keys
	items  []item
}

// item is an event of a batch with the keys refs[first:first+n].
type item struct {
	msg      int
	first, n int
	array    bool
}

func (w *work) reset() {
	clear(w.index)
	clear(w.keys)
	w.keys, w.refs, w.items = w.keys[:0], w.refs[:0], w.items[:0]
}

func (w *work) key(key []byte) {
	i, ok := w.index[string(key)]
	if !ok {
		i = len(w.keys)
		w.keys = append(w.keys, string(key))
		w.index[w.keys[i]] = i
	}
	w.refs = append(w.refs, i)
}

// ProcessBatch implements service.BatchProcessor.
func (p *processor) ProcessBatch(ctx context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	if !p.enabled {
		return []service.MessageBatch{batch}, nil
	}
	w := p.work.Get().(*work)
	defer p.work.Put(w)
	w.reset()
	for i, msg := range batch {
		p.collect(w, i, msg)
	}
	if len(w.items) == 0 {
		return []service.MessageBatch{batch}, nil
	}
	answers := p.loader.Get(ctx, w.keys)
	if ctx.Err() != nil {
		return nil, ctx.Err() // shutdown is not a failure of the lookup
	}
	var lookups [len(resultLabels)]int64
	for _, a := range answers {
		lookups[a.Result]++
	}
	for result, n := range lookups {
		if n > 0 {
			p.lookups.Incr(n, p.name, resultLabels[result])
		}
	}
	var outcomes [outcomeCount]int64
	var statements []statement
	for _, it := range w.items {
		o := p.combine(w, it, batch[it.msg], answers)
		msg, outcome := p.apply(batch[it.msg], o)
		batch[it.msg] = msg
		outcomes[outcome]++
		if p.traits && msg.GetError() == nil && outcome != passed {
			statements = append(statements, statement{it.msg, o})
		}
	}
	for outcome, n := range outcomes {
		if n > 0 {
			p.events.Incr(n, p.name, outcomeNames[outcome])
		}
	}
	if len(statements) > 0 {
		batch = p.addTraits(w, batch, statements)
	}
	return []service.MessageBatch{batch}, nil
}

var resultLabels = func() (labels [7]string) {
	for _, r := range lookup.Results() {
		labels[r] = r.String()
	}
	return labels
}()

// collect adds the keys of an event to w. It ignores events that cannot be parsed;
// other stages reject them.
func (p *processor) collect(w *work, i int, msg *service.Message) {
	if msg.GetError() != nil {
		return
	}
	raw, err := msg.AsBytes()
	if err != nil {
		return
	}
	e, err := w.parser.Parse(raw)
	if err != nil || p.config.events != nil && !p.config.events[string(e.Name)] {
		return
	}
	first := len(w.refs)
	array := p.key.visit(e, msg, w.key)
	if n := len(w.refs) - first; n > 0 {
		w.items = append(w.items, item{i, first, n, array})
	}
}

// Close implements service.BatchProcessor.
func (p *processor) Close(context.Context) error {
	if p.loader != nil {
		p.loader.Close()
		p.provider.close()
	}
	return nil
}

// outcome is the effect of the processor on an event.
type outcome int

const (
	enriched outcome = iota
	passed
	defaulted
	marked
	rejected
	outcomeCount
)

var outcomeNames = [outcomeCount]string{"enriched", "passed", "defaulted", "marked", "dead_letter"}

const (
	statusOK     = "ok"
	statusAbsent = "absent"
)

// found is the result of the lookups for an event.
type found struct {
	key   string // the key, if it is not an array
	value []byte // nil if there is no value to write
	// status is statusOK, statusAbsent, or the result of a failed lookup. For an
	// array of keys it is the worst status.
	status string
	policy policy
}

// combine returns the result of the lookups for an event's keys.
func (p *processor) combine(w *work, it item, msg *service.Message, answers []lookup.Answer) found {
	refs := w.refs[it.first : it.first+it.n]
	f := found{status: statusOK}
	resolve := func(a lookup.Answer) (value []byte) {
		switch {
		case a.Found():
			return a.Value
		case a.Known():
			if f.status == statusOK {
				f.status, f.policy = statusAbsent, p.onAbsent
			}
			if p.onAbsent == policyDefault {
				return p.defaultValue
			}
		default:
			if f.status == statusOK || f.status == statusAbsent {
				f.status, f.policy = a.Result.String(), p.onFailure
			}
			if p.onFailure == policyDefault {
				return p.defaultValue
			}
		}
		return nil
	}
	if !it.array {
		f.key = w.keys[refs[0]]
		f.value = resolve(answers[refs[0]])
	} else {
		f.value = p.object(w, refs, answers, resolve)
	}
	if f.value != nil && p.eventResult != nil {
		value, err := p.mapEvent(msg, f)
		if err != nil {
			f.status, f.policy = lookup.Failed.String(), p.onFailure
			if p.onFailure == policyDefault {
				value = p.defaultValue
			}
		}
		f.value = value
	}
	return f
}

// object returns an object of the values of an array's keys, or nil if there are none.
func (p *processor) object(w *work, refs []int, answers []lookup.Answer, resolve func(lookup.Answer) []byte) []byte {
	object := []byte{'{'}
	seen := make(map[int]bool, len(refs))
	for _, ref := range refs {
		if seen[ref] {
			continue
		}
		seen[ref] = true
		value := resolve(answers[ref])
		if value == nil {
			continue
		}
		name, err := encode(w.keys[ref])
		if err != nil {
			continue
		}
		if len(object) > 1 {
			object = append(object, ',')
		}
		object = append(append(append(object, name...), ':'), value...)
	}
	if len(object) == 1 {
		return nil
	}
	return append(object, '}')
}

func (p *processor) mapEvent(msg *service.Message, f found) ([]byte, error) {
	event, err := msg.AsStructured()
	if err != nil {
		return nil, err
	}
	value, err := decode(f.value)
	if err != nil {
		return nil, err
	}
	v, ok, err := query(p.eventResult, map[string]any{"event": event, "key": f.key, "value": value})
	if err != nil || !ok {
		return nil, err
	}
	return encode(v)
}

// apply writes the value into an event, or applies the policy.
func (p *processor) apply(msg *service.Message, f found) (*service.Message, outcome) {
	if f.policy == policyDeadLetter {
		reason := rejection.Reason{Pointer: p.key.pointer(), Rule: f.status, Message: p.name + ": " + statusMessages[f.status]}
		msg.SetError(&rejection.Error{Stage: pluginName, Reasons: []rejection.Reason{reason}})
		return msg, rejected
	}
	result := enriched
	switch {
	case f.policy == policyMark:
		result = marked
	case f.policy == policyDefault:
		result = defaulted
	case f.policy == policyPass || f.value == nil:
		result = passed
	}
	write := f.value != nil && len(p.config.target) > 0
	if !write && result != marked {
		return msg, result
	}
	doc, err := msg.AsBytes()
	if err != nil {
		msg.SetError(err)
		return msg, rejected
	}
	if write {
		buffer := make([]byte, 0, len(doc)+len(f.value)+p.targetOverhead)
		doc, err = splice.Set(buffer, doc, p.target, f.value)
	}
	if err == nil && result == marked {
		doc, err = splice.Set(nil, doc, p.status, []byte(`"`+f.status+`"`))
	}
	if err != nil {
		return p.unwritable(msg, err), rejected
	}
	if p.keepOriginal {
		msg = deadletter.KeepOriginal(msg)
	}
	if result == marked {
		msg.MetaSetMut("enrich_"+p.name, f.status)
	}
	msg.SetBytes(doc)
	return msg, result
}

var statusMessages = map[string]string{
	statusAbsent:             "there is no value for the key",
	lookup.Failed.String():   "the lookup of the key failed",
	lookup.TimedOut.String(): "the lookup of the key timed out",
	lookup.Open.String():     "the key was not looked up because the circuit is open",
}

// unwritable rejects an event in which the target path is not an object.
func (p *processor) unwritable(msg *service.Message, err error) *service.Message {
	reason := rejection.Reason{Rule: "type", Message: p.name + ": the value cannot be written into the event"}
	var parent *splice.ParentError
	if errors.As(err, &parent) {
		reason.Pointer, reason.Message = parent.Pointer, p.name+": must be an object so that the value can be written into it"
	}
	msg.SetError(&rejection.Error{Stage: pluginName, Reasons: []rejection.Reason{reason}})
	return msg
}
