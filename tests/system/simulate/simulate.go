// Command simulate lets days of the synthetic shop go by in minutes, and checks
// that every trigger fired exactly when and for whom it should:
//
//	go run ./tests/system simulate -days 90
//
// Two processes take the shop's events from Kafka into profiles in Redis, two
// more fire the triggers of configs/retail/profile.yaml, and those of
// tests/system/simulate/segments.yaml, into a topic. All of them are killed now and
// then, and so are Redis and Kafka. The processes are built with a clock that
// the suite sets: an hour at a time. Within an hour first all events are taken
// in, while for the processes that fire it is 1970; then it is the end of the
// hour, until nothing is due any more. Once a day those who fire also judge all
// customers anew, so that some enter segments because time has passed. So it is
// known what has to happen, whatever is killed in between, and an oracle that
// knows the triggers and segments by heart tells it. At the end the ids, times
// and contents of all messages in the topic are compared with it, and so is who
// is in which segment.
//
// It starts the services it needs and ends them. Run it in the root of the
// repository.
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
	killing         float64
	seed            uint64
	keep            bool
	binary          string
	timeout         time.Duration
}

// Run runs the suite with the given flags.
func Run(ctx context.Context, args []string) error {
	var o options
	flag := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flag.IntVar(&o.days, "days", 90, "how many days go by")
	flag.IntVar(&o.customers, "customers", 1000, "of the shop")
	flag.Float64Var(&o.daily, "daily", 1, "events a day of the average customer")
	flag.Float64Var(&o.killing, "kills", 0, "about how often something is killed, besides those who fire once a day; 0 for eight, and one more every two days")
	flag.Uint64Var(&o.seed, "seed", 1, "of the shop, and of what is killed when")
	flag.BoolVar(&o.keep, "keep", false, "keep the logs of the processes")
	flag.StringVar(&o.binary, "binary", "", "the program to test, built with the tag simulation; built if not named")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "when to give up")
	if err := flag.Parse(args); err != nil {
		return err
	}
	if o.killing == 0 {
		o.killing = 8 + float64(o.days)/2
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
	began           time.Time
	id, dir         string
	seeds, redisURL string
	events, changes string
	eventsClock     string // the time for those who take events in
	firingClock     string // the time for those who fire
	workers, firers []*process.Process
	broker          *kafka.Client
	store           store.Store
	oracle          *shopOracle
	expected        map[string]firing
	rand            *rand.Rand
	victims         []victim       // to be hit next, the last first
	killed          map[string]int // by what
	sweeps          int
}

