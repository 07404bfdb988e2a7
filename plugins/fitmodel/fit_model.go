// Package fitmodel is the fit_model input, which reads all transactions of
// another input and fits the bg_nbd and gamma_gamma models to them.
package fitmodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models/fit"
)

const (
	fieldInput            = "input"
	fieldModels           = "models"
	fieldDirectory        = "directory"
	fieldCustomer         = "customer"
	fieldTime             = "time"
	fieldAmount           = "amount"
	fieldTimeUnit         = "time_unit"
	fieldTimeZone         = "time_zone"
	fieldObservedUntil    = "observed_until"
	fieldMinCustomers     = "min_customers"
	fieldMinPreviousShare = "min_previous_share"
	fieldMaxUnusableShare = "max_unusable_share"
	fieldPenalty          = "penalty"
	fieldIdleTimeout      = "idle_timeout"
)

func shareLint(field, means string) string {
	return `root = if this < 0 || this > 1 { "` + field + ` is a share: write a number from 0 to 1, such as ` + means + `" }`
}

func spec() *service.ConfigSpec {
	return service.NewConfigSpec().
		Stable().
		Version("0.1.0").
		Categories("Utility").
		Summary("Reads all transactions of another input, fits the purchase and spend models to them, and writes the parameter files that profiles read.").
		Description(`
One run is one fit. Run it on a schedule, such as every night by cron, with an input that ends: files, a query, a bucket. Each model has a parameter file in `+"`directory`: `bg_nbd.yaml` and `gamma_gamma.yaml`"+`. A file is replaced atomically, and its readers load the new parameters without a restart.

The models use a customer's transactions as defined in the literature: purchases of one day are one purchase of the summed amount; the first purchase is not a repeat purchase; times are whole days up to the day `+"`observed_until`"+`, expressed in `+"`time_unit`"+`. `+"`bg_nbd`"+` is fitted to all customers, `+"`gamma_gamma`"+` to the mean amounts of repeat purchases.

After the last transaction the input emits one message per model, and then ends:

| member | meaning |
| --- | --- |
| `+"`model`, `path`"+` | the model, and its parameter file |
| `+"`written`"+` | whether the file was replaced |
| `+"`error`"+` | the reason if it was not; the message has the same error, so that an output can check `+"`errored()`"+` |
| `+"`parameters`, `log_likelihood`, `customers`, `fitted_at`, `observed_until`, `time_unit`"+` | the content of the new file |
| `+"`transactions`"+` | the numbers of transactions: `+"`used`"+`, `+"`later`"+` than `+"`observed_until`"+`, and `+"`unusable`"+` by reason: `+"`failed`"+` in a processor, or an invalid `+"`customer`, `time` or `amount`"+` |

The file is not replaced, and the error states the reason and the correction, when

- the input sent nothing, or neither sent a message nor ended for `+"`idle_timeout`"+`;
- more than `+"`max_unusable_share`"+` of the transactions cannot be used;
- there are fewer customers than `+"`min_customers`"+`, or fewer than `+"`min_previous_share`"+` of the customers of the present file, as after a truncated export;
- the likelihood has no maximum; the error names the likely cause.

When the process is stopped before the last transaction, nothing is fitted.

Transactions are acknowledged as they are read, because an input ends only after that. Keep the source data, and do not use options such as `+"`delete_on_finish`"+`. Transactions are held in memory until the end: about 20 bytes each, and 200 per customer.

The metrics are the counters `+"`fit_model_transactions`"+`, by `+"`result`"+`, and `+"`fit_model_fits`, by `model` and `result` (`written` or `failed`)"+`.`).
		Fields(
			service.NewInputField(fieldInput).
				Description("The input of the transactions, one per message, in any order. Transform and filter them with its `processors`."),
			service.NewStringListField(fieldModels).
				Description("The models to fit: `bg_nbd`, `gamma_gamma` or both.").
				Default([]any{string(models.KindBGNBD), string(models.KindGammaGamma)}).
				Example([]any{string(models.KindBGNBD)}).
				LintRule(`root = if this.type() == "array" { if this.length() == 0 { "models is empty: write bg_nbd, gamma_gamma or both" } } else if !["bg_nbd", "gamma_gamma"].contains(this) { "models can be bg_nbd and gamma_gamma: other models are not fitted here" }`),
			service.NewStringField(fieldDirectory).
				Description("The folder of the parameter files. It is created if needed.").
				Example("./data/models"),
			service.NewBloblangField(fieldCustomer).
				Description("A query for the customer id of a transaction: a text that is not empty, or a whole number.").
				Default("this.userId").
				Example("this.customer_id"),
			service.NewBloblangField(fieldTime).
				Description("A query for the time of a transaction: a time in RFC 3339, a date such as 2026-01-31, or a Bloblang timestamp. Times before 1980 and after tomorrow are invalid.").
				Default("this.timestamp").
				Example("this.ordered_on").
				Example(`this.date.ts_parse("20060102")`),
			service.NewBloblangField(fieldAmount).
				Description("A query for the amount of a transaction: a number that is not negative. It is evaluated only if `gamma_gamma` is fitted.").
				Default("this.properties.total").
				Example("this.cents / 100"),
			service.NewStringField(fieldTimeUnit).
				Description("The unit of time of the parameters, in whole days. Horizons and discount rates of the models use the same unit.").
				Default("7d").
				Example("1d").
				LintRule(`root = if !this.re_match("^[1-9][0-9]{0,3}d$") { "time_unit is a whole number of days: write 7d for weeks, 1d for days" }`),
			service.NewStringField(fieldTimeZone).
				Description("The time zone of calendar days.").
				Default("UTC").
				Example("Europe/Berlin").
				Advanced(),
			service.NewStringField(fieldObservedUntil).
				Description("The last day that counts. Later transactions are ignored, for example to compare a forecast with them. Empty means the day of the latest transaction.").
				Default("").
				Example("2026-01-31").
				LintRule(`root = if this != "" && !this.re_match("^[0-9]{4}-[0-9]{2}-[0-9]{2}$") { "observed_until must be a date, such as 2026-01-31, or empty for the day of the latest transaction" }`),
			service.NewIntField(fieldMinCustomers).
				Description("Minimum number of customers for a fit. For `gamma_gamma` only customers with repeat purchases of a positive amount count.").
				Default(100).
				Example(1000).
				LintRule(`root = if this < 1 { "min_customers must be 1 or more" }`),
			service.NewFloatField(fieldMinPreviousShare).
				Description("Minimum number of customers, as a share of the customers of the present file. It protects the file against a truncated export. Zero disables the check.").
				Default(0.5).
				Example(0.9).
				Advanced().
				LintRule(shareLint(fieldMinPreviousShare, "0.5 for half")),
			service.NewFloatField(fieldMaxUnusableShare).
				Description("Maximum share of transactions that cannot be used. Above it nothing is fitted.").
				Default(0.01).
				Example(0).
				LintRule(shareLint(fieldMaxUnusableShare, "0.01 for one in a hundred")),
			service.NewFloatField(fieldPenalty).
				Description("Weight of a regularisation term that keeps parameters near those of a typical shop where the data do not determine them. Zero gives the maximum likelihood estimates. Try 0.001 if an error says that the likelihood has no maximum.").
				Default(0).
				Example(0.001).
				Advanced().
				LintRule(`root = if this < 0 || this > 1 { "penalty must be from 0 to 1: 0 for maximum likelihood, 0.001 for a little help" }`),
			service.NewDurationField(fieldIdleTimeout).
				Description("Maximum time without a message and without the end of the input, such as an input that waits for a file to appear. After it the run fails.").
				Default("5m").
				Example("1h").
				Advanced(),
		).
		Example("Orders, every night", `
A folder of files with one stored event per line. Events other than Order Completed are dropped before they are counted. The outcome goes to standard output, one line per model.`, `
input:
  fit_model:
    directory: ./data/models
    time_zone: Europe/Berlin
    input:
      file:
        paths: [ ./data/events/*.jsonl ]
        scanner:
          lines:
            max_buffer_size: 1_000_000
      processors:
        - mapping: root = if this.event != "Order Completed" { deleted() }

output:
  stdout: {}
`).
		Example("An alert when a fit fails", `
Outcomes with an error go to an alert endpoint.`, `
input:
  fit_model:
    directory: ./data/models
    customer: this.customer_id
    time: this.ordered_on
    amount: this.total
    input:
      file:
        paths: [ ./exports/orders.csv ]
        scanner:
          csv: {}
      processors:
        - mapping: |
            root = this
            root.total = this.total.number()

output:
  switch:
    cases:
      - check: errored()
        output:
          http_client:
            url: "${ALERTS_URL:http://127.0.0.1:9093/alerts}"
            verb: POST
      - output:
          stdout: {}
`)
}

