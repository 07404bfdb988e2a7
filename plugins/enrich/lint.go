package enrich

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
)

const lintFunction = "lint_enrich"

// registerLintFunction registers lint as a Bloblang function, because lint rules are
// mappings.
func registerLintFunction() error {
	function := bloblang.NewPluginSpec().
		Category("Enrichment").
		Description("Returns the conflicts between fields of an `enrich` processor's config, as an array of messages.").
		Param(bloblang.NewAnyParam("config").Description("The config."))
	return bloblang.RegisterFunctionV2(lintFunction, function, func(args *bloblang.ParsedParams) (bloblang.Function, error) {
		config, err := args.Get("config")
		if err != nil {
			return nil, err
		}
		return func() (any, error) {
			messages := []any{}
			if conf, ok := config.(map[string]any); ok {
				for _, message := range lint(conf) {
					messages = append(messages, message)
				}
			}
			return messages, nil
		}, nil
	})
}

// lint returns the conflicts between the fields of a config without defaults.
func lint(conf map[string]any) (messages []string) {
	text := func(name, otherwise string) string {
		if v, ok := conf[name]; ok {
			return fmt.Sprint(v)
		}
		return otherwise
	}
	var named []string
	for _, kind := range kinds {
		if _, ok := conf[kind]; ok {
			named = append(named, kind)
		}
	}
	switch {
	case len(named) == 0:
		messages = append(messages, "enrich needs a source of values: write one of "+strings.Join(kinds, ", "))
	case len(named) > 1:
		messages = append(messages, "enrich has one source of values: keep one of "+strings.Join(named, ", ")+", and write a second enrich processor for the other")
	case isRemote(named[0]):
		timeout, err := time.ParseDuration(text(fieldTimeout, defaultTimeout))
		budget, err2 := time.ParseDuration(text(fieldBudget, defaultBudget))
		if err == nil && err2 == nil && budget < timeout {
			messages = append(messages, budgetMessage(timeout))
		}
	}
	byDefault := slices.Contains([]string{text(fieldOnAbsent, ""), text(fieldOnFailure, "")}, string(policyDefault))
	switch _, ok := conf[fieldDefault]; {
	case byDefault && !ok:
		messages = append(messages, defaultMessage)
	case !byDefault && ok:
		messages = append(messages, "default is not used: write on_absent: default or on_failure: default, or remove it")
	}
	traits, _ := conf[fieldTraits].(map[string]any)
	if on, _ := traits[fieldEnabled].(bool); text(fieldTarget, "") == targetNone && !on {
		messages = append(messages, targetMessage)
	}
	return messages
}

const (
	defaultMessage = "the policy default needs a value: write default, such as default: {}"
	targetMessage  = "target: none without traits has no effect: write traits: { enabled: true }"
)

func budgetMessage(timeout time.Duration) string {
	return fmt.Sprintf("budget must be at least timeout: write budget: %v or more", timeout)
}
