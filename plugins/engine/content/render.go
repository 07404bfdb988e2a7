package content

import (
	"errors"
	"math"
	"sync"
	"time"
)

// Reason is why a block returned its fallback.
type Reason string

// The reasons.
const (
	// NoCustomer means that there is no profile.
	NoCustomer Reason = "no_customer"
	// MissingValue means that the profile has no value that the block requires.
	MissingValue Reason = "missing_value"
	// OverTime and OverSize mean that the budget was exceeded.
	OverTime Reason = "over_time"
	OverSize Reason = "over_size"
	// Failed means that an expression could not be evaluated.
	Failed Reason = "failed"
)

// Result is the content of a block for a customer.
type Result struct {
	Content []byte
	// Fallback is set if Content is the block's fallback.
	Fallback Reason
	// Line is the line of the block's file at which rendering failed, and Problem
	// the reason. Neither contains data of the profile.
	Line    int
	Problem string
}

// renderError ends the rendering of a template.
type renderError struct {
	reason  Reason
	line    int
	message string
}

func (e *renderError) Error() string { return e.message }

func wrong(message string) error { return &renderError{reason: Failed, message: message} }

var (
	errTime = &renderError{reason: OverTime, message: "the template took longer than budget.time"}
	errSize = &renderError{reason: OverSize, message: "the content or an intermediate value is larger than budget.bytes"}
)

// errBreak and errContinue end the body of a loop.
var (
	errBreak    = errors.New("break outside of a loop")
	errContinue = errors.New("continue outside of a loop")
)

// run is the state of one rendering.
type run struct {
	html     bool
	maxBytes int
	deadline time.Time
	ticks    int
	spent    int
	asOf     time.Time
	zone     *time.Location
	vars     map[string]any
	out      []byte
	page     *page // position in the HTML, nil for text
	line     int

	// The tags with a state that outlives them; nil until one is used.
	counters map[string]int64 // increment and decrement
	cycles   map[string]int   // next position by cycle
	ends     map[string]int   // end of a loop by its name, for offset: continue
	changed  string           // last output of ifchanged
	objects  func(line int)   // called when a list of objects is written as text
	loop     *loop            // innermost for loop
}

var runs = sync.Pool{New: func() any { return &run{} }}

// maxCapacity is the largest output buffer that is kept for reuse.
const maxCapacity = 1 << 20

// execute renders the template for the variables of a profile.
func (b *Block) execute(p *Profile, objects func(line int)) (content []byte, failure *renderError) {
	r := runs.Get().(*run)
	*r = run{
		html: b.Type == HTML, maxBytes: b.Budget.Bytes, deadline: time.Now().Add(b.Budget.Time),
		line: b.line, out: r.out[:0], asOf: p.AsOf, zone: p.zone(), vars: p.variables(), objects: objects,
	}
	defer func() {
		if cap(r.out) <= maxCapacity {
			*r = run{out: r.out}
			runs.Put(r)
		}
	}()
	return r.template(b.nodes)
}

func (r *run) template(nodes []node) (content []byte, failure *renderError) {
	if r.html {
		r.page = &page{}
	}
	if err := r.all(nodes); err != nil {
		known := &renderError{reason: Failed, message: "an expression cannot be evaluated"}
		errors.As(err, &known)
		located := *known
		if located.line == 0 {
			located.line = r.line
		}
		return nil, &located
	}
	return append([]byte(nil), r.out...), nil
}

// variable returns the value of a name.
func (r *run) variable(name string) any {
	if v, ok := r.vars[name]; ok {
		return v
	}
	if n, ok := r.counters[name]; ok {
		return n
	}
	return nil
}

// tick is called for every step. It ends a template that exceeds its time.
func (r *run) tick() error {
	if r.ticks++; r.ticks%16 == 0 && time.Now().After(r.deadline) {
		return errTime
	}
	return nil
}

// maxFactor is the maximum size of an intermediate value, relative to the content.
const maxFactor = 4

// spend counts the bytes of intermediate values, so that a value that doubles again
// and again ends the template before it exhausts the memory.
func (r *run) spend(n int) error {
	if r.spent += n; r.spent > 64*r.maxBytes || n > maxFactor*r.maxBytes {
		return errSize
	}
	if n > 4096 && time.Now().After(r.deadline) {
		return errTime
	}
	return nil
}

func (r *run) all(nodes []node) error {
	for _, n := range nodes {
		if err := r.tick(); err != nil {
			return err
		}
		if err := n.render(r); err != nil {
			return err
		}
	}
	return nil
}

// write appends to the content.
func (r *run) write(s string) error {
	if len(r.out)+len(s) > r.maxBytes {
		return errSize
	}
	r.out = append(r.out, s...)
	return nil
}

func (r *run) evaluate(e expression, line int) (any, error) {
	r.line = line
	return e.evaluate(r)
}

