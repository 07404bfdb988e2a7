package fitmodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
	"github.com/connect-personalize/connect-personalize/plugins/engine/models/fit"
)

// outcomes runs a pipeline to its end and returns the reports it sends, with the
// error of each message.
func outcomes(t *testing.T, yaml string, env map[string]string) ([]fit.Report, []error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	builder := service.NewStreamBuilder()
	builder.SetEnvVarLookupFunc(func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
	require.NoError(t, builder.SetYAML(yaml))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	var mu sync.Mutex
	var reports []fit.Report
	var errs []error
	require.NoError(t, builder.AddConsumerFunc(func(_ context.Context, msg *service.Message) error {
		raw, err := msg.AsBytes()
		if err != nil {
			return err
		}
		var r fit.Report
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		reports, errs = append(reports, r), append(errs, msg.GetError())
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	require.NoError(t, stream.Run(ctx))
	mu.Lock()
	defer mu.Unlock()
	return reports, errs
}

// sample returns the path of the CDNOW sample, which is not part of this
// repository. The environment variable CDNOW overrides it.
func sample(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("CDNOW"); path != "" {
		return path
	}
	const beside = "../../../shared/data/CDNOW_sample.txt"
	if _, err := os.Stat(beside); errors.Is(err, os.ErrNotExist) {
		t.Skip("the CDNOW sample is not here: set CDNOW to its path")
	}
	return beside
}

func TestShippedConfigGivesThePublishedParameters(t *testing.T) {
	config, err := os.ReadFile("../../configs/fit_purchase_models.yaml")
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "models")
	reports, errs := outcomes(t, string(config), map[string]string{
		"TRANSACTIONS": sample(t), "MODELS_DIR": dir, "OBSERVED_UNTIL": "1997-09-30",
	})
	require.Equal(t, []error{nil, nil}, errs)
	require.Len(t, reports, 2)

	loaded, err := models.Load(filepath.Join(dir, "bg_nbd.yaml"))
	require.NoError(t, err)
	bg := loaded.(*models.BGNBD)
	require.Equal(t, 7*24*time.Hour, bg.Unit)
	require.Equal(t, 2357, bg.From.Customers)
	require.Equal(t, "1997-09-30", bg.From.ObservedUntil.Format(time.DateOnly))
	require.WithinDuration(t, time.Now(), bg.From.FittedAt, time.Minute)
	loaded, err = models.Load(filepath.Join(dir, "gamma_gamma.yaml"))
	require.NoError(t, err)
	spend := loaded.(*models.GammaGamma)
	require.Equal(t, 946, spend.From.Customers)

	for name, p := range map[string]struct {
		fitted, reported float64
		decimals         int
		published        string
	}{
		"r":              {bg.R, reports[0].Parameters["r"], 3, "0.243"},
		"alpha":          {bg.Alpha, reports[0].Parameters["alpha"], 3, "4.414"},
		"a":              {bg.A, reports[0].Parameters["a"], 3, "0.793"},
		"b":              {bg.B, reports[0].Parameters["b"], 3, "2.426"},
		"log-likelihood": {bg.From.LogLikelihood, reports[0].LogLikelihood, 1, "-9582.4"},
		"p":              {spend.P, reports[1].Parameters["p"], 2, "6.25"},
		"q":              {spend.Q, reports[1].Parameters["q"], 2, "3.74"},
		"gamma":          {spend.Gamma, reports[1].Parameters["gamma"], 2, "15.44"},
	} {
		require.Equal(t, p.published, strconv.FormatFloat(p.fitted, 'f', p.decimals, 64), name)
		require.Equal(t, p.fitted, p.reported, name)
	}
	require.Equal(t, models.KindBGNBD, reports[0].Model)
	require.True(t, reports[0].Written)
	require.Equal(t, "7d", reports[0].TimeUnit)
	require.Equal(t, 6919, reports[0].Transactions.Used+reports[0].Transactions.Later)
	require.Empty(t, reports[0].Transactions.Unusable)
	require.Equal(t, models.KindGammaGamma, reports[1].Model)
	require.Equal(t, 946, reports[1].Customers)
}

// purchases generates a log of n customers, a JSON object on each line.
func purchases(n int) []string {
	random := rand.New(rand.NewPCG(1, 2))
	var lines []string
	start := time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC)
	for customer := range n {
		rate, mean := random.ExpFloat64()/4, 20+30*random.ExpFloat64()
		leave := random.Float64() * random.Float64()
		week := 8 * random.Float64()
		for week < 40 {
			lines = append(lines, fmt.Sprintf(`{"userId":"c%d","timestamp":%q,"properties":{"total":%.2f}}`,
				customer, start.Add(time.Duration(week*7*24*float64(time.Hour))).Format(time.RFC3339), mean*(0.5+random.Float64())))
			week += random.ExpFloat64()/rate + 0.15
			if random.Float64() < leave {
				break
			}
		}
	}
	return lines
}

type log struct{ dir, path, models string }

func newLog(t *testing.T, lines []string) log {
	t.Helper()
	dir := t.TempDir()
	l := log{dir: dir, path: filepath.Join(dir, "log.jsonl"), models: filepath.Join(dir, "models")}
	l.write(t, lines)
	return l
}

func (l log) write(t *testing.T, lines []string) {
	t.Helper()
	require.NoError(t, os.WriteFile(l.path, []byte(strings.Join(lines, "\n")), 0o600))
}

func (l log) config(fields string) string {
	return `
output:
  drop: {}
input:
  fit_model:
    directory: ` + l.models + `
` + indent(fields) + `
    input:
      file:
        paths: [ ` + l.path + ` ]
        scanner:
          lines: {}
`
}

func indent(fields string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(fields), "\n", "\n    ")
}

func (l log) file(t *testing.T, kind models.Kind) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(l.models, string(kind)+".yaml"))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	require.NoError(t, err)
	return string(raw)
}

