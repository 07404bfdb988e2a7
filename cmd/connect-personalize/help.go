package main

// helpTemplate replaces the engine's general help, whose name, description and examples
// are those of Redpanda Connect. The inner templates are those of urfave/cli.
const helpTemplate = `NAME:
   ` + name + ` - ` + summary + `

USAGE:
   ` + name + ` -c FILE
   ` + name + ` command [command options] [arguments...]

DESCRIPTION:
   A distribution of Redpanda Connect. A pipeline is a YAML file that configures
   the source of events, their validation and cleaning, the profiles computed from
   them, the profile store and the API that serves profiles:

     ` + name + ` -c ./configs/quickstart.yaml
     ` + name + ` lint ./configs/...
     ` + name + ` test ./configs/...
     ` + name + ` list inputs processors
     ` + name + ` create event_collector/validate_event/stdout > ./config.yaml
     ` + name + ` list --format jsonschema > ./config.schema.json

   The last command exports the JSON Schema of the configuration, which editors use
   to complete and check it. Documentation: ` + docsURL + `

COMMANDS:{{template "visibleCommandCategoryTemplate" .}}{{if .VisibleFlagCategories}}

GLOBAL OPTIONS:
   -c FILE, --config FILE  run the pipeline in this file{{template "visibleFlagCategoryTemplate" .}}{{end}}
`
