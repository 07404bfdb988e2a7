package fit

import (
	"fmt"
	"time"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// Outcome is the outcome of fitting one model: the parameters in its file, or
// the error that kept the file as it was.
type Outcome struct {
	Kind         models.Kind
	Path         string
	Transactions Counts
	Fitted       models.Model
	Err          error
}

// Report is an outcome in the form of a message.
type Report struct {
	Model         models.Kind        `json:"model"`
	Path          string             `json:"path"`
	Written       bool               `json:"written"`
	Error         string             `json:"error,omitempty"`
	Parameters    map[string]float64 `json:"parameters,omitempty"`
	LogLikelihood float64            `json:"log_likelihood,omitempty"`
	Customers     int                `json:"customers,omitempty"`
	FittedAt      string             `json:"fitted_at,omitempty"`
	ObservedUntil string             `json:"observed_until,omitempty"`
	TimeUnit      string             `json:"time_unit,omitempty"`
	Transactions  Counts             `json:"transactions"`
}

// Report returns the outcome in the form of a message.
func (o *Outcome) Report() Report {
	r := Report{Model: o.Kind, Path: o.Path, Written: o.Err == nil, Transactions: o.Transactions}
	if o.Err != nil {
		r.Error = o.Err.Error()
		return r
	}
	from := o.Fitted.Origin()
	r.LogLikelihood, r.Customers = from.LogLikelihood, from.Customers
	r.FittedAt = from.FittedAt.Format(time.RFC3339)
	r.ObservedUntil = from.ObservedUntil.Format(time.DateOnly)
	switch m := o.Fitted.(type) {
	case *models.BGNBD:
		r.TimeUnit = models.FormatUnit(m.Unit)
		r.Parameters = map[string]float64{"r": m.R, "alpha": m.Alpha, "a": m.A, "b": m.B}
	case *models.GammaGamma:
		r.Parameters = map[string]float64{"p": m.P, "q": m.Q, "gamma": m.Gamma}
	}
	return r
}

// Parameters formats the fitted parameters for the log.
func (o *Outcome) Parameters() string {
	switch m := o.Fitted.(type) {
	case *models.BGNBD:
		return fmt.Sprintf("r=%.4g alpha=%.4g a=%.4g b=%.4g log-likelihood=%.1f", m.R, m.Alpha, m.A, m.B, m.From.LogLikelihood)
	case *models.GammaGamma:
		return fmt.Sprintf("p=%.4g q=%.4g gamma=%.4g log-likelihood=%.1f", m.P, m.Q, m.Gamma, m.From.LogLikelihood)
	}
	return ""
}
