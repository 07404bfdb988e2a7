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
	// session is how long a worker may be silent. Brokers other than ours may
	// not allow less.
	session  = 6 * time.Second
	graceful = 10 * time.Second
)

// suite is one run.
type suite struct {
	options
	id                 string // names what is started and made
	dir                string
	ownKafka, ownRedis bool
	seeds              string
	events, dead       string // topics
	parked, redone     string
	changed            string

	broker    *kafka.Client
	plant     *plant
	workers   []*process.Process
	tellers   []*process.Process // of changes
	api       *process.Process
	apiAt     string
	collector *process.Process
	sender    *sender
	sending   chan error

	features []oracle.Feature
	history  *history
	rest     []kafka.Record // of history.sent, what is to be produced
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
	// The shop's content blocks are about its own definition.
	noContent := filepath.Join(s.dir, "no_content")
	if err := os.MkdirAll(noContent, 0o755); err != nil {
		return err
	}
	s.plant = &plant{binary: s.binary, dir: s.dir, env: append(redis,
		"KAFKA_SEEDS="+s.seeds, "EVENTS_TOPIC="+s.events, "DEAD_LETTERS_TOPIC="+s.dead, "PARKED_TOPIC="+s.parked,
		"REBUILD_DEAD_LETTERS_TOPIC="+s.redone, "CONSUMER_GROUP="+s.group(), "REPLAY_GROUP="+s.group()+"-replay",
		"KAFKA_SESSION_TIMEOUT="+session.String(), "KAFKA_HEARTBEAT_INTERVAL=1s",
		"CHANGES_TOPIC="+s.changed, "SEGMENTS_SWEEP_INTERVAL=5s",
		"PROFILE_DEFINITION="+definition, "REDIS_MAX_RECORD_BYTES="+recordLimit,
		"CONTENT_DIR="+noContent,
		// Batches so small that there are many to interrupt.
		"BATCH_RECORDS=200", "PIPELINE_THREADS=2", "WRITE_KEY="+writeKey, "REDIS_PREFIX="+s.id,
	)}
	for i := range s.options.workers {
		w, err := s.plant.process(fmt.Sprintf("worker-%d", i+1), "configs/retail/profiles.yaml")
		if err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	for i := range 2 {
		t, err := s.plant.process(fmt.Sprintf("changes-%d", i+1), "configs/retail/changes.yaml")
		if err != nil {
			return err
		}
		s.tellers = append(s.tellers, t)
	}
	if s.apiAt, err = process.FreeAddress(); err != nil {
		return err
	}
	if s.api, err = s.plant.process("api", "configs/retail/api.yaml", "PROFILE_API_ADDRESS="+s.apiAt); err != nil {
		return err
	}
	collectAt, err := process.FreeAddress()
	if err != nil {
		return err
	}
	if s.collector, err = s.plant.process("collector", "configs/retail/collect.yaml", "COLLECTOR_ADDRESS="+collectAt); err != nil {
		return err
	}
	s.sender = &sender{address: collectAt}
	for _, p := range slices.Concat([]*process.Process{s.collector}, s.workers, s.tellers) {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat([]*process.Process{s.collector}, s.workers, s.tellers) {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	s.say("%d workers and the collector are ready", len(s.workers))
	return nil
}

func (s *suite) group() string { return s.id + "-" + group }

// startRedis returns how the processes are told of it.
func (s *suite) startRedis(ctx context.Context) ([]string, error) {
	if !s.cluster {
		// With `always` what Redis has acknowledged survives its kill -9.
		url, err := process.Service(ctx, "redis.sh", "start", s.id, "always")
		return []string{"REDIS_URL=" + url}, err
	}
	addrs, err := process.Service(ctx, "redis_cluster.sh", "start", s.id)
	var urls []string
	for a := range strings.SplitSeq(addrs, ",") {
		urls = append(urls, "redis://"+a)
	}
	// A primary that dies takes with it what its replica has not got.
	return []string{"REDIS_URL=" + strings.Join(urls, ","), "REDIS_KIND=cluster", "REDIS_WAIT_REPLICAS=1"}, err
}

// stop ends everything that start began.
func (s *suite) stop() {
	ctx := context.Background()
	if s.plant != nil {
		s.plant.stop()
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
			fmt.Println("faults: cleaning up:", err)
		}
	}
}

// suffer sends the events, with a fault during each part of them.
func (s *suite) suffer(ctx context.Context) error {
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
		if err := s.step(ctx, f, s.take(n)); err != nil {
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
	s.report.accepted, s.report.again = s.sender.accepted.Load(), s.sender.again.Load()
	s.say("everything is processed and committed")
	return nil
}

// eraseSome erases some of the customers while those who do it are killed.
func (s *suite) eraseSome(ctx context.Context) error {
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
		if err := s.step(ctx, f, s.take(share)); err != nil {
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

// collect lets the collector have a share of the events, one in fifty of the
// good ones, over the whole time.
func (s *suite) collect(ctx context.Context, plan []fault) {
	bad := s.history.bad
	var mine [][]byte
	var rest []kafka.Record
	for i, r := range s.rest {
		if _, refused := bad[string(r.Value)]; !refused && i%50 == 0 && len(mine) < 300*len(plan) {
			mine = append(mine, r.Value)
		} else {
			rest = append(rest, r)
		}
	}
	s.rest = rest
	s.sending = make(chan error, 1)
	go func() { s.sending <- s.sender.send(ctx, mine) }()
}

func (s *suite) take(n int) []kafka.Record {
	n = min(n, len(s.rest))
	some := s.rest[:n]
	s.rest = s.rest[n:]
	return some
}

// step injects a fault while records are being processed, and waits until the
// workers are well again.
func (s *suite) step(ctx context.Context, f fault, records []kafka.Record) error {
	produced := make(chan error, 1)
	go func() { produced <- s.broker.Produce(ctx, s.events, records) }()
	var lag int64
	_ = poll(ctx, 2*time.Second, "records in the works", func() (bool, error) {
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
	s.say("%s, with %d records in the works; well again after %.1f s", f.name, lag, time.Since(began).Seconds())
	return nil
}

// compare replays the dead letters, reads everything back and judges it.
func (s *suite) compare(ctx context.Context) error {
	letters, err := s.letters(ctx, s.dead)
	if err != nil {
		return err
	}
	s.report.letters = s.account("dead letters", letters)

	replay, err := s.plant.process("replay", "configs/retail/replay_dead_letters.yaml")
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
	s.say("the dead letters were replayed until they were parked")

	if err := s.api.Start(); err != nil {
		return err
	}
	if err := s.api.Serves(ctx, "http://"+s.apiAt+"/readyz"); err != nil {
		return err
	}
	if s.report.profiles, err = verify(ctx, s.apiAt, s.features, s.history); err != nil {
		return err
	}
	s.report.judge("profiles", s.report.profiles)
	if err := s.compareChanges(ctx); err != nil {
		return err
	}
	for _, p := range slices.Concat([]*process.Process{s.api, s.collector}, s.workers, s.tellers) {
		if err := s.end(p); err != nil {
			return err
		}
	}
	s.say("%d profiles were compared, %d differences", s.report.profiles.customers, s.report.profiles.wrong)
	if !s.rebuild {
		return nil
	}
	return s.compareRebuilt(ctx)
}

// replayed waits until what was refused has been refused as often as it may.
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

// compareRebuilt builds all profiles anew, with another prefix, and compares.
func (s *suite) compareRebuilt(ctx context.Context) error {
	prefix := s.id + "-again"
	rebuild, err := s.plant.process("rebuild", "configs/retail/rebuild.yaml", "REDIS_PREFIX="+prefix, "BATCH_RECORDS=5000")
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
	api, err := s.plant.process("api-rebuilt", "configs/retail/api.yaml", "PROFILE_API_ADDRESS="+address, "REDIS_PREFIX="+prefix)
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
	s.report.judge("rebuilt profiles", s.report.rebuilt)
	letters, err := s.letters(ctx, s.redone)
	if err != nil {
		return err
	}
	s.account("dead letters of the rebuild", letters)
	s.say("%d rebuilt profiles were compared, %d differences", s.report.rebuilt.customers, s.report.rebuilt.wrong)
	for _, p := range []*process.Process{rebuild, api} {
		if err := s.end(p); err != nil {
			return err
		}
	}
	return nil
}
