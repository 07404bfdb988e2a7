package profiledefinition

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
)

// The fields of triggers, and of the messages of all triggers.
const (
	fieldMessages   = "messages"
	fieldTimezone   = "timezone"
	fieldLimits     = "limits"
	fieldCount      = "count"
	fieldPer        = "per"
	fieldHoldout    = "holdout"
	fieldChannels   = "channels"
	fieldConsent    = "consent"
	fieldQuietHours = "quiet_hours"
	fieldFrom       = "from"
	fieldUntil      = "to"

	fieldTriggers  = "triggers"
	fieldOn        = "on"
	fieldRepeat    = "repeat"
	fieldEnter     = "enter"
	fieldLeave     = "leave"
	fieldDate      = "date"
	fieldTrait     = "trait"
	fieldAt        = "at"
	fieldDays      = "days"
	fieldEvery     = "every"
	fieldAfter     = "after"
	fieldUnless    = "unless"
	fieldWhen      = "when"
	fieldChannel   = "channel"
	fieldPriority  = "priority"
	fieldExpire    = "expire"
	fieldAnonymous = "anonymous"
	fieldUrgent    = "urgent"
	fieldData      = "data"
)

var repeats = map[string]triggers.Repeat{"latest": triggers.Latest, "each": triggers.Each, "first": triggers.First}

func limitsField(scope string) *service.ConfigField {
	return service.NewObjectListField(fieldLimits,
		service.NewIntField(fieldCount).
			Description("Maximum number of messages.").
			Example(1).
			LintRule(fmt.Sprintf(`root = if this < 1 || this > %d { [ "count must be from 1 to %d" ] }`, triggers.MaxLimit, triggers.MaxLimit)),
		service.NewStringField(fieldPer).
			Description("Sliding window before the firing in which messages are counted; units are s, m, h, d and w.").
			Example("7d").
			LintRule(DurationRule(fieldPer)),
	).Description("Frequency caps: the maximum number of messages that a customer receives " + scope + ". A message above a cap is dropped, not postponed.").
		Default([]any{}).
		Example([]any{map[string]any{"count": 1, "per": "1d"}, map[string]any{"count": 3, "per": "7d"}})
}

func holdoutField(scope string) *service.ConfigField {
	return service.NewFloatField(fieldHoldout).
		Description("Control group: percentage of customers that never receive a message of " + scope + ", for comparison. They are assigned by a hash of the customer id, so the group is stable. For them the event `Trigger Held Out` is emitted instead of the message.").
		Default(0.0).
		Example(10).
		LintRule(`root = if this < 0 || this >= 100 { [ "holdout is a share in percent, from 0 to below 100, such as 10" ] } else if this > 0 && this < 1 { [ "holdout is a percentage: write 10 for one customer in ten, not 0.1" ] }`)
}

// lintUnless reports a trigger with the same events in on and unless.
const lintUnless = `
let unless = this.unless.events.or([])
let both = this.on.events.or([]).filter(e -> $unless.contains(e))
root = if $both.length() > 0 && this.on.where.or("") == this.unless.where.or("") {
  [ "unless lists the cause itself (" + $both.join(", ") + "): a later event already restarts the wait (repeat: latest), so remove it from unless" ]
}`

const timeOfDay = `^([01][0-9]|2[0-3]):[0-5][0-9]$`

func timeField(name, description, example string) *service.ConfigField {
	return service.NewStringField(name).
		Description(description).
		Example(example).
		LintRule(fmt.Sprintf(`root = if this != "" && !this.string().re_match("%s") { [ "%s must be a time of day in quotes, such as \"%s\"" ] }`, timeOfDay, name, example))
}

