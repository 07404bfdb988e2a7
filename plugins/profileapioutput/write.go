package profileapioutput

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/contentblocks"
	"github.com/connect-personalize/connect-personalize/plugins/engine/backoff"
	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/customers"
	"github.com/connect-personalize/connect-personalize/plugins/engine/delivery"
	"github.com/connect-personalize/connect-personalize/plugins/engine/rejection"
)

// Rules of dead letters, in addition to the codes of package delivery.
const (
	ruleCustomer = "customer" // customer cannot be evaluated for the message
	ruleElement  = "element"  // element fails for the message
)

// output is the profile_api output.
type output struct {
	url, verb           *service.InterpolatedString
	customer, messageID *service.InterpolatedString
	headers             map[string]*service.InterpolatedString
	element             *processor // or nil
	request             *processor // or nil
	failures            *processor // or nil
	latestOnly          bool
	isSingle            bool // a request has one element
	giveUpAfter         time.Duration

	profiles  profileReader // or nil
	query     customers.Query
	readRetry backoff.Exponential
	outage    customers.Outage

	content       *contentblocks.Blocks // or nil
	blocks        []*service.InterpolatedString
	stopFollowing context.CancelFunc // stops reloading content
	following     sync.WaitGroup

	deadLetters *service.OwnedOutput // or nil
	priming     sync.Once
	primeErr    error
	sender      *delivery.Sender
	transport   *http.Transport
	elements    *service.MetricCounter
	log         *service.Logger
}

// processor runs a processor of the config. It is safe for concurrent use.
type processor struct {
	// mapping is set if the processor is a mapping and nothing else. It is run
	// here, because Connect's mapping processor logs the value that it failed on,
	// which may be personal data.
	mapping *bloblang.Executor

	mu    sync.Mutex
	owned *service.OwnedProcessor // set for any other processor
}

func newProcessor(conf *service.ParsedConfig, field string) (*processor, error) {
	if written, err := conf.FieldAny(field); err == nil {
		if text, ok := mappingIn(written); ok {
			if m, err := bloblang.GlobalEnvironment().Parse(text); err == nil {
				return &processor{mapping: m}, nil
			}
		}
	}
	owned, err := conf.FieldProcessor(field)
	if err != nil {
		return nil, err
	}
	return &processor{owned: owned}, nil
}

// mappingIn returns the text of a processor that is a mapping and nothing else.
func mappingIn(written any) (string, bool) {
	if node, ok := written.(*yaml.Node); ok {
		if node.Decode(&written) != nil {
			return "", false
		}
	}
	members, _ := written.(map[string]any)
	for name := range members {
		if name != "mapping" && name != "label" {
			return "", false
		}
	}
	text, ok := members["mapping"].(string)
	return text, ok
}

// errDeleted is returned for a message that a processor deletes.
var errDeleted = errors.New("deleted")

// run returns the one message that the processor makes from msg.
func (p *processor) run(ctx context.Context, msg *service.Message) (*service.Message, error) {
	if p.mapping != nil {
		made, err := msg.BloblangQuery(p.mapping)
		if err == nil && made == nil {
			err = errDeleted
		}
		return made, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	made, err := p.owned.Process(ctx, msg)
	switch {
	case err != nil:
		return nil, err
	case len(made) == 0:
		return nil, errDeleted
	case len(made) > 1:
		return nil, errors.New("it makes several messages from one")
	}
	return made[0], made[0].GetError()
}

// Connect implements service.BatchOutput. It does not connect to the platform:
// a platform that is down must not prevent the start.
func (o *output) Connect(context.Context) error { return o.primeLetters() }

// primeLetters starts the output of dead letters, once. An output that was never
// started cannot be closed.
func (o *output) primeLetters() error {
	o.priming.Do(func() {
		if o.deadLetters != nil {
			o.primeErr = o.deadLetters.Prime()
		}
	})
	return o.primeErr
}

// WriteBatch implements service.BatchOutput.
func (o *output) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	began := time.Now()
	failed := make([]error, len(batch))
	customerIDs := make([]string, len(batch))
	for i, msg := range batch {
		if failed[i] = msg.GetError(); failed[i] != nil {
			continue
		}
		var err error
		if customerIDs[i], err = batch.TryInterpolatedString(i, o.customer); err != nil {
			failed[i] = reject(ruleCustomer, "customer cannot be evaluated for the message"+atLine(err))
		}
	}
	found, err := o.read(ctx, began, customerIDs, failed)
	if err != nil {
		return err
	}

	var items []delivery.Item
	var members [][]int // the indexes of the messages of each item
	last := map[string]int{}
	for i := range batch {
		if failed[i] != nil {
			continue
		}
		item, err := o.item(ctx, batch, i, customerIDs[i], found[customerIDs[i]])
		switch {
		case errors.Is(err, errDeleted):
			o.elements.Incr(1, "skipped")
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			failed[i] = err
		default:
			if n, before := last[item.Customer]; before && o.latestOnly {
				items[n], members[n] = *item, append(members[n], i)
				continue
			}
			if item.Customer != "" {
				last[item.Customer] = len(items)
			}
			items, members = append(items, *item), append(members, []int{i})
		}
	}
	for n, err := range o.sender.Deliver(ctx, began, items) {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return err
		}
		for _, i := range members[n] {
			failed[i] = o.recordOutcome(err)
		}
	}
	return o.handleFailures(ctx, batch, failed)
}

