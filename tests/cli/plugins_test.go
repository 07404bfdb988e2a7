package cli

// What an operator can name in YAML thanks to this distribution, by the
// headings of the list command.
var plugins = map[string][]string{
	"inputs":     {"event_collector", "fit_model", "kafka_topic", "profile_api", "synthetic_shop"},
	"outputs":    {"kafka_topic", "profile_api"},
	"processors": {"dead_letter", "expect", "update_profile", "validate_event"},
}

// Custom resources are not among what list prints, but in the schema.
var resources = []string{"profiles"}