// triggerFields returns the fields for messages and triggers.
func triggerFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewObjectField(fieldMessages,
			service.NewStringField(fieldTimezone).
				Description("Time zone of customers with no, a blank or an unknown trait `timezone`, such as `Europe/Berlin`.").
				Default("UTC").
				Example("Europe/Berlin"),
			limitsField("from all triggers together"),
			holdoutField("any trigger"),
			service.NewObjectListField(fieldChannels,
				service.NewStringField(fieldName).
					Description("Name of the channel, such as `email`. Each message carries it, so that an output can route by it.").
					Example("email"),
				service.NewBloblangField(fieldConsent).
					Description("Bloblang query over `traits`, `features` and `segments` for the customer's consent to this channel. It is evaluated when a trigger fires. Unless it returns true, nothing is sent. Write `true` for a channel that needs no consent.").
					Example(`traits.marketing_consent == true`).
					Example(`traits.marketing_consent == true && features.unsubscribed == 0`).
					LintRule(configspec.LintCondition),
				service.NewObjectField(fieldQuietHours,
					timeField(fieldFrom, "Start of the quiet hours.", "21:00").Default(""),
					timeField(fieldUntil, "End of the quiet hours. Triggers that were due in between are evaluated then.", "08:00").Default(""),
				).Description("Hours in which nothing is sent, in the time zone of the customer: the trait `timezone`, or else that of `messages`.").
					Optional(),
				limitsField("by this channel"),
			).Description("Channels by which customers can be reached.").Default([]any{}),
		).Description("Settings for the messages of all triggers. See [triggers](../triggers.md).").Optional(),
		service.NewObjectListField(fieldTriggers,
			service.NewStringField(fieldName).
				Description("Name of the trigger: letters, digits and underscores, beginning with a letter. A renamed trigger is a new one, without a history of messages.").
				Example("cart_abandoned").
				LintRule(`root = if !this.re_match("^[A-Za-z][A-Za-z0-9_]*$") { [ "name must be letters, digits and underscores and begin with a letter, such as cart_abandoned" ] }`),
			service.NewObjectField(fieldOn,
				eventsField().Description("Events that cause the trigger: names of track events, or `page`, `screen`, `identify`, `group`, `alias`."),
				whereField(),
				service.NewStringEnumField(fieldRepeat, "latest", "each", "first").
					Description("Which of several events is the cause. `latest`: each event restarts the wait (debounce). `each`: every event is a cause of its own. `first`: only the first event ever, so that the trigger fires once for a customer.").
					Default("latest"),
				service.NewStringField(fieldEnter).
					Description("Instead of events, the name of a segment. Entering it is the cause, and leaving it cancels. A change of the segment's rule is not a cause.").
					Default("").
					Example("at_risk"),
				service.NewStringField(fieldLeave).
					Description("Instead of events, the name of a segment. Leaving it is the cause, and entering it again cancels. A merge into another customer is not a cause, nor is a change of the segment's rule.").
					Default("").
					Example("new_prospect"),
				service.NewObjectField(fieldDate,
					service.NewStringField(fieldTrait).
						Description("Trait that contains the date, such as `1990-05-10` or `05-10`. In years without a 29th of February that date is moved to the 28th.").
						Default("").
						Example("birthday"),
					timeField(fieldAt, "Time of the day, in the customer's time zone.", "09:00").Default("09:00"),
					service.NewIntField(fieldDays).
						Description("Number of days after the date; negative for days before it.").
						Default(0).
						Example(-7),
					service.NewStringEnumField(fieldEvery, "year", "once").
						Description("Whether every anniversary is a cause, or only the date itself.").
						Default("year"),
				).Description("Instead of events, a date in a trait. A day that had passed when the date was last stated does not fire.").Optional(),
			).Description("Cause of the trigger: events, entering or leaving a segment, or a date."),
			service.NewStringField(fieldAfter).
				Description("Wait between the cause and the firing, such as `1h`; units are s, m, h, d and w. Empty means no wait.").
				Default("").
				Example("1h").
				LintRule(DurationRule(fieldAfter)),
			service.NewObjectField(fieldUnless,
				eventsField().Description("Events that cancel the trigger."),
				whereField(),
			).Description("Events that cancel the trigger if they occur after the cause and before the firing.").Optional(),
			service.NewBloblangField(fieldWhen).
				Description("Bloblang query over `features`, `traits` and `segments` that is evaluated when the trigger fires. Unless it returns true, no message is sent for this cause.").
				Default("").
				Example(`features.cart_adds_7d > 0 && traits.email != null`).
				LintRule(configspec.LintCondition),
			service.NewStringField(fieldChannel).
				Description("Name of the channel, one of `messages.channels`.").
				Example("email"),
			limitsField("from this trigger"),
			holdoutField("this trigger"),
			service.NewIntField(fieldPriority).
				Description("Order of triggers that are due at the same time for one customer: the higher number is evaluated first, and is sent if a frequency cap allows only one message.").
				Default(0).
				Example(10),
			service.NewStringField(fieldExpire).
				Description("Maximum delay of a firing. A trigger that is more overdue than this, because no process ran or an event arrived late, is dropped and counted as `expired`; at exactly this delay it still fires.").
				Default("6h").
				Example("1d").
				LintRule(DurationRule(fieldExpire)),
			service.NewBoolField(fieldAnonymous).
				Description("Whether it fires for customers without a userId. Otherwise their causes wait until they have one.").
				Default(false).
				Advanced(),
			service.NewBoolField(fieldUrgent).
				Description("Whether it fires during quiet hours.").
				Default(false).
				Advanced(),
			service.NewBloblangField(fieldData).
				Description("Bloblang query over `features`, `traits` and `segments` that returns an object to send with the message, such as the product to show. It is evaluated once, when the trigger fires. If it fails, the message has no data.").
				Default("").
				Example(`{ "product": features.last_product_viewed }`),
		).Description("Triggers send a message to a customer after an event, a segment change or a date: see [triggers](../triggers.md).").
			Default([]any{}).
			Example([]any{map[string]any{
				"name": "cart_abandoned", "channel": "email",
				"on": map[string]any{"events": []any{"Product Added"}}, "after": "1h",
				"unless": map[string]any{"events": []any{"Order Completed"}},
				"limits": []any{map[string]any{"count": 1, "per": "3d"}},
			}}).
			LintRule(lintUnless),
	}
}

