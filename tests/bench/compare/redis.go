package compare

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// server is the Redis server that all pipelines use in turn.
type server struct {
	url    string
	client *redis.Client
}

// redis starts a server for the benchmarks, or takes the one of REDIS_URL.
func (b *bench) redis(ctx context.Context) (*server, error) {
	if b.server != nil {
		return b.server, nil
	}
	out, err := b.run(ctx, "tests/services/redis.sh", "start", "bench", "everysec")
	if err != nil {
		return nil, err
	}
	url := strings.TrimSpace(string(out))
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	b.server = &server{url: url, client: redis.NewClient(options)}
	b.cleanup(func() {
		_ = b.server.client.Close()
		_, _ = b.run(context.Background(), "tests/services/redis.sh", "stop", "bench")
	})
	return b.server, nil
}

// hostPort splits the server's address.
func (s *server) hostPort() (host, port string) {
	host, port, _ = net.SplitHostPort(s.client.Options().Addr)
	return host, port
}

// reset empties the server and its log, so that every run begins alike.
func (s *server) reset(ctx context.Context) error {
	// A rewrite of the log in the middle of a run would count against it.
	if err := s.client.ConfigSet(ctx, "auto-aof-rewrite-percentage", "0").Err(); err != nil {
		return err
	}
	if err := s.client.FlushAll(ctx).Err(); err != nil {
		return err
	}
	// "in progress" is not an error: then wait for that one.
	_ = s.client.BgRewriteAOF(ctx).Err()
	for range 600 {
		running, err := s.info(ctx, "persistence", "aof_rewrite_in_progress")
		if err != nil {
			return err
		}
		scheduled, err := s.info(ctx, "persistence", "aof_rewrite_scheduled")
		if err != nil {
			return err
		}
		if running == 0 && scheduled == 0 {
			_ = s.client.Do(ctx, "MEMORY", "PURGE").Err()
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("redis does not finish rewriting its log")
}

// info is a number of the server's INFO.
func (s *server) info(ctx context.Context, section, field string) (float64, error) {
	text, err := s.client.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("redis says nothing of %s", field)
}

// cpu is the processor time the server has used.
func (s *server) cpu(ctx context.Context) (time.Duration, error) {
	user, err := s.info(ctx, "cpu", "used_cpu_user")
	if err != nil {
		return 0, err
	}
	sys, err := s.info(ctx, "cpu", "used_cpu_sys")
	return time.Duration((user + sys) * float64(time.Second)), err
}

// memory is what the server's data takes.
func (s *server) memory(ctx context.Context) (float64, error) {
	return s.info(ctx, "memory", "used_memory")
}

// fill sets keys by number to values of so many bytes.
func (s *server) fill(ctx context.Context, n, bytes int, keys ...func(int) string) error {
	value := strings.Repeat("x", bytes)
	for at := 0; at < n; at += 1000 {
		pipe := s.client.Pipeline()
		for i := at; i < min(at+1000, n); i++ {
			for _, key := range keys {
				pipe.Set(ctx, key(i), value, 0)
			}
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
