package triggers

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
)

// The oracle keeps a person's whole history and all decisions, and searches
// times minute by minute. It shares no code with the engine except the rules.

// pastEvent is one event.
type pastEvent struct {
	series int
	at     int64
	id     uint64
}

// person is a customer, as seen by the oracle and by the engine.
type person struct {
	id        string
	anonymous bool
	zone      *time.Location
	birthday  string
	stated    int64
	since     map[string]int64
	left      map[string]int64
	happened  []pastEvent

	// Data of the oracle.
	evaluatedAt int64
	decided     map[string]bool
	marks       map[string][]int64
	deferred    map[string]deferral
	sent        []sentMessage

	// Data of the engine: the stored form only.
	state []byte
}

// deferral is a deferral of a rule: from when until when.
type deferral struct{ since, until int64 }

func (h deferral) and(o deferral) deferral {
	if h.until == 0 || o.until != 0 && o.since < h.since {
		h.since = o.since
	}
	h.until = max(h.until, o.until)
	return h
}

type sentMessage struct {
	rule, channel string
	at            int64
	control       bool
	whom, cause   string
}

func newPerson(id string) *person {
	return &person{id: id, since: map[string]int64{}, left: map[string]int64{}, decided: map[string]bool{}, marks: map[string][]int64{}, deferred: map[string]deferral{}}
}

// The engine's view.

func (p *person) ID() string           { return p.id }
func (p *person) Anonymous() bool      { return p.anonymous }
func (p *person) Zone() *time.Location { return p.zone }

func (p *person) Series(i int) *features.State {
	var state features.State
	for _, h := range p.happened {
		if h.series == i {
			state.Occurrences = append(state.Occurrences, features.Occurrence{Time: h.at, ID: h.id})
		}
	}
	slices.SortFunc(state.Occurrences, func(a, b features.Occurrence) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.ID, b.ID))
	})
	return &state
}

func (p *person) Trait(name string) (event.Value, int64) {
	if name != "birthday" || p.birthday == "" {
		return event.Value{}, 0
	}
	return event.Value{Kind: event.String, Text: []byte(p.birthday)}, p.stated
}

func (p *person) Segment(name string) (int64, bool) {
	since, member := p.since[name]
	return since, member
}

func (p *person) Left(name string) (int64, bool) {
	at, left := p.left[name]
	return at, left
}

func (p *person) take(h pastEvent) {
	if !slices.Contains(p.happened, h) {
		p.happened = append(p.happened, h)
	}
}

// world evaluates conditions from the time of day alone, so that engine and
// oracle get the same answers. Rules at odd positions were introduced at
// since, and causes before created are skipped.
type world struct{ now, since, created int64 }

func (w world) CausesFrom() int64 { return w.created }

func (w world) Introduced(rule int) int64 { return w.since * int64(rule%2) }

func (w world) Consent(int) (bool, error) { return w.now/(7*minute)%11 != 0, nil }
func (w world) When(rule int) (bool, error) {
	if w.now/(5*minute)%13 == int64(rule) {
		return false, fmt.Errorf("rule %d fails now", rule)
	}
	return w.now/(3*minute)%5 != 0, nil
}

// The oracle.

// afterQuiet steps minute by minute.
func afterQuiet(q Quiet, at int64, zone *time.Location) int64 {
	return remembered(fmt.Sprint(q, at, zone), func() int64 { return stepAfterQuiet(q, at, zone) })
}

// remembered caches a search.
func remembered(what string, find func() int64) int64 {
	if found, ok := walked[what]; ok {
		return found
	}
	if len(walked) > 1<<16 {
		clear(walked)
	}
	walked[what] = find()
	return walked[what]
}

var walked = map[string]int64{}

func stepAfterQuiet(q Quiet, at int64, zone *time.Location) int64 {
	quiet := func(ms int64) bool {
		t := time.UnixMilli(ms).In(zone)
		now := t.Hour()*60 + t.Minute()
		if q.From <= q.To {
			return q.From <= now && now < q.To
		}
		return now >= q.From || now < q.To
	}
	for quiet(at) {
		at = at - floorMod(at, minute) + minute
	}
	return at
}

