package faults

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record/oracle"
)

// readFeatures reads a definition for the oracle, sharing no code with the
// product.
func readFeatures(path string) ([]oracle.Feature, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Features []map[string]yaml.Node `yaml:"features"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	var features []oracle.Feature
	for _, item := range file.Features {
		f := oracle.Feature{Zone: time.UTC, Unit: time.Second}
		for key, node := range item {
			if key == "name" {
				f.Name = node.Value
				continue
			}
			f.Kind = key
			var spec struct {
				Events   []string           `yaml:"events"`
				Of       string             `yaml:"of"`
				By       string             `yaml:"by"`
				Window   string             `yaml:"window"`
				Unit     string             `yaml:"unit"`
				Limit    int                `yaml:"limit"`
				K        int                `yaml:"k"`
				HalfLife string             `yaml:"half_life"`
				Weights  map[string]float64 `yaml:"weights"`
			}
			if err := node.Decode(&spec); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			f.Events, f.Of, f.By, f.Limit, f.K, f.Weights = spec.Events, spec.Of, spec.By, spec.Limit, spec.K, spec.Weights
			f.Window, f.HalfLife = duration(spec.Window), duration(spec.HalfLife)
			if spec.Unit != "" {
				f.Unit = map[string]time.Duration{"seconds": time.Second, "hours": time.Hour, "days": 24 * time.Hour}[spec.Unit]
			}
		}
		features = append(features, f)
	}
	return features, nil
}

func duration(text string) time.Duration {
	if text == "" {
		return 0
	}
	var n int
	var unit rune
	if _, err := fmt.Sscanf(text, "%d%c", &n, &unit); err != nil {
		panic(err)
	}
	return time.Duration(n) * map[rune]time.Duration{'h': time.Hour, 'd': 24 * time.Hour}[unit]
}

// expected returns the features that a customer's profile must have.
func expected(features []oracle.Feature, c *customer, asOf time.Time) map[string]any {
	var history []oracle.Event
	for _, raw := range c.events {
		history = append(history, oracle.Parse(raw, record.HashID))
	}
	want := map[string]any{}
	for _, f := range features {
		want[f.Name] = plain(oracle.Evaluate(f, history, asOf.UnixMilli()))
	}
	return want
}

// plain returns a value as it is decoded from JSON.
func plain(v any) any {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(err)
	}
	return out
}

// same compares values. Numbers may differ in their last digits, as means and
// decayed sums are added up in another order.
func same(a, b any) bool {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		return ok && (a == b || math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)))
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			w, ok := b[k]
			if !ok || !same(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}
