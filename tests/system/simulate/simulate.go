// Package simulate runs days of the synthetic shop in minutes, and checks that
// every trigger fired at exactly the right time for the right customers:
//
//	go run ./tests/system simulate -days 90
//
// Two processes read the shop's events from Kafka into profiles in Redis. Two more
// fire the triggers of configs/retail/profile.yaml and of segments.yaml here, and
// publish to a topic. All of them, Redis and Kafka are killed from time to time.
//
// The processes are built with a clock that the suite sets, one hour at a time.
// In each hour, first all events are processed while the clock of the publishing
// processes stands at 1970. Then that clock moves to the end of the hour, until no
// trigger is due any more. Once a day the publishing processes also sweep: they
// re-evaluate the segments of all customers, as time alone moves customers into
// segments. The result therefore does not depend on the kills, and an independent
// oracle (oracle.go) computes it. At the end the suite compares the ids, times and
// contents of all messages in the topic, and the members of all segments.
package simulate

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/shop"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
	"github.com/connect-personalize/connect-personalize/plugins/store"
	"github.com/connect-personalize/connect-personalize/plugins/store/redis"
	"github.com/connect-personalize/connect-personalize/tests/process"
	"github.com/connect-personalize/connect-personalize/tests/system/kafka"
)

type options struct {
	days, customers int
	daily           float64
	kills           float64
	seed            uint64
	keep            bool
	binary          string
	timeout         time.Duration
}

// Run runs the suite with the given flags.
func Run(ctx context.Context, args []string) error {
	var o options
	flag := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flag.IntVar(&o.days, "days", 90, "number of simulated days")
	flag.IntVar(&o.customers, "customers", 1000, "customers of the shop")
	flag.Float64Var(&o.daily, "daily", 1, "events per day of the average customer")
	flag.Float64Var(&o.kills, "kills", 0, "approximate number of kills, besides those before sweeps; 0 is eight, and one more for every two days")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the shop and of the kills")
	flag.BoolVar(&o.keep, "keep", false, "keep the logs of the processes")
	flag.StringVar(&o.binary, "binary", "", "program to test, built with the tag simulation; built by default")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "maximum duration of the whole run")
	if err := flag.Parse(args); err != nil {
		return err
	}
	if o.kills == 0 {
		o.kills = 8 + float64(o.days)/2
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	s := &simulation{options: o, began: time.Now(), id: fmt.Sprintf("simulate-%d", os.Getpid())}
	err := s.run(ctx)
	s.stop()
	if err == nil {
		s.say("every expected firing happened exactly once, no other did, and all segments equal the recomputed ones")
	}
	return err
}

type simulation struct {
	options
	began               time.Time
	id, dir             string
	seeds, redisURL     string
	events, changes     string
	eventsClock         string // file with the time of the workers
	firingClock         string // file with the time of the publishing processes
	workers, publishers []*process.Process
	broker              *kafka.Client
	store               store.Store
	oracle              *shopOracle
	expected            map[string]firing
	rand                *rand.Rand
	victims             []victim       // to kill next, the last first
	killed              map[string]int // number of kills by kind
	sweeps              int
}

