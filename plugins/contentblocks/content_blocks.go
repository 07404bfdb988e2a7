// Package contentblocks opens the folder of content blocks of a config, for the profile
// API and for its output, and lints it together with the config.
package contentblocks

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/bloblang"
	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/connect-personalize/connect-personalize/plugins/configspec"
	"github.com/connect-personalize/connect-personalize/plugins/engine/content"
	"github.com/connect-personalize/connect-personalize/plugins/engine/features"
	"github.com/connect-personalize/connect-personalize/plugins/engine/finding"
	"github.com/connect-personalize/connect-personalize/plugins/engine/record"
	"github.com/connect-personalize/connect-personalize/plugins/profiledefinition"
)

// Blocks are the content blocks of a folder. They are reloaded on change, and their
// renderings are counted. Safe for concurrent use.
type Blocks struct {
	folder *content.Folder
	log    *service.Logger

	rendered *service.MetricCounter
	latency  *service.MetricTimer

	// logged contains the blocks with a logged failure since the last reload.
	mu     sync.Mutex
	logged map[string]bool
}

// contentInterval is the interval at which the folder is polled.
const contentInterval = 2 * time.Second

// Open loads a folder of blocks. The blocks are checked against the definition of r,
// which is a profiles resource; any other r checks nothing.
func Open(path string, r any, res *service.Resources) (*Blocks, error) {
	b := &Blocks{
		log:      res.Logger(),
		logged:   map[string]bool{},
		rendered: res.Metrics().NewCounter("content_blocks", "block", "outcome"),
		latency:  res.Metrics().NewTimer("content_block_latency_ns", "block"),
	}
	var names content.Names
	// The fields that exist are those of the served definition, not of the one in
	// the file of a block.
	if defined, ok := r.(interface{ Definition() *record.Definition }); ok {
		names = namesOf(defined.Definition())
	}
	var err error
	b.folder, err = content.Open(path, func(string) (content.Names, error) { return names, nil })
	return b, err
}

// Follow reloads the blocks when a file of the folder changes, until ctx ends.
// A folder with an error is not loaded: the previous blocks stay.
func (b *Blocks) Follow(ctx context.Context) {
	b.folder.Follow(ctx, contentInterval, func(err error) {
		if err != nil {
			b.log.Errorf("The changed content blocks have errors; the previous blocks stay: %v", err)
			return
		}
		b.mu.Lock()
		b.logged = map[string]bool{}
		b.mu.Unlock()
		b.log.Info("The content blocks were reloaded.")
	})
}

// Check reloads the blocks if their files changed, and reports whether it did.
func (b *Blocks) Check() (reloaded bool, err error) { return b.folder.Check() }

// Block returns the block with a name.
func (b *Blocks) Block(name string) (*content.Block, bool) { return b.folder.Block(name) }

// All returns all blocks, sorted by name.
func (b *Blocks) All() []*content.Block { return b.folder.Blocks() }

// Render renders a block and counts the outcome. A failing block is logged once until
// the next reload, without values of the profile.
func (b *Blocks) Render(block *content.Block, p *content.Profile) content.Result {
	began := time.Now()
	result := block.Render(p)
	b.latency.Timing(int64(time.Since(began)), block.Name)
	outcome := "rendered"
	switch result.Fallback {
	case "":
	case content.NoCustomer, content.MissingValue:
		outcome = "fallback"
	default:
		outcome = "failed"
		b.mu.Lock()
		isLogged := b.logged[block.Name]
		b.logged[block.Name] = true
		b.mu.Unlock()
		if !isLogged {
			b.log.Errorf("The content block %s renders its fallback (see the metric content_blocks): line %d: %s", block.Name, result.Line, result.Problem)
		}
	}
	b.rendered.Incr(1, block.Name, outcome)
	return result
}

// ContentNames returns the names of features and segments in a definition file, none
// if the path is empty.
func ContentNames(path string) (content.Names, error) {
	if path == "" {
		return content.Names{}, nil
	}
	def, err := profiledefinition.Read(path)
	if err != nil {
		return content.Names{}, fmt.Errorf("%s cannot be read or has errors: lint it separately", path)
	}
	return namesOf(def.Definition), nil
}

// namesOf returns the names of features and segments in a definition.
func namesOf(def *record.Definition) content.Names {
	names := content.Names{Features: []string{}}
	for i := range def.Features.Features {
		f := &def.Features.Features[i]
		names.Features = append(names.Features, f.Name)
		switch f.Kind {
		case features.TopK:
			names.ObjectLists = append(names.ObjectLists, f.Name)
		case features.Sum, features.Avg, features.Min, features.Max, features.Stddev, features.DecayedSum,
			features.Ratio, features.Expression, features.Propensity, features.Purchases,
			features.TimeSinceFirst, features.TimeSinceLast, features.IntervalMean, features.IntervalStddev:
			names.Amounts = append(names.Amounts, f.Name)
		}
	}
	if def.Segments != nil {
		names.Segments = def.Segments.Names()
	}
	return names
}

func init() {
	configspec.RegisterLintFunction("lint_content_blocks", "a folder of content blocks",
		bloblang.NewPluginSpec().
			Description("Returns the errors of the content blocks in a folder, as an array of strings; empty for no errors, and for an empty path.").
			Param(bloblang.NewStringParam("path").Description("Path of the folder.")),
		func(path string) ([]finding.Finding, error) {
			if path == "" {
				return nil, nil
			}
			return content.Lint(path, ContentNames)
		})
}
