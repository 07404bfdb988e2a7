package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"text/tabwriter"

	"github.com/connect-personalize/connect-personalize/plugins/engine/expectations"
)

// account compares the events of the day with the outputs of the pipeline.
type account struct {
	injected map[string]int // by kind
	found    map[string]int
	valid    int
	intact   int
	problems []string
	books    auditReport
}

// maxProblems is the number of problems that are printed.
const maxProblems = 20

func (a *account) problem(format string, args ...any) {
	a.problems = append(a.problems, fmt.Sprintf(format, args...))
}

// account finds every event of the day in the outputs of the pipeline.
func (d *day) account(out outputs) *account {
	a := &account{injected: map[string]int{}, found: map[string]int{}}
	accepted := map[string][]map[string]any{}
	for _, raw := range out.accepted {
		e, err := decode(raw)
		if err != nil {
			a.problem("an accepted event is not JSON: %v", err)
			continue
		}
		id, _ := e["messageId"].(string)
		accepted[id] = append(accepted[id], e)
	}
	dead := map[string][]letter{}
	for _, l := range out.dead {
		dead[l.bytes()] = append(dead[l.bytes()], l)
	}
	for i := range d.events {
		e := &d.events[i]
		if e.kind == nil {
			a.valid++
			got := accepted[e.id]
			if len(got) == 1 && reflect.DeepEqual(got[0], e.intended) {
				a.intact++
			} else {
				a.problem("a valid event (%v) was accepted %d times, or changed", e.intended["type"], len(got))
			}
			delete(accepted, e.id)
			continue
		}
		a.injected[e.kind.name]++
		if e.found(accepted, dead, out.reports) {
			a.found[e.kind.name]++
		} else {
			a.problem("an event with the fault %q is not accounted for", e.kind.name)
		}
	}
	for i := range d.events {
		if d.events[i].kind != nil && d.events[i].kind.want != deadLetter {
			delete(accepted, d.events[i].id)
		}
	}
	if len(accepted) > 0 {
		a.problem("%d accepted events were never sent", len(accepted))
	}
	letters := 0
	for _, l := range dead {
		letters += len(l)
	}
	if letters > 0 {
		a.problem("%d dead letters contain valid events", letters)
	}
	a.reports(out.reports)
	return a
}

// found reports whether a faulty event is where it must be, and removes it there.
func (e *arrival) found(accepted map[string][]map[string]any, dead map[string][]letter, reports []expectations.Report) bool {
	switch e.kind.want {
	case deadLetter:
		letters := dead[string(e.raw)]
		if len(letters) == 0 {
			return false
		}
		l := letters[0]
		if len(letters) == 1 {
			delete(dead, string(e.raw))
		} else {
			dead[string(e.raw)] = letters[1:]
		}
		for _, reason := range l.Reasons {
			if reason.Rule == e.kind.rule {
				return true
			}
		}
		return false
	case corrected:
		got := accepted[e.id]
		return len(got) == 1 && e.kind.isCorrected(got[0], e.intended)
	case once:
		// Both pass validation. The audit checks that profiles count one.
		got := accepted[e.id]
		return len(got) == 2 && reflect.DeepEqual(got[0], e.intended) && reflect.DeepEqual(got[1], e.intended)
	case reported:
		return len(accepted[e.id]) == 1 && slices.ContainsFunc(reports, func(r expectations.Report) bool {
			return r.From.UTC().Hour() == e.kind.hour && slices.ContainsFunc(r.Failed(), func(x expectations.Result) bool {
				return x.Name == e.kind.expectation
			})
		})
	}
	return false
}

// reports compares the quality reports with the injected faults: any other failed
// expectation is a false alarm.
func (a *account) reports(all []expectations.Report) {
	if len(all) < 24 {
		a.problem("there are %d reports of 24 hours", len(all))
	}
	for _, r := range all {
		for _, x := range r.Failed() {
			if !slices.ContainsFunc(kinds, func(k kind) bool { return k.expectation == x.Name && k.hour == r.From.UTC().Hour() }) {
				a.problem("a false alarm in the hour from %s: %s, observed %v", r.From.Format("15:04"), x.Name, x.Observed)
			}
		}
	}
}

func (a *account) audit(r auditReport) {
	a.books = r
	if r.Sampled == 0 || r.Sampled != r.Customers || r.Agreeing != r.Sampled {
		a.problem("the audit: %d of %d customers agree with the source, of %d", r.Agreeing, r.Sampled, r.Customers)
	}
}

func (a *account) report(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nfault\tinjected\taccounted for\twhere\n")
	for _, k := range kinds {
		where := string(k.want)
		switch {
		case k.rule != "":
			where += ", rule " + k.rule
		case k.expectation != "":
			where += ", " + k.expectation
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", k.name, a.injected[k.name], a.found[k.name], where)
		if a.injected[k.name] == 0 {
			a.problem("no event has the fault %q", k.name)
		}
	}
	t.Flush()
	fmt.Fprintf(w, "\nvalid events  %d, unchanged: %d\n", a.valid, a.intact)
	fmt.Fprintf(w, "audit         %d of %d buyers have the orders and the revenue of the source\n", a.books.Agreeing, a.books.Sampled)
	if len(a.problems) == 0 {
		fmt.Fprintln(w, "\nPASSED")
		return nil
	}
	fmt.Fprintln(w)
	for _, p := range a.problems[:min(len(a.problems), maxProblems)] {
		fmt.Fprintln(w, p)
	}
	return errors.New(fmt.Sprint("FAILED: ", len(a.problems), " problems"))
}