// onDay steps minute by minute to the first one at which clocks show a date
// and a time of day, or a later time.
func onDay(year int, month time.Month, dayOfMonth, ofDay int, zone *time.Location) int64 {
	want := fmt.Sprintf("%04d-%02d-%02d %02d:%02d", year, month, dayOfMonth, ofDay/60, ofDay%60)
	return remembered(want+zone.String(), func() int64 {
		t := time.Date(year, month, dayOfMonth, 0, 0, 0, 0, time.UTC).Add(-16 * time.Hour)
		for t.In(zone).Format("2006-01-02 15:04") < want {
			t = t.Add(time.Minute)
		}
		return t.UnixMilli()
	})
}

// candidate is a rule with a cause that may fire.
type candidate struct {
	rule             int
	cause            string
	mark             int64
	at, due, expires int64
}

func (p *person) candidates(s *Set) (all []candidate) {
	zone := p.zone
	if zone == nil {
		zone = s.Zone
	}
	for i, r := range s.Rules {
		if p.anonymous && !r.Anonymous {
			continue
		}
		add := func(cause string, mark, at, due, stated, over int64) bool {
			if q := s.Channels[r.Channel].Quiet; q.From != q.To && !r.Urgent {
				due = afterQuiet(q, due, zone)
			}
			if due < stated {
				return false // the date had passed when it was stated
			}
			expires := due + r.Expire.Milliseconds()
			if deferred := p.deferred[r.Name]; due < deferred.until && expires >= deferred.since {
				due, expires = deferred.until, deferred.until+r.Expire.Milliseconds()
			}
			if expires < over {
				return false
			}
			all = append(all, candidate{i, cause, mark, at, due, expires})
			return true
		}
		seen := func(mark int64) bool {
			return slices.ContainsFunc(p.marks[r.Name], func(m int64) bool { return m >= mark })
		}
		switch r.On.Kind {
		case Enter:
			if since, member := p.since[r.On.Segment]; member && !seen(since) && !p.after(r.Unless, since) {
				add(fmt.Sprint(since), since, since, since+r.After.Milliseconds(), 0, p.evaluatedAt)
			}
		case Leave:
			if at, left := p.left[r.On.Segment]; left && !seen(at) && !p.after(r.Unless, at) {
				add(fmt.Sprint(at), at, at, at+r.After.Milliseconds(), 0, p.evaluatedAt)
			}
		case Date:
			if p.birthday == "" {
				continue
			}
			born, err := time.Parse("2006-01-02", p.birthday)
			if err != nil {
				panic(err)
			}
			over := max(p.evaluatedAt, p.stated)
			for year := born.Year(); year < 2100; year++ {
				if !r.On.Yearly && year > born.Year() {
					break
				}
				if r.On.Yearly && year < time.UnixMilli(over).UTC().Year()-2 || seen(int64(year)) {
					continue
				}
				on := born.Day()
				if born.Month() == 2 && on == 29 && time.Date(year, 2, 29, 0, 0, 0, 0, time.UTC).Month() != 2 {
					on = 28
				}
				d := time.Date(year, born.Month(), on+r.On.Days, 0, 0, 0, 0, time.UTC)
				at := onDay(d.Year(), d.Month(), d.Day(), r.On.TimeOfDay, zone)
				if add(fmt.Sprint(year), int64(year), at, at, p.stated, over) {
					break
				}
			}
		case Events:
			var causes []pastEvent
			for _, h := range p.happened {
				if h.series == r.On.Series {
					causes = append(causes, h)
				}
			}
			slices.SortFunc(causes, func(a, b pastEvent) int { return cmp.Compare(a.at, b.at) })
			if len(causes) == 0 {
				continue
			}
			switch r.On.Repeat {
			case Latest:
				causes = causes[len(causes)-1:]
				if seen(causes[0].at) {
					continue
				}
			case First:
				causes = causes[:1]
				if len(p.marks[r.Name]) > 0 {
					continue
				}
			}
			for _, c := range causes {
				cause := fmt.Sprint(c.at, c.id)
				if r.On.Repeat == Each && p.decided[r.Name+cause] || p.after(r.Unless, c.at) {
					continue
				}
				add(cause, c.at, c.at, c.at+r.After.Milliseconds(), 0, p.evaluatedAt)
			}
		}
	}
	return all
}