// recordOutcome counts the outcome of an element, and returns its failure as a
func (o *output) recordOutcome(err error) error {
	if err == nil {
		o.elements.Incr(1, "delivered")
		return nil
	}
	if rejected, ok := errors.AsType[*delivery.RejectedError](err); ok {
		o.elements.Incr(1, "refused")
		return reject(rejected.Code, rejected.Error())
	}
	o.elements.Incr(1, "gave_up")
	if undelivered, ok := errors.AsType[*delivery.UndeliveredError](err); ok {
		return reject(undelivered.Code, undelivered.Error())
	}
	return err
}

func reject(rule, message string) *rejection.Error {
	return &rejection.Error{Stage: "profile_api", Reasons: []rejection.Reason{{Rule: rule, Message: message}}}
}

// handleFailures writes the failed messages to dead_letters. Without this output,
func (o *output) handleFailures(ctx context.Context, batch service.MessageBatch, failed []error) error {
	var letters service.MessageBatch
	var indexes []int
	for i, err := range failed {
		if err != nil {
			letter := batch[i].Copy()
			letter.SetError(err)
			letters, indexes = append(letters, letter), append(indexes, i)
		}
	}
	if len(letters) == 0 {
		return nil
	}
	if o.deadLetters != nil {
		err := o.deadLetters.WriteBatch(ctx, letters)
		if err == nil {
			return nil
		}
		// Letters that were written will be written again.
		for _, i := range indexes {
			failed[i] = fmt.Errorf("dead_letters: %w", err)
		}
	}
	all := service.NewBatchError(batch, failed[indexes[0]])
	for _, i := range indexes {
		all = all.Failed(i, failed[i])
	}
	return all
}

// readProfile is the result of a read.
type readProfile struct {
	json []byte // nil if the customer has no profile
	// id is the id under which the profile is stored: that of the known customer if
	// the requested one was merged into it.
	id          string
	isAnonymous bool
	err         error
}

