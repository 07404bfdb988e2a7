package faults

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/connect-personalize/connect-personalize/tests/process"
)

// fault is a failure that the suite injects while events are processed.
type fault struct {
	name string
	// share is the number of parts of the records that are sent meanwhile; 0 is 1.
	share int
	// inject causes the failure and ends it. It returns false if the service is
	// not the suite's own.
	inject func(context.Context) (bool, error)
}

// outageShare is the number of parts of the records that are sent during the
// outage of Redis. In a run of a million these are more than workers may buffer.
const outageShare = 4

func (f fault) weight() int { return max(f.share, 1) }

// faults returns the faults of a round. The long outage is in the first only.
func (s *suite) faults(round int) []fault {
	all := []fault{
		{name: "kill -9 of a worker", inject: s.killWorkers(1)},
		{name: "kill -9 of a worker", inject: s.killWorkers(1)},
		{name: "kill -9 of all workers", inject: s.killWorkers(len(s.workers))},
		{name: "kill -9 of a publisher of changes", inject: s.killPublisher},
		{name: "SIGTERM and restart of a worker", inject: s.restartWorker},
		{name: "SIGTERM and restart of the collector", inject: s.restartCollector},
		{name: "SIGSTOP of a worker past its session, SIGCONT", inject: s.pauseWorker},
		{name: "another worker joins and leaves", inject: s.addWorker},
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
			all = append(all, fault{name: fmt.Sprintf("outage of Redis for %v", s.outage), share: outageShare * s.rounds, inject: s.stopRedis})
		}
	}
	return all
}

func (s *suite) pause(atMost time.Duration) { time.Sleep(time.Duration(s.rand.Int64N(int64(atMost)))) }

func (s *suite) randomWorker() *process.Process { return s.workers[s.rand.IntN(len(s.workers))] }

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

// end stops a process with SIGTERM, which must succeed in time.
func (s *suite) end(p *process.Process) error {
	began := time.Now()
	p.Signal(syscall.SIGTERM)
	if err := p.Wait(graceful); err != nil {
		return fmt.Errorf("%s did not shut down cleanly: %w\n%s", p.Name, err, p.Tail())
	}
	s.report.slowestEnd = max(s.report.slowestEnd, time.Since(began))
	s.report.ends++
	return nil
}

// killPublisher kills a process that publishes changes, with its claimed leases.
func (s *suite) killPublisher(context.Context) (bool, error) {
	p := s.publishers[s.rand.IntN(len(s.publishers))]
	p.Signal(syscall.SIGKILL)
	if err := p.Wait(5 * time.Second); err == nil {
		return false, fmt.Errorf("%s had ended by itself", p.Name)
	}
	s.pause(time.Second)
	return true, p.Start()
}

func (s *suite) restartWorker(context.Context) (bool, error) {
	w := s.randomWorker()
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

// membershipLost is logged by a worker after its session timed out.
const membershipLost = "Lost the group membership"

// unknownMember is logged by a worker that was still joining the group.
const unknownMember = "UNKNOWN_MEMBER_ID"

func (s *suite) pauseWorker(ctx context.Context) (bool, error) {
	w := s.randomWorker()
	from := w.LogSize()
	w.Signal(syscall.SIGSTOP)
	time.Sleep(session + 2*time.Second)
	w.Signal(syscall.SIGCONT)
	err := poll(ctx, 30*time.Second, w.Name+" to notice that its session has timed out", func() (bool, error) {
		return w.Logged(from, membershipLost)+w.Logged(from, unknownMember) > 0, nil
	})
	return true, err
}

func (s *suite) addWorker(ctx context.Context) (bool, error) {
	s.report.added++
	w, err := s.processes.add(fmt.Sprintf("worker-more-%d", s.report.added), "configs/retail/profiles.yaml")
	if err != nil {
		return false, err
	}
	if err := w.Start(); err != nil {
		return false, err
	}
	if err := w.Ready(ctx); err != nil {
		return false, err
	}
	err = poll(ctx, time.Minute, "partitions for the additional worker", func() (bool, error) { return w.Logged(0, "; this process has") > 0, nil })
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
	storeAway = "The profile store is unavailable"
	storeBack = "The profile store is available again"
	// maxGrowth is the limit for the growth of a worker during an outage: the
	// records that it fetches before it stops fetching.
	maxGrowth = 192 << 20
)

// stopRedis stops Redis for a while. The workers must wait without growing, and
// log the outage once.
func (s *suite) stopRedis(ctx context.Context) (bool, error) {
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
	err := poll(ctx, time.Minute, "the workers to continue", func() (bool, error) {
		for _, w := range s.workers {
			if w.Logged(from[w], storeBack) < w.Logged(from[w], storeAway) {
				return false, nil
			}
		}
		return true, nil
	})
	s.report.resumed = time.Since(back)
	logged := 0
	for _, w := range s.workers {
		lines := w.Logged(from[w], storeAway)
		logged += lines
		s.report.outageLines = max(s.report.outageLines, lines)
	}
	if logged == 0 {
		s.report.fail("no worker logged the outage of Redis")
	}
	if s.report.outageLines > 1 {
		s.report.fail("a worker logged the outage of Redis %d times", s.report.outageLines)
	}
	if s.report.outageGrowth > maxGrowth {
		s.report.fail("a worker grew by %d MiB during the outage of Redis", s.report.outageGrowth>>20)
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

// killPrimary kills a primary, and restarts it as a replica once another node has
// taken over.
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

// nodes returns the role of each node of the cluster, by address.
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
