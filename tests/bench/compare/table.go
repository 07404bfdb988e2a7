package compare

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The pipelines, by their names in -rows and in the results.
var (
	floor            = pipeline{name: "floor", config: "floor.yaml"}
	onRedis          = pipeline{name: "redis", config: "redis.yaml", redis: true}
	onRedisMapped    = pipeline{name: "redis_mapped", config: "redis_mapped.yaml", redis: true}
	onEmbedded       = pipeline{name: "embedded", config: "embedded.yaml"}
	onEmbeddedMapped = pipeline{name: "embedded_mapped", config: "embedded_mapped.yaml"}
	withoutMapping   = pipeline{name: "embedded_unmapped", config: "embedded_unmapped.yaml"}
	alternative      = pipeline{name: "stock", config: "stock.yaml", stock: true, redis: true}
)

// measureTable measures every row of the table. Compared pipelines take turns, so that
// other load of the machine affects all of them.
func (b *bench) measureTable(ctx context.Context, conditions conditions) error {
	t := &table{Conditions: conditions, Runs: map[string][]measured{}}
	for _, part := range []struct {
		rows    []string
		measure func(context.Context, *table) error
	}{
		{[]string{"floor", "redis", "redis_mapped", "embedded", "embedded_mapped", "embedded_unmapped", "stock"}, b.throughput},
		{[]string{"update"}, b.updateAlone},
		{[]string{"memory"}, b.processMemory},
		{[]string{"bytes", "read", "batch"}, b.serving},
	} {
		if !slices.ContainsFunc(part.rows, b.wants) {
			continue
		}
		if err := part.measure(ctx, t); err != nil {
			return err
		}
	}
	b.results.Table = t
	t.print()
	return nil
}

func (b *bench) throughput(ctx context.Context, t *table) error {
	file, err := b.natural(b.sizes.events, b.sizes.customers, 1)
	if err != nil {
		return err
	}
	some, err := b.natural(b.sizes.mapped, b.sizes.customers, 1)
	if err != nil {
		return err
	}
	few, err := b.natural(b.sizes.stock, b.sizes.customers, 1)
	if err != nil {
		return err
	}
	t.EventBytes = file.bytesPerEvent()
	for round := range b.sizes.rounds {
		for _, p := range []pipeline{floor, onRedis, onEmbedded, alternative, withoutMapping, onRedisMapped, onEmbeddedMapped} {
			if !b.wants(p.name) {
				continue
			}
			input := file
			switch p.name {
			case onRedisMapped.name, onEmbeddedMapped.name:
				input = some
			case alternative.name:
				input = few
			}
			m, err := b.runPipeline(ctx, p, input)
			if err != nil {
				return err
			}
			b.say("round %d: %-17s %9s events/s, CPU %.1f us an event, Redis %.1f, peak %s",
				round+1, p.name, thousands(m.rate()), perEvent(m.CPU, m), perEvent(m.RedisCPU, m), bytesText(float64(m.PeakBytes)))
			t.Runs[p.name] = append(t.Runs[p.name], m)
		}
	}
	rate := func(name string) float64 { return median(t.Runs[name], measured.rate) }
	t.compare(row{What: "events/s: validate, clean, 20 features, Redis store", Ours: rate("redis"),
		Against: "stock Connect: json_schema, mapping, a Lua script an event", Theirs: rate("stock"), Least: 5})
	t.compare(row{What: "the same", Ours: rate("redis"), Against: "the engine's floor: the same input into drop", Theirs: rate("floor"), Least: 0.6})
	t.compare(row{What: "the same, every event through the mapping", Ours: rate("redis_mapped"), Against: "the floor", Theirs: rate("floor")})
	t.compare(row{What: "the same, every event through the mapping", Ours: rate("redis_mapped"), Against: "stock Connect", Theirs: rate("stock")})
	t.compare(row{What: "events/s: validate, clean, 20 features, embedded store", Ours: rate("embedded"), Against: "the floor", Theirs: rate("floor"), Least: 0.8})
	t.compare(row{What: "the same, without cleaning", Ours: rate("embedded_unmapped"), Against: "the floor", Theirs: rate("floor"), Least: 0.8})
	t.compare(row{What: "the same, every event through the mapping", Ours: rate("embedded_mapped"), Against: "the floor", Theirs: rate("floor")})
	return nil
}