func (s *simulation) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *simulation) stop() {
	for _, p := range slices.Concat(s.workers, s.publishers) {
		p.Kill()
	}
	if s.broker != nil {
		s.broker.Close()
	}
	if s.store != nil {
		_ = s.store.Close()
	}
	ctx := context.Background()
	for _, service := range []string{"redis.sh", "kafka.sh"} {
		if _, err := process.Service(ctx, service, "stop", s.id); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	switch {
	case s.keep:
		s.say("logs are in %s", s.dir)
	case s.dir != "":
		_ = os.RemoveAll(s.dir)
	}
}

// begin is the start of the simulation: a month before Europe changes its clocks.
var begin = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func (s *simulation) run(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	stream, err := shop.New(shop.Settings{
		Seed: s.seed, Start: begin, Customers: s.customers, DailyEvents: s.daily,
		Late: 0.03, MaxLateness: 12 * time.Hour, Duplicated: 0.02,
	})
	if err != nil {
		return err
	}
	next := stream.Next()
	hours := s.days * 24
	for i := range hours {
		now := begin.Add(time.Duration(i+1) * time.Hour)
		var batch [][]byte
		for ; !next.Received.After(now); next = stream.Next() {
			batch = append(batch, next.Data)
		}
		if err := s.hour(ctx, now, batch, s.rand.Float64() < s.kills/float64(hours)); err != nil {
			return fmt.Errorf("%s: %w", now.Format(time.DateTime), err)
		}
		if (i+1)%(24*max(1, s.days/10)) == 0 {
			s.say("day %d: %d events, %d firings expected, %d kills", (i+1)/24, s.oracle.events, len(s.expected), s.killCount())
		}
	}
	return s.compare(ctx, begin.Add(time.Duration(hours)*time.Hour))
}

func (s *simulation) prepare(ctx context.Context) (err error) {
	s.rand = rand.New(rand.NewPCG(s.seed, 7))
	s.oracle, s.expected, s.killed = newOracle(), map[string]firing{}, map[string]int{}
	if s.dir, err = os.MkdirTemp("", "simulate-"); err != nil {
		return err
	}
	s.eventsClock, s.firingClock = filepath.Join(s.dir, "events.clock"), filepath.Join(s.dir, "firing.clock")
	if err := errors.Join(setClock(s.eventsClock, begin), setClock(s.firingClock, time.Unix(0, 0))); err != nil {
		return err
	}
	if s.binary == "" {
		if s.binary, err = process.Build(ctx, s.dir, "simulation"); err != nil {
			return err
		}
	}
	// The time to build does not count.
	s.began = time.Now()
	// A killed broker waits until its previous session times out.
	if s.seeds, err = process.Service(ctx, "kafka.sh", "start", s.id, "--", "broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500"); err != nil {
		return err
	}
	// With `always`, acknowledged writes survive kill -9 of Redis.
	if s.redisURL, err = process.Service(ctx, "redis.sh", "start", s.id, "always"); err != nil {
		return err
	}
	s.events, s.changes = s.id+"-events", s.id+"-changes"
	if s.broker, err = kafka.Connect(s.seeds); err != nil {
		return err
	}
	if err := s.broker.CreateTopics(ctx, 8, s.events, s.changes, s.id+"-dead"); err != nil {
		return err
	}
	if s.store, err = redis.Open(redis.Options{URL: s.redisURL, Prefix: s.id}); err != nil {
		return err
	}
	configs, err := s.configs()
	if err != nil {
		return err
	}
	env := []string{
		"KAFKA_SEEDS=" + s.seeds, "REDIS_URL=" + s.redisURL, "REDIS_PREFIX=" + s.id, "EVENTS_TOPIC=" + s.events,
		"CHANGES_TOPIC=" + s.changes, "DEAD_LETTERS_TOPIC=" + s.id + "-dead", "CONSUMER_GROUP=" + s.id,
		"PROFILE_DEFINITION=" + filepath.Join(s.dir, "profile.yaml"), "PIPELINE_THREADS=2", "GOMAXPROCS=1",
	}
	add := func(name, config, clock string) (*process.Process, error) {
		address, err := process.FreeAddress()
		if err != nil {
			return nil, err
		}
		p := &process.Process{Name: name, Binary: s.binary, Config: config, HTTP: address, Log: filepath.Join(s.dir, name+".log")}
		p.Env = append(slices.Clone(env), "HTTP_ADDRESS="+address, "SIMULATED_CLOCK="+clock, "INSTANCE_ID="+name)
		return p, p.Start()
	}
	for i := range 2 {
		w, err := add(fmt.Sprintf("profiles-%d", i+1), configs[0], s.eventsClock)
		if err != nil {
			return err
		}
		f, err := add(fmt.Sprintf("changes-%d", i+1), configs[1], s.firingClock)
		if err != nil {
			return errors.Join(err, w.Wait(0))
		}
		s.workers, s.publishers = append(s.workers, w), append(s.publishers, f)
	}
	s.say("%d days of %d customers, through Kafka at %s and Redis at %s", s.days, s.customers, s.seeds, s.redisURL)
	return nil
}

// configs writes the configs of the processes: the shipped ones with a short
// commit period, as the suite waits for commits.
func (s *simulation) configs() (paths [2]string, err error) {
	for i, path := range []string{"configs/retail/profiles.yaml", "tests/system/simulate/changes.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			return paths, err
		}
		group := "    consumer_group:"
		text = []byte(strings.Replace(string(text), group, "    commit_period: 100ms\n"+group, 1))
		paths[i] = filepath.Join(s.dir, fmt.Sprintf("config-%d.yaml", i+1))
		if err := os.WriteFile(paths[i], text, 0o600); err != nil {
			return paths, err
		}
	}
	definition, err := os.ReadFile("configs/retail/profile.yaml")
	if err != nil {
		return paths, err
	}
	more, err := os.ReadFile("tests/system/simulate/segments.yaml")
	if err != nil {
		return paths, err
	}
	if definition, err = joined(definition, more); err != nil {
		return paths, err
	}
	return paths, os.WriteFile(filepath.Join(s.dir, "profile.yaml"), definition, 0o600)
}

