package fitmodel

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/engine/models"
)

// outcome is what became of one model.
type outcome struct {
	kind   models.Kind
	path   string
	rows   *rows
	fitted models.Model
	err    error
}

// report is an outcome as a message has it.
type report struct {
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
	Transactions  struct {
		Used     int            `json:"used"`
		Later    int            `json:"later"`
		Unusable map[result]int `json:"unusable,omitempty"`
	} `json:"transactions"`
}

func (o outcome) message() (*service.Message, error) {
	r := report{Model: o.kind, Path: o.path, Written: o.err == nil}
	r.Transactions.Used, r.Transactions.Later, r.Transactions.Unusable = o.rows.used, o.rows.later, o.rows.not
	if o.err != nil {
		r.Error = o.err.Error()
	} else {
		from := o.fitted.Origin()
		r.LogLikelihood, r.Customers = from.LogLikelihood, from.Customers
		r.FittedAt = from.FittedAt.Format(time.RFC3339)
		r.ObservedUntil = from.ObservedUntil.Format(time.DateOnly)
		switch m := o.fitted.(type) {
		case *models.BGNBD:
			r.TimeUnit = models.FormatUnit(m.Unit)
			r.Parameters = map[string]float64{"r": m.R, "alpha": m.Alpha, "a": m.A, "b": m.B}
		case *models.GammaGamma:
			r.Parameters = map[string]float64{"p": m.P, "q": m.Q, "gamma": m.Gamma}
		}
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	msg := service.NewMessage(encoded)
	if o.err != nil {
		msg.SetError(fmt.Errorf("fit_model: %s: %w", o.kind, o.err))
	}
	return msg, nil
}

// parameters lists them for the log.
func (o outcome) parameters() string {
	switch m := o.fitted.(type) {
	case *models.BGNBD:
		return fmt.Sprintf("r=%.4g alpha=%.4g a=%.4g b=%.4g log-likelihood=%.1f", m.R, m.Alpha, m.A, m.B, m.From.LogLikelihood)
	case *models.GammaGamma:
		return fmt.Sprintf("p=%.4g q=%.4g gamma=%.4g log-likelihood=%.1f", m.P, m.Q, m.Gamma, m.From.LogLikelihood)
	}
	return ""
}