func TestReadersReloadTheNewParameters(t *testing.T) {
	l := newLog(t, purchases(300))
	reports, errs := outcomes(t, l.config(""), nil)
	require.Equal(t, []error{nil, nil}, errs)
	require.Equal(t, 300, reports[0].Customers)

	file, err := models.Open[models.BGNBD](filepath.Join(l.models, "bg_nbd.yaml"))
	require.NoError(t, err)
	before := file.Current()
	l.write(t, purchases(600))
	_, errs = outcomes(t, l.config(""), nil)
	require.Equal(t, []error{nil, nil}, errs)
	for range 2 {
		_, err = file.Check()
		require.NoError(t, err)
	}
	require.Equal(t, 600, file.Current().From.Customers)
	require.NotEqual(t, before.R, file.Current().R)
}

func TestFitDoesNotDependOnTheOrderOfTransactions(t *testing.T) {
	parameters := func(lines []string) string {
		l := newLog(t, lines)
		_, errs := outcomes(t, l.config(""), nil)
		require.Equal(t, []error{nil, nil}, errs)
		_, after, _ := strings.Cut(l.file(t, models.KindBGNBD), "customers:")
		_, spend, _ := strings.Cut(l.file(t, models.KindGammaGamma), "customers:")
		return after + spend
	}
	lines := purchases(300)
	want := parameters(lines)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	require.Equal(t, want, parameters(lines))
}