// writeMarkup appends text of the template.
func (r *run) writeMarkup(s string) error {
	if r.page != nil {
		r.page.read(s)
	}
	return r.write(s)
}

// writeValue appends a value, escaped for its position.
func (r *run) writeValue(v any, line int) error {
	if r.objects != nil && holdsObjects(v) {
		r.objects(line)
	}
	if r.page == nil {
		return r.write(plain(v))
	}
	m, ok := v.(markup)
	if !ok {
		m = markup{text: plain(v)}
	}
	if m.text == "" {
		return nil
	}
	text, problem := r.page.admit(m)
	if problem != "" {
		return &renderError{Failed, line, problem}
	}
	return r.write(text)
}

func (n textNode) render(r *run) error { return r.writeMarkup(string(n)) }

func (n outputNode) render(r *run) error {
	v, err := r.evaluate(n.expr, n.line)
	if err != nil {
		return err
	}
	return r.writeValue(v, n.line)
}

func (n ifNode) render(r *run) error {
	for i := range n.branches {
		b := &n.branches[i]
		if b.when != nil {
			v, err := r.evaluate(b.when, n.line)
			if err != nil {
				return err
			}
			if !isTrue(v) {
				continue
			}
		}
		return r.all(b.body)
	}
	return nil
}

// render evaluates all branches: as in Liquid, every matching when is written, and
// else only if no when before it matches.
func (n caseNode) render(r *run) error {
	subject, err := r.evaluate(n.subject, n.line)
	if err != nil {
		return err
	}
	matched := false
	for i := range n.branches {
		b := &n.branches[i]
		hit := b.isElse && !matched
		for _, e := range b.when {
			v, err := r.evaluate(e, n.line)
			if err != nil {
				return err
			}
			hit = hit || equal(subject, v)
		}
		if !hit {
			continue
		}
		matched = matched || !b.isElse
		if err := r.all(b.body); err != nil {
			return err
		}
	}
	return nil
}

// loop is the forloop object.
type loop struct {
	name          string
	index, length int
	parent        *loop
	// columns is the number of columns of a tablerow, 0 for a for loop.
	columns int
}

func (l *loop) member(name string) any {
	switch name {
	case "first":
		return l.index == 0
	case "last":
		return l.index == l.length-1
	case "index":
		return int64(l.index + 1)
	case "index0":
		return int64(l.index)
	case "rindex":
		return int64(l.length - l.index)
	case "rindex0":
		return int64(l.length - l.index - 1)
	case "length":
		return int64(l.length)
	case "name":
		return l.name
	case "parentloop":
		if l.parent != nil {
			return l.parent
		}
	}
	if l.columns == 0 {
		return nil
	}
	switch name {
	case "col":
		return int64(l.index%l.columns + 1)
	case "col0":
		return int64(l.index % l.columns)
	case "col_first":
		return l.index%l.columns == 0
	case "col_last":
		return l.index%l.columns == l.columns-1 || l.index == l.length-1
	case "row":
		return int64(l.index/l.columns + 1)
	}
	return nil
}

// each calls body for the selected items of a loop. It returns the number of items.
func (h *loopHead) each(r *run, l *loop, variable string, body func() error) (int, error) {
	v, err := r.evaluate(h.list, h.line)
	if err != nil {
		return 0, err
	}
	count, item := items(v)
	from, to := 0, count
	switch {
	case h.continues:
		from = min(r.ends[h.name], count)
	case h.offset != nil:
		o, err := h.bound(r, h.offset, "offset", 0)
		if err != nil {
			return 0, err
		}
		from = min(o, count)
	}
	if h.limit != nil {
		n, err := h.bound(r, h.limit, "limit", count)
		if err != nil {
			return 0, err
		}
		to = from + min(n, count-from)
	}
	if r.ends == nil {
		r.ends = map[string]int{}
	}
	r.ends[h.name] = to
	if l.length = to - from; l.length <= 0 {
		return 0, nil
	}
	if h.columns != nil {
		columns, err := h.bound(r, h.columns, "cols", l.length)
		if err != nil {
			return 0, err
		}
		l.columns = max(columns, 1)
	} else if variable == "tablerowloop" {
		l.columns = l.length
	}
	outer, hasOuter := r.vars[h.variable]
	outerLoop, hasOuterLoop := r.vars[variable]
	defer func() {
		restore(r.vars, h.variable, outer, hasOuter)
		restore(r.vars, variable, outerLoop, hasOuterLoop)
	}()
	r.vars[variable] = l
	for i := range l.length {
		if err := r.tick(); err != nil {
			return i, err
		}
		position := from + i
		if h.reversed {
			position = to - 1 - i
		}
		l.index = i
		r.vars[h.variable] = item(position)
		switch err := body(); err {
		case nil:
		case errBreak:
			return l.length, nil
		default:
			return i, err
		}
	}
	return l.length, nil
}