func (p *person) after(series []int, at int64) bool {
	return slices.ContainsFunc(p.happened, func(h pastEvent) bool { return slices.Contains(series, h.series) && h.at > at })
}

// expect decides by the documentation.
func (p *person) expect(s *Set, w world) (out []string) {
	now := w.now
	all := p.candidates(s)
	all = slices.DeleteFunc(all, func(c candidate) bool { return c.due > now })
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(s.Rules[b.rule].Priority, s.Rules[a.rule].Priority),
			cmp.Compare(a.due, b.due),
			cmp.Compare(s.Rules[a.rule].Name, s.Rules[b.rule].Name),
			cmp.Compare(a.at, b.at),
		)
	})
	zone := p.zone
	if zone == nil {
		zone = s.Zone
	}
	for _, c := range all {
		r := s.Rules[c.rule]
		channel := s.Channels[r.Channel]
		if end := afterQuiet(channel.Quiet, now, zone); channel.Quiet.From != channel.Quiet.To && !r.Urgent && c.expires >= now && c.due >= w.Introduced(c.rule) && c.at >= w.created && end > now {
			p.deferred[r.Name] = p.deferred[r.Name].and(deferral{now, end})
			continue
		}
		outcome := Fired
		consents, _ := w.Consent(r.Channel)
		holds, err := w.When(c.rule)
		switch {
		case c.expires < now:
			outcome = Expired
		case c.due < w.Introduced(c.rule) || c.at < w.created:
			outcome = Predates
		case !consents:
			outcome = NoConsent
		case err != nil:
			outcome = Failed
		case !holds:
			outcome = Unmet
		case p.full(r.Limits, now, func(t sentMessage) bool { return t.rule == r.Name }),
			p.full(channel.Limits, now, func(t sentMessage) bool { return t.channel == channel.Name && !t.control }),
			p.full(s.Limits, now, func(t sentMessage) bool { return !t.control }):
			outcome = Capped
		case s.InControlGroup(c.rule, p.id):
			outcome = ControlGroup
		}
		p.decided[r.Name+c.cause] = true
		p.marks[r.Name] = append(p.marks[r.Name], c.mark)
		if outcome == Fired || outcome == ControlGroup {
			p.sent = append(p.sent, sentMessage{r.Name, channel.Name, now, outcome == ControlGroup, p.id, c.cause})
		}
		out = append(out, fmt.Sprint(r.Name, " ", c.at, " ", c.due, " ", outcome))
	}
	for name, until := range p.deferred {
		if until.until <= now {
			delete(p.deferred, name)
		}
	}
	p.evaluatedAt = now
	return out
}

func (p *person) full(limits []Limit, now int64, counts func(sentMessage) bool) bool {
	for _, l := range limits {
		n := 0
		for _, t := range p.sent {
			if counts(t) && t.at > now-l.Per.Milliseconds() {
				n++
			}
		}
		if n >= l.Count {
			return true
		}
	}
	return false
}

// decide runs the engine as a process that reads only the stored form.
func (p *person) decide(t require.TestingT, s *Set, w world) (out []string, ids [][16]byte) {
	now := w.now
	var state State
	require.NoError(t, state.Read(p.state))
	due, some := s.NextDue(p, &state)
	if !some || due > now {
		return nil, nil
	}
	for _, d := range s.Decide(nil, p, &state, now, w) {
		out = append(out, fmt.Sprint(s.Rules[d.Rule].Name, " ", d.CauseTime, " ", d.Due, " ", d.Outcome))
		ids = append(ids, s.ID(&d.Firing, p.id))
	}
	state.SetDue(s.NextDue(p, &state))
	if due, some := state.Due(); some {
		require.Greater(t, due, now, "what is due is decided or put off")
	}
	p.state = state.Append(nil)
	return out, ids
}