func TestFailedFitKeepsTheFile(t *testing.T) {
	good := purchases(400)
	garbage := append([]string{
		"not json",
		`{"timestamp":"2025-03-01T00:00:00Z","properties":{"total":1}}`,
		`{"userId":" ","timestamp":"2025-03-01T00:00:00Z","properties":{"total":1}}`,
		`{"userId":1.5,"timestamp":"2025-03-01T00:00:00Z","properties":{"total":1}}`,
		`{"userId":"x","timestamp":20250301,"properties":{"total":1}}`,
		`{"userId":"x","timestamp":"1970-01-01T00:00:00Z","properties":{"total":1}}`,
		`{"userId":"x","timestamp":"2999-01-01T00:00:00Z","properties":{"total":1}}`,
		`{"userId":"x","timestamp":"yesterday","properties":{"total":1}}`,
		`{"userId":"x","timestamp":"2025-03-01T00:00:00Z"}`,
		`{"userId":"x","timestamp":"2025-03-01T00:00:00Z","properties":{"total":"1"}}`,
		`{"userId":"x","timestamp":"2025-03-01T00:00:00Z","properties":{"total":-1}}`,
	}, good...)
	var once []string
	for i := range 400 {
		once = append(once, fmt.Sprintf(`{"userId":%d,"timestamp":"2025-03-01","properties":{"total":5}}`, i))
	}
	for name, test := range map[string]struct {
		lines  []string
		fields string
		want   []string // an error for each model, "" for none
	}{
		"nothing": {nil, "", []string{"the input sent no transactions", "the input sent no transactions"}},
		"garbage": {garbage, "max_unusable_share: 0.001", []string{"(amount 3, customer 4, time 4), more than max_unusable_share allows", "(amount 3, customer 4, time 4)"}},
		"only garbage": {garbage[:11], "max_unusable_share: 0.5", []string{
			"11 of 11 transactions cannot be used", "11 of 11 transactions cannot be used",
		}},
		"too few":            {good[:100], "", []string{"customers to fit it to, and min_customers requires 100", "and min_customers requires 100"}},
		"too few returning":  {good, "min_customers: 350", []string{"", "and min_customers requires 350"}},
		"cut off":            {purchases(150), "", []string{"there are 150 customers to fit it to, and the present file was fitted to 400", "and the present file was fitted to"}},
		"none returns":       {once, "", []string{"none of 400 customers bought on a second day", "there are 0 customers to fit it to"}},
		"before the history": {good, "observed_until: 2024-01-01", []string{"there are 0 customers", "there are 0 customers"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t, good)
			_, errs := outcomes(t, l.config(""), nil)
			require.Equal(t, []error{nil, nil}, errs)
			before := map[models.Kind]string{}
			for _, kind := range []models.Kind{models.KindBGNBD, models.KindGammaGamma} {
				before[kind] = l.file(t, kind)
				require.NotEmpty(t, before[kind])
			}

			l.write(t, test.lines)
			reports, errs := outcomes(t, l.config(test.fields), nil)
			require.Len(t, reports, 2)
			for i, want := range test.want {
				if want == "" {
					require.NoError(t, errs[i])
					require.True(t, reports[i].Written)
					continue
				}
				require.ErrorContains(t, errs[i], want)
				require.Contains(t, reports[i].Error, want)
				require.False(t, reports[i].Written)
				require.Equal(t, before[reports[i].Model], l.file(t, reports[i].Model))
			}
		})
	}
}

func TestUnusableTransactionsAreCountedAndIgnored(t *testing.T) {
	lines := purchases(400)
	l := newLog(t, lines)
	clean, errs := outcomes(t, l.config(""), nil)
	require.Equal(t, []error{nil, nil}, errs)

	l.write(t, append([]string{"not json", `{"userId":"x"}`}, lines...))
	reports, errs := outcomes(t, l.config(""), nil)
	require.Equal(t, []error{nil, nil}, errs)
	require.Equal(t, clean[0].Parameters, reports[0].Parameters)
	require.Equal(t, map[fit.Result]int{fit.InvalidCustomer: 1, fit.InvalidTime: 1}, reports[0].Transactions.Unusable)
	require.Equal(t, len(lines), reports[0].Transactions.Used)
}

func TestBGNBDNeedsNoAmounts(t *testing.T) {
	var lines []string
	for _, line := range purchases(300) {
		before, _, _ := strings.Cut(line, `,"properties"`)
		lines = append(lines, before+"}")
	}
	l := newLog(t, lines)
	reports, errs := outcomes(t, l.config("models: [ bg_nbd ]"), nil)
	require.Equal(t, []error{nil}, errs)
	require.Equal(t, 300, reports[0].Customers)
	require.Empty(t, l.file(t, models.KindGammaGamma))
}

func TestDaysUseTheTimeZone(t *testing.T) {
	// Two purchases on one day in Berlin, on two days in UTC.
	var lines []string
	for i := range 100 {
		lines = append(lines,
			fmt.Sprintf(`{"userId":"a%d","timestamp":"2025-06-01T22:30:00Z","properties":{"total":5}}`, i),
			fmt.Sprintf(`{"userId":"a%d","timestamp":"2025-06-02T01:30:00Z","properties":{"total":%d}}`, i, 5+i%20))
	}
	l := newLog(t, lines)
	_, errs := outcomes(t, l.config("time_zone: Europe/Berlin"), nil)
	require.ErrorContains(t, errs[0], "none of 100 customers bought on a second day")
	_, errs = outcomes(t, l.config("time_zone: UTC"), nil)
	require.NotContains(t, fmt.Sprint(errs[0]), "bought on a second day")
}

