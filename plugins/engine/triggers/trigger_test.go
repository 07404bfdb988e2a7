package triggers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQuietHoursEnd(t *testing.T) {
	night := Quiet{21 * 60, 8 * 60}
	for _, test := range []struct {
		name      string
		quiet     Quiet
		zone      string
		at, until string
	}{
		{"by day nothing is put off", night, "Europe/Berlin", "2026-06-01T10:00:00Z", "2026-06-01T10:00:00Z"},
		{"at night until the morning", night, "Europe/Berlin", "2026-06-01T19:00:00Z", "2026-06-02T06:00:00Z"},
		{"the last moment of quiet", night, "UTC", "2026-06-02T07:59:59Z", "2026-06-02T08:00:00Z"},
		{"the end is not quiet", night, "UTC", "2026-06-02T08:00:00Z", "2026-06-02T08:00:00Z"},
		{"the night clocks go forward is an hour shorter", night, "Europe/Berlin", "2026-03-28T20:00:00Z", "2026-03-29T06:00:00Z"},
		{"the night clocks go back is an hour longer", night, "Europe/Berlin", "2026-10-24T19:00:00Z", "2026-10-25T07:00:00Z"},
		{"an end that clocks skip is when they do", Quiet{60, 2*60 + 30}, "Europe/Berlin", "2026-03-29T00:10:00Z", "2026-03-29T01:00:00Z"},
		{"an end that comes twice is the first", Quiet{60, 2*60 + 30}, "Europe/Berlin", "2026-10-24T23:10:00Z", "2026-10-25T00:30:00Z"},
		{"a span that comes twice is quiet twice", Quiet{2 * 60, 2*60 + 30}, "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"},
		{"a day that a zone skipped", night, "Pacific/Apia", "2011-12-30T08:00:00Z", "2011-12-30T18:00:00Z"},
		{"an odd offset", night, "Asia/Kathmandu", "2026-06-01T20:00:00Z", "2026-06-02T02:15:00Z"},
	} {
		t.Run(test.name, func(t *testing.T) {
			zone, err := time.LoadLocation(test.zone)
			require.NoError(t, err)
			at, err := time.Parse(time.RFC3339, test.at)
			require.NoError(t, err)
			require.Equal(t, test.until, time.UnixMilli(test.quiet.End(at.UnixMilli(), zone)).UTC().Format(time.RFC3339))
		})
	}
}