func init() {
	service.MustRegisterBatchInput("fit_model", spec(),
		func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
			in, err := newInput(conf, res, time.Now)
			if err != nil {
				return nil, err
			}
			return service.AutoRetryNacksBatched(in), nil
		})
}

type input struct {
	child     *service.OwnedInput
	models    []models.Kind
	directory string
	reader    reader

	unit             time.Duration
	observedUntil    string
	minCustomers     int
	minPreviousShare float64
	maxUnusableShare float64
	options          fit.Options
	idleTimeout      time.Duration

	now          func() time.Time
	logger       *service.Logger
	transactions *service.MetricCounter
	fits         *service.MetricCounter

	// started and done are used by ReadBatch, which runs in one goroutine at a
	// time, and by Close after the last call.
	started, done bool
}

func newInput(conf *service.ParsedConfig, res *service.Resources, now func() time.Time) (*input, error) {
	in := &input{
		now:          now,
		logger:       res.Logger(),
		transactions: res.Metrics().NewCounter("fit_model_transactions", "result"),
		fits:         res.Metrics().NewCounter("fit_model_fits", "model", "result"),
	}
	names, err := conf.FieldStringList(fieldModels)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		kind := models.Kind(name)
		if kind != models.KindBGNBD && kind != models.KindGammaGamma {
			return nil, fmt.Errorf("%s can be %s and %s: %q is neither", fieldModels, models.KindBGNBD, models.KindGammaGamma, name)
		}
		if !slices.Contains(in.models, kind) {
			in.models = append(in.models, kind)
		}
	}
	if len(in.models) == 0 {
		return nil, fmt.Errorf("%s is empty: write %s, %s or both", fieldModels, models.KindBGNBD, models.KindGammaGamma)
	}
	if in.directory, err = conf.FieldString(fieldDirectory); err != nil {
		return nil, err
	}
	if in.directory == "" {
		return nil, fmt.Errorf("%s is empty: write the folder of the parameter files, such as ./data/models", fieldDirectory)
	}

	in.reader.needsAmount = slices.Contains(in.models, models.KindGammaGamma)
	for field, target := range map[string]**bloblang.Executor{
		fieldCustomer: &in.reader.customer,
		fieldTime:     &in.reader.time,
		fieldAmount:   &in.reader.amount,
	} {
		if *target, err = conf.FieldBloblang(field); err != nil {
			return nil, err
		}
	}
	zone, err := conf.FieldString(fieldTimeZone)
	if err != nil {
		return nil, err
	}
	if in.reader.zone, err = time.LoadLocation(zone); err != nil {
		return nil, fmt.Errorf("%s %q is not known: write UTC, or a name such as Europe/Berlin", fieldTimeZone, zone)
	}
	in.reader.from = fit.DayOf(time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC))

	unit, err := conf.FieldString(fieldTimeUnit)
	if err != nil {
		return nil, err
	}
	if in.unit, err = models.ParseUnit(unit); err != nil {
		return nil, fmt.Errorf("%s: %w", fieldTimeUnit, err)
	}
	if in.unit%(24*time.Hour) != 0 {
		return nil, fmt.Errorf("%s is a whole number of days: write 7d for weeks, 1d for days", fieldTimeUnit)
	}
	if in.observedUntil, err = conf.FieldString(fieldObservedUntil); err != nil {
		return nil, err
	}
	if in.observedUntil != "" {
		if _, err := time.Parse(time.DateOnly, in.observedUntil); err != nil {
			return nil, fmt.Errorf("%s must be a date, such as 2026-01-31, or empty for the day of the latest transaction", fieldObservedUntil)
		}
	}
	if in.minCustomers, err = conf.FieldInt(fieldMinCustomers); err != nil {
		return nil, err
	}
	for field, target := range map[string]*float64{
		fieldMinPreviousShare: &in.minPreviousShare,
		fieldMaxUnusableShare: &in.maxUnusableShare,
		fieldPenalty:          &in.options.Penalty,
	} {
		if *target, err = conf.FieldFloat(field); err != nil {
			return nil, err
		}
		if !(*target >= 0 && *target <= 1) {
			return nil, fmt.Errorf("%s must be a number from 0 to 1", field)
		}
	}
	if in.idleTimeout, err = conf.FieldDuration(fieldIdleTimeout); err != nil {
		return nil, err
	}
	if in.idleTimeout <= 0 {
		return nil, fmt.Errorf("%s must be more than 0s, such as 5m", fieldIdleTimeout)
	}
	if in.child, err = conf.FieldInput(fieldInput); err != nil {
		return nil, err
	}
	return in, nil
}