func TestFailedMessagesAreUnusable(t *testing.T) {
	l := newLog(t, purchases(300))
	config := l.config("max_unusable_share: 1") + `      processors:
        - mapping: root = if this.userId.has_suffix("7") { throw("no") }
`
	reports, errs := outcomes(t, config, nil)
	require.Equal(t, []error{nil, nil}, errs)
	require.Equal(t, 270, reports[0].Customers)
	require.Positive(t, reports[0].Transactions.Unusable[fit.Failed])
}

func TestIdleTimeoutFailsTheRun(t *testing.T) {
	l := newLog(t, nil)
	l.path = filepath.Join(l.dir, "none.jsonl")
	_, errs := outcomes(t, l.config("idle_timeout: 50ms"), nil)
	require.Len(t, errs, 2)
	require.ErrorContains(t, errs[0], "the input neither sent anything nor ended for 50ms")
	require.Empty(t, l.file(t, models.KindBGNBD))
}

// endless is an input of valid transactions that never ends.
type endless struct {
	lines []string
	next  int
	// enough is closed once all lines were read.
	enough chan struct{}
}

func (e *endless) Connect(context.Context) error { return nil }

func (e *endless) Read(context.Context) (*service.Message, service.AckFunc, error) {
	if e.next == len(e.lines) {
		close(e.enough)
	}
	msg := service.NewMessage([]byte(e.lines[e.next%len(e.lines)]))
	e.next++
	return msg, func(context.Context, error) error { return nil }, nil
}

func (e *endless) Close(context.Context) error { return nil }

func TestInterruptedRunFitsNothing(t *testing.T) {
	source := &endless{lines: purchases(300), enough: make(chan struct{})}
	env := service.GlobalEnvironment().Clone()
	require.NoError(t, env.RegisterInput("endless", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Resources) (service.Input, error) { return source, nil }))

	dir := t.TempDir()
	builder := env.NewStreamBuilder()
	require.NoError(t, builder.SetYAML(`
input:
  fit_model:
    directory: `+dir+`
    input:
      endless: {}
`))
	require.NoError(t, builder.SetLoggerYAML("level: none"))
	require.NoError(t, builder.AddConsumerFunc(func(context.Context, *service.Message) error {
		t.Error("a model was fitted to some of the transactions")
		return nil
	}))
	stream, err := builder.Build()
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- stream.Run(context.Background()) }()
	<-source.enough
	require.NoError(t, stream.StopWithin(time.Minute))
	require.NoError(t, <-done)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestLint(t *testing.T) {
	for fields, want := range map[string]string{
		"models: []":                     "models is empty: write bg_nbd, gamma_gamma or both",
		"models: [ bg_nbd, propensity ]": "models can be bg_nbd and gamma_gamma: other models are not fitted here",
		"time_unit: week":                "time_unit is a whole number of days: write 7d for weeks, 1d for days",
		"observed_until: 31.1.2026":      "observed_until must be a date, such as 2026-01-31",
		"min_customers: 0":               "min_customers must be 1 or more",
		"min_previous_share: 50":         "min_previous_share is a share: write a number from 0 to 1",
		"max_unusable_share: -1":         "max_unusable_share is a share: write a number from 0 to 1",
		"penalty: 2":                     "penalty must be from 0 to 1",
		"customer: 'this.'":              "",
	} {
		builder := service.NewStreamBuilder()
		err := builder.SetYAML(newLog(t, nil).config(fields))
		require.ErrorContains(t, err, want, fields)
	}
}

func TestConstructor(t *testing.T) {
	for fields, want := range map[string]string{
		"time_zone: Mars/Olympus": `time_zone "Mars/Olympus" is not known: write UTC, or a name such as Europe/Berlin`,
		"time_unit: 9999d":        "time_unit: the time unit must be from 1h to 3660d",
		"idle_timeout: 0s":        "idle_timeout must be more than 0s",
	} {
		builder := service.NewStreamBuilder()
		require.NoError(t, builder.SetYAML(newLog(t, nil).config(fields)), fields)
		require.NoError(t, builder.SetLoggerYAML("level: none"))
		stream, err := builder.Build()
		if err == nil {
			err = stream.Run(context.Background())
		}
		require.ErrorContains(t, err, want, fields)
	}
}