var goBenchmark = regexp.MustCompile(`BenchmarkUpdate/memory/batch=(\d+)\S*\s+\d+\s+([\d.]+) ns/op.*?\s(\d+) B/op\s+(\d+) allocs/op`)

// updateAlone runs the Go benchmark of batches of events into the retail
// profile in a store in memory.
func (b *bench) updateAlone(ctx context.Context, t *table) error {
	rounds, benchtime := b.sizes.rounds, "200000x"
	if b.sizes.rounds == 1 {
		benchtime = "20000x"
	}
	out, err := b.run(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkUpdate$/^memory$", "-benchtime", benchtime,
		"-count", strconv.Itoa(rounds), "-benchmem", "./plugins/profiles")
	if err != nil {
		return err
	}
	found := map[int][][3]float64{}
	for _, m := range goBenchmark.FindAllStringSubmatch(string(out), -1) {
		batch, _ := strconv.Atoi(m[1])
		var values [3]float64
		for i := range values {
			values[i], _ = strconv.ParseFloat(m[2+i], 64)
		}
		found[batch] = append(found[batch], values)
	}
	if len(found) == 0 {
		return fmt.Errorf("the benchmark of updates printed no result:\n%s", out)
	}
	for batch, values := range found {
		column := func(i int) float64 { return median(values, func(v [3]float64) float64 { return v[i] }) }
		t.Update = append(t.Update, updateCost{Batch: batch, EventsPerSecond: 1e9 / column(0), BytesPerEvent: column(1), AllocsPerEvent: column(2)})
	}
	slices.SortFunc(t.Update, func(a, b updateCost) int { return a.Batch - b.Batch })
	return nil
}

// processMemory compares the memory of the process with many and with few customers.
func (b *bench) processMemory(ctx context.Context, t *table) error {
	few, err := b.even(b.sizes.few, 20)
	if err != nil {
		return err
	}
	many, err := b.even(b.sizes.many, b.sizes.manyEach)
	if err != nil {
		return err
	}
	for round := range b.sizes.rounds {
		for _, side := range []struct {
			name string
			file eventFile
		}{{"memory_few", few}, {"memory_many", many}} {
			m, err := b.runPipeline(ctx, onRedis, side.file)
			if err != nil {
				return err
			}
			b.say("round %d: %s customers: peak %s, %s events/s", round+1, thousands(float64(side.file.customers)), bytesText(float64(m.PeakBytes)), thousands(m.rate()))
			t.Runs[side.name] = append(t.Runs[side.name], m)
		}
	}
	peak := func(name string) float64 {
		return median(t.Runs[name], func(m measured) float64 { return float64(m.PeakBytes) })
	}
	t.compare(row{What: fmt.Sprintf("peak memory of the process, %s customers, Redis store", thousands(float64(many.customers))), Unit: bytesUnit, Ours: peak("memory_many"),
		Against: thousands(float64(few.customers)) + " customers", Theirs: peak("memory_few"), Most: 1.2})
	return nil
}

