package redis

import (
	"context"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// Logger is the part of a Connect logger that the store uses.
type Logger interface {
	Warnf(format string, args ...any)
}

type silence struct{}

func (silence) Warnf(string, ...any) {}

// reportSettings logs the settings of the servers that lose profiles. It is called
// once, at the first contact. A server that does not reveal a setting is not reported.
func (s *Store) reportSettings(ctx context.Context) {
	nodes, addrs, err := s.primaries(ctx)
	if err != nil {
		return
	}
	var reported []string
	for _, addr := range addrs {
		for _, warning := range lossySettings(ctx, nodes[addr], s.opts.IdleExpiry > 0) {
			if !slices.Contains(reported, warning) {
				reported = append(reported, warning)
				s.opts.Logger.Warnf("redis profile store: %s", warning)
			}
		}
	}
}

// lossySettings returns a warning for each setting of a server that loses records.
// expiring reports whether records have a time to live.
func lossySettings(ctx context.Context, node *goredis.Client, expiring bool) (warnings []string) {
	pipe := node.Pipeline()
	memory := pipe.Info(ctx, "memory")
	persistence := pipe.Info(ctx, "persistence")
	save := pipe.ConfigGet(ctx, "save") // often not permitted
	execute(ctx, pipe)
	policy := infoField(memory.Val(), "maxmemory_policy")
	limited := infoField(memory.Val(), "maxmemory") != "0"
	// The volatile policies evict only keys with a time to live.
	if policy != "" && policy != "noeviction" && limited && (expiring || !strings.HasPrefix(policy, "volatile-")) {
		warnings = append(warnings, "the server evicts profiles when its memory is full (maxmemory-policy is "+policy+"); set maxmemory-policy to noeviction")
	}
	if schedule, known := save.Val()["save"]; known && schedule == "" && infoField(persistence.Val(), "aof_enabled") == "0" {
		warnings = append(warnings, "the server loses all profiles when it restarts (neither appendonly nor save is set); set appendonly to yes")
	}
	return warnings
}

// infoField returns the value of a field in the reply to INFO, "" if it is missing.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
