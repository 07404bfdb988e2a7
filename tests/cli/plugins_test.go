package cli

// plugins are the components that this distribution adds, by the headings of the
// list command.
var plugins = map[string][]string{
	"inputs":     {"event_collector", "fit_model", "kafka_topic", "profile_api", "synthetic_shop"},
	"outputs":    {"kafka_topic", "profile_api"},
	"processors": {"dead_letter", "expect", "update_profile", "validate_event"},
}

// resources are in the schema only; list does not print them.
var resources = []string{"profiles"}
