package expectations

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/valyala/fastjson"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Windows defines the tumbling windows over which a suite is evaluated.
type Windows struct {
	// Every is the length of a window. Windows begin at multiples of it.
	Every time.Duration
	// Clock is the path of the event time of a row. Unset means processing time.
	Clock event.Path
	// Lateness is how long, in event time, a window stays open after its end for
	// late rows.
	Lateness time.Duration
}

// maxFuture is the maximum distance of a row's event time in the future. A later
// time is rejected, because it would close the windows of all other rows.
const maxFuture = time.Hour

// Report is the result of a suite in one window.
type Report struct {
	Suite string    `json:"suite"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	// Partial is true if the process started or stopped during the window.
	Partial bool  `json:"partial,omitempty"`
	Success bool  `json:"success"`
	Rows    int64 `json:"rows"`
	// Late counts rows after the end of their window and lateness, Undated rows
	// without a valid time, and NotJSON rows that are not JSON objects, all since
	// the previous report.
	Late    int64    `json:"late_rows"`
	Undated int64    `json:"undated_rows"`
	NotJSON int64    `json:"malformed_rows"`
	Results []Result `json:"results"`
}

// Failed returns the results without success.
func (r *Report) Failed() []Result {
	var failed []Result
	for _, x := range r.Results {
		if !x.Success {
			failed = append(failed, x)
		}
	}
	return failed
}

// JSON returns the report as one line of JSON.
func (r *Report) JSON() []byte {
	// Every member can be encoded.
	line, _ := json.Marshal(r)
	return line
}

// Monitor evaluates a suite over the windows of a stream. It is safe for
// concurrent use.
type Monitor struct {
	suite   *Suite
	windows Windows

	mu      sync.Mutex
	parser  fastjson.Parser
	open    map[int64]*window // by begin in Unix nanoseconds
	began   time.Time         // creation of the monitor
	horizon int64             // rows with an earlier time are late
	newest  int64             // latest event time
	latest  map[int]int64     // latest time of each fresh expectation, over all windows
	arrived time.Time         // arrival of the last row
	late    int64
	undated int64
	notJSON int64
}

type window struct {
	rows   int64
	checks []check
}

// NewMonitor returns a monitor that starts at now.
func NewMonitor(s *Suite, w Windows, now time.Time) *Monitor {
	m := &Monitor{suite: s, windows: w, open: map[int64]*window{}, began: now, arrived: now, latest: map[int]int64{}}
	if w.Clock.IsZero() {
		m.horizon = m.begin(now.UnixNano())
		m.window(m.horizon)
	}
	return m
}

// begin returns the begin of the window of a time, both in Unix nanoseconds.
// time.Truncate counts from a Monday, so that windows of a week begin on Mondays.
func (m *Monitor) begin(nanos int64) int64 {
	return time.Unix(0, nanos).UTC().Truncate(m.windows.Every).UnixNano()
}

func (m *Monitor) window(begin int64) *window {
	w := m.open[begin]
	if w == nil {
		w = &window{checks: make([]check, len(m.suite.Expectations))}
		for i := range m.suite.Expectations {
			spec := &m.suite.Expectations[i]
			// New has validated the spec.
			w.checks[i], _ = kinds[spec.Kind].make(spec)
		}
		m.open[begin] = w
	}
	return w
}

// Add adds rows that arrived at now, and returns the reports of the windows that
// this closes, earliest first.
func (m *Monitor) Add(rows [][]byte, now time.Time) []Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	var reports []Report
	if m.windows.Clock.IsZero() {
		reports = m.close(now.UnixNano())
	}
	for _, raw := range rows {
		m.add(raw, now)
	}
	if len(rows) > 0 {
		m.arrived = now
	}
	return append(reports, m.advance(now)...)
}

// Tick returns the reports of the windows that ended without a further row.
func (m *Monitor) Tick(now time.Time) []Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.advance(now)
}

// Flush returns the reports of all open windows.
func (m *Monitor) Flush(now time.Time) []Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	var reports []Report
	for _, begin := range slices.Sorted(maps.Keys(m.open)) {
		end := time.Unix(0, begin).Add(m.windows.Every)
		reports = append(reports, m.report(begin, m.windows.Clock.IsZero() && now.Before(end)))
	}
	return reports
}

func (m *Monitor) add(raw []byte, now time.Time) {
	root, err := m.parser.ParseBytes(raw)
	if err != nil || root.Type() != fastjson.TypeObject {
		m.notJSON++
		return
	}
	nanos := now.UnixNano()
	if !m.windows.Clock.IsZero() {
		var ms int64
		known := false
		m.windows.Clock.Visit(root, func(v event.Value) {
			if v.Kind == event.String {
				ms, err = event.ParseTime(v.Text)
				known = err == nil
			}
		})
		nanos = ms * int64(time.Millisecond)
		if !known || nanos > now.Add(maxFuture).UnixNano() || ms < 0 {
			m.undated++
			return
		}
		m.newest = max(m.newest, nanos)
	}
	begin := m.begin(nanos)
	if begin < m.horizon {
		m.late++
		return
	}
	w := m.window(begin)
	w.rows++
	m.suite.add(w.checks, root)
}

// add adds a row to the checks of a window.
func (s *Suite) add(checks []check, root *fastjson.Value) {
	name := eventName(root)
	names := func(path event.Path, fn func([]byte)) { path.Keys(root, fn) }
	var tree any
	for g := range s.groups {
		group := &s.groups[g]
		if group.events != nil && !group.events[string(name)] {
			continue
		}
		if group.condition != nil {
			if tree == nil {
				tree = event.Generic(root)
			}
			if holds, err := group.condition(tree); err != nil || !holds {
				continue
			}
		}
		for _, i := range group.table {
			checks[i].(rowCheck).row(names)
		}
		for c := range group.columns {
			column := &group.columns[c]
			column.path.Visit(root, func(v event.Value) {
				for _, i := range column.checks {
					checks[i].add(v)
				}
			})
		}
	}
}

// eventName returns the name of an event: the event field of a track event, the
// type of any other.
func eventName(root *fastjson.Value) []byte {
	kind := root.GetStringBytes("type")
	if string(kind) == event.TypeTrack {
		return root.GetStringBytes("event")
	}
	return kind
}

// advance closes the windows that no further row can belong to. In event time,
// all windows close after a silence of one window length plus the lateness.
func (m *Monitor) advance(now time.Time) []Report {
	if m.windows.Clock.IsZero() {
		return m.close(now.UnixNano())
	}
	if now.Sub(m.arrived) >= m.windows.Every+m.windows.Lateness && len(m.open) > 0 {
		last := slices.Max(slices.Collect(maps.Keys(m.open)))
		return m.close(last + int64(m.windows.Every))
	}
	return m.close(m.newest - int64(m.windows.Lateness))
}

// close reports the windows that ended by a time.
func (m *Monitor) close(by int64) []Report {
	upTo := m.begin(by)
	if upTo <= m.horizon {
		return nil
	}
	var reports []Report
	for _, begin := range slices.Sorted(maps.Keys(m.open)) {
		if begin < upTo {
			reports = append(reports, m.report(begin, false))
		}
	}
	m.horizon = upTo
	if m.windows.Clock.IsZero() {
		// A window without rows is reported too: no rows may be the failure.
		m.window(upTo)
	}
	return reports
}

// report evaluates a window and removes it.
func (m *Monitor) report(begin int64, cut bool) Report {
	w := m.open[begin]
	delete(m.open, begin)
	from := time.Unix(0, begin).UTC()
	to := from.Add(m.windows.Every)
	r := Report{
		Suite: m.suite.Name, From: from, To: to, Success: true,
		Partial: cut || m.windows.Clock.IsZero() && from.Before(m.began),
		Rows:    w.rows, Late: m.late, Undated: m.undated, NotJSON: m.notJSON,
	}
	m.late, m.undated, m.notJSON = 0, 0, 0
	for i, c := range w.checks {
		spec := &m.suite.Expectations[i]
		if f, ok := c.(*fresh); ok {
			// The latest row may belong to an earlier window.
			m.latest[i] = max(m.latest[i], f.latest)
			f.latest = m.latest[i]
		}
		result := Result{Name: spec.Name, Expectation: spec.Kind, Column: spec.Column}
		c.evaluate(&result, to)
		if r.Partial && !result.Success && result.isIncomplete(spec) {
			// A partial window has fewer rows.
			result.Success = true
			result.Note = "not evaluated: the window is partial"
		}
		r.Success = r.Success && result.Success
		r.Results = append(r.Results, result)
	}
	return r
}