var (
	nullSegment = regexp.MustCompile(`\bsegments\.\w+\s*[!=]=\s*null\b|\bnull\s*[!=]=\s*(this\.)?segments\.`)
	quoted      = regexp.MustCompile(`"(\\.|[^"\\])*"`)
)

// CompileQuery compiles a Bloblang query over the features, traits and segments of
// a definition.
func CompileQuery(text string, def *record.Definition) (*definition.Query, error) {
	run, err := bloblang.GlobalEnvironment().Parse(text)
	if err != nil {
		return nil, err
	}
	q := &definition.Query{Executor: run}
	for _, m := range featureName.FindAllStringSubmatch(text, -1) {
		if m[1] == "" {
			return nil, errors.New("write each feature as features.NAME")
		}
		position, known := def.Features.Lookup(m[1][1:])
		if !known {
			return nil, fmt.Errorf("there is no feature %q; define it under features or correct the name", m[1][1:])
		}
		if !slices.Contains(q.Features, position) {
			q.Features = append(q.Features, position)
		}
	}
	names, err := segments.References(text, "segments")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !hasSegment(def, name) {
			return nil, fmt.Errorf("there is no segment %q; define it under segments or correct the name", name)
		}
	}
	if nullSegment.MatchString(quoted.ReplaceAllString(text, `""`)) {
		return nil, errors.New("segments.NAME is true or false; write segments.NAME or !segments.NAME, without null")
	}
	q.ReadsSegments = len(names) > 0
	return q, nil
}

// triggerParser parses the triggers of a definition in two steps: parseTriggers
// before the features are compiled, because triggers add event selectors to
// them, and finish afterwards, because queries need the features.
type triggerParser struct {
	set           triggers.Set
	texts         struct{ consent, when, data []string }
	selectors     []features.Selector
	selectorRules []int // the rule of each selector
	errs          []error
}

func (t *triggerParser) fail(rule int, name string, format string, args ...any) {
	t.errs = append(t.errs, &triggers.RuleError{Rule: rule, Name: name, Err: fmt.Errorf(format, args...)})
}

// parseTriggers parses the triggers before the features are compiled.
func parseTriggers(conf *service.ParsedConfig) (*triggerParser, error) {
	t := &triggerParser{}
	if conf.Contains(fieldMessages) {
		if err := t.messages(conf.Namespace(fieldMessages)); err != nil {
			return nil, err
		}
	}
	items, err := conf.FieldObjectList(fieldTriggers)
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		if err := t.rule(i, item); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *triggerParser) messages(conf *service.ParsedConfig) error {
	zone, err := conf.FieldString(fieldTimezone)
	if err != nil {
		return err
	}
	if t.set.Zone, err = time.LoadLocation(zone); err != nil || zone == "Local" {
		t.fail(-1, "", "timezone %q is not known; write one of the IANA database, such as Europe/Berlin", zone)
	}
	if t.set.Limits, err = t.limits(-1, "", conf); err != nil {
		return err
	}
	if t.set.ControlGroup, err = conf.FieldFloat(fieldHoldout); err != nil {
		return err
	}
	t.set.ControlGroup /= 100
	items, err := conf.FieldObjectList(fieldChannels)
	if err != nil {
		return err
	}
	for _, item := range items {
		var c triggers.Channel
		if c.Name, err = item.FieldString(fieldName); err != nil {
			return err
		}
		consent, err := item.FieldString(fieldConsent)
		if err != nil {
			return err
		}
		if strings.TrimSpace(consent) == "" {
			t.fail(-1, "", "channel %q: consent is empty; write a query such as traits.marketing_consent == true, or true if no consent is needed", c.Name)
			consent = "false"
		}
		t.texts.consent = append(t.texts.consent, consent)
		if c.Limits, err = t.limits(-1, "", item); err != nil {
			return err
		}
		if item.Contains(fieldQuietHours) {
			var written [2]bool
			for i, f := range []struct {
				name string
				into *int
			}{{fieldFrom, &c.Quiet.From}, {fieldUntil, &c.Quiet.To}} {
				text, err := item.FieldString(fieldQuietHours, f.name)
				if err != nil {
					return err
				}
				written[i] = text != ""
				*f.into = minutes(text)
			}
			if written[0] != written[1] {
				t.fail(-1, "", `channel %q: quiet_hours needs both from and to, such as { from: "21:00", to: "08:00" }`, c.Name)
			}
		}
		t.set.Channels = append(t.set.Channels, c)
	}
	return nil
}

