package main

// helpTemplate replaces the engine's general help: its name and description
// are fixed there, and its examples are not ours. The inner templates are
// those of urfave/cli.
const helpTemplate = `NAME:
   ` + name + ` - ` + summary + `

USAGE:
   ` + name + ` -c FILE
   ` + name + ` command [command options] [arguments...]

DESCRIPTION:
   A distribution of Redpanda Connect. A pipeline is a YAML file that says where
   events come from, what a valid event is, how it is cleaned, what profiles are
   made of, where they live, and how they are read:

     ` + name + ` -c ./configs/quickstart.yaml
     ` + name + ` lint ./configs/...
     ` + name + ` test ./configs/...
     ` + name + ` list inputs processors
     ` + name + ` create event_collector/validate_event/stdout > ./config.yaml
     ` + name + ` list --format jsonschema > ./config.schema.json

   The last one exports the JSON Schema of the configuration, by which editors
   complete and check it. Documentation: ` + docsURL + `

COMMANDS:{{template "visibleCommandCategoryTemplate" .}}{{if .VisibleFlagCategories}}

GLOBAL OPTIONS:
   -c FILE, --config FILE  run the pipeline in this file{{template "visibleFlagCategoryTemplate" .}}{{end}}
`