func (s *simulation) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *simulation) stop() {
	for _, p := range slices.Concat(s.workers, s.firers) {
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

// begin of the simulation: a month before the clocks of Europe change.
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
		if err := s.hour(ctx, now, batch, s.rand.Float64() < s.killing/float64(hours)); err != nil {
			return fmt.Errorf("%s: %w", now.Format(time.DateTime), err)
		}
		if (i+1)%(24*max(1, s.days/10)) == 0 {
			s.say("day %d: %d events, %d firings expected, %d kills", (i+1)/24, s.oracle.events, len(s.expected), s.kills())
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
	// What is built before anything goes by does not count.
	s.began = time.Now()
	// A broker that was killed waits until its session from before is over.
	if s.seeds, err = process.Service(ctx, "kafka.sh", "start", s.id, "--", "broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500"); err != nil {
		return err
	}
	// Redis may be killed without forgetting.
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
		s.workers, s.firers = append(s.workers, w), append(s.firers, f)
	}
	s.say("%d days of %d customers, through Kafka at %s and Redis at %s", s.days, s.customers, s.seeds, s.redisURL)
	return nil
}

// configs writes the configs of the processes: those that are shipped, but that
// offsets are committed at once, since the suite waits for them.
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

// joined adds the items of the lists in one definition to those of another.
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

// victim is something to kill and start again, while events are taken in or
// while triggers fire.
type victim struct {
	what   string
	firing bool
	hit    func(context.Context) error
}

// next is what is killed next: everything in turn, in another order each time.
// Those who fire are hit the more often.
func (s *simulation) next() victim {
	if len(s.victims) == 0 {
		for _, w := range s.workers {
			s.victims = append(s.victims, victim{"a worker", false, s.restart(w)})
		}
		for _, f := range s.firers {
			s.victims = append(s.victims, victim{"one that fires", true, s.restart(f)})
		}
		for range 3 {
			s.victims = append(s.victims, victim{"all that fire", true, s.restart(s.firers...)})
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
	s.killed[v.what]++
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

func (s *simulation) kills() (n int) {
	for _, times := range s.killed {
		n += times
	}
	return n
}

// sweeping tells whether all customers are judged anew in an hour: in the first
// of every day, as sweep_interval in changes.yaml says.
func sweeping(now time.Time) bool { return now.Sub(begin)%(24*time.Hour) == time.Hour }

// hour lets an hour go by.
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
	if sweeping(now) {
		// They look whether a sweep is due when they start, and every few seconds.
		s.killed["all that fire"]++
		for _, f := range s.firers {
			f.Kill()
		}
	}
	if err := setClock(s.firingClock, now); err != nil {
		return err
	}
	if sweeping(now) {
		if err := s.sweep(ctx, now); err != nil {
			return err
		}
	}
	if v.firing {
		// The more often in the midst of firing, or of telling.
		time.Sleep(time.Duration(s.rand.IntN(60)) * time.Millisecond)
		if err := s.kill(ctx, v); err != nil {
			return err
		}
	}
	if err := s.until(ctx, "what is due to be decided", func() (bool, error) {
		page, err := s.store.ScanIndex(ctx, record.TriggerIndex, "", record.FormatTime(now.UnixMilli()+1), store.IndexEntry{}, 1)
		return len(page) == 0, err
	}); err != nil {
		return err
	}
	if err := setClock(s.firingClock, time.Unix(0, 0)); err != nil {
		return err
	}
	for _, raw := range batch {
		if err := s.oracle.take(raw); err != nil {
			return err
		}
	}
	s.oracle.judge(now.UnixMilli(), sweeping(now))
	for _, f := range s.oracle.step(now.UnixMilli()) {
		if _, twice := s.expected[f.ID]; twice {
			return fmt.Errorf("the oracle expects %s twice", f.ID)
		}
		s.expected[f.ID] = f
	}
	return nil
}

// feed sends events, and waits until they are taken in.
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
	return s.until(ctx, "events to be taken in", func() (bool, error) {
		lag, err := s.broker.Lag(ctx, s.id, s.events)
		return err == nil && lag <= 0, err
	})
}

// sweepRecord is the record in which those who sweep agree.
const sweepRecord = "!sweep"

// sweep starts those who fire, and waits until one of them has judged all
// customers.
func (s *simulation) sweep(ctx context.Context, now time.Time) error {
	for _, f := range s.firers {
		if err := f.Start(); err != nil {
			return err
		}
	}
	s.sweeps++
	return s.until(ctx, "all customers to be judged", func() (bool, error) {
		records, err := s.store.Load(ctx, []string{sweepRecord})
		if err != nil || records[0].Version == store.Absent {
			return false, err
		}
		var state struct{ Finished int64 }
		err = json.Unmarshal(records[0].Data, &state)
		return state.Finished == now.UnixMilli(), err
	})
}

// until asks, every few milliseconds, until the answer is yes. A service may
// not answer for a while; a process must not end by itself.
func (s *simulation) until(ctx context.Context, what string, ask func() (bool, error)) error {
	var last error
	err := process.Until(ctx, what, 2*time.Minute, 5*time.Millisecond, func() (bool, error) {
		var ok bool
		if ok, last = ask(); ok && last == nil {
			return true, nil
		}
		var ended error
		for _, p := range slices.Concat(s.workers, s.firers) {
			ended = errors.Join(ended, p.Alive())
		}
		return false, ended
	})
	if err != nil {
		err = errors.Join(err, last)
	}
	return err
}

// compare waits until everything is told, and compares it with the oracle.
func (s *simulation) compare(ctx context.Context, end time.Time) error {
	// Leases of those who were killed run out.
	end = end.Add(time.Hour)
	if err := s.hour(ctx, end, nil, false); err != nil {
		return err
	}
	if err := s.until(ctx, "everything to be told", func() (bool, error) {
		// Who looked in vain looks again when the clock has moved.
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
	got, copies, err := s.told(ctx)
	if err != nil {
		return err
	}
	missing, unexpected, different := 0, 0, 0
	report := func(what string, n int, f firing) {
		if n <= 5 {
			s.say("%s: %s %s of %s, cause %s, due %s, at %s, id %s", what, f.Event, f.Trigger, f.Customer, stamp(f.CauseAt), stamp(f.DueAt), stamp(f.At), f.ID)
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
	for _, what := range slices.Sorted(maps.Keys(s.killed)) {
		kills = append(kills, fmt.Sprintf("%d of %s", s.killed[what], what))
	}
	s.say("%d events, %d customers, %d unknown visitors; all customers judged %d times", s.oracle.events, len(s.oracle.customers), len(s.oracle.visitors), s.sweeps)
	s.say("%d kills: %s", s.kills(), strings.Join(kills, ", "))
	s.say("%d firings expected, %d told in %d messages: %d missing, %d unexpected, %d different", len(s.expected), len(got), copies, missing, unexpected, different)
	if missing+unexpected+different > 0 {
		return errors.New("the firings are not those expected")
	}
	for _, r := range rules {
		if r.segment != "" && s.oracle.outcomes[r.name+" fired"] == 0 {
			return fmt.Errorf("nobody was told of %s: that shows nothing", r.segment)
		}
	}
	return s.compareSegments(ctx, end.UnixMilli())
}

// compareSegments compares the indexes of the segments with who is in them by
// a full recomputation from the events.
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
		s.say("segment %-20s %6d members by the index and %d in it, %d recomputed", segment.name, n, len(got), len(want))
		for _, key := range slices.Sorted(maps.Keys(got)) {
			if !want[key] {
				s.say("UNEXPECTED member of %s: %s: %s", segment.name, key, s.held(ctx, key))
			}
			delete(want, key)
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			s.say("MISSING member of %s: %s: %s", segment.name, key, s.held(ctx, key))
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d segments are not as recomputed", wrong)
	}
	return nil
}

// held is what is held of a customer of the made-up shop, and of the last sweep.
func (s *simulation) held(ctx context.Context, key string) string {
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

// told reads the topic of changes: what is in it by id, and how many messages
// there are. Two with the same id must be the same.
func (s *simulation) told(ctx context.Context) (map[string]firing, int, error) {
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
			return fmt.Errorf("two messages of id %s are different", m.MessageID)
		}
		texts[m.MessageID] = string(value)
		all[m.MessageID] = firing{m.MessageID, m.UserID, m.Properties.Trigger, m.Event, m.Properties.Cause.UnixMilli(), m.Properties.Due.UnixMilli(), m.Timestamp.UnixMilli()}
		return nil
	})
	return all, copies, err
}

// keyOf keys an event as the collector does: by who it is about.
func keyOf(raw []byte) []byte {
	h, err := read(raw)
	if err != nil {
		panic(err) // the shop was asked for good events
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