// minutes parses a time of day in linted form.
func minutes(text string) int {
	hours, minutes, _ := strings.Cut(text, ":")
	h, _ := strconv.Atoi(hours)
	m, _ := strconv.Atoi(minutes)
	return h*60 + m
}

func (t *triggerParser) limits(rule int, name string, conf *service.ParsedConfig) (list []triggers.Limit, err error) {
	items, err := conf.FieldObjectList(fieldLimits)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		var l triggers.Limit
		if l.Count, err = item.FieldInt(fieldCount); err != nil {
			return nil, err
		}
		if l.Per, err = t.duration(rule, name, item, fieldPer); err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

func (t *triggerParser) duration(rule int, name string, conf *service.ParsedConfig, field string) (time.Duration, error) {
	text, err := conf.FieldString(field)
	if err != nil {
		return 0, err
	}
	d, err := ParseDuration(text)
	if err != nil {
		t.fail(rule, name, "%s: %w", field, err)
	}
	return d, nil
}

func (t *triggerParser) rule(rule int, item *service.ParsedConfig) (err error) {
	var r triggers.Rule
	if r.Name, err = item.FieldString(fieldName); err != nil {
		return err
	}
	channel, err := item.FieldString(fieldChannel)
	if err != nil {
		return err
	}
	r.Channel = slices.IndexFunc(t.set.Channels, func(c triggers.Channel) bool { return c.Name == channel })
	if r.Channel < 0 {
		t.fail(rule, r.Name, "there is no channel %q; use one of messages.channels, or add it there", channel)
		r.Channel = 0
	}
	if r.After, err = t.duration(rule, r.Name, item, fieldAfter); err != nil {
		return err
	}
	if r.Expire, err = t.duration(rule, r.Name, item, fieldExpire); err != nil {
		return err
	}
	if r.Limits, err = t.limits(rule, r.Name, item); err != nil {
		return err
	}
	if r.ControlGroup, err = item.FieldFloat(fieldHoldout); err != nil {
		return err
	}
	r.ControlGroup /= 100
	if r.Priority, err = item.FieldInt(fieldPriority); err != nil {
		return err
	}
	if r.Anonymous, err = item.FieldBool(fieldAnonymous); err != nil {
		return err
	}
	if r.Urgent, err = item.FieldBool(fieldUrgent); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		into *[]string
	}{{fieldWhen, &t.texts.when}, {fieldData, &t.texts.data}} {
		text, err := item.FieldString(f.name)
		if err != nil {
			return err
		}
		*f.into = append(*f.into, text)
	}
	if err := t.cause(rule, &r, item.Namespace(fieldOn)); err != nil {
		return err
	}
	if item.Contains(fieldUnless) {
		selector, err := eventsAndWhere(item.Namespace(fieldUnless))
		if err != nil {
			return err
		}
		if len(selector.Events) > 0 || selector.Where != "" {
			if r.On.Kind == triggers.Date {
				t.fail(rule, r.Name, "unless does not apply to a date; write the condition as when")
			}
			selector.Lookback = r.Lookback()
			r.Unless = []int{len(t.selectors)}
			t.selectors, t.selectorRules = append(t.selectors, selector), append(t.selectorRules, rule)
		}
	}
	t.set.Rules = append(t.set.Rules, r)
	return nil
}

