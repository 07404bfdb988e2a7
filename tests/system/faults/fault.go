package faults

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// fault is something bad that happens while events are processed.
type fault struct {
	name string
	// share is how many parts of the records are sent meanwhile, 1 if not set.
	share int
	// inject does it and undoes it; false tells that it could not be done to
	// services that are not ours.
	inject func(context.Context) (bool, error)
}

// outageShare is how many parts of the records of a round are sent while Redis
// is away, which in a run of a million are more than the workers may hold.
const outageShare = 4

func (f fault) weight() int { return max(f.share, 1) }

// faults are those of a round. Rare ones are in the first only.
func (s *suite) faults(round int) []fault {
	all := []fault{
		{name: "kill -9 of a worker", inject: s.killWorkers(1)},
		{name: "kill -9 of a worker", inject: s.killWorkers(1)},
		{name: "kill -9 of all workers", inject: s.killWorkers(len(s.workers))},
		{name: "kill -9 of who tells changes", inject: s.killTeller},
		{name: "SIGTERM and restart of a worker", inject: s.restartWorker},
		{name: "SIGTERM and restart of the collector", inject: s.restartCollector},
		{name: "SIGSTOP of a worker past its session, SIGCONT", inject: s.pauseWorker},
		{name: "a worker more joins and leaves", inject: s.addWorker},
		{name: "kill -9 and restart of the broker", inject: s.killBroker},
		{name: "SIGTERM and restart of the broker", inject: s.restartBroker},
	}
	if s.cluster {
		all = append(all,
			fault{name: "failover of a Redis Cluster primary", inject: s.failover},
			fault{name: "failover of a Redis Cluster primary", inject: s.failover},
			fault{name: "kill -9 of a Redis Cluster primary", inject: s.killPrimary},
		)
	} else {
		all = append(all,
			fault{name: "kill -9 and restart of Redis", inject: s.killRedis},
			fault{name: "SIGTERM and restart of Redis", inject: s.restartRedis},
		)
		if round == 0 {
			all = append(all, fault{name: fmt.Sprintf("Redis away for %v", s.outage), share: outageShare * s.rounds, inject: s.redisAway})
		}
	}
	return all
}

func (s *suite) pause(atMost time.Duration) { time.Sleep(time.Duration(s.rand.Int64N(int64(atMost)))) }

func (s *suite) aWorker() *process.Process { return s.workers[s.rand.IntN(len(s.workers))] }

func (s *suite) killWorkers(n int) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		hit := s.rand.Perm(len(s.workers))[:n]
		for _, i := range hit {
			s.workers[i].Signal(syscall.SIGKILL)
		}
		for _, i := range hit {
			if err := s.workers[i].Wait(5 * time.Second); err == nil {
				return false, fmt.Errorf("%s had ended by itself", s.workers[i].Name)
			}
		}
		s.pause(time.Second)
		for _, i := range hit {
			if err := s.workers[i].Start(); err != nil {
				return false, err
			}
		}
		return true, nil
	}
}

// end stops a process in order, which must be done in time.
func (s *suite) end(p *process.Process) error {
	began := time.Now()
	p.Signal(syscall.SIGTERM)
	if err := p.Wait(graceful); err != nil {
		return fmt.Errorf("%s did not end in order: %w\n%s", p.Name, err, p.Tail())
	}
	s.report.slowestEnd = max(s.report.slowestEnd, time.Since(began))
	s.report.ends++
	return nil
}

// killTeller kills one of those who tell changes, with what it has claimed.
func (s *suite) killTeller(context.Context) (bool, error) {
	t := s.tellers[s.rand.IntN(len(s.tellers))]
	t.Signal(syscall.SIGKILL)
	if err := t.Wait(5 * time.Second); err == nil {
		return false, fmt.Errorf("%s had ended by itself", t.Name)
	}
	s.pause(time.Second)
	return true, t.Start()
}

func (s *suite) restartWorker(context.Context) (bool, error) {
	w := s.aWorker()
	if err := s.end(w); err != nil {
		return false, err
	}
	return true, w.Start()
}

func (s *suite) restartCollector(ctx context.Context) (bool, error) {
	if err := s.end(s.collector); err != nil {
		return false, err
	}
	if err := s.collector.Start(); err != nil {
		return false, err
	}
	return true, s.collector.Ready(ctx)
}

// lostPlace is what a worker logs that was gone for too long.
const lostPlace = "lost its place in the group"

// unknownMember is what one logs that was joining the group just then, and had
// no place yet to lose.
const unknownMember = "UNKNOWN_MEMBER_ID"

func (s *suite) pauseWorker(ctx context.Context) (bool, error) {
	w := s.aWorker()
	from := w.LogSize()
	w.Signal(syscall.SIGSTOP)
	time.Sleep(session + 2*time.Second)
	w.Signal(syscall.SIGCONT)
	err := poll(ctx, 30*time.Second, w.Name+" to find that it was taken for dead", func() (bool, error) {
		return w.Logged(from, lostPlace)+w.Logged(from, unknownMember) > 0, nil
	})
	return true, err
}

