package expectations

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
	"github.com/valyala/fastjson"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/event"
)

// Suggester analyses rows of good quality and proposes a suite that they meet
// with a margin. Its memory is bounded by the number of columns.
type Suggester struct {
	parser fastjson.Parser
	rows   int64
	events map[string]*profiled
}

// profiled are the statistics of the rows of one event.
type profiled struct {
	rows    int64
	columns map[string]*profiledColumn
}

type profiledColumn struct {
	elements, missing int64
	numbers           sample
	numeric           int64
	least, greatest   float64
	texts             map[string]int64 // number of occurrences by canonical value
	varied            bool             // there are more values than in texts
	unique            map[uint64]struct{}
	repeats           bool
	times             int64
}

const (
	// maxProfiledColumns is the maximum number of columns of an event, maxDepth
	// their maximum nesting.
	maxProfiledColumns = 300
	maxDepth           = 4
	// maxSet is the maximum size of a proposed set of values.
	maxSet = 20
	// minDistribution is the minimum number of values for a proposed distribution.
	minDistribution = 500
	// margin extends proposed bounds on both sides, relative to their range.
	margin = 0.25
)

// NewSuggester returns a Suggester without rows.
func NewSuggester() *Suggester { return &Suggester{events: map[string]*profiled{}} }

// Add adds a row and reports whether it is a JSON object.
func (s *Suggester) Add(raw []byte) bool {
	root, err := s.parser.ParseBytes(raw)
	if err != nil || root.Type() != fastjson.TypeObject {
		return false
	}
	s.rows++
	name := string(eventName(root))
	p := s.events[name]
	if p == nil {
		p = &profiled{columns: map[string]*profiledColumn{}}
		s.events[name] = p
	}
	p.rows++
	p.object(root, "", 0, name != "")
	return true
}

// senderFields are event fields that describe the sender. Their values change
// with every release of an app.
var senderFields = map[string]bool{"type": true, "event": true, "context": true, "integrations": true}

// object adds the members of the object at a path; isEvent is true for an entire
// event.
func (p *profiled) object(o *fastjson.Value, path string, depth int, isEvent bool) {
	o.GetObject().Visit(func(name []byte, v *fastjson.Value) {
		key := string(name)
		if bytes.ContainsAny(name, ".[]*") || key == "" {
			return // a path cannot express this key
		}
		if isEvent && senderFields[key] {
			return
		}
		if path != "" {
			key = path + "." + key
		}
		switch {
		case v.Type() == fastjson.TypeObject && depth < maxDepth:
			p.object(v, key, depth+1, false)
		case v.Type() == fastjson.TypeArray && !bytes.Contains([]byte(path), []byte("[]")):
			for _, element := range v.GetArray() {
				if element.Type() == fastjson.TypeObject {
					p.object(element, key+"[]", maxDepth, false)
				}
			}
		default:
			p.column(key, v)
		}
	})
}

func (p *profiled) column(path string, v *fastjson.Value) {
	c := p.columns[path]
	if c == nil {
		if len(p.columns) >= maxProfiledColumns {
			return
		}
		c = &profiledColumn{texts: map[string]int64{}, unique: map[uint64]struct{}{}, least: math.Inf(1), greatest: math.Inf(-1)}
		p.columns[path] = c
	}
	event.Path{}.Visit(v, c.add)
}

func (c *profiledColumn) add(v event.Value) {
	c.elements++
	switch v.Kind {
	case event.Missing:
		c.missing++
		return
	case event.Number:
		c.numeric++
		c.numbers.add(v.Number)
		c.least, c.greatest = min(c.least, v.Number), max(c.greatest, v.Number)
	case event.String:
		if _, err := event.ParseTime(v.Text); err == nil {
			c.times++
		}
	}
	t := text(v)
	if _, known := c.texts[t]; known || len(c.texts) <= maxSet {
		c.texts[t]++
	} else {
		c.varied = true
	}
	if c.repeats {
		return
	}
	h := xxhash.Sum64String(t)
	if _, again := c.unique[h]; again || len(c.unique) > maxDistinct/16 {
		c.repeats = true
		c.unique = nil
		return
	}
	c.unique[h] = struct{}{}
}