// cause parses the cause of a rule. Its Series is the position of a selector until
// finish.
func (t *triggerParser) cause(rule int, r *triggers.Rule, conf *service.ParsedConfig) (err error) {
	selector, err := eventsAndWhere(conf)
	if err != nil {
		return err
	}
	repeat, err := conf.FieldString(fieldRepeat)
	if err != nil {
		return err
	}
	r.On.Repeat = repeats[repeat]
	if r.On.Segment, err = conf.FieldString(fieldEnter); err != nil {
		return err
	}
	leave, err := conf.FieldString(fieldLeave)
	if err != nil {
		return err
	}
	if conf.Contains(fieldDate) {
		if err := t.date(r, conf.Namespace(fieldDate)); err != nil {
			return err
		}
	}
	causes := 0
	if len(selector.Events) > 0 || selector.Where != "" {
		causes++
		if r.On.Repeat != triggers.First {
			selector.Lookback = r.Lookback()
		}
		r.On.Series = len(t.selectors)
		t.selectors, t.selectorRules = append(t.selectors, selector), append(t.selectorRules, rule)
	}
	if r.On.Segment != "" {
		causes++
		r.On.Kind = triggers.Enter
	}
	if leave != "" {
		causes++
		r.On.Kind, r.On.Segment = triggers.Leave, leave
	}
	if r.On.Trait != "" {
		causes++
		r.On.Kind = triggers.Date
	}
	switch {
	case causes == 0:
		t.fail(rule, r.Name, "on needs a cause: events such as [Product Added], enter or leave with the name of a segment, or date with a trait")
	case causes > 1:
		t.fail(rule, r.Name, "on has more than one of events, enter, leave and date; write one trigger for each")
	case r.On.Kind != triggers.Events && r.On.Repeat != triggers.Latest:
		t.fail(rule, r.Name, "repeat applies to events only; remove it")
	}
	return nil
}

func (t *triggerParser) date(r *triggers.Rule, conf *service.ParsedConfig) (err error) {
	if r.On.Trait, err = conf.FieldString(fieldTrait); err != nil {
		return err
	}
	clock, err := conf.FieldString(fieldAt)
	if err != nil {
		return err
	}
	r.On.TimeOfDay = minutes(clock)
	if r.On.Days, err = conf.FieldInt(fieldDays); err != nil {
		return err
	}
	every, err := conf.FieldString(fieldEvery)
	r.On.Yearly = every == "year"
	return err
}

func eventsAndWhere(conf *service.ParsedConfig) (in features.Selector, err error) {
	if in.Events, err = conf.FieldStringList(fieldEvents); err != nil {
		return in, err
	}
	in.Where, err = conf.FieldString(fieldWhere)
	return in, err
}

// attribute converts errors about selectors to errors about the triggers that have
// them.
func (t *triggerParser) attribute(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, t.attribute(e))
		}
		return errors.Join(errs...)
	}
	if selector, ok := err.(*features.SelectorError); ok {
		rule := t.selectorRules[selector.Selector]
		return &triggers.RuleError{Rule: rule, Name: t.set.Rules[rule].Name, Err: err}
	}
	return err
}

// finish compiles the triggers of a definition after its features and segments are
// compiled. It returns nil if there are none.
func (t *triggerParser) finish(def *record.Definition) (*definition.Messaging, error) {
	if len(t.set.Rules) == 0 && len(t.errs) == 0 {
		return nil, nil
	}
	compile := func(rule int, name, field, text string) *definition.Query {
		if text == "" {
			return nil
		}
		q, err := CompileQuery(text, def)
		if err != nil {
			t.fail(rule, name, "%s: %w", field, err)
		}
		return q
	}
	var consent, when, data []*definition.Query
	for i, text := range t.texts.consent {
		consent = append(consent, compile(-1, "", "channel "+t.set.Channels[i].Name+": consent", text))
	}
	for i := range t.set.Rules {
		r := &t.set.Rules[i]
		when = append(when, compile(i, r.Name, fieldWhen, t.texts.when[i]))
		data = append(data, compile(i, r.Name, fieldData, t.texts.data[i]))
		if r.On.Segment != "" && !hasSegment(def, r.On.Segment) {
			t.fail(i, r.Name, "there is no segment %q; define it under segments or correct the name", r.On.Segment)
		}
		if r.On.Kind == triggers.Events && r.On.Series < len(def.Features.Selectors) {
			r.On.Series = def.Features.Selectors[r.On.Series]
		}
		for j, selector := range r.Unless {
			r.Unless[j] = def.Features.Selectors[selector]
		}
	}
	set, err := triggers.New(t.set)
	if err := errors.Join(append(t.errs, err)...); err != nil {
		return nil, err
	}
	return definition.NewMessaging(set, consent, when, data, def.Features), nil
}