func (in *input) Connect(context.Context) error { return nil }

// ReadBatch reads all transactions and returns the outcomes, once.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	if in.done {
		return nil, nil, service.ErrEndOfInput
	}
	in.started = true
	var ledger fit.Ledger
	failure := in.readAll(ctx, &ledger)
	if err := ctx.Err(); err != nil {
		in.logger.Warnf("Interrupted before the transactions ended: no model was fitted")
		return nil, nil, err
	}
	in.done = true

	batch := make(service.MessageBatch, 0, len(in.models))
	for _, outcome := range in.fitAll(&ledger, failure) {
		msg, err := message(&outcome)
		if err != nil {
			return nil, nil, err
		}
		batch = append(batch, msg)
	}
	return batch, func(context.Context, error) error { return nil }, nil
}

// message returns the message of an outcome.
func message(o *fit.Outcome) (*service.Message, error) {
	encoded, err := json.Marshal(o.Report())
	if err != nil {
		return nil, err
	}
	msg := service.NewMessage(encoded)
	if o.Err != nil {
		msg.SetError(fmt.Errorf("fit_model: %s: %w", o.Kind, o.Err))
	}
	return msg, nil
}

// readAll reads transactions until the input ends. An error means that they are
// incomplete.
func (in *input) readAll(ctx context.Context, ledger *fit.Ledger) error {
	in.reader.until = fit.DayOf(in.now().In(in.reader.zone)) + 1
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		waiting, done := context.WithTimeout(ctx, in.idleTimeout)
		batch, ack, err := in.child.ReadBatch(waiting)
		done()
		switch {
		case errors.Is(err, service.ErrEndOfInput):
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("the input neither sent anything nor ended for %s: correct the errors in its log, use an input that ends, or raise %s", in.idleTimeout, fieldIdleTimeout)
		case err != nil:
			return err
		}
		for _, msg := range batch {
			in.transactions.Incr(1, string(in.reader.read(ledger, msg)))
		}
		// The acknowledgement ignores cancellation: an input with messages that
		// are not acknowledged cannot be closed.
		if err := ack(context.WithoutCancel(ctx), nil); err != nil {
			return fmt.Errorf("a transaction could not be acknowledged: %w", err)
		}
	}
}

