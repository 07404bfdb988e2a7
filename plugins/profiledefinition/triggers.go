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

	"github.com/connect-personalize/connect-personalize/plugins/engine/definition"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/segments"
	"github.com/connect-personalize/connect-personalize/plugins/engine/triggers"
)

// The fields of triggers, and of what holds for all of them.
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

func limitsField(whose string) *service.ConfigField {
	return service.NewObjectListField(fieldLimits,
		service.NewIntField(fieldCount).
			Description("How many messages there may be.").
			Example(1).
			LintRule(fmt.Sprintf(`root = if this < 1 || this > %d { [ "count must be from 1 to %d" ] }`, triggers.MaxLimit, triggers.MaxLimit)),
		service.NewStringField(fieldPer).
			Description("The span of time before the moment of firing in which they are counted; units are s, m, h, d and w.").
			Example("7d").
			LintRule(DurationRule(fieldPer)),
	).Description("How many messages a customer gets at most " + whose + ". What would be above a limit is dropped, not put off.").
		Default([]any{}).
		Example([]any{map[string]any{"count": 1, "per": "1d"}, map[string]any{"count": 3, "per": "7d"}})
}

func holdoutField(what string) *service.ConfigField {
	return service.NewFloatField(fieldHoldout).
		Description("The share of customers, in percent, who are told nothing by " + what + ", to compare them with those who are. It follows from the customer's id alone, so it stays the same customers; what they would have been told is told as `Trigger Held Out`.").
		Default(0.0).
		Example(10).
		LintRule(`root = if this < 0 || this >= 100 { [ "holdout is a share in percent, from 0 to below 100, such as 10" ] }`)
}

const timeOfDay = `^([01][0-9]|2[0-3]):[0-5][0-9]$`

func timeField(name, description, example string) *service.ConfigField {
	return service.NewStringField(name).
		Description(description).
		Example(example).
		LintRule(fmt.Sprintf(`root = if this != "" && !this.string().re_match("%s") { [ "%s must be a time of day in quotes, such as \"%s\"" ] }`, timeOfDay, name, example))
}