// read returns the profiles of the customers, in one read. It retries while the
// store is unavailable, for give_up_after at most.
func (o *output) read(ctx context.Context, began time.Time, customerIDs []string, failed []error) (map[string]readProfile, error) {
	if o.profiles == nil {
		return nil, nil
	}
	found := map[string]readProfile{}
	var ids []string
	for i, id := range customerIDs {
		if _, known := found[id]; !known && id != "" && failed[i] == nil {
			found[id] = readProfile{}
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return found, nil
	}
	for failures := 1; ; failures++ {
		results, err := o.profiles.Read(ctx, ids, o.query)
		if err == nil {
			o.outage.End(o.log)
			for i, r := range results {
				switch {
				case r.Err != nil:
					found[ids[i]] = readProfile{err: r.Err}
				case r.Found:
					found[ids[i]] = readProfile{json: r.JSON, id: r.ID, isAnonymous: r.Anonymous}
				}
			}
			return found, nil
		}
		if _, unknown := errors.AsType[*customers.UnknownFieldError](err); unknown {
			return nil, err
		}
		o.outage.Begin(o.log, err)
		wait := o.readRetry.Delay(failures)
		if o.giveUpAfter > 0 && time.Since(began)+wait > o.giveUpAfter {
			for i := range failed {
				if failed[i] == nil {
					o.elements.Incr(1, "gave_up")
					failed[i] = reject(delivery.CodeTimedOut, "the profile could not be read within the time limit")
				}
			}
			return found, nil
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// item makes the element of a message and evaluates its target.
func (o *output) item(ctx context.Context, batch service.MessageBatch, i int, customer string, found readProfile) (*delivery.Item, error) {
	msg := batch[i]
	if found.err != nil {
		return nil, reject(ruleElement, "the profile cannot be read: its record is corrupt")
	}
	raw, err := msg.AsBytes()
	if err != nil {
		return nil, err
	}
	if found.id != "" {
		customer = found.id
	}
	item := &delivery.Item{Customer: customer}
	if item.ID, err = batch.TryInterpolatedString(i, o.messageID); err != nil {
		return nil, reject(ruleElement, "message_id cannot be evaluated for the message"+atLine(err))
	}
	if item.ID == "" {
		sum := sha256.Sum256(raw)
		item.ID = string(sum[:])
	}

	doc := map[string]any{"customer": customer, "anonymous": found.isAnonymous, "profile": nil}
	if doc["message"], err = msg.AsStructured(); err != nil {
		doc["message"] = string(raw)
	}
	if found.json != nil {
		if doc["profile"], err = service.NewMessage(found.json).AsStructured(); err != nil {
			return nil, reject(ruleElement, "the profile is not valid JSON")
		}
	}
	given := msg.Copy()
	given.SetStructured(doc)
	if o.content != nil {
		if err := o.render(given, doc, found.json); err != nil {
			return nil, err
		}
		given.SetStructured(doc)
	}
	var element any
	switch {
	case o.element != nil:
		made, err := o.element.run(ctx, given.Copy())
		if errors.Is(err, errDeleted) {
			return nil, err
		}
		if err != nil {
			return nil, reject(ruleElement, "element fails for the message"+atLine(err))
		}
		if item.Element, err = made.AsBytes(); err != nil || !json.Valid(item.Element) {
			return nil, reject(ruleElement, "the element is not valid JSON")
		}
		element, err = made.AsStructured()
		if err != nil {
			return nil, reject(ruleElement, "the element is not valid JSON")
		}
	case o.profiles != nil:
		if found.json == nil {
			return nil, errDeleted
		}
		item.Element, element = found.json, doc["profile"]
	default:
		if !json.Valid(raw) {
			return nil, reject(ruleElement, "the message is not valid JSON: set element to make an element of it")
		}
		item.Element, element = raw, doc["message"]
	}
	item.Target, err = o.target(given, doc, element)
	return item, err
}

// render renders the content blocks of a message into its document.
func (o *output) render(given *service.Message, doc map[string]any, found []byte) error {
	var p *content.Profile // nil if the customer has no profile
	if found != nil {
		var err error
		if p, err = content.ReadProfile(found, time.Now()); err != nil {
			return reject(ruleElement, "the profile cannot be read: its record is corrupt")
		}
	}
	rendered := map[string]any{}
	for _, block := range o.blocks {
		name, err := block.TryString(given)
		if err != nil {
			return reject(ruleElement, "content.blocks cannot be evaluated for the message"+atLine(err))
		}
		if name == "" {
			continue
		}
		b, ok := o.content.Block(name)
		if !ok {
			return reject(ruleElement, "content.blocks names a block that does not exist")
		}
		result := o.content.Render(b, p)
		made := map[string]any{"type": string(b.Type), "content": string(result.Content)}
		if result.Fallback != "" {
			made["fallback"] = string(result.Fallback)
		}
		rendered[name] = made
	}
	doc["content"] = rendered
	return nil
}

// target evaluates url, verb and headers for an element.
func (o *output) target(given *service.Message, doc map[string]any, element any) (t delivery.Target, err error) {
	with := map[string]any{"element": element}
	for name, value := range doc {
		with[name] = value
	}
	given.SetStructured(with)
	if t.URL, err = o.url.TryString(given); err != nil {
		return t, reject(ruleElement, "url cannot be evaluated for the message"+atLine(err))
	}
	if u, err := url.Parse(t.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return t, reject(ruleElement, "url is not valid: escape the values in it, such as by escape_url_path()")
	}
	if t.Method, err = o.verb.TryString(given); err != nil {
		return t, reject(ruleElement, "verb cannot be evaluated for the message"+atLine(err))
	}
	t.Header = delivery.Header{"Content-Type": {"application/json"}}
	for name, text := range o.headers {
		value, err := text.TryString(given)
		if err != nil || strings.ContainsAny(value, "\r\n\x00") {
			return t, reject(ruleElement, "header "+name+" cannot be evaluated for the message"+atLine(err))
		}
		t.Header[name] = []string{value}
	}
	return t, nil
}

// atLine returns the line at which a mapping failed, and nothing else of its error,
// which may contain values of the customer.
func atLine(err error) string {
	if err == nil {
		return ""
	}
	if line := lineOf.FindString(err.Error()); line != "" {
		return " (" + line + " of the mapping)"
	}
	return ""
}

var lineOf = regexp.MustCompile(`line \d+`)

// compose composes the body of a request.
func (o *output) compose(elements []json.RawMessage) ([]byte, error) {
	switch {
	case o.request == nil && o.isSingle:
		return elements[0], nil
	case o.request == nil:
		return json.Marshal(elements)
	}
	list, err := json.Marshal(elements)
	if err != nil {
		return nil, err
	}
	body := append(append([]byte(`{"elements":`), list...), '}')
	made, err := o.request.run(context.Background(), service.NewMessage(body))
	if err != nil {
		return nil, err
	}
	return made.AsBytes()
}

var errNoList = errors.New("failures does not return a list of failures")

// findFailures runs the processor failures on a response.
func (o *output) findFailures(response *delivery.Response, elements []json.RawMessage) ([]delivery.Failure, error) {
	list, err := json.Marshal(elements)
	if err != nil {
		return nil, err
	}
	sent, err := service.NewMessage(list).AsStructured()
	if err != nil {
		return nil, err
	}
	doc := map[string]any{"status": response.Status, "elements": sent, "body": nil}
	if len(response.Body) > 0 {
		body, err := service.NewMessage(response.Body).AsStructured()
		if err != nil {
			return nil, errors.New("it is not valid JSON")
		}
		doc["body"] = body
	}
	msg := service.NewMessage(nil)
	msg.SetStructured(doc)
	made, err := o.failures.run(context.Background(), msg)
	if errors.Is(err, errDeleted) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the processor failures fails%s", atLine(err))
	}
	raw, err := made.AsBytes()
	if err != nil {
		return nil, errNoList
	}
	var named []struct {
		Index    *int    `json:"index"`
		Customer *string `json:"customer"`
		Retry    bool    `json:"retry"`
		Code     any     `json:"code"`
	}
	if err := json.Unmarshal(raw, &named); err != nil {
		return nil, errNoList
	}
	failures := make([]delivery.Failure, len(named))
	for i, n := range named {
		f := delivery.Failure{Index: -1, Retry: n.Retry, Code: codeOf(n.Code)}
		if n.Index != nil {
			if f.Index = *n.Index; f.Index < 0 {
				return nil, errNoList
			}
		} else if n.Customer != nil {
			if f.Customer = *n.Customer; f.Customer == "" {
				return nil, errNoList
			}
		}
		failures[i] = f
	}
	return failures, nil
}

var code = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,63}$`)

// codeOf returns v if it is a code, else nothing: other texts of a platform may
func codeOf(v any) string {
	switch v := v.(type) {
	case string:
		if code.MatchString(v) {
			return v
		}
	case float64:
		if v == float64(int(v)) {
			return fmt.Sprint(int(v))
		}
	}
	return ""
}

// Close implements service.BatchOutput.
func (o *output) Close(ctx context.Context) error {
	var errs []error
	for _, p := range []*processor{o.element, o.request, o.failures} {
		if p != nil && p.owned != nil {
			errs = append(errs, p.owned.Close(ctx))
		}
	}
	if o.deadLetters != nil && o.primeLetters() == nil {
		errs = append(errs, o.deadLetters.Close(ctx))
	}
	if o.stopFollowing != nil {
		o.stopFollowing()
		o.following.Wait()
	}
	o.transport.CloseIdleConnections()
	return errors.Join(errs...)
}