// fitAll fits every model and replaces its file.
func (in *input) fitAll(ledger *fit.Ledger, failure error) []fit.Outcome {
	if failure == nil {
		failure = in.check(ledger)
	}
	counts := fit.Counts{Unusable: ledger.ByReason}
	var until fit.Day
	var customers []fit.Customer
	if failure == nil {
		until = ledger.Last()
		if in.observedUntil != "" {
			// newInput validated it.
			day, _ := time.Parse(time.DateOnly, in.observedUntil)
			until = fit.DayOf(day)
		}
		customers = ledger.Observed(until, in.unit)
		counts = ledger.CountsUntil(until)
	}
	outcomes := make([]fit.Outcome, 0, len(in.models))
	for _, kind := range in.models {
		o := fit.Outcome{Kind: kind, Path: filepath.Join(in.directory, string(kind)+".yaml"), Transactions: counts, Err: failure}
		if o.Err == nil {
			o.Fitted, o.Err = in.fit(kind, o.Path, customers, until)
		}
		if o.Err != nil {
			in.logger.Errorf("Did not fit %s, and left %s as it was: %v", kind, o.Path, o.Err)
			in.fits.Incr(1, string(kind), "failed")
		} else {
			in.logger.Infof("Fitted %s to %d customers and wrote %s: %s", kind, o.Fitted.Origin().Customers, o.Path, o.Parameters())
			in.fits.Incr(1, string(kind), "written")
		}
		outcomes = append(outcomes, o)
	}
	return outcomes
}