func TestDates(t *testing.T) {
	for text, want := range map[string]date{
		"1990-05-10": {1990, 5, 10}, "1990-05-10T00:00:00.000Z": {1990, 5, 10}, "2000-02-29": {2000, 2, 29},
		"05-10": {0, 5, 10}, "--02-29": {0, 2, 29},
	} {
		got, ok := parseDate([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "1990", "1990-13-01", "1990-02-30", "2001-02-29", "10.05.1990", "0000-01-01", "1990-5-1", "1990-05-10x", "xx-yy", "-0-10", "yesterday"} {
		_, ok := parseDate([]byte(text))
		require.False(t, ok, text)
	}
}

func TestBirthdays(t *testing.T) {
	rule := func(on Cause) *Set {
		on.Kind, on.Trait = Date, "birthday"
		s, err := New(Set{Channels: []Channel{{Name: "email"}}, Rules: []Rule{{Name: "birthday", On: on, Expire: 12 * time.Hour}}})
		require.NoError(t, err)
		return s
	}
	stated := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for _, test := range []struct {
		name, birthday string
		on             Cause
		due            string
	}{
		{"this year's", "1990-05-10", Cause{Yearly: true, TimeOfDay: 9 * 60}, "2026-05-10T07:00:00Z"},
		{"the next if this year's is over", "1990-01-10", Cause{Yearly: true, TimeOfDay: 9 * 60}, "2027-01-10T08:00:00Z"},
		{"stated on the day, after the time", "1990-01-15", Cause{Yearly: true}, "2027-01-14T23:00:00Z"},
		{"stated on the day, before the time", "1990-01-15", Cause{Yearly: true, TimeOfDay: 9 * 60}, "2026-01-15T08:00:00Z"},
		{"stated at the time", "1990-01-15", Cause{Yearly: true, TimeOfDay: 60}, "2026-01-15T00:00:00Z"},
		{"once, and stated after the time", "2026-01-15", Cause{}, ""},
		{"a week before, stated within that week", "2026-01-20", Cause{Days: -7}, ""},
		{"a week before, in the year before", "01-03", Cause{Yearly: true, TimeOfDay: 9 * 60, Days: -7}, "2026-12-27T08:00:00Z"},
		{"the 29th of February in a common year", "1992-02-29", Cause{Yearly: true}, "2026-02-27T23:00:00Z"},
		{"a time that clocks skip", "1990-03-29", Cause{Yearly: true, TimeOfDay: 2*60 + 30}, "2026-03-29T01:00:00Z"},
		{"once", "2026-05-10", Cause{}, "2026-05-09T22:00:00Z"},
		{"once, and that is over", "2025-05-10", Cause{}, ""},
		{"once needs a year", "05-10", Cause{}, ""},
		{"not before they are born", "2030-05-10", Cause{Yearly: true}, "2030-05-09T22:00:00Z"},
		{"no date", "in May", Cause{Yearly: true}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPerson("k")
			p.birthday, p.stated, p.zone = test.birthday, stated.UnixMilli(), berlin
			due, some := rule(test.on).NextDue(p, &State{})
			got := ""
			if some {
				got = time.UnixMilli(due).UTC().Format(time.RFC3339)
			}
			require.Equal(t, test.due, got)
		})
	}
}

// TestExpire shows that a firing is not too late at exactly due + expire.
func TestExpire(t *testing.T) {
	const due, expire = 10 * minute, 5 * minute
	for now, want := range map[int64]Outcome{due: Fired, due + expire: Fired, due + expire + 1: Expired} {
		for _, repeat := range []Repeat{Latest, Each, First} {
			s, err := New(Set{
				Channels: []Channel{{Name: "email"}},
				Rules:    []Rule{{Name: "a", On: Cause{Repeat: repeat}, After: time.Duration(due) * time.Millisecond, Expire: time.Duration(expire) * time.Millisecond}},
			})
			require.NoError(t, err)
			p := newPerson("k")
			p.take(pastEvent{0, 0, 1})
			var state State
			decisions := s.Decide(nil, p, &state, now, always{})
			require.Len(t, decisions, 1)
			require.Equal(t, want, decisions[0].Outcome, "at %d, repeat %d", now, repeat)
			require.Empty(t, s.Decide(nil, p, &state, now, always{}), "a decision is final")
		}
	}
}

func TestControlGroupIsAnEvenStableShare(t *testing.T) {
	s, err := New(Set{
		Channels: []Channel{{Name: "email"}},
		Rules:    []Rule{{Name: "a", Expire: time.Hour, ControlGroup: 0.1}, {Name: "b", Expire: time.Hour, ControlGroup: 0.1}},
	})
	require.NoError(t, err)
	const n = 20_000
	var a, b, both int
	for i := range n {
		id := time.Unix(int64(i), 0).UTC().String()
		inA, inB := s.InControlGroup(0, id), s.InControlGroup(1, id)
		require.Equal(t, inA, s.InControlGroup(0, id))
		if inA {
			a++
		}
		if inB {
			b++
		}
		if inA && inB {
			both++
		}
	}
	require.InDelta(t, n/10, a, n/100)
	require.InDelta(t, n/10, b, n/100)
	require.InDelta(t, n/100, both, n/200, "the shares of two rules are independent")
}

func TestNewReportsMistakes(t *testing.T) {
	good := func() Set {
		return Set{Channels: []Channel{{Name: "email"}}, Rules: []Rule{{Name: "a", Expire: time.Hour}}}
	}
	for _, test := range []struct {
		spoil func(*Set)
		want  string
	}{
		{func(s *Set) { s.Rules[0].Name = "cart abandoned" }, `trigger "cart abandoned": a name is letters, digits and underscores`},
		{func(s *Set) { s.Rules = append(s.Rules, s.Rules[0]) }, "like that of trigger 1"},
		{func(s *Set) { s.Rules[0].Channel = 1 }, "needs a channel"},
		{func(s *Set) { s.Rules[0].Expire = 0 }, "expire must be above 0"},
		{func(s *Set) { s.Rules[0].Limits = []Limit{{0, time.Hour}} }, "a limit is a count"},
		{func(s *Set) { s.Limits = []Limit{{1, 0}} }, "messages: a limit is a count"},
		{func(s *Set) { s.ControlGroup = 1 }, "holdout must be"},
		{func(s *Set) { s.Channels = append(s.Channels, s.Channels[0]) }, "a name of its own"},
		{func(s *Set) { s.Rules[0].On = Cause{Kind: Date}; s.Rules[0].After = time.Hour }, "takes days"},
	} {
		s := good()
		test.spoil(&s)
		_, err := New(s)
		require.ErrorContains(t, err, test.want)
	}
	_, err := New(good())
	require.NoError(t, err)
}

func TestStateIsBounded(t *testing.T) {
	s, err := New(Set{
		Channels: []Channel{{Name: "email"}},
		Rules:    []Rule{{Name: "a", On: Cause{Repeat: Each}, Expire: 30 * 24 * time.Hour}},
	})
	require.NoError(t, err)
	p := newPerson("k")
	fired := 0
	for i := range 5_000 {
		now := int64(i) * minute
		p.take(pastEvent{0, now, uint64(i)})
		var state State
		require.NoError(t, state.Read(p.state))
		for _, d := range s.Decide(nil, p, &state, now, always{}) {
			require.Equal(t, now, d.CauseTime, "no cause fires twice")
			fired++
		}
		p.state = state.Append(nil)
		require.Less(t, len(p.state), 12_000)
		if i > 200 {
			p.happened = p.happened[1:]
		}
	}
	require.Equal(t, 5_000, fired)
}

type always struct{}

func (always) Consent(int) (bool, error) { return true, nil }
func (always) When(int) (bool, error)    { return true, nil }
func (always) Introduced(int) int64      { return 0 }
func (always) CausesFrom() int64         { return 0 }

func FuzzState(f *testing.F) {
	s, err := New(Set{
		Channels: []Channel{{Name: "email", Quiet: Quiet{0, 60}}},
		Rules:    []Rule{{Name: "a", On: Cause{Repeat: Each}, Expire: time.Hour}, {Name: "b", On: Cause{Repeat: First}, Expire: time.Hour}},
	})
	if err != nil {
		f.Fatal(err)
	}
	p := newPerson("k")
	for i := range 200 {
		p.take(pastEvent{0, int64(i) * 20 * minute, uint64(i)})
		p.decide(f, s, world{now: int64(i) * 20 * minute})
		f.Add(p.state)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var state State
		if state.Read(data) != nil {
			return
		}
		require.Equal(t, string(data), string(state.Append(nil)))
		var other State
		require.NoError(t, other.Read(data))
		state.Merge(&other)
		require.NoError(t, other.Read(state.Append(nil)))
	})
}