// joined appends the lists of one definition to the lists of another.
func joined(definition, more []byte) ([]byte, error) {
	var into, from map[string]any
	if err := errors.Join(yaml.Unmarshal(definition, &into), yaml.Unmarshal(more, &from)); err != nil {
		return nil, err
	}
	for name, items := range from {
		before, ok := into[name].([]any)
		if !ok {
			return nil, fmt.Errorf("the definition of the shop has no %s", name)
		}
		into[name] = append(before, items.([]any)...)
	}
	return yaml.Marshal(into)
}

// victim is a process or service to kill and restart, while events are processed
// or while triggers fire.
type victim struct {
	kind   string
	firing bool
	hit    func(context.Context) error
}

// next returns the next victim: each in turn, in another random order each time.
// Publishing processes are killed more often than others.
func (s *simulation) next() victim {
	if len(s.victims) == 0 {
		for _, w := range s.workers {
			s.victims = append(s.victims, victim{"a worker", false, s.restart(w)})
		}
		for _, f := range s.publishers {
			s.victims = append(s.victims, victim{"a publisher", true, s.restart(f)})
		}
		for range 3 {
			s.victims = append(s.victims, victim{"all publishers", true, s.restart(s.publishers...)})
		}
		for _, firing := range []bool{false, true} {
			s.victims = append(s.victims, victim{"Redis", firing, s.restartService("redis.sh")}, victim{"Kafka", firing, s.restartService("kafka.sh")})
		}
		s.rand.Shuffle(len(s.victims), func(i, j int) { s.victims[i], s.victims[j] = s.victims[j], s.victims[i] })
	}
	last := len(s.victims) - 1
	v := s.victims[last]
	s.victims = s.victims[:last]
	return v
}

func (s *simulation) kill(ctx context.Context, v victim) error {
	s.killed[v.kind]++
	return v.hit(ctx)
}

func (s *simulation) restart(all ...*process.Process) func(context.Context) error {
	return func(context.Context) (err error) {
		for _, p := range all {
			p.Kill()
		}
		for _, p := range all {
			err = errors.Join(err, p.Start())
		}
		return err
	}
}

func (s *simulation) restartService(script string) func(context.Context) error {
	return func(ctx context.Context) error {
		if _, err := process.Service(ctx, script, "kill", s.id); err != nil {
			return err
		}
		_, err := process.Service(ctx, script, "restart", s.id)
		return err
	}
}

func (s *simulation) killCount() (n int) {
	for _, times := range s.killed {
		n += times
	}
	return n
}

// isSweepHour reports whether all customers are re-evaluated in an hour: the first
// of every day, by sweep_interval in changes.yaml.
func isSweepHour(now time.Time) bool { return now.Sub(begin)%(24*time.Hour) == time.Hour }

// hour simulates one hour.
func (s *simulation) hour(ctx context.Context, now time.Time, batch [][]byte, kill bool) error {
	if err := setClock(s.eventsClock, now); err != nil {
		return err
	}
	var v victim
	if kill {
		v = s.next()
	}
	if err := s.feed(ctx, batch, v); err != nil {
		return err
	}
	if isSweepHour(now) {
		// A publisher checks whether a sweep is due at its start, and every few seconds.
		s.killed["all publishers"]++
		for _, f := range s.publishers {
			f.Kill()
		}
	}
	if err := setClock(s.firingClock, now); err != nil {
		return err
	}
	if isSweepHour(now) {
		if err := s.sweep(ctx, now); err != nil {
			return err
		}
	}
	if v.firing {
		// A short random pause hits them while they fire or publish.
		time.Sleep(time.Duration(s.rand.IntN(60)) * time.Millisecond)
		if err := s.kill(ctx, v); err != nil {
			return err
		}
	}
	if err := s.until(ctx, "due triggers to be decided", func() (bool, error) {
		page, err := s.store.ScanIndex(ctx, record.TriggerIndex, "", record.FormatTime(now.UnixMilli()+1), store.IndexEntry{}, 1)
		return len(page) == 0, err
	}); err != nil {
		return err
	}
	if err := setClock(s.firingClock, time.Unix(0, 0)); err != nil {
		return err
	}
	for _, raw := range batch {
		if err := s.oracle.add(raw); err != nil {
			return err
		}
	}
	s.oracle.evaluateSegments(now.UnixMilli(), isSweepHour(now))
	for _, f := range s.oracle.step(now.UnixMilli()) {
		if _, twice := s.expected[f.ID]; twice {
			return fmt.Errorf("the oracle expects %s twice", f.ID)
		}
		s.expected[f.ID] = f
	}
	return nil
}