// triggerFields describes the part of a definition file that is about
// triggers.
func triggerFields() []*service.ConfigField {
	return []*service.ConfigField{
		service.NewObjectField(fieldMessages,
			service.NewStringField(fieldTimezone).
				Description("Where customers live whose trait `timezone` does not say, such as `Europe/Berlin`.").
				Default("UTC").
				Example("Europe/Berlin"),
			limitsField("of all triggers together"),
			holdoutField("any trigger"),
			service.NewObjectListField(fieldChannels,
				service.NewStringField(fieldName).
					Description("What the channel is called, such as `email`. It is told with each firing, for the output to tell one from the other.").
					Example("email"),
				service.NewBloblangField(fieldConsent).
					Description("A Bloblang query over `traits`, `features` and `segments` that tells whether a customer wants to be told by this channel, at the moment of firing. If it does not give true, or fails, nothing is sent. `true` stands for a channel that needs no consent.").
					Example(`traits.marketing_consent == true`).
					Example(`traits.marketing_consent == true && features.unsubscribed == 0`),
				service.NewObjectField(fieldQuietHours,
					timeField(fieldFrom, "When they begin.", "21:00").Default(""),
					timeField(fieldUntil, "When they end. What was due in between is decided then.", "08:00").Default(""),
				).Description("Hours in which nothing is sent, in the customer's time zone: that of the trait `timezone`, or else that of `messages`.").
					Optional(),
				limitsField("by this channel"),
			).Description("The ways to reach customers.").Default([]any{}),
		).Description("What holds for the messages of all triggers. See [triggers](../triggers.md).").Optional(),
		service.NewObjectListField(fieldTriggers,
			service.NewStringField(fieldName).
				Description("What the trigger is called: letters, digits and underscores, beginning with a letter. Under another name it is another trigger, that has told nobody yet.").
				Example("cart_abandoned").
				LintRule(`root = if !this.re_match("^[A-Za-z][A-Za-z0-9_]*$") { [ "name must be letters, digits and underscores and begin with a letter, such as cart_abandoned" ] }`),
			service.NewObjectField(fieldOn,
				eventsField().Description("The events that are causes: the name of a track event, or `page`, `screen`, `identify`, `group`, `alias`."),
				whereField(),
				service.NewStringEnumField(fieldRepeat, "latest", "each", "first").
					Description("Which of several events is the cause: the `latest`, with which the wait begins anew; `each` by itself; or only the `first` there ever was, so that it fires once for a customer.").
					Default("latest"),
				service.NewStringField(fieldEnter).
					Description("In place of events, the name of a segment. Entering it is the cause, and leaving it cancels. A customer who is in because the rule was changed has not entered it.").
					Default("").
					Example("at_risk"),
				service.NewStringField(fieldLeave).
					Description("In place of events, the name of a segment. Leaving it is the cause, and entering it again cancels. A customer who is merged into another has left nothing, and nor has one who is out because the rule was changed.").
					Default("").
					Example("new_prospect"),
				service.NewObjectField(fieldDate,
					service.NewStringField(fieldTrait).
						Description("The trait that has the date, such as `1990-05-10` or `05-10`. A customer born on the 29th of February has their day on the 28th where there is none.").
						Default("").
						Example("birthday"),
					timeField(fieldAt, "The time of that day, in the customer's time zone.", "09:00").Default("09:00"),
					service.NewIntField(fieldDays).
						Description("How many days after the date, before it if negative.").
						Default(0).
						Example(-7),
					service.NewStringEnumField(fieldEvery, "year", "once").
						Description("Whether every anniversary is a cause or only the date itself.").
						Default("year"),
				).Description("In place of events, a date that a trait names.").Optional(),
			).Description("The cause: events, entering or leaving a segment, or a date."),
			service.NewStringField(fieldAfter).
				Description("How long after the cause it fires, such as `1h`; units are s, m, h, d and w. Empty means at once.").
				Default("").
				Example("1h").
				LintRule(DurationRule(fieldAfter)),
			service.NewObjectField(fieldUnless,
				eventsField().Description("The events that cancel."),
				whereField(),
			).Description("Events that cancel if they happen after the cause and before the firing.").Optional(),
			service.NewBloblangField(fieldWhen).
				Description("A Bloblang query over `features`, `traits` and `segments` that must give true at the moment of firing. If it does not, or fails, that cause is settled without a message.").
				Default("").
				Example(`features.cart_adds_7d > 0 && traits.email != null`),
			service.NewStringField(fieldChannel).
				Description("The name of the channel of `messages` that it goes by.").
				Example("email"),
			limitsField("of this trigger"),
			holdoutField("this trigger"),
			service.NewIntField(fieldPriority).
				Description("Which of several triggers that are due at once for a customer is decided first: the one with the higher number. Where a limit leaves room for one message it is that one's.").
				Default(0).
				Example(10),
			service.NewStringField(fieldExpire).
				Description("How late it may fire. What is found later than this after it was due, because nothing ran or an event arrived late, is dropped and counted.").
				Default("6h").
				Example("1d").
				LintRule(DurationRule(fieldExpire)),
			service.NewBoolField(fieldAnonymous).
				Description("Whether it fires for customers who are not known by a userId. Otherwise their causes wait until they are.").
				Default(false).
				Advanced(),
			service.NewBoolField(fieldUrgent).
				Description("Whether it fires in quiet hours.").
				Default(false).
				Advanced(),
			service.NewBloblangField(fieldData).
				Description("A Bloblang query over `features`, `traits` and `segments` that gives an object to go with the message, such as the product to show. It is evaluated once, at the moment of firing; without it, or if it fails, there is none.").
				Default("").
				Example(`{ "product": features.last_product_viewed }`),
		).Description("What customers are told and when: see [triggers](../triggers.md).").
			Default([]any{}).
			Example([]any{map[string]any{
				"name": "cart_abandoned", "channel": "email",
				"on": map[string]any{"events": []any{"Product Added"}}, "after": "1h",
				"unless": map[string]any{"events": []any{"Order Completed"}},
				"limits": []any{map[string]any{"count": 1, "per": "3d"}},
			}}),
	}
}

var (
	nullSegment = regexp.MustCompile(`\bsegments\.\w+\s*[!=]=\s*null\b|\bnull\s*[!=]=\s*(this\.)?segments\.`)
	quoted      = regexp.MustCompile(`"(\\.|[^"\\])*"`)
)

// CompileQuery compiles a query over the features, traits and segments of a
// definition.
func CompileQuery(text string, def *record.Definition) (*definition.Query, error) {
	run, err := bloblang.GlobalEnvironment().Parse(text)
	if err != nil {
		return nil, err
	}
	q := &definition.Query{Executor: run}
	for _, m := range featureName.FindAllStringSubmatch(text, -1) {
		if m[1] == "" {
			return nil, errors.New("write each feature that is read as features.NAME")
		}
		at, known := def.Features.Lookup(m[1][1:])
		if !known {
			return nil, fmt.Errorf("there is no feature %q; define it under features or correct the name", m[1][1:])
		}
		if !slices.Contains(q.Features, at) {
			q.Features = append(q.Features, at)
		}
	}
	read, err := segments.References(text, "segments")
	if err != nil {
		return nil, err
	}
	for _, name := range read {
		if !hasSegment(def, name) {
			return nil, fmt.Errorf("there is no segment %q; define it under segments or correct the name", name)
		}
	}
	if nullSegment.MatchString(quoted.ReplaceAllString(text, `""`)) {
		return nil, errors.New("segments.NAME is true or false; write segments.NAME or !segments.NAME, without null")
	}
	q.ReadsSegments = len(read) > 0
	return q, nil
}

// triggerParser reads the triggers of a definition.
type triggerParser struct {
	set       triggers.Set
	texts     struct{ consent, when, data []string }
	interests []features.Selector
	wantedBy  []int // the rule of each interest
	errs      []error
}

