package content

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/osteele/liquid/expressions"
	"gopkg.in/yaml.v2"
)

// Reason is why a block gave its fallback instead of its template.
type Reason string

// The reasons.
const (
	// NoCustomer says that there is no profile.
	NoCustomer Reason = "no_customer"
	// MissingValue says that the profile lacks something the block requires.
	MissingValue Reason = "missing_value"
	// OverTime and OverSize say that the budget was used up.
	OverTime Reason = "over_time"
	OverSize Reason = "over_size"
	// Failed says that the template could not be carried out.
	Failed Reason = "failed"
)

// Result is what a block gives a customer.
type Result struct {
	Content []byte
	// Fallback is set if the content is the block's fallback.
	Fallback Reason
	// Line is that of the block's file where rendering ended, if it did not get
	// through, and Problem says why. Neither has anything of the profile.
	Line    int
	Problem string
}

// renderError is why a template was not carried out to its end.
type renderError struct {
	reason  Reason
	line    int
	message string
}

func (e *renderError) Error() string { return e.message }

var (
	errTime = &renderError{reason: OverTime, message: "the template took longer than budget.time allows"}
	errSize = &renderError{reason: OverSize, message: "the content, or a value on the way to it, is larger than budget.bytes allows"}
)

// run is a template being carried out. Runs are pooled, because the filters are
// bound to the one they count against.
type run struct {
	conf     expressions.Config
	html     bool
	maxBytes int
	deadline time.Time
	ticks    int
	spent    int
	asOf     time.Time
	zone     *time.Location
	vars     map[string]any
	context  expressions.Context
	out      []byte
	part     *page // of HTML the output stands in, nil for text
	captured map[string]bool
	line     int
}

var runs = sync.Pool{New: func() any {
	r := &run{}
	r.conf = expressions.NewConfig()
	r.addFilters(&r.conf)
	return r
}}

// maxCapacity keeps one huge result from being held for ever.
const maxCapacity = 1 << 20

// render carries the template out for a profile, of which missing values were
// replaced by the block's defaults.
func (b *Block) run(p *Profile) (content []byte, failure *renderError) {
	r := runs.Get().(*run)
	r.html, r.maxBytes, r.deadline = b.Type == HTML, b.Budget.Bytes, time.Now().Add(b.Budget.Time)
	r.ticks, r.spent, r.line, r.out = 0, 0, b.line, r.out[:0]
	r.asOf, r.zone = p.AsOf, p.zone()
	r.vars = p.variables()
	r.context = expressions.NewContext(r.vars, r.conf)
	r.part, r.captured = nil, nil
	if r.html {
		r.part = &page{}
	}
	defer func() {
		// What the library's expressions panic with may quote the profile.
		if v := recover(); v != nil {
			content, failure = nil, &renderError{Failed, r.line, "an expression cannot be evaluated"}
		}
		r.vars, r.context, r.captured = nil, nil, nil
		if cap(r.out) <= maxCapacity {
			runs.Put(r)
		}
	}()
	if err := r.all(b.nodes); err != nil {
		var known *renderError
		if !errors.As(err, &known) {
			known = &renderError{Failed, 0, "an expression cannot be evaluated"}
		}
		located := *known
		if located.line == 0 {
			located.line = r.line
		}
		return nil, &located
	}
	return append([]byte(nil), r.out...), nil
}

// tick is called for every step. It ends a template that is over time.
func (r *run) tick() error {
	if r.ticks++; r.ticks%16 == 0 && time.Now().After(r.deadline) {
		return errTime
	}
	return nil
}

// spend counts bytes that a value on the way takes, so that one that doubles
// again and again ends before it fills the memory.
func (r *run) spend(n int) error {
	if r.spent += n; r.spent > 64*r.maxBytes || n > maxFactor*r.maxBytes {
		return errSize
	}
	if n > 4096 && time.Now().After(r.deadline) {
		return errTime
	}
	return nil
}

// maxFactor is how much larger than the content a value on the way may be.
const maxFactor = 4

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

func (r *run) evaluate(expr expressions.Expression, line int) (any, error) {
	r.line = line
	v, err := expr.Evaluate(r.context)
	if err == nil {
		return v, nil
	}
	// An error of the library may quote a value; ours say all there is to say.
	var filter expressions.FilterError
	if errors.As(err, &filter) {
		var own *renderError
		if errors.As(filter.Err, &own) {
			located := *own
			located.line = line
			if own.reason == Failed {
				located.message = "filter " + filter.FilterName + ": " + own.message
			}
			return nil, &located
		}
		return nil, &renderError{Failed, line, "filter " + filter.FilterName + " has too many arguments, or of the wrong kind"}
	}
	return nil, &renderError{Failed, line, "an expression cannot be evaluated"}
}

func (n textNode) render(r *run) error {
	if r.part != nil {
		r.part.read(string(n))
	}
	return r.write(string(n))
}

func (n outputNode) render(r *run) error {
	v, err := r.evaluate(n.expr, n.line)
	if err != nil || v == nil {
		return err
	}
	if r.part == nil {
		return r.write(plain(v))
	}
	m, ok := v.(markup)
	if !ok {
		m = markup{text: plain(v)}
		if r.captured[m.text] {
			m.form = formHTML
		}
	}
	text, problem := r.part.admit(m)
	if problem != "" {
		return &renderError{Failed, n.line, problem}
	}
	return r.write(text)
}

func (n ifNode) render(r *run) error {
	for _, b := range n.branches {
		if b.when != nil {
			v, err := r.evaluate(b.when, n.line)
			if err != nil {
				return err
			}
			if v == nil || v == false {
				continue
			}
		}
		return r.all(b.body)
	}
	return nil
}