func restore(vars map[string]any, name string, v any, had bool) {
	if had {
		vars[name] = v
		return
	}
	delete(vars, name)
}

// bound evaluates a limit, an offset or the columns: a number or a text with one.
func (h *loopHead) bound(r *run, e expression, name string, absent int) (int, error) {
	v, err := r.evaluate(e, h.line)
	if err != nil {
		return 0, err
	}
	if isNil(v) {
		return absent, nil
	}
	n, ok := numeric(v)
	if !ok {
		return 0, wrong(name + " is not a number")
	}
	return int(min(max(asInt(n), 0), math.MaxInt32)), nil
}

func (n forNode) render(r *run) error {
	l := &loop{name: n.name, parent: r.loop}
	r.loop = l
	count, err := n.each(r, l, "forloop", func() error {
		if err := r.all(n.body); err != errContinue {
			return err
		}
		return nil
	})
	r.loop = l.parent
	if err != nil || count > 0 {
		return err
	}
	return r.all(n.otherwise)
}

// render writes the rows and cells of a table.
func (n rowNode) render(r *run) error {
	if err := r.writeMarkup("<tr class=\"row1\">\n"); err != nil {
		return err
	}
	l := &loop{name: n.name}
	_, err := n.each(r, l, "tablerowloop", func() error {
		if l.index > 0 && l.index%l.columns == 0 {
			if err := r.writeMarkup("</tr>\n<tr class=\"row" + plain(l.member("row")) + "\">"); err != nil {
				return err
			}
		}
		if err := r.writeMarkup(`<td class="col` + plain(l.member("col")) + `">`); err != nil {
			return err
		}
		ended := r.all(n.body)
		if ended != nil && ended != errBreak && ended != errContinue {
			return ended
		}
		if err := r.writeMarkup("</td>"); err != nil || ended == errContinue {
			return err
		}
		return ended
	})
	if err != nil {
		return err
	}
	return r.writeMarkup("</tr>\n")
}

func (n assignNode) render(r *run) error {
	v, err := r.evaluate(n.expr, n.line)
	if err == nil {
		r.vars[n.name] = v
	}
	return err
}

// capture renders nodes and returns their output. In HTML the output is escaped
// already: with tags it is markup, so that it is not escaped again; without tags it
// is converted back to text, so that filters and attributes can use it.
func (r *run) capture(nodes []node) (any, error) {
	start, outer := len(r.out), r.page
	if r.html {
		r.page = &page{}
	}
	err := r.all(nodes)
	isWhole := r.page == nil || r.page.in == inText
	r.page = outer
	if err != nil {
		return nil, err
	}
	text := string(r.out[start:])
	r.out = r.out[:start]
	if err := r.spend(len(text)); err != nil {
		return nil, err
	}
	switch {
	case !r.html || !isWhole:
		return text, nil
	case hasTags(text):
		return markup{text, formHTML}, nil
	}
	return decodeEntities(text), nil
}

func (n captureNode) render(r *run) error {
	v, err := r.capture(n.body)
	if err == nil {
		r.vars[n.name] = v
	}
	return err
}

func (n changedNode) render(r *run) error {
	start := len(r.out)
	var before *page
	if r.page != nil {
		before = r.page.clone()
	}
	if err := r.all(n.body); err != nil {
		return err
	}
	if text := string(r.out[start:]); text != r.changed {
		r.changed = text
		return nil
	}
	r.out = r.out[:start]
	if before != nil {
		*r.page = *before
	}
	return nil
}

func (n counterNode) render(r *run) error {
	if r.counters == nil {
		r.counters = map[string]int64{}
	}
	value := r.counters[n.name]
	r.counters[n.name] = value + n.step
	// decrement writes the new value, increment the old one.
	if n.step < 0 {
		value += n.step
	}
	return r.writeValue(value, r.line)
}

// render writes the next value of a cycle. The position is kept by the group, or by
// the values of a cycle without one.
func (n cycleNode) render(r *run) error {
	name := n.name
	if n.group != nil {
		group, err := r.evaluate(n.group, n.line)
		if err != nil {
			return err
		}
		name = "\x00" + plain(group)
	}
	if r.cycles == nil {
		r.cycles = map[string]int{}
	}
	position := r.cycles[name]
	if r.cycles[name]++; r.cycles[name] >= len(n.values) {
		r.cycles[name] = 0
	}
	if position >= len(n.values) {
		return nil
	}
	value := n.values[position]
	if text, ok := value.(literal); ok {
		return r.writeMarkup(plain(text.value))
	}
	v, err := r.evaluate(value, n.line)
	if err != nil {
		return err
	}
	return r.writeValue(v, n.line)
}

func (n jumpNode) render(*run) error { return n.err }