// become merges another person, on both sides.
func (p *person) become(t require.TestingT, o *person) {
	for _, h := range o.happened {
		p.take(h)
	}
	var mine, theirs State
	require.NoError(t, mine.Read(p.state))
	require.NoError(t, theirs.Read(o.state))
	mine.Merge(&theirs)
	p.state = mine.Append(nil)
	require.NoError(t, mine.Read(p.state))
	mine.Merge(&theirs)
	require.Equal(t, p.state, mine.Append(nil), "merging again changes nothing")

	p.evaluatedAt = max(p.evaluatedAt, o.evaluatedAt)
	for k := range o.decided {
		p.decided[k] = true
	}
	for k, m := range o.marks {
		p.marks[k] = append(p.marks[k], m...)
	}
	for k, until := range o.deferred {
		p.deferred[k] = p.deferred[k].and(until)
	}
	p.sent = append(p.sent, o.sent...)
	o.happened, o.state = nil, nil
}

var zones = func() (all []*time.Location) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			panic(err)
		}
		all = append(all, zone)
	}
	return all
}()

// Near these moments a zone changes its offset, a year ends, or February does.
var changes = []time.Time{
	time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC),
	time.Date(2026, 3, 8, 6, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 5, 0, 0, 0, time.UTC),
	time.Date(2026, 4, 4, 14, 0, 0, 0, time.UTC), time.Date(2011, 12, 29, 20, 0, 0, 0, time.UTC),
	time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC), time.Date(2024, 2, 28, 12, 0, 0, 0, time.UTC),
	time.Date(2026, 2, 27, 12, 0, 0, 0, time.UTC), time.Date(2026, 6, 17, 0, 0, 0, 0, time.UTC),
}

func drawLimits(t *rapid.T) (list []Limit) {
	for range rapid.IntRange(0, 2).Draw(t, "limits") {
		list = append(list, Limit{rapid.IntRange(1, 3).Draw(t, "count"), time.Duration(rapid.IntRange(1, 72).Draw(t, "per")) * time.Hour})
	}
	return list
}

func drawSet(t *rapid.T) *Set {
	s := Set{Zone: rapid.SampledFrom(zones).Draw(t, "zone"), Limits: drawLimits(t), ControlGroup: rapid.SampledFrom([]float64{0, 0, 0.3}).Draw(t, "holdout")}
	for i := range rapid.IntRange(1, 2).Draw(t, "channels") {
		c := Channel{Name: fmt.Sprintf("c%d", i), Limits: drawLimits(t)}
		if rapid.Bool().Draw(t, "quiet") {
			c.Quiet = Quiet{rapid.IntRange(0, 24*60-1).Draw(t, "from"), rapid.IntRange(0, 24*60-1).Draw(t, "to")}
		}
		s.Channels = append(s.Channels, c)
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "rules") {
		r := Rule{
			Name: fmt.Sprintf("r%d", i), Channel: rapid.IntRange(0, len(s.Channels)-1).Draw(t, "channel"),
			Priority: rapid.IntRange(0, 2).Draw(t, "priority"), Limits: drawLimits(t),
			ControlGroup: rapid.SampledFrom([]float64{0, 0, 0.5}).Draw(t, "share"),
			Expire:       time.Duration(rapid.IntRange(1, 48*60).Draw(t, "expire")) * time.Minute,
			Anonymous:    rapid.Bool().Draw(t, "anonymous"), Urgent: rapid.IntRange(0, 3).Draw(t, "urgent") == 0,
		}
		switch r.On.Kind = rapid.SampledFrom([]Kind{Events, Events, Events, Enter, Leave, Date}).Draw(t, "kind"); r.On.Kind {
		case Events:
			r.On.Series = rapid.IntRange(0, 2).Draw(t, "series")
			r.On.Repeat = rapid.SampledFrom([]Repeat{Latest, Each, First}).Draw(t, "repeat")
		case Enter, Leave:
			r.On.Segment = "s"
		case Date:
			r.On.Trait, r.On.Yearly = "birthday", rapid.Bool().Draw(t, "yearly")
			r.On.Days, r.On.TimeOfDay = rapid.IntRange(-3, 3).Draw(t, "days"), rapid.IntRange(0, 24*60-1).Draw(t, "at")
		}
		if r.On.Kind != Date {
			r.After = time.Duration(rapid.IntRange(0, 30*60).Draw(t, "after")) * time.Minute
			r.Unless = rapid.SliceOfNDistinct(rapid.IntRange(0, 2), 0, 2, rapid.ID[int]).Draw(t, "unless")
		}
		s.Rules = append(s.Rules, r)
	}
	set, err := New(s)
	require.NoError(t, err)
	return set
}

func TestDecisionsEqualOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		begin := rapid.SampledFrom(changes).Draw(t, "begin").Add(-36 * time.Hour).UnixMilli()
		known, visitor := newPerson("k"), newPerson(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "visitor"))
		visitor.anonymous = true
		merged := false
		introduced := begin + int64(rapid.IntRange(0, 72*60).Draw(t, "introduced"))*minute
		created := begin + int64(rapid.IntRange(-60, 24*60).Draw(t, "created"))*minute
		ids := map[[16]byte]bool{}
		now := begin
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			now += int64(rapid.IntRange(0, 6*60).Draw(t, "step")) * minute
			for range rapid.IntRange(0, 2).Draw(t, "events") {
				p := known
				if !merged && rapid.Bool().Draw(t, "whose") {
					p = visitor
				}
				late := int64(rapid.SampledFrom([]int{0, 0, 0, 1, 30, 60 * 10, 60 * 50, -60}).Draw(t, "late")) * minute
				h := pastEvent{rapid.IntRange(0, 2).Draw(t, "of"), now - late + int64(rapid.IntRange(0, 1).Draw(t, "ms")), uint64(len(known.happened) + len(visitor.happened))}
				p.take(h)
				if rapid.Bool().Draw(t, "again") {
					p.take(h)
				}
			}
			switch rapid.IntRange(0, 8).Draw(t, "deed") {
			case 0:
				known.zone = rapid.SampledFrom(zones).Draw(t, "moves to")
			case 1:
				d := time.UnixMilli(now).UTC().AddDate(-rapid.IntRange(0, 40).Draw(t, "age"), 0, rapid.IntRange(-3, 6).Draw(t, "in"))
				known.birthday, known.stated = d.Format("2006-01-02"), now
			case 2:
				found := now - int64(rapid.IntRange(0, 90).Draw(t, "found after"))*minute
				if _, member := known.since["s"]; member {
					delete(known.since, "s")
					known.left["s"] = found
				} else {
					known.since["s"] = found
					delete(known.left, "s")
				}
			case 3:
				if !merged {
					merged = true
					known.become(t, visitor)
				}
			}
			for _, p := range []*person{known, visitor} {
				want := p.expect(s, world{now, introduced, created})
				got, fired := p.decide(t, s, world{now, introduced, created})
				require.Equal(t, want, got, "at %s", time.UnixMilli(now).UTC())
				for _, id := range fired {
					require.False(t, ids[id], "an id is used twice")
					ids[id] = true
				}
			}
		}
	})
}

func TestPendingDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		begin := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
		var events []pastEvent
		for i := range rapid.IntRange(1, 12).Draw(t, "events") {
			events = append(events, pastEvent{rapid.IntRange(0, 2).Draw(t, "series"), begin + int64(rapid.IntRange(0, 600).Draw(t, "at"))*minute, uint64(i)})
		}
		in := func(events []pastEvent) []Firing {
			p := newPerson("k")
			for _, h := range events {
				p.take(h)
			}
			return s.Pending(nil, p, &State{})
		}
		want := in(events)
		shuffled := rapid.Permutation(events).Draw(t, "shuffled")
		require.Equal(t, want, in(append(shuffled, shuffled[:len(shuffled)/2]...)))
	})
}

func TestMergeOfStatesIsCommutative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		stored := func() []byte {
			p := newPerson("k")
			now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
			for range rapid.IntRange(0, 20).Draw(t, "steps") {
				now += int64(rapid.IntRange(0, 300).Draw(t, "step")) * minute
				p.take(pastEvent{rapid.IntRange(0, 2).Draw(t, "of"), now, rapid.Uint64().Draw(t, "id")})
				p.decide(t, s, world{now: now})
			}
			return p.state
		}
		a, b, c := stored(), stored(), stored()
		merge := func(parts ...[]byte) []byte {
			var sum State
			for _, part := range parts {
				var one State
				require.NoError(t, one.Read(part))
				sum.Merge(&one)
			}
			sum.SetDue(0, false)
			return sum.Append(nil)
		}
		want := merge(a, b, c)
		require.Equal(t, want, merge(c, b, a))
		require.Equal(t, want, merge(b, a, c, a, b))
	})
}