func (n caseNode) render(r *run) error {
	v, err := r.evaluate(n.of, n.line)
	if err != nil {
		return err
	}
	for _, b := range n.branches {
		hit := len(b.when) == 0
		for _, e := range b.when {
			w, err := r.evaluate(e, n.line)
			if err != nil {
				return err
			}
			hit = hit || same(v, w)
		}
		if hit {
			return r.all(b.body)
		}
	}
	return nil
}

func (n forNode) render(r *run) error {
	v, err := r.evaluate(n.loop.Expr, n.line)
	if err != nil {
		return err
	}
	count, at := items(v)
	from, to := 0, count
	if n.loop.Offset != nil {
		o, err := r.evaluate(n.loop.Offset, n.line)
		if err != nil {
			return err
		}
		from = min(max(whole(o), 0), count)
	}
	if n.loop.Limit != nil {
		l, err := r.evaluate(n.loop.Limit, n.line)
		if err != nil {
			return err
		}
		to = min(to, from+min(max(whole(l), 0), count))
	}
	length := to - from
	if length <= 0 {
		return r.all(n.not)
	}
	outer, outerLoop := r.vars[n.loop.Variable], r.vars["forloop"]
	defer func() { r.vars[n.loop.Variable], r.vars["forloop"] = outer, outerLoop }()
	cycles := map[string]int{}
	for i := range length {
		if err := r.tick(); err != nil {
			return err
		}
		position := from + i
		if n.loop.Reversed {
			position = to - 1 - i
		}
		r.vars[n.loop.Variable] = at(position)
		r.vars["forloop"] = map[string]any{
			"first": i == 0, "last": i == length-1, "index": i + 1, "index0": i,
			"rindex": length - i, "rindex0": length - i - 1, "length": length, ".cycles": cycles,
		}
		switch err := r.all(n.body); {
		case err == nil || errors.Is(err, errContinue):
		case errors.Is(err, errBreak):
			return nil
		default:
			return err
		}
	}
	return nil
}

func (n assignNode) render(r *run) error {
	v, err := r.evaluate(n.expr, n.line)
	if err == nil {
		r.vars[n.name] = v
	}
	return err
}

// render keeps what the body gives as a value. In HTML it is escaped by then,
// which is remembered, so that writing it where text goes does not escape it
// again.
func (n captureNode) render(r *run) error {
	start, part := len(r.out), r.part
	if part != nil {
		r.part = &page{}
	}
	err := r.all(n.body)
	whole := r.part == nil || r.part.in == inText
	r.part = part
	if err != nil {
		return err
	}
	text := string(r.out[start:])
	r.out = r.out[:start]
	if err := r.spend(len(text)); err != nil {
		return err
	}
	r.vars[n.name] = text
	if part != nil && whole {
		if r.captured == nil {
			r.captured = map[string]bool{}
		}
		r.captured[text] = true
	}
	return nil
}

func (n cycleNode) render(r *run) error {
	loop, _ := r.vars["forloop"].(map[string]any)
	cycles, ok := loop[".cycles"].(map[string]int)
	if !ok {
		return &renderError{Failed, n.line, "cycle stands outside a for"}
	}
	group := n.Group
	if group == "" {
		group = strings.Join(n.Values, "\x00")
	}
	text := n.Values[cycles[group]%len(n.Values)]
	cycles[group]++
	return textNode(text).render(r)
}

func (n jumpNode) render(*run) error { return n.err }

// items returns how many items a value has for a loop, and each of them. An
// object has pairs of name and value, in its order.
func items(v any) (int, func(int) any) {
	switch v := v.(type) {
	case []any:
		return len(v), func(i int) any { return v[i] }
	case yaml.MapSlice:
		return len(v), func(i int) any { return []any{v[i].Key, v[i].Value} }
	case span:
		return max(v.Len(), 0), v.Index
	}
	return 0, nil
}

// span is the library's range of whole numbers.
type span interface {
	Len() int
	Index(int) any
}

// same compares as == does in a template.
func same(a, b any) bool {
	if m, ok := a.(markup); ok {
		a = m.text
	}
	x, xNumber := number(a)
	y, yNumber := number(b)
	if xNumber && yNumber {
		return x == y
	}
	switch a.(type) {
	case string, bool, nil:
		return a == b
	}
	return false
}

// number returns what a value is as a number, not counting texts.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// whole returns a value as a whole number, 0 for anything that is none.
func whole(v any) int {
	f, _ := numeric(v)
	if math.IsNaN(f) || math.Abs(f) > 1e9 {
		return 0
	}
	return int(f)
}

// numeric returns what a value is as a number, texts included.
func numeric(v any) (float64, bool) {
	switch v := v.(type) {
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
	case markup:
		return numeric(v.text)
	}
	return number(v)
}

// plain is a value as text.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case markup:
		return v.text
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case float64:
		return formatNumber(v)
	case []any:
		var b strings.Builder
		for _, item := range v {
			b.WriteString(plain(item))
		}
		return b.String()
	case yaml.MapSlice:
		return string(appendJSON(nil, v))
	case span:
		if n := v.Len(); n > 0 {
			return plain(v.Index(0)) + ".." + plain(v.Index(n-1))
		}
	}
	return ""
}

// formatNumber writes a number without exponent, to six places.
func formatNumber(f float64) string {
	if math.Abs(f) < 1e9 {
		f = math.Round(f*1e6) / 1e6
	}
	if f == 0 {
		return "0" // not -0
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
