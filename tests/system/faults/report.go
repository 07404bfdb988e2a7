package faults

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// report is the result of a run.
type report struct {
	began    time.Time
	count    map[string]int   // injected faults, by name
	lags     map[string]int64 // maximum number of records in flight, by fault
	left     map[string]int   // faults left out, as the service is not the suite's own
	added    int              // additional workers
	failures []string

	ends       int
	slowestEnd time.Duration

	outagePeak, outageGrowth int64
	outageLag                int64
	outageLines              int
	resumed                  time.Duration

	accepted, resent  int64
	letters, parked   accounted
	profiles, rebuilt *comparison
	rebuildTook       time.Duration
	changes           *changes
}

type accounted struct{ written, distinct int }

func (r *report) injected(name string, lag int64) {
	if r.count == nil {
		r.count, r.lags = map[string]int{}, map[string]int64{}
	}
	r.count[name]++
	r.lags[name] = max(r.lags[name], lag)
}

func (r *report) skipped(name string) {
	if r.left == nil {
		r.left = map[string]int{}
	}
	r.left[name]++
}

func (r *report) fail(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *report) addDifferences(subject string, v *comparison) {
	if v.wrong == 0 {
		return
	}
	r.fail("%s: %d differences, such as", subject, v.wrong)
	r.failures = append(r.failures, v.examples...)
}

// account compares dead letters with the events to be rejected: each must have
// one, from the expected stage, and no other event may have one.
func (s *suite) account(topic string, letters []*rejection.Envelope) accounted {
	found := map[string]bool{}
	for _, l := range letters {
		stage, known := s.history.bad[string(l.Original)]
		switch {
		case !known:
			s.report.fail("%s: a valid event was rejected by %s: %s", topic, l.Stage, l.Reasons[0].Message)
		case stage != l.Stage:
			s.report.fail("%s: an event was rejected by %s, not by %s", topic, l.Stage, stage)
		}
		found[string(l.Original)] = true
	}
	if len(found) != len(s.history.bad) {
		s.report.fail("%s: %d events have dead letters, %d must have", topic, len(found), len(s.history.bad))
	}
	return accounted{len(letters), len(found)}
}

func (r *report) write(w io.Writer, s *suite, err error) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-48s %s\n", name, fmt.Sprintf(format, args...))
	}
	h := s.history
	fmt.Fprintf(w, "\nFault suite, %s, seed %d\n", r.began.UTC().Format(time.RFC3339), s.seed)
	fmt.Fprintln(w, "\nSent")
	line("customers, with anonymous events before login", "%d, %d", len(h.customers), h.journeys)
	line("records, repeated, out of order", "%d, %d, %d", len(h.sent), h.repeated, h.shuffled)
	line("partitions, workers, threads of a worker", "%d, %d, 2", s.partitions, s.options.workers)
	line("through the collector, retries", "%d, %d", r.accepted, r.resent)
	for _, kind := range slices.Sorted(maps.Keys(h.badBy)) {
		line("bad: "+kind, "%d", h.badBy[kind])
	}
	fmt.Fprintln(w, "\nFaults injected                                    times  maximum of records in flight")
	for _, name := range slices.Sorted(maps.Keys(r.count)) {
		fmt.Fprintf(w, "  %-48s %5d  %d\n", name, r.count[name], r.lags[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.left)) {
		fmt.Fprintf(w, "  %-48s     0  left out: the service is not the suite's own\n", name)
	}
	fmt.Fprintln(w, "\nFound")
	if v := r.profiles; v != nil {
		line("customers, features, traits, other ids compared", "%d, %d, %d, %d", v.customers, v.features, v.traits, v.aliases)
		line("customers erased", "%d", v.erased)
		line("differences from the oracle", "%d", v.wrong)
	}
	if v := r.rebuilt; v != nil {
		line("differences after a rebuild from the topic", "%d (rebuilt in %.1f s by one process)", v.wrong, r.rebuildTook.Seconds())
	}
	line("events to reject, dead letters, distinct", "%d, %d, %d", len(h.bad), r.letters.written, r.letters.distinct)
	line("parked after three attempts, distinct", "%d, %d", r.parked.written, r.parked.distinct)
	line("clean shutdowns, slowest (limit 10 s)", "%d, %.2f s", r.ends, r.slowestEnd.Seconds())
	if r.outagePeak > 0 {
		line("outage: maximum memory of a worker, growth", "%d MiB, %d MiB", r.outagePeak>>20, r.outageGrowth>>20)
		line("outage: records waiting at its end", "%d", r.outageLag)
		line("outage: most lines logged by one worker", "%d, and %d at its end", r.outageLines, r.outageLines)
		line("outage: workers continue after its end within", "%.1f s", r.resumed.Seconds())
	}
	if c := r.changes; c != nil {
		line("change ids, delivered, with two contents", "%d, %d, %d", len(c.content), c.delivered, c.conflicting)
		line("changes out of order, memberships, differences", "%d, %d, %d", c.outOfOrder, c.members, c.wrong)
	}
	line("took", "%.0f s", time.Since(r.began).Seconds())
	if err != nil {
		fmt.Fprintf(w, "\nFAILED\n  %v\n", err)
	}
}