// Suite returns the proposal as a suite file. The file contains the values of
// sets: review it before sharing it.
func (s *Suggester) Suite(name string) ([]byte, error) {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, e := range slices.Sorted(maps.Keys(s.events)) {
		s.events[e].suggest(list, e)
	}
	if len(list.Content) == 0 {
		return nil, fmt.Errorf("%d rows are too few for a proposal; pass more", s.rows)
	}
	root := mapping("name", name, "expectations", list)
	root.HeadComment = fmt.Sprintf("Proposed from %d rows. Edit the bounds, and remove expectations about values\nthat may change freely.", s.rows)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// suggest appends the proposed expectations of an event.
func (p *profiled) suggest(list *yaml.Node, name string) {
	for _, path := range slices.Sorted(maps.Keys(p.columns)) {
		c := p.columns[path]
		add := func(kind Kind, args ...any) {
			item := mapping()
			if name != "" {
				put(item, "events", flow([]any{name}))
			}
			put(item, string(kind), mapping(append([]any{"column", path}, args...)...))
			list.Content = append(list.Content, item)
		}
		count := c.elements - c.missing
		// Rows without the column have no element.
		present := float64(count) / float64(max(p.rows, c.elements))
		if bytes.Contains([]byte(path), []byte("[]")) {
			present = float64(count) / float64(max(c.elements, 1))
		}
		if present > 0.9 {
			args := []any{}
			if present < 1 {
				args = append(args, "mostly", round(max(0.01, 1-2*(1-present)), math.Floor))
			}
			add(NotNull, args...)
		}
		if count < 20 {
			continue
		}
		switch {
		case c.numeric == count && c.greatest > c.least:
			p.suggestNumbers(c, add)
		case !c.varied && len(c.texts) <= maxSet && c.numeric == 0 && count >= 50:
			p.suggestSet(c, count, add)
		case c.times == count:
			// Times are always distinct.
		case !c.repeats && count >= 100:
			add(Unique)
		}
	}
}

func (p *profiled) suggestNumbers(c *profiledColumn, add func(Kind, ...any)) {
	extension := (c.greatest - c.least) * margin
	least := c.least - extension
	if c.least >= 0 {
		least = max(least, 0)
	}
	add(Between, "min_value", round(least, math.Floor), "max_value", round(c.greatest+extension, math.Ceil), "mostly", 0.999)
	low, _ := c.numbers.quantile(0.4)
	high, _ := c.numbers.quantile(0.6)
	add(Median, "min_value", round(low-math.Abs(low)*margin, math.Floor), "max_value", round(high+math.Abs(high)*margin, math.Ceil))
	if c.numeric < minDistribution {
		return
	}
	var bins []float64
	const tenths = 10
	for i := range tenths + 1 {
		q, _ := c.numbers.quantile(float64(i) / tenths)
		q = round(q, math.Round)
		if len(bins) == 0 || q > bins[len(bins)-1] {
			bins = append(bins, q)
		}
	}
	if len(bins) < 3 || c.numbers.sketch != nil {
		return
	}
	weights := make([]any, len(bins)-1)
	counts := make([]int, len(bins)+1)
	for _, x := range c.numbers.values {
		class, exact := slices.BinarySearch(bins, x)
		if exact && class < len(bins)-1 {
			class++
		}
		counts[class]++
	}
	inside := 0
	for _, n := range counts[1:len(bins)] {
		inside += n
	}
	if inside == 0 {
		return
	}
	var list []any
	for _, b := range bins {
		list = append(list, b)
	}
	for i := range weights {
		weights[i] = round(float64(counts[i+1])/float64(inside), math.Round)
	}
	add(KLDivergence, "partition_object", mapping("bins", flow(list), "weights", flow(weights)), "threshold", 0.1)
}

func (p *profiled) suggestSet(c *profiledColumn, count int64, add func(Kind, ...any)) {
	values := slices.Sorted(maps.Keys(c.texts))
	sort.SliceStable(values, func(i, j int) bool { return c.texts[values[i]] > c.texts[values[j]] })
	var set, weights []any
	for _, t := range values {
		switch t[0] {
		case 's':
			set = append(set, t[1:])
		case 't', 'f':
			set = append(set, t[0] == 't')
		default:
			return
		}
		weights = append(weights, round(float64(c.texts[t])/float64(count), math.Round))
	}
	add(InSet, "value_set", flow(set), "mostly", 0.999)
	if count >= minDistribution && len(set) > 1 {
		add(KLDivergence, "partition_object", mapping("values", flow(set), "weights", flow(weights)), "threshold", 0.1)
	}
}

// round rounds x to four significant digits with how.
func round(x float64, how func(float64) float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return how(x*scale) / scale
}

// mapping returns a YAML mapping of alternating keys and values.
func mapping(pairs ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(pairs); i += 2 {
		put(n, pairs[i].(string), pairs[i+1])
	}
	return n
}

func put(n *yaml.Node, key string, value any) {
	n.Content = append(n.Content, node(key), node(value))
}

func node(v any) *yaml.Node {
	if n, ok := v.(*yaml.Node); ok {
		return n
	}
	n := &yaml.Node{}
	// Encoding a string, number or boolean cannot fail.
	_ = n.Encode(v)
	return n
}

// flow returns a YAML list on one line.
func flow(values []any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range values {
		n.Content = append(n.Content, node(v))
	}
	return n
}
