package redis

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

type warnings struct {
	mu    sync.Mutex
	lines []string
}

func (w *warnings) Warnf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// startServer starts a Redis with the given settings, or skips the test.
func startServer(t *testing.T, settings ...string) (addr string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("needs redis-server")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, listener.Close())
	cmd := exec.Command(path, append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", t.TempDir()}, settings...)...)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr = listener.Addr().String()
	client := goredis.NewClient(&goredis.Options{Addr: addr, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	require.Eventually(t, func() bool { return client.Ping(ctx).Err() == nil }, waitLimit, pollInterval)
	return addr
}

func TestSettingsThatLoseProfilesAreReportedOnce(t *testing.T) {
	const evicts, forgets = "set maxmemory-policy to noeviction", "set appendonly to yes"
	lru := []string{"--maxmemory", "100mb", "--maxmemory-policy"}
	for name, c := range map[string]struct {
		settings []string
		options  Options
		want     []string
	}{
		"safe":                         {settings: []string{"--appendonly", "yes", "--save", ""}},
		"snapshots":                    {settings: []string{"--save", "60 1"}},
		"no persistence":               {settings: []string{"--save", ""}, want: []string{forgets}},
		"eviction":                     {settings: slices.Concat(lru, []string{"allkeys-lru", "--appendonly", "yes"}), want: []string{evicts}},
		"both":                         {settings: slices.Concat(lru, []string{"allkeys-lru", "--save", ""}), want: []string{evicts, forgets}},
		"eviction without a limit":     {settings: []string{"--maxmemory-policy", "allkeys-lru", "--appendonly", "yes"}},
		"eviction of keys with a TTL":  {settings: slices.Concat(lru, []string{"volatile-lru", "--appendonly", "yes"})},
		"eviction of expiring records": {settings: slices.Concat(lru, []string{"volatile-lru", "--appendonly", "yes"}), options: Options{IdleExpiry: 1e12}, want: []string{evicts}},
		"CONFIG is not permitted":      {settings: []string{"--save", "", "--rename-command", "CONFIG", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			var log warnings
			c.options.URL, c.options.Logger = "redis://"+startServer(t, c.settings...), &log
			s := open(t, c.options)
			for range 3 {
				_, err := s.Load(ctx, []string{"k"})
				require.NoError(t, err)
			}
			require.Len(t, log.lines, len(c.want), strings.Join(log.lines, "\n"))
			for i, want := range c.want {
				require.Contains(t, log.lines[i], want)
			}
		})
	}
}