func (s *suite) addWorker(ctx context.Context) (bool, error) {
	s.report.added++
	w, err := s.plant.process(fmt.Sprintf("worker-more-%d", s.report.added), "configs/retail/profiles.yaml")
	if err != nil {
		return false, err
	}
	if err := w.Start(); err != nil {
		return false, err
	}
	if err := w.Ready(ctx); err != nil {
		return false, err
	}
	err = poll(ctx, time.Minute, "a share for one worker more", func() (bool, error) { return w.Logged(0, "now has") > 0, nil })
	if err != nil {
		return false, err
	}
	return true, s.end(w)
}

func (s *suite) killBroker(ctx context.Context) (bool, error) {
	if !s.ownKafka {
		return false, nil
	}
	if _, err := process.Service(ctx, "kafka.sh", "kill", s.id); err != nil {
		return false, err
	}
	s.pause(time.Second)
	_, err := process.Service(ctx, "kafka.sh", "restart", s.id)
	return true, err
}

func (s *suite) restartBroker(ctx context.Context) (bool, error) {
	if !s.ownKafka {
		return false, nil
	}
	_, err := process.Service(ctx, "kafka.sh", "restart", s.id)
	return true, err
}

func (s *suite) killRedis(ctx context.Context) (bool, error) {
	if !s.ownRedis {
		return false, nil
	}
	if _, err := process.Service(ctx, "redis.sh", "kill", s.id); err != nil {
		return false, err
	}
	s.pause(time.Second)
	_, err := process.Service(ctx, "redis.sh", "restart", s.id)
	return true, err
}

func (s *suite) restartRedis(ctx context.Context) (bool, error) {
	if !s.ownRedis {
		return false, nil
	}
	_, err := process.Service(ctx, "redis.sh", "restart", s.id)
	return true, err
}

const (
	storeAway = "The profile store cannot be used"
	storeBack = "The profile store answers again"
	// mayGrow is by how much a worker may grow while it waits: what is fetched
	// of its partitions before it stops fetching.
	mayGrow = 192 << 20
)

// redisAway takes Redis away for a while, during which workers must wait,
// without growing, and say so once.
func (s *suite) redisAway(ctx context.Context) (bool, error) {
	if !s.ownRedis {
		return false, nil
	}
	before := map[*process.Process]int64{}
	from := map[*process.Process]int{}
	for _, w := range s.workers {
		before[w], from[w] = process.Memory(w.ID()), w.LogSize()
	}
	if _, err := process.Service(ctx, "redis.sh", "kill", s.id); err != nil {
		return false, err
	}
	for end := time.Now().Add(s.outage); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, w := range s.workers {
			now := process.Memory(w.ID())
			s.report.outagePeak = max(s.report.outagePeak, now)
			s.report.outageGrowth = max(s.report.outageGrowth, now-before[w])
		}
	}
	s.report.outageLag, _ = s.broker.Lag(ctx, s.group(), s.events)
	if _, err := process.Service(ctx, "redis.sh", "restart", s.id); err != nil {
		return false, err
	}
	back := time.Now()
	err := poll(ctx, time.Minute, "the workers to go on", func() (bool, error) {
		for _, w := range s.workers {
			if w.Logged(from[w], storeBack) < w.Logged(from[w], storeAway) {
				return false, nil
			}
		}
		return true, nil
	})
	s.report.resumed = time.Since(back)
	told := 0
	for _, w := range s.workers {
		away := w.Logged(from[w], storeAway)
		told += away
		s.report.outageLines = max(s.report.outageLines, away)
	}
	if told == 0 {
		s.report.fail("no worker said that Redis was away")
	}
	if s.report.outageLines > 1 {
		s.report.fail("a worker said %d times that Redis was away", s.report.outageLines)
	}
	if s.report.outageGrowth > mayGrow {
		s.report.fail("a worker grew by %d MiB while Redis was away", s.report.outageGrowth>>20)
	}
	return true, err
}

func (s *suite) failover(ctx context.Context) (bool, error) {
	if !s.ownRedis {
		return false, nil
	}
	_, err := process.Service(ctx, "redis_cluster.sh", "failover", s.id)
	return true, err
}

// killPrimary kills a primary for good, and brings it back as a replica once
// another has taken over.
func (s *suite) killPrimary(ctx context.Context) (bool, error) {
	if !s.ownRedis {
		return false, nil
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return false, err
	}
	port := ""
	for address, role := range nodes {
		if role == "master" {
			port = address[strings.LastIndexByte(address, ':')+1:]
			break
		}
	}
	if _, err := process.Service(ctx, "redis_cluster.sh", "kill", s.id, port); err != nil {
		return false, err
	}
	err = poll(ctx, time.Minute, "a replica to take over", func() (bool, error) {
		nodes, err := s.nodes(ctx)
		masters := 0
		for _, role := range nodes {
			if role == "master" {
				masters++
			}
		}
		return masters == 3, err
	})
	if err != nil {
		return false, err
	}
	_, err = process.Service(ctx, "redis_cluster.sh", "restart", s.id, port)
	return true, err
}

// nodes gives the role of each node of the cluster, by address.
func (s *suite) nodes(ctx context.Context) (map[string]string, error) {
	text, err := process.Service(ctx, "redis_cluster.sh", "nodes", s.id)
	roles := map[string]string{}
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) >= 2 {
			roles[fields[0]] = fields[1]
		}
	}
	return roles, err
}