func (t *triggerParser) fail(rule int, name string, format string, args ...any) {
	t.errs = append(t.errs, &triggers.RuleError{Rule: rule, Name: name, Err: fmt.Errorf(format, args...)})
}

// parseTriggers reads what can be read before the features are known.
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
	if t.set.Holdout, err = conf.FieldFloat(fieldHoldout); err != nil {
		return err
	}
	t.set.Holdout /= 100
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
			t.fail(-1, "", "channel %q: consent is empty; write what tells that a customer wants it, such as traits.marketing_consent == true, or true if none is needed", c.Name)
			consent = "false"
		}
		t.texts.consent = append(t.texts.consent, consent)
		if c.Limits, err = t.limits(-1, "", item); err != nil {
			return err
		}
		if item.Contains(fieldQuietHours) {
			var set [2]bool
			for i, f := range []struct {
				name string
				into *int
			}{{fieldFrom, &c.Quiet.From}, {fieldUntil, &c.Quiet.To}} {
				text, err := item.FieldString(fieldQuietHours, f.name)
				if err != nil {
					return err
				}
				set[i] = text != ""
				*f.into = minutes(text)
			}
			if set[0] != set[1] {
				t.fail(-1, "", `channel %q: quiet_hours needs both from and to, such as { from: "21:00", to: "08:00" }`, c.Name)
			}
		}
		t.set.Channels = append(t.set.Channels, c)
	}
	return nil
}

// minutes reads a time of day whose form was checked.
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
		if l.Per, err = t.span(rule, name, item, fieldPer); err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

func (t *triggerParser) span(rule int, name string, conf *service.ParsedConfig, field string) (time.Duration, error) {
	text, err := conf.FieldString(field)
	if err != nil {
		return 0, err
	}
	span, err := ParseDuration(text)
	if err != nil {
		t.fail(rule, name, "%s: %w", field, err)
	}
	return span, nil
}

func (t *triggerParser) rule(at int, item *service.ParsedConfig) (err error) {
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
		t.fail(at, r.Name, "there is no channel %q; use one of messages.channels, or add it there", channel)
		r.Channel = 0
	}
	if r.After, err = t.span(at, r.Name, item, fieldAfter); err != nil {
		return err
	}
	if r.Expire, err = t.span(at, r.Name, item, fieldExpire); err != nil {
		return err
	}
	if r.Limits, err = t.limits(at, r.Name, item); err != nil {
		return err
	}
	if r.Holdout, err = item.FieldFloat(fieldHoldout); err != nil {
		return err
	}
	r.Holdout /= 100
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
	if err := t.cause(at, &r, item.Namespace(fieldOn)); err != nil {
		return err
	}
	if item.Contains(fieldUnless) {
		interest, err := eventsAndWhere(item.Namespace(fieldUnless))
		if err != nil {
			return err
		}
		if len(interest.Events) > 0 || interest.Where != "" {
			if r.On.Kind == triggers.Date {
				t.fail(at, r.Name, "a date has nothing before it that unless could come after; write the condition as when")
			}
			interest.Lookback = r.Reach()
			r.Unless = []int{len(t.interests)}
			t.interests, t.wantedBy = append(t.interests, interest), append(t.wantedBy, at)
		}
	}
	t.set.Rules = append(t.set.Rules, r)
	return nil
}

// cause reads what begins the wait. Series are positions of interests for now.
func (t *triggerParser) cause(at int, r *triggers.Rule, conf *service.ParsedConfig) (err error) {
	interest, err := eventsAndWhere(conf)
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
	if len(interest.Events) > 0 || interest.Where != "" {
		causes++
		if r.On.Repeat != triggers.First {
			interest.Lookback = r.Reach()
		}
		r.On.Series = len(t.interests)
		t.interests, t.wantedBy = append(t.interests, interest), append(t.wantedBy, at)
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
		t.fail(at, r.Name, "on needs a cause: events such as [Product Added], enter or leave with the name of a segment, or date with a trait")
	case causes > 1:
		t.fail(at, r.Name, "on has more than one of events, enter, leave and date; make a trigger of each")
	case r.On.Kind != triggers.Events && r.On.Repeat != triggers.Latest:
		t.fail(at, r.Name, "repeat is for events; remove it")
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
	r.On.At = minutes(clock)
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

// blame tells of which trigger an error about an interest is.
func (t *triggerParser) blame(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, t.blame(e))
		}
		return errors.Join(errs...)
	}
	if interest, ok := err.(*features.SelectorError); ok {
		rule := t.wantedBy[interest.Selector]
		return &triggers.RuleError{Rule: rule, Name: t.set.Rules[rule].Name, Err: err}
	}
	return err
}

// finish compiles the triggers for a definition whose features and segments are
// known. It returns nil if there are none.
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
		for j, interest := range r.Unless {
			r.Unless[j] = def.Features.Selectors[interest]
		}
	}
	set, err := triggers.New(t.set)
	if err := errors.Join(append(t.errs, err)...); err != nil {
		return nil, err
	}
	return definition.NewMessaging(set, consent, when, data, def.Features), nil
}
