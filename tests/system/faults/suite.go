package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
	"github.com/connect-personalize/connect-personalize/tests/process"
	"github.com/connect-personalize/connect-personalize/tests/system/kafka"
)

const (
	definition = "tests/system/faults/profile.yaml"
	group      = "profiles"
	// session is the session timeout of a worker. Other brokers may not allow less.
	session  = 6 * time.Second
	graceful = 10 * time.Second
)

// suite is one run.
type suite struct {
	options
	id                 string // prefix of topics, keys and services
	dir                string
	ownKafka, ownRedis bool
	seeds              string
	events, dead       string // topics
	parked, redone     string
	changed            string

	broker     *kafka.Client
	processes  *processes
	workers    []*process.Process
	publishers []*process.Process // of segment changes and triggers
	api        *process.Process
	apiAt      string
	collector  *process.Process
	sender     *sender
	sending    chan error

	features []oracle.Feature
	history  *history
	rest     []kafka.Record // the part of history.sent that is not yet produced
	rand     *rand.Rand
	report   *report
}

func (s *suite) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(s.report.began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *suite) start(ctx context.Context) error {
	var err error
	s.rand = rand.New(rand.NewPCG(s.seed, 2))
	if s.features, err = readFeatures(definition); err != nil {
		return err
	}
	s.history = makeHistory(s.options.events, s.seed, time.Now().UTC().Truncate(time.Second))
	s.rest = s.history.sent
	s.say("made %d events of %d customers, %d records to send", s.options.events, len(s.history.customers), len(s.rest))
	if s.binary == "" {
		if s.binary, err = process.Build(ctx, s.dir); err != nil {
			return err
		}
	}
	if s.seeds, err = process.Service(ctx, "kafka.sh", "start", s.id, "--", "group.min.session.timeout.ms=1000"); err != nil {
		return err
	}
	redis, err := s.startRedis(ctx)
	if err != nil {
		return err
	}
	if s.broker, err = kafka.Connect(s.seeds); err != nil {
		return err
	}
	s.events, s.dead, s.parked, s.redone = s.id+"-events", s.id+"-dead", s.id+"-parked", s.id+"-rebuild"
	s.changed = s.id + "-changes"
	if err := s.broker.CreateTopics(ctx, int32(s.partitions), s.events); err != nil {
		return err
	}
	if err := s.broker.CreateTopics(ctx, 3, s.dead, s.parked, s.redone, s.changed); err != nil {
		return err
	}
	// The shop's content blocks need the shop's definition.
	noContent := filepath.Join(s.dir, "no_content")
	if err := os.MkdirAll(noContent, 0o755); err != nil {
		return err
	}
	s.processes = &processes{binary: s.binary, dir: s.dir, env: append(redis,
		"KAFKA_SEEDS="+s.seeds, "EVENTS_TOPIC="+s.events, "DEAD_LETTERS_TOPIC="+s.dead, "PARKED_TOPIC="+s.parked,
		"REBUILD_DEAD_LETTERS_TOPIC="+s.redone, "CONSUMER_GROUP="+s.group(), "REPLAY_GROUP="+s.group()+"-replay",
		"KAFKA_SESSION_TIMEOUT="+session.String(), "KAFKA_HEARTBEAT_INTERVAL=1s",
		"CHANGES_TOPIC="+s.changed, "SEGMENTS_SWEEP_INTERVAL=5s",
		"PROFILE_DEFINITION="+definition, "REDIS_MAX_RECORD_BYTES="+maxRecordBytes,
		"CONTENT_DIR="+noContent,
		// Small batches give many to interrupt.
		"BATCH_RECORDS=200", "PIPELINE_THREADS=2", "WRITE_KEY="+writeKey, "REDIS_PREFIX="+s.id,
	)}
	for i := range s.options.workers {
		w, err := s.processes.add(fmt.Sprintf("worker-%d", i+1), "configs/retail/profiles.yaml")
		if err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	for i := range 2 {
		t, err := s.processes.add(fmt.Sprintf("changes-%d", i+1), "configs/retail/changes.yaml")
		if err != nil {
			return err
		}
		s.publishers = append(s.publishers, t)
	}
	if s.apiAt, err = process.FreeAddress(); err != nil {
		return err
	}
	if s.api, err = s.processes.add("api", "configs/retail/api.yaml", "PROFILE_API_ADDRESS="+s.apiAt); err != nil {
		return err
	}
	collectAt, err := process.FreeAddress()
	if err != nil {
		return err
	}
	if s.collector, err = s.processes.add("collector", "configs/retail/collect.yaml", "COLLECTOR_ADDRESS="+collectAt); err != nil {
		return err
	}
	s.sender = &sender{address: collectAt}
	for _, p := range slices.Concat([]*process.Process{s.collector}, s.workers, s.publishers) {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat([]*process.Process{s.collector}, s.workers, s.publishers) {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	s.say("%d workers and the collector are ready", len(s.workers))
	return nil
}

func (s *suite) group() string { return s.id + "-" + group }

// startRedis returns the environment that configures Redis for the processes.
func (s *suite) startRedis(ctx context.Context) ([]string, error) {
	if !s.cluster {
		// With `always`, acknowledged writes survive kill -9 of Redis.
		url, err := process.Service(ctx, "redis.sh", "start", s.id, "always")
		return []string{"REDIS_URL=" + url}, err
	}
	addrs, err := process.Service(ctx, "redis_cluster.sh", "start", s.id)
	var urls []string
	for a := range strings.SplitSeq(addrs, ",") {
		urls = append(urls, "redis://"+a)
	}
	// A killed primary loses the writes that its replica lacks.
	return []string{"REDIS_URL=" + strings.Join(urls, ","), "REDIS_KIND=cluster", "REDIS_WAIT_REPLICAS=1"}, err
}

// stop ends the processes and services of the run.
func (s *suite) stop() {
	ctx := context.Background()
	if s.processes != nil {
		s.processes.stop()
	}
	if s.broker != nil {
		s.broker.Close()
	}
	var errs []error
	if s.ownKafka {
		_, err := process.Service(ctx, "kafka.sh", "stop", s.id)
		errs = append(errs, err)
	}
	if s.ownRedis {
		name := "redis.sh"
		if s.cluster {
			name = "redis_cluster.sh"
		}
		_, err := process.Service(ctx, name, "stop", s.id)
		errs = append(errs, err)
	}
	for _, err := range errs {
		if err != nil {
			fmt.Println("faults: stopping a service:", err)
		}
	}
}

// injectFaults sends the events and injects one fault during each part of them.
func (s *suite) injectFaults(ctx context.Context) error {
	var plan []fault
	for round := range s.rounds {
		faults := s.faults(round)
		s.rand.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		plan = append(plan, faults...)
	}
	s.collect(ctx, plan)
	parts := 1
	for _, f := range plan {
		parts += f.weight()
	}
	share := len(s.rest) / parts
	for _, f := range plan {
		n := share * f.weight()
		if err := s.step(ctx, f, s.next(n)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if err := s.broker.Produce(ctx, s.events, s.rest); err != nil {
		return err
	}
	s.rest = nil
	if err := <-s.sending; err != nil {
		return err
	}
	if err := s.broker.CaughtUp(ctx, s.group(), s.events, 0, 10*time.Minute); err != nil {
		return err
	}
	s.report.accepted, s.report.resent = s.sender.accepted.Load(), s.sender.resent.Load()
	s.say("all records are processed and committed")
	return nil
}

// eraseCustomers erases a part of the customers while workers and Redis are killed.
func (s *suite) eraseCustomers(ctx context.Context) error {
	faults := []fault{
		{name: "kill -9 of a worker", inject: s.killWorkers(1)},
		{name: "kill -9 of all workers", inject: s.killWorkers(len(s.workers))},
	}
	if !s.cluster {
		faults = append(faults, fault{name: "kill -9 and restart of Redis", inject: s.killRedis})
	}
	s.rest = s.history.erasures(20)
	share := len(s.rest) / len(faults)
	for _, f := range faults {
		if err := s.step(ctx, f, s.next(share)); err != nil {
			return fmt.Errorf("%s, during erasures: %w", f.name, err)
		}
	}
	if err := s.broker.Produce(ctx, s.events, s.rest); err != nil {
		return err
	}
	s.rest = nil
	if err := s.broker.CaughtUp(ctx, s.group(), s.events, 0, 10*time.Minute); err != nil {
		return err
	}
	s.say("%d customers are erased", s.history.erased)
	return nil
}

// collect sends one in fifty of the valid events through the collector, in the
// background and during all faults.
func (s *suite) collect(ctx context.Context, plan []fault) {
	bad := s.history.bad
	var events [][]byte
	var rest []kafka.Record
	for i, r := range s.rest {
		if _, refused := bad[string(r.Value)]; !refused && i%50 == 0 && len(events) < 300*len(plan) {
			events = append(events, r.Value)
		} else {
			rest = append(rest, r)
		}
	}
	s.rest = rest
	s.sending = make(chan error, 1)
	go func() { s.sending <- s.sender.send(ctx, events) }()
}

// next removes n records from the rest and returns them.
func (s *suite) next(n int) []kafka.Record {
	n = min(n, len(s.rest))
	next := s.rest[:n]
	s.rest = s.rest[n:]
	return next
}

// step injects a fault while records are being processed, and waits until the
// workers have caught up.
func (s *suite) step(ctx context.Context, f fault, records []kafka.Record) error {
	produced := make(chan error, 1)
	go func() { produced <- s.broker.Produce(ctx, s.events, records) }()
	var lag int64
	_ = poll(ctx, 2*time.Second, "records in flight", func() (bool, error) {
		lag, _ = s.broker.Lag(ctx, s.group(), s.events)
		return lag >= int64(min(len(records)/4, 2000)), nil
	})
	s.pause(100 * time.Millisecond)
	began := time.Now()
	done, err := f.inject(ctx)
	if err != nil {
		return err
	}
	if done {
		s.report.injected(f.name, lag)
	} else {
		s.report.skipped(f.name)
	}
	if err := <-produced; err != nil {
		return err
	}
	for _, w := range s.workers {
		if err := w.Ready(ctx); err != nil {
			return err
		}
	}
	if err := s.broker.CaughtUp(ctx, s.group(), s.events, int64(len(records)/4), 3*time.Minute); err != nil {
		return err
	}
	s.say("%s, with %d records in flight; recovered after %.1f s", f.name, lag, time.Since(began).Seconds())
	return nil
}

// compare replays the dead letters, and compares profiles, changes and dead
// letters with the expected ones.
func (s *suite) compare(ctx context.Context) error {
	letters, err := s.letters(ctx, s.dead)
	if err != nil {
		return err
	}
	s.report.letters = s.account("dead letters", letters)

	replay, err := s.processes.add("replay", "configs/retail/replay_dead_letters.yaml")
	if err != nil {
		return err
	}
	if err := replay.Start(); err != nil {
		return err
	}
	if err := s.replayed(ctx); err != nil {
		return err
	}
	if err := s.end(replay); err != nil {
		return err
	}
	s.say("replayed the dead letters until they were parked")

	if err := s.api.Start(); err != nil {
		return err
	}
	if err := s.api.Serves(ctx, "http://"+s.apiAt+"/readyz"); err != nil {
		return err
	}
	if s.report.profiles, err = verify(ctx, s.apiAt, s.features, s.history); err != nil {
		return err
	}
	s.report.addDifferences("profiles", s.report.profiles)
	if err := s.compareChanges(ctx); err != nil {
		return err
	}
	for _, p := range slices.Concat([]*process.Process{s.api, s.collector}, s.workers, s.publishers) {
		if err := s.end(p); err != nil {
			return err
		}
	}
	s.say("compared %d profiles, %d differences", s.report.profiles.customers, s.report.profiles.wrong)
	if !s.rebuild {
		return nil
	}
	return s.compareRebuilt(ctx)
}

// replayed waits until each rejected event has been rejected as often as the
// replay pipeline retries it, and is parked.
func (s *suite) replayed(ctx context.Context) error {
	for {
		if err := s.broker.CaughtUp(ctx, s.group()+"-replay", s.dead, 0, 3*time.Minute); err != nil {
			return err
		}
		if err := s.broker.CaughtUp(ctx, s.group(), s.events, 0, 3*time.Minute); err != nil {
			return err
		}
		// The workers may have written more dead letters since.
		lag, err := s.broker.Lag(ctx, s.group()+"-replay", s.dead)
		if err != nil {
			return err
		}
		if lag > 0 {
			continue
		}
		letters, err := s.letters(ctx, s.parked)
		if err != nil {
			return err
		}
		for _, l := range letters {
			if l.Attempt != 3 {
				s.report.fail("a letter was parked after %d attempts, not 3", l.Attempt)
			}
		}
		s.report.parked = s.account("parked letters", letters)
		return nil
	}
}

// compareRebuilt rebuilds all profiles under another prefix and compares them.
func (s *suite) compareRebuilt(ctx context.Context) error {
	prefix := s.id + "-again"
	rebuild, err := s.processes.add("rebuild", "configs/retail/rebuild.yaml", "REDIS_PREFIX="+prefix, "BATCH_RECORDS=5000")
	if err != nil {
		return err
	}
	began := time.Now()
	if err := rebuild.Start(); err != nil {
		return err
	}
	if err := rebuild.Ready(ctx); err != nil {
		return err
	}
	if err := s.broker.CaughtUp(ctx, "rebuild-"+prefix, s.events, 0, 10*time.Minute); err != nil {
		return err
	}
	s.report.rebuildTook = time.Since(began)
	address, err := process.FreeAddress()
	if err != nil {
		return err
	}
	api, err := s.processes.add("api-rebuilt", "configs/retail/api.yaml", "PROFILE_API_ADDRESS="+address, "REDIS_PREFIX="+prefix)
	if err != nil {
		return err
	}
	if err := api.Start(); err != nil {
		return err
	}
	if err := api.Serves(ctx, "http://"+address+"/readyz"); err != nil {
		return err
	}
	if s.report.rebuilt, err = verify(ctx, address, s.features, s.history); err != nil {
		return err
	}
	s.report.addDifferences("rebuilt profiles", s.report.rebuilt)
	letters, err := s.letters(ctx, s.redone)
	if err != nil {
		return err
	}
	s.account("dead letters of the rebuild", letters)
	s.say("compared %d rebuilt profiles, %d differences", s.report.rebuilt.customers, s.report.rebuilt.wrong)
	for _, p := range []*process.Process{rebuild, api} {
		if err := s.end(p); err != nil {
			return err
		}
	}
	return nil
}
