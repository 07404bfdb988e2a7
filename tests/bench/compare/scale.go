package compare

import (
	_ "embed"
	"fmt"
	"math"
	"strings"
	"text/template"
	"time"
)

//go:embed scale.tmpl
var scaleText string

// goal is the load that docs/scale.md computes.
var goal = struct{ events, profiles float64 }{1e6, 1e9}

// assumed are the assumptions of the computation; everything else is measured.
var assumed = struct {
	busy          float64 // maximum utilisation of processors
	memoryFill    float64 // maximum share of used memory of a Redis node
	nodeMemory    float64 // of a Redis node, bytes
	copies        float64 // of every Redis node: the primary and its replicas
	partitionRate float64 // bytes a second through one partition
	topicCopies   float64
	retention     time.Duration
	compression   float64 // of events in the topic
	corePrice     float64 // dollars a month
	memoryPrice   float64 // dollars a GiB and month
	diskPrice     float64 // dollars a GiB and month
}{
	busy: 0.6, memoryFill: 0.7, nodeMemory: 64 << 30, copies: 2,
	partitionRate: 10e6, topicCopies: 3, retention: 7 * 24 * time.Hour, compression: 4,
	corePrice: 25, memoryPrice: 3, diskPrice: 0.1,
}

// scale computes the resources for the goal from the measured figures.
func (r *results) scale() (string, error) {
	if r.Table == nil || len(r.Table.Runs["redis"]) == 0 {
		return "\nNot measured yet: run `make bench`.\n", nil
	}
	t, a := r.Table, assumed
	runs := t.Runs["redis"]
	cpu := median(runs, func(m measured) float64 { return perEvent(m.CPU, m) })
	redisCPU := median(runs, func(m measured) float64 { return perEvent(m.RedisCPU, m) })
	var profile float64
	for _, row := range t.Rows {
		if strings.HasPrefix(row.What, "bytes a profile") {
			profile = row.Ours
		}
	}
	if profile == 0 || redisCPU == 0 {
		return "\nNot measured in full yet: run `make bench`.\n", nil
	}
	up := math.Ceil
	cores := up(goal.events * cpu / 1e6 / a.busy)
	processes := up(cores / 2)
	shardsForCPU := up(goal.events * redisCPU / 1e6 / a.busy)
	memory := goal.profiles * profile
	shardsForMemory := up(memory / (a.nodeMemory * a.memoryFill))
	shards := max(shardsForCPU, shardsForMemory)
	incoming := goal.events * t.EventBytes
	partitions := max(up(incoming/a.compression/a.partitionRate), processes*2)
	disk := incoming / a.compression * a.retention.Seconds() * a.topicCopies
	redisMemory := shards * a.copies * a.nodeMemory
	gib := func(v float64) float64 { return v / (1 << 30) }
	redisCores := shards * a.copies * 2
	cost := map[string]float64{
		"processes": cores * a.corePrice,
		"redis":     redisCores*a.corePrice + gib(redisMemory)*a.memoryPrice,
		"topic":     gib(disk) * a.diskPrice,
	}
	money := func(v float64) string { return "$" + thousands(up(v/1000)*1000) }
	values := map[string]any{
		"Date": t.Conditions.Date, "Commit": t.Conditions.Commit,
		"EventBytes": thousands(t.EventBytes), "CPU": fmt.Sprintf("%.1f", cpu), "RedisCPU": fmt.Sprintf("%.1f", redisCPU),
		"ProfileBytes": thousands(profile), "Peak": bytesText(median(runs, func(m measured) float64 { return float64(m.PeakBytes) })),
		"Events": thousands(goal.events), "Profiles": thousands(goal.profiles),
		"Busy": fmt.Sprintf("%.0f%%", a.busy*100), "Fill": fmt.Sprintf("%.0f%%", a.memoryFill*100),
		"NodeMemory": bytesText(a.nodeMemory), "Copies": a.copies, "TopicCopies": a.topicCopies,
		"PartitionRate": thousands(a.partitionRate / 1e6), "Retention": thousands(a.retention.Hours() / 24), "Compression": a.compression,
		"CorePrice": a.corePrice, "MemoryPrice": a.memoryPrice, "DiskPrice": a.diskPrice,
		"Cores": thousands(cores), "Processes": thousands(processes), "ProcessMemory": bytesText(processes * median(runs, func(m measured) float64 { return float64(m.PeakBytes) })),
		"ShardsForCPU": thousands(shardsForCPU), "ShardsForMemory": thousands(shardsForMemory), "Shards": thousands(shards),
		"Memory": bytesText(memory), "Nodes": thousands(shards * a.copies), "RedisMemory": bytesText(redisMemory), "RedisCores": thousands(redisCores),
		"Incoming": bytesText(incoming), "Partitions": thousands(partitions), "Disk": bytesText(disk),
		"CostProcesses": money(cost["processes"]), "CostRedis": money(cost["redis"]), "CostTopic": money(cost["topic"]),
		"Cost": money(cost["processes"] + cost["redis"] + cost["topic"]),
	}
	page, err := template.New("scale").Option("missingkey=error").Parse(scaleText)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = page.Execute(&out, values)
	return out.String(), err
}