// feed sends events and waits until they are processed.
func (s *simulation) feed(ctx context.Context, batch [][]byte, v victim) error {
	records := make([]kafka.Record, len(batch))
	for i, raw := range batch {
		records[i] = kafka.Record{Key: keyOf(raw), Value: raw}
	}
	flush := s.broker.Send(ctx, s.events, records)
	if v.hit != nil && !v.firing {
		if err := s.kill(ctx, v); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if len(batch) == 0 {
		return nil
	}
	return s.until(ctx, "events to be processed", func() (bool, error) {
		lag, err := s.broker.Lag(ctx, s.id, s.events)
		return err == nil && lag <= 0, err
	})
}

// sweepRecord is the key of the record that coordinates sweeps.
const sweepRecord = "!sweep"

// sweep starts the publishers and waits until one of them has evaluated all
// customers.
func (s *simulation) sweep(ctx context.Context, now time.Time) error {
	for _, f := range s.publishers {
		if err := f.Start(); err != nil {
			return err
		}
	}
	s.sweeps++
	return s.until(ctx, "all customers to be evaluated", func() (bool, error) {
		records, err := s.store.Load(ctx, []string{sweepRecord})
		if err != nil || records[0].Version == store.Absent {
			return false, err
		}
		var state struct{ Finished int64 }
		err = json.Unmarshal(records[0].Data, &state)
		return state.Finished == now.UnixMilli(), err
	})
}

// until calls a function every few milliseconds until it returns true. A service
// may fail for a while; a process must not end by itself.
func (s *simulation) until(ctx context.Context, condition string, check func() (bool, error)) error {
	var last error
	err := process.Until(ctx, condition, 2*time.Minute, 5*time.Millisecond, func() (bool, error) {
		var ok bool
		if ok, last = check(); ok && last == nil {
			return true, nil
		}
		var ended error
		for _, p := range slices.Concat(s.workers, s.publishers) {
			ended = errors.Join(ended, p.Alive())
		}
		return false, ended
	})
	if err != nil {
		err = errors.Join(err, last)
	}
	return err
}

// compare waits until everything is published, and compares it with the oracle.
func (s *simulation) compare(ctx context.Context, end time.Time) error {
	// Leases of killed publishers expire.
	end = end.Add(time.Hour)
	if err := s.hour(ctx, end, nil, false); err != nil {
		return err
	}
	if err := s.until(ctx, "everything to be published", func() (bool, error) {
		// An idle publisher polls again when the clock moves.
		for _, now := range []time.Time{time.Unix(0, 0), end} {
			if err := setClock(s.firingClock, now); err != nil {
				return false, err
			}
			time.Sleep(50 * time.Millisecond)
		}
		page, err := s.store.ScanIndex(ctx, record.OutboxIndex, "", "", store.IndexEntry{}, 1)
		return len(page) == 0, err
	}); err != nil {
		return err
	}
	got, copies, err := s.published(ctx)
	if err != nil {
		return err
	}
	missing, unexpected, different := 0, 0, 0
	report := func(difference string, n int, f firing) {
		if n <= 5 {
			s.say("%s: %s %s of %s, cause %s, due %s, at %s, id %s", difference, f.Event, f.Trigger, f.Customer, stamp(f.CauseAt), stamp(f.DueAt), stamp(f.At), f.ID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.expected)) {
		f, there := got[id]
		switch {
		case !there:
			missing++
			report("MISSING", missing, s.expected[id])
		case f != s.expected[id]:
			different++
			report("EXPECTED", different, s.expected[id])
			report("GOT", different, f)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if _, there := s.expected[id]; !there {
			unexpected++
			report("UNEXPECTED", unexpected, got[id])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.oracle.outcomes)) {
		s.say("%-28s %6d", name, s.oracle.outcomes[name])
	}
	var kills []string
	for _, kind := range slices.Sorted(maps.Keys(s.killed)) {
		kills = append(kills, fmt.Sprintf("%d of %s", s.killed[kind], kind))
	}
	s.say("%d events, %d customers, %d anonymous visitors, %d sweeps", s.oracle.events, len(s.oracle.customers), len(s.oracle.visitors), s.sweeps)
	s.say("%d kills: %s", s.killCount(), strings.Join(kills, ", "))
	s.say("%d firings expected, %d published in %d messages: %d missing, %d unexpected, %d different", len(s.expected), len(got), copies, missing, unexpected, different)
	if missing+unexpected+different > 0 {
		return errors.New("the firings differ from the expected ones")
	}
	for _, r := range rules {
		// Some segments need a few days until a customer enters them.
		if r.segment != "" && s.days >= 7 && s.oracle.outcomes[r.name+" fired"] == 0 {
			return fmt.Errorf("no trigger on segment %s fired: the run proves nothing", r.segment)
		}
	}
	return s.compareSegments(ctx, end.UnixMilli())
}

// compareSegments compares the indexes of segments with their members by a full
// recomputation from the events.
func (s *simulation) compareSegments(ctx context.Context, now int64) error {
	wrong := 0
	for _, segment := range segments {
		index := record.SegmentIndex + segment.name
		n, err := s.store.CountIndex(ctx, index, "", "")
		if err != nil {
			return err
		}
		members, err := s.store.ScanIndex(ctx, index, "", "", store.IndexEntry{}, int(n)+1)
		if err != nil {
			return err
		}
		got := map[string]bool{}
		for _, e := range members {
			got[e.Key] = true
		}
		want := s.oracle.members(segment, now)
		if int(n) == len(want) && maps.Equal(got, want) {
			s.say("segment %-20s %6d members, as recomputed", segment.name, n)
			continue
		}
		wrong++
		s.say("segment %-20s %6d members by count, %d by scan, %d recomputed", segment.name, n, len(got), len(want))
		for _, key := range slices.Sorted(maps.Keys(got)) {
			if !want[key] {
				s.say("UNEXPECTED member of %s: %s: %s", segment.name, key, s.stored(ctx, key))
			}
			delete(want, key)
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			s.say("MISSING member of %s: %s: %s", segment.name, key, s.stored(ctx, key))
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d segments are not as recomputed", wrong)
	}
	return nil
}

// stored describes the stored profile of a customer of the synthetic shop, and the
// last sweep.
func (s *simulation) stored(ctx context.Context, key string) string {
	def, err := profiledefinition.Read(filepath.Join(s.dir, "profile.yaml"))
	if err != nil {
		return err.Error()
	}
	found, err := customers.New(def, s.store, customers.Options{}).Export(ctx, record.KeyID(key), "")
	if err != nil {
		return err.Error()
	}
	records, err := s.store.Load(ctx, []string{key, sweepRecord})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s; its record has %d bytes; %s", found.JSON, len(records[0].Data), records[1].Data)
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000") }

// published reads the topic of changes and returns the firings in it by id, and
// the number of messages. Messages with the same id must be equal.
func (s *simulation) published(ctx context.Context) (map[string]firing, int, error) {
	texts, all, copies := map[string]string{}, map[string]firing{}, 0
	err := s.broker.Read(ctx, s.changes, func(value []byte) error {
		var m struct {
			Event, MessageID, UserID string
			Timestamp                time.Time
			Properties               struct {
				Trigger string
				Cause   time.Time `json:"cause_at"`
				Due     time.Time `json:"due_at"`
			}
		}
		if err := json.Unmarshal(value, &m); err != nil {
			return err
		}
		if !strings.HasPrefix(m.Event, "Trigger ") {
			return nil
		}
		copies++
		if text, again := texts[m.MessageID]; again && text != string(value) {
			return fmt.Errorf("two messages of id %s differ", m.MessageID)
		}
		texts[m.MessageID] = string(value)
		all[m.MessageID] = firing{m.MessageID, m.UserID, m.Properties.Trigger, m.Event, m.Properties.Cause.UnixMilli(), m.Properties.Due.UnixMilli(), m.Timestamp.UnixMilli()}
		return nil
	})
	return all, copies, err
}

// keyOf returns the customer id of an event, as the collector does.
func keyOf(raw []byte) []byte {
	h, err := read(raw)
	if err != nil {
		panic(err) // the shop generates valid events only
	}
	if h.UserID != "" {
		return []byte(h.UserID)
	}
	return []byte(h.AnonymousID)
}

func setClock(path string, now time.Time) error {
	text := binary.LittleEndian.AppendUint64(nil, uint64(now.UnixMilli()))
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
