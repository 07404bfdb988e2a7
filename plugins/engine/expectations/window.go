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

// Windows says how a stream is cut into the tumbling windows that a suite is
// judged over.
type Windows struct {
	// Every is the length of a window. Windows begin at multiples of it.
	Every time.Duration
	// Clock is the path of the time of a row; unset, it is when it arrives.
	Clock event.Path
	// Lateness is how long after its end a window waits for late rows, by the
	// clock of the rows.
	Lateness time.Duration
}

// maxFuture is how far a row's time may lie ahead before it is not believed: it
// would close the windows of all others.
const maxFuture = time.Hour

// Report is what came of a suite in one window.
type Report struct {
	Suite string    `json:"suite"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	// Partial tells that the window was cut short, or begun late, as the
	// process started or stopped within it.
	Partial bool  `json:"partial,omitempty"`
	Success bool  `json:"success"`
	Rows    int64 `json:"rows"`
	// Late are rows that came after their window was judged, Undated those
	// with no time or one too far ahead, and NotJSON those that are no JSON
	// objects, since the report before.
	Late    int64    `json:"late_rows"`
	Undated int64    `json:"undated_rows"`
	NotJSON int64    `json:"malformed_rows"`
	Results []Result `json:"results"`
}

// Failed returns the results that are not as expected.
func (r *Report) Failed() []Result {
	var failed []Result
	for _, x := range r.Results {
		if !x.Success {
			failed = append(failed, x)
		}
	}
	return failed
}

// JSON returns the report on one line.
func (r *Report) JSON() []byte {
	// It holds nothing that cannot be encoded.
	line, _ := json.Marshal(r)
	return line
}

// Monitor judges the rows of a stream by a suite, window by window. It is safe
// for concurrent use.
type Monitor struct {
	suite   *Suite
	windows Windows

	mu      sync.Mutex
	parser  fastjson.Parser
	open    map[int64]*window // by the Unix nanoseconds of their begin
	began   time.Time         // of the monitor
	horizon int64             // rows of before it are late
	newest  int64             // the latest time of a row
	latest  map[int]int64     // of a fresh expectation, over all windows
	heard   time.Time         // when the last row came
	late    int64
	undated int64
	notJSON int64
}

type window struct {
	rows   int64
	checks []check
}

// NewMonitor begins to judge, at now.
func NewMonitor(s *Suite, w Windows, now time.Time) *Monitor {
	m := &Monitor{suite: s, windows: w, open: map[int64]*window{}, began: now, heard: now, latest: map[int]int64{}}
	if w.Clock.IsZero() {
		m.horizon = m.begin(now.UnixNano())
		m.window(m.horizon)
	}
	return m
}

// begin returns the begin of the window that a time belongs to. Windows are
// counted from a Monday, so that those of a week begin on one.
func (m *Monitor) begin(at int64) int64 {
	return time.Unix(0, at).UTC().Truncate(m.windows.Every).UnixNano()
}

func (m *Monitor) window(begin int64) *window {
	w := m.open[begin]
	if w == nil {
		w = &window{checks: make([]check, len(m.suite.Expectations))}
		for i := range m.suite.Expectations {
			spec := &m.suite.Expectations[i]
			// It was made once when the suite was checked.
			w.checks[i], _ = kinds[spec.Kind].make(spec)
		}
		m.open[begin] = w
	}
	return w
}

// Add takes rows that arrived at now, and returns the reports of the windows
// that end by that, the earliest first.
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
		m.heard = now
	}
	return append(reports, m.advance(now)...)
}

// Tick returns the reports of the windows that have ended by now without any
// row to say so.
func (m *Monitor) Tick(now time.Time) []Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.advance(now)
}

// Flush returns the reports of all windows that are open.
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
	at := now.UnixNano()
	if !m.windows.Clock.IsZero() {
		var ms int64
		known := false
		m.windows.Clock.Visit(root, func(v event.Value) {
			if v.Kind == event.String {
				ms, err = event.ParseTime(v.Text)
				known = err == nil
			}
		})
		at = ms * int64(time.Millisecond)
		if !known || at > now.Add(maxFuture).UnixNano() || ms < 0 {
			m.undated++
			return
		}
		m.newest = max(m.newest, at)
	}
	begin := m.begin(at)
	if begin < m.horizon {
		m.late++
		return
	}
	w := m.window(begin)
	w.rows++
	m.suite.add(w.checks, root)
}

// add takes a row into the checks of a window.
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
				for _, i := range column.of {
					checks[i].add(v)
				}
			})
		}
	}
}

// eventName is what definitions call an event: the event field of a track
// event, the type of any other.
func eventName(root *fastjson.Value) []byte {
	kind := root.GetStringBytes("type")
	if string(kind) == event.TypeTrack {
		return root.GetStringBytes("event")
	}
	return kind
}

// advance closes the windows that no further row can belong to. A stream with a
// clock of its own that falls silent for as long as a window is has ended it.
func (m *Monitor) advance(now time.Time) []Report {
	if m.windows.Clock.IsZero() {
		return m.close(now.UnixNano())
	}
	if now.Sub(m.heard) >= m.windows.Every+m.windows.Lateness && len(m.open) > 0 {
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
		// A window without rows is reported too: that there are none may be the
		// news.
		m.window(upTo)
	}
	return reports
}

// report judges a window and forgets it.
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
			// The latest row may be of an earlier window.
			m.latest[i] = max(m.latest[i], f.latest)
			f.latest = m.latest[i]
		}
		result := Result{Name: spec.Name, Expectation: spec.Kind, Column: spec.Column}
		c.judge(&result, to)
		if r.Partial && !result.Success && result.short(spec) {
			// Half a window has half the rows.
			result.Success = true
			result.Note = "not judged: the window is partial"
		}
		r.Success = r.Success && result.Success
		r.Results = append(r.Results, result)
	}
	return r
}