// serving measures the size of a profile in Redis and the rate of reads.
func (b *bench) serving(ctx context.Context, t *table) error {
	if err := b.bytesPerProfile(ctx, t); err != nil {
		return err
	}
	if !b.wants("read") && !b.wants("batch") {
		return nil
	}
	api, err := b.startAPI(ctx)
	if err != nil {
		return err
	}
	defer api.stop()
	t.ProfileBytes = float64(api.bodyBytes)
	if b.wants("read") {
		loads, err := b.reads(ctx, api, []int{1, 64, 1024}, b.rows["hot"])
		if err != nil {
			return err
		}
		t.Reads = loads
		at64 := func(name string) func(func(load) float64) float64 {
			return func(of func(load) float64) float64 { return median(loads.of(name, 64), of) }
		}
		ours, cold, webdis := at64("ours"), at64("ours, no cache"), at64("webdis")
		p99 := func(l load) float64 { return l.P99 }
		t.compare(row{What: "requests/s: GET /api/customer/{id}, 64 connections", Ours: ours(load.rate),
			Against: "webdis, GET of a value of equal size", Theirs: webdis(load.rate), Least: 1})
		t.compare(row{What: "the same, p99", Unit: timeUnit, Ours: ours(p99), Against: "webdis", Theirs: webdis(p99), Most: 1})
		t.compare(row{What: "requests/s: the same without a cache", Ours: cold(load.rate), Against: "webdis", Theirs: webdis(load.rate)})
		t.compare(row{What: "the same, p99", Unit: timeUnit, Ours: cold(p99), Against: "webdis", Theirs: webdis(p99)})
	}
	if b.wants("batch") {
		rates, err := b.batchReads(ctx, api)
		if err != nil {
			return err
		}
		ours := median(rates.ours, itself)
		t.compare(row{What: "profiles/s: batch reads of 1,000, 4 connections", Ours: ours,
			Against: "redis-benchmark, GET of values of equal size, 4 connections, 1,000 pipelined", Theirs: median(rates.wide, itself), Least: 0.4})
		t.compare(row{What: "the same without a cache", Ours: median(rates.cold, itself),
			Against: "redis-benchmark, 4 connections, 1,000 pipelined", Theirs: median(rates.wide, itself)})
		t.compare(row{What: "the same with a cache", Ours: ours, Against: "redis-benchmark, 50 connections, 16 pipelined", Theirs: median(rates.narrow, itself)})
	}
	return nil
}

// bytesPerProfile leaves the profiles in the server, for the API to serve.
func (b *bench) bytesPerProfile(ctx context.Context, t *table) error {
	file, err := b.even(b.sizes.api, 20)
	if err != nil {
		return err
	}
	s, err := b.redis(ctx)
	if err != nil {
		return err
	}
	perProfile := map[string]float64{}
	for _, p := range []pipeline{alternative, onRedis} {
		if p.name == alternative.name && !b.wants("bytes") {
			continue
		}
		if err := s.reset(ctx); err != nil {
			return err
		}
		before, err := s.memory(ctx)
		if err != nil {
			return err
		}
		if _, err := b.runPipeline(ctx, p, file); err != nil {
			return err
		}
		after, err := s.memory(ctx)
		if err != nil {
			return err
		}
		size, err := s.client.DBSize(ctx).Result()
		if err != nil {
			return err
		}
		if size < int64(file.customers) {
			return fmt.Errorf("%s left %d keys for %d customers", p.name, size, file.customers)
		}
		perProfile[p.name] = (after - before) / float64(file.customers)
		keys, err := s.usage(ctx)
		if err != nil {
			return err
		}
		b.say("%s: %.0f bytes a profile; by kind of key: %s", p.name, perProfile[p.name], keys)
	}
	if !b.wants("bytes") {
		return nil
	}
	t.compare(row{What: "bytes a profile in Redis, 20 features, 20 events", Unit: bytesUnit, Ours: perProfile["redis"],
		Against: "stock Connect: a hash of six fields and the keys that detect duplicates", Theirs: perProfile["stock"], Most: 1})
	return nil
}

// usage sums MEMORY USAGE by the beginning of keys.
func (s *server) usage(ctx context.Context) (string, error) {
	type sum struct{ keys, bytes int64 }
	sums := map[string]*sum{}
	scan := s.client.Scan(ctx, 0, "", 1000).Iterator()
	for n := 0; scan.Next(ctx) && n < 20_000; n++ {
		key := scan.Val()
		used, err := s.client.MemoryUsage(ctx, key, 0).Result()
		if err != nil {
			return "", err
		}
		kind := keyKind(key)
		if sums[kind] == nil {
			sums[kind] = &sum{}
		}
		sums[kind].keys++
		sums[kind].bytes += used
	}
	var kinds []string
	for kind, sum := range sums {
		kinds = append(kinds, fmt.Sprintf("%s* %d keys of %d bytes", kind, sum.keys, sum.bytes/sum.keys))
	}
	slices.Sort(kinds)
	return strings.Join(kinds, ", "), scan.Err()
}

var notKind = regexp.MustCompile(`[^a-zA-Z]*[0-9].*$`)

func keyKind(key string) string {
	if strings.HasPrefix(key, "d:") {
		return "d:"
	}
	return notKind.ReplaceAllString(key, "")
}
