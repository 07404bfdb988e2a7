// Command stock is Redpanda Connect with the components of its own that a
// pipeline of customer profiles can be built from, and nothing of this project:
// what the benchmarks compare with.
package main

import (
	"context"

	"github.com/redpanda-data/benthos/v4/public/service"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	_ "github.com/redpanda-data/connect/v4/public/components/prometheus"
	_ "github.com/redpanda-data/connect/v4/public/components/redis"
)

func main() {
	service.RunCLI(context.Background(), service.CLIOptSetBinaryName("stock"))
}
