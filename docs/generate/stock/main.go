// Command stock prints the names of the components, Bloblang functions and methods of
// the engine without our plugins, as a JSON object by kind. The plugin reference omits
// them.
package main

import (
	"encoding/json"
	"os"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
)

func main() {
	names := map[string][]string{}
	add := func(kind string) func(string, *service.ConfigView) {
		return func(name string, _ *service.ConfigView) { names[kind] = append(names[kind], name) }
	}
	env := service.GlobalEnvironment()
	env.WalkInputs(add("input"))
	env.WalkProcessors(add("processor"))
	env.WalkOutputs(add("output"))
	env.WalkCaches(add("cache"))
	env.WalkRateLimits(add("rate_limit"))
	env.WalkBuffers(add("buffer"))
	env.WalkMetrics(add("metrics"))
	env.WalkTracers(add("tracer"))
	env.WalkScanners(add("scanner"))
	blobl := bloblang.GlobalEnvironment()
	blobl.WalkFunctions(func(name string, _ *bloblang.FunctionView) {
		names["Bloblang function"] = append(names["Bloblang function"], name)
	})
	blobl.WalkMethods(func(name string, _ *bloblang.MethodView) {
		names["Bloblang method"] = append(names["Bloblang method"], name)
	})
	if err := json.NewEncoder(os.Stdout).Encode(names); err != nil {
		os.Exit(1)
	}
}