// check returns an error if the transactions as a whole cannot be used.
func (in *input) check(ledger *fit.Ledger) error {
	total := ledger.Count() + ledger.Rejected()
	switch {
	case total == 0:
		return errors.New("the input sent no transactions: check that its source exists, and which messages its processors drop")
	case float64(ledger.Rejected()) > in.maxUnusableShare*float64(total):
		return fmt.Errorf("%d of %d transactions cannot be used (%s), more than %s allows: correct %s, %s and %s, or drop such transactions with the input's processors",
			ledger.Rejected(), total, ledger.Reasons(), fieldMaxUnusableShare, fieldCustomer, fieldTime, fieldAmount)
	}
	return nil
}

func (in *input) fit(kind models.Kind, path string, customers []fit.Customer, until fit.Day) (models.Model, error) {
	usable := len(customers)
	if kind == models.KindGammaGamma {
		usable = 0
		for _, c := range customers {
			if c.Repeat > 0 && c.MeanSpend > 0 {
				usable++
			}
		}
	}
	if usable < in.minCustomers {
		return nil, fmt.Errorf("there are %d customers to fit it to, and %s requires %d: read a longer history, or lower it", usable, fieldMinCustomers, in.minCustomers)
	}
	// A file that cannot be read is replaced.
	if present, err := models.Load(path); err == nil {
		if before := present.Origin().Customers; float64(usable) < in.minPreviousShare*float64(before) {
			return nil, fmt.Errorf("there are %d customers to fit it to, and the present file was fitted to %d: look for transactions that are missing; if none are, remove the file or lower %s", usable, before, fieldMinPreviousShare)
		}
	}

	var fitted models.Model
	switch kind {
	case models.KindBGNBD:
		m, err := fit.BGNBD(customers, in.unit, in.options)
		if err != nil {
			return nil, err
		}
		m.From.FittedAt, m.From.ObservedUntil = in.now().UTC().Truncate(time.Second), until.Time()
		fitted = m
	default:
		m, err := fit.GammaGamma(customers, in.options)
		if err != nil {
			return nil, err
		}
		m.From.FittedAt, m.From.ObservedUntil = in.now().UTC().Truncate(time.Second), until.Time()
		fitted = m
	}
	if err := models.Save(path, fitted); err != nil {
		return nil, fmt.Errorf("the file could not be written: %w", err)
	}
	return fitted, nil
}

// Close closes the input of the transactions. An input that was never read is
// not closed: its Close would wait forever.
func (in *input) Close(ctx context.Context) error {
	if !in.started {
		return nil
	}
	return in.child.Close(ctx)
}
