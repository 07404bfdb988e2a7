package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// results are the kept results of full runs; each kind of run replaces its own part.
type results struct {
	Table *table `json:"table,omitempty"`
	API   *table `json:"api,omitempty"`
	Curve *curve `json:"curve,omitempty"`
}

func readResults(path string) (*results, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &results{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (r *results) write(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// conditions describe the machine and versions of a run.
type conditions struct {
	Date     string `json:"date"`
	Commit   string `json:"commit"`
	Command  string `json:"command"`
	Machine  string `json:"machine"`
	Versions string `json:"versions"`
	// Load is the load average over the minute before the run. Above 1 the numbers are
	// not comparable.
	Load string `json:"load"`
}

func describe(ctx context.Context, root string, short bool) conditions {
	output := func(command ...string) string {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = root
		out, _ := cmd.Output()
		return strings.TrimSpace(string(out))
	}
	field := func(path, name string) string {
		data, _ := os.ReadFile(path)
		for line := range strings.Lines(string(data)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
				return strings.TrimSpace(value)
			}
		}
		return "unknown"
	}
	commit := output("git", "rev-parse", "--short=12", "HEAD")
	if output("git", "status", "--porcelain", "--", "cmd", "plugins", "go.mod") != "" {
		commit += ", with changes"
	}
	memory := field("/proc/meminfo", "MemTotal")
	if kib, err := strconv.ParseFloat(strings.TrimSuffix(memory, " kB"), 64); err == nil {
		memory = bytesText(kib * 1024)
	}
	average, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(average), " ")
	command := "go run ./tests/bench"
	if len(os.Args) > 1 {
		command += " " + strings.Join(os.Args[1:], " ")
	}
	redis := output("redis-server", "--version")
	if _, after, ok := strings.Cut(redis, "v="); ok {
		redis, _, _ = strings.Cut(after, " ")
	}
	c := conditions{
		Date:    time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		Commit:  commit,
		Command: command,
		Machine: fmt.Sprintf("%d cores (%s), %s of memory, %s %s, shared by load, service and process",
			runtime.NumCPU(), field("/proc/cpuinfo", "model name"), memory, runtime.GOOS, output("uname", "-r")),
		Versions: fmt.Sprintf("%s, Redis %s", runtime.Version(), redis),
		Load:     load,
	}
	if short {
		c.Command += " (small sizes: no measure of speed)"
	}
	return c
}

func (c conditions) String() string {
	return fmt.Sprintf("date     %s\ncommit   %s\ncommand  %s\nmachine  %s\nversions %s\nload     %s before the run\n",
		c.Date, c.Commit, c.Command, c.Machine, c.Versions, c.Load)
}

// table is the result of one run of the comparisons.
type table struct {
	Conditions   conditions            `json:"conditions"`
	Rows         []row                 `json:"rows"`
	Runs         map[string][]measured `json:"runs"`
	Update       []updateCost          `json:"update,omitempty"`
	Reads        loads                 `json:"reads,omitempty"`
	EventBytes   float64               `json:"event_bytes,omitempty"`
	ProfileBytes float64               `json:"profile_bytes,omitempty"`
}

// row compares one of our figures with another. A row without Least and Most has no
// budget.
type row struct {
	What    string  `json:"what"`
	Unit    string  `json:"unit,omitempty"`
	Ours    float64 `json:"ours"`
	Against string  `json:"against"`
	Theirs  float64 `json:"theirs"`
	Least   float64 `json:"least,omitempty"` // of the ratio
	Most    float64 `json:"most,omitempty"`
}

const (
	bytesUnit = "bytes"
	timeUnit  = "microseconds"
)

// compare adds a row if both figures were measured.
func (t *table) compare(r row) {
	if r.Ours > 0 && r.Theirs > 0 {
		t.Rows = append(t.Rows, r)
	}
}

func (r row) ratio() float64 { return r.Ours / r.Theirs }

func (r row) figure(v float64) string {
	switch r.Unit {
	case bytesUnit:
		return bytesText(v)
	case timeUnit:
		return fmt.Sprintf("%.2f ms", v/1e3)
	}
	return thousands(v)
}

func (r row) budget() (text, verdict string) {
	met := true
	switch {
	case r.Least > 0:
		text, met = fmt.Sprintf("at least %g", r.Least), r.ratio() >= r.Least
	case r.Most > 0:
		text, met = fmt.Sprintf("at most %g", r.Most), r.ratio() <= r.Most
	default:
		return "", ""
	}
	if met {
		return text, "met"
	}
	return text, "missed"
}

// updateCost is the result of the Go benchmark of update_profile alone.
type updateCost struct {
	Batch           int     `json:"batch"`
	EventsPerSecond float64 `json:"events_per_second"`
	BytesPerEvent   float64 `json:"bytes_per_event"`
	AllocsPerEvent  float64 `json:"allocs_per_event"`
}

// grid is a table of text, for the terminal and for Markdown.
type grid struct {
	head []string
	rows [][]string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) text() string {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, cells := range append([][]string{g.head}, g.rows...) {
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush()
	return out.String()
}

func (g *grid) markdown() string {
	var out strings.Builder
	line := func(cells []string) { out.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(g.head)
	line(slices.Repeat([]string{"---"}, len(g.head)))
	for _, cells := range g.rows {
		line(cells)
	}
	return out.String()
}

func (t *table) comparisons() *grid {
	g := &grid{head: []string{"what", "ours", "against", "that", "ratio", "budget", ""}}
	for _, r := range t.Rows {
		budget, verdict := r.budget()
		g.add(r.What, r.figure(r.Ours), r.Against, r.figure(r.Theirs), fmt.Sprintf("%.2f", r.ratio()), budget, verdict)
	}
	return g
}

// costs shows the processor time of each pipeline.
func (t *table) costs() *grid {
	g := &grid{head: []string{"pipeline", "events/s", "CPU of the process, us an event", "CPU of Redis, us an event", "peak memory"}}
	for _, p := range []struct{ name, what string }{
		{"floor", "input to drop"},
		{"redis", "validate, clean, update, Redis"},
		{"redis_mapped", "the same, every event mapped"},
		{"embedded", "validate, clean, update, embedded"},
		{"embedded_mapped", "the same, every event mapped"},
		{"embedded_unmapped", "validate, update, embedded"},
		{"stock", "stock Connect, Redis"},
	} {
		runs := t.Runs[p.name]
		if len(runs) == 0 {
			continue
		}
		g.add(p.what,
			thousands(median(runs, measured.rate)),
			fmt.Sprintf("%.1f", median(runs, func(m measured) float64 { return perEvent(m.CPU, m) })),
			fmt.Sprintf("%.1f", median(runs, func(m measured) float64 { return perEvent(m.RedisCPU, m) })),
			bytesText(median(runs, func(m measured) float64 { return float64(m.PeakBytes) })))
	}
	return g
}

func (t *table) updates() *grid {
	g := &grid{head: []string{"events a batch", "events/s", "bytes allocated an event", "allocations an event"}}
	for _, u := range t.Update {
		g.add(strconv.Itoa(u.Batch), thousands(u.EventsPerSecond), thousands(u.BytesPerEvent), fmt.Sprintf("%.0f", u.AllocsPerEvent))
	}
	return g
}

func (t *table) reading() *grid {
	g := &grid{head: []string{"connections", "server", "requests/s", "p50", "p99", "p99.9", "errors"}}
	var connections []int
	var names []string
	for _, l := range t.Reads {
		if !slices.Contains(connections, l.Connections) {
			connections = append(connections, l.Connections)
		}
		if !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	ms := func(v float64) string { return fmt.Sprintf("%.2f ms", v/1e3) }
	for _, c := range connections {
		for _, name := range names {
			these := t.Reads.of(name, c)
			failed := 0
			for _, l := range these {
				failed += l.Errors
			}
			g.add(thousands(float64(c)), name, thousands(median(these, load.rate)),
				ms(median(these, func(l load) float64 { return l.P50 })),
				ms(median(these, func(l load) float64 { return l.P99 })),
				ms(median(these, func(l load) float64 { return l.P999 })), strconv.Itoa(failed))
		}
	}
	return g
}

// section is a part of a report.
type section struct {
	title string
	grid  *grid
}

func (t *table) sections() []section {
	all := []section{
		{"Against the budgets", t.comparisons()},
		{"Where the time goes", t.costs()},
		{"update_profile alone, store in memory", t.updates()},
		{"Reads of one profile", t.reading()},
	}
	return slices.DeleteFunc(all, func(s section) bool { return len(s.grid.rows) == 0 })
}

func (t *table) print() {
	fmt.Printf("\n%s", t.Conditions)
	for _, s := range t.sections() {
		fmt.Printf("\n%s\n\n%s", s.title, s.grid.text())
	}
}

func (c *curve) grid() *grid {
	g := &grid{head: []string{"customers", "processes", "batch", "events/s", "CPU of the processes, us an event", "CPU of Redis, us an event", "peak memory a process", "Redis"}}
	for _, p := range c.Points {
		g.add(thousands(float64(p.Customers)), strconv.Itoa(p.Processes), strconv.Itoa(p.Batch), thousands(p.Run.rate()),
			fmt.Sprintf("%.1f", perEvent(p.Run.CPU, p.Run)), fmt.Sprintf("%.1f", perEvent(p.Run.RedisCPU, p.Run)),
			bytesText(float64(p.Run.PeakBytes)), bytesText(p.RedisBytes))
	}
	return g
}

func (c *curve) print() { fmt.Printf("\n%s\n%s", c.Conditions, c.grid().text()) }

// The lines in the documents between which this program writes.
const (
	generatedBegin = "<!-- written by go run ./tests/bench: begin -->"
	generatedEnd   = "<!-- written by go run ./tests/bench: end -->"
)

// writeDocs writes the results into the documents.
func (b *bench) writeDocs() error {
	var out strings.Builder
	part := func(title string, c conditions, sections []section) {
		fmt.Fprintf(&out, "\n## %s\n\n```text\n%s```\n", title, c)
		for _, s := range sections {
			if s.title != "" {
				fmt.Fprintf(&out, "\n### %s\n", s.title)
			}
			fmt.Fprintf(&out, "\n%s", s.grid.markdown())
		}
	}
	if t := b.results.Table; t != nil {
		part("The table", t.Conditions, t.sections())
	}
	if t := b.results.API; t != nil {
		part("The profile API", t.Conditions, t.sections())
	}
	if c := b.results.Curve; c != nil {
		part("Customers, processes and batches", c.Conditions, []section{{"", c.grid()}})
	}
	if err := replaceGenerated(filepath.Join(b.root, "docs/benchmarks.md"), out.String()); err != nil {
		return err
	}
	scale, err := b.results.scale()
	if err != nil {
		return err
	}
	return replaceGenerated(filepath.Join(b.root, "docs/scale.md"), scale)
}

func replaceGenerated(path, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(data), generatedBegin)
	_, after, ended := strings.Cut(rest, generatedEnd)
	if !ok || !ended {
		return fmt.Errorf("%s: lacks the lines %q and %q", path, generatedBegin, generatedEnd)
	}
	return os.WriteFile(path, []byte(before+generatedBegin+"\n"+text+"\n"+generatedEnd+after), 0o644)
}

func median[T any](all []T, of func(T) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = of(v)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// perEvent returns microseconds per event.
func perEvent(d time.Duration, m measured) float64 {
	return d.Seconds() * 1e6 / float64(m.Events)
}

// thousands writes a number to three significant digits or the whole, with
// commas.
func thousands(v float64) string {
	if v < 10 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

func bytesText(v float64) string {
	switch {
	case v >= 1<<40:
		return fmt.Sprintf("%.1f TiB", v/(1<<40))
	case v >= 1<<30:
		return fmt.Sprintf("%.1f GiB", v/(1<<30))
	case v >= 1<<20:
		return fmt.Sprintf("%.0f MiB", v/(1<<20))
	}
	return thousands(v) + " B"
}
