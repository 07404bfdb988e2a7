package faults

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// report is what a run tells.
type report struct {
	began    time.Time
	count    map[string]int   // faults injected
	lags     map[string]int64 // and the records that were in the works, at most
	left     map[string]int   // faults not injected, for the services are not ours
	added    int              // workers
	failures []string

	ends       int
	slowestEnd time.Duration

	outagePeak, outageGrowth int64
	outageLag                int64
	outageLines              int
	resumed                  time.Duration

	accepted, again   int64
	letters, parked   accounted
	profiles, rebuilt *verdict
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

func (r *report) judge(what string, v *verdict) {
	if v.wrong == 0 {
		return
	}
	r.fail("%s: %d differences, such as", what, v.wrong)
	r.failures = append(r.failures, v.examples...)
}

// account compares dead letters with the events that had to be refused: each
// of them must be there, by the stage that had to refuse it, and no other.
func (s *suite) account(what string, letters []*rejection.Envelope) accounted {
	found := map[string]bool{}
	for _, l := range letters {
		stage, known := s.history.bad[string(l.Original)]
		switch {
		case !known:
			s.report.fail("%s: a good event was refused by %s: %s", what, l.Stage, l.Reasons[0].Message)
		case stage != l.Stage:
			s.report.fail("%s: an event was refused by %s, not by %s", what, l.Stage, stage)
		}
		found[string(l.Original)] = true
	}
	if len(found) != len(s.history.bad) {
		s.report.fail("%s: there are letters of %d events, of %d that had to be refused", what, len(found), len(s.history.bad))
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
	line("customers, of whom anonymous first", "%d, %d", len(h.customers), h.journeys)
	line("records, of which repeated, out of place", "%d, %d, %d", len(h.sent), h.repeated, h.shuffled)
	line("partitions, workers, threads each", "%d, %d, 2", s.partitions, s.options.workers)
	line("through the collector, of which sent again", "%d, %d", r.accepted, r.again)
	for _, kind := range slices.Sorted(maps.Keys(h.badBy)) {
		line("bad: "+kind, "%d", h.badBy[kind])
	}
	fmt.Fprintln(w, "\nFaults injected                                    times  records in the works, at most")
	for _, name := range slices.Sorted(maps.Keys(r.count)) {
		fmt.Fprintf(w, "  %-48s %5d  %d\n", name, r.count[name], r.lags[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.left)) {
		fmt.Fprintf(w, "  %-48s     0  left out: the service is not the suite's own\n", name)
	}
	fmt.Fprintln(w, "\nFound")
	if v := r.profiles; v != nil {
		line("customers, features, traits, other ids compared", "%d, %d, %d, %d", v.customers, v.features, v.traits, v.aliases)
		line("customers erased, and gone", "%d", v.erased)
		line("differences from the oracle", "%d", v.wrong)
	}
	if v := r.rebuilt; v != nil {
		line("differences after a rebuild from the topic", "%d (rebuilt in %.1f s by one process)", v.wrong, r.rebuildTook.Seconds())
	}
	line("events to be refused, dead letters, distinct", "%d, %d, %d", len(h.bad), r.letters.written, r.letters.distinct)
	line("parked after three attempts, distinct", "%d, %d", r.parked.written, r.parked.distinct)
	line("orderly ends, slowest (limit 10 s)", "%d, %.2f s", r.ends, r.slowestEnd.Seconds())
	if r.outagePeak > 0 {
		line("Redis away: memory of a worker at most, growth", "%d MiB, %d MiB", r.outagePeak>>20, r.outageGrowth>>20)
		line("Redis away: records that waited at the end", "%d", r.outageLag)
		line("Redis away: lines logged by a worker, at most", "%d, and %d when it was back", r.outageLines, r.outageLines)
		line("Redis back: workers go on after", "%.1f s", r.resumed.Seconds())
	}
	if c := r.changes; c != nil {
		line("change ids, delivered, with another content", "%d, %d, %d", len(c.content), c.delivered, c.forged)
		line("changes out of turn, memberships, differences", "%d, %d, %d", c.outOfTurn, c.members, c.wrong)
	}
	line("took", "%.0f s", time.Since(r.began).Seconds())
	if err != nil {
		fmt.Fprintf(w, "\nFAILED\n  %v\n", err)
		return
	}
	fmt.Fprintln(w, "\nPASSED")
}
